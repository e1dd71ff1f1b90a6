/**
 * The evidence of one event: who did what to what, who decided, how it ended. One record is serialised once, to one text with its
 * members in a fixed order, and that text is what is stored, hashed and exported: nobody has to make it again to check it.
 */
import { hash } from "node:crypto";
import type { JsonObject, JsonValue, McpCall, Principal, RequestId, TraceContext } from "../core/call.ts";
import type { Decision, ShadowDecision } from "../core/decision.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import { oneLine } from "../core/one-line.ts";
import type { AuditRow } from "../store/ports.ts";

/** `audit`: of the log itself. */
export type RecordKind =
  | "call"
  | "sign-in"
  | "consent"
  | "token"
  | "client"
  | "user"
  | "approval"
  | "configuration"
  | "audit";
/** `abandoned`: nobody waited for the answer any more. */
export type RecordOutcome = "permitted" | "refused" | "failed" | "abandoned";
/** How arguments and results are kept (`audit.arguments`, `audit.results`). */
export type FieldMode = "full" | "hash" | "none";
/** A kept value: its JSON text, or hash and size of its text. `inexact`: what was decided over is not to the letter what is kept. */
export type RecordedField =
  | { readonly json: string; readonly inexact?: true | undefined }
  | { readonly sha256: string; readonly bytes: number };

/** Everything is kept as given; texts longer than 2,048 characters are cut. Absent members are left out of the text. */
export interface AuditRecord {
  /** UUIDv7 (`newId`). */
  readonly id: string;
  readonly kind: RecordKind;
  /** What happened, for other kinds than `call`, e.g. `user.created`. */
  readonly action?: string | undefined;
  /** Start, milliseconds since the epoch. */
  readonly at: number;
  readonly durationMs: number;
  readonly outcome: RecordOutcome;
  readonly error?: RecordedError | undefined;
  readonly principal?: RecordedPrincipal | undefined;
  readonly call?: RecordedCall | undefined;
  readonly arguments?: RecordedField | undefined;
  readonly result?: (RecordedField & { readonly isError: boolean }) | { readonly isError: boolean } | undefined;
  readonly decision?: RecordedDecision | undefined;
  /** Version of the policy that the request was decided by. */
  readonly policy?: string | undefined;
  readonly trace?: { readonly traceId: string; readonly spanId: string } | undefined;
  /** The client's network address. */
  readonly source?: string | undefined;
  /** Which process of the gateway. */
  readonly replica: string;
  /** Of calls: what their clients were asked meanwhile (`interaction`). Of other kinds: what changed, without secrets. */
  readonly details?: JsonObject | undefined;
}

export interface RecordedError {
  readonly code: string;
  readonly message: string;
  readonly detail?: string | undefined;
}
export interface RecordedPrincipal {
  readonly subject: string;
  readonly client: string;
  readonly actors: readonly string[];
  readonly groups: readonly string[];
  readonly scopes: readonly string[];
  readonly grant?: string | undefined;
  readonly tokenId: string;
}
export interface RecordedCall {
  readonly method: string;
  readonly revision: string;
  readonly server?: string | undefined;
  readonly kind?: string | undefined;
  readonly name?: string | undefined;
  readonly upstreamName?: string | undefined;
  readonly pin?: string | undefined;
  readonly requestId?: RequestId | undefined;
  /** Hash of the session's id, which is a credential of its client. */
  readonly session?: string | undefined;
  /** Of the token that was made for the upstream and this caller: whom it is for, and its `jti`. */
  readonly audience?: string | undefined;
  readonly upstreamTokenId?: string | undefined;
  /** The name is not to the letter what was decided over, because what is private in it is masked. */
  readonly inexact?: true | undefined;
}
export interface RecordedDecision {
  readonly effect: Decision["effect"];
  readonly reason: string;
  readonly rule?: string | undefined;
  readonly scope?: string | undefined;
  /** What a policy that is only tried out would have said. */
  readonly shadow?: ShadowDecision | undefined;
}

/** Of something that was done to the log itself. */
export function logRecord(action: string, details: JsonObject, replica: string, at: number): AuditRecord {
  return { id: newId(at), kind: "audit", action, at, durationMs: 0, outcome: "permitted", replica, details };
}

/** Version of the text's format, its first member (`v`). */
export const RECORD_FORMAT = 2;
const MAX_TEXT = 2048;
const MAX_LIST = 200;

/** A record as text, before it has its place in a chain. */
export interface Draft {
  /** The columns it is found by. */
  readonly row: Omit<AuditRow, "json">;
  /** Its text without the brace at the end. */
  readonly open: string;
  /** JSON text of an object: what in it is about a person. */
  readonly personal: string | undefined;
}

/** The texts of a record. `clean` takes out what must be in no record, whatever somebody wrote. */
export function draftOf(record: AuditRecord, clean: (text: string) => string = (text) => text): Draft {
  const personal = personalText(record);
  return {
    row: {
      id: record.id,
      at: record.at,
      subject: cut(record.principal?.subject),
      client: cut(record.principal?.client),
      method: cut(record.call?.method ?? record.action),
      target: cut(record.call?.name),
      outcome: record.outcome,
      traceId: record.trace?.traceId,
    },
    open: clean(openText(record)),
    personal: personal === "" ? undefined : clean(`{${personal.slice(1)}}`),
  };
}

/** Members always in this order; those that are undefined are left out. All in one go: a text of many pieces costs three times as much. */
function openText(record: AuditRecord): string {
  const { error, principal, result, decision, trace } = record;
  const text = JSON.stringify({
    v: RECORD_FORMAT,
    id: cut(record.id),
    kind: record.kind,
    action: cut(record.action),
    at: new Date(record.at).toISOString(),
    durationMs: Math.round(record.durationMs * 1000) / 1000,
    outcome: record.outcome,
    error: error && { code: cut(error.code) },
    principal: principal && principalWithin(principal),
    call: record.call && callWithin(record.call),
    result: result && { isError: result.isError },
    decision: decision && decisionWithin(decision),
    policy: cut(record.policy),
    trace: trace && { traceId: cut(trace.traceId), spanId: cut(trace.spanId) },
    replica: cut(record.replica),
    details: OPEN_DETAILS.has(record.kind) ? record.details : undefined,
  });
  return text.slice(0, -1);
}

/** What it says, within the bounds of a text and of a list. */
function principalWithin(principal: RecordedPrincipal): RecordedPrincipal {
  let within = bounded.get(principal);
  if (within === undefined) {
    const { subject, client, actors, groups, scopes, grant, tokenId } = principal;
    within = {
      subject: cut(subject),
      client: cut(client),
      actors: cutList(actors),
      groups: cutList(groups),
      scopes: cutList(scopes),
      grant: cut(grant),
      tokenId: cut(tokenId),
    };
    bounded.set(principal, within);
  }
  return within;
}
const bounded = new WeakMap<RecordedPrincipal, RecordedPrincipal>();

function callWithin(call: RecordedCall): RecordedCall {
  const { requestId } = call;
  return {
    method: cut(call.method),
    revision: cut(call.revision),
    server: cut(call.server),
    kind: cut(call.kind),
    name: cut(call.name),
    upstreamName: cut(call.upstreamName),
    pin: cut(call.pin),
    requestId: typeof requestId === "string" ? cut(requestId) : requestId,
    session: cut(call.session),
    audience: cut(call.audience),
    upstreamTokenId: cut(call.upstreamTokenId),
    inexact: call.inexact,
  };
}

function decisionWithin({ effect, reason, rule, scope, shadow }: RecordedDecision): object {
  return {
    effect,
    reason: cut(reason),
    rule: cut(rule),
    scope: cut(scope),
    shadow: shadow && {
      effect: shadow.effect,
      reason: cut(shadow.reason),
      rule: cut(shadow.rule),
      policy: cut(shadow.policy),
    },
  };
}

/** Each member with a comma before it: what people wrote, got, or can be found by. */
function personalText(record: AuditRecord): string {
  const { error, result } = record;
  let text = "";
  if (error !== undefined) text += `,"error":{"message":${quoted(error.message)}${member("detail", error.detail)}}`;
  if (record.arguments !== undefined) text += `,"arguments":{${fieldMembers(record.arguments)}}`;
  if (result !== undefined) {
    const kept = fieldMembers(result);
    if (kept !== "") text += `,"result":{${kept}}`;
  }
  text += member("source", record.source);
  if (record.details !== undefined && !OPEN_DETAILS.has(record.kind))
    text += `,"details":${JSON.stringify(record.details)}`;
  return text;
}

/** What happens to the gateway and its log is about no person. */
const OPEN_DETAILS: ReadonlySet<RecordKind> = new Set<RecordKind>(["configuration", "audit"]);

/**
 * Keeps `text`, a JSON text, as `mode` says; undefined for `none`. Longer than `maxBytes`, or not JSON after all (it would forge the
 * members that follow it), it is kept as hash and size. A record is one line, so the field is too.
 */
export function field(text: string, mode: FieldMode, maxBytes: number): RecordedField | undefined {
  if (mode === "none") return undefined;
  const bytes = Buffer.byteLength(text);
  if (mode === "full" && bytes <= maxBytes && isJson(text)) return { json: oneLine(text) };
  return { sha256: hash("sha256", text), bytes };
}

/** The same object for the same principal, so that its bounds are looked at once. */
export function recordedPrincipal(principal: Principal): RecordedPrincipal {
  let recorded = principals.get(principal);
  if (recorded === undefined) {
    const { subject, client, actors, groups, scopes, grant, tokenId } = principal;
    recorded = { subject, client, actors, groups, scopes, grant, tokenId };
    principals.set(principal, recorded);
  }
  return recorded;
}
const principals = new WeakMap<Principal, RecordedPrincipal>();

export function recordedCall(call: McpCall): RecordedCall {
  const { server, kind, name, upstreamName, pin } = call.target;
  const session = call.session === undefined ? undefined : hash("sha256", call.session).slice(0, 32);
  return {
    method: call.method,
    revision: call.revision,
    server,
    kind,
    name,
    upstreamName,
    pin,
    requestId: call.id,
    session,
  };
}

export function recordedDecision(decision: Decision): RecordedDecision {
  return {
    effect: decision.effect,
    reason: decision.reason,
    rule: decision.effect === "step-up" ? undefined : decision.rule,
    scope: decision.effect === "step-up" ? decision.scope : undefined,
    ...(decision.shadow !== undefined && { shadow: decision.shadow }),
  };
}

export function recordedTrace({ traceId, spanId }: TraceContext): {
  readonly traceId: string;
  readonly spanId: string;
} {
  return { traceId, spanId };
}

/** What a failure leaves in the record; a stranger's words go to `detail`. */
export function recordedError(thrown: unknown): RecordedError {
  const { code, message, detail } = DrawbridgeError.from(thrown);
  return { code, message, detail };
}

/** A record as it is read back, with what is about a person when that could be read. */
export interface StoredRecord extends Omit<AuditRecord, "at" | "arguments" | "result"> {
  readonly v: number;
  /** ISO 8601, UTC. */
  readonly at: string;
  readonly arguments?: StoredField;
  readonly result?: { readonly isError: boolean } & (StoredField | object);
  /** Where the record before it in its chain stands in the log: a sequence number, or 0 for unknown. Absent: right before it. */
  readonly prevAt?: number;
  /** Its place in the chain of the process that wrote it. */
  readonly chain?: Link;
  /** What is about a person was never written: they were erased before that. */
  readonly erased?: true;
  /** The key that what is about a person is encrypted with; here when it could not be read. */
  readonly sealed?: { readonly key: string };
}
export type StoredField =
  | { readonly json: JsonValue; readonly inexact?: true }
  | { readonly sha256: string; readonly bytes: number };
/** The last member of a record's text. */
export interface Link {
  readonly id: string;
  /** From 0. */
  readonly n: number;
  /** `leafHash` of the text before it in the chain, as base64url; of the first one empty. */
  readonly prev: string;
}

/** How what is about a person can be decrypted: undefined when it cannot. */
export type OpenSealed<T> = (kid: string, sealed: string, record: string) => T;

/** Reads a record's text. Without `open`, and where it gives nothing, what is about a person stays out. */
export async function readRecord(json: string, open?: OpenSealed<Promise<string | undefined>>): Promise<StoredRecord> {
  const parsed = JSON.parse(json) as RecordText;
  const { sealed, id } = parsed;
  return recordOf(parsed, sealed && (await open?.(sealed.key, sealed.text, id)));
}

/** The same for a caller who has all keys at hand. */
export function readRecordNow(json: string, open: OpenSealed<string | undefined>): StoredRecord {
  const parsed = JSON.parse(json) as RecordText;
  const { sealed, id } = parsed;
  return recordOf(parsed, sealed && open(sealed.key, sealed.text, id));
}

/** A record's text, parsed. */
type RecordText = Omit<StoredRecord, "sealed"> & {
  readonly personal?: Partial<StoredRecord>;
  readonly sealed?: { readonly key: string; readonly text: string };
};

function recordOf({ personal, sealed, ...rest }: RecordText, text: string | undefined): StoredRecord {
  if (sealed === undefined) return together(rest, personal);
  if (text === undefined) return { ...rest, sealed: { key: sealed.key } };
  return together(rest, JSON.parse(text) as Partial<StoredRecord>);
}

function together(record: StoredRecord, personal: Partial<StoredRecord> = {}): StoredRecord {
  const { chain, ...rest } = record;
  return {
    ...rest,
    ...personal,
    ...(rest.error !== undefined && { error: { ...rest.error, ...personal.error } }),
    ...(rest.result !== undefined && { result: { ...rest.result, ...personal.result } }),
    ...(chain !== undefined && { chain }),
  };
}

function fieldMembers(kept: RecordedField | object): string {
  if ("json" in kept) return `"json":${kept.json}${kept.inexact === true ? ',"inexact":true' : ""}`;
  return "sha256" in kept ? `"sha256":"${kept.sha256}","bytes":${kept.bytes}` : "";
}

function member(name: string, value: string | undefined): string {
  return value === undefined ? "" : `,"${name}":${quoted(value)}`;
}

/** Most texts need no escape, and asking is cheaper. */
const PLAIN = /^[\x20\x21\x23-\x5b\x5d-\x7e]{0,200}$/;

function quoted(text: string): string {
  if (PLAIN.test(text)) return `"${text}"`;
  return JSON.stringify(text.length > MAX_TEXT ? cut(text) : text);
}

function cutList(values: readonly string[]): readonly string[] {
  return values.slice(0, MAX_LIST).map(cut);
}

function cut<T extends string | undefined>(text: T): T | string {
  return text !== undefined && text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
