/**
 * Values that strangers carry for us: encrypted and authenticated (AES-256-GCM) with a key that all replicas have from the store,
 * bound to whom and what they were made for, and ended by the clock. There is a new key each day, made by whoever needs it first.
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from "node:crypto";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import type { Records } from "../store/ports.ts";

export interface Seals {
  /**
   * Seals `value` for `seconds`, at most a day. `binding` is not inside: whoever opens must say the same, so a value sealed for one
   * caller and request opens for no other. Rejects when the key cannot be had from the store, and with `answer_too_large`.
   */
  seal(value: unknown, binding: string, seconds: number): Promise<string>;
  /** What was sealed; undefined for what was changed, has ended, is bound to something else or was never sealed: all the same. */
  open<T>(sealed: string, binding: string): Promise<T | undefined>;
}

const KIND = "seal-key";
const DAY_MS = 86_400_000;
const MAX_SEALED = 16 << 20;
const IV_BYTES = 12;
const TAG_BYTES = 16;

/** `encryption`: a secret that is not in the store, without which its keys are of no use. */
export function openSeals(records: Records, encryption: Secret | undefined, clock: Clock = systemClock): Seals {
  const keys = new Map<number, Promise<Buffer>>();

  const key = (day: number): Promise<Buffer> => {
    let known = keys.get(day);
    if (known === undefined) {
      known = load(day);
      keys.set(day, known);
      known.catch(() => keys.delete(day));
      for (const old of keys.keys()) if (old < day - 2) keys.delete(old);
    }
    return known;
  };
  // What is sealed at the end of the day lives for one more; a replica whose clock is ahead comes before it.
  const load = (day: number) =>
    sharedKey(records, String(day), "drawbridge interaction 1", encryption, (day + 3) * DAY_MS);
  const today = () => Math.floor(clock() / DAY_MS);

  return {
    async seal(value, binding, seconds) {
      const day = today();
      const text = JSON.stringify([clock() + Math.min(seconds * 1000, DAY_MS), value]);
      const sealed = `${day}.${encrypted(await key(day), text, `${day}\n${binding}`)}`;
      if (sealed.length <= MAX_SEALED) return sealed;
      throw new DrawbridgeError("answer_too_large", "The server's answer is too large to be passed on.");
    },
    async open<T>(sealed: string, binding: string) {
      const [, named = "", encoded = ""] =
        /^([1-9]\d{0,5})\.([\w-]+)$/.exec(sealed.length > MAX_SEALED ? "" : sealed) ?? [];
      const day = Number(named);
      // A day that cannot be right is not worth a question to the store.
      if (encoded === "" || Math.abs(day - today()) > 1) return undefined;
      const text = decrypted(await key(day), encoded, `${day}\n${binding}`);
      if (text === undefined) return undefined;
      const [until, value] = JSON.parse(text) as [number, T];
      return clock() < until ? value : undefined;
    },
  };
}

/** A key that all replicas have from the store, made by whoever needs it first, for one `purpose`. */
export async function sharedKey(
  records: Records,
  id: string,
  purpose: string,
  encryption: Secret | undefined,
  expiresAt?: number,
): Promise<Buffer> {
  let row = await records.get<{ key: string }>(KIND, id);
  if (row === undefined) {
    const made = { key: randomBytes(32).toString("base64url") };
    await records.put(KIND, id, made, { ifVersion: 0, ...(expiresAt !== undefined && { expiresAt }) });
    row = await records.get<{ key: string }>(KIND, id);
  }
  if (row === undefined) throw new DrawbridgeError("internal", "A key that all replicas need cannot be kept.");
  const stored = Buffer.from(row.value.key, "base64url");
  return Buffer.from(hkdfSync("sha256", stored, encryption?.reveal() ?? "", purpose, 32));
}

/** AES-256-GCM: nonce, text and tag, as base64url. Whoever decrypts must name the same `binding`. */
export function encrypted(key: Buffer, text: string, binding: string): string {
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv("aes-256-gcm", key, iv).setAAD(Buffer.from(binding));
  return Buffer.concat([iv, cipher.update(text, "utf8"), cipher.final(), cipher.getAuthTag()]).toString("base64url");
}

/** The text; undefined for everything that `encrypted` did not make with this key and binding. */
export function decrypted(key: Buffer, encoded: string, binding: string): string | undefined {
  const body = Buffer.from(encoded, "base64url");
  // Only the one spelling that we write, of several that decode to the same bytes.
  if (body.length < IV_BYTES + TAG_BYTES || body.toString("base64url") !== encoded) return undefined;
  const decipher = createDecipheriv("aes-256-gcm", key, body.subarray(0, IV_BYTES), { authTagLength: TAG_BYTES });
  decipher.setAAD(Buffer.from(binding)).setAuthTag(body.subarray(-TAG_BYTES));
  try {
    return decipher.update(body.subarray(IV_BYTES, -TAG_BYTES), undefined, "utf8") + decipher.final("utf8");
  } catch {
    return undefined;
  }
}
