/** The page of `drawbridge dev` in a real browser: a form from a schema, an answer, a question, a change, at both widths and in both themes. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { findChromium } from "../global/chromium.ts";
import { type DevWorld, devWorld } from "./dev-world.ts";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const LOOKS = [
  { colorScheme: "light", width: 1280 },
  { colorScheme: "light", width: 400 },
  { colorScheme: "dark", width: 1280 },
  { colorScheme: "dark", width: 400 },
] as const;

let world: DevWorld;
let browser: Browser;
let page: Page;
/** What the browser complained of, or asked of others. */
const complaints: string[] = [];

beforeAll(async () => {
  const executablePath = findChromium();
  if (executablePath === undefined) throw new Error("Install Chromium, or set CHROMIUM to its path.");
  [world, browser] = await Promise.all([
    devWorld(),
    chromium.launch({ executablePath, args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"] }),
  ]);
  page = await browser.newPage({ viewport: { width: 1280, height: 860 } });
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  page.on("response", async (response) => {
    if (response.status() >= 400) complaints.push(`${response.url()} ${response.status()} ${await response.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    if (!request.url().startsWith(world.origin) && !request.url().startsWith("data:")) complaints.push(request.url());
  });
  await page.goto(world.launch);
  await page.getByText("Version 1").waitFor({ timeout: 60_000 });
}, 120_000);
afterAll(async () => {
  await browser?.close();
  await world?.[Symbol.asyncDispose]();
});

const thing = (name: string) => page.getByRole("button", { name }).first();
const act = () => page.getByRole("button", { name: "Call", exact: true }).click();

/** Without barriers, and without anything beyond the edge, however it is looked at. */
async function soundInEveryLook(): Promise<void> {
  for (const { colorScheme, width } of LOOKS) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 860 });
    expect(
      await page.evaluate("document.documentElement.scrollWidth"),
      `${colorScheme} at ${width}`,
    ).toBeLessThanOrEqual(width);
    await page.evaluate(axe);
    const barriers = await page.evaluate(`axe.run().then(({ violations }) => violations
      .map(({ id, nodes }) => id + ": " + nodes.map(({ html }) => html).join(" ")))`);
    expect(barriers, `${colorScheme} at ${width}`).toEqual([]);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 860 });
}

test("the launch token is not in the address, and scripts cannot read the cookie", async () => {
  expect(page.url()).toBe(`${world.origin}/`);
  expect(await page.evaluate("document.cookie")).toBe("");
});

test("a role sees its tools, and how many it does not; another sees others", async () => {
  await page.getByLabel("Role").selectOption("support");
  await page.getByText("2 tools, 1 template, and 4 of 7 not.").waitFor();
  await page.getByText("Not seen by this caller (4)").click();
  await thing("cancel_order").waitFor();
  await page.getByLabel("Role").selectOption("owner");
  await page.getByText("5 tools, 1 template, 1 prompt.").waitFor();
  await page.getByText("Grade A").click();
  await page.getByText("Minimise the blast radius").waitFor();
  await soundInEveryLook();
  await page.getByText("Grade A").click();
});

test("an answer stands beside what the handler returned, with what does not leave marked", async () => {
  await thing("look_up_order").click();
  await page.getByLabel("order_id").fill("ORD-100007");
  await act();
  await page.getByRole("heading", { name: "What came back" }).waitFor();
  const [agent, handler] = [page.locator(".both pre").first(), page.locator(".both pre").last()];
  expect(await agent.innerText()).toMatch(/"email": "[^"]*@masked\.example"/);
  expect(await agent.innerText()).not.toContain("cost");
  expect(await handler.locator(".gone").allInnerTexts()).toEqual(['"id": 77', '"cost": 12']);
  expect(await handler.locator(".changed").allInnerTexts()).toEqual([expect.stringContaining("ann@example.net")]);
  await page.getByText("Permitted by owner: may *.").waitFor();
  await page.getByText("The audit record").click();
  await page.getByText('"rule": "owner: may *"').waitFor();
  await soundInEveryLook();
});

test("a form has a field for each kind of argument, and sends what it says", async () => {
  await thing("plan_delivery").click();
  await page.getByLabel("order_id").fill("ORD-100007");
  await page.getByLabel("day", { exact: true }).fill("2026-12-24");
  await page.getByLabel("way").selectOption("courier");
  await page.getByLabel("boxes").fill("21");
  await page.getByLabel("fragile").selectOption("yes");
  await page.getByLabel("tue").check();
  await page.getByRole("button", { name: "Add one" }).click();
  await page.getByLabel("sku").fill("MUG-01");
  await page.getByLabel("count").fill("3");
  // The browser says that it is too many, and nothing is sent.
  await act();
  expect(await page.locator(":invalid:not(form, fieldset)").count()).toBe(1);
  await page.getByLabel("boxes").fill("20");
  await soundInEveryLook();
  await page.getByRole("button", { name: "Write JSON" }).click();
  expect(JSON.parse(await page.getByLabel("Arguments").inputValue())).toEqual({
    order_id: "ORD-100007",
    day: "2026-12-24",
    way: "courier",
    boxes: 20,
    fragile: true,
    days: ["tue"],
    contents: [{ sku: "MUG-01", count: 3 }],
  });
  // It needs the approval of somebody else, who is played here, too.
  await act();
  await page.getByLabel("Decide as another person with the role").selectOption("owner");
  await soundInEveryLook();
  await page.getByRole("button", { name: "Approve" }).click();
  await page.getByText("Approved, for this call alone.").waitFor();
  await act();
  await page.getByText('"planned"').first().waitFor();
});

test("what the browser would not let through is judged by the gateway when it is written as JSON", async () => {
  await page.getByLabel("Arguments").fill('{ "order_id": "\'; DROP TABLE orders" }');
  await act();
  await page.getByText("a tool error").waitFor();
});

test.each(["modern", "legacy"])(
  "a question of the server is a form, answered without leaving the keyboard, %s",
  async (era) => {
    await page.getByLabel("Protocol").selectOption(era);
    await thing("engrave").click();
    await page.getByLabel("sku").selectOption("MUG-02");
    await act();
    await page.getByRole("heading", { name: "The server asks" }).waitFor();
    expect(await page.evaluate("document.activeElement.labels[0].textContent")).toContain("words");
    if (era === "modern") await soundInEveryLook();
    await page.keyboard.type(`Hi ${era}`);
    await page.keyboard.press("Enter");
    await page.getByText(`"words": "Hi ${era}"`).first().waitFor();
  },
);

test("a change is shown as it is saved, a broken one with its place, and what was filled in stays", async () => {
  await thing("look_up_order").click();
  await page.getByLabel("order_id").fill("ORD-000000");
  world.edit("server.ts", (text) => text.replace("Look up an order", "Find an order"));
  await page.getByRole("heading", { name: "Find an order" }).waitFor();
  expect(await page.getByLabel("order_id").inputValue()).toBe("ORD-000000");
  world.edit("orders.ts", (text) => text.replace("new Map(", "new Map("));
  world.edit("orders.ts", (text) => text.replace("new Map(", "new new Map(("));
  const alert = page.getByRole("alert").filter({ hasText: "The change could not be loaded." });
  await alert.waitFor();
  expect(await alert.innerText()).toMatch(/orders\.ts:3\)/);
  expect(await alert.locator("mark").innerText()).toContain("3");
  await page.getByText("Version 2 goes on").waitFor();
  await soundInEveryLook();
  world.edit("orders.ts", (text) => text.replace("new new Map((", "new Map("));
  await alert.waitFor({ state: "detached" });
});

test("the browser had nothing to complain of, and asked nobody else", () => {
  expect(complaints).toEqual([]);
});
