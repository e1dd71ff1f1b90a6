/** Clients without a browser: services, workloads, and clients whose company manages access, as the official SDKs make them. */
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import * as modern from "@modelcontextprotocol/client";
import { ClientCredentialsProvider } from "@modelcontextprotocol/sdk/client/auth-extensions.js";
import { exportPKCS8 } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { clientAssertion, foreignIssuer, type Holder, holder, type Issuer } from "./assertions.ts";
import { claimsOf, host, PLACES, type Place, type Provider, SDKS, type Sdk, SECRET } from "./sdk-clients.ts";
import { listen, stop } from "./support.ts";

const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SESSION = "the ID token of Mona's session";

let key: Holder;
let platform: Issuer;
let company: Issuer & { readonly login: string };

beforeAll(async () => {
  [key, platform, company] = await Promise.all([holder(), foreignIssuer(), companyProvider()]);
});
afterAll(async () => {
  await Promise.all([platform, company].map((issuer) => issuer[Symbol.asyncDispose]()));
});

/** A company's identity provider: gives whoever has a user's ID token an identity assertion for another server (ID-JAG §4.3). */
async function companyProvider(): Promise<typeof company> {
  const keys = await foreignIssuer();
  const http = createServer(async (request, response) => {
    response.setHeader("content-type", "application/json");
    if (request.url?.startsWith("/.well-known/")) {
      const metadata = {
        issuer: login,
        authorization_endpoint: `${login}/authorize`,
        token_endpoint: `${login}/token`,
      };
      return void response.end(JSON.stringify({ ...metadata, response_types_supported: ["code"] }));
    }
    const asked = new URLSearchParams(await text(request));
    if (asked.get("subject_token") !== SESSION)
      return void response.writeHead(400).end(JSON.stringify({ error: "invalid_grant" }));
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      iss: keys.issuer,
      sub: "mona",
      name: "Mona",
      groups: ["batch"],
      aud: asked.get("audience") ?? "",
      resource: asked.get("resource"),
      scope: "mcp:read mcp:call",
      client_id: "nightly",
      jti: randomUUID(),
      iat: now,
      exp: now + 300,
    };
    const access_token = await keys.sign(claims, { typ: "oauth-id-jag+jwt" });
    const issued_token_type = "urn:ietf:params:oauth:token-type:id-jag";
    response.end(JSON.stringify({ access_token, issued_token_type, token_type: "N_A", expires_in: 300 }));
  });
  const login = `http://127.0.0.1:${await listen(http)}`;
  return {
    ...keys,
    login,
    async [Symbol.asyncDispose]() {
      await keys[Symbol.asyncDispose]();
      await stop(http);
    },
  };
}

/** v2 brings this grant; in v1 its host asks its company, and gives the SDK what it got. */
function managed(sdk: Sdk, { issuer }: Place): Provider {
  const client = { clientId: "nightly", clientSecret: SECRET, expectedIssuer: issuer };
  const session = { idpUrl: company.login, idToken: SESSION, clientId: "nightly-at-company" };
  if (sdk.version === "v2.4") {
    return new modern.CrossAppAccessProvider({
      ...client,
      async assertion({ authorizationServerUrl: audience, resourceUrl: resource, fetchFn }) {
        const asked = { ...session, audience, resource, ...(fetchFn !== undefined && { fetchFn }) };
        return (await modern.discoverAndRequestJwtAuthGrant(asked)).jwtAuthGrant;
      },
    });
  }
  const provider = new ClientCredentialsProvider(client);
  return Object.assign(provider, {
    async prepareTokenRequest(scope?: string) {
      const resource = `${issuer}/mcp`;
      const { jwtAuthGrant } = await modern.discoverAndRequestJwtAuthGrant({ ...session, audience: issuer, resource });
      return new URLSearchParams({ grant_type: JWT_BEARER, assertion: jwtAuthGrant, ...(scope && { scope }) });
    },
  });
}

function workload({ issuer }: Place): Provider {
  const { provider, kept } = host({
    redirectUrl: undefined,
    async prepareTokenRequest(scope?: string) {
      const now = Math.floor(Date.now() / 1000);
      const sub = "repo:acme/shop:ref:refs/heads/main";
      const about = { iss: platform.issuer, sub, aud: issuer, jti: randomUUID(), iat: now, exp: now + 600 };
      const assertion = await platform.sign(about);
      return new URLSearchParams({ grant_type: JWT_BEARER, assertion, ...(scope && { scope }) });
    },
  });
  kept.client = { client_id: "shop-ci", issuer };
  return provider;
}

const ways: readonly (readonly [string, (sdk: Sdk, place: Place) => Promise<Provider>, object])[] = [
  [
    "a service with a secret",
    async (sdk, { issuer }) =>
      new sdk.ClientCredentialsProvider({ clientId: "nightly", clientSecret: SECRET, expectedIssuer: issuer }),
    { sub: "nightly", client_id: "nightly", scope: "mcp:read mcp:call" },
  ],
  [
    "a service with a key",
    async (sdk, { issuer }) => {
      const privateKey = await exportPKCS8(key.key);
      return new sdk.PrivateKeyJwtProvider({
        clientId: "keyed",
        privateKey,
        algorithm: "ES256",
        expectedIssuer: issuer,
      });
    },
    { sub: "keyed", client_id: "keyed", scope: "mcp:read mcp:call" },
  ],
  [
    "a service with an assertion that its key's keeper signed",
    async (sdk, { issuer }) => {
      const place = { base: issuer } as Parameters<typeof clientAssertion>[0];
      const { client_assertion: jwtBearerAssertion = "" } = await clientAssertion(place, "keyed", key);
      return new sdk.StaticPrivateKeyJwtProvider({ clientId: "keyed", jwtBearerAssertion, expectedIssuer: issuer });
    },
    { sub: "keyed", client_id: "keyed", scope: "mcp:read mcp:call" },
  ],
  [
    "a client whose company manages access",
    async (sdk, place) => managed(sdk, place),
    { client_id: "nightly", scope: "mcp:read mcp:call" },
  ],
  [
    "a workload",
    async (_sdk, place) => workload(place),
    { sub: "shop-ci", client_id: "shop-ci", scope: "mcp:read mcp:call" },
  ],
];

describe.each(PLACES)("at $at", ({ start }) => {
  let place: Place;
  beforeAll(async () => {
    const provider = { issuer: company.issuer, clientId: "drawbridge", identityAssertions: true };
    const service = { groups: ["batch"] };
    place = await start((secret) => ({
      signIn: { providers: { company: provider } },
      clients: {
        preregistered: [
          { id: "nightly", name: "Nightly", secret, redirectUris: ["https://nightly.example/cb"], service },
          { id: "keyed", name: "Keyed", jwks: { keys: [key.jwk] }, service },
        ],
        workloads: [
          { id: "shop-ci", name: "CI", issuer: platform.issuer, subject: "repo:acme/shop:ref:*", groups: ["batch"] },
        ],
      },
    }));
  }, 30_000);
  afterAll(() => place?.[Symbol.asyncDispose]());

  describe.each(SDKS)("an SDK client $version", (sdk) => {
    test.each(ways)("that is %s calls, with the endpoint's URL for all that it knows", async (_way, made, claims) => {
      const provider = await made(sdk, place);
      const client = await sdk.connect(provider, undefined, place);
      expect(await client.echo("hello")).toBe("hello");
      await client.close();
      expect(await claimsOf(provider)).toMatchObject({ aud: place.url, ...claims });
    });
  });
});
