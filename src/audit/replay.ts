/**
 * Decides recorded calls again, by another policy: which of them it would have decided otherwise. A record does not hold all that a
 * policy may look at, so what is missing is watched: a decision that did not look at it stands, one that did is not judged.
 */
import type { Access, JsonObject, Principal, Target, TargetKind } from "../core/call.ts";
import type { Decision } from "../core/decision.ts";
import { type CallFacts, compilePolicy, type Policy } from "../policy/engine.ts";
import type { PolicySettings } from "../policy/live.ts";
import type { AssignSettings } from "../policy/settings.ts";
import type { AuditLog } from "../store/ports.ts";
import type { PersonalKeys } from "./personal.ts";
import type { RecordedCall, RecordedPrincipal } from "./record.ts";
import { argumentsOf, type Decided, decidedOf, idIn, wantedBy } from "./recorded-decision.ts";

/** A policy, and what is served under it. */
export interface ReplayedPolicy {
  readonly settings: Pick<PolicySettings, "roles" | "assign" | "stepUp">;
  /** What contracts say of what a call was aimed at; undefined where nothing of that name is served. */
  served(call: RecordedCall): { readonly access: Access | undefined } | undefined;
}

export interface ReplayOptions {
  readonly log: Pick<AuditLog, "read">;
  /** Of what was sent in the calls; without them calls are not judged whose decision looks at it. */
  readonly keys?: Pick<PersonalKeys, "open"> | undefined;
  /** The policy that is asked. */
  readonly next: ReplayedPolicy;
  /** The one that counts today: tells what `next` changes from what was changed since. */
  readonly now: ReplayedPolicy;
  /** What policies are asked about a request; undefined for one that they are not asked about. */
  asked(method: string): Pick<CallFacts, "method" | "scope"> | undefined;
  /** Milliseconds since the epoch. */
  readonly since: number;
  readonly until?: number | undefined;
  /** Only calls of this tool, resource or prompt, by the name that clients have for it. */
  readonly target?: string | undefined;
  /** Only where this role decides or decided. */
  readonly role?: string | undefined;
  /** Hears of each thousand records. */
  readonly progress?: (records: number) => void;
}

/** Calls that are decided otherwise, in the same way. */
export interface ReplayRow {
  /** Whose rule decides, or else whose did; where neither has one, the caller's roles with commas between. */
  readonly role: string;
  readonly kind: string;
  readonly name: string;
  /** By the record, by the policy of today, and by the one that is asked. */
  readonly was: Decision["effect"];
  readonly now: Decision["effect"];
  readonly next: Decision["effect"];
  /** The rule that decides; undefined when none permits it. */
  readonly rule: string | undefined;
  readonly calls: number;
  /** ISO 8601. */
  readonly first: string;
  readonly last: string;
  /** Ids of the newest records. */
  readonly examples: readonly string[];
}

/** Why a call was not judged. */
export type Unjudged = keyof typeof UNJUDGED;
export const UNJUDGED = {
  arguments_sealed: "what was sent is erased, or its key cannot be read here",
  arguments_hashed: "what was sent is recorded as a hash",
  arguments_absent: "what was sent is not in the record",
  arguments_inexact: "what was sent is recorded masked, or had stand-ins in it",
  name_inexact: "the name is recorded masked or cut",
  name_absent: "the record does not say what was asked for",
  caller_cut: "only a part of the caller's groups, scopes or actors is in the record",
  claims: "it takes the caller's claims, which are not recorded",
  time: "it was decided as the minute ended that a condition looks at",
  not_served: "nothing of that name is served by these settings",
  was_not_served: "nothing of that name was served",
  contradicted: "the same policy decided otherwise: something that it looked at is not in the record",
  unreadable: "the record cannot be read",
} as const;

export interface Replay {
  /** Versions of the policies. */
  readonly policy: string;
  readonly present: string;
  /** Records that were read, calls or not. */
  readonly records: number;
  /** Calls that a policy had decided about. */
  readonly calls: number;
  /** Of these, those that the policy which is asked decides otherwise than they were, */
  readonly flips: number;
  /** and of those the ones that the policy of today decides otherwise already, in the same way. */
  readonly already: number;
  /** Those that it decides as they were, and the policy of today does not. */
  readonly restored: number;
  /** Most calls first. */
  readonly rows: readonly ReplayRow[];
  /** Calls in rows beyond those that are listed. */
  readonly unlisted: number;
  readonly unjudged: readonly {
    readonly reason: Unjudged;
    readonly calls: number;
    readonly examples: readonly string[];
  }[];
}

const PAGE = 1000;
const MAX_ROWS = 1000;
const EXAMPLES = 3;

/** Reads the log page by page. Throws as `compilePolicy` does. */
export async function replay(options: ReplayOptions): Promise<Replay> {
  const next = openJudge(options.next);
  const now = openJudge(options.now);
  const { role, progress } = options;
  const rows = new Map<string, Tally>();
  const unjudged = new Map<Unjudged, { calls: number; examples: string[] }>();
  const counts = { records: 0, calls: 0, flips: 0, already: 0, restored: 0, unlisted: 0 };

  const skipped = (reason: Unjudged, id: string): void => {
    const known = unjudged.get(reason) ?? { calls: 0, examples: [] };
    unjudged.set(reason, known);
    known.calls++;
    remember(known.examples, id);
  };
  const listed = (record: Decided, verdict: Verdict, today: Verdict): void => {
    const { was } = record;
    if (verdict.effect === was.effect && today.effect === was.effect) return;
    const by = roleOf(verdict.rule) ?? roleOf(was.rule) ?? verdict.roles.join(", ");
    if (role !== undefined && !by.split(", ").includes(role)) return;
    if (verdict.effect === was.effect) counts.restored++;
    else {
      counts.flips++;
      if (today.effect === verdict.effect) counts.already++;
    }
    const { kind = "", name = "" } = record.call;
    const row = { role: by, kind, name, was: was.effect, now: today.effect, next: verdict.effect, rule: verdict.rule };
    const key = JSON.stringify(row);
    let tally = rows.get(key);
    if (tally === undefined) {
      if (rows.size >= MAX_ROWS) {
        counts.unlisted++;
        return;
      }
      tally = { row, calls: 0, first: record.at, last: record.at, examples: [] };
      rows.set(key, tally);
    }
    tally.calls++;
    if (record.at < tally.first) tally.first = record.at;
    if (record.at > tally.last) tally.last = record.at;
    remember(tally.examples, record.id);
  };
  const judge = async (record: Decided): Promise<void> => {
    const first = verdictOf(next, record) ?? (await lookedInto(next, record, options));
    if (typeof first === "string") return skipped(first, record.id);
    const same = record.policy === now.version;
    const today = same ? record.was : (verdictOf(now, record) ?? (await lookedInto(now, record, options)));
    // What today's policy says cannot always be known; then nothing is known to be so already.
    listed(record, first, typeof today === "string" ? { ...record.was, roles: [] } : { roles: [], ...today });
  };

  const wanted = wantedBy(options);
  for await (const { json, sequence } of pages(options)) {
    counts.records++;
    if (counts.records % PAGE === 0) progress?.(counts.records);
    // Most records are of no decision, or can be judged by what is in clear in them.
    const record = json.includes('"decision":{') ? decidedOf(json, options, wanted) : undefined;
    if (record === undefined) continue;
    counts.calls++;
    if (typeof record !== "string") await judge(record);
    else skipped(record, idIn(json) ?? String(sequence));
  }
  const all = [...rows.values()].sort((one, other) => other.calls - one.calls);
  return {
    policy: next.version,
    present: now.version,
    ...counts,
    rows: all.map(({ row, calls, first, last, examples }) => ({ ...row, calls, first, last, examples })),
    unjudged: [...unjudged].map(([reason, one]) => ({ reason, ...one })).sort((one, other) => other.calls - one.calls),
  };
}

interface Tally {
  readonly row: Omit<ReplayRow, "calls" | "first" | "last" | "examples">;
  calls: number;
  first: string;
  last: string;
  readonly examples: string[];
}

function remember(examples: string[], id: string): void {
  examples.push(id);
  if (examples.length > EXAMPLES) examples.shift();
}

/** `support.rules.0: may get_*` is of the role `support`. */
const roleOf = (rule: string | undefined) => rule?.replace(/[.:].*$/s, "");

/**
 * All records from the first that is in the span to the last one. By their sequence alone, which every store reads page after page
 * without looking at the others again.
 */
async function* pages({ log, since, until }: ReplayOptions) {
  const span = { limit: 1, since, ...(until !== undefined && { until }) };
  const [first] = await log.read(span);
  if (first === undefined) return;
  const [end] = await log.read({ ...span, newest: true });
  const last = end?.sequence ?? first.sequence;
  // The next page is read while this one is judged.
  let coming = log.read({ limit: PAGE, after: first.sequence - 1 });
  for (;;) {
    const page = await coming;
    const read = page.at(-1)?.sequence ?? last;
    if (read < last) {
      coming = log.read({ limit: PAGE, after: read });
      // It is awaited in the next round; a failure meanwhile is not unheard.
      coming.catch(() => {});
    }
    for (const record of page) if (record.sequence <= last) yield record;
    if (read >= last) return;
  }
}

// ---- what a policy says of it ----

/** How a policy decides. */
interface Verdict {
  readonly effect: Decision["effect"];
  readonly rule: string | undefined;
  /** Of the caller. */
  readonly roles: readonly string[];
}

interface Judge {
  readonly version: string;
  /** Who calls, with the policies that may be the one for them: claims, which are not recorded, may give them roles or not. */
  caller(recorded: RecordedPrincipal): Caller;
  target(call: Decided["call"]): Target | undefined;
}

interface Caller {
  readonly candidates: readonly Candidate[] | "claims";
  /** What was decided without a look at arguments or the time; undefined: it takes such a look. */
  readonly verdicts: Map<string, Verdict | Unjudged | undefined>;
}
interface Candidate {
  readonly policy: Policy;
  readonly principal: Principal;
  readonly watch: Watch;
  /** Conditions about the caller alone look at claims; which ones count only its target says. */
  readonly looksAtClaims: boolean;
}

const MAX_CALLERS = 20_000;
const MAX_VERDICTS = 2_000;
const MAX_TARGETS = 50_000;
/** Roles that claims may give: each more doubles the ways a call may have been decided. */
const MAX_UNSURE_ROLES = 5;
const MAX_POLICIES = 256;

function openJudge({ settings, served }: ReplayedPolicy): Judge {
  const { roles, assign, stepUp } = settings;
  const policy = compilePolicy(roles, assign, { stepUp });
  const unsure = (assign ?? []).filter(needsClaims);
  const sure = assign?.filter((one) => !needsClaims(one));
  const policies = new Map<string, Policy>();
  /** With the roles in `granted` for all who may have them by claims, and without the others. */
  const policyWith = (granted: readonly string[]): Policy => {
    if (unsure.length === 0) return policy;
    const key = granted.join();
    const known = policies.get(key);
    if (known !== undefined) return known;
    const given = unsure.filter(({ role }) => granted.includes(role)).map(withoutClaims);
    const made = compilePolicy(roles, [...(sure ?? []), ...given], { stepUp });
    if (policies.size >= MAX_POLICIES) policies.clear();
    policies.set(key, made);
    return made;
  };
  const candidate = (its: Policy, recorded: RecordedPrincipal): Candidate => {
    const watch: Watch = { claims: false, args: false, time: false };
    const principal = principalOf(recorded, watch);
    its.roles(principal);
    return { policy: its, principal, watch, looksAtClaims: watch.claims };
  };
  const candidatesOf = (recorded: RecordedPrincipal): readonly Candidate[] | "claims" => {
    const least = candidate(policyWith([]), recorded);
    if (unsure.length === 0) return [least];
    const held = new Set(least.policy.roles(least.principal));
    const all = candidate(policyWith([...new Set(unsure.map(({ role }) => role))]), recorded);
    const maybe = all.policy.roles(all.principal).filter((role) => !held.has(role));
    if (maybe.length > MAX_UNSURE_ROLES) return "claims";
    return subsets(maybe).map((granted) => candidate(policyWith(granted), recorded));
  };

  const callers = new Map<string, Caller>();
  const targets = new Map<string, Target | undefined>();
  return {
    version: policy.version,
    caller(recorded) {
      const { subject, client, actors, groups, scopes } = recorded;
      const key = JSON.stringify([subject, client, actors, groups, scopes]);
      let known = callers.get(key);
      if (known === undefined) {
        if (callers.size >= MAX_CALLERS) callers.clear();
        known = { candidates: candidatesOf(recorded), verdicts: new Map() };
        callers.set(key, known);
      }
      return known;
    },
    target(call) {
      const key = targetKey(call);
      if (targets.has(key)) return targets.get(key);
      const found = served(call);
      const { server = "", kind, name, upstreamName = name } = call;
      const target: Target | undefined = found && {
        server,
        kind: kind as TargetKind,
        name,
        upstreamName,
        pin: undefined,
        ...(found.access !== undefined && { access: found.access }),
      };
      if (targets.size >= MAX_TARGETS) targets.clear();
      targets.set(key, target);
      return target;
    },
  };
}

const targetKey = ({ server, kind, name, upstreamName }: Decided["call"]) =>
  `${kind}\n${server}\n${upstreamName}\n${name}`;

/** Judges by what is in clear; undefined when that is not enough. */
function verdictOf(judge: Judge, record: Decided): Verdict | Unjudged | undefined {
  const { candidates, verdicts } = judge.caller(record.principal);
  const key = `${record.facts.method}\n${targetKey(record.call)}`;
  if (verdicts.has(key)) return verdicts.get(key);
  const target = judge.target(record.call);
  const verdict =
    target === undefined
      ? "not_served"
      : candidates === "claims"
        ? candidates
        : agreed(candidates.map((one) => decided(one, target, record.facts, undefined, undefined)));
  if (verdicts.size >= MAX_VERDICTS) verdicts.clear();
  verdicts.set(key, verdict);
  return verdict;
}

/** Judges with what was sent, and when. */
async function lookedInto(judge: Judge, record: Decided, options: ReplayOptions): Promise<Verdict | Unjudged> {
  const { candidates } = judge.caller(record.principal);
  const target = judge.target(record.call);
  if (target === undefined) return "not_served";
  if (candidates === "claims") return candidates;
  const found = await argumentsOf(record, options);
  const args = typeof found === "string" ? undefined : found;
  const at = Date.parse(record.at);
  const verdictAt = (time: number) => agreed(candidates.map((one) => decided(one, target, record.facts, args, time)));
  const verdict = verdictAt(at);
  if (verdict === undefined) return typeof found === "string" ? found : "contradicted";
  if (typeof verdict === "string") return verdict;
  const until = at + Math.ceil(record.durationMs);
  if (Math.floor(until / 60_000) !== Math.floor(at / 60_000)) {
    const later = verdictAt(until);
    if (later === undefined || typeof later === "string" || later.effect !== verdict.effect) return "time";
  }
  // It stands for itself that the same question has the same answer.
  if (record.policy === judge.version && verdict.effect !== record.was.effect) return "contradicted";
  return verdict;
}

/** What all say, if they say the same. */
function agreed(all: readonly (Verdict | Unjudged | undefined)[]): Verdict | Unjudged | undefined {
  const [first, ...others] = all;
  for (const other of others) {
    if (first === undefined || other === undefined) return undefined;
    if (typeof first === "string") return first;
    if (typeof other === "string") return other;
    if (first.effect !== other.effect) return "claims";
  }
  return first;
}

/** One policy's decision; undefined when it looked at arguments or a time that are not given. */
function decided(
  { policy, principal, watch, looksAtClaims }: Candidate,
  target: Target,
  facts: Pick<CallFacts, "method" | "scope">,
  args: JsonObject | undefined,
  at: number | undefined,
): Verdict | Unjudged | undefined {
  const call: CallFacts = { ...facts, args: args ?? missing(watch, "args"), at: at ?? missingTime(watch) };
  Object.assign(watch, { claims: false, args: false, time: false });
  const decision = policy.decide(principal, target, call);
  if (watch.args || watch.time) return undefined;
  let { claims } = watch;
  if (looksAtClaims && !claims) {
    policy.explain(principal, target, call);
    claims = watch.claims;
  }
  if (claims) return "claims";
  const rule = decision.effect === "step-up" ? undefined : decision.rule;
  return { effect: decision.effect, rule, roles: policy.roles(principal) };
}

// ---- what is missing, watched ----

/** What a decision has looked at that is not known. */
interface Watch {
  claims: boolean;
  args: boolean;
  time: boolean;
}

/** An object that stands for one that is not known: whoever looks into it is noticed. */
function missing(watch: Watch, what: "claims" | "args"): JsonObject {
  const noticed = () => {
    watch[what] = true;
  };
  return new Proxy<JsonObject>(
    {},
    {
      get(of, key) {
        noticed();
        return Reflect.get(of, key) as unknown;
      },
      has(of, key) {
        noticed();
        return Reflect.has(of, key);
      },
      ownKeys(of) {
        noticed();
        return Reflect.ownKeys(of);
      },
      getOwnPropertyDescriptor(of, key) {
        noticed();
        return Reflect.getOwnPropertyDescriptor(of, key);
      },
      getPrototypeOf(of) {
        noticed();
        return Reflect.getPrototypeOf(of);
      },
    },
  );
}

/** A number for all who ask what it is; whoever makes a date of it is noticed. */
function missingTime(watch: Watch): number {
  const time = {
    [Symbol.toPrimitive]() {
      watch.time = true;
      return 0;
    },
  };
  return time as unknown as number;
}

function principalOf({ subject, client, actors, groups, scopes }: RecordedPrincipal, watch: Watch): Principal {
  const claims = missing(watch, "claims");
  return { subject, client, actors, groups, scopes, claims, grant: undefined, tokenId: "", expiresAt: 0 };
}

type Assign = AssignSettings[number];

/** One that gets at them in another way is noticed when it does; then no call of that caller is judged. */
function needsClaims({ claim, when }: Assign): boolean {
  return Object.keys(claim ?? {}).length > 0 || when?.includes("claims") === true;
}

/** Whoever may have the role by it, if their claims are right. */
function withoutClaims({ role, user, group, client, when }: Assign): Assign {
  const plain = {
    role,
    ...(user !== undefined && { user }),
    ...(group !== undefined && { group }),
    ...(client !== undefined && { client }),
  };
  return when === undefined && Object.keys(plain).length > 1 ? plain : { ...plain, when: "true" };
}

function subsets<T>(of: readonly T[]): readonly (readonly T[])[] {
  return Array.from({ length: 2 ** of.length }, (_, bits) => of.filter((_one, at) => (bits & (1 << at)) !== 0));
}
