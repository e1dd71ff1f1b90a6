/**
 * How far a sink is, as one row in the store that all replicas see. Whoever holds the row sends; every write is made against the version
 * that the holder knows, so one that was taken for dead cannot write any more.
 */
import type { Records } from "../../store/ports.ts";

/** The row of a sink. */
export interface Place {
  /** All records up to this number are where they belong. */
  readonly sequence: number;
  /** The replica that sends; empty: none does. */
  readonly holder: string;
  readonly kind: string;
  /** Records that were sent. */
  readonly sent: number;
  /** Batches that did not arrive, and records that were refused for good. */
  readonly failures: number;
  readonly refused: number;
  /** When the last batch arrived, milliseconds since the epoch. */
  readonly sentAt?: number | undefined;
  /** While it does not work: since when, and why. */
  readonly failingSince?: number | undefined;
  readonly problem?: string | undefined;
}

export interface Cursor {
  /** As this replica knows it. */
  readonly place: Place;
  readonly held: boolean;
  /** Looks at the row, and takes it when nobody holds it or its holder shows no sign of life. True: it is held now. */
  take(): Promise<boolean>;
  /** Shows a sign of life, with what has changed. Throws `Lost` when another has taken the row. One at a time. */
  write(change: Partial<Place>): Promise<void>;
  /** Makes sure that nobody else has taken the row: cheap while the last sign of life is young. */
  sure(): Promise<void>;
  /** Lets another take it at once. */
  release(): Promise<void>;
}

export class Lost extends Error {}

const KIND = "audit-sink";
/** A holder shows a sign of life every so many milliseconds; */
export const BEAT_MS = 2000;
/** without one for so long, it is dead; */
const DEAD_MS = 6000;
/** and it does not send when its last one is as old. */
const SURE_MS = 4000;

export function openCursor(
  records: Records,
  { name, kind, replica }: { readonly name: string; readonly kind: string; readonly replica: string },
  monotonic: () => number = () => performance.now(),
): Cursor {
  let place: Place = { sequence: 0, holder: "", kind, sent: 0, failures: 0, refused: 0 };
  let held = false;
  let version = 0;
  let beatAt = Number.NEGATIVE_INFINITY;
  /** What became of the last write is not known. */
  let unsure = false;
  let seen = { version: -1, at: 0 };
  let writing: Promise<unknown> = Promise.resolve();

  async function take(): Promise<boolean> {
    const row = await records.get<Place>(KIND, name);
    const now = monotonic();
    if (row !== undefined && row.version !== seen.version) seen = { version: row.version, at: now };
    if (row !== undefined) place = row.value;
    const free = place.holder === "" || place.holder === replica || now - seen.at >= DEAD_MS;
    if (row !== undefined && !free) return false;
    const mine = { ...place, holder: replica, kind };
    if (!(await records.put(KIND, name, mine, { ifVersion: row?.version ?? 0 }))) return false;
    place = mine;
    version = (row?.version ?? 0) + 1;
    beatAt = now;
    unsure = false;
    held = true;
    return true;
  }

  function write(change: Partial<Place>): Promise<void> {
    const turn = writing.then(() => put(change));
    writing = turn.catch(() => {});
    return turn;
  }

  async function put(change: Partial<Place>): Promise<void> {
    if (!held) throw new Lost();
    // What is known here is known even if it cannot be written now; the next write has it.
    place = { ...place, ...change };
    const now = monotonic();
    if (unsure) {
      const row = await records.get<Place>(KIND, name);
      if (row?.value.holder !== replica) return lost();
      version = row.version;
    }
    unsure = true;
    if (!(await records.put(KIND, name, place, { ifVersion: version }))) return lost();
    unsure = false;
    version++;
    beatAt = now;
  }

  function lost(): never {
    held = false;
    throw new Lost();
  }

  return {
    get place() {
      return place;
    },
    get held() {
      return held;
    },
    take,
    write,
    async sure() {
      if (monotonic() - beatAt > SURE_MS) await write({});
    },
    async release() {
      if (!held) return;
      await write({ holder: "" });
      held = false;
    },
  };
}

/** The rows of all sinks that there ever were, by name. */
export async function placesIn(records: Records): Promise<ReadonlyMap<string, Place>> {
  const rows = await records.list<Place>(KIND, { limit: 1000 });
  return new Map(rows.map(({ id, value }) => [id, value]));
}
