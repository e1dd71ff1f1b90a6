/**
 * The chain of one process: each record's text ends with the hash of the text before it, so none can be changed, removed, added or
 * moved without breaking the rest. Each commit is signed as a whole (`Head`); checkpoints, records themselves, sign all that came
 * before under one Merkle root.
 */
import type { JsonObject } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { newId } from "../core/ids.ts";
import type { AuditHead, AuditLog, AuditRow } from "../store/ports.ts";
import { linkOf, placeText } from "./link.ts";
import { leafHash, merkleTree } from "./merkle.ts";
import type { Erased, PersonalKey, PersonalKeys } from "./personal.ts";
import { type Draft, draftOf, type Link, logRecord } from "./record.ts";
import type { Signer } from "./signing.ts";
import { type Head, headIn, type Signed, signedCheckpoint, signedHead } from "./statements.ts";

export interface ChainParts {
  /** Asked when the first record is written, as is the log. */
  readonly signer: () => Promise<Signer>;
  readonly log: Pick<AuditLog, "heads" | "read">;
  /** Absent: what is about a person is kept in clear and cannot be erased. */
  readonly keys?: PersonalKeys | undefined;
  /** A checkpoint is written after so many records, and with the first one that comes so long after the last checkpoint. */
  readonly checkpointRecords?: number;
  readonly checkpointMs?: number;
  readonly replica: string;
  readonly clock?: Clock;
}

/** Records in their places, and how far the chain goes with them: both go into one commit. */
export interface Linked {
  readonly rows: readonly AuditRow[];
  readonly head: AuditHead;
  /** They are written: where the last of them stands in the log, if that is known. The next record says so. */
  stands(sequence: number | undefined): void;
}

export interface Chain {
  /**
   * Gives records their places, in this order. One call after the other: not before the last one has resolved. What it gives back is
   * to be written, if need be again and again, before what it gives back next.
   */
  link(drafts: readonly Draft[]): Promise<Linked>;
  /** A checkpoint over everything so far; undefined when nothing was written since the last. */
  end(): Promise<Linked | undefined>;
}

const CHECKPOINT_RECORDS = 10_000;
const CHECKPOINT_MS = 60_000;
/** Other chains that a chain names, the youngest. */
const MAX_NAMED = 100;
const PAGE = 1000;

/** A new chain. It begins with a record that names the others in the log and how far they go, and so does each of its checkpoints. */
export function openChain(parts: ChainParts): Chain {
  const { keys, log, replica } = parts;
  const clock = parts.clock ?? systemClock;
  const checkpointRecords = parts.checkpointRecords ?? CHECKPOINT_RECORDS;
  const checkpointMs = parts.checkpointMs ?? CHECKPOINT_MS;
  const id = newId(clock());
  const tree = merkleTree();
  let signer: Signer | undefined;
  let last = "";
  /** Where the last record stands in the log, once that is known. */
  let lastAt: number | undefined;
  /** The next record is the first of a commit, and says where the one before it stands; the others follow it in the log. */
  let opening = false;
  let checkpointed = { size: 0, at: clock() };

  function place(draft: Draft, personal: string): AuditRow {
    const prevAt = opening && tree.size > 0 ? (lastAt ?? 0) : undefined;
    opening = false;
    const json = `${draft.open}${personal}${placeText({ id, n: tree.size, prev: last }, prevAt)}`;
    last = leafHash(json);
    lastAt = undefined;
    tree.add(last);
    return { ...draft.row, json };
  }

  /** A promise only while the key of the person is not at hand. */
  function personalOf({ personal, row }: Draft): string | Promise<string> {
    if (personal === undefined) return "";
    if (keys === undefined) return `,"personal":${personal}`;
    const sealed = (key: PersonalKey | Erased) =>
      key === "erased" ? `,"erased":true` : `,"sealed":{"key":"${key.kid}","text":"${key.seal(personal, row.id)}"}`;
    // What began before its person was erased is kept under no key, whenever it is written.
    const key = keys.of(row.subject, row.at);
    return key instanceof Promise ? key.then(sealed) : sealed(key);
  }

  const ownRecord = (action: string, details: JsonObject): AuditRow =>
    place(draftOf(logRecord(action, details, replica, clock())), "");

  async function beginning(): Promise<AuditRow> {
    const after = await others();
    const unchained = after.length === 0 ? await countUnchained(log) : undefined;
    signer = await parts.signer();
    const details = { kid: signer.kid, after, places: true, ...(unchained !== undefined && { unchained }) };
    return ownRecord("audit.chain-started", details);
  }

  /**
   * Also where their last records stand, for their writers can say that only with the next ones: of those at the end of the log, for what
   * others follow has its place by them.
   */
  async function others() {
    const heads = (await log.heads()).filter(({ chain }) => chain !== id);
    if (heads.length === 0) return [];
    heads.sort((a, b) => (a.chain < b.chain ? -1 : 1));
    const named = heads.slice(-MAX_NAMED).flatMap((head) => headIn(head) ?? []);
    const newest = new Map(
      (await log.read({ limit: MAX_NAMED, newest: true })).map(({ sequence, json }) => [
        placeOf(linkOf(json)),
        sequence,
      ]),
    );
    return named.map(({ chain, size, hash: end }) => {
      const sequence = newest.get(placeOf({ id: chain, n: size - 1 }));
      return { chain, size, hash: end, ...(sequence !== undefined && { sequence }) };
    });
  }

  const headNow = (): Head => ({ chain: id, size: tree.size, hash: last, at: new Date(clock()).toISOString() });

  async function checkpoint(by: Signer): Promise<AuditRow> {
    const signed = await signedCheckpoint({ ...headNow(), root: tree.root() }, by);
    // Whoever cuts off the end of another chain, or all of it, has to do so before that is said here.
    const beside = await others().catch(() => []);
    const row = ownRecord("audit.checkpoint", { ...signed, beside });
    checkpointed = { size: tree.size, at: clock() };
    return row;
  }

  async function headed(rows: readonly AuditRow[], by: Signer): Promise<Linked> {
    const head: Signed<Head> = await signedHead(headNow(), by);
    const end = last;
    const stands = (sequence: number | undefined) => {
      if (end === last) lastAt = sequence;
    };
    return { rows, head: { chain: id, json: JSON.stringify(head) }, stands };
  }

  /** What was given a place has it only when all of it could be signed: a place that nothing is written to would be a gap. */
  async function wholly<T>(work: () => Promise<T>): Promise<T> {
    const was = { tree: tree.mark(), last, lastAt, checkpointed, signer };
    opening = true;
    try {
      return await work();
    } catch (error) {
      was.tree();
      ({ last, lastAt, checkpointed, signer } = was);
      throw error;
    }
  }

  return {
    async link(drafts) {
      const personal: string[] = [];
      for (const draft of drafts) {
        const text = personalOf(draft);
        personal.push(typeof text === "string" ? text : await text);
      }
      return wholly(async () => {
        const rows: AuditRow[] = [];
        if (signer === undefined) rows.push(await beginning());
        const by = signer ?? (await parts.signer());
        for (const [at, draft] of drafts.entries()) rows.push(place(draft, personal[at] ?? ""));
        const due = tree.size - checkpointed.size >= checkpointRecords || clock() - checkpointed.at >= checkpointMs;
        if (due) rows.push(await checkpoint(by));
        return headed(rows, by);
      });
    },
    async end() {
      const by = signer;
      if (by === undefined || tree.size === checkpointed.size) return undefined;
      return wholly(async () => headed([await checkpoint(by)], by));
    },
  };
}

const placeOf = (link: Pick<Link, "id" | "n"> | undefined) => (link === undefined ? "" : `${link.id} ${link.n}`);

/** Records of versions that had no chains, which stand before all others: nobody can add to them or take from them unnoticed. */
async function countUnchained(log: Pick<AuditLog, "read">): Promise<number> {
  let count = 0;
  for (let after = 0; ; ) {
    const page = await log.read({ limit: PAGE, after });
    for (const { json } of page) {
      if (linkOf(json) !== undefined) return count;
      count++;
    }
    if (page.length < PAGE) return count;
    after = page.at(-1)?.sequence ?? after;
  }
}
