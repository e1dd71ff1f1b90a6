/** What records look like where they are sent: against our own schema, OCSF's, and CloudEvents'. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { describe, expect, test } from "vitest";
import { leafHash } from "../../src/audit/merkle.ts";
import { type AuditRecord, type RecordKind, readRecord } from "../../src/audit/record.ts";
import { formatted } from "../../src/audit/sinks/formats.ts";
import { callRecord, sinkLog } from "./sink-log.ts";

const KINDS: Readonly<Record<Exclude<RecordKind, "audit">, readonly Partial<AuditRecord>[]>> = {
  call: [
    {},
    { outcome: "refused", error: { code: "insufficient_scope", message: "No.", detail: "no rule" }, result: undefined },
    {
      outcome: "failed",
      arguments: { sha256: "ab".repeat(32), bytes: 70_000 },
      result: { isError: true, json: "[1]" },
    },
    {
      outcome: "abandoned",
      principal: undefined,
      call: { method: "tools/list", revision: "2025-11-25" },
      trace: undefined,
    },
    { decision: { effect: "step-up", reason: "more is needed", scope: "mcp:admin" }, source: undefined },
  ],
  "sign-in": [
    { action: "signed-in", call: undefined, details: { how: "password" } },
    { action: "sign-in-failed", outcome: "refused", call: undefined, principal: undefined },
    { action: "signed-out", call: undefined },
  ],
  consent: [{ action: "consent-granted" }, { action: "consent-denied", outcome: "refused" }],
  token: [{ action: "token-issued" }, { action: "revoked", principal: undefined }],
  client: [{ action: "client-registered" }, { action: "client-refused", outcome: "refused", principal: undefined }],
  user: [{ action: "user-created" }, { action: "password-changed" }],
  approval: [{ action: "approval-asked", details: { number: "A-1" } }, { action: "approval-denied" }],
  configuration: [
    { action: "settings-reloaded", principal: undefined, details: { changed: ["roles"], operator: "root" } },
  ],
};

/** Records as they are in a log, of all kinds. */
async function texts(): Promise<readonly string[]> {
  const log = sinkLog();
  for (const [kind, all] of Object.entries(KINDS))
    for (const more of all) {
      const { call, ...rest } = callRecord(more);
      await log.write(1, {
        ...rest,
        kind: kind as RecordKind,
        ...(kind === "call" ? { call } : { call: undefined }),
        ...more,
      });
    }
  return log.texts();
}

async function sent(json: string, format: Parameters<typeof formatted>[0], opened = false): Promise<string> {
  const record = await readRecord(json, opened ? async () => '{"source":"203.0.113.7"}' : undefined);
  return formatted(format, { record, json, opened, sequence: 1, source: "https://mcp.acme.example/" });
}

describe("our own schema", () => {
  const ajv = new Ajv2020({ allErrors: true, allowUnionTypes: true });
  addFormats.default(ajv);
  const path = join(import.meta.dirname, "../../schema/audit-record.schema.json");
  const valid = ajv.compile(JSON.parse(readFileSync(path, "utf8")) as object);

  test("describes every record, sealed and opened, and its text is sent to the byte", async () => {
    for (const json of await texts()) {
      expect(await sent(json, "json")).toBe(json);
      expect(valid(JSON.parse(json)), JSON.stringify(valid.errors)).toBe(true);
      expect(valid(JSON.parse(await sent(json, "json", true))), JSON.stringify(valid.errors)).toBe(true);
    }
  });

  test("describes nothing else", async () => {
    const [json = ""] = await texts();
    const record = JSON.parse(json) as object;
    for (const wrong of [{ kind: "other" }, { extra: 1 }, { at: "yesterday" }, { chain: undefined }, { v: 1 }])
      expect(valid(JSON.parse(JSON.stringify({ ...record, ...wrong }))), JSON.stringify(wrong)).toBe(false);
  });
});

interface Attribute {
  readonly type: string;
  readonly array?: boolean;
  readonly required?: boolean;
  readonly enum?: readonly number[];
  readonly deprecated?: boolean;
}
interface Described {
  readonly attributes: Readonly<Record<string, Attribute>>;
  readonly constraints?: { readonly at_least_one?: readonly string[]; readonly just_one?: readonly string[] };
}
interface Schema {
  readonly classes: Readonly<Record<string, Described & { readonly uid: number; readonly category: number }>>;
  readonly objects: Readonly<Record<string, Described>>;
  readonly types: Readonly<Record<string, string>>;
}
/** Of https://github.com/ocsf/ocsf-schema, Apache-2.0: the classes and objects that we use, with the profiles that we name. */
const OCSF = JSON.parse(readFileSync(join(import.meta.dirname, "ocsf-1.9.json"), "utf8")) as Schema;

/** What is wrong with a value, as the schema's validator would say it. */
function problemsOf(value: unknown, type: string, at: string): string[] {
  const object = OCSF.objects[type];
  if (object !== undefined) return problemsIn(value, object, at);
  const primitive = OCSF.types[type] ?? type;
  const found = typeof value;
  if (primitive === "json_t" || primitive === "object") return [];
  if (primitive === "string_t") return found === "string" ? [] : [`${at} is no text`];
  if (primitive === "boolean_t") return found === "boolean" ? [] : [`${at} is no boolean`];
  if (primitive === "integer_t" || primitive === "long_t")
    return Number.isInteger(value) ? [] : [`${at} is no whole number`];
  return [`${at} has the type ${type}, of which nothing is known`];
}

function problemsIn(value: unknown, { attributes, constraints }: Described, at: string): string[] {
  if (typeof value !== "object" || value === null) return [`${at} is no object`];
  const has = (name: string) => Object.hasOwn(value, name);
  const problems = Object.entries(attributes).flatMap(([name, { required }]) =>
    required === true && !has(name) ? [`${at}.${name} is missing`] : [],
  );
  if (constraints?.at_least_one?.some(has) === false)
    problems.push(`${at} has none of ${constraints.at_least_one.join()}`);
  for (const [name, inner] of Object.entries(value)) {
    const attribute = attributes[name];
    const place = `${at}.${name}`;
    if (attribute === undefined) problems.push(`${place} is not known`);
    else if (attribute.deprecated === true) problems.push(`${place} is deprecated`);
    else if (attribute.array === true) {
      if (!Array.isArray(inner)) problems.push(`${place} is no list`);
      else problems.push(...inner.flatMap((one, index) => problemsOf(one, attribute.type, `${place}[${index}]`)));
    } else {
      problems.push(...problemsOf(inner, attribute.type, place));
      if (attribute.enum !== undefined && !attribute.enum.includes(Number(inner)))
        problems.push(`${place} is ${String(inner)}`);
    }
  }
  return problems;
}

interface OcsfEvent {
  readonly class_uid: number;
  readonly category_uid: number;
  readonly activity_id: number;
  readonly type_uid: number;
  readonly raw_data: string;
  readonly metadata: { readonly uid: string; readonly version: string; readonly original_event_uid: string };
  readonly attestation_list: readonly {
    readonly chain_uid: string;
    readonly fingerprint: { readonly value: string };
    readonly prev_event?: { readonly uid: string; readonly fingerprint: { readonly value: string } };
  }[];
}

describe("OCSF 1.9", () => {
  test.each([false, true])(
    "has every record as an event of its class that the schema accepts (opened: %s)",
    async (opened) => {
      const seen = new Set<number>();
      for (const json of await texts()) {
        const event = JSON.parse(await sent(json, "ocsf", opened)) as OcsfEvent;
        const described = Object.values(OCSF.classes).find(
          ({ uid, category }) => category * 1000 + uid === event.class_uid && category === event.category_uid,
        );
        if (described === undefined) throw new Error(`there is no class ${event.class_uid}`);
        expect(problemsIn(event, described, ""), json).toEqual([]);
        expect(event.type_uid).toBe(event.class_uid * 100 + event.activity_id);
        expect(event.metadata.version).toBe("1.9.0");
        seen.add(event.class_uid);
      }
      expect([...seen].sort()).toEqual([1008, 3002, 3004, 3007, 6003]);
    },
  );

  test("carries the chain: each event names the one before it, and the fingerprint is that of the record's text", async () => {
    let before: OcsfEvent | undefined;
    for (const json of await texts()) {
      const event = JSON.parse(await sent(json, "ocsf")) as OcsfEvent;
      const [attestation] = event.attestation_list;
      expect(event.raw_data).toBe(json);
      expect(attestation?.fingerprint.value).toBe(leafHash(event.raw_data));
      expect(attestation?.prev_event?.uid).toBe(before?.metadata.uid);
      expect(attestation?.prev_event?.fingerprint.value).toBe(before?.attestation_list[0]?.fingerprint.value);
      before = event;
    }
  });

  test("the test itself finds what is wrong", () => {
    const described = OCSF.classes["api_activity"];
    if (described === undefined) throw new Error("no class");
    const problems = problemsIn({ activity_id: 77, time: "now", invented: 1, actor: {} }, described, "");
    for (const one of [".invented is not known", ".activity_id is 77", ".time is no whole number", ".api is missing"])
      expect(problems).toContain(one);
  });
});

describe("CloudEvents 1.0", () => {
  test("envelopes hold the record to the byte, and their attributes are as the specification wants them", async () => {
    for (const json of await texts()) {
      const text = await sent(json, "cloudevents");
      const { data, ...envelope } = JSON.parse(text) as Record<string, unknown> & { data: { id: string } };
      expect(text.endsWith(`,"data":${json}}`)).toBe(true);
      expect(envelope).toMatchObject({ specversion: "1.0", id: data.id, source: "https://mcp.acme.example/" });
      for (const [name, value] of Object.entries(envelope)) {
        expect(name).toMatch(/^[a-z0-9]{1,20}$/);
        expect(value).toMatch(/./);
      }
      expect(envelope["type"]).toMatch(/^io\.drawbridge\.audit\.[a-z-]+$/);
      expect(new Date(String(envelope["time"])).toISOString()).toBe(envelope["time"]);
      if (envelope["traceparent"] !== undefined)
        expect(envelope["traceparent"]).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/);
    }
  });

  test("sequence sorts as the chain goes", async () => {
    const all = (await Promise.all((await texts()).map((json) => sent(json, "cloudevents")))).map(
      (text) => (JSON.parse(text) as { sequence: string }).sequence,
    );
    expect([...all].sort()).toEqual(all);
    expect(new Set(all).size).toBe(all.length);
  });
});
