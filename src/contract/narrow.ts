/**
 * The input of a contract: what clients may send, what of it the server gets, and the proof that the server takes all of it. Made
 * when the contract is loaded; a call costs one check and one pass over the arguments.
 */
import { setImmediate } from "node:timers/promises";
import type { JsonObject, JsonValue, Principal } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { accepts, isSchemaObject, resolveRef, type Schema } from "./accepts.ts";
import { type ArgumentCheck, compileArguments } from "./arguments.ts";
import { withoutRaw } from "./exact.ts";
import { bounded } from "./regular.ts";
import type { InputRule } from "./settings.ts";
import { MAX_PATTERN_STEPS, unprovedSubset } from "./subset.ts";

export interface Narrowing {
  /** The JSON Schema that clients see: closed, and bounded throughout. */
  readonly served: JsonObject;
  /** Undefined when the arguments of a client are accepted, else one sentence per problem. */
  readonly check: ArgumentCheck;
  /**
   * What the server gets of accepted arguments: names as it has them, with what is fixed, bound and put in by default. Throws
   * `invalid_params` when something is bound to the caller that the caller does not have, or has in a form that is not accepted.
   */
  toServer(args: JsonObject, by: Principal): JsonObject;
  /** Arguments of clients that reach the server as they came: nothing is renamed, added or taken out. */
  readonly plain: boolean;
  /** What the server calls each argument that clients may send. */
  readonly names: ReadonlyMap<string, string>;
}

export interface NarrowOptions {
  readonly maxDepth: number;
  readonly maxBytes: number;
  /** Takes what cannot be proved; then arguments are checked against the server's schema too. */
  readonly unproven: boolean;
}

/** Why a contract cannot be used: one sentence each, with the argument it is about. */
export interface NarrowProblem {
  /** Keys below `input`, e.g. `["order_id", "pattern"]`; empty for the input as a whole. */
  readonly path: readonly string[];
  readonly message: string;
}

/**
 * Narrows a server's input schema by the rules of a contract, or says everything that stands against it. Without `rules` the server's
 * own schema is closed and must be bounded as it is.
 */
export async function narrowInput(
  upstream: JsonObject,
  rules: Readonly<Record<string, InputRule>> | undefined,
  options: NarrowOptions,
): Promise<Narrowing | readonly NarrowProblem[]> {
  const problems: NarrowProblem[] = [];
  const offered = propertiesOf(upstream, upstream);
  const needed = new Set(requiredOf(upstream, upstream));
  const taken = rules ?? Object.fromEntries([...offered.keys()].map((name) => [name, {} as InputRule]));

  const visible: [string, JsonValue][] = [];
  const names = new Map<string, string>();
  const sent = new Map<string, JsonValue>();
  const required: string[] = [];
  const certain: string[] = [];
  const steps: Step[] = [];
  const open = upstream["additionalProperties"] !== false;
  for (const [name, rule] of Object.entries(taken)) {
    // Each may bring patterns of a server that take a while to read; others have their turn between them.
    await setImmediate();
    const target = rule.as ?? name;
    const base = offered.get(target);
    if (base === undefined && !open) {
      problems.push({
        path: [name],
        message: `the server has no argument ${quoted(target)}${known([...offered.keys()])}`,
      });
      continue;
    }
    if (sent.has(target)) problems.push({ path: [name, "as"], message: `${quoted(target)} is there twice` });
    const { schema, problems: merging } = bounded(MAX_PATTERN_STEPS, () =>
      merged(base ?? true, rule, upstream, [name]),
    );
    problems.push(...merging);
    const hidden = [rule.fixed, rule.bind, rule.hidden === true || undefined].filter((one) => one !== undefined);
    if (hidden.length > 1)
      problems.push({ path: [name], message: "is `fixed`, `bind` and `hidden` at once; choose one" });
    if (rule.fixed !== undefined) {
      sent.set(target, { const: rule.fixed });
      certain.push(target);
      steps.push({ to: target, value: rule.fixed });
    } else if (rule.bind !== undefined) {
      const checked = { ...(schema as JsonObject) };
      sent.set(target, checked);
      certain.push(target);
      const compiled = await compileArguments(holding(checked, upstream), { strict: true });
      if (compiled.problem !== undefined) problems.push({ path: [name, "bind"], message: compiled.problem });
      steps.push({ to: target, bind: rule.bind, check: (value) => compiled.check({ value }) });
    } else if (rule.hidden === true) {
      if (rule.default === undefined) continue;
      sent.set(target, { const: rule.default });
      certain.push(target);
      steps.push({ to: target, value: rule.default });
    } else {
      problems.push(...bounded(MAX_PATTERN_STEPS, () => unbounded(schema, upstream, [name], rules === undefined)));
      visible.push([name, described(schema, rule)]);
      names.set(name, target);
      sent.set(target, schema);
      const always =
        rule.default !== undefined || rule.required === true || (needed.has(target) && rule.required !== false);
      if (always) certain.push(target);
      if (always && rule.default === undefined) required.push(name);
      if (rule.default !== undefined || target !== name)
        steps.push({ from: name, to: target, otherwise: rule.default });
    }
  }
  for (const name of needed) {
    if (!sent.has(name))
      problems.push({
        path: [],
        message: `the server needs ${quoted(name)}: let clients send it, or give it with \`fixed\`, \`bind\` or a hidden \`default\``,
      });
  }
  if (problems.length > 0) return problems;

  const definitions = definitionsOf(upstream);
  const whole = (properties: Iterable<readonly [string, JsonValue]>, always: readonly string[]): JsonObject => ({
    type: "object",
    properties: Object.fromEntries(properties),
    ...(always.length > 0 && { required: [...always].sort() }),
    additionalProperties: false,
    ...definitions,
  });
  const served = pruned(whole(visible, required));
  const unproved = unprovedSubset(whole(sent, certain), upstream);
  if (unproved !== undefined && !options.unproven) {
    const [, first] = unproved.where.split("/");
    const name = Object.entries(taken).find(([own, { as }]) => (as ?? own) === first)?.[0];
    return [
      {
        path: name === undefined ? [] : [name],
        message: `it cannot be proved that the server takes all that this takes: ${unproved.reason}${unproved.where.includes("/", 1) ? ` (at ${unproved.where})` : ""}. Narrow it further, or write \`unproven: accept\``,
      },
    ];
  }

  const [narrow, wide] = [
    await compileArguments(served, { strict: true }),
    unproved === undefined ? undefined : await compileArguments(upstream, { strict: true }),
  ];
  const uncompiled = narrow.problem ?? wide?.problem;
  if (uncompiled !== undefined) return [{ path: [], message: uncompiled }];
  const [unread] = narrow.unread;
  if (unread !== undefined && !options.unproven)
    return [
      {
        path: [],
        message: `the pattern ${quoted(unread)} cannot be run in bounded time, so values would not be checked against it. Write one without look-around and back-references, or name the values with \`enum\``,
      },
    ];
  const defaults = Object.entries(taken).flatMap(([name, { default: value, hidden }]): NarrowProblem[] => {
    if (value === undefined || hidden === true) return [];
    const schema = (served["properties"] as JsonObject)[name] as Schema;
    return accepts(value, { schema, root: served }) === false
      ? [{ path: [name, "default"], message: "is not a value that the argument takes" }]
      : [];
  });
  if (defaults.length > 0) return defaults;

  return {
    served,
    plain: steps.length === 0,
    names,
    toServer: converter(steps, wide?.check),
    check(args) {
      const size = oversized(args, options);
      return size === undefined ? narrow.check(args) : [size];
    },
  };
}

interface Step {
  readonly to: string;
  readonly from?: string;
  readonly otherwise?: JsonValue | undefined;
  readonly value?: JsonValue;
  readonly bind?: string;
  readonly check?: (value: JsonValue) => readonly string[] | undefined;
}

/** `wide`: what the server takes, where it is not proved that it takes all. */
function converter(steps: readonly Step[], wide: ArgumentCheck | undefined): Narrowing["toServer"] {
  if (steps.length === 0 && wide === undefined) return (args) => args;
  return (args, by) => {
    const result: Record<string, JsonValue> = renamed(args, steps);
    for (const { to, bind, check } of steps) {
      if (bind === undefined) continue;
      const value = boundTo(bind, by);
      const wrong = value === undefined ? ["it is not known of you"] : check?.(value);
      if (value === undefined || wrong !== undefined) {
        throw new DrawbridgeError("invalid_params", "This call needs something of your account that is not there.", {
          detail: `${bind} of ${by.subject} cannot be the argument ${to}: ${wrong?.join("; ")}`,
        });
      }
      result[to] = value;
    }
    const refused = wide?.(withoutRaw(result) as JsonObject);
    if (refused !== undefined)
      throw new DrawbridgeError("invalid_params", `The server does not take these arguments: ${refused.join("; ")}.`);
    return result;
  };
}

/** Everything but what is bound to the caller. */
function renamed(args: JsonObject, steps: readonly Step[]): Record<string, JsonValue> {
  const result: Record<string, JsonValue> = { ...args };
  for (const { from, to } of steps) if (from !== undefined && from !== to) delete result[from];
  for (const { from, to, otherwise, value } of steps) {
    const put = from === undefined ? value : Object.hasOwn(args, from) ? args[from] : otherwise;
    if (put !== undefined) result[to] = put;
  }
  return result;
}

function boundTo(path: string, by: Principal): JsonValue | undefined {
  if (path === "principal.subject") return by.subject;
  if (path === "principal.client") return by.client;
  const name = path.slice("principal.claims.".length);
  return Object.hasOwn(by.claims, name) ? (by.claims[name] as JsonValue) : undefined;
}

// ---- the server's schema ----

/** Its properties, also those in `allOf` and behind a reference at the top. */
function propertiesOf(schema: JsonValue, root: JsonObject, depth = 0): Map<string, Schema> {
  const found = new Map<string, Schema>();
  if (!isSchemaObject(schema) || depth > 8) return found;
  for (const part of partsOf(schema, root))
    for (const [name, value] of propertiesOf(part, root, depth + 1)) join(name, value);
  if (isSchemaObject(schema["properties"]))
    for (const [name, value] of Object.entries(schema["properties"])) join(name, value as Schema);
  return found;
  function join(name: string, value: Schema): void {
    const before = found.get(name);
    found.set(name, before === undefined ? value : { allOf: [before as JsonValue, value as JsonValue] });
  }
}

function requiredOf(schema: JsonValue, root: JsonObject, depth = 0): readonly string[] {
  if (!isSchemaObject(schema) || depth > 8) return [];
  const own = Array.isArray(schema["required"]) ? schema["required"].map(String) : [];
  return [...own, ...partsOf(schema, root).flatMap((part) => requiredOf(part as JsonValue, root, depth + 1))];
}

function partsOf(schema: JsonObject, root: JsonObject): readonly Schema[] {
  const target = typeof schema["$ref"] === "string" ? resolveRef(schema["$ref"], root) : undefined;
  const all = Array.isArray(schema["allOf"]) ? (schema["allOf"] as Schema[]) : [];
  return target === undefined ? all : [target, ...all];
}

const DEFINITIONS = ["$defs", "definitions"] as const;
const definitionsOf = (schema: JsonObject): JsonObject =>
  Object.fromEntries(DEFINITIONS.flatMap((name) => (schema[name] === undefined ? [] : [[name, schema[name]]])));

/** Without definitions that nothing refers to. */
function pruned(schema: JsonObject): JsonObject {
  const { $defs, definitions, ...rest } = schema;
  return JSON.stringify(rest).includes('"$ref"') ? schema : (rest as JsonObject);
}

/** A schema for an object with one member, for a check of that member. */
const holding = (schema: JsonValue, root: JsonObject): JsonObject => ({
  type: "object",
  properties: { value: schema },
  required: ["value"],
  ...definitionsOf(root),
});

// ---- rules ----

const OF_STRINGS = ["pattern", "format", "minLength", "maxLength"] as const;
const OF_NUMBERS = ["minimum", "maximum", "multipleOf"] as const;
const OF_ARRAYS = ["minItems", "maxItems", "uniqueItems", "items"] as const;

/** The type that a rule speaks of, when it says or its keywords do. */
function typeOf(rule: InputRule): string | undefined {
  if (rule.type !== undefined) return rule.type;
  const has = (keywords: readonly (keyof InputRule)[]) => keywords.some((keyword) => rule[keyword] !== undefined);
  if (has(OF_STRINGS)) return "string";
  if (has(OF_ARRAYS)) return "array";
  if (rule.properties !== undefined) return "object";
  return has(OF_NUMBERS) ? "number" : undefined;
}

/** The server's schema of one argument with what the rule says in place of, or beside, what the server says. */
function merged(
  base: Schema,
  rule: InputRule,
  root: JsonObject,
  path: readonly string[],
): { readonly schema: JsonValue; readonly problems: readonly NarrowProblem[] } {
  if (rule.fixed !== undefined) return { schema: { const: rule.fixed }, problems: [] };
  const problems: NarrowProblem[] = [];
  const type = typeOf(rule);
  const found = branchOf(base, type, root);
  const from = isSchemaObject(found) ? found : {};
  const result: Record<string, JsonValue> = {};
  // A rule that names the values says all there is to say.
  if (rule.enum !== undefined) {
    result["enum"] = [...rule.enum];
    // 2026-07-28, Custom Headers: what the server wants repeated in a header, clients still repeat; it stands only beside a type.
    const { type: known, "x-mcp-header": header } = from;
    if (header !== undefined && typeof known === "string")
      Object.assign(result, { type: known, "x-mcp-header": header });
    return { schema: result, problems };
  }
  Object.assign(result, from);
  if (type !== undefined && !(type === "number" && (result["type"] === "integer" || result["type"] === "number")))
    result["type"] = type;
  const other = result["pattern"];
  for (const keyword of [...OF_STRINGS, ...OF_NUMBERS, "minItems", "maxItems", "uniqueItems"] as const)
    if (rule[keyword] !== undefined) result[keyword] = rule[keyword];
  // Both hold; where the one contains the other the proof finds out.
  if (
    rule.pattern !== undefined &&
    typeof other === "string" &&
    other !== rule.pattern &&
    unprovedSubset(result, { pattern: other }) !== undefined
  )
    result["allOf"] = [...(Array.isArray(result["allOf"]) ? result["allOf"] : []), { pattern: other }];
  if (rule.items !== undefined) {
    const inner = merged((from["items"] ?? true) as Schema, rule.items, root, [...path, "items"]);
    result["items"] = inner.schema;
    problems.push(...inner.problems);
  }
  if (rule.properties !== undefined) {
    const own = propertiesOf(from, root);
    const open = from["additionalProperties"] !== false;
    const needed = new Set(requiredOf(from, root));
    const members: Record<string, JsonValue> = {};
    const required: string[] = [];
    for (const [name, one] of Object.entries(rule.properties)) {
      const below = [...path, "properties", name];
      const unsupported = (["as", "bind", "hidden", "default", "fixed"] as const).find((key) => one[key] !== undefined);
      if (unsupported !== undefined)
        problems.push({ path: [...below, unsupported], message: "is for arguments, not for members of them" });
      const member = own.get(name);
      if (member === undefined && !open) {
        problems.push({
          path: below,
          message: `the server has no member ${quoted(name)}${known([...own.keys()])}`,
        });
        continue;
      }
      const inner = merged(member ?? true, one, root, below);
      problems.push(...inner.problems);
      members[name] = described(inner.schema, one);
      if (one.required === true || (needed.has(name) && one.required !== false)) required.push(name);
    }
    result["properties"] = members;
    result["required"] = required;
    result["additionalProperties"] = false;
    delete result["patternProperties"];
    delete result["allOf"];
    delete result["$ref"];
  }
  return { schema: result, problems };
}

/** Of alternatives, the one of the type that the rule speaks of: `pattern` for an optional string is about the string. */
function branchOf(base: Schema, type: string | undefined, root: JsonObject, depth = 0): Schema {
  if (!isSchemaObject(base) || depth > 8) return base;
  if (typeof base["$ref"] === "string" && Object.keys(base).every((key) => key === "$ref" || ANNOTATIONS.has(key))) {
    const target = resolveRef(base["$ref"], root);
    if (target !== undefined && type !== undefined) return branchOf(target, type, root, depth + 1);
  }
  if (type === undefined) return base;
  const branches = [base["anyOf"], base["oneOf"]].find(Array.isArray) as Schema[] | undefined;
  if (branches === undefined) return base;
  const fitting = branches.filter((branch) => {
    const resolved =
      isSchemaObject(branch) && typeof branch["$ref"] === "string" ? resolveRef(branch["$ref"], root) : branch;
    const own = isSchemaObject(resolved) ? resolved["type"] : undefined;
    return own === type || (type === "number" && own === "integer") || (Array.isArray(own) && own.includes(type));
  });
  const [only] = fitting;
  if (fitting.length !== 1 || only === undefined) return base;
  const { anyOf: _any, oneOf: _one, ...rest } = base;
  const inner = branchOf(only, type, root, depth + 1);
  return isSchemaObject(inner) ? { ...rest, ...inner } : base;
}

const ANNOTATIONS: ReadonlySet<string> = new Set([
  "title",
  "description",
  "default",
  "examples",
  "deprecated",
  "$comment",
]);

/** The operator's words in place of the server's, in which anything could stand. */
function described(schema: JsonValue, rule: InputRule): JsonValue {
  const { description, default: value } = rule;
  const plain = withoutWords(schema);
  if (!isSchemaObject(plain)) return plain;
  return {
    ...plain,
    ...(description !== undefined && { description }),
    ...(value !== undefined && { default: value }),
  };
}

/** Without titles, descriptions, examples and comments, at every depth. */
export function withoutWords(schema: JsonValue, isMap = false): JsonValue {
  if (Array.isArray(schema)) return schema.map((one) => withoutWords(one as JsonValue));
  if (!isSchemaObject(schema)) return schema;
  return Object.fromEntries(
    Object.entries(schema)
      .filter(([key]) => isMap || !ANNOTATIONS.has(key))
      .map(([key, value]) => {
        if (!isMap && (key === "enum" || key === "const")) return [key, value];
        return [key, withoutWords(value as JsonValue, !isMap && MAPS.has(key))];
      }),
  );
}
const MAPS: ReadonlySet<string> = new Set([
  "properties",
  "patternProperties",
  "$defs",
  "definitions",
  "dependentSchemas",
]);

// ---- bounds ----

/** What a client could send without end. `own`: it is the server's schema, for which there is no rule yet. */
function unbounded(
  schema: JsonValue,
  root: JsonObject,
  path: readonly string[],
  own: boolean,
  depth = 0,
): readonly NarrowProblem[] {
  const advice = own ? `; write \`input\` with a rule for ${quoted(path[0] ?? "")}` : "";
  const found = (message: string): readonly NarrowProblem[] => [{ path, message: `${message}${advice}` }];
  if (schema === false || depth > 12) return depth > 12 ? found("is nested too deeply") : [];
  if (!isSchemaObject(schema)) return found("takes anything: give it a type and bounds");
  if (schema["enum"] !== undefined || schema["const"] !== undefined) return [];
  const inner = (one: JsonValue, ...more: string[]) => unbounded(one, root, [...path, ...more], own, depth + 1);
  if (typeof schema["$ref"] === "string") {
    const target = resolveRef(schema["$ref"], root);
    return target === undefined ? found("refers to a schema that is not there") : inner(target as JsonValue);
  }
  const branches = [schema["anyOf"], schema["oneOf"]].find(Array.isArray);
  if (branches !== undefined) return branches.flatMap((branch) => inner(branch as JsonValue));
  const types = [schema["type"]].flat().filter((type) => typeof type === "string");
  if (types.length === 0) return found("takes anything: give it a type and bounds");
  return types.flatMap((type): readonly NarrowProblem[] => {
    if (type === "string")
      return boundedString(schema)
        ? []
        : found("is text of any length: add `maxLength`, `enum` or a `pattern` that ends somewhere");
    if (type === "array") {
      const list = schema["maxItems"] === undefined ? found("is a list of any length: add `maxItems`") : [];
      const items = Array.isArray(schema["items"]) ? schema["items"] : [schema["items"] ?? true];
      return [...list, ...items.flatMap((item) => inner(item as JsonValue, "items"))];
    }
    if (type !== "object") return [];
    if (schema["additionalProperties"] !== false)
      return found("is an object with members of any name: list them under `properties`");
    return Object.entries((schema["properties"] ?? {}) as JsonObject).flatMap(([name, one]) =>
      inner(one as JsonValue, "properties", name),
    );
  });
}

/** Formats whose values are short by nature. */
const SHORT_FORMATS: ReadonlySet<string> = new Set(["date", "time", "date-time", "uuid", "ipv4", "ipv6"]);

function boundedString(schema: JsonObject): boolean {
  if (typeof schema["maxLength"] === "number" || SHORT_FORMATS.has(String(schema["format"]))) return true;
  return unprovedSubset(schema, { maxLength: MAX_PATTERN_LENGTH }) === undefined;
}
const MAX_PATTERN_LENGTH = 10_000;

function oversized(args: JsonObject, { maxDepth, maxBytes }: NarrowOptions): string | undefined {
  if (deeper(args, maxDepth)) return `arguments are nested deeper than ${maxDepth} levels`;
  // Only what could be too long is measured: a quick sum first.
  return Buffer.byteLength(JSON.stringify(args)) > maxBytes ? `arguments are larger than ${maxBytes} bytes` : undefined;
}

function deeper(value: JsonValue, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (levels === 0) return true;
  return Object.values(value).some((one) => deeper(one as JsonValue, levels - 1));
}

const quoted = (name: string) => JSON.stringify(name);

function known(names: readonly string[]): string {
  return names.length === 0 ? "" : `; it has ${names.slice(0, 20).map(quoted).join(", ")}`;
}
