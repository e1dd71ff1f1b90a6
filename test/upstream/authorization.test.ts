/** Us as a client of a server's authorization server: what is believed on the way to it, what is asked of it, what is refused. */
import { createHash } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type AuthorizationClient, authorizationClient } from "../../src/upstream/authorization/client.ts";
import { discover, readChallenge, readScopes } from "../../src/upstream/authorization/discovery.ts";
import { authorizationNet } from "../../src/upstream/authorization/net.ts";
import { prover } from "../../src/upstream/authorization/proof.ts";
import { httpServer, type OAuthServerSettings } from "../../src/upstream/settings.ts";
import { json, type Scripted, scriptedServer } from "../fixtures/scripted-authorization.ts";

let server: Scripted;
const closing: (() => Promise<void>)[] = [];
beforeEach(async () => {
  server = await scriptedServer();
});
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
  await server[Symbol.asyncDispose]();
});

const settingsOf = (oauth: object = {}, more: object = {}) =>
  httpServer.parse({
    url: server.url,
    credentials: { oauth: { of: "per-user", ...oauth } },
    ...more,
  }) as OAuthServerSettings;

function found(oauth: { issuer?: string } = {}, more: { url?: string } = {}) {
  const settings = settingsOf(oauth, more);
  const net = authorizationNet(settings);
  closing.push(() => net.close());
  return discover({ name: "s", url: settings.url, issuer: settings.credentials.oauth.issuer, net });
}

function clientOf(oauth: object = {}): AuthorizationClient {
  const settings = settingsOf(oauth);
  const client = authorizationClient({ name: "s", settings, net: authorizationNet(settings) });
  closing.push(() => client.close());
  return client;
}

const CALLBACK = "http://127.0.0.1:9/connections/s/callback";

/** From discovery to tokens. */
async function connected(client: AuthorizationClient, more: Record<string, string | undefined> = {}) {
  const at = await client.discover();
  const party = await client.register(at, CALLBACK, "Drawbridge");
  const { url, departure } = await client.begin(at, party, CALLBACK, []);
  return { url, departure, authorization: await client.finish(server.back(url, more).searchParams, departure) };
}

describe("a challenge", () => {
  test.each([
    ['Bearer resource_metadata="https://a.example/m", scope="a b"', "https://a.example/m", ["a", "b"]],
    ["bearer scope=a, error=insufficient_scope", undefined, ["a"]],
    ['Basic realm="x", Bearer error="invalid_token", scope="a\\"b c"', undefined, ["c"]],
    ['DPoP algs="ES256", resource_metadata="https://a.example/m"', "https://a.example/m", undefined],
  ])("is read from %j", (header, resourceMetadata, scopes) => {
    expect(readChallenge(header)).toMatchObject({ resourceMetadata, scopes });
  });

  test.each([undefined, null, "", "Basic realm=x", `Bearer scope="${"a ".repeat(10_000)}"`])(
    "that is none, or is too long, is not read: %j",
    (header) => {
      expect(readChallenge(header)).toBeUndefined();
    },
  );

  test("names at most a hundred scopes, each once, and none that is not one", () => {
    expect(readScopes(`a a "b" ${Array.from({ length: 200 }, (_, n) => `s${n}`).join(" ")}`)).toHaveLength(100);
    expect(readScopes("ü \u0007")).toBeUndefined();
  });
});

describe("the authorization server of a server", () => {
  test("is found by the challenge, the metadata of the resource, and its own metadata", async () => {
    expect(await found()).toMatchObject({
      resource: server.url,
      scopes: ["read"],
      server: { issuer: server.origin },
      bound: false,
    });
  });

  test("is found without a challenge, at the well-known place of the path and then of the origin", async () => {
    server.refuses = () => undefined;
    expect((await found()).server.issuer).toBe(server.origin);
    server.scripts.set("/.well-known/oauth-protected-resource/mcp", (_, response) => response.writeHead(404).end());
    server.scripts.set("/.well-known/oauth-protected-resource", (_, response) =>
      json(response, { ...server.resource, resource: server.origin }),
    );
    expect((await found()).resource).toBe(server.origin);
  });

  test("is the server's own origin where nothing else is said (2025-03-26)", async () => {
    server.challenge = "Bearer";
    server.scripts.set("/.well-known/oauth-protected-resource/mcp", (_, response) => response.writeHead(404).end());
    expect(await found()).toMatchObject({ resource: server.url, scopes: undefined, server: { issuer: server.origin } });
  });

  test.each([
    "/.well-known/oauth-authorization-server/tenant",
    "/.well-known/openid-configuration/tenant",
    "/tenant/.well-known/openid-configuration",
  ])("with a path has its metadata at %s", async (place) => {
    const issuer = `${server.origin}/tenant`;
    server.resource["authorization_servers"] = [issuer];
    server.scripts.set(place, (_, response) => json(response, { ...server.metadata, issuer }));
    expect((await found()).server.issuer).toBe(issuer);
  });

  test("is the one of the settings where the server names several, and no other", async () => {
    server.resource["authorization_servers"] = ["https://other.example", server.origin];
    expect((await found({ issuer: server.origin })).server.issuer).toBe(server.origin);
    await expect(found({ issuer: "https://third.example" })).rejects.toMatchObject({ code: "upstream_failed" });
  });
});

describe("an authorization", () => {
  test("is asked for with PKCE, for this resource, with the scopes of the server and a state of its own", async () => {
    const { url, departure, authorization } = await connected(clientOf());
    const asked = Object.fromEntries(url.searchParams);
    expect(asked).toMatchObject({
      response_type: "code",
      client_id: "client-1",
      redirect_uri: CALLBACK,
      resource: server.url,
      scope: "read",
      code_challenge_method: "S256",
      code_challenge: createHash("sha256").update(departure.verifier).digest("base64url"),
      state: departure.state,
    });
    const [redeemed] = server.seenAt("/token");
    expect(Object.fromEntries(redeemed?.form ?? [])).toMatchObject({
      grant_type: "authorization_code",
      code: "code-1",
      code_verifier: departure.verifier,
      resource: server.url,
      redirect_uri: CALLBACK,
    });
    expect(authorization).toMatchObject({ accessToken: "access-1", refreshToken: "refresh-1", scopes: ["read"] });
  });

  test("is asked for again with what was missing beside what there was", async () => {
    const client = clientOf();
    const at = await client.discover();
    const { url } = await client.begin(at, { id: "c" }, CALLBACK, ["write"]);
    expect(url.searchParams.get("scope")).toBe("read write");
  });

  test("is asked for offline where that is offered, with consent", async () => {
    server.metadata["scopes_supported"] = ["read", "offline_access"];
    const client = clientOf();
    const { url } = await client.begin(await client.discover(), { id: "c" }, CALLBACK, []);
    expect(url.searchParams.get("scope")).toBe("read offline_access");
    expect(url.searchParams.get("prompt")).toBe("consent");
  });

  test("goes by way of a pushed request where the server insists (RFC 9126)", async () => {
    server.metadata["require_pushed_authorization_requests"] = true;
    server.metadata["pushed_authorization_request_endpoint"] = `${server.origin}/par`;
    server.scripts.set("/par", (_, response) => json(response, { request_uri: "urn:par:1", expires_in: 60 }, 201));
    const client = clientOf();
    const { url } = await client.begin(await client.discover(), { id: "c" }, CALLBACK, []);
    expect([...url.searchParams.keys()].sort()).toEqual(["client_id", "request_uri"]);
    expect(server.seenAt("/par")[0]?.form.get("code_challenge_method")).toBe("S256");
  });

  test("of a client of the settings is redeemed with its secret, and nobody is registered", async () => {
    const client = clientOf();
    const at = await client.discover();
    const { url, departure } = await client.begin(at, { id: "ours", secret: "s3cret" }, CALLBACK, []);
    await client.finish(server.back(url).searchParams, departure);
    expect(server.seenAt("/token")[0]?.headers.authorization).toBe(`Basic ${btoa("ours:s3cret")}`);
    expect(server.seenAt("/register")).toHaveLength(0);
  });

  test("is refreshed for the same resource, and keeps its refresh token where no other came", async () => {
    const client = clientOf();
    const { authorization } = await connected(client);
    server.tokens = { access_token: "access-2", token_type: "bearer", expires_in: 60 };
    const next = await client.refresh(authorization);
    expect(next).toMatchObject({ accessToken: "access-2", refreshToken: "refresh-1", scopes: ["read"] });
    expect(Object.fromEntries(server.seenAt("/token").at(-1)?.form ?? [])).toMatchObject({
      grant_type: "refresh_token",
      refresh_token: "refresh-1",
      resource: server.url,
    });
  });

  test.each(["invalid_grant", "invalid_client"])("that is answered with %s has ended", async (error) => {
    const client = clientOf();
    const { authorization } = await connected(client);
    server.tokens = { error };
    expect(await client.refresh(authorization)).toBeUndefined();
  });

  test("whose server is broken for the moment has not ended", async () => {
    const client = clientOf();
    const { authorization } = await connected(client);
    server.scripts.set("/token", (_, response) => response.writeHead(503).end());
    await expect(client.refresh(authorization)).rejects.toMatchObject({ code: "upstream_unavailable" });
  });

  test("is given back with both tokens (RFC 7009), and silently where nobody wants to know", async () => {
    const client = clientOf();
    const { authorization } = await connected(client);
    await client.revoke(authorization);
    expect(server.seenAt("/revoke").map(({ form }) => form.get("token"))).toEqual(["refresh-1", "access-1"]);
  });

  test("of our own is had where the settings have a secret and the server gives such tokens", async () => {
    const { Secret } = await import("../../src/core/secret.ts");
    expect(await clientOf().own()).toBeUndefined();
    server.metadata["grant_types_supported"] = ["client_credentials"];
    const client = clientOf({ clientId: "ours", clientSecret: new Secret("s3cret") });
    expect(await client.own()).toMatchObject({ accessToken: "access-1" });
    expect(server.seenAt("/token")[0]?.form.get("grant_type")).toBe("client_credentials");
  });
});

describe("a token that is bound to a key", () => {
  beforeEach(() => {
    server.metadata["dpop_signing_alg_values_supported"] = ["ES256"];
    server.resource["dpop_signing_alg_values_supported"] = ["ES256"];
    server.tokens = { ...server.tokens, token_type: "DPoP" };
  });
  const claimsOf = (proof: string | string[] | undefined, part = 1) =>
    JSON.parse(Buffer.from(String(proof).split(".")[part] ?? "", "base64url").toString()) as Record<string, unknown>;

  test("is asked for where both servers take proofs, with a proof for the token endpoint", async () => {
    const { url, authorization } = await connected(clientOf());
    expect(url.searchParams.get("dpop_jkt")).toMatch(/^[\w-]{43}$/);
    expect(claimsOf(server.seenAt("/token")[0]?.headers["dpop"])).toMatchObject({
      htm: "POST",
      htu: `${server.origin}/token`,
    });
    expect(authorization.key?.d).toBeDefined();
  });

  test("is asked for again with the nonce that the authorization server wants", async () => {
    let asked = 0;
    server.scripts.set("/token", ({ headers }, response) => {
      if (asked++ > 0) return json(response, server.tokens);
      response.setHeader("dpop-nonce", "n-1");
      expect(claimsOf(headers["dpop"])["nonce"]).toBeUndefined();
      return json(response, { error: "use_dpop_nonce" }, 400);
    });
    await connected(clientOf());
    expect(claimsOf(server.seenAt("/token")[1]?.headers["dpop"])["nonce"]).toBe("n-1");
  });

  test("is no such token when the server gave an ordinary one", async () => {
    server.tokens = { ...server.tokens, token_type: "Bearer" };
    expect((await connected(clientOf())).authorization.key).toBeUndefined();
  });

  test("has another proof for each request, signed by its key, about the token", async () => {
    const { authorization } = await connected(clientOf());
    const { key } = authorization;
    if (key === undefined) throw new Error("no key");
    const prove = prover(key, "access-1", "n-2", () => 1_700_000_000_000);
    const [one, two] = [prove("POST", `${server.url}?q=1`).reveal(), prove("POST", server.url).reveal()];
    expect(claimsOf(one)).toMatchObject({ htm: "POST", htu: server.url, iat: 1_700_000_000, nonce: "n-2" });
    expect(claimsOf(one)["ath"]).toBe(createHash("sha256").update("access-1").digest("base64url"));
    expect(claimsOf(one)["jti"]).not.toBe(claimsOf(two)["jti"]);
    const { jwtVerify, importJWK } = await import("jose");
    const header = claimsOf(one, 0) as { jwk: { d?: string; kty: string } };
    expect(header.jwk.d).toBeUndefined();
    await jwtVerify(one, await importJWK(header.jwk, "ES256"), {
      typ: "dpop+jwt",
      currentDate: new Date(1_700_000_000_000),
    });
  });
});
