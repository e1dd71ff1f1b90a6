import { describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import {
  initialAccessTokens,
  newInitialAccessToken,
  revokeInitialAccessToken,
} from "../../src/oauth/clients/initial-access.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";
import { verifies } from "../requirements.ts";
import {
  authorize,
  authorizeUrl,
  call,
  connect,
  REDIRECT,
  type Running,
  type RunningOptions,
  refresh,
  register,
  running,
  setUp,
  token,
} from "./support.ts";

const OPEN: RunningOptions = { clients: { registration: "open" } };

interface Registered {
  readonly client_id: string;
  readonly client_secret?: string;
  readonly registration_access_token: string;
  readonly registration_client_uri: string;
}

async function registered(live: Running, metadata: Record<string, unknown> = {}): Promise<Registered> {
  const { status, body } = await register(live, metadata);
  if (status !== 201) throw new Error(`not registered: ${JSON.stringify(body)}`);
  return body as unknown as Registered;
}

async function manage(client: Registered, method: string, body?: unknown, bearer = client.registration_access_token) {
  const response = await fetch(client.registration_client_uri, {
    method,
    headers: {
      authorization: `Bearer ${bearer}`,
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: (text === "" ? {} : JSON.parse(text)) as Record<string, unknown>,
  };
}

async function post(live: Running, body: string, headers: Record<string, string> = {}) {
  const response = await fetch(`${live.base}/oauth/register`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Record<string, unknown>,
  };
}

describe("registration", () => {
  test("is off by default away from loopback: there is no endpoint, and metadata names none", async () => {
    await using live = await running();
    expect((await register(live)).status).toBe(404);
    const metadata = await (await fetch(`${live.base}/.well-known/oauth-authorization-server`)).json();
    expect(metadata).not.toHaveProperty("registration_endpoint");
  });

  test("gives a client an id that is no URL, a token and an address to manage itself with, and no more than it asked for", async () => {
    await using live = await running({ ...OPEN, path: "/gateway" });
    const { status, headers, body } = await register(live, {
      scope: "mcp:read other",
      software_id: "x",
      logo_uri: "http://127.0.0.1/",
    });
    expect(status).toBe(201);
    expect(body["client_id"]).toMatch(/^registered-[\w-]+$/);
    expect(body["registration_client_uri"]).toBe(`${live.base}/oauth/register/${body["client_id"]}`);
    expect(String(body["registration_access_token"]).length).toBeGreaterThanOrEqual(43);
    expect(body).not.toHaveProperty("client_secret");
    expect(body).not.toHaveProperty("logo_uri");
    expect(headers.get("access-control-allow-origin")).toBe("*");
    expect(headers.get("cache-control")).toBe("no-store");
    expect(live.events).toContainEqual(
      expect.objectContaining({ type: "client-registered", client: body["client_id"] }),
    );
  });

  test.each<[string, unknown]>([
    ["no redirect_uris", undefined],
    ["an empty list", []],
    ["a text", "https://shop.example/cb"],
    ["a wildcard", ["https://*.shop.example/cb"]],
    ["a fragment", ["https://shop.example/cb#x"]],
    ["an empty fragment", ["https://shop.example/cb#"]],
    ["a user name", ["https://a@shop.example/cb"]],
    ["plain http", ["http://shop.example/cb"]],
    ["a loopback look-alike", ["http://127.0.0.1.shop.example/cb"]],
    ["javascript", ["javascript:alert(1)"]],
    ["javascript in capitals, with a tab", ["JaVa\tScRiPt:alert(1)"]],
    ["data", ["data:text/html,x"]],
    ["vbscript", ["vbscript:x"]],
    ["file", ["file:///etc/passwd"]],
    ["a scheme of an unknown program", ["unknown-app://cb"]],
    ["a blank in front", [" https://shop.example/cb"]],
    ["one bad among good ones", ["https://shop.example/cb", "http://shop.example/cb"]],
    ["a number", [1]],
    ["five hundred", Array.from({ length: 500 }, (_, i) => `https://shop.example/${i}`)],
  ])("of redirect_uris with %s is refused as invalid_redirect_uri", async (_what, redirects) => {
    await using live = await running(OPEN);
    const { status, body } = await register(live, { redirect_uris: redirects });
    expect(status).toBe(400);
    expect(body).toMatchObject({ error: "invalid_redirect_uri", error_description: expect.stringMatching(/\.$/) });
  });

  test.each<[string, Record<string, unknown>]>([
    ["grant types without ours", { grant_types: ["implicit"] }],
    ["grant types that are no list", { grant_types: "authorization_code" }],
    ["response types without ours", { response_types: ["token", "id_token"] }],
    ["both kinds of keys", { jwks: { keys: [] }, jwks_uri: "https://shop.example/keys" }],
    ["an unknown authentication method", { token_endpoint_auth_method: "tls_client_auth" }],
    ["a method that shows the secret", { token_endpoint_auth_method: "client_secret_jwt" }],
    ["signatures without keys", { token_endpoint_auth_method: "private_key_jwt" }],
    [
      "a private key",
      {
        token_endpoint_auth_method: "private_key_jwt",
        jwks: { keys: [{ kty: "EC", crv: "P-256", x: "x", y: "y", d: "d" }] },
      },
    ],
    ["a key set by plain http", { token_endpoint_auth_method: "private_key_jwt", jwks_uri: "http://127.0.0.1/keys" }],
    [
      "too many keys",
      {
        token_endpoint_auth_method: "private_key_jwt",
        jwks: { keys: Array.from({ length: 100 }, () => ({ kty: "EC" })) },
      },
    ],
    ["a name that is no text", { client_name: { a: 1 } }],
  ])("with %s is refused as invalid_client_metadata", async (_what, metadata) => {
    await using live = await running(OPEN);
    const { status, body } = await register(live, metadata);
    expect(status).toBe(400);
    expect(body).toMatchObject({ error: "invalid_client_metadata" });
  });

  test("of a body that is no JSON object, is nested deeply, has a member twice, is large or is something else is refused", async () => {
    await using live = await running(OPEN);
    const good = JSON.stringify({ redirect_uris: [REDIRECT], token_endpoint_auth_method: "none" });
    for (const [body, status] of [
      ["{", 400],
      ["[]", 400],
      ["null", 400],
      ["", 400],
      [good.replace("{", `{"a":${"[".repeat(2000)}${"]".repeat(2000)},`), 400],
      [good.replace("{", '{"redirect_uris":["https://evil.example/"],'), 400],
      [good.replace("{", `{"a":"${"x".repeat(70_000)}",`), 413],
    ] as const) {
      const answer = await post(live, body);
      expect(answer.status, body.slice(0, 40)).toBe(status);
      expect(answer.body["error"]).toMatch(/^invalid_(client_metadata|request)$/);
    }
    expect((await post(live, good, { "content-type": "application/x-www-form-urlencoded" })).status).toBe(415);
    expect((await post(live, good)).status).toBe(201);
  });

  test("cannot choose its own id or secret, and cannot take a client's place that the operator set up", async () => {
    await using live = await running({
      clients: {
        registration: "open",
        preregistered: [{ id: "shop", name: "Shop", redirectUris: [REDIRECT], secret: new Secret("s".repeat(40)) }],
      },
    });
    const mine = await registered(live, {
      client_id: "shop",
      client_secret: "mine",
      token_endpoint_auth_method: "client_secret_post",
    });
    expect(mine.client_id).not.toBe("shop");
    expect(mine.client_secret).not.toBe("mine");
  });

  test("answers the preflight of a page in a browser, for registering and for managing", async () => {
    await using live = await running(OPEN);
    for (const [path, method] of [
      ["/oauth/register", "POST"],
      ["/oauth/register/registered-x", "PUT"],
      ["/oauth/register/registered-x", "DELETE"],
    ]) {
      const answer = await fetch(`${live.base}${path}`, {
        method: "OPTIONS",
        headers: { origin: "https://inspector.example", "access-control-request-method": String(method) },
      });
      expect(answer.status).toBe(204);
      expect(answer.headers.get("access-control-allow-methods")).toBe(method);
      expect(answer.headers.get("access-control-allow-headers")).toContain("authorization");
    }
  });

  test("is refused to a source that registers too much in an hour, and to everybody when there are too many; the unused end", async () => {
    let now = Date.now();
    const store = memoryStore(() => now);
    await using live = await running({
      clients: { registration: "open", registrationsPerSourcePerHour: 3, maxRegistered: 5, registeredUnusedDays: 1 },
      records: store.records,
      clock: () => now,
      trustedProxies: ["127.0.0.1"],
    });
    const from = (source: string) =>
      post(live, JSON.stringify({ redirect_uris: [REDIRECT], token_endpoint_auth_method: "none" }), {
        "x-forwarded-for": source,
      });
    for (let i = 0; i < 3; i++) expect((await from("1.1.1.1")).status).toBe(201);
    const limited = await from("1.1.1.1");
    expect(limited.status).toBe(429);
    expect(Number(limited.headers.get("retry-after"))).toBeGreaterThan(60);
    for (let i = 0; i < 2; i++) expect((await from("2.2.2.2")).status).toBe(201);
    expect(await from("3.3.3.3")).toMatchObject({ status: 503, body: { error: "temporarily_unavailable" } });
    now += 25 * 3_600_000;
    expect((await from("3.3.3.3")).status).toBe(201);
  });
});

describe("a secret of a registered client", () => {
  test.each(["client_secret_basic", "client_secret_post"])(
    "lets it in by %s, and is not in the store",
    async (method) => {
      const store = memoryStore();
      await using live = await running({ ...OPEN, records: store.records });
      const browser = await setUp(live);
      const client = await registered(live, { token_endpoint_auth_method: method });
      const secret = client.client_secret ?? "";
      expect(secret.length).toBeGreaterThan(40);
      expect(await everything(store.records)).not.toContain(secret);
      expect(await everything(store.records)).not.toContain(client.registration_access_token);

      const redeem = async (presented: string | undefined) => {
        const end = await authorize(live, browser, { client: client.client_id });
        const params = {
          grant_type: "authorization_code",
          code: end.searchParams.get("code") ?? "",
          code_verifier: "v".repeat(64),
          redirect_uri: REDIRECT,
          resource: live.resource,
        };
        if (presented === undefined) return token(live, { ...params, client_id: client.client_id });
        if (method === "client_secret_post")
          return token(live, { ...params, client_id: client.client_id, client_secret: presented });
        const basic = Buffer.from(`${client.client_id}:${presented}`).toString("base64");
        return token(live, params, { authorization: `Basic ${basic}` });
      };
      expect((await redeem(secret)).status).toBe(200);
      const row = await store.records.get<{ client_secret: string }>("oauth:Client", client.client_id);
      const stored = row?.value.client_secret ?? "";
      expect(stored).toMatch(/^sha256\./);
      for (const wrong of ["wrong", `${secret}x`, stored, undefined]) {
        const answer = await redeem(wrong);
        expect([answer.status, answer.body["error"]], String(wrong).slice(0, 6)).toEqual([401, "invalid_client"]);
      }
    },
  );
});

describe("with initial access tokens", () => {
  const MODE: RunningOptions = { clients: { registration: "initial-access-token" } };
  const body = JSON.stringify({ redirect_uris: [REDIRECT], token_endpoint_auth_method: "none" });
  const later = () => Date.now() + 3_600_000;

  test("nobody registers without one, and is told so before anything is read", async () => {
    await using live = await running(MODE);
    for (const headers of [
      {},
      { authorization: "Bearer wrong" },
      { authorization: "Bearer a.b" },
      { authorization: "Basic eDp5" },
    ]) {
      const answer = await post(live, "not even JSON", headers as Record<string, string>);
      expect(answer).toMatchObject({ status: 401, body: { error: "invalid_token" } });
      expect(answer.body["error_description"]).toContain("initial access token");
      expect(answer.headers.get("www-authenticate")).toBe('Bearer error="invalid_token"');
      expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    }
  });

  test("one of three uses registers three clients, however many ask at once; what is refused for itself uses nothing up", async () => {
    const store = memoryStore();
    await using live = await running({ ...MODE, records: store.records });
    const made = await newInitialAccessToken(store.records, { uses: 3, expiresAt: later(), note: "for the shop" });
    const authorization = `Bearer ${made.token.reveal()}`;
    expect((await post(live, "{}", { authorization })).status).toBe(400);
    const answers = await Promise.all(Array.from({ length: 12 }, () => post(live, body, { authorization })));
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(3);
    expect(answers.filter(({ status }) => status === 401)).toHaveLength(9);
    expect(await initialAccessTokens(store.records)).toEqual([
      { id: made.id, note: "for the shop", usesLeft: 0, createdAt: made.createdAt, expiresAt: made.expiresAt },
    ]);
  });

  test("one that was revoked or has expired registers nothing, and none is stored in clear or printed", async () => {
    let now = Date.now();
    const store = memoryStore(() => now);
    await using live = await running({ ...MODE, records: store.records, clock: () => now });
    const first = await newInitialAccessToken(store.records, { uses: 9, expiresAt: now + 1000 }, () => now);
    const second = await newInitialAccessToken(store.records, { uses: 9, expiresAt: now + 9_000_000 }, () => now);
    expect(JSON.stringify(first)).not.toContain(first.token.reveal());
    expect(await everything(store.records)).not.toContain(first.token.reveal().split(".")[1]);
    await revokeInitialAccessToken(store.records, second.id);
    now += 2000;
    for (const { token: secret } of [first, second])
      expect((await post(live, body, { authorization: `Bearer ${secret.reveal()}` })).status).toBe(401);
    expect(await initialAccessTokens(store.records)).toEqual([]);
    for (const bad of [
      { uses: 0, expiresAt: later() },
      { uses: 1.5, expiresAt: later() },
      { uses: 1, expiresAt: 1 },
    ])
      await expect(newInitialAccessToken(store.records, bad)).rejects.toMatchObject({ code: "invalid_params" });
  });
});

describe("a client's own registration (RFC 7592)", () => {
  const metadata = { client_name: "Test client", redirect_uris: [REDIRECT], token_endpoint_auth_method: "none" };

  verifies("rfc7592-token", "is read with its token, without a secret, and by no other client's token", async () => {
    await using live = await running(OPEN);
    const [mine, other] = [
      await registered(live, { token_endpoint_auth_method: "client_secret_basic" }),
      await registered(live),
    ];
    const read = await manage(mine, "GET");
    expect(read).toMatchObject({ status: 200, body: { client_id: mine.client_id, client_name: "Test client" } });
    expect(read.body).not.toHaveProperty("client_secret");
    expect(read.headers.get("access-control-allow-origin")).toBe("*");
    for (const method of ["GET", "DELETE"]) {
      const stranger = await registered(live);
      expect((await manage(mine, method, undefined, stranger.registration_access_token)).status).toBe(401);
    }
    expect(
      (await manage(mine, "PUT", { ...metadata, client_id: mine.client_id }, other.registration_access_token)).status,
    ).toBe(401);
    expect((await manage(mine, "GET", undefined, "wrong")).status).toBe(401);
    expect((await fetch(mine.registration_client_uri)).status).toBeGreaterThanOrEqual(400);
    expect((await manage(mine, "GET")).status).toBe(200);
    expect((await manage(mine, "POST", {})).status).toBe(405);
  });

  verifies(
    "rfc7592-update",
    "is changed under the same rules as it was made; its token changes with it and the old one ends",
    async () => {
      await using live = await running(OPEN);
      const mine = await registered(live);
      const good = { ...metadata, client_id: mine.client_id };
      for (const [change, error] of [
        [{ redirect_uris: ["http://shop.example/cb"] }, "invalid_redirect_uri"],
        [{ redirect_uris: ["javascript:x"] }, "invalid_redirect_uri"],
        [{ response_types: ["token"] }, "invalid_client_metadata"],
        [{ client_id: "registered-other" }, "invalid_request"],
      ] as const) {
        expect(await manage(mine, "PUT", { ...good, ...change })).toMatchObject({ status: 400, body: { error } });
      }
      const changed = await manage(mine, "PUT", {
        ...good,
        client_name: "New name",
        logo_uri: "http://127.0.0.1/",
        scope: "x",
      });
      expect(changed).toMatchObject({ status: 200, body: { client_name: "New name" } });
      expect(changed.body).not.toHaveProperty("logo_uri");
      const next = String(changed.body["registration_access_token"]);
      expect(next).not.toBe(mine.registration_access_token);
      expect((await manage(mine, "GET")).status).toBe(401);
      expect((await manage(mine, "GET", undefined, next)).body["client_name"]).toBe("New name");
      expect(live.events.map(({ type }) => type)).toContain("client-changed");
    },
  );

  verifies("rfc7592-secret", "with a secret is changed by naming it, keeps it, and is told no other", async () => {
    await using live = await running(OPEN);
    const mine = await registered(live, { token_endpoint_auth_method: "client_secret_post" });
    const good = { ...metadata, client_id: mine.client_id, token_endpoint_auth_method: "client_secret_post" };
    expect((await manage(mine, "PUT", { ...good, client_secret: "wrong" })).status).toBe(400);
    const changed = await manage(mine, "PUT", { ...good, client_secret: mine.client_secret });
    expect(changed.status).toBe(200);
    expect(changed.body).not.toHaveProperty("client_secret");
    const wrong = { grant_type: "refresh_token", refresh_token: "x", client_id: mine.client_id };
    // The secret still counts: what is refused is the refresh token.
    const answer = await token(live, { ...wrong, client_secret: mine.client_secret ?? "" });
    expect(answer.body["error"]).toBe("invalid_grant");
  });

  test("once changed asks the person again", async () => {
    await using live = await running(OPEN);
    const browser = await setUp(live);
    const redirect = "https://shop.example/cb";
    const mine = await registered(live, { redirect_uris: [redirect] });
    await authorize(live, browser, { client: mine.client_id, redirect, site: "none" });
    await browser.go(authorizeUrl(live, { client: mine.client_id, redirect }), {
      headers: { "sec-fetch-site": "none" },
    });
    const asked = browser.last.text.includes("<legend>");
    await manage(mine, "PUT", {
      ...metadata,
      client_id: mine.client_id,
      redirect_uris: [redirect],
      client_name: "Bank",
    });
    await browser.go(authorizeUrl(live, { client: mine.client_id, redirect }), {
      headers: { "sec-fetch-site": "none" },
    });
    expect(asked).toBe(false);
    expect(browser.last.text).toContain("<legend>");
  });

  verifies("rfc7592-delete", "deleted ends its tokens, its consents and its management token", async () => {
    const store = memoryStore();
    await using live = await running({ ...OPEN, records: store.records });
    const browser = await setUp(live);
    const [mine, other] = [await registered(live), await registered(live)];
    const tokens = await connect(live, browser, { client: mine.client_id });
    const others = await connect(live, browser, { client: other.client_id });
    expect((await call(live, tokens.access_token)).status).toBe(200);
    expect((await manage(mine, "DELETE")).status).toBe(204);
    expect((await call(live, tokens.access_token)).status).toBe(401);
    expect((await refresh(live, mine.client_id, tokens.refresh_token)).status).toBe(401);
    expect((await manage(mine, "GET")).status).toBe(401);
    await browser.go(authorizeUrl(live, { client: mine.client_id }));
    expect(browser.last.status).toBe(400);
    expect(await everything(store.records)).not.toContain(mine.client_id);
    expect((await call(live, others.access_token)).status).toBe(200);
    expect(live.events).toContainEqual(
      expect.objectContaining({ type: "revoked", what: "client", client: mine.client_id }),
    );
  });

  test("that is used is kept, and its management token with it", async () => {
    let now = Date.now();
    const store = memoryStore(() => now);
    await using live = await running({
      clients: { registration: "open", registeredUnusedDays: 10 },
      records: store.records,
      clock: () => now,
    });
    const [mine, unused] = [await registered(live), await registered(live)];
    const browser = await setUp(live);
    for (let day = 0; day < 14; day += 7) {
      now += 7 * 86_400_000;
      await connect(live, browser, { client: mine.client_id });
    }
    expect((await manage(mine, "GET")).status).toBe(200);
    expect((await manage(unused, "GET")).status).toBe(401);
    const kinds = await store.records.list("oauth:RegistrationAccessToken", { limit: 10 });
    expect(kinds).toHaveLength(1);
  });
});

/** All that is stored and might be a secret or name a client, as one text. */
async function everything(records: Records): Promise<string> {
  const kinds = [
    "Client",
    "RegistrationAccessToken",
    "initial-access",
    "consent",
    "Grant",
    "AccessToken",
    "RefreshToken",
    "AuthorizationCode",
  ];
  const rows = await Promise.all(kinds.map((kind) => records.list(`oauth:${kind}`, { limit: 1000 })));
  return JSON.stringify(rows);
}
