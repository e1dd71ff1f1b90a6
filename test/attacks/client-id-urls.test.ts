/**
 * A client id is a URL that a stranger chose and that we fetch. Nothing of that may reach an address that is not out on the public
 * internet: connections are counted where they arrive, and attempts where this process makes them. 127.0.0.2 plays the internet.
 */
import type { LookupAddress } from "node:dns";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, createServer, type Server, Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { cachedDocuments } from "../../src/net/cached.ts";
import { type Outbound, outbound } from "../../src/net/outbound.ts";
import { type ClientPolicy, clientPolicy, DOCUMENT_LIMITS } from "../../src/oauth/clients/clients.ts";
import { clientsSettings } from "../../src/oauth/settings.ts";
import { selfSigned } from "../oauth/certificate.ts";

const PUBLIC = "127.0.0.2";
const KEY_SET_LIMITS = { maxBytes: 64 * 1024, timeoutMs: 2_500 };

vi.mock("../../src/net/addresses.ts", async (original) => {
  const { publicAddress } = await original<typeof import("../../src/net/addresses.ts")>();
  return { publicAddress: (address: string) => address === "127.0.0.2" || publicAddress(address) };
});

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** Connections that arrived, by address. */
const arrived = new Map<string, number>();
/** Addresses that this process tried to connect to, on the port of the traps. */
const attempts: string[] = [];
const answers = new Map<string, Answer>();
const sockets = new Set<Socket>();
const servers: Server[] = [];
let port = 0;
let certificate = "";

/** What the name service says; each call takes the next answer of a name, the last one stays. */
const names = new Map<string, LookupAddress[][]>();
let asked: string[] = [];

let clock = Date.now();
let net: Outbound;
let policy: ClientPolicy;

const connect = Socket.prototype.connect;

beforeAll(async () => {
  const made = await selfSigned(["docs.example", "moving.example"]);
  certificate = made.certificate;
  const internet = createTlsServer({ cert: made.certificate, key: made.key }, (request, response) => {
    const answer = answers.get(request.url ?? "");
    if (answer === undefined) response.writeHead(404).end();
    else answer(request, response);
  });
  internet.on("connection", count(PUBLIC));
  port = await listen(internet as unknown as Server, PUBLIC, 0);
  for (const address of ["127.0.0.1", "::1"]) await listen(createServer(count(address)), address, port);

  Socket.prototype.connect = function (this: Socket, ...args: never[]) {
    this.on("connectionAttempt", (address: string, to: number) => {
      if (to === port) attempts.push(address);
    });
    return Reflect.apply(connect, this, args) as Socket;
  } as typeof connect;
});

afterAll(async () => {
  Socket.prototype.connect = connect;
  await net.close();
  for (const socket of sockets) socket.destroy();
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
});

beforeEach(async () => {
  await net?.close();
  arrived.clear();
  attempts.length = 0;
  asked = [];
  names.clear();
  names.set("docs.example", [[{ address: PUBLIC, family: 4 }]]);
  net = outbound({ extraPorts: [port], trustedCertificates: certificate }, async (host) => {
    asked.push(host);
    const next = names.get(host) ?? [[]];
    return (next.length > 1 ? next.shift() : next[0]) ?? [];
  });
  const settings = clientsSettings.parse({ metadataDocuments: { extraPorts: [port] } });
  policy = clientPolicy(
    settings,
    cachedDocuments(net, DOCUMENT_LIMITS, () => clock),
  );
});

function count(address: string) {
  return (socket: Socket) => {
    arrived.set(address, (arrived.get(address) ?? 0) + 1);
    sockets.add(socket);
    socket.on("error", () => {}).on("close", () => sockets.delete(socket));
    if (address !== PUBLIC) socket.destroy();
  };
}

async function listen(server: Server, host: string, at: number): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(at, host, resolve));
  return (server.address() as AddressInfo).port;
}

/** The id of a document of ours that is fine but for `more`. */
function published(path: string, more: Record<string, unknown> = {}): string {
  const id = `https://docs.example:${port}${path}`;
  json(path, JSON.stringify({ client_id: id, redirect_uris: ["https://docs.example/cb"], ...more }));
  return id;
}

function json(path: string, text: string | Buffer, headers: Record<string, string> = {}): string {
  answers.set(path, (_request, response) => {
    response.writeHead(200, { "content-type": "application/json", connection: "close", ...headers }).end(text);
  });
  return `https://docs.example:${port}${path}`;
}

const nothingSent = () => expect({ arrived: [...arrived], attempts }).toEqual({ arrived: [], attempts: [] });
const onlyPublic = () => expect([...new Set([...arrived.keys(), ...attempts])]).toEqual([PUBLIC]);

test("a document on the public internet is fetched, and the counters see it", async () => {
  const metadata = await policy.loadDocument(published("/fine.json", { client_name: "Paper Crane" }));
  expect(metadata["client_name"]).toBe("Paper Crane");
  expect(attempts).toEqual([PUBLIC]);
  expect([...arrived]).toEqual([[PUBLIC, 1]]);
  expect(asked).toEqual(["docs.example"]);
});

test("a trap does count a connection that reaches it", async () => {
  for (const host of ["127.0.0.1", "::1"]) {
    const socket = new Socket().on("error", () => {});
    socket.connect({ host, port });
    await vi.waitFor(() => expect(arrived.get(host)).toBe(1));
    socket.destroy();
  }
  expect(attempts).toEqual(["127.0.0.1", "::1"]);
});

describe("an address that is not on the public internet is refused with no packet sent, as client id and as jwks_uri", () => {
  const hosts = [
    // IPv4 loopback in every spelling that a parser knows
    "127.0.0.1",
    "127.0.0.3",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0X7F000001",
    "0x7f.1",
    "0x7f.0x0.0x0.0x1",
    "0177.0.0.1",
    "0177.0x0.0.1",
    "127.000.000.001",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "0x0",
    "00000000000",
    "①②⑦.⓪.⓪.①",
    "１２７.０.０.１",
    "127。0。0。1",
    "127.0.0.1%00",
    "%31%32%37.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "ｌｏｃａｌｈｏｓｔ",
    "loc%61lhost",
    "a.localhost",
    // IPv6
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0001]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:7F00:0001]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:7f00:0001::1]",
    "[2001:0:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "[::1%25lo]",
    "[fe80::1%25eth0]",
    "[::1%lo]",
    "[fe80::1]",
    "[febf::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[ff0e::1]",
    "[100::1]",
    "[2001:db8::1]",
    "[2001:20::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[4000::1]",
    // networks that are somebody's own
    "10.0.0.1",
    "0xa000001",
    "167772161",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.0.1",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "100.64.0.1",
    "100.127.255.254",
    "100.100.100.200",
    "192.0.0.1",
    "192.0.0.192",
    "198.18.0.1",
    "198.19.255.254",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    // somebody's name in front of, or behind, the address
    "docs.example@127.0.0.1",
    "docs.example:443@127.0.0.1",
    "docs.example%40127.0.0.1",
    "127.0.0.1#@docs.example",
    "127.0.0.1?@docs.example",
    "127.0.0.1/@docs.example",
    "127.0.0.1\\@docs.example",
    "127.0.0.1\\.docs.example",
    "127.0.0.1\t",
    "127.0.0.1\n.docs.example",
    " 127.0.0.1",
  ];

  test("there are more than 60 spellings, none of them twice", () => {
    expect(new Set(hosts).size).toBe(hosts.length);
    expect(hosts.length).toBeGreaterThan(60);
  });

  test.each(hosts.map((host) => [host]))("%j", async (host) => {
    names.set("localhost", [[{ address: "127.0.0.1", family: 4 }]]);
    names.set("a.localhost", [[{ address: "::1", family: 6 }]]);
    const id = `https://${host}:${port}/client.json`;
    await expect(policy.loadDocument(id)).rejects.toMatchObject({ code: "outbound_refused" });
    await expect(net.getJson(id, KEY_SET_LIMITS)).rejects.toMatchObject({ code: "outbound_refused" });
    nothingSent();
  });
});

describe("a client id that is not the plain spelling of a document's URL is refused before anybody is asked", () => {
  const ids = () => [
    `http://docs.example:${port}/c.json`,
    `HTTPS://docs.example:${port}/c.json`,
    `https://DOCS.example:${port}/c.json`,
    `https://docs.example.:${port}/c.json`,
    `https://docs.example:0${port}/c.json`,
    "https://docs.example:443/c.json",
    `https://docs.example:${port}`,
    `https://docs.example:${port}/`,
    `https://docs.example:${port}//`.replace(/\/\/$/, "/./"),
    `https://docs.example:${port}/a/../c.json`,
    `https://docs.example:${port}/a/./c.json`,
    `https://docs.example:${port}/a/%2e%2e/c.json`,
    `https://docs.example:${port}/a/%2E./c.json`,
    `https://docs.example:${port}/a\\..\\c.json`,
    `https://docs.example:${port}/c.json#`,
    `https://docs.example:${port}/c.json#part`,
    `https://user@docs.example:${port}/c.json`,
    `https://user:pass@docs.example:${port}/c.json`,
    `https://@docs.example:${port}/c.json`,
    `https:/docs.example:${port}/c.json`,
    `https:docs.example:${port}/c.json`,
    `https:///docs.example:${port}/c.json`,
    `https:\\\\docs.example:${port}\\c.json`,
    ` https://docs.example:${port}/c.json`,
    `https://docs.example:${port}/c.json\n`,
    `https://docs.example:${port}/c\t.json`,
    `https://docs.example:${port}/c .json`,
    `https://docs.example:${port}/"`,
    `https://docs.ｅxample:${port}/c.json`,
    `https://docs.example:${port}/é.json`,
    `https://docs.example:${port}/${"x".repeat(2048)}`,
    "https://docs.example:22/c.json",
    "https://docs.example:80/c.json",
    "https://docs.example:65536/c.json",
    "https://docs.example:/c.json",
    "https:///c.json",
    "https://",
    "https://[::1/c.json",
    "https://docs..example/c.json",
    "ftp://docs.example/c.json",
    "file:///etc/passwd",
    "data:application/json,{}",
    "javascript:alert(1)//",
    "gopher://127.0.0.1:6379/_x",
    "jar:https://docs.example/c.json",
    "urn:example:client",
    "",
  ];

  test("of more than 40 such ids each one", async () => {
    expect(ids().length).toBeGreaterThan(40);
    for (const id of ids())
      await expect(policy.loadDocument(id), id).rejects.toMatchObject({ code: "outbound_refused" });
    expect(asked.filter((name) => name !== "docs..example")).toEqual([]);
    nothingSent();
  });
});

describe("a name that resolves to an address that is not on the public internet is refused with no packet sent", () => {
  const addresses: readonly (readonly [string, 4 | 6])[] = [
    ["127.0.0.1", 4],
    ["127.8.8.8", 4],
    ["0.0.0.0", 4],
    ["0.1.2.3", 4],
    ["10.1.2.3", 4],
    ["172.16.5.4", 4],
    ["172.31.0.1", 4],
    ["192.168.1.1", 4],
    ["169.254.169.254", 4],
    ["100.64.0.1", 4],
    ["192.0.0.10", 4],
    ["192.0.2.55", 4],
    ["198.18.7.7", 4],
    ["198.51.100.7", 4],
    ["203.0.113.7", 4],
    ["192.88.99.7", 4],
    ["224.0.0.251", 4],
    ["240.0.0.7", 4],
    ["255.255.255.255", 4],
    ["::1", 6],
    ["::", 6],
    ["::ffff:127.0.0.1", 6],
    ["::ffff:10.0.0.1", 6],
    ["::127.0.0.1", 6],
    ["64:ff9b::7f00:1", 6],
    ["64:ff9b:1::a00:1", 6],
    ["2002:a00:1::", 6],
    ["2001::1", 6],
    ["fe80::1", 6],
    ["fe80::1%lo", 6],
    ["fec0::1", 6],
    ["fc00::1", 6],
    ["fd12:3456::1", 6],
    ["ff02::fb", 6],
    ["2001:db8::7", 6],
    ["3fff::7", 6],
    ["100::7", 6],
    ["nonsense", 4],
  ];

  test.each(addresses)("%s", async (address, family) => {
    names.set("docs.example", [[{ address, family }]]);
    await expect(policy.loadDocument(published("/c.json"))).rejects.toMatchObject({ code: "outbound_refused" });
    expect(asked).toEqual(["docs.example"]);
    nothingSent();
  });

  test("also when it stands among public ones, in any place, and when there is none at all", async () => {
    const fine = { address: PUBLIC, family: 4 };
    for (const [index, mixed] of [
      [fine, { address: "127.0.0.1", family: 4 }],
      [{ address: "127.0.0.1", family: 4 }, fine],
      [fine, fine, { address: "::1", family: 6 }],
      [{ address: "fd00::1", family: 6 }, fine],
      [],
    ].entries()) {
      names.set("docs.example", [mixed]);
      await expect(policy.loadDocument(published(`/mixed-${index}.json`))).rejects.toMatchObject({
        code: "outbound_refused",
      });
    }
    nothingSent();
  });
});

describe("a name that changes its mind", () => {
  test("between being checked and being connected to is asked only once: the address that was checked is reached", async () => {
    names.set("moving.example", [[{ address: PUBLIC, family: 4 }], [{ address: "127.0.0.1", family: 4 }]]);
    const id = `https://moving.example:${port}/moving.json`;
    json("/moving.json", JSON.stringify({ client_id: id, redirect_uris: ["https://moving.example/cb"] }));
    await policy.loadDocument(id);
    expect(asked).toEqual(["moving.example"]);
    onlyPublic();
  });

  test("before the document is asked for again is refused then, with no packet sent to the new address", async () => {
    names.set("moving.example", [[{ address: PUBLIC, family: 4 }], [{ address: "127.0.0.1", family: 4 }]]);
    const id = `https://moving.example:${port}/moving.json`;
    json("/moving.json", JSON.stringify({ client_id: id, redirect_uris: ["https://moving.example/cb"] }));
    await policy.loadDocument(id);
    await vi.waitFor(() => expect(sockets.size).toBe(0));
    clock += 61_000;
    await expect(policy.loadDocument(id)).rejects.toMatchObject({ code: "outbound_refused" });
    expect(asked).toEqual(["moving.example", "moving.example"]);
    expect(attempts).toEqual([PUBLIC]);
    onlyPublic();
  });
});

describe("a hostile answer is refused within five seconds and followed nowhere", () => {
  const refusedAnswers: Record<string, Answer> = {
    ...Object.fromEntries(
      [301, 302, 303, 307, 308].flatMap((status) =>
        [
          "https://127.0.0.1:PORT/c.json",
          "http://127.0.0.1:PORT/",
          "https://docs.example:PORT/fine.json",
          "/fine.json",
        ].map((location, index): [string, Answer] => [
          `/moved-${status}-${index}`,
          (_request, response) =>
            response.writeHead(status, { location: location.replace("PORT", String(port)) }).end(),
        ]),
      ),
    ),
    "/refresh": (_request, response) =>
      response
        .writeHead(200, { "content-type": "text/html", refresh: "0;url=http://127.0.0.1/" })
        .end("<meta http-equiv=refresh>"),
    "/html": (_request, response) =>
      response.writeHead(200, { "content-type": "text/html" }).end(documentText("/html")),
    "/no-type": (_request, response) => response.writeHead(200).end(documentText("/no-type")),
    "/text": (_request, response) =>
      response.writeHead(200, { "content-type": "text/plain; a=application/json" }).end(documentText("/text")),
    "/created": (_request, response) =>
      response.writeHead(201, { "content-type": "application/json" }).end(documentText("/created")),
    "/partial": (_request, response) =>
      response.writeHead(206, { "content-type": "application/json" }).end(documentText("/partial")),
    "/not-modified": (_request, response) => response.writeHead(304).end(),
    "/gone": (_request, response) => response.writeHead(410).end(),
    "/login": (_request, response) => response.writeHead(401, { "www-authenticate": "Basic" }).end(),
    "/bomb": (_request, response) =>
      response
        .writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" })
        .end(gzipSync(documentText("/bomb", { padding: "x".repeat(50_000_000) }))),
    "/large": (_request, response) => sendJson(response, documentText("/large", { padding: "x".repeat(5200) })),
    "/endless": (_request, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      const more = () => {
        while (response.write(" ".repeat(16_384)));
      };
      response.on("drain", more).on("error", () => {});
      more();
    },
    "/cut": (_request, response) => {
      response.writeHead(200, { "content-type": "application/json", "content-length": "4000" });
      response.write('{"client_id":');
      setImmediate(() => response.destroy());
    },
    "/headers": (_request, response) =>
      response.writeHead(200, { "content-type": "application/json", "x-padding": "x".repeat(64_000) }).end("{}"),
    "/broken": (_request, response) => sendJson(response, '{"client_id":'),
    "/list": (_request, response) => sendJson(response, `[${documentText("/list")}]`),
    "/null": (_request, response) => sendJson(response, "null"),
    "/nothing": (_request, response) => sendJson(response, ""),
    "/number": (_request, response) => sendJson(response, "1e999"),
    "/nested": (_request, response) =>
      sendJson(response, documentText("/nested").replace("{", `{"a":${"[".repeat(900)}${"]".repeat(900)},`)),
    "/encoding": (_request, response) => sendJson(response, Buffer.from(`{"client_id":"\xff"}`, "latin1")),
    "/twice": (_request, response) =>
      sendJson(response, documentText("/twice").replace("{", '{"redirect_uris":["https://evil.example/"],')),
    "/twice-escaped": (_request, response) =>
      sendJson(
        response,
        documentText("/twice-escaped").replace("{", '{"redirect\\u005furis":["https://evil.example/"],'),
      ),
    "/twice-deep": (_request, response) =>
      sendJson(
        response,
        documentText("/twice-deep", { jwks: { keys: [] } }).replace('"keys"', '"keys":[{"kty":"EC"}],"keys"'),
      ),
    "/other": (_request, response) => sendJson(response, documentText("/Other")),
    "/other-slash": (_request, response) => sendJson(response, documentText("/other-slash/")),
    "/other-port": (_request, response) => sendJson(response, documentText("/other-port").replace(`:${port}`, "")),
    "/secret": (_request, response) => sendJson(response, documentText("/secret", { client_secret: "s" })),
    "/basic": (_request, response) =>
      sendJson(response, documentText("/basic", { token_endpoint_auth_method: "client_secret_basic" })),
    "/mtls": (_request, response) =>
      sendJson(response, documentText("/mtls", { token_endpoint_auth_method: "tls_client_auth" })),
    "/no-redirects": (_request, response) => sendJson(response, documentText("/no-redirects", { redirect_uris: [] })),
    "/script": (_request, response) =>
      sendJson(response, documentText("/script", { redirect_uris: ["JaVaScRiPt:alert(1)"] })),
    "/script-too": (_request, response) =>
      sendJson(response, documentText("/script-too", { redirect_uris: ["https://docs.example/cb", "javascript:1"] })),
    "/plain": (_request, response) =>
      sendJson(response, documentText("/plain", { redirect_uris: ["http://docs.example/cb"] })),
    "/keyless": (_request, response) =>
      sendJson(response, documentText("/keyless", { token_endpoint_auth_method: "private_key_jwt" })),
    "/key-place": (_request, response) =>
      sendJson(response, documentText("/key-place", { jwks_uri: "http://127.0.0.1/keys" })),
    "/both-keys": (_request, response) =>
      sendJson(response, documentText("/both-keys", { jwks: { keys: [] }, jwks_uri: "https://docs.example/keys" })),
    "/no-code": (_request, response) => sendJson(response, documentText("/no-code", { response_types: ["token"] })),
    "/no-grant": (_request, response) => sendJson(response, documentText("/no-grant", { grant_types: ["implicit"] })),
  };

  function documentText(path: string, more: Record<string, unknown> = {}): string {
    const id = `https://docs.example:${port}${path}`;
    return JSON.stringify({ client_id: id, redirect_uris: ["https://docs.example/cb"], ...more });
  }

  function sendJson(response: ServerResponse, body: string | Buffer): void {
    response.writeHead(200, { "content-type": "application/json" }).end(body);
  }

  test.each(Object.keys(refusedAnswers).map((path) => [path]))("%s", async (path) => {
    answers.set(path, refusedAnswers[path] as Answer);
    published("/fine.json");
    const requested = vi.fn();
    answers.set("/fine.json", requested);
    const started = Date.now();
    const error: unknown = await policy.loadDocument(`https://docs.example:${port}${path}`).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: expect.stringMatching(/^(outbound_refused|upstream_unavailable)$/) });
    expect(Date.now() - started).toBeLessThan(5_000);
    expect(requested).not.toHaveBeenCalled();
    onlyPublic();
  });

  test("an answer that never ends, in whatever way it is slow, is given up after three seconds in all", async () => {
    const drip = (response: ServerResponse, send: () => void) => {
      const timer = setInterval(send, 25);
      response.on("close", () => clearInterval(timer));
    };
    answers.set("/drip-body", (_request, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      drip(response, () => response.write(" "));
    });
    answers.set("/drip-headers", (_request, response) => {
      response.socket?.write("HTTP/1.1 200 OK\r\n");
      drip(response, () => response.socket?.write("x: y\r\n"));
    });
    answers.set("/informational", (_request, response) => drip(response, () => response.writeProcessing()));
    answers.set("/silent", () => {});
    const started = Date.now();
    const results = await Promise.all(
      ["/drip-body", "/drip-headers", "/informational", "/silent"].map((path) =>
        policy.loadDocument(`https://docs.example:${port}${path}`).catch((thrown: unknown) => thrown),
      ),
    );
    for (const result of results)
      expect(result).toMatchObject({
        code: expect.stringMatching(/^(upstream_timeout|outbound_refused|upstream_unavailable)$/),
      });
    expect(Date.now() - started).toBeLessThan(5_000);
    onlyPublic();
  });

  test("a name service that never answers is given up too", async () => {
    const slow = outbound({ extraPorts: [port] }, () => new Promise(() => {}));
    const started = Date.now();
    await expect(
      slow.getJson(`https://docs.example:${port}/x`, { maxBytes: 100, timeoutMs: 300 }),
    ).rejects.toMatchObject({
      code: "upstream_timeout",
    });
    expect(Date.now() - started).toBeLessThan(2_000);
    await slow.close();
    nothingSent();
  });
});

describe("a document that is fine, though odd, is taken", () => {
  test.each([["application/json; charset=utf-8"], ["application/oauth-client+json"], ["Application/JSON"]])(
    "as %s",
    async (type) => {
      const path = `/type-${type.replaceAll(/\W/g, "")}`;
      const id = published(path);
      json(path, JSON.stringify({ client_id: id, redirect_uris: ["https://docs.example/cb"] }), {
        "content-type": type,
      });
      await policy.loadDocument(id);
      onlyPublic();
    },
  );

  test("with the same member in different objects, and braces in texts", async () => {
    const id = published("/braces.json", {
      client_name: '{"a":1,"a":2}',
      a: { client_id: 1, b: [{ b: 1 }, { b: 2 }] },
    });
    expect((await policy.loadDocument(id))["client_name"]).toBe('{"a":1,"a":2}');
  });
});
