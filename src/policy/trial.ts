/** A policy that an operator tries out on a running gateway for a while, and what it would have changed. It decides nothing. */
import { z } from "zod";
import type { Target } from "../core/call.ts";
import type { Decision, ShadowDecision } from "../core/decision.ts";
import { compilePolicy, type Policy } from "./engine.ts";
import { shadowPolicySettings } from "./settings.ts";

/** What an operator sends: a policy, and what they call it. */
export const trialSettings = z.strictObject({ name: z.string().min(1).max(500), policy: shadowPolicySettings });
export type TrialSettings = z.infer<typeof trialSettings>;

/** Calls that would have been decided otherwise, by what they were about. */
export interface TrialRow {
  /** Of the rule that would have decided, or else of the one that did; empty where there is neither. */
  readonly role: string;
  readonly kind: Target["kind"];
  /** As clients know it; empty for what is not served. */
  readonly name: string;
  readonly from: Decision["effect"];
  readonly to: Decision["effect"];
  /** The rule that would have decided; undefined when none permits it. */
  readonly rule: string | undefined;
  readonly calls: number;
}

export interface TrialReport {
  readonly name: string;
  /** Its version. */
  readonly policy: string;
  /** ISO 8601. */
  readonly since: string;
  /** All that were decided since then. */
  readonly calls: number;
  readonly different: number;
  /** Most calls first. */
  readonly rows: readonly TrialRow[];
}

export interface Trial {
  readonly policy: Policy;
  /** Hears of each call, and of what this policy would have said where that is something else. */
  decided(target: Target, decision: Decision, other: ShadowDecision | undefined): void;
  report(): TrialReport;
}

/** What is different in more ways than these is counted, and not listed. */
const MAX_ROWS = 500;

/** Throws as `compilePolicy` does. */
export function beginTrial({ name, policy: { roles, assign } }: TrialSettings, now: () => number = Date.now): Trial {
  const policy = compilePolicy(roles, assign, { shadows: true });
  const since = new Date(now()).toISOString();
  const rows = new Map<string, { row: Omit<TrialRow, "calls">; calls: number }>();
  let calls = 0;
  let different = 0;
  return {
    policy,
    decided(target, decision, other) {
      calls++;
      if (other === undefined) return;
      different++;
      const decidedBy = decision.effect === "step-up" ? undefined : decision.rule;
      const row = {
        role: (other.rule ?? decidedBy ?? "").replace(/[.:].*$/s, ""),
        kind: target.kind,
        // Names that only a client made up are no rows.
        name: target.server === "" ? "" : target.name,
        from: decision.effect,
        to: other.effect,
        rule: other.rule,
      };
      const key = JSON.stringify(row);
      const known = rows.get(key);
      if (known !== undefined) known.calls++;
      else if (rows.size < MAX_ROWS) rows.set(key, { row, calls: 1 });
    },
    report: () => ({
      name,
      policy: policy.version,
      since,
      calls,
      different,
      rows: [...rows.values()].map((one) => ({ ...one.row, calls: one.calls })).sort((a, b) => b.calls - a.calls),
    }),
  };
}
