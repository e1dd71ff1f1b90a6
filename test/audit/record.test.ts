import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { openChain } from "../../src/audit/chain.ts";
import { openJournal } from "../../src/audit/journal.ts";
import {
  type AuditRecord,
  draftOf,
  field,
  readRecord,
  recordedCall,
  recordedDecision,
  recordedError,
  recordedPrincipal,
} from "../../src/audit/record.ts";
import { followRecords, searchRecords } from "../../src/audit/search.ts";
import { signerOfSeed } from "../../src/audit/signing.ts";
import type { McpCall } from "../../src/core/call.ts";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";

const bare: AuditRecord = { id: "r1", kind: "call", at: 0, durationMs: 0, outcome: "permitted", replica: "one" };
const principal = {
  subject: "local|7",
  client: "https://client.test/meta.json",
  actors: ["agent"],
  groups: ["owner", "staff"],
  scopes: ["mcp"],
  claims: { email: "someone@mail.test" },
  grant: "g1",
  tokenId: "t1",
  expiresAt: 1,
};
const call: McpCall = {
  id: 17,
  method: "tools/call",
  target: { server: "orders", kind: "tool", name: "orders_lookup", upstreamName: "lookup", pin: "abc" },
  params: {},
  forward: new Map(),
  meta: new Map(),
  progressToken: undefined,
  capabilities: {},
  logLevel: undefined,
  revision: "2025-11-25",
  trace: { traceId: "a".repeat(32), spanId: "b".repeat(16), sampled: true, tracestate: undefined },
  session: "session-credential",
};
const full: AuditRecord = {
  ...bare,
  at: Date.UTC(2026, 0, 2, 3, 4, 5, 6),
  durationMs: 12.345678,
  error: { code: "upstream_failed", message: "The server failed.", detail: "ECONNRESET" },
  principal: recordedPrincipal(principal),
  call: recordedCall(call),
  arguments: { json: '{"order_id":"ORD-1","n":1.10}' },
  result: { isError: false, sha256: "00ff", bytes: 12 },
  decision: { effect: "permit", reason: "permitted_by_rule", rule: "owner.may[0]" },
  trace: { traceId: "a".repeat(32), spanId: "b".repeat(16) },
  source: "127.0.0.1",
};

/** As it is stored without encryption, before it has its place in a chain. */
function recordText(record: AuditRecord): string {
  const { open, personal } = draftOf(record);
  return `${open}${personal === undefined ? "" : `,"personal":${personal}`}}`;
}

describe("the text of a record", () => {
  test("has every member of the record, always in the same order", async () => {
    const text = recordText(full);
    expect(Object.keys(JSON.parse(text) as object)).toEqual(
      "v id kind at durationMs outcome error principal call result decision trace replica personal".split(" "),
    );
    expect(await readRecord(text)).toEqual({
      v: 2,
      ...full,
      at: "2026-01-02T03:04:05.006Z",
      durationMs: 12.346,
      call: { ...full.call, session: createHash("sha256").update("session-credential").digest("hex").slice(0, 32) },
      arguments: { json: { order_id: "ORD-1", n: 1.1 } },
    });
    expect(text).toContain('"n":1.10'); // To the letter as the client wrote it.
    expect(recordText({ ...full })).toBe(text);
  });

  test("leaves out what is absent", () => {
    expect(recordText(bare)).toBe(
      '{"v":2,"id":"r1","kind":"call","at":"1970-01-01T00:00:00.000Z","durationMs":0,"outcome":"permitted","replica":"one"}',
    );
  });

  test("is JSON whatever strangers put into its texts", () => {
    const evil = 'x","outcome":"permitted"}\n\u0000\u2028\ud800\\';
    const text = recordText({
      ...full,
      outcome: "refused",
      principal: { ...recordedPrincipal(principal), subject: evil, groups: [evil] },
      call: { ...recordedCall(call), name: evil, requestId: evil, method: evil },
      error: { code: evil, message: evil, detail: evil },
      source: evil,
    });
    expect(JSON.parse(text)).toMatchObject({
      outcome: "refused",
      call: { name: evil, requestId: evil },
      principal: { groups: [evil] },
    });
  });

  test("has a bound: long texts are cut, long lists too", () => {
    const long = "x".repeat(1_000_000);
    const groups = Array.from({ length: 10_000 }, () => "g");
    const record = {
      ...full,
      call: { ...recordedCall(call), name: long },
      principal: { ...recordedPrincipal(principal), groups },
    };
    expect(recordText(record).length).toBeLessThan(6000);
    expect(draftOf(record).row.target?.length).toBeLessThan(2100);
  });

  test("names each principal, however often one was recorded", () => {
    const other = { ...principal, subject: "local|8" };
    const subjects = [principal, other, principal].map((who) => {
      const text = recordText({ ...full, principal: recordedPrincipal(who) });
      return (JSON.parse(text) as { principal: { subject: string } }).principal.subject;
    });
    expect(subjects).toEqual(["local|7", "local|8", "local|7"]);
  });

  test("does not hold the session's id, which is a credential", () => {
    expect(recordText(full)).not.toContain("session-credential");
  });

  test("carries what is told of other events than calls", async () => {
    const record: AuditRecord = { ...bare, kind: "user", action: "user.created", details: { name: "ada" } };
    expect(await readRecord(recordText(record))).toMatchObject({
      kind: "user",
      action: "user.created",
      details: { name: "ada" },
    });
    expect(draftOf(record).row).toMatchObject({ method: "user.created", target: undefined });
  });
});

describe("a kept field", () => {
  const json = '{"a":"é"}';
  const hashed = { sha256: createHash("sha256").update(json).digest("hex"), bytes: 10 };

  test("is its JSON, its hash and size in bytes, or nothing, as the settings say", () => {
    expect(field(json, "full", 10)).toEqual({ json });
    expect(field(json, "hash", 10)).toEqual(hashed);
    expect(field(json, "none", 10)).toBeUndefined();
  });

  test("that is longer than the bound, in bytes, is hashed", () => {
    expect(field(json, "full", 9)).toEqual(hashed);
  });

  test("is one line, so that it cannot forge a record of its own where records are read line by line", () => {
    const forged = '{"x":[\n{"v":1,"id":"forged"}\r\n],"y":"\u2028"}';
    const kept = field(forged, "full", 1000);
    expect(kept).toEqual({ json: '{"x":[ {"v":1,"id":"forged"} ],"y":"\\u2028"}' });
  });

  test("that is not JSON is hashed, so that it cannot forge what follows it", () => {
    for (const text of ['{}},"outcome":"permitted","x":{"y":{}', "", "{", "1 2"]) {
      expect(field(text, "full", 1000)).toMatchObject({ bytes: Buffer.byteLength(text) });
    }
  });
});

test("decisions and errors are recorded with what the caller was not told", () => {
  expect(recordedDecision({ effect: "deny", reason: "no_rule_permits", rule: undefined })).toMatchObject({
    reason: "no_rule_permits",
  });
  expect(recordedDecision({ effect: "step-up", reason: "scope_missing", scope: "orders" })).toMatchObject({
    scope: "orders",
  });
  expect(recordedError(new DrawbridgeError("rate_limited", "Too many.", { detail: "bucket 7" }))).toEqual({
    code: "rate_limited",
    message: "Too many.",
    detail: "bucket 7",
  });
  expect(recordedError(new TypeError("bug"))).toMatchObject({ code: "internal", detail: "TypeError: bug" });
});

test("records come back parsed and to the byte, and new ones as they are written", async () => {
  const store = memoryStore();
  const signer = signerOfSeed(Buffer.alloc(32, 7));
  await using journal = openJournal({
    log: store.audit,
    chain: openChain({ signer: async () => signer, log: store.audit, replica: "one" }),
    settings: { commit: "durable", maxPending: 10 },
    logger: silentLogger,
  });
  for (const id of ["r1", "r2", "r3"]) await journal.append({ ...full, id });
  const found = await searchRecords(store.audit, { limit: 10, subject: "local|7" });
  expect(found.map(({ sequence, record }) => [sequence, record.id])).toEqual([
    [2, "r1"],
    [3, "r2"],
    [4, "r3"],
  ]);
  expect(found[0]?.json.startsWith(recordText({ ...full, id: "r1" }).slice(0, -1))).toBe(true);
  expect(found[0]?.record).toEqual(await readRecord(found[0]?.json ?? ""));

  const stop = new AbortController();
  const wait = () => journal.append({ ...full, id: "r4" });
  const seen: string[] = [];
  for await (const { record } of followRecords(store.audit, { limit: 2 }, stop.signal, undefined, wait)) {
    seen.push(record.id);
    if (record.id === "r4") stop.abort();
  }
  expect(seen).toEqual(["r2", "r3", "r4"]);
});
