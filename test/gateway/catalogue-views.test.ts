import { expect, test } from "vitest";
import type { JsonObject } from "../../src/core/call.ts";
import { openCatalogue } from "../../src/gateway/catalogue.ts";
import { openPins } from "../../src/gateway/pins.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { ListName, Upstream } from "../../src/upstream/upstream.ts";

/** An upstream with a tool for everybody and, per capability, one more of that name. */
function offering() {
  const asked: JsonObject[] = [];
  const state = { down: false, more: [] as string[] };
  const upstream = {
    name: "s",
    async list(list: ListName, _: AbortSignal, capabilities: JsonObject = {}) {
      if (list !== "tools") return [];
      asked.push(capabilities);
      if (state.down) throw new Error("down");
      return ["all", ...Object.keys(capabilities), ...state.more].map((name) =>
        JSON.stringify({ name, inputSchema: {} }),
      );
    },
  } as unknown as Upstream;
  return { upstream, asked, state };
}

async function opened() {
  const { upstream, asked, state } = offering();
  const changes: ListName[] = [];
  const pins = openPins(memoryStore().records, silentLogger);
  const catalogue = openCatalogue([upstream], { pins, log: silentLogger, onChange: (list) => void changes.push(list) });
  await catalogue.ready;
  const names = async (capabilities?: JsonObject) =>
    (await catalogue.list("tools", capabilities)).map(({ target }) => target.name);
  changes.length = 0;
  return { catalogue, names, changes, asked, state };
}

test("clients are listed what the server offers to those who can do the same, and told of it only when it changes", async () => {
  const { names, changes, asked, catalogue, state } = await opened();
  expect(await names()).toEqual(["all"]);
  expect(await names({ roots: { listChanged: true } })).toEqual(["all", "roots"]);
  expect(await names({ sampling: {}, tasks: {} })).toEqual(["all", "sampling"]);
  expect(await names({ roots: {} })).toEqual(["all", "roots"]);
  expect(await names({ tasks: {} })).toEqual(["all"]);
  expect(asked).toEqual([{}, { roots: {} }, { sampling: {} }]);
  expect(changes).toEqual([]);
  state.more = ["late"];
  catalogue.changed("s", "tools");
  await expect.poll(() => changes.length).toBe(3);
  expect(await names({ roots: {} })).toEqual(["all", "roots", "late"]);
});

test("what only some clients are offered can be called, without having been listed, too", async () => {
  const { catalogue } = await opened();
  expect(catalogue.find("tool", "elicitation")).toBeUndefined();
  expect(await catalogue.resolve("tool", "elicitation")).toBeUndefined();
  const target = await catalogue.resolve("tool", "elicitation", { elicitation: {} });
  expect(target).toMatchObject({ server: "s", name: "elicitation" });
  expect(target && catalogue.entry(target)?.definition.name).toBe("elicitation");
  expect(catalogue.find("tool", "elicitation")).toEqual(target);
});

test("clients are listed what everybody is offered when the server cannot be asked for them", async () => {
  const { names, state } = await opened();
  state.down = true;
  expect(await names({ roots: {} })).toEqual(["all"]);
});
