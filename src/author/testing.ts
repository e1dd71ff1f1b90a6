/** For tests of a server: its tools called as anybody, with no socket and no process. */
import type { JsonObject, Principal } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { ModuleCall } from "../mcp/module-server.ts";
import { silentLogger } from "../observe/log-lines.ts";
import type { Server } from "./server.ts";
import { localUser } from "./stdio.ts";

export interface CallerOptions extends Partial<Principal> {
  /** What the person says to each question, in order: what they fill in, or that they would not. Default: nobody can be asked. */
  readonly answers?: readonly (JsonObject | "decline" | "cancel")[];
  /** What `context.upstreamToken()` gives. */
  readonly upstreamToken?: string;
  readonly signal?: AbortSignal;
}

export interface Caller {
  /** Resolves with what a client gets as `structuredContent`. Throws `ToolRefused` with the words a model reads when it is refused. */
  call(tool: string, args?: JsonObject): Promise<JsonObject>;
  read(uri: string): Promise<JsonObject>;
  prompt(name: string, args?: JsonObject): Promise<string>;
  /** The questions that were asked, and the progress that was told, so far. */
  readonly asked: readonly string[];
  readonly progress: readonly JsonObject[];
}

/** The call was answered with an error that its model reads. */
export class ToolRefused extends Error {
  override readonly name = "ToolRefused";
}

/**
 * Somebody who calls the tools of a server: `as(desk, { subject: "ann", groups: ["support"] }).call("look_up_order", { … })`. Roles,
 * limits, approvals and masks are the gateway's and not tried here; what the declarations make of them is in `desk.contracts("desk")`.
 */
export function as(server: Server, options: CallerOptions = {}): Caller {
  const { answers, upstreamToken, signal = new AbortController().signal, ...who } = options;
  const left = [...(answers ?? [])];
  const asked: string[] = [];
  const progress: JsonObject[] = [];
  const principal: Principal = { ...localUser("test"), ...who };
  const send = async (method: string, params: JsonObject): Promise<JsonObject> => {
    const call: ModuleCall = {
      method,
      params,
      principal,
      signal,
      log: silentLogger,
      progress: (told) => progress.push(told),
      ...(answers !== undefined && {
        ask: async ({ params: question }: { readonly params: string }) => {
          asked.push(String((JSON.parse(question) as JsonObject)["message"]));
          const next = left.shift() ?? "cancel";
          const answer = typeof next === "string" ? { action: next } : { action: "accept", content: next };
          return { kind: "result", result: JSON.stringify(answer) } as const;
        },
      }),
      ...(upstreamToken !== undefined && { token: async () => upstreamToken }),
    };
    const outcome = await server.call(call);
    if (outcome.kind === "error") throw new DrawbridgeError("upstream_failed", outcome.message);
    return outcome.value;
  };
  return {
    asked,
    progress,
    async call(tool, args = {}) {
      const result = await send("tools/call", { name: tool, arguments: args });
      if (result["isError"] === true) throw new ToolRefused(textOf(result["content"]));
      return result["structuredContent"] as JsonObject;
    },
    async read(uri) {
      return JSON.parse(textOf((await send("resources/read", { uri }))["contents"])) as JsonObject;
    },
    async prompt(name, args = {}) {
      const { messages } = (await send("prompts/get", { name, arguments: args })) as {
        messages?: readonly { readonly content: JsonObject }[];
      };
      return String(messages?.[0]?.content["text"]);
    },
  };
}

const textOf = (content: unknown) => String((content as readonly JsonObject[])[0]?.["text"]);
