/** The policy that counts now: it can be replaced while it is used, and another one can be tried out beside it. */
import type { Principal, Target } from "../core/call.ts";
import type { Decision, ShadowDecision } from "../core/decision.ts";
import { type CallFacts, compilePolicy, type Policy } from "./engine.ts";
import type { StepUpSettings } from "./limit-settings.ts";
import type { AssignSettings, RolesSettings, ShadowPolicySettings } from "./settings.ts";
import { beginTrial, type Trial, type TrialReport, type TrialSettings } from "./trial.ts";

export interface PolicySettings {
  readonly roles?: RolesSettings | undefined;
  readonly assign?: AssignSettings | undefined;
  readonly shadowPolicy?: ShadowPolicySettings | undefined;
  readonly stepUp?: StepUpSettings | undefined;
}

export interface LivePolicy extends Policy {
  /** The one that counts now, which stays as it is. */
  readonly now: Policy;
  /** The one that is tried out beside it; the one that counts where there is none. */
  readonly tried: Policy;
  /**
   * Compiles other settings and gives back what puts them in place: all at once, for every decision after it. Throws an `Error`
   * that says what is wrong with them; then nothing has changed.
   */
  prepare(settings: PolicySettings): () => void;
  readonly trials: Trials;
}

/** Policies that are tried out without being in the settings: one at a time, in place of the settings' own, also after a reload. */
export interface Trials {
  /** Ends the one before it. Throws as `compilePolicy` does; then nothing has changed. */
  begin(settings: TrialSettings): TrialReport;
  /** Of the one that goes on; undefined when there is none. */
  report(): TrialReport | undefined;
  /** The last report. */
  end(): TrialReport | undefined;
}

/** A call of which the policy that is tried out would have said something else. */
export interface Difference {
  readonly principal: Principal;
  readonly target: Target;
  readonly decision: Decision;
  readonly shadow: ShadowDecision;
}

/** `onDifference` hears of calls, not of lists. Throws as `compilePolicy` does. */
export function openPolicy(first: PolicySettings, onDifference: (difference: Difference) => void): LivePolicy {
  let current = compiled(first);
  let trial: Trial | undefined;
  return {
    get now() {
      return current.counts;
    },
    get tried() {
      return trial?.policy ?? current.shadow ?? current.counts;
    },
    get version() {
      return current.counts.version;
    },
    roles: (principal) => current.counts.roles(principal),
    explain: (...asked) => current.counts.explain(...asked),
    decide(principal, target, call) {
      const { counts } = current;
      const shadow = trial?.policy ?? current.shadow;
      const decision = counts.decide(principal, target, call);
      if (shadow === undefined || call === undefined) return decision;
      const other = differing(shadow, decision, principal, target, call);
      trial?.decided(target, decision, other);
      if (other === undefined) return decision;
      onDifference({ principal, target, decision, shadow: other });
      return { ...decision, shadow: other };
    },
    prepare(settings) {
      const next = compiled(settings);
      return () => {
        current = next;
      };
    },
    trials: {
      begin(settings) {
        trial = beginTrial(settings);
        return trial.report();
      },
      report: () => trial?.report(),
      end() {
        const report = trial?.report();
        trial = undefined;
        return report;
      },
    },
  };
}

function compiled({ roles, assign, shadowPolicy, stepUp }: PolicySettings): {
  counts: Policy;
  shadow: Policy | undefined;
} {
  const counts = compilePolicy(roles, assign, { stepUp });
  if (shadowPolicy !== undefined) {
    const shadow = compilePolicy(shadowPolicy.roles, shadowPolicy.assign, { shadows: true, stepUp });
    return { counts, shadow };
  }
  const tried = Object.values(roles ?? {}).some(
    (role) => role.shadow === true || role.rules?.some((rule) => rule.shadow === true) === true,
  );
  return { counts, shadow: tried ? compilePolicy(roles, assign, { shadows: true, stepUp }) : undefined };
}

function differing(
  shadow: Policy,
  decision: Decision,
  principal: Principal,
  target: Target,
  call: CallFacts,
): ShadowDecision | undefined {
  const other = shadow.decide(principal, target, call);
  if (other.effect === decision.effect) return undefined;
  const rule = other.effect === "step-up" ? undefined : other.rule;
  return { effect: other.effect, reason: other.reason, rule, policy: shadow.version };
}
