/** Reads a gateway's records as it could itself: decrypted, without those about the log. */
import { hkdfSync } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import { personalKeysOf } from "../../src/audit/evidence.ts";
import { readRecordNow, type StoredRecord } from "../../src/audit/record.ts";
import { searchRecords } from "../../src/audit/search.ts";
import type { Secret } from "../../src/core/secret.ts";
import type { AuditQuery, Store } from "../../src/store/ports.ts";
import { decrypted } from "../../src/store/sealing.ts";

export async function openedRecords(
  store: Pick<Store, "audit" | "records">,
  query: Partial<AuditQuery> = {},
  encryption?: Secret,
): Promise<readonly StoredRecord[]> {
  const found = await searchRecords(store.audit, { limit: 1000, ...query }, personalKeysOf({ store, encryption }));
  return found.map(({ record }) => record).filter(({ kind }) => kind !== "audit");
}

/** The same from the file of a gateway without `tokens.keyEncryptionSecret`, by sequence number. `sql` selects the column `json`. */
export function openedIn(
  database: DatabaseSync,
  sql = "SELECT json FROM audit ORDER BY sequence",
  ...values: readonly string[]
): StoredRecord[] {
  const value = (kind: string, id: string): { readonly key: string } | undefined => {
    const row = database.prepare("SELECT value FROM records WHERE kind = ? AND id = ?").get(kind, id);
    return row && (JSON.parse(String(row["value"])) as { key: string });
  };
  const shared = value("seal-key", "audit persons")?.key ?? "";
  const master = Buffer.from(
    hkdfSync("sha256", Buffer.from(shared, "base64url"), "", "drawbridge audit persons 1", 32),
  );
  const keys = new Map<string, Buffer | undefined>();
  const keyOf = (kid: string) => {
    if (!keys.has(kid)) {
      const text = decrypted(master, value("audit-key", kid)?.key ?? "", kid);
      keys.set(kid, text === undefined ? undefined : Buffer.from(text, "base64url"));
    }
    return keys.get(kid);
  };
  return database
    .prepare(sql)
    .all(...values)
    .map(({ json }) =>
      readRecordNow(String(json), (kid, sealed, record) => {
        const key = keyOf(kid);
        return key && decrypted(key, sealed, record);
      }),
    )
    .filter(({ kind }) => kind !== "audit");
}
