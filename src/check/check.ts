/** Judges the definitions of servers before anybody serves them: offline, from what they say of themselves. */
import type { JsonObject } from "../core/call.ts";
import type { Finding, Verdict } from "../inspect/finding.ts";
import { inspectDefinition } from "../inspect/inspect.ts";
import type { Target } from "./targets.ts";

export interface CheckedTool {
  /** In the order of the list that was read. */
  readonly index: number;
  readonly name: string;
  readonly verdict: Verdict;
  readonly findings: readonly Finding[];
}

export interface Report {
  readonly tools: readonly CheckedTool[];
}

export interface CheckOptions {
  /** Judges each tool as if it stood alone: nothing is compared. */
  readonly isolate?: boolean;
}

/** After so long, other work of the process gets its turn. */
const TURN_MS = 20;

/** Judges every tool of a target, in its order. Lets other work in between tools. */
export async function check(target: Target, { isolate = false }: CheckOptions = {}): Promise<Report> {
  const named = target.tools.map((value) => ({ name: nameOf(value), server: target.server, value }));
  const tools: CheckedTool[] = [];
  let turn = performance.now();
  for (const [index, { name, value }] of named.entries()) {
    const neighbours = isolate ? [] : named.filter((_, other) => other !== index);
    tools.push({ index, name, ...inspectDefinition("tool", value, { server: target.server, neighbours }) });
    if (performance.now() - turn < TURN_MS) continue;
    await new Promise<void>((resolve) => setImmediate(resolve));
    turn = performance.now();
  }
  return { tools };
}

/** The gravest verdict of a report. */
export function worst({ tools }: Report): Verdict {
  const has = (verdict: Verdict) => tools.some((tool) => tool.verdict === verdict);
  return has("block") ? "block" : has("review") ? "review" : "clean";
}

function nameOf({ name }: JsonObject): string {
  return typeof name === "string" ? name : "";
}
