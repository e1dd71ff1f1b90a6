/**
 * The chain of one process: each record's text ends with the hash of the text before it, so none can be changed, removed, added or
 * moved without breaking the rest. Each commit is signed as a whole (`Head`); checkpoints, records themselves, sign all that came
 * before under one Merkle root.
 */
import type { JsonObject } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { newId } from "../core/ids.ts";
import type { AuditHead, AuditLog, AuditRow } from "../store/ports.ts";
import { leafHash, merkleTree } from "./merkle.ts";
import type { PersonalKeys } from "./personal.ts";
import { type Draft, draftOf, logRecord } from "./record.ts";
import type { Signer } from "./signing.ts";
import { type Head, readHead, type Signed, signedCheckpoint, signedHead } from "./statements.ts";

export interface ChainParts {
  /** Asked when the first record is written, as is the log. */
  readonly signer: () => Promise<Signer>;
  readonly log: Pick<AuditLog, "heads">;
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
/** Chains that a new one names as its elders. */
const MAX_ELDERS = 100;

/** A new chain. It begins with a record that names the others in the log and how far they go. */
export function openChain(parts: ChainParts): Chain {
  const { keys, log, replica } = parts;
  const clock = parts.clock ?? systemClock;
  const checkpointRecords = parts.checkpointRecords ?? CHECKPOINT_RECORDS;
  const checkpointMs = parts.checkpointMs ?? CHECKPOINT_MS;
  const id = newId(clock());
  const tree = merkleTree();
  let signer: Signer | undefined;
  let last = "";
  let checkpointed = { size: 0, at: clock() };

  function place(draft: Draft, personal: string): AuditRow {
    const json = `${draft.open}${personal},"chain":{"id":"${id}","n":${tree.size},"prev":"${last}"}}`;
    const digest = leafHash(json);
    last = digest.toString("base64url");
    tree.add(digest);
    return { ...draft.row, json };
  }

  async function personalOf({ personal, row }: Draft): Promise<string> {
    if (personal === undefined) return "";
    if (keys === undefined) return `,"personal":${personal}`;
    const found = keys.of(row.subject);
    const key = found instanceof Promise ? await found : found;
    return `,"sealed":{"key":"${key.kid}","text":"${key.seal(personal, row.id)}"}`;
  }

  const ownRecord = (action: string, details: JsonObject): AuditRow =>
    place(draftOf(logRecord(action, details, replica, clock())), "");

  async function beginning(): Promise<AuditRow> {
    const elders = (await log.heads()).flatMap(({ json }) => readHead(JSON.parse(json)) ?? []);
    elders.sort((a, b) => (a.chain < b.chain ? -1 : 1));
    const after = elders.slice(-MAX_ELDERS).map(({ chain, size, hash: end }) => ({ chain, size, hash: end }));
    signer = await parts.signer();
    return ownRecord("audit.chain-started", { kid: signer.kid, after });
  }

  const headNow = (): Head => ({ chain: id, size: tree.size, hash: last, at: new Date(clock()).toISOString() });

  async function checkpoint(by: Signer): Promise<AuditRow> {
    const signed = await signedCheckpoint({ ...headNow(), root: tree.root() }, by);
    const row = ownRecord("audit.checkpoint", { ...signed });
    checkpointed = { size: tree.size, at: clock() };
    return row;
  }

  async function headed(rows: readonly AuditRow[], by: Signer): Promise<Linked> {
    const head: Signed<Head> = await signedHead(headNow(), by);
    return { rows, head: { chain: id, json: JSON.stringify(head) } };
  }

  /** What was given a place has it only when all of it could be signed: a place that nothing is written to would be a gap. */
  async function wholly<T>(work: () => Promise<T>): Promise<T> {
    const was = { tree: tree.mark(), last, checkpointed, signer };
    try {
      return await work();
    } catch (error) {
      was.tree();
      ({ last, checkpointed, signer } = was);
      throw error;
    }
  }

  return {
    async link(drafts) {
      const personal: string[] = [];
      for (const draft of drafts) personal.push(await personalOf(draft));
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
