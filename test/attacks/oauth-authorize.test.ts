import type { Server } from "node:http";
import { createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  authorize,
  authorizeUrl,
  Browser,
  listen,
  REDIRECT,
  type Running,
  register,
  running,
  setUp,
} from "../oauth/support.ts";
import { verifies, verifiesEach } from "../requirements.ts";
import { attack, attackEach } from "./checklist.ts";

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

describe("a client on the person's computer", () => {
  verifiesEach(
    "rfc8252-loopback",
    ["http://127.0.0.1:1/callback", "http://127.0.0.1/callback", "http://127.0.0.1:65535/callback"],
    "may be answered at any port: %s",
    async (redirect) => {
      expect(await browser.go(authorizeUrl(live, { client, redirect }))).toBeUndefined();
      expect(browser.last.status).toBe(200);
    },
  );

  test.each([
    "http://127.0.0.1.attacker.example/callback",
    "http://127.0.0.1@attacker.example/callback",
    "http://localhost.attacker.example:49152/callback",
    "http://2130706433.attacker.example/callback",
    "http://[::1]:49152/callback",
    "http://localhost:49152/callback",
    "http://127.0.0.1:49152/callback/",
    "http://127.0.0.1:49152/callback?x=1",
    "http://127.0.0.1:49152/other",
    "https://127.0.0.1:49152/callback",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    " javascript:alert(1)",
    "data:text/html,x",
    "vbscript:x",
    "blob:http://127.0.0.1/x",
    "file:///etc/passwd",
    "cursor://callback",
  ])("is not answered at %j", async (redirect) => {
    expect(await browser.go(authorizeUrl(live, { client, redirect }))).toBeUndefined();
    expect(browser.last.status).toBe(400);
    expect(browser.last.text).not.toContain("attacker.example");
  });
});

attackEach(
  3,
  [
    "http://2130706433:49152/callback",
    "http://127.1:49152/callback",
    "http://0x7f000001:49152/callback",
    "http://0177.0.0.1:49152/callback",
    "http://127.0.0.1.:49152/callback",
    "http://127.0.0.2:49152/callback",
    "http://0.0.0.0:49152/callback",
    "http://[::ffff:127.0.0.1]:49152/callback",
    "http://user@127.0.0.1:49152/callback",
  ],
  "loopback in another spelling than the one registered is refused: %s",
  async (redirect) => {
    expect(await browser.go(authorizeUrl(live, { client, redirect }))).toBeUndefined();
    expect(browser.last.status).toBe(400);
    await browser.go(authorizeUrl(live, { client, redirect: "http://127.0.0.1:49152/callback" }));
    expect(browser.last.status).toBe(200);
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
    // Who is asked, or where the answer goes, is not clear: nobody is answered.
    if (name === "client_id" || name === "redirect_uri") expect(end).toBeUndefined();
    if (end === undefined) expect(browser.last.status).toBe(400);
    else expect(end.searchParams.get("error")).toBe("invalid_request");
  },
);

describe("an invalid request", () => {
  const stranger = async (metadata: Record<string, unknown> = {}) =>
    String((await register(live, { client_name: "Stranger", redirect_uris: [WEB], ...metadata })).body["client_id"]);
  const INVALID: readonly (readonly [string, Record<string, string>])[] = [
    ["without a person to ask", { prompt: "none" }],
    ["for a scope that does not exist", { scope: "admin" }],
    ["for another resource", { resource: "https://other.example/mcp" }],
    ["of another response type", { response_type: "code token" }],
    ["with plain PKCE", { code_challenge_method: "plain" }],
    ["with a request object", { request: "a.b.c" }],
  ];
  /** Where the page that was loaded last would lead. */
  const wayOn = () => new URL(/href="(https:[^"]+)"/.exec(browser.last.text)?.[1]?.replaceAll("&#38;", "&") ?? "");

  verifiesEach(
    ["rfc9700-redirector", "rfc9207-iss"],
    INVALID,
    "%s of a client that nobody vouches for shows where it leads, and goes nowhere by itself",
    async (_what, more) => {
      const unknown = await stranger();
      expect(await browser.go(authorizeUrl(live, { client: unknown, redirect: WEB, more }))).toBeUndefined();
      expect(browser.last.status).toBe(400);
      expect(browser.last.headers.get("location")).toBeNull();
      expect(browser.last.headers.get("refresh")).toBeNull();
      expect(browser.last.headers.get("x-frame-options")).toBe("DENY");
      expect(browser.last.text).toContain("<strong>shop.example</strong>");
      const to = wayOn();
      expect(`${to.origin}${to.pathname}`).toBe(WEB);
      const answer = to.hash === "" ? to.searchParams : new URLSearchParams(to.hash.slice(1));
      expect(answer.get("error")).toMatch(/^[a-z_]+$/);
      expect(answer.get("state")).toBe("state-1");
      expect(answer.get("iss")).toBe(live.base);
    },
  );

  test.each(INVALID)("%s of a client on the person's own computer is answered at once", async (_what, more) => {
    const end = await browser.go(authorizeUrl(live, { client, more }));
    expect(end?.origin).toBe(new URL(REDIRECT).origin);
  });

  test("of a client that the person has let in is answered at once, until it is another client", async () => {
    const known = await stranger({ client_name: "Known" });
    await authorize(live, browser, { client: known, redirect: WEB });
    const silent = { client: known, redirect: WEB, more: { prompt: "none" } };
    const end = await browser.go(authorizeUrl(live, { ...silent, scope: "admin" }));
    expect(end?.searchParams.get("error")).toMatch(/invalid_scope|access_denied/);
    // To anybody else it is as unknown as before.
    const [someone, before] = [new Browser(live.origin), browser];
    expect(await someone.go(authorizeUrl(live, silent))).toBeUndefined();
    expect(someone.last.status).toBe(400);
    expect(await before.go(authorizeUrl(live, silent))).toBeDefined();
  });

  test("of a client that the operator has set up or allowed is answered at once", async () => {
    await using here = await running({
      clients: { preregistered: [{ id: "billing", name: "Billing", redirectUris: [WEB] }] },
    });
    const anyone = new Browser(here.origin);
    const end = await anyone.go(authorizeUrl(here, { client: "billing", redirect: WEB, more: { prompt: "none" } }));
    expect(end?.searchParams.get("error")).toBe("login_required");
    expect(end?.searchParams.get("iss")).toBe(here.base);
  });

  test("cannot make a page that sends itself, also when it was pushed before", async () => {
    const unknown = await stranger();
    const pushed = new URL(authorizeUrl(live, { client: unknown, redirect: WEB })).searchParams;
    pushed.set("response_mode", "form_post");
    pushed.set("prompt", "none");
    const push = async () => {
      const response = await fetch(`${live.base}/oauth/par`, { method: "POST", body: pushed });
      return (await response.json()) as { request_uri?: string; error?: string };
    };
    expect(await push()).toMatchObject({ error: "invalid_request" });
    pushed.delete("response_mode");
    const query = new URLSearchParams({ client_id: unknown, request_uri: (await push()).request_uri ?? "" });
    query.set("response_mode", "form_post");
    const foreign = new URLSearchParams({ ...Object.fromEntries(pushed), request_uri: "https://attacker.example/r" });
    foreign.set("response_mode", "form_post");
    for (const each of [query, foreign]) {
      expect(await browser.go(`${live.base}/oauth/authorize?${each}`)).toBeUndefined();
      expect(browser.last.status).toBe(400);
      expect(browser.last.text).not.toContain("<script");
      expect(browser.last.text).not.toContain("<form");
    }
  });
});

attack(15, "request objects are refused, by value and by reference, and nothing is fetched", async () => {
  let connections = 0;
  const trap = createServer((socket) => {
    connections++;
    socket.destroy();
  });
  const at = `127.0.0.1:${await listen(trap as unknown as Server)}`;
  try {
    expect(await errorFor({ request: "a.b.c" })).toBe("request_not_supported");
    for (const request_uri of [`https://${at}/x`, `http://${at}/x`, "urn:ietf:params:oauth:request_uri:nobody"]) {
      expect(await browser.go(authorizeUrl(live, { client, more: { request_uri } }))).toBeUndefined();
      expect(browser.last.status).toBe(400);
    }
    expect(connections).toBe(0);
  } finally {
    await new Promise((resolve) => trap.close(resolve));
  }
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

    await using busy = await running({ clients: { registration: "open", registrationsPerSourcePerHour: 20 } });
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
