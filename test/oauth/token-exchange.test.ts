import { decodeJwt, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Authenticated } from "../../src/core/call.ts";
import { Secret } from "../../src/core/secret.ts";
import { oauthRecord } from "../../src/gateway/oauth-record.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import { verifies } from "../requirements.ts";
import { basic, holder, post, proof } from "./assertions.ts";
import {
  type Browser,
  call,
  connect,
  type Running,
  type RunningOptions,
  register,
  running,
  setUp,
  token,
} from "./support.ts";

const SECRET = "s".repeat(40);
const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";
const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ORDERS = "https://orders.example/mcp";
const STOCK = "https://stock.example";
const LEDGER = "https://ledger.example/api";
const signal = new AbortController().signal;

const clients = {
  registration: "open",
  requestsPerSourcePerMinute: 0,
  preregistered: [
    {
      id: "orders",
      name: "Orders API",
      secret: new Secret(SECRET),
      owns: [ORDERS],
      mayExchangeFor: [
        { audience: STOCK, scopes: { "orders:read": ["stock:read"], "orders:write": ["stock:read", "stock:take"] } },
        { audience: LEDGER, scopes: [] },
      ],
      service: { groups: [] },
    },
    {
      id: "stock",
      name: "Stock API",
      secret: new Secret(SECRET),
      owns: [STOCK],
      mayExchangeFor: [{ audience: LEDGER }],
    },
    { id: "ledger", name: "Ledger API", secret: new Secret(SECRET), owns: [LEDGER] },
    {
      id: "thief",
      name: "Thief",
      secret: new Secret(SECRET),
      owns: ["https://thief.example"],
      mayExchangeFor: [{ audience: STOCK }],
    },
    { id: "robot", name: "Robot", secret: new Secret(SECRET), service: { groups: ["robots"] } },
  ],
};
const toOrders = {
  audience: ORDERS,
  scopes: { "mcp:read": ["orders:read"], "mcp:call": ["orders:read", "orders:write"] },
};

let live: Running;
let browser: Browser;
let client: string;
const start = (options: RunningOptions = {}) => running({ clients, ...options });

beforeAll(async () => {
  live = await start();
  browser = await setUp(live);
  client = String((await register(live)).body["client_id"]);
});
afterAll(() => live[Symbol.asyncDispose]());

/** A person's call as the gateway sees it. */
async function caller(
  here = live,
  someone = browser,
  id = client,
  scope = "mcp:read mcp:call",
): Promise<Authenticated> {
  const { access_token } = await connect(here, someone, { client: id, scope });
  return here.server.verify(access_token);
}

/** A token that the gateway calls the orders API with. */
async function forOrders(by?: Authenticated): Promise<string> {
  const made = await live.server.exchange(by ?? (await caller()), toOrders, signal);
  return made.token.reveal();
}

function exchange(subject_token: string, params: Record<string, string> = {}, as = "orders", headers = {}) {
  const all = {
    grant_type: TOKEN_EXCHANGE,
    subject_token,
    subject_token_type: ACCESS_TOKEN,
    resource: STOCK,
    ...params,
  };
  return token(live, all, { ...basic(as, SECRET), ...headers });
}

async function introspected(token: string, as: string) {
  return (await post(live, "/oauth/introspect", { token }, basic(as, SECRET))).body;
}

describe("the gateway", () => {
  test("exchanges its caller's token for one of an upstream, which says for whom and through whom", async () => {
    const by = await caller();
    const claims = decodeJwt(await forOrders(by));
    expect(claims).toMatchObject({
      iss: live.base,
      aud: ORDERS,
      sub: by.subject,
      client_id: live.base,
      act: { sub: live.base },
      scope: "orders:read orders:write",
    });
    expect(claims.exp).toBeLessThanOrEqual(by.expiresAt / 1000);
    expect(claims.jti).not.toBe(by.tokenId);
  });

  test("records each exchange with its user, audience, actors and the token it was made from", async () => {
    const by = await caller();
    const claims = decodeJwt(await forOrders(by));
    expect(live.events.at(-1)).toMatchObject({
      type: "token-exchanged",
      user: by.subject,
      subject: by.subject,
      client: live.base,
      audience: ORDERS,
      actors: [live.base],
      scopes: ["orders:read", "orders:write"],
      token: claims.jti,
      from: by.tokenId,
      origin: client,
      grant: by.grant,
    });
  });

  test("is found in the audit log by the user that it acted for", async () => {
    const by = await caller();
    await forOrders(by);
    const event = live.events.at(-1);
    if (event === undefined) throw new Error("nothing was reported");
    expect(oauthRecord(event, "replica", Date.now())).toMatchObject({
      kind: "token",
      action: "token-exchanged",
      outcome: "permitted",
      principal: { subject: by.subject, client: live.base, actors: [live.base], grant: by.grant },
      details: { audience: ORDERS, from: by.tokenId, origin: client },
    });
  });

  test("gives no token when the exchange cannot be recorded", async () => {
    const failing = { on: false };
    await using here = await start({
      onEvent({ type }) {
        if (failing.on && type === "token-exchanged") throw new Error("the log is full");
      },
    });
    const someone = await setUp(here);
    const by = await caller(here, someone, String((await register(here)).body["client_id"]));
    failing.on = true;
    await expect(here.server.exchange(by, toOrders, signal)).rejects.toThrow();
    failing.on = false;
    await expect(here.server.exchange(by, toOrders, signal)).resolves.toBeDefined();
  });

  test("passes on no more than its caller has", async () => {
    const by = await caller(live, browser, client, "mcp:read");
    expect(decodeJwt(await forOrders(by))["scope"]).toBe("orders:read");
  });

  test("passes on the same names when an upstream says nothing of scopes", async () => {
    const by = await caller(live, browser, client, "mcp:read");
    const made = await live.server.exchange(by, { audience: "https://plain.example", scopes: undefined }, signal);
    expect(decodeJwt(made.token.reveal())["scope"]).toBe("mcp:read");
  });

  test("gets nothing when none of the caller's scopes is worth anything there", async () => {
    const by = await caller(live, browser, client, "mcp:read");
    const target = { audience: ORDERS, scopes: { "mcp:call": ["orders:write"] } };
    await expect(live.server.exchange(by, target, signal)).rejects.toMatchObject({ code: "insufficient_scope" });
  });

  test("never makes a token for itself out of another", async () => {
    const by = await caller();
    await expect(
      live.server.exchange(by, { audience: `${live.resource}/`, scopes: undefined }, signal),
    ).rejects.toMatchObject({ code: "settings_invalid" });
  });

  test("of fifty calls at once makes one token, and remembers it", async () => {
    const by = await caller();
    const before = live.events.length;
    const made = await Promise.all(Array.from({ length: 50 }, () => forOrders(by)));
    expect(new Set([...made, await forOrders(by)]).size).toBe(1);
    expect(live.events.slice(before).filter(({ type }) => type === "token-exchanged")).toHaveLength(1);
  });

  test("keeps what it remembers when something else ends, and makes a new one for what was ended itself", async () => {
    const by = await caller();
    const made = await forOrders(by);
    await live.server.revokeGrant("of somebody else");
    expect(await forOrders(by)).toBe(made);
    await live.server.revokeToken(String(decodeJwt(made).jti));
    const again = await forOrders(by);
    expect(again).not.toBe(made);
    expect((await introspected(again, "orders"))["active"]).toBe(true);
  });

  test("hears of what another replica ended", async () => {
    await using replica = await running({ clients, records: live.records, publicUrl: live.base });
    const by = await caller();
    const made = await forOrders(by);
    await replica.server.revokeToken(String(decodeJwt(made).jti));
    await expect.poll(() => forOrders(by)).not.toBe(made);
    await replica.server.revokeGrant(by.grant ?? "");
    await expect
      .poll(() =>
        live.server.exchange(by, toOrders, signal).then(
          () => "made",
          ({ code }) => code,
        ),
      )
      .toBe("unauthenticated");
  });

  test("gives one token or a clear error whichever read or write of the store fails, and one the next time", async () => {
    const store = memoryStore().records;
    let left = Number.POSITIVE_INFINITY;
    const failing = new Proxy(store, {
      get:
        (target, name: keyof typeof store) =>
        (...given: never[]) => {
          if (--left === 0) throw new Error("the disk is full");
          return (target[name] as (...all: never[]) => unknown).apply(target, given);
        },
    });
    await using here = await start({ records: failing });
    const someone = await setUp(here);
    const id = String((await register(here)).body["client_id"]);
    let n = 1;
    for (; n < 30; n++) {
      left = Number.POSITIVE_INFINITY;
      const by = await caller(here, someone, id);
      left = n;
      const made = await here.server.exchange(by, toOrders, signal).catch((thrown: unknown) => thrown);
      const over = left > 0;
      left = Number.POSITIVE_INFINITY;
      if (over && "token" in (made as object)) break;
      expect((await here.server.exchange(by, toOrders, signal)).expiresAt).toBeLessThanOrEqual(by.expiresAt);
    }
    expect(n).toBeGreaterThan(3);
    expect(n).toBeLessThan(30);
  });

  test("does not mix up callers, audiences or scopes", async () => {
    const [by, other] = [await caller(), await caller()];
    const narrow = { ...toOrders, scopes: ["orders:read"] };
    const tokens = [
      await live.server.exchange(by, toOrders, signal),
      await live.server.exchange(other, toOrders, signal),
      await live.server.exchange(by, { ...toOrders, audience: STOCK }, signal),
      await live.server.exchange(by, narrow, signal),
      await live.server.ownToken(narrow, signal),
    ].map(({ token }) => token.reveal());
    expect(new Set(tokens).size).toBe(5);
  });

  test("stops waiting when its call is cancelled", async () => {
    const by = await caller();
    await expect(live.server.exchange(by, toOrders, AbortSignal.abort(new Error("gone")))).rejects.toThrow("gone");
    expect(decodeJwt(await forOrders(by)).aud).toBe(ORDERS);
  });

  test("makes a new token shortly before the old one ends, and none from a caller's that has ended", async () => {
    let now = Date.now();
    const store = memoryStore(() => now);
    await using here = await start({ clock: () => now, records: store.records });
    const someone = await setUp(here);
    const by = await caller(here, someone, String((await register(here)).body["client_id"]));
    const own = await here.server.ownToken(toOrders, signal);
    now += 280_000;
    expect((await here.server.ownToken(toOrders, signal)).token.reveal()).not.toBe(own.token.reveal());
    const late = await here.server.exchange(by, toOrders, signal);
    expect(late.expiresAt).toBeLessThanOrEqual(by.expiresAt);
    now += 21_000;
    await expect(here.server.exchange(by, toOrders, signal)).rejects.toMatchObject({ code: "unauthenticated" });
  });

  test("has a token of its own for what nobody asked for", async () => {
    const { token: own } = await live.server.ownToken(toOrders, signal);
    const claims = decodeJwt(own.reveal());
    expect(claims).toMatchObject({
      sub: live.base,
      client_id: live.base,
      aud: ORDERS,
      scope: "orders:read orders:write",
    });
    expect(claims["act"]).toBeUndefined();
    expect(await introspected(own.reveal(), "orders")).toMatchObject({ active: true, sub: live.base });
  });

  test.each([
    ["token was revoked", (by: Authenticated) => live.server.revokeToken(by.tokenId)],
    ["grant was ended", (by: Authenticated) => live.server.revokeGrant(by.grant ?? "")],
    ["client was revoked", (by: Authenticated) => live.server.revokeClient(by.client)],
  ])("exchanges nothing for a caller whose %s, remembered or not", async (_what, end) => {
    const id = String((await register(live)).body["client_id"]);
    const by = await caller(live, browser, id);
    const made = await forOrders(by);
    expect((await introspected(made, "orders"))["active"]).toBe(true);
    await end(by);
    await expect(live.server.exchange(by, toOrders, signal)).rejects.toMatchObject({ code: "unauthenticated" });
  });

  test("exchanges nothing for a disabled user, and what was exchanged before is worth nothing", async () => {
    await using here = await start();
    const someone = await setUp(here);
    const by = await caller(here, someone, String((await register(here)).body["client_id"]));
    const made = (await here.server.exchange(by, toOrders, signal)).token.reveal();
    await here.server.setUserDisabled(by.subject, true);
    await expect(here.server.exchange(by, toOrders, signal)).rejects.toMatchObject({ code: "unauthenticated" });
    expect((await post(here, "/oauth/introspect", { token: made }, basic("orders", SECRET))).body).toEqual({
      active: false,
    });
  });
});

describe("an API that was called", () => {
  verifies(
    ["rfc8693-response", "rfc8693-act"],
    "exchanges the token for one of the next, naming itself and who acted before",
    async () => {
      const by = await caller();
      const { status, body } = await exchange(await forOrders(by));
      expect([status, body["issued_token_type"], body["token_type"], body["refresh_token"]]).toEqual([
        200,
        ACCESS_TOKEN,
        "Bearer",
        undefined,
      ]);
      expect(body["scope"]).toBe("stock:read stock:take");
      expect(decodeJwt(String(body["access_token"]))).toMatchObject({
        aud: STOCK,
        sub: by.subject,
        client_id: "orders",
        act: { sub: "orders", act: { sub: live.base } },
      });
      expect(live.events.at(-1)).toMatchObject({
        type: "token-exchanged",
        actors: ["orders", live.base],
        audience: STOCK,
        user: by.subject,
        client: "orders",
        origin: client,
      });
    },
  );

  test("names the next by audience as well as by resource, in any spelling", async () => {
    const subject = await forOrders();
    for (const target of [
      { resource: "", audience: STOCK },
      { audience: STOCK },
      { resource: `${STOCK.toUpperCase()}/` },
    ]) {
      const params = Object.fromEntries(Object.entries(target).filter(([, value]) => value !== ""));
      const { body } = await exchange(subject, params);
      expect(decodeJwt(String(body["access_token"])).aud).toBe(STOCK);
    }
  });

  test("gets fewer scopes when it asks for fewer, and none beyond what the caller may", async () => {
    const subject = await forOrders();
    expect((await exchange(subject, { scope: "stock:read" })).body["scope"]).toBe("stock:read");
    for (const scope of ["stock:read stock:burn", "orders:write", "mcp:call", "*"])
      expect((await exchange(subject, { scope })).body["error"], scope).toBe("invalid_scope");
    const reader = await forOrders(await caller(live, browser, client, "mcp:read"));
    expect((await exchange(reader)).body["scope"]).toBe("stock:read");
    expect((await exchange(reader, { scope: "stock:take" })).body["error"]).toBe("invalid_scope");
  });

  test("gets a token without scopes for an API that has none", async () => {
    const { status, body } = await exchange(await forOrders(), { resource: LEDGER });
    expect([status, body["scope"]]).toEqual([200, undefined]);
    expect((await exchange(await forOrders(), { resource: LEDGER, scope: "ledger:read" })).body["error"]).toBe(
      "invalid_scope",
    );
  });

  test("never gets one that outlives the token it was called with", async () => {
    let now = Date.now();
    await using here = await start({ clock: () => now });
    const someone = await setUp(here);
    const by = await caller(here, someone, String((await register(here)).body["client_id"]));
    const subject = (await here.server.exchange(by, toOrders, signal)).token.reveal();
    now += 200_000;
    const params = {
      grant_type: TOKEN_EXCHANGE,
      subject_token: subject,
      subject_token_type: ACCESS_TOKEN,
      resource: STOCK,
    };
    const { body } = await token(here, params, basic("orders", SECRET));
    expect(decodeJwt(String(body["access_token"])).exp).toBe(decodeJwt(subject).exp);
    expect(body["expires_in"]).toBeLessThanOrEqual(100);
  });

  verifies("rfc8693-act", "may hand on to one that hands on, with each actor in its place", async () => {
    const first = String((await exchange(await forOrders())).body["access_token"]);
    const { body } = await exchange(first, { resource: LEDGER }, "stock");
    const claims = decodeJwt(String(body["access_token"]));
    expect(claims["act"]).toEqual({ sub: "stock", act: { sub: "orders", act: { sub: live.base } } });
    expect(claims["scope"]).toBe("stock:read stock:take");
    expect(live.events.at(-1)).toMatchObject({ origin: client });
  });

  test("hands on a service's call as it does a person's", async () => {
    const own = await token(live, { grant_type: "client_credentials" }, basic("robot", SECRET));
    const by = await live.server.verify(String(own.body["access_token"]));
    const { body } = await exchange(await forOrders(by));
    expect(decodeJwt(String(body["access_token"]))).toMatchObject({ sub: "robot", act: { sub: "orders" } });
    expect(live.events.at(-1)).toMatchObject({ subject: "robot" });
    expect(live.events.at(-1)).not.toHaveProperty("user");
  });

  test("exchanges a token that is bound to a key without that key, and binds the new one to its own", async () => {
    const [callers, its] = [await holder(), await holder()];
    const own = await token(
      live,
      { grant_type: "client_credentials" },
      { ...basic("orders", SECRET), dpop: await proof(live, callers) },
    );
    expect(own.body["token_type"]).toBe("DPoP");
    // No grant gives such a token for the orders API, so one is made in the store.
    const claims = decodeJwt(await forOrders());
    const row = await live.records.get<object>("oauth:AccessToken", String(claims.jti));
    const { calculateJwkThumbprint } = await import("jose");
    await live.records.put("oauth:AccessToken", String(claims.jti), {
      ...row?.value,
      jkt: await calculateJwkThumbprint(callers.jwk),
    });
    const subject = await forOrders();
    const { body, status } = await exchange(subject, {}, "orders", { dpop: await proof(live, its) });
    expect([status, body["token_type"]]).toEqual([200, "DPoP"]);
    expect(decodeJwt(String(body["access_token"]))["cnf"]).toEqual({ jkt: await calculateJwkThumbprint(its.jwk) });
  });
});

describe("a token is not exchanged", () => {
  const refusal = async (answer: ReturnType<typeof exchange>) => {
    const { status, body } = await answer;
    expect(body["access_token"]).toBeUndefined();
    expect(live.events.at(-1)).toMatchObject({ type: "token-refused", reason: expect.stringMatching(/\w{4}/) });
    return [status, body["error"]];
  };

  test("by its client, whose token never leaves the gateway that way", async () => {
    const { access_token } = await connect(live, browser, { client });
    expect(await refusal(exchange(access_token))).toEqual([400, "invalid_request"]);
  });

  verifies("rfc8693-error", "by another API than the one it is for", async () => {
    expect(await refusal(exchange(await forOrders(), {}, "thief"))).toEqual([400, "invalid_request"]);
  });

  test("by a public client", async () => {
    const all = {
      grant_type: TOKEN_EXCHANGE,
      subject_token: await forOrders(),
      subject_token_type: ACCESS_TOKEN,
      resource: STOCK,
    };
    const { body } = await token(live, { ...all, client_id: client });
    expect(body["error"]).toBe("unauthorized_client");
  });

  test("by an API that may exchange for nobody", async () => {
    expect(await refusal(exchange(await forOrders(), {}, "ledger"))).toEqual([400, "unauthorized_client"]);
  });

  test("with a wrong secret, or none", async () => {
    const all = {
      grant_type: TOKEN_EXCHANGE,
      subject_token: await forOrders(),
      subject_token_type: ACCESS_TOKEN,
      resource: STOCK,
    };
    expect((await token(live, all, basic("orders", "wrong"))).status).toBe(401);
    expect((await token(live, { ...all, client_id: "orders" })).status).toBe(401);
  });

  test.each([
    ["an API that is not among its targets", { resource: "https://thief.example" }],
    ["the gateway itself", { resource: "GATEWAY" }],
    ["itself", { resource: ORDERS }],
    ["a name nobody knows", { audience: "stock" }],
    ["two APIs at once", { audience: LEDGER }],
  ])("for %s", async (_what, params) => {
    const named = Object.fromEntries(
      Object.entries(params as Record<string, string>).map(([name, value]) => [
        name,
        value === "GATEWAY" ? live.resource : value,
      ]),
    );
    expect(await refusal(exchange(await forOrders(), named))).toEqual([400, "invalid_target"]);
  });

  verifies("rfc8693-error", "for nothing in particular", async () => {
    const all = { grant_type: TOKEN_EXCHANGE, subject_token: await forOrders(), subject_token_type: ACCESS_TOKEN };
    expect((await token(live, all, basic("orders", SECRET))).body["error"]).toBe("invalid_target");
  });

  test.each([
    ["as a JWT of any kind", { subject_token_type: "urn:ietf:params:oauth:token-type:jwt" }],
    ["as an id token", { subject_token_type: "urn:ietf:params:oauth:token-type:id_token" }],
    ["for a refresh token", { requested_token_type: "urn:ietf:params:oauth:token-type:refresh_token" }],
    ["with an actor of the caller's choice", { actor_token: "x", actor_token_type: ACCESS_TOKEN }],
  ])("%s", async (_how, params) => {
    expect(await refusal(exchange(await forOrders(), params as Record<string, string>))).toEqual([
      400,
      "invalid_request",
    ]);
  });

  test("for one with two subject tokens", async () => {
    const body = new URLSearchParams({ grant_type: TOKEN_EXCHANGE, subject_token_type: ACCESS_TOKEN, resource: STOCK });
    for (let count = 0; count < 2; count++) body.append("subject_token", await forOrders());
    const response = await fetch(`${live.base}/oauth/token`, {
      method: "POST",
      body,
      headers: basic("orders", SECRET),
    });
    expect(((await response.json()) as { error: string }).error).toBe("invalid_request");
  });

  test("that is none, is forged, or is an id token", async () => {
    const { id_token = "" } = await connect(live, browser, { client, scope: "openid mcp:read" });
    const claims = decodeJwt(await forOrders());
    const forged = await new SignJWT(claims)
      .setProtectedHeader({ alg: "ES256", typ: "at+jwt" })
      .sign((await holder()).key);
    const none = `${btoa('{"alg":"none","typ":"at+jwt"}')}.${btoa(JSON.stringify(claims))}.`.replaceAll("=", "");
    for (const subject of ["x", "a.b.c", id_token, forged, none])
      expect(await refusal(exchange(subject))).toEqual([400, "invalid_request"]);
  });

  test("that was revoked by itself", async () => {
    const subject = await forOrders();
    await live.server.revokeToken(String(decodeJwt(subject).jti));
    expect(await refusal(exchange(subject))).toEqual([400, "invalid_request"]);
  });

  test("whose grant has ended", async () => {
    const by = await caller();
    const subject = await forOrders(by);
    await live.server.revokeGrant(by.grant ?? "");
    expect(await refusal(exchange(subject))).toEqual([400, "invalid_request"]);
  });

  test("whose first client was revoked, however often it was handed on", async () => {
    const id = String((await register(live)).body["client_id"]);
    const subject = await forOrders(await caller(live, browser, id));
    const next = String((await exchange(subject)).body["access_token"]);
    await live.server.revokeClient(id);
    expect(await refusal(exchange(subject))).toEqual([400, "invalid_request"]);
    expect(await refusal(exchange(next, { resource: LEDGER }, "stock"))).toEqual([400, "invalid_request"]);
    expect(await introspected(next, "stock")).toEqual({ active: false });
  });

  test("whose grant row is gone although its own is there, as after a crash in between", async () => {
    const by = await caller();
    const subject = await forOrders(by);
    await live.records.delete("oauth:Grant", by.grant ?? "");
    expect(await refusal(exchange(subject))).toEqual([400, "invalid_request"]);
  });

  test("that six have handed on already", async () => {
    const subject = await forOrders();
    const { jti = "" } = decodeJwt(subject);
    const row = await live.records.get<object>("oauth:AccessToken", jti);
    const act = { sub: "a", act: { sub: "b", act: { sub: "c", act: { sub: "d", act: { sub: "e" } } } } };
    await live.records.put("oauth:AccessToken", jti, { ...row?.value, extra: { act } });
    expect(await refusal(exchange(subject))).toEqual([400, "invalid_request"]);
  });

  test("into one that the gateway's own endpoint would take", async () => {
    const { body } = await exchange(await forOrders());
    expect((await call(live, String(body["access_token"]))).status).toBe(401);
    expect((await call(live, await forOrders())).status).toBe(401);
  });
});

test("an API is never given by an ordinary grant", async () => {
  const { authorizeUrl } = await import("./support.ts");
  const end = await browser.go(authorizeUrl(live, { client, resource: ORDERS }));
  expect(end?.searchParams.get("error")).toBe("invalid_target");
  const own = await token(live, { grant_type: "client_credentials", resource: STOCK }, basic("orders", SECRET));
  expect(own.body["error"]).toBe("invalid_target");
});
