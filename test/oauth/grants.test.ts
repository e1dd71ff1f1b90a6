import { createServer } from "node:http";
import { decodeJwt, decodeProtectedHeader, type JWTPayload, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { clientsSettings } from "../../src/oauth/settings.ts";
import { verifies } from "../requirements.ts";
import { basic, clientAssertion, type Holder, holder, post } from "./assertions.ts";
import { call, connect, listen, REDIRECT, type Running, register, running, setUp, stop, token } from "./support.ts";

const SECRET = "s".repeat(40);
let live: Running;
let keyed: Holder;

beforeAll(async () => {
  keyed = await holder("EdDSA");
  live = await running({
    clients: {
      registration: "open",
      requestsPerSourcePerMinute: 0,
      preregistered: [
        {
          id: "nightly",
          name: "Nightly report",
          secret: new Secret(SECRET),
          service: { groups: ["batch"], scopes: ["mcp:read"] },
        },
        { id: "keyed", name: "Keyed", jwks: { keys: [keyed.jwk] }, service: { groups: [] } },
        { id: "billing", name: "Billing", secret: new Secret(SECRET), redirectUris: ["https://billing.example/cb"] },
      ],
    },
  });
});
afterAll(() => live[Symbol.asyncDispose]());

const service = (params: Record<string, string> = {}, headers: Record<string, string> = basic("nightly", SECRET)) =>
  token(live, { grant_type: "client_credentials", ...params }, headers);

describe("a service", () => {
  verifies(
    "rfc6749-client-credentials",
    "gets a token for itself, with its groups and without a person or a refresh token",
    async () => {
      const { status, body } = await service();
      expect([status, body["token_type"], body["scope"], body["refresh_token"]]).toEqual([
        200,
        "Bearer",
        "mcp:read",
        undefined,
      ]);
      const claims = decodeJwt(String(body["access_token"]));
      expect(claims).toMatchObject({ sub: "nightly", client_id: "nightly", aud: live.resource, iss: live.base });
      expect(claims["gid"]).toBeUndefined();
      const who = await call(live, String(body["access_token"]));
      expect(who.body).toMatchObject({
        subject: "nightly",
        client: "nightly",
        groups: ["batch"],
        scopes: ["mcp:read"],
      });
    },
  );

  test("is recorded with the audience of its token", async () => {
    const { body } = await service();
    expect(live.events.at(-1)).toMatchObject({
      type: "token-issued",
      client: "nightly",
      audience: live.resource,
      scopes: ["mcp:read"],
      token: decodeJwt(String(body["access_token"])).jti,
    });
  });

  test("authenticates with a key as well as with a secret", async () => {
    const { status, body } = await service(await clientAssertion(live, "keyed", keyed), {});
    expect([status, body["scope"]]).toEqual([200, "mcp:read mcp:call"]);
  });

  verifies("rfc6749-scope", "of all that it asks for gets what its settings allow", async () => {
    expect((await service({ scope: "mcp:read mcp:call" })).body["scope"]).toBe("mcp:read");
  });

  test("that asks for scopes of OpenID Connect alone means all of its own", async () => {
    expect((await service({ scope: "offline_access" })).body["scope"]).toBe("mcp:read");
  });

  test("that asks only for what its settings do not allow gets nothing", async () => {
    expect((await service({ scope: "mcp:call" })).body["error"]).toBe("invalid_scope");
  });

  test.each(["*", "admin", "mcp:read admin"])(
    "that asks for the scope %s, which there is none of, gets nothing",
    async (scope) => {
      expect((await service({ scope })).body["error"]).toBe("invalid_scope");
    },
  );

  test.each(["https://other.example/mcp", "not a url"])("gets no token for %s", async (resource) => {
    expect((await service({ resource })).body["error"]).toBe("invalid_target");
  });

  test("may write the resource in any spelling", async () => {
    const { body } = await service({ resource: `${live.resource.toUpperCase().replace("MCP", "mcp")}/` });
    expect(decodeJwt(String(body["access_token"])).aud).toBe(live.resource);
  });

  test.each([
    ["a wrong secret", { authorization: `Basic ${btoa("nightly:wrong")}` }, {}],
    ["no secret", {}, { client_id: "nightly" }],
    ["an empty secret in the form", {}, { client_id: "nightly", client_secret: "" }],
  ])("with %s gets nothing", async (_what, headers, params) => {
    const { status, body } = await service(params as Record<string, string>, headers as Record<string, string>);
    expect([status, body["error"], body["access_token"]]).toEqual([401, "invalid_client", undefined]);
  });

  test("that authenticates in two ways at once is refused", async () => {
    expect((await service({ client_id: "nightly", client_secret: SECRET })).body["error"]).toBe("invalid_request");
  });

  test.each([
    ["for another audience", { aud: "https://other.example" }],
    ["of another client", { iss: "nightly" }],
    ["without an end", { exp: undefined }],
    ["that has expired", { exp: 1_000 }],
    ["without an id", { jti: undefined }],
  ])("with a client assertion %s gets nothing", async (_what, claims) => {
    const { status, body } = await service(await clientAssertion(live, "keyed", keyed, claims as JWTPayload), {});
    expect([status, body["error"]]).toEqual([401, "invalid_client"]);
  });

  test("with a client assertion of alg none, or signed with its public key as a secret, gets nothing", async () => {
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const [, claims] = String((await clientAssertion(live, "keyed", keyed))["client_assertion"]).split(".");
    const type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    const none = { client_assertion_type: type, client_assertion: `${encode({ alg: "none" })}.${claims}.` };
    expect((await service(none, {})).body["error"]).toBe("invalid_client");
    const secret = new TextEncoder().encode(String(keyed.jwk.x).padEnd(32, "x"));
    const mac = await new SignJWT(decodeJwt(`x.${claims}.x`)).setProtectedHeader({ alg: "HS256" }).sign(secret);
    const confused = { client_assertion_type: type, client_assertion: mac };
    expect((await service(confused, {})).body["error"]).toBe("invalid_client");
  });

  test("with a client assertion signed by another key gets nothing", async () => {
    const other = { ...(await holder("EdDSA")), jwk: keyed.jwk };
    expect((await service(await clientAssertion(live, "keyed", other), {})).body["error"]).toBe("invalid_client");
  });

  test("of twenty that send the same client assertion at once, one gets a token", async () => {
    const assertion = await clientAssertion(live, "keyed", keyed);
    const answers = await Promise.all(Array.from({ length: 20 }, () => service(assertion, {})));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
  });

  test("loses its tokens when it is revoked", async () => {
    const { body } = await service();
    await live.server.revokeClient("nightly");
    expect((await call(live, String(body["access_token"]))).status).toBe(401);
  });

  test("is asked for its keys where the operator says they are, also on this machine", async () => {
    let asked = 0;
    const http = createServer((_request, response) => {
      asked++;
      response.setHeader("content-type", "application/json").end(JSON.stringify({ keys: [keyed.jwk] }));
    });
    const port = await listen(http);
    const { trusted } = await import("../../src/net/trusted.ts");
    const { clientKeySets } = await import("../../src/oauth/clients/preregistered.ts");
    const net = trusted();
    const uri = `http://127.0.0.1:${port}/jwks`;
    const strangers = { get: () => Promise.reject(new Error("asked as a stranger")) };
    const sets = clientKeySets({ preregistered: [{ jwksUri: uri }] as never }, net, strangers);
    expect(JSON.parse((await sets.get(uri)).toString())).toEqual({ keys: [keyed.jwk] });
    await expect(sets.get("https://elsewhere.example/jwks")).rejects.toThrow("asked as a stranger");
    expect(asked).toBe(1);
    await net.close();
    await stop(http);
  });
});

test("nobody passes for the gateway as a client", async () => {
  for (const headers of [{}, basic(encodeURIComponent(live.base), ""), basic(encodeURIComponent(live.base), "x")]) {
    const params = { token: "x", client_id: live.base };
    expect((await post(live, "/oauth/revoke", params, headers)).status).toBeGreaterThanOrEqual(400);
  }
});

describe("a client may not use", () => {
  verifies("rfc6749-unauthorized-client", "client_credentials when it is public", async () => {
    const { body } = await register(live);
    const answer = await token(live, { grant_type: "client_credentials", client_id: String(body["client_id"]) });
    expect([answer.status, answer.body["error"]]).toEqual([400, "unauthorized_client"]);
    expect(live.events.at(-1)).toMatchObject({ type: "token-refused", error: "unauthorized_client" });
  });

  test("client_credentials when it is no service, though it has a secret", async () => {
    const answer = await service({}, basic("billing", SECRET));
    expect(answer.body["error"]).toBe("unauthorized_client");
  });

  test("a grant of people when it is a service", async () => {
    const answer = await service({ grant_type: "refresh_token", refresh_token: "x" });
    expect(answer.body["error"]).toBe("unauthorized_client");
  });

  test.each([
    "password",
    "implicit",
    "urn:ietf:params:oauth:grant-type:device_code",
    "urn:ietf:params:oauth:grant-type:token-exchange",
    "urn:ietf:params:oauth:grant-type:jwt-bearer",
  ])("%s, which nobody may here", async (grant_type) => {
    expect((await service({ grant_type })).body["error"]).toBe("unsupported_grant_type");
  });
});

describe("tokens are signed with", () => {
  test.each(["ES256", "EdDSA", "RS256"])("%s when the settings say so, and id tokens too", async (alg) => {
    await using here = await running({ clients: { registration: "open" }, tokens: { signingAlgorithm: alg } });
    const browser = await setUp(here);
    const client = String((await register(here)).body["client_id"]);
    const tokens = await connect(here, browser, { client, redirect: REDIRECT, scope: "openid mcp:read" });
    expect(decodeProtectedHeader(tokens.access_token)).toMatchObject({ alg, typ: "at+jwt" });
    expect(decodeProtectedHeader(String(tokens.id_token)).alg).toBe(alg);
    expect((await call(here, tokens.access_token)).status).toBe(200);
    const metadata = (await (await fetch(`${here.base}/.well-known/openid-configuration`)).json()) as Record<
      string,
      unknown
    >;
    expect(metadata["id_token_signing_alg_values_supported"]).toEqual([alg]);
  });
});

describe("the metadata", () => {
  const metadata = async (running: Running) =>
    (await (await fetch(`${running.base}/.well-known/oauth-authorization-server`)).json()) as Record<string, unknown>;

  test("lists the grants that somebody may use here, and no others", async () => {
    expect((await metadata(live))["grant_types_supported"]).toEqual([
      "authorization_code",
      "refresh_token",
      "client_credentials",
    ]);
    await using plain = await running();
    expect((await metadata(plain))["grant_types_supported"]).toEqual(["authorization_code", "refresh_token"]);
  });

  test("says how clients authenticate at each endpoint", async () => {
    const document = await metadata(live);
    const confidential = ["private_key_jwt", "client_secret_basic", "client_secret_post"];
    expect(document).toMatchObject({
      token_endpoint_auth_methods_supported: ["none", ...confidential],
      revocation_endpoint_auth_methods_supported: ["none", ...confidential],
      introspection_endpoint_auth_methods_supported: confidential,
      token_endpoint_auth_signing_alg_values_supported: expect.not.arrayContaining(["HS256", "none"]),
      dpop_signing_alg_values_supported: expect.arrayContaining(["ES256", "EdDSA"]),
      pushed_authorization_request_endpoint: `${live.base}/oauth/par`,
    });
  });

  test("speaks of identity assertions only where they are taken", async () => {
    expect(await metadata(live)).not.toHaveProperty("authorization_grant_profiles_supported");
    await using here = await running({
      signIn: {
        providers: { work: { issuer: "https://login.example", clientId: "x", identityAssertions: true } },
      },
    });
    expect(await metadata(here)).toMatchObject({
      authorization_grant_profiles_supported: ["urn:ietf:params:oauth:grant-profile:id-jag"],
      grant_types_supported: expect.arrayContaining(["urn:ietf:params:oauth:grant-type:jwt-bearer"]),
    });
  });
});

verifies("rfc9126-pushed", "a pushed request counts once, and only for the client that pushed it", async () => {
  const browser = await setUp(live);
  const client = String((await register(live)).body["client_id"]);
  const { createHash } = await import("node:crypto");
  const challenge = createHash("sha256").update("v".repeat(64)).digest("base64url");
  const pushed = await post(live, "/oauth/par", {
    client_id: client,
    response_type: "code",
    redirect_uri: REDIRECT,
    code_challenge: challenge,
    code_challenge_method: "S256",
    state: "pushed",
  });
  expect(pushed.status).toBe(201);
  const ask = new URL(`${live.base}/oauth/authorize`);
  ask.searchParams.set("client_id", client);
  ask.searchParams.set("request_uri", String(pushed.body["request_uri"]));
  await browser.go(ask.href);
  const end = await browser.submit({ answer: "allow" });
  expect(Object.fromEntries(end?.searchParams ?? [])).toMatchObject({ state: "pushed", iss: live.base });
  const other = String((await register(live)).body["client_id"]);
  ask.searchParams.set("client_id", other);
  expect((await browser.go(ask.href))?.searchParams.get("code") ?? null).toBeNull();
});

test("two clients of one id, or one that exchanges tokens for the gateway itself, are refused at the start", async () => {
  const client = { id: "a", name: "A", secret: new Secret(SECRET), owns: ["https://a.example"] };
  await expect(running({ clients: { preregistered: [client, client] } })).rejects.toMatchObject({
    code: "settings_invalid",
  });
  await expect(
    running({
      publicUrl: "https://gateway.example",
      clients: { preregistered: [{ ...client, mayExchangeFor: [{ audience: "https://gateway.example/mcp/" }] }] },
    }),
  ).rejects.toMatchObject({ code: "settings_invalid" });
});

test("settings with a private key or a service that does not authenticate are refused", () => {
  const problem = (client: Record<string, unknown>) =>
    clientsSettings.safeParse({ preregistered: [{ id: "a", name: "A", ...client }] }).error?.issues[0]?.path.join(".");
  expect(problem({ jwks: { keys: [{ kty: "EC", d: "x" }] }, service: {} })).toBe("preregistered.0.jwks");
  expect(problem({ service: {} })).toBe("preregistered.0.secret");
  expect(problem({ jwks: { keys: [{ kty: "EC" }] }, service: {} })).toBeUndefined();
});

test("a page of another site may ask the token endpoint with a proof, and reads the nonce that it is given", async () => {
  for (const path of ["/oauth/token", "/oauth/par"]) {
    const answer = await fetch(`${live.base}${path}`, {
      method: "OPTIONS",
      headers: { origin: "https://app.example", "access-control-request-headers": "dpop" },
    });
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    expect(answer.headers.get("access-control-allow-headers")).toContain("dpop");
    expect(answer.headers.get("access-control-allow-credentials")).toBeNull();
  }
});
