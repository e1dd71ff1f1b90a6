/** What the official SDKs' clients do, at a whole gateway, with a token that has ended, is bound to a key, or is too narrow. */
import { ClientCredentialsProvider, DpopSession } from "@modelcontextprotocol/client";
import { afterEach, describe, expect, test, vi } from "vitest";
import { verifies } from "../requirements.ts";
import { claimsOf, host, type Kept, olive, type Place, SDKS, SECRET, v1, v2, wholeGateway } from "./sdk-clients.ts";

afterEach(() => {
  vi.useRealTimers();
});

const open = () => wholeGateway(() => ({ clients: { registration: "open" } }));

describe.each(SDKS)("an SDK client $version", (sdk) => {
  test("whose token has ended refreshes it in the middle of its work, without its person", async () => {
    await using place = await open();
    const { kept, provider } = host();
    const client = await sdk.connect(provider, kept, place);
    expect(await client.echo("before")).toBe("before");
    const first = kept.tokens;
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 6 * 60_000 });
    expect(await client.echo("after")).toBe("after");
    expect(kept.tokens?.access_token).not.toBe(first?.access_token);
    expect(kept.tokens?.refresh_token).not.toBe(first?.refresh_token);
    expect(kept.redirected).toHaveLength(1);
    await client.close();
  });
});

describe("an SDK client v2.4 that has a key", () => {
  const strict = () =>
    wholeGateway((secret) => ({
      tokens: { dpop: "required", dpopNonce: true },
      clients: {
        registration: "open",
        preregistered: [{ id: "nightly", name: "Nightly", secret, service: { groups: ["batch"] } }],
      },
    }));

  verifies(
    ["rfc9449-bound", "rfc9449-resource", "rfc9449-resource-nonce"],
    "gets a token that is bound to it, calls with proofs that have our nonce, and keeps it through a refresh",
    async () => {
      await using place = await strict();
      const session = await DpopSession.create();
      const { kept, provider } = host({ dpop: () => session });
      const seen = watched();
      const client = await v2.connect(provider, kept, place, { fetch: seen.fetch });
      expect(await client.echo("one")).toBe("one");
      expect(await client.echo("two")).toBe("two");
      expect(kept.tokens?.token_type).toBe("DPoP");
      expect((await claimsOf(provider))["cnf"]).toEqual({ jkt: session.thumbprint });
      expect(seen.challenges.filter((challenge) => challenge.includes("use_dpop_nonce"))).toHaveLength(1);

      const before = kept.tokens?.refresh_token;
      expect(await v2.auth(provider, place.url)).toBe("AUTHORIZED");
      expect(kept.tokens?.refresh_token).not.toBe(before);
      expect((await claimsOf(provider))["cnf"]).toEqual({ jkt: session.thumbprint });
      expect(await client.echo("three")).toBe("three");
      await client.close();
    },
  );

  verifies("rfc9449-bound", "and is a service gets one that is bound to it, too", async () => {
    await using place = await strict();
    const session = await DpopSession.create({ alg: "EdDSA" });
    const service = new ClientCredentialsProvider({
      clientId: "nightly",
      clientSecret: SECRET,
      expectedIssuer: place.issuer,
    });
    const provider = Object.assign(service, { dpop: () => session });
    const client = await v2.connect(provider, undefined, place);
    expect(await client.echo("hello")).toBe("hello");
    expect((await claimsOf(provider))["cnf"]).toEqual({ jkt: session.thumbprint });
    await client.close();
  });
});

describe("an SDK client whose token is too narrow", () => {
  verifies("rfc6750-scope", "v2.4 asks its person for what is missing beside what it has, and goes on", async () => {
    await using place = await open();
    const { kept, provider } = host();
    const client = await v2.connect(provider, kept, place, { person: firstOnlyReading(place) });
    expect((await claimsOf(provider))["scope"]).toBe("mcp:read");
    await expect(client.echo("too early")).rejects.toThrow(/Unauthorized/);
    await client.answer();
    expect(await client.echo("now")).toBe("now");
    expect(scopes((await claimsOf(provider))["scope"])).toEqual(["mcp:call", "mcp:read"]);
    await client.close();
  });

  // One that has a refresh token refreshes, which widens nothing, and gives up.
  test("v1.32 asks its person for what the refusal names, where its host keeps no refresh token", async () => {
    await using place = await open();
    const { kept, provider } = host({
      saveTokens: ({ refresh_token: _, ...tokens }: NonNullable<Kept["tokens"]>) => {
        kept.tokens = tokens;
      },
    });
    const client = await v1.connect(provider, kept, place, { person: firstOnlyReading(place) });
    expect((await claimsOf(provider))["scope"]).toBe("mcp:read");
    await expect(client.echo("too early")).rejects.toThrow(/Unauthorized/);
    await client.answer();
    expect(await client.echo("now")).toBe("now");
    expect(scopes((await claimsOf(provider))["scope"])).toContain("mcp:call");
    await client.close();
  });
});

/** A person who lets a client call only when it asks again. */
function firstOnlyReading(place: Place) {
  let asked = 0;
  return (url: URL) => olive(place, asked++ === 0 ? ["mcp:call"] : [])(url);
}

function scopes(scope: unknown): readonly string[] {
  return String(scope).split(" ").toSorted();
}

/** A fetch that remembers each `WWW-Authenticate`. */
function watched() {
  const challenges: string[] = [];
  return {
    challenges,
    fetch: async (input: string | URL | Request, init?: RequestInit) => {
      const response = await fetch(input, init);
      challenges.push(response.headers.get("www-authenticate") ?? "");
      return response;
    },
  };
}
