/** The parameters of a tool as its input schema declares them, and what each of them lets in. */
import type { JsonObject } from "../core/call.ts";

export interface Parameter {
  readonly name: string;
  /** Its name as words, in lower case: `customerId` is "customer id". */
  readonly words: string;
  /** JSON pointer into the definition. */
  readonly where: string;
  readonly schema: JsonObject;
  /** How deep it stands: 0 for a parameter of the tool itself. */
  readonly depth: number;
}

/** Of one definition no more parameters than this are looked at, nor deeper ones. */
const MAX_PARAMETERS = 500;
const MAX_DEPTH = 8;

/** Every declared parameter, also those within objects and lists, in document order. */
export function parametersOf(tool: JsonObject): readonly Parameter[] {
  const found: Parameter[] = [];
  const visit = (schema: unknown, where: string, depth: number) => {
    if (!isObject(schema) || depth > MAX_DEPTH) return;
    const properties = schema["properties"];
    if (isObject(properties))
      for (const [name, one] of Object.entries(properties)) {
        if (found.length >= MAX_PARAMETERS) return;
        const at = `${where}/properties/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
        if (!isObject(one)) continue;
        found.push({ name, words: wordsOf(name), where: at, schema: one, depth });
        visit(one, at, depth + 1);
      }
    if (isObject(schema["items"])) visit(schema["items"], `${where}/items`, depth + 1);
  };
  visit(tool["inputSchema"], "/inputSchema", 0);
  return found;
}

/** A name as words in lower case. */
export function wordsOf(name: string): string {
  return name
    .slice(0, 256)
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, " ")
    .trim();
}

/** Whether a value of this schema may be any text of any length. Alternatives count as what the widest lets in. */
export function takesAnyText(schema: JsonObject): boolean {
  const alternatives = schema["anyOf"] ?? schema["oneOf"];
  if (Array.isArray(alternatives)) return alternatives.some((one) => isObject(one) && takesAnyText(one));
  const type = schema["type"];
  if (!(type === "string" || (Array.isArray(type) && type.includes("string")))) return false;
  return !["enum", "const", "pattern", "format", "maxLength", "$ref"].some((keyword) => schema[keyword] !== undefined);
}

/** Whether it takes a command line, as a shell or the system would run it. */
export function runsCommand({ words, schema }: Pick<Parameter, "words" | "schema">): boolean {
  return COMMAND.test(words) && takesAnyText(schema);
}

const COMMAND = /^(?:(?:shell |bash |terminal )?(?:commands?|cmd|command line)|bash|powershell|shell script)$/;

/** Whether it takes objects of any shape. */
export function takesAnyObject(schema: JsonObject): boolean {
  const type = schema["type"];
  if (!(type === "object" || (Array.isArray(type) && type.includes("object")))) return false;
  const extra = schema["additionalProperties"];
  const shaped = ["properties", "patternProperties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"];
  return extra !== false && !isObject(extra) && shaped.every((keyword) => schema[keyword] === undefined);
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The first verb of a tool's name that changes something for good, or sends it away. */
export function verbsOf(name: string): readonly string[] {
  return wordsOf(name).split(" ");
}
