/** The token for the API behind a server of the author library that runs over stdio: the one that its gateway handed over, and no other. */
import { hash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { PassThrough } from "node:stream";
import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { serveStdio } from "../../src/author/stdio.ts";
import { openedIn } from "../audit/opened.ts";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { clientAt, ERAS } from "./clients.ts";
import { desk } from "./desk.ts";

const KEY = "drawbridge/upstream-token";
const AUDIENCE = "https://api.shop.example";
const sha256 = (text: string) => hash("sha256", text, "hex");

describe("behind a gateway, as its stdio child", () => {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-author-"));
  let one: World;
  beforeAll(async () => {
    const command = [process.execPath, join(import.meta.dirname, "desk.ts")];
    one = await world({
      store: `sqlite:${join(folder, "gateway.db")}`,
      servers: {
        desk: { command, credentials: { exchange: { audience: AUDIENCE } } },
        without: { command },
      },
    });
  }, 60_000);
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  test.each(ERAS)("a handler gets it for the caller of a %s client, and never the caller's own", async (era) => {
    const own = (await one.tokens()).access_token;
    const client = await clientAt({ url: one.url, token: own }, era);
    const lent = await client.callTool({ name: "desk_lends", arguments: {} });
    await client.close();
    const { audience, token } = lent.structuredContent as { audience: string; token: string };
    expect(audience).toBe(AUDIENCE);
    expect(token).not.toBe(sha256(own));
    const log = new DatabaseSync(join(folder, "gateway.db"), { readOnly: true, timeout: 10_000 });
    const record = openedIn(log).findLast(({ call }) => call?.name === "desk_lends");
    log.close();
    expect(record).toMatchObject({ principal: { subject: decodeJwt(own).sub }, call: { audience: AUDIENCE } });
  });

  test("a handler that asked a person goes on with it", async () => {
    const own = (await one.tokens()).access_token;
    for (const era of ERAS) {
      const client = await clientAt({ url: one.url, token: own }, era, () => ({
        action: "accept",
        content: { sure: true },
      }));
      const { structuredContent } = await client.callTool({ name: "desk_lends_later", arguments: {} });
      await client.close();
      const { before, after } = structuredContent as { before: string; after: string };
      expect(after).toBe(before);
    }
  });

  test("without `credentials` there is none, whatever the client sends", async () => {
    const own = (await one.tokens()).access_token;
    const _meta = { [KEY]: { token: "e30.e30.x", audience: AUDIENCE } };
    const call = modernRequest("tools/call", { name: "without_lends", arguments: {}, _meta });
    expect(await (await one.post(...call, own)).text()).toContain("Nobody exchanges tokens");
  });
});

describe("over stdio", () => {
  /** One server with its own streams. `now` is the time there. */
  function served() {
    const [input, output] = [new PassThrough(), new PassThrough()];
    let written = "";
    let now = 0;
    output.on("data", (chunk: Buffer) => {
      written += chunk.toString();
    });
    const over = serveStdio(desk, { input, output, errors: { write: () => true } }, () => now);
    let lastId = 0;
    return {
      at(time: number) {
        now = time;
      },
      async ask(params: Record<string, unknown>, token?: object) {
        const id = ++lastId;
        const meta = {
          "io.modelcontextprotocol/protocolVersion": "2026-07-28",
          "io.modelcontextprotocol/clientCapabilities": { elicitation: { form: {} } },
          ...(token !== undefined && { [KEY]: token }),
        };
        input.write(
          `${JSON.stringify({ jsonrpc: "2.0", id, method: "tools/call", params: { arguments: {}, ...params, _meta: meta } })}\n`,
        );
        await expect.poll(() => written).toContain(`"id":${id},`);
        const line = written.split("\n").find((one) => one.includes(`"id":${id},`)) ?? "";
        return JSON.parse(line) as {
          result?: { structuredContent?: object; requestState?: string; inputRequests?: Record<string, object> };
          error?: { code: number; message: string };
        };
      },
      async [Symbol.asyncDispose]() {
        input.end();
        await over;
      },
    };
  }
  const token = (name: string, expiresAt = "1970-01-01T00:01:00Z") => ({
    token: `e30.${Buffer.from(JSON.stringify({ aud: name })).toString("base64url")}.`,
    audience: AUDIENCE,
    expiresAt,
  });

  test("a token that has ended is not given out", async () => {
    await using one = served();
    one.at(59_000);
    expect(await one.ask({ name: "lends" }, token("a"))).toMatchObject({
      result: { structuredContent: { audience: "a" } },
    });
    one.at(60_000);
    expect((await one.ask({ name: "lends" }, token("a"))).error?.message).toContain("has ended. Call again.");
  });

  test("what is no token is none", async () => {
    await using one = served();
    for (const wrong of [{}, { token: "" }, { token: 7, audience: "a" }, { ...token("a"), expiresAt: "soon" }])
      expect((await one.ask({ name: "lends" }, wrong)).error?.message).toContain("Nobody exchanges tokens");
  });

  test("a call that goes on after a question has the token of the round that it goes on with", async () => {
    await using one = served();
    const [before, after] = [token("before"), token("after", "1970-01-01T01:00:00Z")];
    const asked = await one.ask({ name: "lends_later" }, before);
    const [key = ""] = Object.keys(asked.result?.inputRequests ?? {});
    // The first one has ended by then.
    one.at(120_000);
    const { requestState } = asked.result ?? {};
    const inputResponses = { [key]: { action: "accept", content: { sure: true } } };
    const done = await one.ask({ name: "lends_later", requestState, inputResponses }, after);
    expect(done.result?.structuredContent).toEqual({ before: sha256(before.token), after: sha256(after.token) });
  });
});
