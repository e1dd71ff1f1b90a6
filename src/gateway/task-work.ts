/** A task at its server, of either era: how it is asked for its state, waited for, answered when it asks, and cancelled. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Outcome, PermittedCall, Question, QuestionAnswer, Replies } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError, ERRORS } from "../core/errors.ts";
import { inputResponse, keyFor, MAX_QUESTIONS, modernQuestion, readInputRequired } from "../mcp/interaction.ts";
import { isObject, memberTexts, objectText } from "../mcp/json-text.ts";
import type { Era } from "../mcp/methods.ts";
import { isOver, questionOfTask, readTask, type Task, taskGone } from "../mcp/tasks.ts";
import type { Upstream } from "../upstream/upstream.ts";

export interface Work {
  readonly upstream: Upstream;
  /** The call that made it, permitted anew for this request. */
  readonly permitted: PermittedCall;
  /** The form in which its server speaks of it. */
  readonly era: Era;
  /** What its server calls it. */
  readonly name: string;
  readonly process: string | undefined;
  /** What its client calls it; undefined when the client knows of no task. */
  readonly id: string | undefined;
}

/** A server that says nothing of how often it wants to be asked. */
const POLL_MS = 1_000;
const MIN_POLL_MS = 50;
const MAX_POLL_MS = 5_000;
const CANCEL_MS = 10_000;

/** Sends one request about the task. */
export function askFor(
  { upstream, permitted, name, process }: Work,
  method: string,
  signal: AbortSignal,
  { replies = SILENT, more = [] }: { replies?: Replies; more?: readonly (readonly [string, string])[] } = {},
): Promise<Outcome> {
  const call = {
    ...permitted.call,
    method,
    forward: new Map([["taskId", JSON.stringify(name)], ...more]),
    progressToken: undefined,
    logLevel: undefined,
    task: { process, accepted: true },
  };
  return upstream.send({ ...permitted, call }, replies, signal);
}

/** Asks for its state. An error is what the server said. Throws `upstream_failed` for an answer that is none. */
export async function stateOf(
  work: Work,
  signal: AbortSignal,
): Promise<{ readonly task: Task; readonly outcome: Outcome & { kind: "result" } } | (Outcome & { kind: "error" })> {
  const outcome = await askFor(work, "tasks/get", signal);
  if (outcome.kind === "error") return outcome;
  const task = readTask(outcome);
  if (task === undefined || task.id !== work.name)
    throw new DrawbridgeError("upstream_failed", "The server did not say how its task is.", {
      detail: outcome.result.slice(0, 300),
    });
  return { task, outcome };
}

/** What came of a task that is over. */
export async function resultOf(work: Work, task: Task, outcome: Outcome, signal: AbortSignal): Promise<Outcome> {
  if (work.era === "legacy") return askFor(work, "tasks/result", signal);
  const { result, error } = outcome.kind === "result" ? outcome.value : {};
  if (task.status === "completed" && isObject(result))
    return { kind: "result", result: task.members.get("result") ?? JSON.stringify(result), value: result };
  if (task.status === "failed" && isObject(error)) return errorOf(error, task.members.get("error"));
  if (task.status === "cancelled") return cancelledOutcome();
  throw new DrawbridgeError("upstream_failed", "The server's task ended without a result.");
}

function errorOf({ code, message }: { readonly [key: string]: unknown }, text = "{}"): Outcome {
  return {
    kind: "error",
    code: typeof code === "number" && Number.isInteger(code) ? code : -32603,
    message: typeof message === "string" ? message : "The task failed.",
    data: memberTexts(text)?.get("data"),
  };
}

/** What the call of a cancelled task would have been answered. */
export function cancelledOutcome(): Outcome {
  return { kind: "error", code: ERRORS.cancelled.rpc, message: "The task was cancelled.", data: undefined };
}

export interface Waiting {
  /** What the task asks meanwhile is put to its client by `ask`; absent: nothing can be asked. */
  readonly replies: Replies;
  readonly signal: AbortSignal;
  /** In milliseconds since the epoch; the time that the client takes to answer is added. */
  readonly until: number;
  readonly clock?: Clock;
}

/** Waits until the task is over and fetches what came of it. Throws `upstream_timeout` when that takes too long. */
export async function finish(work: Work, { replies, signal, until, clock = systemClock }: Waiting): Promise<Outcome> {
  const answered = new Set<string>();
  let end = until;
  for (;;) {
    const state = await stateOf(work, signal);
    if ("kind" in state) return state;
    const { task, outcome } = state;
    if (isOver(task)) return resultOf(work, task, outcome, signal);
    if (task.status === "input_required") {
      const began = clock();
      const early = await answerQuestions(work, outcome, replies, signal, answered);
      if (early !== undefined) return early;
      end += clock() - began;
    }
    if (clock() > end) throw new DrawbridgeError("upstream_timeout", "The server's task took too long.");
    await pause(task.pollMs, signal);
  }
}

async function pause(pollMs: number | undefined, signal: AbortSignal): Promise<void> {
  try {
    await sleep(Math.max(MIN_POLL_MS, Math.min(pollMs ?? POLL_MS, MAX_POLL_MS)), undefined, { signal });
  } catch {
    throw new DrawbridgeError("cancelled", "The call was cancelled.");
  }
}

/** Puts what the task asks to its client. Returns the result of the task when it came along with that. */
async function answerQuestions(
  work: Work,
  outcome: Outcome & { kind: "result" },
  replies: Replies,
  signal: AbortSignal,
  answered: Set<string>,
): Promise<Outcome | undefined> {
  const ask = replies.ask?.bind(replies);
  if (work.era === "legacy") {
    // Its questions come while somebody waits for the result (2025-11-25, Tasks, Input Required Status).
    const own: Replies = {
      ...SILENT,
      ...(ask !== undefined && { ask: (question, withdrawn) => ask(questionOfTask(question, work.id), withdrawn) }),
    };
    try {
      return await askFor(work, "tasks/result", signal, { replies: own });
    } catch (thrown) {
      if (thrown instanceof DrawbridgeError && thrown.code === "upstream_timeout") return undefined;
      throw thrown;
    }
  }
  const responses = new Map<string, string>();
  for (const [key, question] of questionsOf(outcome)) {
    if (answered.has(key)) continue;
    if (ask === undefined) throw unaskable(question);
    const answer = await ask(questionOfTask(question, work.id), signal);
    const response = inputResponse(question, answer);
    if (response === undefined) throw unaskable(question);
    responses.set(key, response);
    answered.add(key);
  }
  if (responses.size > 0)
    await askFor(work, "tasks/update", signal, { more: [["inputResponses", objectText(responses)]] });
  return undefined;
}

/** `inputRequests` of a task's state (the extension, Task Update Requests). */
function questionsOf({ result, value }: Outcome & { kind: "result" }): ReadonlyMap<string, Question> {
  const { inputRequests } = value;
  if (!isObject(inputRequests) || Object.keys(inputRequests).length === 0) return new Map();
  const asked: Outcome = { kind: "result", result, value: { ...value, resultType: "input_required" } };
  return readInputRequired(asked)?.requests ?? new Map();
}

function unaskable({ method }: Question): DrawbridgeError {
  return new DrawbridgeError(
    "upstream_failed",
    `The server's task needs ${method} of its client, which did not answer.`,
  );
}

/** Tells the server that nobody wants the task any more. Never rejects. */
export async function abandon(work: Work): Promise<void> {
  await askFor(work, "tasks/cancel", AbortSignal.timeout(CANCEL_MS)).catch(() => {});
}

/** Nobody hears what is said, and nobody is asked; but the call goes the way of those that can be asked, as the one before it did. */
const SILENT: Replies = {
  notify() {},
  ask: () =>
    Promise.resolve({ kind: "error", code: -32601, message: "Nobody can be asked now.", data: undefined } as const),
};

/**
 * What a task of a server with a handshake asks, for a client of 2026-07-28 that fetches the questions and brings the answers: the
 * result is waited for here, in one process.
 */
export class TaskDialogue {
  readonly #open = new Map<
    string,
    { readonly question: Question; readonly answer: (answer: QuestionAnswer) => void }
  >();
  readonly #used = new Set<string>();
  readonly #stop = new AbortController();
  #arrived = Promise.withResolvers<void>();
  /** What came of the task; undefined while that is not known. */
  outcome: Outcome | undefined;
  over = false;

  constructor(work: Work) {
    const replies: Replies = { ...SILENT, ask: (question, withdrawn) => this.#asked(question, withdrawn) };
    askFor(work, "tasks/result", this.#stop.signal, { replies })
      .then(
        (outcome) => {
          this.outcome = outcome;
        },
        () => {}, // It took too long, or its process ended; whoever asks for the state next is told.
      )
      .finally(() => {
        this.over = true;
        this.#open.clear();
        this.#arrived.resolve();
      });
  }

  /** Waits for the first question, for a moment. */
  async questions(): Promise<ReadonlyMap<string, Question>> {
    if (this.#open.size === 0 && !this.over) await Promise.race([this.#arrived.promise, sleep(ARRIVES_MS)]);
    return new Map([...this.#open].map(([key, { question }]) => [key, question]));
  }

  /** Hands an answer to the server; false when nothing of that name is asked. */
  reply(key: string, answer: QuestionAnswer): boolean {
    const open = this.#open.get(key);
    this.#open.delete(key);
    open?.answer(answer);
    return open !== undefined;
  }

  question(key: string): Question | undefined {
    return this.#open.get(key)?.question;
  }

  close(): void {
    this.#stop.abort();
  }

  #asked(asked: Question, withdrawn: AbortSignal): Promise<QuestionAnswer> {
    const question = modernQuestion(questionOfTask(asked, undefined));
    if (this.#open.size >= MAX_QUESTIONS)
      return Promise.reject(new DrawbridgeError("overloaded", "Too many questions."));
    const key = keyFor(question, this.#used);
    this.#used.add(key);
    return new Promise((resolve) => {
      this.#open.set(key, { question, answer: resolve });
      withdrawn.addEventListener("abort", () => this.#open.delete(key), { once: true });
      this.#arrived.resolve();
      this.#arrived = Promise.withResolvers();
    });
  }
}

const ARRIVES_MS = 1_000;

/** An error of a server that does not know its task (any more). */
export function isUnknownTask(outcome: Outcome): boolean {
  return outcome.kind === "error" && (outcome.code === -32602 || outcome.code === taskGone().rpc);
}
