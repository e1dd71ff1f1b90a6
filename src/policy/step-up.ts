/** Further scopes for classes of tools: which ones a call needs, and what people are told of them. */
import type { Target } from "../core/call.ts";
import type { StepUpSettings } from "./limit-settings.ts";
import { indexPatterns } from "./pattern-index.ts";

/** A scope that tokens have only when somebody asked for it. */
export interface FurtherScope {
  readonly scope: string;
  /** In the words of the consent page. */
  readonly title: string;
  readonly description: string;
}

export interface StepUp {
  /** What a token needs for a call of this target, beside what its method needs; each once. */
  scopesFor(target: Target): readonly string[];
}

/** Throws an `Error` for a pattern that cannot be. */
export function compileStepUp(settings: StepUpSettings = {}): StepUp {
  const entries = neededBy(settings);
  if (entries.length === 0) return NO_STEP_UP;
  // As `deny` takes them: what nobody has said anything of needs the scope, too.
  const index = indexPatterns(
    entries.map(([pattern, needed]) => ({ pattern, to: "deny" as const, entry: nameOf(needed) })),
  );
  const known = new WeakMap<Target, readonly string[]>();
  return {
    scopesFor(target) {
      const scopes = known.get(target) ?? [...new Set(index.matching(target))];
      known.set(target, scopes);
      return scopes;
    },
  };
}

const NO_STEP_UP: StepUp = { scopesFor: () => [] };

/** All of them, each once, with what it says or what its patterns say for it. */
export function furtherScopes(settings: StepUpSettings = {}): readonly FurtherScope[] {
  const byScope = Map.groupBy(neededBy(settings), ([, needed]) => nameOf(needed));
  return [...byScope].map(([scope, entries]) => {
    const texts = entries.flatMap(([, needed]) => (typeof needed === "string" ? [] : [needed]));
    const title = texts.find((text) => text.title !== undefined)?.title ?? `Do more: ${scope}`;
    const description =
      texts.find((text) => text.description !== undefined)?.description ??
      `${entries.map(([pattern]) => meaning(pattern)).join(" ")} As far as you may yourself.`;
    return { scope, title, description };
  });
}

type Needed = Exclude<StepUpSettings[string], readonly unknown[]>;

/** Each pattern with each of its scopes. */
function neededBy(settings: StepUpSettings): readonly (readonly [pattern: string, needed: Needed])[] {
  return Object.entries(settings).flatMap(([pattern, needed]) =>
    (Array.isArray(needed) ? needed : [needed]).map((one) => [pattern, one] as const),
  );
}

function nameOf(needed: Needed): string {
  return typeof needed === "string" ? needed : needed.scope;
}

/** A pattern in a sentence for whoever is asked to allow it. */
function meaning(pattern: string): string {
  if (Object.hasOwn(CLASSES, pattern)) return CLASSES[pattern as keyof typeof CLASSES];
  const colon = pattern.indexOf(":");
  const kind = pattern.slice(0, Math.max(0, colon));
  if (kind === "resource") return `Read resources: ${pattern.slice(colon + 1)}.`;
  if (kind === "prompt") return `Use prompts: ${pattern.slice(colon + 1)}.`;
  return `Call tools: ${kind === "tool" ? pattern.slice(colon + 1) : pattern}.`;
}

const CLASSES = {
  "*": "Use anything there is.",
  "access:read": "Call any tool.",
  "access:write": "Call tools that change things.",
  "access:destructive": "Call tools that can delete or destroy things.",
  "open-world": "Call tools that reach other people and places.",
  "access:open-world": "Call tools that reach other people and places.",
} as const;
