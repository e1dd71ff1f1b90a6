/**
 * Legal holds: records that stay, however old. A hold is placed and lifted by records of the log, which nobody can change unnoticed; what
 * stands in the store beside it is a signed copy for a quick look. Where the two differ, both count: what is kept wrongly can still go.
 */
import { hash } from "node:crypto";
import { z } from "zod";
import type { JsonObject } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { AuditLog, Records } from "../store/ports.ts";
import { linkOf } from "./link.ts";
import type { StoredRecord } from "./record.ts";
import type { Signer, Vouchers } from "./signing.ts";
import { type StandingText, type VerifiedLog, verifyLog } from "./standing.ts";
import { vouchesForHead } from "./statements.ts";

export interface Hold {
  /** Its name, e.g. a case number. */
  readonly id: string;
  /** One for each placing. Absent: placed by a version that signed no holds. */
  readonly key?: string | undefined;
  readonly reason: string;
  /** Absent: of everybody. */
  readonly subject?: string | undefined;
  readonly target?: string | undefined;
  /** Milliseconds since the epoch: not before `since`, before `until`. */
  readonly since?: number | undefined;
  readonly until?: number | undefined;
  readonly placedBy: string;
  readonly placedAt: number;
}

/** What is not as the log says. `added`: it was lifted. `unsigned`: nobody who is trusted knows of it. */
export interface HoldDoubt {
  readonly hold: string;
  readonly kind: "changed" | "removed" | "added" | "unsigned";
  /** A sentence. */
  readonly why: string;
}

/** The holds at one moment. */
export interface HoldsNow extends Pick<VerifiedLog, "verdict" | "told"> {
  /** What any of the log and the store says. */
  readonly inForce: readonly Hold[];
  readonly doubts: readonly HoldDoubt[];
  /** Names of holds that no signature in the store vouches for, though the log may. */
  readonly unsigned: ReadonlySet<string>;
  /** Whether a record of the log has to stay for what it says of holds. Records are asked for in their order. */
  stays(record: StoredRecord, onHold: boolean): boolean;
}

const HOLDS = "audit-hold";
const PAGE = 1000;
export const PLACED = "audit.hold-placed";
export const LIFTED = "audit.hold-lifted";

/** What the record of a placing says: all that counts in a hold. */
export function placedDetails({ id, key, reason, subject, target, since, until, placedBy }: Hold): JsonObject {
  const details = { hold: id, key, reason, user: subject, target, since, until, operator: placedBy };
  return JSON.parse(JSON.stringify(details)) as JsonObject;
}

/** What the record of a lifting says; `those`: what is in force under this name. */
export function liftedDetails(id: string, those: readonly Hold[], operator: string): JsonObject {
  return { hold: id, placed: [...new Set(those.flatMap(({ key }) => key ?? []))], operator };
}

/** Puts a hold beside the log, after the record of it. Throws `settings_invalid` when there is one of that name. */
export async function placeHold(records: Records, hold: Hold, signer: Signer): Promise<void> {
  const value = { ...hold, kid: signer.kid, signature: await signer.sign(lineOf(hold)) };
  if (await records.put(HOLDS, hold.id, value, { ifVersion: 0 })) return;
  throw new DrawbridgeError("settings_invalid", `There is a hold ${hold.id} already. Choose another name.`);
}

/** Takes it away, after the record of that. */
export async function removeHold(records: Records, id: string): Promise<void> {
  await records.delete(HOLDS, id);
}

/** The holds that stand in the store, whoever put them there. */
export async function storedHolds(records: Records): Promise<readonly StoredHold[]> {
  const found: StoredHold[] = [];
  for (let after: string | undefined; ; ) {
    const page = await records.list(HOLDS, { limit: PAGE, ...(after !== undefined && { after }) });
    found.push(...page.map(({ id, value }) => readRow(id, value)));
    if (page.length < PAGE) return found;
    after = page.at(-1)?.id;
  }
}

export interface StoredHold {
  readonly hold: Hold;
  /** What it is to be told from others by. */
  readonly text: string;
  readonly kid: string;
  readonly signature: string;
}

const row = z.object({
  id: z.string(),
  key: z.string().optional(),
  reason: z.string(),
  subject: z.string().optional(),
  target: z.string().optional(),
  since: z.number().optional(),
  until: z.number().optional(),
  placedBy: z.string(),
  placedAt: z.number(),
  kid: z.string().optional(),
  signature: z.string().optional(),
});

/** What cannot be read may have been a hold on anything. */
function readRow(id: string, value: unknown): StoredHold {
  const text = JSON.stringify(value);
  const read = row.safeParse(value);
  if (!read.success || read.data.id !== id)
    return { hold: { id, reason: "(cannot be read)", placedBy: "", placedAt: 0 }, text, kid: "", signature: "" };
  const { kid = "", signature = "", ...hold } = read.data;
  return { hold, text, kid, signature };
}

function lineOf({ id, key, reason, subject, target, since, until, placedBy, placedAt }: Hold): string {
  const said = [id, key, reason, subject, target, since, until, placedBy, placedAt].map((one) => one ?? null);
  return `drawbridge audit hold 1 ${hash("sha256", JSON.stringify(said))}`;
}

/**
 * Verifies the log and compares what it says of holds with what stands beside it. A lifting counts when somebody who is trusted has
 * signed it, or else nobody has signed the placing. `followed`: who the log may be signed by, when that is not only those trusted.
 */
export async function lookAtHolds(
  log: Pick<AuditLog, "read" | "heads">,
  records: Records,
  vouchers: Vouchers,
  options: Parameters<typeof verifyLog>[2] & { readonly followed?: Vouchers } = {},
): Promise<HoldsNow> {
  const { followed = vouchers, ...checks } = options;
  const look = async () => {
    let said = saidOfHolds();
    const now = await verifyLog(log, followed, checks, () => {
      said = saidOfHolds();
      return said.pass;
    });
    const trusted = new Set(
      now.heads.flatMap((head) => (head !== undefined && vouchesForHead(vouchers, head) ? [head.chain] : [])),
    );
    return compared(now, said.placings(trusted), await storedHolds(records), vouchers);
  };
  const now = await look();
  if (now.doubts.length === 0) return now;
  // Its record comes before the hold itself, and somebody may be placing one just now.
  const again = await look();
  const before = new Set(now.doubts.map((doubt) => JSON.stringify(doubt)));
  return { ...again, doubts: again.doubts.filter((doubt) => before.has(JSON.stringify(doubt))) };
}

/** A record that placed a hold. */
interface Placing {
  readonly hold: Hold;
  readonly record: string;
  readonly sequence: number;
  readonly chain: string;
  /** Ids of records that lifted it. */
  readonly lifted: readonly string[];
}

const SAID = /^\{"v":2,"id":"[^"]{1,100}","kind":"audit","action":"audit\.hold-(?:placed|lifted)",/;
const SAID_CHARACTERS = 200;

/** Of a record that somebody has changed as much as can be read: what is wrong with it is found by its chain. */
function recordIn(json: string): Pick<StoredRecord, "id" | "at" | "action"> & { readonly details: JsonObject } {
  try {
    const record = JSON.parse(json) as StoredRecord;
    return { ...record, details: record.details ?? {} };
  } catch {
    return { id: "", at: "", action: PLACED, details: {} };
  }
}

/** What the records of a log say of holds, as they pass by. */
function saidOfHolds() {
  const placed: Omit<Placing, "lifted">[] = [];
  const lifted: {
    readonly record: string;
    readonly sequence: number;
    readonly chain: string;
    readonly details: JsonObject;
  }[] = [];
  return {
    pass({ sequence, json }: StandingText): void {
      if (!SAID.test(json.slice(0, SAID_CHARACTERS))) return;
      const { id: record, at, action, details } = recordIn(json);
      const chain = linkOf(json)?.id ?? "";
      if (action === LIFTED) lifted.push({ record, sequence, chain, details });
      else {
        const { hold: id, user: subject, operator: placedBy, ...rest } = details;
        const read = row.safeParse({ ...rest, id, subject, placedBy, placedAt: Date.parse(at) });
        const hold = read.success ? read.data : { id: String(id), reason: "", placedBy: "", placedAt: 0 };
        placed.push({ hold, record, sequence, chain });
      }
    },
    placings(trusted: ReadonlySet<string>): readonly Placing[] {
      return placed.map((one) => {
        const ends = lifted.filter(({ details, sequence, chain }) => {
          if (trusted.has(one.chain) && !trusted.has(chain)) return false;
          const keys = details["placed"];
          // Versions before named the hold alone.
          if (Array.isArray(keys) && one.hold.key !== undefined) return keys.includes(one.hold.key);
          return details["hold"] === one.hold.id && sequence > one.sequence;
        });
        return { ...one, lifted: ends.map(({ record }) => record) };
      });
    },
  };
}

function compared(
  now: VerifiedLog,
  placings: readonly Placing[],
  rows: readonly StoredHold[],
  vouchers: Vouchers,
): HoldsNow {
  const standing = placings.filter(({ lifted }) => lifted.length === 0);
  const inForce = new Map<string, Hold>();
  const doubts: HoldDoubt[] = [];
  const doubt = (hold: string, kind: HoldDoubt["kind"], why: string) => doubts.push({ hold, kind, why });
  const isOf =
    ({ hold }: StoredHold) =>
    (placing: Placing) =>
      placing.hold.id === hold.id && placing.hold.key === hold.key;
  for (const { hold } of [...rows, ...standing]) inForce.set(contentOf(hold), hold);

  for (const placing of standing) {
    const { id } = placing.hold;
    const copy = rows.find((one) => isOf(one)(placing));
    if (copy === undefined)
      doubt(id, "removed", `Record ${placing.sequence} has placed it, none has lifted it, and it is not in the store.`);
    else if (contentOf(copy.hold) !== contentOf(placing.hold))
      doubt(id, "changed", `In the store it is not what record ${placing.sequence} has placed.`);
  }
  const signed = (one: StoredHold) => vouchers.verify(one.kid, lineOf(one.hold), one.signature);
  for (const one of rows) {
    const { id } = one.hold;
    if (standing.some(isOf(one))) continue;
    const placing = placings.find(isOf(one));
    if (placing !== undefined) doubt(id, "added", "A record has lifted it, and it is in the store nevertheless.");
    else if (signed(one)) doubt(id, "removed", "It is signed, and the record that placed it is missing from the log.");
    else doubt(id, "unsigned", "Nobody who is trusted has signed it, and no record of the log has placed it.");
  }

  /** Records of placings that stay, and those that lifted them: without these what was lifted would be in force again. */
  const staying = new Set(standing.map(({ record }) => record));
  const lifts = new Map<string, string[]>();
  for (const { record, lifted } of placings)
    for (const lift of lifted) lifts.set(lift, [...(lifts.get(lift) ?? []), record]);
  return {
    verdict: now.verdict,
    told: now.told,
    inForce: [...inForce.values()],
    doubts,
    unsigned: new Set(rows.filter((one) => !signed(one)).map(({ hold }) => hold.id)),
    stays({ kind, action, id }, onHold) {
      if (kind !== "audit" || (action !== PLACED && action !== LIFTED)) return onHold;
      const stay = onHold || staying.has(id) || (lifts.get(id) ?? []).some((record) => staying.has(record));
      if (stay) staying.add(id);
      return stay;
    },
  };
}

/** All that counts in it. */
function contentOf({ id, key, reason, subject, target, since, until }: Hold): string {
  return JSON.stringify([id, key, reason, subject, target, since, until].map((one) => one ?? null));
}

export function isHeld(record: StoredRecord, { subject, target, since, until }: Hold): boolean {
  const at = Date.parse(record.at);
  if (since !== undefined && at < since) return false;
  if (until !== undefined && at >= until) return false;
  return (
    (subject === undefined || record.principal?.subject === subject) &&
    (target === undefined || record.call?.name === target)
  );
}
