import { describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { comeBack, type IdentityProvider, identityProvider, press, signInAt } from "./identity-provider.ts";
import { authorizeUrl, Browser, connect, PASSWORD, REDIRECT, type Running, running, setUp } from "./support.ts";

const signedIn = ({ events }: Running) => events.filter(({ type }) => type === "signed-in");
const failures = ({ events }: Running) =>
  events.flatMap((event) => (event.type === "sign-in-failed" ? [event.reason] : []));
const client = "paper-crane";
const OPENID = "openid mcp:read mcp:call";
const clients = { preregistered: [{ id: client, name: "Paper Crane", redirectUris: [REDIRECT] }] };
const withProvider = (idp: IdentityProvider, more = {}) => ({
  signIn: { local: false, providers: { idp: idp.settings(more) } },
  clients,
});

describe("signing in at a provider", () => {
  test("leads to the account page, as a user with the provider's name and groups", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp, { label: "Shop Directory" }));
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    expect(browser.last.text).toContain("<h1>Ines Idp</h1>");
    expect(browser.last.text).toContain("Shop Directory");
    expect(signedIn(gateway)).toMatchObject([{ name: "Ines Idp", provider: "idp" }]);
  });

  test("lets a client that waits go on, and its tokens carry the groups of the last sign-in", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp, { groupsPrefix: "shop:" }));
    const browser = new Browser(gateway.origin);
    for (const groups of [["support", "night"], ["support"]]) {
      idp.person = { ...idp.person, groups };
      await browser.go(authorizeUrl(gateway, { client, more: { prompt: "login" } }));
      await comeBack(browser, await idp.visit(await press(browser, "idp")));
      expect(browser.last.text).toMatch(/<legend>/);
    }
    const end = await browser.submit({ answer: "allow" });

    expect(end?.href).toContain(`${REDIRECT}?code=`);
    const { access_token } = await connect(gateway, browser, { client });
    const who = await gateway.server.verify(access_token);
    expect(who.groups).toEqual(["shop:support"]);
    expect(who.claims).toEqual({ name: "Ines Idp", email: "ines@shop.example" });
  });

  test("with fewer groups than before takes effect for the tokens there are, within a second", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp));
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    const { access_token } = await connect(gateway, browser, { client });
    const groups = async () => (await gateway.server.verify(access_token)).groups;
    expect(await groups()).toEqual(["support"]);
    idp.person = { ...idp.person, groups: [] };
    await signInAt(gateway, new Browser(gateway.origin), idp);
    await expect.poll(groups, { timeout: 5000 }).toEqual([]);
  });

  test("asks with PKCE, a nonce, a state, and the hint of the client, and authenticates as the metadata wants", async () => {
    for (const methods of [undefined, ["client_secret_post"]]) {
      await using idp = await identityProvider({ secret: "s3:cr/et" });
      idp.lies.metadata = (metadata) => {
        if (methods !== undefined) metadata["token_endpoint_auth_methods_supported"] = methods;
      };
      await using gateway = await running(withProvider(idp, { clientSecret: new Secret("s3:cr/et") }));
      const browser = new Browser(gateway.origin);
      await browser.go(authorizeUrl(gateway, { client, more: { login_hint: "ines@shop.example" } }));
      const there = await press(browser, "idp");
      expect(Object.fromEntries(there.searchParams)).toMatchObject({
        response_type: "code",
        redirect_uri: `${gateway.base}/sign-in/callback/idp`,
        scope: "openid profile email",
        code_challenge_method: "S256",
        login_hint: "ines@shop.example",
      });
      expect(there.searchParams.has("prompt")).toBe(false);
      expect(there.searchParams.get("state")).not.toBe(there.searchParams.get("nonce"));
      const back = await idp.visit(there);
      await comeBack(browser, back);
      expect(browser.last.text).toMatch(/<legend>/);
      const { params, authorization } = idp.asked.find(({ path }) => path === "/token") ?? {};
      expect(params?.get("code_verifier")).toMatch(/^[\w-]{43}$/);
      expect(params?.has("client_secret")).toBe(methods !== undefined);
      expect(authorization === undefined).toBe(methods !== undefined);
    }
  });

  test("works with form_post, without a cookie that other sites could use", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp, { responseMode: "form_post" }));
    const browser = new Browser(gateway.origin);
    await browser.go(`${gateway.base}/sign-in`);
    const back = await idp.visit(await press(browser, "idp"));
    expect(back.post?.get("code")).toBeTruthy();
    // What a browser does: with the POST from another site it sends no SameSite=Lax cookie, with the GET after it does.
    const answer = await new Browser(gateway.origin).fetch(back.url.href, { method: "POST", body: back.post ?? "" });
    expect(answer.status).toBe(303);
    await browser.go(new URL(answer.headers.get("location") ?? "", gateway.origin).href);
    expect(browser.last.text).toContain("<h1>Ines Idp</h1>");
    const cookies = browser.seen.flatMap(({ headers }) => headers.getSetCookie());
    expect(cookies.every((cookie) => cookie.includes("SameSite=Lax") && cookie.includes("HttpOnly"))).toBe(true);
  });

  test("reads nested claims, a single text as one group, and leaves out what is none", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp, { groupsClaim: "realm_access.roles" }));
    const groupsOf = async (claims: Record<string, unknown>) => {
      idp.person = { sub: "sub-1", name: "Ines", email: "i@shop.example", ...claims };
      const browser = new Browser(gateway.origin);
      await signInAt(gateway, browser, idp);
      const id = signedIn(gateway).at(-1)?.user ?? "";
      return ((await gateway.records.get<{ groups: string[] }>("oauth:user", id))?.value.groups ?? []).join();
    };
    expect(await groupsOf({ realm_access: { roles: ["a", 7, null, "b", "a"] } })).toBe("a,b");
    expect(await groupsOf({ realm_access: { roles: "just-one" } })).toBe("just-one");
    expect(await groupsOf({ realm_access: { roles: { not: "a list" } } })).toBe("");
    expect(await groupsOf({ "realm_access.roles": ["by its whole name"] })).toBe("by its whole name");
    expect(await groupsOf({ realm_access: Object.create(null) })).toBe("");
  });

  test("asks userinfo once for what is not in the ID token, and only then", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp, { requiredGroups: ["support"] }));
    const userinfos = () => idp.asked.filter(({ path }) => path === "/userinfo").length;
    await signInAt(gateway, new Browser(gateway.origin), idp);
    expect(userinfos()).toBe(0);
    idp.inIdToken = ["name"];
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    expect(browser.last.text).toContain("<h1>Ines Idp</h1>");
    expect(userinfos()).toBe(1);
    expect(signedIn(gateway)).toHaveLength(2);
  });

  test("keeps an address only when the provider has verified it", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp));
    for (const [verified, kept] of [
      [true, "ines@shop.example"],
      [false, undefined],
      [undefined, undefined],
    ] as const) {
      idp.person = {
        sub: "sub-1",
        name: "Ines",
        email: "ines@shop.example",
        ...(verified !== undefined && { email_verified: verified }),
        groups: [],
      };
      await signInAt(gateway, new Browser(gateway.origin), idp);
      const id = signedIn(gateway).at(-1)?.user ?? "";
      expect((await gateway.records.get<{ email?: string }>("oauth:user", id))?.value.email).toBe(kept);
    }
  });
});

describe("who may sign in", () => {
  test("is somebody in a required group; another is told so, and it is recorded", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(
      withProvider(idp, { requiredGroups: ["staff", "admins"], groupsPrefix: "shop:" }),
    );
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    expect(browser.last).toMatchObject({ status: 403 });
    expect(browser.last.text).toContain("in none of the groups");
    expect(failures(gateway)).toEqual(["not-in-group"]);
    idp.person = { ...idp.person, groups: ["admins"] };
    await signInAt(gateway, browser, idp);
    expect(browser.last.text).toContain("<h1>Ines Idp</h1>");
  });

  test("is somebody with a verified address in one of the domains", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp, { emailDomains: ["shop.example", "*.shop.example"] }));
    const status = async (email: string | undefined, verified: unknown) => {
      idp.person = {
        sub: "sub-1",
        groups: [],
        ...(email !== undefined && { email }),
        email_verified: verified as boolean,
      };
      const browser = new Browser(gateway.origin);
      await signInAt(gateway, browser, idp);
      return browser.last.status;
    };
    expect(await status("ines@shop.example", true)).toBe(200);
    expect(await status("ines@SHOP.example", "true")).toBe(200);
    expect(await status("ines@eu.shop.example", true)).toBe(200);
    expect(await status("ines@shop.example", false)).toBe(403);
    expect(await status("ines@shop.example", undefined)).toBe(403);
    expect(await status("ines@evilshop.example", true)).toBe(403);
    expect(await status("ines@shop.example@evil.example", true)).toBe(403);
    expect(await status("ines@shop.example.evil.example", true)).toBe(403);
    expect(await status(undefined, true)).toBe(403);
    expect(new Set(failures(gateway))).toEqual(new Set(["email-not-allowed"]));
  });

  test("is not somebody who is disabled here", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp));
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    await gateway.server.setUserDisabled(signedIn(gateway)[0]?.user ?? "", true);
    await signInAt(gateway, browser, idp);
    expect(browser.last.status).toBe(403);
    expect(failures(gateway)).toEqual(["disabled"]);
    expect(await browser.go(`${gateway.base}/account`)).toBeUndefined();
    expect(browser.last.text).toContain("<h1>Sign in</h1>");
  });
});

describe("a provider", () => {
  test("that is down does not stop the start, and the sign-in page says so", async () => {
    await using gateway = await running({
      signIn: { providers: { idp: { issuer: "http://127.0.0.1:9", clientId: "x", label: "Far Away" } } },
    });
    const browser = new Browser(gateway.origin);
    await browser.go(`${gateway.base}/sign-in`);
    expect(browser.last.status).toBe(200);
    await browser.submit({ provider: "idp" });
    expect(browser.last.status).toBe(503);
    expect(browser.last.text).toContain("Far Away does not answer at the moment");
    expect(browser.last.headers.get("retry-after")).toBe("5");
  });

  test("that comes up later is asked then, and the last it said is used when it goes down again", async () => {
    await using idp = await identityProvider();
    let now = Date.now();
    const down = (response: { writeHead(status: number): { end(): void } }) => void response.writeHead(503).end();
    idp.lies.paths = { "/.well-known/openid-configuration": (_, response) => down(response) };
    await using gateway = await running({ ...withProvider(idp), clock: () => now });
    const browser = new Browser(gateway.origin);
    await browser.go(`${gateway.base}/sign-in`);
    await browser.submit({ provider: "idp" });
    expect(browser.last.status).toBe(503);
    const { paths } = idp.lies;
    idp.lies.paths = {};
    await signInAt(gateway, browser, idp);
    expect(browser.last.text).toContain("<h1>Ines Idp</h1>");
    idp.lies.paths = paths;
    now += 2 * 3_600_000;
    expect(
      (
        await press(browser, "idp").catch(async () => {
          await browser.go(`${gateway.base}/account`);
          await browser.submit({}, `${gateway.base}/account/sign-out`);
          return press(browser, "idp");
        })
      ).origin,
    ).toBe(idp.issuer);
  });

  test("that fails in the middle leads to a page with the way back to the waiting request", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp));
    const browser = new Browser(gateway.origin);
    await browser.go(authorizeUrl(gateway, { client }));
    const signInPage = new URL(browser.last.url).pathname;
    const back = await idp.visit(await press(browser, "idp"));
    idp.lies.paths = { "/token": (_, response) => void response.writeHead(502).end() };
    await comeBack(browser, back);
    expect(browser.last.status).toBe(503);
    expect(browser.last.text).toContain(`href="${signInPage}"`);
    expect(failures(gateway)).toEqual(["provider-unavailable"]);
    idp.lies.paths = {};
    await browser.go(signInPage);
    await comeBack(browser, await idp.visit(await press(browser, "idp")));
    expect(browser.last.text).toMatch(/<legend>/);
  });

  test("that says no is quoted by its error code, never by its words", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp));
    idp.lies.answer = (params) => {
      params.delete("code");
      params.set("error", idp.person["error"] as string);
      params.set("error_description", "<b>call +1 555 now</b>");
    };
    const browser = new Browser(gateway.origin);
    for (const [error, shown] of [
      ["access_denied", "cancelled or not allowed"],
      ["temporarily_unavailable", "(temporarily_unavailable)"],
      ["<script>x</script>", "(scriptxscript)"],
    ] as const) {
      idp.person = { error };
      await signInAt(gateway, browser, idp);
      expect(browser.last.status).toBe(400);
      expect(browser.last.text).toContain(shown);
      expect(browser.last.text).not.toContain("+1 555");
    }
    expect(failures(gateway)).toEqual(["provider-refused", "provider-refused", "provider-refused"]);
  });

  test("has its button beside others and beside names and passwords", async () => {
    await using one = await identityProvider();
    await using two = await identityProvider({ alg: "ES256" });
    two.person = { sub: "sub-1", name: "Tom Two", groups: [] };
    await using gateway = await running({
      signIn: { providers: { one: one.settings({ label: "One" }), two: two.settings({ label: "Two & <more>" }) } },
    });
    const owner = await setUp(gateway);
    expect(owner.last.text).toContain("<h1>olive</h1>");
    const browser = new Browser(gateway.origin);
    await browser.go(`${gateway.base}/sign-in`);
    expect(browser.last.text).toContain("Sign in with Two &#38; &#60;more&#62;");
    expect(browser.last.text).toContain('name="password"');
    await comeBack(browser, await two.visit(await press(browser, "two")));
    expect(browser.last.text).toContain("<h1>Tom Two</h1>");
    const other = new Browser(gateway.origin);
    await signInAt(gateway, other, one, "one");
    expect(other.last.text).toContain("<h1>Ines Idp</h1>");
    const [, second, third] = signedIn(gateway).map(({ user }) => user);
    expect(second).not.toBe(third);
  });

  test("does not take the owner's set-up link away, which is void once somebody has an account here", async () => {
    await using idp = await identityProvider();
    await using gateway = await running({ signIn: { providers: { idp: idp.settings() } } });
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    const link = (await gateway.server.setupLink()) ?? "";
    await setUp(gateway);
    expect(await gateway.server.setupLink()).toBeUndefined();
    const late = new Browser(gateway.origin);
    await late.go(link);
    expect(late.last.status).toBe(404);
  });

  test("is the only way in when local users are switched off, and still is no redirect", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp));
    const browser = new Browser(gateway.origin);
    await browser.go(`${gateway.base}/sign-in`);
    expect(browser.last.status).toBe(200);
    expect(browser.last.text).not.toContain('name="password"');
    await browser.submit({ name: "olive", password: PASSWORD });
    expect(browser.last.status).toBe(400);
    expect(idp.asked).toEqual([]);
    expect(await gateway.server.setupLink()).toBeUndefined();
  });
});

describe("a client that insists", () => {
  test("with prompt=login makes the provider ask again, and goes on after that", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp));
    const browser = new Browser(gateway.origin);
    await signInAt(gateway, browser, idp);
    await browser.go(authorizeUrl(gateway, { client, scope: OPENID, more: { prompt: "login", acr_values: "gold" } }));
    expect(browser.last.text).toContain("<h1>Sign in</h1>");
    const there = await press(browser, "idp");
    expect(there.searchParams.get("prompt")).toBe("login");
    expect(there.searchParams.has("acr_values")).toBe(false);
    await comeBack(browser, await idp.visit(there));
    expect(browser.last.text).toMatch(/<legend>/);
  });

  test("is not answered out of an old session of the provider that says so", async () => {
    await using idp = await identityProvider();
    await using gateway = await running(withProvider(idp));
    const browser = new Browser(gateway.origin);
    idp.lies.claims = (claims) => {
      claims["auth_time"] = Math.floor(Date.now() / 1000) - 7200;
    };
    await browser.go(authorizeUrl(gateway, { client, scope: OPENID, more: { max_age: "600" } }));
    await comeBack(browser, await idp.visit(await press(browser, "idp")));
    expect(browser.last.status).toBe(400);
    expect(failures(gateway)).toEqual(["answer-not-believed"]);
    idp.lies.claims = (claims) => {
      claims["auth_time"] = Math.floor(Date.now() / 1000);
    };
    await browser.go(authorizeUrl(gateway, { client, scope: OPENID, more: { max_age: "600" } }));
    await comeBack(browser, await idp.visit(await press(browser, "idp")));
    expect(browser.last.text).toMatch(/<legend>/);
  });

  test("with max_age gets a session that is younger, and a new sign-in when it is older", async () => {
    for (const [ageSeconds, shown] of [
      [590, /<legend>/],
      [600, /<h1>Sign in<\/h1>/],
    ] as const) {
      let now = Date.now();
      await using gateway = await running({ clients, clock: () => now });
      const browser = await setUp(gateway);
      now += ageSeconds * 1000;
      await browser.go(authorizeUrl(gateway, { client, scope: OPENID, more: { max_age: "600" } }));
      expect(browser.last.text).toMatch(shown);
      if (ageSeconds < 600) continue;
      await browser.submit({ name: "olive", password: PASSWORD });
      expect(browser.last.text).toMatch(/<legend>/);
    }
  });

  test("with prompt=login is asked for once, also when a consent follows", async () => {
    await using gateway = await running({ clients });
    const browser = await setUp(gateway);
    await browser.go(authorizeUrl(gateway, { client, more: { prompt: "login" } }));
    await browser.submit({ name: "olive", password: PASSWORD });
    expect(browser.last.text).toMatch(/<legend>/);
    const end = await browser.submit({ answer: "allow" });
    expect(end?.searchParams.get("code")).toBeTruthy();
  });
});

test("signing out says that the provider's session goes on", async () => {
  await using idp = await identityProvider();
  await using gateway = await running(withProvider(idp, { label: "Shop Directory" }));
  const browser = new Browser(gateway.origin);
  await signInAt(gateway, browser, idp);
  await browser.submit({}, `${gateway.base}/account/sign-out`);
  expect(browser.last.text).toContain("At Shop Directory you may still be signed in");
  await browser.go(`${gateway.base}/account`);
  expect(browser.last.text).toContain("<h1>Sign in</h1>");
});
