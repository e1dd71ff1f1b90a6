/**
 * Checks a log against itself and its signatures: every record in its place in a chain, every chain as long as its head says. It reads
 * texts in their order and keeps a few values for each chain, so it runs over an export of any length, without a store or a network.
 */
import type { JsonObject } from "../core/call.ts";
import { leafHash, type MerkleTree, merkleTree } from "./merkle.ts";
import type { Link, StoredRecord } from "./record.ts";
import type { Vouchers } from "./signing.ts";
import { type Head, readCheckpoint, readHead, vouchesForCheckpoint, vouchesForHead } from "./statements.ts";

/** `unsigned`: nobody who is trusted vouches for it. */
export type ProblemKind = "changed" | "removed" | "added" | "moved" | "unsigned";

export interface Problem {
  readonly kind: ProblemKind;
  /** Sequence number, or line of an export: of the record, or of the one that stands where it should. 0: nowhere. */
  readonly at: number;
  readonly id: string | undefined;
  readonly chain: string | undefined;
  /** A sentence. */
  readonly why: string;
}

export interface Verdict {
  readonly records: number;
  readonly chains: number;
  readonly checkpoints: number;
  /** Records of versions that had no chains, at the beginning of the log. */
  readonly unchained: number;
  /** Records that retention has removed, of which what is left of the chain still vouches. */
  readonly retired: number;
  /** The first in the order of the log; undefined: nothing is wrong. */
  readonly problem: Problem | undefined;
}

export interface Verification {
  /** The next text of the log. */
  read(at: number, text: string): void;
  /** After the last text: the chains' heads, and where chains begin that are not here from their first record. */
  end(heads: readonly unknown[], beginnings?: readonly Beginning[]): Verdict;
}

/** A chain whose records before `n` are elsewhere; `prev` is the hash of the last of them. */
export interface Beginning {
  readonly chain: string;
  readonly n: number;
  readonly prev: string;
}

/** What retention says it took of a chain: all before record `n`, and some before record `through`. */
export interface RetiredChain extends Beginning {
  readonly through: number;
}

export interface VerificationOptions {
  /**
   * Makes the Merkle roots of checkpoints again, which takes half as long again. Without it checkpoints are held against the hash and
   * the number of the record before them, which is as much proof; the root is there for those who have only some of the records.
   */
  readonly roots?: boolean;
}

/** A record as it passes by. */
interface Passed extends Link {
  readonly at: number;
  readonly record: string;
  readonly digest: string;
}

/** What is known of a chain. */
interface Walked {
  last: Passed;
  /** Claims the number of the last one; which of the two is right is said by the next one, or by the head. */
  rival: Passed | undefined;
  /** The last one does not fit to the one before it; the next one says which of the two was changed. */
  doubted: Passed | undefined;
  /** Numbers that did not come when they should: from, to, and what came instead. */
  gap: { readonly from: number; readonly instead: Passed } | undefined;
  /** Something is wrong; nothing more is said about it. */
  broken: boolean;
  /** Undefined when roots are not asked for, or its records are not here from the first. */
  readonly tree: MerkleTree | undefined;
}

/** The end and the beginning of every text: texts are compared by the byte, so there is one way to write them. */
const LINK = /,"chain":\{"id":"([0-9a-f-]{36})","n":(\d{1,15}),"prev":"([\w-]{43}|)"\}\}$/;
const LINK_CHARACTERS = 160;
const START = /^\{"v":2,"id":"([^"]{1,100})","kind":"([a-z-]+)"/;
const UNCHAINED = '{"v":1,';
const STUB = '{"retired":{';

/** Begins a verification of a log whose signatures must be of `vouchers`. */
export function verification(vouchers: Vouchers, { roots = false }: VerificationOptions = {}): Verification {
  const chains = new Map<string, Walked>();
  const begun = new Map<string, Beginning>();
  const retiredTo = new Map<string, RetiredChain>();
  const stubs = new Map<string, Passed>();
  const starts: Passed[] = [];
  const elders: { readonly head: Head; readonly at: number }[] = [];
  let problem: Problem | undefined;
  let worst = Number.POSITIVE_INFINITY;
  let records = 0;
  let checkpoints = 0;
  let unchained = 0;
  let retired = 0;

  /** `last`: what is wrong is after the record, nobody knows where, so everything else comes first. */
  function found(
    kind: ProblemKind,
    passed: Pick<Passed, "at" | "record" | "id"> | undefined,
    why: string,
    last = false,
  ) {
    const rank = last || passed === undefined ? Number.POSITIVE_INFINITY : passed.at;
    if (problem !== undefined && worst <= rank) return;
    worst = rank;
    problem = { kind, at: passed?.at ?? 0, id: passed?.record, chain: passed?.id, why };
  }

  function read(at: number, text: string) {
    if (isStub(text)) return readStub(at, text);
    records++;
    const { id, n, prev } = linkOf(text) ?? { id: "", n: 0, prev: "" };
    const [, record = "", kind = ""] = START.exec(text) ?? [];
    if (id === "" || record === "") {
      if (chains.size === 0 && text.startsWith(UNCHAINED)) unchained++;
      else found("added", { at, record, id }, "It is in no chain: it was added, or changed beyond recognition.");
      return;
    }
    const digest = leafHash(text);
    const passed = { at, record, id, n, prev, digest: digest.toString("base64url") };
    walk(passed, digest, kind === "audit" ? text : undefined);
  }

  /** What is left of a record that retention took: its place and its hash, which its neighbours vouch for. */
  function readStub(at: number, text: string) {
    const digest = stubHash(text);
    const { id, n, prev } = linkOf(text) ?? { id: "", n: 0, prev: "" };
    if (digest === "" || id === "")
      return found("changed", { at, record: "", id }, "What is left of it cannot be read.");
    retired++;
    stubs.set(id, { at, record: "", id, n, prev, digest });
    walk({ at, record: "", id, n, prev, digest }, Buffer.from(digest, "base64url"), undefined);
  }

  function walk(passed: Passed, digest: Buffer, own: string | undefined) {
    const known = chains.get(passed.id);
    if (known === undefined) {
      const tree = roots && passed.n === 0 ? merkleTree() : undefined;
      if (passed.n === 0 && passed.prev !== "")
        found("changed", passed, "It is the first of its chain and says that it follows another.");
      if (passed.n > 0) starts.push(passed);
      chains.set(passed.id, {
        last: passed,
        rival: undefined,
        doubted: undefined,
        gap: undefined,
        broken: false,
        tree,
      });
      if (own !== undefined) ownRecord(passed, own, tree);
      tree?.add(digest);
      return;
    }
    if (known.broken) return;
    if (known.gap !== undefined) return inGap(known, passed);
    if (passed.n > known.last.n + 1) {
      known.gap = { from: known.last.n + 1, instead: passed };
      known.last = passed;
      return;
    }
    if (passed.n <= known.last.n) return again(known, passed);
    settle(known, passed.prev);
    if (known.broken) return;
    if (passed.prev !== known.last.digest) known.doubted = known.last;
    known.last = passed;
    if (known.doubted === undefined && own !== undefined) ownRecord(passed, own, known.tree);
    known.tree?.add(digest);
  }

  /** After a number was left out: does it come later? Everything else about the chain must wait. */
  function inGap(known: Walked, passed: Passed) {
    const { gap } = known;
    if (gap === undefined || passed.n < gap.from || passed.n >= gap.instead.n) return;
    const why = `Record ${gap.from} of the chain should stand here; record ${passed.n} of it comes only later (at ${passed.at}).`;
    found("moved", gap.instead, why);
    known.broken = true;
  }

  /** A number that the chain has had. */
  function again(known: Walked, passed: Passed) {
    if (passed.n === known.last.n && passed.digest !== known.last.digest && known.rival === undefined) {
      known.rival = passed;
      return;
    }
    found("added", passed, `The chain has had its record ${passed.n} already: this one was added, or moved here.`);
    known.broken = true;
  }

  /** Decides what was open, by the hash that the next record, or the head, has of the one before it. */
  function settle(known: Walked, prev: string): void {
    const { rival, doubted, last } = known;
    if (rival !== undefined) {
      const [added, true_] = prev === rival.digest ? [last, rival] : [rival, last];
      found("added", added, `Another record has its number, ${true_.n}, and the rest of the chain follows that one.`);
      known.broken = true;
    } else if (doubted !== undefined) {
      const changed = prev === last.digest ? doubted : last;
      found("changed", changed, "The chain goes on from another text than this.");
      known.broken = true;
    }
  }

  /** Records about the log: beginnings, checkpoints, what retention took. */
  function ownRecord(passed: Passed, text: string, tree: MerkleTree | undefined) {
    const record = parsed(text);
    if (record === undefined) return found("changed", passed, "It is no JSON.");
    const { action, details } = record;
    if (action === "audit.checkpoint") checkpointed(passed, details, tree);
    const listed = <T>(name: string) => (details?.[name] ?? []) as unknown as readonly T[];
    if (action === "audit.chain-started")
      for (const head of listed<Head>("after")) elders.push({ head, at: passed.at });
    if (action === "audit.retired") for (const gone of listed<RetiredChain>("chains")) retiredTo.set(gone.chain, gone);
  }

  function checkpointed(passed: Passed, details: JsonObject | undefined, tree: MerkleTree | undefined) {
    const checkpoint = readCheckpoint(details);
    const fits = checkpoint?.chain === passed.id && checkpoint.size === passed.n && checkpoint.hash === passed.prev;
    if (checkpoint === undefined || !fits || (tree !== undefined && tree.root() !== checkpoint.root))
      return found("changed", passed, "The checkpoint is not of the records before it.");
    if (!vouchesForCheckpoint(vouchers, checkpoint)) return found("unsigned", passed, unsigned(checkpoint.kid));
    checkpoints++;
  }

  function unsigned(kid: string): string {
    if (vouchers.kids.includes(kid)) return "Its signature is not right.";
    return `It is signed with the key ${kid}, which is not among those that are trusted.`;
  }

  function end(heads: readonly unknown[], beginnings: readonly Beginning[] = []): Verdict {
    for (const beginning of beginnings) begun.set(beginning.chain, beginning);
    for (const start of starts) began(start);
    for (const stub of stubs.values()) taken(stub);
    const signed = heads.map(readHead);
    for (const head of signed) {
      if (head === undefined) found("changed", undefined, "What the log says of the end of a chain cannot be read.");
      else if (!vouchesForHead(vouchers, head)) found("unsigned", chains.get(head.chain)?.last, unsigned(head.kid));
      else ended(head);
    }
    const vouched = new Set(signed.map((head) => head?.chain));
    for (const [chain, { last }] of chains)
      if (!vouched.has(chain)) found("unsigned", last, "Nobody vouches for the end of its chain.");
    for (const elder of elders) stillThere(elder);
    return { records, chains: chains.size, checkpoints, unchained, retired, problem };
  }

  /** A chain that is not here from its first record: is it known where the others are? */
  function began(start: Passed) {
    const known = retiredTo.get(start.id) ?? begun.get(start.id);
    // An interrupted retirement has said what goes and not taken all of it.
    if (known !== undefined && start.n <= known.n) {
      if (retiredTo.has(start.id)) retired += start.n;
    } else found("removed", start, `Its chain begins here with record ${start.n}; those before it are missing.`);
  }

  /** What retention has taken stands in its own record; anybody can write what looks like the rest of one. */
  function taken(stub: Passed) {
    if (stub.n >= (retiredTo.get(stub.id)?.through ?? 0))
      found("removed", stub, "It was taken out, and retention has no record of that.");
  }

  function ended(head: Head) {
    const known = chains.get(head.chain);
    if (known === undefined) {
      const gone = retiredTo.get(head.chain) ?? begun.get(head.chain);
      if (gone === undefined || gone.n < head.size)
        found("removed", undefined, `All ${head.size} records of the chain ${head.chain} are missing.`);
      return;
    }
    const { gap, last } = known;
    if (known.broken) return;
    if (gap !== undefined) {
      const missing = counted(gap.instead.n - gap.from, "record");
      return found(
        "removed",
        gap.instead,
        `Before this one ${missing} of its chain ${gap.instead.n - gap.from === 1 ? "is" : "are"} missing, from record ${gap.from} on.`,
      );
    }
    settle(known, head.hash);
    if (known.broken) return;
    if (last.n + 1 < head.size)
      found(
        "removed",
        last,
        `After this one, the last ${counted(head.size - last.n - 1, "record")} of its chain are missing.`,
        true,
      );
    else if (last.n + 1 > head.size)
      found("added", last, `Its chain was signed as ended before it, after ${counted(head.size, "record")}.`);
    else if (last.digest !== head.hash) found("changed", last, "Its chain was signed with another text at its end.");
  }

  /** A chain that a later one has seen cannot vanish as a whole. */
  function stillThere({ head, at }: { readonly head: Head; readonly at: number }) {
    const known = chains.get(head.chain);
    const gone = retiredTo.get(head.chain) ?? begun.get(head.chain);
    const size = known === undefined ? (gone?.n ?? 0) : known.last.n + 1;
    if (size < head.size && begun.size === 0)
      found(
        "removed",
        { at, record: "", id: head.chain },
        `This record saw a chain of ${counted(head.size, "record")}, of which ${size} are left.`,
      );
  }

  return { read, end };
}

/** Its place in a chain, of a record's text; undefined for one that has none. */
export function linkOf(text: string): Link | undefined {
  const [, id, n, prev = ""] = LINK.exec(text.slice(-LINK_CHARACTERS)) ?? [];
  return id === undefined ? undefined : { id, n: Number(n), prev };
}

/** Whether it is what retention left of a record, whose hash `stubHash` gives. */
export function isStub(text: string): boolean {
  return text.startsWith(STUB);
}
export function stubHash(text: string): string {
  return /^\{"retired":\{"hash":"([\w-]{43})"\}/.exec(text)?.[1] ?? "";
}

function parsed(text: string): StoredRecord | undefined {
  try {
    return JSON.parse(text) as StoredRecord;
  } catch {
    return undefined;
  }
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
