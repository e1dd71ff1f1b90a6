/**
 * How long the check of one access token takes, in this process: of one that is known, of one that is not, and the signature check
 * alone. Prints JSON: for each round, microseconds by name. `--store` says where the records are, `--rounds` how often.
 */
import { createPublicKey, type KeyObject, verify } from "node:crypto";
import { parseArgs } from "node:util";
import { createLocalJWKSet, jwtVerify } from "jose";
import { loadKeys } from "../src/oauth/tokens/keys.ts";
import { openStore } from "../src/store/open.ts";
import { mint, PUBLIC_URL, RESOURCE, replica } from "../test/oauth/minting.ts";

const { values } = parseArgs({
  options: { store: { type: "string", default: "memory" }, rounds: { type: "string", default: "3" } },
});
const TOKENS = 500;
const LOOKS = 200_000;

const { records, close } = await openStore(values.store);
const { token: known, user } = await mint(records);
const tokens = [known];
while (tokens.length < TOKENS) tokens.push((await mint(records, { user })).token);
const keys = await loadKeys(records);
const jwks = keys.public.map((key) => ({ ...key }));
keys.close();

const rounds: Readonly<Record<string, number>>[] = [];
// The first one is for the compiler.
for (let round = 0; round <= Number(values.rounds); round += 1) rounds.push(await measured());
console.log(JSON.stringify(rounds.slice(1)));
await close();

async function measured(): Promise<Readonly<Record<string, number>>> {
  const server = await replica(records);
  try {
    const unknown = await microseconds((token) => server.verify(token));
    // As after anything was ended anywhere: the signature is known to be right, whether the token still stands is asked.
    await server.revokeToken("none of them");
    const asked = await microseconds((token) => server.verify(token));
    const began = performance.now();
    for (let look = 0; look < LOOKS; look += 1) server.verify(known);
    const cached = ((performance.now() - began) * 1000) / LOOKS;
    const keySet = createLocalJWKSet({ keys: jwks });
    const checks = { issuer: PUBLIC_URL, audience: RESOURCE, typ: "at+jwt", algorithms: ["ES256"] };
    const jose = await microseconds((token) => jwtVerify(token, keySet, checks));
    const [jwk = {}] = jwks;
    const key = createPublicKey({ key: jwk, format: "jwk" });
    const crypto = await microseconds((token) => signatureHolds(token, key));
    return { cached, asked, unknown, jose, crypto };
  } finally {
    await server.close();
  }
}

/** Of each token once, one after the other. */
async function microseconds(check: (token: string) => unknown): Promise<number> {
  const began = performance.now();
  for (const token of tokens) await check(token);
  return ((performance.now() - began) * 1000) / tokens.length;
}

function signatureHolds(token: string, key: KeyObject): true {
  const end = token.lastIndexOf(".");
  const signature = Buffer.from(token.slice(end + 1), "base64url");
  if (!verify("sha256", Buffer.from(token.slice(0, end)), { key, dsaEncoding: "ieee-p1363" }, signature))
    throw new Error("a token of ours has a wrong signature");
  JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
  return true;
}
