/** What is signed about a chain of records, and how: one line each, so that an auditor can make it again with a shell. */
import type { JsonObject } from "../core/call.ts";
import type { AuditHead } from "../store/ports.ts";
import type { Signer, Vouchers } from "./signing.ts";

/** How far a chain goes. Kept beside the log and replaced in the commit that writes the records, so that a missing end is noticed. */
export interface Head {
  /** UUIDv7 of the process that writes the chain. */
  readonly chain: string;
  /** Records of the chain, counted from its first. */
  readonly size: number;
  /** Hash of the last record's text. */
  readonly hash: string;
  /** When it was signed, ISO 8601. */
  readonly at: string;
}
/** What a chain held so far, as a record of the chain itself: it stays when older records are removed. */
export interface Checkpoint extends Head {
  /** RFC 9162 root over the hashes of the records before it, from the first. */
  readonly root: string;
}
export type Signed<T> = T & { readonly kid: string; readonly signature: string };

const headLine = ({ chain, size, hash, at }: Head) => `drawbridge audit head 1 ${chain} ${size} ${hash} ${at}`;
const checkpointLine = ({ chain, size, hash, at, root }: Checkpoint) =>
  `drawbridge audit checkpoint 1 ${chain} ${size} ${hash} ${root} ${at}`;

export async function signedHead(head: Head, signer: Signer): Promise<Signed<Head>> {
  return { ...head, kid: signer.kid, signature: await signer.sign(headLine(head)) };
}
export async function signedCheckpoint(checkpoint: Checkpoint, signer: Signer): Promise<Signed<Checkpoint>> {
  return { ...checkpoint, kid: signer.kid, signature: await signer.sign(checkpointLine(checkpoint)) };
}

export const vouchesForHead = (vouchers: Vouchers, head: Signed<Head>) =>
  vouchers.verify(head.kid, headLine(head), head.signature);
export const vouchesForCheckpoint = (vouchers: Vouchers, checkpoint: Signed<Checkpoint>) =>
  vouchers.verify(checkpoint.kid, checkpointLine(checkpoint), checkpoint.signature);

/** Undefined for what is no signed head. */
export function readHead(value: unknown): Signed<Head> | undefined {
  const head = value as Partial<Signed<Head>> | null;
  const texts = [head?.chain, head?.hash, head?.at, head?.kid, head?.signature];
  return texts.every((text) => typeof text === "string") && Number.isInteger(head?.size)
    ? (head as Signed<Head>)
    : undefined;
}

/** The same of its JSON text, which is written in one way, and of the chain that it is kept for. */
export function headIn({ chain, json }: AuditHead): Signed<Head> | undefined {
  try {
    const head = readHead(JSON.parse(json));
    return head?.chain === chain && JSON.stringify(head) === json ? head : undefined;
  } catch {
    return undefined;
  }
}

/** What a record says of another chain: how far it went, and where its last record stood if that was to be seen. */
export type Seen = Pick<Head, "chain" | "size"> & { readonly sequence?: number };

/** Of the details of a record (`after`, `beside`); what is none is left out, for anybody may have written it. */
export function seenIn(details: JsonObject | undefined, name: "after" | "beside"): readonly Seen[] {
  const listed = details?.[name];
  if (!Array.isArray(listed)) return [];
  return (listed as readonly unknown[]).filter(
    (one): one is Seen =>
      typeof (one as Partial<Seen> | null)?.chain === "string" && Number.isInteger((one as Partial<Seen>).size),
  );
}

/** Of the details of a record `audit.checkpoint`; undefined for what is none. */
export function readCheckpoint(details: JsonObject | undefined): Signed<Checkpoint> | undefined {
  const head = readHead(details);
  return head !== undefined && typeof details?.["root"] === "string" ? (head as Signed<Checkpoint>) : undefined;
}
