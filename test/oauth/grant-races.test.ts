/** What counts once counts once on each store, whichever of two replicas is asked. */
import { randomUUID } from "node:crypto";
import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { type Pair, pairOn } from "../attacks/pair.ts";
import { everyStore } from "../store/backends.ts";
import { basic, foreignIssuer, type Holder, holder, type Issuer, post, proof } from "./assertions.ts";
import { type Browser, connect, type Running, register, setUp, token } from "./support.ts";

const SECRET = "s".repeat(40);
const ORDERS = "https://orders.example/mcp";
const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TARGET = { audience: ORDERS, scopes: undefined };
const signal = new AbortController().signal;

let work: Issuer;
let key: Holder;
beforeAll(async () => {
  [work, key] = await Promise.all([foreignIssuer(), holder()]);
});
afterAll(() => work[Symbol.asyncDispose]());

describe.each(everyStore.map((backend) => [backend.name, backend] as const))(
  "on %s, of twenty at two replicas",
  (_name, backend) => {
    let pair: Pair;
    let browser: Browser;
    let replicas: readonly [Running, Running];

    beforeAll(async () => {
      pair = await pairOn(backend, {
        signIn: { providers: { work: { issuer: work.issuer, clientId: "x", identityAssertions: true } } },
        clients: {
          registration: "open",
          requestsPerSourcePerMinute: 0,
          preregistered: [
            { id: "robot", name: "Robot", secret: new Secret(SECRET), service: { groups: [] } },
            { id: "orders", name: "Orders API", secret: new Secret(SECRET), owns: [ORDERS] },
          ],
          workloads: [{ id: "ci", name: "CI", issuer: work.issuer, subject: "ci" }],
        },
      });
      replicas = [pair.first, pair.second];
      browser = await setUp(pair.both);
    });
    afterAll(() => pair[Symbol.asyncDispose]());

    const twenty = async (ask: (replica: Running) => ReturnType<typeof token>) => {
      const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => ask(replicas[i % 2 === 0 ? 0 : 1])));
      return answers.filter(({ status }) => status === 200);
    };
    const assertion = (claims: Record<string, unknown>, header: Record<string, unknown> = {}) => {
      const now = Math.floor(Date.now() / 1000);
      const { base: aud } = replicas[0];
      return work.sign({ iss: work.issuer, aud, jti: randomUUID(), iat: now, exp: now + 300, ...claims }, header);
    };

    test("with one proof one gets a token, by the library's check", async () => {
      const dpop = await proof(replicas[0], key);
      const headers = { ...basic("robot", SECRET), dpop };
      expect(await twenty((replica) => token(replica, { grant_type: "client_credentials" }, headers))).toHaveLength(1);
    });

    test("with one proof one gets a token, by our own check", async () => {
      const dpop = await proof(replicas[0], key);
      const shown = await Promise.all(Array.from({ length: 20 }, () => assertion({ sub: "ci" })));
      const given = await twenty((replica) =>
        token(replica, { grant_type: JWT_BEARER, assertion: shown.pop() ?? "" }, { dpop }),
      );
      expect(given).toHaveLength(1);
    });

    test("with one assertion one gets a token", async () => {
      const shown = await assertion({ sub: "ci" });
      expect(await twenty((replica) => token(replica, { grant_type: JWT_BEARER, assertion: shown }))).toHaveLength(1);
    });

    test("with one identity assertion one gets a token, and its user is one user", async () => {
      const claims = { sub: randomUUID(), client_id: "robot", resource: replicas[0].resource, scope: "mcp:read" };
      const header = { typ: "oauth-id-jag+jwt" };
      const shown = await assertion(claims, header);
      const show = (text: string) => (replica: Running) =>
        token(replica, { grant_type: JWT_BEARER, assertion: text }, basic("robot", SECRET));
      const [given, ...others] = await twenty(show(shown));
      expect(others).toHaveLength(0);
      const again = await show(await assertion(claims, header))(replicas[1]);
      expect(decodeJwt(String(again.body["access_token"])).sub).toBe(
        decodeJwt(String(given?.body["access_token"])).sub,
      );
    });

    test("that exchange one caller's token each get one, and all are worth nothing once its grant has ended", async () => {
      const [first, second] = replicas;
      const client = String((await register(pair.both)).body["client_id"]);
      const { access_token } = await connect(pair.both, browser, { client });
      const [here, there] = await Promise.all(replicas.map(({ server }) => server.verify(access_token)));
      if (here === undefined || there === undefined) throw new Error("not verified");
      const made = await Promise.all(
        Array.from({ length: 20 }, (_, i) =>
          i % 2 ? first.server.exchange(here, TARGET, signal) : second.server.exchange(there, TARGET, signal),
        ),
      );
      const tokens = [...new Set(made.map(({ token: each }) => each.reveal()))];
      expect(tokens).toHaveLength(2);
      const active = async () => {
        const looked = tokens.map((each, i) =>
          post(replicas[i % 2 === 0 ? 0 : 1], "/oauth/introspect", { token: each }, basic("orders", SECRET)),
        );
        return (await Promise.all(looked)).map(({ body }) => body["active"]);
      };
      expect(await active()).toEqual([true, true]);
      await first.server.revokeGrant(here.grant ?? "");
      expect(await active()).toEqual([false, false]);
      await expect(second.server.exchange(there, { ...TARGET, scopes: ["new"] }, signal)).rejects.toMatchObject({
        code: "unauthenticated",
      });
    });
  },
);
