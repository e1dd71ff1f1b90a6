/**
 * Carries out the steps of an outcome tool: one after the other, and when one fails back again. Who calls, writes down and tells the time
 * is passed in.
 */
import type { JsonObject, JsonValue, Outcome } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError, type ErrorCode } from "../core/errors.ts";
import { isSchemaObject } from "./accepts.ts";
import { parseExactly, withoutRaw } from "./exact.ts";
import type { Expression, ExpressionInput, Template } from "./expressions.ts";
import type { Projected } from "./project.ts";
import type { Prepared, PreparedCall, Step } from "./steps.ts";

/** Who calls, with what. */
export type Given = Pick<ExpressionInput, "args" | "principal">;

/** One call that a composition wants made. */
export interface Deed {
  /** The step's id. */
  readonly step: string;
  readonly server: string;
  readonly tool: string;
  /** Of the definition that the arguments were checked against. */
  readonly pin: string | undefined;
  readonly arguments: JsonObject;
  /** The same whenever the same call is made again, for servers that know what to do with it. */
  readonly key: string;
  readonly undoes: boolean;
}

/** What has been begun and may have to be undone, in the order in which it was begun. Plain JSON: it outlives the process. */
export type Plan = readonly PlanEntry[];
export interface PlanEntry {
  readonly step: string;
  readonly server: string;
  readonly tool: string;
  /** `begun`: it was sent, or is about to be, and nobody knows what came of it. */
  readonly state: "begun" | "done";
  /** Undefined when the step cannot be undone, or not without an answer that never came. */
  readonly undo: Deed | undefined;
}

/** Who does what a composition wants done. */
export interface Hands {
  /** Makes one call. Rejects when there is no outcome; with one of the codes that mean so, nothing was sent. */
  call(deed: Deed, signal: AbortSignal): Promise<Outcome>;
  /** Writes down what would have to be undone if this process were gone. Nothing is sent that was not written down. */
  keep(plan: Plan): Promise<void>;
  /** All is done: what was kept is forgotten for good, before anybody is told of the success. */
  commit(): Promise<void>;
  /** The answer of the result. When it is withheld the whole has failed. */
  shape(result: JsonValue): Projected;
  /** What of a failed call's answer clients may see. */
  told(outcome: Outcome): string | undefined;
  /** `step` begins, as one of `of`; `at` counts from 0. */
  progress(at: number, of: number, step: string): void;
}

export interface RunOptions {
  /** What clients call the tool, for sentences. */
  readonly name: string;
  /** Names this run; keys of its calls begin with it. */
  readonly run: string;
  /** The client does not want it any more. What has been sent is waited for, and then undone. */
  readonly signal: AbortSignal;
  /** Nothing can be undone any more, here. */
  readonly stop?: AbortSignal;
  readonly clock?: Clock;
  readonly pauses?: readonly number[];
}

/** What became of one call, for the record. */
export interface StepReport {
  readonly step: string;
  readonly server: string;
  readonly tool: string;
  readonly pin: string | undefined;
  readonly undoes: boolean;
  /** `unknown`: it was sent, and there is no telling whether it was done. */
  readonly outcome: "done" | "skipped" | "failed" | "unknown";
  readonly durationMs: number;
  readonly arguments: JsonObject | undefined;
  /** Of an undo: how often it was tried. */
  readonly attempts: number | undefined;
  /** For the operator. */
  readonly detail: string | undefined;
}

export type Finished =
  | { readonly kind: "done"; readonly projected: Projected; readonly steps: readonly StepReport[] }
  | {
      readonly kind: "failed";
      /** For the client, without a word of any server. */
      readonly message: string;
      /** For the operator. */
      readonly detail: string;
      /** What the failed call was rejected with. */
      readonly thrown: unknown;
      readonly steps: readonly StepReport[];
      readonly undone: Undone;
    };

/** What is left of a run that failed, as steps. */
export interface Undone {
  readonly undone: readonly string[];
  /** Should have been undone and could not be. */
  readonly left: Plan;
  /** Done, and there was no undo. */
  readonly stays: readonly string[];
  /** There is no telling whether it was done, and it was not undone. */
  readonly unsure: readonly string[];
  /** All of the plan that was not undone. What its server would not undo, and may never have done, is not tried again. */
  readonly rest: Plan;
  readonly steps: readonly StepReport[];
}

/** Codes of calls that were never sent. */
const NOT_SENT: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "overloaded",
  "unknown_target",
  "invalid_params",
  "connection_required",
  "unauthenticated",
  "insufficient_scope",
  "outbound_refused",
  "audit_unavailable",
]);
const MAX_ARGUMENTS_BYTES = 1 << 20;
/** Of all results that later steps may use. */
const MAX_RESULTS_LENGTH = 16 << 20;
const UNDO_MS = 60_000;
/** How long to wait before an undo is tried again, and thus how often it is tried. */
const UNDO_PAUSES_MS = [250, 2_000];

/**
 * Undoes what a plan holds, last first. Each call is tried several times within a minute; the rest of the plan is kept after each, so
 * that whoever goes on after a crash repeats one call at most. Never rejects.
 */
export async function undo(
  plan: Plan,
  hands: Pick<Hands, "call" | "keep">,
  { clock = systemClock, pauses = UNDO_PAUSES_MS, stop }: Pick<RunOptions, "clock" | "pauses" | "stop"> = {},
): Promise<Undone> {
  const limit = AbortSignal.any([AbortSignal.timeout(UNDO_MS), ...(stop === undefined ? [] : [stop])]);
  const undone: string[] = [];
  const left: PlanEntry[] = [];
  const stays: string[] = [];
  const unsure: string[] = [];
  const steps: StepReport[] = [];
  let rest: Plan = [];
  for (const [at, entry] of [...plan.entries()].reverse()) {
    const { step, state, undo: deed } = entry;
    if (deed === undefined) {
      if (state === "begun") unsure.unshift(step);
      else stays.unshift(step);
      rest = [entry, ...rest];
      continue;
    }
    const { report, refused } = await persistently(deed, hands, limit, clock, pauses);
    steps.push(report);
    if (report.outcome === "done") undone.push(step);
    else if (state === "begun") unsure.unshift(step);
    else left.unshift(entry);
    if (report.outcome !== "done")
      rest = [state === "begun" && refused ? { ...entry, undo: undefined } : entry, ...rest];
    // Should this fail, an undo is at worst repeated.
    if (at > 0) await hands.keep([...plan.slice(0, at), ...rest]).catch(() => {});
  }
  return { undone, left, stays, unsure, rest, steps };
}

/** Why a run cannot go on. */
interface Failure {
  /** Undefined when it is about none. */
  readonly step: string | undefined;
  /** Goes after "because". */
  readonly reason: string;
  readonly detail: string;
  readonly thrown?: unknown;
  readonly said?: string | undefined;
}

/** Carries the steps out. Never rejects: what went wrong is in what it resolves with, when everything that could be is undone. */
export function carryOut(
  prepared: Prepared,
  input: Given,
  hands: Hands,
  options: RunOptions,
  deadlineMs: number,
): Promise<Finished> {
  return new Run(prepared, input, hands, options, deadlineMs).finish();
}

class Run {
  readonly #steps: readonly Step[];
  readonly #result: Template | undefined;
  readonly #input: Given;
  readonly #hands: Hands;
  readonly #options: RunOptions;
  readonly #clock: Clock;
  readonly #limit: AbortSignal;
  /** Whether anything can be undone at all, and so has to be written down. */
  readonly #undoable: boolean;
  readonly #results: Record<string, JsonValue> = {};
  readonly #reports: StepReport[] = [];
  readonly #plan: PlanEntry[] = [];
  #kept = false;
  #last: JsonValue = null;

  constructor(
    { steps, result }: Pick<Prepared, "steps" | "result">,
    input: Given,
    hands: Hands,
    options: RunOptions,
    deadlineMs: number,
  ) {
    this.#steps = steps;
    this.#result = result;
    this.#input = input;
    this.#hands = hands;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#limit = AbortSignal.timeout(deadlineMs);
    this.#undoable = steps.some((step) => step.undo !== undefined);
  }

  async finish(): Promise<Finished> {
    const ended = await this.#forward();
    if ("result" in ended) return { kind: "done", projected: ended, steps: this.#reports };
    const undone = await undo(this.#plan, this.#hands, this.#options);
    return {
      kind: "failed",
      message: sentences(this.#options.name, ended, undone),
      detail: ended.detail,
      thrown: ended.thrown,
      steps: [...this.#reports, ...undone.steps],
      undone,
    };
  }

  async #forward(): Promise<Projected | Failure> {
    for (const [at, step] of this.#steps.entries()) {
      const ended = this.#ended(step.id);
      if (ended !== undefined) return ended;
      this.#hands.progress(at, this.#steps.length, step.id);
      const failure = await this.#step(step);
      if (failure !== undefined) return failure;
    }
    let projected: Projected;
    try {
      const value = this.#result === undefined ? this.#last : (this.#result.evaluate(this.#scope) ?? null);
      projected = this.#hands.shape(value);
    } catch (thrown) {
      return { step: undefined, reason: "its result could not be made", detail: messageOf(thrown) };
    }
    const { withheld } = projected;
    if (withheld !== undefined)
      return { step: undefined, reason: "its result is not of the form that was agreed on", detail: withheld };
    if (!this.#kept) return projected;
    try {
      await this.#hands.commit();
      return projected;
    } catch (thrown) {
      return { step: undefined, reason: "its end could not be written down", detail: messageOf(thrown), thrown };
    }
  }

  #seeing(steps: JsonObject): ExpressionInput {
    return { ...this.#input, steps, run: { id: this.#options.run } };
  }
  get #scope(): ExpressionInput {
    return this.#seeing(this.#results);
  }

  /** Undefined while there is reason to go on. */
  #ended(step: string): Failure | undefined {
    // What is done for good cannot be cancelled any more.
    const final = this.#plan.some(({ undo: deed }) => deed === undefined);
    if (this.#options.signal.aborted && !final)
      return {
        step,
        reason: "the call was cancelled",
        detail: "the client cancelled the call or went away",
        thrown: new DrawbridgeError("cancelled", "The call was cancelled."),
      };
    if (this.#limit.aborted) return { step, reason: "the time was over", detail: "deadlineSeconds was over" };
    return undefined;
  }

  async #step(step: Step): Promise<Failure | undefined> {
    const { id, call, when, expect } = step;
    this.#results[id] = null;
    const fails = (reason: string, detail: string): Failure => ({ step: id, reason, detail });
    const met = when === undefined ? true : held(when, this.#scope);
    if (typeof met === "string") return fails("its condition could not be evaluated", met);
    if (!met) {
      this.#report(step, { outcome: "skipped" });
      return undefined;
    }
    let args: JsonObject;
    try {
      args = call.arguments(this.#scope);
    } catch (thrown) {
      return fails("its arguments could not be made", messageOf(thrown));
    }
    const refused = refusal(call, args);
    if (refused !== undefined) return fails("its server does not take the arguments", refused);
    const deed = this.#deed(step, args);
    if (step.changes) {
      this.#plan.push({ ...this.#entry(step), state: "begun", undo: this.#undoOf(step, undefined).deed });
      try {
        if (this.#undoable) {
          await this.#hands.keep([...this.#plan]);
          this.#kept = true;
        }
      } catch (thrown) {
        this.#plan.pop();
        return fails("what would have to be undone could not be written down", messageOf(thrown));
      }
    }
    const started = this.#clock();
    let outcome: Outcome;
    try {
      // What may change something is waited for, also when nobody waits for us: otherwise nobody would know what to undo.
      const final = this.#plan.some(({ undo: deed }) => deed === undefined);
      const signal = final || step.changes ? this.#limit : AbortSignal.any([this.#options.signal, this.#limit]);
      outcome = await this.#hands.call(deed, signal);
    } catch (thrown) {
      const error = DrawbridgeError.from(thrown, "upstream_failed");
      const sent = step.changes && !NOT_SENT.has(error.code);
      if (step.changes && !sent) this.#plan.pop();
      const detail = error.detail ?? error.message;
      this.#report(step, { outcome: sent ? "unknown" : "failed", started, args, detail });
      return (
        this.#ended(id) ?? { step: id, reason: WHY[error.code] ?? "the call to its server failed", detail, thrown }
      );
    }
    if (outcome.kind === "error" || failed(outcome) !== undefined) {
      const wrong = failed(outcome) ?? "";
      if (step.changes) this.#plan.pop();
      this.#report(step, { outcome: "failed", started, args, detail: wrong });
      return { ...fails("its server reported an error", wrong), said: this.#hands.told(outcome) };
    }
    const result = resultOf(outcome.result);
    this.#results[id] = result;
    this.#last = result;
    this.#report(step, { outcome: "done", started, args });
    if (step.changes) {
      const { deed: undoing, problem } = this.#undoOf(step, result);
      this.#plan[this.#plan.length - 1] = { ...this.#entry(step), state: "done", undo: undoing };
      if (problem !== undefined) return fails("it is not known how it could be undone", problem);
    }
    if (JSON.stringify(this.#results).length > MAX_RESULTS_LENGTH)
      return fails("the results are too large", `more than ${MAX_RESULTS_LENGTH} characters`);
    const fits = expect === undefined ? true : held(expect, this.#scope);
    if (fits === true) return undefined;
    return fails("its result is not what was expected", fits === false ? "expect is false" : fits);
  }

  #entry({ id, call }: Step): Pick<PlanEntry, "step" | "server" | "tool"> {
    return { step: id, server: call.server, tool: call.tool };
  }

  #deed({ id, call }: Step, args: JsonObject): Deed {
    const { server, tool, pin } = call;
    return { step: id, server, tool, pin, arguments: args, key: `${this.#options.run}/${id}`, undoes: false };
  }

  /** The undo of a step. Before its result is there: the undo that does not need it, if it does not. */
  #undoOf({ id, undo: call }: Step, result: JsonValue | undefined): { deed: Deed | undefined; problem?: string } {
    if (call === undefined) return { deed: undefined };
    try {
      const steps: JsonObject = result === undefined ? withoutOwn(this.#results, id) : this.#results;
      const args = call.arguments(this.#seeing(steps));
      const problem = refusal(call, args);
      if (problem !== undefined) return { deed: undefined, problem };
      const { server, tool, pin } = call;
      const key = `${this.#options.run}/${id}/undo`;
      return { deed: { step: id, server, tool, pin, arguments: args, key, undoes: true } };
    } catch (thrown) {
      return { deed: undefined, problem: messageOf(thrown) };
    }
  }

  #report(
    { id, call }: Step,
    of: { outcome: StepReport["outcome"]; started?: number; args?: JsonObject; detail?: string },
  ): void {
    this.#reports.push({
      step: id,
      server: call.server,
      tool: call.tool,
      pin: call.pin,
      undoes: false,
      outcome: of.outcome,
      durationMs: of.started === undefined ? 0 : this.#clock() - of.started,
      arguments: of.args,
      attempts: undefined,
      detail: of.detail,
    });
  }
}

function withoutOwn(results: JsonObject, id: string): JsonObject {
  const { [id]: _own, ...others } = results;
  return others as JsonObject;
}

/** True or false; a sentence for the operator when it is neither. */
function held(expression: Expression, input: ExpressionInput): boolean | string {
  try {
    const value = expression.evaluate(input);
    return typeof value === "boolean" ? value : "it is neither true nor false";
  } catch (thrown) {
    return messageOf(thrown);
  }
}

/** Why a call's arguments are not sent. */
function refusal({ check }: PreparedCall, args: JsonObject): string | undefined {
  if (Buffer.byteLength(JSON.stringify(args)) > MAX_ARGUMENTS_BYTES) return `they exceed ${MAX_ARGUMENTS_BYTES} bytes`;
  return check(withoutRaw(args) as JsonObject)?.join("; ");
}

async function persistently(
  deed: Deed,
  hands: Pick<Hands, "call">,
  limit: AbortSignal,
  clock: Clock,
  pauses: readonly number[],
): Promise<{ readonly report: StepReport; readonly refused: boolean }> {
  const started = clock();
  let detail: string | undefined;
  let attempts = 0;
  let refused = false;
  for (const pause of [0, ...pauses]) {
    if (pause > 0) await passed(pause, limit);
    if (limit.aborted) break;
    attempts++;
    try {
      const outcome = await hands.call(deed, limit);
      detail = failed(outcome);
      refused = detail !== undefined;
    } catch (thrown) {
      const error = DrawbridgeError.from(thrown, "upstream_failed");
      detail = error.detail ?? error.message;
      refused = false;
    }
    if (detail === undefined) break;
  }
  const { step, server, tool, pin, arguments: args } = deed;
  const outcome = attempts > 0 && detail === undefined ? "done" : "failed";
  const report = { step, server, tool, pin, undoes: true, outcome, arguments: args, attempts } as const;
  const why = attempts === 0 ? "the time was over" : detail;
  return { report: { ...report, durationMs: clock() - started, detail: why }, refused };
}

function passed(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  const enough = () => resolve();
  signal.addEventListener("abort", enough, { once: true });
  return promise.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener("abort", enough);
  });
}

/** What an answer says went wrong, for the operator; undefined when nothing did. */
function failed(outcome: Outcome): string | undefined {
  if (outcome.kind === "error") return `error ${outcome.code}: ${outcome.message.slice(0, 500)}`;
  if (outcome.value["isError"] !== true) return undefined;
  return `the tool reported an error: ${textsOf(outcome.value).join("\n").slice(0, 500)}`;
}

/** What expressions see of an answer: its structured content, else the JSON that is its text (of several texts a list), else `{ text }`. */
export function resultOf(result: string): JsonValue {
  const answer = parseExactly(result) as JsonObject;
  if (answer["structuredContent"] !== undefined) return answer["structuredContent"];
  const texts = textsOf(answer);
  try {
    const documents = texts.map((text) => parseExactly(text));
    if (documents[0] !== undefined) return documents.length === 1 ? documents[0] : documents;
  } catch {
    // It is not JSON.
  }
  return { text: texts.join("\n") };
}

function textsOf(answer: JsonObject): readonly string[] {
  const content = Array.isArray(answer["content"]) ? answer["content"] : [];
  return content.flatMap((block: unknown) =>
    isSchemaObject(block) && block["type"] === "text" && typeof block["text"] === "string" ? [block["text"]] : [],
  );
}

const WHY: { readonly [Code in ErrorCode]?: string } = {
  unknown_target: "what it calls has changed or is gone",
  upstream_timeout: "its server did not answer in time",
  upstream_unavailable: "its server is not available",
  overloaded: "its server is not available",
  answer_too_large: "its server answered more than is taken",
  connection_required: "its server needs a connection of yours first",
};

function sentences(
  name: string,
  { step, reason, said: words }: Failure,
  { undone, left, stays, unsure }: Undone,
): string {
  const what = step === undefined ? `${name} failed` : `${name} failed at its step ${JSON.stringify(step)}`;
  const parts = [`${what}, because ${reason}${words === undefined || words === "" ? "." : `: ${words}`}`];
  const unfinished = [...left.map((entry) => entry.step)];
  const list = (names: readonly string[]) => names.map((name) => JSON.stringify(name)).join(", ");
  if (undone.length > 0) parts.push(`${list([...undone].reverse())} had been done and was undone.`);
  if (unfinished.length > 0)
    parts.push(
      `${list(unfinished)} had been done and could NOT be undone so far. The gateway goes on trying for a while.`,
    );
  if (stays.length > 0) parts.push(`${list(stays)} was done and stays done.`);
  if (unsure.length > 0) parts.push(`Whether ${list(unsure)} was done is not known.`);
  if (undone.length + unfinished.length + stays.length + unsure.length === 0) parts.push("Nothing was changed.");
  return parts.join(" ");
}

const messageOf = (thrown: unknown) => (thrown instanceof Error ? thrown.message : String(thrown));
