/** Clients that act for a person, as the official SDKs make them, by every way in which a client can be known here. */
import { randomUUID } from "node:crypto";
import { exportPKCS8 } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Operated, operated } from "../cli/operated.ts";
import { type Holder, holder } from "./assertions.ts";
import { claimsOf, host, type Kept, PLACES, type Place, type Provider, SDKS, type Sdk, SECRET } from "./sdk-clients.ts";
import { type DocumentHost, documentHost, REDIRECT } from "./support.ts";

let documents: DocumentHost;
let key: Holder;
let pem: string;

beforeAll(async () => {
  [documents, key] = await Promise.all([documentHost(), holder()]);
  pem = await exportPKCS8(key.key);
});
afterAll(() => documents[Symbol.asyncDispose]());

interface Hosted {
  readonly kept: Kept;
  readonly provider: Provider;
}

/** A host for each way; the last word says what its client id looks like. */
const ways: readonly (readonly [string, (sdk: Sdk, place: Place) => Hosted, RegExp])[] = [
  ["by its metadata document", () => host({ clientMetadataUrl: published({}) }), /^https:/],
  [
    "by a metadata document with its keys",
    (sdk) => {
      const url = published({ token_endpoint_auth_method: "private_key_jwt", jwks: { keys: [key.jwk] } });
      return host({ clientMetadataUrl: url, addClientAuthentication: signedBy(sdk, url) });
    },
    /^https:/,
  ],
  ["by registering itself", () => host(), /^registered-/],
  [
    "by registering itself for a secret",
    () => {
      const made = host();
      const { clientMetadata } = made.provider as { clientMetadata?: object } & Provider;
      Object.assign(clientMetadata ?? {}, { token_endpoint_auth_method: "client_secret_basic" });
      return made;
    },
    /^registered-/,
  ],
  [
    "as one set up with a secret",
    (_sdk, { issuer }) => {
      const made = host();
      made.kept.client = { client_id: "desk", client_secret: SECRET, issuer };
      return made;
    },
    /^desk$/,
  ],
  [
    "as one set up with a key",
    (sdk, { issuer }) => {
      const made = host({ addClientAuthentication: signedBy(sdk, "keyed") });
      made.kept.client = { client_id: "keyed", issuer };
      return made;
    },
    /^keyed$/,
  ],
];

describe.each(PLACES)("at $at", ({ start }) => {
  let place: Place;
  beforeAll(async () => {
    const named = { redirectUris: [REDIRECT] };
    place = await start((secret) => ({
      clients: {
        metadataDocuments: documents.settings,
        registration: "open",
        preregistered: [
          { ...named, id: "desk", name: "Desk", secret },
          { ...named, id: "keyed", name: "Keyed", jwks: { keys: [key.jwk] } },
        ],
      },
    }));
  }, 30_000);
  afterAll(() => place?.[Symbol.asyncDispose]());

  describe.each(SDKS)("an SDK client $version", (sdk) => {
    test.each(ways)(
      "that is known %s completes discovery, sign-in, consent, call and refresh",
      async (_way, made, id) => {
        const { kept, provider } = made(sdk, place);
        const client = await sdk.connect(provider, kept, place);
        expect(await client.echo("hello")).toBe("hello");
        await client.close();
        expect((await claimsOf(provider))["client_id"]).toMatch(id);

        const before = kept.tokens;
        expect(await sdk.auth(provider, place.url)).toBe("AUTHORIZED");
        expect(kept.tokens?.refresh_token).not.toBe(before?.refresh_token);
        expect(kept.redirected).toHaveLength(1);
      },
    );
  });
});

describe.each(SDKS)("an SDK client $version where registration needs an initial access token", (sdk) => {
  let here: Operated;
  let place: Place;
  beforeAll(async () => {
    here = await operated({ clients: { registration: "initial-access-token" } });
    const { url, origin, gateway } = here.live;
    place = { url, origin, issuer: gateway.publicUrl, [Symbol.asyncDispose]: async () => {} };
  }, 30_000);
  afterAll(() => here?.[Symbol.asyncDispose]());

  test("registers and calls when its host's fetch adds the token, and cannot without", async () => {
    const stranger = host();
    await expect(sdk.connect(stranger.provider, stranger.kept, place)).rejects.toThrow();
    expect(stranger.kept.client).toBeUndefined();

    const { token } = await here.json<{ token: string }>(["clients", "token", "--uses", "1"]);
    const { kept, provider } = host();
    const client = await sdk.connect(provider, kept, place, {
      fetch: (input, init) => {
        const headers = new Headers(init?.headers);
        if (new URL(String(input)).pathname.endsWith("/oauth/register"))
          headers.set("authorization", `Bearer ${token}`);
        return fetch(input, { ...init, headers });
      },
    });
    expect(await client.echo("hello")).toBe("hello");
    await client.close();
  });
});

function published(more: Record<string, unknown>): string {
  return documents.publish(`/sdk-${randomUUID()}.json`, more);
}

function signedBy(sdk: Sdk, client: string) {
  return sdk.createPrivateKeyJwtAuth({ issuer: client, subject: client, privateKey: pem, alg: "ES256" });
}
