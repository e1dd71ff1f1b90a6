/** What replay says of a call is what the policy would have said of it, or that it cannot be said. */
import { describe, expect, test, vi } from "vitest";
import { isStub, stubOf } from "../../src/audit/link.ts";
import { type AuditRecord, draftOf, field, type RecordedField, recordedDecision } from "../../src/audit/record.ts";
import { type Replay, type ReplayOptions, replay } from "../../src/audit/replay.ts";
import { ASKED } from "../../src/cli/policy-replay.ts";
import type { JsonObject, Principal, Target } from "../../src/core/call.ts";
import { METHODS } from "../../src/mcp/methods.ts";
import { type CallFacts, compilePolicy } from "../../src/policy/engine.ts";
import type { AssignSettings, RolesSettings } from "../../src/policy/settings.ts";
import { anyPolicies, callsOf, principal, principals, target, targets } from "../policy/support.ts";
import { fc, runs } from "../properties.ts";

vi.setConfig({ testTimeout: 120_000 });

interface Rules {
  readonly roles: RolesSettings;
  readonly assign: AssignSettings;
}
interface Past {
  readonly who: Principal;
  readonly what: Target;
  readonly call: CallFacts;
  readonly kept?: "full" | "hash" | "none";
  /** What the client asked, where policies are asked about another call: the one that made its task. */
  readonly method?: string;
}
const AT = Date.parse("2026-11-20T09:00:10Z");

/** The record of a call as the gateway writes it. */
function written(
  rules: Rules,
  { who, what, call, kept = "full", method = call.method }: Past,
  change: Partial<AuditRecord> = {},
): string {
  const policy = compilePolicy(rules.roles, rules.assign);
  const { subject, client, actors, groups, scopes, grant, tokenId } = who;
  const sent = what.kind === "resource" ? JSON.stringify(what.name) : JSON.stringify(call.args);
  const shown = what.kind === "resource" || method === "tools/call" || method === "prompts/get";
  const kind = method === "completion/complete" || !shown ? undefined : field(sent, kept, 10_000);
  const draft = draftOf({
    id: `r-${++count}`,
    kind: "call",
    at: call.at ?? AT,
    durationMs: 3,
    outcome: "permitted",
    principal: { subject, client, actors, groups, scopes, grant, tokenId },
    call: { method, revision: "2026-07-28", ...what },
    ...(kind !== undefined && { arguments: kind }),
    decision: recordedDecision(policy.decide(who, what, { at: AT, ...call })),
    policy: policy.version,
    replica: "one",
    ...change,
  });
  return `${draft.open}${draft.personal === undefined ? "" : `,"personal":${draft.personal}`}}`;
}
let count = 0;

const logOf = (records: readonly string[]): ReplayOptions["log"] => ({
  read: async ({ after = 0, limit, since = 0, until = Number.POSITIVE_INFINITY, newest }) => {
    const all = records
      .map((json, at) => ({ sequence: at + 1, json }))
      .filter(({ sequence, json }) => {
        const at = Date.parse(/"at":"([^"]*)"/.exec(json)?.[1] ?? "2026-01-01");
        return sequence > after && at >= since && at < until;
      });
    return newest === true ? all.slice(-limit) : all.slice(0, limit);
  },
});
interface More extends Partial<Omit<ReplayOptions, "now" | "next">> {
  readonly now?: Rules;
  readonly what?: Target;
}
function replayed(records: readonly string[], next: Rules, { now = next, what, ...more }: More = {}): Promise<Replay> {
  const served = () => ({ access: what?.access });
  return replay({
    log: logOf(records),
    since: 0,
    asked: (method) => ASKED[method],
    next: { settings: next, served },
    now: { settings: now, served },
    ...more,
  });
}

/** Roles that claims give, beside those of groups. */
const claimed = fc.subarray<AssignSettings[number]>([
  { role: "r0", claim: { vip: true } },
  { role: "r0", group: "g1", when: "has(principal.claims.level) && principal.claims.level > 2" },
  { role: "r0", claim: { level: 3 }, user: "u1" },
  { role: "r0", when: 'principal.groups.exists(one, one == "g2") || principal.claims.vip == true' },
]);
const rules = fc.tuple(anyPolicies, claimed).map(([{ roles, assign, flags }, more]) => ({
  roles,
  assign: [...assign, ...more],
  flags,
}));
const past = fc
  .tuple(
    rules,
    rules,
    principals,
    fc.constantFrom(...targets),
    fc.constantFrom("full" as const, "hash" as const, "none" as const),
  )
  .chain(([before, after, who, what, kept]) =>
    callsOf(what, [...new Set([...before.flags, ...after.flags])]).map((call) => {
      const args = call.method === "completion/complete" ? {} : call.args;
      const { method } = ASKED[call.method] ?? call;
      const facts = { ...call, method, args, at: call.at ?? AT };
      return { before, after, one: { who, what, kept, method: call.method, call: facts } };
    }),
  );

test("what is judged is judged right, whatever is missing in the record", async () => {
  let judged = 0;
  let flips = 0;
  await fc.assert(
    fc.asyncProperty(past, async ({ before, after, one }) => {
      const found = await replayed([written(before, one)], after, { what: one.what });
      const truth = compilePolicy(after.roles, after.assign).decide(one.who, one.what, one.call).effect;
      const was = compilePolicy(before.roles, before.assign).decide(one.who, one.what, one.call).effect;
      expect(found.calls).toBe(1);
      if (found.unjudged.length > 0) return;
      judged++;
      flips += found.flips;
      expect(found.rows.map(({ was: from, next }) => [from, next])).toEqual(was === truth ? [] : [[was, truth]]);
    }),
    { numRuns: runs(1500) },
  );
  // Of nothing this would hold, too.
  expect(judged).toBeGreaterThan(300);
  expect(flips).toBeGreaterThan(50);
});

test("the very same policy flips nothing, and judges all whose caller and arguments are recorded", async () => {
  await fc.assert(
    fc.asyncProperty(past, async ({ before, one }) => {
      const found = await replayed([written(before, one)], before, { what: one.what });
      expect(found).toMatchObject({ calls: 1, flips: 0, restored: 0, rows: [] });
      expect(found.unjudged.map(({ reason }) => reason)).not.toContain("contradicted");
      const ofClaims = JSON.stringify(before).includes("claims") || JSON.stringify(before.assign).includes("claim");
      const recorded = one.kept === "full" && !one.method.startsWith("tasks/");
      if (!ofClaims && recorded) expect(found.unjudged).toEqual([]);
    }),
    { numRuns: runs(700) },
  );
});

describe("a call", () => {
  const permitted: Rules = { roles: { all: { may: ["*"], deny: [] } }, assign: [{ role: "all", group: "support" }] };
  const limited = (when: string): Rules => ({
    roles: { all: { may: ["*"], deny: [], when } },
    assign: [{ role: "all", group: "support" }],
  });
  const one = (args: JsonObject = { n: 1 }, more: Partial<Past> = {}): Past => ({
    who: principal(),
    what: target("get_order"),
    call: { method: "tools/call", args, scope: "mcp:call", at: AT },
    ...more,
  });
  const reason = async (record: string, next: Rules, more: More = {}) =>
    (await replayed([record], next, more)).unjudged.map((each) => each.reason);
  const byArguments = limited("args.n == 2");

  test("whose arguments a condition looks at is judged by those that are recorded", async () => {
    const found = await replayed([written(permitted, one({ n: 1 })), written(permitted, one({ n: 2 }))], byArguments, {
      now: permitted,
    });
    expect(found).toMatchObject({ calls: 2, flips: 1, already: 0, unjudged: [] });
    expect(found.rows).toMatchObject([{ role: "all", name: "get_order", was: "permit", now: "permit", next: "deny" }]);
  });
  test.each([
    ["a hash", "arguments_hashed", "hash"],
    ["nothing", "arguments_absent", "none"],
  ] as const)("is not judged when a condition looks at arguments of which there is %s", async (_, why, kept) => {
    expect(await reason(written(permitted, one({}, { kept })), byArguments)).toEqual([why]);
    // Which another policy does not care for.
    expect(await reason(written(permitted, one({}, { kept })), { ...permitted, assign: [] })).toEqual([]);
  });
  test("is not judged by arguments that are masked, sealed or erased", async () => {
    const masked: RecordedField = { json: '{"n":"[redacted]"}', inexact: true };
    expect(await reason(written(permitted, one(), { arguments: masked }), byArguments)).toEqual(["arguments_inexact"]);
    const sealed = written(permitted, one()).replace(/"personal":.*\}$/, '"sealed":{"key":"k","text":"t"}}');
    expect(await reason(sealed, byArguments)).toEqual(["arguments_sealed"]);
    expect(await reason(sealed, byArguments, { keys: { open: async () => undefined } })).toEqual(["arguments_sealed"]);
    const open = async () => '{"arguments":{"json":{"n":2}}}';
    expect(await reason(sealed, byArguments, { keys: { open } })).toEqual([]);
  });
  test("of a resource whose address is masked is not judged", async () => {
    const what = target("o://[email]", "resource");
    const call = { method: "resources/read", args: { uri: what.name }, scope: "mcp:read", at: AT };
    const record = written(permitted, one({}, { what, call })).replace('"name":"o:', '"inexact":true,"name":"o:');
    expect(await reason(record, byArguments)).toEqual(["name_inexact"]);
  });
  test("is not judged when it takes claims that are not recorded, and is where it does not", async () => {
    const byClaim: Rules = { ...permitted, assign: [{ role: "all", claim: { team: "a" } }] };
    expect(await reason(written(permitted, one()), byClaim)).toEqual(["claims"]);
    const both: Rules = { ...permitted, assign: [...permitted.assign, ...byClaim.assign] };
    expect(await reason(written(permitted, one()), both)).toEqual([]);
    expect(await reason(written(permitted, one()), limited("principal.claims.team == 'a'"))).toEqual(["claims"]);
    // A rule about another tool that looks at claims says nothing of this one.
    const elsewhere: Rules = {
      ...permitted,
      roles: { all: { may: ["*"], deny: [], rules: [{ may: [], deny: ["x"], when: "principal.claims.a == 1" }] } },
    };
    expect(await reason(written(permitted, one()), elsewhere)).toEqual([]);
  });
  test("that was under way as the hour changed is not judged by the hour", async () => {
    const at = Date.parse("2026-11-20T08:59:59.999Z");
    const call = { method: "tools/call", args: {}, scope: "mcp:call", at };
    expect(await reason(written(permitted, one({}, { call })), limited("time.hour < 9"))).toEqual(["time"]);
    expect(await reason(written(permitted, one({}, { call })), limited("time.hour < 12"))).toEqual([]);
  });
  test("of what nobody serves, now or then, is not judged", async () => {
    const record = written(permitted, one());
    const gone = { settings: permitted, served: () => undefined };
    const found = await replay({ log: logOf([record]), since: 0, asked: (name) => ASKED[name], next: gone, now: gone });
    expect(found.unjudged).toMatchObject([{ reason: "not_served", calls: 1 }]);
    const unknown = written(permitted, one({}, { what: target("made_up", "tool", { server: "" }) }));
    expect(await reason(unknown, permitted)).toEqual(["was_not_served"]);
  });
  test("of a caller of whom only a part is recorded is not judged", async () => {
    const groups = Array.from({ length: 201 }, (_, at) => `g${at}`);
    const record = written(permitted, one({}, { who: principal({ groups: ["support", ...groups] }) }));
    expect(await reason(record, permitted)).toEqual(["caller_cut"]);
  });
  test("that the same policy decided otherwise is not judged", async () => {
    const record = written(byArguments, one({ n: 2 }), { arguments: { json: '{"n":3}' } });
    expect(await reason(record, byArguments)).toEqual(["contradicted"]);
  });
  test("that no policy was asked about does not count, nor does what is left of a record", async () => {
    const list = written(permitted, one(), { decision: undefined });
    const link = { id: "01a1feff-b2f4-7001-b36a-225051020270", n: 7, prev: "A".repeat(43) };
    const stub = stubOf("B".repeat(43), link);
    expect(isStub(stub)).toBe(true);
    // What only begins like one is a text like any other: it cannot be read as a call, and is told of.
    const forged = stub.replace(
      '},"chain"',
      '},"decision":{"effect":"permit"},"kind":"call","at":"2026-11-20","chain"',
    );
    expect(await replayed([list, stub], permitted)).toMatchObject({ records: 2, calls: 0, unjudged: [] });
    expect(await replayed([list, forged], permitted)).toMatchObject({ calls: 1, unjudged: [{ reason: "unreadable" }] });
  });
  test("tells what was changed since from what the policy would change", async () => {
    const nobody: Rules = { ...permitted, assign: [] };
    const record = written(permitted, one());
    expect(await replayed([record], nobody, { now: nobody })).toMatchObject({ flips: 1, already: 1, restored: 0 });
    expect(await replayed([record], nobody, { now: permitted })).toMatchObject({ flips: 1, already: 0 });
    const back = await replayed([record], permitted, { now: nobody });
    expect(back).toMatchObject({ flips: 0, restored: 1, rows: [{ was: "permit", now: "deny", next: "permit" }] });
  });
  test("is counted with the others of its role and tool, with the first, the last and examples", async () => {
    const at = (minute: number) => ({ at: AT + minute * 60_000 });
    const records = [2, 0, 5, 1].map((minute) => written(permitted, one(), { ...at(minute), id: `m-${minute}` }));
    const { rows } = await replayed(records, { ...permitted, assign: [] }, { now: permitted });
    expect(rows).toEqual([
      expect.objectContaining({
        role: "all",
        calls: 4,
        rule: undefined,
        first: "2026-11-20T09:00:10.000Z",
        last: "2026-11-20T09:05:10.000Z",
        examples: ["m-0", "m-5", "m-1"],
      }),
    ]);
    const other = await replayed(records, { ...permitted, assign: [] }, { now: permitted, role: "other" });
    expect(other).toMatchObject({ calls: 4, flips: 0, rows: [] });
  });
  test("that now needs a further scope is a step-up", async () => {
    const next = { ...permitted, stepUp: { "get_*": "extra" } };
    const found = await replayed([written(permitted, one())], next, { now: permitted });
    expect(found.rows).toMatchObject([{ role: "all", was: "permit", next: "step-up", rule: undefined }]);
  });
});

test("policies are asked about the methods that the gateway asks them about, with the same scopes", () => {
  const rows = Object.entries(METHODS).filter(
    ([name, { kind }]) =>
      kind === "call" || (kind === "task" && name !== "tasks/list") || name === "resources/subscribe",
  );
  expect(Object.keys(ASKED).sort()).toEqual(rows.map(([name]) => name).sort());
  for (const [name, { scope }] of rows)
    expect(ASKED[name]?.scope).toBe(name === "resources/subscribe" ? undefined : scope);
});

test("each page is read once, by its place alone, from the first record of the span to the last", async () => {
  const everybody: Rules = { roles: { all: { may: ["*"], deny: [] } }, assign: [{ role: "all", when: "true" }] };
  const call = (second: number) => ({ method: "tools/call", args: {}, scope: "mcp:call", at: AT + second * 1000 });
  const past = (second: number) => ({ who: principal(), what: target("x"), call: call(second) });
  const records = Array.from({ length: 2500 }, (_, second) => written(everybody, past(second)));
  const asked: unknown[] = [];
  const { read } = logOf(records);
  const log: ReplayOptions["log"] = {
    read: (query) => {
      asked.push(query);
      return read(query);
    },
  };
  const all = await replayed(records, everybody, { log, target: "x" });
  expect(all).toMatchObject({ records: 2500, calls: 2500, flips: 0 });
  expect(asked.slice(2)).toEqual([0, 1000, 2000].map((after) => ({ limit: 1000, after })));
  const some = { since: AT + 100_000, until: AT + 200_000 };
  expect(await replayed(records, everybody, some)).toMatchObject({ records: 100, calls: 100 });
  expect(await replayed(records, everybody, { since: AT + 1e9 })).toMatchObject({ records: 0, calls: 0 });
  expect(await replayed(records, everybody, { target: "y" })).toMatchObject({ records: 2500, calls: 0 });
});
