import { randomUUID } from "node:crypto";
import { calculateJwkThumbprint, decodeJwt, decodeProtectedHeader, type JWTPayload, SignJWT } from "jose";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { verifies } from "../requirements.ts";
import { basic, elsewhere, foreignIssuer, holder, type Issuer, proof } from "./assertions.ts";
import { type Browser, call, connect, type Running, register, running, setUp, token } from "./support.ts";

const SECRET = "s".repeat(40);
const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ID_JAG = { typ: "oauth-id-jag+jwt" };

let work: Issuer;
let other: Issuer;
let platform: Issuer;
let live: Running;
let browser: Browser;

beforeAll(async () => {
  [work, other, platform] = await Promise.all([foreignIssuer(), foreignIssuer(), foreignIssuer("RS256")]);
  live = await running({
    // Of refusals of one source not all are recorded.
    trustedProxies: ["127.0.0.1"],
    signIn: {
      providers: {
        work: {
          issuer: work.issuer,
          clientId: "drawbridge",
          identityAssertions: true,
          groupsPrefix: "work:",
        },
        strict: {
          issuer: other.issuer,
          clientId: "drawbridge",
          identityAssertions: true,
          requiredGroups: ["staff"],
        },
        plain: { issuer: platform.issuer, clientId: "drawbridge" },
      },
    },
    clients: {
      registration: "open",
      preregistered: [
        {
          id: "assistant",
          name: "Assistant",
          secret: new Secret(SECRET),
          redirectUris: ["https://assistant.example/cb"],
        },
        { id: "rival", name: "Rival", secret: new Secret(SECRET), redirectUris: ["https://rival.example/cb"] },
      ],
      workloads: [
        {
          id: "shop-ci",
          name: "Shop CI",
          issuer: platform.issuer,
          subject: "repo:acme/shop:ref:refs/heads/*",
          groups: ["ci"],
          scopes: ["mcp:read"],
        },
        {
          id: "cluster",
          name: "Cluster job",
          issuer: platform.issuer,
          jwksUri: `${platform.issuer}/jwks`,
          subject: "system:serviceaccount:jobs:*",
          audience: "drawbridge",
          reusable: true,
        },
      ],
    },
  });
  browser = await setUp(live);
});
afterAll(async () => {
  await live[Symbol.asyncDispose]();
  await Promise.all([work, other, platform].map((each) => each[Symbol.asyncDispose]()));
});
beforeEach(() => {
  live.events.length = 0;
});

const now = () => Math.floor(Date.now() / 1000);

/** Claims of an identity assertion; undefined leaves one out. */
function claims(more: Record<string, unknown> = {}): JWTPayload {
  const all = {
    iss: work.issuer,
    sub: "u-1",
    aud: live.base,
    client_id: "assistant",
    resource: live.resource,
    scope: "mcp:read mcp:call",
    jti: randomUUID(),
    iat: now(),
    exp: now() + 300,
    ...more,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

const show = (
  assertion: string,
  params: Record<string, string> = {},
  headers: Record<string, string> = basic("assistant", SECRET),
) => token(live, { grant_type: JWT_BEARER, assertion, ...params }, { ...headers, ...elsewhere() });
const asserted = async (more: Record<string, unknown> = {}, header: Record<string, unknown> = ID_JAG, by = work) =>
  by.sign(claims(more), header);

/** What a refusal says; that it gave no token and was recorded with its reason. */
async function refusal(answer: ReturnType<typeof show>): Promise<unknown> {
  const { status, body } = await answer;
  expect([400, 401]).toContain(status);
  expect(body["access_token"]).toBeUndefined();
  expect(live.events.at(-1)).toMatchObject({
    type: "token-refused",
    error: body["error"],
    reason: expect.stringMatching(/\w{4} /),
  });
  return body["error"];
}

describe("an identity assertion", () => {
  test("gives a token for its user, made at the first one and the same at the next, and no refresh token", async () => {
    const { status, body } = await show(await asserted({ sub: "first", name: "Mona" }));
    expect([status, body["token_type"], body["scope"], body["refresh_token"]]).toEqual([
      200,
      "Bearer",
      "mcp:read mcp:call",
      undefined,
    ]);
    const who = await call(live, String(body["access_token"]));
    expect(who.body).toMatchObject({ client: "assistant", claims: { name: "Mona" }, groups: [], actors: [] });
    const again = await show(await asserted({ sub: "first" }));
    expect(decodeJwt(String(again.body["access_token"])).sub).toBe(who.body.subject);
    const another = await show(await asserted({ sub: "second" }));
    expect(decodeJwt(String(another.body["access_token"])).sub).not.toBe(who.body.subject);
  });

  test("is recorded with its user, client, audience and how the token came about", async () => {
    const { body } = await show(await asserted());
    const { jti, sub } = decodeJwt(String(body["access_token"]));
    expect(live.events.at(-1)).toMatchObject({
      type: "token-issued",
      means: "identity-assertion",
      token: jti,
      user: sub,
      client: "assistant",
      audience: live.resource,
    });
  });

  test("brings its user's groups up to date when it names them, and leaves them alone when not", async () => {
    const groupsOf = async (more: Record<string, unknown>) => {
      const { body } = await show(await asserted({ sub: "grouped", ...more }));
      return (await call(live, String(body["access_token"]))).body.groups;
    };
    expect(await groupsOf({ groups: ["sales"] })).toEqual(["work:sales"]);
    expect(await groupsOf({})).toEqual(["work:sales"]);
    expect(await groupsOf({ groups: ["support"] })).toEqual(["work:support"]);
  });

  verifies(
    "id-jag-processing",
    "gives what is asked for of what it allows, and refuses only when nothing is left",
    async () => {
      const narrow = await asserted({ scope: "mcp:read openid" });
      expect((await show(narrow, { scope: "mcp:read mcp:call offline_access" })).body["scope"]).toBe("mcp:read");
      expect((await show(await asserted(), { scope: "mcp:call" })).body["scope"]).toBe("mcp:call");
      expect(await refusal(show(await asserted({ scope: "mcp:read" }), { scope: "mcp:call" }))).toBe("invalid_scope");
      expect(await refusal(show(await asserted({ scope: "" })))).toBe("invalid_scope");
      expect(await refusal(show(await asserted({ scope: "files:read" })))).toBe("invalid_scope");
    },
  );

  test("for several resources gives a token for ours alone", async () => {
    const { body } = await show(await asserted({ resource: ["https://other.example", `${live.resource}/`] }));
    expect(decodeJwt(String(body["access_token"])).aud).toBe(live.resource);
  });

  test("without scopes of its own leaves it to who asks", async () => {
    expect((await show(await asserted({ scope: undefined }), { scope: "mcp:read" })).body["scope"]).toBe("mcp:read");
  });

  test("gives a token that ends with its user, client and grant like any other", async () => {
    const one = async () => String((await show(await asserted({ sub: "ending" }))).body["access_token"]);
    const byGrant = await one();
    await live.server.revokeGrant(String(decodeJwt(byGrant)["gid"]));
    expect((await call(live, byGrant)).status).toBe(401);
    const byClient = await one();
    await live.server.revokeClient("assistant");
    expect((await call(live, byClient)).status).toBe(401);
    const byUser = await one();
    await live.server.setUserDisabled(String(decodeJwt(byUser).sub), true);
    expect((await call(live, byUser)).status).toBe(401);
    expect(await refusal(show(await asserted({ sub: "ending" })))).toBe("invalid_grant");
    expect(await refusal(show(await asserted({ sub: "ending", groups: ["x"] })))).toBe("invalid_grant");
  });

  test("used twice is refused the second time", async () => {
    const assertion = await asserted();
    expect((await show(assertion)).status).toBe(200);
    expect(await refusal(show(assertion))).toBe("invalid_grant");
  });

  verifies("rfc7523-grant", "of twenty at once gives one token", async () => {
    const assertion = await asserted({ sub: "racer" });
    const answers = await Promise.all(Array.from({ length: 20 }, () => show(assertion)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ body }) => body["error"] === "invalid_grant")).toHaveLength(19);
  });

  test("that was refused for its scope may be shown again", async () => {
    const assertion = await asserted({ scope: "mcp:read" });
    expect(await refusal(show(assertion, { scope: "mcp:call" }))).toBe("invalid_scope");
    expect((await show(assertion)).status).toBe(200);
  });

  test.each([
    ["for another authorization server", { aud: "https://other.example" }],
    ["for us and somebody else", { aud: ["AS", "https://other.example"] }],
    ["for the token endpoint instead of the issuer", { aud: "AS/oauth/token" }],
    ["for our resource instead of the issuer", { aud: "AS/mcp" }],
    ["of no audience", { aud: undefined }],
    ["made for another client", { client_id: "rival" }],
    ["made for no client", { client_id: undefined }],
    ["for another resource", { resource: "https://other.example/mcp" }],
    ["for a resource that begins like ours", { resource: "AS/mcp2" }],
    ["for no resource", { resource: undefined }],
    ["for several resources, none of them ours", { resource: ["https://other.example", 7] }],
    ["of one of many tenants", { tenant: "acme" }],
    ["of an issuer nobody trusts", { iss: "https://stranger.example" }],
    ["of an issuer that may sign people in, but may not assert", { iss: "PLATFORM" }],
    ["of another trusted issuer than the one that signed", { iss: "OTHER" }],
    ["without a subject", { sub: undefined }],
    ["with an empty subject", { sub: "" }],
    ["without an id", { jti: undefined }],
    ["with an id that is no text", { jti: 7 }],
    ["that does not say when it was made", { iat: undefined }],
    ["that has expired", { iat: 1_000_000, exp: 1_000_300 }],
    ["without an end", { exp: undefined }],
    ["made in the future", { iat: 9_999_999_999, exp: 9_999_999_999 }],
    ["that is not valid yet", { nbf: 9_999_999_999 }],
    ["that is valid for an hour", { exp: "HOUR" }],
    ["made an hour ago", { iat: "AGO" }],
  ])("%s is refused", async (_what, more) => {
    const written: Record<string, unknown> = {
      HOUR: now() + 3_600,
      AGO: now() - 3_600,
      PLATFORM: platform.issuer,
      OTHER: other.issuer,
    };
    const fill = (value: unknown): unknown =>
      Array.isArray(value)
        ? value.map(fill)
        : typeof value === "string"
          ? (written[value] ?? value.replace(/^AS(?=\/|$)/, live.base))
          : value;
    const filled = Object.fromEntries(Object.entries(more).map(([name, value]) => [name, fill(value)]));
    expect(await refusal(show(await asserted(filled)))).toBe("invalid_grant");
  });

  test.each([
    ["no type", {}],
    ["the type of any JWT", { typ: "JWT" }],
    ["the type of an access token", { typ: "at+jwt" }],
  ])("with %s is refused", async (_what, header) => {
    expect(await refusal(show(await asserted({}, header)))).toBe("invalid_grant");
  });

  verifies(["rfc7523-grant", "rfc7523-error"], "signed by another key is refused", async () => {
    const { key } = await holder();
    const forged = await new SignJWT(claims()).setProtectedHeader({ alg: "ES256", kid: "k1", ...ID_JAG }).sign(key);
    expect(await refusal(show(forged))).toBe("invalid_grant");
  });

  test("signed by a stranger who brings the key along is refused", async () => {
    const { key, jwk } = await holder();
    const header = { alg: "ES256", ...ID_JAG, jwk: { kty: "EC", crv: "P-256", x: jwk.x, y: jwk.y } };
    expect(await refusal(show(await new SignJWT(claims()).setProtectedHeader(header as never).sign(key)))).toBe(
      "invalid_grant",
    );
  });

  test("with alg none, or signed with a secret, is refused", async () => {
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    expect(await refusal(show(`${encode({ alg: "none", ...ID_JAG })}.${encode(claims())}.`))).toBe("invalid_grant");
    const secret = await new SignJWT(claims())
      .setProtectedHeader({ alg: "HS256", ...ID_JAG })
      .sign(new TextEncoder().encode("k".repeat(32)));
    expect(await refusal(show(secret))).toBe("invalid_grant");
  });

  test.each(["", "x", "a.b.c", "..", "e30.e30.e30", `${"a".repeat(20_000)}.b.c`])(
    "that is no JWT is refused: %.20s",
    async (text) => {
      expect(await refusal(show(text))).toMatch(/^invalid_(grant|request)$/);
    },
  );

  test("that is an access token of ours is refused", async () => {
    const { body } = await show(await asserted());
    expect(await refusal(show(String(body["access_token"])))).toBe("invalid_grant");
  });

  test("is refused to a client that does not authenticate, and to one with a wrong secret", async () => {
    const id = String((await register(live)).body["client_id"]);
    expect(await refusal(show(await asserted({ client_id: id }), { client_id: id }, {}))).toBe("unauthorized_client");
    expect(await refusal(show(await asserted(), {}, basic("assistant", "wrong")))).toBe("invalid_client");
    expect(await refusal(show(await asserted(), { client_id: "assistant" }, {}))).toBe("invalid_client");
    expect(await refusal(show(await asserted({ client_id: "shop-ci" }), { client_id: "shop-ci" }, {}))).toBe(
      "unauthorized_client",
    );
  });

  test("that is bound to a key counts only with a proof of that key", async () => {
    const [mine, theirs] = [await holder(), await holder()];
    const bound = () => asserted({ cnf: { jkt: thumbprint } });
    const thumbprint = await calculateJwkThumbprint(mine.jwk);
    expect(await refusal(show(await bound()))).toBe("invalid_grant");
    const authorized = basic("assistant", SECRET);
    const other = { ...authorized, dpop: await proof(live, theirs) };
    expect(await refusal(show(await bound(), {}, other))).toBe("invalid_grant");
    expect(await refusal(show(await asserted({ cnf: { "x5t#S256": "x" } })))).toBe("invalid_grant");
    const { body } = await show(await bound(), {}, { ...authorized, dpop: await proof(live, mine) });
    expect(decodeJwt(String(body["access_token"]))["cnf"]).toEqual({ jkt: thumbprint });
  });

  verifies("id-jag-processing", "of another client's is refused, though both are trusted", async () => {
    expect(await refusal(show(await asserted(), {}, basic("rival", SECRET)))).toBe("invalid_grant");
  });

  test("gives nothing for another resource than ours", async () => {
    expect(await refusal(show(await asserted(), { resource: "https://other.example" }))).toBe("invalid_target");
  });

  test("makes nobody a user whom the provider's sign-in would not let in", async () => {
    const by = (groups: unknown) => asserted({ iss: other.issuer, sub: "visitor", groups }, ID_JAG, other);
    expect(await refusal(show(await by(undefined)))).toBe("invalid_grant");
    expect(await refusal(show(await by(["guests"])))).toBe("invalid_grant");
    expect((await show(await by(["staff"]))).status).toBe(200);
    expect(await refusal(show(await by(["guests"])))).toBe("invalid_grant");
  });

  test("never reaches a user that somebody else's provider, or nobody's, has", async () => {
    const id = String((await register(live)).body["client_id"]);
    const { sub } = decodeJwt((await connect(live, browser, { client: id })).access_token);
    for (const subject of [String(sub), "olive"]) {
      const { body } = await show(await asserted({ sub: subject, name: "olive" }));
      expect(decodeJwt(String(body["access_token"])).sub).not.toBe(sub);
    }
  });

  test("is not judged while its issuer's keys cannot be had", async () => {
    const gone = await foreignIssuer();
    await using here = await running({
      signIn: { providers: { work: { issuer: gone.issuer, clientId: "x", identityAssertions: true } } },
      clients: {
        preregistered: [
          { id: "assistant", name: "Assistant", secret: new Secret(SECRET), redirectUris: ["https://a.example/cb"] },
        ],
      },
    });
    const assertion = await gone.sign(claims({ iss: gone.issuer, aud: here.base, resource: here.resource }), ID_JAG);
    await gone[Symbol.asyncDispose]();
    const { body } = await token(here, { grant_type: JWT_BEARER, assertion }, basic("assistant", SECRET));
    expect(body["error"]).toBe("temporarily_unavailable");
  });

  test("has a client document's client show it, when the document says that it does and has its key", async () => {
    const { documentHost } = await import("./support.ts");
    const { clientAssertion } = await import("./assertions.ts");
    await using host = await documentHost();
    await using here = await running({
      signIn: { providers: { work: { issuer: work.issuer, clientId: "x", identityAssertions: true } } },
      clients: { metadataDocuments: host.settings },
    });
    const key = await holder();
    const { kty, crv, x, y, kid, alg } = key.jwk;
    const document = { redirect_uris: ["https://agent.example/cb"], jwks: { keys: [{ kty, crv, x, y, kid, alg }] } };
    const grants = { grant_types: ["authorization_code", JWT_BEARER] };
    const id = host.publish("/agent.json", { ...document, ...grants });
    const about = { aud: here.base, resource: here.resource, client_id: id };
    const shown = await token(here, {
      grant_type: JWT_BEARER,
      assertion: await work.sign(claims(about), ID_JAG),
      ...(await clientAssertion(here, id, key)),
    });
    expect([shown.status, shown.body["scope"]]).toEqual([200, "mcp:read mcp:call"]);
    const silent = host.publish("/silent.json", document);
    const refused = await token(here, {
      grant_type: JWT_BEARER,
      assertion: await work.sign(claims({ ...about, client_id: silent }), ID_JAG),
      ...(await clientAssertion(here, silent, key)),
    });
    expect(refused.body["error"]).toBe("unauthorized_client");
  });
});

describe("a workload", () => {
  const ci = async (more: Record<string, unknown> = {}, header: Record<string, unknown> = {}) =>
    platform.sign(
      Object.fromEntries(
        Object.entries({
          iss: platform.issuer,
          sub: "repo:acme/shop:ref:refs/heads/main",
          aud: live.base,
          jti: randomUUID(),
          iat: now(),
          exp: now() + 600,
          ...more,
        }).filter(([, value]) => value !== undefined),
      ),
      header,
    );
  const work = (assertion: string, params: Record<string, string> = {}) => show(assertion, params, {});

  verifies("rfc7523-grant", "gets a token for itself from its platform's, without any other secret", async () => {
    const { status, body } = await work(await ci());
    expect([status, body["scope"], body["refresh_token"]]).toEqual([200, "mcp:read", undefined]);
    expect(decodeProtectedHeader(String(body["access_token"])).typ).toBe("at+jwt");
    const who = await call(live, String(body["access_token"]));
    expect(who.body).toMatchObject({ subject: "shop-ci", client: "shop-ci", groups: ["ci"], scopes: ["mcp:read"] });
    expect(live.events.at(-1)).toMatchObject({ type: "token-issued", means: "workload", client: "shop-ci" });
  });

  test("may say who it is, and is not believed when it is another", async () => {
    expect((await work(await ci(), { client_id: "shop-ci" })).status).toBe(200);
    expect(await refusal(work(await ci(), { client_id: "cluster" }))).toBe("invalid_grant");
    expect(await refusal(work(await ci(), { client_id: "assistant" }))).toBe("invalid_client");
  });

  test("of twenty that show the same assertion at once, one gets a token", async () => {
    const assertion = await ci();
    const answers = await Promise.all(Array.from({ length: 20 }, () => work(assertion)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
  });

  test("whose platform gives a token for an hour may show it again, when the settings say so", async () => {
    const assertion = await ci({ sub: "system:serviceaccount:jobs:nightly", aud: ["drawbridge"] });
    expect((await work(assertion)).status).toBe(200);
    const { status, body } = await work(assertion);
    expect([status, decodeJwt(String(body["access_token"])).sub]).toEqual([200, "cluster"]);
  });

  test("whose platform names no id may show its token again while it is young", async () => {
    const assertion = await ci({ jti: undefined });
    expect((await work(assertion)).status).toBe(200);
    expect((await work(assertion)).status).toBe(200);
  });

  test("gets no more than its settings allow", async () => {
    expect((await work(await ci(), { scope: "mcp:read mcp:call" })).body["scope"]).toBe("mcp:read");
    expect(await refusal(work(await ci(), { scope: "mcp:call" }))).toBe("invalid_scope");
    expect(await refusal(work(await ci(), { resource: "https://other.example" }))).toBe("invalid_target");
  });

  test.each([
    ["whose subject is another repository", { sub: "repo:evil/shop:ref:refs/heads/main" }],
    ["whose subject only begins the same", { sub: "repo:acme/shop:ref:refs/tags/v1" }],
    ["for another audience", { aud: "https://other.example" }],
    ["for another workload's audience", { aud: "drawbridge" }],
    ["for us and somebody else", { aud: ["AS", "https://other.example"] }],
    ["of another issuer", { iss: "https://stranger.example" }],
    ["made two hours ago", { iat: "AGO" }],
    ["that does not say when it was made", { iat: undefined }],
    ["that has expired", { exp: 1_000_000 }],
    ["without a subject", { sub: undefined }],
  ])("with an assertion %s gets nothing", async (_what, more) => {
    const fill = (value: unknown): unknown =>
      Array.isArray(value) ? value.map(fill) : value === "AS" ? live.base : value === "AGO" ? now() - 7_200 : value;
    const filled = Object.fromEntries(Object.entries(more).map(([name, value]) => [name, fill(value)]));
    expect(await refusal(work(await ci(filled), { client_id: "shop-ci" }))).toBe("invalid_grant");
  });

  test("that nobody knows gets nothing", async () => {
    const { status, body } = await work(await ci({ sub: "repo:evil/x" }));
    expect([status, body["access_token"]]).toEqual([400, undefined]);
  });

  test.each(["at+jwt", "dpop+jwt", "oauth-id-jag+jwt", "logout+jwt"])(
    "with a JWT of type %s gets nothing",
    async (typ) => {
      expect(await refusal(work(await ci({}, { typ }), { client_id: "shop-ci" }))).toMatch(
        /^(invalid_grant|unauthorized_client)$/,
      );
    },
  );

  test("signed by another key gets nothing", async () => {
    const assertion = await new SignJWT(decodeJwt(await ci()))
      .setProtectedHeader({ alg: "ES256", kid: "k1" })
      .sign((await holder()).key);
    expect(await refusal(work(assertion))).toBe("invalid_grant");
  });

  test("gets no grant of people", async () => {
    const answer = await token(live, {
      grant_type: "authorization_code",
      code: "x",
      redirect_uri: "https://a.example",
      client_id: "shop-ci",
    });
    expect(answer.body["error"]).toBe("unauthorized_client");
  });
});
