/** Everything a person may see of the authorization server: each state of its pages, ready to be opened in a real browser. */
import dns from "node:dns";
import { createServer } from "node:http";
import { syncBuiltinESMExports } from "node:module";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import type { Reach } from "../../src/oauth/server.ts";
import { findChromium } from "../global/chromium.ts";
import {
  authorizeUrl,
  type DocumentHost,
  documentHost,
  listen,
  PASSWORD,
  type Running,
  register,
  running,
  setUp,
  stop,
} from "../oauth/support.ts";

export interface PagesWorld extends AsyncDisposable {
  readonly live: Running;
  readonly host: DocumentHost;
  /** A program on this computer that answers are sent to. */
  readonly program: string;
  /** Client ids by what they stand for. */
  readonly clients: Readonly<Record<ClientName, string>>;
  /** A client of its own for each test, so that none finds a consent of another. Answers go to `https://papercrane.example/callback`. */
  newClient(): string;
  /** Where a client sends a browser to ask. */
  url(client: string, more?: { readonly scope?: string; readonly more?: Record<string, string> }): string;
  /** Opens the pages below in this context, which is signed in afterwards. */
  signIn(context: BrowserContext): Promise<void>;
  readonly states: Readonly<Record<StateName, (page: Page) => Promise<void>>>;
}

export type StateName = (typeof STATE_NAMES)[number];
export const STATE_NAMES = [
  "set-up",
  "sign-in",
  "sign-in, wrong",
  "sign-in, providers",
  "consent, unknown client",
  "consent, registered program",
  "consent, allowed client",
  "consent, operator's client",
  "consent, again",
  "consent, step-up",
  "consent, changed client",
  "consent, look-alike",
  "consent, long name",
  "consent, internationalised",
  "consent, custom scheme",
  "consent, nothing ticked",
  "consent, no role",
  "denied",
  "leaving",
  "error",
  "over",
  "account",
] as const;

type ClientName =
  | "unknown"
  | "registered"
  | "allowed"
  | "operator"
  | "again"
  | "stepUp"
  | "changed"
  | "lookAlike"
  | "long"
  | "international"
  | "scheme"
  | "unticked"
  | "noRole"
  | "denied"
  | "leaving";

const HOSTS = ["papercrane.example", "editor.example", "editor-login.example", "xn--80ak6aa92e.example"] as const;
export const HOSTILE_NAME = `<img src=x onerror="document.title='pwned'"> \u202egnp.exe ${"Wintergreen ".repeat(20)}`;

const REACH: Reach = {
  roles: ["support"],
  servers: [
    {
      name: "orders",
      tools: [
        { name: "get_order", effect: "reads" },
        { name: "update_order", effect: "changes" },
        { name: "cancel_order", effect: "deletes" },
      ],
      resources: 4,
      prompts: 0,
    },
    { name: "github", tools: [{ name: "search_issues", effect: "reads" }], resources: 0, prompts: 2 },
  ],
};

/** Starts a Chromium for which every name below `.example` is the document host, on any port. */
export async function launchChromium({ host }: PagesWorld): Promise<Browser> {
  const executablePath = findChromium();
  if (executablePath === undefined) throw new Error("Install Chromium, or set CHROMIUM to its path.");
  return chromium.launch({
    executablePath,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--ignore-certificate-errors",
      `--host-resolver-rules=MAP *.example 127.0.0.1:${host.port}`,
    ],
  });
}

export async function pagesWorld(): Promise<PagesWorld> {
  const restoreNames = namesOnLoopback();
  const host = await documentHost(HOSTS);
  const done = "You can close this window.";
  host.serve("/callback", (_request, response) => response.end(done));
  host.serve("/favicon.ico", (_request, response) => response.writeHead(204).end());
  const local = createServer((_request, response) => response.end(done));
  const program = `http://127.0.0.1:${await listen(local)}/callback`;
  let ahead = 0;
  const noRole = { id: "" };
  const live = await running({
    clock: () => Date.now() + ahead,
    reach: ({ client }) => (client === noRole.id ? { roles: [], servers: [] } : REACH),
    clients: {
      registration: "open",
      customSchemes: ["lantern"],
      metadataDocuments: { ...host.settings, allow: ["editor.example"] },
      preregistered: [
        { id: "billing", name: "Billing Desk", redirectUris: ["https://billing.example/callback"], secret: undefined },
      ],
    },
  });
  const federated = await running({
    signIn: {
      providers: {
        acme: { issuer: "https://login.acme.example", label: "Acme Works", clientId: "drawbridge" },
        harbour: { issuer: "https://id.harbour.example", label: "Harbour Partners", clientId: "drawbridge" },
      },
    },
  });
  const setUpLink = (await live.server.setupLink()) ?? "";

  const web = (site: string) => `https://${site}/callback`;
  const redirects = new Map<string, string>();
  const publish = (path: string, site: string, metadata: Record<string, unknown> = {}) => {
    const redirect = web(site);
    const id = host.publish(path, { redirect_uris: [redirect], ...metadata }, site);
    redirects.set(id, redirect);
    return id;
  };
  const registered = async (metadata: Record<string, unknown>, redirect = program) => {
    const id = String((await register(live, { redirect_uris: [redirect], ...metadata })).body["client_id"]);
    redirects.set(id, redirect);
    return id;
  };
  redirects.set("billing", "https://billing.example/callback");
  const clients: Record<ClientName, string> = {
    unknown: publish("/client.json", "papercrane.example"),
    registered: await registered({ client_name: "Copper Kettle CLI" }),
    allowed: publish("/editor.json", "editor.example", { client_name: "Lantern Editor" }),
    operator: "billing",
    again: await registered({ client_name: "Copper Kettle CLI" }),
    stepUp: publish("/step-up.json", "papercrane.example"),
    changed: publish("/changed.json", "papercrane.example", { client_name: "Paper Boat" }),
    lookAlike: publish("/login.json", "editor-login.example", { client_name: "Lantern Editor" }),
    long: await registered({ client_name: HOSTILE_NAME }, "https://papercrane.example/callback"),
    international: publish("/lighthouse.json", "xn--80ak6aa92e.example", { client_name: "מגדלור Lighthouse" }),
    scheme: await registered({ client_name: "Lantern" }, "lantern://mcp/callback"),
    unticked: publish("/unticked.json", "papercrane.example"),
    noRole: publish("/no-role.json", "papercrane.example"),
    denied: publish("/denied.json", "papercrane.example"),
    leaving: publish("/leaving.json", "papercrane.example"),
  };
  noRole.id = clients.noRole;

  const url = (client: string, more: { scope?: string; more?: Record<string, string> } = {}) => {
    // More clients than one source may bring in a minute: here a minute passes quickly.
    ahead += 6_000;
    return authorizeUrl(live, { client, redirect: redirects.get(client) ?? program, ...more });
  };
  const opens = (name: ClientName) => async (page: Page) => void (await page.goto(url(clients[name])));
  const allows = async (page: Page, name: ClientName, scope = "mcp:read mcp:call") => {
    await page.goto(url(clients[name], { scope }));
    await page.getByRole("button", { name: "Allow" }).click();
    await page.waitForURL((at) => at.searchParams.has("code"));
  };
  const once = new Map<string, Promise<void>>();
  /** A state's past, made by the first who asks for it. */
  const first = (name: string, make: () => Promise<void>) => {
    const made = once.get(name) ?? make();
    once.set(name, made);
    return made;
  };

  const states: PagesWorld["states"] = {
    "set-up": async (page) => {
      await page.goto((await live.server.setupLink()) ?? setUpLink);
    },
    "sign-in": async (page) => {
      await page.context().clearCookies();
      await page.goto(url(clients.unknown));
    },
    "sign-in, wrong": async (page) => {
      await page.context().clearCookies();
      await page.goto(url(clients.unknown));
      await page.getByLabel("Name", { exact: true }).fill("olive");
      await page.getByLabel("Password", { exact: true }).fill("not the password");
      await page.getByRole("button", { name: "Sign in" }).click();
      await page.getByRole("alert").waitFor();
    },
    "sign-in, providers": async (page) => {
      await page.context().clearCookies();
      if ((await federated.server.setupLink()) !== undefined) await setUp(federated);
      await page.goto(`${federated.base}/sign-in`);
    },
    "consent, unknown client": opens("unknown"),
    "consent, registered program": opens("registered"),
    "consent, allowed client": opens("allowed"),
    "consent, operator's client": opens("operator"),
    "consent, again": async (page) => {
      await first("again", () => allows(page, "again"));
      await page.goto(url(clients.again));
    },
    "consent, step-up": async (page) => {
      await first("stepUp", () => allows(page, "stepUp", "mcp:read"));
      await page.goto(url(clients.stepUp));
    },
    "consent, changed client": async (page) => {
      await first("changed", async () => {
        await allows(page, "changed");
        publish("/changed.json", "papercrane.example", {
          client_name: "Paper Boat Pro",
          redirect_uris: [web("papercrane.example"), "https://collector.example/cb"],
        });
        // Our copy of the document is kept for a minute, the library's for a second of real time.
        ahead += 61_000;
      });
      await page.goto(url(clients.changed));
      for (let tries = 0; tries < 50 && !(await page.getByText("It has changed since").isVisible()); tries++) {
        await page.waitForTimeout(200);
        await page.goto(url(clients.changed));
      }
    },
    "consent, look-alike": opens("lookAlike"),
    "consent, long name": opens("long"),
    "consent, internationalised": opens("international"),
    "consent, custom scheme": opens("scheme"),
    "consent, nothing ticked": async (page) => {
      await page.goto(url(clients.unticked));
      for (const box of await page.getByRole("checkbox").all()) await box.uncheck();
      await page.getByRole("button", { name: "Allow" }).click();
      await page.getByRole("alert").waitFor();
    },
    "consent, no role": opens("noRole"),
    denied: async (page) => {
      await page.goto(url(clients.denied));
      await page.getByRole("button", { name: "Deny" }).click();
      await page.getByRole("heading", { name: /denied/i }).waitFor();
    },
    leaving: async (page) => {
      await page.goto(url(clients.leaving, { more: { prompt: "none" } }));
    },
    error: async (page) => {
      await page.goto(authorizeUrl(live, { client: clients.unknown, redirect: "https://collector.example/cb" }));
    },
    over: async (page) => {
      await page.goto(url(clients.unknown));
      await page.goto(`${page.url().slice(0, -4)}gone`);
    },
    account: async (page) => {
      await first("account", async () => {
        await allows(page, "unknown");
        await allows(page, "allowed");
      });
      await page.goto(`${live.base}/account`);
    },
  };

  return {
    live,
    host,
    program,
    clients,
    newClient: () => publish(`/test-${redirects.size}.json`, "papercrane.example"),
    url,
    states,
    async signIn(context) {
      const page = await context.newPage();
      const link = await live.server.setupLink();
      await page.goto(link ?? `${live.base}/sign-in`);
      await page.getByLabel("Name", { exact: true }).fill("olive");
      await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
      if (link !== undefined) await page.getByLabel("Password, once more").fill(PASSWORD);
      await page.locator("main button[class=full]").click();
      await page.waitForURL(`${live.base}/account`);
      await page.close();
    },
    async [Symbol.asyncDispose]() {
      await live[Symbol.asyncDispose]();
      await federated[Symbol.asyncDispose]();
      await stop(local);
      await host[Symbol.asyncDispose]();
      restoreNames();
    },
  };
}

/** Names below `.example` are this machine, so that documents have hosts that look like those of real clients. */
function namesOnLoopback(): () => void {
  const { lookup } = dns;
  const here = (host: string, options: dns.LookupAllOptions, answer: (...args: unknown[]) => void) =>
    host.endsWith(".example") ? answer(null, [{ address: "127.0.0.1", family: 4 }]) : lookup(host, options, answer);
  dns.lookup = here as unknown as typeof lookup;
  syncBuiltinESMExports();
  return () => {
    dns.lookup = lookup;
    syncBuiltinESMExports();
  };
}
