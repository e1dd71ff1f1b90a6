/** What a contract changes, where the protocol says the same thing twice: in headers, in tasks, and where one contract serves many. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Fixture, fixtureCommand, startFixture } from "../fixtures/processes.ts";
import { ERAS } from "./scripted.ts";
import { type TaskClient, taskClient } from "./tasking.ts";
import { modernRequest, type World, world } from "./world.ts";

type Json = Record<string, unknown>;
interface Answer {
  readonly result?: Json;
  readonly error?: { readonly code: number; readonly message: string };
}

describe("an argument that is repeated in a header (2026-07-28)", () => {
  const of = (region: Json) => ({ from: "far/region", description: "Says where.", input: region });
  const tools = {
    narrowed: of({ region: { enum: ["eu", "us"] } }),
    renamed: of({ place: { as: "region", maxLength: 20 } }),
    fixed: of({ region: { fixed: "Zürich" } }),
    bound: of({ region: { bind: "principal.claims.email" } }),
    "with-default": of({ region: { maxLength: 20, default: "eu" } }),
    steps: {
      description: "Says where, in two steps.",
      input: { place: { type: "string", maxLength: 20 } },
      steps: [
        { id: "here", call: "far/region", with: { region: "=args.place" }, access: "read" },
        { id: "there", call: "far/region", with: { region: "us" }, access: "read" },
      ],
      result: { place: "=args.place" },
      output: ["place"],
    },
    "as-resource": {
      ...of({ region: { enum: ["eu", "us"] } }),
      access: "read",
      output: { maxBytes: 10_000 },
      as: { resource: "regions://{region}" },
    },
  };
  let far: Fixture;
  let one: World;
  let token: string;
  beforeAll(async () => {
    // It refuses a call whose headers do not say what its body does.
    far = await startFixture("echo-http", ["--era", "modern"]);
    one = await world({ servers: { far: { url: `${far.origin}/mcp` } }, tools });
    token = (await one.tokens()).access_token;
  }, 60_000);
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    await far?.stop();
  });

  const ask = async (method: string, params: Json, repeated: Record<string, string> = {}): Promise<Answer> => {
    const [body, headers] = modernRequest(method, params);
    const said = await (await one.post(body, { ...headers, ...repeated }, token)).text();
    return JSON.parse(said.startsWith("{") ? said : (/data: (\{"jsonrpc":"2.0","id":.*)/.exec(said)?.[1] ?? "{}"));
  };
  const call = (name: string, args: Json, repeated?: Record<string, string>) =>
    ask("tools/call", { name, arguments: args }, repeated);
  const says = (text: string) => [{ type: "text", text }];

  test("is named to clients where they send it themselves, under their name for it", async () => {
    const { result } = await ask("tools/list", {});
    const properties = Object.fromEntries(
      ((result?.["tools"] ?? []) as { name: string; inputSchema: { properties: Json } }[]).map(
        ({ name, inputSchema }) => [name, inputSchema.properties],
      ),
    );
    expect(properties).toMatchObject({
      narrowed: { region: { "x-mcp-header": "Region" } },
      renamed: { place: { "x-mcp-header": "Region" } },
      "with-default": { region: { "x-mcp-header": "Region" } },
    });
    expect(JSON.stringify([properties["fixed"], properties["bound"]])).toBe("[{},{}]");
  });

  test.each([
    ["narrowed", { region: "us" }],
    ["renamed", { place: "mars" }],
    ["with-default", { region: "moon" }],
  ])("must be repeated by the client, and is by us: %s", async (name, args) => {
    const [value = ""] = Object.values(args);
    expect((await call(name, args, { "mcp-param-region": value })).result?.["content"]).toEqual(says(value));
    for (const repeated of [{}, { "mcp-param-region": "else" }])
      expect((await call(name, args, repeated)).error?.code).toBe(-32020);
  });

  test.each([
    ["fixed", "Zürich"],
    ["bound", "olive@shop.example"],
    ["with-default", "eu"],
  ])("is repeated by us alone where the client does not send it: %s", async (name, value) => {
    expect((await call(name, {})).result?.["content"]).toEqual(says(value));
  });

  test("is still held against the contract", async () => {
    const { result } = await call("narrowed", { region: "mars" }, { "mcp-param-region": "mars" });
    expect(result?.["isError"]).toBe(true);
    expect(JSON.stringify(result)).toContain("must be equal to one of the allowed values");
  });

  test("is repeated for each step, and for a tool that is read as a resource", async () => {
    expect((await call("steps", { place: "north" })).result).toMatchObject({ structuredContent: { place: "north" } });
    const read = (uri: string) => ask("resources/read", { uri });
    expect(JSON.stringify((await read("regions://us")).result)).toContain("us");
    expect((await read("regions://mars")).error?.message).toContain("must be equal to one of the allowed values");
  });

  test("is none for older clients, and repeated to the server all the same", async () => {
    const client = await one.legacy(token);
    const { content } = await client.callTool({ name: "narrowed", arguments: { region: "eu" } });
    expect(content).toEqual(says("eu"));
  });
});

describe.each(ERAS)("a tool of a %s server that works as a task", (serverEra) => {
  let one: World;
  let token: string;
  beforeAll(async () => {
    const every = { command: fixtureCommand("everything/stdio", ["--era", serverEra]) };
    const job = {
      from: "every/job-only",
      description: "Works.",
      input: { name: { as: "tag", pattern: "^[A-Z]$" }, ms: { fixed: 100 } },
    };
    one = await world({
      servers: { every },
      tools: {
        work: { ...job, output: { maxBytes: 2000 } },
        "quiet-work": { ...job, output: ["state"] },
      },
    });
    token = (await one.tokens()).access_token;
  }, 60_000);
  afterAll(() => one?.[Symbol.asyncDispose]());

  describe.each(ERAS)("and a %s client", (era) => {
    let client: TaskClient;
    beforeAll(async () => {
      client = await taskClient(one.url, token, era);
    });

    test("gets the arguments of its contract, and its result is the contract's", async () => {
      const done = await client.end((await client.begin("work", { name: "A" })).taskId);
      expect(done.result).toMatchObject({ content: [{ type: "text", text: "A is done" }] });
      const quiet = await client.end((await client.begin("quiet-work", { name: "B" })).taskId);
      expect(JSON.stringify(quiet)).not.toContain("is done");
      expect(quiet.result).toMatchObject({ isError: true });
    });

    test("says the same when it is called as it is", async () => {
      const plain = await taskClient(one.url, token, era, { tasks: false });
      expect((await plain.call("work", { name: "C" })).body).toContain("C is done");
      const { body } = await plain.call("quiet-work", { name: "D" });
      expect(body).not.toContain("is done");
    });

    test("begins nothing for arguments that the contract refuses", async () => {
      const { result } = await client.call("work", { name: "lower" });
      expect(result).toMatchObject({ isError: true });
      expect((await client.call("job-only", { tag: "A" })).error?.message).toBe("Unknown tool: job-only");
    });
  });
});

describe("a contract that serves all that a server has", () => {
  const echo = { command: fixtureCommand("echo-stdio") };
  let one: World;
  beforeAll(async () => {
    one = await world({
      servers: { near: echo, other: echo },
      tools: {
        "near-*": { from: "near/*" },
        "near-echo": { from: "near/echo", description: "Says it again.", input: { text: { maxLength: 5 } } },
      },
      prompts: { "p-*": { from: "near/*" } },
    });
  }, 60_000);
  afterAll(() => one?.[Symbol.asyncDispose]());

  test("is each of its tools under the operator's names, but those that have one of their own", async () => {
    const client = await one.legacy();
    const { tools } = await client.listTools();
    expect(tools.length).toBeGreaterThan(3);
    for (const { name } of tools) expect(name).toMatch(/^near-/);
    const echoes = tools.filter(({ name }) => name === "near-echo");
    expect(echoes).toMatchObject([{ description: "Says it again." }]);
    const { content } = await client.callTool({ name: "near-echo", arguments: { text: "hello" } });
    expect(JSON.stringify(content)).toContain("hello");
    expect((await client.callTool({ name: "near-echo", arguments: { text: "longer" } })).isError).toBe(true);
  });

  test("is no other server's, nor anything under the server's own name", async () => {
    const client = await one.legacy();
    for (const name of ["echo", "near_echo", "other_echo", "other-echo"])
      await expect(client.callTool({ name, arguments: { text: "a" } })).rejects.toThrow(`Unknown tool: ${name}`);
    const { prompts } = await client.listPrompts();
    for (const { name } of prompts) expect(name).toMatch(/^p-/);
    const [first] = prompts;
    if (first !== undefined)
      expect((await client.getPrompt({ name: first.name, arguments: {} })).messages).toBeDefined();
  });
});
