/** The settings of limits, made into what one call has to pass: one gate for each count that it would raise. */
import { hash } from "node:crypto";
import type { JsonObject, Principal, Target } from "../../core/call.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { ownerOf } from "../../mcp/sessions.ts";
import { type Cost, compileCost } from "../../policy/cost.ts";
import type { LimitsSettings, RateLimit } from "../../policy/limit-settings.ts";
import { DEFAULT_CONCURRENT, DEFAULT_PER_MINUTE } from "../../policy/limit-settings.ts";
import { indexPatterns } from "../../policy/pattern-index.ts";
import type { RolesSettings } from "../../policy/settings.ts";

/**
 * `request`: counted whatever becomes of it. `minute`, `day`: counted when all gates let the call through. `place`: taken for as long
 * as the call lasts.
 */
export type GateKind = "request" | "minute" | "day" | "place";

export interface Gate {
  readonly kind: GateKind;
  /** Names the count. No two things that are counted have the same. */
  readonly key: string;
  readonly limit: number;
  /** Thousandths, so that fractions add up. Of a place always 1. */
  readonly cost: number;
  /** Whose limit it is, where it stands and of what, for whoever is refused. */
  readonly what: string;
  readonly setting: string;
}

/** What is known of a call when it has been permitted. */
export interface LimitedCall {
  readonly principal: Principal;
  readonly target: Target;
  readonly args: JsonObject;
  /** The rule that permits it. */
  readonly rule: string;
}

export interface LimitSettings {
  readonly limits: LimitsSettings;
  readonly roles?: RolesSettings | undefined;
}

export interface Gates {
  /** Of every request: its place and its count. */
  door(principal: Principal): readonly [place: Gate, request: Gate];
  /** Those of the door that replicas count together: the ones that somebody has set. */
  readonly sharedAtDoor: ReadonlySet<GateKind>;
  /** Of a call; empty when nothing limits it further. Throws `invalid_params` when nobody can say what it costs. */
  call(call: LimitedCall): readonly Gate[];
}

/** Costs are counted in so many parts. */
export const PARTS = 1000;

interface Limited {
  readonly setting: string;
  /** Of what, in a sentence: `calls of refund_*`. */
  readonly of: string;
  readonly limit: RateLimit;
}
interface ToolRule extends Limited {
  readonly cost: Cost | undefined;
}

/** Throws an `Error` that says which pattern or expression is wrong. */
export function compileGates({ limits, roles = {} }: LimitSettings): Gates {
  const { perPrincipalPerMinute, perPrincipalPerDay, perToolPerMinute, concurrentPerPrincipal } = limits;
  const rules = Object.entries(limits.tools ?? {}).map(([pattern, { cost, ...limit }]) => ({
    pattern,
    to: "deny" as const,
    entry: {
      setting: `limits.tools.${pattern}`,
      of: `calls of ${pattern}`,
      limit,
      cost: cost === undefined ? undefined : compileCost(cost),
    } satisfies ToolRule,
  }));
  // As `deny` takes them: a class has in it what does at least that, and whatever nobody has said anything of.
  const index = indexPatterns<ToolRule>(rules);
  const matching = new WeakMap<Target, readonly ToolRule[]>();
  const rulesFor = (target: Target) => {
    const known = matching.get(target) ?? index.matching(target);
    matching.set(target, known);
    return known;
  };
  const ofRoles = new Map(
    Object.entries(roles).flatMap(([name, { limit }]): [string, Limited][] =>
      limit === undefined ? [] : [[name, { setting: `roles.${name}.limit`, of: `calls in the role ${name}`, limit }]],
    ),
  );
  const ofPerson: Limited | undefined =
    perPrincipalPerDay === undefined
      ? undefined
      : { setting: "limits.perPrincipalPerDay", of: "calls", limit: { perDay: perPrincipalPerDay } };
  const none = rules.length === 0 && ofRoles.size === 0 && ofPerson === undefined && perToolPerMinute === undefined;

  function doorOf(principal: Principal): readonly [place: Gate, request: Gate] {
    const key = `owner\n${ownerOf(principal)}`;
    return [
      {
        kind: "place",
        key,
        limit: concurrentPerPrincipal,
        cost: 1,
        what: "calls",
        setting: "limits.concurrentPerPrincipal",
      },
      {
        kind: "request",
        key,
        limit: perPrincipalPerMinute,
        cost: PARTS,
        what: "requests",
        setting: "limits.perPrincipalPerMinute",
      },
    ];
  }

  function gatesFor(
    { principal, target, rule }: LimitedCall,
    ofTarget: readonly ToolRule[],
    cost: number,
  ): readonly Gate[] {
    // `support: may get_*`, `support.rules.0: may get_*`: names of roles have neither dot nor colon.
    const ofRole = ofRoles.get(rule.replace(/[.:].*$/s, ""));
    const limited = [...ofTarget, ...(ofRole === undefined ? [] : [ofRole]), ...(ofPerson ? [ofPerson] : [])];
    const gates = limited.flatMap((one) => gatesOf(one, principal, cost));
    if (perToolPerMinute !== undefined)
      gates.push({
        kind: "minute",
        key: `target\n${ownerOf(principal)}\n${target.kind}\n${target.name}`,
        limit: perToolPerMinute,
        cost,
        what: `calls of ${target.name}`,
        setting: "limits.perToolPerMinute",
      });
    return gates;
  }

  // Whoever calls once calls again, and the same tools: their gates are the same ones each time.
  const doors = new WeakMap<Principal, readonly [place: Gate, request: Gate]>();
  const priceless = new WeakMap<Principal, WeakMap<Target, Map<string, readonly Gate[]>>>();

  return {
    door: (principal) => kept(doors, principal, () => doorOf(principal)),
    sharedAtDoor: new Set<GateKind>([
      ...(concurrentPerPrincipal === DEFAULT_CONCURRENT ? [] : (["place"] as const)),
      ...(perPrincipalPerMinute === DEFAULT_PER_MINUTE ? [] : (["request"] as const)),
    ]),
    call(call) {
      if (none) return NO_GATES;
      const { principal, target, rule } = call;
      const ofTarget = rulesFor(target);
      if (ofTarget.some(({ cost }) => cost !== undefined)) return gatesFor(call, ofTarget, costOf(ofTarget, call));
      const ofPrincipal = kept(priceless, principal, () => new WeakMap());
      return kept(
        kept(ofPrincipal, target, () => new Map()),
        rule,
        () => gatesFor(call, ofTarget, PARTS),
      );
    },
  };
}

const NO_GATES: readonly Gate[] = [];

function kept<K, V>(known: { get(key: K): V | undefined; set(key: K, value: V): unknown }, key: K, make: () => V): V {
  const there = known.get(key);
  if (there !== undefined) return there;
  const made = make();
  known.set(key, made);
  return made;
}

function gatesOf({ setting, of, limit }: Limited, { subject }: Principal, cost: number): Gate[] {
  const { perMinute, perDay, concurrent, together } = limit;
  const shared = {
    key: together === true ? setting : `${setting}\n${subject}`,
    what: together === true ? `${of} by all users` : `${of} by you`,
    setting,
  };
  return [
    ...(concurrent === undefined ? [] : [{ ...shared, kind: "place" as const, limit: concurrent, cost: 1 }]),
    ...(perMinute === undefined ? [] : [{ ...shared, kind: "minute" as const, limit: perMinute, cost }]),
    ...(perDay === undefined ? [] : [{ ...shared, kind: "day" as const, limit: perDay, cost }]),
  ];
}

/** The greatest of those that say one; in parts. */
function costOf(rules: readonly ToolRule[], { args, principal, target }: LimitedCall): number {
  let most: number | undefined;
  for (const { cost, setting } of rules) {
    if (cost === undefined) continue;
    try {
      most = Math.max(most ?? 0, cost(args, principal));
    } catch (thrown) {
      throw new DrawbridgeError(
        "invalid_params",
        `What this call of ${target.name} counts as cannot be worked out from its arguments, so it is refused.`,
        { detail: `${setting}.cost: ${thrown instanceof Error ? thrown.message : String(thrown)}`, cause: thrown },
      );
    }
  }
  // Rounded up, but not for what binary fractions are off by.
  return Math.ceil((most ?? 1) * PARTS - 1e-6);
}

/** What a count is called outside of this process: of one length, and without the name of a person. */
export function digestOf(key: string): string {
  return hash("sha256", key, "base64url").slice(0, 22);
}

/** What whoever did not get through a gate is told. `waitMs`: until there is room; undefined when there never will be for this call. */
export function refusal({ kind, limit, cost, what, setting }: Gate, waitMs: number | undefined): DrawbridgeError {
  const data = (per: string) => ({ limit: setting, permitted: limit, per });
  if (kind === "place")
    return new DrawbridgeError("rate_limited", `Too many ${what} at the same time (limit ${limit}).`, {
      retryAfterSeconds: 1,
      data: data("place"),
    });
  const per = kind === "day" ? "day" : "minute";
  const each = kind === "request" || cost === PARTS ? "" : ` This one counts as ${cost / PARTS}.`;
  if (waitMs === undefined) {
    const message = `This call counts as ${cost / PARTS}, and no more than ${limit} a ${per} are permitted of ${what}. Ask for less at a time.`;
    return new DrawbridgeError("rate_limited", message, { data: data(per) });
  }
  const seconds = Math.max(1, Math.ceil(waitMs / 1000));
  const message = `Too many ${what}: ${limit} a ${per} are permitted.${each} Try again in ${seconds} s.`;
  return new DrawbridgeError("rate_limited", message, { retryAfterSeconds: seconds, data: data(per) });
}
