/** One call of a declared tool, resource or prompt: its arguments checked, its handler run, and of what it says only what is declared. */
import { channel } from "node:diagnostics_channel";
import type { z } from "zod";
import type { JsonObject, Outcome } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { isObject } from "../mcp/json-text.ts";
import type { ModuleCall } from "../mcp/module-server.ts";
import { contextOf, Refusal } from "./context.ts";
import { openDeadline } from "./deadline.ts";
import type { Prompt, Resource } from "./resource.ts";
import type { Declared } from "./server.ts";
import type { Tool } from "./tool.ts";

const TIMEOUT_SECONDS = 60;
/**
 * What handlers return, or throw, before anything is taken out of it: `{ trace, value }` or `{ trace, thrown }`. For `drawbridge dev`, whose
 * copy of this package may be another one, so it is found by name. Without a listener it costs nothing.
 */
const HANDLED = channel("drawbridge-mcp/author/handled");
/** Of a stranger's list of mistakes no more are told. */
const MAX_TOLD = 10;

export function openCalls({ tools, resources = [], prompts = [] }: Declared): (call: ModuleCall) => Promise<Outcome> {
  const byName = new Map(tools.map((tool) => [tool.name, { tool, input: tool.input.strict() }]));
  const readers = resources.map((resource) => ({
    resource,
    match: matcherOf(resource.uri),
    input: resource.input.strict(),
  }));
  const promptsByName = new Map(prompts.map((prompt) => [prompt.name, { prompt, input: prompt.input.strict() }]));

  const callTool = async (call: ModuleCall): Promise<Outcome> => {
    const { name, arguments: given = {} } = call.params;
    const found = byName.get(String(name));
    if (found === undefined) return unknown(`Unknown tool: ${String(name).slice(0, 200)}`);
    const { tool, input } = found;
    const read = input.safeParse(given);
    if (!read.success) return toolError(`The arguments of ${tool.name} were refused: ${told(read.error)}.`);
    const did = await handled(tool, read.data, call, tool.timeoutSeconds);
    if (did.kind === "refused") return toolError(did.message);
    const answer = declaredPart(tool, did.value, call);
    if (answer === undefined) return failed(tool.name);
    const text = JSON.stringify(answer);
    const value = { content: [{ type: "text", text }], structuredContent: answer };
    // What stands in it twice is made once.
    const whole = `{"content":[{"type":"text","text":${JSON.stringify(text)}}],"structuredContent":${text}}`;
    return { kind: "result", result: whole, value };
  };

  const readResource = async (call: ModuleCall): Promise<Outcome> => {
    const uri = String(call.params["uri"]);
    for (const { resource, match, input } of readers) {
      const variables = match(uri);
      if (variables === undefined) continue;
      const read = input.safeParse(variables);
      if (!read.success) break;
      const did = await handled(resource, read.data, call);
      if (did.kind === "refused") return { kind: "error", code: -32602, message: did.message, data: undefined };
      const answer = declaredPart(resource, did.value, call);
      if (answer === undefined) return failed(resource.name);
      return result({ contents: [{ uri, mimeType: "application/json", text: JSON.stringify(answer) }] });
    }
    return { kind: "error", code: -32002, message: "Resource not found", data: JSON.stringify({ uri }) };
  };

  const getPrompt = async (call: ModuleCall): Promise<Outcome> => {
    const { name, arguments: given = {} } = call.params;
    const found = promptsByName.get(String(name));
    if (found === undefined) return unknown(`Unknown prompt: ${String(name).slice(0, 200)}`);
    const { prompt, input } = found;
    const read = input.safeParse(given);
    if (!read.success) return unknown(`The arguments of ${prompt.name} were refused: ${told(read.error)}.`);
    const did = await handled(prompt, read.data, call);
    if (did.kind === "refused") return unknown(did.message);
    if (typeof did.value !== "string") return failed(prompt.name);
    return result({
      description: prompt.description,
      messages: [{ role: "user", content: { type: "text", text: did.value } }],
    });
  };

  const METHODS: Readonly<Record<string, (call: ModuleCall) => Promise<Outcome>>> = {
    "tools/call": callTool,
    "resources/read": readResource,
    "prompts/get": getPrompt,
  };
  return async (call) => {
    const method = Object.hasOwn(METHODS, call.method) ? METHODS[call.method] : undefined;
    return method?.(call) ?? { kind: "error", code: -32601, message: "Method not found", data: undefined };
  };
}

type Did = { readonly kind: "did"; readonly value: unknown } | { readonly kind: "refused"; readonly message: string };

/** Runs a handler within its time. What it throws reaches the log; the words of a `Refusal` and errors of ours reach the caller. */
async function handled(
  { name, handler }: Tool | Resource | Prompt,
  args: unknown,
  call: ModuleCall,
  timeoutSeconds = TIMEOUT_SECONDS,
): Promise<Did> {
  const deadline = openDeadline(timeoutSeconds * 1000, () => call.signal);
  const context = contextOf(call, deadline);
  try {
    const run = handler as (args: unknown, context: unknown) => unknown;
    const value = await deadline.within(() => thenable(run(args, context)));
    if (HANDLED.hasSubscribers) HANDLED.publish({ trace: call.trace, value });
    return { kind: "did", value };
  } catch (thrown) {
    if (HANDLED.hasSubscribers) HANDLED.publish({ trace: call.trace, thrown });
    if (thrown instanceof Refusal) return { kind: "refused", message: thrown.message };
    if (thrown instanceof DrawbridgeError) throw thrown;
    call.log.error({ tool: name, error: thrown }, "a handler failed");
    throw new DrawbridgeError("upstream_failed", `${name} failed. The operator's log says why.`, { cause: thrown });
  }
}

/** What handlers return as one of the two kinds there are: other libraries have promises of their own. */
function thenable(value: unknown): unknown {
  const { then } = (value ?? {}) as { readonly then?: unknown };
  return typeof then === "function" ? Promise.resolve(value) : value;
}

/** What of an answer was declared; undefined, with a word to the operator, when it is not what was declared. */
function declaredPart({ name, output }: Tool | Resource, value: unknown, call: ModuleCall): JsonObject | undefined {
  const read = output.safeParse(value);
  if (read.success && isObject(read.data)) return read.data;
  // Paths and kinds of mistakes; what the handler returned stays here.
  const problems = read.success
    ? ["it is no object"]
    : read.error.issues.map(({ path, code }) => `${path.join("/")}: ${code}`);
  call.log.error({ tool: name, problems: problems.slice(0, MAX_TOLD) }, "an answer is not what was declared");
  return undefined;
}

function told(error: z.ZodError): string {
  return error.issues
    .slice(0, MAX_TOLD)
    .map(({ path, message }) => (path.length === 0 ? message : `${path.join("/")}: ${message}`).slice(0, 200))
    .join("; ");
}

const unknown = (message: string): Outcome => ({ kind: "error", code: -32602, message, data: undefined });
const failed = (name: string): Outcome => ({
  kind: "error",
  code: -32603,
  message: `${name} could not answer. The operator's log says why.`,
  data: undefined,
});

/** MCP, Tools, Error Handling: a result, so that the model can correct itself. */
const toolError = (text: string): Outcome => result({ content: [{ type: "text", text }], isError: true });

function result(value: JsonObject): Outcome {
  return { kind: "result", result: JSON.stringify(value), value };
}

/** Reads the variables of a URI; a variable is one segment, percent-decoded. */
function matcherOf(uri: string): (uri: string) => Record<string, string> | undefined {
  const names: string[] = [];
  const source = uri
    .split(/(\{\w+\})/)
    .map((part) => {
      const name = /^\{(\w+)\}$/.exec(part)?.[1];
      if (name === undefined) return part.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
      names.push(name);
      return "([^/?#]+)";
    })
    .join("");
  const pattern = new RegExp(`^${source}$`);
  return (given) => {
    const found = pattern.exec(given);
    if (found === null) return undefined;
    try {
      return Object.fromEntries(names.map((name, at) => [name, decodeURIComponent(found[at + 1] ?? "")]));
    } catch {
      return undefined; // Not percent-encoded as URIs are.
    }
  };
}
