/** What a thief, a confused client or another server's user tries at the MCP endpoint. Each title says what is refused. */
import { randomUUID } from "node:crypto";
import { connect as openSocket } from "node:net";
import { exportJWK, generateKeyPair, importJWK, type JWTPayload, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { settleSettings } from "../../src/config/load.ts";
import { type RunningGateway, startGateway } from "../../src/gateway/gateway.ts";
import { loadKeys } from "../../src/oauth/tokens/keys.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { modernRequest } from "../e2e/world.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { mint } from "../oauth/minting.ts";
import { everyStore } from "../store/backends.ts";

let gateway: RunningGateway;
let token: string;
let claims: JWTPayload;
const sqlite = everyStore.find(({ name }) => name === "sqlite");
const undo: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  const place = await sqlite?.place();
  if (place === undefined) throw new Error("no place for a store");
  undo.push(async () => void (await place[Symbol.asyncDispose]()));
  const loaded = await settleSettings(
    {
      store: place.setting,
      log: { level: "silent" },
      listen: { port: 0 },
      servers: { things: { command: fixtureCommand("echo-stdio") } },
    },
    process.cwd(),
    { env: process.env },
  );
  gateway = await startGateway({ settings: loaded, environment: process.env, logger: silentLogger });
  undo.push(() => gateway.close());
  await gateway.ready;
  const { sqliteStore } = await import("../../src/store/sqlite/sqlite.ts");
  const store = sqliteStore(place.setting.slice("sqlite:".length));
  undo.push(() => store.close());
  claims = { iss: gateway.publicUrl, aud: gateway.url };
  const minted = await mint(store.records, { claims });
  token = minted.token;
  claims = {
    ...claims,
    sub: minted.user,
    client_id: minted.client,
    gid: minted.grant,
    jti: minted.jti,
    scope: "mcp:read",
  };
  const keys = await loadKeys(store.records);
  keys.close();
  signing = keys.signing[0];
}, 30_000);
afterAll(async () => {
  for (const step of undo.toReversed()) await step();
});
let signing: Awaited<ReturnType<typeof loadKeys>>["signing"][number] | undefined;

const seconds = () => Math.floor(Date.now() / 1000);

async function signed(
  changed: Readonly<Record<string, unknown>> = {},
  header: Record<string, unknown> = {},
): Promise<string> {
  if (signing === undefined) throw new Error("no key");
  return new SignJWT({ iat: seconds(), exp: seconds() + 60, ...claims, ...changed })
    .setProtectedHeader({ alg: signing.alg, kid: signing.kid, typ: "at+jwt", ...header })
    .sign(await importJWK(signing, signing.alg));
}

async function list(headers: Record<string, string>, more: { url?: string; body?: string } = {}): Promise<Response> {
  const [body, own] = modernRequest("tools/list");
  return fetch(more.url ?? gateway.url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream", ...own, ...headers },
    body: more.body ?? JSON.stringify(body),
  });
}
const status = async (bearer: string) => (await list({ authorization: `Bearer ${bearer}` })).status;

test("a good token is accepted, so that the refusals below mean something", async () => {
  expect(await status(token)).toBe(200);
  expect(await status(await signed())).toBe(200);
});

describe("a token", () => {
  test("in the query, in a form or in the body is none", async () => {
    expect((await list({}, { url: `${gateway.url}?access_token=${token}` })).status).toBe(401);
    const form = await fetch(gateway.url, { method: "POST", body: new URLSearchParams({ access_token: token }) });
    expect(form.status).toBe(401);
    expect((await list({}, { body: JSON.stringify({ access_token: token }) })).status).toBe(401);
    expect((await list({ cookie: `access_token=${token}` })).status).toBe(401);
  });

  test.each([
    ["after two blanks", () => `Bearer  ${token}`],
    ["after a tab", () => `Bearer\t${token}`],
    ["with another one behind it", () => `Bearer ${token}, Bearer ${token}`],
    ["with words behind it", () => `Bearer ${token} x`],
    ["in quotes", () => `Bearer "${token}"`],
    ["as Basic", () => `Basic ${token}`],
    ["as Token", () => `Token ${token}`],
    ["without a scheme", () => token],
  ])("%s is refused", async (_what, header) => {
    expect((await list({ authorization: header() })).status).toBe(401);
  });

  test("that comes in the second of two Authorization headers, or in both, is refused", async () => {
    const { hostname, port, pathname } = new URL(gateway.url);
    for (const [one, two] of [
      ["Bearer x", `Bearer ${token}`],
      [`Bearer ${token}`, "Bearer x"],
      [`Bearer ${token}`, `Bearer ${token}`],
      ["DPoP x", `Bearer ${token}`],
    ]) {
      const answer = await new Promise<string>((resolve, reject) => {
        const socket = openSocket(Number(port), hostname, () =>
          socket.end(
            `POST ${pathname} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nAuthorization: ${one}\r\nAuthorization: ${two}\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`,
          ),
        );
        let text = "";
        socket.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk;
        });
        socket.on("end", () => resolve(text)).on("error", reject);
      });
      expect(answer).toMatch(/^HTTP\/1\.1 40[01] /);
    }
  });

  test.each<[string, () => Record<string, unknown>]>([
    ["for an audience that begins like ours", () => ({ aud: `${gateway.url}2` })],
    [
      "for an audience on a host that ends like ours",
      () => ({ aud: gateway.url.replace("127.0.0.1", "evil.127.0.0.1") }),
    ],
    ["for an audience with ours in it", () => ({ aud: `https://evil.example/?${gateway.url}` })],
    ["for our endpoint with a slash", () => ({ aud: `${gateway.url}/` })],
    ["for our origin", () => ({ aud: gateway.publicUrl })],
    ["for us and a stranger", () => ({ aud: [gateway.url, "https://other.example"] })],
    ["for us in a list", () => ({ aud: [gateway.url] })],
    ["for nobody", () => ({ aud: undefined })],
    ["of another issuer with the same key", () => ({ iss: "https://other.example" })],
    ["of our issuer with a slash", () => ({ iss: `${gateway.publicUrl}/` })],
    ["whose issue lies in the future", () => ({ iat: seconds() + 60 })],
    ["without an issue", () => ({ iat: undefined })],
    ["that never ends", () => ({ exp: undefined })],
    ["that ends when it pleases", () => ({ exp: "never" })],
    ["without an id", () => ({ jti: undefined })],
    ["with the id of no token of ours", () => ({ jti: randomUUID() })],
    ["without a client", () => ({ client_id: undefined })],
    ["that says it is bound to a key", () => ({ cnf: { jkt: "x" } })],
    ["of a service that is a person", () => ({ gid: undefined, client_id: claims.sub })],
  ])("%s is refused", async (_what, changed) => {
    expect(await status(await signed(changed()))).toBe(401);
  });

  test.each<[string, Record<string, unknown>]>([
    ["of the type of an ID token", { typ: "JWT" }],
    ["of the type of a proof", { typ: "dpop+jwt" }],
    ["of the type of an assertion", { typ: "oauth-id-jag+jwt" }],
    ["with a path for a key id", { kid: "../../keys" }],
  ])("%s is refused", async (_what, header) => {
    expect(await status(await signed({}, header))).toBe(401);
  });

  test("signed by a stranger's key is refused, wherever it says that its key is", async () => {
    for (const alg of ["ES256", "RS256", "EdDSA", "PS256"]) {
      const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
      for (const header of [
        { jwk: await exportJWK(publicKey) },
        { jku: `${gateway.publicUrl}/oauth/jwks` },
        { x5u: "https://evil.example/cert.pem" },
        { kid: signing?.kid },
        {},
      ]) {
        const forged = await new SignJWT({ iat: seconds(), exp: seconds() + 60, ...claims })
          .setProtectedHeader({ alg, typ: "at+jwt", ...header } as never)
          .sign(privateKey);
        expect(await status(forged)).toBe(401);
      }
    }
  });

  test("changed by a letter anywhere is refused", async () => {
    const good = await signed();
    const other = (char: string | undefined) => (char === "A" ? "B" : "A");
    for (const at of [5, good.indexOf(".") + 5, good.lastIndexOf(".") + 5])
      expect(await status(`${good.slice(0, at)}${other(good[at])}${good.slice(at + 1)}`)).toBe(401);
  });
});

test("every refusal for want of a token says where tokens come from, and nothing of why this one was refused", async () => {
  for (const headers of [
    {},
    { authorization: "Bearer x" },
    { authorization: `Bearer ${await signed({ jti: randomUUID() })}` },
  ]) {
    const answer = await list(headers as Record<string, string>);
    const challenge = answer.headers.get("www-authenticate") ?? "";
    expect(challenge).toContain(`resource_metadata="${gateway.publicUrl}/.well-known/oauth-protected-resource/mcp"`);
    expect(challenge).toContain('scope="mcp:read mcp:call"');
    expect(`${challenge}${await answer.text()}`).not.toMatch(/revoked|signature|jti|JWS/);
  }
});
