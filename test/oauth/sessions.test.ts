import { describe, expect, test } from "vitest";
import { browserName, sessionsIn } from "../../src/oauth/people/sessions.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import { identityProvider, signInAt } from "./identity-provider.ts";
import { Browser, PASSWORD, type Running, running, setUp } from "./support.ts";

const FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

async function signIn({ base, origin }: Running, userAgent = FIREFOX): Promise<Browser> {
  const browser = new Browser(origin, undefined, { "user-agent": userAgent });
  await browser.go(`${base}/sign-in`);
  await browser.submit({ name: "olive", password: PASSWORD });
  return browser;
}

async function signedIn(browser: Browser, { base }: Running): Promise<boolean> {
  await browser.go(`${base}/account`);
  return browser.last.text.includes("<title>Your account");
}

describe("sessions in the store", () => {
  const begun = { user: "u", userAgent: FIREFOX, source: "192.0.2.1" };

  test("are begun with a secret that is kept nowhere, and seen by it", async () => {
    const { records } = memoryStore();
    const sessions = sessionsIn(records, 8);
    const secret = await sessions.begin({ ...begun, provider: "idp", interaction: "i" });
    expect(await sessions.seen(secret)).toMatchObject({ ...begun, provider: "idp", interaction: "i" });
    const rows = await records.list("oauth:browser-session", { limit: 10 });
    expect(JSON.stringify(rows)).not.toContain(secret);
    expect(await sessions.seen(rows[0]?.id ?? "")).toBeUndefined();
  });

  test("note when they were seen, once a minute at most, and end in time all the same", async () => {
    let now = 1_000_000;
    const { records } = memoryStore(() => now);
    let writes = 0;
    const counting: typeof records = {
      ...records,
      put(...args) {
        writes++;
        return records.put(...args);
      },
    };
    const sessions = sessionsIn(counting, 1, () => now);
    const secret = await sessions.begin(begun);
    for (let second = 1; second <= 130; second++) {
      now += 1000;
      await sessions.seen(secret);
    }
    expect(writes).toBe(1 + 2);
    expect((await sessions.list("u"))[0]?.lastSeenAt).toBe(1_120_000);
    now = 1_000_000 + 3_600_000;
    expect(await sessions.seen(secret)).toBeUndefined();
    expect(await sessions.list("u")).toEqual([]);
  });

  test("do not come back when they are ended while being seen", async () => {
    let now = 1_000_000;
    const { records } = memoryStore(() => now);
    const sessions = sessionsIn(records, 1, () => now);
    const secret = await sessions.begin(begun);
    now += 120_000;
    const late = sessionsIn(
      {
        ...records,
        async put(...args) {
          await sessions.endAll("u");
          return records.put(...args);
        },
      },
      1,
      () => now,
    );
    await late.seen(secret);
    expect(await sessions.seen(secret)).toBeUndefined();
  });

  test("are ended one by one, or all but one, by their user only", async () => {
    const sessions = sessionsIn(memoryStore().records, 8);
    for (let i = 0; i < 4; i++) await sessions.begin({ ...begun, source: `192.0.2.${i}` });
    await sessions.begin({ ...begun, user: "other" });
    const [first, second] = await sessions.list("u");
    expect(await sessions.end("other", first?.id ?? "")).toBe(false);
    expect(await sessions.end("u", first?.id ?? "")).toBe(true);
    expect(await sessions.end("u", first?.id ?? "")).toBe(false);
    expect(await sessions.endAll("u", second?.id)).toBe(2);
    expect((await sessions.list("u")).map(({ id }) => id)).toEqual([second?.id]);
    expect(await sessions.endAll("u")).toBe(1);
    expect(await sessions.list("other")).toHaveLength(1);
  });

  test("keep of a browser's name what can be printed, and not too much of it", async () => {
    const sessions = sessionsIn(memoryStore().records, 8);
    const secret = await sessions.begin({ ...begun, userAgent: `\u202e<b>\u0000${"x".repeat(10_000)}` });
    const { userAgent = "" } = (await sessions.seen(secret)) ?? {};
    expect(userAgent).toMatch(/^<b>x+$/);
    expect(userAgent).toHaveLength(256);
  });
});

test.each([
  [FIREFOX, "Firefox on Linux"],
  [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0 Safari/537.36 Edg/150.0",
    "Edge on Windows",
  ],
  [
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
    "Safari on macOS",
  ],
  [
    "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0 Mobile Safari/537.36",
    "Chrome on Android",
  ],
  [
    "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1",
    "Safari on iOS",
  ],
  ["curl/8.14.1", "curl/8.14.1"],
  ["", "A browser that does not say its name"],
])("the browser %j is shown as %j", (userAgent, name) => {
  expect(browserName(userAgent)).toBe(name);
});

describe("the account page", () => {
  test("lists every browser, names its own, and ends another at once", async () => {
    await using gateway = await running();
    await setUp(gateway);
    const mine = await signIn(gateway);
    const other = await signIn(gateway, `<script>alert(1)</script>`);
    expect(await signedIn(mine, gateway)).toBe(true);
    expect(mine.last.text.match(/this browser/g)).toHaveLength(1);
    expect(mine.last.text).toContain("Firefox on Linux");
    expect(mine.last.text).toContain("&#60;script&#62;");
    expect(mine.last.text).not.toContain("<script>");
    const ids = [...mine.last.text.matchAll(/name="session" value="([^"]+)"/g)].map(([, id]) => id);
    expect(ids).toHaveLength(2);
    for (const session of ids) {
      await mine.submit({ session: session ?? "" }, `${gateway.base}/account/end-session`);
      expect(mine.last.text).toContain("That browser is signed out.");
    }
    expect(await signedIn(other, gateway)).toBe(false);
    expect(await signedIn(mine, gateway)).toBe(true);
    expect(gateway.events.filter(({ type }) => type === "sessions-ended")).toHaveLength(2);
  });

  test("ends all others", async () => {
    await using gateway = await running();
    const first = await setUp(gateway);
    const others = [await signIn(gateway), await signIn(gateway)];
    await first.go(`${gateway.base}/account`);
    await first.submit({}, `${gateway.base}/account/end-others`);
    expect(await signedIn(first, gateway)).toBe(true);
    for (const other of others) expect(await signedIn(other, gateway)).toBe(false);
  });

  test("does not end a session of somebody else, whatever its id", async () => {
    await using idp = await identityProvider();
    await using gateway = await running({ signIn: { providers: { idp: idp.settings() } } });
    const olive = await setUp(gateway);
    const ines = new Browser(gateway.origin);
    await signInAt(gateway, ines, idp);
    const [, user] = gateway.events.filter(({ type }) => type === "signed-in" || type === "user-created");
    const [session] = await sessionsIn(gateway.records, 8).list(user?.user ?? "");
    expect(session?.provider).toBe("idp");
    await olive.submit({ session: session?.id ?? "" }, `${gateway.base}/account/end-session`);
    expect(await signedIn(ines, gateway)).toBe(true);
  });

  test("is the other replica's too: a session ended there is ended here", async () => {
    const { records } = memoryStore();
    await using one = await running({ records });
    await using two = await running({ records });
    const browser = await setUp(one);
    const [{ user = "" } = {}] = one.events;
    const elsewhere = sessionsIn(two.records, 8);
    expect(await elsewhere.list(user)).toHaveLength(1);
    await elsewhere.endAll(user);
    expect(await signedIn(browser, one)).toBe(false);
  });

  test("offers no password to somebody from a provider, and takes none", async () => {
    await using idp = await identityProvider();
    await using gateway = await running({ signIn: { local: false, providers: { idp: idp.settings() } } });
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    expect(browser.last.text).not.toContain("Change the password");
    await browser.submit({ current: "", next: PASSWORD, again: PASSWORD }, `${gateway.base}/account/password`);
    expect(browser.last.status).toBe(404);
  });

  test("takes only what it names: `constructor` is no action", async () => {
    await using gateway = await running();
    const browser = await setUp(gateway);
    await browser.submit({}, `${gateway.base}/account/constructor`);
    expect(browser.last.status).toBe(404);
  });
});

describe("a one-time link", () => {
  test("lets a new user choose a password and signs in; other sessions of theirs end; it works once", async () => {
    await using gateway = await running();
    const { usersIn } = await import("../../src/oauth/people/users.ts");
    const users = usersIn(gateway.records);
    const wanda = await users.create({ name: "wanda", email: undefined, password: PASSWORD, groups: ["support"] });
    const old = new Browser(gateway.origin);
    await old.go(`${gateway.base}/sign-in`);
    await old.submit({ name: "wanda", password: PASSWORD });
    const link = `${gateway.base}/setup/${await users.newInvitation(wanda.id)}`;

    const browser = new Browser(gateway.origin);
    await browser.go(link);
    expect(browser.last.text).toContain("<h1>Choose a password</h1>");
    await browser.submit({ password: "wanda", again: "wanda" });
    expect(browser.last.status).toBe(422);
    const next = "five calm words are here";
    await browser.submit({ password: next, again: next });
    expect(browser.last.text).toContain("<h1>wanda</h1>");
    expect(await signedIn(old, gateway)).toBe(false);
    await new Browser(gateway.origin).go(link);
    const late = new Browser(gateway.origin);
    await late.go(link);
    expect(late.last.status).toBe(404);
    expect(await users.signIn("wanda", next, "s")).toMatchObject({ ok: true });
    expect(gateway.events.some(({ type, user }) => type === "password-changed" && user === wanda.id)).toBe(true);
  });
});
