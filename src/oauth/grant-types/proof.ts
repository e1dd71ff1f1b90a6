/**
 * Proofs of possession (RFC 9449) at the token endpoint, for the grants that are ours. `oidc-provider` checks those of its own
 * grants and shows nobody how; a proof or nonce that it takes is taken here, and the other way round.
 */
import { hkdfSync } from "node:crypto";
import { calculateJwkThumbprint, EmbeddedJWK, type JWTPayload, errors as jose, jwtVerify } from "jose";
import { errors, type KoaContextWithOIDC } from "oidc-provider";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DPOP_ALGORITHMS } from "../tokens/dpop.ts";

export interface ProofOptions {
  /** The `htu` that a proof must name. */
  readonly url: string;
  /** False: no proof counts, and no token is bound. */
  readonly enabled: boolean;
  /** Demand a nonce of ours in each proof (RFC 9449 §8). */
  readonly nonces: boolean;
  /** The same 32 bytes as `oidc-provider` and all replicas have. */
  readonly nonceSecret: Buffer;
  readonly clock?: Clock;
}

/**
 * The thumbprint of the key that the request proves to have; undefined when it shows no proof and needs none. Each proof counts
 * once: of two requests with the same one, one is refused. Throws `invalid_dpop_proof` or `use_dpop_nonce`.
 */
export type CheckProof = (ctx: KoaContextWithOIDC) => Promise<string | undefined>;

/** How far from now a proof without a nonce may have been made, and how long it is remembered. */
const WINDOW_SECONDS = 300;

export function proofs({ url, enabled, nonces, nonceSecret, clock = systemClock }: ProofOptions): CheckProof {
  return async (ctx) => {
    const { client, provider } = ctx.oidc;
    const proof = enabled ? ctx.get("dpop") : "";
    if (proof === "") {
      if (client?.dpopBoundAccessTokens !== true) return undefined;
      throw new errors.InvalidDpopProof("This client's tokens are bound to a key. Send a DPoP proof.");
    }
    const now = Math.floor(clock() / 1000);
    const next = nonceAt(nonceSecret, now, 1);
    const nonceWanted = (why: string) => {
      ctx.set("dpop-nonce", next);
      return new errors.UseDpopNonce(why);
    };
    const { payload, thumbprint } = await verified(proof, clock);
    const { jti, iat, htm, htu, nonce } = payload;
    if (typeof jti !== "string" || jti === "" || typeof iat !== "number")
      throw new errors.InvalidDpopProof("A DPoP proof must have jti and iat.");
    if (htm !== ctx.method) throw new errors.InvalidDpopProof("The htm of the DPoP proof is another method.");
    if (withoutQuery(htu) !== url) throw new errors.InvalidDpopProof(`The htu of the DPoP proof is not ${url}.`);
    if (nonce === undefined) {
      if (nonces) throw nonceWanted("Put the nonce of the DPoP-Nonce header into the proof.");
      if (Math.abs(now - iat) > WINDOW_SECONDS)
        throw nonceWanted("The DPoP proof was not made just now. Use the nonce of the DPoP-Nonce header.");
    } else if (![-2, -1, 0, 1, 2].some((step) => nonce === nonceAt(nonceSecret, now, step))) {
      throw nonceWanted("The nonce of the DPoP proof is not one of this server, or too old.");
    }
    if (nonce !== next) ctx.set("dpop-nonce", next);
    if (!(await provider.ReplayDetection.unique(client?.clientId ?? "", jti, now + WINDOW_SECONDS)))
      throw new errors.InvalidDpopProof("This DPoP proof was used before.");
    return thumbprint;
  };
}

async function verified(
  proof: string,
  clock: Clock,
): Promise<{ readonly payload: JWTPayload; readonly thumbprint: string }> {
  try {
    const { payload, protectedHeader } = await jwtVerify(proof, EmbeddedJWK, {
      algorithms: [...DPOP_ALGORITHMS],
      typ: "dpop+jwt",
      currentDate: new Date(clock()),
    });
    return { payload, thumbprint: await calculateJwkThumbprint(protectedHeader.jwk ?? {}) };
  } catch (thrown) {
    if (!(thrown instanceof jose.JOSEError) && !(thrown instanceof TypeError)) throw thrown;
    throw new errors.InvalidDpopProof("The DPoP proof is not a JWT signed with the key in its header.", {
      detail: thrown.message,
    });
  }
}

/** RFC 9449 §4.3 number 9: without query and fragment, in one spelling. */
function withoutQuery(htu: unknown): string | undefined {
  const url = typeof htu === "string" ? URL.parse(htu) : null;
  if (url === null) return undefined;
  url.search = "";
  url.hash = "";
  return url.href;
}

const STEP_SECONDS = 60;

/** Nonces are computed, not stored: one a minute, good from two minutes before to two after. */
function nonceAt(secret: Buffer, now: number, step: number): string {
  const salt = Buffer.alloc(8);
  salt.writeBigUInt64BE(BigInt(Math.floor(now / STEP_SECONDS) + step));
  return Buffer.from(hkdfSync("sha256", secret, salt, "DPoP", 32)).toString("base64url");
}
