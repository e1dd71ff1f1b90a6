/** What clients hear without asking again: list changes and resource updates, in both generations, and when it ends. */
import { request } from "node:http";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { verifies } from "../requirements.ts";
import { modernRequest, type World, world } from "./world.ts";

const GREETING = "test://static/greeting";
const PICTURE = "test://static/picture";
const ID = "io.modelcontextprotocol/subscriptionId";

interface Message {
  id?: string | number;
  method?: string;
  params?: { uri?: string; _meta?: Record<string, unknown>; notifications?: Record<string, unknown> };
  result?: Record<string, unknown>;
}
interface Stream {
  readonly messages: Message[];
  readonly ended: Promise<void>;
  over: boolean;
  close(): void;
}

const open: Stream[] = [];
afterEach(() => {
  for (const stream of open.splice(0)) stream.close();
});

/** Opens an event stream and resolves once it has begun. */
function stream(
  one: World,
  method: string,
  headers: Record<string, string>,
  token: string,
  body = "",
): Promise<Stream> {
  return new Promise((resolve, reject) => {
    const sent = request(
      one.url,
      {
        method,
        agent: false,
        headers: {
          authorization: `Bearer ${token}`,
          accept: "application/json, text/event-stream",
          ...(body !== "" && { "content-type": "application/json" }),
          ...headers,
        },
      },
      (response) => {
        if (response.statusCode !== 200) return reject(new Error(`status ${response.statusCode}`));
        const messages: Message[] = [];
        const ended = Promise.withResolvers<void>();
        let rest = "";
        const mine: Stream = { messages, ended: ended.promise, over: false, close: () => sent.destroy() };
        response.setEncoding("utf8").on("data", (chunk: string) => {
          const events = (rest + chunk).split("\n\n");
          rest = events.pop() ?? "";
          for (const event of events) {
            const data = /^data: (.*)$/m.exec(event)?.[1];
            if (data !== undefined) messages.push(JSON.parse(data) as Message);
          }
        });
        response.on("error", () => {});
        response.on("close", () => {
          mine.over = true;
          ended.resolve();
        });
        open.push(mine);
        resolve(mine);
      },
    );
    sent.on("error", reject);
    sent.end(body);
  });
}

/** A legacy session with its GET stream. */
async function session(one: World, token: string) {
  const initialized = await one.post(
    {
      jsonrpc: "2.0",
      id: 0,
      method: "initialize",
      params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "t", version: "1" } },
    },
    {},
    token,
  );
  await initialized.text();
  const headers = {
    "mcp-session-id": initialized.headers.get("mcp-session-id") ?? "",
    "mcp-protocol-version": "2025-11-25",
  };
  const ask = async (method: string, params: object) =>
    (await (await one.post({ jsonrpc: "2.0", id: 1, method, params }, headers, token)).json()) as {
      result?: unknown;
      error?: { code: number };
    };
  return { ...(await stream(one, "GET", headers, token)), ask, headers };
}
async function listen(one: World, token: string, notifications: object, id: string | number = "listen-1") {
  const [body, headers] = modernRequest("subscriptions/listen", { notifications }, id);
  const mine = await stream(one, "POST", headers, token, JSON.stringify(body));
  await waitFor(() => mine.messages.length > 0);
  return mine;
}
async function tool(one: World, token: string, name: string, args: object = {}) {
  const [body, headers] = modernRequest("tools/call", { name, arguments: args });
  const text = await (await one.post(body, headers, token)).text();
  expect(text).toContain('"result"');
}
const methods = ({ messages }: Pick<Stream, "messages">) => messages.map(({ method }) => method);
const updates = ({ messages }: Pick<Stream, "messages">) =>
  messages.filter(({ method }) => method === "notifications/resources/updated").map(({ params }) => params?.uri);

describe.each([
  ["http", "legacy"],
  ["http", "modern"],
  ["stdio", "legacy"],
  ["stdio", "modern"],
] as const)("behind a %s server that speaks %s", (transport, era) => {
  let one: World;
  let fixture: Fixture | undefined;
  let token: string;
  let other: string;
  beforeAll(async () => {
    if (transport === "http") fixture = await startFixture("echo-http", ["--era", era]);
    one = await world({
      servers: {
        echo:
          fixture === undefined
            ? { command: fixtureCommand("echo-stdio", ["--era", era]), processes: { max: 1 } }
            : { url: `${fixture.origin}/mcp` },
      },
    });
    token = (await one.tokens()).access_token;
    other = (await one.tokens()).access_token;
  });
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    await fixture?.stop();
  });
  /** Touches a resource until somebody has heard it: an upstream subscription begins a moment after its acknowledgment. */
  const touchUntil = async (uri: string, heard: () => boolean) => {
    await waitFor(async () => {
      await tool(one, token, "touch", { uri });
      return heard();
    });
  };

  test("a legacy client that subscribed hears of updates on its GET stream, and after unsubscribing no more", async () => {
    const mine = await session(one, token);
    const foreign = await session(one, other);
    expect(await mine.ask("resources/subscribe", { uri: GREETING })).toMatchObject({ result: {} });
    await touchUntil(GREETING, () => updates(mine).includes(GREETING));
    expect(mine.messages[0]).toEqual({
      jsonrpc: "2.0",
      method: "notifications/resources/updated",
      params: { uri: GREETING },
    });

    expect(await mine.ask("resources/subscribe", { uri: PICTURE })).toMatchObject({ result: {} });
    expect(await mine.ask("resources/unsubscribe", { uri: GREETING })).toMatchObject({ result: {} });
    const before = updates(mine).filter((uri) => uri === GREETING).length;
    await tool(one, token, "touch", { uri: GREETING });
    await touchUntil(PICTURE, () => updates(mine).includes(PICTURE));
    expect(updates(mine).filter((uri) => uri === GREETING).length).toBe(before);
    expect(updates(foreign)).toEqual([]);
  });

  verifies(
    ["subscription-acknowledged", "subscription-filter"],
    "a modern client gets its acknowledgment first, then what it asked for, each with its subscription's id",
    async () => {
      const mine = await listen(one, token, { resourceSubscriptions: [GREETING] }, 42);
      expect(mine.messages[0]).toEqual({
        jsonrpc: "2.0",
        method: "notifications/subscriptions/acknowledged",
        params: { _meta: { [ID]: 42 }, notifications: { resourceSubscriptions: [GREETING] } },
      });
      await touchUntil(GREETING, () => updates(mine).includes(GREETING));
      expect(mine.messages[1]).toEqual({
        jsonrpc: "2.0",
        method: "notifications/resources/updated",
        params: { uri: GREETING, _meta: { [ID]: 42 } },
      });
      const foreign = await listen(one, other, { resourceSubscriptions: [PICTURE] });
      await touchUntil(PICTURE, () => updates(foreign).includes(PICTURE));
      expect(updates(mine)).not.toContain(PICTURE);
      expect(updates(foreign)).not.toContain(GREETING);
    },
  );

  verifies(
    "subscription-filter",
    "a changed list is told to both generations, and to nobody who did not ask; the new list is there at once",
    async () => {
      const legacy = await session(one, token);
      const modern = await listen(one, token, { toolsListChanged: true }, "a");
      const uninterested = await listen(one, other, { promptsListChanged: true }, "b");
      const names = async () => {
        const [body, headers] = modernRequest("tools/list");
        const answer = (await (await one.post(body, headers, token)).json()) as {
          result: { tools: { name: string }[] };
        };
        return answer.result.tools.map(({ name }) => name);
      };
      const had = (await names()).includes("extra");
      await tool(one, token, "change-tools");
      await waitFor(() => methods(legacy).includes("notifications/tools/list_changed"));
      await waitFor(() => methods(modern).includes("notifications/tools/list_changed"));
      expect((await names()).includes("extra")).toBe(!had);
      const told = modern.messages.find(({ method }) => method === "notifications/tools/list_changed");
      expect(told?.params?._meta?.[ID]).toBe("a");
      expect(methods(uninterested)).toEqual(["notifications/subscriptions/acknowledged"]);
    },
  );

  verifies("legacy-one-stream", "the newest of two streams of one session gets a message, and only it", async () => {
    const mine = await session(one, token);
    const second = await stream(one, "GET", mine.headers, token);
    await mine.ask("resources/subscribe", { uri: GREETING });
    await touchUntil(GREETING, () => updates(second).includes(GREETING));
    expect(updates(mine)).toEqual([]);
  });
});

describe.each(["legacy", "modern"] as const)("a server over stdio that speaks %s", (era) => {
  test("and dies is subscribed to again, for clients of both generations and for those who still want it", async () => {
    await using one = await world({
      servers: { echo: { command: fixtureCommand("echo-stdio", ["--era", era]), processes: { max: 1 } } },
    });
    const { access_token: token } = await one.tokens();
    const [legacy, leaving] = [await session(one, token), await session(one, token)];
    const modern = await listen(one, token, { resourceSubscriptions: [GREETING] });
    for (const client of [legacy, leaving]) await client.ask("resources/subscribe", { uri: GREETING });
    await leaving.ask("resources/unsubscribe", { uri: GREETING });
    await legacy.ask("tools/call", { name: "crash", arguments: {} });
    await waitFor(async () => {
      await tool(one, token, "touch", { uri: GREETING });
      return updates(legacy).length > 0 && updates(modern).length > 0;
    });
    expect(updates(leaving)).toEqual([]);
  });
});

describe("what a caller may not read", () => {
  verifies(
    "subscription-acknowledged",
    "is left out of the acknowledgment, refused to `resources/subscribe`, and never heard of",
    async () => {
      await using one = await world({
        servers: { echo: { command: fixtureCommand("echo-stdio"), processes: { max: 1 } } },
        roles: { reader: { may: ["*"], deny: ["resource:test://static/p*"] } },
        assign: [{ role: "reader", group: "owner" }],
      });
      const { access_token } = await one.tokens();
      const modern = await listen(one, access_token, {
        resourceSubscriptions: [GREETING, PICTURE, 7, "test://static/p-unknown"],
        toolsListChanged: "yes",
      });
      expect(modern.messages[0]?.params?.notifications).toEqual({ resourceSubscriptions: [GREETING] });
      const legacy = await session(one, access_token);
      expect(await legacy.ask("resources/subscribe", { uri: PICTURE })).toMatchObject({ error: { code: -32602 } });
      await legacy.ask("resources/subscribe", { uri: GREETING });
      await tool(one, access_token, "touch", { uri: PICTURE });
      await waitFor(async () => {
        await tool(one, access_token, "touch", { uri: GREETING });
        return updates(modern).length > 0 && updates(legacy).length > 0;
      });
      expect([...updates(modern), ...updates(legacy)]).not.toContain(PICTURE);
    },
  );
  test("a token without mcp:read may not listen at all", async () => {
    await using one = await world({ servers: { echo: { command: fixtureCommand("echo-stdio") } } });
    const { access_token } = await one.tokens({ scope: "mcp:call" });
    await expect(listen(one, access_token, { toolsListChanged: true })).rejects.toThrow("status 403");
  });
});

describe("a stream ends", () => {
  verifies(
    "subscription-closed",
    "when the gateway stops: a modern one with its result, a legacy one without a word",
    async () => {
      const one = await world({ servers: { echo: { command: fixtureCommand("echo-stdio") } } });
      try {
        const { access_token } = await one.tokens();
        const modern = await listen(one, access_token, { toolsListChanged: true }, "bye");
        const legacy = await session(one, access_token);
        await one.gateway.close();
        await Promise.all([modern.ended, legacy.ended]);
        expect(modern.messages.at(-1)).toMatchObject({
          id: "bye",
          result: { resultType: "complete", _meta: { [ID]: "bye" } },
        });
        expect(legacy.messages).toEqual([]);
      } finally {
        await one[Symbol.asyncDispose]();
      }
    },
  );
  test("when its grant is revoked, and those of others go on", async () => {
    await using one = await world({
      servers: { echo: { command: fixtureCommand("echo-stdio"), processes: { max: 1 } } },
    });
    const [first, second] = [await one.tokens(), await one.tokens()];
    const gone = [await listen(one, first.access_token, { toolsListChanged: true })];
    const legacy = await session(one, first.access_token);
    const stays = await listen(one, second.access_token, { toolsListChanged: true });
    await fetch(`${one.origin}/oauth/revoke`, {
      method: "POST",
      body: new URLSearchParams({ token: first.refresh_token, client_id: first.client }),
    });
    await Promise.all([...gone, legacy].map(({ ended }) => ended));
    await tool(one, second.access_token, "change-tools");
    await waitFor(() => methods(stays).includes("notifications/tools/list_changed"));
    expect(stays.over).toBe(false);
  });
  test("when its session is ended by the client", async () => {
    await using one = await world({ servers: { echo: { command: fixtureCommand("echo-stdio") } } });
    const { access_token } = await one.tokens();
    const mine = await session(one, access_token);
    await fetch(one.url, { method: "DELETE", headers: { ...mine.headers, authorization: `Bearer ${access_token}` } });
    await mine.ended;
  });
});
