/**
 * Checks a log against itself and its signatures: every record in its place in a chain, every chain as long as its head says. It reads
 * texts in their order and keeps a few values for each chain, so it runs over an export of any length, without a store or a network.
 */
import type { JsonObject } from "../core/call.ts";
import { linkIn, type Placed, readStub, type Stub } from "./link.ts";
import { leafDigest, type MerkleTree, merkleTree } from "./merkle.ts";
import { placesIn } from "./places.ts";
import type { StoredRecord } from "./record.ts";
import {
  type Beginning,
  isKept,
  type RetiredChain,
  retiredChains,
  retiredIn,
  spanOf,
  type Told,
  type Unchained,
} from "./retired.ts";
import type { Vouchers } from "./signing.ts";
import {
  type Head,
  readCheckpoint,
  readHead,
  type Seen,
  seenIn,
  vouchesForCheckpoint,
  vouchesForHead,
} from "./statements.ts";

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
  /** The next text of the log, or its bytes, which are not kept. */
  read(at: number, text: string | Buffer): void;
  /** After the last text: the chains' heads. Of an export besides what it says of where it was cut, which is taken at its word. */
  end(heads: readonly unknown[], cut?: Cut): Verdict;
  /** What retention says it took, in the records so far. */
  told(): Told;
}

/** Where a part was cut out of a log. */
export interface Cut {
  /** Chains whose first records are not in it. */
  readonly beginnings: readonly Beginning[];
  /** Where chains end in it. */
  readonly ends: readonly End[];
  /** What retention had taken of the whole. */
  readonly retired: readonly RetiredChain[];
}
export type End = Omit<Head, "at">;

export interface VerificationOptions {
  /**
   * Makes the Merkle roots of checkpoints again, which takes half as long again. Without it checkpoints are held against the hash and
   * the number of the record before them, which is as much proof; the root is there for those who have only some of the records.
   */
  readonly roots?: boolean;
  /** What positions are. Records say of each other under which sequence number they stand; in lines that shows as the same distance. */
  readonly positions?: "sequence numbers" | "lines";
}

/** A record as it passes by. */
export interface Passed extends Placed {
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

/** The beginning of every text: texts are compared by the byte, so there is one way to write them. */
const START = /^\{"v":2,"id":"([^"]{1,100})","kind":"([a-z-]+)"/;
const START_CHARACTERS = 160;
const UNCHAINED = /^\{"v":1,/;
/** `{"re` and not `{"v"`. */
const OF_STUB = "r".charCodeAt(0);

/** Begins a verification of a log whose signatures must be of `vouchers`. */
export function verification(
  vouchers: Vouchers,
  { roots = false, positions = "sequence numbers" }: VerificationOptions = {},
): Verification {
  const places = placesIn(positions, (passed, why) => found("moved", passed, why));
  const chains = new Map<string, Walked>();
  const begun = new Map<string, Beginning>();
  const retiredTo = retiredChains();
  const stubs = new Map<string, Left>();
  const starts: Passed[] = [];
  const elders = new Map<string, Elder>();
  /** How many records without a chain there were, and how many of them may be gone. */
  let before: Unchained & { readonly turn: number } = { taken: 0, turn: -1 };
  let firstUnchained: Pick<Passed, "at" | "record" | "id"> | undefined;
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

  function read(at: number, text: string | Buffer) {
    const bytes = typeof text === "string" ? Buffer.from(text) : text;
    if (bytes[2] === OF_STUB) {
      const stub = readStub(bytes.toString("latin1"));
      if (stub !== undefined) return passStub(at, stub);
    }
    records++;
    const link = linkIn(bytes);
    const start = bytes.toString("latin1", 0, START_CHARACTERS);
    const [, record = "", kind = ""] = START.exec(start) ?? [];
    if (link === undefined || record === "") return outside(at, record, link?.id ?? "", UNCHAINED.test(start));
    const passed = { at, record, ...link, digest: leafDigest(bytes) };
    if (kind !== "audit") return walk(passed, undefined);
    const own = parsed(bytes);
    // Also where its chain is broken: what is wrong there is named, and not all that retention took. Who forges one is found by its chain.
    if (own?.action === "audit.retired") retiring(own.details);
    walk(passed, own ?? "no JSON");
  }

  /** Versions before there were chains have written records, too; which ones is not known, but how many is. */
  function outside(at: number, record: string, id: string, older: boolean) {
    if (chains.size > 0 || !older)
      return found("added", { at, record, id }, "It is in no chain: it was added, or changed beyond recognition.");
    unchained++;
    firstUnchained ??= { at, record, id };
  }

  /** Its neighbours vouch for it; that it was retention which left it is to be seen. */
  function passStub(at: number, { id, n, prev, hash }: Stub) {
    retired++;
    const left = stubs.get(id) ?? [];
    stubs.set(id, left);
    const last = left.at(-1);
    const goesOn = last !== undefined && n === last.n + last.count && at === last.at + last.count;
    if (goesOn) last.count++;
    else left.push({ at, n, count: 1 });
    walk({ at, record: "", id, n, prev, prevAt: undefined, digest: hash }, undefined);
  }

  function walk(passed: Passed, own: StoredRecord | "no JSON" | undefined) {
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
      grow(tree, passed);
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
    else places.follows(known.last, passed);
    known.last = passed;
    if (known.doubted === undefined && own !== undefined) ownRecord(passed, own, known.tree);
    grow(known.tree, passed);
  }

  const grow = (tree: MerkleTree | undefined, { digest }: Passed) => tree?.add(digest);

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

  /** Records about the log: beginnings and checkpoints. */
  function ownRecord(passed: Passed, record: StoredRecord | "no JSON", tree: MerkleTree | undefined) {
    if (record === "no JSON") return found("changed", passed, "It is no JSON.");
    const { action, details } = record;
    if (action === "audit.checkpoint") checkpointed(passed, details, tree);
    if (action === "audit.chain-started") places.began(passed, details);
    for (const head of [...seenIn(details, "after"), ...seenIn(details, "beside")]) seen(head, passed.at);
    const count = details?.["unchained"];
    if (action === "audit.chain-started" && typeof count === "number") before = { of: count, ...before };
  }

  function retiring(details: JsonObject | undefined) {
    const turn = Number(details?.["turn"] ?? 0);
    retiredTo.add(retiredIn(details), turn);
    if (turn <= before.turn) return;
    before = { ...before, ...(details?.["unchained"] as unknown as Unchained | undefined), turn };
  }

  function seen({ chain, size, sequence }: Seen, at: number) {
    if ((elders.get(chain)?.size ?? 0) < size) elders.set(chain, { size, at, sequence });
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

  function end(heads: readonly unknown[], cut?: Cut): Verdict {
    for (const beginning of cut?.beginnings ?? []) begun.set(beginning.chain, beginning);
    retiredTo.add(cut?.retired ?? [], Number.POSITIVE_INFINITY);
    for (const start of starts) began(start);
    for (const [chain, left] of stubs) taken(chain, left);
    const signed = heads.map(readHead);
    for (const head of signed) {
      if (head === undefined) found("changed", undefined, "What the log says of the end of a chain cannot be read.");
      else if (!vouchesForHead(vouchers, head)) found("unsigned", chains.get(head.chain)?.last, unsigned(head.kid));
      else ended(head);
    }
    for (const last of cut?.ends ?? []) ended(last);
    const vouched = new Set([...signed, ...(cut?.ends ?? [])].map((head) => head?.chain));
    for (const [chain, { last }] of chains)
      if (!vouched.has(chain)) found("unsigned", last, "Nobody vouches for the end of its chain.");
    if (cut === undefined) {
      for (const gone of retiredTo.values()) stillKept(gone);
      fromBefore();
    }
    for (const [chain, elder] of elders) {
      stillThere(chain, elder);
      const last = chains.get(chain)?.last;
      // What came before its last record was said in the chain itself.
      if (last?.n === elder.size - 1) places.stands(last, elder.sequence);
    }
    places.end((cut?.retired ?? []).length === 0, ({ id, n }) => {
      const [, to, at] = spanOf(retiredTo.get(id) ?? { kept: [] }, n) ?? [];
      return to === n ? at : undefined;
    });
    return { records, chains: chains.size, checkpoints, unchained, retired, problem };
  }

  /** A chain that is not here from its first record: is it known where the others are? */
  function began(start: Passed) {
    const cut = begun.get(start.id);
    const gone = retiredTo.get(start.id);
    if (cut !== undefined && start.n === cut.n && start.prev === cut.prev) {
      if (start.n === gone?.n) retired += start.n;
      return;
    }
    // An interrupted retirement has said what goes and not taken all of it.
    if (gone === undefined || start.n > gone.n)
      found("removed", start, `Its chain begins here with record ${start.n}; those before it are missing.`);
    else if (start.n === gone.n && start.prev !== gone.prev)
      found("changed", start, "It follows another record than the one that retention took before it.");
    else retired += start.n;
  }

  /** What retention has taken stands in its own record; anybody can write what looks like the rest of one. */
  function taken(chain: string, left: Left) {
    const gone = retiredTo.get(chain);
    for (const { at, n, count } of left)
      for (let k = 0; k < count; k++)
        if (n + k >= (gone?.through ?? 0) || (gone !== undefined && isKept(gone, n + k))) {
          const which = { at: at + k, record: "", id: chain };
          return found("removed", which, `Record ${n + k} of its chain was taken out, and not by retention.`);
        }
  }

  /** What retention has kept of the beginning of a chain is there, or was taken later. */
  function stillKept({ chain, kept: [first] }: RetiredChain) {
    const start = starts.find(({ id }) => id === chain);
    if (first === undefined || (start === undefined && chains.has(chain))) return;
    if (start === undefined || start.n > first[0])
      found("removed", start, `Record ${first[0]} of the chain ${chain} is missing, which retention has kept.`);
  }

  function fromBefore() {
    const { of = 0, taken } = before;
    const were = `The log began after ${counted(of, "record")} in no chain`;
    if (unchained > of) found("added", firstUnchained, `${were}, and here are ${unchained}.`);
    if (unchained < of - taken) found("removed", undefined, `${were}, of which only ${unchained} are left.`);
  }

  function ended(head: End) {
    const known = chains.get(head.chain);
    if (known === undefined) {
      if ((retiredTo.get(head.chain)?.n ?? 0) < head.size)
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

  /** A chain that another has seen cannot vanish, nor get shorter. */
  function stillThere(chain: string, { size, at }: Elder) {
    const known = chains.get(chain);
    const left = known === undefined ? (retiredTo.get(chain)?.n ?? 0) : known.last.n + 1;
    if (left < size && begun.size === 0)
      found(
        "removed",
        { at, record: "", id: chain },
        `This record saw a chain of ${counted(size, "record")}, of which ${left} are left.`,
      );
  }

  function told(): Told {
    const { of, taken: gone } = before;
    return { chains: [...retiredTo.values()], unchained: { ...(of !== undefined && { of }), taken: gone } };
  }

  return { read, end, told };
}

/** Stubs that follow one another, in the chain and in the log. */
type Left = { readonly at: number; readonly n: number; count: number }[];

/** A chain that another one has seen, when it was longest. */
interface Elder {
  readonly size: number;
  /** Where that stands. */
  readonly at: number;
  readonly sequence: number | undefined;
}

function parsed(bytes: Buffer): StoredRecord | undefined {
  try {
    return JSON.parse(bytes.toString()) as StoredRecord;
  } catch {
    return undefined;
  }
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
