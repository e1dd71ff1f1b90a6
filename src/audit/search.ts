/** Reads the log back: what `drawbridge audit show`, `search` and `tail` print. */
import { setTimeout } from "node:timers/promises";
import type { AuditLog, AuditQuery } from "../store/ports.ts";
import type { StoredRecord } from "./record.ts";

export interface FoundRecord {
  readonly sequence: number;
  /** The record's text, to the byte as it was written. */
  readonly json: string;
  readonly record: StoredRecord;
}

/** Records that match, by sequence number. */
export async function searchRecords(log: AuditLog, query: AuditQuery): Promise<readonly FoundRecord[]> {
  const found = await log.read(query);
  return found.map(({ sequence, json }) => ({ sequence, json, record: JSON.parse(json) as StoredRecord }));
}

const FOLLOW_MS = 500;

/** The newest `limit` matching records, then each further one as it is written, until `signal` aborts. */
export async function* followRecords(
  log: AuditLog,
  query: AuditQuery,
  signal: AbortSignal,
  wait: (ms: number) => Promise<unknown> = (ms) => setTimeout(ms, undefined, { signal }).catch(() => {}),
): AsyncGenerator<FoundRecord> {
  let found = await searchRecords(log, { ...query, newest: true });
  let after = query.after ?? 0;
  while (!signal.aborted) {
    for (const each of found) {
      yield each;
      after = each.sequence;
    }
    if (found.length < query.limit) await wait(FOLLOW_MS);
    if (!signal.aborted) found = await searchRecords(log, { ...query, newest: false, after });
  }
}
