/**
 * The documentation of a tool, read as a model will: does it say what the tool does, when to use it and when not, what comes back, and
 * where its limits are? The words are English ones; of text in other letters only length and completeness are judged.
 */
import type { JsonObject } from "../core/call.ts";
import { isSchemaObject } from "./accepts.ts";

export interface Documented {
  readonly name: string;
  readonly title?: string | undefined;
  readonly description?: string | undefined;
  /** As clients see it. */
  readonly inputSchema: JsonObject;
  /** Names that the servers know and clients do not; a description that sends a model to one of them leads nowhere. */
  readonly hiddenNames?: Iterable<string> | undefined;
}

export type DocumentRule =
  | "missing"
  | "what"
  | "when"
  | "when-not"
  | "returns"
  | "limits"
  | "too-long"
  | "not-served"
  | "title"
  | "argument";

export interface DocumentFinding {
  readonly rule: DocumentRule;
  /** Keys below the contract, e.g. `["input", "order_id", "description"]`. */
  readonly path: readonly string[];
  /** What is missing and how to mend it, in one sentence. */
  readonly message: string;
}

/** The five parts of a complete description. A model that lacks one of them guesses. */
const PARTS = {
  what: {
    found: (text, { name }) => saysMore(firstSentence(text), name),
    message: "does not say what the tool does: begin with a sentence that says more than its name",
  },
  when: {
    found: matches(
      /\b(use (it|this|them)|when (the|a|an|you|someone|somebody|asked|it|they)|whenever|call (it|this) (when|to|before|after|for)|useful (for|when)|meant for|if you (need|want))\b/i,
    ),
    message: 'does not say when to use it: add "Use it when …"',
  },
  "when-not": {
    found: matches(
      /\b(not (for|on|because|to|when|as|by)|do not|don't|never|instead|rather than|cannot be used|must not|should not|avoid|is not|are not)\b/i,
    ),
    message: 'does not say when not to use it: add "Not for …: use … instead", or "Do not use it to …"',
  },
  returns: {
    found: matches(/\b(returns?|answers? with|gives( back)?|responds? with|(the|its) (result|answer|output))\b/i),
    message: 'does not say what comes back: add "Returns …"',
  },
  limits: {
    found: matches(
      /\b(at most|at least|up to|no more than|only|limits?|limited|maximum|newest|latest|first \d+|cannot|can't|within|exactly|once|one .{1,30} at a time)\b/i,
    ),
    message: 'does not say where its limits are: add how much, how many or which ones, e.g. "At most 20, newest first"',
  },
} as const satisfies Partial<Record<DocumentRule, Part>>;

interface Part {
  readonly found: (text: string, tool: Documented) => boolean;
  readonly message: string;
}

/** A description beyond this is read at each request and followed less. */
const MAX_DESCRIPTION = 1200;

/** Everything that is missing from a tool's documentation; nothing for a complete one. */
export function lintDocumentation(tool: Documented): readonly DocumentFinding[] {
  const text = tool.description?.trim() ?? "";
  return [...ofDescription(text, tool), ...ofTitle(tool), ...ofArguments(tool)];
}

/** The parts of a complete description that a text does not have. */
export function missingParts(tool: Documented): readonly (keyof typeof PARTS)[] {
  const text = tool.description?.trim() ?? "";
  return (Object.keys(PARTS) as (keyof typeof PARTS)[]).filter((part) => !PARTS[part].found(text, tool));
}

function ofDescription(text: string, tool: Documented): readonly DocumentFinding[] {
  const path = ["description"];
  if (text === "")
    return [
      {
        rule: "missing",
        path,
        message:
          "has no description of its own, so clients read the server's words: say what it does, when to use it, when not, what it returns and its limits",
      },
    ];
  const found: DocumentFinding[] = readable(text)
    ? missingParts(tool).map((rule) => ({ rule, path, message: PARTS[rule].message }))
    : [];
  if (text.length > MAX_DESCRIPTION)
    found.push({
      rule: "too-long",
      path,
      message: `has ${text.length} characters, which are read at each request: keep it below ${MAX_DESCRIPTION}`,
    });
  for (const name of tool.hiddenNames ?? [])
    if (/[_-]/.test(name) && name !== tool.name && mentions(text, name))
      found.push({ rule: "not-served", path, message: `speaks of ${name}, which clients cannot call: take it out` });
  return found;
}

function ofTitle({ title, name }: Documented): readonly DocumentFinding[] {
  if (title !== undefined && title.trim() !== "") return [];
  const words = wordsOf(name).join(" ");
  const example = words.charAt(0).toUpperCase() + words.slice(1);
  return [{ rule: "title", path: ["title"], message: `has no title for people: add one, e.g. "${example}"` }];
}

function ofArguments({ inputSchema }: Documented): readonly DocumentFinding[] {
  const properties = isSchemaObject(inputSchema["properties"]) ? inputSchema["properties"] : {};
  return Object.entries(properties).flatMap(([name, schema]): DocumentFinding[] => {
    const description = isSchemaObject(schema) ? schema["description"] : undefined;
    const text = typeof description === "string" ? description.trim() : "";
    const path = ["input", name, "description"];
    if (text === "")
      return [{ rule: "argument", path, message: "has no description: say what it means, with an example" }];
    if (readable(text) && !saysMore(text, name, 2))
      return [{ rule: "argument", path, message: "only repeats its name: say what it means, with an example" }];
    return [];
  });
}

// ---- words ----

function matches(pattern: RegExp): Part["found"] {
  return (text) => pattern.test(text);
}

/** Most of its letters are Latin ones, so English words can be looked for. */
function readable(text: string): boolean {
  const letters = text.match(/\p{L}/gu) ?? [];
  return letters.filter((letter) => /\p{Script=Latin}/u.test(letter)).length * 2 >= letters.length;
}

const firstSentence = (text: string) => /^[\s\S]*?[.!?](?=\s|$)/.exec(text)?.[0] ?? text;

/** Has at least `words` words that matter, one of which is not in the name. */
function saysMore(text: string, name: string, words = 4): boolean {
  const own = new Set(wordsOf(name).map(stem));
  const said = wordsOf(text).filter((word) => word.length > 1 && !FILLERS.has(word));
  return wordsOf(text).length >= words && said.some((word) => !own.has(stem(word)));
}

const FILLERS: ReadonlySet<string> = new Set([
  "the",
  "a",
  "an",
  "of",
  "to",
  "this",
  "that",
  "tool",
  "for",
  "and",
  "or",
]);
const stem = (word: string) => word.replace(/(ies|es|s)$/, "");

function wordsOf(text: string): readonly string[] {
  return text
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1 $2")
    .toLowerCase()
    .split(/[^\p{L}\p{N}]+/u)
    .filter((word) => word !== "");
}

function mentions(text: string, name: string): boolean {
  for (let at = text.indexOf(name); at !== -1; at = text.indexOf(name, at + 1)) {
    const around = `${text[at - 1] ?? " "}${text[at + name.length] ?? " "}`;
    if (!/[\p{L}\p{N}_-]/u.test(around)) return true;
  }
  return false;
}
