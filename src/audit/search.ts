/** Reads the log back: what `drawbridge audit show`, `search` and `tail` print. */
import { setTimeout } from "node:timers/promises";
import type { AuditLog, AuditQuery } from "../store/ports.ts";
import type { PersonalKeys } from "./personal.ts";
import { readRecord, type StoredRecord } from "./record.ts";

export interface FoundRecord {
  readonly sequence: number;
  /** The record's text, to the byte as it was written. */
  readonly json: string;
  /** With what is about a person, as far as `keys` can read it. */
  readonly record: StoredRecord;
}

/** Records that match, by sequence number. What retention has left of others is none. */
export async function searchRecords(
  log: Pick<AuditLog, "read">,
  query: AuditQuery,
  keys?: Pick<PersonalKeys, "open">,
): Promise<readonly FoundRecord[]> {
  const found = await log.read(query);
  const read = await Promise.all(
    found.map(async ({ sequence, json }) => ({ sequence, json, record: await readRecord(json, keys?.open) })),
  );
  return read.filter(({ record }) => record.id !== undefined);
}

const FOLLOW_MS = 500;

/** The newest `limit` matching records, then each further one as it is written, until `signal` aborts. */
export async function* followRecords(
  log: Pick<AuditLog, "read">,
  query: AuditQuery,
  signal: AbortSignal,
  keys?: Pick<PersonalKeys, "open">,
  wait: (ms: number) => Promise<unknown> = (ms) => setTimeout(ms, undefined, { signal }).catch(() => {}),
): AsyncGenerator<FoundRecord> {
  let found = await searchRecords(log, { ...query, newest: true }, keys);
  let after = query.after ?? 0;
  while (!signal.aborted) {
    for (const each of found) {
      yield each;
      after = each.sequence;
    }
    if (found.length < query.limit) await wait(FOLLOW_MS);
    if (!signal.aborted) found = await searchRecords(log, { ...query, newest: false, after }, keys);
  }
}
