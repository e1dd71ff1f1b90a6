/** Who may demand that a call is approved: the settings, and whatever else knows a reason. */
import type { Contract } from "../../contract/contract.ts";
import type { Authenticated, Target } from "../../core/call.ts";
import { type ApprovalNeed, type ApprovalRules, approvalFor } from "../../policy/approvals.ts";
import type { CallFacts } from "../../policy/engine.ts";

/** A call that is permitted, and whose arguments were checked. */
export interface HeldCall {
  readonly by: Authenticated;
  readonly target: Target;
  readonly contract: Contract | undefined;
  readonly facts: CallFacts;
  readonly session: SessionFacts;
}

/** In what the call is made. What was read and heard in it before, whoever keeps that knows by these. */
export interface SessionFacts {
  /** Of a client of 2025-11-25 and before. Those of 2026-07-28 have none: they are known by user, client and grant. */
  readonly session: string | undefined;
  readonly grant: string | undefined;
}

/**
 * One source of demands, asked about every call that could be held; cheap, and without side effects. With several that demand
 * something all of it counts. What it says of the same call must stay the same until it is made: anything else asks anew.
 */
export type NeedsApproval = (call: HeldCall) => ApprovalNeed | undefined;

/** `approvals:` of the settings, and `approval` of the contract. */
export function needsOfSettings(rules: () => ApprovalRules): NeedsApproval {
  return ({ by, target, contract, facts }) => {
    const settings = contract?.settings;
    const own =
      settings !== undefined && "approval" in settings
        ? { name: contract?.name ?? target.name, approval: settings.approval }
        : undefined;
    return approvalFor(rules(), by, target, facts, own);
  };
}
