/**
 * What of a record is about a person, encrypted with a key of that person alone: whoever destroys the key has erased it, here and in
 * each copy of the log, and the chain over the texts stays as it is (GDPR article 17; EU AI Act article 19 keeps the rest).
 */
import { createSecretKey, hash, randomBytes } from "node:crypto";
import { DrawbridgeError } from "../core/errors.ts";
import type { Records } from "../store/ports.ts";
import { decrypted, encrypted } from "../store/sealing.ts";

/** A key that is ready to be used. */
export interface PersonalKey {
  /** Names it in records; says nothing of the person. */
  readonly kid: string;
  /** The text, encrypted and authenticated (AES-256-GCM), bound to the record: nonce, text and tag as base64url. */
  seal(text: string, record: string): string;
}

export interface PersonalKeys {
  /** The key of a person (`sub`), made when there is none. `undefined`: of what is about nobody who is known. */
  of(subject: string | undefined): PersonalKey | Promise<PersonalKey>;
  /** The text of a record; undefined when its key was destroyed or is not ours, or the text was changed. */
  open(kid: string, sealed: string, record: string): Promise<string | undefined>;
  /** Destroys all keys of a person and returns how many there were. Records after that get a new one. */
  destroy(subject: string): Promise<number>;
  /** Other replicas may have destroyed keys: they are looked up again. */
  forget(): void;
}

const KIND = "audit-key";
/** Keys held in memory. Beyond it the one unused for longest is looked up again. */
const MAX_KEYS = 10_000;

interface StoredKey {
  readonly key: string;
}

/** `master`: 32 bytes that the stored keys are encrypted with, from `sharedKey`. */
export function openPersonalKeys(records: Records, master: () => Promise<Buffer>): PersonalKeys {
  const ready = new Map<string, PersonalKey>();
  const loading = new Map<string, Promise<PersonalKey>>();
  const opened = new Map<string, Buffer>();

  async function load(subject: string): Promise<PersonalKey> {
    const index = indexOf(subject);
    const [row] = await records.find<StoredKey>(KIND, "person", index, { limit: 1 });
    if (row !== undefined) return keyOf(row.id, await unwrapped(row.id, row.value));
    const kid = randomBytes(12).toString("base64url");
    const key = randomBytes(32);
    const wrapped = encrypted(await master(), key.toString("base64url"), kid);
    if (!(await records.put(KIND, kid, { key: wrapped }, { ifVersion: 0, index: { person: index } })))
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

  return {
    of(subject = "") {
      const known = ready.get(subject);
      if (known !== undefined) return known;
      let coming = loading.get(subject);
      if (coming === undefined) {
        coming = load(subject).then((key) => {
          if (ready.size >= MAX_KEYS) for (const [oldest] of [...ready].slice(0, MAX_KEYS / 10)) ready.delete(oldest);
          ready.set(subject, key);
          return key;
        });
        loading.set(subject, coming);
        const done = () => void loading.delete(subject);
        coming.then(done, done);
      }
      return coming;
    },
    async open(kid, text, record) {
      let key = opened.get(kid);
      if (key === undefined) {
        const row = await records.get<StoredKey>(KIND, kid);
        if (row === undefined) return undefined;
        key = await unwrapped(kid, row.value);
        if (opened.size >= MAX_KEYS) opened.clear();
        opened.set(kid, key);
      }
      return decrypted(key, text, record);
    },
    async destroy(subject) {
      ready.clear();
      opened.clear();
      return records.deleteWhere("person", indexOf(subject), KIND);
    },
    forget() {
      ready.clear();
      opened.clear();
    },
  };
}

/** Index values are bounded, subjects are not, and the index is no list of people. */
function indexOf(subject: string): string {
  return hash("sha256", `drawbridge audit person\n${subject}`, "base64url");
}
