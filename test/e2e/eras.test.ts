/** Every pairing of a client's and a server's generation, over HTTP and stdio: nothing is lost on the way. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { verifies } from "../requirements.ts";
import { modernRequest, type World, world } from "./world.ts";

type AnyClient = Awaited<ReturnType<World["legacy"]>>;
type Era = "legacy" | "modern";
const upstreams = [
  ["http", "legacy"],
  ["http", "modern"],
  ["stdio", "legacy"],
  ["stdio", "modern"],
] as const;

describe.each(upstreams)("a server over %s that speaks %s", (transport, serverEra) => {
  let one: World;
  let fixture: Fixture | undefined;
  let token: string;
  beforeAll(async () => {
    if (transport === "http") fixture = await startFixture("echo-http", ["--era", serverEra, "--page", "3"]);
    one = await world({
      // One of its texts has a control character, which is to come through here.
      answers: { invisible: "keep" },
      servers: {
        echo:
          fixture === undefined
            ? { command: fixtureCommand("echo-stdio", ["--era", serverEra]), processes: { max: 1 } }
            : { url: `${fixture.origin}/mcp` },
      },
    });
    token = (await one.tokens()).access_token;
  });
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    await fixture?.stop();
  });

  describe.each(["legacy", "modern"] as const)("and a %s client", (era) => {
    const client = async () => (await one[era](token)) as unknown as AnyClient;
    /** One request in the client's own words; the answer as text, whatever it was wrapped in. */
    const raw = async (method: string, params: Record<string, unknown> = {}, id: string | number = 1) => {
      const [modern, headers] = modernRequest(method, params, id);
      const response =
        era === "modern"
          ? await one.post(modern, headers, token)
          : await one.post({ jsonrpc: "2.0", id, method, params }, { "mcp-protocol-version": "2025-11-25" }, token);
      const text = await response.text();
      return response.headers.get("content-type")?.startsWith("text/event-stream") === true
        ? text
            .split("\n")
            .filter((line) => line.startsWith("data: "))
            .map((line) => line.slice(6))
        : [text];
    };
    const last = async (method: string, params: Record<string, unknown> = {}, id?: string | number) =>
      (await raw(method, params, id)).at(-1) ?? "";
    const answer = async (method: string, params: Record<string, unknown> = {}) =>
      JSON.parse(await last(method, params)) as {
        result?: Record<string, unknown>;
        error?: { code: number; message: string; data?: unknown };
      };
    const counted = async () => {
      const { result } = await answer("tools/call", { name: "count", arguments: {} });
      return result?.["structuredContent"] as { calls: number; cancelled: number };
    };

    verifies("upstream-eras", "lists every tool, with every field", async () => {
      const { tools } = await (await client()).listTools();
      const names = tools.map((tool) => tool.name);
      for (const name of ["echo", "sum", "slow", "unusual", "count", "meta"]) expect(names).toContain(name);
      const sum = tools.find((tool) => tool.name === "sum");
      expect(sum).toMatchObject({ annotations: { readOnlyHint: true }, outputSchema: { required: ["sum"] } });
      expect(await last("tools/list")).toContain('"x-vendor":{"kept":true}');
    });

    test("gets structured content", async () => {
      expect(await (await client()).callTool({ name: "sum", arguments: { a: 2, b: 3.5 } })).toMatchObject({
        structuredContent: { sum: 5.5 },
        content: [{ type: "text", text: '{"sum":5.5}' }],
      });
    });

    test("gets unknown content types, vendor fields and escapes byte for byte", async () => {
      const text = await last("tools/call", { name: "unusual", arguments: {} });
      const content = JSON.stringify([
        { type: "text", text: "snow ☃, flag 🇬🇧, nul \u0000, line separator \u2028", "x-vendor": 1 },
        { type: "hologram", frames: [1, 2.5, 1e21] },
      ]);
      expect(text).toContain(`"content":${content}`);
      expect(text).toContain('"structuredContent":{"nothing":null,"deep":{"er":[{}]},"__proto":"plain"}');
      expect(text).toContain('"x-vendor":{"kept":true}');
      expect(text).toContain('"example.test/kept":"yes"');
      const { result } = JSON.parse(text) as { result: Record<string, unknown> };
      // Each generation's own fields, and none of the other's.
      expect(result["resultType"]).toBe(era === "modern" ? "complete" : undefined);
    });

    test("sends arguments as it wrote them", async () => {
      const awkward = '\\"quoted\\", ☃ 🇬🇧 \\u0000 \\u2028 </script> "';
      expect(await answer("tools/call", { name: "echo", arguments: { text: awkward } })).toMatchObject({
        result: { content: [{ text: awkward }] },
      });
    });

    test("gets the server's own errors with code, message and data", async () => {
      expect((await answer("tools/call", { name: "rpc-error", arguments: {} })).error).toEqual({
        code: 4242,
        message: "This tool answers with an error.",
        data: { hint: "as intended" },
      });
      expect((await answer("tools/call", { name: "fail", arguments: {} })).result).toMatchObject({
        isError: true,
        content: [{ text: "This tool always fails." }],
      });
    });

    test("gets the code of its own revision for a resource that cannot be read", async () => {
      const { error } = await answer("resources/read", { uri: "test://static/missing" });
      // -32002 of the older revisions became -32602.
      expect(error?.code).toBe(era === "legacy" && serverEra === "legacy" ? -32002 : -32602);
      expect(error).toMatchObject({ message: "Resource not found", data: { uri: "test://static/missing" } });
    });

    test("reads resources; caching fields are there for those who know them, and only for them", async () => {
      const { result } = await answer("resources/read", { uri: "test://static/greeting" });
      expect(result?.["contents"]).toEqual([
        { uri: "test://static/greeting", mimeType: "text/plain", text: "Good morning ☀" },
      ]);
      if (era === "modern") expect(result).toMatchObject({ ttlMs: 0, cacheScope: "private", resultType: "complete" });
      else for (const field of ["ttlMs", "cacheScope", "resultType", "_meta"]) expect(result).not.toHaveProperty(field);
      const { contents } = await (await client()).readResource({ uri: "test://items/42" });
      expect(contents[0]).toMatchObject({ text: '{"id":"42"}' });
    });

    test("gets prompts and completions", async () => {
      const mine = await client();
      expect((await mine.listPrompts()).prompts.map(({ name }) => name)).toEqual([
        "plain",
        "greeting",
        "with-resource",
      ]);
      const { messages } = await mine.getPrompt({ name: "greeting", arguments: { name: "Ada", tone: "frosty" } });
      expect(messages[0]?.content).toMatchObject({ text: "Greet Ada in a frosty tone." });
      const { completion } = await mine.complete({
        ref: { type: "ref/prompt", name: "greeting" },
        argument: { name: "tone", value: "f" },
      });
      expect(completion.values).toEqual(["friendly", "formal", "frosty"]);
    });

    verifies(
      "progress-token",
      "gets every step of progress with its own token, the last one too, and then the answer",
      async () => {
        const messages = (
          await raw("tools/call", { name: "slow", arguments: { ms: 40 }, _meta: { progressToken: "mine" } }, "slow-1")
        ).map((text) => JSON.parse(text) as Record<string, unknown>);
        expect(messages.slice(0, -1).map(({ params }) => params)).toEqual(
          [1, 2, 3, 4].map((progress) => ({ progressToken: "mine", progress, total: 4, message: `step ${progress}` })),
        );
        expect(messages.at(-1)).toMatchObject({ id: "slow-1", result: { content: [{ text: "slept 40 ms" }] } });
      },
    );

    test("cancels, and the server hears of it", async () => {
      const before = await counted();
      const mine = await client();
      const stop = new AbortController();
      const options = { signal: stop.signal, onprogress: () => stop.abort() };
      const params = { name: "slow", arguments: { ms: 20_000 } };
      const call =
        era === "legacy"
          ? mine.callTool(params, undefined, { ...options, onprogress: () => {} })
          : (mine.callTool as unknown as (p: object, o: object) => Promise<unknown>).call(mine, params, {
              ...options,
              onprogress: () => {},
            });
      call.catch(() => {});
      await waitFor(async () => one.gateway.servers().length > 0 && (await inFlight()) > 0);
      stop.abort();
      await expect(call).rejects.toThrow();
      await waitFor(async () => (await counted()).cancelled > before.cancelled);
    });
    const inFlight = async () =>
      Number(/drawbridge_upstream_in_flight\{[^}]*\} (\d+)/.exec(await one.metrics())?.[1] ?? 0);

    test("may use one id for twenty calls at once, and each answer is its own", async () => {
      const answers = await Promise.all(
        Array.from({ length: 20 }, async (_, index) => {
          const text = `call ${index}`;
          const reply = await last("tools/call", { name: "echo", arguments: { text } }, "same");
          const { id, result } = JSON.parse(reply) as { id: string; result: { content: { text: string }[] } };
          return [id, result.content[0]?.text];
        }),
      );
      expect(answers).toEqual(Array.from({ length: 20 }, (_, index) => ["same", `call ${index}`]));
    });
  });
});

/** A server whose answers have numbers that no JavaScript number can hold. */
const BIG = "90071992547409931234567890";
const bigNumberServer = (modern: boolean) => `
const modern = ${modern};
const wrap = modern ? '"resultType":"complete","ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"b","version":"1"},"kept":${BIG}},' : "";
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const say = (result) => process.stdout.write('{"jsonrpc":"2.0","id":' + id + ',"result":{' + wrap + result + '}}\\n');
  if (method === "initialize" && !modern) say('"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"b","version":"1"}');
  else if (method === "server/discover" && modern) say('"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}');
  else if (method === "tools/list") say('"tools":[{"name":"big","x-largest":${BIG},"inputSchema":{"type":"object","properties":{"n":{"type":"number"}}}}]');
  else if (method === "tools/call") say('"content":[],"structuredContent":{"n":${BIG},"one":1.0,"sent":' + JSON.stringify(/"n":([^,}]+)/.exec(line)?.[1]) + '}');
  else if (method === "ping") say("");
  else process.stdout.write('{"jsonrpc":"2.0","id":' + id + ',"error":{"code":-32601,"message":"no"}}\\n');
});`;

describe.each(["legacy", "modern"] as const)("numbers beyond 2^53 of a %s server", (serverEra) => {
  test("keep every digit on both ways, for clients of both generations, whatever the tool is called", async () => {
    const big = { command: [process.execPath, "-e", bigNumberServer(serverEra === "modern")] };
    await using one = await world({ servers: { one: big, two: big } });
    const { access_token } = await one.tokens();
    for (const era of ["legacy", "modern"] satisfies Era[]) {
      const ask = async (method: string, params: Record<string, unknown>) => {
        const [modern, headers] = modernRequest(method, params);
        const body =
          era === "modern" ? JSON.stringify(modern) : JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
        const response = await one.post(
          body.replace('"BIG"', BIG),
          era === "modern" ? headers : { "mcp-protocol-version": "2025-11-25" },
          access_token,
        );
        return response.text();
      };
      const answer = await ask("tools/call", { name: "one_big", arguments: { n: "BIG" } });
      expect(answer, era).toContain(`"structuredContent":{"n":${BIG},"one":1.0,"sent":"${BIG}"}`);
      if (serverEra === "modern") expect(answer, era).toContain(`"kept":${BIG}`);
      expect(await ask("tools/list", {}), era).toContain(`"x-largest":${BIG}`);
    }
  });
});
