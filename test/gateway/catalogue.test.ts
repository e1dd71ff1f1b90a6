/** What the catalogue makes of lists as servers really give them. */
import { expect, test } from "vitest";
import { openCatalogue } from "../../src/gateway/catalogue.ts";
import type { Pins } from "../../src/gateway/pins.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import type { ListName, Upstream } from "../../src/upstream/upstream.ts";

const tool = (name: string, more = "") => `{"name":"${name}","inputSchema":{"type":"object"}${more}}`;

/** A catalogue of one server whose tools are what `tools` says at that moment. */
async function opened(tools: () => readonly string[]) {
  const changes: ListName[] = [];
  let now = 1_000_000;
  const upstream = {
    name: "it",
    list: async (list: ListName) => (list === "tools" ? tools() : []),
  } as unknown as Upstream;
  const pins: Pins = {
    check: async (_server: string, _kind: string, offered: readonly unknown[]) => ({
      verdicts: offered.map(() => ({ held: undefined, stops: false, reviewed: false })),
      gone: undefined,
    }),
  } as unknown as Pins;
  const options = { pins, log: silentLogger, onChange: (list: ListName) => void changes.push(list) };
  const catalogue = openCatalogue([upstream], options, () => now);
  await catalogue.ready;
  changes.length = 0;
  return {
    catalogue,
    changes,
    later() {
      now += 120_000;
    },
    async names() {
      now += 120_000;
      return (await catalogue.list("tools")).map(({ target }) => target.name);
    },
  };
}

test("a server that gives its list in another order each time has one order, and has changed nothing", async () => {
  const tools = ["a", "b", "c"].map((name) => tool(name));
  const { names, changes, catalogue } = await opened(() => tools);
  const { version } = catalogue;
  tools.reverse();
  expect(await names()).toEqual(["a", "b", "c"]);
  expect([changes, catalogue.version]).toEqual([[], version]);
  tools.push(tool("d"));
  expect(await names()).toEqual(["c", "b", "a", "d"]);
  expect(changes).toEqual(["tools"]);
});

test.each([
  ["a number that is not finite", ',"n":1e400'],
  ["half of a pair", ',"text":"\\ud800"'],
])("one definition with %s is withheld, and the others are served", async (_, more) => {
  const { catalogue, names } = await opened(() => [tool("good"), tool("strange", more)]);
  expect(await names()).toEqual(["good"]);
  expect(catalogue.withheld()).toMatchObject([{ name: "strange", reason: expect.stringContaining("canonical form") }]);
});

test("what a server says has changed is unknown until it was read again, also for calls that come meanwhile", async () => {
  let tools = [tool("a"), tool("b")];
  const { catalogue } = await opened(() => tools);
  expect(catalogue.find("tool", "a")).toBeDefined();
  tools = [tool("b")];
  catalogue.changed("it", "tools");
  expect(catalogue.find("tool", "a")).toBeUndefined();
  expect(await catalogue.resolve("tool", "a")).toBeUndefined();
  expect((await catalogue.resolve("tool", "b"))?.name).toBe("b");
});

test("a change that is said while the list is being read is read, too", async () => {
  let tools = [tool("a")];
  const { catalogue } = await opened(() => tools);
  catalogue.changed("it", "tools");
  tools = [tool("b")];
  catalogue.changed("it", "tools");
  expect((await catalogue.resolve("tool", "b"))?.name).toBe("b");
  expect(await catalogue.resolve("tool", "a")).toBeUndefined();
});

test("who only calls finds out as well: what has grown old is read again", async () => {
  let tools = [tool("a")];
  const { catalogue, later } = await opened(() => tools);
  tools = [tool("b")];
  expect(catalogue.find("tool", "a")).toBeDefined();
  later();
  catalogue.find("tool", "a");
  await expect.poll(() => catalogue.find("tool", "a")).toBeUndefined();
});
