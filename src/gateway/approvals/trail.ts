/** The record of every step of an approval: asked, approved or denied and by whom, used, or come too late. */
import { recordedPrincipal } from "../../audit/record.ts";
import type { Authenticated, JsonObject, TraceContext } from "../../core/call.ts";
import type { Clock } from "../../core/clock.ts";
import { newId } from "../../core/ids.ts";
import { approversText } from "../../policy/approvals.ts";
import type { Actor } from "../deeds.ts";
import type { Parts } from "../parts.ts";
import type { Request } from "./kept.ts";

export type Step =
  | "approval-asked"
  | "approval-approved"
  | "approval-denied"
  /** Somebody tried to decide it who may not. */
  | "approval-decision-refused"
  | "approval-spent"
  /** The call that it was spent for was not made, so that it can be made again. */
  | "approval-returned"
  | "approval-expired";

export interface Trail {
  /** Resolves when the step is recorded; rejects with `audit_unavailable`. */
  step(step: Step, request: Request, by: Actor | Authenticated, more?: JsonObject, trace?: TraceContext): Promise<void>;
  /** Throws `audit_unavailable` while nothing can be recorded. */
  check(): void;
}

export function openTrail(parts: () => Pick<Parts, "journal" | "replica" | "masking">, clock: Clock): Trail {
  return {
    step(step, request, by, more = {}, trace) {
      const { journal, replica, masking } = parts();
      const { target, method, number, need, requester, until } = request;
      const at = clock();
      const actor: Actor | undefined = "kind" in by ? by : undefined;
      const principal = "kind" in by ? (by.kind === "owner" ? by.by : undefined) : by;
      const source = actor?.kind === "owner" ? actor.source : undefined;
      return journal.append({
        id: newId(at),
        kind: "approval",
        action: step,
        at,
        durationMs: 0,
        outcome: step === "approval-decision-refused" || step === "approval-expired" ? "refused" : "permitted",
        ...(principal !== undefined && { principal: recordedPrincipal(principal) }),
        ...(source !== undefined && { source }),
        ...(trace !== undefined && { trace: { traceId: trace.traceId, spanId: trace.spanId } }),
        details: {
          approval: number,
          requester: { subject: requester.subject, client: requester.client },
          target: {
            server: target.server,
            kind: target.kind,
            name: target.kind === "resource" ? masking.recordedUri(target.name) : target.name,
            ...(target.pin && { pin: target.pin }),
          },
          method,
          rules: need.rules,
          approver: approversText(need),
          until: new Date(until).toISOString(),
          ...(actor?.kind === "operator" && { operator: actor.name, via: actor.via }),
          ...(actor?.kind === "owner" && { via: "admin" }),
          ...more,
        },
        replica,
      });
    },
    check: () => parts().journal.check(),
  };
}
