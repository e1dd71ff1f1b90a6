/** What a contract that names fields lets through of what is no answer: a server may write anything beside it. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { META } from "../fixtures/messages.ts";
import type { Script } from "../fixtures/scripted.ts";
import { resultOf, type ScriptedWorld, SERVER_INFO, scripted } from "./scripted.ts";

const LEAK = "SELECT ssn FROM people";
const DRESS = `"resultType":"complete","ttlMs":0,"cacheScope":"private","_meta":{${SERVER_INFO}}`;
const TASK = `"taskId":"t-1","status":"working","statusMessage":"${LEAK}","createdAt":"2026-01-01T00:00:00Z","lastUpdatedAt":"2026-01-01T00:00:00Z","ttlMs":60000`;
const A_TASK = `{"resultType":"task",${TASK},"leak":"${LEAK}","_meta":{${SERVER_INFO},"vendor.example/leak":"${LEAK}"}}`;
const PAGE = { mode: "url", url: "https://desk.example/sign", elicitationId: "e-1", message: "Sign here" };
const TOOLS = ["works", "changes", "signs", "needs", "plain"].map((name) => ({
  name,
  inputSchema: { type: "object", properties: {} },
}));

const script: Script = {
  era: "modern",
  capabilities: '{"tools":{},"resources":{},"extensions":{"io.modelcontextprotocol/tasks":{}}}',
  results: {
    "tools/list": { result: `{${DRESS},"tools":${JSON.stringify(TOOLS)}}` },
    "resources/list": { result: `{${DRESS},"resources":[{"uri":"desk://prices","name":"prices"}]}` },
    "resources/templates/list": { result: `{${DRESS},"resourceTemplates":[]}` },
    "resources/read desk://prices": { result: A_TASK },
    "tools/call works": { result: A_TASK },
    "tools/call changes": { before: [["notifications/tools/list_changed", "{}"]], result: A_TASK },
    "tools/call signs": {
      error: JSON.stringify({ code: -32042, message: LEAK, data: { elicitations: [PAGE], query: LEAK } }),
    },
    "tools/call needs": {
      error: JSON.stringify({
        code: -32021,
        message: LEAK,
        data: { requiredCapabilities: { sampling: {} }, query: LEAK },
      }),
    },
    "tasks/get": { result: `{"resultType":"complete",${TASK},"leak":"${LEAK}"}` },
    "tasks/cancel": { result: `{${DRESS}}` },
  },
};
const under = (name: string) => ({ from: `desk/${name}`, description: "Does it.", output: ["status"] });

let one: ScriptedWorld;
beforeAll(async () => {
  one = await scripted(
    "stdio",
    { desk: script },
    {
      tools: { works: under("works"), changes: under("changes"), signs: under("signs"), needs: under("needs") },
      resources: { "prices://all": { from: "desk/desk://prices", description: "Prices.", output: ["price"] } },
    },
  );
}, 60_000);
afterAll(() => one?.[Symbol.asyncDispose]());

const CAPABILITIES = '{"elicitation":{"form":{},"url":{}},"extensions":{"io.modelcontextprotocol/tasks":{}}}';

describe("under a contract that names fields", () => {
  test("an answer to a read that looks like a task is shaped as what was read", async () => {
    const client = await one.client("modern", CAPABILITIES);
    const reply = await client.ask("resources/read", ['"uri":"prices://all"']);
    expect(reply.body).not.toContain(LEAK);
    expect(resultOf(reply)["contents"]).toEqual([]);
  });

  test("a task says how far it is, and none of the server's words", async () => {
    const client = await one.client("modern", CAPABILITIES);
    const made = await client.ask("tools/call", ['"name":"works"', '"arguments":{}']);
    expect(made.body).not.toContain(LEAK);
    const { taskId, status } = resultOf(made);
    expect(status).toBe("working");
    const asked = await client.ask("tasks/get", [`"taskId":${JSON.stringify(taskId)}`]);
    expect(asked.body).not.toContain(LEAK);
    expect(resultOf(asked)).toMatchObject({ taskId, status: "working" });
    await client.ask("tasks/cancel", [`"taskId":${JSON.stringify(taskId)}`]);
  });

  test("a task says none of them either while nobody knows what its tool is", async () => {
    const client = await one.client("modern", CAPABILITIES);
    const made = await client.ask("tools/call", ['"name":"changes"', '"arguments":{}']);
    expect(resultOf(made)["status"]).toBe("working");
    expect(made.body).not.toContain(LEAK);
  });

  test("pages that have to be opened are told, and nothing around them", async () => {
    const client = await one.client("legacy", CAPABILITIES);
    const reply = await client.ask("tools/call", ['"name":"signs"', '"arguments":{}']);
    expect(reply.body).toContain("https://desk.example/sign");
    expect(reply.body).not.toContain(LEAK);
  });

  test("capabilities that a client lacks are told, and nothing around them", async () => {
    const client = await one.client("modern", CAPABILITIES);
    const reply = await client.ask("tools/call", ['"name":"needs"', '"arguments":{}'], [`"${META}/x":1`]);
    expect(reply.body).toContain("requiredCapabilities");
    expect(reply.body).not.toContain(LEAK);
  });
});
