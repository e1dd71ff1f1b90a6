/**
 * The authorization server while its store fails at one operation, the first, the second, the third … of every way that leads to
 * a token or ends one. Afterwards nothing counts that nobody was given, nothing was given without a record, and trying again
 * works or says clearly to start again.
 */
import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { newId } from "../../src/core/ids.ts";
import { Secret } from "../../src/core/secret.ts";
import type { OAuthEvent } from "../../src/oauth/server.ts";
import type { AuditRow, Records, Store } from "../../src/store/ports.ts";
import { faulty } from "../contract/faulty.ts";
import { basic, post } from "../oauth/assertions.ts";
import {
  authorizeUrl,
  type Browser,
  call,
  connect,
  REDIRECT,
  type Running,
  refresh,
  register,
  running,
  setUp,
  token,
} from "../oauth/support.ts";
import { type Backend, everyStore } from "../store/backends.ts";

const SECRET = "s".repeat(40);
const VERIFIER = "f".repeat(64);
const ORDERS = "https://orders.example/mcp";
const STOCK = "https://stock.example";
/** More operations than any of these ways has. */
const ENOUGH = 80;

interface Given {
  readonly type: string;
  readonly grant?: string;
  readonly token?: string;
}

interface Shaky extends AsyncDisposable {
  readonly live: Running;
  readonly browser: Browser;
  readonly client: string;
  /** The store itself, which does not fail. */
  readonly sound: Store;
  /** What the audit log says of grants and tokens that were given. */
  recorded(): Promise<readonly Given[]>;
  /** Runs `step` while the `nth` operation fails. True: there was one. */
  failing(nth: number, step: () => Promise<unknown>): Promise<boolean>;
}

async function shaky(backend: Backend, after: boolean, refreshGraceSeconds = 0): Promise<Shaky> {
  await using undo = new AsyncDisposableStack();
  const store: Store = undo.use(await backend.open());
  let current: Store = store;
  // What a replica looks at four times a second says nothing of the request under way.
  const switching = Object.fromEntries(
    Object.keys(store.records).map((name) => [
      name,
      (...words: readonly unknown[]) => {
        const { records } = name === "list" && words[0] === "changes" ? store : current;
        return (records[name as keyof Records] as (...all: readonly unknown[]) => unknown)(...words);
      },
    ]),
  ) as unknown as Records;
  const live = undo.use(
    await running({
      records: switching,
      clients: {
        registration: "open",
        requestsPerSourcePerMinute: 0,
        registrationsPerSourcePerHour: 10_000,
        preregistered: [
          {
            id: "orders",
            name: "Orders",
            secret: new Secret(SECRET),
            owns: [ORDERS],
            mayExchangeFor: [{ audience: STOCK, scopes: { "orders:read": ["stock:read"] } }],
          },
          { id: "stock", name: "Stock", secret: new Secret(SECRET), owns: [STOCK] },
          { id: "nightly", name: "Nightly", secret: new Secret(SECRET), service: { groups: [] } },
        ],
      },
      tokens: { refreshGraceSeconds },
      // As the gateway does: what cannot be written down is not granted.
      onEvent: async (event) => {
        await current.audit.append([recordOf(event)]);
      },
    }),
  );
  const browser = await setUp(live);
  const client = String((await register(live)).body["client_id"]);
  const kept = undo.move();
  const given: Given[] = [];
  let read = 0;
  const recorded = async (): Promise<readonly Given[]> => {
    const rows = await store.audit.read({ limit: 1000, after: read });
    read = rows.at(-1)?.sequence ?? read;
    const events = rows.map(({ json }) => JSON.parse(json) as Given);
    given.push(...events.filter(({ type }) => /^(consent-granted|token-(issued|refreshed|exchanged))$/.test(type)));
    return rows.length < 1000 ? given : recorded();
  };
  return {
    live,
    browser,
    client,
    sound: store,
    recorded,
    async failing(nth, step) {
      const failing = faulty(store, nth, { after });
      current = failing;
      try {
        await step();
      } finally {
        current = store;
      }
      return failing.operations >= nth;
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

function recordOf(event: OAuthEvent): AuditRow {
  const client = "client" in event ? event.client : undefined;
  const subject = "user" in event ? event.user : undefined;
  const json = JSON.stringify(event);
  return {
    id: newId(),
    at: Date.now(),
    subject,
    client,
    method: event.type,
    target: undefined,
    outcome: "permitted",
    traceId: undefined,
    json,
  };
}

/** Memory for every operation; elsewhere every fifth, as it is the same code above the same promises. */
const runs = everyStore.flatMap((backend) =>
  [false, true].map((after) => ({
    backend,
    after,
    step: backend.name === "memory" ? 1 : 5,
    title: `${backend.name}, ${after ? "the operation done and its answer lost" : "the operation not done"}`,
  })),
);

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

/** A refusal says what a client can act on, and nothing of the store. */
function expectClear({ status, body }: Answer): void {
  expect([400, 401, 500, 503]).toContain(status);
  expect(body["access_token"]).toBeUndefined();
  expect(body["error"]).toMatch(/^(invalid_grant|invalid_client|server_error|temporarily_unavailable)$/);
  expect(JSON.stringify(body)).not.toMatch(/on purpose|operation \d/);
}

/** There is no grant and no token of which the log says nothing. */
async function expectRecorded({ sound, recorded }: Shaky): Promise<void> {
  const log = await recorded();
  const [grants, tokens] = [new Set(log.map(({ grant }) => grant)), new Set(log.map(({ token }) => token))];
  for (const [kind, known] of [
    ["oauth:Grant", grants],
    ["oauth:AccessToken", tokens],
  ] as const)
    for (const { id } of await sound.records.list(kind, { limit: 1000 }))
      expect(known.has(id), `${kind} ${id} is recorded`).toBe(true);
}

describe.each(runs)("on $title", ({ backend, after, step }) => {
  let shared: Shaky;
  beforeAll(async () => {
    shared = await shaky(backend, after);
  });
  afterAll(() => shared?.[Symbol.asyncDispose]());

  /** Calls `run` for the first, second, third … operation until it goes through without a failure. */
  async function everyNth(run: (here: Shaky, nth: number) => Promise<boolean>, here = shared): Promise<void> {
    let nth = 1;
    for (; nth < ENOUGH; nth += step) if (!(await run(here, nth))) break;
    expect(nth).toBeGreaterThan(1);
    expect(nth).toBeLessThan(ENOUGH);
  }

  /** Whatever was answered has its row and its record, and works. */
  async function expectGiven(here: Shaky, { status, body }: Answer): Promise<void> {
    expect(status).toBe(200);
    const { jti = "" } = decodeJwt(String(body["access_token"]));
    expect(await here.sound.records.get("oauth:AccessToken", jti)).toBeDefined();
    expect((await here.recorded()).filter(({ token }) => token === jti)).toHaveLength(1);
    await expectRecorded(here);
  }

  test("an authorization gives tokens, or says so and gives none; the next one gives tokens", async () => {
    await everyNth(async (here, nth) => {
      const { live, browser, client } = here;
      const redeem = (code: string) =>
        token(live, {
          grant_type: "authorization_code",
          code,
          client_id: client,
          redirect_uri: REDIRECT,
          code_verifier: VERIFIER,
        });
      let end: URL | undefined;
      let code: string | undefined;
      let given: Answer | undefined;
      const failed = await here.failing(nth, async () => {
        end = await browser.go(authorizeUrl(live, { client }, VERIFIER));
        if (end === undefined && browser.last.text.includes("<legend>"))
          end = await browser.submit({ answer: "allow" });
        code = end?.searchParams.get("code") ?? undefined;
        if (code !== undefined) given = await redeem(code);
      });
      if (!failed) {
        expect(given?.status).toBe(200);
        return false;
      }
      if (given?.status === 200) await expectGiven(here, given);
      else if (given !== undefined) expectClear(given);
      else {
        // In the browser: a page that says what to do, or the error at the client.
        if (end === undefined) expect(browser.last.status).toBeGreaterThanOrEqual(400);
        else expect(end.searchParams.get("error")).toMatch(/^(server_error|temporarily_unavailable)$/);
        expect(browser.last.text).not.toMatch(/on purpose|operation \d/);
      }
      // The same code once more gives something only when it gave nothing before.
      if (code !== undefined) {
        const again = await redeem(code);
        if (again.status === 200) {
          expect(given?.status).not.toBe(200);
          await expectGiven(here, again);
          expect((await redeem(code)).status).toBe(400);
        } else expectClear(again);
      }
      await expectRecorded(here);
      const next = await connect(live, browser, { client });
      expect((await call(live, next.access_token)).status).toBe(200);
      return true;
    });
  });

  test("a refresh gives one pair of tokens, or none; trying again gives one, or says to start again", async () => {
    await everyNth(async (here, nth) => {
      const { live, browser, client } = here;
      const first = await connect(live, browser, { client });
      let answer: Answer | undefined;
      const failed = await here.failing(nth, async () => {
        answer = await refresh(live, client, first.refresh_token);
      });
      if (answer === undefined) throw new Error("no answer");
      if (!failed) {
        await expectGiven(here, answer);
        return false;
      }
      let given = 0;
      const newest: string[] = [];
      const look = async (at: Answer) => {
        if (at.status !== 200) return expectClear(at);
        given++;
        await expectGiven(here, at);
        newest.push(String(at.body["access_token"]), String(at.body["refresh_token"]));
      };
      await look(answer);
      for (let again = 0; again < 2; again++) await look(await refresh(live, client, first.refresh_token));
      expect(given).toBeLessThanOrEqual(1);
      await expectRecorded(here);
      // The old one was shown three times: that is a theft, so nothing of its family is left, given or not.
      const [access = first.access_token, renewing = first.refresh_token] = newest;
      for (const each of [first.access_token, access]) expect((await call(live, each)).status).toBe(401);
      expect((await refresh(live, client, renewing)).body["error"]).toBe("invalid_grant");
      return true;
    });
  });

  test("a refresh that failed is repeated with success within the grace, and what it gives can be renewed", async () => {
    await using patient = await shaky(backend, after, 10);
    await everyNth(async (here, nth) => {
      const { live, browser, client } = here;
      const first = await connect(live, browser, { client });
      let answer: Answer | undefined;
      const failed = await here.failing(nth, async () => {
        answer = await refresh(live, client, first.refresh_token);
      });
      if (answer === undefined) throw new Error("no answer");
      if (answer.status !== 200) {
        expectClear(answer);
        expect(answer.status).toBeGreaterThanOrEqual(500);
        answer = await refresh(live, client, first.refresh_token);
      }
      await expectGiven(here, answer);
      expect((await call(live, String(answer.body["access_token"]))).status).toBe(200);
      await expectGiven(here, await refresh(live, client, String(answer.body["refresh_token"])));
      return failed;
    }, patient);
  });

  test("a service's request gives a token, or none; the next one gives one", async () => {
    await everyNth(async (here, nth) => {
      const ask = () => token(here.live, { grant_type: "client_credentials" }, basic("nightly", SECRET));
      let answer: Answer | undefined;
      const failed = await here.failing(nth, async () => {
        answer = await ask();
      });
      if (answer === undefined) throw new Error("no answer");
      if (answer.status === 200) await expectGiven(here, answer);
      else expectClear(answer);
      await expectRecorded(here);
      await expectGiven(here, await ask());
      return failed;
    });
  });

  test("an exchange gives a token, or none; the next one gives one, and with its subject all of them end", async () => {
    await everyNth(async (here, nth) => {
      const { live, browser, client } = here;
      const { access_token } = await connect(live, browser, { client });
      const by = await live.server.verify(access_token);
      const to = { audience: ORDERS, scopes: { "mcp:read": ["orders:read"], "mcp:call": ["orders:read"] } };
      const subject = (await live.server.exchange(by, to, AbortSignal.timeout(5_000))).token.reveal();
      const ask = () =>
        token(
          live,
          {
            grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
            subject_token: subject,
            subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
            resource: STOCK,
          },
          basic("orders", SECRET),
        );
      const answers: Answer[] = [];
      const failed = await here.failing(nth, async () => answers.push(await ask()));
      const [answer] = answers;
      if (answer?.status !== 200) expectClear(answer ?? { status: 0, body: {} });
      answers.push(await ask());
      const given = answers.filter(({ status }) => status === 200);
      expect(given.length).toBe(failed && answer?.status !== 200 ? 1 : 2);
      const active = async ({ body }: Answer) =>
        (await post(live, "/oauth/introspect", { token: String(body["access_token"]) }, basic("stock", SECRET))).body[
          "active"
        ];
      for (const one of given) {
        await expectGiven(here, one);
        expect(await active(one)).toBe(true);
      }
      await live.server.revokeGrant(by.grant ?? "");
      for (const one of given) expect(await active(one)).toBe(false);
      return failed;
    });
  });

  describe("a revocation that says it is done is whole, and one that fails can be repeated", () => {
    type Way = (
      here: Shaky,
      tokens: { access_token: string; refresh_token: string },
      client: string,
    ) => Promise<number>;
    const byClient =
      (name: "access_token" | "refresh_token"): Way =>
      async ({ live }, tokens, client) =>
        (await post(live, "/oauth/revoke", { token: tokens[name], client_id: client })).status;
    const byServer =
      (
        end: (live: Running, who: { tokenId: string; grant: string; client: string; subject: string }) => Promise<void>,
      ): Way =>
      async ({ live, sound }, tokens) => {
        const { jti = "", gid, client_id, sub = "" } = decodeJwt(tokens.access_token);
        expect(sound).toBeDefined();
        try {
          await end(live, { tokenId: jti, grant: String(gid), client: String(client_id), subject: sub });
          return 200;
        } catch {
          return 500;
        }
      };
    const WAYS: readonly (readonly [string, Way])[] = [
      ["by its client, of a refresh token", byClient("refresh_token")],
      ["by its client, of an access token", byClient("access_token")],
      ["of a grant", byServer((live, { grant }) => live.server.revokeGrant(grant))],
      ["of a client", byServer((live, { client }) => live.server.revokeClient(client))],
      ["of a user", byServer((live, { subject }) => live.server.setUserDisabled(subject, true))],
      [
        "on the account page",
        async ({ live, browser }, _, client) => {
          const answer = await browser.fetch(`${live.base}/account/revoke`, browser.form({ client }));
          return answer.status;
        },
      ],
    ];

    test.each(WAYS)("%s", async (what, end) => {
      await everyNth(async (here, nth) => {
        const { live, browser, sound } = here;
        const client = String((await register(live)).body["client_id"]);
        const tokens = await connect(live, browser, { client });
        const { sub = "" } = decodeJwt(tokens.access_token);
        expect((await call(live, tokens.access_token)).status).toBe(200);
        await browser.go(`${live.base}/account`);
        let status = 0;
        const failed = await here.failing(nth, async () => {
          status = await end(here, tokens, client);
        });
        const valid = async () => (await call(live, tokens.access_token)).status === 200;
        if (status >= 400) {
          // Whoever asked is told, and asks again.
          if (what === "on the account page") await browser.go(`${live.base}/account`);
          expect(await end(here, tokens, client)).toBeLessThan(400);
        }
        await vi.waitFor(async () => expect(await valid()).toBe(false), { timeout: 2_000, interval: 20 });
        const renewed = await refresh(live, client, tokens.refresh_token);
        expect(renewed.body["error"]).toMatch(/^invalid_(grant|client)$/);
        if (what === "of a user") {
          await live.server.setUserDisabled(sub, false);
          expect(await valid()).toBe(false);
          await browser.go(`${live.base}/sign-in`);
          await browser.submit({ name: "olive", password: "four calm words here" });
        }
        expect(
          await sound.records.find("oauth:RefreshToken", "grant", String(decodeJwt(tokens.access_token)["gid"]), {
            limit: 9,
          }),
        ).toEqual([]);
        return failed;
      });
    });
  });
});
