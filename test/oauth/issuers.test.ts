import { createHmac } from "node:crypto";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { beforeEach, describe, expect, test } from "vitest";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { type ForeignIssuer, foreignIssuer } from "../../src/oauth/issuers.ts";
import { verifiesEach } from "../requirements.ts";
import { type ForeignServer, foreignServer } from "./foreign-server.ts";

const AUDIENCE = "https://mcp.shop.example/mcp";
let now: number;
const clock = () => now;
let server: ForeignServer;
let issuer: ForeignIssuer;

beforeEach(async () => {
  now = Date.UTC(2026, 10, 21, 12);
  server = await foreignServer(clock);
  issuer = foreignIssuer({ issuer: server.issuer, http: server.http, clock });
});

const failure = async (work: Promise<unknown>): Promise<DrawbridgeError> => {
  const thrown = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (thrown instanceof DrawbridgeError) return thrown;
  throw new Error(`expected a DrawbridgeError, got ${String(thrown)}`);
};
const verify = (token: string, more: object = {}) => issuer.verify(token, { audience: AUDIENCE, ...more });

describe("the metadata of an issuer", () => {
  test("is looked for where RFC 8414 puts the path, then where OpenID Connect does", async () => {
    const { tokenEndpoint } = await issuer.metadata();
    expect(tokenEndpoint).toBe("https://login.shop.example/token");
    expect(server.asked).toEqual([
      "https://login.shop.example/.well-known/oauth-authorization-server/realms/one",
      "https://login.shop.example/realms/one/.well-known/openid-configuration",
    ]);
  });

  test("of an issuer whose name ends with a slash is found", async () => {
    const other = await foreignServer(clock, "https://tenant.example/");
    other.answers.set("https://tenant.example/.well-known/openid-configuration", () =>
      Response.json({ issuer: "https://tenant.example/", jwks_uri: "https://tenant.example/keys" }),
    );
    const { jwksUri } = await foreignIssuer({ issuer: other.issuer, http: other.http, clock }).metadata();
    expect(jwksUri).toBe("https://tenant.example/keys");
  });

  verifiesEach(
    "rfc8414-issuer",
    [
      ["another issuer's", { issuer: "https://login.shop.example/realms/two" }, /is of the issuer "https/],
      ["the same with a slash", { issuer: "https://login.shop.example/realms/one/" }, /not of https/],
      ["nobody's", {}, /is of the issuer null/],
      ["one with an endpoint that is not https", { issuer: "", token_endpoint: "http://10.0.0.1/t" }, /token_endpoint/],
    ],
    "is refused when it is %s",
    async (_what, document, message) => {
      const own = "issuer" in document && document.issuer === "" ? { ...document, issuer: server.issuer } : document;
      server.answers.set("https://login.shop.example/realms/one/.well-known/openid-configuration", () =>
        Response.json(own),
      );
      const error = await failure(issuer.metadata());
      expect(error.code).toBe("outbound_refused");
      expect(error.message).toMatch(message);
    },
  );

  test("is asked for once by many who want it at the same time, and kept", async () => {
    await Promise.all(Array.from({ length: 20 }, () => issuer.metadata()));
    await issuer.metadata();
    expect(server.asked).toHaveLength(2);
  });

  test("of an issuer that cannot be one is refused before anything is asked", () => {
    for (const name of [
      "http://login.example",
      "https://a.example/?x=1",
      "https://a.example/#x",
      "ftp://a",
      "nonsense",
    ]) {
      expect(() => foreignIssuer({ issuer: name, http: server.http }), name).toThrow(/must be an https URL/);
    }
    expect(server.asked).toEqual([]);
  });
});

describe("a token of an issuer", () => {
  test("is accepted, with whichever audience of several is ours", async () => {
    const claims = await verify(await server.sign({ sub: "ann", aud: ["account", AUDIENCE] }));
    expect(claims.sub).toBe("ann");
  });

  test.each([
    ["for another audience", { aud: "https://mcp.shop.example/mcp2" }],
    ["for an audience with a slash more", { aud: `${AUDIENCE}/` }],
    ["without an audience", { aud: undefined as never }],
    ["of another issuer with the same key", { iss: "https://login.shop.example/realms/two" }],
    ["that has expired", { exp: Date.UTC(2026, 10, 21, 12) / 1000 - 31 }],
    ["without an end", { exp: undefined as never }],
    ["that is not valid yet", { nbf: Date.UTC(2026, 10, 21, 12) / 1000 + 60 }],
  ])("%s is refused", async (_what, claims) => {
    expect((await failure(verify(await server.sign({ aud: AUDIENCE, ...claims })))).code).toBe("unauthenticated");
  });

  test("of a type that is not wanted is refused, one that is wanted accepted in any spelling", async () => {
    const typed = (typ: string) => server.sign({ aud: AUDIENCE }, { typ });
    await verify(await typed("application/AT+JWT"), { typ: "at+jwt" });
    expect((await failure(verify(await typed("JWT"), { typ: "at+jwt" }))).detail).toMatch(/type is "JWT"/);
    expect((await failure(verify(await server.sign({ aud: AUDIENCE }), { typ: "at+jwt" }))).detail).toMatch(
      /type is null/,
    );
  });

  test("signed by HMAC with a public key, or by nobody, is refused without a request", async () => {
    const [key] = server.keys.values();
    const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const payload = encode({ iss: server.issuer, aud: AUDIENCE, exp: now / 1000 + 60 });
    const hmac = `${encode({ alg: "HS256", kid: "k1" })}.${payload}`;
    const signature = createHmac("sha256", JSON.stringify(key?.jwk)).update(hmac).digest("base64url");
    for (const token of [
      `${hmac}.${signature}`,
      `${encode({ alg: "none" })}.${payload}.`,
      "a.b.c",
      "opaque",
      "x".repeat(20_000),
    ])
      expect((await failure(verify(token))).code).toBe("unauthenticated");
    expect(server.asked).toEqual([]);
  });

  test("that brings its key along, or says where it is, is refused", async () => {
    const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
    for (const header of [
      { jwk: await exportJWK(publicKey) },
      { jku: "https://evil.example/keys" },
      { x5u: "https://evil.example/cert" },
      { kid: "../../etc/passwd" },
    ]) {
      const token = await new SignJWT({ iss: server.issuer, aud: AUDIENCE, exp: now / 1000 + 60 })
        .setProtectedHeader({ alg: "ES256", kid: "k1", ...header } as never)
        .sign(privateKey);
      expect((await failure(verify(token))).code).toBe("unauthenticated");
    }
    expect(server.asked.filter((url) => url.includes("evil"))).toEqual([]);
  });

  test("without a kid is tried with each key that fits", async () => {
    await server.addKey("k2");
    await verify(await server.sign({ aud: AUDIENCE }, { kid: undefined }));
    await server.addKey("k3");
    const stranger = await foreignServer(clock);
    expect((await failure(verify(await stranger.sign({ aud: AUDIENCE }, { kid: undefined })))).code).toBe(
      "unauthenticated",
    );
  });
});

describe("the keys of an issuer", () => {
  const keyRequests = () => server.asked.filter((url) => url.endsWith("/keys")).length;

  test("are read again for a new kid, but at most once in half a minute", async () => {
    await verify(await server.sign({ aud: AUDIENCE }));
    await server.addKey("k2");
    const fresh = await server.sign({ aud: AUDIENCE });
    now += 31_000;
    await verify(fresh);
    expect(keyRequests()).toBe(2);
    for (let n = 0; n < 10; n++) {
      const unknown = await server.sign({ aud: AUDIENCE }, { kid: `made-up-${n}` });
      expect((await failure(verify(unknown))).code).toBe("unauthenticated");
    }
    expect(keyRequests()).toBe(2);
  });

  test("that were withdrawn sign no more when the set has grown old", async () => {
    const token = await server.sign({ aud: AUDIENCE, exp: now / 1000 + 100_000 });
    await verify(token);
    await server.addKey("k2");
    server.keys.delete("k1");
    now += 601_000;
    expect((await failure(verify(token))).code).toBe("unauthenticated");
  });

  test("serve on while the issuer is down, for a day; then tokens are refused", async () => {
    const token = await server.sign({ aud: AUDIENCE, exp: now / 1000 + 200_000 });
    await verify(token);
    server.down = true;
    now += 23 * 3_600_000;
    await verify(token);
    now += 2 * 3_600_000;
    expect((await failure(verify(token))).code).toBe("upstream_unavailable");
    server.down = false;
    now += 5_000;
    await verify(token);
  });

  test("that cannot be had at the start refuse tokens, and are asked for again every five seconds at most", async () => {
    server.down = true;
    const token = await server.sign({ aud: AUDIENCE });
    for (let n = 0; n < 5; n++) expect((await failure(verify(token))).code).toBe("upstream_unavailable");
    const before = server.asked.length;
    server.down = false;
    now += 5_001;
    await verify(token);
    expect(server.asked.length).toBeGreaterThan(before);
  });

  test("that are shared secrets do not count", async () => {
    server.answers.set("https://login.shop.example/keys", () =>
      Response.json({ keys: [{ kty: "oct", k: "c2VjcmV0", kid: "k1", alg: "HS256" }] }),
    );
    expect((await failure(verify(await server.sign({ aud: AUDIENCE })))).code).toBe("unauthenticated");
  });
});
