/** Reads the log back: what `drawbridge audit show`, `search` and `tail` print. */
import { setTimeout } from "node:timers/promises";
import type { AuditLog, AuditQuery } from "../store/ports.ts";
import { isStub } from "./link.ts";
import type { PersonalKeys } from "./personal.ts";
import { readRecord, type StoredRecord } from "./record.ts";

export interface FoundRecord {
  readonly sequence: number;
  /** The record's text, to the byte as it was written. */
  readonly json: string;
  /** With what is about a person, as far as `keys` can read it. */
  readonly record: StoredRecord;
}

/** Records that match, by sequence number. What retention has left of others is none, and is passed over: fewer than `limit` are all. */
export async function searchRecords(
  log: Pick<AuditLog, "read">,
  query: AuditQuery,
  keys?: Pick<PersonalKeys, "open">,
): Promise<readonly FoundRecord[]> {
  const found = query.newest === true ? await newestOf(log, query) : await firstOf(log, query);
  return Promise.all(
    found.map(async ({ sequence, json }) => {
      // What fails while it is decrypted is the store's affair, and not the record's.
      const record = isReadable(json) ? await readRecord(json, keys?.open) : UNREADABLE;
      return { sequence, json, record };
    }),
  );
}

/** Stands for a record that somebody has changed beyond recognition, so that the others can be shown. */
const UNREADABLE: StoredRecord = {
  v: 0,
  id: "",
  kind: "audit",
  at: new Date(0).toISOString(),
  durationMs: 0,
  outcome: "failed",
  replica: "",
  error: {
    code: "unreadable",
    message: "This record cannot be read: somebody has changed it. See drawbridge audit verify.",
  },
};
const OUTCOMES: readonly unknown[] = ["permitted", "refused", "failed", "abandoned"];
const OBJECTS = ["principal", "call", "error", "decision", "trace", "details", "personal", "sealed"] as const;

function isReadable(json: string): boolean {
  try {
    const record = JSON.parse(json) as { readonly [member: string]: unknown } | null;
    return (
      record !== null &&
      Number.isFinite(Date.parse(String(record["at"]))) &&
      OUTCOMES.includes(record["outcome"]) &&
      OBJECTS.every((name) => record[name] === undefined || (typeof record[name] === "object" && record[name] !== null))
    );
  } catch {
    return false;
  }
}

type Texts = Awaited<ReturnType<AuditLog["read"]>>;
const PAGE = 1000;
const recordsOf = (page: Texts) => page.filter(({ json }) => !isStub(json));

async function firstOf(log: Pick<AuditLog, "read">, query: AuditQuery): Promise<Texts> {
  let page = await log.read(query);
  let limit = query.limit;
  const found = [...recordsOf(page)];
  while (page.length === limit && found.length < query.limit) {
    limit = PAGE;
    page = await log.read({ ...query, limit, after: page.at(-1)?.sequence ?? 0 });
    found.push(...recordsOf(page));
  }
  return found.slice(0, query.limit);
}

async function newestOf(log: Pick<AuditLog, "read">, query: AuditQuery): Promise<Texts> {
  for (const limit of new Set([query.limit, PAGE])) {
    const page = await log.read({ ...query, limit });
    const found = recordsOf(page);
    if (found.length >= query.limit || page.length < limit) return found.slice(-query.limit);
  }
  // A log cannot be read backwards. Here its end is what old holds have left of it, which is rare.
  let found: Texts = [];
  for (let after = query.after ?? 0; ; ) {
    const page = await log.read({ ...query, newest: false, limit: PAGE, after });
    found = [...found, ...recordsOf(page)].slice(-query.limit);
    if (page.length < PAGE) return found;
    after = page.at(-1)?.sequence ?? after;
  }
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
