/** Expressions of contracts: what they give, with numbers as people write them, and what is refused before any call. */
import { describe, expect, test } from "vitest";
import { parseExactly } from "../../src/contract/exact.ts";
import { compileTemplate } from "../../src/contract/expressions.ts";
import type { JsonObject, JsonValue } from "../../src/core/call.ts";
import { compileExpression } from "../../src/policy/expressions.ts";

const scope = { args: ["n", "f", "l", "big", "note"], steps: ["a", "s"] };
const input = {
  args: parseExactly('{"n":5,"f":2.5,"l":[1,2],"big":9007199254740993}') as JsonObject,
  principal: { subject: "u", client: "c", groups: ["g"], scopes: [], claims: { email: "u@shop.example" } },
  steps: { a: { total: 19.5, count: 3 }, s: null },
  run: { id: "r-1" },
};
const given = (text: string) => JSON.stringify(compileExpression(text, scope).evaluate(input));

describe("an expression", () => {
  test.each([
    ["args.n * 2", "10"],
    ["args.n * 2 / 4", "2.5"],
    ["2 * args.f", "5"],
    ["args.n / 2", "2.5"],
    ["args.n % 2 == 1", "true"],
    ["steps.a.total * 2", "39"],
    ["steps.a.count == 3", "true"],
    ["steps.a.count == 3.0", "true"],
    ["size(args.l) * 1.5", "3"],
    ["args.l[0] + 1", "2"],
    ["args.l.map(x, x * 2)", "[2,4]"],
    ["args.big", "9007199254740993"],
    ["args.big + 1", "9007199254740994"],
    ["args.big - args.n", "9007199254740988"],
    ["{'a': args.big, 'b': [1, 2.5, 'x']}", '{"a":9007199254740993,"b":[1,2.5,"x"]}'],
    ["steps.s == null ? 'none' : steps.s.id", '"none"'],
    ["has(args.note) ? args.note : ''", '""'],
    ["string(args.n) + ' EUR'", '"5 EUR"'],
    ["principal.claims.email", '"u@shop.example"'],
    ["'g' in principal.groups", "true"],
    ["run.id", '"r-1"'],
  ])("%s gives %s", (text, result) => {
    expect(given(text)).toBe(result);
  });

  test.each([
    ["args.typo", "No such key: typo"],
    ["steps.later.id", "No such key: later"],
    ["principal.email", "No such key: email"],
    ["nobody", "Unknown variable: nobody"],
    ["args.n +", "Unexpected token"],
    ["[".repeat(40) + "]".repeat(40), "maxDepth"],
    [`'${"x".repeat(4000)}'`, "at most 4000 characters"],
  ])("%s is refused before any call", (text, problem) => {
    expect(() => compileExpression(text, scope)).toThrow(problem);
  });

  test.each([
    ["args.n / 0", "not a number"],
    ["type(args.n)", "nothing that JSON has"],
    ["args.l[7]", "No such key"],
    ["args.note", "No such key: note"],
  ])("%s has no value, and says so", (text, problem) => {
    expect(() => given(text)).toThrow(problem);
  });
});

test("a loop within a loop is bounded, since servers decide how long their lists are", () => {
  const nested = "steps.a.l.map(x, steps.a.l.filter(y, y > x))";
  const list = (length: number) => ({ ...input, steps: { a: { l: Array.from({ length }, (_, at) => at) } } });
  const { evaluate } = compileExpression(nested, scope);
  expect(evaluate(list(3))).toEqual([[1, 2], [2], []]);
  expect(() => evaluate(list(3000))).toThrow("at most 300 elements");
  expect(compileExpression("steps.a.l.map(x, x * 2).filter(x, x > 1)", scope).evaluate(list(3000))).toHaveLength(2999);
  const thrice = "steps.a.l.all(x, steps.a.l.all(y, steps.a.l.all(z, z > x + y)))";
  expect(() => compileExpression(thrice, scope)).toThrow("at most twice");
});

test("values are themselves, and expressions at any depth are worked out", () => {
  const value: JsonValue = { id: "=args.n", list: ["=args.note", "=steps.a.total", "a = b"], text: "='=x'", one: 1 };
  const template = compileTemplate(value, scope, compileExpression);
  expect(template.evaluate(input)).toEqual({ id: 5, list: [19.5, "a = b"], text: "=x", one: 1 });
  expect(compileTemplate("plain", scope, compileExpression).known).toEqual({ kind: "constant", value: "plain" });
  expect(compileTemplate("=args.n", scope, compileExpression).known).toEqual({ kind: "argument", name: "n" });
});
