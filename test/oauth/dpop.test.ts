import { createHash, randomUUID } from "node:crypto";
import { calculateJwkThumbprint, decodeJwt, exportJWK, type JWTPayload } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import { verifies } from "../requirements.ts";
import { basic, elsewhere, foreignIssuer, type Holder, holder, type Issuer, post, proof } from "./assertions.ts";
import { authorize, Browser, REDIRECT, type Running, refresh, register, running, setUp, token } from "./support.ts";

const SECRET = "s".repeat(40);
const VERIFIER = "v".repeat(64);
const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
let live: Running;
let platform: Issuer;
let browser: Browser;
let client: string;
let mine: Holder;
let theirs: Holder;

const clients = () => ({
  registration: "open",
  preregistered: [
    { id: "nightly", name: "Nightly", secret: new Secret(SECRET), service: { groups: [] } },
    { id: "bound", name: "Bound", secret: new Secret(SECRET), service: { groups: [] }, dpop: true },
  ],
  workloads: [{ id: "ci", name: "CI", issuer: platform.issuer, subject: "ci" }],
});

beforeAll(async () => {
  [mine, theirs, platform] = await Promise.all([holder(), holder(), foreignIssuer()]);
  live = await running({ clients: clients(), trustedProxies: ["127.0.0.1"] });
  browser = await setUp(live);
  client = String((await register(live)).body["client_id"]);
});
afterAll(async () => {
  await live[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

async function freshCode(more: Record<string, string> = {}): Promise<string> {
  return (await authorize(live, browser, { client, more }, VERIFIER)).searchParams.get("code") ?? "";
}
const redeem = (code: string, headers: Record<string, string> = {}, here = live, id = client) =>
  token(
    here,
    { grant_type: "authorization_code", code, client_id: id, redirect_uri: REDIRECT, code_verifier: VERIFIER },
    { ...headers, ...elsewhere() },
  );

/** Both ways to check a proof: that of `oidc-provider`, and ours for the grants that are ours. */
const WAYS = ["client_credentials", "a workload's assertion"] as const;
async function ask(way: (typeof WAYS)[number], headers: Record<string, string>, here = live) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: platform.issuer, sub: "ci", aud: here.base, jti: randomUUID(), iat: now, exp: now + 60 };
  return way === "client_credentials"
    ? token(here, { grant_type: way }, { ...basic("nightly", SECRET), ...headers, ...elsewhere() })
    : token(here, { grant_type: JWT_BEARER, assertion: await platform.sign(claims) }, { ...headers, ...elsewhere() });
}

describe.each(WAYS)("with a proof, %s", (way) => {
  verifies("rfc9449-bound", "gives a token that is bound to the key", async () => {
    for (const alg of ["ES256", "EdDSA", "RS256", "PS256"]) {
      const key = await holder(alg);
      const { status, body } = await ask(way, { dpop: await proof(live, key) });
      expect([alg, status, body["token_type"]]).toEqual([alg, 200, "DPoP"]);
      expect(decodeJwt(String(body["access_token"]))["cnf"]).toEqual({ jkt: await calculateJwkThumbprint(key.jwk) });
    }
  });

  test("gives a bearer token when there is no proof", async () => {
    expect((await ask(way, {})).body["token_type"]).toBe("Bearer");
  });

  verifies("rfc9449-proof", "of twenty at once with the same proof, gives one token", async () => {
    const dpop = await proof(live, mine);
    const answers = await Promise.all(Array.from({ length: 20 }, () => ask(way, { dpop })));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect((await ask(way, { dpop })).status).toBe(400);
  });

  test.each<[string, JWTPayload, Record<string, unknown>]>([
    ["for another method", { htm: "GET" }, {}],
    ["for another URL", { htu: "https://other.example/oauth/token" }, {}],
    ["for another endpoint here", { htu: "BASE/oauth/par" }, {}],
    ["for no URL", { htu: undefined }, {}],
    ["without an id", { jti: undefined } as unknown as JWTPayload, {}],
    ["that does not say when it was made", { iat: undefined } as unknown as JWTPayload, {}],
    ["of another type", {}, { typ: "JWT" }],
    ["without its key", {}, { jwk: undefined }],
  ])("is refused when the proof is one %s", async (_what, claims, header) => {
    const { htu } = claims;
    const filled = typeof htu === "string" ? { ...claims, htu: htu.replace("BASE", live.base) } : claims;
    const { status, body } = await ask(way, { dpop: await proof(live, mine, filled, header) });
    expect([status, body["error"]]).toEqual([400, "invalid_dpop_proof"]);
  });

  test("is refused when the proof has a private key in it, or is signed by another one", async () => {
    const { kty, crv, x, y, d } = await exportJWK(mine.key);
    const secret = await proof(live, mine, {}, { jwk: { kty, crv, x, y, d } });
    const others = await proof(live, { key: mine.key, jwk: theirs.jwk });
    const two = `${await proof(live, mine)}, ${await proof(live, mine)}`;
    for (const [what, dpop] of Object.entries({ secret, others, two, none: "x" }))
      expect([what, (await ask(way, { dpop })).body["error"]]).toEqual([what, "invalid_dpop_proof"]);
  });

  verifies(
    "rfc9449-nonce",
    "hears of a nonce when the proof is old, and takes the proof again with it, whatever its age",
    async () => {
      const old = { iat: Math.floor(Date.now() / 1000) - 3_600 };
      const first = await ask(way, { dpop: await proof(live, mine, old) });
      expect([first.status, first.body["error"]]).toEqual([400, "use_dpop_nonce"]);
      const nonce = first.headers.get("dpop-nonce") ?? "";
      expect(nonce).not.toBe("");
      expect(first.headers.get("access-control-expose-headers")).toContain("dpop-nonce");
      expect((await ask(way, { dpop: await proof(live, mine, { ...old, nonce }) })).status).toBe(200);
    },
  );

  test("takes no nonce that the server did not give", async () => {
    const { body } = await ask(way, { dpop: await proof(live, mine, { nonce: "n".repeat(43) }) });
    expect(body["error"]).toBe("use_dpop_nonce");
  });
});

test("a nonce that one grant gave is good for the others, and on another replica", async () => {
  const given = (await ask("client_credentials", { dpop: await proof(live, mine) })).headers.get("dpop-nonce") ?? "";
  const other = (await ask("a workload's assertion", { dpop: await proof(live, mine) })).headers.get("dpop-nonce");
  expect(other).toBe(given);
  await using replica = await running({ clients: clients(), records: live.records });
  for (const way of WAYS) {
    const answer = await ask(way, { dpop: await proof(replica, mine, { nonce: given }) }, replica);
    expect([way, answer.status]).toEqual([way, 200]);
  }
});

describe("a code", () => {
  verifies("rfc9449-code", "that was asked for with dpop_jkt is redeemed with that key alone", async () => {
    const dpop_jkt = await calculateJwkThumbprint(mine.jwk);
    expect((await redeem(await freshCode({ dpop_jkt }))).body["error"]).toBe("invalid_grant");
    const stolen = await redeem(await freshCode({ dpop_jkt }), { dpop: await proof(live, theirs) });
    expect(stolen.body["error"]).toBe("invalid_grant");
    const { status, body } = await redeem(await freshCode({ dpop_jkt }), { dpop: await proof(live, mine) });
    expect([status, body["token_type"]]).toEqual([200, "DPoP"]);
  });

  verifies(
    "rfc9449-code",
    "that was asked for in a pushed request with a proof is redeemed with that key alone",
    async () => {
      const pushed = async () => {
        const params = {
          client_id: client,
          response_type: "code",
          redirect_uri: REDIRECT,
          code_challenge: createHash("sha256").update(VERIFIER).digest("base64url"),
          code_challenge_method: "S256",
        };
        const dpop = await proof(live, mine, { htu: `${live.base}/oauth/par` });
        const { body } = await post(live, "/oauth/par", params, { dpop, ...elsewhere() });
        const url = new URL(`${live.base}/oauth/authorize`);
        url.searchParams.set("client_id", client);
        url.searchParams.set("request_uri", String(body["request_uri"]));
        const end = (await browser.go(url.href)) ?? (await browser.submit({ answer: "allow" }));
        return end?.searchParams.get("code") ?? "";
      };
      expect((await redeem(await pushed(), { dpop: await proof(live, theirs) })).body["error"]).toBe("invalid_grant");
      expect((await redeem(await pushed(), { dpop: await proof(live, mine) })).status).toBe(200);
    },
  );
});

verifies(
  "rfc9449-bound",
  "the refresh token of a public client is bound to its key, so a thief has no use for it",
  async () => {
    const { body } = await redeem(await freshCode(), { dpop: await proof(live, mine) });
    const stolen = String(body["refresh_token"]);
    expect((await refresh(live, client, stolen)).body["error"]).toBe("invalid_grant");
    const all = { grant_type: "refresh_token", client_id: client, refresh_token: stolen };
    expect((await token(live, all, { dpop: await proof(live, theirs) })).body["error"]).toBe("invalid_grant");
    const own = await token(live, all, { dpop: await proof(live, mine) });
    expect([own.status, own.body["token_type"]]).toEqual([200, "DPoP"]);
  },
);

describe("a client whose tokens must be bound", () => {
  test("by the settings file gets none without a proof, and is told so", async () => {
    const without = await token(live, { grant_type: "client_credentials" }, basic("bound", SECRET));
    expect([without.status, without.body["error"]]).toEqual([400, "invalid_dpop_proof"]);
    expect(live.events.at(-1)).toMatchObject({ type: "token-refused", error: "invalid_dpop_proof", client: "bound" });
    const dpop = await proof(live, mine);
    const { body } = await token(live, { grant_type: "client_credentials" }, { ...basic("bound", SECRET), dpop });
    expect(body["token_type"]).toBe("DPoP");
  });

  test("by its own registration gets none without a proof, and keeps its code", async () => {
    const id = String((await register(live, { dpop_bound_access_tokens: true })).body["client_id"]);
    const code = (await authorize(live, browser, { client: id }, VERIFIER)).searchParams.get("code") ?? "";
    expect((await redeem(code, {}, live, id)).body["error"]).toBe("invalid_dpop_proof");
    expect((await redeem(code, { dpop: await proof(live, mine) }, live, id)).status).toBe(200);
  });
});

test("where every token must be bound, none is given without a proof, by any grant", async () => {
  await using here = await running({ clients: clients(), tokens: { dpop: "required" } });
  const someone = await setUp(here);
  const id = String((await register(here)).body["client_id"]);
  const code = (await authorize(here, someone, { client: id }, VERIFIER)).searchParams.get("code") ?? "";
  expect((await redeem(code, {}, here, id)).body["error"]).toBe("invalid_dpop_proof");
  for (const way of WAYS) expect((await ask(way, {}, here)).body["error"], way).toBe("invalid_dpop_proof");
  const { body } = await redeem(code, { dpop: await proof(here, mine) }, here, id);
  expect(body["token_type"]).toBe("DPoP");
  for (const way of WAYS) expect((await ask(way, { dpop: await proof(here, mine) }, here)).status, way).toBe(200);
});

test("where every token must be bound since yesterday, that goes for clients that registered before", async () => {
  const records = memoryStore().records;
  const first = await running({ clients: clients(), records });
  const id = String((await register(first)).body["client_id"]);
  await setUp(first);
  await first[Symbol.asyncDispose]();
  await using here = await running({ clients: clients(), records, tokens: { dpop: "required" } });
  const code =
    (await authorize(here, new Browser(here.origin), { client: id }, VERIFIER)).searchParams.get("code") ?? "";
  expect((await redeem(code, {}, here, id)).body["error"]).toBe("invalid_dpop_proof");
});

test("who guesses pays for it with a proof as without one", async () => {
  await using here = await running({ clients: { ...clients(), requestsPerSourcePerMinute: 100 } });
  const guess = async () => {
    const dpop = await proof(here, mine);
    return token(here, { grant_type: "client_credentials" }, { ...basic("nightly", "guess"), dpop });
  };
  const codes = { grant_type: "authorization_code", code: "guess", redirect_uri: REDIRECT, code_verifier: VERIFIER };
  const id = String((await register(here)).body["client_id"]);
  const statuses: number[] = [];
  for (let count = 0; count < 8; count++) {
    statuses.push((await guess()).status);
    const dpop = await proof(here, mine);
    statuses.push((await token(here, { ...codes, client_id: id }, { dpop })).status);
  }
  expect(statuses).toContain(429);
});

verifies("rfc9449-nonce", "where nonces are demanded, each proof needs one, by any grant", async () => {
  await using here = await running({ clients: clients(), tokens: { dpopNonce: true } });
  for (const way of WAYS) {
    const first = await ask(way, { dpop: await proof(here, mine) }, here);
    expect([way, first.status, first.body["error"]]).toEqual([way, 400, "use_dpop_nonce"]);
    const nonce = first.headers.get("dpop-nonce") ?? "";
    expect((await ask(way, { dpop: await proof(here, mine, { nonce }) }, here)).status).toBe(200);
  }
});

test("where it is switched off, no token is bound and the metadata does not speak of it", async () => {
  await using here = await running({
    clients: { ...clients(), preregistered: clients().preregistered.slice(0, 1) },
    tokens: { dpop: "off" },
  });
  for (const way of WAYS)
    expect((await ask(way, { dpop: await proof(here, mine) }, here)).body["token_type"]).toBe("Bearer");
  const metadata = await (await fetch(`${here.base}/.well-known/oauth-authorization-server`)).json();
  expect(metadata).not.toHaveProperty("dpop_signing_alg_values_supported");
});

test("a client that must be bound where nothing can be is refused at the start", async () => {
  await expect(running({ clients: clients(), tokens: { dpop: "off" } })).rejects.toMatchObject({
    code: "settings_invalid",
  });
});

test("a proof from a clock that is ahead counts once, for as long as it is taken", async () => {
  let shift = 0;
  await using here = await running({ clients: clients(), clock: () => Date.now() + shift });
  const now = Math.floor(Date.now() / 1000);
  const dpop = await proof(here, mine, { iat: now + 290 });
  const ask = async () => {
    const claims = { iss: platform.issuer, sub: "ci", aud: here.base, jti: randomUUID(), iat: now, exp: now + 900 };
    return token(here, { grant_type: JWT_BEARER, assertion: await platform.sign(claims) }, { dpop });
  };
  expect((await ask()).status).toBe(200);
  shift = 310_000;
  expect((await ask()).status).toBe(400);
});
