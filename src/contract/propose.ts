/**
 * Contracts that a person can begin with, proposed from what a server says of itself: which tools to serve and which to leave out,
 * narrow inputs, projected answers, access. All that is proposed can be proved; what is only a guess stands in a remark beside it.
 */
import type { JsonObject, JsonValue } from "../core/call.ts";
import { isSchemaObject, resolveRef } from "./accepts.ts";
import { type Access, compileContract, isContract } from "./contract.ts";
import { missingParts } from "./document.ts";
import { narrowInput } from "./narrow.ts";
import { type InputRule, toolContract } from "./settings.ts";
import { compileUriTemplate, type UriTemplate } from "./uri-template.ts";

/** What a server lists, as it came. */
export interface Offer {
  /** Its name in the settings. */
  readonly server: string;
  readonly tools: readonly JsonObject[];
  readonly resources?: readonly JsonObject[];
  readonly resourceTemplates?: readonly JsonObject[];
  readonly prompts?: readonly JsonObject[];
  /** Answers of read-only tools that were called once: the JSON in them, by the tool's name. */
  readonly samples?: ReadonlyMap<string, JsonValue>;
}

export interface Proposal {
  /** In groups by what they are about. */
  readonly tools: readonly ProposedTool[];
  readonly resources: readonly ProposedEntry[];
  readonly prompts: readonly ProposedEntry[];
  readonly leftOut: readonly LeftOut[];
}

export interface ProposedEntry {
  /** What clients call it. */
  readonly name: string;
  /** As it stands in the settings file. */
  readonly contract: JsonObject;
  readonly remarks: readonly Remark[];
}

export interface ProposedTool extends ProposedEntry {
  /** What it is about, in the singular: `order`. */
  readonly about: string;
  readonly access: Access;
  /** For the group that begins with it: what several of its tools achieve together. */
  readonly together: string | undefined;
}

/** A sentence for the person who edits the file, at keys below the contract; it stands before that key. */
export interface Remark {
  readonly path: readonly string[];
  readonly text: string;
}

export interface LeftOut {
  readonly kind: "tool" | "resource" | "prompt";
  readonly name: string;
  readonly why: string;
}

/** Proposes contracts for all that a server offers. The order of the server's list is kept within a group. */
export async function proposeContracts(offer: Offer): Promise<Proposal> {
  const leftOut: LeftOut[] = [];
  const proposed: ProposedTool[] = [];
  const taken = new Set<string>();
  const all = offer.tools.map((definition) => factsOf(definition, offer.server));
  const frequency = frequencies(all.map(({ words }) => words));
  for (const facts of all) {
    const why = DANGERS.find((danger) => danger.applies(facts))?.why;
    const tool = why === undefined ? await proposedTool(facts, offer, taken) : why;
    if (typeof tool === "string") leftOut.push({ kind: "tool", name: facts.name, why: tool });
    else {
      taken.add(tool.name);
      proposed.push({ ...tool, about: subjectOf(facts.words, frequency) });
    }
  }
  const others = otherEntries(offer);
  return { tools: grouped(proposed), ...others, leftOut: [...leftOut, ...others.leftOut] };
}

// ---- what a tool is ----

interface Facts {
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

function factsOf(definition: JsonObject, server: string): Facts {
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

const wordsOf = (name: string): readonly string[] =>
  name
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1 $2")
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .filter((word) => word !== "");

/** Tools that no contract makes safe: what they take is a program, or what they give is everything. */
const DANGERS: readonly { readonly why: string; applies(facts: Facts): boolean }[] = [
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

const VERBS: Readonly<Record<Access, ReadonlySet<string>>> = {
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
const ACCESSES = ["read", "write", "destructive"] as const;

/** What a call does at most. Where name and annotations do not agree the worse is believed. */
function accessOf({ words, description, annotations }: Facts): { readonly access: Access; readonly remark?: string } {
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

// ---- a contract ----

const SERVED_NAME = /^[A-Za-z0-9_.-]{1,128}$/;
const MAX_DEPTH = 8;
const MAX_BYTES = 65_536;
const MAX_TITLE = 200;
const MAX_WORDS = 1200;
const MAX_ARGUMENT_WORDS = 300;

/** A sentence instead when there is no contract for it. */
async function proposedTool(facts: Facts, offer: Offer, taken: ReadonlySet<string>): Promise<ProposedTool | string> {
  const name = servedNameOf(facts.name);
  if (name === undefined) return "has a name that clients cannot be shown";
  if (taken.has(name)) return `has a name that clients cannot tell from another one's (${name})`;
  const remarks: Remark[] = [];
  const input = await proposedInput(facts, remarks);
  if (typeof input === "string") return input;
  const { access, remark } = accessOf(facts);
  if (remark !== undefined) remarks.push({ path: ["access"], text: remark });
  const title = plainWords(facts.title ?? "", MAX_TITLE).text ?? sentenceOf(facts.words);
  const words = plainWords(facts.description, MAX_WORDS);
  if (words.suspicious)
    remarks.push({
      path: ["description"],
      text: "The server's own words read like orders to a model, so they are not copied.",
    });
  const description = words.text ?? `${title}.`;
  const missing = missingParts({ name, title, description, inputSchema: input.served });
  if (missing.length > 0)
    remarks.push({ path: ["description"], text: `To add: ${missing.map((part) => TO_ADD[part]).join(", ")}.` });
  const output = proposedOutput(facts, offer.samples?.get(facts.name), remarks);
  const example = exampleOf(facts, input.rules, input.served);
  const contract: JsonObject = {
    from: `${offer.server}/${facts.name}`,
    title,
    description,
    input: input.rules as JsonObject,
    ...(input.maxBytes !== undefined && { maxBytes: input.maxBytes }),
    output,
    access,
    ...(opensWorld(facts) && { openWorld: true }),
    ...(facts.annotations["openWorldHint"] === false && { openWorld: false }),
    ...(facts.annotations["idempotentHint"] === true && access !== "read" && { idempotent: true }),
    ...(example !== undefined &&
      input.accepts(example) && { examples: [{ arguments: example, sends: structuredClone(example) } as JsonObject] }),
  };
  const tool = { name, about: "", access, contract, remarks, together: undefined };
  return fitting(tool, facts, offer.server);
}

/** What is proposed can be loaded: a contract that does not fit its server is made to, or given up with the reason. */
async function fitting(tool: ProposedTool, facts: Facts, server: string): Promise<ProposedTool | string> {
  const definition = { server, kind: "tool", name: facts.name, value: facts.definition, text: "" } as const;
  const made = await compileContract(tool.name, toolContract.parse(tool.contract), definition);
  if (isContract(made)) return tool;
  const [problem] = made;
  const key = problem?.path[0];
  if (key === "access" && tool.access === "read") {
    const contract: JsonObject = { ...tool.contract, access: "write" };
    return fitting({ ...tool, contract, access: "write" }, facts, server);
  }
  const output = tool.contract["output"] as JsonObject;
  if (key === "output" && output["fields"] !== undefined) {
    const text = `No fields, since ${problem?.message ?? "they cannot be used"}.`;
    const { examples: _, ...contract } = { ...tool.contract, output: { maxBytes: ANSWER_BYTES } } as JsonObject;
    return fitting({ ...tool, contract, remarks: [...tool.remarks, { path: ["output"], text }] }, facts, server);
  }
  return `has no contract that fits: ${problem?.message ?? "no reason is known"}`;
}

const TO_ADD = {
  what: "what it does",
  when: "when to use it",
  "when-not": "when not",
  returns: "what it returns",
  limits: "its limits",
} as const satisfies Record<ReturnType<typeof missingParts>[number], string>;

function servedNameOf(name: string): string | undefined {
  const plain = name.replaceAll(/[^A-Za-z0-9_.-]+/g, "_").slice(0, 128);
  return SERVED_NAME.test(plain) && /[A-Za-z0-9]/.test(plain) ? plain : undefined;
}

function opensWorld({ annotations, words, properties, description }: Facts): boolean {
  if (typeof annotations["openWorldHint"] === "boolean") return annotations["openWorldHint"];
  return (
    /^(email|mail|send|sms|notify|browse|navigate|tweet)$/.test(words[0] ?? "") ||
    words.some((word) => /^(web|http|url|internet)$/.test(word)) ||
    Object.keys(properties).some((name) => /^(url|webhook|recipients?)$/i.test(name)) ||
    /\bthe (web|internet)\b/i.test(description)
  );
}

// ---- words ----

/** Words of a server that a model should not take for an order of the operator's. */
const ORDERS =
  /<\/?\s*(important|system|secret|instructions?)\b|\bignore (all |any\b |the )?(previous|prior|above|other)|\bdo not (tell|mention|inform|reveal|show)|\bbefore (using|calling) (this|any\b|other)\b|\bsystem prompt\b|\.ssh\b|\bid_rsa\b|\bwithout (telling|asking|informing)\b|\bsidenote\b/i;

/** One paragraph without anything invisible, cut at a sentence. */
function plainWords(
  text: string,
  longest: number,
): { readonly text: string | undefined; readonly suspicious: boolean } {
  const suspicious = ORDERS.test(text) || /[\p{Cf}\p{Co}]/u.test(text);
  const plain = text.replaceAll(/[\p{C}\s]+/gu, " ").trim();
  if (suspicious || plain === "") return { text: undefined, suspicious };
  if (plain.length <= longest) return { text: plain, suspicious };
  const cut = plain.slice(0, longest);
  const end = Math.max(cut.lastIndexOf(". "), cut.lastIndexOf("! "));
  return { text: end > longest / 3 ? cut.slice(0, end + 1) : `${cut.slice(0, cut.lastIndexOf(" "))} …`, suspicious };
}

function sentenceOf(words: readonly string[]): string {
  const text = words.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

// ---- input ----

interface ProposedInput {
  readonly rules: Readonly<Record<string, InputRule>>;
  readonly served: JsonObject;
  readonly maxBytes: number | undefined;
  accepts(args: JsonObject): boolean;
}

/** Rules for every argument that can be bounded and is proved to be taken; what cannot is left out, or said in a sentence. */
async function proposedInput(facts: Facts, remarks: Remark[]): Promise<ProposedInput | string> {
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
const LENGTHS: readonly (readonly [RegExp, number])[] = [
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
const OTHER_LENGTH = 1000;
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

/** Without its reference, and of alternatives the one that says most about its values. */
function shapeOf(written: JsonValue, root: JsonObject, depth = 0): JsonObject {
  const shapes = shapesOf(written, root, depth);
  const [first = {}] = shapes;
  return TYPES.flatMap((type) => shapes.filter((shape) => typeName(shape) === type)).at(0) ?? first;
}

/** From the narrowest; null is what an argument that is left out stands for anyway. */
const TYPES = ["boolean", "integer", "number", "string", "array", "object"] as const;

/** Every alternative, one for each type. */
function shapesOf(written: JsonValue, root: JsonObject, depth = 0): readonly JsonObject[] {
  if (!isSchemaObject(written) || depth > MAX_DEPTH) return [];
  if (typeof written["$ref"] === "string")
    return shapesOf((resolveRef(written["$ref"], root) ?? {}) as JsonValue, root, depth + 1);
  const branches = [written["anyOf"], written["oneOf"]].find(Array.isArray) as JsonValue[] | undefined;
  if (branches !== undefined) return branches.flatMap((branch) => shapesOf(branch, root, depth + 1));
  const { type } = written;
  return Array.isArray(type) ? type.map((one) => ({ ...written, type: one as JsonValue })) : [written];
}

function typeName({ type, properties }: JsonObject): string | undefined {
  if (typeof type === "string") return type;
  return properties === undefined ? undefined : "object";
}

// ---- output ----

const ANSWER_BYTES = 65_536;
const MAX_FIELDS = 60;
/** Fields that an agent rarely needs and an attacker always does. */
const PRIVATE =
  /(^|_)(ssn|nino|national_?insurance(_number)?|passport(_number)?|tax_?id|dob|date_of_birth|birth_?da(y|te)|password|passwd|secret|token|api_?key|private_?key|credentials?|salary|cost|cost_[a-z]+|margin|internal[a-z_]*|notes?|iban|account_number|card_number|cvv|e_?mail|email_address|phone|phone_number|mobile|address|street|postcode|zip|ip_?address|payment_reference)$/;

function proposedOutput(facts: Facts, sample: JsonValue | undefined, remarks: Remark[]): JsonObject {
  const bounds = { maxItems: 100, maxBytes: ANSWER_BYTES };
  const found =
    facts.output !== undefined
      ? fieldsOfSchema(facts.output, facts.output)
      : sample === undefined
        ? []
        : fieldsOfValue(sample);
  const all = [...new Set(found)].filter((field) => field !== "");
  if (all.length === 0) {
    remarks.push({
      path: ["output"],
      text: sample === undefined ? "All of the answer, up to this size." : "All of the answer: the sample is not JSON.",
    });
    return { maxBytes: ANSWER_BYTES };
  }
  const isPrivate = (field: string) =>
    PRIVATE.test(wordsOf(field.split("/").findLast((part) => part !== "*") ?? "").join("_"));
  const open = all.filter((field) => !isPrivate(field));
  const hidden = all.filter(isPrivate);
  const kept = (open.length > 0 ? open : all).slice(0, MAX_FIELDS);
  const rest = [...(open.length > 0 ? hidden : []), ...open.slice(MAX_FIELDS)];
  const shown = rest.slice(0, 30).join(", ");
  if (rest.length > 0)
    remarks.push({
      path: ["output"],
      text: `Left out: ${shown}${rest.length > 30 ? ` and ${rest.length - 30} more` : ""}. Add what agents need.`,
    });
  if (facts.output === undefined)
    remarks.push({ path: ["output"], text: "From one sample: fields that were not in it are missing here." });
  return { fields: kept, ...bounds };
}

/** Paths to what is no object, as `output.fields` has them. */
function fieldsOfSchema(written: JsonValue, root: JsonObject, path = "", depth = 0): readonly string[] {
  if (depth > MAX_DEPTH) return [];
  const schema = shapeOf(written, root);
  const type = typeName(schema);
  const below = (part: string) => (path === "" ? part : `${path}/${part}`);
  if (type === "array") {
    const inner = fieldsOfSchema(schema["items"] ?? true, root, below("*"), depth + 1);
    return inner.length > 0 ? inner : [below("*")];
  }
  if (type !== "object") return [path];
  const members = isSchemaObject(schema["properties"]) ? Object.entries(schema["properties"]) : [];
  const named = members.flatMap(([name, one]) =>
    fieldsOfSchema(one as JsonValue, root, below(escaped(name)), depth + 1),
  );
  const others = schema["additionalProperties"];
  return named.length === 0 && isSchemaObject(others) ? fieldsOfSchema(others, root, below("*"), depth + 1) : named;
}

function fieldsOfValue(value: JsonValue, path = "", depth = 0): readonly string[] {
  if (depth > MAX_DEPTH) return [];
  const below = (part: string) => (path === "" ? part : `${path}/${part}`);
  if (Array.isArray(value)) {
    const inner = value.slice(0, 20).flatMap((one) => fieldsOfValue(one, below("*"), depth + 1));
    return inner.length > 0 ? inner : [below("*")];
  }
  if (!isSchemaObject(value)) return [path];
  return Object.entries(value).flatMap(([name, one]) =>
    fieldsOfValue(one as JsonValue, below(escaped(name)), depth + 1),
  );
}

const escaped = (name: string) => name.replaceAll("~", "~0").replaceAll("/", "~1");

// ---- examples ----

/** Arguments that could be a client's; undefined when one that is needed cannot be made up. */
function exampleOf(
  facts: Facts,
  rules: Readonly<Record<string, InputRule>>,
  served: JsonObject,
): JsonObject | undefined {
  const properties = served["properties"] as JsonObject;
  const needed = Object.keys(rules).filter((name) => facts.required.has(name));
  const values = needed.map(
    (name) => [name, exampleValue(facts.properties[name], properties[name], facts.input)] as const,
  );
  return values.some(([, value]) => value === undefined) ? undefined : (Object.fromEntries(values) as JsonObject);
}

const OF_FORMAT: Readonly<Record<string, string>> = {
  date: "2026-01-31",
  "date-time": "2026-01-31T12:00:00Z",
  email: "someone@example.com",
  uri: "https://example.com/",
  uuid: "2f1b6f2e-6f0a-4c57-9a2e-0d8f5b0c1d2e",
};

/** `said`: as the server wrote it; `served`: what clients see of it. */
function exampleValue(
  said: JsonValue | undefined,
  served: JsonValue | undefined,
  root: JsonObject,
  depth = 0,
): JsonValue | undefined {
  if (served === undefined || !isSchemaObject(served) || depth > MAX_DEPTH) return undefined;
  const shape = shapeOf(served, root);
  const own = isSchemaObject(said) ? said : {};
  const given = [own["examples"], own["example"], own["default"], shape["enum"]]
    .flat()
    .find((one) => one !== undefined);
  if (given !== undefined && given !== null) return given as JsonValue;
  if (shape["const"] !== undefined) return shape["const"];
  switch (typeName(shape)) {
    case "string": {
      if (typeof shape["pattern"] === "string") return undefined;
      const format = shape["format"];
      if (typeof format === "string") return OF_FORMAT[format];
      const [least, most] = [Number(shape["minLength"] ?? 0), Number(shape["maxLength"] ?? OTHER_LENGTH)];
      return "example".slice(0, most).padEnd(Math.min(least, most), "e");
    }
    case "integer":
    case "number":
      return Math.max(1, Math.ceil(Number(shape["minimum"] ?? 1)));
    case "boolean":
      return false;
    case "array": {
      const one = exampleValue(shapeOf(said ?? {}, root)["items"], shape["items"], root, depth + 1);
      return one === undefined ? undefined : [one];
    }
    case "object": {
      const members = isSchemaObject(shape["properties"]) ? shape["properties"] : {};
      const needed = Array.isArray(shape["required"]) ? shape["required"].map(String) : [];
      const inner = shapeOf(said ?? {}, root)["properties"];
      const values = needed.map(
        (name) =>
          [
            name,
            exampleValue(isSchemaObject(inner) ? inner[name] : undefined, members[name], root, depth + 1),
          ] as const,
      );
      return values.some(([, value]) => value === undefined) ? undefined : (Object.fromEntries(values) as JsonObject);
    }
    default:
      return undefined;
  }
}

// ---- groups ----

const SMALL_WORDS: ReadonlySet<string> = new Set("a an the of to by for from in on with or and all my new".split(" "));

const isVerb = (word: string) => ACCESSES.some((one) => VERBS[one].has(word));
/** Verbs that are nouns where they do not come first. */
const NOUNS_TOO: ReadonlySet<string> = new Set(
  "order book comment post mark status info list register copy".split(" "),
);

const nounsOf = (words: readonly string[]): readonly string[] =>
  words
    .filter((word, at) => !SMALL_WORDS.has(word) && !(isVerb(word) && (at === 0 || !NOUNS_TOO.has(word))))
    .map(singular);

/** Of the nouns in its name the one that most tools have. */
function subjectOf(words: readonly string[], frequency: ReadonlyMap<string, number>): string {
  const often = (word: string) => frequency.get(word) ?? 0;
  return nounsOf(words).reduce((best, word) => (often(word) >= often(best) ? word : best), "");
}

function frequencies(tools: readonly (readonly string[])[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const word of tools.flatMap((words) => [...new Set(nounsOf(words))]))
    counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts;
}

const singular = (word: string) =>
  word.endsWith("ies") ? `${word.slice(0, -3)}y` : /[^s]s$/.test(word) && word.length > 3 ? word.slice(0, -1) : word;

function grouped(tools: readonly ProposedTool[]): readonly ProposedTool[] {
  const groups = Map.groupBy(tools, ({ about }) => about);
  const alone = [...groups.values()].filter((group) => group.length === 1).flat();
  const several = [...groups.values()].filter((group) => group.length > 1);
  return [
    ...several.flatMap((group) =>
      group.map((tool, at) => (at === 0 ? { ...tool, together: chainOf(group, tools) } : tool)),
    ),
    ...alone.map((tool) => ({ ...tool, about: several.length === 0 ? "" : "other" })),
  ];
}

/** A search whose answer has what another tool asks for: what people want is the two together. */
function chainOf(group: readonly ProposedTool[], all: readonly ProposedTool[]): string | undefined {
  for (const tool of group) {
    for (const name of Object.keys(tool.contract["input"] as JsonObject)) {
      const noun = /^(.+?)_?id$/i.exec(name)?.[1];
      const finder = all.find(
        (one) =>
          one !== tool &&
          one.access === "read" &&
          /^(search|find|lookup)/.test(one.name) &&
          nounsOf(wordsOf(one.name)).includes(singular(wordsOf(noun ?? "").at(-1) ?? "-")),
      );
      if (finder !== undefined)
        return `${finder.name} finds what ${tool.name} asks for (${name}): one tool with \`steps:\` can do both.`;
    }
  }
  return undefined;
}

// ---- resources and prompts ----

const MAX_RESOURCES = 20;

function otherEntries({
  server,
  resources = [],
  resourceTemplates = [],
  prompts = [],
}: Offer): Pick<Proposal, "resources" | "prompts" | "leftOut"> {
  const leftOut: LeftOut[] = [];
  const templates = resourceTemplates.flatMap(({ uriTemplate }) => templateOf(String(uriTemplate)) ?? []);
  const uris = [
    ...resourceTemplates.map(({ uriTemplate, ...rest }) => ({ ...rest, uri: uriTemplate })),
    // One that a template makes is served by it.
    ...resources.filter(({ uri }) => !templates.some((template) => template.match(String(uri)) !== undefined)),
  ] as readonly JsonObject[];
  const kept = uris.slice(0, MAX_RESOURCES);
  if (uris.length > kept.length)
    leftOut.push({
      kind: "resource",
      name: `${uris.length - kept.length} of ${uris.length}`,
      why: "a contract for each would be too long a list; name those that agents need",
    });
  const entry = (name: string, from: string, definition: JsonObject): ProposedEntry => {
    const remarks: Remark[] = [];
    const words = plainWords(String(definition["description"] ?? definition["title"] ?? ""), MAX_ARGUMENT_WORDS);
    if (words.suspicious)
      remarks.push({ path: [], text: "The server's own words read like orders to a model, so they are not copied." });
    const args = Array.isArray(definition["arguments"]) ? (definition["arguments"] as JsonObject[]) : [];
    const input = Object.fromEntries(
      args.map((one) => {
        const key = wordsOf(String(one["name"])).join("_");
        const [, maxLength = OTHER_LENGTH] = LENGTHS.find(([pattern]) => pattern.test(key)) ?? [];
        return [String(one["name"]), { maxLength }];
      }),
    );
    return {
      name,
      contract: {
        from,
        ...(words.text !== undefined && { description: words.text }),
        ...(args.length > 0 && { input }),
        output: { maxBytes: ANSWER_BYTES },
      },
      remarks,
    };
  };
  const named = prompts.flatMap((prompt): readonly ProposedEntry[] => {
    const own = String(prompt["name"]);
    const name = servedNameOf(own);
    if (name === undefined) leftOut.push({ kind: "prompt", name: own, why: "has a name that clients cannot be shown" });
    return name === undefined ? [] : [entry(name, `${server}/${own}`, prompt)];
  });
  return {
    resources: kept.map((one) => entry(String(one["uri"]), `${server}/${String(one["uri"])}`, one)),
    prompts: named,
    leftOut,
  };
}

/** Undefined for one of a kind that is not understood. */
function templateOf(text: string): UriTemplate | undefined {
  try {
    return compileUriTemplate(text);
  } catch {
    return undefined;
  }
}
