/** Two replicas behind one address, requests going to the one and the other in turn, on every store: as if there were one. */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { disableClient, enableClient } from "../../src/oauth/clients/disabled.ts";
import { newInitialAccessToken } from "../../src/oauth/clients/initial-access.ts";
import { usersIn } from "../../src/oauth/people/users.ts";
import { attack } from "../attacks/checklist.ts";
import { type Pair, pairOn } from "../attacks/pair.ts";
import { everyStore } from "../store/backends.ts";
import { basic, holder, post, proof } from "./assertions.ts";
import {
  authorize,
  authorizeUrl,
  Browser,
  call,
  connect,
  PASSWORD,
  REDIRECT,
  type Running,
  refresh,
  register,
  setUp,
  token,
} from "./support.ts";

const SECRET = "s".repeat(40);
const VERIFIER = "w".repeat(64);
const WEB = "https://shop.example/cb";

describe.each(everyStore)("on $name", (backend) => {
  let pair: Pair;
  let both: Running;
  let browser: Browser;
  let client: string;

  beforeAll(async () => {
    pair = await pairOn(backend, {
      clients: {
        registration: "open",
        requestsPerSourcePerMinute: 0,
        preregistered: [{ id: "nightly", name: "Nightly", secret: new Secret(SECRET), service: { groups: [] } }],
      },
    });
    both = pair.both;
    browser = await setUp(both);
    client = await registered();
  });
  afterAll(async () => {
    vi.useRealTimers();
    await pair?.[Symbol.asyncDispose]();
  });
  /** For both replicas and the library, which asks nobody for the time. */
  const later = (ms: number) => vi.setSystemTime(Date.now() + ms);

  const registered = async (metadata = {}) => String((await register(both, metadata)).body["client_id"]);
  const at = (index: 0 | 1): Running => ({ ...(index === 0 ? pair.first : pair.second), resource: both.resource });
  const accepted = async (accessToken: string) =>
    Promise.all([at(0), at(1)].map(async (replica) => (await call(replica, accessToken)).status === 200));
  /** Within a second, at both. */
  const refused = (accessToken: string) =>
    vi.waitFor(async () => expect(await accepted(accessToken)).toEqual([false, false]), {
      timeout: 1_500,
      interval: 50,
    });
  const codeFor = async (id = client) =>
    (await authorize(both, browser, { client: id }, VERIFIER)).searchParams.get("code") ?? "";
  const redeem = (code: string, id = client) =>
    token(both, {
      grant_type: "authorization_code",
      code,
      client_id: id,
      redirect_uri: REDIRECT,
      code_verifier: VERIFIER,
    });
  const events = (type: string) => [...pair.first.events, ...pair.second.events].filter((event) => event.type === type);

  test("an authorization that changes the replica at each step ends with tokens that both accept and either renews", async () => {
    const { balancer } = pair;
    const someone = new Browser(both.origin);
    balancer.to(0);
    await someone.fetch(authorizeUrl(both, { client }, VERIFIER));
    balancer.to(1);
    await someone.go(someone.last.headers.get("location") ?? "");
    expect(someone.last.text).toContain("<h1>Sign in</h1>");
    balancer.to(0);
    const signedIn = await someone.fetch(someone.last.url, someone.form({ name: "olive", password: PASSWORD }));
    balancer.to(1);
    await someone.go(signedIn.headers.get("location") ?? "");
    expect(someone.last.text).toContain("<legend>");
    balancer.to(0);
    const answered = await someone.fetch(someone.last.url, someone.form({ answer: "allow" }));
    balancer.to(1);
    const end = await someone.go(answered.headers.get("location") ?? "");
    balancer.to(0);
    let { body } = await redeem(end?.searchParams.get("code") ?? "");
    for (const index of [1, 0, 1] as const) {
      expect(await accepted(String(body["access_token"]))).toEqual([true, true]);
      balancer.to(index);
      ({ body } = await refresh(both, client, String(body["refresh_token"])));
    }
    expect(await accepted(String(body["access_token"]))).toEqual([true, true]);
    balancer.to("each in turn");
  });

  attack(29, "a code that was used at one is refused by the other, and what it gave ends", async () => {
    const code = await codeFor();
    const { body } = await redeem(code);
    expect(await accepted(String(body["access_token"]))).toEqual([true, true]);
    expect((await redeem(code)).body["error"]).toBe("invalid_grant");
    await refused(String(body["access_token"]));
    expect((await refresh(both, client, String(body["refresh_token"]))).body["error"]).toBe("invalid_grant");
  });

  attack(31, "a code older than a minute is refused; a younger one is not", async () => {
    const [young, old] = [await codeFor(), await codeFor()];
    later(55_000);
    expect((await redeem(young)).status).toBe(200);
    later(6_000);
    expect((await redeem(old)).body["error"]).toBe("invalid_grant");
  });

  attack(
    39,
    "a refresh token used again at the other within the grace is no theft, and after it ends the family",
    async () => {
      const { refresh_token } = await connect(both, browser, { client });
      const one = await refresh(both, client, refresh_token);
      later(2_000);
      const two = await refresh(both, client, refresh_token);
      expect([one.status, two.status]).toEqual([200, 200]);
      expect(await accepted(String(one.body["access_token"]))).toEqual([true, true]);
      later(11_000);
      expect((await refresh(both, client, refresh_token)).body["error"]).toBe("invalid_grant");
      for (const { body } of [one, two]) {
        await refused(String(body["access_token"]));
        expect((await refresh(both, client, String(body["refresh_token"]))).body["error"]).toBe("invalid_grant");
      }
    },
  );

  attack(
    [41, 74],
    "tokens of a revoked token, grant, client or user are refused by both, and not renewed",
    async () => {
      const user = (await usersIn(pair.first.records).lookUp("olive"))?.id ?? "";
      const ends: readonly [
        string,
        (who: { grant: string; tokens: { refresh_token: string } }, id: string) => Promise<unknown>,
      ][] = [
        [
          "refresh token",
          ({ tokens }, id) => post(both, "/oauth/revoke", { token: tokens.refresh_token, client_id: id }),
        ],
        ["grant", ({ grant }) => pair.first.server.revokeGrant(grant)],
        ["client", (_, id) => pair.second.server.revokeClient(id)],
        ["switched-off client", (_, id) => disableClient(pair.first.records, id)],
        [
          "consent",
          async (_, id) => {
            await browser.go(`${both.base}/account`);
            await browser.submit({ client: id }, `${both.base}/account/revoke`);
          },
        ],
        ["user", () => pair.second.server.setUserDisabled(user, true)],
      ];
      const untouched = await connect(both, browser, { client });
      for (const [what, end] of ends) {
        const id = await registered();
        const tokens = await connect(both, browser, { client: id });
        const { body } = await call(at(1), tokens.access_token);
        expect(await accepted(tokens.access_token)).toEqual([true, true]);
        await end({ grant: body.grant ?? "", tokens }, id);
        await refused(tokens.access_token);
        const renewed = await refresh(both, id, tokens.refresh_token);
        expect([what, renewed.body["error"]]).toEqual([what, expect.stringMatching(/^invalid_(grant|client)$/)]);
        if (what !== "user") expect(await accepted(untouched.access_token)).toEqual([true, true]);
        await enableClient(pair.first.records, id);
      }
      await refused(untouched.access_token);
      await pair.first.server.setUserDisabled(user, false);
      // Their sessions ended too.
      await browser.go(`${both.base}/sign-in`);
      await browser.submit({ name: "olive", password: PASSWORD });
      const again = await connect(both, browser, { client });
      expect(await accepted(again.access_token)).toEqual([true, true]);
    },
  );

  attack(
    74,
    "one access token that was revoked at one is refused by the other, and its client's next one is not",
    async () => {
      const tokens = await connect(both, browser, { client });
      const { body } = await call(at(1), tokens.access_token);
      await pair.first.server.revokeToken(body.tokenId ?? "");
      await refused(tokens.access_token);
      const renewed = await refresh(both, client, tokens.refresh_token);
      expect(await accepted(String(renewed.body["access_token"]))).toEqual([true, true]);
    },
  );

  attack(
    20,
    "a question answered at one is over at the other, and one not answered in ten minutes is over at both",
    async () => {
      await browser.go(authorizeUrl(both, { client }));
      const { url } = browser.last;
      const form = browser.form({ answer: "deny" });
      expect((await browser.fetch(url, form)).status).toBe(303);
      for (const _ of [0, 1]) expect((await browser.fetch(url, form)).status).toBe(400);
      await browser.go(authorizeUrl(both, { client }));
      const second = { url: browser.last.url, form: browser.form({ answer: "allow" }) };
      later(601_000);
      for (const _ of [0, 1]) expect((await browser.fetch(second.url, second.form)).status).toBe(400);
    },
  );

  attack(
    22,
    "what was allowed at one need not be asked at the other, but for something more, and not after it was withdrawn",
    async () => {
      const web = await registered({ redirect_uris: [WEB] });
      const none = { headers: { "sec-fetch-site": "none" } };
      const ask = (scope: string) => browser.go(authorizeUrl(both, { client: web, redirect: WEB, scope }), none);
      await authorize(both, browser, { client: web, redirect: WEB, scope: "mcp:read" });
      for (const _ of [0, 1]) expect((await ask("mcp:read"))?.searchParams.get("code")).toBeTruthy();
      for (const _ of [0, 1]) expect(await ask("mcp:read mcp:call")).toBeUndefined();
      await browser.go(`${both.base}/account`);
      await browser.submit({ client: web }, `${both.base}/account/revoke`);
      for (const _ of [0, 1]) expect(await ask("mcp:read")).toBeUndefined();
    },
  );

  test("a nonce that one gave for a proof is good at the other, and a proof that one took is refused by the other", async () => {
    const key = await holder();
    const ask = (dpop: string) =>
      token(both, { grant_type: "client_credentials" }, { ...basic("nightly", SECRET), dpop });
    const iat = Math.floor(Date.now() / 1000);
    const old = await ask(await proof(both, key, { iat: iat - 1_000 }));
    expect(old.body["error"]).toBe("use_dpop_nonce");
    const nonce = old.headers.get("dpop-nonce") ?? "";
    for (const _ of [0, 1]) expect((await ask(await proof(both, key, { iat, nonce }))).status).toBe(200);
    const used = await proof(both, key, { iat });
    expect((await ask(used)).status).toBe(200);
    for (const _ of [0, 1]) expect((await ask(used)).status).toBe(400);
  });

  attack(
    [50, 51],
    "an initial access token lets no more register than it is for, wherever they ask, and none when it is old",
    async () => {
      await using here = await pairOn(backend, {
        clients: { registration: "initial-access-token" },
      });
      const as = (made: { token: Secret }) => (again: boolean) =>
        fetch(`${here.both.base}/oauth/register`, {
          method: "POST",
          headers: { "content-type": "application/json", authorization: `Bearer ${made.token.reveal()}` },
          body: JSON.stringify({ redirect_uris: [REDIRECT], token_endpoint_auth_method: "none", again }),
        }).then(({ status }) => status);
      const two = as(await newInitialAccessToken(here.first.records, { uses: 2, expiresAt: Date.now() + 60_000 }));
      expect([await two(false), await two(true), await two(true), await two(true)]).toEqual([201, 201, 401, 401]);
      const brief = as(await newInitialAccessToken(here.first.records, { uses: 9, expiresAt: Date.now() + 60_000 }));
      expect(await brief(false)).toBe(201);
      later(61_000);
      expect([await brief(true), await brief(true)]).toEqual([401, 401]);
    },
  );

  test("the set-up link that is newest counts at both, for a day", async () => {
    await using here = await pairOn(backend);
    const old = (await here.first.server.setupLink()) ?? "";
    const link = (await here.second.server.setupLink()) ?? "";
    const status = async (url: string) => (await new Browser(here.both.origin).fetch(url)).status;
    for (const _ of [0, 1]) expect([await status(old), await status(link)]).toEqual([404, 200]);
    later(24 * 3_600_000 + 1);
    for (const _ of [0, 1]) expect(await status(link)).toBe(404);
  });

  test("every consent and token that was given is recorded once, at the replica that gave it", () => {
    const issued = events("token-issued").map((event) => JSON.stringify(event));
    expect(new Set(issued).size).toBe(issued.length);
    expect(pair.first.events.length).toBeGreaterThan(10);
    expect(pair.second.events.length).toBeGreaterThan(10);
  });
});
