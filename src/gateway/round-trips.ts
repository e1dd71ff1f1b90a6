/**
 * Questions as answers, and answers as requests (2026-07-28, Multi Round-Trip Requests): what a server asks is sealed together with
 * where the call stands into the `requestState` that its client brings back, at whichever replica.
 */
import { hash } from "node:crypto";
import {
  type Authenticated,
  type JsonObject,
  type McpCall,
  MODERN_REVISION,
  type Outcome,
  type Question,
  type QuestionAnswer,
  type RequestId,
  type Revision,
} from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newId, newToken } from "../core/ids.ts";
import {
  actionOf,
  answerProblem,
  canBeAsked,
  covers,
  inputRequired,
  keyFor,
  lacking,
  legacyAnswer,
  mayAsk,
  modernQuestion,
  readInputRequired,
  readInputResponses,
  readRequiredCapabilities,
  readUrlQuestions,
  withAnswers,
  withState,
} from "../mcp/interaction.ts";
import { isObject, objectText } from "../mcp/json-text.ts";
import { ownerOf } from "../mcp/sessions.ts";
import type { Logger } from "../observe/logger.ts";
import type { Upstream } from "../upstream/upstream.ts";
import {
  type Bridge,
  type BridgedCall,
  cannotGoOn,
  MAX_ROUNDS,
  mustBeAskable,
  needs,
  next,
  SilentReplies,
} from "./bridged-call.ts";
import type { CallRecord } from "./call-record.ts";
import type { Asked } from "./parts.ts";
import { type CallEnd, openSuspendedCalls, type Round, type SealRound, SuspendableCall } from "./suspended.ts";

export interface RoundTrips {
  /** Sends a call, or goes on with the one that its `requestState` names. Throws `invalid_params` for a state that is not good for this request. */
  send(call: BridgedCall): Promise<Outcome>;
  /** Makes of an outcome that asks what its client can be answered with. */
  settle(call: BridgedCall, outcome: Outcome): Promise<Outcome>;
  /** The outcome did not reach its client, who can thus not come back: a call that waits for that is over. */
  unheard(outcome: Outcome): void;
  received(letter: RoundTripLetter): void;
  /** The server of each call that waits for its client to come back. */
  suspended(): readonly string[];
  /** The server of each question that such a client was asked. */
  open(): readonly string[];
  close(): void;
}

/** What a `requestState` of ours says. */
type State =
  /** A server of 2026-07-28 asked, and this is its own state. */
  | { readonly kind: "relay"; readonly id: string; readonly round: number; readonly state: string }
  /** A server with a handshake wants pages opened before it is called again. */
  | { readonly kind: "pages"; readonly id: string; readonly round: number; readonly keys: readonly string[] }
  /** A call waits in that replica. */
  | { readonly kind: "suspended"; readonly id: string; readonly round: number; readonly replica: string };

/** What replicas write to each other. */
export type RoundTripLetter =
  | {
      readonly kind: "resume";
      readonly id: string;
      readonly from: string;
      readonly call: string;
      readonly owner: string;
      readonly round: number;
      readonly responses: readonly (readonly [string, string])[];
    }
  | { readonly kind: "working"; readonly id: string }
  | { readonly kind: "next"; readonly id: string; readonly outcome: Outcome; readonly ours: boolean }
  | { readonly kind: "refused"; readonly id: string; readonly lost: boolean; readonly message: string }
  | { readonly kind: "gone"; readonly id: string };

export interface RoundTripOptions extends Bridge {
  /** Undefined for a server that could not be reached yet. */
  readonly revisionOf: (upstream: Upstream) => Revision | undefined;
  /** Hears when the first call waits for its client to come back, and when the last one does not any more. */
  readonly onWaiting: (waits: boolean) => void;
  readonly log: Logger;
}

/** A replica that works for another one says so, and is given up when it does not. */
const WORKING_MS = 2_000;
const SILENT_MS = 8_000;

export function openRoundTrips(options: RoundTripOptions): RoundTrips {
  const { settings, seals, mailbox, replica, revisionOf, log } = options;
  /** Results that ask and were made here, so that nobody settles them again; with what to do when nobody hears them. */
  const made = new WeakMap<Outcome, () => void>();
  /** What we wait for from other replicas, and what we do for them. */
  const awaited = new Map<string, (letter: RoundTripLetter) => void>();
  const serving = new Map<string, () => void>();
  const suspended = openSuspendedCalls(settings, options.onWaiting, options.questionEnded);

  const seal = (state: State, asked: Asked, call: McpCall) =>
    seals.seal(state, bindingOf(asked.by, call), settings.answerSeconds);

  function send(bridged: BridgedCall): Promise<Outcome> {
    const { upstream, permitted, asked, gone } = bridged;
    const { forward, capabilities } = permitted.call;
    if (forward.has("requestState") || forward.has("inputResponses")) return retried(bridged);
    if (!canBeAsked(capabilities) || revisionOf(upstream) === MODERN_REVISION)
      return upstream.send(permitted, new SilentReplies(asked), gone.signal);
    return suspendable(bridged, undefined);
  }

  /** A request that brings answers, or a state, or both. */
  async function retried(bridged: BridgedCall): Promise<Outcome> {
    const { upstream, permitted, asked, gone } = bridged;
    const { call } = permitted;
    const answers = call.forward.get("inputResponses");
    const responses = readInputResponses(answers ?? "{}");
    const stateText = call.forward.get("requestState");
    if (stateText === undefined) {
      const revision = revisionOf(upstream) ?? (await upstream.identity(gone.signal)).revision;
      if (revision === MODERN_REVISION) return upstream.send(permitted, new SilentReplies(asked), gone.signal);
      return suspendable({ ...bridged, permitted: next(permitted, undefined) }, responses);
    }
    const sealed: unknown = JSON.parse(stateText);
    const state = typeof sealed === "string" ? await seals.open<State>(sealed, bindingOf(asked.by, call)) : undefined;
    if (state === undefined) throw invalidState();
    asked.record.linked(state.id, state.round + 1);
    switch (state.kind) {
      case "relay": {
        for (const [key, answer] of responses) asked.record.answeredInput(key, answer);
        const again = next(permitted, withAnswers(call.forward, answers, JSON.stringify(state.state)));
        // Asked by us, in front of a server with a handshake, which may itself have questions.
        if (revisionOf(upstream) !== MODERN_REVISION) return suspendable({ ...bridged, permitted: again }, undefined);
        return upstream.send(again, new SilentReplies(asked), gone.signal);
      }
      case "pages":
        return afterPages(bridged, state, responses);
      case "suspended": {
        const round = { owner: ownerOf(asked.by), number: state.round, responses };
        if (state.replica !== replica) return elsewhere(state, asked, gone, round);
        return here(state, asked, gone, round);
      }
      default:
        return state satisfies never;
    }
  }

  /** The first round of a call to a server with a handshake. */
  function suspendable(
    { upstream, permitted, asked, gone }: BridgedCall,
    advance: ReadonlyMap<string, string> | undefined,
  ): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const call = new SuspendableCall({
        suspended,
        owner: ownerOf(asked.by),
        permitted,
        round: new LocalRound(asked, (outcome, ours) => resolve(marked(outcome, ours, call)), reject),
        seal: sealRound(permitted.by, permitted.call),
        ended: recorded(asked.record, log),
        gone,
        advance,
      });
      call.start(upstream);
    });
  }
  /** Apart, as `recorded` is, so that a call that waits does not hold on to the connection it came by. */
  function sealRound(by: Authenticated, call: McpCall): SealRound {
    return async (id, round) => {
      await mailbox.present();
      const state: State = { kind: "suspended", id, round, replica };
      return seals.seal(state, bindingOf(by, call), settings.answerSeconds);
    };
  }

  interface Answered {
    readonly owner: string;
    readonly number: number;
    readonly responses: ReadonlyMap<string, string>;
  }

  function here(
    state: State,
    asked: Asked,
    gone: AbortController,
    { owner, number, responses }: Answered,
  ): Promise<Outcome> {
    const call = suspended.find(state.id, owner);
    if (call === undefined) throw lostState();
    const abandon = () => call.abandon(clientWent());
    const over = () => gone.signal.removeEventListener("abort", abandon);
    return new Promise<Outcome>((resolve, reject) => {
      const told: Round["resolve"] = (outcome, ours) => {
        over();
        resolve(marked(outcome, ours, call));
      };
      call.resume(number, responses, new LocalRound(asked, told, reject));
      if (gone.signal.aborted) abandon();
      else gone.signal.addEventListener("abort", abandon, { once: true });
    });
  }

  /** The call waits in another replica, which is asked to go on with it. */
  async function elsewhere(
    state: State & { kind: "suspended" },
    asked: Asked,
    gone: AbortController,
    { owner, number, responses }: Answered,
  ): Promise<Outcome> {
    const id = newToken();
    const release = mailbox.wait();
    let silence: NodeJS.Timeout | undefined;
    try {
      return await new Promise<Outcome>((resolve, reject) => {
        const patient = () => {
          clearTimeout(silence);
          silence = setTimeout(() => reject(lostState()), SILENT_MS);
        };
        awaited.set(id, (letter) => {
          if (letter.kind === "next") resolve(marked(letter.outcome, letter.ours, undefined));
          else if (letter.kind === "refused") reject(letter.lost ? lostState() : refusal(letter.message));
          else patient();
        });
        gone.signal.addEventListener("abort", () => reject(clientWent()), { once: true });
        patient();
        const letter: RoundTripLetter = {
          kind: "resume",
          id,
          from: replica,
          call: state.id,
          owner,
          round: number,
          responses: [...responses],
        };
        mailbox
          .present()
          .then(() => mailbox.post(state.replica, id, letter))
          .then((waits) => waits || reject(lostState()), reject);
        for (const [key, answer] of responses) asked.record.answeredInput(key, answer);
      });
    } finally {
      clearTimeout(silence);
      awaited.delete(id);
      release();
      if (gone.signal.aborted) write(state.replica, { kind: "gone", id });
    }
  }

  /** Goes on with a call for another replica. What the server says before its next question has nobody there to hear it. */
  function serve({ id, from, call: name, owner, round, responses }: RoundTripLetter & { kind: "resume" }): void {
    const call = suspended.find(name, owner);
    if (call === undefined) {
      write(from, { kind: "refused", id, lost: true, message: "" });
      return;
    }
    const working = setInterval(() => write(from, { kind: "working", id }), WORKING_MS);
    const release = mailbox.wait();
    const answer = (letter: RoundTripLetter) => {
      clearInterval(working);
      serving.delete(id);
      release();
      write(from, letter);
    };
    serving.set(id, () => call.abandon(clientWent()));
    write(from, { kind: "working", id });
    const refused = (thrown: unknown) =>
      answer({ kind: "refused", id, lost: false, message: DrawbridgeError.from(thrown).message });
    try {
      call.resume(round, new Map(responses), {
        progressToken: undefined,
        wantsLogs: false,
        notify: () => {},
        linked: () => {},
        questioned: () => {},
        replied: () => {},
        resolve: (outcome, ours) => answer({ kind: "next", id, outcome, ours }),
        reject: refused,
      });
    } catch (thrown) {
      refused(thrown);
    }
  }

  function write(to: string, letter: RoundTripLetter): void {
    mailbox.post(to, newToken(), letter).catch((error: unknown) => {
      log.warn({ error }, "another replica could not be written to");
      if (letter.kind === "next") {
        const { message } = DrawbridgeError.from(error);
        write(to, { kind: "refused", id: letter.id, lost: false, message });
      }
    });
  }

  function marked(outcome: Outcome, ours: boolean, call: SuspendableCall | undefined): Outcome {
    if (ours) made.set(outcome, () => call?.drop());
    return outcome;
  }

  async function settle({ permitted: { call }, asked }: BridgedCall, outcome: Outcome): Promise<Outcome> {
    if (made.has(outcome)) return outcome;
    const required = readRequiredCapabilities(outcome);
    if (required !== undefined && !covers(call.capabilities, required)) throw missingCapability(required);
    const { id = newId(), round = 1 } = asked.record.link ?? {};
    const toOpen = mayAsk(call.method) ? readUrlQuestions(outcome) : undefined;
    if (toOpen !== undefined) {
      const missing = lacking(call.capabilities, toOpen);
      if (missing !== undefined) throw missingCapability(missing);
      if (round > MAX_ROUNDS) return outcome;
      const requests = new Map<string, Question>();
      for (const page of toOpen) requests.set(keyFor(page, requests), modernQuestion(page));
      asked.record.linked(id, round);
      for (const [key, question] of requests) asked.record.questioned(question, key);
      return inputRequired(requests, await seal({ kind: "pages", id, round, keys: [...requests.keys()] }, asked, call));
    }
    const asks = readInputRequired(outcome);
    if (asks === undefined || outcome.kind === "error") return outcome;
    mustBeAskable(call, asks.requests.values());
    const missing = lacking(call.capabilities, asks.requests.values());
    if (missing !== undefined) throw missingCapability(missing);
    asked.record.linked(id, round);
    for (const [key, question] of asks.requests) asked.record.questioned(question, key);
    if (asks.state === undefined) return outcome;
    return withState(outcome, await seal({ kind: "relay", id, round, state: asks.state }, asked, call));
  }

  /** The user was to open pages; when that was done, the server is called as if for the first time. */
  function afterPages(
    bridged: BridgedCall,
    { keys }: State & { kind: "pages" },
    responses: ReadonlyMap<string, string>,
  ): Promise<Outcome> {
    const { permitted, asked } = bridged;
    const page: Question = { method: "elicitation/create", params: '{"mode":"url"}' };
    for (const key of keys) {
      const response = responses.get(key);
      if (response === undefined) continue;
      const problem = answerProblem(page, response);
      if (problem !== undefined) throw refusal(`In \`inputResponses\`, ${JSON.stringify(key)} ${problem}.`);
      const answer = legacyAnswer(response);
      asked.record.replied(asked.record.questioned(page, key), answer);
      if (actionOf(answer) !== "accepted") {
        const outcome = cannotGoOn(permitted.call, "The user did not open a page that the server needs opened first.");
        return Promise.resolve(outcome);
      }
    }
    // A page that was not answered is named again by the server, if it still needs it.
    return suspendable({ ...bridged, permitted: next(permitted, undefined) }, undefined);
  }

  return {
    send,
    settle,
    unheard: (outcome) => made.get(outcome)?.(),
    received(letter) {
      if (letter.kind === "resume") serve(letter);
      else if (letter.kind === "gone") serving.get(letter.id)?.();
      else awaited.get(letter.id)?.(letter);
    },
    suspended: () => suspended.servers(),
    open: () => suspended.open(),
    close: () => suspended.close(),
  };
}

/** A request that waits, in this replica, for the next questions or the outcome. */
class LocalRound extends SilentReplies implements Round {
  readonly progressToken: RequestId | undefined;
  readonly wantsLogs: boolean;
  readonly resolve: Round["resolve"];
  readonly reject: Round["reject"];
  constructor(asked: Asked, resolve: Round["resolve"], reject: Round["reject"]) {
    super(asked);
    this.progressToken = asked.inbound.progressToken;
    this.wantsLogs = asked.inbound.logLevel !== undefined;
    this.resolve = resolve;
    this.reject = reject;
  }
  linked(call: string, round: number): void {
    this.request.record.linked(call, round);
  }
  questioned(key: string, question: Question): void {
    this.request.record.questioned(question, key);
  }
  replied(key: string, question: Question, answer: QuestionAnswer): void {
    this.request.record.replied(this.request.record.questioned(question, key), answer);
  }
}

/** Each request has its record; a call that ends between two of them has one more. */
function recorded(record: CallRecord, log: Logger): CallEnd {
  return (error, id, round, questions) => {
    record
      .abandonedLater(error, { id, round }, questions)
      .catch((failure: unknown) => log.error({ error: failure }, "the end of an abandoned call was not recorded"));
  };
}

/** Everything a `requestState` is good for: who, through which client, and what they call with which arguments. */
function bindingOf(by: Authenticated, { method, target, forward }: McpCall): string {
  const request = withAnswers(forward, undefined, undefined);
  const digest = hash("sha256", exactly(objectText(request)));
  return JSON.stringify([by.subject, by.client, target.server, method, target.kind, target.name, digest]);
}

/**
 * The same text for the same value, whatever the order of keys and the spaces between. Numbers stay as they were written: two that
 * JavaScript takes for one are not the same argument.
 */
function exactly(json: string): string {
  const parse = JSON.parse as (
    text: string,
    revive: (key: string, value: unknown, context: { source?: string }) => unknown,
  ) => unknown;
  const value = parse(json, (_key, value, { source }) => {
    if (typeof value === "number") return `n${source ?? value}`;
    if (typeof value === "string") return `s${value}`;
    return isObject(value) ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) : value;
  });
  return JSON.stringify(value);
}

function missingCapability(required: JsonObject): DrawbridgeError {
  return new DrawbridgeError("missing_client_capability", needs(required), {
    data: { requiredCapabilities: required },
  });
}

function refusal(message: string): DrawbridgeError {
  return new DrawbridgeError("invalid_params", message);
}

/** 2026-07-28, Multi Round-Trip Requests, Server Requirements 4 and 5. Which of the reasons it was is nobody's business. */
function invalidState(): DrawbridgeError {
  return new DrawbridgeError(
    "invalid_params",
    "This requestState is not valid for this request, or has expired. Call again without it.",
    {
      data: { reason: "invalid_request_state" },
    },
  );
}

function lostState(): DrawbridgeError {
  return new DrawbridgeError("invalid_params", "The server's question was lost. Call again without requestState.", {
    data: { reason: "request_state_lost" },
  });
}

function clientWent(): DrawbridgeError {
  return new DrawbridgeError("cancelled", "The client went away.");
}
