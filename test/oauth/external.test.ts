import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Authority } from "../../src/oauth/authority.ts";
import { externalAuthority } from "../../src/oauth/external.ts";
import { protectedResourceMetadata } from "../../src/oauth/metadata.ts";
import { authorizationSettings } from "../../src/oauth/settings.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import { verifiesEach } from "../requirements.ts";
import { type ForeignServer, foreignServer } from "./foreign-server.ts";
import { prover } from "./minting.ts";

const RESOURCE = "https://mcp.shop.example/mcp";
const CLIENT = { clientId: "draw bridge", clientSecret: new Secret("p:ss wörd") };
let now: number;
const clock = () => now;
let server: ForeignServer;
let authority: Authority;

const open = (settings: Record<string, unknown> = {}): Authority => {
  const parsed = authorizationSettings.parse({ issuer: server.issuer, ...settings });
  const { records } = memoryStore(clock);
  return externalAuthority(parsed, { resource: RESOURCE, http: server.http, records, log: silentLogger, clock });
};
beforeEach(async () => {
  now = Date.now();
  server = await foreignServer(clock);
  authority = open();
});
afterEach(() => authority.close());

const CLAIMS = { sub: "ann", aud: RESOURCE, client_id: "agent", scope: "mcp:read mcp:call", jti: "t1" };
const at = { typ: "at+jwt" };
const signal = AbortSignal.timeout(10_000);

async function failure(work: () => unknown): Promise<DrawbridgeError> {
  try {
    await work();
  } catch (thrown) {
    if (thrown instanceof DrawbridgeError) return thrown;
    throw thrown;
  }
  throw new Error("expected a failure");
}

describe("a JWT of another server", () => {
  test("as RFC 9068 wants it names the caller", async () => {
    const token = await server.sign({ ...CLAIMS, groups: ["team"], name: "Ann", email: "ann@shop.example" }, at);
    const by = await authority.verify(token);
    expect(by).toMatchObject({
      subject: "ann",
      client: "agent",
      groups: ["team"],
      scopes: ["mcp:read", "mcp:call"],
      // Nobody says that the address was checked.
      claims: { name: "Ann" },
      tokenId: "t1",
      grant: undefined,
    });
    expect(authority.verify(token)).toBe(by);
  });

  test("as Keycloak, Auth0 and Okta write it is mapped by the settings", async () => {
    authority = open({
      groupsClaim: "realm_access.roles",
      scopes: { read: ["tools.read", "tools"], call: ["tools"] },
    });
    const keycloak = await server.sign(
      {
        sub: "ann",
        azp: "agent",
        typ: "Bearer",
        aud: ["account", RESOURCE],
        realm_access: { roles: ["ops"] },
        scope: "openid tools.read",
      },
      { typ: "JWT" },
    );
    expect(await authority.verify(keycloak)).toMatchObject({ client: "agent", groups: ["ops"], scopes: ["mcp:read"] });
    const okta = await server.sign({ sub: "ann", cid: "agent", aud: RESOURCE, scp: ["tools"] });
    expect(await authority.verify(okta)).toMatchObject({ client: "agent", scopes: ["mcp:read", "mcp:call"] });
    authority = open({ groupsClaim: "https://acme.example/groups", subjectClaim: "oid" });
    const auth0 = await server.sign(
      { ...CLAIMS, oid: "u1", "https://acme.example/groups": ["a", "b"] },
      { typ: "JWT" },
    );
    expect(await authority.verify(auth0)).toMatchObject({ subject: "u1", groups: ["a", "b"] });
  });

  verifiesEach(
    "rfc9068-validation",
    [
      ["for another audience", { aud: "https://mcp.shop.example/mcp2" }],
      ["for an audience that begins like ours", { aud: `${RESOURCE}/` }],
      ["without an audience", { aud: undefined }],
      ["of another issuer", { iss: "https://login.shop.example/realms/two" }],
      ["without a subject", { sub: undefined }],
      ["without a client", { client_id: undefined }],
      ["that has expired", { exp: 1 }],
      ["without an end", { exp: undefined }],
      ["that is an ID token", { nonce: "n" }],
      ["that is an ID token with a hash", { at_hash: "h" }],
      ["that says it is an ID token", { typ: "ID" }],
      ["that is a refresh token", { typ: "Refresh" }],
      ["that is a logout token", { events: {} }],
      ["that is a logout token by its type", {}, { typ: "logout+jwt" }],
      ["that is a proof", {}, { typ: "dpop+jwt" }],
      ["that is bound in an unknown way", { cnf: { "x5t#S256": "x" } }],
    ],
    "%s is refused",
    async (_what: string, claims: object, header: object = { typ: "JWT" }) => {
      const token = await server.sign({ ...CLAIMS, ...claims } as never, { ...header });
      expect((await failure(() => authority.verify(token))).code).toBe("unauthenticated");
    },
  );

  test("that leaves groups out is refused: one of them could be one that forbids", async () => {
    const many = Array.from({ length: 1001 }, (_, at) => `g${at}`);
    const elsewhere = { _claim_names: { groups: "src1" }, _claim_sources: { src1: { endpoint: "https://x.example" } } };
    for (const claims of [{ groups: many }, elsewhere])
      expect((await failure(async () => authority.verify(await server.sign({ ...CLAIMS, ...claims }, at)))).code).toBe(
        "unauthenticated",
      );
    const all = await authority.verify(await server.sign({ ...CLAIMS, groups: many.slice(1) }, at));
    expect(all.groups).toHaveLength(1000);
  });

  test("that is no JWT, or huge, is refused without a request", async () => {
    for (const token of ["opaque", "a.b.c", "x".repeat(20_000)])
      expect((await failure(() => authority.verify(token))).code).toBe("unauthenticated");
    expect(server.asked).toEqual([]);
  });

  test("ends when its time ends, and so do its streams", async () => {
    const token = await server.sign(CLAIMS, at);
    const by = await authority.verify(token);
    expect(await authority.stands(by)).toBe(true);
    now += 299_000;
    expect(await authority.stands(by)).toBe(true);
    now += 32_000;
    expect((await failure(() => authority.verify(token))).code).toBe("unauthenticated");
    expect(await authority.stands(by)).toBe(false);
  });

  test("is refused with 503 while the server's keys cannot be had, not let in", async () => {
    server.down = true;
    const error = await failure(async () => authority.verify(await server.sign(CLAIMS, at)));
    expect([error.code, error.http]).toEqual(["overloaded", 503]);
  });

  test("that is bound to a key needs its proof", async () => {
    const holder = await prover("ES256", clock, RESOURCE);
    const token = await server.sign({ ...CLAIMS, cnf: { jkt: holder.jkt } }, at);
    expect((await failure(() => authority.verify(token))).code).toBe("unauthenticated");
    const jwt = await holder.prove(token);
    expect((await authority.verify(token, { jwt, method: "POST" })).subject).toBe("ann");
    expect((await failure(() => authority.verify(token, { jwt, method: "POST" }))).proof?.error).toBe(
      "invalid_dpop_proof",
    );
    expect((await failure(() => authority.verify(token))).code).toBe("unauthenticated");
  });
});

describe("introspection", () => {
  let asked: { authorization: string | null; form: URLSearchParams }[];
  let answer: () => Response;
  const active = (more: object = {}) => Response.json({ active: true, ...CLAIMS, exp: now / 1000 + 300, ...more });

  beforeEach(() => {
    asked = [];
    answer = active;
    server.answers.set("https://login.shop.example/introspect", (init) => {
      const headers = new Headers(init.headers);
      asked.push({ authorization: headers.get("authorization"), form: new URLSearchParams(String(init.body)) });
      return answer();
    });
    authority = open({ introspection: CLIENT });
  });

  test("asks as a client with a secret, both form-encoded (RFC 6749 §2.3.1)", async () => {
    expect(await authority.verify("opaque")).toMatchObject({ subject: "ann", client: "agent" });
    const [{ authorization, form } = { authorization: null, form: new URLSearchParams() }] = asked;
    const basic = Buffer.from(authorization?.slice("Basic ".length) ?? "", "base64").toString();
    expect(basic).toBe("draw+bridge:p%3Ass+w%C3%B6rd");
    expect(form.get("token")).toBe("opaque");
  });

  test("is asked once by many calls at once, and again after ten seconds", async () => {
    await Promise.all(Array.from({ length: 20 }, () => authority.verify("opaque")));
    now += 9_000;
    await authority.verify("opaque");
    expect(asked).toHaveLength(1);
    now += 1_001;
    answer = () => Response.json({ active: false });
    expect((await failure(() => authority.verify("opaque"))).code).toBe("unauthenticated");
    expect(asked).toHaveLength(2);
  });

  test("ends streams within the same time", async () => {
    const by = await authority.verify("opaque");
    expect(await authority.stands(by)).toBe(true);
    now += 10_001;
    answer = () => Response.json({ active: false });
    expect(await authority.stands(by)).toBe(false);
  });

  verifiesEach(
    "rfc7662-resource",
    [
      ["inactive", () => Response.json({ active: false })],
      ["active in words only", () => active({ active: "true" })],
      ["for another audience", () => active({ aud: "https://other.example" })],
      ["for no audience", () => active({ aud: undefined })],
      ["of another issuer", () => active({ iss: "https://other.example" })],
      ["expired", () => active({ exp: 1 })],
      ["an ID token", () => active({ nonce: "n" })],
    ],
    "that calls a token %s refuses it",
    async (_what, said) => {
      answer = said;
      expect((await failure(() => authority.verify("opaque"))).code).toBe("unauthenticated");
    },
  );

  test.each<[string, () => Response]>([
    ["fails", () => new Response("no", { status: 500 })],
    ["refuses our secret", () => Response.json({ error: "invalid_client" }, { status: 401 })],
    ["redirects", () => new Response(null, { status: 302, headers: { location: "https://evil.example" } })],
  ])("that %s is an outage: 503, and nothing is let in", async (_what, said) => {
    answer = said;
    expect((await failure(() => authority.verify("opaque"))).http).toBe(503);
  });
});

describe("a token for an upstream", () => {
  let forms: URLSearchParams[];
  let answer: () => Response;
  const target = {
    audience: "https://orders.example/mcp",
    scopes: { "mcp:read": ["orders:read"], "mcp:call": ["orders:write"] },
  };

  beforeEach(() => {
    forms = [];
    answer = () => Response.json({ access_token: `x${forms.length}`, token_type: "Bearer", expires_in: 120 });
    server.answers.set("https://login.shop.example/token", (init) => {
      forms.push(new URLSearchParams(String(init.body)));
      return answer();
    });
    authority = open({ exchange: CLIENT });
  });

  test("is exchanged for the caller's, with the scopes that those of the caller stand for, and kept", async () => {
    const token = await server.sign({ ...CLAIMS, scope: "mcp:read" }, at);
    const by = await authority.verify(token);
    const made = await Promise.all([1, 2, 3].map(() => authority.exchange(by, target, signal)));
    expect(new Set(made.map((one) => one.token.reveal()))).toEqual(new Set(["x1"]));
    expect(Object.fromEntries(forms[0] ?? [])).toEqual({
      grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
      subject_token: token,
      subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
      requested_token_type: "urn:ietf:params:oauth:token-type:access_token",
      audience: "https://orders.example/mcp",
      scope: "orders:read",
    });
    expect(made[0]?.expiresAt).toBe(now + 120_000);
    now += 90_001;
    expect((await authority.exchange(by, target, signal)).token.reveal()).toBe("x2");
    expect(JSON.stringify(by)).not.toContain(token);
  });

  test("never lives longer than the caller's", async () => {
    answer = () => Response.json({ access_token: "long", token_type: "Bearer", expires_in: 86_400 });
    const by = await authority.verify(await server.sign(CLAIMS, at));
    expect((await authority.exchange(by, target, signal)).expiresAt).toBeLessThanOrEqual(by.expiresAt);
  });

  test.each<[string, () => Response, string]>([
    [
      "the caller's token has ended there",
      () => Response.json({ error: "invalid_grant" }, { status: 400 }),
      "unauthenticated",
    ],
    ["no scope is left", () => Response.json({ error: "invalid_scope" }, { status: 400 }), "insufficient_scope"],
    [
      "the target is unknown",
      () => Response.json({ error: "invalid_target" }, { status: 400 }),
      "upstream_unavailable",
    ],
    ["it is bound to a key", () => Response.json({ access_token: "x", token_type: "DPoP" }), "upstream_unavailable"],
    ["the answer is a page", () => new Response("<html>"), "upstream_unavailable"],
  ])("is not had when %s", async (_what, said, code) => {
    answer = said;
    const by = await authority.verify(await server.sign(CLAIMS, at));
    expect((await failure(() => authority.exchange(by, target, signal))).code).toBe(code);
  });

  test("is not asked for when no scope of the caller's stands for one there", async () => {
    const by = await authority.verify(await server.sign({ ...CLAIMS, scope: "other" }, at));
    expect((await failure(() => authority.exchange(by, target, signal))).code).toBe("insufficient_scope");
    expect(forms).toEqual([]);
  });

  test("of our own is asked for with client credentials", async () => {
    expect((await authority.ownToken(target, signal)).token.reveal()).toBe("x1");
    expect(forms[0]?.get("grant_type")).toBe("client_credentials");
    await authority.ownToken(target, signal);
    expect(forms).toHaveLength(1);
  });

  test("that one caller no longer waits for still comes to the other", async () => {
    let go = () => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    server.answers.set("https://login.shop.example/token", async () => {
      await gate;
      return Response.json({ access_token: "x", token_type: "Bearer" });
    });
    const by = await authority.verify(await server.sign(CLAIMS, at));
    const impatient = new AbortController();
    const one = failure(() => authority.exchange(by, target, impatient.signal));
    const two = authority.exchange(by, target, signal);
    impatient.abort();
    expect((await one).code).toBe("cancelled");
    go();
    expect((await two).token.reveal()).toBe("x");
  });
});

test("the metadata of the resource names the other server and its scopes", () => {
  const mapped = open({ scopes: { read: ["tools.read"], call: ["tools.write"] } });
  expect(protectedResourceMetadata(mapped.metadata)).toMatchObject({
    resource: RESOURCE,
    authorization_servers: [server.issuer],
    scopes_supported: ["tools.read", "tools.write"],
  });
  return mapped.close();
});

test("further scopes are what the other server calls them, from the moment they are asked for; ours are never smuggled in", async () => {
  let further = [{ scope: "orders:refund", title: "Refund", description: "" }];
  const { records } = memoryStore(clock);
  const stepping = externalAuthority(
    authorizationSettings.parse({ issuer: server.issuer, scopes: { read: ["tools.read"], call: ["tools.write"] } }),
    { resource: RESOURCE, http: server.http, records, log: silentLogger, furtherScopes: () => further, clock },
  );
  const token = await server.sign({ ...CLAIMS, scope: "tools.read orders:refund payroll:read mcp:call openid" }, at);
  expect((await stepping.verify(token)).scopes).toEqual(["mcp:read", "orders:refund"]);
  expect(stepping.metadata.offered()).toEqual(["mcp:read", "mcp:call", "orders:refund"]);
  // What clients ask for at first is the least that is of use.
  expect(protectedResourceMetadata(stepping.metadata).scopes_supported).toEqual(["tools.read", "tools.write"]);
  further = [
    { scope: "payroll:read", title: "Payroll", description: "" },
    { scope: "mcp:call", title: "No", description: "" },
  ];
  expect((await stepping.verify(token)).scopes).toEqual(["mcp:read", "payroll:read"]);
  await stepping.close();
});
