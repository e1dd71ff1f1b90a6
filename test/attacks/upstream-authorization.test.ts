/** Servers and authorization servers that want what is not theirs, and people who want others to connect for them (attacks 82 and 83). */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { createLogger } from "../../src/observe/logger.ts";
import { openStore } from "../../src/store/open.ts";
import type { Store } from "../../src/store/ports.ts";
import { authorizationClient } from "../../src/upstream/authorization/client.ts";
import { discover } from "../../src/upstream/authorization/discovery.ts";
import { authorizationNet } from "../../src/upstream/authorization/net.ts";
import { httpServer, type OAuthServerSettings } from "../../src/upstream/settings.ts";
import { openedRecords } from "../audit/opened.ts";
import { callTool, newUser, tokensOf } from "../e2e/connected.ts";
import { type World, world } from "../e2e/world.ts";
import { type Scripted, scriptedServer } from "../fixtures/scripted-authorization.ts";
import { Browser, listen, PASSWORD, stop } from "../oauth/support.ts";
import { attack, attackEach } from "./checklist.ts";

const METADATA = "/.well-known/oauth-authorization-server";
const RESOURCE = "/.well-known/oauth-protected-resource/mcp";
const CALLBACK = "http://127.0.0.1:9/connections/s/callback";

const settingsOf = (url: string, oauth: object = {}, more: object = {}) =>
  httpServer.parse({ url, credentials: { oauth: { of: "per-user", ...oauth } }, ...more }) as OAuthServerSettings;

describe("as a client of an authorization server that a server names, the gateway", () => {
  let server: Scripted;
  const closing: (() => Promise<void>)[] = [];
  beforeEach(async () => {
    server = await scriptedServer();
  });
  afterEach(async () => {
    for (const close of closing.splice(0)) await close();
    await server[Symbol.asyncDispose]();
  });
  const found = (url = server.url, more: object = {}, oauth: object = {}) => {
    const settings = settingsOf(url, oauth, more);
    const net = authorizationNet(settings, async () => [{ address: "127.0.0.1", family: 4 }]);
    closing.push(() => net.close());
    return discover({ name: "s", url, issuer: settings.credentials.oauth.issuer, net });
  };
  const client = () => {
    const settings = settingsOf(server.url);
    const made = authorizationClient({ name: "s", settings, net: authorizationNet(settings) });
    closing.push(() => made.close());
    return made;
  };
  const refused = { code: "upstream_failed", message: expect.not.stringMatching(/evil|tenant|127\.0\.0\.1/) };

  attackEach(
    82,
    [
      ["of another origin", "https://evil.example/mcp"],
      ["of a neighbour's path", "/tenant"],
      ["of the whole origin, said by one path of it", ""],
      ["of a longer path", "/mcp/more"],
      ["that is no URL", "urn:all"],
    ] as const,
    "goes no further on metadata of a resource %s",
    async (_, named) => {
      server.resource["resource"] = named.includes(":") ? named : `${server.origin}${named}`;
      await expect(found()).rejects.toMatchObject(refused);
      expect(server.seenAt(METADATA)).toHaveLength(0);
    },
  );

  attackEach(
    82,
    [
      ["another issuer", { issuer: "https://evil.example" }],
      ["another spelling of the issuer", { issuer: "http://127.0.0.1:1/" }],
      ["no PKCE", { code_challenge_methods_supported: undefined }],
      ["PKCE without S256", { code_challenge_methods_supported: ["plain"] }],
      ["an authorization endpoint that runs something", { authorization_endpoint: "javascript:alert(1)" }],
      ["an authorization endpoint over plain http", { authorization_endpoint: "http://evil.example/authorize" }],
      ["a token endpoint over plain http", { token_endpoint: "http://evil.example/token" }],
      ["a token endpoint that is a file", { token_endpoint: "file:///etc/passwd" }],
      ["endpoints of the wrong type", { token_endpoint: 1 }],
    ] as const,
    "goes no further on metadata with %s",
    async (_, changed) => {
      Object.assign(server.metadata, changed);
      await expect(found()).rejects.toMatchObject(refused);
    },
  );

  attackEach(
    82,
    [
      "http://evil.example/.well-known/oauth-protected-resource",
      "file:///etc/passwd",
      "javascript:alert(1)",
      "not a url",
    ],
    "fetches no metadata from %j, which a challenge names",
    async (named) => {
      server.challenge = `Bearer resource_metadata="${named}"`;
      await expect(found()).rejects.toMatchObject(refused);
    },
  );

  attackEach(82, ["301", "302", "307", "308"], "follows no redirect (%s) of a document", async (status) => {
    let strangers = 0;
    const elsewhere = createServer((_, response) => void response.end("{}"));
    elsewhere.on("connection", () => strangers++);
    closing.push(() => stop(elsewhere));
    const location = `http://127.0.0.1:${await listen(elsewhere)}/`;
    for (const place of [RESOURCE, METADATA]) {
      server.scripts.set(place, (_, response) => response.writeHead(Number(status), { location }).end());
      await expect(found()).rejects.toMatchObject({ code: "upstream_failed" });
      server.scripts.delete(place);
    }
    expect(strangers).toBe(0);
  });

  attackEach(
    82,
    ["10.1.2.3", "192.168.0.1", "169.254.169.254", "[::1]", "127.0.0.1", "metadata.internal", "localhost"],
    "asks nobody at %s when the server is a public one",
    async (host) => {
      let strangers = 0;
      const inside = createServer((_, response) => void response.end());
      inside.on("connection", () => strangers++);
      closing.push(() => stop(inside));
      const port = await listen(inside);
      // The name of the server resolves to this machine too, so that it can be tested at all: that must not open the way for others.
      const public_ = "http://public.example";
      const net = authorizationNet(settingsOf(`${public_}/mcp`, {}, { allowInsecureHttp: true }), async () => [
        { address: "127.0.0.1", family: 4 },
      ]);
      closing.push(() => net.close());
      for (const url of [`https://${host}:${port}/x`, `http://${host}:${port}/x`])
        await expect(net.fetch(url)).rejects.toMatchObject({ code: "outbound_refused" });
      expect(strangers).toBe(0);
    },
  );

  attackEach(
    82,
    [
      ["too large", JSON.stringify({ a: "x".repeat(1 << 20) })],
      ["not JSON", "<html>"],
      ["two things at once", '{"resource":"a","resource":"b","issuer":"a"}'],
      ["nothing", ""],
    ] as const,
    "reads no document that is %s",
    async (_, body) => {
      for (const place of [RESOURCE, METADATA]) {
        server.scripts.set(place, (_request, response) => void response.end(body));
        await expect(found()).rejects.toMatchObject({
          code: expect.stringMatching(/upstream_failed|outbound_refused/),
        });
        server.scripts.delete(place);
      }
    },
  );

  attack(82, "waits no longer than it may for a document that drips", async () => {
    server.scripts.set(RESOURCE, (_, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      const drip = setInterval(() => response.write(" "), 20);
      response.on("close", () => clearInterval(drip));
    });
    const net = authorizationNet(settingsOf(server.url), undefined, 500);
    closing.push(() => net.close());
    const asked = discover({ name: "s", url: server.url, issuer: undefined, net });
    await expect(asked).rejects.toMatchObject({ code: "upstream_timeout" });
  });

  attackEach(
    82,
    [
      ["of another issuer", { iss: "https://evil.example" }],
      ["of nobody, although its issuer says who it is", { iss: undefined }],
      ["with another state", { state: "somebody-elses" }],
      ["without a state", { state: undefined }],
      ["without a code", { code: undefined }],
    ] as const,
    "redeems no answer %s",
    async (_, more) => {
      const one = client();
      const at = await one.discover();
      const { url, departure } = await one.begin(at, { id: "c" }, CALLBACK, []);
      const answer = server.back(url, more).searchParams;
      await expect(one.finish(answer, departure)).rejects.toMatchObject({ code: "outbound_refused" });
      expect(server.seenAt("/token")).toHaveLength(0);
      await expect(one.finish(server.back(url).searchParams, departure)).resolves.toMatchObject({ scopes: ["read"] });
    },
  );

  attackEach(
    82,
    [
      ["is for another server", { aud: "https://evil.example/mcp" }],
      ["is for a neighbour on the same host", { aud: "NEIGHBOUR" }],
      ["is for others alone", { aud: ["https://a.example", "https://b.example"] }],
    ] as const,
    "keeps no token that %s",
    async (_, { aud }) => {
      const audience = aud === "NEIGHBOUR" ? `${server.origin}/tenant` : aud;
      const token = (claims: object) =>
        ["{}", JSON.stringify(claims), "s"].map((part) => Buffer.from(part).toString("base64url")).join(".");
      server.tokens = { ...server.tokens, access_token: token({ aud: audience }) };
      const one = client();
      const { url, departure } = await one.begin(await one.discover(), { id: "c" }, CALLBACK, []);
      const back = server.back(url).searchParams;
      await expect(one.finish(back, departure)).rejects.toMatchObject({ code: "upstream_failed" });
      server.tokens = { ...server.tokens, access_token: token({ aud: [server.url, "https://a.example"] }) };
      await expect(one.finish(back, departure)).resolves.toMatchObject({ resource: server.url });
    },
  );

  attack(
    82,
    "shows a refresh token to no other issuer than the one that gave it, whoever the server names later",
    async () => {
      const one = client();
      const { url, departure } = await one.begin(await one.discover(), { id: "c" }, CALLBACK, []);
      const given = await one.finish(server.back(url).searchParams, departure);
      const evil = await scriptedServer();
      closing.push(async () => evil[Symbol.asyncDispose]());
      server.resource["authorization_servers"] = [evil.origin];
      await client().refresh(given);
      expect(evil.seen).toHaveLength(0);
      server.metadata["issuer"] = evil.origin;
      await expect(client().refresh(given)).rejects.toMatchObject({ code: "upstream_failed" });
      expect(evil.seen).toHaveLength(0);
    },
  );
});

describe("somebody who connects a server", () => {
  let folder: string;
  let api: Scripted;
  let evil: Scripted;
  let here: World;
  let store: Store;
  let mallory: { readonly browser: Browser; readonly id: string };
  const logged: string[] = [];
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "drawbridge-connected-"));
    [api, evil] = [await scriptedServer(), await scriptedServer()];
    const servers = {
      api: { url: api.url, credentials: { oauth: "per-user" } },
      evil: { url: evil.url, credentials: { oauth: "per-user" } },
    };
    here = await world(
      { servers, store: `sqlite:${join(folder, "gateway.db")}` },
      { logger: createLogger({ level: "trace", format: "json" }, { write: (line: string) => void logged.push(line) }) },
    );
    store = await openStore(`sqlite:${join(folder, "gateway.db")}`, { baseDirectory: folder, warn: () => {} });
    mallory = await newUser(here, store, "mallory");
  });
  afterAll(async () => {
    await store?.close();
    await here?.[Symbol.asyncDispose]();
    await api?.[Symbol.asyncDispose]();
    await evil?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });
  beforeEach(() => {
    api.seen.length = 0;
    evil.seen.length = 0;
  });

  const begin = async (browser: Browser, server: string): Promise<URL> => {
    await browser.go(`/connections/${server}`);
    const away = await browser.submit({}, `/connections/${server}/connect`);
    if (away === undefined) throw new Error(browser.last.text);
    return away;
  };
  const stored = async () => (await store.records.list("connection", { limit: 100 })).length;

  attack(
    83,
    "who was sent somebody else's half-finished consent finishes nothing, and nobody is connected",
    async () => {
      const away = await begin(mallory.browser, "api");
      const back = api.back(away);
      await here.browser.go(back.href);
      expect(here.browser.last.status).toBe(403);
      expect(here.browser.last.text).toContain("begun by somebody else");
      expect(api.seenAt("/token")).toHaveLength(0);
      expect(await stored()).toBe(0);
      // Whoever began it can still end it.
      await mallory.browser.go(back.href);
      expect(mallory.browser.last.text).toContain("Connected.");
      expect(await stored()).toBe(1);
      await mallory.browser.submit({}, "/connections/api/disconnect");
      expect(await stored()).toBe(0);
    },
  );

  attack(
    83,
    "in another browser than the one that began finishes nothing, although they are the same person",
    async () => {
      const away = await begin(here.browser, "api");
      const other = new Browser(here.origin);
      await other.go("/sign-in");
      await other.submit({ name: "olive", password: PASSWORD });
      await other.go(api.back(away).href);
      expect(other.last.status).toBe(403);
      expect(other.last.text).toContain("in another browser");
      expect(api.seenAt("/token")).toHaveLength(0);
    },
  );

  attack(83, "who is signed in nowhere finishes nothing", async () => {
    const away = await begin(here.browser, "api");
    const nobody = new Browser(here.origin);
    await nobody.go(api.back(away).href);
    expect(nobody.last.status).toBe(403);
    expect(api.seenAt("/token")).toHaveLength(0);
  });

  attack(83, "uses an answer once", async () => {
    const away = await begin(here.browser, "api");
    const back = api.back(away).href;
    await here.browser.go(back);
    expect(here.browser.last.text).toContain("Connected.");
    await here.browser.go(back);
    expect(here.browser.last.status).toBe(400);
    expect(api.seenAt("/token")).toHaveLength(1);
  });

  attack(83, "begins nothing by a link: the page must have been shown to them, and the button be theirs", async () => {
    const fetched = await here.browser.fetch("/connections/api/connect");
    expect(fetched.status).toBe(404);
    const forged = await here.browser.fetch("/connections/api/connect", {
      method: "POST",
      body: new URLSearchParams({ form: "guessed" }),
      headers: { "sec-fetch-site": "cross-site" },
    });
    expect(forged.status).toBe(403);
    expect(api.seen).toHaveLength(0);
  });

  attack(83, "with a link that was made for another person is told so, and connects nothing", async () => {
    await here.browser.go(api.back(await begin(here.browser, "api")).href);
    const { access_token: token } = await tokensOf(here, mallory.browser);
    const answer = JSON.stringify(await vi.waitFor(() => called(token)));
    const link = /http:\/\/[^"\s]+\?for=[\w-]+/.exec(answer)?.[0] ?? "no link";
    await here.browser.go(link);
    expect(here.browser.last.status).toBe(403);
    expect(here.browser.last.text).toContain("made for another person");
    await mallory.browser.go(link);
    expect(mallory.browser.last.text).toContain("Connect api");
    expect(await stored()).toBe(1);
  });
  /** Of the tool that both know by now. */
  const called = async (token: string) => {
    const answer = await callTool(here, "api_t", {}, { token });
    expect(answer.result?.isError).toBe(true);
    return answer;
  };

  attack(
    82,
    "is mixed up by no server that sends another's answer to its own callback, or its own to another's",
    async () => {
      // The evil server's authorization endpoint hands the browser on to the honest one, with the evil state.
      const away = await begin(here.browser, "evil");
      const honest = new URL(api.back(away, { code: "stolen" }));
      expect(honest.pathname).toBe("/connections/evil/callback");
      await here.browser.go(honest.href);
      expect(here.browser.last.status).toBe(400);
      expect(evil.seenAt("/token")).toHaveLength(0);
      const again = await begin(here.browser, "evil");
      const crossed = api.back(again);
      crossed.pathname = "/connections/api/callback";
      await here.browser.go(crossed.href);
      expect(here.browser.last.status).toBe(400);
      expect([...evil.seenAt("/token"), ...api.seenAt("/token")]).toHaveLength(0);
    },
  );

  attack(82, "leaves no token in an answer, a page, a log line, a record, or readable in the store", async () => {
    api.tokens = { ...api.tokens, access_token: "canary-access", refresh_token: "canary-refresh" };
    const away = await begin(here.browser, "api");
    await here.browser.go(api.back(away, { code: "canary-code" }).href);
    await vi.waitFor(async () => expect((await callTool(here, "api_t")).result).toBeDefined());
    expect(api.seenAt("/mcp").some(({ headers }) => headers.authorization === "Bearer canary-access")).toBe(true);
    await here.browser.go("/account");
    const pages = here.browser.seen.map(({ text, headers }) => text + JSON.stringify([...headers])).join("");
    const file = ["", "-wal"].map((end) => readFileSync(join(folder, `gateway.db${end}`), "latin1")).join("");
    const records = JSON.stringify(await openedRecords(store));
    for (const text of [pages, file, records, logged.join(""), await here.metrics()]) {
      expect(text.length).toBeGreaterThan(0);
      expect(text).not.toMatch(/canary-(access|refresh)/);
    }
    expect(records).toContain("server-connected");
  });
});

test("of a good server all this is followed", async () => {
  const server = await scriptedServer();
  const settings = settingsOf(server.url);
  const net = authorizationNet(settings);
  const at = await discover({ name: "s", url: server.url, issuer: undefined, net });
  expect(at.server.issuer).toBe(server.origin);
  await net.close();
  await server[Symbol.asyncDispose]();
});
