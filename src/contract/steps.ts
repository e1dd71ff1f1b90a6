/**
 * The steps of an outcome tool, made ready when a contract is loaded: each call against its server's definition, each expression against
 * what is known by then, and the order against what can be undone.
 */
import type { JsonObject, JsonValue } from "../core/call.ts";
import { isSchemaObject } from "./accepts.ts";
import { type ArgumentCheck, compileArguments } from "./arguments.ts";
import {
  type CompileExpression,
  compileTemplate,
  type Expression,
  type ExpressionInput,
  type Scope,
  type Template,
} from "./expressions.ts";
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

export interface Step {
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

export interface PreparedCall {
  readonly server: string;
  readonly tool: string;
  readonly pin: string | undefined;
  readonly annotations: JsonObject;
  readonly check: ArgumentCheck;
  /** Throws an `Error` for the operator. */
  arguments(input: ExpressionInput): JsonObject;
}

/** Steps that may be carried out. */
export interface Prepared {
  readonly steps: readonly Step[];
  /** Undefined: the result of the last step is that of the whole. */
  readonly result: Template | undefined;
  /** What an operator should know and may have meant. */
  readonly warnings: readonly string[];
}

/** Compiles the steps of a contract against the servers' definitions, or says everything that stands against them. */
export async function prepareSteps(
  settings: Pick<ToolContractSettings, "steps" | "result" | "input" | "unproven">,
  served: JsonObject,
  { compile, find }: ComposeOptions,
): Promise<Prepared | readonly ComposeProblem[]> {
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
  return { steps, result, warnings };
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

/** `server/name` as its two parts. */
function sourceOf(source: string): readonly [string, string] {
  const slash = source.indexOf("/");
  return [source.slice(0, slash), source.slice(slash + 1)];
}

const quoted = (text: string) => JSON.stringify(text);
const messageOf = (thrown: unknown) => (thrown instanceof Error ? thrown.message : String(thrown));
