/**
 * What retention has taken of the log, chain by chain: each `audit.retired` record says all of it anew, and so does a signed row beside
 * the log, from which the next retirement goes on.
 */
import { hash } from "node:crypto";
import type { JsonObject } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Records } from "../store/ports.ts";
import { type Signer, type Vouchers, vouchersOf } from "./signing.ts";

/** A chain whose records before `n` are elsewhere; `prev` is the hash of the last of them. */
export interface Beginning {
  readonly chain: string;
  readonly n: number;
  readonly prev: string;
}

/** From a record's number to another's, both included, and where the last of them stands in the log. */
export type Span = readonly [from: number, to: number, at?: number | undefined];

/** What is to be gone of a chain: all before record `n`, and of those before record `through` all but the `kept` ones. */
export interface RetiredChain extends Beginning {
  readonly through: number;
  /** In their order. A record of these is whole, or somebody has taken it who had no right to. */
  readonly kept: readonly Span[];
}

/** Of the details of a record `audit.retired`; what is none is left out, for anybody may have written it. */
export function retiredIn(details: JsonObject | undefined): readonly RetiredChain[] {
  const listed = details?.["chains"];
  return Array.isArray(listed) ? (listed as readonly unknown[]).filter(isRetiredChain) : [];
}

function isRetiredChain(value: unknown): value is RetiredChain {
  const { chain, n, prev, through, kept } = (value ?? {}) as Partial<RetiredChain>;
  return (
    [chain, prev].every((text) => typeof text === "string") &&
    [n, through].every(Number.isInteger) &&
    Array.isArray(kept) &&
    kept.every((span: unknown) => Array.isArray(span) && span.length >= 2 && span.every(Number.isInteger))
  );
}

/** All that the retirements so far have said. */
export interface RetiredChains extends ReadonlyMap<string, RetiredChain> {
  /** Takes what one of them said; `turn` counts them. They may come in any order. */
  add(said: readonly RetiredChain[], turn: number): void;
}

export function retiredChains(): RetiredChains {
  const turns = new Map<string, number>();
  const chains = new Map<string, RetiredChain>();
  const add = (said: readonly RetiredChain[], turn: number) => {
    for (const one of said) {
      const known = chains.get(one.chain);
      const newer = turn >= (turns.get(one.chain) ?? 0);
      chains.set(one.chain, known === undefined ? one : newer ? furthest(known, one) : furthest(one, known));
      if (newer) turns.set(one.chain, turn);
    }
  };
  return Object.assign(chains, { add });
}

/** What an earlier one took stays taken; what is kept is said by the later one. */
function furthest(earlier: RetiredChain, later: RetiredChain): RetiredChain {
  const { n, prev } = earlier.n > later.n ? earlier : later;
  return { ...later, n, prev, through: Math.max(earlier.through, later.through) };
}

export function isKept(chain: Pick<RetiredChain, "kept">, n: number): boolean {
  return spanOf(chain, n) !== undefined;
}

/** The span that a record's number is in. */
export function spanOf({ kept }: Pick<RetiredChain, "kept">, n: number): Span | undefined {
  let low = 0;
  for (let high = kept.length; low < high; ) {
    const middle = (low + high) >> 1;
    if ((kept[middle]?.[1] ?? 0) < n) low = middle + 1;
    else high = middle;
  }
  const span = kept[low];
  return span !== undefined && n >= span[0] ? span : undefined;
}

/** What a retirement says. */
export interface Told {
  /** Those that went last come last. */
  readonly chains: readonly RetiredChain[];
  readonly unchained: Unchained;
}
/** Records of versions that had no chains. */
export interface Unchained {
  /** How many there were when the first chain began; undefined while that chain says so itself. */
  readonly of?: number | undefined;
  /** How many of these are to be gone, at most. */
  readonly taken: number;
}
/** `turn`: which one it was, counted from 1. */
export type LastRetired = Told & { readonly turn: number };

const KIND = "audit-retired";
const ID = "chains";
interface StoredRow {
  /** JSON of what it told, to the byte as it was signed. */
  readonly text: string;
  readonly kid: string;
  readonly signature: string;
}

/** `told` is undefined where nobody who is trusted has signed it. */
export async function lastRetired(
  records: Records,
  vouchers: Vouchers,
): Promise<{ readonly turn: number; readonly told: Told | undefined }> {
  const row = await records.get<Partial<StoredRow>>(KIND, ID);
  const { text = "", kid = "", signature = "" } = row?.value ?? {};
  const trusted = text !== "" && vouchers.verify(kid, lineOf(row?.version ?? 0, text), signature);
  return { turn: row?.version ?? 0, told: trusted ? (JSON.parse(text) as Told) : undefined };
}

/** Writes what the next one says. Throws `audit_unavailable` when another process has done so meanwhile. */
export async function keepRetired(records: Records, { turn, ...told }: LastRetired, signer: Signer): Promise<void> {
  const text = JSON.stringify(told);
  const row: StoredRow = { text, kid: signer.kid, signature: await signer.sign(lineOf(turn, text)) };
  if (await records.put(KIND, ID, row, { ifVersion: turn - 1 })) return;
  throw new DrawbridgeError("audit_unavailable", "Another process takes out old records just now. Try again later.");
}

const lineOf = (turn: number, text: string) => `drawbridge audit retired 1 ${turn} ${hash("sha256", text)}`;

/** Trusts what `signer` has signed, and what keys before it have. */
export function vouchersBeside(signer: Signer, earlier: readonly string[] = []): Vouchers {
  return vouchersOf([signer.publicKey, ...earlier], "the public key");
}
