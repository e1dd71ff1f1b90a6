import { describe, expect, test } from "vitest";
import { type Documented, lintDocumentation } from "../../src/contract/document.ts";

const COMPLETE: Documented = {
  name: "look_up_order",
  title: "Look up an order",
  description:
    "Shows one order with its items, shipments and refunds. Use it when somebody asks about an order whose number they know. Not for a search: use find_orders instead. Returns status, items and dates; amounts are in pence. One order at a time.",
  inputSchema: {
    type: "object",
    properties: { order_id: { type: "string", description: "The order's number, e.g. ORD-100007." } },
  },
};

const rules = (tool: Documented) => lintDocumentation(tool).map(({ rule }) => rule);
const described = (description: string | undefined) => rules({ ...COMPLETE, description });

test("a complete description gives no finding", () => {
  expect(lintDocumentation(COMPLETE)).toEqual([]);
});

test("a tool without a description has one finding that names all five parts", () => {
  for (const nothing of [undefined, "", "  \n"]) {
    const [finding, ...more] = lintDocumentation({ ...COMPLETE, description: nothing });
    expect(more).toEqual([]);
    expect(finding).toMatchObject({ rule: "missing", path: ["description"] });
    for (const part of ["what it does", "when to use it", "when not", "returns", "limits"])
      expect(finding?.message).toContain(part);
  }
});

describe("each part that is missing is named alone", () => {
  const sentences = {
    what: "Shows one order with its items, shipments and refunds.",
    when: "Use it when somebody asks about an order.",
    "when-not": "Not for a search: take find_orders.",
    returns: "Returns status, items and dates.",
    limits: "At most 20 items.",
  };
  for (const left of Object.keys(sentences).filter((part) => part !== "what")) {
    test(left, () => {
      const text = Object.entries(sentences)
        .filter(([part]) => part !== left)
        .map(([, sentence]) => sentence)
        .join(" ");
      expect(described(text)).toEqual([left]);
    });
  }
  test("what: a first sentence that only repeats the name", () => {
    expect(described(`Look up order. ${Object.values(sentences).slice(1).join(" ")}`)).toEqual(["what"]);
  });
});

test("the desk's own words are found wanting", () => {
  expect(rules({ ...COMPLETE, name: "get_customer", description: "Get customer" })).toEqual([
    "what",
    "when",
    "when-not",
    "returns",
    "limits",
  ]);
});

test("a description that sends the model to a tool that is not served is named, a part of another word is not", () => {
  const hiddenNames = ["run_sql", "get_order"];
  const text = `${COMPLETE.description} For anything else there is run_sql.`;
  expect(lintDocumentation({ ...COMPLETE, hiddenNames, description: text })).toMatchObject([
    { rule: "not-served", message: expect.stringContaining("run_sql") },
  ]);
  const other = `${COMPLETE.description} It is no run_sql_report.`;
  expect(rules({ ...COMPLETE, hiddenNames, description: other })).toEqual([]);
});

test("arguments need words of their own, with the place where they go", () => {
  const inputSchema = {
    type: "object",
    properties: { order_id: { type: "string" }, sku: { type: "string", description: "sku" } },
  };
  expect(lintDocumentation({ ...COMPLETE, inputSchema }).map(({ rule, path }) => [rule, path])).toEqual([
    ["argument", ["input", "order_id", "description"]],
    ["argument", ["input", "sku", "description"]],
  ]);
});

test("a title is proposed from the name, however it is written", () => {
  for (const name of ["look_up_order", "lookUpOrder", "look-up-order"]) {
    const [finding] = lintDocumentation({ ...COMPLETE, name, title: undefined });
    expect(finding?.message).toContain('"Look up order"');
  }
});

test("a description that is too long is measured", () => {
  expect(described(`${COMPLETE.description} ${"And so on. ".repeat(120)}`)).toEqual(["too-long"]);
});

test("of text in other letters nothing is claimed that only English words would show", () => {
  expect(described("Показывает один заказ вместе с товарами, доставками и возвратами.")).toEqual([]);
  expect(described("注文の状態、商品、配送を一件だけ表示します。")).toEqual([]);
});
