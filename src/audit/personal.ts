/**
 * What of a record is about a person, encrypted with a key of that person alone: whoever destroys the key has erased it, here and in
 * each copy of the log, and the chain over the texts stays as it is (GDPR article 17; EU AI Act article 19 keeps the rest).
 */
import { createSecretKey, hash, randomBytes } from "node:crypto";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Records } from "../store/ports.ts";
import { decrypted, encrypted } from "../store/sealing.ts";
import { CHANGES } from "../store/watch.ts";

/** A key that is ready to be used. */
export interface PersonalKey {
  /** Names it in records; says nothing of the person. */
  readonly kid: string;
  /** The text, encrypted and authenticated (AES-256-GCM), bound to the record: nonce, text and tag as base64url. */
  seal(text: string, record: string): string;
}

/** The person was erased since: what is about them is to be kept nowhere. */
export type Erased = "erased";

export interface PersonalKeys {
  /**
   * The key of a person (`sub`) for what began at `at` (milliseconds since the epoch), made when there is none. `undefined`: of what is
   * about nobody who is known.
   */
  of(subject: string | undefined, at: number): PersonalKey | Erased | Promise<PersonalKey | Erased>;
  /** The text of a record; undefined when its key was destroyed or is not ours, or the text was changed. */
  open(kid: string, sealed: string, record: string): Promise<string | undefined>;
  /**
   * Destroys all keys of a person and returns how many there were; what begins after that gets a new one. Every process that watches
   * `KEYS_DESTROYED` hears of it. When it fails half-way it is to be repeated, which is also right when nothing is left to destroy.
   */
  destroy(subject: string): Promise<number>;
  /** Others may have destroyed keys: they are looked up again, also those that are just being looked up. */
  forget(): void;
}

/** The row of `CHANGES` that tells other processes to `forget`. */
export const KEYS_DESTROYED = "audit-keys";

const KIND = "audit-key";
/** When a person was erased last, by the same index as their keys; kept for good, since nobody knows who still has an older key. */
export const ERASED = "audit-erased";
/** The clocks of two machines may differ by so much. */
const SKEW_MS = 60_000;
/** Keys held in memory. Beyond it the one unused for longest is looked up again. */
const MAX_KEYS = 10_000;
/** How often a key is looked up anew because others were destroyed meanwhile; after that it is used once and not kept. */
const MAX_LOOKS = 5;

interface StoredKey {
  readonly key: string;
  /** When the call began that it was made for. Absent: made by a version that did not say. */
  readonly from?: number;
}

/** What is known of a person. */
interface Known {
  /** Undefined: none was made, because the person was erased. */
  readonly key: PersonalKey | undefined;
  /** What began until then is to be kept nowhere. */
  readonly erasedUntil: number;
}

/** `master`: 32 bytes that the stored keys are encrypted with, from `sharedKey`. */
export function openPersonalKeys(
  records: Records,
  master: () => Promise<Buffer>,
  clock: Clock = systemClock,
): PersonalKeys {
  const ready = new Map<string, Known & { readonly key: PersonalKey }>();
  const loading = new Map<string, Promise<Known>>();
  const opened = new Map<string, Buffer>();
  /** How often everything was forgotten: what was read before the last time may be destroyed by now. */
  let forgotten = 0;
  let forgottenAt = Number.NEGATIVE_INFINITY;

  /** A key that is kept was read after the last time that others were destroyed. */
  async function lookUp(subject: string, at: number): Promise<Known> {
    for (let looks = 1; ; looks++) {
      const before = forgotten;
      const known = await load(subject, at);
      if (before === forgotten) {
        const { key, erasedUntil } = known;
        if (ready.size >= MAX_KEYS) for (const [oldest] of [...ready].slice(0, MAX_KEYS / 10)) ready.delete(oldest);
        if (key !== undefined) ready.set(subject, { key, erasedUntil });
        return known;
      }
      if (looks === MAX_LOOKS) return known;
    }
  }

  async function load(subject: string, at: number): Promise<Known> {
    const index = indexOf(subject);
    const [row] = await records.find<StoredKey>(KIND, "person", index, { limit: 1 });
    if (row === undefined) {
      const erasedUntil = await lastErased(index);
      if (at <= erasedUntil) return { key: undefined, erasedUntil };
    }
    const key = row === undefined ? await made(index, at) : keyOf(row.id, await unwrapped(row.id, row.value));
    // Last of all: who is erased after this look has this key destroyed.
    return { key, erasedUntil: await lastErased(index) };
  }

  /**
   * By the clock of whoever erased; by our own when we may have heard of it just then, since the two may differ and what began before we
   * heard of it may have begun before it was done.
   */
  async function lastErased(index: string): Promise<number> {
    const at = (await records.get<{ readonly at: number }>(ERASED, index))?.value.at ?? Number.NEGATIVE_INFINITY;
    return at > forgottenAt - 2 * SKEW_MS ? Math.max(at, forgottenAt) : at;
  }

  async function made(index: string, from: number): Promise<PersonalKey> {
    const kid = randomBytes(12).toString("base64url");
    const key = randomBytes(32);
    const wrapped = encrypted(await master(), key.toString("base64url"), kid);
    const value: StoredKey = { key: wrapped, from };
    if (!(await records.put(KIND, kid, value, { ifVersion: 0, index: { person: index } })))
      throw new DrawbridgeError("internal", "A key for the audit log could not be kept.");
    return keyOf(kid, key);
  }

  async function unwrapped(kid: string, { key }: StoredKey): Promise<Buffer> {
    const text = decrypted(await master(), key, kid);
    if (text !== undefined) return Buffer.from(text, "base64url");
    throw new DrawbridgeError("internal", "A key of the audit log cannot be read.", {
      detail: `audit-key ${kid}: tokens.keyEncryptionSecret is not the one that it was kept with`,
    });
  }

  function keyOf(kid: string, key: Buffer): PersonalKey {
    const secret = createSecretKey(key);
    return { kid, seal: (text, record) => encrypted(secret, text, record) };
  }

  function of(subject = "", at: number): PersonalKey | Erased | Promise<PersonalKey | Erased> {
    const known = ready.get(subject);
    if (known !== undefined) return at <= known.erasedUntil ? "erased" : known.key;
    let coming = loading.get(subject);
    if (coming === undefined) {
      const mine = lookUp(subject, at);
      coming = mine;
      loading.set(subject, mine);
      const done = () => {
        if (loading.get(subject) === mine) loading.delete(subject);
      };
      mine.then(done, done);
    }
    // None was made for what is older than this.
    return coming.then(({ key, erasedUntil }) => (at <= erasedUntil ? "erased" : (key ?? of(subject, at))));
  }

  return {
    of,
    async open(kid, text, record) {
      let key = opened.get(kid);
      if (key === undefined) {
        const before = forgotten;
        const row = await records.get<StoredKey>(KIND, kid);
        if (row === undefined) return undefined;
        key = await unwrapped(kid, row.value);
        if (opened.size >= MAX_KEYS) opened.clear();
        if (before === forgotten) opened.set(kid, key);
      }
      return decrypted(key, text, record);
    },
    async destroy(subject) {
      const index = indexOf(subject);
      // First what keeps a spilled key from coming back, so that one which comes meanwhile is deleted by either of the two.
      await records.put(ERASED, index, { at: clock() });
      const destroyed = await records.deleteWhere("person", index, KIND);
      forget();
      await records.put(CHANGES, KEYS_DESTROYED, {});
      return destroyed;
    },
    forget,
  };

  function forget(): void {
    forgotten++;
    forgottenAt = clock();
    ready.clear();
    loading.clear();
    opened.clear();
  }
}

/** What `put` was called with for a key, when the store could not take it. */
export type KeptKey = Parameters<Records["put"]>;

/**
 * Puts a key into the store that was made at `madeAt` (milliseconds since the epoch) and could not be put there then; not when its
 * person was erased since. What it encrypts can then be read by nobody.
 */
export async function restoreKey(records: Records, put: KeptKey, madeAt: number): Promise<void> {
  const [kind, id, value, options] = put;
  const from = Math.min(madeAt, (value as StoredKey).from ?? madeAt);
  const person = options?.index?.["person"];
  const erased = async () => {
    const row = person === undefined ? undefined : await records.get<{ readonly at: number }>(ERASED, person);
    return row !== undefined && row.value.at + SKEW_MS >= from;
  };
  if (await erased()) return;
  await records.put(...put);
  // Who was erased between the two had no key to destroy yet.
  if (await erased()) await records.delete(kind, id);
}

/** Index values are bounded, subjects are not, and the index is no list of people. */
function indexOf(subject: string): string {
  return hash("sha256", `drawbridge audit person\n${subject}`, "base64url");
}
