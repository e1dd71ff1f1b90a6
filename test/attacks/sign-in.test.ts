/** Attacks on signing in, at a provider (another person's sign-in, states, forged answers, mix-up) and with a password. */
import { generateKeyPair, SignJWT, UnsecuredJWT } from "jose";
import { describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { trusted } from "../../src/net/trusted.ts";
import { providers } from "../../src/oauth/people/providers.ts";
import { signInSettings } from "../../src/oauth/settings.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import {
  CLIENT_ID,
  comeBack,
  type IdentityProvider,
  identityProvider,
  type Lies,
  press,
  signInAt,
} from "../oauth/identity-provider.ts";
import { authorizeUrl, Browser, PASSWORD, REDIRECT, type Running, running, setUp } from "../oauth/support.ts";
import { everyStore } from "../store/backends.ts";

const client = "paper-crane";
const clients = { preregistered: [{ id: client, name: "Paper Crane", redirectUris: [REDIRECT] }] };

function gatewayFor(idp: IdentityProvider, more: Record<string, unknown> = {}, options = {}) {
  return running({ signIn: { local: false, providers: { idp: idp.settings(more) } }, clients, ...options });
}

/** What a sign-in leaves behind. */
async function stored({ records }: Running): Promise<number> {
  const kinds = ["oauth:user", "oauth:user-from", "oauth:browser-session"];
  const rows = await Promise.all(kinds.map((kind) => records.list(kind, { limit: 10 })));
  return rows.flat().length;
}

async function sentAway({ base }: Running, browser: Browser, idp: IdentityProvider, provider = "idp") {
  await browser.go(`${base}/sign-in`);
  return idp.visit(await press(browser, provider));
}

/** Lies about one claim, header or line of the metadata. */
const set = (name: string, value: unknown) => (of: Record<string, unknown>) => {
  of[name] = value;
};
const without = (name: string) => (of: Record<string, unknown>) => {
  delete of[name];
};

const reasons = ({ events }: Running) =>
  events.flatMap((event) => (event.type === "sign-in-failed" ? [event.reason] : []));

describe("23: somebody else's half-finished sign-in", () => {
  test("comes back in another browser: refused with 403, and nobody is signed in anywhere", async () => {
    await using idp = await identityProvider();
    await using gateway = await gatewayFor(idp);
    const attacker = new Browser(gateway.origin);
    await attacker.go(authorizeUrl(gateway, { client }));
    const there = await press(attacker, "idp");
    for (const prepared of [false, true]) {
      // The victim is signed in at the provider, and follows the link to it; perhaps with a sign-in of their own under way.
      const victim = new Browser(gateway.origin);
      if (prepared) await sentAway(gateway, victim, idp);
      await comeBack(victim, await idp.visit(there));
      expect(victim.last.status).toBe(403);
      expect(victim.last.text).toContain("begun in another browser");
      expect(victim.last.text).not.toContain("/sign-in/c");
      expect(victim.cookieNames).not.toContain("drawbridge");
    }
    expect(await stored(gateway)).toBe(0);
    expect(reasons(gateway)).toEqual(["other-browser", "other-browser"]);
  });

  test("whose answer is pushed into another browser does not sign that one in as the attacker", async () => {
    await using idp = await identityProvider();
    await using gateway = await gatewayFor(idp, { responseMode: "form_post" });
    const back = await sentAway(gateway, new Browser(gateway.origin), idp);
    const victim = new Browser(gateway.origin);
    await comeBack(victim, back);
    expect(victim.last.status).toBe(403);
    expect(await stored(gateway)).toBe(0);
  });

  test("is not begun by another site: its form has no token of ours", async () => {
    await using idp = await identityProvider();
    await using gateway = await gatewayFor(idp);
    const browser = new Browser(gateway.origin);
    await browser.go(`${gateway.base}/sign-in`);
    for (const init of [
      { method: "POST", body: new URLSearchParams({ provider: "idp" }) },
      { ...browser.form({ provider: "idp" }), headers: { "sec-fetch-site": "cross-site" } },
    ]) {
      const answer = await browser.fetch(`${gateway.base}/sign-in`, init);
      expect(answer.status).toBe(403);
    }
    expect(await gateway.records.list("oauth:away", { limit: 10 })).toEqual([]);
  });
});

describe("24: cookies", () => {
  test("are __Host-, Secure, HttpOnly and SameSite=Lax, and the session's is set after the sign-in only", async () => {
    await using idp = await identityProvider();
    const publicUrl = "https://gate.example";
    await using gateway = await gatewayFor(idp, {}, { publicUrl });
    const browser = new Browser(gateway.origin, publicUrl);
    const back = await sentAway(gateway, browser, idp);
    expect(browser.cookieNames).not.toContain("__Host-drawbridge");
    await comeBack(browser, back);
    expect(browser.cookieNames).toContain("__Host-drawbridge");
    expect(browser.last.text).toContain("<h1>Ines Idp</h1>");
    const cookies = browser.seen.flatMap(({ headers }) => headers.getSetCookie());
    expect(cookies.length).toBeGreaterThan(2);
    for (const cookie of cookies) {
      expect(cookie).toMatch(/^__Host-/);
      for (const attribute of ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"]) expect(cookie).toContain(attribute);
      expect(cookie).not.toMatch(/domain=/i);
    }
  });

  test("planted before the sign-in are not what is signed in, and the session before it ends", async () => {
    await using idp = await identityProvider();
    await using gateway = await gatewayFor(idp);
    const planted = "p".repeat(43);
    const browser = new Browser(gateway.origin);
    await browser.go(`${gateway.base}/sign-in`);
    const there = await press(browser, "idp");
    browser.keep(`drawbridge=${planted}; Path=/`);
    await comeBack(browser, await idp.visit(there));
    const first = browser.cookie("drawbridge");
    expect(first).not.toBe(planted);
    await browser.go(authorizeUrl(gateway, { client, more: { prompt: "login" } }));
    await comeBack(browser, await idp.visit(await press(browser, "idp")));
    expect(browser.cookie("drawbridge")).not.toBe(first);
    for (const cookie of [planted, first]) {
      const answer = await fetch(`${gateway.origin}/account`, {
        headers: { cookie: `drawbridge=${cookie}` },
        redirect: "manual",
      });
      expect(answer.headers.get("location")).toBe("/sign-in");
    }
  });
});

describe("25: the state of a sign-in", () => {
  test("that is missing, unknown, doubled or too long is refused with 400", async () => {
    await using idp = await identityProvider();
    await using gateway = await gatewayFor(idp);
    const browser = new Browser(gateway.origin);
    const { url } = await sentAway(gateway, browser, idp);
    const state = url.searchParams.get("state") ?? "";
    for (const query of [
      "",
      "code=x",
      `code=x&state=${"s".repeat(43)}`,
      `code=x&state=${state}&state=${state}`,
      `code=x&code=y&state=${state}`,
      `code=x&state=${"s".repeat(5000)}`,
    ]) {
      await browser.go(`${gateway.base}/sign-in/callback/idp?${query}`);
      expect(browser.last.status, query.slice(0, 40)).toBe(400);
    }
    expect(await stored(gateway)).toBe(0);
  });

  test("counts once: of twenty callbacks at the same time one signs in, and none later", async () => {
    await using idp = await identityProvider();
    await using gateway = await gatewayFor(idp);
    const browser = new Browser(gateway.origin);
    const { url } = await sentAway(gateway, browser, idp);
    const answers = await Promise.all(Array.from({ length: 20 }, () => browser.fetch(url.href)));
    expect(answers.filter(({ status }) => status === 303)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 400)).toHaveLength(19);
    await browser.fetch(url.href);
    expect(browser.last.status).toBe(400);
    expect(idp.asked.filter(({ path }) => path === "/token")).toHaveLength(1);
  });

  test.each(everyStore)("counts once across two replicas on $name", async ({ openTwo }) => {
    await using idp = await identityProvider();
    await using stores = await openTwo();
    const [first, second] = stores;
    const publicUrl = "https://gate.example";
    await using one = await gatewayFor(idp, {}, { publicUrl, records: first.records });
    await using two = await gatewayFor(idp, {}, { publicUrl, records: second.records });
    const browser = new Browser(one.origin, publicUrl);
    const { url } = await sentAway(one, browser, idp);
    const cookie = `__Host-drawbridge-away=${browser.cookie("__Host-drawbridge-away")}`;
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        fetch(`${(i % 2 === 0 ? one : two).origin}${url.pathname}${url.search}`, {
          headers: { cookie },
          redirect: "manual",
        }),
      ),
    );
    expect(answers.filter(({ status }) => status === 303)).toHaveLength(1);
    expect(idp.asked.filter(({ path }) => path === "/token")).toHaveLength(1);
    expect(await one.records.list("oauth:browser-session", { limit: 10 })).toHaveLength(1);
  });

  test("is over after ten minutes", async () => {
    await using idp = await identityProvider();
    let now = Date.now();
    await using gateway = await gatewayFor(idp, {}, { clock: () => now });
    const browser = new Browser(gateway.origin);
    const back = await sentAway(gateway, browser, idp);
    now += 600_001;
    await comeBack(browser, back);
    expect(browser.last.status).toBe(400);
    expect(await stored(gateway)).toBe(0);
  });

  test("of another session is refused: somebody has signed in meanwhile", async () => {
    await using idp = await identityProvider();
    await using gateway = await gatewayFor(idp);
    const browser = new Browser(gateway.origin);
    const first = await sentAway(gateway, browser, idp);
    const second = await sentAway(gateway, browser, idp);
    await comeBack(browser, second);
    expect(browser.last.text).toContain("<h1>Ines Idp</h1>");
    idp.person = { sub: "mallory", name: "Mallory", groups: [] };
    await comeBack(browser, first);
    expect(browser.last.status).toBe(403);
    await browser.go(`${gateway.base}/account`);
    expect(browser.last.text).toContain("<h1>Ines Idp</h1>");
    expect(reasons(gateway)).toEqual(["other-session"]);
  });

  test("is spent by a failed answer too", async () => {
    await using idp = await identityProvider();
    await using gateway = await gatewayFor(idp);
    const browser = new Browser(gateway.origin);
    const { url } = await sentAway(gateway, browser, idp);
    const right = url.href;
    url.searchParams.set("code", "guessed");
    for (const [href, status] of [
      [url.href, 400],
      [right, 400],
    ] as const) {
      await browser.go(href);
      expect(browser.last.status).toBe(status);
    }
    expect(await stored(gateway)).toBe(0);
  });
});

describe("26: an answer that is not to be believed", () => {
  const past = () => Math.floor(Date.now() / 1000) - 3600;
  const lies: Readonly<Record<string, Lies | ((idp: IdentityProvider) => Lies | Promise<Lies>)>> = {
    "an ID token of another issuer": { claims: set("iss", "https://evil.example") },
    "an ID token for another client": { claims: set("aud", "somebody-else") },
    "an ID token for several, made out to another": {
      claims: (claims) => void Object.assign(claims, { aud: [CLIENT_ID, "other"], azp: "other" }),
    },
    "an ID token with another nonce": { claims: set("nonce", "n") },
    "an ID token without a nonce": { claims: without("nonce") },
    "an ID token that has expired": { claims: set("exp", past()) },
    "an ID token that never expires": { claims: without("exp") },
    "an ID token not yet valid": { claims: set("nbf", past() + 7200) },
    "an ID token about nobody": { claims: without("sub") },
    "an ID token about an empty subject": { claims: set("sub", "") },
    "an ID token about a number": { claims: set("sub", 7) },
    "an ID token with an endless subject": { claims: set("sub", "s".repeat(600)) },
    "an ID token with an unknown key": { header: set("kid", "k2") },
    "an ID token without a signature": { idToken: (_, claims) => new UnsecuredJWT(claims).encode() },
    "an ID token signed with the public key as a secret": (idp) => ({
      idToken: (_, claims) =>
        new SignJWT(claims)
          .setProtectedHeader({ alg: "HS256", kid: "k1" })
          .sign(Buffer.from(JSON.stringify(idp.publicJwk))),
    }),
    "an ID token signed with the client's secret": {
      idToken: (_, claims) =>
        new SignJWT(claims)
          .setProtectedHeader({ alg: "HS256", kid: "k1" })
          .sign(Buffer.from("a secret of the client that is long")),
    },
    "an ID token signed with another key of the same name": async () => {
      const { privateKey } = await generateKeyPair("RS256");
      return {
        idToken: (_, claims) => new SignJWT(claims).setProtectedHeader({ alg: "RS256", kid: "k1" }).sign(privateKey),
      };
    },
    "an ID token that brings its own key": async () => {
      const { privateKey, publicKey } = await generateKeyPair("RS256", { extractable: true });
      const { exportJWK } = await import("jose");
      const jwk = await exportJWK(publicKey);
      return { idToken: (_, claims) => new SignJWT(claims).setProtectedHeader({ alg: "RS256", jwk }).sign(privateKey) };
    },
    "no ID token at all": { idToken: () => undefined as unknown as string },
    "words in place of an ID token": { idToken: () => "trust me" },
    "an answer without the iss parameter that it announced": { answer: (params) => params.delete("iss") },
    "an answer with another provider's iss parameter": {
      answer: (params) => params.set("iss", "https://evil.example"),
    },
    "an error with another provider's iss parameter": {
      answer(params) {
        params.set("iss", "https://evil.example");
        params.set("error", "access_denied");
      },
    },
    "a code that it does not know": { answer: (params) => params.set("code", "another") },
    "an answer without a code": { answer: (params) => params.delete("code") },
    "a token endpoint that redirects": {
      paths: { "/token": (_, response) => void response.writeHead(307, { location: "/elsewhere" }).end() },
    },
    "a token endpoint that answers with a page": {
      paths: { "/token": (_, response) => void response.writeHead(200, { "content-type": "text/html" }).end("<p>hi") },
    },
    "a token endpoint that answers without end": {
      paths: {
        "/token"(_, response) {
          response.writeHead(200, { "content-type": "application/json" });
          response.end(`{"access_token":"${"x".repeat(2 << 20)}"}`);
        },
      },
    },
  };

  const OTHER_REASONS: Readonly<Record<string, string>> = {
    "an ID token about an empty subject": "no-subject",
    "an ID token with an endless subject": "no-subject",
    "a code that it does not know": "provider-refused",
  };

  test.each(Object.keys(lies))("%s is refused with 400, and nothing is stored", async (name) => {
    await using idp = await identityProvider({ secret: "a secret of the client that is long" });
    await using gateway = await gatewayFor(idp, { clientSecret: new Secret("a secret of the client that is long") });
    const lie = lies[name] ?? {};
    idp.lies = typeof lie === "function" ? await lie(idp) : lie;
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    expect(browser.last.status).toBe(400);
    expect(browser.last.text).toContain("You are not signed in");
    expect(await stored(gateway)).toBe(0);
    expect(reasons(gateway)).toEqual([OTHER_REASONS[name] ?? "answer-not-believed"]);
    expect(idp.asked.some(({ path }) => path === "/elsewhere")).toBe(false);
    // The same provider, telling the truth.
    idp.lies = {};
    await signInAt(gateway, browser, idp);
    expect(browser.last.text).toContain("<h1>Ines Idp</h1>");
  });

  test("userinfo about somebody else is refused", async () => {
    await using idp = await identityProvider();
    idp.inIdToken = [];
    idp.lies.userinfo = set("sub", "somebody-else");
    await using gateway = await gatewayFor(idp);
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    expect(browser.last.status).toBe(400);
    expect(await stored(gateway)).toBe(0);
  });

  test("more groups than anybody has are refused, not cut off: the last could be one that forbids", async () => {
    await using idp = await identityProvider();
    await using gateway = await gatewayFor(idp);
    for (const groups of [Array.from({ length: 501 }, (_, i) => `g${i}`), ["g".repeat(257)]]) {
      idp.person = { ...idp.person, groups };
      const browser = new Browser(gateway.origin);
      await signInAt(gateway, browser, idp);
      expect(browser.last.status).toBe(403);
    }
    expect(await stored(gateway)).toBe(0);
  });

  test("groups that are kept elsewhere, as of people who have too many, are not taken for none", async () => {
    await using idp = await identityProvider();
    await using gateway = await gatewayFor(idp);
    const { groups: _, ...person } = idp.person;
    idp.person = { ...person, _claim_names: { groups: "src1" } };
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    expect(browser.last.status).toBe(403);
    expect(await stored(gateway)).toBe(0);
  });

  test("metadata of another issuer, or with an endpoint that is no web address, sends nobody anywhere", async () => {
    for (const lie of [
      set("issuer", "https://evil.example"),
      (metadata: Record<string, unknown>) => set("issuer", `${metadata["issuer"]}/{tenantid}`)(metadata),
      set("authorization_endpoint", "javascript:alert(1)"),
      without("authorization_endpoint"),
    ]) {
      await using idp = await identityProvider();
      idp.lies.metadata = lie;
      await using gateway = await gatewayFor(idp);
      const browser = new Browser(gateway.origin);
      await browser.go(`${gateway.base}/sign-in`);
      expect(await browser.submit({ provider: "idp" })).toBeUndefined();
      expect(browser.last.status).toBe(503);
    }
  });

  test("metadata that redirects is not followed", async () => {
    await using idp = await identityProvider();
    idp.lies.paths = {
      "/.well-known/openid-configuration": (_, response) => void response.writeHead(302, { location: "/other" }).end(),
    };
    await using gateway = await gatewayFor(idp);
    const browser = new Browser(gateway.origin);
    await browser.go(`${gateway.base}/sign-in`);
    await browser.submit({ provider: "idp" });
    expect(browser.last.status).toBe(503);
    expect(idp.asked.map(({ path }) => path)).toEqual(["/.well-known/openid-configuration"]);
  });

  test("a provider that never answers is given up", async () => {
    await using idp = await identityProvider();
    idp.lies.paths = { "/.well-known/openid-configuration": () => {} };
    const net = trusted({ timeoutMs: 150 });
    const { providers: settings } = signInSettings.parse({ providers: { idp: idp.settings() } });
    const [provider] = providers({ settings, place: { issuer: "https://gate.example" }, net }).values();
    expect(await provider?.ask({ hint: undefined, anew: false })).toMatchObject({ ok: false });
    await net.close();
  });

  test("the answer of one provider does not count as another's (mix-up)", async () => {
    await using honest = await identityProvider();
    await using evil = await identityProvider({ alg: "ES256" });
    await using gateway = await running({
      signIn: { local: false, providers: { honest: honest.settings(), evil: evil.settings() } },
    });
    const browser = new Browser(gateway.origin);
    const back = await sentAway(gateway, browser, honest, "honest");
    const elsewhere = new URL(back.url);
    elsewhere.pathname = "/sign-in/callback/evil";
    elsewhere.searchParams.set("iss", evil.issuer);
    await browser.go(elsewhere.href);
    expect(browser.last.status).toBe(400);
    // The code of the honest provider was given to nobody, and is good for nothing more.
    expect(evil.asked.map(({ path }) => path)).not.toContain("/token");
    await browser.go(back.url.href);
    expect(browser.last.status).toBe(400);
    expect(await stored(gateway)).toBe(0);
    expect(reasons(gateway)).toEqual(["other-provider"]);
  });

  test("a name or an address is no identity: the owner's of here gives nobody the owner's rights", async () => {
    await using idp = await identityProvider();
    await using gateway = await running({ signIn: { providers: { idp: idp.settings({ groupsPrefix: "idp:" }) } } });
    const olive = await setUp(gateway);
    idp.person = { sub: "olive", name: "olive", email: "olive@shop.example", email_verified: true, groups: ["owner"] };
    await signInAt(gateway, new Browser(gateway.origin), idp);
    const [owner, other] = gateway.events.filter(({ type }) => type === "user-created" || type === "signed-in");
    expect(other?.user).not.toBe(owner?.user);
    const row = await gateway.records.get<{ groups: string[] }>("oauth:user", other?.user ?? "");
    expect(row?.value.groups).toEqual(["idp:owner"]);
    await olive.go(`${gateway.base}/account`);
    expect(olive.last.text).toContain("<h1>olive</h1>");
  });

  test("what it says about a person is text, on every page", async () => {
    await using idp = await identityProvider();
    await using gateway = await gatewayFor(idp, { label: "<i>Shop</i>" });
    idp.person = { sub: "x", name: `<img src=x onerror=alert(1)>\u202eevil`, groups: ["<b>"] };
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    expect(browser.last.text).toContain("&#60;img src=x");
    for (const { text } of browser.seen) expect(text).not.toMatch(/<img|<i>|\u202e/);
  });
});

test("whichever operation of the store fails, nobody is signed in of whom there is no record, and the next try works", async () => {
  await using idp = await identityProvider();
  for (let failing = 1, finished = false; !finished; failing++) {
    const { records } = memoryStore();
    let left = Number.POSITIVE_INFINITY;
    const faulty = new Proxy(records, {
      get:
        (target, name) =>
        async (...args: unknown[]) => {
          // Not what a gateway looks at every quarter of a second.
          if (args[0] !== "changes" && --left === 0) throw new Error("the store is gone");
          return Reflect.apply(Reflect.get(target, name), target, args);
        },
    });
    await using gateway = await gatewayFor(idp, {}, { records: faulty });
    const browser = new Browser(gateway.origin);
    const back = await sentAway(gateway, browser, idp);
    left = failing;
    const answer = await browser.fetch(back.url.href);
    finished = left > 0;
    left = Number.POSITIVE_INFINITY;
    const sessions = await records.list("oauth:browser-session", { limit: 10 });
    const recorded = gateway.events.filter(({ type }) => type === "signed-in");
    expect(sessions.length).toBeLessThanOrEqual(recorded.length);
    if (answer.status !== 303) expect(browser.cookieNames).not.toContain("drawbridge");
    const again = new Browser(gateway.origin);
    await signInAt(gateway, again, idp);
    expect(again.last.text).toContain("<h1>Ines Idp</h1>");
    expect(await records.find("oauth:user", "users", "all", { limit: 10 })).toHaveLength(1);
  }
});

describe("27: after a name and password were sent", () => {
  test("the browser is sent on with 303, which takes no password along", async () => {
    await using gateway = await running({ clients });
    await setUp(gateway);
    for (const path of [`${gateway.base}/sign-in`, authorizeUrl(gateway, { client })]) {
      const browser = new Browser(gateway.origin);
      await browser.go(path);
      const answer = await browser.fetch(browser.last.url, browser.form({ name: "olive", password: PASSWORD }));
      expect(answer.status).toBe(303);
    }
  });
});

describe("28: guessing passwords", () => {
  test("gets the same answer for a wrong password, an unknown name, a disabled user and one without a password", async () => {
    await using idp = await identityProvider();
    await using gateway = await running({ signIn: { providers: { idp: idp.settings() } } });
    await setUp(gateway);
    await signInAt(gateway, new Browser(gateway.origin), idp);
    const { usersIn } = await import("../../src/oauth/people/users.ts");
    const users = usersIn(gateway.records);
    const gone = await users.create({ name: "gone", email: undefined, password: PASSWORD, groups: [] });
    await users.setDisabled(gone.id, true);
    await users.create({ name: "invited", email: undefined, password: undefined, groups: [] });
    const texts = new Set<string>();
    for (const [name, password] of [
      ["olive", "a wrong one, quite long"],
      ["nobody", PASSWORD],
      ["gone", PASSWORD],
      ["invited", ""],
      ["Ines Idp", ""],
      ["__proto__", PASSWORD],
    ] as const) {
      const browser = new Browser(gateway.origin);
      await browser.go(`${gateway.base}/sign-in`);
      await browser.submit({ name, password });
      expect(browser.last.status).toBe(422);
      texts.add(browser.last.text.replace(/name="form" value="[^"]+"/g, "").replace(`value="${name}"`, ""));
    }
    expect(texts.size).toBe(1);
  });

  test("has to wait after five tries of one name, known or not, even with the right password", async () => {
    let now = Date.now();
    await using gateway = await running({ clock: () => now });
    await setUp(gateway);
    for (const name of ["olive", "nobody"]) {
      const browser = new Browser(gateway.origin);
      await browser.go(`${gateway.base}/sign-in`);
      const statuses: number[] = [];
      for (let tries = 0; tries < 6; tries++) {
        await browser.submit({ name: name.toUpperCase(), password: "a wrong one, quite long" });
        statuses.push(browser.last.status);
      }
      expect(statuses).toEqual([422, 422, 422, 422, 422, 429]);
      await browser.submit({ name, password: PASSWORD });
      expect(browser.last.status).toBe(429);
      expect(Number(browser.last.headers.get("retry-after"))).toBeGreaterThan(0);
    }
    now += 31_000;
    const browser = new Browser(gateway.origin);
    await browser.go(`${gateway.base}/sign-in`);
    await browser.submit({ name: "olive", password: PASSWORD });
    expect(browser.last.text).toContain("<h1>olive</h1>");
  });

  test("of the current one on the account page has to wait too", async () => {
    await using gateway = await running();
    const browser = await setUp(gateway);
    const next = "another four calm words";
    for (let tries = 0; tries < 5; tries++) {
      await browser.submit({ current: `wrong ${tries}`, next, again: next }, `${gateway.base}/account/password`);
      expect(browser.last.status).toBe(422);
    }
    await browser.submit({ current: PASSWORD, next, again: next }, `${gateway.base}/account/password`);
    expect(browser.last.status).toBe(422);
  });

  test("is not helped by local users being switched off later: the form is gone, and so is what it did", async () => {
    await using idp = await identityProvider();
    await using before = await running();
    await setUp(before);
    await using gateway = await gatewayFor(idp, {}, { records: before.records });
    const browser = new Browser(gateway.origin);
    await browser.go(`${gateway.base}/sign-in`);
    await browser.submit({ name: "olive", password: PASSWORD });
    expect(browser.last.status).toBe(400);
  });
});
