/** Clients without a person at a browser, as both SDKs make them, against the running server. */
import { randomUUID } from "node:crypto";
import * as modern from "@modelcontextprotocol/client";
import { auth as classicAuth } from "@modelcontextprotocol/sdk/client/auth.js";
import * as classic from "@modelcontextprotocol/sdk/client/auth-extensions.js";
import { exportPKCS8 } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { foreignIssuer, type Holder, holder, type Issuer } from "./assertions.ts";
import { call, type Running, running } from "./support.ts";

const SECRET = "s".repeat(40);
let live: Running;
let work: Issuer;
let key: Holder;

beforeAll(async () => {
  [work, key] = await Promise.all([foreignIssuer(), holder()]);
  live = await running({
    signIn: { providers: { work: { issuer: work.issuer, clientId: "drawbridge", identityAssertions: true } } },
    clients: {
      preregistered: [
        {
          id: "nightly",
          name: "Nightly",
          secret: new Secret(SECRET),
          redirectUris: ["https://nightly.example/cb"],
          service: { groups: ["batch"] },
        },
        { id: "keyed", name: "Keyed", jwks: { keys: [key.jwk] }, service: { groups: ["batch"], scopes: ["mcp:read"] } },
      ],
    },
  });
});
afterAll(async () => {
  await live[Symbol.asyncDispose]();
  await work[Symbol.asyncDispose]();
});

interface Provider {
  tokens(): { access_token: string } | undefined | Promise<{ access_token: string } | undefined>;
}

async function who(provider: Provider) {
  const { body } = await call(live, (await provider.tokens())?.access_token ?? "");
  return { subject: body.subject, client: body.client, groups: body.groups, scopes: body.scopes };
}

describe.each([
  ["v1.32", classic, (provider: unknown) => classicAuth(provider as never, { serverUrl: live.resource })],
  ["v2.4", modern, (provider: unknown) => modern.auth(provider as never, { serverUrl: live.resource })],
] as const)("an SDK client %s", (_version, sdk, authorized) => {
  test("that is a service with a secret gets its token from the resource's URL alone", async () => {
    const options = { clientId: "nightly", clientSecret: SECRET, expectedIssuer: live.base };
    const provider = new sdk.ClientCredentialsProvider(options);
    expect(await authorized(provider)).toBe("AUTHORIZED");
    expect(await who(provider)).toMatchObject({ subject: "nightly", client: "nightly", groups: ["batch"] });
  });

  test("that is a service with a key gets what its settings allow of all that it asks for", async () => {
    const provider = new sdk.PrivateKeyJwtProvider({
      clientId: "keyed",
      privateKey: await exportPKCS8(key.key),
      algorithm: "ES256",
      expectedIssuer: live.base,
    });
    expect(await authorized(provider)).toBe("AUTHORIZED");
    expect(await who(provider)).toMatchObject({ subject: "keyed", scopes: ["mcp:read"] });
  });
});

test("an SDK client whose company manages its access gets a token with an identity assertion", async () => {
  const now = Math.floor(Date.now() / 1000);
  const provider = new modern.CrossAppAccessProvider({
    clientId: "nightly",
    clientSecret: SECRET,
    expectedIssuer: live.base,
    assertion: ({ authorizationServerUrl, resourceUrl }) =>
      work.sign(
        {
          iss: work.issuer,
          sub: "mona",
          name: "Mona",
          aud: authorizationServerUrl,
          client_id: "nightly",
          resource: resourceUrl,
          scope: "mcp:read",
          jti: randomUUID(),
          iat: now,
          exp: now + 300,
        },
        { typ: "oauth-id-jag+jwt" },
      ),
  });
  expect(await modern.auth(provider, { serverUrl: live.resource })).toBe("AUTHORIZED");
  expect(await who(provider)).toMatchObject({ client: "nightly", scopes: ["mcp:read"] });
  expect(live.events.map(({ type }) => type)).toContain("user-created");
});
