/** Keys that all replicas share, and what is encrypted with them before it is kept or handed to strangers. */
import { createCipheriv, createDecipheriv, hkdfSync, type KeyObject, randomBytes, randomFillSync } from "node:crypto";
import { DrawbridgeError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import type { Records } from "./ports.ts";

const KIND = "seal-key";
const IV_BYTES = 12;
const TAG_BYTES = 16;

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

/**
 * AES-256-GCM: nonce, text and tag, as base64url. Whoever decrypts must name the same `binding`. A key that is used often is best a
 * `KeyObject`, which takes a quarter of the time.
 */
export function encrypted(key: Buffer | KeyObject, text: string, binding: string): string {
  const iv = nonce();
  const cipher = createCipheriv("aes-256-gcm", key, iv).setAAD(Buffer.from(binding));
  const body = cipher.update(text, "utf8");
  cipher.final(); // Of a stream cipher there is nothing left.
  return Buffer.concat([iv, body, cipher.getAuthTag()]).toString("base64url");
}

/** The text; undefined for everything that `encrypted` did not make with this key and binding. */
export function decrypted(key: Buffer | KeyObject, encoded: string, binding: string): string | undefined {
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

/** Random bytes are much cheaper by the kilobyte. What is given is used at once. */
const nonces = Buffer.alloc(IV_BYTES * 256);
let used = nonces.length;

function nonce(): Buffer {
  if (used === nonces.length) {
    randomFillSync(nonces);
    used = 0;
  }
  used += IV_BYTES;
  return nonces.subarray(used - IV_BYTES, used);
}
