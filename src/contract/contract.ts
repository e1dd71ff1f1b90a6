/**
 * Contracts: what one tool, resource or prompt is to its clients, whatever the server behind it offers. Here a contract of the
 * settings meets the server's definition; what comes out is what is served, checked, sent and handed back. Made when a definition is
 * read; a call costs a check, a pass over the arguments and a pass over the answer.
 */
import type { JsonObject, JsonValue } from "../core/call.ts";
import { isSchemaObject } from "./accepts.ts";
import { type Composition, compose, composedInput } from "./compose.ts";
import type { Definition, DefinitionKind } from "./definition.ts";
import { type Narrowing, narrowInput, withoutWords } from "./narrow.ts";
import { compileProjection, type Projection } from "./project.ts";
import type {
  InputRule,
  PromptContractSettings,
  ResourceContractSettings,
  StepSettings,
  ToolContractSettings,
} from "./settings.ts";
import type { ComposeOptions } from "./steps.ts";
import { compileUriTemplate, type UriTemplate } from "./uri-template.ts";

export type Access = "read" | "write" | "destructive";

/** A definition of a server: `server/name` in the settings. */
export interface Source {
  readonly server: string;
  readonly name: string;
}

export interface Contract {
  readonly kind: DefinitionKind;
  /** What clients call it. */
  readonly name: string;
  /** What it is made of; of a tool with steps that of the first one. */
  readonly source: Source;
  /** The definition that clients see. */
  readonly served: JsonObject;
  /** What clients may send, and what of it the server gets. Undefined: what the server says itself, unchanged. */
  readonly narrowing: Narrowing | undefined;
  /** What clients get of the answer. Undefined: all of it, as it came. */
  readonly projection: Projection | undefined;
  readonly access: Access | undefined;
  /** Of a tool that is served as a resource: its URI, with the arguments as variables. Then `served` is that resource (template). */
  readonly uri: UriTemplate | undefined;
  /** Of a tool with steps: does them. The arguments are what `narrowing.toServer` makes of the client's. */
  readonly composition: Composition | undefined;
  /** What the operator wrote; undefined while it is being made. */
  readonly settings?: ContractSettings;
}

/** Why a contract cannot be used: one sentence each, with the key below the contract that it is about. */
export interface ContractProblem {
  readonly path: readonly string[];
  readonly message: string;
}

export type ContractSettings = ToolContractSettings | ResourceContractSettings | PromptContractSettings;
/** A tool made of steps, which has no definition of its own at a server. */
export type OutcomeSettings = ToolContractSettings & { readonly steps: readonly StepSettings[] };

export const isContract = (made: Contract | readonly ContractProblem[]): made is Contract => !Array.isArray(made);

/** `server/name`; the name may have slashes. */
export function sourceOf(from: string): Source {
  const slash = from.indexOf("/");
  return { server: from.slice(0, slash), name: from.slice(slash + 1) };
}

/** A contract whose name is a glob serves what it finds as it is; the star stands for what the server calls it. */
export const servesAll = (name: string) => name.endsWith("*");
export const nameOfServed = (pattern: string, found: string) => `${pattern.slice(0, -1)}${found}`;

/** Puts a contract and the definition it is about together, or says everything that stands against it. Never rejects. */
export async function compileContract(
  name: string,
  settings: ContractSettings,
  definition: Definition,
): Promise<Contract | readonly ContractProblem[]> {
  if (servesAll(name)) return asItIs(nameOfServed(name, definition.name), settings, definition);
  if (definition.kind === "tool") return toolContract(name, settings as ToolContractSettings, definition);
  if (definition.kind === "prompt") return promptContract(name, settings as PromptContractSettings, definition);
  return resourceContract(name, settings as ResourceContractSettings, definition);
}

const NAMED_BY = { tool: "name", prompt: "name", resource: "uri", resourceTemplate: "uriTemplate" } as const;

async function asItIs(
  name: string,
  settings: ContractSettings,
  definition: Definition,
): Promise<Contract | readonly ContractProblem[]> {
  const { kind, value } = definition;
  const projection = await projectionOf(settings, undefined);
  if (Array.isArray(projection)) return projection;
  const { outputSchema, ...rest } = value;
  // What may be cut need not fit what the server promises.
  const served = { ...(projection === undefined ? value : rest), [NAMED_BY[kind]]: name } as JsonObject;
  return { ...bare(name, definition), served, projection: projection as Projection | undefined };
}

const bare = (name: string, { kind, server, name: found }: Definition) => ({
  kind,
  name,
  source: { server, name: found },
  narrowing: undefined,
  projection: undefined,
  access: undefined,
  uri: undefined,
  composition: undefined,
});

// ---- tools ----

async function toolContract(
  name: string,
  settings: ToolContractSettings,
  definition: Definition,
): Promise<Contract | readonly ContractProblem[]> {
  const { value } = definition;
  const schema = isSchemaObject(value["inputSchema"]) ? value["inputSchema"] : { type: "object" };
  const promised = isSchemaObject(value["outputSchema"]) ? value["outputSchema"] : undefined;
  const [narrowing, projection] = await Promise.all([
    narrowInput(schema, settings.input, optionsOf(settings)),
    projectionOf(settings, promised),
  ]);
  const problems = [
    ...problemsOf(narrowing, "input"),
    ...problemsOf(projection),
    ...accessProblems(settings, definition),
    ...(settings.as === undefined ? [] : resourceProblems(settings, narrowing, value)),
  ];
  if (problems.length > 0 || isProblems(narrowing) || isProblems(projection)) return problems;
  const made = { ...bare(name, definition), narrowing, projection, access: settings.access };
  if (settings.as !== undefined) {
    const uri = compileUriTemplate(settings.as.resource);
    return { ...made, uri, served: asResource(name, settings, value, uri) };
  }
  const outputSchema =
    projection === undefined ? promised && (withoutWords(promised) as JsonObject) : projection.schema;
  return {
    ...made,
    uri: undefined,
    served: servedTool(name, settings, { definition: value, narrowing, outputSchema }),
  };
}

/** What clients see of a tool. `definition`: the server's, whose words are used where the contract has none of its own. */
export function servedTool(
  name: string,
  settings: ToolContractSettings,
  of: { readonly definition: JsonObject; readonly narrowing: Narrowing; readonly outputSchema: JsonObject | undefined },
): JsonObject {
  const annotations = annotationsOf(settings, of.definition);
  const taskable = isSchemaObject(of.definition["execution"]) && of.definition["execution"]["taskSupport"];
  return {
    name,
    ...wordsOf(settings, of.definition),
    inputSchema: of.narrowing.served,
    ...(of.outputSchema !== undefined && { outputSchema: of.outputSchema }),
    ...(annotations !== undefined && { annotations }),
    // Whoever calls it as it is waits for its end (2025-11-25, Tool-Level Negotiation).
    ...((taskable === "required" || taskable === "optional") && { execution: { taskSupport: "optional" } }),
  };
}

/** The operator's words; the server's, which are pinned, only where there are none at all. */
function wordsOf({ title, description }: ContractSettings, definition: JsonObject): JsonObject {
  const own = title !== undefined || description !== undefined;
  const words =
    own && description !== undefined
      ? { title, description }
      : { title: title ?? definition["title"], description: definition["description"] };
  return Object.fromEntries(Object.entries(words).filter(([, text]) => typeof text === "string")) as JsonObject;
}

const HINTS = ["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"] as const;

function annotationsOf(
  { access, idempotent, openWorld }: ToolContractSettings,
  definition: JsonObject,
): JsonObject | undefined {
  const said = hintsOf(definition);
  const own: Record<string, boolean> = {};
  if (access === undefined) for (const hint of HINTS) if (typeof said[hint] === "boolean") own[hint] = said[hint];
  if (access !== undefined) {
    own["readOnlyHint"] = access === "read";
    own["destructiveHint"] = access === "destructive";
  }
  if (idempotent !== undefined) own["idempotentHint"] = idempotent;
  if (openWorld !== undefined) own["openWorldHint"] = openWorld;
  return Object.keys(own).length === 0 ? undefined : own;
}

const hintsOf = (definition: JsonObject): JsonObject =>
  isSchemaObject(definition["annotations"]) ? definition["annotations"] : {};

/** Verbs that a reading tool does not begin its name with. */
const CHANGING =
  /^(add|archive|assign|append|approve|ban|block|buy|cancel|charge|clear|close|commit|create|deactivate|delete|deploy|destroy|disable|drop|edit|enable|erase|execute|grant|insert|invite|kill|merge|modify|move|patch|pay|post|publish|purge|push|put|refund|remove|rename|replace|reset|restart|revoke|rotate|run|send|set|shutdown|start|stop|store|submit|terminate|transfer|truncate|update|upload|upsert|wipe|write)(?=$|[_\-./A-Z0-9])/;

/** What the server itself says against the access, in so many words. `unproven: accept` takes the operator's word. */
function accessProblems(
  { access, idempotent, openWorld, unproven }: ToolContractSettings,
  { name, value }: Definition,
): readonly ContractProblem[] {
  if (unproven === "accept") return [];
  const said = hintsOf(value);
  const advice = "Write `unproven: accept` if you know better";
  const problem = (key: string, message: string): ContractProblem => ({
    path: [key],
    message: `${message}. ${advice}`,
  });
  const problems: ContractProblem[] = [];
  if (access === "read" && said["readOnlyHint"] === false)
    problems.push(problem("access", "is read, and the server says that the tool is not read-only"));
  else if (
    (access === "read" || (access === "write" && said["readOnlyHint"] !== true)) &&
    said["destructiveHint"] === true
  )
    problems.push(problem("access", `is ${access}, and the server says that the tool destroys`));
  else if (access === "read" && said["readOnlyHint"] !== true && CHANGING.test(name))
    problems.push(problem("access", `is read, and ${JSON.stringify(name)} sounds as if it changed something`));
  if (idempotent === true && said["idempotentHint"] === false && said["readOnlyHint"] !== true)
    problems.push(problem("idempotent", "is true, and the server says that calling it twice does more"));
  if (openWorld === false && said["openWorldHint"] === true)
    problems.push(problem("openWorld", "is false, and the server says that it reaches beyond its own data"));
  return problems;
}

/** Puts a contract with steps and the tools that it calls together, or says everything that stands against it. Never rejects. */
export async function compileOutcome(
  name: string,
  settings: OutcomeSettings,
  options: ComposeOptions,
): Promise<Contract | readonly ContractProblem[]> {
  const [narrowing, projection] = await Promise.all([composedInput(settings), projectionOf(settings, undefined)]);
  if (isProblems(narrowing)) return problemsOf(narrowing, "input");
  if (isProblems(projection)) return projection;
  const composition = await compose(settings, narrowing.served, options);
  if (isProblems(composition)) return composition;
  if (settings.access === "read" && composition.changes && settings.unproven !== "accept")
    return [{ path: ["access"], message: "is read, and not all of the steps only read" }];
  const access = settings.access ?? (composition.changes ? undefined : "read");
  const [first] = settings.steps;
  const source = sourceOf(first?.call ?? "");
  const words = { ...settings, access };
  const served = servedTool(name, words, { definition: {}, narrowing, outputSchema: projection?.schema });
  const made = bare(name, { kind: "tool", ...source, value: served, text: "" });
  return { ...made, served, narrowing, projection, access, composition };
}

// ---- tools as resources ----

function asResource(
  name: string,
  settings: ToolContractSettings,
  definition: JsonObject,
  uri: UriTemplate,
): JsonObject {
  return {
    [uri.variables.length === 0 ? "uri" : "uriTemplate"]: uri.text,
    name,
    ...wordsOf(settings, definition),
    mimeType: "application/json",
  };
}

function resourceProblems(
  { as: form, access }: ToolContractSettings,
  narrowing: Narrowing | readonly unknown[],
  definition: JsonObject,
): readonly ContractProblem[] {
  const path = ["as", "resource"];
  if (access !== "read") return [{ path: ["as"], message: "is for tools that only read; write `access: read`" }];
  const execution = definition["execution"];
  if (isSchemaObject(execution) && execution["taskSupport"] === "required")
    return [{ path: ["as"], message: "cannot be: the server runs this tool as a task" }];
  let uri: UriTemplate;
  try {
    uri = compileUriTemplate(form?.resource ?? "");
  } catch (thrown) {
    return [{ path, message: messageOf(thrown) }];
  }
  if (Array.isArray(narrowing)) return [];
  const { served } = narrowing as Narrowing;
  const visible = Object.keys((served["properties"] ?? {}) as JsonObject);
  const required = ((served["required"] ?? []) as readonly JsonValue[]).map(String);
  const unknown = uri.variables.find((name) => !visible.includes(name));
  if (unknown !== undefined)
    return [
      { path, message: `{${unknown}} is no argument that clients may send; there are ${visible.join(", ") || "none"}` },
    ];
  const missing = required.find((name) => !uri.variables.includes(name));
  return missing === undefined ? [] : [{ path, message: `lacks {${missing}}, which the tool needs` }];
}

/** The arguments that a URI of the template stands for, each of the type that the contract gives it. */
export function argumentsIn({ uri, narrowing }: Contract, written: string): JsonObject | undefined {
  const values = uri?.match(written);
  if (values === undefined) return undefined;
  const properties = (narrowing?.served["properties"] ?? {}) as Readonly<Record<string, JsonValue>>;
  return Object.fromEntries(
    Object.entries(values).map(([name, text]) => [
      name,
      valueIn(text, isSchemaObject(properties[name]) ? properties[name] : {}),
    ]),
  );
}

function valueIn(text: string, { type }: JsonObject): JsonValue {
  if ((type === "integer" || type === "number") && /^-?\d{1,15}(\.\d{1,15})?$/.test(text)) return Number(text);
  return type === "boolean" && /^(true|false)$/.test(text) ? text === "true" : text;
}

// ---- resources and prompts ----

async function resourceContract(
  name: string,
  settings: ResourceContractSettings,
  definition: Definition,
): Promise<Contract | readonly ContractProblem[]> {
  const { kind, value } = definition;
  const projection = await projectionOf(settings, undefined);
  if (isProblems(projection)) return projection;
  const { mimeType, size, name: title } = value;
  const served: JsonObject = {
    [NAMED_BY[kind]]: name,
    name: typeof title === "string" && settings.description === undefined ? title : (settings.title ?? name),
    ...wordsOf(settings, value),
    ...(typeof mimeType === "string" && { mimeType }),
    ...(typeof size === "number" && projection === undefined && { size }),
  };
  const made = { ...bare(name, definition), served, projection };
  if (kind !== "resourceTemplate") return made;
  try {
    const [own, its] = [compileUriTemplate(name), compileUriTemplate(definition.name)];
    const foreign = own.variables.find((variable) => !its.variables.includes(variable));
    if (foreign !== undefined || own.variables.length !== its.variables.length)
      return [{ path: [], message: `must have the variables that the server has: ${its.variables.join(", ")}` }];
    return { ...made, uri: own };
  } catch (thrown) {
    // What the server calls it needs no understanding while clients call it the same.
    return name === definition.name ? made : [{ path: [], message: messageOf(thrown) }];
  }
}

const PROMPT_ARGUMENT: InputRule = { type: "string", maxLength: 4000 };

async function promptContract(
  name: string,
  settings: PromptContractSettings,
  definition: Definition,
): Promise<Contract | readonly ContractProblem[]> {
  const offered = promptArguments(definition.value);
  const schema: JsonObject = {
    type: "object",
    properties: Object.fromEntries(offered.map((one) => [one.name, { type: "string" }])),
    required: offered.filter((one) => one.required).map((one) => one.name),
    additionalProperties: false,
  };
  // Arguments of prompts have no schema, so nobody could have given them bounds.
  const rules = settings.input ?? Object.fromEntries(offered.map((one) => [one.name, PROMPT_ARGUMENT]));
  const [narrowing, projection] = await Promise.all([
    narrowInput(schema, rules, { maxDepth: 2, maxBytes: 65_536, unproven: settings.unproven === "accept" }),
    projectionOf(settings, undefined),
  ]);
  const problems = [
    ...problemsOf(narrowing, "input"),
    ...problemsOf(projection),
    ...(settings.output?.fields === undefined
      ? []
      : [{ path: ["output", "fields"], message: "is for answers that are JSON, and those of prompts are messages" }]),
  ];
  if (problems.length > 0 || isProblems(narrowing) || isProblems(projection)) return problems;
  const { properties = {}, required = [] } = narrowing.served as {
    properties?: Record<string, JsonObject>;
    required?: readonly string[];
  };
  const args = Object.entries(properties).map(([argument, { description }]) => ({
    name: argument,
    ...(typeof description === "string" && { description }),
    required: required.includes(argument),
  }));
  const served: JsonObject = {
    name,
    ...wordsOf(settings, definition.value),
    ...(args.length > 0 && { arguments: args }),
  };
  return { ...bare(name, definition), served, narrowing, projection };
}

function promptArguments({
  arguments: args,
}: JsonObject): readonly { readonly name: string; readonly required: boolean }[] {
  return (Array.isArray(args) ? (args as JsonObject[]) : []).flatMap(({ name, required }) =>
    typeof name === "string" ? [{ name, required: required === true }] : [],
  );
}

// ---- parts ----

export const optionsOf = ({ maxDepth, maxBytes, unproven }: ToolContractSettings) => ({
  maxDepth,
  maxBytes,
  unproven: unproven === "accept",
});

/** Undefined when the contract says nothing of answers. */
export async function projectionOf(
  { output }: Pick<ContractSettings, "output">,
  promised: JsonObject | undefined,
): Promise<Projection | undefined | readonly ContractProblem[]> {
  if (output === undefined) return undefined;
  try {
    return await compileProjection(output, promised);
  } catch (thrown) {
    return [{ path: ["output"], message: messageOf(thrown) }];
  }
}

const isProblems = (made: unknown): made is readonly ContractProblem[] => Array.isArray(made);

function problemsOf(made: unknown, below?: string): readonly ContractProblem[] {
  if (!isProblems(made)) return [];
  return below === undefined ? made : made.map(({ path, message }) => ({ path: [below, ...path], message }));
}

const messageOf = (thrown: unknown) => (thrown instanceof Error ? thrown.message : String(thrown));
