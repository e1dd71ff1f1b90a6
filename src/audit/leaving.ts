/**
 * Decides what leaves the log, record by record as they stand in it. It follows the chains while it does: of a log that somebody has
 * changed nothing may go, because what goes takes the proof of that with it.
 */
import { DrawbridgeError } from "../core/errors.ts";
import type { Retired } from "../store/ports.ts";
import { linkOf, readStub, stubOf } from "./link.ts";
import { leafHash } from "./merkle.ts";
import type { Link, StoredRecord } from "./record.ts";
import { isKept, type LastRetired, type RetiredChain, retiredChains, type Span, type Told } from "./retired.ts";
import { type Head, seenIn } from "./statements.ts";

/** An old text of the log; of a stub there is no record, nor of what cannot be read. */
export interface OldText {
  readonly sequence: number;
  readonly json: string;
  readonly record: StoredRecord | undefined;
}

export interface Leaving {
  /** The next text of the log. What is done with it; undefined: it stays as it is. Throws `audit_unavailable` where it does not fit. */
  next(old: OldText, onHold: boolean): Retired["records"][number] | undefined;
  /** What all retirements have taken once that is done, this one included. */
  told(): Told;
}

/** Spans of records on hold between others; beyond it what comes after them stays, as if it were on hold. */
const MAX_SPANS = 20_000;
/** Chains that are gone altogether and named by no record on hold: those that went longest ago are known to nobody any more. */
const MAX_GONE = 1000;

/** A chain, while its old records are looked at. */
interface Looked {
  /** The first record that stays; all before it go. */
  n: number;
  prev: string;
  /** Some before this one go, and leave their hash. */
  through: number;
  /** Its records that stay whole, as far as it was looked at. */
  readonly kept: [from: number, to: number, at: number][];
  /** The place of the record that is to come. */
  next: Link;
}

/** `heads`: how far chains go. */
export function leaving(last: LastRetired, heads: ReadonlyMap<string, Pick<Head, "size">>): Leaving {
  const known = retiredChains();
  known.add(last.chains, last.turn);
  const chains = new Map<string, Looked>();
  const named = new Set<string>();
  let { unchained } = last;
  let spans = 0;

  function next({ sequence, json, record }: OldText, onHold: boolean): Retired["records"][number] | undefined {
    const stub = readStub(json);
    const link = stub ?? linkOf(json);
    if (link === undefined) {
      if (chains.size > 0 || !json.startsWith('{"v":1,')) throw broken(sequence, "is in no chain");
      if (onHold) return undefined;
      unchained = { ...unchained, taken: unchained.taken + 1 };
      return { sequence, stub: undefined };
    }
    if (stub === undefined && record === undefined) throw broken(sequence, "cannot be read");
    const chain = chains.get(link.id) ?? begun(link, sequence);
    chains.set(link.id, chain);
    if (link.n !== chain.next.n || link.prev !== chain.next.prev)
      throw broken(sequence, "does not follow the one before it");
    const digest = stub?.hash ?? leafHash(json);
    chain.next = { id: link.id, n: link.n + 1, prev: digest };
    if (stub !== undefined) byRetention(stub, sequence);
    if (record !== undefined) heard(record, sequence, onHold);
    const trace = chain.kept.length > 0;
    if (onHold || (trace && stub === undefined && spans >= MAX_SPANS)) {
      keep(chain, link.n, sequence);
      return undefined;
    }
    chain.through = link.n + 1;
    if (trace) return stub === undefined ? { sequence, stub: stubOf(digest, link) } : undefined;
    chain.n = link.n + 1;
    chain.prev = digest;
    return { sequence, stub: undefined };
  }

  /** A chain begins where retention has left it. */
  function begun(link: Link, sequence: number): Looked {
    const { n, prev } = link;
    const said = known.get(link.id) ?? { n: 0, prev: "", kept: [] };
    if (n > said.n || (n === said.n && prev !== said.prev)) throw broken(sequence, "is not where its chain began");
    const [first] = said.kept;
    if (first !== undefined && first[0] < n) throw broken(sequence, "comes after one that was on hold and is missing");
    return { n, prev, through: n, kept: [], next: link };
  }

  function byRetention({ id, n }: Link, sequence: number): void {
    const said = known.get(id);
    if (said === undefined || n >= said.through || isKept(said, n))
      throw broken(sequence, "was taken out, and not by retention");
  }

  /** What it says of other chains goes with it, so it has to be true. */
  function heard({ kind, action, details }: StoredRecord, sequence: number, onHold: boolean): void {
    if (kind !== "audit") return;
    if (action === "audit.chain-started" && typeof details?.["unchained"] === "number")
      unchained = { of: details["unchained"], ...unchained };
    for (const { chain, size } of [...seenIn(details, "after"), ...seenIn(details, "beside")]) {
      if (Math.max(heads.get(chain)?.size ?? 0, known.get(chain)?.n ?? 0) < size)
        throw broken(sequence, "saw more records of another chain than there are");
      if (onHold) named.add(chain);
    }
  }

  function keep({ kept }: Looked, n: number, sequence: number): void {
    const last = kept.at(-1);
    if (last?.[1] === n - 1) last.splice(1, 2, n, sequence);
    else {
      kept.push([n, n, sequence]);
      spans++;
    }
  }

  function told(): Told {
    const all = new Map(known);
    for (const [chain, looked] of chains) {
      const said = known.get(chain);
      const one = together(chain, looked, said);
      if (one.through === 0) continue;
      // What went now went last.
      if (one.n !== said?.n || one.through !== said.through) all.delete(chain);
      all.set(chain, one);
    }
    const gone = [...all.keys()].filter((chain) => !heads.has(chain) && !named.has(chain));
    for (const chain of gone.slice(0, -MAX_GONE)) all.delete(chain);
    return { chains: [...all.values()], unchained };
  }

  return { next, told };
}

/** What is left of a chain by what is said now, and where this run has not looked, by what was said before. */
function together(chain: string, looked: Looked, said: RetiredChain | undefined): RetiredChain {
  const { n, prev } = said !== undefined && said.n > looked.n ? said : looked;
  const through = Math.max(looked.through, said?.through ?? 0);
  const reached = looked.next.n;
  const beyond = (said?.kept ?? []).filter(([, to]) => to >= reached);
  const further = beyond.map(([from, to, ...at]): Span => (from >= reached ? [from, to, ...at] : [reached, to, ...at]));
  const before = [...looked.kept, ...further].filter(([from]) => from < through);
  const kept = before.map((span): Span => (span[1] < through ? span : [span[0], through - 1]));
  return { chain, n, prev, through, kept };
}

function broken(sequence: number, why: string): DrawbridgeError {
  const message = `The audit log is not whole, so nothing is taken out of it: record ${sequence} ${why}. See drawbridge audit verify.`;
  return new DrawbridgeError("audit_unavailable", message);
}
