/** Narrow rules for the arguments of a tool, each proved to be a subset of what its server takes. */
import type { JsonObject, JsonValue } from "../../core/call.ts";
import { isSchemaObject } from "../accepts.ts";
import { narrowInput } from "../narrow.ts";
import type { InputRule } from "../settings.ts";
import { type Facts, wordsOf } from "./facts.ts";
import type { Remark } from "./proposal.ts";
import { MAX_DEPTH, shapeOf, shapesOf, TYPES, typeName } from "./shape.ts";
import { MAX_ARGUMENT_WORDS, plainWords } from "./words.ts";

const MAX_BYTES = 65_536;

interface ProposedInput {
  readonly rules: Readonly<Record<string, InputRule>>;
  readonly served: JsonObject;
  readonly maxBytes: number | undefined;
  accepts(args: JsonObject): boolean;
}

/** Rules for every argument that can be bounded and is proved to be taken; what cannot is left out, or said in a sentence. */
export async function proposedInput(facts: Facts, remarks: Remark[]): Promise<ProposedInput | string> {
  const rules: Record<string, InputRule> = {};
  for (const [name, schema] of Object.entries(facts.properties)) {
    const found = ruleFor(name, schema as JsonValue, facts.input, ["input", name], remarks);
    if (found !== undefined) rules[name] = found;
    else if (facts.required.has(name)) return `needs the argument ${name}, which takes anything`;
    else remarks.push({ path: ["input"], text: `Left out: ${name}, which takes anything.` });
  }
  const largest = Object.values(rules).reduce((sum, rule) => sum + roomOf(rule), 0);
  const maxBytes = largest > MAX_BYTES / 2 ? 4 * MAX_BYTES : undefined;
  const options = { maxDepth: MAX_DEPTH, maxBytes: maxBytes ?? MAX_BYTES, unproven: false };
  // Each round leaves out one argument at least, so it ends.
  for (;;) {
    const narrowed = await narrowInput(facts.input, rules, options);
    if ("served" in narrowed)
      return { rules, maxBytes, served: narrowed.served, accepts: (args) => narrowed.check(args) === undefined };
    const [problem] = narrowed;
    const name = problem?.path[0];
    if (name === undefined || !Object.hasOwn(rules, name) || facts.required.has(name))
      return `its arguments cannot be bounded: ${name === undefined ? "" : `${name} `}${problem?.message ?? "no reason is known"}`;
    delete rules[name];
    remarks.push({ path: ["input"], text: `Left out: ${name}, which ${problem?.message ?? "cannot be bounded"}.` });
  }
}

/** The most characters that the texts of an argument have. */
const roomOf = (rule: InputRule): number =>
  (rule.maxLength ?? 0) + (rule.items === undefined ? 0 : roomOf(rule.items) * Math.min(rule.maxItems ?? 1, 10));

/** By name, from the most telling to the rest. Characters. */
export const LENGTHS: readonly (readonly [RegExp, number])[] = [
  [
    /(^|_)(content|contents|body|text|html|markdown|data|prompt|document|source|diff|patch|new_?text|old_?text)$/,
    20_000,
  ],
  [/(^|_)(message|description|note|notes|comment|reason|summary|details?|observation)s?$/, 4000],
  [/(^|_)(path|paths|file|files|filename|filepath|directory|folder|dir|destination|source)$/, 1024],
  [/(^|_)(url|uri|href|link|webhook)s?$/, 2048],
  [/(^|_)(e?mail|recipients?|to|cc|bcc)$/, 254],
  [/(^|_)(id|ids|uuid|key|code|sku|number|ref|reference|slug|hash|sha|cursor|token)$/, 128],
  [
    /(^|_)(name|names|title|subject|label|tag|type|status|state|kind|category|city|country|language|locale|role)s?$/,
    200,
  ],
  [
    /(^|_)(limit|count|size|max|offset|page|quantity|qty|amount|price|total|by|date|time|since|until|from|year|period)$/,
    32,
  ],
  [/(^|_)(query|search|q|filter|pattern|keyword|term)s?$/, 500],
];
export const OTHER_LENGTH = 1000;
/** Arguments in which a client could name somebody else. */
const WHO =
  /(^|_)((approved|requested|created|submitted|updated|sent|signed)_by|author|actor|on_behalf_of|user_?name|user_?id)$/;
const COUNTS = /(^|_)(limit|count|size|max|top|n|max_?results|page_?size|per_?page|head|tail|first|last)$/;
const OFFSETS = /(^|_)(offset|skip|page)$/;

/** Undefined when it takes anything and there is no saying what it is for. */
function ruleFor(
  name: string,
  written: JsonValue,
  root: JsonObject,
  path: readonly string[],
  remarks: Remark[],
  depth = 0,
): InputRule | undefined {
  const schema = shapeOf(written, root);
  if (depth > MAX_DEPTH) return undefined;
  const said = isSchemaObject(written) ? written["description"] : undefined;
  const words = plainWords(typeof said === "string" ? said : "", MAX_ARGUMENT_WORDS);
  if (words.suspicious)
    remarks.push({ path, text: "The server's words about it read like orders to a model, so they are not copied." });
  const description = words.text === undefined ? {} : { description: words.text };
  const values = schema["enum"];
  if (Array.isArray(values) && values.length <= 20) return { enum: values, ...description };
  if (values !== undefined || schema["const"] !== undefined) return description;
  const key = wordsOf(name).join("_");
  const type = TYPES.find((one) => one === typeName(schema));
  const chosen = shapesOf(written, root).length > 1 && type !== undefined ? { type } : {};
  switch (type) {
    case "string":
      return { ...chosen, ...ruleForText(key, schema, words.text, path, remarks), ...description };
    case "integer":
    case "number": {
      const least = schema["minimum"] ?? schema["exclusiveMinimum"];
      const most = schema["maximum"] ?? schema["exclusiveMaximum"];
      const bounds = COUNTS.test(key) ? [1, 100] : OFFSETS.test(key) ? [0, 10_000] : [];
      const [minimum, maximum] = bounds;
      return {
        ...chosen,
        ...(least === undefined && minimum !== undefined && { minimum }),
        ...(most === undefined && maximum !== undefined && { maximum }),
        ...description,
      };
    }
    case "boolean":
      return { ...chosen, ...description };
    case "array": {
      const items = ruleFor(name, schema["items"] ?? true, root, [...path, "items"], remarks, depth + 1);
      if (items === undefined) return undefined;
      return {
        ...chosen,
        ...(schema["maxItems"] === undefined && { maxItems: 50 }),
        ...(Object.keys(items).length > 0 && { items }),
        ...description,
      };
    }
    case "object": {
      const members = isSchemaObject(schema["properties"]) ? Object.entries(schema["properties"]) : [];
      const needed = new Set(Array.isArray(schema["required"]) ? schema["required"].map(String) : []);
      const properties: Record<string, InputRule> = {};
      for (const [member, one] of members) {
        const rule = ruleFor(member, one as JsonValue, root, [...path, "properties", member], remarks, depth + 1);
        if (rule !== undefined) properties[member] = rule;
        else if (needed.has(member)) return undefined;
      }
      return Object.keys(properties).length === 0 ? undefined : { ...chosen, properties, ...description };
    }
    default:
      return undefined;
  }
}

function ruleForText(
  key: string,
  schema: JsonObject,
  words: string | undefined,
  path: readonly string[],
  remarks: Remark[],
): InputRule {
  if (typeof schema["pattern"] !== "string" && typeof schema["format"] !== "string") {
    const guess = guessedPattern(schema, words);
    if (guess !== undefined)
      remarks.push({
        path,
        text: `A guess from the example ${guess.from}, narrower than its length: pattern: "${guess.pattern}"`,
      });
    else if (/(^|_)(path|file|filename|directory|folder|dir)$/.test(key))
      remarks.push({ path, text: 'Keep it in one folder if you can: pattern: "^/srv/docs/[A-Za-z0-9_./-]{1,200}$"' });
    else if (/(^|_)(url|uri|href|webhook)$/.test(key))
      remarks.push({ path, text: 'Name the hosts if you can: pattern: "^https://docs[.]example[.]com/[!-~]{0,500}$"' });
  }
  if (typeof schema["maxLength"] === "number") return {};
  if (["date", "time", "date-time", "uuid", "ipv4", "ipv6"].includes(String(schema["format"]))) return {};
  const [, length = OTHER_LENGTH] = LENGTHS.find(([pattern]) => pattern.test(key)) ?? [];
  if (WHO.test(key))
    remarks.push({ path, text: "If this is who calls, no client should say it: bind: principal.subject" });
  return { maxLength: Math.max(length, typeof schema["minLength"] === "number" ? schema["minLength"] : 0) };
}

/** `ORD-100007` in an example or in the words gives `^[A-Z]{3}-[0-9]{6}$`, with capitals as they are. */
function guessedPattern(
  schema: JsonObject,
  words: string | undefined,
): { readonly pattern: string; readonly from: string } | undefined {
  const examples = [schema["examples"], schema["example"], schema["default"]]
    .flat()
    .filter((one) => typeof one === "string");
  const from = [...examples, ...((words ?? "").match(/\b[A-Z]{2,6}-[0-9]{2,12}\b/g) ?? [])].find((one) =>
    /^[A-Za-z]{1,8}[-_][0-9]{2,12}$/.test(one),
  );
  const [, head = "", digits = ""] = /^([A-Za-z]{1,8}[-_])([0-9]{2,12})$/.exec(from ?? "") ?? [];
  return from === undefined ? undefined : { pattern: `^${head}[0-9]{${digits.length}}$`, from };
}
