import { describe, expect, test } from "vitest";
import { memoryStore } from "../../src/store/memory/memory.ts";
import {
  authorize,
  authorizeUrl,
  Browser,
  call,
  connect,
  documentHost,
  PASSWORD,
  REDIRECT,
  type Running,
  register,
  running,
  setUp,
} from "../oauth/support.ts";
import { verifies } from "../requirements.ts";
import { attack } from "./checklist.ts";

async function started(options: Parameters<typeof running>[0] = {}) {
  const live = await running({ ...options, clients: { registration: "open", ...options.clients } });
  const browser = await setUp(live);
  const client = String((await register(live)).body["client_id"]);
  return { live, browser, client, [Symbol.asyncDispose]: () => live[Symbol.asyncDispose]() };
}

/** A browser in front of the consent page. */
async function asked(live: Running, browser: Browser, client: string): Promise<string> {
  await browser.go(authorizeUrl(live, { client }));
  expect(browser.last.text).toMatch(/will (also )?be able to/);
  return browser.last.url;
}

describe("a consent", () => {
  test("is not given by a form without, or with another, form token", async () => {
    await using here = await started();
    const { live, browser, client } = here;
    const url = await asked(live, browser, client);
    for (const form of ["", "A".repeat(43)]) {
      const response = await browser.fetch(url, {
        method: "POST",
        body: new URLSearchParams({ form, answer: "allow", scope: "mcp:read" }),
      });
      expect(response.status).toBe(403);
    }
    await browser.go(url);
    const foreign = { ...browser.form({ answer: "allow" }), headers: { "sec-fetch-site": "cross-site" } };
    expect((await browser.fetch(url, foreign)).status).toBe(403);
    await browser.go(url);
    expect(await browser.submit({ answer: "allow" })).toBeDefined();
  });

  attack(
    19,
    "is not given with the form token of another session, of another question or of another page",
    async () => {
      await using here = await started();
      const { live, browser, client } = here;
      const other = new Browser(live.origin);
      await other.go(`${live.base}/sign-in`);
      await other.submit({ name: "olive", password: PASSWORD });
      const theirs = await asked(live, other, client).then(
        () => other.form({ answer: "allow" }).body as URLSearchParams,
      );
      await asked(live, browser, String((await register(live)).body["client_id"]));
      const question = browser.form({ answer: "allow" }).body as URLSearchParams;
      await browser.go(`${live.base}/account`);
      const page = browser.form({ answer: "allow", scope: "mcp:read" }).body as URLSearchParams;
      const url = await asked(live, browser, client);
      const headers = { "sec-fetch-site": "same-origin" };
      for (const body of [theirs, question, page])
        expect((await browser.fetch(url, { method: "POST", body, headers })).status).toBe(403);
      await browser.go(url);
      expect((await browser.submit({ answer: "allow" }))?.searchParams.get("code")).toBeTruthy();
    },
  );

  test("counts once: the same answer again, or a second at the same time, gives nothing", async () => {
    await using here = await started();
    const { live, browser, client } = here;
    const url = await asked(live, browser, client);
    const answer = browser.form({ answer: "allow" });
    const answers = await Promise.all([1, 2, 3, 4].map(() => browser.fetch(url, answer)));
    expect(answers.filter(({ status }) => status === 303)).toHaveLength(1);
    expect(live.events.filter(({ type }) => type === "consent-granted")).toHaveLength(1);
    expect((await browser.fetch(url, answer)).status).toBe(400);
  });

  test("is bound to the browser that began it", async () => {
    await using here = await started();
    const { live, browser, client } = here;
    const url = await asked(live, browser, client);
    const answer = browser.form({ answer: "allow" });
    const other = new Browser(live.origin);
    await other.go(`${live.base}/sign-in`);
    await other.submit({ name: "olive", password: PASSWORD });
    expect(other.last.text).toContain("Clients you let in");
    expect((await other.fetch(url)).status).toBe(400);
    expect((await other.fetch(url, answer)).status).toBe(400);
    expect(live.events.some(({ type }) => type === "consent-granted")).toBe(false);
  });

  test("is not taken over by whoever opens the link at its end", async () => {
    await using here = await started();
    const { live, browser, client } = here;
    const url = await asked(live, browser, client);
    const given = await browser.fetch(url, browser.form({ answer: "allow" }));
    const end = new URL(given.headers.get("location") ?? "", live.base);
    expect(end.pathname).toMatch(/^\/oauth\/authorize\//);
    for (const signedIn of [false, true]) {
      const victim = new Browser(live.origin);
      if (signedIn) {
        await victim.go(`${live.base}/sign-in`);
        await victim.submit({ name: "olive", password: PASSWORD });
      }
      expect(await victim.go(end.href)).toBeUndefined();
      expect(victim.last.status).toBe(400);
    }
    expect((await browser.go(end.href))?.searchParams.has("code")).toBe(true);
  });

  test("is kept on our side: no cookie stands for it, before or after", async () => {
    await using here = await started();
    const { live, browser, client } = here;
    await asked(live, browser, client);
    const before = browser.cookieNames;
    await browser.submit({ answer: "allow" });
    expect(browser.cookieNames.filter((name) => !before.includes(name))).toEqual([]);
    await browser.go(`${live.base}/account`);
    await browser.submit({ client }, `${live.base}/account/revoke`);
    // With all the cookies that there were, it is gone.
    await asked(live, browser, client);
    expect(browser.last.text).not.toContain("You let it use");
  });

  test("is asked for again when a remembered client wants more, or answers elsewhere", async () => {
    await using here = await started();
    const { live, browser } = here;
    const [one, two] = ["https://shop.example/cb", "https://shop.example/other"];
    const web = String((await register(live, { redirect_uris: [one, two] })).body["client_id"]);
    await authorize(live, browser, { client: web, redirect: one, scope: "mcp:read" });
    const none = { headers: { "sec-fetch-site": "none" } };
    const read = { client: web, redirect: one, scope: "mcp:read" };
    expect(await browser.go(authorizeUrl(live, read), none)).toBeDefined();
    expect(await browser.go(authorizeUrl(live, { ...read, scope: "mcp:read mcp:call" }), none)).toBeUndefined();
    // Where the answer goes was shown then, and this is another place.
    expect(await browser.go(authorizeUrl(live, { ...read, redirect: two }), none)).toBeUndefined();
    expect(browser.last.text).toContain("This time the answer goes to another address.");
    await browser.submit({ answer: "allow" });
    for (const redirect of [one, two]) {
      expect(await browser.go(authorizeUrl(live, { ...read, redirect }), none)).toBeDefined();
    }
  });

  attack(22, "that is withdrawn while a browser comes back to it is not used: no grant outlives it", async () => {
    const { records } = memoryStore();
    let meanwhile: (() => Promise<unknown>) | undefined;
    const put: typeof records.put = async (kind, ...rest) => {
      const first = kind === "oauth:Grant" ? meanwhile : undefined;
      if (first !== undefined) meanwhile = undefined;
      await first?.();
      return records.put(kind, ...rest);
    };
    await using here = await started({ records: { ...records, put } });
    const { live, browser } = here;
    const redirect = "https://shop.example/cb";
    const web = String((await register(live, { redirect_uris: [redirect] })).body["client_id"]);
    const none = { headers: { "sec-fetch-site": "none" } };
    await authorize(live, browser, { client: web, redirect });
    expect(await browser.go(authorizeUrl(live, { client: web, redirect }), none)).toBeDefined();
    const other = new Browser(live.origin);
    await other.go(`${live.base}/sign-in`);
    await other.submit({ name: "olive", password: PASSWORD });
    meanwhile = () => other.submit({ client: web }, `${live.base}/account/revoke`);
    expect(await browser.go(authorizeUrl(live, { client: web, redirect }), none)).toBeUndefined();
    expect(browser.last.text).toContain("<legend>");
    expect(other.last.text).toContain("access has ended");
    expect(await records.list("oauth:Grant", { limit: 10 })).toEqual([]);
  });

  test("and a sign-in are followed by 303, so that no form is ever sent on", async () => {
    await using here = await started();
    const { live, client } = here;
    const browser = new Browser(live.origin);
    await browser.go(authorizeUrl(live, { client }));
    await browser.submit({ name: "olive", password: PASSWORD });
    await browser.submit({ answer: "allow" });
    const statuses = browser.seen.map(({ status }) => status);
    expect(statuses.filter((status) => status === 303).length).toBeGreaterThan(3);
    expect(statuses.filter((status) => status >= 300 && status !== 303)).toEqual([]);
  });

  test("is not given by somebody who has signed out meanwhile", async () => {
    await using here = await started();
    const { live, browser, client } = here;
    const url = await asked(live, browser, client);
    const answer = browser.form({ answer: "allow" });
    await browser.go(`${live.base}/account`);
    await browser.submit({}, `${live.base}/account/sign-out`);
    await browser.go(url, answer);
    expect(browser.last.text).toContain("<h1>Sign in</h1>");
    expect(live.events.some(({ type }) => type === "consent-granted")).toBe(false);
  });

  test("can be for less than was asked, or for nothing", async () => {
    await using here = await started();
    const { live, browser, client } = here;
    const tokens = await connect(live, browser, { client, without: ["mcp:call"] });
    expect(tokens.scope).toBe("mcp:read");
    const other = String((await register(live)).body["client_id"]);
    await asked(live, browser, other);
    expect(await browser.submit({ answer: "allow" }, undefined, ["mcp:read", "mcp:call"])).toBeUndefined();
    expect(browser.last.status).toBe(422);
    const end = await browser.submit({ answer: "deny" });
    expect(end?.searchParams.get("error")).toBe("access_denied");
    expect(end?.searchParams.get("iss")).toBe(live.base);
  });

  verifies(
    "auth-consent",
    "is asked for again by every native client, and by a web client that another site sends",
    async () => {
      await using here = await started();
      const { live, browser, client } = here;
      await connect(live, browser, { client });
      await asked(live, browser, client);
      const redirect = "https://shop.example/cb";
      const web = String((await register(live, { redirect_uris: [redirect] })).body["client_id"]);
      await authorize(live, browser, { client: web, redirect });
      const site = (value: string) => ({ headers: { "sec-fetch-site": value } });
      const url = authorizeUrl(live, { client: web, redirect });
      expect(await browser.go(url, site("cross-site"))).toBeUndefined();
      expect(await browser.go(url)).toBeUndefined();
      expect((await browser.go(url, site("none")))?.searchParams.get("code")).toBeTruthy();
      expect(live.events.findLast(({ type }) => type === "consent-granted")).toMatchObject({ asked: false });
      // Who has the person asked has nothing granted before the person answers.
      const before = live.events.length;
      const insisting = authorizeUrl(live, { client: web, redirect, more: { prompt: "consent" } });
      expect(await browser.go(insisting, site("none"))).toBeUndefined();
      expect(live.events.slice(before).map(({ type }) => type)).not.toContain("consent-granted");
      // Another name is another client, whatever it calls itself.
      const twin = String((await register(live, { redirect_uris: [redirect] })).body["client_id"]);
      expect(await browser.go(authorizeUrl(live, { client: twin, redirect }), site("none"))).toBeUndefined();
    },
  );

  test("is not for a document that was changed between the page and the click", async () => {
    await using host = await documentHost();
    let now = Date.now();
    await using here = await started({ clients: { metadataDocuments: host.settings }, clock: () => now });
    const { live, browser } = here;
    const id = host.publish("/swapped.json");
    const url = await asked(live, browser, id);
    const answer = browser.form({ answer: "allow" });
    host.publish("/swapped.json", { redirect_uris: [REDIRECT, "https://attacker.example/cb"] });
    now += 61_000;
    // The library's own copy of the document lives for a second of real time.
    const page = async () => {
      await browser.go(url);
      return browser.last.text;
    };
    const before = browser.last.text;
    await expect.poll(page, { timeout: 25_000, interval: 200 }).not.toBe(before);
    expect((await browser.fetch(url, answer)).status).toBe(403);
  });

  test("is asked for again when the client's document has changed", async () => {
    await using host = await documentHost();
    let now = Date.now();
    await using here = await started({ clients: { metadataDocuments: host.settings }, clock: () => now });
    const { live, browser } = here;
    const redirect = "https://shop.example/cb";
    const id = host.publish("/app.json", { redirect_uris: [redirect] });
    await authorize(live, browser, { client: id, redirect });
    const none = { headers: { "sec-fetch-site": "none" } };
    expect(await browser.go(authorizeUrl(live, { client: id, redirect }), none)).toBeDefined();
    host.publish("/app.json", { redirect_uris: [redirect, "https://attacker.example/cb"] });
    now += 61_000;
    // The library's own copy of the document lives for a second of real time.
    await expect
      .poll(() => browser.go(authorizeUrl(live, { client: id, redirect }), none), { timeout: 25_000, interval: 200 })
      .toBeUndefined();
    expect(browser.last.text).toContain("It has changed since you let it use");
  });
});

describe("the pages", () => {
  verifies(
    "rfc9700-clickjacking",
    "cannot be framed, cached or scripted, and tell no one where the browser came from",
    async () => {
      await using here = await started();
      const { live, browser, client } = here;
      await asked(live, browser, client);
      const consent = browser.last.headers;
      await browser.go(`${live.base}/account`);
      for (const headers of [consent, browser.last.headers]) {
        const policy = headers.get("content-security-policy") ?? "";
        expect(policy).toContain("default-src 'none'");
        expect(policy).toContain("frame-ancestors 'none'");
        expect(policy).toContain("base-uri 'none'");
        expect(policy).not.toContain("unsafe");
        expect(headers.get("x-frame-options")).toBe("DENY");
        expect(headers.get("referrer-policy")).toBe("no-referrer");
        expect(headers.get("cache-control")).toBe("no-store");
      }
      expect(browser.last.headers.get("content-security-policy")).toContain("form-action 'self'");
      // Chromium would stop the way back to the client.
      expect(consent.get("content-security-policy")).not.toContain("form-action");
      for (const { text } of browser.seen) expect(text).not.toMatch(/<script|style=|\son\w+=/);
    },
  );

  test("show a hostile client's words as words", async () => {
    await using here = await started();
    const { live, browser } = here;
    const name = `<img src=x onerror=alert(1)>\u202egnp.exe\u200b ${"long ".repeat(2000)}`;
    const { body } = await register(live, { client_name: name, logo_uri: "https://attacker.example/logo.svg" });
    await asked(live, browser, String(body["client_id"]));
    const { text } = browser.last;
    expect(text).toContain("&#60;img src=x");
    expect(text).not.toContain("<img");
    expect(text).not.toMatch(/[\u202e\u200b]/u);
    expect(text).not.toContain("attacker.example");
    expect(text).toContain("Nobody has verified who this is");
    expect(text.length).toBeLessThan(12_000);
  });

  test("set cookies that scripts, other sites and other hosts cannot use", async () => {
    await using live = await running({ publicUrl: "https://gateway.example", clients: { registration: "open" } });
    const link = await live.server.setupLink();
    expect(link).toMatch(/^https:\/\/gateway\.example\/setup\//);
    const browser = new Browser(live.origin, live.base);
    await browser.go(link ?? "");
    await browser.submit({ name: "olive", password: PASSWORD, again: PASSWORD });
    const redirect = "https://shop.example/cb";
    const client = String((await registerAt(live)).client_id);
    const tokens = await connect(live, browser, { client, redirect });
    expect((await call(live, tokens.access_token)).body).toMatchObject({ client });
    const lines = browser.seen.flatMap(({ headers }) => headers.getSetCookie());
    expect(lines.length).toBeGreaterThan(3);
    for (const line of lines) {
      expect(line).toMatch(/; *secure/i);
      expect(line).toMatch(/; *httponly/i);
      expect(line).toMatch(/; *samesite=lax/i);
      expect(line).toMatch(/^__(Host|Secure)-/);
      expect(line).not.toMatch(/domain=/i);
    }
  });
});

async function registerAt(live: Running): Promise<{ client_id: string }> {
  const response = await fetch(`${live.origin}/oauth/register`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ redirect_uris: ["https://shop.example/cb"], token_endpoint_auth_method: "none" }),
  });
  return (await response.json()) as { client_id: string };
}

describe("signing in", () => {
  test("is slowed down after a few wrong tries, for names that exist and names that do not alike", async () => {
    let now = Date.now();
    await using live = await running({ clock: () => now });
    await setUp(live);
    const tries = async (name: string) => {
      const browser = new Browser(live.origin);
      const answers = [];
      for (let i = 0; i < 7; i++) {
        await browser.go(`${live.base}/sign-in`);
        await browser.submit({ name, password: "wrong password" });
        answers.push([browser.last.status, /role="alert">(.*?)<\/div>/.exec(browser.last.text)?.[1]]);
      }
      return answers;
    };
    const known = await tries("olive");
    expect(await tries("nobody")).toEqual(known);
    expect(known.map(([status]) => status)).toEqual([422, 422, 422, 422, 422, 429, 429]);
    const right = async () => {
      const browser = new Browser(live.origin);
      await browser.go(`${live.base}/sign-in`);
      await browser.submit({ name: "olive", password: PASSWORD });
      return browser.last.text.includes("Clients you let in");
    };
    expect(await right()).toBe(false);
    now += 31_000;
    expect(await right()).toBe(true);
  });

  test("with another account goes on as that account, after asking again", async () => {
    await using here = await started();
    const { live, browser, client } = here;
    const { usersIn } = await import("../../src/oauth/people/users.ts");
    await usersIn(live.records).create({ name: "pepper", email: undefined, password: PASSWORD, groups: [] });
    await asked(live, browser, client);
    await browser.submit({ answer: "switch" });
    expect(browser.last.text).toContain("<h1>Sign in</h1>");
    await browser.submit({ name: "pepper", password: PASSWORD });
    expect(browser.last.text).toContain("<bdi>pepper</bdi>");
    const end = await browser.submit({ answer: "allow" });
    expect(end?.searchParams.get("code")).toBeTruthy();
  });

  test("posts to another page than the one shown are refused", async () => {
    await using live = await running();
    await setUp(live);
    const browser = new Browser(live.origin);
    const body = new URLSearchParams({ name: "olive", password: PASSWORD });
    expect((await browser.fetch(`${live.base}/sign-in`, { method: "POST", body })).status).toBe(403);
  });
});

describe("the set-up link", () => {
  test("makes one user, once, and an older or a forged one makes none", async () => {
    await using live = await running();
    const old = await live.server.setupLink();
    const link = (await live.server.setupLink()) ?? "";
    const browser = new Browser(live.origin);
    for (const wrong of [old ?? "", `${live.base}/setup/${"A".repeat(43)}`, `${live.base}/setup/`]) {
      await browser.go(wrong);
      expect(browser.last.status).toBe(404);
    }
    const race = await Promise.all(
      ["olive", "pepper", "sage"].map(async (name) => {
        const each = new Browser(live.origin);
        await each.go(link);
        const sent = each.form({ name, password: PASSWORD, again: PASSWORD });
        return each.fetch(link, sent);
      }),
    );
    expect(race.filter(({ status }) => status === 303)).toHaveLength(1);
    await browser.go(link);
    expect(browser.last.status).toBe(404);
    expect(await live.server.setupLink()).toBeUndefined();
    expect(live.events.filter(({ type }) => type === "user-created")).toHaveLength(1);
  });

  test("is what the sign-in page points to while there is nobody to sign in", async () => {
    await using live = await running();
    const browser = new Browser(live.origin);
    await browser.go(`${live.base}/sign-in`);
    expect(browser.last.text).toContain("There is no account yet");
    await setUp(live);
    await browser.go(`${live.base}/sign-in`);
    expect(browser.last.text).not.toContain("There is no account yet");
  });

  test("ends after a day", async () => {
    let now = Date.now();
    await using live = await running({ clock: () => now });
    const link = (await live.server.setupLink()) ?? "";
    now += 24 * 3_600_000 + 1;
    const browser = new Browser(live.origin);
    await browser.go(link);
    expect(browser.last.status).toBe(404);
  });

  test("does not take a weak password", async () => {
    await using live = await running();
    const browser = new Browser(live.origin);
    await browser.go((await live.server.setupLink()) ?? "");
    for (const [password, again] of [
      ["short", "short"],
      ["four calm words", "four calm word"],
      ["x".repeat(300), "x".repeat(300)],
    ]) {
      await browser.submit({ name: "olive", password: password ?? "", again: again ?? "" });
      expect(browser.last.status).toBe(422);
    }
    expect(await live.server.setupLink()).toBeDefined();
  });
});

describe("the account page", () => {
  test("ends a client's access at once", async () => {
    await using here = await started();
    const { live, browser, client } = here;
    const { access_token } = await connect(live, browser, { client });
    expect((await call(live, access_token)).status).toBe(200);
    await browser.go(`${live.base}/account`);
    expect(browser.last.text).toContain("Test client");
    await browser.submit({ client }, `${live.base}/account/revoke`);
    expect(browser.last.text).toContain("access has ended");
    expect(browser.last.text).not.toContain("Test client");
    expect((await call(live, access_token)).status).toBe(401);
  });

  test("changes the password and signs other browsers out", async () => {
    await using here = await started();
    const { live, browser } = here;
    const other = new Browser(live.origin);
    await other.go(`${live.base}/sign-in`);
    await other.submit({ name: "olive", password: PASSWORD });
    const change = (current: string) =>
      browser.submit(
        { current, next: "five calm words over here", again: "five calm words over here" },
        `${live.base}/account/password`,
      );
    await browser.go(`${live.base}/account`);
    await change("not the password");
    expect(browser.last.status).toBe(422);
    await change(PASSWORD);
    expect(browser.last.text).toContain("The password is changed");
    await other.go(`${live.base}/account`);
    expect(other.last.text).toContain("<h1>Sign in</h1>");
  });

  test("does nothing for a form that another site sends", async () => {
    await using here = await started();
    const { live, browser, client } = here;
    const { access_token } = await connect(live, browser, { client });
    for (const action of ["revoke", "password", "sign-out"]) {
      const body = new URLSearchParams({ client, current: PASSWORD, next: "x".repeat(20), again: "x".repeat(20) });
      expect((await browser.fetch(`${live.base}/account/${action}`, { method: "POST", body })).status).toBe(403);
    }
    expect((await call(live, access_token)).status).toBe(200);
  });
});
