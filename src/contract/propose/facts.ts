/** What a tool is: its words, its danger and what a call of it does at most. */
import type { JsonObject, JsonValue } from "../../core/call.ts";
import { isSchemaObject } from "../accepts.ts";
import type { Access } from "../contract.ts";

export interface Facts {
  readonly definition: JsonObject;
  readonly name: string;
  /** Words of the name, without the server's own. */
  readonly words: readonly string[];
  readonly title: string | undefined;
  readonly description: string;
  readonly input: JsonObject;
  readonly properties: JsonObject;
  readonly required: ReadonlySet<string>;
  readonly output: JsonObject | undefined;
  readonly annotations: JsonObject;
}

export function factsOf(definition: JsonObject, server: string): Facts {
  const text = (value: JsonValue | undefined) => (typeof value === "string" ? value : "");
  const object = (value: JsonValue | undefined): JsonObject => (isSchemaObject(value) ? value : {});
  const name = text(definition["name"]);
  const words = wordsOf(name);
  const annotations = object(definition["annotations"]);
  const input = object(definition["inputSchema"]);
  return {
    definition,
    name,
    words: words.length > 1 && words[0] === server ? words.slice(1) : words,
    title: [definition["title"], annotations["title"]].map(text).find((one) => one !== ""),
    description: text(definition["description"]),
    input,
    properties: object(input["properties"]),
    required: new Set(Array.isArray(input["required"]) ? input["required"].map(String) : []),
    output: isSchemaObject(definition["outputSchema"]) ? definition["outputSchema"] : undefined,
    annotations,
  };
}

export const wordsOf = (name: string): readonly string[] =>
  name
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1 $2")
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .filter((word) => word !== "");

/** Tools that no contract makes safe: what they take is a program, or what they give is everything. */
export const DANGERS: readonly { readonly why: string; applies(facts: Facts): boolean }[] = [
  {
    why: "takes SQL, so it can do whatever the database can",
    applies: ({ words, description, properties }) =>
      words.includes("sql") ||
      freeText(properties, /^(sql|sql_?query|raw_?query|statement|where|where_?clause)$/i) ||
      /\b(any\b|arbitrary|raw|custom) sql\b|\bsql (statement|query|queries|condition|where)\b/i.test(description),
  },
  {
    why: "runs any command or program, so it can do whatever its process can",
    applies: ({ words, description, properties }) =>
      words.some((word) => /^(shell|bash|powershell|eval|evaluate)$/.test(word)) ||
      (words.some((word) => /^(run|exec|execute|start|spawn)$/.test(word)) &&
        freeText(properties, /^(command|cmd|script|code|program|javascript|python|expression)$/i)) ||
      /\b(arbitrary (code|commands?|scripts?)|(shell|terminal) commands?|execut(e|es|ing) (any\b |the given )?(code|commands?|scripts?))\b/i.test(
        description,
      ),
  },
  {
    why: "shows the environment of its process, where secrets are",
    applies: ({ words, description }) =>
      words.some((word) => /^(env|environ|environment)$/.test(word)) && /\benv(ironment)?\b/i.test(description),
  },
  {
    why: "hands out everything at once",
    applies: ({ words, description }) =>
      words.some((word) => /^(export|dump|backup)$/.test(word)) &&
      (words.includes("all") || /\b(all|every|whole|entire|complete)\b/i.test(description)),
  },
];

/** An argument of this name takes any text. */
function freeText(properties: JsonObject, name: RegExp): boolean {
  return Object.entries(properties).some(
    ([key, schema]) =>
      name.test(key) && isSchemaObject(schema) && schema["enum"] === undefined && schema["pattern"] === undefined,
  );
}

export const VERBS: Readonly<Record<Access, ReadonlySet<string>>> = {
  read: new Set(
    `get list search find read fetch query show view describe lookup look count check status retrieve browse stat tree info echo
    compare calculate preview validate explain resolve open print display summarize summarise download monitor`.split(
      /\s+/,
    ),
  ),
  write: new Set(
    `create add set update write edit send post put upload rename move save insert modify change approve reject adjust assign
    enable disable start stop submit publish append apply upsert register book order pay ship comment reply invite copy make mark
    merge restore email notify toggle trigger navigate click fill type press drag`.split(/\s+/),
  ),
  destructive: new Set(
    `delete remove drop purge cancel kill reset clear destroy revoke overwrite truncate wipe erase uninstall terminate archive`.split(
      /\s+/,
    ),
  ),
};
export const ACCESSES = ["read", "write", "destructive"] as const;

/** What a call does at most. Where name and annotations do not agree the worse is believed. */
export function accessOf({ words, description, annotations }: Facts): {
  readonly access: Access;
  readonly remark?: string;
} {
  const verbs = [...words.entries()].flatMap(([at, word]): Access[] => {
    const kind = ACCESSES.find((one) => VERBS[one].has(word));
    // The first one tells what it does; a later one only when it is another deed: get_or_create.
    return kind === undefined || (at > 0 && !/^(or|and)$/.test(words[at - 1] ?? "")) ? [] : [kind];
  });
  const told = wordsOf(description)[0]?.replace(/(?<=[^s])s$/, "") ?? "";
  const named = worst(verbs) ?? ACCESSES.find((one) => words.some((word) => VERBS[one].has(word)));
  const guessed = named ?? ACCESSES.find((one) => VERBS[one].has(told) || VERBS[one].has(`${told}e`));
  const { readOnlyHint, destructiveHint } = annotations;
  const hinted = readOnlyHint === true ? "read" : destructiveHint === true ? "destructive" : undefined;
  const denied = readOnlyHint === false && destructiveHint !== true ? "write" : undefined;
  if (hinted === undefined && denied === undefined) {
    if (guessed !== undefined) return { access: guessed };
    return { access: "write", remark: "Nothing tells whether it changes anything; write is the careful reading." };
  }
  const access = worst([hinted, denied, named].filter((one): one is Access => one !== undefined)) ?? "write";
  if (hinted === "read" && access !== "read")
    return { access, remark: "The server says that it only reads; its name says otherwise." };
  return { access };
}

const worst = (kinds: readonly Access[]): Access | undefined => ACCESSES.findLast((one) => kinds.includes(one));
