/**
 * Calls that a person has to approve: held when they are permitted and their arguments are checked, before anything is sent. To the
 * pipeline it is one more layer over the server of a call. Whoever calls is asked through their own client where they may approve and
 * the client can show a form: in the way of 2026-07-28, which the bridge of interactions turns into a request for older clients.
 * Otherwise the call is refused with the number of a request, which others decide, and is made when it comes again.
 */
import type { JsonObject, JsonValue, McpCall, Outcome, PermittedCall, Replies } from "../../core/call.ts";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import {
  inputRequired,
  lacking,
  mayAsk,
  readInputRequired,
  readInputResponses,
  withAnswers,
  withState,
} from "../../mcp/interaction.ts";
import { isObject } from "../../mcp/json-text.ts";
import { type ApprovalNeed, approversText, mayApprove, together } from "../../policy/approvals.ts";
import type { CallFacts } from "../../policy/engine.ts";
import type { Records } from "../../store/ports.ts";
import type { Upstream } from "../../upstream/upstream.ts";
import { next } from "../bridged-call.ts";
import type { Entry } from "../catalogue.ts";
import { connectFirst } from "../connect-first.ts";
import type { Asked, Parts } from "../parts.ts";
import type { Seals } from "../sealed-state.ts";
import { type Binding, bindingOf } from "./binding.ts";
import { answerOf, KEY, question, shownOf } from "./form.ts";
import { type About, type Known, MAX_OWN, type NewRequest, openKept, type Request } from "./kept.ts";
import type { NeedsApproval } from "./needs.ts";
import { type Office, openOffice } from "./office.ts";
import { openTrail } from "./trail.ts";

export interface Approvals {
  /** The server of a call as that call is to see it: the same where no approval is needed. */
  over(asked: Asked, upstream: Upstream, call: Aimed): Upstream;
  /** Whether this is an answer of ours, and not of a server. */
  wrote(outcome: Outcome): boolean;
  /** Where people decide. */
  readonly office: Office;
}

/** What a call is aimed at. */
export interface Aimed {
  readonly target: McpCall["target"];
  readonly entry: Entry | undefined;
  /** As it was decided about. */
  readonly facts: CallFacts;
}

export interface ApprovalsOptions {
  readonly records: Records;
  readonly seals: Seals;
  /** Everybody who may demand an approval. */
  readonly sources: readonly NeedsApproval[];
  /** Version of what they demand by. */
  readonly version: () => string;
  /** How long a client may take to answer. */
  readonly answerSeconds: number;
  readonly parts: () => Parts;
  readonly clock?: Clock;
}

/** What a `requestState` of ours says; sealed, and good for one binding. */
type State =
  | { readonly kind: "question"; readonly number: string }
  /** An approved call whose server asked: with its own state, if it has one. */
  | { readonly kind: "round"; readonly number: string; readonly token: string; readonly state: string | null };

/** In front of states of ours: what servers make is passed on as it is. */
const PREFIX = "drawbridge-approval.";

export function openApprovals(options: ApprovalsOptions): Approvals {
  const { seals, sources, version, answerSeconds, parts, clock = systemClock } = options;
  const kept = openKept(options.records, seals, clock);
  const trail = openTrail(parts, clock);
  const written = new WeakSet<Outcome>();

  function over(asked: Asked, upstream: Upstream, { target, entry, facts }: Aimed): Upstream {
    if (!mayAsk(facts.method)) return upstream;
    const { by, inbound, session } = asked;
    const contract = entry?.contract;
    const held = { by, target, contract, facts, session: { session: session?.id, grant: by.grant } };
    const need = together(sources.flatMap((needs) => needs(held) ?? []));
    // A state that was given out while an approval was needed is ours to take back.
    if (need === undefined && !inbound.paramTexts.has("requestState")) return upstream;
    const versions = () => [parts().policy.version, version()];
    const begun = versions();
    let passed = false;

    async function send(permitted: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome> {
      if (passed) return upstream.send(permitted, replies, signal);
      const { forward } = permitted.call;
      const text = stateIn(forward);
      const bare = next(permitted, undefined);
      if (need === undefined) return upstream.send(text === undefined ? permitted : bare, replies, signal);
      const { policy, catalogue } = parts();
      // A client may have thought about it for minutes.
      const now = catalogue.find(target.kind, target.name);
      const same =
        now?.pin === target.pin &&
        now?.server === target.server &&
        catalogue.entry(target)?.contract?.settings === contract?.settings;
      if (versions().join() !== begun.join() || !same) return refused(asked, CHANGED, "approval_required");
      const roles = policy.roles(by);
      const bound = { permitted: bare, contract, need, versions: begun, catalogue };
      const call: Held = { asked, permitted: bare, need, binding: await bindingOf(bound), roles, entry };
      const { digest } = call.binding;
      const way: Way = { go: (made, from) => go(made, from, { digest, replies, signal }) };
      const state = text === undefined ? undefined : await seals.open<State>(text, digest);
      if (state?.kind === "round" && (await kept.goOn(state.token))) {
        asked.record.approval({ number: state.number, state: "spent" });
        const own = state.state === null ? undefined : JSON.stringify(state.state);
        return way.go(
          {
            ...permitted,
            call: { ...permitted.call, forward: withAnswers(forward, forward.get("inputResponses"), own) },
          },
          state.number,
        );
      }
      const response = state?.kind === "question" ? responseIn(forward) : undefined;
      if (state?.kind === "question" && response !== undefined) {
        const request = await kept.answer(state.number);
        if (request !== undefined) return answered(call, request, response, way);
      }
      return looked(call, way);
    }

    /** Sends the call, which is approved now. */
    async function go(
      permitted: PermittedCall,
      from: Request | string,
      { digest, replies, signal }: { readonly digest: string; readonly replies: Replies; readonly signal: AbortSignal },
    ): Promise<Outcome> {
      passed = true;
      const number = typeof from === "string" ? from : from.number;
      let outcome: Outcome;
      try {
        outcome = await upstream.send(permitted, replies, signal);
      } catch (thrown) {
        if (!(thrown instanceof DrawbridgeError) || thrown.code !== "connection_required") throw thrown;
        // Nothing was sent: once the account is connected the same call may be made.
        if (typeof from !== "string") {
          await kept.giveBack({ ...from, until: clock() + from.need.expiresSeconds * 1000 });
          await trail.step("approval-returned", from, by);
        }
        return connectFirst(thrown, permitted);
      }
      const asks = inbound.era === "modern" ? readInputRequired(outcome) : undefined;
      if (asks === undefined || outcome.kind === "error") return outcome;
      // The next request goes on with this call: once.
      const token = await kept.nextRound(answerSeconds);
      return withState(outcome, await sealed({ kind: "round", number, token, state: asks.state ?? null }, digest));
    }

    return Object.create(upstream, { send: { value: send } }) as Upstream;
  }

  const sealed = async (state: State, digest: string) => `${PREFIX}${await seals.seal(state, digest, answerSeconds)}`;

  /** A call that comes without an answer: what is known of it, or it is asked for. */
  async function looked(call: Held, way: Way): Promise<Outcome> {
    const { asked, binding, permitted } = call;
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const known = await kept.look(binding.digest);
      const request = known?.request;
      if (known !== undefined && request !== undefined && request.state !== "spent") {
        if (request.until <= clock()) {
          asked.record.approval({ number: request.number, state: "expired" });
          await trail.step("approval-expired", request, asked.by, { was: request.state }, asked.record.trace);
        } else if (request.state === "denied") return denied(call, request);
        else if (request.state === "pending") return waiting(call, request, false);
        else {
          trail.check();
          // Another request with just this call may have been first.
          if (!(await kept.spend(known))) continue;
          await spent(call, request);
          return way.go(permitted, request);
        }
      }
      const outcome = await ask(call, known);
      if (outcome !== undefined) return outcome;
    }
    throw new DrawbridgeError("overloaded", "The same call is made too often at once. Try again in a moment.");
  }

  async function spent({ asked }: Held, request: Request): Promise<void> {
    const by = request.decided;
    asked.record.approval({
      number: request.number,
      state: "spent",
      ...(by !== undefined && { by: by.by, via: by.via, at: new Date(by.at).toISOString() }),
    });
    await trail.step("approval-spent", request, asked.by, {}, asked.record.trace);
  }

  /** Undefined: somebody has just asked for the same. */
  async function ask(call: Held, known: Known | undefined): Promise<Outcome | undefined> {
    const { asked, need, roles } = call;
    const { by, record } = asked;
    trail.check();
    const wanted = newRequest(call);
    const about = aboutOf(call);
    if (mayApprove(need, { subject: by.subject, roles }, by.subject) && canShow(call, parts())) {
      const request = await kept.question(wanted);
      if (typeof request === "string") return tooMany(asked, request);
      record.approval({ number: request.number, state: "asked" });
      await trail.step("approval-asked", request, by, { via: "elicitation" }, record.trace);
      const state = await sealed({ kind: "question", number: request.number }, call.binding.digest);
      return mine(inputRequired(new Map([[KEY, question(shownOf(request, about))]]), state));
    }
    const request = await kept.ask(wanted, about, known);
    if (request === undefined) return undefined;
    if (typeof request === "string") return tooMany(asked, request);
    await trail.step("approval-asked", request, by, { via: "admin" }, record.trace);
    return waiting(call, request, true);
  }

  /** The caller has answered the form. */
  async function answered(call: Held, request: Request, response: JsonValue, way: Way): Promise<Outcome> {
    const { asked } = call;
    const { by, record } = asked;
    if (request.until <= clock()) {
      record.approval({ number: request.number, state: "expired" });
      await trail.step("approval-expired", request, by, { was: "asked" }, record.trace);
      return looked(call, way);
    }
    const decided = { by: by.subject, via: "elicitation", at: clock() } as const;
    const verdict = answerOf(response);
    if (verdict !== "approved") {
      await trail.step(
        "approval-denied",
        request,
        by,
        { via: "elicitation", ...(verdict === "strange" && { answer: "strange" }) },
        record.trace,
      );
      return denied(call, { ...request, decided }, verdict === "strange" ? STRANGE : undefined);
    }
    trail.check();
    const approved: Request = { ...request, state: "approved", decided };
    await trail.step("approval-approved", approved, by, { via: "elicitation" }, record.trace);
    await spent(call, approved);
    return way.go(call.permitted, approved);
  }

  // ---- what is answered ----

  async function waiting(call: Held, request: Request, isNew: boolean): Promise<Outcome> {
    const { asked, need } = call;
    asked.record.approval({ number: request.number, state: "pending" });
    const minutes = Math.max(1, Math.round((request.until - clock()) / 60_000));
    const who =
      need.by.length === 0
        ? "You can give it through another client than this one, or the operator can"
        : `${capital(approversText(need))} has to give it`;
    const text = isNew
      ? `${naming(call)} needs the approval of a person before it is called, and that was asked for under the number ${request.number}. ${who}, within ${counted(minutes, "minute")}. Nothing was sent. When it is approved, repeat just this call with the same arguments.`
      : `The approval ${request.number} of this call is still waited for. ${who}, within ${counted(minutes, "minute")}. Nothing was sent. When it is approved, repeat just this call with the same arguments.`;
    return refused(asked, text, "approval_required", request);
  }

  function denied(call: Held, request: Request, why = "was not approved"): Promise<Outcome> {
    const { decided } = request;
    call.asked.record.approval({
      number: request.number,
      state: "denied",
      ...(decided !== undefined && { by: decided.by, via: decided.via }),
    });
    return refused(
      call.asked,
      `This call of ${naming(call)} ${why} (${request.number}). Nothing was sent.`,
      "approval_denied",
      request,
    );
  }

  function tooMany(asked: Asked, full: "own" | "all"): Promise<Outcome> {
    const text =
      full === "own"
        ? `${MAX_OWN} of your calls wait for an approval. Nothing more is asked until some of them are decided.`
        : "Too many calls wait for an approval. Try again later.";
    return refused(asked, text, "approval_required");
  }

  /** A tool's error, which a model can read; where the protocol has no such thing, an error of the call. Recorded as a refusal. */
  async function refused(
    asked: Asked,
    text: string,
    code: "approval_required" | "approval_denied",
    request?: Request,
  ): Promise<Outcome> {
    const data = request && {
      approval: request.number,
      state: code === "approval_denied" ? "denied" : "pending",
      ...(code === "approval_required" && { until: new Date(request.until).toISOString() }),
    };
    const error = new DrawbridgeError(code, text, data === undefined ? {} : { data });
    await asked.record.close("refused", error);
    // Whoever wants a task of 2025-11-25 expects one, or an error.
    if (asked.inbound.method !== "tools/call" || asked.inbound.paramTexts.has("task")) throw error;
    const value: JsonObject = {
      content: [{ type: "text", text }],
      isError: true,
      ...(data !== undefined && { _meta: { "drawbridge/approval": data } }),
    };
    return mine({ kind: "result", result: JSON.stringify(value), value });
  }

  function mine(outcome: Outcome): Outcome {
    written.add(outcome);
    return outcome;
  }

  return {
    over,
    wrote: (outcome) => written.has(outcome),
    office: openOffice({ kept, trail, parts, clock }),
  };
}

/** A call that is held. `permitted` is without answers and state. */
interface Held {
  readonly asked: Asked;
  readonly permitted: PermittedCall;
  readonly need: ApprovalNeed;
  readonly binding: Binding;
  /** Of the caller. */
  readonly roles: readonly string[];
  readonly entry: Entry | undefined;
}

interface Way {
  /** `from`: the grant that was spent for it, or its number where it was before. */
  go(permitted: PermittedCall, from: Request | string): Promise<Outcome>;
}

const MAX_ATTEMPTS = 3;
const CHANGED = "What this call was to be approved for has changed meanwhile. Nothing was sent. Make the call again.";
const STRANGE = "was not approved: the answer is not one that our form gives";

/** A state of ours, without its prefix. */
function stateIn(forward: ReadonlyMap<string, string>): string | undefined {
  const text = forward.get("requestState");
  const state: unknown = text === undefined ? undefined : JSON.parse(text);
  return typeof state === "string" && state.startsWith(PREFIX) ? state.slice(PREFIX.length) : undefined;
}

function responseIn(forward: ReadonlyMap<string, string>): JsonValue | undefined {
  const text = readInputResponses(forward.get("inputResponses") ?? "{}").get(KEY);
  return text === undefined ? undefined : (JSON.parse(text) as JsonValue);
}

/** Whether the caller's client can put a form to its user. */
function canShow({ asked, permitted: { call } }: Held, { streams }: Pick<Parts, "streams">): boolean {
  const { inbound, session, headers } = asked;
  if (lacking(call.capabilities, [{ method: "elicitation/create", params: '{"mode":"form"}' }]) !== undefined)
    return false;
  if (inbound.era === "modern") return true;
  // Where there is no stream for the question, it would be an answer that nobody gave.
  return (
    session !== undefined &&
    (/text\/(event-stream|\*)/i.test(String(headers.accept ?? "")) || streams.streaming(session))
  );
}

function newRequest({ asked, permitted, need, binding }: Held): NewRequest {
  const { call, by } = permitted;
  const { server, kind, name, upstreamName, pin, access } = call.target;
  const said = by.claims["name"] ?? by.claims["preferred_username"] ?? by.claims["email"];
  return {
    digest: binding.digest,
    request: binding.request,
    requester: {
      subject: by.subject,
      client: by.client,
      ...(typeof said === "string" && { name: said.slice(0, 200) }),
    },
    target: {
      server,
      kind,
      name,
      upstreamName,
      ...(pin !== undefined && { pin }),
      ...(access !== undefined && { access }),
    },
    method: asked.inbound.method,
    need,
  };
}

function aboutOf({ asked, permitted: { call }, entry }: Held): About {
  const served: unknown = entry === undefined ? undefined : JSON.parse(entry.served);
  const annotations = isObject(served) ? served["annotations"] : undefined;
  const title = isObject(served)
    ? (served["title"] ?? (isObject(annotations) ? annotations["title"] : undefined))
    : undefined;
  const { inbound } = asked;
  // With true values in place of stand-ins, of which whoever approves is to see no more than the caller.
  const texts = call.params === inbound.params ? call.forward : inbound.paramTexts;
  return {
    title: typeof title === "string" ? title.slice(0, 500) : undefined,
    arguments: texts.get("arguments") ?? texts.get("uri") ?? "{}",
  };
}

const naming = ({ permitted: { call } }: Held) => call.target.name.slice(0, 200);
const capital = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
const counted = (count: number, noun: string) => `${count} ${noun}${count === 1 ? "" : "s"}`;
