/** Proofs that a token is used by the holder of the key it is bound to (RFC 9449), on the side of the resource. */
import { createHmac, hash } from "node:crypto";
import { type CryptoKey, calculateJwkThumbprint, decodeProtectedHeader, errors, importJWK, jwtVerify } from "jose";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import type { Records } from "../../store/ports.ts";
import type { Proof } from "../authority.ts";

/** Signature algorithms of proofs (RFC 9449 §5.1): what both the token endpoint and the resource accept. */
export const DPOP_ALGORITHMS = ["ES256", "Ed25519", "EdDSA", "PS256", "RS256"] as const;

export interface ProofCheckOptions {
  /** The configured URL of the resource: what `htu` must be unless the proof came elsewhere, whatever Host the request had. */
  readonly resource: string;
  readonly records: Records;
  /** What nonces are made with: the first one for new ones, all for checking. Undefined: no nonce is demanded (RFC 9449 §9). */
  readonly nonceSecrets: (() => readonly Buffer[]) | undefined;
  readonly clock?: Clock;
}

/**
 * Checks that `proof` was made for this request and `token`, by the key with the thumbprint `jkt`, and not used before: of two
 * requests with the same proof exactly one gets through, whichever replicas they come to. Rejects with `unauthenticated`, whose
 * `proof` says how to answer.
 */
export type CheckProof = (proof: Proof, token: string, jkt: string) => Promise<void>;

/** A proof is good for a minute; a client's clock may be a minute behind or ahead of ours. */
const WINDOW_MS = 60_000;
/** A nonce is good for this and the next slice of time. */
const SLICE_MS = 120_000;
const MAX_PROOF_LENGTH = 4_096;
const MAX_RSA_MODULUS = 700;
const KIND = "oauth:proof-used";

interface ProofKey {
  readonly key: CryptoKey;
  readonly algorithm: string;
  readonly thumbprint: string;
}

export function proofCheck(options: ProofCheckOptions): CheckProof {
  const { records, nonceSecrets, clock = systemClock } = options;
  const resource = plainUrl(options.resource);
  /** Clients send the same header with each proof. Importing its key would cost three times the check of the signature. */
  const known = new Map<string, ProofKey>();

  async function keyOf(jwt: string): Promise<ProofKey> {
    const header = jwt.slice(0, jwt.indexOf("."));
    const found = known.get(header);
    if (found !== undefined) return found;
    const made = await importKey(jwt);
    known.set(header, made);
    if (known.size > 2_000) known.delete(known.keys().next().value ?? "");
    return made;
  }

  const nonceOf = (slice: number, secret: Buffer) =>
    createHmac("sha256", secret).update(String(slice)).digest("base64url").slice(0, 22);
  function checkNonce(nonce: unknown, secrets: readonly Buffer[]): void {
    const slice = Math.floor(clock() / SLICE_MS);
    const good = secrets.some((secret) => [slice, slice - 1, slice + 1].some((at) => nonceOf(at, secret) === nonce));
    if (good) return;
    const [secret] = secrets;
    throw new DrawbridgeError("unauthenticated", "The proof needs the nonce given here. Send it again with it.", {
      proof: { error: "use_dpop_nonce", ...(secret !== undefined && { nonce: nonceOf(slice, secret) }) },
    });
  }

  return async ({ jwt, method, url }, token, jkt) => {
    if (jwt.length > MAX_PROOF_LENGTH) throw refused("it is too long");
    const { key, algorithm, thumbprint } = await keyOf(jwt);
    const { htm, htu, jti, iat, ath, nonce } = await claimsOf(jwt, key, algorithm);
    const now = clock();
    if (htm !== method) throw refused("it is for another method");
    if (typeof htu !== "string" || plainUrl(htu) !== (url === undefined ? resource : plainUrl(url)))
      throw refused("it is for another URL");
    if (typeof jti !== "string" || jti === "" || jti.length > 512) throw refused("its id is missing or too long");
    if (typeof iat !== "number" || !(Math.abs(now - iat * 1000) <= WINDOW_MS))
      throw refused("it is too old, or from the future");
    if (ath !== hash("sha256", token, "base64url")) throw refused("it is for another token");
    if (thumbprint !== jkt)
      throw new DrawbridgeError("unauthenticated", "The token is bound to another key.", {
        detail: "the thumbprint of the proof's key is not cnf.jkt",
      });
    if (nonceSecrets !== undefined) checkNonce(nonce, nonceSecrets());
    // Last, so that only the holder of the key can make a row. It stays a little longer than any replica's clock would accept the proof.
    const id = hash("sha256", `${jkt}\n${jti}`, "base64url");
    const first = await records.put(KIND, id, {}, { ifVersion: 0, expiresAt: iat * 1000 + 3 * WINDOW_MS });
    if (!first) throw refused("it was used before");
  };
}

async function importKey(jwt: string): Promise<ProofKey> {
  let header: ReturnType<typeof decodeProtectedHeader>;
  try {
    header = decodeProtectedHeader(jwt);
  } catch {
    throw refused("it is not a JWT");
  }
  const { typ, alg, jwk } = header;
  if (typ !== "dpop+jwt") throw refused("its type is not dpop+jwt");
  if (!DPOP_ALGORITHMS.some((name) => name === alg)) throw refused("its algorithm is not one of those accepted");
  if (typeof jwk !== "object" || jwk === null) throw refused("it has no key");
  if (["d", "p", "q", "dp", "dq", "qi", "oth", "k"].some((name) => name in jwk))
    throw refused("its key is a private one");
  const { kty = "", crv, x, y, n, e } = jwk;
  if (!["EC", "OKP", "RSA"].includes(kty) || String(n ?? "").length > MAX_RSA_MODULUS)
    throw refused("its key is of no use");
  try {
    // Only what makes a public key: nothing else that a stranger wrote into it counts.
    const plain = kty === "RSA" ? { kty, n, e } : kty === "EC" ? { kty, crv, x, y } : { kty, crv, x };
    const key = await importJWK(plain as typeof jwk, alg);
    if (key instanceof Uint8Array) throw refused("its key is of no use");
    return { key, algorithm: alg ?? "", thumbprint: await calculateJwkThumbprint(plain as typeof jwk) };
  } catch (thrown) {
    if (thrown instanceof DrawbridgeError) throw thrown;
    throw refused(`its key cannot be read: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  }
}

async function claimsOf(jwt: string, key: CryptoKey, algorithm: string): Promise<Record<string, unknown>> {
  try {
    // Its time is judged by `iat` alone.
    const options = { algorithms: [algorithm], typ: "dpop+jwt", clockTolerance: Number.MAX_SAFE_INTEGER };
    return (await jwtVerify(jwt, key, options)).payload;
  } catch (thrown) {
    if (thrown instanceof errors.JOSEError || thrown instanceof TypeError)
      throw refused(`${thrown.name}: ${thrown.message}`);
    throw thrown;
  }
}

/** RFC 9449 §4.3: without query and fragment, in the one spelling of RFC 3986 §6; the slash at the end does not count here. */
function plainUrl(text: string): string | undefined {
  const url = URL.parse(text);
  if (url === null || url.username !== "" || url.password !== "") return undefined;
  return `${url.origin}${url.pathname}`.replace(/\/$/, "");
}

function refused(detail: string): DrawbridgeError {
  return new DrawbridgeError("unauthenticated", "The DPoP proof is not valid for this request and token.", {
    detail: `DPoP proof: ${detail}`,
    proof: { error: "invalid_dpop_proof" },
  });
}
