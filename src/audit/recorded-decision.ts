/** What a record says of a decision that is made again: who asked for what, what was decided, and as far as it is there, what was sent. */
import type { JsonObject } from "../core/call.ts";
import type { Decision } from "../core/decision.ts";
import type { CallFacts } from "../policy/engine.ts";
import { type RecordedCall, type RecordedPrincipal, readRecord, readRecordNow, type StoredRecord } from "./record.ts";
import type { ReplayOptions, Unjudged } from "./replay.ts";

/** A call that a policy decided about. */
export interface Decided {
  readonly id: string;
  readonly at: string;
  readonly durationMs: number;
  readonly json: string;
  readonly principal: RecordedPrincipal;
  readonly call: RecordedCall & { readonly kind: string; readonly name: string };
  readonly was: { readonly effect: Decision["effect"]; readonly rule: string | undefined };
  readonly policy: string | undefined;
  readonly facts: Pick<CallFacts, "method" | "scope">;
}

/** Several replicas write into one log, so records of the span may have others between them. */
export function wantedBy({ since, until, target }: ReplayOptions): (record: StoredRecord) => boolean {
  const from = new Date(since).toISOString();
  const to = until === undefined ? undefined : new Date(until).toISOString();
  return ({ at, call }) =>
    at >= from && (to === undefined || at < to) && (target === undefined || call?.name === target);
}

/** Undefined: no policy decided about it, or it is not `wanted`. */
export function decidedOf(
  json: string,
  { asked }: ReplayOptions,
  wanted: (record: StoredRecord) => boolean,
): Decided | Unjudged | undefined {
  let record: StoredRecord;
  try {
    record = readRecordNow(json, () => undefined);
  } catch {
    return "unreadable";
  }
  const { id, at, durationMs, kind, principal, call, decision, policy } = record;
  if (kind !== "call" || decision === undefined || !wanted(record)) return undefined;
  if (principal === undefined || call === undefined) return "unreadable";
  const facts = asked(call.method);
  if (facts === undefined) return undefined;
  // What clients make up is decided about, too, and refused whatever was decided.
  if (call.name === undefined || call.kind === undefined) return "name_absent";
  if ((call.server ?? "") === "") return "was_not_served";
  if (call.inexact === true || isCut(call.name)) return "name_inexact";
  const { subject, client, actors, groups, scopes } = principal;
  if (
    [actors, groups, scopes].some((list) => list.length >= FULL_LIST || list.some(isCut)) ||
    [subject, client].some(isCut)
  )
    return "caller_cut";
  return {
    id,
    at,
    durationMs,
    json,
    principal,
    call: { ...call, kind: call.kind, name: call.name },
    was: { effect: decision.effect, rule: decision.rule },
    policy,
    facts,
  };
}

/** Longer lists and texts are cut in records. */
const FULL_LIST = 200;
const FULL_TEXT = 2048;
const isCut = (text: string) => text.length > FULL_TEXT;

export const idIn = (json: string) => /"id":"([^"]{1,100})"/.exec(json)?.[1];

/** The arguments that were decided over, or why they are not known. */
export async function argumentsOf(record: Decided, { keys }: ReplayOptions): Promise<JsonObject | Unjudged> {
  const { call, facts } = record;
  // Of these the name says it all.
  if (call.kind === "resource" && facts.method !== "completion/complete") return { uri: call.name };
  if (facts.method === "completion/complete") return {};
  const read = await readRecord(record.json, keys?.open).catch(() => undefined);
  if (read === undefined || read.sealed !== undefined) return "arguments_sealed";
  const { arguments: kept } = read;
  if (kept === undefined) return "arguments_absent";
  if (!("json" in kept)) return "arguments_hashed";
  if (kept.inexact === true) return "arguments_inexact";
  const { json } = kept;
  return typeof json === "object" && json !== null && !Array.isArray(json) ? (json as JsonObject) : "arguments_absent";
}
