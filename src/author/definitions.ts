/** What clients see of declarations, and what a gateway enforces of them. */
import type { JsonObject, JsonValue } from "../core/call.ts";
import type { ListKey } from "../mcp/methods.ts";
import type { ModuleContracts } from "../mcp/module-server.ts";
import type { Documentation } from "./compile-errors.ts";
import type { Prompt, Resource } from "./resource.ts";
import type { Declared } from "./server.ts";
import { flatSchema, outputSchema } from "./soundness.ts";
import type { Tool } from "./tool.ts";

/** The lists of the protocol, as they are answered. */
export function definitionsOf({
  tools,
  resources = [],
  prompts = [],
}: Declared): Readonly<Record<ListKey, readonly JsonObject[]>> {
  const [templates, plain] = [true, false].map((wanted) =>
    resources.filter(({ uri }) => variablesOf(uri).length > 0 === wanted),
  );
  return {
    tools: tools.map(toolDefinition),
    resources: (plain ?? []).map((one) => ({ uri: one.uri, ...resourceDefinition(one) })),
    resourceTemplates: (templates ?? []).map((one) => ({ uriTemplate: one.uri, ...resourceDefinition(one) })),
    prompts: prompts.map(promptDefinition),
  };
}

/** The names in braces of a URI template. */
export const variablesOf = (uri: string): readonly string[] =>
  [...uri.matchAll(/\{(\w+)\}/g)].map(([, name]) => name ?? "");

function toolDefinition(tool: Tool): JsonObject {
  const { name, title, access, openWorld = false, idempotent } = tool;
  return {
    name,
    title,
    description: describe(tool.description),
    inputSchema: flatSchema(tool.input),
    outputSchema: outputSchema(tool.output),
    annotations: {
      readOnlyHint: access === "read",
      destructiveHint: access === "destructive",
      openWorldHint: openWorld,
      ...(idempotent !== undefined && { idempotentHint: idempotent }),
    },
  };
}

/** The five parts as one text, in the order in which a model needs them. */
export function describe({ does, useWhen, notWhen, returns, limits }: Documentation): string {
  return [does, `Use it ${useWhen}`, `Do not use it ${notWhen}`, `Returns ${returns}`, `Limits: ${limits}`]
    .map((part) => part.trim().replace(/[.;,\s]*$/, "."))
    .join(" ");
}

const resourceDefinition = ({ name, title, description }: Resource): JsonObject => ({
  name,
  title,
  description,
  mimeType: "application/json",
});

function promptDefinition({ name, title, description, input }: Prompt): JsonObject {
  const { properties = {}, required = [] } = flatSchema(input) as {
    properties?: Readonly<Record<string, JsonObject>>;
    required?: readonly string[];
  };
  const args = Object.entries(properties).map(([argument, schema]) => ({
    name: argument,
    description: schema["description"] ?? "",
    required: required.includes(argument),
  }));
  return { name, title, description, ...(args.length > 0 && { arguments: args }) };
}

/** The declarations in the form of a settings file, for the server that is called `as` in it. */
export function contractsOf({ tools, resources = [], prompts = [] }: Declared, as: string): ModuleContracts {
  return {
    tools: Object.fromEntries(tools.map((tool) => [tool.name, toolContract(tool, as)])),
    resources: Object.fromEntries(
      resources.map(({ uri, title, description }) => [uri, { from: `${as}/${uri}`, title, description }]),
    ),
    prompts: Object.fromEntries(prompts.map((prompt) => [prompt.name, promptContract(prompt, as)])),
    limits: Object.fromEntries(
      tools.flatMap(({ name, limits }) => (limits === undefined ? [] : [[`tool:${name}`, plain(limits)]])),
    ),
    stepUp: Object.fromEntries(
      tools.flatMap(({ name, scopes = [] }) => (scopes.length === 0 ? [] : [[`tool:${name}`, [...scopes]]])),
    ),
  };
}

function promptContract(prompt: Prompt, as: string): JsonObject {
  const { name, title, description } = prompt;
  const { properties = {} } = flatSchema(prompt.input) as { properties?: Readonly<Record<string, JsonObject>> };
  // Definitions of prompts have names alone: what bounds their arguments is said here.
  const input = Object.fromEntries(
    Object.entries(properties).map(([argument, schema]) => [
      argument,
      Object.fromEntries(Object.entries(schema).filter(([key]) => BOUNDS.has(key))),
    ]),
  );
  return { from: `${as}/${name}`, title, description, input };
}

const BOUNDS: ReadonlySet<string> = new Set(["description", "enum", "pattern", "minLength", "maxLength", "format"]);

/** Words go along: of what a contract does not say, clients are not told the server's words. */
function toolContract(tool: Tool, as: string): JsonObject {
  const { name, title, access, openWorld = false, idempotent, mask, approval } = tool;
  const { properties = {} } = flatSchema(tool.input) as { properties?: Readonly<Record<string, JsonObject>> };
  return {
    from: `${as}/${name}`,
    title,
    description: describe(tool.description),
    input: Object.fromEntries(
      Object.entries(properties).map(([argument, { description = "" }]) => [argument, { description }]),
    ),
    access,
    openWorld,
    ...(idempotent !== undefined && { idempotent }),
    ...(mask !== undefined && { mask: plain(mask) }),
    ...(approval !== undefined && { approval: typeof approval === "string" ? approval : plain(approval) }),
  };
}

const plain = (value: object): JsonObject => JSON.parse(JSON.stringify(value)) as Record<string, JsonValue>;
