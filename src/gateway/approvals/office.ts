/** Where people decide about calls that wait for an approval: what each may see, who may decide, and the decision. */
import type { Authenticated, JsonValue } from "../../core/call.ts";
import type { Clock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { CALL_SCOPE, READ_SCOPE } from "../../mcp/methods.ts";
import { approversText, mayApprove } from "../../policy/approvals.ts";
import type { Actor } from "../deeds.ts";
import type { Parts } from "../parts.ts";
import { linesOf, shownOf } from "./form.ts";
import type { Kept, Known, Request } from "./kept.ts";
import type { Trail } from "./trail.ts";

/** One request as people see it. */
export interface ApprovalView {
  readonly number: string;
  readonly state: "pending" | "approved" | "denied" | "spent" | "expired";
  readonly server: string;
  readonly kind: string;
  readonly name: string;
  readonly requester: Request["requester"];
  /** Who may approve, in words. */
  readonly approver: string;
  readonly rules: readonly string[];
  readonly reasons: readonly string[];
  /** ISO 8601. */
  readonly askedAt: string;
  readonly until: string;
  readonly decided?: { readonly by: string; readonly via: string; readonly at: string };
  /** Whether who asks may decide it. */
  readonly mayDecide: boolean;
  /** Where one request is asked for: what is sent, exactly, and the same as lines that are safe to show. */
  readonly arguments?: JsonValue;
  readonly shown?: readonly string[];
}

export interface Office {
  /** Requests that wait for a decision, or for their call, and that `actor` may see: all for owners and operators, otherwise those they may decide and their own. */
  list(actor: Actor): Promise<readonly ApprovalView[]>;
  /** Throws `not_found`, also for one that the actor may not see. */
  show(number: string, actor: Actor): Promise<ApprovalView>;
  /** Throws `not_found` for one that is not open, and `not_approver` when it is not the actor's to decide. Recorded either way. */
  decide(number: string, state: "approved" | "denied", actor: Actor): Promise<ApprovalView>;
}

interface OfficeOptions {
  readonly kept: Kept;
  readonly trail: Trail;
  readonly parts: () => Pick<Parts, "policy">;
  readonly clock: Clock;
}

export function openOffice({ kept, trail, parts, clock }: OfficeOptions): Office {
  const rolesOf = (by: Authenticated) => parts().policy.roles(by);

  /** Why not, in a sentence; undefined when they may. Whoever has the gateway's own account may. */
  function hindrance({ need, requester }: Request, actor: Actor): string | undefined {
    if (actor.kind !== "owner") return undefined;
    const { by } = actor;
    // An agent has the token of its user: what it asks for it must not grant to itself.
    if (by.subject === requester.subject && by.client === requester.client)
      return "This token is of the client that asked. Decide it through another client, or with `drawbridge approvals` on the gateway's machine.";
    if (need.fourEyes && by.subject === requester.subject)
      return "It is your own request, and another person has to decide it.";
    if (!mayApprove(need, { subject: by.subject, roles: rolesOf(by) }, requester.subject))
      return `It has to be decided by ${approversText(need)}.`;
    return undefined;
  }
  const maySee = (request: Request, actor: Actor) =>
    actor.kind !== "owner" ||
    actor.by.groups.includes("owner") ||
    actor.by.subject === request.requester.subject ||
    hindrance(request, actor) === undefined;

  async function seen(number: string, actor: Actor): Promise<Known> {
    const known = await kept.find(number);
    if (known !== undefined && maySee(known.request, actor)) return known;
    throw new DrawbridgeError("not_found", `There is no request for an approval ${number.slice(0, 40)}.`);
  }

  function view(request: Request, actor: Actor): ApprovalView {
    const { number, target, requester, need, askedAt, until, decided } = request;
    const over = (request.state === "pending" || request.state === "approved") && until <= clock();
    return {
      number,
      state: over ? "expired" : request.state,
      server: target.server,
      kind: target.kind,
      name: target.name,
      requester,
      approver: approversText(need),
      rules: need.rules,
      reasons: need.reasons,
      askedAt: new Date(askedAt).toISOString(),
      until: new Date(until).toISOString(),
      ...(decided !== undefined && { decided: { ...decided, at: new Date(decided.at).toISOString() } }),
      mayDecide: request.state === "pending" && !over && hindrance(request, actor) === undefined,
    };
  }

  return {
    async list(actor) {
      needsScope(actor, READ_SCOPE);
      const open = await kept.open();
      return open.filter((request) => maySee(request, actor)).map((request) => view(request, actor));
    },
    async show(number, actor) {
      needsScope(actor, READ_SCOPE);
      const { request } = await seen(number, actor);
      const about = await kept.about(request);
      return {
        ...view(request, actor),
        ...(about !== undefined && {
          arguments: JSON.parse(about.arguments) as JsonValue,
          shown: linesOf(shownOf(request, about)),
        }),
      };
    },
    async decide(number, state, actor) {
      trail.check();
      const known = await seen(number, actor);
      const { request } = known;
      needsScope(actor, CALL_SCOPE);
      const why = hindrance(request, actor);
      if (why !== undefined) {
        await trail.step("approval-decision-refused", request, actor, { wanted: state });
        throw new DrawbridgeError("not_approver", why);
      }
      if (request.state !== "pending")
        throw new DrawbridgeError("not_found", `${number} does not wait for a decision: it is ${request.state}.`);
      if (request.until <= clock()) {
        await trail.step("approval-expired", request, actor, { was: "pending" });
        throw new DrawbridgeError("not_found", `${number} does not wait for a decision any more: its time is over.`);
      }
      const decided = {
        by: actor.kind === "owner" ? actor.by.subject : actor.name,
        via: actor.kind === "owner" ? ("admin" as const) : ("control socket" as const),
        at: clock(),
      };
      // Recorded before it counts: nothing is approved that nobody can find out about.
      await trail.step(state === "approved" ? "approval-approved" : "approval-denied", request, actor);
      if (!(await kept.decide(known, state, decided))) {
        await trail.step("approval-decision-refused", request, actor, { wanted: state, late: true });
        throw new DrawbridgeError("not_found", `${number} was decided by somebody else just now.`);
      }
      return view({ ...request, state, decided }, actor);
    },
  };
}

function needsScope(actor: Actor, scope: string): void {
  if (actor.kind === "owner" && !actor.by.scopes.includes(scope))
    throw new DrawbridgeError("insufficient_scope", `This needs the scope ${scope}.`, { scope });
}
