/**
 * Calls whose server waits for its client while nobody is connected: a server with a handshake asks in the middle of a call, and a
 * client of 2026-07-28 answers with another request. Between the two the call lives here, for a bounded time and within quotas.
 */
import type {
  CallNotification,
  McpCall,
  Outcome,
  PermittedCall,
  Question,
  QuestionAnswer,
  Replies,
  RequestId,
  UpstreamCredential,
} from "../core/call.ts";
import { DrawbridgeError, ERRORS } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import {
  answerProblem,
  inputRequired,
  keyFor,
  lacking,
  legacyAnswer,
  MAX_QUESTIONS,
  mayAsk,
  modernQuestion,
} from "../mcp/interaction.ts";
import { memberTexts, objectText } from "../mcp/json-text.ts";
import type { QuestionEnd } from "../observe/metrics.ts";
import type { Upstream } from "../upstream/upstream.ts";
import { endOf, withdrawal } from "./bridged-call.ts";
import type { InteractionSettings } from "./settings.ts";

/** One request of the client, which waits for what comes next: questions or the outcome. */
export interface Round {
  /** Its own progress token; undefined when it wants no progress. */
  readonly progressToken: RequestId | undefined;
  readonly wantsLogs: boolean;
  notify(notification: CallNotification): void;
  sentWith?(credential: UpstreamCredential): void;
  /** This is the round of that number of a call that goes on in another one. */
  linked(call: string, round: number): void;
  /** Hears which question is put to the client, by key, and what came back. */
  questioned(key: string, question: Question): void;
  replied(key: string, question: Question, answer: QuestionAnswer): void;
  /** `ours`: not the server's own words, but its questions as we ask them. */
  resolve(outcome: Outcome, ours: boolean): void;
  reject(error: unknown): void;
}

/** Where questions of one call leave: sealed into the `requestState` of its client. */
export type SealRound = (call: string, round: number) => Promise<string>;

/** Hears of a call that ended while no request of its client waited for it: why, after which round, and what was still asked. */
export type CallEnd = (
  error: DrawbridgeError,
  call: string,
  round: number,
  open: ReadonlyMap<string, Question>,
) => void;

export interface SuspendableOptions {
  readonly suspended: SuspendedCalls;
  /** Whose it is. */
  readonly owner: string;
  readonly permitted: PermittedCall;
  readonly round: Round;
  readonly seal: SealRound;
  readonly ended: CallEnd;
  readonly gone: AbortController;
  /** Answers that the client sent before it was asked. */
  readonly advance: ReadonlyMap<string, string> | undefined;
}

interface Open {
  readonly question: Question;
  readonly answer: (answer: QuestionAnswer) => void;
}

/**
 * Parallel questions of a server come one after the other; those that come this soon are put to the client together. What has been
 * seen to ask one thing at a time is waited for only until it would have written the next.
 */
const GATHER_MS = 20;
const GATHER_ONE_MS = 2;
/** What is said while nobody listens; of more than this the oldest is forgotten. */
const MAX_HELD = 32;
const MAX_HELD_LENGTH = 64 << 10;

/** One call to a server with a handshake on behalf of a client of 2026-07-28. Costs little until the server asks. */
export class SuspendableCall implements Replies {
  readonly owner: string;
  readonly #gone: AbortController;
  readonly #suspended: SuspendedCalls;
  readonly #permitted: PermittedCall;
  readonly #seal: SealRound;
  readonly #ended: CallEnd;
  readonly #advance: ReadonlyMap<string, string> | undefined;
  #id: string | undefined;
  #number = 0;
  #round: Round | undefined;
  #over: { readonly outcome: Outcome } | { readonly error: unknown } | undefined;
  #open: Map<string, Open> | undefined;
  /** Every key that this call has used. */
  #keys: Set<string> | undefined;
  #held: CallNotification[] | undefined;
  #gathering: NodeJS.Timeout | undefined;
  #expiry: NodeJS.Timeout | undefined;

  constructor({ suspended, owner, permitted, round, seal, ended, gone, advance }: SuspendableOptions) {
    this.#suspended = suspended;
    this.owner = owner;
    this.#permitted = permitted;
    this.#round = round;
    this.#seal = seal;
    this.#ended = ended;
    this.#gone = gone;
    this.#advance = advance;
  }

  get id(): string {
    this.#id ??= newId();
    return this.#id;
  }
  get server(): string {
    return this.#permitted.call.target.server;
  }
  /** Questions that wait for their answers. */
  get open(): number {
    return this.#open?.size ?? 0;
  }

  notify(notification: CallNotification): void {
    if (this.#round !== undefined) {
      this.#deliver(notification, this.#round);
      return;
    }
    if (notification.params.length > MAX_HELD_LENGTH / MAX_HELD) return;
    this.#held ??= [];
    if (this.#held.push(notification) > MAX_HELD) this.#held.shift();
  }

  sentWith(credential: UpstreamCredential): void {
    this.#round?.sentWith?.(credential);
  }

  async ask(asked: Question, withdrawn: AbortSignal): Promise<QuestionAnswer> {
    const { call } = this.#permitted;
    const question = modernQuestion(asked);
    const missing = lacking(call.capabilities, [question]);
    if (missing !== undefined || !mayAsk(call.method)) return this.#refuse(cannotBeAsked(question, call.method));
    if (this.#over !== undefined) throw new DrawbridgeError("cancelled", "The call is over.");
    if (withdrawn.aborted) throw withdrawal(withdrawn);
    this.#keys ??= new Set();
    this.#open ??= new Map();
    if (this.#open.size >= MAX_QUESTIONS)
      return this.#refuse(errorAnswer(`More than ${MAX_QUESTIONS} questions are open.`));
    const key = keyFor(question, this.#keys);
    this.#keys.add(key);
    const known = this.#advance?.get(key);
    if (known !== undefined && answerProblem(question, known) === undefined) {
      const answer = legacyAnswer(known);
      this.#round?.replied(key, question, answer);
      this.#count("answered");
      return answer;
    }
    if (!this.#suspended.has(this)) {
      const refused = this.#suspended.enter(this);
      if (refused !== undefined) {
        this.#count("refused");
        this.#finish({ outcome: refused });
        this.#gone.abort();
        throw new DrawbridgeError("cancelled", "The call is over.");
      }
    }
    const open = this.#open;
    // More than was asked before, and nobody has answered that yet: they come together.
    if (open.size > 0) this.#suspended.habits.severalAtOnce(call);
    return new Promise((resolve, reject) => {
      const mine: Open = { question, answer: resolve };
      open.set(key, mine);
      withdrawn.addEventListener(
        "abort",
        () => {
          if (open.get(key) !== mine) return;
          open.delete(key);
          this.#count(endOf(withdrawn));
          reject(withdrawal(withdrawn));
        },
        { once: true },
      );
      this.#gather();
    });
  }

  /** Sends the call. Who waits when the upstream is done with it is told then, and otherwise whoever comes next. */
  start(upstream: Upstream): void {
    upstream.send(this.#permitted, this, this.#gone.signal).then(
      (outcome) => this.#finish({ outcome }),
      (error: unknown) => this.#finish({ error }),
    );
  }

  /**
   * Answers what was asked in that round, and makes `round` the one that waits. Unknown keys are ignored, and what was not answered is
   * asked again. Throws `invalid_params` for an answer of the wrong form, or when that round is not the last one; then all stays as it was.
   */
  resume(number: number, responses: ReadonlyMap<string, string>, round: Round): void {
    if (this.#round !== undefined || number !== this.#number) {
      throw new DrawbridgeError("invalid_params", "These questions were answered already. Call again.", {
        data: { reason: "invalid_request_state" },
      });
    }
    const open = this.#open ?? new Map<string, Open>();
    for (const [key, { question }] of open) {
      const response = responses.get(key);
      const problem = response === undefined ? undefined : answerProblem(question, response);
      if (problem !== undefined)
        throw new DrawbridgeError("invalid_params", `In \`inputResponses\`, ${JSON.stringify(key)} ${problem}.`);
    }
    clearTimeout(this.#expiry);
    this.#round = round;
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const notification of held) this.#deliver(notification, round);
    if (this.#over !== undefined) {
      this.#tell(this.#over);
      return;
    }
    for (const [key, { question, answer }] of [...open]) {
      const response = responses.get(key);
      if (response === undefined) continue;
      open.delete(key);
      const given = legacyAnswer(response);
      round.replied(key, question, given);
      this.#count("answered");
      answer(given);
    }
    this.#gather();
  }

  /** The client of the round has gone, the time is over, or the gateway stops. */
  abandon(error: DrawbridgeError, end: QuestionEnd = "withdrawn"): void {
    // A request that waits has a record of its own.
    const unheard = this.#round === undefined && this.#suspended.has(this);
    const open = new Map([...(this.#open ?? [])].map(([key, { question }]) => [key, question]));
    this.#endOpen(end);
    this.#finish({ error });
    this.#suspended.leave(this);
    this.#gone.abort();
    if (unheard) this.#ended(error, this.id, this.#number, open);
  }

  /** The last round did not reach its client, whose request says so: nobody can come back. */
  drop(): void {
    if (this.#round !== undefined || !this.#suspended.has(this)) return;
    clearTimeout(this.#expiry);
    this.#suspended.leave(this);
    this.abandon(new DrawbridgeError("cancelled", "The client went away."));
  }

  #gather(): void {
    if (this.#round === undefined || this.#gathering !== undefined || this.open === 0) return;
    const ms = this.#suspended.habits.oneByOne(this.#permitted.call) ? GATHER_ONE_MS : GATHER_MS;
    this.#gathering = setTimeout(() => void this.#suspend(), ms);
  }

  /** Answers the client that waits with what is open. */
  async #suspend(): Promise<void> {
    const number = this.#number + 1;
    try {
      const state = await this.#seal(this.id, number);
      this.#gathering = undefined;
      const round = this.#round;
      // What was asked may have been withdrawn meanwhile.
      if (round === undefined || this.#over !== undefined || this.#open === undefined || this.open === 0) return;
      this.#number = number;
      this.#round = undefined;
      this.#expiry = setTimeout(() => this.abandon(unanswered(), "expired"), this.#suspended.answerSeconds * 1000);
      this.#expiry.unref();
      round.linked(this.id, number);
      const requests = new Map<string, Question>();
      for (const [key, { question }] of this.#open) {
        requests.set(key, question);
        round.questioned(key, question);
      }
      if (requests.size === 1) this.#suspended.habits.askedOne(this.#permitted.call);
      round.resolve(inputRequired(requests, state), true);
    } catch (thrown) {
      this.abandon(DrawbridgeError.from(thrown));
    }
  }

  #finish(over: { readonly outcome: Outcome } | { readonly error: unknown }): void {
    if (this.#over !== undefined) return;
    this.#over = over;
    clearTimeout(this.#gathering);
    this.#endOpen("withdrawn");
    if (this.#round !== undefined) this.#tell(over);
  }

  #tell(over: { readonly outcome: Outcome } | { readonly error: unknown }): void {
    clearTimeout(this.#expiry);
    if (this.#keys !== undefined) this.#suspended.leave(this);
    if ("outcome" in over) this.#round?.resolve(over.outcome, false);
    else this.#round?.reject(over.error);
  }

  #endOpen(end: QuestionEnd): void {
    for (let left = this.open; left > 0; left--) this.#count(end);
    this.#open?.clear();
  }
  #count(end: QuestionEnd): void {
    this.#suspended.questionEnded(this.server, end);
  }
  #refuse(answer: QuestionAnswer): QuestionAnswer {
    this.#count("refused");
    return answer;
  }

  /** The upstream knows the token of the first round only; each round has its own. */
  #deliver({ method, params }: CallNotification, round: Round): void {
    if (method === "notifications/message" && !round.wantsLogs) return;
    if (method !== "notifications/progress" || round.progressToken === this.#permitted.call.progressToken) {
      round.notify({ method, params });
      return;
    }
    const members = round.progressToken === undefined ? undefined : memberTexts(params);
    if (members === undefined) return;
    members.set("progressToken", JSON.stringify(round.progressToken));
    round.notify({ method, params: objectText(members) });
  }
}

export interface SuspendedCalls {
  readonly answerSeconds: number;
  readonly habits: Habits;
  /** Takes a place for a call whose server asks, until it leaves; with no place left, what to answer instead. */
  enter(call: SuspendableCall): Outcome | undefined;
  leave(call: SuspendableCall): void;
  has(call: SuspendableCall): boolean;
  /** Undefined for one that is over, was never here, or belongs to somebody else. */
  find(id: string, owner: string): SuspendableCall | undefined;
  questionEnded(server: string, end: QuestionEnd): void;
  /** The server of each call, and of each question that is open. */
  servers(): readonly string[];
  open(): readonly string[];
  close(): void;
}

/** `onChange`: hears when the first call came, and when the last one left. */
export function openSuspendedCalls(
  settings: InteractionSettings,
  onChange: (waits: boolean) => void,
  questionEnded: SuspendedCalls["questionEnded"],
): SuspendedCalls {
  const calls = new Map<string, SuspendableCall>();
  const counts = new Map<string, number>();
  let closed = false;
  return {
    answerSeconds: settings.answerSeconds,
    habits: openHabits(),
    questionEnded,
    enter(call) {
      if (closed) return overloaded("The gateway is being stopped. Call again in a moment.");
      const count = counts.get(call.owner) ?? 0;
      if (count >= settings.maxSuspendedPerPrincipal)
        return overloaded(
          `Questions of ${count} of your calls are open. Answer them, or wait until they end, and call again.`,
        );
      if (calls.size >= settings.maxSuspended)
        return overloaded("Too many calls wait for answers of their users. Try again later.");
      counts.set(call.owner, count + 1);
      calls.set(call.id, call);
      if (calls.size === 1) onChange(true);
      return undefined;
    },
    leave(call) {
      if (!calls.delete(call.id)) return;
      const count = (counts.get(call.owner) ?? 1) - 1;
      if (count > 0) counts.set(call.owner, count);
      else counts.delete(call.owner);
      if (calls.size === 0) onChange(false);
    },
    has: (call) => calls.has(call.id),
    find(id, owner) {
      const call = calls.get(id);
      return call?.owner === owner ? call : undefined;
    },
    servers: () => [...calls.values()].map(({ server }) => server),
    open: () => [...calls.values()].flatMap(({ server, open }) => new Array<string>(open).fill(server)),
    close() {
      closed = true;
      for (const call of [...calls.values()])
        call.abandon(new DrawbridgeError("cancelled", "The gateway is being stopped."));
    },
  };
}

/** Whether what is called has been seen to ask one thing at a time. */
export interface Habits {
  oneByOne(call: McpCall): boolean;
  /** It asked this one thing, and there was time for more. */
  askedOne(call: McpCall): void;
  severalAtOnce(call: McpCall): void;
}

const MAX_HABITS = 1000;

function openHabits(): Habits {
  // Oldest first. What once asked for several things at once may do so again.
  const known = new Map<string, boolean>();
  const nameOf = ({ target, method }: McpCall) => `${target.server}\n${method}\n${target.upstreamName}`;
  const learn = (name: string, oneByOne: boolean) => {
    const [oldest] = known.keys();
    if (known.size >= MAX_HABITS && oldest !== undefined) known.delete(oldest);
    known.set(name, oneByOne);
  };
  return {
    oneByOne: (call) => known.get(nameOf(call)) === true,
    askedOne(call) {
      const name = nameOf(call);
      if (!known.has(name)) learn(name, true);
    },
    severalAtOnce: (call) => learn(nameOf(call), false),
  };
}

/** In band: the call has reached its server, so a 503 that invites to repeat it would be wrong (decision 002). */
function overloaded(message: string): Outcome {
  return { kind: "error", code: ERRORS.overloaded.rpc, message, data: undefined };
}

function unanswered(): DrawbridgeError {
  return new DrawbridgeError("cancelled", "Nobody answered the server's question in time.");
}

/** What a client without the capability would have said (2025-11-25, Elicitation, Sampling and Roots, Error Handling). */
export function cannotBeAsked({ method }: Question, during: string): QuestionAnswer {
  const why = mayAsk(during) ? "It did not declare that it can do this" : `Nothing can be asked during ${during}`;
  return { kind: "error", code: -32601, message: `The client cannot be asked ${method}: ${why}.`, data: undefined };
}

export function errorAnswer(message: string): QuestionAnswer {
  return { kind: "error", code: -32603, message, data: undefined };
}
