/** Every state of the consent page, and where its answers lead. */
import { domainToASCII } from "node:url";
import { exportJWK, generateKeyPair } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { skeleton } from "../../src/core/confusables.ts";
import { likeness } from "../../src/oauth/clients/look-alikes.ts";
import type { Reach } from "../../src/oauth/server.ts";
import {
  authorize,
  authorizeUrl,
  type Browser,
  connect,
  type DocumentHost,
  documentHost,
  REDIRECT,
  type Running,
  register,
  running,
  setUp,
} from "./support.ts";

const WEB = "https://shop.example/cb";
const TYPED = { headers: { "sec-fetch-site": "none" } };
const REACH: Reach = {
  roles: ["support", "<b>sales</b>"],
  servers: [
    {
      name: "orders",
      tools: [
        { name: "get_order", effect: "reads" },
        { name: "<i>cancel</i>", effect: "deletes" },
      ],
      resources: 1,
      prompts: 0,
    },
  ],
};

let host: DocumentHost;
let live: Running;
let browser: Browser;
let ahead = 0;
let published = 0;
let powerless = "";

beforeAll(async () => {
  host = await documentHost();
  live = await running({
    clock: () => Date.now() + ahead,
    reach: ({ client }) => (client === powerless ? { roles: [], servers: [] } : REACH),
    clients: {
      registration: "open",
      customSchemes: ["lantern"],
      metadataDocuments: { ...host.settings, allow: ["claude.ai"] },
      preregistered: [{ id: "billing", name: "Billing Desk", redirectUris: [WEB] }],
    },
  });
  browser = await setUp(live);
});
afterAll(async () => {
  await live[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

/** A client with a document on a web server, unknown to everybody. */
function document(metadata: Record<string, unknown> = {}, path = `/client-${published++}.json`): string {
  // More than one host's share of a minute is asked for here.
  ahead += 5_000;
  return host.publish(path, { redirect_uris: [WEB], ...metadata });
}

async function registered(metadata: Record<string, unknown> = {}): Promise<string> {
  ahead += 60_000;
  return String((await register(live, metadata)).body["client_id"]);
}

interface Asking {
  readonly scope?: string;
  readonly redirect?: string;
  readonly more?: Record<string, string>;
}

/** What the page says, without its markup, when `client` asks. */
async function asked(client: string, { redirect = WEB, ...more }: Asking = {}): Promise<string> {
  expect(await browser.go(authorizeUrl(live, { client, redirect, ...more }))).toBeUndefined();
  return said();
}

function said(): string {
  return browser.last.text
    .replace(/[\s\S]*<main>/, "")
    .replace(/<[^>]+>/g, " ")
    .replace(/\s+/g, " ");
}

async function allowed(client: string, asking: Asking = {}): Promise<URL> {
  await asked(client, asking);
  const end = await browser.submit({ answer: "allow" });
  if (end?.searchParams.has("code") !== true) throw new Error(`no code: ${end} ${said()}`);
  return end;
}

/** Waits until a document that was published again is the one that counts. */
async function republished(id: string, metadata: Record<string, unknown>): Promise<void> {
  document(metadata, new URL(id).pathname);
  ahead += 61_000;
  // The library's own copy lives for a second of real time.
  await expect.poll(() => asked(id), { timeout: 25_000, interval: 200 }).toContain("It has changed since");
}

describe("who asks", () => {
  test("by a document: its name, the host that was proved, and that the operator does not know it", async () => {
    const text = await asked(document());
    expect(text).toContain("Let Paper Crane use");
    expect(text).toContain("Paper Crane the name it gives itself");
    expect(text).toMatch(/Comes from localhost:\d+ Verified Not known to your operator/);
    expect(text).toContain("Answer goes to shop.example");
    expect(text).toContain("Signed in as olive");
    expect(text).not.toContain("Nobody has verified");
    expect(text).not.toContain("this computer");
  });

  test("from a domain that the operator allows is said to be allowed", async () => {
    await using here = await running({ clients: { metadataDocuments: { ...host.settings, allow: ["localhost"] } } });
    const someone = await setUp(here);
    await someone.go(authorizeUrl(here, { client: document(), redirect: WEB }));
    expect(someone.last.text).toContain("Verified, allowed by your operator");
  });

  test("from the settings file bears the operator's name for it", async () => {
    const text = await asked("billing");
    expect(text).toContain("Billing Desk Comes from Set up by your operator");
    expect(text).not.toContain("the name it gives itself");
  });

  test("by registration is unverified, and a program on this computer can be any program", async () => {
    const text = await asked(await registered(), { redirect: REDIRECT });
    expect(text).toContain("Nobody has verified who this is.");
    expect(text).toContain("Comes from unknown Not verified");
    expect(text).toContain("Any program that runs here can pretend to be Test client");
    expect(text).toContain("Answer goes to 127.0.0.1:49152 a program on this computer");
  });

  test("with a scheme of its own is a program on this computer too", async () => {
    const redirect = "lantern://mcp/callback";
    const text = await asked(await registered({ redirect_uris: [redirect] }), { redirect });
    expect(text).toContain("Answer goes to lantern: a program on this computer");
  });

  test("with an internationalised host shows both spellings of it", async () => {
    const redirect = "https://xn--80ak6aa92e.example/cb";
    const text = await asked(await registered({ redirect_uris: [redirect] }), { redirect });
    expect(text).toContain("аррӏе.example (xn--80ak6aa92e.example)");
  });

  test("with a long, a right-to-left or no name does not disturb the page", async () => {
    const text = await asked(await registered({ client_name: "x".repeat(10_000), redirect_uris: [WEB] }));
    expect(text).toContain(`Let ${"x".repeat(79)}… use`);
    await asked(await registered({ client_name: "מגדלור", redirect_uris: [WEB] }));
    expect(browser.last.text).toContain("<h1>Let <bdi>מגדלור</bdi> use");
    expect(browser.last.text).toContain("<title>Let \u2068מגדלור\u2069 in?");
    const nameless = await registered({ client_name: "\u200b \u202e\u3164\u2800", redirect_uris: [WEB] });
    expect(await asked(nameless)).toContain(`Let ${nameless} use`);
    const piled = await registered({ client_name: `Pile${"\u0300".repeat(70)}`, redirect_uris: [WEB] });
    expect((await asked(piled)).match(/\u0300/g)?.length ?? 0).toBeLessThan(20);
  });
});

describe("what is asked", () => {
  test("can be narrowed, and is not answered by ticking nothing", async () => {
    const client = document();
    await asked(client);
    await browser.submit({ answer: "allow" }, undefined, ["mcp:read", "mcp:call"]);
    expect(browser.last.status).toBe(422);
    expect(browser.last.text).toContain("<title>Error: ");
    expect(said()).toContain("Tick at least one thing to allow, or deny.");
    // The ticks stay as the person left them.
    expect(browser.last.text).not.toContain(" checked");
    await browser.submit({ answer: "allow" }, undefined, ["mcp:call"]);
    expect(live.events.at(-1)).toMatchObject({ type: "consent-granted", scopes: ["mcp:read"], refused: ["mcp:call"] });
  });

  test("in addition is asked alone, and what was allowed before is kept", async () => {
    const client = document();
    await allowed(client, { scope: "mcp:read" });
    const text = await asked(client);
    expect(text).toContain("Let Paper Crane do more?");
    expect(text).toContain("New: it will also be able to Use tools for you");
    expect(text).toContain("Allowed before, and still: See what is there.");
    expect([...browser.last.text.matchAll(/name="scope" value="(.+?)"/g)].map(([, scope]) => scope)).toEqual([
      "mcp:call",
    ]);
    const tokens = await connect(live, browser, { client, redirect: WEB });
    expect(tokens.scope).toBe("mcp:read mcp:call");
    const end = await browser.go(authorizeUrl(live, { client, redirect: WEB }), TYPED);
    expect(end?.searchParams.has("code")).toBe(true);
  });

  test("in addition and alone gives a token for that alone, and forgets nothing", async () => {
    const client = document();
    await allowed(client, { scope: "mcp:read" });
    expect(await asked(client, { scope: "mcp:call" })).toContain("Allowed before, and still: See what is there.");
    const tokens = await connect(live, browser, { client, redirect: WEB, scope: "mcp:call" });
    expect(tokens.scope).toBe("mcp:call");
    const end = await browser.go(authorizeUrl(live, { client, redirect: WEB }), TYPED);
    expect(end?.searchParams.has("code")).toBe(true);
  });

  test("in addition and denied leaves what was allowed", async () => {
    const client = document();
    await allowed(client, { scope: "mcp:read" });
    await asked(client);
    expect((await browser.submit({ answer: "deny" }))?.searchParams.get("error")).toBe("access_denied");
    const end = await browser.go(authorizeUrl(live, { client, redirect: WEB, scope: "mcp:read" }), TYPED);
    expect(end?.searchParams.has("code")).toBe(true);
  });

  test("again by a program on this computer is asked whole, and what is unticked now is no longer allowed", async () => {
    const client = await registered();
    await connect(live, browser, { client });
    const text = await asked(client, { redirect: REDIRECT });
    expect(text).toContain("Let Test client in again?");
    expect(text).toContain("Nothing has changed since.");
    expect(text).toContain("See what is there");
    await browser.submit({ answer: "allow" }, undefined, ["mcp:call"]);
    expect(await asked(client, { redirect: REDIRECT })).toContain("New: it will also be able to Use tools for you");
  });

  test("does not count when the question was answered otherwise in another tab meanwhile", async () => {
    const client = document();
    await asked(client);
    const [url, stale] = [browser.last.url, browser.form({ answer: "allow" })];
    await allowed(client, { scope: "mcp:read" });
    const before = live.events.length;
    expect((await browser.fetch(url, stale)).status).toBe(403);
    expect(live.events).toHaveLength(before);
  });

  test("means the tools of one's roles, told to whoever wants to know", async () => {
    const text = await asked(document());
    expect(text).toContain("What that means here: 2 tools of 1 server");
    expect(text).toContain("What your roles support, &#60;b&#62;sales&#60;/b&#62; permit today");
    expect(text).toContain("orders get_order reads &#60;i&#62;cancel&#60;/i&#62; deletes");
    expect(text).toContain("also 1 resource to read");
  });

  test("is nothing that anybody could give who has no role", async () => {
    powerless = document();
    const text = await asked(powerless);
    expect(text).toContain("Paper Crane could do nothing for you");
    expect(text).not.toContain("Allow");
    expect(await browser.submit({ answer: "allow", scope: "mcp:read" })).toBeUndefined();
    expect(said()).toContain("could do nothing for you");
    await browser.submit({ answer: "deny" });
    expect(said()).toContain("You denied Paper Crane");
    expect(live.events.some((event) => event.type === "consent-granted" && event.client === powerless)).toBe(false);
  });
});

describe("a client that has changed since", () => {
  test("is asked about anew, with its old name, its new addresses and that its keys are new", async () => {
    const client = document({ client_name: "Paper Boat" });
    await allowed(client);
    const { publicKey } = await generateKeyPair("ES256");
    await republished(client, {
      client_name: "Paper Boat Pro",
      redirect_uris: [WEB, ...["a", "b", "c", "d"].map((name) => `https://${name}.example/cb`)],
      jwks: { keys: [{ ...(await exportJWK(publicKey)), alg: "ES256", use: "sig", kid: "k" }] },
    });
    const text = said();
    expect(text).toContain("Let Paper Boat Pro in again?");
    expect(text).toContain("It was called Paper Boat .");
    for (const name of ["a", "b", "c"]) expect(text).toContain(`Answers may now go to ${name}.example/cb .`);
    expect(text).toContain("And to 1 other address.");
    expect(text).toContain("its keys are new");
    // All is asked again: nothing was ever allowed to this client.
    expect(text).toContain("See what is there");
    expect(text).toContain("Use tools for you");
    expect(await browser.submit({ answer: "allow" })).toBeDefined();
    expect(await asked(client)).toContain("Nothing has changed since.");
  });

  test("and has lost an address is asked about too", async () => {
    const client = document({ redirect_uris: [WEB, "https://old.example/cb"] });
    await allowed(client);
    await republished(client, {});
    expect(said()).toContain("1 address that answers could go to is gone.");
  });

  test("and asks for less than before does not keep the rest", async () => {
    const client = document();
    await allowed(client);
    await republished(client, { client_name: "Paper Plane" });
    await allowed(client, { scope: "mcp:read" });
    expect(await asked(client)).toContain("New: it will also be able to Use tools for you");
  });
});

describe("a client that could be taken for another", () => {
  const warned = "This may not be who you think.";

  test("is pointed out when its name is that of one the operator has set up", async () => {
    const text = await asked(await registered({ client_name: "Bi11ing-Desk", redirect_uris: [WEB] }));
    expect(text).toContain(
      `${warned} Your operator has set up a client called Billing Desk , and this is another one.`,
    );
    expect(await asked("billing")).not.toContain(warned);
  });

  test("is pointed out when its name is that of one with a domain that was let in before", async () => {
    const real = document({ client_name: "Copper Kettle" });
    await allowed(real);
    const twin = await registered({ client_name: "Соpper Kettle", redirect_uris: [WEB] });
    expect(await asked(twin)).toMatch(/You let in Copper Kettle of localhost:\d+ before\. This one has the same name/);
    // The same people's second client, and the first itself, are nobody else.
    expect(await asked(document({ client_name: "Copper Kettle" }))).not.toContain(warned);
    expect(await asked(real)).not.toContain(warned);
  });

  test("is pointed out when its name speaks of a domain that the operator allows", async () => {
    const text = await asked(await registered({ client_name: "Сlaude Code", redirect_uris: [WEB] }));
    expect(text).toContain(`${warned} Its name or address resembles claude.ai , which your operator allows.`);
  });

  test("is not pointed out beside others that nobody has verified either, nor for a name that is not alike", async () => {
    const first = await registered({ client_name: "Wren", redirect_uris: [WEB] });
    await allowed(first);
    expect(await asked(await registered({ client_name: "Wren", redirect_uris: [WEB] }))).not.toContain(warned);
    expect(await asked(await registered({ client_name: "Cloudy Day", redirect_uris: [WEB] }))).not.toContain(warned);
  });

  test.each([
    ["PayPaI", "paypal"],
    ["раураl", "PayPal"],
    ["C l a u d e", "claude"],
    ["Ｃｌａｕｄｅ", "Claude"],
    ["Cláude", "Claude"],
    ["cIaudė", "Claude"],
    ["Goog1e", "Google"],
    ["rnicrosoft", "Microsoft"],
    ["G00gle", "Google"],
  ])("%s looks like %s", (one, other) => {
    expect(skeleton(one)).toBe(skeleton(other));
  });

  test.each([
    ["claude-ai.example", "claude.ai"],
    ["claude.ai.attacker.example", "claude.ai"],
    ["cIaude.example", "claude.ai"],
    ["xn--lude-43d6a.example", undefined],
    ["login.acme-portal.example", "*.mcp.acme.co.uk"],
    ["papercrane.example", undefined],
    [domainToASCII("сlaude.example"), "claude.ai"],
  ])("the host %s resembles %s", (named, domain) => {
    const found = likeness({ id: "x", name: "Tool", host: named }, [], ["claude.ai", "*.mcp.acme.co.uk", "x.io"]);
    expect(found).toEqual(domain && { of: "allowed-domain", domain: domain.replace("*.", "") });
  });
});

describe("an answer", () => {
  test("of no goes to an unknown client only by a link that the person follows, whole", async () => {
    await asked(document());
    expect(await browser.submit({ answer: "deny" })).toBeUndefined();
    expect(browser.last.status).toBe(200);
    expect(browser.last.headers.get("cache-control")).toBe("no-store");
    expect(said()).toContain("You denied Paper Crane It got nothing");
    const link = new URL(/href="(https:[^"]+)"/.exec(browser.last.text)?.[1]?.replaceAll("&#38;", "&") ?? "");
    expect(`${link.origin}${link.pathname}`).toBe(WEB);
    expect(Object.fromEntries(link.searchParams)).toEqual({
      error: "access_denied",
      error_description: "the user denied the request",
      state: "state-1",
      iss: live.base,
    });
  });

  test.each([
    ["a program on this computer", () => registered(), REDIRECT],
    ["a client that the operator has set up", async () => "billing", WEB],
  ])("of no goes at once to %s", async (_what, client, redirect) => {
    await asked(await client(), { redirect });
    const end = await browser.submit({ answer: "deny" });
    expect(end?.searchParams.get("error")).toBe("access_denied");
    expect(end?.searchParams.get("iss")).toBe(live.base);
  });

  test("of no after a yes goes at once, too", async () => {
    const client = document();
    await allowed(client);
    await asked(client);
    expect((await browser.submit({ answer: "deny" }))?.searchParams.get("error")).toBe("access_denied");
  });

  test("after ten minutes is too late", async () => {
    await asked(document());
    const [url, form] = [browser.last.url, browser.form({ answer: "allow" })];
    ahead += 10 * 60_000 + 1_000;
    expect((await browser.fetch(url, form)).status).toBe(400);
    expect((await browser.fetch(url)).status).toBe(400);
    expect(said()).toContain("This request has ended, was answered already, or was begun in another browser");
  });

  test("that is neither yes nor no is refused, and can be given again", async () => {
    const client = document();
    await asked(client);
    const [url, form] = [browser.last.url, browser.form({ answer: "perhaps" })];
    expect((await browser.fetch(url, form)).status).toBe(400);
    await browser.go(url);
    expect((await browser.submit({ answer: "allow" }))?.searchParams.has("code")).toBe(true);
  });
});

test("a whole authorization through all of this still ends with a code", async () => {
  const end = await authorize(live, browser, { client: document(), redirect: WEB });
  expect(Object.fromEntries(end.searchParams)).toMatchObject({ code: expect.any(String), iss: live.base });
});
