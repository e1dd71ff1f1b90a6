/** Clauses that bind the gateway as a client of the servers behind it. */
import { expect } from "vitest";
import { mirroredParameters } from "../../src/upstream/mirrored-headers.ts";
import { startFixture, waitFor } from "../fixtures/processes.ts";
import { verifies, verifiesEach } from "../requirements.ts";
import { modernRequest, world } from "./world.ts";

verifies(
  "upstream-session",
  "a server's session is kept, renewed when it is forgotten, and ended at the end",
  async () => {
    await using fixture = await startFixture("echo-http", ["--era", "legacy"]);
    const stats = async () =>
      (await (await fetch(`${fixture.origin}/stats`)).json()) as {
        sessions: number;
        headers: Record<string, string>[];
      };
    const one = await world({ servers: { echo: { url: `${fixture.origin}/mcp` } } });
    try {
      const { access_token } = await one.tokens();
      const call = async (name: string, args: object) => {
        const [body, headers] = modernRequest("tools/call", { name, arguments: args });
        return (await one.post(body, headers, access_token)).json();
      };
      const fresh = { result: { content: [{ text: "still here" }] } };
      expect(await call("echo", { text: "still here" })).toMatchObject(fresh);
      await call("forget-sessions", {});
      expect((await stats()).sessions).toBe(0);
      expect(await call("echo", { text: "still here" })).toMatchObject(fresh);
      const { sessions, headers } = await stats();
      expect(sessions).toBeGreaterThan(0);
      const ids = new Set(headers.map((sent) => sent["mcp-session-id"]));
      expect(ids.size).toBeGreaterThanOrEqual(3);
      // Without a session comes only what may: `initialize`, and questions about which revision the server speaks.
      const without = headers.filter((sent) => sent["mcp-session-id"] === undefined);
      expect(without.length).toBeLessThan(headers.length / 2);
    } finally {
      await one[Symbol.asyncDispose]();
    }
    await waitFor(async () => (await stats()).sessions === 0);
  },
);

verifiesEach(
  "upstream-annotations",
  [
    ["no name", { type: "string", "x-mcp-header": "" }],
    ["a name with a line break", { type: "string", "x-mcp-header": "A\r\nX-Evil: 1" }],
    ["a name with a blank", { type: "string", "x-mcp-header": "A B" }],
    ["a name that is no text", { type: "string", "x-mcp-header": 7 }],
    ["a number", { type: "number", "x-mcp-header": "A" }],
    ["an object", { type: "object", "x-mcp-header": "A" }],
    ["a list's items", { type: "array", items: { type: "string", "x-mcp-header": "A" } }],
    ["a choice", { anyOf: [{ type: "string", "x-mcp-header": "A" }] }],
    ["a condition", { if: { properties: { x: { type: "string", "x-mcp-header": "A" } } } }],
    [
      "two that differ only in case",
      {
        type: "object",
        properties: { x: { type: "string", "x-mcp-header": "A" }, y: { type: "string", "x-mcp-header": "a" } },
      },
    ],
  ],
  "an annotation on %s is found invalid",
  (_what, schema) => {
    expect(mirroredParameters({ type: "object", properties: { p: schema } })).toBeTypeOf("string");
  },
);

verifies(
  "upstream-annotations",
  "annotations below properties alone are taken, wherever the words are only data",
  () => {
    const leaf = { type: "integer", "x-mcp-header": "Depth" };
    const schema = { type: "object", properties: { a: { type: "object", properties: { b: leaf } } } };
    expect(mirroredParameters(schema)).toEqual([{ header: "mcp-param-depth", path: ["a", "b"] }]);
    expect(mirroredParameters({ ...schema, default: { "x-mcp-header": "" } })).toHaveLength(1);
  },
);
