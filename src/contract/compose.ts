/**
 * Outcome tools: several calls of servers as one tool, all of it or nothing. Which step comes next, with which arguments, what has to
 * be undone and what is said when it cannot be is decided here; who calls, writes down and tells the time is passed in.
 */
import type { JsonObject, JsonValue, Outcome } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError, type ErrorCode } from "../core/errors.ts";
import { isSchemaObject } from "./accepts.ts";
import { type ArgumentCheck, compileArguments } from "./arguments.ts";
import { parseExactly, withoutRaw } from "./exact.ts";
import {
  type CompileExpression,
  compileTemplate,
  type Expression,
  type ExpressionInput,
  type Scope,
  type Template,
} from "./expressions.ts";
import { type Narrowing, type NarrowProblem, narrowInput } from "./narrow.ts";
import type { Projected } from "./project.ts";
import type { InputRule, StepSettings, ToolContractSettings } from "./settings.ts";
import { unprovedSubset } from "./subset.ts";

/** A tool of a server that is pinned and not held. */
export interface PinnedTool {
  /** Its definition. */
  readonly value: JsonObject;
  readonly pin: string | undefined;
}

export interface ComposeOptions {
  readonly compile: CompileExpression;
  /** Undefined for a tool that is not there, or is held. */
  readonly find: (server: string, tool: string) => PinnedTool | undefined;
}

/** Why the steps cannot be used: one sentence, with its place below the contract, e.g. `["steps", "1", "with", "amount"]`. */
export interface ComposeProblem {
  readonly path: readonly string[];
  readonly message: string;
}

export interface Composition {
  /** What an operator should know and may have meant. */
  readonly warnings: readonly string[];
  /** Whether any step does more than read. */
  readonly changes: boolean;
  /** Carries the steps out. Never rejects: what went wrong is in what it resolves with, when everything that could be is undone. */
  run(input: Given, hands: Hands, options: RunOptions): Promise<Finished>;
}

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

/**
 * What clients may send to a tool with steps: the rules of its contract alone, since no server has a say. Each argument is required that
 * is not `required: false` and has no default.
 */
export async function composedInput(
  settings: Pick<ToolContractSettings, "input" | "maxDepth" | "maxBytes">,
): Promise<Narrowing | readonly NarrowProblem[]> {
  const rules = Object.entries(settings.input ?? {}).map(([name, rule]): [string, InputRule] => [
    name,
    { ...rule, required: rule.required ?? rule.default === undefined },
  ]);
  const { maxDepth, maxBytes } = settings;
  return narrowInput({ type: "object" }, Object.fromEntries(rules), { maxDepth, maxBytes, unproven: false });
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

/** Compiles the steps of a contract against the servers' definitions, or says everything that stands against them. */
export async function compose(
  settings: Pick<ToolContractSettings, "steps" | "result" | "input" | "unproven" | "deadlineSeconds">,
  served: JsonObject,
  { compile, find }: ComposeOptions,
): Promise<Composition | readonly ComposeProblem[]> {
  const problems: ComposeProblem[] = [];
  const written = settings.steps ?? [];
  const args = argumentsIn(settings.input ?? {}, served);
  const before: string[] = [];
  const steps: Step[] = [];
  for (const [at, step] of written.entries()) {
    const path = ["steps", String(at)];
    const say = (more: readonly string[], message: string) => problems.push({ path: [...path, ...more], message });
    if (before.includes(step.id)) say(["id"], `${quoted(step.id)} is there twice`);
    const scope: Scope = { args: [...args.keys()], steps: [...before] };
    const own: Scope = { ...scope, steps: [...before, step.id] };
    const compiling = { args, compile, find, unproven: settings.unproven === "accept", say };
    const call = await preparedCall(step, [], scope, compiling);
    const undo = step.undo === undefined ? undefined : await preparedCall(step.undo, ["undo"], own, compiling);
    const when = step.when === undefined ? undefined : condition(step.when, "when", scope, compile, say);
    const expect = step.expect === undefined ? undefined : condition(step.expect, "expect", own, compile, say);
    if (call !== undefined) {
      const contrary = step.access === "read" ? saysItChanges(call.annotations) : undefined;
      if (contrary !== undefined) say(["access"], `is \`read\`, but its server says that it ${contrary}`);
      const changes = step.access === undefined ? call.annotations["readOnlyHint"] !== true : step.access === "write";
      const needsAnswer = step.undo !== undefined && needs(step.undo.with, scope, compile);
      steps.push({ id: step.id, call, undo, when, expect, changes, needsAnswer, choice: choiceOf(step.when) });
    }
    before.push(step.id);
  }
  const scope: Scope = { args: [...args.keys()], steps: before };
  let result: Template | undefined;
  try {
    result = settings.result === undefined ? undefined : compileTemplate(settings.result, scope, compile);
  } catch (thrown) {
    problems.push({ path: ["result"], message: messageOf(thrown) });
  }
  const order = orderOf(steps);
  if (settings.unproven !== "accept") problems.push(...order.problems);
  if (problems.length > 0) return problems;
  const warnings = [...order.warnings, ...(settings.unproven === "accept" ? order.problems.map(said) : [])];
  return {
    warnings,
    changes: steps.some(({ changes }) => changes),
    run: (input, hands, options) =>
      new Run(steps, result, input, hands, options, settings.deadlineSeconds * 1000).finish(),
  };
}

/** What of the steps can be checked without the servers: names and expressions. */
export function stepProblems(
  settings: Pick<ToolContractSettings, "steps" | "result" | "input">,
  compile: CompileExpression,
): readonly ComposeProblem[] {
  const problems: ComposeProblem[] = [];
  const args = argumentNames(settings.input ?? {}).map(([name]) => name);
  const before: string[] = [];
  const attempt = (path: readonly string[], work: () => unknown) => {
    try {
      work();
    } catch (thrown) {
      problems.push({ path, message: messageOf(thrown) });
    }
  };
  for (const [at, step] of (settings.steps ?? []).entries()) {
    const path = ["steps", String(at)];
    const scope: Scope = { args, steps: [...before] };
    const own: Scope = { args, steps: [...before, step.id] };
    if (before.includes(step.id))
      problems.push({ path: [...path, "id"], message: `${quoted(step.id)} is there twice` });
    for (const [name, value] of Object.entries(step.with))
      attempt([...path, "with", name], () => compileTemplate(value, scope, compile));
    for (const [name, value] of Object.entries(step.undo?.with ?? {}))
      attempt([...path, "undo", "with", name], () => compileTemplate(value, own, compile));
    const { when, expect } = step;
    if (when !== undefined) attempt([...path, "when"], () => conditionOf(when, scope, compile));
    if (expect !== undefined) attempt([...path, "expect"], () => conditionOf(expect, own, compile));
    before.push(step.id);
  }
  const { result } = settings;
  if (result !== undefined) attempt(["result"], () => compileTemplate(result, { args, steps: before }, compile));
  return problems;
}

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

// ---- compiling ----

interface Step {
  readonly id: string;
  readonly call: PreparedCall;
  readonly undo: PreparedCall | undefined;
  readonly when: Expression | undefined;
  readonly expect: Expression | undefined;
  readonly changes: boolean;
  /** Its undo names its own result. */
  readonly needsAnswer: boolean;
  /** The argument and the value of it that the step is done for. */
  readonly choice: Choice | undefined;
}

interface Choice {
  readonly argument: string;
  readonly value: string;
}

interface PreparedCall {
  readonly server: string;
  readonly tool: string;
  readonly pin: string | undefined;
  readonly annotations: JsonObject;
  readonly check: ArgumentCheck;
  /** Throws an `Error` for the operator. */
  arguments(input: ExpressionInput): JsonObject;
}

interface Compiling {
  readonly args: ReadonlyMap<string, Argument>;
  readonly compile: CompileExpression;
  readonly find: ComposeOptions["find"];
  readonly unproven: boolean;
  say(path: readonly string[], message: string): void;
}

/** An argument as expressions see it. */
interface Argument {
  /** Undefined: it is not known before the call. */
  readonly schema: JsonValue | undefined;
  /** Whether it is always there. */
  readonly certain: boolean;
}

function argumentNames(rules: Readonly<Record<string, InputRule>>): readonly (readonly [string, string, InputRule])[] {
  return Object.entries(rules)
    .filter(([, { hidden, default: value }]) => hidden !== true || value !== undefined)
    .map(([name, rule]) => [rule.as ?? name, name, rule]);
}

function argumentsIn(rules: Readonly<Record<string, InputRule>>, served: JsonObject): ReadonlyMap<string, Argument> {
  const properties = (served["properties"] ?? {}) as JsonObject;
  const required = Array.isArray(served["required"]) ? served["required"] : [];
  return new Map(
    argumentNames(rules).map(([to, name, { fixed, bind, hidden, default: otherwise }]) => {
      const constant = fixed ?? (hidden === true ? otherwise : undefined);
      if (constant !== undefined) return [to, { schema: { const: constant }, certain: true }];
      if (bind !== undefined) return [to, { schema: undefined, certain: true }];
      const certain = required.includes(name) || otherwise !== undefined;
      return [to, { schema: properties[name] as JsonValue | undefined, certain }];
    }),
  );
}

async function preparedCall(
  { call, with: written }: Pick<StepSettings, "call" | "with">,
  path: readonly string[],
  scope: Scope,
  { args, compile, find, unproven, say }: Compiling,
): Promise<PreparedCall | undefined> {
  const [server, tool] = sourceOf(call);
  const found = find(server, tool);
  if (found === undefined) {
    say([...path, "call"], `${quoted(call)} is not there, or its definition is held`);
    return undefined;
  }
  const values = new Map<string, Template>();
  for (const [name, value] of Object.entries(written)) {
    try {
      values.set(name, compileTemplate(value, scope, compile));
    } catch (thrown) {
      say([...path, "with", name], messageOf(thrown));
      return undefined;
    }
  }
  const schema = isSchemaObject(found.value["inputSchema"]) ? found.value["inputSchema"] : {};
  if (!unproven) for (const { at, message } of misfits(values, args, schema)) say([...path, ...at], message);
  const { check, problem } = await compileArguments(schema);
  if (problem !== undefined && !unproven)
    say(
      [...path, "call"],
      `its arguments cannot be checked: ${problem}. Write \`unproven: accept\` to send them all the same`,
    );
  const annotations = isSchemaObject(found.value["annotations"]) ? found.value["annotations"] : {};
  return {
    server,
    tool,
    pin: found.pin,
    annotations,
    check,
    arguments(input) {
      const result: Record<string, JsonValue> = {};
      for (const [name, { evaluate }] of values) {
        let value: JsonValue | undefined;
        try {
          value = evaluate(input);
        } catch (thrown) {
          throw new Error(`${name}: ${messageOf(thrown)}`, { cause: thrown });
        }
        if (value !== undefined)
          Object.defineProperty(result, name, { value, enumerable: true, writable: true, configurable: true });
      }
      return result;
    },
  };
}

interface Misfit {
  readonly at: readonly string[];
  readonly message: string;
}

/**
 * What the server would refuse, or might: of values that are written there, and of arguments that go on as they came. What is worked
 * out for each call is checked before each call.
 */
function misfits(
  values: ReadonlyMap<string, Template>,
  args: ReadonlyMap<string, Argument>,
  schema: JsonObject,
): readonly Misfit[] {
  const found: Misfit[] = [];
  const properties = isSchemaObject(schema["properties"]) ? schema["properties"] : {};
  const plainly = schema["$ref"] === undefined && schema["allOf"] === undefined;
  const given: Record<string, JsonValue> = {};
  const always: string[] = [];
  let computed = false;
  for (const [name, { known }] of values) {
    const own = Object.hasOwn(properties, name) ? (properties[name] as JsonValue) : undefined;
    if (own === undefined && plainly && schema["additionalProperties"] === false) {
      found.push({ at: ["with", name], message: `the server has no argument ${quoted(name)}` });
      continue;
    }
    const argument = known.kind === "argument" ? args.get(known.name) : undefined;
    const narrow = known.kind === "constant" ? { const: known.value } : argument?.schema;
    if (argument?.certain !== false) always.push(name);
    computed ||= narrow === undefined;
    given[name] = narrow ?? own ?? true;
    if (narrow === undefined || own === undefined) continue;
    const definitions = definitionsOf(schema);
    const one = (value: JsonValue): JsonObject => ({ type: "object", properties: { [name]: value }, ...definitions });
    const unproved = unprovedSubset(one(narrow), one(own));
    if (unproved === undefined) continue;
    const what = known.kind === "constant" ? "the server refuses it" : "the server may refuse what clients may send";
    found.push({ at: ["with", name], message: `${what}: ${unproved.reason}` });
  }
  const required = Array.isArray(schema["required"]) ? schema["required"].map(String) : [];
  for (const name of required) {
    if (always.includes(name)) continue;
    const optional = values.has(name);
    found.push({
      at: optional ? ["with", name] : ["with"],
      message: optional
        ? `the server needs ${quoted(name)}, and clients may leave it out`
        : `the server needs ${quoted(name)}`,
    });
  }
  // Where nothing is left to the call, neither is the proof.
  if (found.length > 0 || computed) return found;
  const unproved = unprovedSubset(
    { type: "object", properties: given, required: always, additionalProperties: false, ...definitionsOf(schema) },
    schema,
  );
  return unproved === undefined ? [] : [{ at: ["with"], message: `the server may refuse it: ${unproved.reason}` }];
}

function definitionsOf({ $defs, definitions }: JsonObject): JsonObject {
  return { ...($defs !== undefined && { $defs }), ...(definitions !== undefined && { definitions }) };
}

/** Whether values cannot be worked out from this alone. */
function needs(values: Readonly<Record<string, JsonValue>>, scope: Scope, compile: CompileExpression): boolean {
  try {
    for (const value of Object.values(values)) compileTemplate(value, scope, compile);
    return false;
  } catch {
    return true;
  }
}

function condition(
  text: string,
  name: "when" | "expect",
  scope: Scope,
  compile: CompileExpression,
  say: Compiling["say"],
): Expression | undefined {
  try {
    return conditionOf(text, scope, compile);
  } catch (thrown) {
    say([name], messageOf(thrown));
    return undefined;
  }
}

function conditionOf(text: string, scope: Scope, compile: CompileExpression): Expression {
  const compiled = compile(text, scope);
  if (compiled.type === "bool" || compiled.type === "dyn") return compiled;
  throw new Error(`must be true or false, and is of type ${compiled.type}`);
}

/** `args.decision == "approve"` and nothing else. */
function choiceOf(when: string | undefined): Choice | undefined {
  const [, argument, value] = /^\s*args\.([A-Za-z_]\w*)\s*==\s*("[^"\\]*"|'[^'\\]*')\s*$/.exec(when ?? "") ?? [];
  return argument === undefined || value === undefined ? undefined : { argument, value: value.slice(1, -1) };
}

/** One call does the one step or the other. */
const exclusive = ({ choice: one }: Step, { choice: other }: Step) =>
  one !== undefined && one.argument === other?.argument && one.value !== other.value;

/** What cannot be undone comes last, so that nothing which comes after it can fail. */
function orderOf(steps: readonly Step[]): {
  readonly problems: readonly ComposeProblem[];
  readonly warnings: readonly string[];
} {
  const problems: ComposeProblem[] = [];
  const warnings: string[] = [];
  for (const [at, step] of steps.entries()) {
    const { id, changes, undo: undoing, expect } = step;
    if (step.needsAnswer)
      warnings.push(
        `the undo of ${quoted(step.id)} needs its result, so it cannot be undone when its answer is lost: undo it by something that it was given, such as an argument or \`=run.id\`, where its server can`,
      );
    if (!changes || undoing !== undefined) continue;
    const after = steps.slice(at + 1).filter((other) => !exclusive(step, other));
    if (after.some((other) => other.changes))
      problems.push({
        path: ["steps", String(at)],
        message: `${quoted(id)} changes something and cannot be undone, so it must come after every other step that does; say how it is undone (\`undo\`), or that it only reads (\`access: read\`)`,
      });
    else if (expect !== undefined || after.length > 0)
      warnings.push(
        `${quoted(id)} cannot be undone and ${expect !== undefined ? "something is expected of its result" : "more steps come after it"}: it stays done when that fails`,
      );
  }
  return { problems, warnings };
}

function saysItChanges(annotations: JsonObject): string | undefined {
  if (annotations["readOnlyHint"] === false) return "does more than read";
  return annotations["readOnlyHint"] !== true && annotations["destructiveHint"] === true ? "may destroy" : undefined;
}

const said = ({ path, message }: ComposeProblem) => `${path.join(".")}: ${message}`;

// ---- running ----

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
    steps: readonly Step[],
    result: Template | undefined,
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
  const what = step === undefined ? `${name} failed` : `${name} failed at its step ${quoted(step)}`;
  const parts = [`${what}, because ${reason}${words === undefined || words === "" ? "." : `: ${words}`}`];
  const unfinished = [...left.map((entry) => entry.step)];
  const list = (names: readonly string[]) => names.map(quoted).join(", ");
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

/** `server/name` as its two parts. */
function sourceOf(source: string): readonly [string, string] {
  const slash = source.indexOf("/");
  return [source.slice(0, slash), source.slice(slash + 1)];
}

const quoted = (text: string) => JSON.stringify(text);
const messageOf = (thrown: unknown) => (thrown instanceof Error ? thrown.message : String(thrown));
