/** Patterns of roles: `*`, a glob over tool names, or `tool:`, `resource:`, `prompt:` and a glob. */
import type { Target, TargetKind } from "../core/call.ts";
import { compileGlob } from "../core/glob.ts";

export type Matcher = (target: Pick<Target, "kind" | "name">) => boolean;

const KINDS: readonly TargetKind[] = ["tool", "resource", "prompt"];

/** Compiles one pattern. Globs are matched in linear time, whatever they look like. */
export function compilePattern(pattern: string): Matcher {
  if (pattern === "*") return () => true;
  const colon = pattern.indexOf(":");
  const prefix = KINDS.find((kind) => kind === pattern.slice(0, Math.max(0, colon)));
  const kind = prefix ?? "tool";
  const matches = compileGlob(prefix === undefined ? pattern : pattern.slice(colon + 1));
  return (target) => target.kind === kind && matches(target.name);
}
