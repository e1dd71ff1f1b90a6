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
  const pins: Pins = { check: async () => undefined } as unknown as Pins;
  const options = { pins, log: silentLogger, onChange: (list: ListName) => void changes.push(list) };
  const catalogue = openCatalogue([upstream], options, () => now);
  await catalogue.ready;
  changes.length = 0;
  return {
    catalogue,
    changes,
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
