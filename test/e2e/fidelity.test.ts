/** What the gateway need not change goes through as it came, byte for byte, in every pairing of eras and over both transports. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { META } from "../fixtures/messages.ts";
import type { Script } from "../fixtures/scripted.ts";
import { ERAS, objectOf, type ScriptedWorld, SERVER_INFO, scripted, TRANSPORTS } from "./scripted.ts";

/** Numbers that no JavaScript number holds, escapes that no serialiser writes, keys that look like others. */
const AWKWARD =
  '{"z":1e400,"a":1.0,"m":12345678901234567890,"nought":-0,"tiny":1E-999,"esc":"\\/ \\u0041 \\ud83d\\ude00 \\ud800 é ☃ \\u2028","2":[ ],"1":{ },"__proto__":{"x":null},"":true,"A":1,"a b":[1,[2,[{"deep":0.10}]]]}';
const VENDOR = `"vendor.example/key":${AWKWARD}`;

/** The same without what has no canonical form (RFC 8785): definitions are pinned. */
const PINNABLE = `"vendor.example/key":${AWKWARD.replace("1e400", "1E+2").replace(" \\ud800", "")}`;

/** Contents of kinds that exist, with vendors' keys, and of one that does not. */
const CONTENT = `[{"type":"text","text":"\\u0041\\/","annotations":{"audience":["user"],"priority":1.0,${VENDOR}},"_meta":{${VENDOR}},${VENDOR}},{"type":"hologram","frames":[1.50,${AWKWARD}]},{"type":"resource_link","uri":"x:\\/y","name":"n",${VENDOR}}]`;

const ERROR = `{"code":4242,"message":"As intended.","data":${AWKWARD}}`;
const PROGRESS = `{"progressToken":$TOKEN,"progress":1.0,"total":12345678901234567890,"message":"\\u0041\\/ half",${VENDOR},"_meta":{${VENDOR}}}`;
const LOG = `{"level":"warning","logger":"l","data":${AWKWARD},${VENDOR},"_meta":{${VENDOR}}}`;

/** Members of results, each sent and expected back as it stands. */
const RESULTS = {
  "tools/call object": ['"content":[]', `"structuredContent":${AWKWARD}`, VENDOR],
  "tools/call text": [`"content":${CONTENT}`, '"isError":false', VENDOR],
  "tools/call meta": ['"content":[]', `"_meta":{${VENDOR}}`],
  "prompts/get p": [
    '"description":"\\u0041"',
    `"messages":[{"role":"user","content":{"type":"hologram",${VENDOR}},${VENDOR}}]`,
    VENDOR,
  ],
  "resources/read test://one": [
    `"contents":[{"uri":"test:\\/\\/one","text":"\\u0041","_meta":{${VENDOR}},${VENDOR}}]`,
    VENDOR,
  ],
  "completion/complete": [`"completion":{"values":["\\u0041"],"total":1.0,${VENDOR}}`, VENDOR],
} as const;

const DEFINITIONS = {
  tools: (name: string) =>
    `{"name":"${name}","description":"\\u0041\\/","inputSchema":{"type":"object","properties":{"n":{"type":"number","maximum":12345678901234567890}},${PINNABLE}},"annotations":{"readOnlyHint":true,${PINNABLE}},"_meta":{${PINNABLE}},${PINNABLE}}`,
  resources: `{"uri":"test:\\/\\/one","name":"one","size":1.0,"annotations":{${PINNABLE}},"_meta":{${PINNABLE}},${PINNABLE}}`,
  resourceTemplates: `{"uriTemplate":"test://many/{id}","name":"many","_meta":{${PINNABLE}},${PINNABLE}}`,
  prompts: `{"name":"p","arguments":[{"name":"a",${PINNABLE}}],"_meta":{${PINNABLE}},${PINNABLE}}`,
};
const TOOLS = ["object", "text", "meta", "array", "scalar", "fails", "talks", "recorded"];

/** Everything a modern server must add, at the end of its results. */
const MODERN_MEMBERS = ['"resultType":"complete"', '"ttlMs":0', '"cacheScope":"private"', `"_meta":{${SERVER_INFO}}`];

function script(era: "legacy" | "modern"): Script {
  const dressed = (members: readonly string[]) => {
    const meta = members.find((member) => member.startsWith('"_meta":'));
    if (era === "legacy") return objectOf(...members);
    const own = meta === undefined ? MODERN_MEMBERS : MODERN_MEMBERS.slice(0, -1);
    return objectOf(...members.map((one) => (one === meta ? `${one.slice(0, -1)},${SERVER_INFO}}` : one)), ...own);
  };
  const results: Record<string, Script["results"][string]> = {
    "tools/list": { result: dressed([`"tools":[${TOOLS.map(DEFINITIONS.tools).join(" ,  ")}]`]) },
    "resources/list": { result: dressed([`"resources":[${DEFINITIONS.resources}]`]) },
    "resources/templates/list": { result: dressed([`"resourceTemplates":[${DEFINITIONS.resourceTemplates}]`]) },
    "prompts/list": { result: dressed([`"prompts":[${DEFINITIONS.prompts}]`]) },
    "tools/call array": { result: dressed(['"content":[]', `"structuredContent":[1.0,${AWKWARD}]`]) },
    "tools/call scalar": { result: dressed(['"content":[]', '"structuredContent":12345678901234567890']) },
    "tools/call fails": { error: ERROR },
    "tools/call talks": {
      before: [
        ["notifications/progress", PROGRESS],
        ["notifications/message", LOG],
        ["notifications/progress", PROGRESS.replace("1.0", "2.0")],
      ],
      result: dressed(['"content":[]']),
    },
  };
  for (const [key, members] of Object.entries(RESULTS)) results[key] = { result: dressed(members) };
  return {
    era,
    capabilities: `{"tools":{},"resources":{},"prompts":{},"completions":{},"logging":{},"experimental":{"vendor.example/x":{"on":true,"n":1.5}},"extensions":{"vendor.example/ext":{"mime":["a/b"]}},"vendor.example/own":{"y":[1]}}`,
    hello: '"instructions":"Ask nicely."',
    results,
  };
}

describe.each(TRANSPORTS)("over %s", (transport) => {
  describe.each(ERAS)("a server that speaks %s", (serverEra) => {
    let one: ScriptedWorld;
    beforeAll(async () => {
      one = await scripted(transport, { it: script(serverEra) });
    });
    afterAll(() => one?.[Symbol.asyncDispose]());
    /** The newest message that the server got with this in it, without what is ours: id, token and trace. */
    const received = async (part: string) => {
      const text = (await one.recorded()).findLast((line) => line.includes(part)) ?? "";
      const { id } = JSON.parse(text) as { id: number };
      return text
        .replace(`"id":${id}`, '"id":0')
        .replace(`"progressToken":${id}`, '"progressToken":0')
        .replace(/,"traceparent":"[0-9a-f-]{55}"/, "");
    };

    describe.each(ERAS)("and a %s client", (era) => {
      const asked = async (method: string, ...params: string[]) =>
        (await one.client(era)).ask(method, params, [`"progressToken":"mine"`], '"\\u0041sked"');
      /** The result, as its client must see it: with what its revision wants, without what it does not know. */
      const expected = (members: readonly string[], method: string) => {
        const cached = method === "resources/read";
        const meta = members.find((member) => member.startsWith('"_meta":'));
        if (era === "legacy") return objectOf(...members);
        if (serverEra === "modern") {
          const own = meta === undefined ? MODERN_MEMBERS : MODERN_MEMBERS.slice(0, -1);
          return objectOf(...members.map((it) => (it === meta ? `${it.slice(0, -1)},${SERVER_INFO}}` : it)), ...own);
        }
        const added = ['"resultType":"complete"', ...(cached ? ['"ttlMs":0', '"cacheScope":"private"'] : [])];
        if (meta === undefined) return objectOf(...added, `"_meta":{${SERVER_INFO}}`, ...members);
        const stamped = members.map((it) => (it === meta ? `"_meta":{${SERVER_INFO},${it.slice(9)}` : it));
        return objectOf(...added, ...stamped);
      };
      const answer = (result: string) => `{"jsonrpc":"2.0","id":"Asked","result":${result}}`;

      test.each(Object.entries(RESULTS))("the result of %s keeps its bytes", async (key, members) => {
        const [method = "", name = ""] = key.split(" ");
        const target =
          method === "completion/complete"
            ? ['"ref":{"type":"ref/prompt","name":"p"}', '"argument":{"name":"a","value":""}']
            : method === "resources/read"
              ? [`"uri":"${name}"`]
              : [`"name":"${name}"`];
        const { texts } = await asked(method, ...target);
        expect(texts.at(-1)).toBe(answer(expected(members, method)));
      });

      test.each([
        ["array", `[1.0,${AWKWARD}]`],
        ["scalar", "12345678901234567890"],
      ])("structured content that is an %s keeps its bytes", async (name, content) => {
        const { texts } = await asked("tools/call", `"name":"${name}"`);
        // The revisions before 2026-07-28 know objects alone; what an older server says all the same is passed on.
        const wrapped = era === "legacy" && serverEra === "modern" ? `{"result":${content}}` : content;
        expect(texts.at(-1)).toBe(answer(expected(['"content":[]', `"structuredContent":${wrapped}`], "tools/call")));
      });

      test("an error keeps its code, its message and the bytes of its data", async () => {
        const { texts } = await asked("tools/call", '"name":"fails"');
        expect(texts).toEqual([`{"jsonrpc":"2.0","id":"Asked","error":${ERROR}}`]);
      });

      test("progress and log messages keep their bytes and their order", async () => {
        const client = await one.client(era);
        if (era === "legacy") await client.ask("logging/setLevel", ['"level":"debug"']);
        const level = era === "modern" ? [`"${META}/logLevel":"debug"`] : [];
        const { texts } = await client.ask("tools/call", ['"name":"talks"'], ['"progressToken":"mine"', ...level]);
        const progress = PROGRESS.replace("$TOKEN", '"mine"');
        expect(texts.slice(0, -1)).toEqual([
          `{"jsonrpc":"2.0","method":"notifications/progress","params":${progress}}`,
          `{"jsonrpc":"2.0","method":"notifications/message","params":${LOG}}`,
          `{"jsonrpc":"2.0","method":"notifications/progress","params":${progress.replace("1.0", "2.0")}}`,
        ]);
      });

      test("a request keeps the bytes of its params and of its _meta", async () => {
        // Keys of arguments that differ only in case are refused.
        const args = `"arguments":${AWKWARD.replace('"A":1,', "")}`;
        const client = await one.client(era);
        const params = ['"name":"text"', args, VENDOR, '"task_like":{"ttl":1.0}'];
        const { status } = await client.ask("tools/call", params, [VENDOR, '"progressToken":7', '"other":1.0']);
        expect(status).toBe(200);
        const text = await received('"params":{"name":"text"');
        const hop = serverEra === "modern" ? `${envelopeOf(text)},` : "";
        expect(text).toBe(
          `{"jsonrpc":"2.0","id":0,"method":"tools/call","params":{${params.join(",")},"_meta":{${hop}${VENDOR},"other":1.0,"progressToken":0}}}`,
        );
      });

      test("completion keeps the bytes of its reference", async () => {
        const ref = `"ref":{"type":"ref/prompt","name":"p",${VENDOR}}`;
        await asked("completion/complete", ref, `"argument":{"name":"a","value":"\\u0041",${VENDOR}}`, VENDOR);
        expect(await received('"method":"completion/complete"')).toContain(
          `${ref},"argument":{"name":"a","value":"\\u0041",${VENDOR}},${VENDOR}`,
        );
      });

      test("lists hold definitions as their server wrote them", async () => {
        const list = async (method: string) => (await asked(method)).texts.at(-1);
        expect(await list("tools/list")).toContain(`"tools":[${TOOLS.map(DEFINITIONS.tools).join(",")}]`);
        expect(await list("resources/list")).toContain(`"resources":[${DEFINITIONS.resources}]`);
        expect(await list("resources/templates/list")).toContain(
          `"resourceTemplates":[${DEFINITIONS.resourceTemplates}]`,
        );
        expect(await list("prompts/list")).toContain(`"prompts":[${DEFINITIONS.prompts}]`);
      });

      test("capabilities that the gateway need not understand are told as they came", async () => {
        const client = await one.client(era);
        const hello = [
          '"protocolVersion":"2025-11-25"',
          '"capabilities":{}',
          '"clientInfo":{"name":"r","version":"1"}',
        ];
        const { messages } =
          era === "modern" ? await client.ask("server/discover") : await client.ask("initialize", hello);
        expect(messages[0]?.result).toMatchObject({
          instructions: "Ask nicely.",
          capabilities: {
            tools: { listChanged: true },
            experimental: { "vendor.example/x": { on: true, n: 1.5 } },
            extensions: { "vendor.example/ext": { mime: ["a/b"] } },
            "vendor.example/own": { y: [1] },
          },
        });
      });

      test("a server is told of the capabilities that its client declared, vendors' own included", async () => {
        const declared = `{"vendor.example/can":{"n":1.5},"extensions":{"vendor.example/e":{"v":2},"io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}}}`;
        await (await one.client(era, declared)).ask("tools/call", ['"name":"object"'], ['"x":"capabilities"']);
        const told = (await one.recorded(declared)).flatMap((line) => capabilitiesIn(line));
        expect(told).toContainEqual(JSON.parse(declared));
      });
    });
  });
});

/** The members of `_meta` that are the gateway's own. */
function envelopeOf(text: string): string {
  const { params } = JSON.parse(text) as { params: { _meta: Record<string, unknown> } };
  return ["protocolVersion", "clientInfo", "clientCapabilities"]
    .map((key) => `${META}/${key}`)
    .map((key) => `"${key}":${JSON.stringify(params._meta[key])}`)
    .join(",");
}

function capabilitiesIn(line: string): unknown[] {
  const { method, params } = JSON.parse(line) as {
    method: string;
    params?: { capabilities?: unknown; _meta?: Record<string, unknown> };
  };
  if (method === "initialize") return [params?.capabilities];
  const told = params?._meta?.[`${META}/clientCapabilities`];
  return told === undefined ? [] : [told];
}
