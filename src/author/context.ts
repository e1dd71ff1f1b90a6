/** What a handler has beside its arguments: who calls, and the ways to the world that are open to it. */
import { z } from "zod";
import { type JsonObject, MODERN_REVISION, type Principal, type Question } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { ModuleCall, ModuleLog } from "../mcp/module-server.ts";
import type { Deadline } from "./deadline.ts";
import { flatSchema } from "./soundness.ts";

export interface Context {
  readonly principal: Principal;
  /** Aborts when the client cancels or goes away, or the time of the call is over. */
  readonly signal: AbortSignal;
  /** For the operator; clients see nothing of it. */
  readonly log: ModuleLog;
  /** Tells the client how far the call is; nothing happens when it did not ask. `done` must grow. */
  progress(done: number, total?: number, message?: string): void;
  /**
   * Asks the person at the client. A closed, flat form of primitives; resolves with what they did. Throws `Refusal`, or for a client of
   * 2026-07-28 `missing_client_capability`, when it can ask nobody.
   */
  elicit<Form extends z.ZodObject>(message: string, form: Form): Promise<Elicited<z.output<Form>>>;
  /**
   * A token for the API behind this server that says who calls, exchanged for the caller's own, which never gets here. Over stdio it is
   * the one that came with the call. Throws `upstream_unavailable` where nobody exchanges tokens, and when that one has ended.
   */
  upstreamToken(): Promise<string>;
  /** Does `work` as a span of its own in the trace of the call. */
  span<T>(
    name: string,
    work: () => T | Promise<T>,
    attributes?: Readonly<Record<string, string | number | boolean>>,
  ): Promise<T>;
  /** W3C `traceparent` for requests to others; undefined where the call has none. */
  readonly traceparent: string | undefined;
}

export type Elicited<Content> =
  | { readonly action: "accept"; readonly content: Content }
  | { readonly action: "decline" | "cancel" };

/** What a handler throws to tell the model why not. Its words reach the client; those of any other error never do. */
export class Refusal extends Error {
  override readonly name = "Refusal";
}

/** Refuses a call: `if (order === undefined) refuse("There is no such order.")`. */
export function refuse(message: string): never {
  throw new Refusal(message);
}

/** The words for a model whose client cannot ask; 2026-07-28 has an error for that, `missing_client_capability`, which is thrown. */
export function cannotAsk(message: string, { revision }: ModuleCall): string {
  if (revision !== MODERN_REVISION) return message;
  throw new DrawbridgeError("missing_client_capability", message, {
    data: { requiredCapabilities: { elicitation: { form: {} } } },
  });
}

export function contextOf(call: ModuleCall, deadline: Pick<Deadline, "signal" | "standing">): Context {
  const { principal, log, trace } = call;
  return {
    principal,
    signal: deadline.signal,
    log,
    traceparent: trace && `00-${trace.traceId}-${trace.spanId}-${trace.sampled ? "01" : "00"}`,
    progress(done, total, message) {
      if (deadline.signal.aborted) return;
      call.progress?.({
        progress: done,
        ...(total !== undefined && { total }),
        ...(message !== undefined && { message }),
      });
    },
    async elicit(message, form) {
      if (call.ask === undefined)
        refuse(cannotAsk("This needs an answer of a person, and the client cannot ask for one.", call));
      const question: Question = {
        method: "elicitation/create",
        params: JSON.stringify({ mode: "form", message, requestedSchema: flatSchema(form) }),
      };
      const { ask } = call;
      const answer = await deadline.standing(() => ask(question, deadline.signal));
      if (answer.kind === "error") refuse("The question could not be put to anybody.");
      const { action, content } = JSON.parse(answer.result) as { action?: unknown; content?: JsonObject };
      if (action !== "accept") return { action: action === "decline" ? "decline" : "cancel" };
      const read = z.safeParse(form, content ?? {});
      if (!read.success) refuse("The answer of the person does not fit the form.");
      return { action: "accept", content: read.data };
    },
    async upstreamToken() {
      if (call.token === undefined)
        throw new DrawbridgeError("upstream_unavailable", "Nobody exchanges tokens for this server.", {
          detail: "set `credentials: { exchange: { audience } }` of the server, and serve it by a gateway",
        });
      return call.token(deadline.signal);
    },
    async span(name, work, attributes = {}) {
      const span = call.span?.(name, attributes);
      try {
        const result = await work();
        span?.end();
        return result;
      } catch (thrown) {
        span?.end(thrown instanceof Error ? thrown.name : "error");
        throw thrown;
      }
    },
  };
}
