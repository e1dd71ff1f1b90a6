/** A store that forgets everything at exit: for tests, for trying things out, and as the plainest statement of the contract. */
import { type Clock, systemClock } from "../../core/clock.ts";
import { checkAuditRows, checkKeys, checkPage, valueText } from "../limits.ts";
import type { AuditHead, AuditLog, AuditQuery, AuditRow, Page, Records, Row, Store } from "../ports.ts";

export interface MemoryOptions {
  /** Only the newest so many audit records are kept. */
  readonly maxAuditRecords?: number;
}

/** Makes an empty store. Values are copied in and out, as a real store would. */
export function memoryStore(clock: Clock = systemClock, options: MemoryOptions = {}): Store & AsyncDisposable {
  const close = async () => {};
  return {
    records: memoryRecords(clock),
    audit: memoryAudit(options.maxAuditRecords ?? 100_000),
    close,
    [Symbol.asyncDispose]: close,
  };
}

interface Entry {
  readonly kind: string;
  readonly id: string;
  readonly json: string;
  readonly version: number;
  readonly expiresAt: number | undefined;
  readonly index: Readonly<Record<string, string>>;
}

function memoryRecords(clock: Clock): Records {
  const kinds = new Map<string, Map<string, Entry>>();
  /** Entries by index name and value, so that ending one grant does not walk every row. */
  const byIndex = new Map<string, Set<Entry>>();
  const indexKey = (name: string, value: string) => `${name}\u0000${value}`;

  const live = (entry: Entry | undefined): entry is Entry =>
    entry !== undefined && (entry.expiresAt === undefined || entry.expiresAt > clock());

  function remove(entry: Entry | undefined): void {
    if (entry === undefined) return;
    const rows = kinds.get(entry.kind);
    rows?.delete(entry.id);
    if (rows?.size === 0) kinds.delete(entry.kind);
    for (const [name, value] of Object.entries(entry.index)) {
      const key = indexKey(name, value);
      const found = byIndex.get(key);
      found?.delete(entry);
      if (found?.size === 0) byIndex.delete(key);
    }
  }

  function insert(entry: Entry): void {
    const rows = kinds.get(entry.kind) ?? new Map<string, Entry>();
    kinds.set(entry.kind, rows.set(entry.id, entry));
    for (const [name, value] of Object.entries(entry.index)) {
      const key = indexKey(name, value);
      byIndex.set(key, (byIndex.get(key) ?? new Set()).add(entry));
    }
  }

  return {
    async get<T>(kind: string, id: string) {
      const entry = kinds.get(kind)?.get(id);
      return live(entry) ? row<T>(entry) : undefined;
    },
    async put(kind, id, value, options = {}) {
      checkKeys(kind, id, options.index);
      const json = valueText(kind, value);
      const stored = kinds.get(kind)?.get(id);
      const version = live(stored) ? stored.version : 0;
      if (options.ifVersion !== undefined && options.ifVersion !== version) return false;
      remove(stored);
      insert({ kind, id, json, version: version + 1, expiresAt: options.expiresAt, index: { ...options.index } });
      return true;
    },
    async take<T>(kind: string, id: string) {
      const entry = kinds.get(kind)?.get(id);
      remove(entry);
      return live(entry) ? row<T>(entry) : undefined;
    },
    async delete(kind, id) {
      remove(kinds.get(kind)?.get(id));
    },
    async list<T>(kind: string, page: Page) {
      return pageOf<T>([...(kinds.get(kind)?.values() ?? [])].filter(live), page);
    },
    async find<T>(kind: string, name: string, value: string, page: Page) {
      const found = byIndex.get(indexKey(name, value)) ?? [];
      return pageOf<T>(
        [...found].filter((entry) => entry.kind === kind && live(entry)),
        page,
      );
    },
    async deleteWhere(name, value, kind) {
      const found = [...(byIndex.get(indexKey(name, value)) ?? [])].filter(
        (entry) => kind === undefined || entry.kind === kind,
      );
      const alive = found.filter(live).length;
      for (const entry of found) remove(entry);
      return alive;
    },
    async sweep() {
      const expired = [...kinds.values()].flatMap((rows) => [...rows.values()].filter((entry) => !live(entry)));
      for (const entry of expired) remove(entry);
      return expired.length;
    },
  };
}

function row<T>(entry: Entry): Row<T> {
  const { id, version, expiresAt } = entry;
  return { id, value: JSON.parse(entry.json) as T, version, expiresAt };
}

function pageOf<T>(entries: Entry[], page: Page): readonly Row<T>[] {
  checkPage(page);
  const { after } = page;
  return entries
    .filter((entry) => after === undefined || bytewise(entry.id, after) > 0)
    .sort((a, b) => bytewise(a.id, b.id))
    .slice(0, page.limit)
    .map((entry) => row<T>(entry));
}

/** The order of UTF-8, as databases have it; that of JavaScript differs beyond U+FFFF. */
function bytewise(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function memoryAudit(maxRecords: number): AuditLog {
  const rows: (AuditRow & { readonly sequence: number })[] = [];
  const ids = new Set<string>();
  const heads = new Map<string, AuditHead>();
  let sequence = 0;
  return {
    async append(added, head) {
      checkAuditRows(added);
      const before = sequence;
      for (const each of added) {
        if (ids.has(each.id)) continue;
        rows.push({ ...each, sequence: ++sequence });
        ids.add(each.id);
      }
      // A tenth too many before any is dropped, so that a full log does not move all its rows for each new one.
      if (rows.length > maxRecords * 1.1)
        for (const dropped of rows.splice(0, rows.length - maxRecords)) ids.delete(dropped.id);
      if (head !== undefined && added.length > 0) heads.set(head.chain, head);
      return added.length > 0 && sequence === before + added.length ? sequence : undefined;
    },
    async read(query) {
      checkPage(query);
      const found = rows.filter((each) => matches(each, query));
      const page = query.newest === true ? found.slice(-query.limit) : found.slice(0, query.limit);
      return page.map(({ sequence, json }) => ({ sequence, json }));
    },
    async heads() {
      return [...heads.values()];
    },
    async retire({ records, heads: gone }) {
      for (const { sequence: which, stub } of records) {
        const at = rows.findIndex((each) => each.sequence === which);
        const found = rows[at];
        if (found === undefined) continue;
        const { id, at: time, outcome } = found;
        if (stub === undefined) rows.splice(at, 1);
        else rows[at] = { ...NOTHING, id, at: time, outcome, json: stub, sequence: which };
      }
      for (const { chain, json } of gone) if (heads.get(chain)?.json === json) heads.delete(chain);
    },
  };
}

/** What a stub is found by. */
const NOTHING = { subject: undefined, client: undefined, method: undefined, target: undefined, traceId: undefined };

function matches(row: AuditRow & { readonly sequence: number }, query: AuditQuery): boolean {
  const { after, since, until } = query;
  if (after !== undefined && row.sequence <= after) return false;
  if (since !== undefined && row.at < since) return false;
  if (until !== undefined && row.at >= until) return false;
  return (["id", "subject", "client", "target", "outcome", "traceId"] as const).every(
    (name) => query[name] === undefined || query[name] === row[name],
  );
}
