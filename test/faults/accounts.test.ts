/** Making the first account and signing in while the store fails at one operation: nobody is locked out, and nobody is in unseen. */
import { expect, test } from "vitest";
import type { OAuthEvent } from "../../src/oauth/server.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records, Store } from "../../src/store/ports.ts";
import { faulty } from "../contract/faulty.ts";
import { Browser, PASSWORD, type Running, running } from "../oauth/support.ts";

interface Shaky extends AsyncDisposable {
  readonly live: Running;
  readonly sound: Records;
  /** Runs `step` while the `nth` operation fails. True: there was one. */
  failing(nth: number, step: () => Promise<unknown>): Promise<boolean>;
}

async function shaky(after: boolean, clock = () => Date.now()): Promise<Shaky> {
  const store: Store = memoryStore(clock);
  let current = store;
  const records = Object.fromEntries(
    Object.keys(store.records).map((name) => [
      name,
      (...words: readonly unknown[]) => {
        const from = name === "list" && words[0] === "changes" ? store : current;
        return (from.records[name as keyof Records] as (...all: readonly unknown[]) => unknown)(...words);
      },
    ]),
  ) as unknown as Records;
  const live = await running({ records, clock });
  return {
    live,
    sound: store.records,
    async failing(nth, step) {
      const failing = faulty(store, nth, { after });
      current = failing;
      try {
        await step();
      } finally {
        current = store;
      }
      return failing.operations >= nth;
    },
    [Symbol.asyncDispose]: () => live[Symbol.asyncDispose](),
  };
}

const seen = ({ live }: Shaky, ...types: OAuthEvent["type"][]) =>
  live.events.filter(({ type }) => types.includes(type)).length;
const sessions = async ({ sound }: Shaky) => (await sound.list("oauth:browser-session", { limit: 100 })).length;
async function signsIn({ live }: Shaky): Promise<boolean> {
  const browser = new Browser(live.origin);
  await browser.go(`${live.base}/sign-in`);
  await browser.submit({ name: "olive", password: PASSWORD });
  return browser.last.text.includes("<h1>olive</h1>");
}

const HOW = [
  ["the operation not done", false],
  ["the operation done and its answer lost", true],
] as const;

test.each(HOW)("the first account is made, or a new link makes it: %s", async (_how, after) => {
  let nth = 1;
  for (let failed = true; failed; nth++) {
    let now = Date.now();
    await using here = await shaky(after, () => now);
    const { live } = here;
    const setUpAt = async (link: string) => {
      const browser = new Browser(live.origin);
      await browser.go(link);
      const form = browser.form({ name: "olive", password: PASSWORD, again: PASSWORD });
      return { browser, send: () => browser.go(link, form) };
    };
    const { browser, send } = await setUpAt((await live.server.setupLink()) ?? "");
    failed = await here.failing(nth, send);
    if (!failed) expect(browser.last.text).toContain("<h1>olive</h1>");
    // Whoever is in was written down, as somebody who was made or signed in.
    expect(await sessions(here)).toBeLessThanOrEqual(seen(here, "user-created", "signed-in"));
    // A name that is being given is kept for a minute.
    now += 61_000;
    const link = await live.server.setupLink();
    if (link !== undefined) await (await setUpAt(link)).send();
    now += 61_000;
    expect(await signsIn(here), `after operation ${nth}`).toBe(true);
    expect(await here.sound.find("oauth:user", "users", "all", { limit: 10 })).toHaveLength(1);
  }
  expect(nth).toBeGreaterThan(8);
});

test.each(HOW)("a sign-in is one, or is not and works the next time: %s", async (_how, after) => {
  await using here = await shaky(after);
  const { live } = here;
  const first = new Browser(live.origin);
  await first.go((await live.server.setupLink()) ?? "");
  await first.submit({ name: "olive", password: PASSWORD, again: PASSWORD });
  let nth = 1;
  for (let failed = true; failed; nth++) {
    const [rows, records] = [await sessions(here), seen(here, "signed-in")];
    const browser = new Browser(live.origin);
    await browser.go(`${live.base}/sign-in`);
    const form = browser.form({ name: "olive", password: PASSWORD });
    failed = await here.failing(nth, () => browser.fetch(`${live.base}/sign-in`, form));
    expect((await sessions(here)) - rows).toBeLessThanOrEqual(seen(here, "signed-in") - records);
    const inside = browser.last.status === 303;
    if (!inside) expect(browser.cookieNames).not.toContain("drawbridge");
    await browser.go(`${live.base}/account`);
    expect(browser.last.text.includes("<h1>olive</h1>")).toBe(inside);
    expect(await signsIn(here)).toBe(true);
  }
  expect(nth).toBeGreaterThan(3);
});
