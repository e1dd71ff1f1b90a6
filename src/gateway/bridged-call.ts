/** What both ways to ask the client of a call have in common: the call made again, and what is said when it cannot go on. */
import type {
  Authenticated,
  CallNotification,
  JsonObject,
  McpCall,
  Outcome,
  PermittedCall,
  Question,
  Replies,
  UpstreamCredential,
} from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { notificationText } from "../mcp/answers.ts";
import { mayAsk, withAnswers } from "../mcp/interaction.ts";
import { isObject } from "../mcp/json-text.ts";
import type { QuestionEnd } from "../observe/metrics.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { Mailbox } from "./mailbox.ts";
import type { Asked } from "./parts.ts";
import type { Seals } from "./sealed-state.ts";
import type { InteractionSettings } from "./settings.ts";

/** What both ways work with. */
export interface Bridge {
  readonly settings: InteractionSettings;
  readonly seals: Seals;
  /** Where other replicas write to. */
  readonly mailbox: Mailbox;
  /** Names this process. */
  readonly replica: string;
  /** Counts a question that a server does not wait for any more. */
  questionEnded(server: string, end: QuestionEnd): void;
  /** What of `params` of a notification somebody may see. */
  said(by: Authenticated, params: string): string;
}

/** A call, the request that made it, and its end when that request's client goes away. */
export interface BridgedCall {
  readonly upstream: Upstream;
  readonly permitted: PermittedCall;
  readonly asked: Asked;
  readonly gone: AbortController;
}

/** A server may ask its client so often during one call, where each time is a call of ours. */
export const MAX_ROUNDS = 8;

/** Replies to a client that is asked nothing before its answer. */
export class SilentReplies implements Replies {
  protected readonly request: Asked;
  constructor(request: Asked) {
    this.request = request;
  }
  notify({ method, params }: CallNotification): void {
    const { answering, record } = this.request;
    answering.notify(notificationText(method, record.view.said(params)));
  }
  sentWith(credential: UpstreamCredential): void {
    this.request.record.sentWith(credential);
  }
}

/** The same call, permitted as it was, in its next round: only answers and state differ, and neither is decided upon. */
export function next(permitted: PermittedCall, forward: ReadonlyMap<string, string> | undefined): PermittedCall {
  const { call } = permitted;
  return {
    ...permitted,
    call: { ...call, forward: forward ?? withAnswers(call.forward, undefined, undefined) },
  };
}

/** How a question ended that nobody answered. */
export function endOf({ reason }: AbortSignal): QuestionEnd {
  return reason instanceof DOMException && reason.name === "TimeoutError" ? "expired" : "withdrawn";
}

/** Why, for whoever asked or was asked. */
export function withdrawal({ reason }: AbortSignal): DrawbridgeError {
  return new DrawbridgeError("cancelled", reason instanceof DOMException ? reason.message : "It was withdrawn.");
}

export function mustBeAskable(call: McpCall, questions: Iterable<Question>): void {
  if (mayAsk(call.method)) return;
  throw new DrawbridgeError("upstream_failed", `The server asked a question, which ${call.method} has no place for.`, {
    detail: [...questions].map(({ method }) => method).join(", "),
  });
}

/** What the server lacks of its client, in words. */
export function needs(required: JsonObject): string {
  const names = Object.entries(required).map(([name, inner]) => {
    const parts = isObject(inner) ? Object.keys(inner) : [];
    return parts.length === 0 ? name : `${name} (${parts.join(", ")})`;
  });
  return `The server needs a client that can do this: ${names.join(", ")}. The client did not declare it.`;
}

/** Where the protocol has no word for it: a tool's error, which the model can read, or an error of the call. */
export function cannotGoOn(call: McpCall, text: string): Outcome {
  if (call.method !== "tools/call") throw new DrawbridgeError("upstream_failed", text);
  const value: JsonObject = { content: [{ type: "text", text }], isError: true };
  return { kind: "result", result: JSON.stringify(value), value };
}
