/** Client ID metadata documents: those of real clients, the operator's trust, and how often any of them is fetched. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { describe, expect, test, vi } from "vitest";
import { cachedDocuments } from "../../src/net/cached.ts";
import { outbound } from "../../src/net/outbound.ts";
import { clientDocuments } from "../../src/oauth/clients/client-documents.ts";
import { clientPolicy, DOCUMENT_LIMITS, documentNet } from "../../src/oauth/clients/clients.ts";
import { documentStanding } from "../../src/oauth/clients/document-standing.ts";
import { clientsSettings, signInSettings } from "../../src/oauth/settings.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import {
  type AskOptions,
  authorize,
  authorizeUrl,
  type Browser,
  call,
  connect,
  type DocumentHost,
  documentHost,
  REDIRECT,
  type Running,
  refresh,
  running,
  setUp,
  token,
} from "./support.ts";

const sha256 = (text: string | Uint8Array) => createHash("sha256").update(text).digest("hex");

/** Documents in the shape that these clients publish, and a redirect that each of them asks for. */
const REAL_CLIENTS: Readonly<Record<string, { document: Record<string, unknown>; redirects: readonly string[] }>> = {
  "Claude Code, whose loopback redirects have no port": {
    document: {
      client_name: "Claude Code",
      client_uri: "https://claude.ai",
      redirect_uris: ["http://localhost/callback", "http://127.0.0.1/callback"],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    },
    redirects: ["http://localhost:51234/callback", "http://127.0.0.1:61234/callback", "http://localhost/callback"],
  },
  "VS Code, which has many redirects, on the web and on the machine": {
    document: {
      client_name: "Visual Studio Code",
      client_uri: "https://vscode.dev/product",
      grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
      application_type: "native",
      redirect_uris: [
        "https://vscode.dev/redirect",
        "https://insiders.vscode.dev/redirect",
        "http://localhost/",
        "http://127.0.0.1/",
        ...Array.from({ length: 12 }, (_, i) => `http://127.0.0.1:${33418 + i}/`),
        ...Array.from({ length: 12 }, (_, i) => `http://localhost:${33418 + i}/`),
      ],
    },
    redirects: [
      "https://vscode.dev/redirect",
      "http://127.0.0.1:33418/",
      "http://127.0.0.1:50001/",
      "http://localhost:50001/",
    ],
  },
  "opencode, with one fixed loopback redirect and no more than it must say": {
    document: { client_name: "OpenCode", redirect_uris: ["http://127.0.0.1:19876/mcp/oauth/callback"] },
    redirects: ["http://127.0.0.1:19876/mcp/oauth/callback"],
  },
  "Cursor, which has a scheme of its own": {
    document: {
      client_name: "Cursor",
      redirect_uris: [
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://www.cursor.com/agents/mcp/oauth/callback",
      ],
      token_endpoint_auth_method: "none",
      scope: "openid profile mcp:read offline_access",
    },
    redirects: ["cursor://anysphere.cursor-mcp/oauth/callback", "https://www.cursor.com/agents/mcp/oauth/callback"],
  },
  "a client that also has a scheme that is not allowed here": {
    document: {
      client_name: "Editor",
      redirect_uris: ["other-editor://cb", "com.example.editor:/cb", "http://127.0.0.1/cb"],
    },
    redirects: ["http://127.0.0.1:4000/cb"],
  },
  "a web client with members that nobody knows, and some that would make us fetch": {
    document: {
      client_name: "Web client",
      redirect_uris: ["https://app.shop.example/cb"],
      application_type: null,
      token_endpoint_auth_method: null,
      grant_types: null,
      scope: "",
      contacts: ["ops@shop.example"],
      logo_uri: "https://localhost:1/logo.svg",
      tos_uri: "https://localhost:1/tos",
      policy_uri: "https://localhost:1/policy",
      sector_identifier_uri: "https://localhost:1/sector",
      request_uris: ["https://localhost:1/request"],
      initiate_login_uri: "https://localhost:1/login",
      "x-vendor": { a: [1, 2, { b: null }] },
      subject_type: "pairwise",
      id_token_signed_response_alg: "HS256",
      default_max_age: 1,
      require_pushed_authorization_requests: true,
    },
    redirects: ["https://app.shop.example/cb"],
  },
};

describe("the document of", () => {
  test.each(Object.entries(REAL_CLIENTS))("%s is taken as it is meant", async (_title, { document, redirects }) => {
    await using host = await documentHost();
    await using live = await running({ clients: { metadataDocuments: host.settings } });
    const browser = await setUp(live);
    const client = host.publish("/client.json", document);
    for (const redirect of redirects) {
      const tokens = await connect(live, browser, { client, redirect });
      expect((await call(live, tokens.access_token)).status).toBe(200);
      expect((await refresh(live, client, tokens.refresh_token)).status).toBe(200);
    }
    // Nothing but the document was fetched, and that once.
    expect(host.requests.map(({ path }) => path)).toEqual(["/client.json"]);
    await browser.go(authorizeUrl(live, { client, redirect: "http://127.0.0.1.evil.example/callback" }));
    expect(browser.last.status).toBe(400);
  });

  test("a client that does not name refresh_token gets none", async () => {
    await using host = await documentHost();
    await using live = await running({ clients: { metadataDocuments: host.settings } });
    const browser = await setUp(live);
    const client = host.publish("/client.json", { grant_types: ["authorization_code"] });
    expect(await connect(live, browser, { client })).not.toHaveProperty("refresh_token");
  });
});

describe("a client that signs", () => {
  async function signing(host: DocumentHost, path: string, metadata: (jwk: object) => Record<string, unknown>) {
    const { privateKey, publicKey } = await generateKeyPair("ES256");
    const jwk = { ...(await exportJWK(publicKey)), kid: "k1", alg: "ES256", use: "sig" };
    const client = host.publish(path, { token_endpoint_auth_method: "private_key_jwt", ...metadata(jwk) });
    const assertion = (live: Running) =>
      new SignJWT({ jti: crypto.randomUUID() })
        .setProtectedHeader({ alg: "ES256", kid: "k1" })
        .setIssuer(client)
        .setSubject(client)
        .setAudience(live.server.metadata.issuer)
        .setIssuedAt()
        .setExpirationTime("1m")
        .sign(privateKey);
    return { client, jwk, assertion };
  }

  async function redeem(live: Running, browser: Browser, client: string, more: Record<string, string>) {
    const end = await authorize(live, browser, { client } satisfies AskOptions);
    return token(live, {
      grant_type: "authorization_code",
      code: end.searchParams.get("code") ?? "",
      code_verifier: "v".repeat(64),
      client_id: client,
      redirect_uri: REDIRECT,
      resource: live.resource,
      ...more,
    });
  }
  const signed = (assertion: string) => ({
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: assertion,
  });

  test.each([
    ["with its keys in the document", false],
    ["with its keys behind jwks_uri", true],
  ])("%s gets tokens by signing, and none without", async (_title, apart) => {
    await using host = await documentHost();
    await using live = await running({ clients: { metadataDocuments: host.settings } });
    const browser = await setUp(live);
    const { client, jwk, assertion } = await signing(host, "/signs.json", (key) =>
      apart ? { jwks_uri: `https://localhost:${host.port}/keys` } : { jwks: { keys: [key] } },
    );
    host.serve("/keys", (_request, response) => {
      response.writeHead(200, { "content-type": "application/jwk-set+json" }).end(JSON.stringify({ keys: [jwk] }));
    });
    expect((await redeem(live, browser, client, signed(await assertion(live)))).status).toBe(200);
    expect(await redeem(live, browser, client, {})).toMatchObject({ status: 401, body: { error: "invalid_client" } });
    const stranger = await signing(host, "/stranger.json", (key) => ({ jwks: { keys: [key] } }));
    expect(await redeem(live, browser, client, signed(await stranger.assertion(live)))).toMatchObject({ status: 400 });
    expect(host.requests.filter(({ path }) => path === "/keys").length).toBe(apart ? 1 : 0);
  });

  test("whose keys are elsewhere than it says, too large, or no JSON is refused, and nothing is followed", async () => {
    await using host = await documentHost();
    await using live = await running({ clients: { metadataDocuments: host.settings } });
    const browser = await setUp(live);
    const json = { "content-type": "application/json" };
    host.serve("/moved", (_request, response) => response.writeHead(302, { location: "/real-keys" }).end());
    host.serve("/large", (_request, response) =>
      response.writeHead(200, json).end(`{"keys":["${"x".repeat(70_000)}"]}`),
    );
    host.serve("/html", (_request, response) => response.writeHead(200, { "content-type": "text/html" }).end("{}"));
    for (const keys of ["/moved", "/large", "/html", "/missing"]) {
      const { client, assertion } = await signing(host, `/with${keys}.json`, () => ({
        jwks_uri: `https://localhost:${host.port}${keys}`,
      }));
      const answer = await redeem(live, browser, client, signed(await assertion(live)));
      expect([answer.status, answer.body["error"]], keys).toEqual([401, "invalid_client"]);
    }
    expect(host.requests.map(({ path }) => path)).not.toContain("/real-keys");
  });

  test("whose keys changed asks the person again", async () => {
    await using host = await documentHost();
    let now = Date.now();
    await using live = await running({ clients: { metadataDocuments: host.settings }, clock: () => now });
    const browser = await setUp(live);
    const redirect = "https://shop.example/cb";
    const key = async () => ({ jwks: { keys: [await exportJWK((await generateKeyPair("ES256")).publicKey)] } });
    const publish = async () => host.publish("/changing.json", { redirect_uris: [redirect], ...(await key()) });
    const client = await publish();
    await authorize(live, browser, { client, redirect, site: "none" });
    const again = async () => {
      now += 61_000;
      await browser.go(authorizeUrl(live, { client, redirect }), { headers: { "sec-fetch-site": "none" } });
      return browser.last.text.includes("<legend>");
    };
    expect(await again()).toBe(false);
    await publish();
    // The provider itself looks again after a second of its own clock.
    await vi.waitFor(async () => expect(await again()).toBe(true), { timeout: 5_000, interval: 300 });
  });
});

describe("the operator's trust", () => {
  const policyWith = (metadataDocuments: Record<string, unknown>) => {
    const asked: string[] = [];
    const documents = {
      async get(url: string) {
        asked.push(url);
        return Buffer.from(JSON.stringify({ client_id: url, redirect_uris: ["https://shop.example/cb"] }));
      },
    };
    return { policy: clientPolicy(clientsSettings.parse({ metadataDocuments }), documents), asked };
  };

  test.each<[string, Record<string, unknown>, string, "allowed" | "asked" | "refused"]>([
    ["nothing said", {}, "https://shop.example/c", "asked"],
    ["listed", { allow: ["shop.example"] }, "https://shop.example/c", "allowed"],
    ["listed, on another port", { allow: ["shop.example"] }, "https://shop.example:8443/c", "allowed"],
    ["listed with its port", { allow: ["shop.example:8443"] }, "https://shop.example:8443/c", "allowed"],
    ["listed with another port", { allow: ["shop.example:8443"] }, "https://shop.example/c", "asked"],
    ["listed with the usual port", { allow: ["shop.example:443"] }, "https://shop.example/c", "allowed"],
    ["below a listed one", { allow: ["shop.example"] }, "https://a.shop.example/c", "asked"],
    ["below a pattern", { allow: ["*.shop.example"] }, "https://a.b.shop.example/c", "allowed"],
    ["not below, but the pattern's own", { allow: ["*.shop.example"] }, "https://shop.example/c", "asked"],
    ["ending like a pattern", { allow: ["*.shop.example"] }, "https://evilshop.example/c", "asked"],
    ["beginning like a listed one", { allow: ["shop.example"] }, "https://shop.example.evil.example/c", "asked"],
    [
      "international, listed as people write it",
      { allow: ["bücher.example"] },
      "https://xn--bcher-kva.example/c",
      "allowed",
    ],
    [
      "international, listed as machines write it",
      { allow: ["xn--bcher-kva.example"] },
      "https://xn--bcher-kva.example/c",
      "allowed",
    ],
    ["a look-alike of a listed one", { allow: ["shop.example"] }, "https://xn--shp-fed.example/c", "asked"],
    ["denied", { deny: ["shop.example"] }, "https://shop.example/c", "refused"],
    ["denied below a pattern", { deny: ["*.example"] }, "https://shop.example/c", "refused"],
    ["denied and listed", { allow: ["shop.example"], deny: ["shop.example"] }, "https://shop.example/c", "refused"],
    ["denied, international", { deny: ["bücher.example"] }, "https://xn--bcher-kva.example/c", "refused"],
    [
      "not listed where others are denied",
      { allow: ["a.example"], others: "deny" },
      "https://shop.example/c",
      "refused",
    ],
    [
      "listed where others are denied",
      { allow: ["shop.example"], others: "deny" },
      "https://shop.example/c",
      "allowed",
    ],
    ["where documents are off", { enabled: false }, "https://shop.example/c", "refused"],
  ])("in a client of a domain that is %s", async (_title, settings, id, expected) => {
    const { policy, asked } = policyWith(settings);
    if (expected === "refused") {
      await expect(policy.loadDocument(id)).rejects.toMatchObject({ code: "outbound_refused" });
      expect(asked).toEqual([]);
    } else {
      await policy.loadDocument(id);
      expect(policy.trustOf(id)).toBe(expected);
    }
  });

  test("pins a document by its hash: another is refused with both hashes in the log's detail, one byte is enough", async () => {
    const id = "https://shop.example/c";
    const text = JSON.stringify({ client_id: id, redirect_uris: ["https://shop.example/cb"] });
    let body = text;
    const policy = clientPolicy(
      clientsSettings.parse({ metadataDocuments: { pins: { [id]: sha256(text) }, others: "deny" } }),
      { get: async () => Buffer.from(body) },
    );
    await policy.loadDocument(id);
    expect(policy.trustOf(id)).toBe("allowed");
    body = `${text} `;
    const error = await policy.loadDocument(id).catch((thrown: unknown) => thrown as Error & { detail: string });
    expect(error).toMatchObject({ code: "outbound_refused", message: expect.stringContaining("pinned") });
    expect((error as { detail: string }).detail).toContain(sha256(text));
    expect((error as { detail: string }).detail).toContain(sha256(body));
    expect((error as Error).message).not.toContain(sha256(body));
    await expect(policy.loadDocument("https://shop.example/other")).rejects.toMatchObject({ code: "outbound_refused" });
  });

  test("does not let a pin open what is denied", async () => {
    const id = "https://shop.example/c";
    const { policy } = policyWith({ pins: { [id]: "0".repeat(64) }, deny: ["shop.example"] });
    await expect(policy.loadDocument(id)).rejects.toThrow("not allowed here");
  });

  test("in a pinned client is shown to the person, and a changed document stops new and old connections of it", async () => {
    await using host = await documentHost();
    let now = Date.now();
    const id = host.publish("/pinned.json");
    const net = await hostNet(host);
    const pin = sha256((await net.getJson(id, DOCUMENT_LIMITS)).body);
    await net.close();
    await using live = await running({
      clients: { metadataDocuments: { ...host.settings, pins: { [id]: pin } } },
      clock: () => now,
    });
    const browser = await setUp(live);
    const tokens = await connect(live, browser, { client: id });
    host.publish("/pinned.json", { client_name: "Changed" });
    now += 61_000;
    // The provider itself looks again after a second of its own clock.
    await vi.waitFor(
      async () => {
        await browser.go(authorizeUrl(live, { client: id }));
        expect([browser.last.status, browser.last.text.includes("pinned")]).toEqual([400, true]);
      },
      { timeout: 5_000, interval: 300 },
    );
    expect((await refresh(live, id, tokens.refresh_token)).body["error"]).toBe("invalid_client");
    expect(live.events).toContainEqual(
      expect.objectContaining({ type: "client-refused", client: id, source: "127.0.0.1" }),
    );
  });
});

async function hostNet(host: DocumentHost) {
  return outbound({
    allowPrivateAddresses: true,
    extraPorts: [host.port],
    trustedCertificates: await readFile(String(host.settings["trustedCertificates"]), "utf8"),
  });
}

describe("fetching", () => {
  /** Documents of any URL, without a network. */
  function fake(answer: (url: string) => { body?: string; cacheControl?: string; fails?: string } = () => ({})) {
    const fetched: string[] = [];
    let now = 1_700_000_000_000;
    const wait = (seconds: number) => {
      now += seconds * 1000;
    };
    const net = {
      check() {},
      async getJson(url: string) {
        fetched.push(url);
        const { body = "{}", cacheControl, fails } = answer(url);
        if (fails !== undefined)
          throw new (await import("../../src/core/errors.ts")).DrawbridgeError("outbound_refused", fails);
        return { status: 200, body: Buffer.from(body), etag: undefined, cacheControl };
      },
      async close() {},
    };
    return { net, fetched, clock: () => now, wait };
  }
  const LIMITS = { maxBytes: 5120, timeoutMs: 3000 };

  test.each([
    [undefined, 60],
    ["no-store", 60],
    ["no-cache, max-age=500", 60],
    ["private, max-age=0", 60],
    ["max-age=5", 60],
    ["max-age=600", 600],
    ['public, Max-Age="600", immutable', 600],
    ["max-age=600, no-store", 60],
    ["s-maxage=600", 60],
    ["max-age=999999999", 86_400],
    ["max-age=-1", 60],
    ["max-age=x", 60],
  ])("again after Cache-Control: %s happens after %d s", async (cacheControl, seconds) => {
    const { net, fetched, clock, wait } = fake(() => (cacheControl === undefined ? {} : { cacheControl }));
    const documents = cachedDocuments(net, LIMITS, clock);
    await documents.get("https://a.example/c");
    wait(seconds - 1);
    await documents.get("https://a.example/c");
    expect(fetched).toHaveLength(1);
    wait(2);
    await documents.get("https://a.example/c");
    expect(fetched).toHaveLength(2);
  });

  test("on behalf of one source is limited, IPv6 neighbours count as one, and nobody else is: what one may not ask for now, another may", async () => {
    const { net, fetched, clock, wait } = fake();
    const documents = cachedDocuments(net, { ...LIMITS, perSourcePerMinute: 5 }, clock);
    const get = (i: number, source: string) => documents.get(`https://host-${i}.example/c`, source);
    for (let i = 0; i < 5; i++) await get(i, `2a00:1:2:3::${i}`);
    await expect(get(5, "2a00:1:2:3:ffff::1")).rejects.toMatchObject({ code: "rate_limited", retryAfterSeconds: 60 });
    // What is there already costs nothing.
    await get(0, "2a00:1:2:3::1");
    await get(5, "2a00:1:2:4::1");
    wait(60);
    await get(6, "2a00:1:2:3::1");
    expect(fetched).toHaveLength(7);
  });

  test("from one host is limited, failures included, which are remembered for half a minute and no longer", async () => {
    const { net, fetched, clock, wait } = fake(() => ({ fails: "no" }));
    const documents = cachedDocuments(net, { ...LIMITS, perHostPerMinute: 5 }, clock);
    const get = (i: number, host = "a") =>
      documents.get(`https://${host}.example/${i}`).catch((error: Error & { code: string }) => error.code);
    for (let i = 0; i < 3; i++) expect(await get(0)).toBe("outbound_refused");
    expect(fetched).toHaveLength(1);
    for (let i = 1; i < 5; i++) await get(i);
    expect(await get(6)).toBe("rate_limited");
    expect(await get(6, "b")).toBe("outbound_refused");
    wait(61);
    expect(await get(0)).toBe("outbound_refused");
    expect(fetched).toHaveLength(7);
  });

  test("goes on with the last document where a limit is reached, for a day at most", async () => {
    const { net, clock, wait } = fake();
    const documents = cachedDocuments(net, { ...LIMITS, perSourcePerMinute: 1 }, clock);
    await documents.get("https://a.example/c", "1.1.1.1");
    wait(3600);
    await documents.get("https://b.example/c", "1.1.1.1");
    expect((await documents.get("https://a.example/c", "1.1.1.1")).toString()).toBe("{}");
    wait(86_400);
    await documents.get("https://d.example/c", "1.1.1.1");
    await expect(documents.get("https://a.example/c", "1.1.1.1")).rejects.toMatchObject({ code: "rate_limited" });
  });

  test("keeps so many documents and so many bytes of them, those that are used longest", async () => {
    const { net, fetched, clock } = fake((url) => ({ body: url.includes("large") ? "x".repeat(600) : "{}" }));
    const documents = cachedDocuments(
      net,
      { ...LIMITS, maxEntries: 10, maxTotalBytes: 1000, perHostPerMinute: 1000 },
      clock,
    );
    await documents.get("https://used.example/c");
    for (let i = 0; i < 50; i++) {
      await documents.get(`https://a.example/${i}`);
      await documents.get("https://used.example/c");
    }
    expect(fetched.filter((url) => url.includes("used"))).toHaveLength(1);
    await documents.get("https://large.example/1");
    await documents.get("https://large.example/2");
    await documents.get("https://large.example/1");
    expect(fetched.filter((url) => url.includes("large"))).toHaveLength(3);
  });

  test("of many slow documents at once is limited", async () => {
    const { net } = fake();
    let answerAll = () => {};
    const slow = new Promise<void>((resolve) => {
      answerAll = resolve;
    });
    const documents = cachedDocuments(
      { ...net, getJson: (url: string) => slow.then(() => net.getJson(url)) },
      { ...LIMITS, maxUnderWay: 5 },
    );
    const waiting = Array.from({ length: 5 }, (_, i) => documents.get(`https://host-${i}.example/c`));
    await expect(documents.get("https://host-5.example/c")).rejects.toMatchObject({ code: "rate_limited" });
    // Who asks for one of those waits along.
    waiting.push(documents.get("https://host-0.example/c"));
    answerAll();
    await Promise.all(waiting);
    await documents.get("https://host-5.example/c");
  });

  test("a document for the provider never gives it one that was not judged", async () => {
    const loads: string[] = [];
    const policy = clientPolicy(clientsSettings.parse({ metadataDocuments: { deny: ["shop.example"] } }), {
      async get(url) {
        loads.push(url);
        return Buffer.from("{}");
      },
    });
    const { fetch } = clientDocuments({
      clients: clientsSettings.parse({}),
      signIn: signInSettings.parse({}),
      policy,
      keySets: { get: async () => Buffer.from("{}") },
      report: async () => {},
      log: silentLogger,
    });
    await expect(fetch("https://shop.example/c", { redirect: "manual" })).rejects.toThrow("not allowed here");
    await expect(fetch("https://other.example/c", { redirect: "manual" })).rejects.toThrow("not its own");
    expect(loads).toEqual(["https://other.example/c"]);
    expect(await (await fetch("https://shop.example/keys")).text()).toBe("{}");
  });

  test("a client id that no document can be at is neither counted nor remembered", async () => {
    const net = outbound();
    const documents = cachedDocuments(net, { ...LIMITS, perSourcePerMinute: 1 });
    for (let i = 0; i < 50; i++)
      await expect(documents.get(`https://127.0.0.1/${i}`, "1.1.1.1")).rejects.toMatchObject({
        code: "outbound_refused",
      });
    await net.close();
  });
});

test("an operator is shown how a document stands: its hash, its pin, and why it would be refused", async () => {
  await using host = await documentHost();
  const [fine, changed] = [host.publish("/fine.json"), host.publish("/changed.json")];
  const standing = async (id: string, more: Record<string, unknown> = {}) => {
    const settings = clientsSettings.parse({ metadataDocuments: { ...host.settings, ...more } });
    const net = await documentNet(settings.metadataDocuments);
    try {
      return await documentStanding(id, settings, net);
    } finally {
      await net.close();
    }
  };
  const asked = await standing(fine);
  expect(asked).toMatchObject({ trust: "asked", metadata: { client_name: "Paper Crane" }, problem: undefined });
  expect(asked.sha256).toMatch(/^[a-f0-9]{64}$/);
  const pins = { [fine]: String(asked.sha256), [changed]: "0".repeat(64) };
  expect(await standing(fine, { pins })).toMatchObject({ trust: "allowed", pin: asked.sha256, problem: undefined });
  expect(await standing(changed, { pins })).toMatchObject({
    trust: "allowed",
    pin: "0".repeat(64),
    sha256: expect.stringMatching(/^[a-f0-9]{64}$/),
    problem: expect.stringContaining("pinned"),
  });
  const seen = host.connections();
  expect(await standing(fine, { pins, deny: ["localhost"] })).toMatchObject({
    trust: "denied",
    sha256: undefined,
    problem: expect.stringContaining("not allowed"),
  });
  expect(host.connections()).toBe(seen);
  expect(await standing(`https://localhost:${host.port}/missing.json`)).toMatchObject({
    trust: "asked",
    sha256: undefined,
    problem: expect.stringContaining("404"),
  });
});
