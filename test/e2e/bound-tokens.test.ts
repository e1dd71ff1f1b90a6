/** Tokens bound to a key, over HTTP: from the token endpoint to a call, and every way in which a thief would try one. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fixtureCommand } from "../fixtures/processes.ts";
import { type Prover, prover } from "../oauth/minting.ts";
import { authorize, REDIRECT, type Running, register, token } from "../oauth/support.ts";
import { verifies } from "../requirements.ts";
import { modernRequest, type World, world } from "./world.ts";

const servers = { things: { command: fixtureCommand("echo-stdio") } };
const VERIFIER = "d".repeat(64);
let one: World;
let holder: Prover;
let bound: string;

beforeAll(async () => {
  one = await world({ servers });
  holder = await prover("ES256", Date.now, one.url);
  bound = await boundToken(one, holder);
}, 30_000);
afterAll(() => one?.[Symbol.asyncDispose]());

/** Walks a code flow whose token request brings a proof. */
async function boundToken(at: World, by: Prover): Promise<string> {
  const place = { origin: at.origin, base: at.gateway.publicUrl, resource: at.url } as Running;
  const client = String((await register(place)).body["client_id"]);
  const code = (await authorize(place, at.browser, { client }, VERIFIER)).searchParams.get("code") ?? "";
  const form = {
    grant_type: "authorization_code",
    code,
    client_id: client,
    redirect_uri: REDIRECT,
    code_verifier: VERIFIER,
  };
  const prove = (nonce?: string) => by.prove("", { htu: `${at.gateway.publicUrl}/oauth/token`, ath: undefined, nonce });
  let answer = await token(place, form, { dpop: await prove() });
  if (answer.body["error"] === "use_dpop_nonce")
    answer = await token(place, form, { dpop: await prove(answer.headers.get("dpop-nonce") ?? "") });
  expect(answer.body["token_type"]).toBe("DPoP");
  return String(answer.body["access_token"]);
}

function post(authorization: string, proofs: readonly string[] = [], at = one, more: Record<string, string> = {}) {
  const [body, own] = modernRequest("tools/list");
  const headers = new Headers({
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
    authorization,
    ...own,
    ...more,
  } as Record<string, string>);
  for (const proof of proofs) headers.append("dpop", proof);
  return fetch(at.url, { method: "POST", headers, body: JSON.stringify(body) });
}
const challenge = (answer: Response) => answer.headers.get("www-authenticate") ?? "";

verifies("rfc9449-resource", "a bound token with a fresh proof for each request calls", async () => {
  for (let n = 0; n < 3; n++) expect((await post(`DPoP ${bound}`, [await holder.prove(bound)])).status).toBe(200);
  expect((await post(`dpop ${bound}`, [await holder.prove(bound)])).status).toBe(200);
});

describe("a bound token", () => {
  verifies(
    ["rfc9449-downgrade", "rfc9449-challenge"],
    "as a bearer token is refused, with a proof or without",
    async () => {
      for (const proofs of [[], [await holder.prove(bound)]]) {
        const answer = await post(`Bearer ${bound}`, proofs);
        expect(answer.status).toBe(401);
        expect(challenge(answer)).toMatch(/^Bearer error="invalid_token".*, DPoP algs="[^"]*ES256/);
      }
    },
  );

  test.each<[string, () => Promise<string[]>]>([
    ["without a proof", async () => []],
    ["with two proofs", async () => [await holder.prove(bound), await holder.prove(bound)]],
    ["with a proof for another method", async () => [await holder.prove(bound, { htm: "GET" })]],
    ["with a proof for another URL", async () => [await holder.prove(bound, { htu: "https://evil.example/mcp" })]],
    ["with a proof for another token", async () => [await holder.prove("another")]],
    ["with what is no proof", async () => ["nonsense"]],
  ])("%s is refused with the reason", async (_what, proofs) => {
    const answer = await post(`DPoP ${bound}`, await proofs());
    expect(answer.status).toBe(401);
    expect(challenge(answer)).toMatch(
      /^DPoP error="invalid_dpop_proof", error_description="[^"]+", algs="[^"]+", resource_metadata="/,
    );
    expect(challenge(answer)).toContain(", Bearer resource_metadata=");
  });

  test("with a proof that was used is refused, for another request, too", async () => {
    const proof = await holder.prove(bound);
    expect((await post(`DPoP ${bound}`, [proof])).status).toBe(200);
    expect((await post(`DPoP ${bound}`, [proof])).status).toBe(401);
  });

  test("with a proof of another key is refused", async () => {
    const thief = await prover("ES256", Date.now, one.url);
    const answer = await post(`DPoP ${bound}`, [await thief.prove(bound)]);
    expect(challenge(answer)).toMatch(/^DPoP error="invalid_token"/);
  });

  test("given as another scheme, twice, or in the URL, is refused", async () => {
    for (const authorization of [`Basic ${bound}`, `DPoP ${bound}, DPoP ${bound}`, `DPoP  ${bound}`, "DPoP"])
      expect((await post(authorization, [await holder.prove(bound)])).status).toBe(401);
  });
});

verifies("rfc9449-downgrade", "an unbound token under the DPoP scheme is refused", async () => {
  const { access_token } = await one.tokens();
  expect((await post(`DPoP ${access_token}`, [await holder.prove(access_token)])).status).toBe(401);
  expect((await post(`Bearer ${access_token}`)).status).toBe(200);
});

test("who brings no token is told of both schemes, the bearer one first, without an error", async () => {
  const answer = await one.post({}, {}, "");
  expect(challenge(answer)).toMatch(/^Bearer resource_metadata="[^"]+", scope="mcp:read mcp:call", DPoP algs="/);
  expect(challenge(answer)).not.toContain("error");
});

verifies("rfc9728-dpop", "the metadata of the resource says how proofs may be signed", async () => {
  const document = await (await fetch(`${one.origin}/.well-known/oauth-protected-resource/mcp`)).json();
  expect(document).toMatchObject({ dpop_signing_alg_values_supported: expect.arrayContaining(["ES256"]) });
  expect(document).not.toHaveProperty("dpop_bound_access_tokens_required");
});

test("a page of another origin may send a proof and read the nonce", async () => {
  const origin = new URL(one.origin).origin;
  const preflight = await fetch(one.url, {
    method: "OPTIONS",
    headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": "dpop" },
  });
  expect(preflight.headers.get("access-control-allow-headers")).toMatch(/\bdpop\b/);
  const answer = await one.post({}, { origin }, "");
  expect(answer.headers.get("access-control-expose-headers")).toMatch(/\bdpop-nonce\b/);
});

verifies(
  "rfc9449-resource-nonce",
  "where a nonce is wanted, the refusal brings it, and the next proof with it calls",
  async () => {
    await using strict = await world({ servers, tokens: { dpopNonce: true } });
    const by = await prover("ES256", Date.now, strict.url);
    const own = await boundToken(strict, by);
    const asked = await post(`DPoP ${own}`, [await by.prove(own)], strict);
    expect(asked.status).toBe(401);
    expect(challenge(asked)).toMatch(/^DPoP error="use_dpop_nonce"/);
    const nonce = asked.headers.get("dpop-nonce");
    expect(nonce).toMatch(/^[\w-]{20,}$/);
    expect((await post(`DPoP ${own}`, [await by.prove(own, { nonce })], strict)).status).toBe(200);
  },
);

test("where tokens.dpop is off, the scheme is unknown and nothing advertises it", async () => {
  await using off = await world({ servers, tokens: { dpop: "off" } });
  const { access_token } = await off.tokens();
  const by = await prover("ES256", Date.now, off.url);
  const answer = await post(`DPoP ${access_token}`, [await by.prove(access_token)], off);
  expect(answer.status).toBe(401);
  expect(challenge(answer)).not.toContain("DPoP");
  expect(await (await fetch(`${off.origin}/.well-known/oauth-protected-resource/mcp`)).text()).not.toContain("dpop");
});

verifies(
  ["rfc9728-dpop", "rfc9449-challenge"],
  "where tokens.dpop is required, bearer tokens are neither advertised nor accepted",
  async () => {
    await using strict = await world({ servers, tokens: { dpop: "required" } });
    const by = await prover("ES256", Date.now, strict.url);
    const own = await boundToken(strict, by);
    expect((await post(`DPoP ${own}`, [await by.prove(own)], strict)).status).toBe(200);
    const answer = await post(`Bearer ${own}`, [], strict);
    expect(answer.status).toBe(401);
    expect(challenge(answer)).toMatch(/^DPoP error="invalid_token"/);
    expect(challenge(answer)).not.toContain("Bearer");
    const document = await (await fetch(`${strict.origin}/.well-known/oauth-protected-resource/mcp`)).json();
    expect(document).toMatchObject({ dpop_bound_access_tokens_required: true });
  },
);
