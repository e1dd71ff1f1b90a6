import type { LookupAddress } from "node:dns";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { publicAddress } from "../../src/net/addresses.ts";
import { cachedDocuments } from "../../src/net/cached.ts";
import { outbound } from "../../src/net/outbound.ts";
import { authorizeUrl, type Browser, documentHost, type Running, running, setUp } from "../oauth/support.ts";
import { verifies } from "../requirements.ts";

const LIMITS = { maxBytes: 5 * 1024, timeoutMs: 3000 };

/** Counts the TCP connections that reach a loopback port, of either family. */
async function trap() {
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, "::", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    port,
    connections: () => connections,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
  };
}

describe("a client id whose host is not on the public internet", () => {
  verifies("cimd-ssrf", "is refused with no packet sent, in every spelling of an address", async () => {
    await using caught = await trap();
    const { port } = caught;
    await using live = await running({ clients: { metadataDocuments: { extraPorts: [port] } } });
    const browser = await setUp(live);
    const hosts = [
      "127.0.0.1",
      "127.1",
      "127.0.0.1.",
      "2130706433",
      "017700000001",
      "0x7f000001",
      "0x7f.1",
      "0177.0.0.1",
      "127.000.000.001",
      "0",
      "0.0.0.0",
      "localhost",
      "LOCALHOST",
      "localhost.",
      "①②⑦.⓪.⓪.①",
      "[::1]",
      "[0:0:0:0:0:0:0:1]",
      "[::]",
      "[::ffff:127.0.0.1]",
      "[::ffff:7f00:1]",
      "[::127.0.0.1]",
      "[64:ff9b::127.0.0.1]",
      "[64:ff9b:1::7f00:1]",
      "[2002:7f00:1::]",
      "[2001:0:7f00:1::]",
      "[fe80::1]",
      "[fc00::1]",
      "[fd12::1]",
      "[ff02::1]",
      "[2001:db8::1]",
      "10.0.0.1",
      "172.16.0.1",
      "192.168.0.1",
      "169.254.169.254",
      "100.64.0.1",
      "198.18.0.1",
      "192.0.2.1",
      "224.0.0.1",
      "255.255.255.255",
      "user@127.0.0.1",
      "127.0.0.1#@shop.example",
      "127.0.0.1\\@shop.example",
      "127.0.0.1%23.shop.example",
      "[::1%25lo]",
    ];
    expect(hosts.length).toBeGreaterThan(40);
    for (const host of hosts) {
      const started = Date.now();
      expect(
        await browser.go(authorizeUrl(live, { client: `https://${host}:${port}/client.json` })),
        host,
      ).toBeUndefined();
      expect(browser.last.status, host).toBe(400);
      expect(Date.now() - started, host).toBeLessThan(10_000);
    }
    expect(caught.connections()).toBe(0);
  });

  verifies(
    "cimd-ssrf",
    "is refused with no packet sent when only its name service says so, or changes its mind",
    async () => {
      await using caught = await trap();
      const { port } = caught;
      const answers: LookupAddress[][] = [
        [{ address: "127.0.0.1", family: 4 }],
        [{ address: "::1", family: 6 }],
        [
          { address: "93.184.215.14", family: 4 },
          { address: "127.0.0.1", family: 4 },
        ],
        [
          { address: "127.0.0.1", family: 4 },
          { address: "93.184.215.14", family: 4 },
        ],
        [{ address: "169.254.169.254", family: 4 }],
        [{ address: "::ffff:127.0.0.1", family: 6 }],
        [],
      ];
      for (const answer of answers) {
        let asked = 0;
        const net = outbound({ extraPorts: [port] }, async () => {
          asked++;
          return answer;
        });
        await expect(net.getJson(`https://rebinding.example:${port}/c.json`, LIMITS)).rejects.toMatchObject({
          code: "outbound_refused",
        });
        // Asked once: what was checked is what would have been connected to.
        expect(asked).toBe(1);
        await net.close();
      }
      expect(caught.connections()).toBe(0);
    },
  );

  test.each([
    "http://shop.example/client.json",
    "https://shop.example:22/client.json",
    "https://shop.example.:443/client.json",
    "https://a:b@shop.example/client.json",
    "file:///etc/passwd",
    "ftp://shop.example/x",
    `https://shop.example/${"x".repeat(3000)}`,
    "not a url",
  ])("nothing is fetched from %j", async (url) => {
    let asked = 0;
    const net = outbound({}, async () => {
      asked++;
      return [];
    });
    await expect(net.getJson(url, LIMITS)).rejects.toMatchObject({ code: "outbound_refused" });
    expect(asked).toBe(0);
    await net.close();
  });

  test("a public address is public, so that the refusals above mean something", () => {
    for (const address of [
      "1.1.1.1",
      "93.184.215.14",
      "172.15.0.1",
      "172.32.0.1",
      "2606:4700:4700::1111",
      "2a00:1450::1",
    ]) {
      expect(publicAddress(address), address).toBe(true);
    }
    for (const address of ["", "localhost", "127.0.0.1", "::ffff:1.1.1.1", "2001::1", "3fff::1"]) {
      expect(publicAddress(address), address).toBe(false);
    }
  });
});

describe("a client document", () => {
  /** What the person in front of the browser is told. */
  async function refusal(live: Running, browser: Browser, client: string): Promise<string> {
    expect(await browser.go(authorizeUrl(live, { client }))).toBeUndefined();
    return browser.last.status === 400
      ? (/<p>(.*?)<\/p>/s.exec(browser.last.text)?.[1] ?? "")
      : `${browser.last.status}`;
  }

  verifies(
    ["cimd-client-id", "cimd-document", "cimd-no-secret", "cimd-ssrf", "auth-redirect-https"],
    "that is hostile is refused, with the reason, soon, and without following it anywhere",
    async () => {
      await using host = await documentHost();
      await using live = await running({ clients: { metadataDocuments: host.settings } });
      const browser = await setUp(live);
      const json = { "content-type": "application/json" };
      const id = (path: string) => `https://localhost:${host.port}${path}`;
      const text = (path: string, more = {}) =>
        JSON.stringify({
          client_id: id(path),
          client_name: "x",
          redirect_uris: ["http://127.0.0.1:49152/callback"],
          ...more,
        });
      host.serve("/moved", (_request, response) => response.writeHead(302, { location: id("/target") }).end());
      host.serve("/html", (_request, response) =>
        response.writeHead(200, { "content-type": "text/html" }).end(text("/html")),
      );
      host.serve("/error", (_request, response) => response.writeHead(500, json).end(text("/error")));
      host.serve("/broken", (_request, response) => response.writeHead(200, json).end('{"client_id":'));
      host.serve("/list", (_request, response) => response.writeHead(200, json).end("[]"));
      host.serve("/large", (_request, response) =>
        response.writeHead(200, json).end(text("/large", { padding: "x".repeat(6000) })),
      );
      host.serve("/bomb", (_request, response) => {
        response
          .writeHead(200, { ...json, "content-encoding": "gzip" })
          .end(gzipSync(text("/bomb", { padding: "x".repeat(10_000_000) })));
      });
      host.serve("/endless", (_request, response) => {
        response.writeHead(200, json);
        const drip = setInterval(() => response.write(" "), 20);
        response.on("close", () => clearInterval(drip));
      });
      host.publish("/other", { client_id: id("/Other") });
      host.publish("/secret", { client_secret: "s" });
      host.publish("/basic", { token_endpoint_auth_method: "client_secret_basic" });
      host.publish("/nowhere", { redirect_uris: [] });
      host.publish("/script", { redirect_uris: ["javascript:alert(1)"] });
      host.publish("/plain-http", { redirect_uris: ["http://shop.example/cb"] });
      const paths = [
        "/moved",
        "/html",
        "/error",
        "/broken",
        "/list",
        "/large",
        "/bomb",
        "/endless",
        "/other",
        "/secret",
        "/basic",
        "/nowhere",
        "/script",
        "/plain-http",
        "/missing",
      ];
      for (const path of paths) {
        const started = Date.now();
        const reason = await refusal(live, browser, id(path));
        expect(reason, path).toContain("localhost");
        expect(Date.now() - started, path).toBeLessThan(15_000);
      }
      expect(host.requests.map(({ path }) => path)).not.toContain("/target");
      expect(live.events.filter(({ type }) => type === "client-refused")).toHaveLength(paths.length);
      for (const { headers } of host.requests) {
        expect(headers.cookie).toBeUndefined();
        expect(headers.authorization).toBeUndefined();
      }
    },
    90_000,
  );

  verifies("cimd-url", "is not looked for at an address that is not a plain spelling of a document's", async () => {
    await using host = await documentHost();
    await using live = await running({ clients: { metadataDocuments: host.settings } });
    const browser = await setUp(live);
    const base = `https://localhost:${host.port}`;
    for (const client of [
      base,
      `${base}/`,
      `${base}/a/../b`,
      `${base}/a/%2e%2e/b`,
      `${base}/a#b`,
      `${base}/a b`,
      `${base}/${"x".repeat(1100)}`,
      `HTTPS://localhost:${host.port}/a`,
    ]) {
      await browser.go(authorizeUrl(live, { client }));
      expect(browser.last.status, client).toBe(400);
    }
    expect(host.connections()).toBe(0);
  });

  verifies(
    "cimd-trust",
    "of a denied domain, or of one not on the list where there is a list, is not fetched",
    async () => {
      await using host = await documentHost();
      for (const more of [
        { deny: ["localhost"] },
        { deny: [`localhost:${host.port}`] },
        { others: "deny", allow: ["shop.example"] },
        { enabled: false },
      ]) {
        await using live = await running({ clients: { metadataDocuments: { ...host.settings, ...more } } });
        const browser = await setUp(live);
        await browser.go(authorizeUrl(live, { client: host.publish("/denied.json") }));
        expect(browser.last.status).toBe(400);
      }
      expect(host.connections()).toBe(0);
    },
  );

  verifies("cimd-trust", "of an allowed domain is shown as allowed, of any other as unknown", async () => {
    await using host = await documentHost();
    for (const [allow, words] of [
      [["localhost"], "allowed by your operator"],
      [["shop.example"], "Not known to your operator"],
    ] as const) {
      await using live = await running({ clients: { metadataDocuments: { ...host.settings, allow } } });
      const browser = await setUp(live);
      await browser.go(authorizeUrl(live, { client: host.publish("/trust.json") }));
      expect(browser.last.text).toContain(words);
      expect(browser.last.text).toContain(`localhost:${host.port}`);
    }
  });

  verifies(
    "cimd-cache",
    "is fetched once for fifty who ask at once, kept as its server says within bounds, and asked for again by its tag",
    async () => {
      await using host = await documentHost();
      let now = Date.now();
      const url = host.serve("/tagged", (request, response) => {
        const headers = { "content-type": "application/json", etag: '"v1"', "cache-control": "max-age=1" };
        if (request.headers["if-none-match"] === '"v1"') response.writeHead(304, headers).end();
        else response.writeHead(200, headers).end("{}");
      });
      const net = outbound({
        allowPrivateAddresses: true,
        extraPorts: [host.port],
        trustedCertificates: await pem(host.settings),
      });
      const documents = cachedDocuments(net, LIMITS, () => now);
      await Promise.all(Array.from({ length: 50 }, () => documents.get(url)));
      expect(host.requests).toHaveLength(1);
      now += 59_000;
      await documents.get(url);
      expect(host.requests).toHaveLength(1);
      now += 2_000;
      expect((await documents.get(url)).toString()).toBe("{}");
      expect(host.requests.at(-1)?.headers["if-none-match"]).toBe('"v1"');
      expect(host.requests).toHaveLength(2);

      const missing = `https://localhost:${host.port}/missing`;
      for (let i = 0; i < 5; i++)
        await expect(documents.get(missing)).rejects.toMatchObject({ code: "outbound_refused" });
      expect(host.requests).toHaveLength(3);
      now += 31_000;
      await expect(documents.get(missing)).rejects.toMatchObject({ code: "outbound_refused" });
      expect(host.requests).toHaveLength(4);

      for (let i = 0; i < 40; i++) await documents.get(`https://localhost:${host.port}/many/${i}`).catch(() => {});
      expect(host.requests.length).toBeLessThan(40);
      await expect(documents.get(`https://localhost:${host.port}/one-more`)).rejects.toMatchObject({
        code: "rate_limited",
      });
      await net.close();
    },
  );

  test("serves on while its server is down, and not after it was withdrawn", async () => {
    await using host = await documentHost();
    let now = Date.now();
    let status = 200;
    const url = host.serve("/app.json", (_request, response) => {
      response.writeHead(status, { "content-type": "application/json" }).end("{}");
    });
    const net = outbound({
      allowPrivateAddresses: true,
      extraPorts: [host.port],
      trustedCertificates: await pem(host.settings),
    });
    const documents = cachedDocuments(net, LIMITS, () => now);
    await documents.get(url);
    status = 503;
    now += 61_000;
    expect((await documents.get(url)).toString()).toBe("{}");
    now += 24 * 3_600_000;
    await expect(documents.get(url)).rejects.toMatchObject({ code: "upstream_unavailable" });
    status = 200;
    now += 31_000;
    await documents.get(url);
    status = 404;
    now += 61_000;
    await expect(documents.get(url)).rejects.toMatchObject({ code: "outbound_refused" });
    await net.close();
  });

  test("whose certificate is not trusted is refused", async () => {
    await using host = await documentHost();
    const net = outbound({ allowPrivateAddresses: true, extraPorts: [host.port] });
    const url = host.publish("/untrusted.json");
    await expect(net.getJson(url, LIMITS)).rejects.toMatchObject({ code: "upstream_unavailable" });
    expect(host.requests).toHaveLength(0);
    await net.close();
  });
});

async function pem(settings: Record<string, unknown>): Promise<string> {
  const { readFile } = await import("node:fs/promises");
  return readFile(String(settings["trustedCertificates"]), "utf8");
}
