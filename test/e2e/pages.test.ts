/** The pages in a real Chromium: whether people can use them, with a keyboard, a screen reader, a narrow screen, without script. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import type { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findChromium } from "../global/chromium.ts";
import { PASSWORD } from "../oauth/support.ts";
import { verifies } from "../requirements.ts";
import { launchChromium, type PagesWorld, pagesWorld, STATE_NAMES, type StateName } from "./pages-world.ts";

const WEB = "https://papercrane.example/callback";
const chromiumPath = findChromium();

let browser: Browser;
let world: PagesWorld;
let signedIn: BrowserContext;
let axe: string;
const contexts: BrowserContext[] = [];

async function context(options: BrowserContextOptions = {}): Promise<BrowserContext> {
  const made = await browser.newContext(options);
  contexts.push(made);
  return made;
}

/** A page, and what the browser complained about while it was used. */
async function pageIn(where: BrowserContext): Promise<{ page: Page; complaints: string[] }> {
  const page = await where.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  return { page, complaints };
}

const atClient = (page: Page) => page.waitForURL((url) => url.href.startsWith(WEB) && url.searchParams.has("state"));
describe.skipIf(chromiumPath === undefined)("in Chromium", () => {
  beforeAll(async () => {
    world = await pagesWorld();
    browser = await launchChromium(world);
    axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  });
  afterAll(async () => {
    await browser?.close();
    await world?.[Symbol.asyncDispose]();
  });

  describe.each(STATE_NAMES)("the page “%s”", (state) => {
    let page: Page;
    let complaints: string[];

    beforeAll(async () => {
      const anonymous = state === "set-up" || state.startsWith("sign-in");
      if (!anonymous && signedIn === undefined) {
        signedIn = await context();
        await world.signIn(signedIn);
      }
      ({ page, complaints } = await pageIn(anonymous ? await context() : signedIn));
      await world.states[state](page);
    });
    afterAll(() => page.close());

    test.each(["light", "dark"] as const)("has no serious barrier in %s", async (colorScheme) => {
      await page.emulateMedia({ colorScheme });
      expect(await barriers(page)).toEqual([]);
    });

    test("fits 320 px, and twice the text size, without scrolling sideways", async () => {
      for (const [width, zoom] of [
        [320, 1],
        [640, 2],
      ] as const) {
        await page.setViewportSize({ width, height: 700 });
        const wide = await page.evaluate(`{
          document.documentElement.style.fontSize = "${zoom * 100}%";
          [document.documentElement.scrollWidth, document.documentElement.clientWidth];
        }`);
        const [needed = 0, there = 0] = wide as number[];
        expect(needed, `at ${width} px, ${zoom} times`).toBeLessThanOrEqual(there);
      }
    });

    test("says in its title, language and one heading what it is, and is well understood by the browser", async () => {
      expect(await page.title()).toMatch(/^(Error: )?\S.* · Drawbridge$/);
      expect(await page.locator("html").getAttribute("lang")).toBe("en");
      expect(await page.getByRole("heading", { level: 1 }).count()).toBe(1);
      expect(await page.getByRole("main").count()).toBe(1);
      // A page that says no has a status that says no, which Chromium mentions.
      expect(complaints.filter((text) => !/responded with a status of 4\d\d/.test(text))).toEqual([]);
    });

    test("does nothing by itself: no script, no frame, no picture from elsewhere, nothing that moves", async () => {
      expect(await page.locator("script, iframe, object, embed, img, video, audio, meta[http-equiv]").count()).toBe(0);
      const moving = await page.evaluate(`document.getAnimations().length + [...document.querySelectorAll("*")]
        .filter((element) => getComputedStyle(element).transitionDuration !== "0s").length`);
      expect(moving).toBe(0);
    });
  });

  test("axe finds a barrier where there is one", async () => {
    const { page } = await pageIn(await context());
    await page.setContent(`<html lang="en"><title>x</title><main><h1>x</h1><input style="color:#eee"></main></html>`);
    expect(await barriers(page)).not.toEqual([]);
  });

  test("sign-in and consent need no mouse, and the focus is always seen, in the order of the page", async () => {
    const { page } = await pageIn(await anonymous());
    await page.goto(world.url(world.newClient()));
    expect(await focused(page)).toBe("Name");
    await page.keyboard.type("olive");
    await page.keyboard.press("Tab");
    expect(await focused(page)).toBe("Password");
    await page.keyboard.type(PASSWORD);
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/consent\//);
    const order: string[] = [];
    for (let i = 0; i < 12 && order.at(-1) !== "Allow"; i++) {
      await page.keyboard.press("Tab");
      order.push(await focused(page));
    }
    expect(order).toEqual([
      "Use another account",
      expect.stringContaining("See what is there"),
      expect.stringContaining("Use tools for you"),
      expect.stringContaining("What that means here"),
      "account page",
      "Deny",
      "Allow",
    ]);
    await page.keyboard.press("Enter");
    await atClient(page);
    expect(new URL(page.url()).searchParams.get("code")).not.toBeNull();
  });

  test("Enter in the middle of the question denies rather than allows", async () => {
    const { page } = await pageIn(await member());
    await page.goto(world.url(world.newClient()));
    await page.getByRole("checkbox").first().focus();
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: /You denied/ }).waitFor();
  });

  test("Deny and Allow are alike in place, size and weight", async () => {
    const { page } = await pageIn(await member());
    await page.goto(world.url(world.newClient()));
    const looks = [];
    for (const name of ["Deny", "Allow"]) {
      const button = page.getByRole("button", { name });
      const { width, height, y } = (await button.boundingBox()) ?? { width: 0, height: 0, y: 0 };
      looks.push({ width, height, y });
    }
    expect(looks[0]).toEqual(looks[1]);
    const styles = await page.evaluate(`[...document.querySelectorAll(".choice button")].map((button) => {
      const { fontSize, fontWeight, color, cursor, backgroundColor } = getComputedStyle(button);
      return { fontSize, fontWeight, color, cursor, filled: backgroundColor !== "rgba(0, 0, 0, 0)" };
    })`);
    const [deny, allow] = styles as object[];
    expect(deny).toMatchObject({ fontWeight: "600", filled: true });
    expect(deny).toEqual(allow);
  });

  test("the whole way works with scripts switched off", async () => {
    const { page } = await pageIn(await anonymous({ javaScriptEnabled: false }));
    await page.goto(world.url(world.newClient()));
    await page.getByLabel("Name", { exact: true }).fill("olive");
    await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("What that means here").click();
    await page.getByText("cancel_order").waitFor();
    await page.getByRole("checkbox", { name: /Use tools/ }).uncheck();
    await page.getByRole("button", { name: "Allow" }).click();
    await atClient(page);
    expect(world.live.events.findLast(({ type }) => type === "consent-granted")).toMatchObject({
      scopes: ["mcp:read"],
      refused: ["mcp:call"],
    });
  });

  describe("the way back to the client", () => {
    test.each(["Allow", "Deny"])("after %s is not stopped by our own content security policy", async (answer) => {
      const { page, complaints } = await pageIn(await member());
      const client = world.newClient();
      if (answer === "Deny") {
        // Whom somebody has let in before is told without a stop.
        await page.goto(world.url(client, { scope: "mcp:read" }));
        await page.getByRole("button", { name: "Allow" }).click();
        await atClient(page);
      }
      await page.goto(world.url(client));
      await page.getByRole("button", { name: answer }).click();
      await atClient(page);
      expect(new URL(page.url()).searchParams.has(answer === "Allow" ? "code" : "error")).toBe(true);
      expect(complaints).toEqual([]);
    });

    test("would be stopped by form-action 'self', so that the test before means something", async () => {
      const own = await member();
      await own.route(/\/consent\//, async (route) => {
        if (route.request().method() !== "GET") return route.continue();
        const answer = await route.fetch();
        const policy = `${answer.headers()["content-security-policy"]}; form-action 'self'`;
        return route.fulfill({ response: answer, headers: { ...answer.headers(), "content-security-policy": policy } });
      });
      const { page, complaints } = await pageIn(own);
      await page.goto(world.url(world.newClient()));
      // What a redirect leads to is not seen by the route above; loading it again is.
      await page.goto(page.url());
      await page.getByRole("button", { name: "Allow" }).click();
      await expect.poll(() => complaints.join()).toContain("form-action");
      expect(page.url()).toContain("/consent/");
    });

    test("ends the question: going back shows that it is over, not the form", async () => {
      const { page } = await pageIn(await member());
      await page.goto(world.url(world.newClient()));
      await page.getByRole("button", { name: "Allow" }).click();
      await atClient(page);
      await page.goBack();
      await expect.poll(() => page.getByRole("heading", { level: 1 }).innerText()).toBe("This cannot go on");
      expect(await page.getByRole("button", { name: "Allow" }).count()).toBe(0);
    });

    test("of an unknown client that was denied is a link that a person follows, with the answer in it", async () => {
      const { page } = await pageIn(await member());
      const visits = visitsOf(page);
      await page.goto(world.url(world.newClient()));
      await page.getByRole("button", { name: "Deny" }).click();
      await page.getByRole("heading", { name: "You denied Paper Crane" }).waitFor();
      expect(visits).toEqual([]);
      await page.getByRole("link", { name: "Go back to papercrane.example" }).click();
      await atClient(page);
      expect(Object.fromEntries(new URL(page.url()).searchParams)).toMatchObject({
        error: "access_denied",
        iss: world.live.base,
        state: "state-1",
      });
      expect(visits).toEqual([undefined]);
    });
  });

  verifies("rfc9700-redirector", "a link does not send a browser through us to a stranger's address", async () => {
    const { page } = await pageIn(await member());
    const visits = visitsOf(page);
    await page.goto(world.url(world.newClient(), { more: { prompt: "none" } }));
    await page.getByRole("heading", { name: "Leave for another site?" }).waitFor();
    expect(await page.getByRole("main").innerText()).toContain("The answer leads to papercrane.example");
    expect(visits).toEqual([]);
    await page.getByRole("link", { name: "Go on to papercrane.example" }).click();
    await atClient(page);
    expect(Object.fromEntries(new URL(page.url()).searchParams)).toMatchObject({
      error: expect.stringMatching(/^(login|consent)_required$/),
      iss: world.live.base,
      state: "state-1",
    });
    // Without a Referer: the address of the question is nobody's business.
    expect(visits).toEqual([undefined]);
  });

  verifies("rfc9700-clickjacking", "another page cannot put the question into a frame", async () => {
    const where = await member();
    const url = world.url(world.newClient());
    // Another port of the same host: to the browser the same site, so that the cookies come along.
    await where.route(world.program, (route) =>
      route.fulfill({ contentType: "text/html", body: `<iframe src="${url.replaceAll("&", "&amp;")}"></iframe>` }),
    );
    const { page } = await pageIn(where);
    await page.goto(world.program);
    await expect.poll(() => page.frames().at(1)?.url()).toBe("chrome-error://chromewebdata/");
    expect(await page.frameLocator("iframe").getByRole("button").count()).toBe(0);
    // By itself it opens.
    await page.goto(url);
    expect(await page.getByRole("button", { name: "Allow" }).count()).toBe(1);
  });

  test("a remembered consent is not used for a link on another site, as Chromium itself reports it", async () => {
    const where = await member();
    const url = world.url(world.newClient());
    world.host.serve("/kitten", (_request, response) => {
      response.setHeader("content-type", "text/html");
      response.end(`<a href="${url.replaceAll("&", "&amp;")}">A kitten</a>`);
    });
    const { page } = await pageIn(where);
    await page.goto(url);
    await page.getByRole("button", { name: "Allow" }).click();
    await atClient(page);
    await page.goto("https://attacker.example/kitten");
    await page.getByRole("link").click();
    await page.getByRole("heading", { name: "Let Paper Crane in again?" }).waitFor();
    // Typed into the address bar by the person themselves, it is.
    await page.goto(url);
    await atClient(page);
    expect(new URL(page.url()).searchParams.has("code")).toBe(true);
  });

  test("another account begins at the sign-in page and comes back to the same question", async () => {
    const { page } = await pageIn(await member());
    await page.goto(world.url(world.newClient()));
    await page.getByRole("button", { name: "Use another account" }).click();
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    await page.getByLabel("Name", { exact: true }).fill("olive");
    await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: /^Let Paper Crane use/ }).waitFor();
  });

  test("a name of markup and text-direction tricks is words on the page and nothing more", async () => {
    const { page, complaints } = await pageIn(await member());
    await world.states["consent, long name" satisfies StateName](page);
    expect(await page.title()).not.toContain("pwned ·");
    expect(await page.getByRole("heading", { level: 1 }).innerText()).toContain("<img src=x");
    expect(await page.locator("main img").count()).toBe(0);
    expect(complaints).toEqual([]);
  });

  test("forced colours keep every control's edge", async () => {
    const { page } = await pageIn(await member());
    await page.emulateMedia({ forcedColors: "active" });
    await page.goto(world.url(world.newClient()));
    const edges = (await page.evaluate(`[...document.querySelectorAll("button:not(.link), .scope")]
      .map((element) => parseFloat(getComputedStyle(element).borderTopWidth))`)) as number[];
    expect(edges).toHaveLength(4);
    expect(Math.min(...edges)).toBeGreaterThanOrEqual(1);
  });
});

/** A context in which nobody is signed in, where the outside is one page. */
async function anonymous(options: BrowserContextOptions = {}): Promise<BrowserContext> {
  const made = await context(options);
  await world.signIn(made);
  await made.clearCookies();
  return made;
}

async function member(): Promise<BrowserContext> {
  const made = await context();
  await world.signIn(made);
  return made;
}

/** The `Referer` of each request to the client. */
function visitsOf(page: Page): (string | undefined)[] {
  const visits: (string | undefined)[] = [];
  page.on("request", (request) => {
    if (request.url().startsWith(WEB)) visits.push(request.headers()["referer"]);
  });
  return visits;
}

async function barriers(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const found = await page.evaluate(`axe.run().then(({ violations }) => violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => id + ": " + nodes.map(({ html }) => html).join(" ")))`);
  return found as string[];
}

/** What a screen reader would call the element with the focus. Fails when nothing shows that it has it. */
async function focused(page: Page): Promise<string> {
  const [name, seen] = (await page.evaluate(`{
    const element = document.activeElement;
    const shown = [element, element.closest(".scope")].filter(Boolean);
    [
      (element.labels?.[0] ?? element).innerText.trim(),
      shown.some((each) => getComputedStyle(each).outlineStyle !== "none"),
    ];
  }`)) as [string, boolean];
  expect(seen, `the focus on “${name}” is seen`).toBe(true);
  return name;
}
