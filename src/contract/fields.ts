/** Paths into JSON documents, `status`, `items/*` + `/sku`, `customer/**`: what of a document they name, and the schema of what is left. */
import type { JsonObject, JsonValue } from "../core/call.ts";
import { isSchemaObject, resolveRef } from "./accepts.ts";
import { isRaw } from "./exact.ts";

/** Fields of a document, compiled. */
export interface Fields {
  /** The document without what no path names; `{}` when nothing of it is named. Cheap: it copies only what is kept. */
  project(document: JsonValue, lists?: ListLimit): JsonValue;
  /** What every projected document fits, also when its texts and lists were shortened. */
  readonly schema: JsonObject;
}

/** How many elements a list may have, and who is told of those that had more. */
export interface ListLimit {
  readonly maxItems: number;
  cut(path: string, of: number): void;
}

/**
 * Compiles paths: `a/b`, `items/*`, `payload/**`; `~1` is a slash and `~0` a tilde within a name, as in JSON Pointer. A path to a value
 * names it if it is a scalar or a list of scalars. `promised`: the schema that the server has for its answers. Throws an `Error` for a
 * path that cannot be, or that the promise contradicts.
 */
export function compileFields(paths: readonly string[], promised: JsonObject | undefined): Fields {
  const tree = treeOf(paths);
  return {
    project(document, lists) {
      const kept = projected(document, tree, lists, "");
      return kept === undefined ? {} : kept;
    },
    schema: schemaOf(tree, { promised, root: promised, path: "" }) as JsonObject,
  };
}

interface Tree {
  /** Scalars and lists of them may stand here. */
  leaf: boolean;
  /** Whatever stands here, may. */
  all: boolean;
  readonly members: Map<string, Tree>;
  /** What is asked of every element, and of every member that is not named. */
  each: Tree | undefined;
}

const newTree = (): Tree => ({ leaf: false, all: false, members: new Map(), each: undefined });

function treeOf(paths: readonly string[]): Tree {
  const root = newTree();
  for (const path of paths) {
    let here = root;
    const parts = path.replace(/^\//, "").split("/");
    for (const [at, part] of parts.entries()) {
      const last = at === parts.length - 1;
      if (part === "") throw new Error(`${JSON.stringify(path)} has an empty part`);
      if (part === "**") {
        if (!last) throw new Error(`${JSON.stringify(path)}: ** can only be the last part`);
        here.all = true;
        break;
      }
      here = part === "*" ? eachOf(here) : memberOf(here, part.replaceAll("~1", "/").replaceAll("~0", "~"));
      if (last) here.leaf = true;
    }
  }
  spread(root);
  return root;
}

function eachOf(tree: Tree): Tree {
  tree.each ??= newTree();
  return tree.each;
}

function memberOf(tree: Tree, name: string): Tree {
  // Validators do not see such a member.
  if (name === "__proto__") throw new Error("__proto__ cannot be a field");
  const found = tree.members.get(name) ?? newTree();
  tree.members.set(name, found);
  return found;
}

/** What is asked of every member is asked of the named ones too. */
function spread(tree: Tree): void {
  for (const member of tree.members.values()) {
    if (tree.each !== undefined) join(member, tree.each);
    spread(member);
  }
  if (tree.each !== undefined) spread(tree.each);
}

function join(tree: Tree, other: Tree): void {
  tree.leaf ||= other.leaf;
  tree.all ||= other.all;
  for (const [name, below] of other.members) join(memberOf(tree, name), below);
  if (other.each !== undefined) join(eachOf(tree), other.each);
}

export const isScalar = (value: JsonValue) => typeof value !== "object" || value === null || isRaw(value);

/** The document with no more than so many elements in each list. */
export function withShortLists(value: JsonValue, lists: ListLimit): JsonValue {
  return projected(value, EVERYTHING, lists, "") as JsonValue;
}
const EVERYTHING: Tree = { ...newTree(), leaf: true, each: undefined };
EVERYTHING.each = EVERYTHING;

/** Undefined where nothing is named. */
function projected(value: JsonValue, named: Tree, lists: ListLimit | undefined, path: string): JsonValue | undefined {
  if (named.all && lists === undefined) return value;
  const tree = named.all ? EVERYTHING : named;
  if (isScalar(value)) return tree.leaf ? value : undefined;
  const { each } = tree;
  if (Array.isArray(value)) {
    if (each === undefined && !tree.leaf) return undefined;
    const kept: JsonValue[] = [];
    for (let at = 0; at < value.length; at++) {
      if (kept.length === lists?.maxItems) {
        lists.cut(path, value.length);
        break;
      }
      const one = value[at] as JsonValue;
      const part =
        each === undefined
          ? isScalar(one)
            ? one
            : undefined
          : projected(one, each, lists, lists === undefined ? "" : below(path, String(at)));
      if (part !== undefined) kept.push(part);
    }
    return kept;
  }
  if (each === undefined && tree.members.size === 0) return undefined;
  const source = value as JsonObject;
  const result: Record<string, JsonValue> = {};
  const keep = (name: string, member: Tree) => {
    const kept = projected(source[name] as JsonValue, member, lists, lists === undefined ? "" : below(path, name));
    if (kept !== undefined) setMember(result, name, kept);
  };
  if (each === undefined) {
    for (const [name, member] of tree.members) if (Object.hasOwn(source, name)) keep(name, member);
  } else for (const name of Object.keys(source)) keep(name, tree.members.get(name) ?? each);
  return result;
}

/** `__proto__` is a member like any other. */
export function setMember(object: Record<string, JsonValue>, name: string, value: JsonValue): void {
  if (name !== "__proto__") object[name] = value;
  else Object.defineProperty(object, name, { value, enumerable: true, writable: true, configurable: true });
}

const SCALARS = ["string", "number", "boolean", "null"] as const;

interface Place {
  readonly promised: JsonValue | undefined;
  readonly root: JsonObject | undefined;
  readonly path: string;
}

function schemaOf(tree: Tree, { promised, root, path }: Place): JsonValue {
  // Clients of 2025-11-25 and before take no `true` for a schema.
  if (tree.all) return {};
  const known = resolved(promised, root);
  const types = known?.["type"] === undefined ? undefined : [known["type"]].flat().map(String);
  const may = (type: string) => types === undefined || types.includes(type);
  const shapes: JsonObject[] = [];
  if ((tree.members.size > 0 || tree.each !== undefined) && may("object"))
    shapes.push(objectSchema(tree, known, { root, path }));
  if (tree.each !== undefined && may("array"))
    shapes.push({
      type: "array",
      items: schemaOf(tree.each, { promised: itemsOf(known), root, path: below(path, "*") }),
    });
  else if (tree.leaf && may("array"))
    shapes.push({ type: "array", items: scalars(typesOf(resolved(itemsOf(known), root))) });
  if (tree.leaf && (types === undefined || scalarTypes(types).length > 0)) shapes.push(scalars(types));
  const [only] = shapes;
  if (only === undefined) throw new Error(contradiction(tree, types ?? [], path));
  return shapes.length === 1 ? only : { anyOf: shapes };
}

function objectSchema(tree: Tree, known: JsonObject | undefined, { root, path }: Omit<Place, "promised">): JsonObject {
  const members = isSchemaObject(known?.["properties"]) ? known["properties"] : {};
  const others = known?.["additionalProperties"] as JsonValue | undefined;
  const closed = others === false && known?.["patternProperties"] === undefined;
  const properties = [...tree.members].map(([name, member]): [string, JsonValue] => {
    const promised = Object.hasOwn(members, name) ? members[name] : others;
    if (closed && !Object.hasOwn(members, name))
      throw new Error(
        `${JSON.stringify(below(path, name))} is not in the server's answers; there they have ${Object.keys(members)
          .slice(0, 20)
          .map((one) => JSON.stringify(one))
          .join(", ")}`,
      );
    return [name, schemaOf(member, { promised: promised as JsonValue | undefined, root, path: below(path, name) })];
  });
  const uniform = Object.keys(members).length === 0 && known?.["patternProperties"] === undefined;
  const each =
    tree.each === undefined
      ? false
      : schemaOf(tree.each, { promised: uniform ? others : undefined, root, path: below(path, "*") });
  return { type: "object", properties: Object.fromEntries(properties), additionalProperties: each };
}

const below = (path: string, name: string) => (path === "" ? name : `${path}/${name}`);
const typesOf = (schema: JsonObject | undefined) =>
  schema?.["type"] === undefined ? undefined : [schema["type"]].flat().map(String);
const scalarTypes = (types: readonly string[]) =>
  types.filter((type) => type === "integer" || (SCALARS as readonly string[]).includes(type));

/** Texts may be cut, so nothing of what the server says of them holds but their type. */
function scalars(types: readonly string[] | undefined): JsonObject {
  const left = types === undefined ? [] : scalarTypes(types);
  const [only] = left;
  return { type: left.length === 0 ? [...SCALARS] : left.length === 1 ? (only ?? "null") : left };
}

function itemsOf(known: JsonObject | undefined): JsonValue | undefined {
  return known?.["prefixItems"] === undefined && !Array.isArray(known?.["items"])
    ? (known?.["items"] as JsonValue | undefined)
    : undefined;
}

function contradiction(tree: Tree, types: readonly string[], path: string): string {
  const found = types.join(" or ");
  if (path === "") return `the server's answers are of type ${found}, in which there are no such fields`;
  return tree.leaf && types.includes("object")
    ? `${JSON.stringify(path)} is an object: name its fields, or write ${JSON.stringify(`${path}/**`)} for all of it`
    : `${JSON.stringify(path)} is of type ${found} in the server's answers, which has no fields`;
}

/** A schema without its reference; alternatives say too little to rely on. */
function resolved(schema: JsonValue | undefined, root: JsonObject | undefined, depth = 0): JsonObject | undefined {
  if (schema === undefined || !isSchemaObject(schema) || depth > 8) return undefined;
  if (typeof schema["$ref"] === "string" && root !== undefined)
    return resolved(resolveRef(schema["$ref"], root) as JsonValue | undefined, root, depth + 1);
  return ["anyOf", "oneOf", "allOf", "if", "$dynamicRef"].some((keyword) => schema[keyword] !== undefined)
    ? undefined
    : schema;
}
