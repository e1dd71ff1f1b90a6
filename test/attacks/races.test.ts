/** Twenty at once with one thing that counts once, half of them at each of two replicas: one wins, on every store. */
import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import { newInitialAccessToken } from "../../src/oauth/clients/initial-access.ts";
import type { AuthorizationServer } from "../../src/oauth/server.ts";
import {
  basic,
  clientAssertion,
  foreignIssuer,
  type Holder,
  holder,
  type Issuer,
  post,
  proof,
} from "../oauth/assertions.ts";
import { type Prover, prover } from "../oauth/minting.ts";
import {
  authorize,
  authorizeUrl,
  Browser,
  call,
  connect,
  PASSWORD,
  REDIRECT,
  refresh,
  register,
  setUp,
  token,
} from "../oauth/support.ts";
import { everyStore } from "../store/backends.ts";
import { attack } from "./checklist.ts";
import { type Pair, pairOn, twenty } from "./pair.ts";

const SECRET = "s".repeat(40);
const VERIFIER = "r".repeat(64);

/** A protected endpoint that takes bound tokens, as the gateway does. */
async function mcp(request: IncomingMessage, response: ServerResponse, server: AuthorizationServer): Promise<void> {
  const [scheme, given = ""] = (request.headers.authorization ?? "").split(" ");
  const jwt = String(request.headers["dpop"] ?? "");
  try {
    await server.verify(given, scheme === "DPoP" ? { jwt, method: request.method ?? "" } : undefined);
    response.setHeader("content-type", "application/json");
    response.end("{}");
  } catch (thrown) {
    response.writeHead(DrawbridgeError.from(thrown).http).end();
  }
}

describe.each(everyStore)("on $name, across two replicas, of twenty at once", (backend) => {
  let pair: Pair;
  let browser: Browser;
  let client: string;
  let keyed: Holder;
  let key: Holder;
  let platform: Issuer;

  beforeAll(async () => {
    [keyed, key, platform] = await Promise.all([holder(), holder(), foreignIssuer()]);
    pair = await pairOn(backend, {
      clients: {
        registration: "open",
        requestsPerSourcePerMinute: 0,
        preregistered: [
          { id: "nightly", name: "Nightly", secret: new Secret(SECRET), service: { groups: [] } },
          { id: "keyed", name: "Keyed", jwks: { keys: [keyed.jwk] }, service: { groups: [] } },
        ],
        workloads: [{ id: "ci", name: "CI", issuer: platform.issuer, subject: "ci" }],
      },
      tokens: { refreshGraceSeconds: 0 },
      mcp,
    });
    browser = await setUp(pair.both);
    client = String((await register(pair.both)).body["client_id"]);
  });
  afterAll(async () => {
    await pair?.[Symbol.asyncDispose]();
    await platform?.[Symbol.asyncDispose]();
  });

  /** Asked of each replica, and again until both have heard of it: a second at most. */
  const refusedEverywhere = (accessToken: string) =>
    vi.waitFor(
      async () => {
        for (const replica of [pair.first, pair.second])
          expect((await call({ ...replica, resource: pair.both.resource }, accessToken)).status).toBe(401);
      },
      { timeout: 1_500, interval: 50 },
    );

  attack([29, 30], "with one code one gets tokens; they end at once, as somebody else has the code too", async () => {
    const code = (await authorize(pair.both, browser, { client }, VERIFIER)).searchParams.get("code") ?? "";
    const form = {
      grant_type: "authorization_code",
      code,
      client_id: client,
      redirect_uri: REDIRECT,
      code_verifier: VERIFIER,
    };
    const answers = await twenty(() => token(pair.both, form));
    const won = answers.filter(({ status }) => status === 200);
    expect(won).toHaveLength(1);
    for (const { status, body } of answers)
      if (status !== 200)
        expect([status, body["error"], body["access_token"]]).toEqual([400, "invalid_grant", undefined]);
    const { access_token, refresh_token } = won[0]?.body ?? {};
    await refusedEverywhere(String(access_token));
    expect((await refresh(pair.both, client, String(refresh_token))).body["error"]).toBe("invalid_grant");
    // Alone, a code is as good at the one as at the other.
    const { access_token: fine } = await connect(pair.both, browser, { client });
    expect((await call(pair.both, fine)).status).toBe(200);
  });

  attack(39, "with one refresh token one gets a new one, and the whole family ends", async () => {
    const { refresh_token, access_token } = await connect(pair.both, browser, { client });
    expect((await call(pair.both, access_token)).status).toBe(200);
    const answers = await twenty(() => refresh(pair.both, client, refresh_token));
    const won = answers.filter(({ status }) => status === 200);
    expect(won).toHaveLength(1);
    for (const { status, body } of answers) if (status !== 200) expect(body["error"]).toBe("invalid_grant");
    await refusedEverywhere(access_token);
    await refusedEverywhere(String(won[0]?.body["access_token"]));
    expect((await refresh(pair.both, client, String(won[0]?.body["refresh_token"]))).body["error"]).toBe(
      "invalid_grant",
    );
  });

  attack(38, "with one client assertion one gets a token", async () => {
    const form = { grant_type: "client_credentials", ...(await clientAssertion(pair.both, "keyed", keyed)) };
    const answers = await twenty(() => token(pair.both, form));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    for (const { status, body } of answers)
      if (status !== 200) expect(body["error"]).toMatch(/^invalid_(client|grant)$/);
  });

  test("with one assertion of a workload's platform one gets a token", async () => {
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: platform.issuer, sub: "ci", aud: pair.both.base, iat: now, exp: now + 60 };
    const show = (assertion: string) =>
      token(pair.both, { grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer", assertion });
    const one = await platform.sign({ ...claims, jti: randomUUID() });
    const answers = await twenty(() => show(one));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    for (const { status, body } of answers) if (status !== 200) expect(body["error"]).toBe("invalid_grant");
    const all = await twenty(async () => show(await platform.sign({ ...claims, jti: randomUUID() })));
    expect(all.map(({ status }) => status)).toEqual(Array(20).fill(200));
  });

  attack([41, 74], "who renew their tokens while they are revoked, none has one that counts afterwards", async () => {
    for (const revoke of ["by the client", "by the user", "by an operator"] as const) {
      const id = String((await register(pair.both)).body["client_id"]);
      const families: Awaited<ReturnType<typeof connect>>[] = [];
      while (families.length < 4) families.push(await connect(pair.both, browser, { client: id }));
      await browser.go(`${pair.both.base}/account`);
      const end = async () => {
        if (revoke === "by an operator") return pair.second.server.revokeClient(id);
        if (revoke === "by the user") {
          const answer = await browser.fetch(`${pair.both.base}/account/revoke`, browser.form({ client: id }));
          return expect(answer.status).toBeLessThan(400);
        }
        for (const { refresh_token } of families)
          expect((await post(pair.both, "/oauth/revoke", { token: refresh_token, client_id: id })).status).toBe(200);
      };
      // Each renews what it was given last, as fast as it can, until it is refused.
      const chase = async ({ access_token, refresh_token }: { access_token: string; refresh_token: string }) => {
        const held = [{ access_token, refresh_token }];
        for (let n = 0; n < 40; n++) {
          const { status, body } = await refresh(pair.both, id, held.at(-1)?.refresh_token ?? "");
          if (status !== 200) break;
          held.push({ access_token: String(body["access_token"]), refresh_token: String(body["refresh_token"]) });
        }
        return held;
      };
      const [, ...all] = await Promise.all([end(), ...families.map(chase)]);
      for (const held of all) {
        for (const { access_token } of held.slice(-2)) await refusedEverywhere(access_token);
        expect((await refresh(pair.both, id, held.at(-1)?.refresh_token ?? "")).body["error"]).toBe("invalid_grant");
      }
    }
  });

  test("with one proof at the token endpoint one gets a token", async () => {
    const headers = { ...basic("nightly", SECRET), dpop: await proof(pair.both, key) };
    const answers = await twenty(() => token(pair.both, { grant_type: "client_credentials" }, headers));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    for (const { status, body } of answers)
      if (status !== 200) expect(body["error"]).toMatch(/^invalid_(dpop_proof|grant)$/);
  });

  test("with one proof at the resource one call is let in", async () => {
    const by: Prover = await prover("ES256", Date.now, pair.both.resource);
    const headers = {
      ...basic("nightly", SECRET),
      dpop: await by.prove("", { htu: `${pair.both.base}/oauth/token`, ath: undefined }),
    };
    const { body } = await token(pair.both, { grant_type: "client_credentials" }, headers);
    const bound = String(body["access_token"]);
    const show = async (jwt: string) => {
      const { status } = await fetch(pair.both.resource, {
        method: "POST",
        headers: { authorization: `DPoP ${bound}`, dpop: jwt },
      });
      return status;
    };
    const one = await by.prove(bound);
    const answers = await twenty(() => show(one));
    expect(answers.filter((status) => status === 200)).toHaveLength(1);
    expect(answers.filter((status) => status === 401)).toHaveLength(19);
    // Twenty proofs of their own are twenty calls.
    expect(await twenty(async () => show(await by.prove(bound)))).toEqual(Array(20).fill(200));
  });

  attack(20, "that answer one consent page one is the answer, and one grant is made", async () => {
    const { body } = await register(pair.both);
    const asking = String(body["client_id"]);
    await browser.go(authorizeUrl(pair.both, { client: asking }));
    const { url } = browser.last;
    const form = browser.form({ answer: "allow" });
    const answers = await twenty(() => browser.fetch(url, form));
    expect(answers.filter(({ status }) => status === 303)).toHaveLength(1);
    const events = [...pair.first.events, ...pair.second.events];
    expect(events.filter((event) => event.type === "consent-granted" && event.client === asking)).toHaveLength(1);
    const grants = await pair.first.records.list<{ clientId: string }>("oauth:Grant", { limit: 1000 });
    expect(grants.filter(({ value }) => value.clientId === asking)).toHaveLength(1);
    const won = answers.find(({ status }) => status === 303);
    expect((await browser.go(won?.headers.get("location") ?? ""))?.searchParams.get("code")).toBeTruthy();
  });

  attack(20, "that answer one consent page with yes and no, one answer counts", async () => {
    const asking = String((await register(pair.both)).body["client_id"]);
    await browser.go(authorizeUrl(pair.both, { client: asking }));
    const { url } = browser.last;
    const forms = (["allow", "deny"] as const).map((answer) => browser.form({ answer }));
    const answers = await twenty((index) => browser.fetch(url, forms[(index >> 1) & 1]));
    expect(answers.filter(({ status }) => status === 303)).toHaveLength(1);
    const counted = [...pair.first.events, ...pair.second.events].filter(
      (event) => (event.type === "consent-granted" || event.type === "consent-denied") && event.client === asking,
    );
    expect(counted).toHaveLength(1);
  });

  attack(51, "with an initial access token for three clients three register", async () => {
    await using here = await pairOn(backend, { clients: { registration: "initial-access-token" } });
    const made = await newInitialAccessToken(here.first.records, { uses: 3, expiresAt: Date.now() + 60_000 });
    const authorization = `Bearer ${made.token.reveal()}`;
    const answers = await twenty(() =>
      fetch(`${here.both.base}/oauth/register`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization },
        body: JSON.stringify({ redirect_uris: [REDIRECT], token_endpoint_auth_method: "none" }),
      }),
    );
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(3);
    expect(answers.filter(({ status }) => status === 401)).toHaveLength(17);
    expect(await here.first.records.list("oauth:Client", { limit: 100 })).toHaveLength(3);
  });

  test("with the set-up link one makes the first account", async () => {
    await using here = await pairOn(backend);
    const link = (await here.first.server.setupLink()) ?? "";
    const tries = await twenty(async (index) => {
      const each = new Browser(here.both.origin);
      await each.go(link);
      return { each, form: each.form({ name: `owner${index}`, password: PASSWORD, again: PASSWORD }) };
    });
    const answers = await Promise.all(tries.map(({ each, form }) => each.fetch(link, form)));
    expect(answers.filter(({ status }) => status === 303)).toHaveLength(1);
    expect(await here.first.records.find("oauth:user", "users", "all", { limit: 100 })).toHaveLength(1);
    expect(await here.second.server.setupLink()).toBeUndefined();
  });

  test("with things of their own, all twenty get theirs", async () => {
    const all = await twenty(() => token(pair.both, { grant_type: "client_credentials" }, basic("nightly", SECRET)));
    expect(all.map(({ status }) => status)).toEqual(Array(20).fill(200));
    const ids = all.map(({ body }) => decodeJwt(String(body["access_token"])).jti);
    expect(new Set([...ids, randomUUID()]).size).toBe(21);
    for (const { body } of all) expect((await call(pair.both, String(body["access_token"]))).status).toBe(200);
  });
});
