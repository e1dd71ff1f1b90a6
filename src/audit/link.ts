/** The end of every text of the log: its place in a chain. A text that retention has left instead of a record is nothing but that. */
import type { Link } from "./record.ts";

/** Where a record was, and its hash, which its neighbours vouch for. */
export interface Stub extends Link {
  readonly hash: string;
}

/** Texts are compared by the byte, so there is one way to write them. */
const PLACE = String.raw`,"chain":\{"id":"([0-9a-f-]{36})","n":(\d{1,15}),"prev":"([\w-]{43}|)"\}\}$`;
const LINK = new RegExp(PLACE);
const STUB = new RegExp(String.raw`^\{"retired":\{"hash":"([\w-]{43})"\}${PLACE}`);
const LINK_CHARACTERS = 128;

/** Its place in a chain, of a record's text or of the end of one; undefined for one that has none. */
export function linkOf(text: string): Link | undefined {
  const [, id, n, prev = ""] = LINK.exec(text.slice(-LINK_CHARACTERS)) ?? [];
  return id === undefined ? undefined : { id, n: Number(n), prev };
}

/** The same of its bytes. */
export function linkIn(bytes: Buffer): Link | undefined {
  return linkOf(bytes.toString("latin1", Math.max(0, bytes.length - LINK_CHARACTERS)));
}

/** What is to stay of a record with this hash at this place. */
export function stubOf(hash: string, { id, n, prev }: Link): string {
  return `{"retired":{"hash":"${hash}"},"chain":{"id":"${id}","n":${n},"prev":"${prev}"}}`;
}

/** Undefined for whatever is not such a text to the letter: in anything more somebody could say something. */
export function readStub(text: string): Stub | undefined {
  const [, hash, id, n, prev = ""] = STUB.exec(text) ?? [];
  return hash === undefined || id === undefined ? undefined : { hash, id, n: Number(n), prev };
}

export function isStub(text: string): boolean {
  return STUB.test(text);
}
