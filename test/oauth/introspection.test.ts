import { randomUUID } from "node:crypto";
import { calculateJwkThumbprint, decodeJwt, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Authenticated } from "../../src/core/call.ts";
import { Secret } from "../../src/core/secret.ts";
import { verifies } from "../requirements.ts";
import { basic, clientAssertion, type Holder, holder, post, proof } from "./assertions.ts";
import { type Browser, call, connect, type Running, refresh, register, running, setUp, token } from "./support.ts";

const SECRET = "s".repeat(40);
const ORDERS = "https://orders.example/mcp";
const signal = new AbortController().signal;
const target = { audience: `${ORDERS}/`, scopes: { "mcp:read": ["orders:read"], "mcp:call": ["orders:write"] } };
const INACTIVE = { active: false };

let live: Running;
let browser: Browser;
let client: string;
let keyed: Holder;
let now = Date.now();

beforeAll(async () => {
  keyed = await holder();
  live = await running({
    clock: () => now,
    clients: {
      registration: "open",
      requestsPerSourcePerMinute: 0,
      preregistered: [
        { id: "orders", name: "Orders API", secret: new Secret(SECRET), owns: [ORDERS] },
        { id: "twin", name: "Orders API, second", jwks: { keys: [keyed.jwk] }, owns: [ORDERS] },
        { id: "other", name: "Other API", secret: new Secret(SECRET), owns: ["https://other.example"] },
        { id: "robot", name: "Robot", secret: new Secret(SECRET), service: { groups: [] } },
        { id: "portal", name: "Portal", secret: new Secret(SECRET), redirectUris: ["https://portal.example/cb"] },
      ],
    },
  });
  browser = await setUp(live);
  client = String((await register(live)).body["client_id"]);
});
afterAll(() => live[Symbol.asyncDispose]());

const look = async (token: string, as = "orders", more: Record<string, string> = {}) =>
  (await post(live, "/oauth/introspect", { token, ...more }, basic(as, SECRET))).body;
const revoke = (token: string, params: Record<string, string>, headers: Record<string, string> = {}) =>
  post(live, "/oauth/revoke", { token, ...params }, headers);

async function caller(): Promise<Authenticated> {
  return live.server.verify((await connect(live, browser, { client })).access_token);
}
async function forOrders(by?: Authenticated): Promise<string> {
  return (await live.server.exchange(by ?? (await caller()), target, signal)).token.reveal();
}
async function robots(headers: Record<string, string> = {}): Promise<string> {
  const { body } = await token(live, { grant_type: "client_credentials" }, { ...basic("robot", SECRET), ...headers });
  return String(body["access_token"]);
}

describe("who looks into a token", () => {
  verifies(
    ["rfc7662-active", "rfc7662-owner"],
    "that was sent to its API is told all there is to know, actors too",
    async () => {
      const by = await caller();
      const subject = await forOrders(by);
      const { iat, exp } = decodeJwt(subject);
      expect(await look(subject)).toEqual({
        active: true,
        iss: live.base,
        aud: ORDERS,
        sub: by.subject,
        client_id: live.base,
        scope: "orders:read orders:write",
        token_type: "Bearer",
        act: { sub: live.base },
        iat,
        exp,
      });
    },
  );

  test("may be any of the clients that are the API, however they authenticate", async () => {
    const subject = await forOrders();
    const { body } = await post(live, "/oauth/introspect", {
      token: subject,
      ...(await clientAssertion(live, "twin", keyed)),
    });
    expect(body["active"]).toBe(true);
  });

  test("may be the client that has it", async () => {
    expect(await look(await robots(), "robot")).toMatchObject({
      active: true,
      sub: "robot",
      client_id: "robot",
      aud: live.resource,
      token_type: "Bearer",
    });
  });

  test("is told of the key that it is bound to", async () => {
    const key = await holder();
    const bound = await robots({ dpop: await proof(live, key) });
    expect(await look(bound, "robot")).toMatchObject({
      active: true,
      token_type: "DPoP",
      cnf: { jkt: await calculateJwkThumbprint(key.jwk) },
    });
  });

  test("learns about a refresh token only when it is its own", async () => {
    const redirect = "https://portal.example/cb";
    const verifier = "p".repeat(64);
    const { authorize } = await import("./support.ts");
    const end = await authorize(live, browser, { client: "portal", redirect }, verifier);
    const params = {
      grant_type: "authorization_code",
      code: end.searchParams.get("code") ?? "",
      redirect_uri: redirect,
      code_verifier: verifier,
    };
    const { body } = await token(live, params, basic("portal", SECRET));
    const own = String(body["refresh_token"]);
    expect(await look(own, "portal")).toMatchObject({ active: true, client_id: "portal" });
    expect(await look(own, "portal", { token_type_hint: "access_token" })).toMatchObject({ active: true });
    expect(await look(own, "orders")).toEqual(INACTIVE);
  });
});

describe("a token is inactive", () => {
  verifies(["rfc7662-active", "rfc7662-owner"], "for another API, and for its owner's other tokens", async () => {
    const subject = await forOrders();
    expect(await look(subject, "other")).toEqual(INACTIVE);
    expect(await look(subject, "robot")).toEqual(INACTIVE);
    expect(await look(await robots(), "orders")).toEqual(INACTIVE);
    expect(await look((await connect(live, browser, { client })).access_token, "orders")).toEqual(INACTIVE);
  });

  test("when there is none like it", async () => {
    for (const unknown of ["x", "a.b.c", randomUUID(), "%00", "__proto__", "e30.e30.e30"])
      expect(await look(unknown), unknown).toEqual(INACTIVE);
  });

  test("when another key signed it, or another issuer did", async () => {
    const claims = decodeJwt(await forOrders());
    const forged = await new SignJWT(claims)
      .setProtectedHeader({ alg: "ES256", typ: "at+jwt" })
      .sign((await holder()).key);
    expect(await look(forged)).toEqual(INACTIVE);
    await using elsewhere = await running();
    expect(await look((await elsewhere.server.ownToken(target, signal)).token.reveal())).toEqual(INACTIVE);
  });

  test("when it is an id token", async () => {
    const { id_token = "" } = await connect(live, browser, { client, scope: "openid mcp:read" });
    expect(await look(id_token)).toEqual(INACTIVE);
  });

  test.each([
    ["it was revoked", async (_by: Authenticated, jti: string) => live.server.revokeToken(jti)],
    ["its grant has ended", async (by: Authenticated) => live.server.revokeGrant(by.grant ?? "")],
    [
      "its grant is gone, as after a crash in between",
      async (by: Authenticated) => live.records.delete("oauth:Grant", by.grant ?? ""),
    ],
  ])("when %s", async (_what, end) => {
    const by = await caller();
    const subject = await forOrders(by);
    expect((await look(subject))["active"]).toBe(true);
    await end(by, decodeJwt(subject).jti ?? "");
    expect(await look(subject)).toEqual(INACTIVE);
  });

  test("when the client that the person let in is switched off", async () => {
    const { disableClient, enableClient } = await import("../../src/oauth/clients/disabled.ts");
    const subject = await forOrders();
    await disableClient(live.records, client);
    expect(await look(subject)).toEqual(INACTIVE);
    await enableClient(live.records, client);
    expect((await look(subject))["active"]).toBe(true);
  });

  test("after its time", async () => {
    const subject = await forOrders();
    now += 301_000;
    const late = await look(subject);
    now -= 301_000;
    expect(late).toEqual(INACTIVE);
  });
});

describe("nobody looks into a token", () => {
  test.each([
    ["without credentials", {}, {}],
    ["with a wrong secret", {}, { authorization: `Basic ${btoa("orders:wrong")}` }],
    ["as a client that is unknown", { client_id: "nobody", client_secret: "x" }, {}],
  ])("%s", async (_how, params, headers) => {
    const all = { token: await forOrders(), ...(params as Record<string, string>) };
    const answer = await post(live, "/oauth/introspect", all, headers as Record<string, string>);
    expect([400, 401]).toContain(answer.status);
    expect(answer.body["active"]).toBeUndefined();
  });

  test("as a public client, not even into its own", async () => {
    const { access_token } = await connect(live, browser, { client });
    expect((await post(live, "/oauth/introspect", { token: access_token, client_id: client })).body["active"]).not.toBe(
      true,
    );
  });

  test("from a page of another site", async () => {
    const answer = await fetch(`${live.base}/oauth/introspect`, {
      method: "OPTIONS",
      headers: { origin: "https://evil.example" },
    });
    expect([answer.status, answer.headers.get("access-control-allow-origin")]).toEqual([405, null]);
  });

  test("with the token in the address", async () => {
    const answer = await fetch(`${live.base}/oauth/introspect?token=${await forOrders()}`, {
      method: "POST",
      headers: { ...basic("orders", SECRET), "content-type": "application/x-www-form-urlencoded" },
    });
    expect(answer.status).toBe(400);
  });
});

describe("a token is revoked", () => {
  verifies("rfc7009-revoked", "by its client, access token and refresh token alike", async () => {
    const first = await connect(live, browser, { client });
    expect((await revoke(first.access_token, { client_id: client })).status).toBe(200);
    expect((await call(live, first.access_token)).status).toBe(401);
    const second = await connect(live, browser, { client });
    expect((await revoke(second.refresh_token, { client_id: client })).status).toBe(200);
    expect((await refresh(live, client, second.refresh_token)).body["error"]).toBe("invalid_grant");
    expect((await call(live, second.access_token)).status).toBe(401);
  });

  test("by the service that has it", async () => {
    const own = await robots();
    expect((await revoke(own, {}, basic("robot", SECRET))).status).toBe(200);
    expect((await call(live, own)).status).toBe(401);
  });

  verifies(
    "rfc7009-other-client",
    "by nobody else, though the answer is the same: not another client, not its API, not a thief without credentials",
    async () => {
      const other = String((await register(live)).body["client_id"]);
      const { access_token, refresh_token } = await connect(live, browser, { client });
      for (const each of [access_token, refresh_token])
        expect((await revoke(each, { client_id: other })).status).toBe(200);
      expect((await call(live, access_token)).status).toBe(200);
      expect((await refresh(live, client, refresh_token)).status).toBe(200);
      const subject = await forOrders();
      expect((await revoke(subject, {}, basic("orders", SECRET))).status).toBe(200);
      expect((await look(subject))["active"]).toBe(true);
      const own = await robots();
      expect((await revoke(own, { client_id: "robot" })).status).toBe(401);
      expect((await call(live, own)).status).toBe(200);
    },
  );

  test("and takes with it what was exchanged for it, when it was the whole grant", async () => {
    const tokens = await connect(live, browser, { client });
    const subject = await forOrders(await live.server.verify(tokens.access_token));
    await revoke(tokens.refresh_token, { client_id: client });
    expect(await look(subject)).toEqual(INACTIVE);
  });
});
