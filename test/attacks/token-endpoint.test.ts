/** What is sent to the token endpoint and its neighbours by somebody who should get nothing. Each title says what is refused. */
import { createPublicKey, hash } from "node:crypto";
import { type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { usersIn } from "../../src/oauth/people/users.ts";
import type { Row } from "../../src/store/ports.ts";
import { basic, clientAssertion, type Holder, holder, post } from "../oauth/assertions.ts";
import {
  authorize,
  authorizeUrl,
  type Browser,
  call,
  connect,
  PASSWORD,
  REDIRECT,
  type Running,
  refresh,
  register,
  running,
  setUp,
  token,
} from "../oauth/support.ts";
import { attack, attackEach } from "./checklist.ts";

const SECRET = "s".repeat(40);
const VERIFIER = "t".repeat(64);
const WEB = "https://billing.example/cb";
let live: Running;
let browser: Browser;
let client: string;
let keyed: Holder;

beforeAll(async () => {
  keyed = await holder();
  live = await running({
    clients: {
      registration: "open",
      requestsPerSourcePerMinute: 0,
      registrationsPerSourcePerHour: 1000,
      preregistered: [
        { id: "billing", name: "Billing", secret: new Secret(SECRET), redirectUris: [WEB] },
        { id: "keyed", name: "Keyed", jwks: { keys: [keyed.jwk] }, redirectUris: [WEB], service: { groups: [] } },
        { id: "orders", name: "Orders", secret: new Secret(SECRET), owns: ["https://orders.example"] },
      ],
    },
  });
  browser = await setUp(live);
  client = await registered();
});
afterAll(() => live[Symbol.asyncDispose]());

const registered = async (metadata = {}) => String((await register(live, metadata)).body["client_id"]);

async function codeFor(id = client, redirect = REDIRECT): Promise<string> {
  return (await authorize(live, browser, { client: id, redirect }, VERIFIER)).searchParams.get("code") ?? "";
}
function formOf(code: string, more: Record<string, string> = {}): Record<string, string> {
  return {
    grant_type: "authorization_code",
    code,
    client_id: client,
    redirect_uri: REDIRECT,
    code_verifier: VERIFIER,
    ...more,
  };
}

describe("a code", () => {
  attackEach(
    32,
    [
      ["no verifier", undefined],
      ["an empty verifier", ""],
      ["a verifier with a letter more", `${VERIFIER}t`],
      ["another verifier", "x".repeat(64)],
      ["its verifier in capitals", VERIFIER.toUpperCase()],
      ["its challenge for a verifier", hash("sha256", VERIFIER, "base64url")],
    ],
    "with %s gives nothing, then or later",
    async (_what, verifier) => {
      const code = await codeFor();
      const { code_verifier: _, ...without } = formOf(code);
      const wrong = await token(live, verifier === undefined ? without : { ...without, code_verifier: verifier });
      expect([wrong.status, wrong.body["error"]]).toEqual([400, "invalid_grant"]);
      expect((await token(live, formOf(code))).body["error"]).toBe("invalid_grant");
      expect((await token(live, formOf(await codeFor()))).status).toBe(200);
    },
  );

  attackEach(
    32,
    [[`${VERIFIER}=`], [` ${VERIFIER}`], ["t".repeat(42)], ["t".repeat(129)], [`${"t".repeat(60)}!`]],
    "with %j, which is no verifier, is refused",
    async (verifier) => {
      const code = await codeFor();
      const wrong = await token(live, formOf(code, { code_verifier: verifier }));
      expect([wrong.status, wrong.body["error"]]).toEqual([400, "invalid_request"]);
      expect((await token(live, formOf(code))).status).toBe(200);
    },
  );

  attack(32, "that was used is not forgotten by a wrong verifier: used once more it ends what it gave", async () => {
    const code = await codeFor();
    const { body } = await token(live, formOf(code));
    expect((await token(live, formOf(code, { code_verifier: "x".repeat(64) }))).body["error"]).toBe("invalid_grant");
    expect((await call(live, String(body["access_token"]))).status).toBe(200);
    expect((await token(live, formOf(code))).body["error"]).toBe("invalid_grant");
    expect((await call(live, String(body["access_token"]))).status).toBe(401);
  });

  attack(33, "to which no challenge belongs is refused with a verifier, and there is none", async () => {
    // There is no way to be given one: without a challenge there is no code. So one is made in the store.
    const url = new URL(authorizeUrl(live, { client }));
    for (const name of ["code_challenge", "code_challenge_method"]) url.searchParams.delete(name);
    expect((await browser.go(url.href))?.searchParams.get("error")).toBe("invalid_request");
    const code = await codeFor();
    await changed("oauth:AuthorizationCode", hash("sha256", code, "base64url"), (value) => {
      delete value["codeChallenge"];
      delete value["codeChallengeMethod"];
    });
    const answer = await token(live, formOf(code));
    expect([answer.status, answer.body["error"]]).toEqual([400, "invalid_grant"]);
  });

  attack([34, 35, 36], "of another client, for another redirect, or for another resource is refused", async () => {
    const other = await registered();
    for (const [more, error, still] of [
      [{ client_id: other }, "invalid_grant", 200],
      [{ redirect_uri: `${REDIRECT}/` }, "invalid_grant", 200],
      [{ redirect_uri: "http://localhost:49152/callback" }, "invalid_grant", 200],
      [{ resource: "https://other.example/mcp" }, "invalid_target", 400],
      [{ resource: `${live.resource}2` }, "invalid_target", 400],
    ] as const) {
      const code = await codeFor();
      expect((await token(live, formOf(code, more))).body["error"], JSON.stringify(more)).toBe(error);
      expect((await token(live, formOf(code))).status).toBe(still);
      expect((await token(live, formOf(await codeFor()))).status).toBe(200);
    }
  });
});

/** Writes to the store behind the server's back. */
async function changed(kind: string, id: string, change: (value: Record<string, unknown>) => void): Promise<void> {
  const row = (await live.records.get(kind, id)) as Row<Record<string, unknown>>;
  const value = { ...row.value };
  change(value);
  await live.records.put(kind, id, value, row.expiresAt === undefined ? {} : { expiresAt: row.expiresAt });
}

describe("a client with a secret", () => {
  const redeem = async (more: Record<string, string>, headers: Record<string, string> = {}, code?: string) => {
    const { client_id: _, ...form } = formOf(code ?? (await codeFor("billing", WEB)), { redirect_uri: WEB });
    return token(live, { ...form, ...more }, headers);
  };

  attackEach(
    37,
    [
      ["no secret", { client_id: "billing" }, {}],
      ["an empty secret", { client_id: "billing", client_secret: "" }, {}],
      ["a wrong secret in the form", { client_id: "billing", client_secret: `${SECRET}x` }, {}],
      ["a wrong secret in the header", {}, basic("billing", SECRET.slice(1))],
      ["the secret of another client", {}, basic("billing", `${SECRET} `)],
      ["another client's name", {}, basic("nobody", SECRET)],
    ],
    "that comes with %s is refused with 401",
    async (_what, form, headers) => {
      const code = await codeFor("billing", WEB);
      const answer = await redeem(form as Record<string, string>, headers as Record<string, string>, code);
      expect([answer.status, answer.body["error"]]).toEqual([401, "invalid_client"]);
      expect((await redeem({}, basic("billing", SECRET), code)).status).toBe(200);
    },
  );

  attack(37, "that authenticates in two ways at once is refused", async () => {
    const twice = await redeem({ client_id: "billing", client_secret: SECRET }, basic("billing", SECRET));
    expect([twice.status, twice.body["error"]]).toEqual([400, "invalid_request"]);
    const keys = await clientAssertion(live, "billing", keyed);
    const mixed = await redeem({ client_id: "billing", client_secret: SECRET, ...keys });
    expect([mixed.status, mixed.body["error"]]).toEqual([400, "invalid_request"]);
  });
});

describe("a client that signs", () => {
  const signed = (claims: Record<string, unknown> = {}, by = keyed) =>
    clientAssertion(live, "keyed", by, claims as JWTPayload);
  const ask = (assertion: Record<string, string>) => token(live, { grant_type: "client_credentials", ...assertion });
  const with_ = (client_assertion: string) => ({
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion,
  });
  const now = () => Math.floor(Date.now() / 1000);
  const claims = () => ({ iss: "keyed", sub: "keyed", aud: live.base, jti: crypto.randomUUID(), exp: now() + 60 });

  const BAD: readonly (readonly [string, () => Promise<Record<string, string>>])[] = [
    ["another audience", () => signed({ aud: "https://other.example" })],
    ["an end that is over", () => signed({ iat: now() - 120, exp: now() - 60 })],
    ["no end", () => signed({ exp: undefined })],
    ["no id", () => signed({ jti: undefined })],
    ["an issuer that is not its subject", () => signed({ iss: "billing" })],
    ["another client's subject", () => signed({ sub: "billing" })],
    ["a signature of another key", async () => signed({}, { ...(await holder()), jwk: keyed.jwk })],
    ["no signature", async () => with_(new UnsecuredJWT(claims()).encode())],
    [
      "a signature by its public key as a secret",
      async () => {
        const spki = createPublicKey({ key: { ...keyed.jwk }, format: "jwk" }).export({ type: "spki", format: "pem" });
        return with_(
          await new SignJWT(claims())
            .setProtectedHeader({ alg: "HS256", kid: keyed.jwk.kid ?? "" })
            .sign(Buffer.from(spki)),
        );
      },
    ],
    [
      "a key that it brings along",
      async () => {
        const own = await holder();
        const header = { alg: "ES256", jwk: { kty: "EC", crv: "P-256", x: own.jwk.x ?? "", y: own.jwk.y ?? "" } };
        return with_(await new SignJWT(claims()).setProtectedHeader(header).sign(own.key));
      },
    ],
  ];
  attackEach(38, BAD, "with %s in its assertion is refused with 401", async (_what, assertion) => {
    const answer = await ask(await assertion());
    expect([answer.status, answer.body["error"]]).toEqual([401, "invalid_client"]);
    expect((await ask(await signed())).status).toBe(200);
  });

  attack(38, "whose assertion was used is refused the second time", async () => {
    const once = await signed();
    expect((await ask(once)).status).toBe(200);
    const again = await ask(once);
    expect([again.status, again.body["access_token"]]).toEqual([401, undefined]);
  });

  attack(62, "and does not sign, or only says who it is, is refused", async () => {
    for (const headers of [{}, basic("keyed", SECRET)]) {
      const form = { grant_type: "client_credentials", ...("authorization" in headers ? {} : { client_id: "keyed" }) };
      const answer = await token(live, form, headers as Record<string, string>);
      expect([answer.status, answer.body["error"]]).toEqual([401, "invalid_client"]);
    }
  });
});

describe("a refresh token", () => {
  attack(40, "of another client, for more scopes or for another resource is refused", async () => {
    const { refresh_token } = await connect(live, browser, { client, without: ["mcp:call"] });
    const other = await registered();
    expect((await refresh(live, other, refresh_token)).body["error"]).toBe("invalid_grant");
    expect((await refresh(live, client, refresh_token, { scope: "mcp:read mcp:call" })).body["error"]).toBe(
      "invalid_scope",
    );
    for (const resource of ["https://other.example/mcp", "https://orders.example"])
      expect((await refresh(live, client, refresh_token, { resource })).body["error"]).toBe("invalid_target");
    const good = await refresh(live, client, refresh_token, { resource: live.resource, scope: "mcp:read" });
    expect([good.status, good.body["scope"]]).toEqual([200, "mcp:read"]);
  });

  const olive = async () => (await usersIn(live.records).lookUp("olive"))?.id ?? "";
  const signInAgain = async () => {
    await live.server.setUserDisabled(await olive(), false);
    await browser.go(`${live.base}/sign-in`);
    await browser.submit({ name: "olive", password: PASSWORD });
  };
  const ENDS: readonly (readonly [string, (client: string) => Promise<unknown>, (() => Promise<void>)?])[] = [
    ["its user was disabled", async () => live.server.setUserDisabled(await olive(), true), signInAgain],
    [
      "its consent was withdrawn",
      async (id) => {
        await browser.go(`${live.base}/account`);
        await browser.submit({ client: id }, `${live.base}/account/revoke`);
      },
    ],
    ["its client was revoked", (id) => live.server.revokeClient(id)],
  ];
  attackEach(41, ENDS, "is refused after %s, and its access token too", async (_what, end, after) => {
    const id = await registered();
    const tokens = await connect(live, browser, { client: id });
    expect((await call(live, tokens.access_token)).status).toBe(200);
    await end(id);
    expect((await refresh(live, id, tokens.refresh_token)).body["error"]).toBe("invalid_grant");
    expect((await call(live, tokens.access_token)).status).toBe(401);
    await after?.();
    // What has ended does not come back to life.
    expect((await refresh(live, id, tokens.refresh_token)).body["error"]).toBe("invalid_grant");
  });

  attack(41, "is refused after its client deleted its registration", async () => {
    const { body } = await register(live);
    const id = String(body["client_id"]);
    const tokens = await connect(live, browser, { client: id });
    const gone = await fetch(String(body["registration_client_uri"]), {
      method: "DELETE",
      headers: { authorization: `Bearer ${body["registration_access_token"]}` },
    });
    expect(gone.status).toBe(204);
    expect((await refresh(live, id, tokens.refresh_token)).body["error"]).toBe("invalid_client");
    expect((await call(live, tokens.access_token)).status).toBe(401);
  });
});

attackEach(
  42,
  [
    ["password", { username: "olive", password: PASSWORD }, "client", /^un(supported_grant_type|authorized_client)$/],
    ["implicit", {}, "client", /^un(supported_grant_type|authorized_client)$/],
    ["client_credentials", {}, "client", /^unauthorized_client$/],
    ["client_credentials", {}, "billing", /^unauthorized_client$/],
    [
      "urn:ietf:params:oauth:grant-type:token-exchange",
      { subject_token: "x" },
      "billing",
      /^un(supported_grant_type|authorized_client)$/,
    ],
    [
      "urn:ietf:params:oauth:grant-type:jwt-bearer",
      { assertion: "x" },
      "billing",
      /^un(supported_grant_type|authorized_client)$/,
    ],
    [
      "urn:ietf:params:oauth:grant-type:device_code",
      { device_code: "x" },
      "client",
      /^un(supported_grant_type|authorized_client)$/,
    ],
    ["Authorization_Code", {}, "client", /^un(supported_grant_type|authorized_client)$/],
  ],
  "the grant type %s is refused to who may not use it",
  async (grant_type, params, as, error) => {
    const [form, headers] = as === "client" ? [{ client_id: client }, {}] : [{}, basic(as, SECRET)];
    const answer = await token(
      live,
      { grant_type, ...params, ...form } as Record<string, string>,
      headers as Record<string, string>,
    );
    expect([answer.status, answer.body["error"]]).toEqual([400, expect.stringMatching(error)]);
    expect(answer.body["access_token"]).toBeUndefined();
  },
);

describe("a request to the token endpoint", () => {
  const send = async (init: RequestInit, query = "") => {
    const response = await fetch(`${live.base}/oauth/token${query}`, { method: "POST", ...init });
    return { status: response.status, headers: response.headers, text: await response.text() };
  };
  const form = async (more: Record<string, string> = {}) => new URLSearchParams(formOf(await codeFor(), more));
  const FORM = { "content-type": "application/x-www-form-urlencoded" };

  const SHAPES: readonly (readonly [string, () => Promise<[RequestInit, string?]>, readonly number[]])[] = [
    ["by GET", async () => [{ method: "GET" }, `?${await form()}`], [405]],
    ["by PUT", async () => [{ method: "PUT", body: await form() }], [405]],
    [
      "as JSON",
      async () => [
        { body: JSON.stringify(Object.fromEntries(await form())), headers: { "content-type": "application/json" } },
      ],
      [400, 415],
    ],
    ["with its parameters in the address", async () => [{ headers: FORM, body: "" }, `?${await form()}`], [400, 401]],
    [
      "with its code in the address and the rest in the body",
      async () => {
        const body = await form();
        const code = body.get("code") ?? "";
        body.delete("code");
        return [{ body }, `?code=${code}`];
      },
      [400],
    ],
    [
      "with its code twice",
      async () => {
        const body = await form();
        body.append("code", "x");
        return [{ body }];
      },
      [400],
    ],
    [
      "with its client twice",
      async () => {
        const body = await form();
        body.append("client_id", client);
        return [{ body }];
      },
      [400],
    ],
    ["with a megabyte", async () => [{ body: new URLSearchParams(formOf("x", { more: "x".repeat(1 << 20) })) }], [413]],
  ];
  attackEach(43, SHAPES, "%s is refused", async (_how, make, statuses) => {
    const [init, query] = await make();
    const answer = await send(init, query);
    expect(statuses).toContain(answer.status);
    expect(answer.text).not.toContain("access_token");
    expect(await send({ body: await form() })).toMatchObject({ status: 200 });
  });

  attack(
    44,
    "is answered with no-store, readable by any page but never with its cookies; authorize by none",
    async () => {
      for (const body of [await form(), new URLSearchParams({ grant_type: "x" })]) {
        const { headers } = await send({ body, headers: { origin: "https://page.example" } });
        expect(headers.get("cache-control")).toContain("no-store");
        expect(headers.get("access-control-allow-origin")).toBe("*");
        expect(headers.get("access-control-allow-credentials")).toBeNull();
        expect(headers.getSetCookie()).toEqual([]);
      }
      for (const path of ["/oauth/authorize", "/sign-in", "/account", "/oauth/introspect"])
        for (const method of ["GET", "OPTIONS", "POST"]) {
          const { headers } = await fetch(`${live.base}${path}`, {
            method,
            headers: { origin: "https://page.example", "access-control-request-method": "POST" },
            redirect: "manual",
          });
          expect(headers.get("access-control-allow-origin"), `${method} ${path}`).toBeNull();
          expect(headers.get("access-control-allow-credentials")).toBeNull();
        }
    },
  );
});

attack(
  46,
  "a revocation by another client is answered 200 and revokes nothing; looking into a token needs a client of its own",
  async () => {
    const mine = await connect(live, browser, { client });
    const stranger = await registered();
    for (const name of ["access_token", "refresh_token"] as const)
      expect((await post(live, "/oauth/revoke", { token: mine[name], client_id: stranger })).status).toBe(200);
    expect((await post(live, "/oauth/revoke", { token: mine.access_token }, basic("billing", SECRET))).status).toBe(
      200,
    );
    expect((await call(live, mine.access_token)).status).toBe(200);
    for (const [form, headers] of [
      [{}, {}],
      [{ client_id: client }, {}],
      [{}, basic("billing", "wrong")],
    ] as const) {
      const { status, body } = await post(
        live,
        "/oauth/introspect",
        { token: mine.access_token, ...form },
        headers as Record<string, string>,
      );
      expect(status === 200 ? body : { active: false }).toEqual({ active: false });
      if (!("client_id" in form)) expect(status).toBeGreaterThanOrEqual(400);
    }
    const looked = await post(live, "/oauth/introspect", { token: mine.access_token }, basic("orders", SECRET));
    expect(looked.body).toEqual({ active: false });
    expect((await post(live, "/oauth/revoke", { token: mine.access_token, client_id: client })).status).toBe(200);
    expect((await call(live, mine.access_token)).status).toBe(401);
    const fine = await refresh(live, client, (await connect(live, browser, { client })).refresh_token);
    expect(fine.status).toBe(200);
  },
);
