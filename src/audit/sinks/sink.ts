/** What records are sent to: one file of this folder for each kind, one line in `open.ts`. */
import type { StoredRecord } from "../record.ts";

/** A record as a sink gets it. */
export interface Entry {
  /** Its number in the log. */
  readonly sequence: number;
  /** With `open`, what is about a person is in it. */
  readonly record: StoredRecord;
  /** In the format of the sink. One line. */
  readonly text: string;
}

/** The other side has taken a batch, but for some that it will never take. */
export interface Refused {
  readonly records: number;
  readonly why: string;
}

export interface Sink {
  /**
   * Resolves when the other side has all of them, in this order; then they are not sent again. Rejects otherwise, some of them may
   * have arrived: `body_too_large` asks for fewer at once, `retryAfterSeconds` says when to come back.
   */
  send(entries: readonly Entry[], signal: AbortSignal): Promise<Refused | undefined>;
  close(): Promise<void>;
  /** Entries at once, and their UTF-8 bytes; a larger entry goes alone. */
  readonly most: { readonly entries: number; readonly bytes: number };
}

/** What the texts of a sink are, for those that are told. */
export interface ContentType {
  /** Of one text. */
  readonly one: string;
  /** Of many, and how they are put together. */
  readonly many: string;
  join(texts: readonly string[]): string;
}
