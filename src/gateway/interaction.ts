/**
 * Calls that ask their client something, in all four pairings of revisions. A server's question is one thing here; it becomes a
 * request to a client of 2025-11-25 and before, and an `input_required` answer to a client of 2026-07-28, whichever way it came.
 * A call that asks nothing passes through and costs nothing.
 */
import { hash } from "node:crypto";
import { setTimeout as after } from "node:timers/promises";
import {
  type Authenticated,
  type CallNotification,
  type JsonObject,
  type McpCall,
  MODERN_REVISION,
  type Outcome,
  type PermittedCall,
  type Question,
  type QuestionAnswer,
  type Replies,
  type RequestId,
  type UpstreamCredential,
} from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newId, newToken } from "../core/ids.ts";
import { notificationText } from "../mcp/answers.ts";
import type { InboundResponse } from "../mcp/inbound.ts";
import {
  actionOf,
  answerProblem,
  asksMore,
  canBeAsked,
  covers,
  inputRequired,
  inputResponse,
  keyFor,
  lacking,
  legacyAnswer,
  legacyQuestion,
  MAX_QUESTIONS,
  mayAsk,
  modernQuestion,
  questionText,
  readInputRequired,
  readInputResponses,
  readRequiredCapabilities,
  readUrlQuestions,
  withAnswers,
  withState,
} from "../mcp/interaction.ts";
import { isObject, objectText } from "../mcp/json-text.ts";
import { ownerOf, type Session } from "../mcp/sessions.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import type { Upstream, UpstreamIdentity } from "../upstream/upstream.ts";
import type { RecordedQuestion } from "./call-record.ts";
import { type Mailbox, noMailbox, openMailbox } from "./mailbox.ts";
import type { Asked } from "./parts.ts";
import type { Seals } from "./sealed-state.ts";
import type { InteractionSettings } from "./settings.ts";
import type { Streams } from "./streams.ts";
import {
  cannotBeAsked,
  errorAnswer,
  openSuspendedCalls,
  type Round,
  type SealRound,
  SuspendableCall,
} from "./suspended.ts";

export interface Interaction {
  /**
   * Sends a call with whatever its client can be asked. The outcome may still ask (`asksMore`): then `settle` makes of it what the
   * client can be answered with. Throws what `Upstream.send` throws, and `invalid_params` for a `requestState` that is not good for this request.
   */
  send(upstream: Upstream, permitted: PermittedCall, asked: Asked, gone: AbortController): Promise<Outcome>;
  settle(
    upstream: Upstream,
    permitted: PermittedCall,
    asked: Asked,
    gone: AbortController,
    outcome: Outcome,
  ): Promise<Outcome>;
  /** The call was answered or has failed: nobody needs the answers to its questions any more. */
  over(asked: Asked): void;
  /** A legacy client's answer to a question. What answers nothing is ignored. */
  heard(response: InboundResponse, by: Authenticated, session: Session | undefined): Promise<void>;
  sessionEnded(session: Session): void;
  /** A server says in `params`, JSON text, that a page it had asked for is done; the session that was shown the page is told. */
  elicitationComplete(server: string, params: string): void;
  /** Questions to connected clients, and calls that wait for their clients to come back. */
  readonly open: { readonly questions: number; readonly suspended: number };
  /** Ends every question and every suspended call. */
  close(): Promise<void>;
}

export interface InteractionOptions {
  readonly settings: InteractionSettings;
  readonly seals: Seals;
  readonly streams: Pick<Streams, "tell">;
  /** Who the reachable upstreams said they are. */
  readonly identities: () => ReadonlyMap<string, UpstreamIdentity>;
  /** Names this process; answers that reach another one find their way by it. */
  readonly replica: string;
  /** Shared by the replicas; undefined when there can be only this process. */
  readonly shared: Records | undefined;
  readonly log: Logger;
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
type Letter =
  | { readonly kind: "answer"; readonly token: string; readonly answer: QuestionAnswer }
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

/** A question to a connected client. */
interface Asking {
  readonly asked: Asked;
  readonly session: Session;
  readonly settle: (answer: QuestionAnswer | DrawbridgeError) => void;
}

/** A server of 2026-07-28 may ask a legacy client so often during one call. */
const MAX_ROUNDS = 8;
/** Pages of servers whose end may still be told to a session. */
const MAX_PAGES = 10_000;
/** A replica that works for another one says so, and is given up when it does not. */
const WORKING_MS = 2_000;
const SILENT_MS = 8_000;
const NO_STREAM = errorAnswer("The client has no stream open on which it can be asked.");

export function openInteraction(options: InteractionOptions): Interaction {
  const { settings, seals, streams, identities, replica, shared, log } = options;
  const open = new Map<string, Asking>();
  const pages = new Map<string, Session>();
  /** Results that ask and were made here, so that nobody settles them again. */
  const made = new WeakSet<Outcome>();
  /** What we wait for from other replicas, and what we do for them. */
  const awaited = new Map<string, (letter: Letter) => void>();
  const serving = new Map<string, () => void>();
  const mailbox: Mailbox =
    shared === undefined
      ? noMailbox
      : openMailbox({ records: shared, seals, address: replica, log, deliver: (letter) => received(letter as Letter) });
  let stopWaiting = () => {};
  const suspended = openSuspendedCalls(settings, (waits) => {
    if (waits) stopWaiting = mailbox.wait();
    else stopWaiting();
  });

  /** Undefined for one that could not be reached yet. */
  const revisionOf = (upstream: Upstream) => identities().get(upstream.name)?.revision;
  const seal = (state: State, asked: Asked, call: McpCall) =>
    seals.seal(state, bindingOf(asked.by, call), settings.answerSeconds);

  function send(upstream: Upstream, permitted: PermittedCall, asked: Asked, gone: AbortController): Promise<Outcome> {
    const { forward, capabilities } = permitted.call;
    const answers = forward.has("requestState") || forward.has("inputResponses");
    if (asked.inbound.era === "legacy") {
      // To a server of 2026-07-28 these would mean what they never meant to this client.
      const strip = answers && (revisionOf(upstream) ?? MODERN_REVISION) === MODERN_REVISION;
      const sent = strip ? next(permitted, undefined) : permitted;
      return upstream.send(sent, new ConnectedReplies(asked, permitted, gone, ask), gone.signal);
    }
    if (answers) return retried(upstream, permitted, asked, gone);
    if (!canBeAsked(capabilities) || revisionOf(upstream) === MODERN_REVISION)
      return upstream.send(permitted, new SilentReplies(asked), gone.signal);
    return suspendable(upstream, permitted, asked, gone, undefined);
  }

  /** A request that brings answers, or a state, or both. */
  async function retried(
    upstream: Upstream,
    permitted: PermittedCall,
    asked: Asked,
    gone: AbortController,
  ): Promise<Outcome> {
    const { call } = permitted;
    const answers = call.forward.get("inputResponses");
    const responses = readInputResponses(answers ?? "{}");
    const stateText = call.forward.get("requestState");
    if (stateText === undefined) {
      const revision = revisionOf(upstream) ?? (await upstream.identity(gone.signal)).revision;
      if (revision === MODERN_REVISION) return upstream.send(permitted, new SilentReplies(asked), gone.signal);
      return suspendable(upstream, next(permitted, undefined), asked, gone, responses);
    }
    const sealed: unknown = JSON.parse(stateText);
    const state = typeof sealed === "string" ? await seals.open<State>(sealed, bindingOf(asked.by, call)) : undefined;
    if (state === undefined) throw invalidState();
    asked.record.linked(state.id, state.round + 1);
    switch (state.kind) {
      case "relay": {
        for (const [key, answer] of responses) asked.record.answeredInput(key, answer);
        const forward = withAnswers(call.forward, answers, JSON.stringify(state.state));
        return upstream.send(next(permitted, forward), new SilentReplies(asked), gone.signal);
      }
      case "pages":
        return afterPages(upstream, permitted, asked, gone, state, responses);
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
    upstream: Upstream,
    permitted: PermittedCall,
    asked: Asked,
    gone: AbortController,
    advance: ReadonlyMap<string, string> | undefined,
  ): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const owner = ownerOf(asked.by);
      const round = new LocalRound(asked, mark(resolve), reject);
      new SuspendableCall(suspended, owner, permitted, round, sealRound(permitted), gone, advance).start(upstream);
    });
  }
  /** Apart, so that a call that waits does not hold on to the connection it came by. */
  function sealRound({ by, call }: PermittedCall): SealRound {
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
    return new Promise((resolve, reject) => {
      call.resume(number, responses, new LocalRound(asked, mark(resolve), reject));
      const abandon = () => call.abandon(new DrawbridgeError("cancelled", "The client went away."));
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
          if (letter.kind === "next") mark(resolve)(letter.outcome, letter.ours);
          else if (letter.kind === "refused") reject(letter.lost ? lostState() : refusal(letter.message));
          else patient();
        });
        gone.signal.addEventListener("abort", () => reject(new DrawbridgeError("cancelled", "The client went away.")), {
          once: true,
        });
        patient();
        const letter: Letter = {
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

  function received(letter: Letter): void {
    switch (letter.kind) {
      case "answer":
        open.get(letter.token)?.settle(letter.answer);
        return;
      case "resume":
        serve(letter);
        return;
      case "gone":
        serving.get(letter.id)?.();
        return;
      default:
        awaited.get(letter.id)?.(letter);
    }
  }

  /** Goes on with a call for another replica. What the server says before its next question has nobody there to hear it. */
  function serve({ id, from, call: name, owner, round, responses }: Letter & { kind: "resume" }): void {
    const call = suspended.find(name, owner);
    if (call === undefined) {
      write(from, { kind: "refused", id, lost: true, message: "" });
      return;
    }
    const working = setInterval(() => write(from, { kind: "working", id }), WORKING_MS);
    const release = mailbox.wait();
    const answer = (letter: Letter) => {
      clearInterval(working);
      serving.delete(id);
      release();
      write(from, letter);
    };
    serving.set(id, () => call.abandon(new DrawbridgeError("cancelled", "The client went away.")));
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

  function write(to: string, letter: Letter): void {
    mailbox.post(to, newToken(), letter).catch((error: unknown) => {
      log.warn({ error }, "another replica could not be written to");
      if (letter.kind === "next") {
        const { message } = DrawbridgeError.from(error);
        write(to, { kind: "refused", id: letter.id, lost: false, message });
      }
    });
  }

  function mark(resolve: (outcome: Outcome) => void): Round["resolve"] {
    return (outcome, ours) => {
      if (ours) made.add(outcome);
      resolve(outcome);
    };
  }

  function settle(
    upstream: Upstream,
    permitted: PermittedCall,
    asked: Asked,
    gone: AbortController,
    outcome: Outcome,
  ): Promise<Outcome> {
    if (made.has(outcome)) return Promise.resolve(outcome);
    return asked.inbound.era === "modern"
      ? forModern(permitted, asked, outcome)
      : forLegacy(upstream, permitted, asked, gone, outcome);
  }

  async function forModern({ call }: PermittedCall, asked: Asked, outcome: Outcome): Promise<Outcome> {
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
    upstream: Upstream,
    permitted: PermittedCall,
    asked: Asked,
    gone: AbortController,
    { keys }: State & { kind: "pages" },
    responses: ReadonlyMap<string, string>,
  ): Promise<Outcome> {
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
    return suspendable(upstream, next(permitted, undefined), asked, gone, undefined);
  }

  async function forLegacy(
    upstream: Upstream,
    permitted: PermittedCall,
    asked: Asked,
    gone: AbortController,
    first: Outcome,
  ): Promise<Outcome> {
    const { call } = permitted;
    let outcome = first;
    for (let round = 1; asksMore(outcome); round++) {
      const required = readRequiredCapabilities(outcome);
      if (required !== undefined) return cannotGoOn(call, needs(required));
      const asks = readInputRequired(outcome);
      if (asks === undefined) {
        for (const page of readUrlQuestions(outcome) ?? []) showed(call.target.server, page, asked.session);
        return outcome;
      }
      mustBeAskable(call, asks.requests.values());
      const missing = lacking(call.capabilities, asks.requests.values());
      if (missing !== undefined) return cannotGoOn(call, needs(missing));
      if (round > MAX_ROUNDS) return cannotGoOn(call, `The server asked more than ${MAX_ROUNDS} times.`);
      const answers = await Promise.all(
        [...asks.requests].map(async ([key, question]) => {
          const answer = await ask(asked, permitted, gone.signal, legacyQuestion(question, newId));
          return [key, question, answer, inputResponse(question, answer)] as const;
        }),
      );
      const responses = new Map<string, string>();
      for (const [key, { method }, answer, response] of answers) {
        if (response !== undefined && answer !== NO_STREAM) responses.set(key, response);
        else return cannotGoOn(call, `The client did not answer ${method}: ${saidIn(answer)}`);
      }
      // A server that asks nothing wants to be called again, when it has less to do.
      if (answers.length === 0) await after(Math.min(5000, 100 * 2 ** round), undefined, { signal: gone.signal });
      const forward = withAnswers(
        call.forward,
        responses.size === 0 ? undefined : objectText(responses),
        asks.state === undefined ? undefined : JSON.stringify(asks.state),
      );
      const replies = new ConnectedReplies(asked, permitted, gone, ask);
      outcome = await upstream.send(next(permitted, forward), replies, gone.signal);
    }
    return outcome;
  }

  /** Puts a question to a connected client and waits for its answer. */
  async function ask(
    asked: Asked,
    { call }: PermittedCall,
    signal: AbortSignal,
    question: Question,
  ): Promise<QuestionAnswer> {
    const { session, by, answering, record } = asked;
    if (session === undefined || !mayAsk(call.method) || lacking(call.capabilities, [question]) !== undefined)
      return cannotBeAsked(question, call.method);
    const ofCall = [...open.values()].filter((other) => other.asked === asked);
    if (ofCall.length >= MAX_QUESTIONS) return errorAnswer(`More than ${MAX_QUESTIONS} questions are open.`);
    const token = newToken();
    const tell = (message: string) => answering.notify(message) || streams.tell(session, message);
    const { promise, resolve, reject } = Promise.withResolvers<QuestionAnswer>();
    let id: string | undefined;
    let ended = false;
    const withdraw = (reason: string) => {
      if (id !== undefined)
        tell(notificationText("notifications/cancelled", JSON.stringify({ requestId: id, reason })));
    };
    const settle = (given: QuestionAnswer | DrawbridgeError) => {
      if (ended) return;
      ended = true;
      if (given instanceof DrawbridgeError) {
        withdraw(given.message);
        reject(given);
      } else resolve(given);
    };
    const cancelled = () => settle(new DrawbridgeError("cancelled", "The call was cancelled."));
    // Known before it is asked: the call may end, and an answer come by way of another replica, at any moment.
    open.set(token, { asked, session, settle });
    promise.catch(() => {});
    signal.addEventListener("abort", cancelled, { once: true });
    if (signal.aborted) cancelled();
    const release = mailbox.wait();
    let timer: NodeJS.Timeout | undefined;
    try {
      await mailbox.present();
      const sealed = await seals.seal({ replica, token }, questionBinding(by, session), settings.answerSeconds);
      if (ended) return await promise;
      if (!tell(questionText(sealed, question))) return NO_STREAM;
      id = sealed;
      showed(call.target.server, question, session);
      const entry: RecordedQuestion = record.questioned(question);
      timer = setTimeout(() => {
        withdraw("The question was not answered in time.");
        settle(errorAnswer("The client did not answer in time."));
      }, settings.answerSeconds * 1000);
      const answer = await promise;
      record.replied(entry, answer);
      return answer;
    } finally {
      ended = true;
      clearTimeout(timer);
      signal.removeEventListener("abort", cancelled);
      open.delete(token);
      release();
    }
  }

  /** Keeps in mind which session a page was shown to, so that it can be told when the page is done. */
  function showed(server: string, question: Question, session: Session | undefined): void {
    if (session === undefined || question.method !== "elicitation/create") return;
    const { elicitationId } = JSON.parse(question.params) as JsonObject;
    if (typeof elicitationId !== "string") return;
    if (pages.size >= MAX_PAGES) for (const first of [...pages.keys()].slice(0, 100)) pages.delete(first);
    pages.set(`${server}\n${elicitationId}`, session);
  }

  return {
    send,
    settle,
    over(asked) {
      if (open.size === 0) return;
      for (const question of [...open.values()])
        if (question.asked === asked) question.settle(new DrawbridgeError("cancelled", "The call is over."));
    },
    async heard(response, by, session) {
      if (session === undefined || typeof response.id !== "string") return;
      const mine = await seals.open<{ replica: string; token: string }>(response.id, questionBinding(by, session));
      if (mine === undefined) return;
      const { answer } = response;
      if (mine.replica === replica) open.get(mine.token)?.settle(answer);
      else await mailbox.post(mine.replica, mine.token, { kind: "answer", token: mine.token, answer } satisfies Letter);
    },
    sessionEnded(session) {
      for (const [page, of] of pages) if (of.id === session.id) pages.delete(page);
      for (const question of [...open.values()])
        if (question.session.id === session.id) question.settle(new DrawbridgeError("cancelled", "The session ended."));
    },
    elicitationComplete(server, params) {
      const { elicitationId } = JSON.parse(params) as JsonObject;
      const page = `${server}\n${String(elicitationId)}`;
      const session = pages.get(page);
      if (session === undefined) return;
      pages.delete(page);
      streams.tell(session, notificationText("notifications/elicitation/complete", params));
    },
    get open() {
      return { questions: open.size, suspended: suspended.size };
    },
    async close() {
      suspended.close();
      for (const question of [...open.values()])
        question.settle(new DrawbridgeError("cancelled", "The gateway is being stopped."));
      await mailbox.close();
    },
  };
}

/** Replies to a client that is asked nothing before its answer. */
class SilentReplies implements Replies {
  protected readonly request: Asked;
  constructor(request: Asked) {
    this.request = request;
  }
  notify({ method, params }: CallNotification): void {
    this.request.answering.notify(notificationText(method, params));
  }
  sentWith(credential: UpstreamCredential): void {
    this.request.record.sentWith(credential);
  }
}

type AskClient = (
  asked: Asked,
  permitted: PermittedCall,
  signal: AbortSignal,
  question: Question,
) => Promise<QuestionAnswer>;

/** Replies to a client that stays connected and can be asked meanwhile. */
class ConnectedReplies extends SilentReplies {
  readonly #permitted: PermittedCall;
  readonly #gone: AbortController;
  readonly #ask: AskClient;
  constructor(request: Asked, permitted: PermittedCall, gone: AbortController, ask: AskClient) {
    super(request);
    this.#permitted = permitted;
    this.#gone = gone;
    this.#ask = ask;
  }
  ask(question: Question): Promise<QuestionAnswer> {
    return this.#ask(this.request, this.#permitted, this.#gone.signal, legacyQuestion(question, newId));
  }
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

/** The same call, permitted as it was, in its next round: only answers and state differ, and neither is decided upon. */
function next(permitted: PermittedCall, forward: ReadonlyMap<string, string> | undefined): PermittedCall {
  const { call } = permitted;
  return {
    ...permitted,
    call: { ...call, forward: forward ?? withAnswers(call.forward, undefined, undefined) },
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

function questionBinding(by: Authenticated, session: Session): string {
  return JSON.stringify(["question", by.subject, by.client, session.id]);
}

function mustBeAskable(call: McpCall, questions: Iterable<Question>): void {
  if (mayAsk(call.method)) return;
  throw new DrawbridgeError("upstream_failed", `The server asked a question, which ${call.method} has no place for.`, {
    detail: [...questions].map(({ method }) => method).join(", "),
  });
}

function missingCapability(required: JsonObject): DrawbridgeError {
  return new DrawbridgeError("missing_client_capability", needs(required), {
    data: { requiredCapabilities: required },
  });
}

function needs(required: JsonObject): string {
  const names = Object.entries(required).map(([name, inner]) => {
    const parts = isObject(inner) ? Object.keys(inner) : [];
    return parts.length === 0 ? name : `${name} (${parts.join(", ")})`;
  });
  return `The server needs a client that can do this: ${names.join(", ")}. The client did not declare it.`;
}

/** Where the protocol has no word for it: a tool's error, which the model can read, or an error of the call. */
function cannotGoOn(call: McpCall, text: string): Outcome {
  if (call.method !== "tools/call") throw new DrawbridgeError("upstream_failed", text);
  const value: JsonObject = { content: [{ type: "text", text }], isError: true };
  return { kind: "result", result: JSON.stringify(value), value };
}

function saidIn(answer: QuestionAnswer): string {
  return answer.kind === "error" ? answer.message.slice(0, 500) : "";
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
