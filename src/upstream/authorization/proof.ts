/** Proofs that we hold the key of a token (RFC 9449 §4), one for each request to the MCP server. */
import { createPrivateKey, hash, randomUUID, sign, type webcrypto } from "node:crypto";
import { type Clock, systemClock } from "../../core/clock.ts";
import { Secret } from "../../core/secret.ts";
import { PROOF_ALGORITHM } from "./discovery.ts";

export type Prove = (method: string, url: string) => Secret;

/** `nonce`: what the server wants to see in the proofs, once it has said so. */
export function prover(
  key: webcrypto.JsonWebKey,
  accessToken: string,
  nonce: string | undefined,
  clock: Clock = systemClock,
): Prove {
  const { kty, crv, x, y } = key;
  const privateKey = createPrivateKey({ key: { ...key }, format: "jwk" });
  const header = encoded({ typ: "dpop+jwt", alg: PROOF_ALGORITHM, jwk: { kty, crv, x, y } });
  const ath = hash("sha256", accessToken, "base64url");
  return (method, url) => {
    const { origin, pathname } = new URL(url);
    const claims = {
      jti: randomUUID(),
      htm: method,
      htu: `${origin}${pathname}`,
      iat: Math.floor(clock() / 1000),
      ath,
    };
    const signed = `${header}.${encoded(nonce === undefined ? claims : { ...claims, nonce })}`;
    const signature = sign("sha256", Buffer.from(signed), { key: privateKey, dsaEncoding: "ieee-p1363" });
    return new Secret(`${signed}.${signature.toString("base64url")}`);
  };
}

const encoded = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
