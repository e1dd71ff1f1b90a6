/** A gateway whose tokens another authorization server issues. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fixtureCommand } from "../fixtures/processes.ts";
import { type ForeignServer, foreignServer } from "../oauth/foreign-server.ts";
import { stop } from "../oauth/support.ts";
import { type World, world } from "./world.ts";

let http: Server;
let issuer: ForeignServer;
let one: World;

beforeAll(async () => {
  http = createServer(async (request, response) => {
    const answer = await issuer.http.fetch(new URL(request.url ?? "/", issuer.issuer));
    response.writeHead(answer.status, { "content-type": "application/json" }).end(await answer.text());
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  issuer = await foreignServer(Date.now, `http://127.0.0.1:${(http.address() as AddressInfo).port}`);
  const origin = issuer.issuer;
  issuer.answers.set(`${origin}/.well-known/oauth-authorization-server`, () =>
    Response.json({ issuer: origin, jwks_uri: `${origin}/keys`, token_endpoint: `${origin}/token` }),
  );
  one = await world({
    servers: { things: { command: fixtureCommand("echo-stdio") } },
    clients: undefined,
    authorization: { issuer: origin, scopes: { read: ["tools.read"], call: ["tools.call"] } },
    assign: [{ role: "owner", when: '"ops" in user.groups' }],
    roles: { owner: { may: ["*"] } },
  });
}, 30_000);
afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  await stop(http);
});

const claims = () => ({
  sub: "ann",
  aud: one.url,
  client_id: "agent",
  scope: "tools.read tools.call",
  groups: ["ops"],
});
const list = { jsonrpc: "2.0", id: 1, method: "tools/list" };

test("its tokens call, and their claims choose the roles", async () => {
  const answer = await one.post(list, {}, await issuer.sign(claims(), { typ: "at+jwt" }));
  expect(answer.status).toBe(200);
  expect(await answer.text()).toContain('"echo"');
  const nobody = await one.post(list, {}, await issuer.sign({ ...claims(), groups: [] }, { typ: "at+jwt" }));
  expect(await nobody.text()).not.toContain('"echo"');
});

test("a token for another audience is refused, and one with too few scopes is told what it needs there", async () => {
  const other = await one.post(list, {}, await issuer.sign({ ...claims(), aud: `${one.url}2` }, { typ: "at+jwt" }));
  expect(other.status).toBe(401);
  const narrow = await issuer.sign({ ...claims(), scope: "tools.read" }, { typ: "at+jwt" });
  const call = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "echo", arguments: { text: "hi" } } };
  const answer = await one.post(call, {}, narrow);
  expect(answer.status).toBe(403);
  expect(answer.headers.get("www-authenticate")).toMatch(/error="insufficient_scope".*scope="tools\.read tools\.call"/);
});

test("the metadata of the resource and the challenge lead there", async () => {
  const document = await (await fetch(`${one.origin}/.well-known/oauth-protected-resource/mcp`)).json();
  expect(document).toMatchObject({
    authorization_servers: [issuer.issuer],
    scopes_supported: ["tools.read", "tools.call"],
  });
  const challenge = (await one.post(list, {}, "")).headers.get("www-authenticate");
  expect(challenge).toMatch(/^Bearer resource_metadata="[^"]+", scope="tools\.read tools\.call"/);
});

test("the endpoints and pages of the embedded server are not there", async () => {
  for (const path of [
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/oauth/token",
    "/oauth/authorize",
    "/oauth/jwks",
    "/sign-in",
    "/account",
    "/setup/x",
  ])
    expect((await fetch(`${one.origin}${path}`)).status, path).toBe(404);
  expect(await one.gateway.setupLink()).toBeUndefined();
});
