/**
 * Outcome tools: several calls of servers as one tool, all of it or nothing. A contract's steps are made ready when it is loaded
 * (steps.ts), and carried out with each call (carry-out.ts).
 */
import type { JsonObject } from "../core/call.ts";
import { carryOut, type Finished, type Given, type Hands, type RunOptions } from "./carry-out.ts";
import { type Narrowing, type NarrowProblem, narrowInput } from "./narrow.ts";
import type { InputRule, ToolContractSettings } from "./settings.ts";
import { type ComposeOptions, type ComposeProblem, type Prepared, prepareSteps } from "./steps.ts";

export interface Composition {
  /** What an operator should know and may have meant. */
  readonly warnings: readonly string[];
  /** Whether any step does more than read. */
  readonly changes: boolean;
  /** Carries the steps out. Never rejects: what went wrong is in what it resolves with, when everything that could be is undone. */
  run(input: Given, hands: Hands, options: RunOptions): Promise<Finished>;
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

/** Compiles the steps of a contract against the servers' definitions, or says everything that stands against them. */
export async function compose(
  settings: Pick<ToolContractSettings, "steps" | "result" | "input" | "unproven" | "deadlineSeconds">,
  served: JsonObject,
  options: ComposeOptions,
): Promise<Composition | readonly ComposeProblem[]> {
  const prepared = await prepareSteps(settings, served, options);
  if (!isPrepared(prepared)) return prepared;
  return {
    warnings: prepared.warnings,
    changes: prepared.steps.some(({ changes }) => changes),
    run: (input, hands, run) => carryOut(prepared, input, hands, run, settings.deadlineSeconds * 1000),
  };
}

const isPrepared = (made: Prepared | readonly ComposeProblem[]): made is Prepared => !Array.isArray(made);
