/**
 * What kind of change turned one definition into another. Sound on the strict side: what is not proved or not known to be harmless
 * is of a class that is held.
 */
import type { JsonObject, JsonValue } from "../core/call.ts";
import { canonical, isSchemaObject, type Schema } from "./accepts.ts";
import type { DefinitionKind } from "./definition.ts";
import { DRIFT_CLASSES, type DriftClass, type DriftPolicy, REACTIONS, type Reaction } from "./lock-settings.ts";
import { unprovedSubset } from "./subset.ts";

/** What is pinned: definitions, and what a server says of itself (instructions, serverInfo, capabilities). Resources are data. */
export type PinnedKind = Exclude<DefinitionKind, "resource"> | "server";

/** What became of one member of a definition. */
export interface PartDrift {
  readonly part: string;
  readonly classes: readonly DriftClass[];
  readonly before: JsonValue | undefined;
  readonly after: JsonValue | undefined;
  /** What exactly, one sentence each without a full stop: `the argument bcc is new`. */
  readonly notes: readonly string[];
}

export interface Drift {
  /** In the order of `DRIFT_CLASSES`, at least one. */
  readonly classes: readonly DriftClass[];
  readonly parts: readonly PartDrift[];
  /** What the new words bring that reviewed words rarely do: `a link`, `hidden characters`. */
  readonly alarms: readonly string[];
}

/** A further test of new words that a model reads; true when a person should look whatever the policy says. */
export type Suspicious = (text: string) => boolean;

/** Undefined when both are the same. Without `before` it is new, without `after` it is gone. Never throws. */
export function driftOf(
  kind: PinnedKind,
  before: JsonObject | undefined,
  after: JsonObject | undefined,
  suspicious: Suspicious = () => false,
): Drift | undefined {
  if (before === undefined && after === undefined) return undefined;
  const keys = [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])];
  const changed = keys.filter((key) => canonical(own(before, key)) !== canonical(own(after, key)));
  if (before === undefined || after === undefined) {
    const only: DriftClass = before === undefined ? "new" : "gone";
    const parts = keys.map((part) => {
      return { part, classes: [only], before: own(before, part), after: own(after, part), notes: [] };
    });
    return { classes: [only], parts, alarms: alarmsOf([], after === undefined ? [] : textsIn(after), suspicious) };
  }
  if (changed.length === 0) return undefined;
  const parts = changed.map((part): PartDrift => {
    const seen = new Seen();
    const [then, now] = [own(before, part), own(after, part)];
    (COMPARE[kind][part] ?? metadata)(seen, then, now, part);
    // What compares as the same differs all the same, in a way that means nothing.
    if (seen.classes.size === 0) seen.is("cosmetic");
    return { part, classes: inOrder(seen.classes), before: then, after: now, notes: seen.notes };
  });
  const wordy = parts.filter(({ classes }) => !classes.every((one) => one === "cosmetic"));
  const [old, fresh] = (["before", "after"] as const).map((side) => wordy.flatMap((part) => textsIn(part[side])));
  return {
    classes: inOrder(new Set(parts.flatMap(({ classes }) => classes))),
    parts,
    alarms: alarmsOf(old ?? [], fresh ?? [], suspicious),
  };
}

/** What the policy says of a change: the strictest of its classes. An alarming change is at least held. */
export function reactionTo({ classes, alarms }: Pick<Drift, "classes" | "alarms">, policy: DriftPolicy): Reaction {
  const strictest = Math.max(0, ...classes.map((one) => REACTIONS.indexOf(policy[one])));
  const harmless = classes.every((one) => one === "gone" || one === "cosmetic");
  return REACTIONS[alarms.length > 0 && !harmless ? Math.max(strictest, 1) : strictest] ?? "stop";
}

/** `it changed since it was pinned: widening, instruction-bearing (inputSchema: the argument bcc is new; it brings a link)`. */
export function driftText({ classes, parts, alarms }: Drift): string {
  const [only] = classes;
  const brings = alarms.length === 0 ? [] : [`it brings ${alarms.join(", ")}`];
  if (only === "new") return ["it is new: the lockfile does not have it", ...brings].join("; ");
  if (only === "gone") return "it is gone: the server no longer offers it";
  const notable = parts.filter((part) => part.classes.some((one) => one !== "cosmetic"));
  const told = (notable.length === 0 ? parts : notable).map(({ part, notes }) =>
    notes.length === 0 ? part : `${part}: ${notes.slice(0, MAX_NOTES).join(", ")}`,
  );
  return `it changed since it was pinned: ${classes.join(", ")} (${[...told, ...brings].join("; ")})`;
}

const MAX_NOTES = 4;

/** What a comparison found. */
class Seen {
  readonly classes = new Set<DriftClass>();
  readonly notes: string[] = [];
  is(one: DriftClass, note?: string): void {
    this.classes.add(one);
    if (note !== undefined && !this.notes.includes(note)) this.notes.push(note);
  }
}

type Compare = (seen: Seen, before: JsonValue | undefined, after: JsonValue | undefined, part: string) => void;

/** Words that a model or a person reads. Removing some changes what the rest means. */
const words: Compare = (seen, before, after) => {
  if (!sameWords(before, after)) seen.is("instruction-bearing");
};

/** Nothing a model has to read, but clients show or follow it. */
const metadata: Compare = (seen, before, after) => {
  if (canonical(before) !== canonical(after)) seen.is("metadata");
};

const inputSchema: Compare = (seen, before, after) => {
  const [narrow, wide] = [asSchema(after), asSchema(before)];
  schemaWords(seen, wide, narrow, "", 0);
  for (const name of newNames(wide, narrow)) seen.is("widening", `the argument ${name} is new`);
  const wider = unprovedSubset(narrow as JsonValue, wide as JsonValue);
  if (wider !== undefined) seen.is("widening", `${wider.where || "it"} may be more than before`);
  else if (unprovedSubset(wide as JsonValue, narrow as JsonValue) !== undefined) seen.is("narrowing");
};

const outputSchema: Compare = (seen, before, after) => {
  const [narrow, wide] = [asSchema(after ?? true), asSchema(before ?? true)];
  const said = new Seen();
  schemaWords(said, wide, narrow, "", 0);
  for (const one of said.classes) seen.is(one);
  for (const note of said.notes) seen.notes.push(note.replace("the argument", "the member"));
  const wider = unprovedSubset(narrow as JsonValue, wide as JsonValue);
  if (wider !== undefined) seen.is("output", `${wider.where || "the answer"} may be more than before`);
  else if (unprovedSubset(wide as JsonValue, narrow as JsonValue) !== undefined) seen.is("narrowing");
};

/** MCP 2026-07-28, ToolAnnotations: what a hint that is not there means. */
const HINTS: Readonly<Record<string, boolean>> = {
  readOnlyHint: false,
  destructiveHint: true,
  idempotentHint: false,
  openWorldHint: true,
};

const annotations: Compare = (seen, before, after, part) => {
  if (!isAbsentOrObject(before) || !isAbsentOrObject(after)) {
    metadata(seen, before, after, part);
    return;
  }
  for (const key of new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])) {
    const [then, now] = [own(before, key), own(after, key)];
    const usual = Object.hasOwn(HINTS, key) ? HINTS[key] : undefined;
    if (usual === undefined) words(seen, then, now, part);
    else if ((then ?? usual) !== (now ?? usual)) seen.is("annotation-flip", `${key} is ${String(now ?? usual)} now`);
  }
};

/** The arguments of a prompt, by name: a schema in all but the spelling. */
const promptArguments: Compare = (seen, before, after, part) => {
  const [then, now] = [argumentsSchema(before), argumentsSchema(after)];
  if (then === undefined || now === undefined) metadata(seen, before, after, part);
  else inputSchema(seen, then, now, part);
};

function argumentsSchema(value: JsonValue | undefined): JsonObject | undefined {
  const all = value ?? [];
  if (!Array.isArray(all)) return undefined;
  const properties: [string, JsonValue][] = [];
  const required: string[] = [];
  for (const argument of all as readonly JsonValue[]) {
    if (!isSchemaObject(argument) || typeof argument["name"] !== "string") return undefined;
    const { name, required: must, ...rest } = argument;
    if (properties.some(([other]) => other === name)) return undefined;
    properties.push([name, { type: "string", ...rest }]);
    if (must === true) required.push(name);
  }
  return { type: "object", properties: Object.fromEntries(properties), required, additionalProperties: false };
}

/** Its version is told nowhere and changes with each release; the rest is what people know it by. */
const serverInfo: Compare = (seen, before, after, part) => {
  const versionless = (value: JsonValue | undefined) => {
    if (!isSchemaObject(value)) return value;
    const { version: _version, ...rest } = value;
    return rest;
  };
  metadata(seen, versionless(before), versionless(after), part);
};

const capabilities: Compare = (seen, before, after) => {
  const visit = (then: JsonValue | undefined, now: JsonValue | undefined, path: string): void => {
    if (canonical(then) === canonical(now)) return;
    if (then === undefined || (then === false && now === true)) seen.is("widening", `${path} is new`);
    else if (now === undefined || (then === true && now === false)) seen.is("narrowing", `${path} is gone`);
    else if (!isSchemaObject(then) || !isSchemaObject(now)) seen.is("metadata", `${path} changed`);
    else
      for (const key of new Set([...Object.keys(then), ...Object.keys(now)]))
        visit(own(then, key), own(now, key), path === "" ? key : `${path}.${key}`);
  };
  visit(before ?? {}, after ?? {}, "");
};

/** How each member of each kind is compared. A member that is not here is metadata. */
const COMPARE: Readonly<Record<PinnedKind, Readonly<Record<string, Compare>>>> = {
  tool: { name: words, title: words, description: words, inputSchema, outputSchema, annotations },
  prompt: { name: words, title: words, description: words, arguments: promptArguments },
  resourceTemplate: { uriTemplate: words, name: words, title: words, description: words },
  server: { instructions: words, serverInfo, capabilities },
};

/** Members of a schema that are words for whoever reads it. */
const WORDS = new Set(["title", "description", "$comment", "default", "examples", "$id", "format", "contentMediaType"]);
/** Members that only say what is accepted: the proof looks at them. */
const LIMITS = new Set([
  "type",
  "minimum",
  "maximum",
  "exclusiveMinimum",
  "exclusiveMaximum",
  "multipleOf",
  "minLength",
  "maxLength",
  "minItems",
  "maxItems",
  "uniqueItems",
  "minContains",
  "maxContains",
  "minProperties",
  "maxProperties",
  "contentEncoding",
  "readOnly",
  "writeOnly",
  "deprecated",
]);
const BY_NAME = new Set(["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"]);
const LISTS = new Set(["allOf", "anyOf", "oneOf", "prefixItems"]);
const WITHIN = new Set([
  "items",
  "additionalProperties",
  "additionalItems",
  "propertyNames",
  "contains",
  "not",
  "if",
  "then",
  "else",
  "unevaluatedItems",
  "unevaluatedProperties",
  "contentSchema",
]);
const DRAFT = /^https?:\/\/json-schema\.org\/(draft-0[4-7]|draft\/20(19-09|20-12))\/schema#?$/;
const MAX_DEPTH = 64;

/** Finds words that are new, or gone from what is still there. `path`: of the values that the schema is about. */
function schemaWords(seen: Seen, before: Schema, after: Schema, path: string, depth: number): void {
  if (depth > MAX_DEPTH) {
    seen.is("instruction-bearing", "it is nested too deep to compare");
    return;
  }
  const then = isSchemaObject(before) ? before : {};
  const now = isSchemaObject(after) ? after : {};
  const place = path === "" ? "" : ` of ${path}`;
  const say = (note: string) => seen.is("instruction-bearing", note);
  for (const key of new Set([...Object.keys(then), ...Object.keys(now)])) {
    const [was, is] = [own(then, key), own(now, key)];
    if (canonical(was) === canonical(is) || LIMITS.has(key)) continue;
    if (WORDS.has(key)) {
      if (!sameWords(was, is)) say(`the ${key}${place} changed`);
    } else if (key === "enum" || key === "const" || key === "required" || key === "dependentRequired") {
      // What is gone from these is what the proof looks at.
      const known = new Set([...textsIn(was), ...(key === "required" ? Object.keys(asObject(now["properties"])) : [])]);
      for (const text of textsIn(is)) if (!known.has(text)) say(`${key}${place} has ${shown(text)}, which is new`);
    } else if (key === "pattern") {
      if (typeof is === "string" && /\p{L}{3,}\s+\p{L}{3,}/u.test(is)) say(`the pattern${place} has words`);
    } else if (key === "$schema") {
      if (typeof is !== "string" || !DRAFT.test(is)) say("$schema changed");
    } else if (key === "$ref" || key === "$dynamicRef" || key === "$anchor" || key === "$dynamicAnchor") {
      if (typeof is !== "string" || !/^#[\w./~%$-]*$/.test(is)) say(`the ${key}${place} changed`);
    } else if (BY_NAME.has(key)) {
      for (const [name, schema] of Object.entries(asObject(is))) {
        const inner = key === "properties" ? joined(path, name) : path;
        const former = own(asObject(was), name);
        if (former === undefined)
          say(key === "properties" ? `the argument ${inner} is new` : `${key} has ${shown(name)}, which is new`);
        schemaWords(seen, asSchema(former), asSchema(schema), inner, depth + 1);
      }
    } else if (LISTS.has(key)) {
      const [some, others] = [inAnyOrder(was), inAnyOrder(is)];
      for (const [at, schema] of others.entries())
        schemaWords(seen, asSchema(some[at]), asSchema(schema), path, depth + 1);
    } else if (WITHIN.has(key)) {
      schemaWords(seen, asSchema(was), asSchema(is), key === "items" ? joined(path, "*") : path, depth + 1);
    } else say(`${shown(key)}${place} changed`);
  }
}

/** Arguments, at whatever depth of plain objects and lists, that were not there before. */
function newNames(before: Schema, after: Schema, path = "", depth = 0): string[] {
  if (!isSchemaObject(after) || depth > MAX_DEPTH) return [];
  const then = isSchemaObject(before) ? before : {};
  const known = asObject(then["properties"]);
  const mine = Object.entries(asObject(after["properties"])).flatMap(([name, schema]) =>
    Object.hasOwn(known, name)
      ? newNames(asSchema(known[name]), asSchema(schema), joined(path, name), depth + 1)
      : [joined(path, name)],
  );
  const { items } = after;
  const inItems = isSchemaObject(items) ? newNames(asSchema(then["items"]), items, joined(path, "*"), depth + 1) : [];
  return [...mine, ...inItems];
}

/** The same but for white space; so much more of it that the rest is out of sight is not the same. */
function sameWords(before: JsonValue | undefined, after: JsonValue | undefined): boolean {
  if (typeof before !== "string" || typeof after !== "string") return canonical(before) === canonical(after);
  const folded = (text: string) => text.replaceAll(/[ \t\r\n]+/g, " ").trim();
  return folded(before) === folded(after) && after.length <= 2 * before.length + 200;
}

/** Every text in a value, names of members included. */
function textsIn(value: JsonValue | undefined, found: string[] = [], depth = 0): string[] {
  if (typeof value === "string") found.push(value);
  else if (typeof value === "object" && value !== null && depth <= MAX_DEPTH) {
    if (!Array.isArray(value)) found.push(...Object.keys(value));
    for (const one of Object.values(value)) textsIn(one as JsonValue, found, depth + 1);
  }
  return found;
}

/** Signs that words are meant for the model and against its user: enough to ask a person, never to say that a text is harmless. */
const SIGNS: Readonly<Record<string, RegExp>> = {
  // Format, private-use, tag, variation and filler characters, and controls beside tab and line ends.
  "hidden characters":
    /[\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u115F\u1160\u3164\uFFA0]|[\uFE00-\uFE0F]|[\u{E0100}-\u{E01EF}]|(?![\t\r\n])\p{Cc}/gu,
  "a link": /\b(?:https?|ftp|wss?|data|javascript|file|mailto):|\bwww\.|\]\(/giu,
  "an order":
    /<\s*\/?\s*(?:important|system|instructions?|secret)\b|\b(?:ignore|disregard|override|always|never|must|instead|bcc|also (?:send|call|read|include|add|forward)|do not (?:tell|mention|inform|show|ask)|don't (?:tell|mention|inform|show|ask)|without (?:telling|asking|informing)|before (?:using|calling)|before any|first (?:read|call|send|use)|(?:read|send|forward|upload|include|copy) (?:the |all |your |every |its )*(?:file|content|secret|token|password|credential|key|conversation|message|history)s?)\b/giu,
  "a place of secrets":
    /(?:~|\/)\.?(?:ssh|aws|gnupg|kube)\b|\bid_(?:rsa|ed25519)\b|\.env\b|\/etc\/(?:passwd|shadow)\b|\bapi[ _-]?keys?\b/giu,
};

function alarmsOf(before: readonly string[], after: readonly string[], suspicious: Suspicious): string[] {
  const known = new Set(before);
  const fresh = after.filter((text) => !known.has(text));
  const count = (texts: readonly string[], sign: RegExp) =>
    texts.reduce((sum, text) => sum + (text.match(sign)?.length ?? 0), 0);
  const found = Object.entries(SIGNS).flatMap(([name, sign]) =>
    count(after, sign) > count(before, sign) ? [name] : [],
  );
  return fresh.some(suspicious) ? [...found, "what looks like an attack"] : found;
}

const inOrder = (classes: ReadonlySet<DriftClass>) => DRIFT_CLASSES.filter((one) => classes.has(one));
const own = (object: JsonObject | undefined, key: string): JsonValue | undefined =>
  object !== undefined && Object.hasOwn(object, key) ? object[key] : undefined;
const isAbsentOrObject = (value: JsonValue | undefined): value is JsonObject | undefined =>
  value === undefined || isSchemaObject(value);
const asObject = (value: JsonValue | undefined): JsonObject => (isSchemaObject(value) ? value : {});
const asSchema = (value: JsonValue | undefined): Schema =>
  typeof value === "boolean" || isSchemaObject(value) ? value : {};
const joined = (path: string, name: string) => (path === "" ? name : `${path}/${name}`);
const shown = (text: string) => JSON.stringify(text.slice(0, 80));
const inAnyOrder = (value: JsonValue | undefined): readonly JsonValue[] =>
  Array.isArray(value)
    ? [...(value as readonly JsonValue[])].sort((a, b) => (canonical(a) < canonical(b) ? -1 : 1))
    : [];
