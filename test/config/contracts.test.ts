/** What can be said of contracts without their servers: names, contradictions, and what deserves a warning. */
import { expect, test } from "vitest";
import { settleSettings } from "../../src/config/load.ts";
import { SettingsProblems } from "../../src/config/problems.ts";

const servers = { shop: { command: ["node"] } };
async function problems(sections: object): Promise<readonly string[]> {
  try {
    await settleSettings({ servers, ...sections }, process.cwd(), { env: {} });
    return [];
  } catch (thrown) {
    if (!(thrown instanceof SettingsProblems)) throw thrown;
    return thrown.problems.map(
      ({ path, message, suggestion }) => `${path}: ${message}${suggestion ? ` (${suggestion})` : ""}`,
    );
  }
}
const tool = (more: object = {}) => ({ from: "shop/get_order", ...more });

test.each<[object, string]>([
  [{ tools: { a: tool({ from: "shp/x" }) } }, 'tools.a.from: there is no server "shp" (shop/x)'],
  [{ tools: { a: { steps: [{ id: "one", call: "other/x" }] } } }, 'tools.a.steps.0.call: there is no server "other"'],
  [{ tools: { a: tool({ from: "shop/*" }) } }, "tools.a.from: names several"],
  [{ tools: { "*": tool() } }, "tools.*.from: names one"],
  [{ tools: { "*": tool({ from: "shop/*", description: "x" }) } }, "tools.*.description: is for one"],
  [{ tools: { "*": tool({ from: "shop/*", output: ["a"] }) } }, "tools.*.output.fields: is for one"],
  [{ tools: { a: tool({ output: ["a//b"] }) } }, 'tools.a.output: "a//b" has an empty part'],
  [{ tools: { a: tool({ as: { resource: "o://{id}" }, output: ["a"] }) } }, "tools.a.as: is for tools that only read"],
  [{ tools: { a: tool({ as: { resource: "o://{id}" }, access: "read" }) } }, "tools.a.as: needs `output`"],
  [
    { tools: { a: tool({ as: { resource: "o://{id" }, access: "read", output: ["a"] }) } },
    "tools.a.as.resource: a brace is left alone",
  ],
  [{ tools: { a: tool({ result: "done" }) } }, "tools.a.result: is for tools with `steps`"],
  [
    { tools: { a: tool({ input: { x: { fixed: 1, bind: "principal.subject" } } }) } },
    "tools.a.input.x: is fixed and bind at once",
  ],
  [
    { tools: { a: tool({ input: { x: { minLength: 3, maxLength: 2 } } }) } },
    "tools.a.input.x.minLength: is greater than maxLength",
  ],
  [{ tools: { get_order: tool(), "get-Order": tool() } }, 'tools.get-Order: looks like "get_order"'],
  [{ prompts: { p: { from: "shop/p", output: ["a"] } } }, "prompts.p.output.fields: is for answers that are JSON"],
  [{ resources: { "a://b": { from: "gone/a" } } }, 'resources.a://b.from: there is no server "gone"'],
])("%j is refused", async (sections, problem) => {
  expect(await problems(sections)).toEqual([expect.stringContaining(problem)]);
});

test.each<[object, string | undefined]>([
  [{ tools: { "*": tool({ from: "shop/*" }) } }, "tools.* serves everything that shop/* stands for"],
  [
    { store: "memory", tools: { a: { steps: [{ id: "x", call: "shop/x", undo: { call: "shop/y" } }] } } },
    "tools.a undoes its steps when one fails, but not after a crash or a restart",
  ],
  [{ store: "memory", tools: { a: { steps: [{ id: "x", call: "shop/x" }] } } }, undefined],
  [{ tools: { a: tool({ unproven: "accept" }) } }, "tools.a.unproven is accept. Insecure:"],
  [
    { tools: { "orders.read": tool() }, roles: { r: { may: ["orders.raed"] } } },
    'roles.r.may: "orders.raed" matches no tool of `tools`, so it does nothing; did you mean "orders.read"?',
  ],
  [{ tools: { "orders.read": tool() }, roles: { r: { deny: ["shop_*"] } } }, 'roles.r.deny: "shop_*" matches no tool'],
  [{ tools: { "orders.read": tool() }, roles: { r: { may: ["orders.*", "*", "resource:x", "prompt:y"] } } }, undefined],
  [{ tools: { a: tool() }, roles: { r: { may: ["access:read"], deny: ["open-world"] } } }, undefined],
])("%j is warned of", async (sections, warning) => {
  const { warnings } = await settleSettings({ servers, ...sections }, process.cwd(), { env: {} });
  const found = warnings.filter((one) => /tools\.|roles\./.test(one));
  expect(found).toEqual(warning === undefined ? [] : [expect.stringContaining(warning)]);
});
