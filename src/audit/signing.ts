/** Ed25519 (RFC 8032): who vouches for the log. The private key signs heads and checkpoints; whoever has the public one can check them. */
import { createPrivateKey, createPublicKey, hash, type KeyObject, sign, verify as verifyNow } from "node:crypto";
import { DrawbridgeError } from "../core/errors.ts";

export interface Signer {
  /** RFC 7638 thumbprint of the public key. */
  readonly kid: string;
  /** SubjectPublicKeyInfo as PEM, for auditors. */
  readonly publicKey: string;
  /** The signature as base64url. Made here, in some 20 µs of CPU: a thread of its own costs twice that, and a commit waits for it. */
  sign(statement: string): Promise<string>;
}

/** Public keys that are trusted to vouch, by `kid`. */
export interface Vouchers {
  readonly kids: readonly string[];
  /** Whether `signature` of `statement` was made with the key `kid`; false for a key that is not trusted. */
  verify(kid: string, statement: string, signature: string): boolean;
}

/** PKCS #8 (RFC 8410 section 7) of an Ed25519 key is this and its 32 bytes of seed. */
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex");

/** The signer whose key follows from 32 bytes that all replicas share. */
export function signerOfSeed(seed: Buffer): Signer {
  return signer(createPrivateKey({ key: Buffer.concat([PKCS8, seed]), format: "der", type: "pkcs8" }));
}

/** The signer of a PEM file (PKCS #8). Throws `settings_invalid` for what is no Ed25519 private key. */
export function signerOfPem(pem: string, where: string): Signer {
  try {
    const key = createPrivateKey(pem);
    if (key.asymmetricKeyType === "ed25519") return signer(key);
  } catch (cause) {
    throw notAKey(where, "private", cause);
  }
  throw notAKey(where, "private");
}

function signer(key: KeyObject): Signer {
  const publicKey = createPublicKey(key);
  return {
    kid: kidOf(publicKey),
    publicKey: publicKey.export({ format: "pem", type: "spki" }).toString(),
    sign: async (statement) => sign(null, Buffer.from(statement), key).toString("base64url"),
  };
}

/** Trusts the public keys in PEM texts; each may hold several. Throws `settings_invalid` for what is no Ed25519 public key. */
export function vouchersOf(pems: readonly string[], where = "the public key"): Vouchers {
  const keys = new Map<string, KeyObject>();
  for (const pem of pems) {
    const blocks = pem.match(/-----BEGIN [^-]+-----[^-]+-----END [^-]+-----/g) ?? [];
    if (blocks.length === 0) throw notAKey(where, "public");
    for (const block of blocks) {
      const key = publicKeyOf(block, where);
      keys.set(kidOf(key), key);
    }
  }
  return {
    kids: [...keys.keys()],
    verify(kid, statement, signature) {
      const key = keys.get(kid);
      const bytes = Buffer.from(signature, "base64url");
      // A signature has one text: what is read in spite of spaces or stray bits in it was changed nevertheless.
      if (key === undefined || bytes.toString("base64url") !== signature) return false;
      return verifyNow(null, Buffer.from(statement), key, bytes);
    },
  };
}

function publicKeyOf(pem: string, where: string): KeyObject {
  // A private key has a public one in it, but whoever hands it to an auditor has made a mistake that they should hear of.
  if (pem.includes("PRIVATE KEY")) throw notAKey(where, "public");
  try {
    const key = createPublicKey(pem);
    if (key.asymmetricKeyType === "ed25519") return key;
  } catch (cause) {
    throw notAKey(where, "public", cause);
  }
  throw notAKey(where, "public");
}

/** RFC 7638 section 3.1, RFC 8037 section 2: the members in lexicographic order. */
function kidOf(key: KeyObject): string {
  const { crv, kty, x } = key.export({ format: "jwk" });
  return hash("sha256", JSON.stringify({ crv, kty, x }), "base64url");
}

function notAKey(where: string, kind: "private" | "public", cause?: unknown): DrawbridgeError {
  const made = kind === "private" ? "openssl genpkey -algorithm ed25519" : "drawbridge audit key";
  return new DrawbridgeError(
    "settings_invalid",
    `${where} is not an Ed25519 ${kind} key in PEM. Make one with \`${made}\`.`,
    {
      cause,
    },
  );
}
