/**
 * The features of MCP in each pairing of eras: what is passed on, what is translated, what is refused. One test a row of the table;
 * questions of servers to their clients, and streams that are resumed, have files of their own.
 */
import { request } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { META } from "../fixtures/messages.ts";
import { waitFor } from "../fixtures/processes.ts";
import type { RawReply } from "../fixtures/raw-client.ts";
import type { Saying, Script } from "../fixtures/scripted.ts";
import {
  type ClientEra,
  ERAS,
  envelope,
  objectOf,
  type RawSession,
  resultOf,
  type ScriptedWorld,
  SERVER_INFO,
  scripted,
  TRANSPORTS,
} from "./scripted.ts";

const tool = (name: string, more = "") => `{"name":"${name}","inputSchema":{"type":"object"}${more}}`;
const NUMBERS = '{"type":"array","items":{"$ref":"#/$defs/n"},"$defs":{"n":{"type":"number"}}}';
const TOOLS = [
  tool("plain"),
  tool("numbers", `,"outputSchema":${NUMBERS}`),
  tool("anything"),
  tool("refused"),
  tool("hop-20"),
  tool("hop-21"),
  tool("hop-22"),
  tool("missing"),
  tool("counts"),
  tool("slow"),
  tool("asks"),
  tool("logs"),
  tool("recorded"),
  tool("as-task", ',"execution":{"taskSupport":"required"}'),
  tool("unpinnable", ',"vendor.example/n":1e400'),
  tool(
    "widget",
    ',"_meta":{"ui":{"resourceUri":"ui://view/a.html","visibility":["app"]},"ui/resourceUri":"ui://view/a.html"}',
  ),
];
const PAGE =
  '{"uri":"ui://view/a.html","name":"view","mimeType":"text/html;profile=mcp-app","_meta":{"ui":{"csp":{}}}}';
const UI = '"io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}';

/** What a modern server adds to every result. */
const dress = (era: ClientEra, text: string, ttl = "0", scope = "private") =>
  era === "legacy"
    ? text
    : `{"resultType":"complete","ttlMs":${ttl},"cacheScope":"${scope}","_meta":{${SERVER_INFO}},${text.slice(1)}`;

function script(era: ClientEra, own = ""): Script {
  const says = (result: string, before?: Saying["before"]): Saying => ({
    result: dress(era, result),
    ...(before !== undefined && { before }),
  });
  const fails = (code: number): Saying => ({ error: `{"code":${code},"message":"no"}` });
  const many = Array.from({ length: 200 }, (_, index) => [
    "notifications/progress",
    `{"progressToken":$TOKEN,"progress":${index + 1}}`,
  ]) as [string, string][];
  const log = (level: string) => ["notifications/message", `{"level":"${level}","data":"${level}"}`] as const;
  return {
    era,
    capabilities: `{"tools":{},"resources":{},"prompts":{},"completions":{},"logging":{},"tasks":{"list":{},"requests":{"tools":{"call":{}}}},"extensions":{${UI},"io.modelcontextprotocol/tasks":{}}}`,
    hello: `"instructions":"Be nice${own}."`,
    results: {
      "tools/list": says(`{"tools":[${TOOLS.join(",")}]}`),
      "resources/list": says(`{"resources":[${PAGE},{"uri":"test://a","name":"a${own}"}]}`),
      "resources/templates/list": says('{"resourceTemplates":[{"uriTemplate":"ui://view/{id}.html","name":"t"}]}'),
      "prompts/list": says('{"prompts":[{"name":"p"}]}'),
      "tools/call plain": says(`{"content":[{"type":"text","text":"plain${own}"}]}`),
      "tools/call numbers": says('{"content":[],"structuredContent":[1.0,2]}'),
      "tools/call anything": says('{"content":[],"structuredContent":"word"}'),
      "tools/call refused": says('{"content":[],"isError":true}'),
      "tools/call hop-20": fails(-32020),
      "tools/call hop-21": fails(-32021),
      "tools/call hop-22": fails(-32022),
      "tools/call missing": fails(-32002),
      "tools/call counts": says('{"content":[]}', many),
      "tools/call slow": { ...says('{"content":[]}'), afterMs: 30_000 },
      "tools/call asks": says('{"content":[]}', [["request:ping", "{}"]]),
      "tools/call logs": says('{"content":[]}', [log("debug"), log("info"), log("warning"), log("error")]),
      "prompts/get p": says('{"messages":[]}'),
      "resources/read test://a": { result: dress(era, '{"contents":[]}', "9000", "public") },
      "resources/read ui://view/a.html": says(
        `{"contents":[{"uri":"ui://view/a.html","text":"<p>${own}</p>","n":1.0},{"uri":"ui://view/b.js","text":""}]}`,
      ),
      "completion/complete": says('{"completion":{"values":["v"]}}'),
      "vendor/method": says("{}"),
    },
  };
}

/** One row in one pairing. */
interface Pair {
  readonly one: ScriptedWorld;
  readonly era: ClientEra;
  readonly serverEra: ClientEra;
  readonly transport: (typeof TRANSPORTS)[number];
  readonly client: RawSession;
}

const last = ({ messages }: RawReply) => messages.at(-1);
const call = ({ client }: Pick<Pair, "client">, name: string, meta: string[] = []) =>
  client.ask("tools/call", [`"name":"${name}"`], meta);
const HELLO = (version: string) => [
  `"protocolVersion":"${version}"`,
  '"capabilities":{}',
  '"clientInfo":{"name":"raw","version":"1"}',
];
const hello = ({ client, era }: Pair) =>
  era === "modern" ? client.ask("server/discover") : client.ask("initialize", HELLO("2025-11-25"));
const MODERN_FIELDS = ["resultType", "ttlMs", "cacheScope", "_meta"];

const ROWS: Readonly<Record<string, (pair: Pair) => Promise<void>>> = {
  async "initialize and server/discover end at the gateway"(pair) {
    const result = last(await hello(pair))?.result;
    if (pair.era === "legacy")
      expect(result).toMatchObject({ protocolVersion: "2025-11-25", serverInfo: { name: "drawbridge" } });
    else expect(result).toMatchObject({ supportedVersions: expect.arrayContaining(["2026-07-28", "2025-11-25"]) });
    const hellos = (await pair.one.recorded()).filter((line) => /"method":"(initialize|server\/discover)"/.test(line));
    expect(hellos.length).toBeLessThanOrEqual(3);
  },
  async "a version that the gateway does not speak is answered by the gateway"({ client, era }) {
    if (era === "legacy") {
      expect(last(await client.ask("initialize", HELLO("1999-01-01")))?.result?.["protocolVersion"]).toBe("2025-11-25");
      return;
    }
    const _meta = envelope().replace("2026-07-28", "2031-01-01");
    const reply = await client.post(`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{${_meta}}}}`, {
      "mcp-protocol-version": "2031-01-01",
      "mcp-method": "tools/list",
    });
    expect([reply.status, last(reply)?.error?.code]).toEqual([400, -32022]);
  },
  async "a session is the gateway's own, or there is none"({ client, era, one }) {
    const id = client.headers["mcp-session-id"];
    if (era === "modern") {
      expect(id).toBeUndefined();
      // Names of sessions mean nothing here.
      expect((await client.ask("tools/list")).status).toBe(200);
      return;
    }
    expect(id).toMatch(/^[\w-]{43,}$/);
    expect((await one.recorded()).join("\n")).not.toContain(id);
  },
  async "servers see the gateway's own clientInfo"({ one, era }) {
    const client = await one.client(era);
    await call({ client }, "plain");
    expect((await one.recorded()).join("\n")).not.toContain('"name":"raw"');
  },
  async "a modern client learns which server an answer is of, a legacy one is spared"(pair) {
    const { result } = last(await call(pair, "plain")) ?? {};
    if (pair.era === "modern")
      expect(result?.["_meta"]).toEqual({ [`${META}/serverInfo`]: { name: "scripted", version: "1" } });
    else expect(result).not.toHaveProperty("_meta");
    const list = last(await pair.client.ask("tools/list"))?.result;
    if (pair.era === "modern")
      expect(list?.["_meta"]).toMatchObject({ [`${META}/serverInfo`]: { name: "drawbridge" } });
    else expect(list).not.toHaveProperty("_meta");
  },
  async "instructions are the server's"(pair) {
    expect(last(await hello(pair))?.result?.["instructions"]).toBe("Be nice.");
  },
  async "lists say how long they are good for, to those who know the fields"({ client, era }) {
    for (const method of ["tools/list", "resources/list", "resources/templates/list", "prompts/list"]) {
      const { result } = last(await client.ask(method)) ?? {};
      if (era === "modern")
        expect(result).toMatchObject({ resultType: "complete", ttlMs: 5000, cacheScope: "private" });
      else for (const field of MODERN_FIELDS) expect(result).not.toHaveProperty(field);
    }
  },
  async "lists come in one order, and leave out what cannot be passed on"({ client }) {
    const names = async () =>
      (resultOf(await client.ask("tools/list"))["tools"] as { name: string }[]).map(({ name }) => name);
    const expected = TOOLS.map((text) => (JSON.parse(text) as { name: string }).name);
    expect(await names()).toEqual(expected.filter((name) => name !== "unpinnable"));
    expect(await names()).toEqual(await names());
  },
  async "what a server lets everybody keep is private to the caller"({ client, era, serverEra }) {
    const { result } = last(await client.ask("resources/read", ['"uri":"test://a"'])) ?? {};
    if (era === "modern")
      expect(result).toMatchObject({ cacheScope: "private", ttlMs: serverEra === "modern" ? 9000 : 0 });
    else expect(result).toEqual({ contents: [] });
  },
  async "results have the fields of the client's revision and no others"({ client, era }) {
    const asked: [string, string[]][] = [
      ["tools/call", ['"name":"refused"']],
      ["prompts/get", ['"name":"p"']],
      ["completion/complete", ['"ref":{"type":"ref/prompt","name":"p"}', '"argument":{"name":"a","value":""}']],
    ];
    for (const [method, params] of asked) {
      const { result } = last(await client.ask(method, params)) ?? {};
      if (era === "modern") expect(result?.["resultType"], method).toBe("complete");
      else for (const field of MODERN_FIELDS) expect(result, method).not.toHaveProperty(field);
    }
  },
  async "structured content that is no object is wrapped for clients that know objects alone"(pair) {
    const { era, serverEra, client } = pair;
    const tools = last(await client.ask("tools/list"))?.result?.["tools"] as { name: string; outputSchema?: unknown }[];
    const { outputSchema } = tools.find(({ name }) => name === "numbers") ?? {};
    const moved = NUMBERS.replace("#/$defs/n", "#/properties/result/$defs/n");
    const wrapped = { type: "object", properties: { result: JSON.parse(moved) as unknown }, required: ["result"] };
    expect(outputSchema).toEqual(era === "legacy" ? wrapped : JSON.parse(NUMBERS));
    expect((await call(pair, "numbers")).body).toContain(
      era === "legacy" ? '"structuredContent":{"result":[1.0,2]}' : '"structuredContent":[1.0,2]',
    );
    // Without a schema it is as its server's revision has it.
    const bare = era === "modern" || serverEra === "legacy";
    expect((await call(pair, "anything")).body).toContain(
      bare ? '"structuredContent":"word"' : '"structuredContent":{"result":"word"}',
    );
  },
  async "Mcp-Method and Mcp-Name are held against the body"({ client, era }) {
    if (era === "legacy") return;
    const text = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"plain","_meta":{${envelope()}}}}`;
    const right = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "plain" };
    expect((await client.post(text, right)).status).toBe(200);
    for (const wrong of [{ "mcp-method": "tools/list" }, { "mcp-name": "refused" }]) {
      const reply = await client.post(text, { ...right, ...wrong });
      expect([reply.status, last(reply)?.error?.code]).toEqual([400, -32020]);
    }
  },
  async "codes that speak about one hop stay on it"(pair) {
    for (const name of ["hop-20", "hop-22"]) {
      const reply = await call(pair, name);
      expect(reply.status).toBe(200);
      expect([-32603, -31502]).toContain(last(reply)?.error?.code);
    }
  },
  async "a resource that is not there has the code of the client's revision"(pair) {
    expect(last(await call(pair, "missing"))?.error?.code).toBe(pair.era === "modern" ? -32602 : -32002);
  },
  async "progress comes in order and whole, the last one too, though it comes together with the answer"(pair) {
    for (let round = 0; round < 5; round++) {
      const { messages } = await call(pair, "counts", ['"progressToken":"t"']);
      expect(messages.slice(0, -1).map(({ params }) => params)).toEqual(
        Array.from({ length: 200 }, (_, index) => ({ progressToken: "t", progress: index + 1 })),
      );
      expect(messages.at(-1)?.result).toBeDefined();
    }
    // Who did not ask for progress gets none.
    expect((await call(pair, "counts")).messages.length).toBe(1);
  },
  async "a cancelled call is cancelled in the server, with no word of the client's"({
    client,
    era,
    serverEra,
    transport,
    one,
  }) {
    const before = (await one.recorded()).length;
    const calling = abandonable(one, client, era);
    const closes = transport === "http" && serverEra === "modern";
    const of = async () => (await one.recorded()).slice(before);
    const sent = await waitFor(async () => (await of()).find((line) => line.includes('"name":"slow"')));
    const { id } = JSON.parse(sent) as { id: number };
    if (era === "legacy")
      await client.post(
        '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"slow","reason":"private words"}}',
      );
    else calling.close();
    const said = await waitFor(async () =>
      (await of()).find((line) => line.includes(`"method":"${closes ? "closed" : "notifications/cancelled"}"`)),
    );
    calling.close();
    expect(JSON.parse(said)).toMatchObject({ params: closes ? { id } : { requestId: id } });
    expect((await of()).join("\n")).not.toContain("private words");
  },
  async "ping is answered where it arrives"({ client, era, one, serverEra }) {
    const reply = await client.ask("ping");
    if (era === "legacy") expect(last(reply)?.result).toEqual({});
    else expect([reply.status, last(reply)?.error?.code]).toEqual([404, -32601]);
    if (serverEra === "modern") return;
    expect(last(await call({ client }, "asks"))?.result).toBeDefined();
    const answer = await waitFor(async () => (await one.recorded()).find((line) => line.includes('"id":"asked"')));
    expect(JSON.parse(answer)).toEqual({ jsonrpc: "2.0", id: "asked", result: {} });
  },
  async "log messages come from the level on that the client asked for"({ one, era }) {
    const client = await one.client(era);
    const heard = async (level: string | undefined) => {
      if (era === "legacy" && level !== undefined) await client.ask("logging/setLevel", [`"level":"${level}"`]);
      const meta = era === "modern" && level !== undefined ? [`"${META}/logLevel":"${level}"`] : [];
      const { messages } = await call({ client }, "logs", meta);
      return messages.slice(0, -1).map(({ params }) => params?.["level"]);
    };
    expect(await heard(undefined)).toEqual([]);
    expect(await heard("warning")).toEqual(["warning", "error"]);
    expect(await heard("debug")).toEqual(["debug", "info", "warning", "error"]);
  },
  async "tasks are offered in the form of the client's revision, and a task that never was is unknown"(pair) {
    const { capabilities } = resultOf(await hello(pair)) as unknown as {
      capabilities: Record<string, Record<string, unknown>>;
    };
    const modern = pair.era === "modern";
    const own = { list: {}, cancel: {}, requests: { tools: { call: {} } } };
    expect(capabilities["tasks"]).toEqual(modern ? undefined : own);
    const extensions = Object.keys(capabilities["extensions"] ?? {}).toSorted();
    expect(extensions).toEqual([...(modern ? ["io.modelcontextprotocol/tasks"] : []), "io.modelcontextprotocol/ui"]);
    for (const method of ["tasks/get", "tasks/cancel", modern ? "tasks/update" : "tasks/result"]) {
      const reply = await pair.client.ask(method, ['"taskId":"t"']);
      expect(last(reply)?.error?.code, method).toBe(modern ? -32021 : -32602);
    }
  },
  async "a method of a vendor is refused, whoever has the extension"({ client, era, one }) {
    const reply = await client.ask("vendor/method");
    expect([reply.status, last(reply)?.error?.code]).toEqual([era === "modern" ? 404 : 200, -32601]);
    expect((await one.recorded()).join("\n")).not.toContain("vendor/method");
  },
  async "MCP Apps: the extension, the tools' pages and the pages themselves are there as they came"(pair) {
    const { client } = pair;
    expect(last(await hello(pair))?.result).toMatchObject({
      capabilities: { extensions: JSON.parse(`{${UI}}`) as object },
    });
    // Each tool of a server that makes tasks can be called as one.
    const offered = '"execution":{"taskSupport":"optional"},';
    expect((await client.ask("tools/list")).body.replaceAll(`{${offered}`, "{")).toContain(TOOLS.at(-1));
    expect((await client.ask("resources/list")).body).toContain(PAGE);
    expect((await client.ask("resources/read", ['"uri":"ui://view/a.html"'])).body).toContain(
      '{"uri":"ui://view/a.html","text":"<p></p>","n":1.0}',
    );
  },
  async "several messages in one body are refused, in each revision"({ client, era, one }) {
    const before = (await one.recorded()).length;
    const single = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"plain"${era === "modern" ? `,"_meta":{${envelope()}}` : ""}}}`;
    const headers =
      era === "modern" ? { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "plain" } : {};
    const versions = era === "modern" ? [undefined] : ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
    for (const version of versions) {
      const named = version === undefined ? {} : { "mcp-protocol-version": version };
      const reply = await client.post(`[${single},${single}]`, { ...headers, ...named });
      expect([reply.status, last(reply)?.error?.code]).toEqual([400, -32600]);
      expect(last(reply)?.error?.message).toContain("one message per request");
    }
    expect((await one.recorded()).slice(before).join("\n")).not.toContain('"name":"plain"');
  },
  async "what the client says of its roots ends at the gateway"({ client, era, one }) {
    if (era === "modern") return;
    const reply = await client.post('{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}');
    expect(reply.status).toBe(202);
    expect((await one.recorded()).join("\n")).not.toContain("roots/list_changed");
  },
};

describe.each(TRANSPORTS)("over %s", (transport) => {
  describe.each(ERAS)("a server that speaks %s", (serverEra) => {
    let one: ScriptedWorld;
    beforeAll(async () => {
      one = await scripted(transport, { it: script(serverEra) });
    });
    afterAll(() => one?.[Symbol.asyncDispose]());

    describe.each(ERAS)("and a %s client", (era) => {
      test.each(Object.entries(ROWS))("%s", async (_, row) => {
        await row({ one, era, serverEra, transport, client: await one.client(era) });
      });
    });
  });
});

describe.each(ERAS)("two servers that speak %s", (serverEra) => {
  let one: ScriptedWorld;
  beforeAll(async () => {
    one = await scripted("http", { red: script(serverEra, " red"), blue: script(serverEra, " blue") });
  });
  afterAll(() => one?.[Symbol.asyncDispose]());

  describe.each(ERAS)("and a %s client", (era) => {
    test("each tool has its server's name, and each call reaches its own server under the server's name for it", async () => {
      const client = await one.client(era);
      for (const server of ["red", "blue"])
        expect((await call({ client }, `${server}_plain`)).body).toContain(`"text":"plain ${server}"`);
    });

    test("each page of an app has its server's name, in lists, in tools and in what is read", async () => {
      const client = await one.client(era);
      const { tools } = resultOf(await client.ask("tools/list")) as unknown as {
        tools: { name: string; _meta?: unknown }[];
      };
      const { resources } = resultOf(await client.ask("resources/list")) as unknown as { resources: { uri: string }[] };
      for (const server of ["red", "blue"]) {
        const uri = `ui://${server}/view/a.html`;
        expect(tools.find(({ name }) => name === `${server}_widget`)?._meta).toEqual({
          ui: { resourceUri: uri, visibility: ["app"] },
          "ui/resourceUri": uri,
        });
        expect(resources.map((resource) => resource.uri)).toContain(uri);
        expect((await client.ask("resources/read", [`"uri":"${uri}"`])).body).toContain(
          `[{"uri":"${uri}","text":"<p> ${server}</p>","n":1.0},{"uri":"ui://view/b.js","text":""}]`,
        );
      }
      const own = last(await client.ask("resources/read", ['"uri":"ui://view/a.html"']));
      expect(own?.error?.message).toBe("Resource not found");
    });

    test("both servers' instructions are there, each under its name", async () => {
      const client = await one.client(era);
      const reply =
        era === "modern" ? await client.ask("server/discover") : await client.ask("initialize", HELLO("2025-11-25"));
      expect(last(reply)?.result?.["instructions"]).toBe("## red\n\nBe nice red.\n\n## blue\n\nBe nice blue.");
    });
  });
});

describe("a list of 2,500 tools", () => {
  const names = Array.from({ length: 2500 }, (_, index) => `t${index}`);
  let one: ScriptedWorld;
  beforeAll(async () => {
    const base = script("modern");
    const tools = `{"tools":[${names.map((name) => tool(name)).join(",")}]}`;
    const prompts = `{"prompts":[${names.map((name) => `{"name":"${name}"}`).join(",")}]}`;
    one = await scripted("stdio", {
      it: {
        ...base,
        results: {
          "tools/list": { result: dress("modern", tools) },
          "prompts/list": { result: dress("modern", prompts) },
        },
      },
    });
  });
  afterAll(() => one?.[Symbol.asyncDispose]());
  interface Page {
    readonly tools: { name: string }[];
    readonly nextCursor?: string;
  }

  test.each(ERAS)("comes to a %s client in three pages, whole and in order", async (era) => {
    const client = await one.client(era);
    const got: string[] = [];
    let pages = 0;
    for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
      const { result } =
        last(await client.ask("tools/list", cursor === undefined ? [] : [`"cursor":"${cursor}"`])) ?? {};
      const page = result as unknown as Page;
      got.push(...page.tools.map(({ name }) => name));
      cursor = page.nextCursor;
      pages++;
    }
    expect([pages, got]).toEqual([3, names]);
  });

  test("a cursor of another list, or of the list as it was, is refused with a sentence that says what to do", async () => {
    const client = await one.client("modern");
    const { nextCursor } = resultOf(await client.ask("prompts/list")) as unknown as Page;
    for (const cursor of [nextCursor, Buffer.from("1000.aaaaaaaaaaaaaaaaaaaaaa").toString("base64url"), "MTAwMA", ""]) {
      const { error } = last(await client.ask("tools/list", [`"cursor":"${cursor}"`])) ?? {};
      expect([cursor, error?.code]).toEqual([cursor, -32602]);
      expect(error?.message).toMatch(/Start .* anew/);
    }
  });
});

/** A call of `slow` that its client can hang up on; the answer does not matter. */
function abandonable(one: ScriptedWorld, client: RawSession, era: ClientEra): { close(): void } {
  const meta = era === "modern" ? [`"_meta":${objectOf(envelope())}`] : [];
  const body = `{"jsonrpc":"2.0","id":"slow","method":"tools/call","params":${objectOf('"name":"slow"', ...meta)}}`;
  const headers = {
    ...client.headers,
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
    ...(era === "modern" && {
      "mcp-protocol-version": "2026-07-28",
      "mcp-method": "tools/call",
      "mcp-name": "slow",
    }),
  };
  const sent = request(one.world.url, { method: "POST", agent: false, headers }, (response) => response.resume());
  sent.on("error", () => {}); // It was hung up.
  sent.end(body);
  return { close: () => void sent.destroy() };
}
