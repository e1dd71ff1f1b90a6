/** A log whose rows and heads lie open, for whoever wants to change them as somebody with the database could. */
import { openChain } from "../../src/audit/chain.ts";
import {
  type Hold,
  LIFTED,
  liftedDetails,
  PLACED,
  placedDetails,
  placeHold,
  removeHold,
} from "../../src/audit/holds.ts";
import { openJournal } from "../../src/audit/journal.ts";
import { logRecord } from "../../src/audit/record.ts";
import { type RetentionParts, retire } from "../../src/audit/retention.ts";
import { signerOfSeed, vouchersOf } from "../../src/audit/signing.ts";
import { verifyLog } from "../../src/audit/standing.ts";
import type { Verdict } from "../../src/audit/verify.ts";
import { newId } from "../../src/core/ids.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { AuditHead, AuditLog, Records } from "../../src/store/ports.ts";

export const SIGNER = signerOfSeed(Buffer.alloc(32, 7));
export const STRANGER = signerOfSeed(Buffer.alloc(32, 8));
export const VOUCHERS = vouchersOf([SIGNER.publicKey]);
export const DAY = 86_400_000;

export interface Paper {
  rows: { readonly sequence: number; json: string }[];
  heads: AuditHead[];
  readonly log: AuditLog;
  readonly records: Records;
}

/** Reads by sequence number alone. */
export function paper(): Paper {
  let last = 0;
  const one: Paper = {
    rows: [],
    heads: [],
    records: memoryStore().records,
    log: {
      async append(rows, head) {
        one.rows.push(...rows.map(({ json }) => ({ sequence: ++last, json })));
        if (head !== undefined) one.heads = [...one.heads.filter(({ chain }) => chain !== head.chain), head];
        return rows.length > 0 ? last : undefined;
      },
      read: async ({ after = Number.NEGATIVE_INFINITY, limit, newest }) => {
        const found = one.rows.filter(({ sequence }) => sequence > after);
        return (newest === true ? found.slice(-limit) : found.slice(0, limit)).map((row) => ({ ...row }));
      },
      heads: async () => [...one.heads],
      async retire({ records, heads }) {
        for (const { sequence, stub } of records) {
          const at = one.rows.findIndex((row) => row.sequence === sequence);
          if (at >= 0) one.rows.splice(at, 1, ...(stub === undefined ? [] : [{ sequence, json: stub }]));
        }
        one.heads = one.heads.filter((head) => !heads.some(({ json }) => json === head.json));
      },
    },
  };
  return one;
}

/** A copy, to be changed. */
export function copied({ rows, heads, records }: Paper): Paper {
  const copy = paper();
  Object.assign(copy, { rows: rows.map((row) => ({ ...row })), heads: [...heads], records });
  return copy;
}

/** A process of a gateway that writes a record a day for each of three users. */
export function writer(
  { log }: Pick<Paper, "log">,
  replica: string,
  { checkpointRecords = 1000, signer = SIGNER } = {},
) {
  const chain = openChain({ signer: async () => signer, log, checkpointRecords, replica, clock: () => 1 });
  const settings = { commit: "durable", maxPending: 1000 } as const;
  const journal = openJournal({ log, chain, settings, logger: silentLogger });
  const day = async (...days: readonly number[]) => {
    for (const n of days)
      for (const subject of ["ada", "bob", "eve"])
        await journal.append({
          id: `${replica}-${n}-${subject}`,
          kind: "call",
          at: n * DAY,
          durationMs: 1,
          outcome: "permitted",
          principal: { subject, client: "c", actors: [], groups: [], scopes: [], tokenId: "t" },
          replica,
        });
  };
  return { journal, day, close: () => journal.close() };
}
export type Writer = ReturnType<typeof writer>;

export function taken(
  { log, records }: Paper,
  { journal }: Pick<Writer, "journal">,
  days: number,
  more: Partial<RetentionParts> = {},
) {
  const parts = { log, records, journal, signer: async () => SIGNER, replica: "r", clock: () => 1000 * DAY };
  return retire(days * DAY, { ...parts, ...more });
}

/** Places a hold as the command does. */
export async function placed(
  { records }: Pick<Paper, "records">,
  { journal }: Pick<Writer, "journal">,
  one: Hold,
  { signer = SIGNER, at = 1000 * DAY } = {},
): Promise<Hold> {
  const hold = { ...one, key: newId(), placedAt: at };
  await journal.append(logRecord(PLACED, placedDetails(hold), "command line", at));
  await placeHold(records, hold, signer);
  return hold;
}

export async function lifted(
  { records }: Pick<Paper, "records">,
  { journal }: Pick<Writer, "journal">,
  one: Hold,
  at = 1000 * DAY,
): Promise<void> {
  await journal.append(logRecord(LIFTED, liftedDetails(one.id, [one], "sam"), "command line", at));
  await removeHold(records, one.id);
}

/** Puts a hold beside the log as versions did that neither signed nor recorded it. */
export async function heldBefore(records: Records, one: Hold): Promise<void> {
  if (!(await records.put("audit-hold", one.id, one, { ifVersion: 0 }))) throw new Error("There is one already.");
}

export const hold = (id: string, subject: string) => ({ id, reason: "case 7", subject, placedBy: "sam", placedAt: 0 });

export async function verdictOf({ log }: Pick<Paper, "log">): Promise<Verdict> {
  return (await verifyLog(log, VOUCHERS)).verdict;
}
export const problemOf = async (one: Pick<Paper, "log">) => (await verdictOf(one)).problem;

/** The place of a record in its chain, by its id. */
export function rowOf({ rows }: Paper, id: string): { readonly sequence: number; json: string } {
  const row = rows.find(({ json }) => json.includes(`"id":"${id}"`));
  if (row === undefined) throw new Error(`${id} is not in the log`);
  return row;
}
export const chainOf = (json: string) => /"chain":\{"id":"([^"]+)"/.exec(json)?.[1] ?? "";
