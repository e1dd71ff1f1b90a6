/**
 * What a gateway does for a server, done or refused when there is none: a call that needs an approval asks the person at the client,
 * and is refused when that is not enough; masked fields do not leave.
 */
import type { JsonObject, JsonValue, Outcome } from "../core/call.ts";
import { isObject } from "../mcp/json-text.ts";
import type { ModuleCall } from "../mcp/module-server.ts";
import type { Logger } from "../observe/log-lines.ts";
import { cannotAsk } from "./context.ts";
import { openCounts } from "./counts.ts";
import type { Server } from "./server.ts";
import type { Tool } from "./tool.ts";

/** Calls `server` as whoever started it, with what of its declarations can be kept without a gateway. */
export function aloneWith(server: Server, log: Logger, counts = openCounts()): (call: ModuleCall) => Promise<Outcome> {
  const tools = new Map(server.declared.tools.map((tool) => [tool.name, tool]));
  const scoped = server.declared.tools.filter(({ scopes = [] }) => scopes.length > 0).map(({ name }) => name);
  if (scoped.length > 0)
    log.warn({ tools: scoped }, "scopes are those of a token, which there is none of over stdio: a gateway keeps them");
  const counted = async (tool: Tool, call: ModuleCall): Promise<Outcome> => {
    // As in a gateway, what does not fit is refused before it is counted, and an approval is asked for after.
    const end = tool.limits !== undefined && fits(tool, call) ? counts.take(tool) : () => {};
    try {
      const why = await unapproved(tool, call);
      return why === undefined ? await server.call(call) : toolError(why);
    } finally {
      end();
    }
  };
  return async (call) => {
    const tool = call.method === "tools/call" ? tools.get(String(call.params["name"])) : undefined;
    if (tool === undefined) return server.call(call);
    const outcome = await counted(tool, call);
    return tool.mask === undefined || outcome.kind === "error" ? outcome : withoutMasked(outcome.value, tool.mask);
  };
}

/** Whether the arguments are what was declared. The call itself says what is wrong with them. */
const fits = ({ input }: Tool, { params }: ModuleCall) => input.strict().safeParse(params["arguments"] ?? {}).success;

/** Why a call may not be made; undefined when it may. Fails closed: what only others can approve is not called. */
async function unapproved(tool: Tool, call: ModuleCall): Promise<string | undefined> {
  const { title, approval } = tool;
  if (approval === undefined || !fits(tool, call)) return undefined;
  const terms = typeof approval === "string" ? {} : approval;
  if (terms.by !== undefined || terms.fourEyes === true)
    return `${title} needs the approval of another person, which a gateway asks for. Serve this server by one.`;
  if (call.ask === undefined)
    return cannotAsk(`${title} needs the approval of a person, and the client cannot ask for one.`, call);
  const args = JSON.stringify(call.params["arguments"] ?? {}).slice(0, 1000);
  const answer = await call.ask(
    {
      method: "elicitation/create",
      params: JSON.stringify({
        mode: "form",
        message: `${title}: ${terms.reason ?? "this needs your approval."}\n${args}`,
        requestedSchema: {
          type: "object",
          properties: { approve: { type: "boolean", title: "Approve", description: "Make this call, once." } },
          required: ["approve"],
        },
      }),
    },
    call.signal,
  );
  if (answer.kind === "result") {
    const { action, content } = JSON.parse(answer.result) as { action?: unknown; content?: JsonObject };
    if (action === "accept" && content?.["approve"] === true) return undefined;
  }
  return `${title} was not approved.`;
}

/** There is nobody here who could tell stand-ins apart, so what is not kept as it is goes as a whole. */
function withoutMasked(value: JsonObject, mask: NonNullable<Tool["mask"]>): Outcome {
  const answer = value["structuredContent"];
  if (!isObject(answer)) return { kind: "result", result: JSON.stringify(value), value };
  const paths = Object.entries(mask).flatMap(([path, action]) => (action === "keep" ? [] : [path.split("/")]));
  const masked = paths.reduce<JsonValue>((whole, path) => hidden(whole, path), answer) as JsonObject;
  const shown: JsonObject = {
    ...value,
    content: [{ type: "text", text: JSON.stringify(masked) }],
    structuredContent: masked,
  };
  return { kind: "result", result: JSON.stringify(shown), value: shown };
}

function hidden(value: JsonValue, [key, ...rest]: readonly string[]): JsonValue {
  if (key === undefined) return veiled(value);
  if (Array.isArray(value)) return key === "*" ? value.map((one) => hidden(one, rest)) : value;
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [name, name === key || key === "*" ? hidden(one, rest) : one]),
  );
}

/** Keeps the kind of a value, which the output schema promises. */
function veiled(value: JsonValue): JsonValue {
  if (typeof value === "string") return "[masked]";
  if (typeof value === "number") return 0;
  if (typeof value === "boolean") return false;
  if (Array.isArray(value)) return value.map(veiled);
  return isObject(value) ? Object.fromEntries(Object.entries(value).map(([key, one]) => [key, veiled(one)])) : null;
}

function toolError(text: string): Outcome {
  const value: JsonObject = { content: [{ type: "text", text }], isError: true };
  return { kind: "result", result: JSON.stringify(value), value };
}
