/** The vocabulary of a call: who calls, what is called, what comes back. No behaviour lives here. */
import type { Secret } from "./secret.ts";

declare const proof: unique symbol;
/** A value that carries, in its type only, the fact that a check was made. Only the checker makes one. */
export type Proven<T, Fact extends string> = T & { readonly [proof]: Fact };

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | JsonObject;
export type JsonObject = { readonly [key: string]: JsonValue };

/** Who calls. Made by `oauth/tokens/verify.ts` and `oauth/external.ts` alone, from a token whose signature, issuer, audience and age were checked. */
export interface Principal {
  /** The person or workload (`sub`). */
  readonly subject: string;
  /** The OAuth client that acts for the subject (`client_id`). */
  readonly client: string;
  /** RFC 8693 `act`, nearest actor first; empty when the client itself acts. */
  readonly actors: readonly string[];
  readonly groups: readonly string[];
  readonly scopes: readonly string[];
  /** Further claims of the subject that policies may read (`email`, `name`, …). */
  readonly claims: JsonObject;
  /** The grant (consent) the token came from; ending it ends every token of it. */
  readonly grant: string | undefined;
  /** `jti` of the access token. */
  readonly tokenId: string;
  /** When the token ends, in milliseconds since the epoch. */
  readonly expiresAt: number;
}
export type Authenticated = Proven<Principal, "authenticated">;

/** Protocol revisions with an `initialize` handshake, oldest first, and the stateless one. */
export const LEGACY_REVISIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] as const;
export const MODERN_REVISION = "2026-07-28";
export type LegacyRevision = (typeof LEGACY_REVISIONS)[number];
export type Revision = LegacyRevision | typeof MODERN_REVISION;

export type TargetKind = "tool" | "resource" | "prompt";

/** What a call does at most. */
export const EFFECTS = ["read", "write", "destructive"] as const;
export type Effect = (typeof EFFECTS)[number];
/** What a contract says of a tool. What it does not say is unknown, and counts as the worst. */
export interface Access {
  readonly effect: Effect | undefined;
  /** Whether it reaches beyond the server's own data: the web, mail, other people. */
  readonly openWorld: boolean | undefined;
}
/** What a call is aimed at. Fixed when the call is decoded; nobody reads a name again. */
export interface Target {
  /** The upstream's name in the settings. */
  readonly server: string;
  readonly kind: TargetKind;
  /** What clients call it: the tool or prompt name, or the resource URI. Policies and records use this one. */
  readonly name: string;
  /** What the upstream calls it. */
  readonly upstreamName: string;
  /** Hash of the pinned definition, when there is one. */
  readonly pin: string | undefined;
  /** Of a tool that has a contract. */
  readonly access?: Access | undefined;
  /** The name is a URI template (RFC 6570), as lists of them have it, and not one resource. */
  readonly template?: true;
}

export type RequestId = string | number;

/** W3C trace context of one call. */
export interface TraceContext {
  /** 32 lower-case hex digits. */
  readonly traceId: string;
  /** 16 lower-case hex digits: our own span. */
  readonly spanId: string;
  readonly sampled: boolean;
  readonly tracestate: string | undefined;
}

/** One request of a client that goes to one upstream, the same for every protocol revision. */
export interface McpCall {
  readonly id: RequestId;
  /** The JSON-RPC method as the 2025 and 2026 revisions both spell it, e.g. `tools/call`. */
  readonly method: string;
  readonly target: Target;
  /** The parsed `params`. */
  readonly params: JsonObject;
  /**
   * The members of `params` as JSON text, in their order, without `_meta`: what is forwarded. Numbers and escapes
   * stay as the client wrote them. A member that the gateway changed (`name`) is already changed here.
   */
  readonly forward: ReadonlyMap<string, string>;
  /**
   * Members of `_meta` to forward, as JSON text: the client's own keys without those that belong to this hop (protocol version,
   * client info, progress token).
   */
  readonly meta: ReadonlyMap<string, string>;
  /** The client's progress token; undefined when it wants no progress. */
  readonly progressToken: RequestId | undefined;
  /** Log level that the client asked for, for this request or its session. */
  readonly logLevel: string | undefined;
  readonly revision: Revision;
  readonly trace: TraceContext;
  /**
   * What the client declared that it can do (`elicitation`, `sampling`, `roots`, `extensions`, …), as it came: per request on
   * 2026-07-28, by `initialize` before. An upstream is told no more than this.
   */
  readonly capabilities: JsonObject;
  /** Identifies the client's session for stickiness; undefined on 2026-07-28. */
  readonly session: string | undefined;
  /** What the call has to do with tasks; most have nothing to. */
  readonly task?: TaskRoute | undefined;
  /**
   * The member of `_meta` with the token that a stdio server is handed, as JSON text. Called once, when the call is written to its
   * server; a function, so that whatever prints a call does not print a token.
   */
  readonly handed?: (() => string) | undefined;
}

/** How a call that makes a task, or is about one, reaches its server. */
export interface TaskRoute {
  /** The process that works on the task: no other knows it. */
  readonly process?: string | undefined;
  /** Tells a server of 2026-07-28 that it may answer with a task. */
  readonly accepted?: boolean;
}

/** A call with the proof that it was authorised. The only thing `Upstream.send` accepts: skipping authorization does not compile. */
export type PermittedCall = Proven<
  { readonly call: McpCall; readonly by: Authenticated; readonly rule: string },
  "permitted"
>;

/** A notification of an upstream that belongs to one call, as JSON text of its `params`. */
export interface CallNotification {
  /** `notifications/progress` (token already the client's) or `notifications/message`. */
  readonly method: string;
  readonly params: string;
}

/** Takes what an upstream says before its answer. Called synchronously and in order; never after the outcome. */
export interface Replies {
  notify(notification: CallNotification): void;
  /**
   * Puts a question of an upstream with a handshake to the client of this call. Resolves with the client's answer, which may be
   * an error; rejects when the call ends before, or `withdrawn` is aborted: then nobody waits for the answer any more, and the client
   * is told, where it can be. The reason is a `DOMException` with words for the client, a `TimeoutError` when the time was over.
   * Absent: this client can be asked nothing.
   */
  ask?(question: Question, withdrawn: AbortSignal): Promise<QuestionAnswer>;
  /** Names the credential that the call is about to be sent with; again when the upstream turned it away for another. */
  sentWith?(credential: UpstreamCredential): void;
  /** Names the process that the call was sent to; never called where there are none. */
  servedBy?(process: string): void;
}

export const QUESTION_METHODS = ["elicitation/create", "sampling/createMessage", "roots/list"] as const;
export type QuestionMethod = (typeof QUESTION_METHODS)[number];

/** What an upstream asks the client of one call, before it can answer the call. */
export interface Question {
  readonly method: QuestionMethod;
  /** JSON text of its `params`, an object; `{}` when it has none. */
  readonly params: string;
}

/** What the client said to a question, as JSON text it wrote. */
export type QuestionAnswer =
  | { readonly kind: "result"; readonly result: string }
  | { readonly kind: "error"; readonly code: number; readonly message: string; readonly data: string | undefined };

/** How a call ended. `result` is the JSON text of the result object as the upstream wrote it, `value` the same, parsed (for reading only). */
export type Outcome =
  | { readonly kind: "result"; readonly result: string; readonly value: JsonObject }
  | { readonly kind: "error"; readonly code: number; readonly message: string; readonly data: string | undefined };

/** A credential the gateway adds on the way upstream. */
export interface UpstreamCredential {
  /** In lower case. */
  readonly header: string;
  readonly value: Secret;
  /** Names it in records, e.g. the `jti` of a token; no secret. */
  readonly id: string | undefined;
  /** Whom it is for (RFC 8707). */
  readonly audience: string;
  /** Milliseconds since the epoch; undefined when nobody said. */
  readonly expiresAt?: number | undefined;
  /** Of one that is bound to a key: the `DPoP` header of a request to this URL (RFC 9449 §4), another one for each. */
  readonly proof?: (method: string, url: string) => Secret;
}
