/** The end of every text of the log: its place in a chain. A text that retention has left instead of a record is nothing but that. */
import type { Link } from "./record.ts";

/** Where a record was, and its hash, which its neighbours vouch for. */
export interface Stub extends Link {
  readonly hash: string;
}

/** A record's place, and where it says that the one before it in its chain stands in the log. */
export interface Placed extends Link {
  /** A sequence number; 0: the writer did not know it. Undefined: right before this one, for they were written together. */
  readonly prevAt: number | undefined;
}

/** Texts are compared by the byte, so there is one way to write them. */
const PLACE = String.raw`,"chain":\{"id":"([0-9a-f-]{36})","n":(\d{1,15}),"prev":"([\w-]{43}|)"\}\}$`;
/** What stands before it ends with a quote or a brace, so no text of anybody can say this. */
const LINK = new RegExp(String.raw`(?:,"prevAt":(\d{1,15}))?${PLACE}`);
const STUB = new RegExp(String.raw`^\{"retired":\{"hash":"([\w-]{43})"\}${PLACE}`);
const LINK_CHARACTERS = 160;

/** Its place in a chain, of a record's text or of the end of one; undefined for one that has none. */
export function linkOf(text: string): Placed | undefined {
  const [, at, id, n, prev = ""] = LINK.exec(text.slice(-LINK_CHARACTERS)) ?? [];
  return id === undefined ? undefined : { id, n: Number(n), prev, prevAt: at === undefined ? undefined : Number(at) };
}

/** The same of its bytes. */
export function linkIn(bytes: Buffer): Placed | undefined {
  return linkOf(bytes.toString("latin1", Math.max(0, bytes.length - LINK_CHARACTERS)));
}

/** The end of a record's text. `prevAt`: as `Placed` has it; only of the first record of a commit. */
export function placeText({ id, n, prev }: Link, prevAt?: number): string {
  const before = prevAt === undefined ? "" : `,"prevAt":${prevAt}`;
  return `${before},"chain":{"id":"${id}","n":${n},"prev":"${prev}"}}`;
}

/** What is to stay of a record with this hash at this place. */
export function stubOf(hash: string, link: Link): string {
  return `{"retired":{"hash":"${hash}"}${placeText(link)}`;
}

/** Undefined for whatever is not such a text to the letter: in anything more somebody could say something. */
export function readStub(text: string): Stub | undefined {
  const [, hash, id, n, prev = ""] = STUB.exec(text) ?? [];
  return hash === undefined || id === undefined ? undefined : { hash, id, n: Number(n), prev };
}

export function isStub(text: string): boolean {
  return STUB.test(text);
}
