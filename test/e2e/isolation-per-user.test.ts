/**
 * Fifty users at once over a stdio server with processes for each user: the same request ids, progress tokens, resources and tools,
 * and yet whatever a user gets was said by that user's own process. The other half: sessions that end, and access that ends.
 */
import { randomBytes } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { META, MODERN } from "../fixtures/messages.ts";
import { fixtureCommand, processesOf, waitFor } from "../fixtures/processes.ts";
import { type ForeignServer, foreignServer } from "../oauth/foreign-server.ts";
import { stop } from "../oauth/support.ts";
import { type ClientEra, ERAS, envelope, rawSession } from "./scripted.ts";
import { type World, world } from "./world.ts";

const USERS = 50;
const ROUNDS = 3;
const URI = "diary://mine";
const MARK = /mark\d\dx[0-9a-f]{8}/g;
const marks = Array.from({ length: USERS }, (_, index) => `mark${index + 10}x${randomBytes(4).toString("hex")}`);
const userEnvironment = { WHO: { from: "subject", otherwise: "nobody" } };
const everybody = { roles: { all: { may: ["*"] } }, assign: [{ role: "all", when: "true" }] };

let http: Server;
let issuer: ForeignServer;
beforeAll(async () => {
  http = createServer(async (asked, response) => {
    const answer = await issuer.http.fetch(new URL(asked.url ?? "/", issuer.issuer));
    response.writeHead(answer.status, { "content-type": "application/json" }).end(await answer.text());
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  issuer = await foreignServer(Date.now, `http://127.0.0.1:${(http.address() as AddressInfo).port}`);
  const origin = issuer.issuer;
  issuer.answers.set(`${origin}/.well-known/oauth-authorization-server`, () =>
    Response.json({ issuer: origin, jwks_uri: `${origin}/keys`, token_endpoint: `${origin}/token` }),
  );
});
afterAll(() => stop(http));

/** One user through one client, and everything that came: each answer whole, and each stream as far as it has come. */
class User {
  readonly mark: string;
  readonly got: string[] = [];
  readonly #era: ClientEra;
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #over = new AbortController();

  constructor(mark: string, era: ClientEra, url: string, token: string) {
    this.mark = mark;
    this.#era = era;
    this.#url = url;
    this.#headers = {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": era === "modern" ? MODERN : "2025-11-25",
    };
  }

  /** Everyone uses one id and one progress token. */
  async ask(method: string, params: object = {}): Promise<string> {
    const response = await this.#send(method, params);
    const session = response.headers.get("mcp-session-id");
    if (session !== null) this.#headers["mcp-session-id"] = session;
    const text = await response.text();
    this.got.push(text);
    return text;
  }

  /** Hears of changes of what everybody calls by one URI, and of lists. */
  async listen(): Promise<void> {
    if (this.#era === "modern") {
      this.#read(
        await this.#send("subscriptions/listen", {
          notifications: { resourceSubscriptions: [URI], toolsListChanged: true, resourcesListChanged: true },
        }),
      );
      return;
    }
    const clientInfo = { name: "same", version: "1" };
    await this.ask("initialize", { protocolVersion: "2025-11-25", capabilities: {}, clientInfo });
    await this.ask("logging/setLevel", { level: "debug" });
    this.#read(await fetch(this.#url, { headers: this.#headers, signal: this.#over.signal }));
    await this.ask("resources/subscribe", { uri: URI });
  }

  hangUp(): void {
    this.#over.abort();
  }

  #send(method: string, params: object): Promise<Response> {
    const level = `"${META}/logLevel":"debug"`;
    const meta = [...(this.#era === "modern" ? [envelope(), level] : []), '"progressToken":"same"'].join(",");
    const text = JSON.stringify(params).slice(1, -1);
    const { name, uri } = params as { name?: string; uri?: string };
    const named = name ?? uri;
    const headers = {
      ...this.#headers,
      ...(this.#era === "modern" && { "mcp-method": method, ...(named !== undefined && { "mcp-name": named }) }),
    };
    const body = `{"jsonrpc":"2.0","id":"same","method":"${method}","params":{${text}${text === "" ? "" : ","}"_meta":{${meta}}}}`;
    return fetch(this.#url, { method: "POST", headers, body, signal: this.#over.signal });
  }

  #read(response: Response): void {
    const at = this.got.push("") - 1;
    const read = async () => {
      for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) this.got[at] += chunk;
    };
    read().catch(() => {}); // Hung up at the end.
  }
}

describe.each(ERAS)("a server with processes for each user that speaks %s", (serverEra) => {
  let one: World;
  const marker = `diary-${randomBytes(6).toString("hex")}`;
  beforeAll(async () => {
    const command = [...fixtureCommand("diary-stdio", ["--era", serverEra]), marker];
    one = await world({
      servers: { it: { command, isolation: "per-user", userEnvironment, instances: { processes: 1 } } },
      clients: undefined,
      authorization: { issuer: issuer.issuer },
      ...everybody,
    });
  });
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    expect(await processesOf(marker)).toEqual([]);
  });

  test.each(ERAS)(
    "50 users with %s clients get what their own process says and nothing of another's",
    async (era) => {
      const users = await Promise.all(
        marks.map(async (mark, index) => {
          const claims = { sub: mark, aud: one.url, scope: "mcp:read mcp:call" };
          // Half of them through one client: what tells users apart is not their client alone.
          const token = await issuer.sign(
            { ...claims, client_id: index % 2 === 0 ? "agent" : mark },
            { typ: "at+jwt" },
          );
          return new User(mark, era, one.url, token);
        }),
      );
      try {
        await Promise.all(users.map((user) => user.listen()));
        for (let round = 0; round < ROUNDS; round++)
          await Promise.all(
            users.flatMap((user, index) => {
              const { mark } = user;
              const tool = (name: string, args: object = {}) => user.ask("tools/call", { name, arguments: args });
              const wanted = async (what: string, answer: Promise<string>) => expect(await answer).toContain(what);
              return [
                wanted(`"who":"${mark}"`, tool("write", { text: `${era} ${round} of ${mark}`, ms: index % 4 })),
                wanted(`"WHO":"${mark}"`, tool("environment")),
                wanted("grown", tool("grow")),
                wanted(mark, user.ask("resources/read", { uri: URI })),
                wanted(
                  mark,
                  user.ask("completion/complete", { ref: { type: "ref/resource", uri: URI }, argument: {} }),
                ),
                // What all are offered is what a process offers that belongs to nobody.
                expect(user.ask("tools/list")).resolves.not.toContain("tool-of"),
                wanted(`"uri":"${URI}"`, user.ask("resources/list")),
              ];
            }),
          );
        const updates = ({ got }: User) => got.join("").match(/notifications\/resources\/updated/g)?.length ?? 0;
        await waitFor(() => users.every((user) => updates(user) > 0));
        for (const user of users) {
          const text = user.got.join("\n");
          expect([...new Set(text.match(MARK))]).toEqual([user.mark]);
          expect(text.match(/"method":"notifications\/progress"/g)?.length).toBe(ROUNDS);
          expect(text).not.toMatch(/"progressToken":(?!"same")/);
          expect(text).not.toContain("list_changed");
          expect(updates(user)).toBeLessThanOrEqual(ROUNDS);
          // Everything that this user wrote before is there, and in a process of this user alone.
          const last = await user.ask("tools/call", { name: "write", arguments: { text: "last" } });
          for (let round = 0; round < ROUNDS; round++) expect(last).toContain(`${era} ${round} of ${user.mark}`);
        }
        expect((await processesOf(marker)).length).toBeLessThanOrEqual(USERS + 2);
      } finally {
        for (const user of users) user.hangUp();
      }
    },
    180_000,
  );
});

test("where another server issues the tokens, a user's processes outlive a token that runs out", async () => {
  await using one = await world({
    servers: { it: { command: fixtureCommand("diary-stdio"), isolation: "per-user", userEnvironment } },
    clients: undefined,
    authorization: { issuer: issuer.issuer },
    ...everybody,
  });
  const claims = { sub: "ann", client_id: "agent", aud: one.url, scope: "mcp:read mcp:call" };
  const exp = Math.ceil(Date.now() / 1000) + 2;
  const write = async (token: string, text: string) =>
    (await rawSession(one.url, token, "modern", "{}")).ask("tools/call", [
      '"name":"write"',
      `"arguments":{"text":"${text}"}`,
    ]);
  await write(await issuer.sign({ ...claims, exp }, { typ: "at+jwt" }), "before");
  // Every five seconds it is looked who still has access.
  await sleep(exp * 1000 - Date.now() + 6_000);
  const after = await write(await issuer.sign(claims, { typ: "at+jwt" }), "after");
  expect(after.body).toContain('"kept":["before","after"]');
});

describe.each(ERAS)("a server with processes for each session that speaks %s", (serverEra) => {
  const started = async () => {
    const marker = `diary-${randomBytes(6).toString("hex")}`;
    const command = [...fixtureCommand("diary-stdio", ["--era", serverEra]), marker];
    const one = await world({
      servers: { it: { command, isolation: "per-session", userEnvironment, instances: { processes: 1 } } },
      ...everybody,
    });
    return { one, marker };
  };
  const write = async (session: Awaited<ReturnType<typeof rawSession>>, text: string) =>
    (await session.ask("tools/call", ['"name":"write"', `"arguments":{"text":"${text}"}`])).body;

  test("two sessions of one client have nothing in common, and the end of one ends its processes", async () => {
    const { one, marker } = await started();
    await using _ = one;
    const { access_token: token } = await one.tokens();
    const [first, second] = [
      await rawSession(one.url, token, "legacy", "{}"),
      await rawSession(one.url, token, "legacy", "{}"),
    ];
    await write(first, "of-the-first");
    expect(await write(second, "of-the-second")).not.toContain("of-the-first");
    expect(await write(first, "again")).toContain("of-the-first");
    const before = (await processesOf(marker)).length;
    await fetch(one.url, { method: "DELETE", headers: first.headers });
    await waitFor(async () => (await processesOf(marker)).length === before - 1);
    expect(await write(second, "still")).toContain("of-the-second");
  });

  // A server of 2026-07-28 says so in the answer.
  if (serverEra === "legacy")
    test("that a page is done is told to the session whose process had it opened", async () => {
      const { one } = await started();
      await using _ = one;
      const { access_token: token } = await one.tokens();
      const told: unknown[] = [];
      const client = async (name: string) => {
        const made = new Client({ name, version: "1" }, { capabilities: { elicitation: { url: {} } } });
        made.setRequestHandler(ElicitRequestSchema, async () => ({ action: "accept" }));
        made.fallbackNotificationHandler = async ({ params }) => void told.push([name, params?.["pid"]]);
        const requestInit = { headers: { authorization: `Bearer ${token}` } };
        await made.connect(new StreamableHTTPClientTransport(new URL(one.url), { requestInit }) as never);
        return made;
      };
      const [mine, others] = [await client("mine"), await client("others")];
      const { structuredContent: page } = await mine.callTool({ name: "page" });
      await others.callTool({ name: "done" });
      await waitFor(async () => {
        await mine.callTool({ name: "done" });
        return told.length > 0;
      });
      expect(told).toEqual([["mine", (page as { pid: number }).pid]]);
      await Promise.all([mine.close(), others.close()]);
    });

  test("clients without sessions share nothing but with themselves, and revoked access ends the processes", async () => {
    const { one, marker } = await started();
    await using _ = one;
    const [mine, others] = [await one.tokens(), await one.tokens()];
    const client = (token: string) => rawSession(one.url, token, "modern", "{}");
    await write(await client(mine.access_token), "of-mine");
    expect(await write(await client(others.access_token), "of-others")).not.toContain("of-mine");
    expect(await write(await client(mine.access_token), "again")).toContain("of-mine");
    const before = (await processesOf(marker)).length;
    const body = new URLSearchParams({ token: mine.refresh_token ?? mine.access_token, client_id: mine.client });
    expect((await fetch(`${one.origin}/oauth/revoke`, { method: "POST", body })).status).toBe(200);
    await waitFor(async () => (await processesOf(marker)).length === before - 1);
    expect(await write(await client(others.access_token), "still")).toContain("of-others");
  });
});
