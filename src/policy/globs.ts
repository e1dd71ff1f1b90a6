/** Patterns of roles: `*`, a glob over names of tools, resources or prompts, or a class of tools by what they do. */
import { type Access, EFFECTS, type Effect, type Target, type TargetKind } from "../core/call.ts";
import { compileGlob } from "../core/glob.ts";
import { compileUriGlob } from "./spellings.ts";

/** What a pattern is about. */
export type Pattern =
  | { readonly about: "everything" }
  | { readonly about: "names"; readonly kind: TargetKind; readonly glob: string }
  /** Tools that do at most that, or, to forbid them, at least that. */
  | { readonly about: "effect"; readonly effect: Effect }
  | { readonly about: "open-world" };

export type Matcher = (target: Pick<Target, "kind" | "name" | "access" | "template">) => boolean;

const KINDS: readonly TargetKind[] = ["tool", "resource", "prompt"];

/** Reads one pattern. Throws an `Error` for a class that does not exist. */
export function readPattern(pattern: string): Pattern {
  if (pattern === "*") return { about: "everything" };
  if (pattern === "open-world" || pattern === "access:open-world") return { about: "open-world" };
  const colon = pattern.indexOf(":");
  const prefix = pattern.slice(0, Math.max(0, colon));
  const rest = pattern.slice(colon + 1);
  if (prefix === "access") {
    const effect = EFFECTS.find((known) => known === rest);
    if (effect !== undefined) return { about: "effect", effect };
    throw new Error(
      `there is no class ${JSON.stringify(pattern)}; there are access:read, access:write, access:destructive and open-world`,
    );
  }
  const kind = KINDS.find((known) => known === prefix);
  return { about: "names", kind: kind ?? "tool", glob: kind === undefined ? pattern : rest };
}

/**
 * Compiles one pattern, to permit or to deny. Globs are matched in linear time, whatever they look like. What a contract does not
 * say of a tool counts as the worst: such a tool is destructive, is denied with what reaches outside, and is not permitted with it.
 */
export function compilePattern(pattern: string, to: "may" | "deny" = "may"): Matcher {
  const read = readPattern(pattern);
  switch (read.about) {
    case "everything":
      return () => true;
    case "names": {
      const { kind, glob } = read;
      const literally = compileGlob(glob);
      const matches = kind === "resource" ? ofResources(glob, to) : literally;
      return (target) =>
        target.kind === kind &&
        (target.template !== true
          ? matches(target.name)
          : to === "may"
            ? meet(glob, target.name.replace(VARIABLE, "*"))
            : // Only a pattern that takes any character takes this one: then it forbids all that the template stands for.
              literally(target.name.replace(VARIABLE, "\u0000")));
    }
    case "effect": {
      const rank = EFFECTS.indexOf(read.effect);
      return ({ kind, access }) =>
        kind === "tool" &&
        (to === "may" ? EFFECTS.indexOf(effectOf(access)) <= rank : EFFECTS.indexOf(effectOf(access)) >= rank);
    }
    case "open-world":
      return ({ kind, access }) =>
        kind === "tool" && (to === "may" ? access?.openWorld === true : access?.openWorld !== false);
  }
}

/** A denial is about whatever a URI may be taken for; a permission is for what is in it both as written and as meant. */
function ofResources(glob: string, to: "may" | "deny"): (uri: string) => boolean {
  const { written, meant } = compileUriGlob(glob);
  return to === "may" ? (uri) => written(uri) && meant(uri) === true : (uri) => written(uri) || meant(uri) !== false;
}

/** What a tool does at most, as far as anybody of ours has said. */
export function effectOf(access: Access | undefined): Effect {
  return access?.effect ?? "destructive";
}

/** Of a URI template. What it stands for may be anything. */
const VARIABLE = /\{[^{}]*\}/g;

/** Whether two globs have a name in common. Quadratic in their lengths, which settings and definitions bound. */
function meet(one: string, other: string): boolean {
  // `reached[j]`: what was read of `one` and the first j characters of `other` can stand for the same text.
  let reached = [true];
  for (let j = 1; j <= other.length; j++) reached[j] = reached[j - 1] === true && other[j - 1] === "*";
  for (const character of one) {
    const next: boolean[] = [character === "*" && reached[0] === true];
    for (let j = 1; j <= other.length; j++) {
      const opposite = other[j - 1];
      if (character === "*" || opposite === "*") next[j] = next[j - 1] === true || reached[j] === true;
      else next[j] = character === opposite && reached[j - 1] === true;
    }
    reached = next;
  }
  return reached[other.length] === true;
}
