/** What one caller may see of outcomes, what is written down, and that masked content still is what clients were promised. */
import { describe, expect, test } from "vitest";
import type { Contract } from "../../src/contract/contract.ts";
import type { JsonObject, JsonValue, Outcome, Principal } from "../../src/core/call.ts";
import { type Masking, openMasking, openScrubber, type WrittenMask } from "../../src/gateway/masking.ts";
import { maskSettings } from "../../src/mask/settings.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import { faulty } from "../contract/faulty.ts";
import { fc, runs } from "../properties.ts";

const EMAIL = "anna.bell@shop-customers.test";
const PHONE = "+44 7700 900264";
const KEY = "ghp_k5xd0Yfk1YF6wYOcvvXRaABIx7NFQpa70Sac";

const amy = principal("amy");
const bob = principal("bob", ["finance"]);

function principal(subject: string, groups: readonly string[] = []): Principal {
  return {
    subject,
    client: "c",
    actors: [],
    groups,
    scopes: [],
    claims: {},
    grant: undefined,
    tokenId: subject,
    expiresAt: Number.POSITIVE_INFINITY,
  };
}

interface Opened {
  readonly masking: Masking;
  readonly counted: Record<string, number>;
}

function opened(mask?: object | "off", store = memoryStore()): Opened {
  const counted: Record<string, number> = {};
  const settings: WrittenMask = mask === undefined || mask === "off" ? mask : maskSettings.parse(mask);
  const masking = openMasking({
    settings,
    key: Buffer.alloc(32, 7),
    records: store.records,
    rolesOf: (by) => by.groups,
    counted(counts) {
      for (const [type, n] of Object.entries(counts)) counted[type] = (counted[type] ?? 0) + n;
    },
  });
  return { masking, counted };
}

function result(value: JsonObject): Outcome & { kind: "result" } {
  return { kind: "result", result: JSON.stringify(value), value };
}

async function shown(value: JsonObject, mask?: object | "off", by = amy, promised?: JsonObject): Promise<JsonObject> {
  const outcome = await opened(mask).masking.viewOf(by).outcome(result(value), promised);
  if (outcome.kind === "error") throw new Error(outcome.message);
  expect(JSON.parse(outcome.result)).toEqual(outcome.value);
  return outcome.value;
}

const contractWith = (settings: object) => ({ settings }) as unknown as Contract;

describe("an answer", () => {
  const value = { content: [{ type: "text", text: `${EMAIL} ${KEY}` }] };

  test("without `mask:` loses secrets and keeps people; with it both; with `off` nothing", async () => {
    expect(await shown(value)).toEqual({ content: [{ type: "text", text: `${EMAIL} [api_key]` }] });
    expect(await shown(value, {})).toEqual({ content: [{ type: "text", text: "[email] [api_key]" }] });
    expect(await shown(value, "off")).toEqual(value);
  });

  test("with nothing private is the very same outcome", async () => {
    const outcome = result({ content: [{ type: "text", text: "ORD-100207 was shipped" }], ttlMs: 3_600_000 });
    expect(await opened({}).masking.viewOf(amy).outcome(outcome)).toBe(outcome);
  });

  test("has what only machines read as it came: cursors, states, ids of tasks, pictures", async () => {
    const picture = Buffer.from(Array.from({ length: 300 }, (_, at) => (at * 7919) % 256)).toString("base64");
    const kept = {
      nextCursor: EMAIL,
      requestState: KEY,
      taskId: KEY,
      _meta: { "io.modelcontextprotocol/related-task": { taskId: KEY } },
      content: [
        { type: "image", data: picture, mimeType: "image/png" },
        { type: "resource", resource: { uri: "a://b", blob: picture } },
      ],
    };
    expect(await shown({ ...kept, statusMessage: EMAIL }, {})).toEqual({ ...kept, statusMessage: "[email]" });
  });

  test("that has a member twice does not get one of them past", async () => {
    const text = `{"nextCursor":"${EMAIL}","nextCursor":"next","content":[]}`;
    const outcome = await opened({})
      .masking.viewOf(amy)
      .outcome({ kind: "result", result: text, value: JSON.parse(text) });
    expect(outcome).toMatchObject({ kind: "result", result: expect.not.stringContaining(EMAIL) });
  });

  test("keeps the words of the protocol, whatever fields are named", async () => {
    const document = { type: "person", text: "T", name: "N", role: "admin" };
    const masked = await shown(
      { content: [{ type: "text", text: JSON.stringify(document) }], structuredContent: document, isError: false },
      { fields: { type: "redact", text: "redact", role: "drop", isError: "redact", "/name": "redact" } },
    );
    const expected = { type: "[masked]", text: "[masked]", name: "[masked]" };
    expect(masked).toEqual({
      content: [{ type: "text", text: JSON.stringify(expected) }],
      structuredContent: expected,
      isError: false,
    });
  });

  test("shows a role what it may see, and nobody else", async () => {
    const mask = { see: { finance: ["email"] } };
    expect(await shown(value, mask, bob)).toEqual({ content: [{ type: "text", text: `${EMAIL} [api_key]` }] });
    expect(JSON.stringify(await shown(value, mask, amy))).not.toContain(EMAIL);
  });

  test("follows its contract, also where answers are not masked otherwise", async () => {
    const { masking } = opened("off");
    const view = masking.viewOf(amy);
    view.under(contractWith({ mask: { "customer/name": "redact", "items/*/sku": "drop" } }));
    const document = { customer: { name: "N" }, items: [{ sku: "A", n: 1 }], name: "M" };
    expect(await view.outcome(result({ content: [], structuredContent: document }))).toMatchObject({
      value: { structuredContent: { customer: { name: "[masked]" }, items: [{ n: 1 }], name: "M" } },
    });
    expect(view.counts).toEqual({ field: 2 });
  });

  test("does not leave when what it shows cannot be kept", async () => {
    const store = memoryStore();
    const { masking } = opened({ people: "token" }, faulty(store, 1));
    await expect(masking.viewOf(amy).outcome(result(value))).rejects.toThrow();
  });

  test("that asks, and whatever is said on the way, has no stand-ins: nobody could keep them", async () => {
    const { masking, counted } = opened({ people: "token" });
    const view = masking.viewOf(amy);
    const asks = {
      resultType: "input_required",
      inputRequests: { a: { method: "elicitation/create", params: { message: EMAIL } } },
    };
    expect(await view.outcome(result(asks))).toMatchObject({
      value: { inputRequests: { a: { params: { message: "[email]" } } } },
    });
    expect(JSON.parse(view.said(JSON.stringify({ progressToken: EMAIL, progress: 1, message: EMAIL })))).toEqual({
      progressToken: EMAIL,
      progress: 1,
      message: "[email]",
    });
    const page = { mode: "url", url: `https://a.test/?u=${EMAIL}`, message: EMAIL };
    expect(JSON.parse(view.question({ method: "elicitation/create", params: JSON.stringify(page) }).params)).toEqual({
      ...page,
      message: "[email]",
    });
    expect(counted).toEqual({ email: 3 });
  });
});

describe("structured content still fits the schema that clients were shown", () => {
  const masked = async (schema: JsonObject, document: JsonObject, fields: object) => {
    const value = { content: [{ type: "text", text: JSON.stringify(document) }], structuredContent: document };
    const promised = { type: "object", additionalProperties: false, ...schema };
    return shown(value, { fields, people: "redact" }, amy, promised);
  };

  test.each([
    ["a format", { type: "string", format: "email" }, EMAIL, "masked@masked.example"],
    ["a pattern", { type: "string", pattern: "^[A-Z]{3}-[0-9]{4}$" }, "EMP-1234", "XXX-0000"],
    ["a length", { type: "string", maxLength: 4 }, "Anna", "Xxxx"],
    ["letters of its own script", { type: "string", maxLength: 5 }, "\u5f20\u4f1f-77", "xx-00"],
    ["a date", { type: "string", format: "date" }, "1984-03-02", "1970-01-01"],
    ["null", { type: ["string", "null"], enum: ["a", "b", null] }, "a", null],
    ["a least number", { type: "integer", minimum: 50 }, 71, 100],
  ] as const)("by something else that has %s", async (_, schema, was, now) => {
    const value = await masked({ properties: { one: schema as JsonObject } }, { one: was }, { one: "redact" });
    expect(value).toEqual({
      content: [{ type: "text", text: JSON.stringify({ one: now }) }],
      structuredContent: { one: now },
    });
  });

  test("by leaving it out where it may be", async () => {
    const schema = { properties: { tier: { enum: ["gold", "silver"] }, id: { type: "integer" } }, required: ["id"] };
    expect(await masked(schema, { tier: "gold", id: 1 }, { tier: "redact" })).toMatchObject({
      structuredContent: { id: 1 },
    });
  });

  test("or is withheld", async () => {
    const schema = { properties: { tier: { enum: ["gold", "silver"] } }, required: ["tier"] };
    const value = await masked(schema, { tier: "gold" }, { tier: "redact" });
    expect(value).toMatchObject({ isError: true });
    expect(JSON.stringify(value)).not.toContain("gold");
  });

  test("in every row alike, with the digits of its numbers", async () => {
    const schema = { properties: { rows: { items: { properties: { mail: { format: "email" } } } } } };
    const text = `{"rows":[${Array.from({ length: 50 }, (_, at) => `{"mail":"u${at}@a.test","n":12345678901234567890}`)}]}`;
    const outcome = await opened({})
      .masking.viewOf(amy)
      .outcome(
        {
          kind: "result",
          result: `{"content":[],"structuredContent":${text}}`,
          value: { content: [], structuredContent: JSON.parse(text) },
        },
        schema,
      );
    expect(outcome).toMatchObject({ kind: "result" });
    if (outcome.kind === "result") {
      expect(outcome.result.match(/masked@masked\.example/g)).toHaveLength(50);
      expect(outcome.result.match(/12345678901234567890/g)).toHaveLength(50);
    }
  });
});

describe("stand-ins", () => {
  const mask = { people: "token", fields: { name: "token" }, standInsFor: ["send_*"] };
  const document = { email: EMAIL, name: "Al Quist" };

  async function standIns(masking: Masking, by = amy): Promise<{ email: string; name: string }> {
    const outcome = await masking.viewOf(by).outcome(result({ content: [], structuredContent: document }));
    return (outcome as { value: JsonObject }).value["structuredContent"] as unknown as { email: string; name: string };
  }

  test("are put back for the tools that may have them, and for these alone", async () => {
    const { masking } = opened(mask);
    const { email, name } = await standIns(masking);
    const args = JSON.stringify({ to: email, dear: `Dear ${name}` });
    expect(await masking.putBack(args, amy, "send_mail", undefined)).toMatchObject({
      text: JSON.stringify({ to: EMAIL, dear: "Dear Al Quist" }),
    });
    expect(await masking.putBack(args, amy, "post", undefined)).toBeUndefined();
    expect(await masking.putBack(args, amy, "post", contractWith({ restores: true }))).toBeDefined();
    expect(await masking.putBack(args, amy, "send_mail", contractWith({ restores: false }))).toBeUndefined();
    expect(await masking.putBack(args, amy, "post", contractWith({ restores: ["email"] }))).toMatchObject({
      text: JSON.stringify({ to: EMAIL, dear: `Dear ${name}` }),
    });
  });

  test("of another user, and of one whose access has ended, are refused", async () => {
    const { masking } = opened(mask);
    const args = JSON.stringify({ to: (await standIns(masking)).email });
    await expect(masking.putBack(args, bob, "send_mail", undefined)).rejects.toThrow("was not given to you");
    await masking.forget("amy");
    await expect(masking.putBack(args, amy, "send_mail", undefined)).rejects.toThrow("has expired");
  });

  test("come back in place of what their server repeats, in every spelling", async () => {
    const { masking } = opened(mask);
    const { email, name } = await standIns(masking);
    const back = await masking.putBack(JSON.stringify({ email, name }), amy, "send_mail", undefined);
    const view = masking.viewOf(amy);
    view.hasPutBack(back?.put ?? []);
    const says = {
      content: [{ type: "text", text: `Sent to ${EMAIL.toUpperCase()}, al quist` }],
      structuredContent: { "Al Quist": 1, sent: ["Al Quist"], json: JSON.stringify({ to: "Al Quist" }) },
    };
    const outcome = await view.outcome(result(says));
    expect(JSON.stringify(outcome).toLowerCase()).not.toContain(EMAIL);
    expect((outcome as { value: JsonObject }).value["content"]).toEqual([
      { type: "text", text: expect.stringMatching(new RegExp(`^Sent to \\S+, ${name.replaceAll(/[[\]]/g, "\\$&")}$`)) },
    ]);
    expect((outcome as { value: JsonObject }).value["structuredContent"]).toMatchObject({
      sent: [name],
      json: JSON.stringify({ to: name }),
    });
    expect(view.said(JSON.stringify({ message: "To Al Quist" }))).toBe(JSON.stringify({ message: `To ${name}` }));
  });
});

describe("what is written down", () => {
  test("is masked whatever answers show, and shows nothing that could be turned back", () => {
    const json = JSON.stringify({ email: EMAIL, key: KEY, name: "N", id: "EMP-123456" });
    const pattern = { employee: { pattern: "EMP-[0-9]{6}", do: "keep" } };
    for (const mask of [undefined, "off", { people: "keep", secrets: "token", types: { email: "partial" } }] as const)
      expect(JSON.parse(opened(mask).masking.recorded(json) ?? "")).toMatchObject({
        email: "[email]",
        key: "[api_key]",
      });
    const { masking } = opened({
      fields: { name: "token", email: "keep" },
      patterns: pattern,
      see: { finance: ["people"] },
    });
    expect(JSON.parse(masking.recorded(json) ?? "")).toEqual({
      email: "[email]",
      key: "[api_key]",
      name: "[masked]",
      id: "[employee]",
    });
    expect(masking.recordedUri(`said://of/${encodeURIComponent(EMAIL)}`)).not.toContain("anna");
  });

  test("keeps marks that join one value with another", () => {
    const { masking } = opened({ types: { email: "hash" } });
    expect(masking.recordedText(EMAIL)).toMatch(/^\[email#\w{12}\]$/);
    expect(masking.recordedText(EMAIL)).toBe(masking.recordedText(EMAIL));
  });

  test("in the log keeps where the gateway listens and loses what is private", () => {
    const line = openScrubber(undefined).line(
      `{"level":"info","url":"http://127.0.0.1:7337/mcp","msg":"${EMAIL} ${KEY}"}\n`,
    );
    expect(line).toBe('{"level":"info","url":"http://127.0.0.1:7337/mcp","msg":"[email] [api_key]"}\n');
  });
});

test("definitions lose keys in their words, and keep names and schemas", () => {
  const { masking } = opened(undefined);
  const tool = {
    name: "find",
    description: `Use ${KEY}. Ask ${EMAIL}.`,
    inputSchema: {
      properties: { password: { type: "string", description: "The password: hunter2hunter2", pattern: `^${KEY}$` } },
    },
  };
  const text = masking.definition(JSON.stringify(tool));
  expect(JSON.parse(text)).toMatchObject({
    name: "find",
    description: `Use [api_key]. Ask ${EMAIL}.`,
    inputSchema: { properties: { password: { type: "string", pattern: `^${KEY}$` } } },
  });
});

test("other settings count from the moment they are taken, and wrong ones are refused before", async () => {
  const { masking } = opened(undefined);
  const view = masking.viewOf(amy);
  const says = (text: string) => view.text(text);
  const take = masking.prepare(maskSettings.parse({}));
  expect(says(EMAIL)).toBe(EMAIL);
  take();
  expect(says(EMAIL)).toBe("[email]");
  expect(() => masking.prepare(maskSettings.parse({ patterns: { bad: { pattern: "(?=x)" } } }))).toThrow(
    "mask.patterns.bad",
  );
});

test("for random contracts and answers no byte of a masked value reaches a role without it", async () => {
  const key = fc.constantFrom("customer", "name", "email", "note", "items", "ssn", "x y", "type", "text", "content");
  const secret = fc.constantFrom(EMAIL, PHONE, KEY, "5239 7914 0917 6951", "Zebulon\u00e9 Quux", 'Qu"ote\\Bell');
  const document = fc.letrec<{ node: JsonValue }>((tie) => ({
    node: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      secret,
      fc.record({ text: secret }).map(({ text }) => `Say ${text}, please.`),
      secret.map((value) => JSON.stringify({ name: value, note: [value] })),
      fc.integer(),
      fc.array(tie("node"), { maxLength: 3 }),
      fc.dictionary(key, tie("node"), { maxKeys: 4 }) as fc.Arbitrary<JsonValue>,
    ),
  })).node;
  const action = fc.constantFrom("redact", "partial", "hash", "token", "drop");
  await fc.assert(
    fc.asyncProperty(document, fc.dictionary(key, action, { maxKeys: 3 }), action, async (node, mask, people) => {
      const { masking } = opened({
        people,
        secrets: "redact",
        fields: { name: "redact" },
        see: { finance: ["people", "name"] },
      });
      const view = masking.viewOf(amy);
      view.under(contractWith({ mask: { ...mask, name: "redact" } }));
      // Names have no form: only their field tells of them.
      const named = { wrapped: { name: "Zebulon\u00e9 Quux", rest: withoutNames(node) } };
      const text = JSON.stringify(named);
      const outcome = await view.outcome(
        result({
          content: [
            { type: "text", text },
            { type: "resource", resource: { uri: "a://b", text } },
            { type: "resource", resource: { uri: "a://c", blob: Buffer.from(text).toString("base64") } },
          ],
          structuredContent: named,
          _meta: { vendor: named },
        }),
      );
      const error = await view.outcome({ kind: "error", code: 1, message: text, data: text });
      const everything = [
        JSON.stringify(outcome),
        ...blobsIn(outcome),
        JSON.stringify(error),
        view.said(JSON.stringify({ level: "info", data: named })),
        view.said(JSON.stringify({ progressToken: 1, progress: 1, message: text })),
        masking.recorded(text) ?? "",
        masking.recorded(JSON.stringify(outcome)) ?? "",
        JSON.stringify(view.counts),
      ].join("\n");
      for (const value of [EMAIL, PHONE, KEY, "5239 7914 0917 6951", "Zebulon"])
        expect(everything).not.toContain(value);
    }),
    { numRuns: runs(200) },
  );
}, 60_000);

function withoutNames(node: JsonValue): JsonValue {
  return JSON.parse(JSON.stringify(node).replaceAll("Zebulon\u00e9", "Somebody")) as JsonValue;
}

function blobsIn(outcome: Outcome): string[] {
  return [...JSON.stringify(outcome).matchAll(/"blob\\?":\\?"([^"\\]+)/g)].map(([, blob]) =>
    Buffer.from(blob ?? "", "base64").toString(),
  );
}
