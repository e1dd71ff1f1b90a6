import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  authorize,
  authorizeUrl,
  type Browser,
  REDIRECT,
  type Running,
  register,
  running,
  setUp,
} from "../oauth/support.ts";
import { verifies, verifiesEach } from "../requirements.ts";

let live: Running;
let browser: Browser;
let client: string;
let web: string;
const WEB = "https://shop.example/cb";

beforeAll(async () => {
  live = await running({ clients: { registration: "open" } });
  browser = await setUp(live);
  client = String((await register(live)).body["client_id"]);
  web = String((await register(live, { redirect_uris: [WEB] })).body["client_id"]);
});
afterAll(() => live[Symbol.asyncDispose]());

/** What the client is told, when it is told anything. */
async function errorFor(
  more: Record<string, string>,
  base: Partial<Parameters<typeof authorizeUrl>[1]> = {},
): Promise<string | null> {
  const end = await browser.go(authorizeUrl(live, { client, ...base, more }));
  // A response type with tokens in it is answered in the fragment, the refusal too (OAuth 2.0 Multiple Response Types §3).
  return end?.searchParams.get("error") ?? (end && new URLSearchParams(end.hash.slice(1)).get("error")) ?? null;
}

verifies("rfc9207-iss", "a good request is answered, so that the refusals below mean something", async () => {
  const end = await authorize(live, browser, { client: web, redirect: WEB, state: "~state/1" });
  expect(`${end.origin}${end.pathname}`).toBe(WEB);
  expect(Object.fromEntries(end.searchParams)).toMatchObject({
    code: expect.any(String),
    state: "~state/1",
    iss: live.base,
  });
});

verifies("auth-redirect-exact", "an unknown client is never redirected", async () => {
  expect(await browser.go(authorizeUrl(live, { client: "nobody" }))).toBeUndefined();
  expect(browser.last.status).toBe(400);
  expect(browser.last.headers.get("location")).toBeNull();
});

verifiesEach(
  ["auth-redirect-exact", "oauth21-redirect"],
  [
    "https://shop.example/cb/",
    "https://shop.example/cb?x=1",
    "https://shop.example/CB",
    "https://shop.example/cb%2f..",
    "https://shop.example/cb#f",
    "https://shop.example:443/cb",
    "https://shop.example:8443/cb",
    "https://shop.example@attacker.example/cb",
    "https://shop.example.attacker.example/cb",
    "http://shop.example/cb",
    "javascript:alert(1)",
    "",
  ],
  "a redirect to %j is refused without a redirect",
  async (redirect) => {
    expect(await browser.go(authorizeUrl(live, { client: web, redirect }))).toBeUndefined();
    expect(browser.last.status).toBe(400);
  },
);

describe("PKCE", () => {
  const withoutPkce = async (more: Record<string, string>) => {
    const url = new URL(authorizeUrl(live, { client }));
    url.searchParams.delete("code_challenge");
    url.searchParams.delete("code_challenge_method");
    for (const [name, value] of Object.entries(more)) url.searchParams.set(name, value);
    return (await browser.go(url.href))?.searchParams;
  };

  verifiesEach(
    ["rfc7636-required", "rfc7636-s256-only", "rfc7636-challenge", "rfc9207-iss"],
    [
      ["is not sent", {}],
      ["has no challenge", { code_challenge_method: "S256" }],
      ["is plain", { code_challenge: "p".repeat(43), code_challenge_method: "plain" }],
      ["has no method", { code_challenge: "p".repeat(43) }],
      ["has a short challenge", { code_challenge: "p".repeat(42), code_challenge_method: "S256" }],
      ["has a long challenge", { code_challenge: "p".repeat(129), code_challenge_method: "S256" }],
      ["has a challenge of other characters", { code_challenge: `${"p".repeat(42)}!`, code_challenge_method: "S256" }],
    ],
    "that %s is refused",
    async (_what, more) => {
      const answer = await withoutPkce(more);
      expect(answer?.get("error")).toBe("invalid_request");
      expect(answer?.get("iss")).toBe(live.base);
      expect(answer?.get("state")).toBe("state-1");
    },
  );
});

verifiesEach(
  "oauth21-grants",
  ["token", "id_token", "code token", "none"],
  "the response type %s is refused",
  async (response_type) => {
    expect(await errorFor({ response_type })).toMatch(/unsupported_response_type|invalid_request|unauthorized_client/);
  },
);

test.each(["fragment", "form_post", "query.jwt", "web_message"])(
  "the response mode %s is refused",
  async (response_mode) => {
    expect(await errorFor({ response_mode })).toBeNull();
    expect(browser.last.status).toBe(400);
  },
);

test.each(["client_id", "redirect_uri", "scope", "state", "code_challenge"])(
  "%s given twice is refused",
  async (name) => {
    const url = new URL(authorizeUrl(live, { client }));
    url.searchParams.append(name, "again");
    const end = await browser.go(url.href);
    if (end === undefined) expect(browser.last.status).toBe(400);
    else expect(end.searchParams.get("error")).toMatch(/invalid_request|invalid_redirect_uri/);
  },
);

test("request objects are refused and nothing is fetched", async () => {
  expect(await errorFor({ request: "a.b.c" })).toBe("request_not_supported");
  const end = await browser.go(authorizeUrl(live, { client, more: { request_uri: "https://127.0.0.1:1/x" } }));
  expect(end?.searchParams.get("error") ?? "page").toMatch(/invalid_request_uri|request_uri_not_supported|page/);
});

verifies("rfc9207-iss", "a request for nothing that exists is refused without asking anybody", async () => {
  const end = await browser.go(authorizeUrl(live, { client, scope: "admin" }));
  expect(end?.searchParams.get("error")).toBe("invalid_scope");
  expect(end?.searchParams.get("iss")).toBe(live.base);
});

test("a scope that does not exist is never granted", async () => {
  const end = await authorize(live, browser, { client, scope: "mcp:read admin *" });
  expect(end.searchParams.get("code")).not.toBeNull();
  const scopes = live.events.findLast(({ type }) => type === "consent-granted");
  expect(scopes).toMatchObject({ scopes: ["mcp:read"] });
});

describe("registration", () => {
  verifiesEach(
    ["rfc7591-redirect", "auth-redirect-https"],
    [
      [[]],
      [["http://shop.example/cb"]],
      [["https://shop.example/*"]],
      [["https://shop.example/cb#f"]],
      [["https://user@shop.example/cb"]],
      [["JaVaScRiPt:alert(1)"]],
      [["java\nscript:alert(1)"]],
      [[" https://shop.example/cb"]],
      [["data:text/html,x"]],
      [["file:///etc/passwd"]],
      [["unknown-app://callback"]],
      [["http://127.0.0.1.shop.example/cb"]],
      [Array.from({ length: 500 }, (_, i) => `https://shop.example/${i}`)],
    ],
    "refuses the redirects %j",
    async (redirect_uris) => {
      const { status, body } = await register(live, { redirect_uris });
      expect([status, body["error"]]).toEqual([400, "invalid_redirect_uri"]);
    },
  );

  test("takes no client id that a document could have, and no key set twice", async () => {
    const { body } = await register(live, { client_id: "https://shop.example/client.json" });
    expect(body["client_id"]).not.toMatch(/^https/);
    const twice = await register(live, { jwks: { keys: [] }, jwks_uri: "https://shop.example/jwks" });
    expect(twice.body["error"]).toBe("invalid_client_metadata");
  });

  test("is bounded in size, in number and per source, and forgets what nobody uses", async () => {
    let now = Date.now();
    await using here = await running({
      clients: { registration: "open", maxRegistered: 3, registeredUnusedDays: 2 },
      clock: () => now,
    });
    const large = await fetch(`${here.base}/oauth/register`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ client_name: "x".repeat(70_000) }),
    });
    expect(large.status).toBe(413);
    const used = String((await register(here)).body["client_id"]);
    for (const status of [201, 201, 503]) expect((await register(here)).status).toBe(status);
    now += 86_400_000 * 1.5;
    const someone = await setUp(here);
    const { connect } = await import("../oauth/support.ts");
    await connect(here, someone, { client: used });
    now += 86_400_000;
    expect((await register(here)).status).toBe(201);
    await connect(here, someone, { client: used });

    await using busy = await running({ clients: { registration: "open" } });
    const statuses = [];
    for (let i = 0; i < 25; i++) statuses.push((await register(busy)).status);
    expect(statuses.slice(0, 20)).toEqual(Array(20).fill(201));
    expect(statuses.at(-1)).toBe(429);
  });

  verifies("rfc7591-register", "is off unless switched on", async () => {
    await using here = await running();
    expect((await register(here)).status).toBe(404);
    const metadata = await (await fetch(`${here.base}/.well-known/oauth-authorization-server`)).json();
    expect(metadata).not.toHaveProperty("registration_endpoint");
  });
});

verifies("auth-https", "a public http address is no place for an authorization server", async () => {
  await expect(running({ publicUrl: "http://shop.example" })).rejects.toMatchObject({ code: "settings_invalid" });
  expect(REDIRECT).toMatch(/^http:\/\/127/);
});
