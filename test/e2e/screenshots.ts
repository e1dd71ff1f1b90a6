/**
 * Pictures of every page, to be looked at: `node test/e2e/screenshots.ts <folder> [part of a state's name]`. Light and dark, wide
 * and narrow.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { launchChromium, pagesWorld, STATE_NAMES } from "./pages-world.ts";

const [folder, part = ""] = process.argv.slice(2);
if (folder === undefined) throw new Error("Say where the pictures go: node test/e2e/screenshots.ts <folder>");
await mkdir(folder, { recursive: true });

const LOOKS = [
  { name: "light-wide", colorScheme: "light", viewport: { width: 1100, height: 820 } },
  { name: "dark-wide", colorScheme: "dark", viewport: { width: 1100, height: 820 } },
  { name: "light-narrow", colorScheme: "light", viewport: { width: 360, height: 740 } },
  { name: "dark-narrow", colorScheme: "dark", viewport: { width: 360, height: 740 } },
] as const;

const world = await pagesWorld();
const browser = await launchChromium(world);
try {
  const context = await browser.newContext({ deviceScaleFactor: 1.5 });
  const page = await context.newPage();
  // Before there is an account, the set-up page; after it, all others.
  const before = STATE_NAMES.filter((state) => state === "set-up" && state.includes(part));
  for (const state of before) await take(page, state);
  await world.signIn(context);
  for (const state of STATE_NAMES) {
    if (state === "set-up" || !state.includes(part)) continue;
    await take(page, state);
    if (state.startsWith("sign-in")) await world.signIn(context);
  }
} finally {
  await browser.close();
  await world[Symbol.asyncDispose]();
}

async function take(page: Page, state: (typeof STATE_NAMES)[number]): Promise<void> {
  await page.emulateMedia({ colorScheme: "light" });
  await world.states[state](page);
  await prettyHosts(page);
  for (const { name, colorScheme, viewport } of LOOKS) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(viewport);
    const path = join(folder ?? "", `${state.replace(/\W+/g, "-")}.${name}.png`);
    await page.screenshot({ path, fullPage: true });
    process.stdout.write(`${path}\n`);
  }
}

/** The ports of this run are replaced by what a real installation has. */
function prettyHosts(page: Page): Promise<void> {
  const ports = [
    [new URL(page.url()).host, "mcp.acme.example"],
    [`:${world.host.port}`, ""],
  ];
  return page.evaluate(`{
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = texts.nextNode(); node !== null; node = texts.nextNode()) {
      for (const [port, name] of ${JSON.stringify(ports)}) node.nodeValue = node.nodeValue.replaceAll(port, name);
    }
  }`);
}
