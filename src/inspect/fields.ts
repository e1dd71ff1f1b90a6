/** Every string of a definition that a model, or a client that builds a prompt of it, may read, with where it stands. */

/** What a string is to its reader. `name` and `property` are identifiers, the others prose or values. */
export type FieldRole = "name" | "title" | "description" | "property" | "value" | "comment" | "meta";

export interface Field {
  /** JSON pointer into the definition. */
  readonly where: string;
  readonly role: FieldRole;
  readonly text: string;
}

/** A definition with more strings, or deeper ones, is read as far as this; `cut` says so. */
const MAX_FIELDS = 20_000;
const MAX_DEPTH = 64;

const ROLES: Readonly<Record<string, FieldRole>> = {
  description: "description",
  instructions: "description",
  title: "title",
  $comment: "comment",
  comment: "comment",
  _meta: "meta",
};
/** Below these, keys are names that the author chose; everywhere else they are words of JSON Schema or of the protocol. */
const NAMING = new Set(["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "_meta"]);
const VOCABULARY = new Set(
  `name title description inputSchema outputSchema annotations icons type properties required items enum const default examples
  format pattern minimum maximum minLength maxLength minItems maxItems uniqueItems additionalProperties anyOf oneOf allOf not
  $ref $defs $schema $id $comment definitions exclusiveMinimum exclusiveMaximum multipleOf patternProperties propertyNames
  dependentRequired dependentSchemas prefixItems contains if then else readOnly writeOnly deprecated nullable readOnlyHint
  destructiveHint idempotentHint openWorldHint _meta execution taskSupport uri uriTemplate mimeType arguments instructions`.split(
    /\s+/,
  ),
);

export interface Fields {
  readonly all: readonly Field[];
  /** More there was than is read. */
  readonly cut: boolean;
}

/** Reads the strings of a definition in document order. Keys that are not of JSON Schema or MCP count as strings. */
export function fieldsOf(value: unknown): Fields {
  const all: Field[] = [];
  let cut = false;
  const add = (field: Field) => {
    if (field.text === "") return;
    if (all.length < MAX_FIELDS) all.push(field);
    else cut = true;
  };
  const visit = (node: unknown, where: string, role: FieldRole, depth: number, naming: boolean) => {
    if (typeof node === "string") return add({ where, role, text: node });
    if (typeof node !== "object" || node === null || cut) return;
    if (depth > MAX_DEPTH) {
      cut = true;
      return;
    }
    if (Array.isArray(node)) {
      for (const [index, item] of node.entries()) visit(item, `${where}/${index}`, role, depth + 1, false);
      return;
    }
    for (const [key, item] of Object.entries(node)) {
      const below = `${where}/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`;
      if (naming || !VOCABULARY.has(key)) add({ where: below, role: "property", text: key });
      const own = depth === 0 && (key === "name" || key === "uri") ? "name" : naming ? "value" : ROLES[key];
      visit(item, below, role === "meta" ? "meta" : (own ?? "value"), depth + 1, !naming && NAMING.has(key));
    }
  };
  visit(value, "", "value", 0, false);
  return { all, cut };
}
