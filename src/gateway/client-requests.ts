/**
 * Questions to a client that stays connected, as requests to it (2025-11-25 and before): sent on the stream of its call or of its
 * session, answered by a POST that may reach any replica, and withdrawn when nobody waits for the answer any more.
 */
import { setTimeout as after } from "node:timers/promises";
import type { Authenticated, JsonObject, Outcome, Question, QuestionAnswer } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newId, newToken } from "../core/ids.ts";
import { notificationText } from "../mcp/answers.ts";
import type { InboundResponse } from "../mcp/inbound.ts";
import {
  asksMore,
  inputResponse,
  lacking,
  legacyQuestion,
  MAX_QUESTIONS,
  mayAsk,
  questionText,
  readInputRequired,
  readRequiredCapabilities,
  readUrlQuestions,
  withAnswers,
} from "../mcp/interaction.ts";
import { objectText } from "../mcp/json-text.ts";
import type { Session } from "../mcp/sessions.ts";
import {
  type Bridge,
  type BridgedCall,
  cannotGoOn,
  endOf,
  MAX_ROUNDS,
  mustBeAskable,
  needs,
  next,
  SilentReplies,
  withdrawal,
} from "./bridged-call.ts";
import type { Asked } from "./parts.ts";
import type { Streams } from "./streams.ts";
import { cannotBeAsked, errorAnswer } from "./suspended.ts";

export interface ClientRequests {
  /** Sends a call; what its server asks meanwhile is put to the client. */
  send(call: BridgedCall): Promise<Outcome>;
  /** Puts what the outcome asks to the client, and makes the call again with the answers, until it asks nothing. */
  settle(call: BridgedCall, outcome: Outcome): Promise<Outcome>;
  /** Nobody needs the answers to the questions of a request any more. */
  over(asked: Asked): void;
  heard(response: InboundResponse, by: Authenticated, session: Session | undefined): Promise<void>;
  /** Another replica was given an answer that we wait for. */
  received(letter: AnswerLetter): void;
  sessionEnded(session: Session): void;
  /**
   * A server says in `params`, JSON text, that a page it had asked for is done; the session that was shown the page is told, if it
   * is one of those that who says so serves.
   */
  elicitationComplete(server: string, params: string, serves?: (session: Session) => boolean): void;
  /** The server of each open question. */
  open(): readonly string[];
  close(): void;
}

export interface AnswerLetter {
  readonly kind: "answer";
  readonly token: string;
  readonly answer: QuestionAnswer;
}

/** A question to a connected client. */
interface Asking {
  readonly server: string;
  readonly asked: Asked;
  readonly session: Session;
  readonly settle: (answer: QuestionAnswer | DrawbridgeError) => void;
}

/** Pages of servers whose end may still be told to a session. */
const MAX_PAGES = 10_000;
const NO_STREAM = errorAnswer("The client has no stream open on which it can be asked.");

export function openClientRequests(bridge: Bridge, streams: Pick<Streams, "tell">): ClientRequests {
  const { settings, seals, mailbox, replica } = bridge;
  const open = new Map<string, Asking>();
  const pages = new Map<string, Session>();
  let closed = false;

  function send(bridged: BridgedCall): Promise<Outcome> {
    return bridged.upstream.send(bridged.permitted, new ConnectedReplies(bridged, ask), bridged.gone.signal);
  }

  async function settle(bridged: BridgedCall, first: Outcome): Promise<Outcome> {
    const { permitted, asked, gone } = bridged;
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
      const answers = await askAll(bridged, asks.requests);
      if (typeof answers === "string") return cannotGoOn(call, answers);
      // A server that asks nothing wants to be called again, when it has less to do.
      if (answers.size === 0) await after(Math.min(5000, 100 * 2 ** round), undefined, { signal: gone.signal });
      const forward = withAnswers(
        call.forward,
        answers.size === 0 ? undefined : objectText(answers),
        asks.state === undefined ? undefined : JSON.stringify(asks.state),
      );
      outcome = await send({ ...bridged, permitted: next(permitted, forward) });
    }
    return outcome;
  }

  /** Asks everything at once. With the first that cannot be answered, which is said in words, the others are withdrawn. */
  async function askAll(
    bridged: BridgedCall,
    questions: ReadonlyMap<string, Question>,
  ): Promise<ReadonlyMap<string, string> | string> {
    const round = new AbortController();
    let failed: string | undefined;
    const given = [...questions].map(async ([key, question]) => {
      const answer = await ask(bridged, legacyQuestion(question, newId), round.signal);
      const response = inputResponse(question, answer);
      if (response !== undefined && answer !== NO_STREAM) return [key, response] as const;
      const said = answer.kind === "error" ? answer.message.slice(0, 500) : "";
      failed ??= `The client did not answer ${question.method}: ${said}`;
      round.abort(new DOMException("Another question of the call was not answered.", "AbortError"));
      return undefined;
    });
    const answers = await Promise.allSettled(given);
    if (failed !== undefined) return failed;
    const responses = new Map<string, string>();
    for (const answer of answers) {
      if (answer.status === "rejected") throw answer.reason;
      if (answer.value !== undefined) responses.set(...answer.value);
    }
    return responses;
  }

  /** Puts a question to a connected client and waits for its answer; rejects once it is withdrawn, or the call or the session ends. */
  async function ask(
    { permitted: { call }, asked, gone }: BridgedCall,
    question: Question,
    withdrawn: AbortSignal,
  ): Promise<QuestionAnswer> {
    const { session, by, answering, record } = asked;
    const { server } = call.target;
    const refuse = (answer: QuestionAnswer) => {
      bridge.questionEnded(server, "refused");
      return answer;
    };
    if (session === undefined || !mayAsk(call.method) || lacking(call.capabilities, [question]) !== undefined)
      return refuse(cannotBeAsked(question, call.method));
    if (closed) return refuse(errorAnswer("The gateway is being stopped."));
    const ofCall = [...open.values()].filter((other) => other.asked === asked);
    if (ofCall.length >= MAX_QUESTIONS) return refuse(errorAnswer(`More than ${MAX_QUESTIONS} questions are open.`));
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
        bridge.questionEnded(server, endOf(withdrawn));
        withdraw(given.message);
        reject(given);
      } else resolve(given);
    };
    const over = AbortSignal.any([gone.signal, withdrawn]);
    const overNow = () => settle(withdrawn.aborted ? withdrawal(withdrawn) : cancelled());
    // Known before it is asked: the call may end, and an answer come by way of another replica, at any moment.
    open.set(token, { server, asked, session, settle });
    promise.catch(() => {});
    over.addEventListener("abort", overNow, { once: true });
    if (over.aborted) overNow();
    const release = mailbox.wait();
    let timer: NodeJS.Timeout | undefined;
    try {
      await mailbox.present();
      const sealed = await seals.seal({ replica, token }, questionBinding(by, session), settings.answerSeconds);
      if (ended) return await promise;
      if (!tell(questionText(sealed, record.view.question(question)))) return refuse(NO_STREAM);
      id = sealed;
      showed(server, question, session);
      const entry = record.questioned(question);
      let late = false;
      timer = setTimeout(() => {
        if (ended) return;
        late = true;
        withdraw("The question was not answered in time.");
        settle(errorAnswer("The client did not answer in time."));
      }, settings.answerSeconds * 1000);
      const answer = await promise;
      bridge.questionEnded(server, late ? "expired" : answer.kind === "error" ? "refused" : "answered");
      record.replied(entry, answer);
      return answer;
    } finally {
      ended = true;
      clearTimeout(timer);
      over.removeEventListener("abort", overNow);
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

  const received = ({ token, answer }: AnswerLetter) => open.get(token)?.settle(answer);
  const endAll = (which: (asking: Asking) => boolean, reason: string) => {
    for (const asking of [...open.values()]) if (which(asking)) asking.settle(new DrawbridgeError("cancelled", reason));
  };

  return {
    send,
    settle,
    over(asked) {
      if (open.size > 0) endAll((asking) => asking.asked === asked, "The call is over.");
    },
    async heard(response, by, session) {
      if (session === undefined || typeof response.id !== "string") return;
      const mine = await seals.open<{ replica: string; token: string }>(response.id, questionBinding(by, session));
      if (mine === undefined) return;
      const letter: AnswerLetter = { kind: "answer", token: mine.token, answer: response.answer };
      if (mine.replica === replica) received(letter);
      else await mailbox.post(mine.replica, mine.token, letter);
    },
    received,
    sessionEnded(session) {
      for (const [page, of] of pages) if (of.id === session.id) pages.delete(page);
      endAll((asking) => asking.session.id === session.id, "The session ended.");
    },
    elicitationComplete(server, params, serves = () => true) {
      const { elicitationId } = JSON.parse(params) as JsonObject;
      const page = `${server}\n${String(elicitationId)}`;
      const session = pages.get(page);
      if (session === undefined || !serves(session)) return;
      pages.delete(page);
      streams.tell(session, notificationText("notifications/elicitation/complete", bridge.said(session.by, params)));
    },
    open: () => [...open.values()].map(({ server }) => server),
    close() {
      closed = true;
      endAll(() => true, "The gateway is being stopped.");
    },
  };
}

type AskClient = (bridged: BridgedCall, question: Question, withdrawn: AbortSignal) => Promise<QuestionAnswer>;

/** Replies to a client that stays connected and can be asked meanwhile. */
class ConnectedReplies extends SilentReplies {
  readonly #bridged: BridgedCall;
  readonly #ask: AskClient;
  constructor(bridged: BridgedCall, ask: AskClient) {
    super(bridged.asked);
    this.#bridged = bridged;
    this.#ask = ask;
  }
  ask(question: Question, withdrawn: AbortSignal): Promise<QuestionAnswer> {
    return this.#ask(this.#bridged, legacyQuestion(question, newId), withdrawn);
  }
}

function cancelled(): DrawbridgeError {
  return new DrawbridgeError("cancelled", "The call was cancelled.");
}

function questionBinding(by: Authenticated, session: Session): string {
  return JSON.stringify(["question", by.subject, by.client, session.id]);
}
