/** A client of either era that knows tasks, in the raw. */
import type { Json } from "../fixtures/messages.ts";
import { META, MODERN } from "../fixtures/messages.ts";
import { waitFor } from "../fixtures/processes.ts";
import { postRaw } from "../fixtures/raw-client.ts";
import type { Message } from "./legacy-client.ts";
import { type ClientEra, rawSession } from "./scripted.ts";

export const TASKS = "io.modelcontextprotocol/tasks";

export interface Answer {
  readonly status: number;
  readonly result: Json | undefined;
  readonly error: { readonly code: number; readonly message: string; readonly data?: unknown } | undefined;
  /** Everything that was said, as it came. */
  readonly body: string;
}

export interface TaskClient {
  readonly era: ClientEra;
  readonly headers: Readonly<Record<string, string>>;
  ask(method: string, params?: Json): Promise<Answer>;
  /** Calls a tool as a task, and gives back the task. */
  begin(tool: string, args: Json, ttl?: number): Promise<Json & { taskId: string }>;
  call(tool: string, args: Json): Promise<Answer>;
  state(taskId: string): Promise<Answer>;
  /** What the call would have been answered. */
  end(taskId: string): Promise<{ readonly result?: Json | undefined; readonly error?: Answer["error"] }>;
  cancel(taskId: string): Promise<Answer>;
}

/** The id of the task that a legacy client's call was answered with. */
export function madeBy({ message }: { readonly message: Message | undefined }): string {
  const task = message?.result?.["task"] as { taskId?: string } | undefined;
  if (task?.taskId === undefined) throw new Error(`no task: ${JSON.stringify(message)}`);
  return task.taskId;
}

/** `capabilities` beside tasks; `tasks: false` for a client that does not know them. */
export async function taskClient(
  url: string,
  token: string,
  era: ClientEra,
  { capabilities = {}, tasks = true }: { capabilities?: Json; tasks?: boolean } = {},
): Promise<TaskClient> {
  const declared = tasks && era === "modern" ? { ...capabilities, extensions: { [TASKS]: {} } } : capabilities;
  const { headers } = await rawSession(url, token, era, JSON.stringify(declared));
  let last = 0;
  const ask = async (method: string, params: Json = {}): Promise<Answer> => {
    const envelope = { [`${META}/protocolVersion`]: MODERN, [`${META}/clientCapabilities`]: declared };
    const all =
      era === "modern" ? { ...params, _meta: { ...(params["_meta"] as Json | undefined), ...envelope } } : params;
    const name = params["name"] ?? params["taskId"];
    const reply = await postRaw(url, JSON.stringify({ jsonrpc: "2.0", id: ++last, method, params: all }), {
      ...headers,
      ...(era === "modern" && {
        "mcp-protocol-version": MODERN,
        "mcp-method": method,
        ...(typeof name === "string" && { "mcp-name": name }),
      }),
    });
    const answer = reply.messages.find((message) => message.method === undefined);
    return {
      status: reply.status,
      result: answer?.result,
      error: answer?.error as Answer["error"],
      body: reply.body,
    };
  };
  const state = (taskId: string) => ask("tasks/get", { taskId });
  return {
    era,
    headers,
    ask,
    call: (name, args) => ask("tools/call", { name, arguments: args }),
    async begin(name, args, ttl) {
      const task = era === "legacy" ? { task: ttl === undefined ? {} : { ttl } } : {};
      const { result, body } = await ask("tools/call", { name, arguments: args, ...task });
      const made = (era === "legacy" ? result?.["task"] : result) as (Json & { taskId: string }) | undefined;
      if (typeof made?.taskId !== "string") throw new Error(`no task: ${body}`);
      return made;
    },
    state,
    async end(taskId) {
      if (era === "legacy") return ask("tasks/result", { taskId });
      return waitFor(async () => {
        const { result, error } = await state(taskId);
        if (error !== undefined) return { error };
        const status = result?.["status"];
        if (status === "completed") return { result: result?.["result"] as Json };
        return status === "failed" ? { error: result?.["error"] as Answer["error"] } : undefined;
      });
    },
    cancel: (taskId) => ask("tasks/cancel", { taskId }),
  };
}
