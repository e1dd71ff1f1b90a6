/**
 * Checks a tool's arguments against its JSON Schema (2020-12 or draft-07). Schemas come from servers nobody vouches for: they
 * are measured before they are compiled, never fetched, and their patterns run in linear time.
 */
import type { Ajv as AjvDraft07, ErrorObject, Options } from "ajv";
import type { FormatName } from "ajv-formats";
import type { JsonObject, JsonValue } from "../core/call.ts";
import { isSchemaObject } from "./accepts.ts";
import { matcherOf, weightOf } from "./pattern.ts";

/** Undefined when the arguments are accepted, else one sentence per problem (at most eight). */
export type ArgumentCheck = (args: JsonObject) => readonly string[] | undefined;

export interface CompiledCheck {
  readonly check: ArgumentCheck;
  /** Why the schema could not be compiled; then only "an object" is checked and the upstream checks the rest. */
  readonly problem: string | undefined;
  /** Patterns of the schema that cannot be run here: they are taken to match everything. */
  readonly unread: readonly string[];
}

export interface CheckOptions {
  /** Formats to the letter, and all of them, as the strictest validators have them. Default: the usual ones, roughly. */
  readonly strict?: boolean;
}

const MAX_SCHEMA_BYTES = 512 * 1024;
const MAX_SCHEMA_NODES = 20_000;
const MAX_SCHEMA_DEPTH = 64;
const MAX_PROBLEMS = 8;
/** Of all patterns of one schema, as `weightOf` has it: a third of a second to compile at worst. */
const MAX_PATTERN_WEIGHT = 20_000;
/** A text times the weight of its pattern: beyond it, matching holds everybody up. The stricter is for patterns that operators bound. */
const MAX_STEPS = { roughly: 5_000_000, strictly: 20_000_000 } as const;

/** Compiles one tool's input schema. Never throws. Costs milliseconds: call it once per definition. */
export async function compileArguments(
  schema: JsonValue | undefined,
  { strict = false }: CheckOptions = {},
): Promise<CompiledCheck> {
  try {
    if (schema === undefined || typeof schema !== "object" || schema === null || Array.isArray(schema))
      throw new Error("the tool has no input schema");
    measure(schema);
    const { $schema, $id: _ignored, ...body } = schema as JsonObject;
    const ajv = await engine(dialectOf($schema), strict);
    const before = { unread, weight };
    const mine: string[] = [];
    unread = mine;
    weight = 0;
    let validate: ReturnType<typeof ajv.compile>;
    try {
      validate = ajv.compile(compilable(body));
    } finally {
      ({ unread, weight } = before);
    }
    return {
      problem: undefined,
      unread: mine,
      check(args) {
        asked.left = MAX_ASKED;
        try {
          return validate(args) ? undefined : (validate.errors ?? []).slice(0, MAX_PROBLEMS).map(sentence);
        } catch (thrown) {
          // A schema that is about itself without end overflows the stack.
          if (thrown === asked.over || thrown instanceof RangeError)
            return ["arguments would take too long to be checked against the tool's schema"];
          throw thrown;
        }
      },
    };
  } catch (thrown) {
    return { problem: thrown instanceof Error ? thrown.message : String(thrown), unread: [], check: () => undefined };
  }
}

/** Subschemas that one check asks, before it is given up: a tenth of a second. */
const MAX_ASKED = 500_000;
/** Of the check that goes on; nothing interrupts it. */
const asked = { left: 0, over: new Error("the schema asks too much") };
const COUNT = "drawbridge-count";

/** Where a schema that refers to the whole finds it: without being remembered it has no name of its own. */
const WHOLE = "drawbridge-whole";

/** The same schema, ready for our validator. */
function compilable(schema: JsonObject): JsonObject {
  const body = counted(schema) as JsonObject;
  if (!JSON.stringify(body).includes(`"$ref":"#/$defs/${WHOLE}"`)) return body;
  return { ...body, $defs: { ...(isSchemaObject(body["$defs"]) && body["$defs"]), [WHOLE]: body } };
}

/**
 * The same schema, in which each subschema is counted when it is asked: with definitions that name each other twice one value is asked
 * about twice as often at each level, and so is a value within values.
 */
function counted(schema: JsonValue): JsonValue {
  if (Array.isArray(schema)) return schema.map((one) => counted(one as JsonValue));
  if (!isSchemaObject(schema) || Object.keys(schema).length === 0) return schema;
  const members = Object.entries(schema).map(([keyword, value]): [string, JsonValue] => {
    if (DATA.has(keyword)) return [keyword, value as JsonValue];
    if (keyword === "$ref" && value === "#") return [keyword, `#/$defs/${WHOLE}`];
    if (!NAMED.has(keyword) || !isSchemaObject(value)) return [keyword, counted(value as JsonValue)];
    return [keyword, Object.fromEntries(Object.entries(value).map(([name, one]) => [name, counted(one as JsonValue)]))];
  });
  return { ...Object.fromEntries(members), [COUNT]: true };
}

/** What holds values and no schemas. */
const DATA: ReadonlySet<string> = new Set(["const", "enum", "default", "example", "examples"]);
/** What holds schemas by name. */
const NAMED: ReadonlySet<string> = new Set([
  "properties",
  "patternProperties",
  "dependentSchemas",
  "dependencies",
  "$defs",
  "definitions",
]);

type Dialect = "draft-07" | "2020-12";

/** MCP, basic, Schema Dialect: 2020-12 when the schema does not say. Draft-06 and 2019-09 are close enough to their successors. */
function dialectOf(declared: JsonValue | undefined): Dialect {
  if (declared === undefined) return "2020-12";
  const uri = String(declared).replace(/#$/, "");
  if (/^https?:\/\/json-schema\.org\/draft-0[67]\/schema$/.test(uri)) return "draft-07";
  if (/^https?:\/\/json-schema\.org\/draft\/(2020-12|2019-09)\/schema$/.test(uri)) return "2020-12";
  throw new Error(`the schema's dialect ${uri} is not supported`);
}

function measure(schema: JsonValue): void {
  if (JSON.stringify(schema).length > MAX_SCHEMA_BYTES)
    throw new Error(`the schema is larger than ${MAX_SCHEMA_BYTES} bytes`);
  let nodes = 0;
  const visit = (value: JsonValue, depth: number) => {
    if (++nodes > MAX_SCHEMA_NODES) throw new Error(`the schema has more than ${MAX_SCHEMA_NODES} parts`);
    if (depth > MAX_SCHEMA_DEPTH) throw new Error(`the schema is nested deeper than ${MAX_SCHEMA_DEPTH} levels`);
    if (typeof value === "object" && value !== null)
      for (const inner of Object.values(value)) visit(inner as JsonValue, depth + 1);
  };
  visit(schema, 0);
}

const engines = new Map<string, Promise<AjvDraft07>>();

/** A new instance for each dialect, without remembered schemas, so that one server's `$id` cannot reach another's. */
function engine(dialect: Dialect, strict: boolean): Promise<AjvDraft07> {
  const key = `${dialect} ${strict}`;
  let made = engines.get(key);
  if (made === undefined) {
    made = createEngine(dialect, strict);
    engines.set(key, made);
  }
  return made;
}

async function createEngine(dialect: Dialect, strict: boolean): Promise<AjvDraft07> {
  const options: Options = {
    strict: false,
    allErrors: false,
    addUsedSchema: false,
    // `constructor` is no member of every object.
    ownProperties: true,
    validateSchema: true,
    logger: false,
    code: { regExp: strict ? strictly : roughly },
  };
  const { Ajv, _ } =
    dialect === "draft-07"
      ? await import("ajv")
      : await import("ajv/dist/2020.js").then(({ Ajv2020, _ }) => ({ Ajv: Ajv2020, _ }));
  const { default: addFormats } = await import("ajv-formats");
  const ajv = new Ajv(options) as AjvDraft07;
  ajv.addKeyword({
    keyword: COUNT,
    before: "$ref",
    code({ gen }) {
      const count = gen.scopeValue("func", { ref: asked });
      gen.code(_`if (--${count}.left < 0) throw ${count}.over`);
    },
  });
  if (strict) addFormats.default(ajv, { mode: "full" });
  else addFormats.default(ajv, { mode: "fast", formats: ROUGHLY });
  // Its expression takes quadratic time.
  const url = strict ? ajv.formats["url"] : undefined;
  if (url instanceof RegExp)
    ajv.addFormat("url", {
      type: "string",
      validate: (text: string) => text.length <= MAX_URL_LENGTH && url.test(text),
    });
  return ajv;
}

const ROUGHLY: FormatName[] = ["date", "time", "date-time", "uri", "email", "uuid", "ipv4", "ipv6", "hostname"];
const MAX_URL_LENGTH = 2000;

/** Of the schema that is being compiled. */
let unread: string[] = [];
let weight = 0;

/**
 * Patterns in linear time. One that cannot be run so (look-ahead, back-references, too large) is left to the upstream, which wrote it,
 * and so is a text that would take too long; strictly, that one does not match. Ajv keys its cache of patterns on `toString()`, so each must have its
 * own: with a shared one every pattern would be the first.
 */
function linearRegExp(pattern: string, flags: string, maxSteps: number, otherwise: boolean) {
  const text = `/${pattern}/${flags}`;
  const own = weightOf(pattern);
  const matches = weight + own > MAX_PATTERN_WEIGHT ? undefined : matcherOf(pattern);
  if (matches === undefined) unread.push(pattern);
  else weight += own;
  const test = (value: string) => {
    if (matches === undefined) return true;
    return value.length * matches.weight > maxSteps ? otherwise : matches(value);
  };
  return { test, toString: () => text };
}
const roughly = Object.assign(
  (pattern: string, flags: string) => linearRegExp(pattern, flags, MAX_STEPS.roughly, true),
  { code: "linearRegExp" },
);
const strictly = Object.assign(
  (pattern: string, flags: string) => linearRegExp(pattern, flags, MAX_STEPS.strictly, false),
  { code: "linearRegExp" },
);

function sentence(error: ErrorObject): string {
  const where = error.instancePath === "" ? "arguments" : `arguments${error.instancePath}`;
  const { additionalProperty, allowedValues } = error.params as {
    additionalProperty?: string;
    allowedValues?: readonly unknown[];
  };
  const extra =
    additionalProperty !== undefined
      ? ` (${JSON.stringify(additionalProperty)})`
      : allowedValues !== undefined
        ? ` (${JSON.stringify(allowedValues).slice(0, 200)})`
        : "";
  return `${where} ${error.message ?? "is not accepted"}${extra}`;
}
