/** One server, both ways to run it, clients of both eras: alone over stdio, and inside the gateway with no hop. */
import { hash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { settleSettings } from "../../src/config/load.ts";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { type Answers, type AnyClient, clientAt, ERAS, type Era, textOf } from "./clients.ts";

const program = join(import.meta.dirname, "desk.ts");
let gateway: World;
let token = "";
const folder = mkdtempSync(join(tmpdir(), "drawbridge-author-"));

beforeAll(async () => {
  gateway = await world(
    {
      servers: { desk: { module: program } },
      roles: { owner: { may: ["*"] } },
      assign: [{ role: "owner", group: "owner" }],
    },
    { folder },
  );
  token = (await gateway.tokens()).access_token;
}, 60_000);
afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const WAYS = ["alone over stdio", "inside the gateway"] as const;
/** Each is another OAuth client: what one was asked to approve is not asked of the others. */
const at = async (way: (typeof WAYS)[number], era: Era, answers?: Answers): Promise<AnyClient> =>
  way === "alone over stdio"
    ? clientAt({ program }, era, answers)
    : clientAt({ url: gateway.url, token: (await gateway.tokens()).access_token }, era, answers);
const yes: Answers = ({ message }) =>
  String(message).includes("engraved")
    ? { action: "accept", content: { words: "To Ann" } }
    : String(message).includes("sure")
      ? { action: "accept", content: { sure: true } }
      : { action: "accept", content: { approve: true } };
const no: Answers = () => ({ action: "decline" });

describe.each(WAYS.flatMap((way) => ERAS.map((era) => [way, era] as const)))("%s, a %s client", (way, era) => {
  let client: AnyClient;
  let asked: AnyClient;
  let refusing: AnyClient;
  beforeAll(async () => {
    client = await at(way, era);
    asked = await at(way, era, yes);
    refusing = await at(way, era, no);
  }, 60_000);
  afterAll(async () => {
    await Promise.all([client, asked, refusing].map((one) => one?.close()));
  });

  test("sees tools with documentation, closed inputs, outputs and true annotations", async () => {
    const { tools } = await client.listTools();
    expect(tools.length).toBeGreaterThanOrEqual(9);
    for (const tool of tools) {
      expect(tool.description).toMatch(/Use it .+ Do not use it .+ Returns .+ Limits: /);
      expect(tool.inputSchema).toMatchObject({ type: "object", additionalProperties: false });
      expect(tool.outputSchema).toMatchObject({ type: "object", additionalProperties: false });
    }
    expect(tools.find(({ name }) => name === "wipe")?.annotations).toMatchObject({
      readOnlyHint: false,
      destructiveHint: true,
    });
  });

  test("gets what is declared, and nothing else", async () => {
    const answer = await client.callTool({ name: "echo", arguments: { text: "hi", times: 2 } });
    expect(answer.structuredContent).toMatchObject({ text: "hihi" });
    expect(JSON.stringify(answer)).not.toContain("canary");
    const { contents } = await client.readResource({ uri: "desk://products/KET-01" });
    expect(JSON.parse(String((contents[0] as { text?: string }).text))).toEqual({ sku: "KET-01" });
    const { messages } = await client.getPrompt({ name: "greet", arguments: { name: "Ann" } });
    expect(messages[0]?.content).toMatchObject({ text: "Write a greeting for Ann." });
  });

  test("is told why arguments are refused", async () => {
    const refused = await client.callTool({ name: "echo", arguments: { text: "hi", verbose: true } });
    expect([refused.isError, textOf(refused)]).toEqual([true, expect.stringContaining("verbose")]);
  });

  test("is told nothing of what failed inside", async () => {
    for (const how of ["throws", "lies", "hangs"]) {
      const failed = await client.callTool({ name: "broken", arguments: { how } }).then(
        (answer) => JSON.stringify(answer),
        (thrown: unknown) => String(thrown),
      );
      expect(failed).not.toMatch(/canary|hunter2/);
    }
  });

  test("hears how far a call is", async () => {
    const heard: number[] = [];
    const options = { onprogress: ({ progress }: { progress: number }) => heard.push(progress) };
    const more = (era === "legacy" ? [undefined, options] : [options]) as unknown as [];
    const answer = await client.callTool({ name: "slow", arguments: {} }, ...more);
    expect(answer.structuredContent).toEqual({ steps: 3 });
    expect(heard).toEqual([1, 2, 3]);
  });

  test("is asked what the handler asks, twice", async () => {
    const answer = await asked.callTool({ name: "order", arguments: { sku: "KET-01" } });
    expect(answer.structuredContent).toEqual({ ordered: "KET-01", engraved: "To Ann" });
    const declined = await refusing.callTool({ name: "order", arguments: { sku: "KET-01" } });
    expect(textOf(declined)).toContain("Nothing was ordered.");
  });

  test("that can ask nobody is told so", async () => {
    const told = await client
      .callTool({ name: "order", arguments: { sku: "KET-01" } })
      .then(textOf, (thrown: unknown) => {
        expect([era, thrown]).toMatchObject(["modern", { code: -32021 }]);
        return String(thrown);
      });
    expect(told).toContain("cannot ask");
  });

  test("has to approve what needs an approval", async () => {
    const approved = await asked.callTool({ name: "wipe", arguments: {} });
    expect(approved).toMatchObject({ structuredContent: { wiped: true } });
    const declined = await refusing.callTool({ name: "wipe", arguments: {} }).then(JSON.stringify, String);
    expect(declined).toContain("not approved");
    const unable = await client.callTool({ name: "wipe", arguments: {} }).then(JSON.stringify, String);
    expect(unable).not.toContain('"wiped":true');
  });

  test("gets nothing done that another person has to approve", async () => {
    const answer = await asked.callTool({ name: "audited", arguments: {} }).then(JSON.stringify, String);
    expect(answer).not.toContain('"done":true');
  });

  test("sees no masked field", async () => {
    const answer = await client.callTool({ name: "contact", arguments: {} });
    expect(JSON.stringify(answer)).not.toContain("daniel.singh1");
    expect(answer.structuredContent).toMatchObject({ name: "Desk", people: [{ age: 40 }] });
  });
});

describe("inside the gateway", () => {
  test.each(ERAS)("limits and scopes that were declared hold for a %s client", async (era) => {
    const own = (await gateway.tokens()).access_token;
    const client = await clientAt({ url: gateway.url, token: own }, era);
    try {
      const calls = [];
      for (let call = 0; call < 3; call++)
        calls.push(await client.callTool({ name: "scarce", arguments: {} }).then(JSON.stringify, String));
      // The one of this minute may have been spent by the other era: one user, one minute.
      expect(calls.filter((answer) => answer.includes('"given":true')).length).toBeLessThanOrEqual(1);
      expect(calls.at(-1)).not.toContain('"given":true');
      const guarded = await client.callTool({ name: "guarded", arguments: {} }).then(JSON.stringify, String);
      expect(guarded).not.toContain('"seen":true');
    } finally {
      await client.close();
    }
  });

  test("a token needs all scopes that a tool declares", async () => {
    const asking = "mcp:read mcp:call desk:guarded";
    for (const [scope, status, seen] of [
      [asking, 403, false],
      [`${asking} desk:seen`, 200, true],
    ] as const) {
      const call = modernRequest("tools/call", { name: "guarded", arguments: {} });
      const response = await gateway.post(...call, (await gateway.tokens({ scope })).access_token);
      expect([response.status, (await response.text()).includes('"seen":true')]).toEqual([status, seen]);
      if (status === 403) expect(response.headers.get("www-authenticate")).toContain("This needs the scope desk:seen.");
    }
  });

  test("a handler knows who is signed in", async () => {
    const client = await clientAt({ url: gateway.url, token }, "modern");
    const answer = await client.callTool({ name: "echo", arguments: { text: "hi" } });
    await client.close();
    expect(answer.structuredContent).toEqual({ text: "hi", by: expect.stringMatching(/^[0-9a-f-]{36}$/) });
  });

  test("a handler gets a token for the API behind it in the caller's name, and never the caller's own", async () => {
    const credentials = { exchange: { audience: "https://api.shop.example" } };
    await using other = await world(
      {
        servers: { desk: { module: program, credentials } },
        roles: { owner: { may: ["*"] } },
        assign: [{ role: "owner", group: "owner" }],
      },
      { folder },
    );
    const own = (await other.tokens()).access_token;
    const client = await clientAt({ url: other.url, token: own }, "modern");
    const lent = await client.callTool({ name: "lends", arguments: {} });
    await client.close();
    const { audience, token: shown } = lent.structuredContent as { audience: string; token: string };
    expect(audience).toBe(credentials.exchange.audience);
    expect(shown).not.toBe(hash("sha256", own, "hex"));
    const without = await clientAt({ url: gateway.url, token }, "modern");
    const refused = await without.callTool({ name: "lends", arguments: {} }).then(JSON.stringify, String);
    await without.close();
    expect(refused).toContain("Nobody exchanges tokens");
  }, 60_000);

  test("an answer that is larger than the settings allow does not leave", async () => {
    await using other = await world({ servers: { desk: { module: program, maxAnswerBytes: 1024 } } }, { folder });
    const client = await clientAt({ url: other.url, token: (await other.tokens()).access_token }, "modern");
    const text = "\u00e4".repeat(100);
    const small = await client.callTool({ name: "echo", arguments: { text } });
    const large = await client.callTool({ name: "echo", arguments: { text, times: 3 } }).then(JSON.stringify, String);
    await client.close();
    expect(small.structuredContent).toMatchObject({ text });
    expect(large).toContain("larger than 1024 bytes");
  }, 60_000);

  test("what the file says counts first, and is no wider for what it does not say", async () => {
    const { settings } = await settleSettings(
      {
        servers: { desk: { module: program } },
        tools: { people: { from: "desk/contact", mask: { "people/*/age": "drop" } } },
        limits: { tools: { "tool:scarce": { perMinute: 5 } } },
      },
      folder,
      { env: {} },
    );
    expect(settings.tools?.["people"]).toMatchObject({
      access: "read",
      openWorld: false,
      mask: { "people/*/email": "redact", "people/*/age": "drop" },
    });
    expect(settings.tools).not.toHaveProperty("contact");
    expect(settings.tools).toHaveProperty("echo");
    expect(settings.limits.tools?.["tool:scarce"]).toEqual({ perMinute: 5 });
  });

  test("a module that cannot be served is a problem of the file, with the place in the module", async () => {
    const bad = join(folder, "bad.mjs");
    const author = JSON.stringify(join(import.meta.dirname, "../../src/author/index.ts"));
    writeFileSync(
      bad,
      `import { server, tool } from ${author};\nexport const desk = server({ name: "a", version: "1", tools: [\n  tool({ name: "x" }),\n] });\n`,
    );
    await expect(settleSettings({ servers: { desk: { module: "bad.mjs" } } }, folder, { env: {} })).rejects.toThrow(
      /servers\.desk\.module[\s\S]*bad\.mjs:3 tool x: the title is missing/,
    );
    await expect(settleSettings({ servers: { desk: { module: "none.mjs" } } }, folder, { env: {} })).rejects.toThrow(
      "cannot be loaded",
    );
  });

  test("other servers of the file without contracts are said to be hidden", async () => {
    const { warnings } = await settleSettings(
      { servers: { desk: { module: program }, other: { command: ["other"] } } },
      folder,
      { env: {} },
    );
    expect(warnings.join("\n")).toMatch(
      /servers\.desk\.module brings contracts, so nothing of other is served under `tools`/,
    );
  });
});
