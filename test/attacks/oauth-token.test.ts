import { createPublicKey, generateKeyPairSync, randomUUID } from "node:crypto";
import { decodeJwt, generateKeyPair, importJWK, type JWTPayload, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadKeys } from "../../src/oauth/tokens/keys.ts";
import {
  authorize,
  type Browser,
  call,
  connect,
  REDIRECT,
  type Running,
  refresh,
  register,
  running,
  setUp,
  token,
} from "../oauth/support.ts";
import { verifies, verifiesEach } from "../requirements.ts";

let live: Running;
let browser: Browser;
let client: string;

beforeAll(async () => {
  live = await running({ clients: { registration: "open" }, tokens: { refreshGraceSeconds: 0 } });
  browser = await setUp(live);
  client = String((await register(live)).body["client_id"]);
});
afterAll(() => live[Symbol.asyncDispose]());

const VERIFIER = "k".repeat(64);

async function freshCode(): Promise<string> {
  return (await authorize(live, browser, { client }, VERIFIER)).searchParams.get("code") ?? "";
}

function redeem(code: string, more: Record<string, string> = {}) {
  return token(live, {
    grant_type: "authorization_code",
    code,
    client_id: client,
    redirect_uri: REDIRECT,
    code_verifier: VERIFIER,
    ...more,
  });
}

describe("a code", () => {
  verifies("rfc6749-code-once", "is redeemed by exactly one of twenty at once", async () => {
    const code = await freshCode();
    const answers = await Promise.all(Array.from({ length: 20 }, () => redeem(code)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    for (const { status, body } of answers) if (status !== 200) expect(body["error"]).toBe("invalid_grant");
  });

  verifies("rfc6749-code-once", "used twice ends what the first use gave", async () => {
    const { code, verifier, access_token, refresh_token } = await connect(live, browser, { client });
    expect((await call(live, access_token)).status).toBe(200);
    expect((await redeem(code, { code_verifier: verifier })).body["error"]).toBe("invalid_grant");
    expect((await call(live, access_token)).status).toBe(401);
    expect((await refresh(live, client, refresh_token)).body["error"]).toBe("invalid_grant");
  });

  verifiesEach(
    ["rfc7636-verifier", "oauth21-code-bound"],
    [
      ["without a verifier", { code_verifier: "" }],
      ["with another verifier", { code_verifier: "x".repeat(64) }],
      ["with a padded verifier", { code_verifier: `${VERIFIER}=` }],
      ["with another redirect_uri", { redirect_uri: "http://127.0.0.1:49152/other" }],
      ["with another port than it was asked for", { redirect_uri: "http://127.0.0.1:49153/callback" }],
    ],
    "is refused %s",
    async (_how, more) => {
      const { status, body } = await redeem(await freshCode(), more);
      expect(status).toBe(400);
      expect(body["error"]).toMatch(/^invalid_(grant|request)$/);
    },
  );

  verifies("oauth21-code-bound", "of one client is refused to another", async () => {
    const other = String((await register(live)).body["client_id"]);
    expect((await redeem(await freshCode(), { client_id: other })).body["error"]).toBe("invalid_grant");
  });

  verifies("rfc8707-token-request", "is refused for another resource than it was given for", async () => {
    expect((await redeem(await freshCode(), { resource: "https://other.example/mcp" })).body["error"]).toBe(
      "invalid_target",
    );
  });

  verifies("oauth21-code-bound", "is refused after a minute", async () => {
    let now = Date.now();
    await using here = await running({ clients: { registration: "open" }, clock: () => now });
    const someone = await setUp(here);
    const id = String((await register(here)).body["client_id"]);
    const code = (await authorize(here, someone, { client: id }, VERIFIER)).searchParams.get("code") ?? "";
    now += 61_000;
    const late = {
      grant_type: "authorization_code",
      code,
      client_id: id,
      redirect_uri: REDIRECT,
      code_verifier: VERIFIER,
    };
    expect((await token(here, late)).body["error"]).toBe("invalid_grant");
  });
});

describe("a refresh token", () => {
  test("without grace is used by exactly one of twenty at once", async () => {
    const { refresh_token } = await connect(live, browser, { client });
    const answers = await Promise.all(Array.from({ length: 20 }, () => refresh(live, client, refresh_token)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
  });

  verifies("rfc9700-rotation", "used again ends the family, the thief's tokens and the owner's", async () => {
    const first = await connect(live, browser, { client });
    const second = await refresh(live, client, first.refresh_token);
    expect((await call(live, String(second.body["access_token"]))).status).toBe(200);
    expect((await refresh(live, client, first.refresh_token)).body["error"]).toBe("invalid_grant");
    expect((await refresh(live, client, String(second.body["refresh_token"]))).body["error"]).toBe("invalid_grant");
    expect((await call(live, String(second.body["access_token"]))).status).toBe(401);
    expect((await call(live, first.access_token)).status).toBe(401);
  });

  verifies("oauth21-refresh", "is refused to another client", async () => {
    const { refresh_token } = await connect(live, browser, { client });
    const other = String((await register(live)).body["client_id"]);
    expect((await refresh(live, other, refresh_token)).body["error"]).toBe("invalid_grant");
  });

  verifies(["oauth21-refresh", "rfc8707-token-request"], "gives no wider scope and no other resource", async () => {
    const { refresh_token } = await connect(live, browser, { client, without: ["mcp:call"] });
    const wider = await refresh(live, client, refresh_token, { scope: "mcp:read mcp:call" });
    expect(wider.body["error"] ?? wider.body["scope"]).toMatch(/^(invalid_scope|mcp:read)$/);
    const { refresh_token: another } = await connect(live, browser, { client });
    expect((await refresh(live, client, another, { resource: "https://other.example" })).body["error"]).toBe(
      "invalid_target",
    );
  });

  test("is not in the store in a form that could be used", async () => {
    const { refresh_token, code } = await connect(live, browser, { client });
    for (const kind of ["oauth:RefreshToken", "oauth:AuthorizationCode"]) {
      const stored = JSON.stringify(await live.records.list(kind, { limit: 1000 }));
      expect(stored).not.toContain(refresh_token);
      expect(stored).not.toContain(code);
    }
  });
});

describe("the token endpoint", () => {
  verifiesEach(
    "oauth21-grants",
    ["password", "client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange", "implicit", "x"],
    "refuses the grant type %s",
    async (grant) => {
      const { status, body } = await token(live, { grant_type: grant, client_id: client });
      expect(status).toBe(400);
      expect(["unsupported_grant_type", "unauthorized_client"]).toContain(body["error"]);
    },
  );

  test("refuses parameters that come twice", async () => {
    const body = `grant_type=authorization_code&client_id=${client}&code=a&code=b&redirect_uri=x&code_verifier=${VERIFIER}`;
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    const response = await fetch(`${live.base}/oauth/token`, { method: "POST", body, headers });
    expect(await response.json()).toMatchObject({ error: "invalid_request" });
  });
});

describe("a bearer token", () => {
  const SECONDS = () => Math.floor(Date.now() / 1000);

  async function forged(claims: JWTPayload = {}, header: Record<string, unknown> = {}): Promise<string> {
    const { access_token } = await connect(live, browser, { client });
    const [key] = (await loadKeys(live.records)).signing;
    if (key === undefined) throw new Error("no key");
    const payload = { ...decodeJwt(access_token), ...claims };
    const all = { alg: "ES256", typ: "at+jwt", kid: key.kid, ...header };
    return new SignJWT(payload).setProtectedHeader(all).sign(await importJWK(key, "ES256"));
  }

  test("signed with our key and true in all is accepted, so that the refusals below mean something", async () => {
    expect((await call(live, await forged())).status).toBe(200);
  });

  verifiesEach(
    ["auth-audience", "auth-401", "rfc6750-invalid-token"],
    [
      ["for another audience", () => ({ aud: "https://other.example/mcp" })],
      ["for an audience that begins like ours", () => ({ aud: `${live.resource}2` })],
      ["for our resource with a slash", () => ({ aud: `${live.resource}/` })],
      ["for us and a stranger", () => ({ aud: [live.resource, "https://other.example"] })],
      ["of another issuer", () => ({ iss: "https://other.example" })],
      ["that has expired", () => ({ exp: SECONDS() - 1 })],
      ["from the future", () => ({ iat: SECONDS() + 3600 })],
      ["that is not valid yet", () => ({ nbf: SECONDS() + 3600 })],
      ["without an end", () => ({ exp: undefined })],
      ["that we never gave", () => ({ jti: randomUUID() })],
      ["of a grant that never was", () => ({ gid: "none" })],
      ["without a grant", () => ({ gid: undefined })],
      ["of a user that never was", () => ({ sub: randomUUID() })],
    ],
    "%s is refused",
    async (_what, claims) => {
      expect((await call(live, await forged(claims() as JWTPayload))).status).toBe(401);
    },
  );

  test.each([
    ["an id token", { typ: "JWT" }],
    ["without a type", { typ: undefined }],
    ["with an unknown key", { kid: "../../etc/passwd" }],
  ])("%s is refused", async (_what, header) => {
    expect((await call(live, await forged({}, header))).status).toBe(401);
  });

  verifies("rfc9068-typ", "a real id token of ours is no access token", async () => {
    const { id_token } = await connect(live, browser, { client, scope: "openid mcp:read" });
    expect(id_token).toBeDefined();
    expect((await call(live, id_token ?? "")).status).toBe(401);
  });

  verifies("rfc8725-algorithms", "with alg none is refused", async () => {
    const { access_token } = await connect(live, browser, { client });
    const [, payload] = access_token.split(".");
    const header = Buffer.from(JSON.stringify({ alg: "none", typ: "at+jwt" })).toString("base64url");
    for (const signature of ["", "AAAA"])
      expect((await call(live, `${header}.${payload}.${signature}`)).status).toBe(401);
  });

  verifies("rfc8725-algorithms", "signed by HMAC with our public key as the secret is refused", async () => {
    const { access_token } = await connect(live, browser, { client });
    const [key] = (await loadKeys(live.records)).public;
    if (key === undefined) throw new Error("no key");
    const spki = createPublicKey({ key: { ...key }, format: "jwk" }).export({ type: "spki", format: "pem" });
    const header = { alg: "HS256", typ: "at+jwt", kid: key.kid };
    const hmac = await new SignJWT(decodeJwt(access_token)).setProtectedHeader(header).sign(Buffer.from(spki));
    expect((await call(live, hmac)).status).toBe(401);
  });

  verifies("rfc8725-algorithms", "signed by a stranger who brings the key along is refused", async () => {
    const { access_token } = await connect(live, browser, { client });
    const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
    const jwk = await crypto.subtle.exportKey("jwk", publicKey);
    const [key] = (await loadKeys(live.records)).public;
    for (const header of [
      { jwk },
      { jku: "https://attacker.example/jwks" },
      { kid: key?.kid },
      { kid: key?.kid, jwk },
    ]) {
      const all = { alg: "ES256", typ: "at+jwt", ...header } as never;
      const token = await new SignJWT(decodeJwt(access_token)).setProtectedHeader(all).sign(privateKey);
      expect((await call(live, token)).status).toBe(401);
    }
    const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
    const other = await new SignJWT(decodeJwt(access_token))
      .setProtectedHeader({ alg: "RS256", typ: "at+jwt", kid: key?.kid ?? "" })
      .sign(rsa);
    expect((await call(live, other)).status).toBe(401);
  });

  test("that is huge or no token at all is refused", async () => {
    for (const text of ["x".repeat(9000), "a.b.c", "..", "null", "%00"])
      expect((await call(live, text)).status).toBe(401);
  });

  verifies("auth-401", "that was cached ends when its time ends", async () => {
    let now = Date.now();
    await using here = await running({
      clients: { registration: "open" },
      tokens: { accessTokenSeconds: 60 },
      clock: () => now,
    });
    const someone = await setUp(here);
    const id = String((await register(here)).body["client_id"]);
    const { access_token } = await connect(here, someone, { client: id });
    expect((await call(here, access_token)).status).toBe(200);
    expect(here.server.verify(access_token)).not.toBeInstanceOf(Promise);
    now += 61_000;
    expect((await call(here, access_token)).status).toBe(401);
  });
});
