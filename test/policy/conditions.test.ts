/** Conditions mean what the language says: what is compiled here comes out as the library's own interpreter has it, errors included. */
import { Environment } from "@marcbachmann/cel-js";
import { describe, expect, test, vi } from "vitest";
import type { JsonObject } from "../../src/core/call.ts";
import { compileExpression } from "../../src/policy/expressions.ts";
import { isFixed } from "../../src/policy/matches.ts";
import {
  type CallInput,
  callView,
  compileCallCondition,
  limits,
  MET,
  resourceView,
  type SharedParts,
  userView,
} from "../../src/policy/when.ts";
import { fc, runs } from "../properties.ts";
import { principal, target } from "./support.ts";

vi.setConfig({ testTimeout: 60_000 });

const library = new Environment({ limits });
for (const name of ["principal", "user", "args", "call", "resource", "time"]) library.registerVariable(name, "map");

/** What the library makes of it, from the parsing to the value. `refused`: it does not even load. */
function plainly(text: string, input: CallInput): boolean | undefined | "refused" {
  let parsed: ReturnType<Environment["parse"]>;
  try {
    parsed = library.parse(text);
    const { valid, type } = parsed.check();
    if (!valid || (type !== "bool" && type !== "dyn")) return "refused";
  } catch {
    return "refused";
  }
  try {
    const result: unknown = parsed(input);
    return typeof result === "boolean" ? result : undefined;
  } catch {
    return undefined;
  }
}
function compiled(text: string, input: CallInput): boolean | undefined | "refused" {
  let condition: ReturnType<typeof compileCallCondition>;
  try {
    condition = compileCallCondition(text);
  } catch {
    return "refused";
  }
  return condition.evaluate(input);
}

const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };
const NAMES = ["a", "b", "c", "constructor", "hasOwnProperty", "toString", "missing"];
/** What clients send, and what only somebody who looks for trouble does. */
const scalar = fc.constantFrom<unknown>(
  "",
  "a",
  "b",
  "ab",
  "A",
  "5",
  "ORD-1",
  0,
  -0,
  1,
  5,
  5.5,
  -5,
  2 ** 53,
  1e300,
  true,
  false,
  null,
);
const value: fc.Arbitrary<unknown> = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 2, depthSize: "small" },
    { weight: 6, arbitrary: scalar },
    { weight: 2, arbitrary: fc.array(tie("value"), { maxLength: 3 }) },
    { weight: 1, arbitrary: fc.array(fc.constantFrom("a", "b", "ORD-1"), { maxLength: 3 }) },
    { weight: 3, arbitrary: fc.dictionary(fc.constantFrom("a", "b", "c"), tie("value"), { maxKeys: 3 }) },
    {
      weight: 1,
      arbitrary: fc.constantFrom<unknown>(
        JSON.parse('{"constructor": "x", "a": 1}'),
        JSON.parse('{"__proto__": {"a": true}, "b": 2}'),
        Object.assign(Object.create(null), { a: "a" }),
        rawJSON("12345678901234567890"),
        5n,
      ),
    },
  ),
})).value;
const args = fc
  .record(Object.fromEntries(["a", "b", "c"].map((name) => [name, value])), { requiredKeys: [] })
  .chain((sent) =>
    fc.constantFrom<JsonObject>(
      sent as JsonObject,
      { ...(sent as JsonObject), constructor: "x" } as unknown as JsonObject,
    ),
  );
const callers = fc.record({
  claims: fc.dictionary(fc.constantFrom("a", "b", "c"), value, { maxKeys: 3 }),
  groups: fc.array(fc.constantFrom("a", "b", "staff"), { maxLength: 3 }),
});

const literal = fc.constantFrom(
  '"a"',
  '"b"',
  '""',
  '"ORD-"',
  "'it''s'".slice(0, 4).concat("'"),
  '"\\u0061"',
  'r"a"',
  "5",
  "-5",
  "0",
  "1",
  "5.0",
  "5.5",
  "-0.0",
  "9007199254740993",
  "9007199254740992",
  "1e300",
  "5u",
  "true",
  "false",
  "null",
  '["a", "b"]',
  "[1, 2]",
  "[]",
  "{'a': 1}",
  'b"a"',
); // prettier-ignore
const path = fc.oneof(
  fc.constantFrom(...NAMES).map((name) => `args.${name}`),
  fc.tuple(fc.constantFrom(...NAMES), fc.constantFrom(...NAMES)).map(([one, other]) => `args.${one}.${other}`),
  fc.constantFrom(...NAMES).map((name) => `args["${name}"]`),
  fc.constantFrom(
    "args.a[0]",
    'args["a"].b',
    "args.a.b.c",
    "args",
    "principal.claims.a",
    "principal.claims.b.c",
    "principal.groups",
    "principal.id",
    "user.claims.a",
    "call.name",
    "call.openWorld",
    "resource.uri",
    "resource.parts",
    "time.hour",
    "principal.claims",
    "args.__proto__",
    "args.__proto__.a",
    "args.a.__proto__.a",
  ), // prettier-ignore
);
const operand = fc.oneof({ weight: 3, arbitrary: path }, { weight: 2, arbitrary: literal });
const leaf = fc.oneof(
  path,
  fc.tuple(operand, fc.constantFrom("==", "!=", "<", "<=", ">", ">=", "in"), operand).map((parts) => parts.join(" ")),
  fc
    .tuple(path, fc.constantFrom("startsWith", "endsWith", "contains"), operand)
    .map(([of, name, arg]) => `${of}.${name}(${arg})`),
  path.map((of) => `has(${of})`),
  fc
    .tuple(path, fc.constantFrom('["a", "b"]', '["a"]', "[1, 5]", '["a", 1]', "[true]", "[]"))
    .map((parts) => parts.join(" in ")),
  fc.constantFrom(
    "true",
    "false",
    "size(args.a) > 1",
    "args.a + 1 == 6.0",
    "args.a.exists(x, x == 'a')",
    "args.b ? args.a : args.c",
  ),
  fc
    .tuple(path, fc.constantFrom('"^a+$"', '"^ORD-[0-9]+$"', '"a|b"', '"(a|b)*"', '"[ab]"', '""'))
    .map(([of, p]) => `${of}.matches(${p})`),
); // prettier-ignore
const expression = fc.letrec<{ all: string }>((tie) => ({
  all: fc.oneof(
    { maxDepth: 3, depthSize: "small", withCrossShrink: true },
    leaf,
    fc
      .tuple(tie("all"), fc.constantFrom("&&", "||"), tie("all"))
      .map(([one, op, other]) => `(${one}) ${op} (${other})`),
    tie("all").map((one) => `!(${one})`),
  ),
})).all;

function inputOf(
  sent: JsonObject,
  who: { claims: Record<string, unknown>; groups: readonly string[] },
  resource: boolean,
) {
  const view = userView(principal({ claims: who.claims as JsonObject, groups: who.groups }));
  const what = resource ? target("o://a/b", "resource") : target("a");
  const time = resource ? { hour: 5, minute: 1, weekday: 6, date: "2026-11-21" } : {};
  return {
    principal: view,
    user: view,
    args: sent,
    call: callView(what, "tools/call"),
    resource: resourceView(what),
    time,
  };
}

test("a compiled condition comes out as the library's interpreter has it, whatever is sent", () => {
  let decided = 0;
  fc.assert(
    fc.property(expression, args, callers, fc.boolean(), (text, sent, who, resource) => {
      const input = inputOf(sent, who, resource);
      const expected = plainly(text, input);
      if (typeof expected === "boolean") decided++;
      expect(compiled(text, input)).toBe(expected);
    }),
    { numRuns: runs(4_000) },
  );
  // Else all that was compared were errors.
  expect(decided).toBeGreaterThan(400);
});

test("one part alone does, too: every comparison of every kind of value with every kind", () => {
  fc.assert(
    fc.property(leaf, args, callers, fc.boolean(), (text, sent, who, resource) => {
      const input = inputOf(sent, who, resource);
      expect(compiled(text, input)).toBe(plainly(text, input));
    }),
    { numRuns: runs(4_000) },
  );
});

test("a part that is looked at by itself keeps its brackets and its numbers", () => {
  const when = "args.x == 1 && principal.claims.a - (1.0 - principal.claims.b) > 1.0 && principal.claims.c < 1e300";
  const input = (claims: JsonObject) => inputOf({ x: 1 }, { claims, groups: [] }, false);
  const condition = compileCallCondition(when);
  // 1 - (1 - 1.5) is 1.5, and (1 - 1) - 1.5 is not.
  expect(condition.evaluate(input({ a: 1, b: 1.5, c: 0 }))).toBe(true);
  expect(condition.possible(input({ a: 1, b: 1.5, c: 0 })) & MET).toBe(MET);
  expect(condition.possible(input({ a: 1, b: 0.5, c: 0 })) & MET).toBe(0);
  expect(condition.parts(input({ a: 1, b: 1.5, c: 0 })).map(({ met }) => met)).toEqual([true, true, true]);
  expect(condition.parts(input({ a: 1, b: 1.5, c: 0 })).map(({ text }) => text)).toEqual(when.split(" && "));
});

test("parts that conditions share are shared when they are the same, and only then", () => {
  const texts = ["5", "5u", "5.0", '"5"', "6", "6u", "-0.0", "0.0", 'b"a"', 'b"b"', "[5]", "[5u]", "[6u]"];
  const whens = texts.flatMap((text) => [`args.a == ${text}`, `args.a == ${text} && true`, `!(args.a != ${text})`]);
  const shared: SharedParts = new Map();
  const conditions = [...whens, ...whens, ...whens].map((text) => compileCallCondition(text, shared));
  let turn = 0;
  for (const a of [5, 6, "5", 0, -0, [5], [6], null, 5n]) {
    const input = { ...inputOf({ a } as JsonObject, { claims: {}, groups: [] }, false), turn: ++turn };
    for (const condition of conditions)
      expect(condition.evaluate(input), `${condition.text} of ${String(a)}`).toBe(plainly(condition.text, input));
  }
});

describe("matches()", () => {
  const met = (text: string, sent: JsonObject) =>
    compileCallCondition(text).evaluate(inputOf(sent, { claims: {}, groups: [] }, false));

  test("over megabytes is not told: what it would permit is refused, and what it would forbid forbidden", () => {
    const text = "a".repeat(1_000_000);
    const started = process.cpuUsage();
    expect(met('args.text.matches("^([a-z]{1,50} ?)*$")', { text })).toBeUndefined();
    expect(met('size(args.text) > 3 && args.text.matches("^([a-z]{1,50} ?)*$")', { text })).toBeUndefined();
    const { user, system } = process.cpuUsage(started);
    expect((user + system) / 1000).toBeLessThan(1_000);
    expect(met('args.text.matches("^([a-z]{1,50} ?)*$")', { text: "a b" })).toBe(true);
  });

  test("takes linear time, also for patterns that others need years for", () => {
    const text = `${"a".repeat(50_000)}!`;
    for (const pattern of ["^(a+)+$", "^(a|aa)+$", "(a*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*)(.*)(.*)=x"]) {
      const started = process.cpuUsage();
      expect(met(`args.text.matches("${pattern}")`, { text }), pattern).toBe(false);
      expect(met(`args.x == 1 || args.list[0].matches("${pattern}")`, { x: 2, list: [text] }), pattern).toBe(false);
      expect(
        compileExpression(`args.text.matches("${pattern}")`, { args: ["text"], steps: [] }).evaluate(run(text)),
      ).toBe(false);
      const { user } = process.cpuUsage(started);
      expect(user / 1000, pattern).toBeLessThan(2_000);
    }
  });
  test("of a pattern that a call brings along is bounded, and remembers no more than a few", () => {
    const text = `${"a".repeat(9_000)}!`;
    expect(met("args.text.matches(args.pattern)", { text, pattern: "^(a+)+$" })).toBe(false);
    expect(met("args.text.matches(args.pattern)", { text: "ab", pattern: "b$" })).toBe(true);
    for (const bad of ["(", "(?=a)", "a".repeat(201), "((a{30}){30}){2}", "[\\w]{900}{900}"])
      expect(met("args.text.matches(args.pattern)", { text: "a", pattern: bad }), bad).toBeUndefined();
    expect(met("args.text.matches(args.pattern)", { text: "a".repeat(10_001), pattern: "a" })).toBeUndefined();
    for (let at = 0; at < 500; at++)
      expect(met("args.text.matches(args.p)", { text: `x${at}`, p: `^x${at}$` })).toBe(true);
  });
  test("with a pattern that is none is refused when it is loaded, in the words of whoever wrote it", () => {
    expect(() => compileCallCondition('args.a.matches("(?=x)")')).toThrow('"(?=x)" is not a pattern of RE2');
    expect(() => compileCallCondition('args.a.matches("[z-a]")')).toThrow("is not a pattern of RE2");
    expect(() => compileCallCondition('true || args.a[0].matches("(")')).toThrow("is not a pattern of RE2");
    expect(() => compileCallCondition("args.a.matches(5)")).not.toThrow();
    expect(() => compileExpression('args.a.matches("(")', { args: ["a"], steps: [] })).toThrow(
      "is not a pattern of RE2",
    );
  });
  test("means the same whether V8 or RE2 looks: simple patterns are V8's, because it is faster", () => {
    const atom = fc.constantFrom("a", "-", "\\d", "\\.", "[a-c]", "[0-9_]", "[a-z0-9.-]", "\\w", "[ab]{2}", "a{3}");
    const last = fc.constantFrom("", "c+", "[a-c]*", "d?", "b{1,3}", "w{2,}");
    const pattern = fc
      .tuple(fc.constantFrom("", "^"), fc.array(atom, { minLength: 1, maxLength: 4 }), last, fc.constantFrom("", "$"))
      .map(([begin, atoms, repeat, end]) => `${begin}${atoms.join("")}${repeat}${end}`);
    const text = fc.string({ unit: fc.constantFrom("a", "b", "-", ".", "1", "_", "\n", "é", "😀"), maxLength: 8 });
    let fixed = 0;
    fc.assert(
      fc.property(pattern, text, (made, on) => {
        if (isFixed(made)) fixed++;
        const quoted = JSON.stringify(made);
        // The alternative with nothing in common keeps the pattern from V8.
        const general = met(`args.t.matches(${JSON.stringify(`(?:${made})|\u0001`)})`, { t: on });
        expect(met(`args.t.matches(${quoted})`, { t: on })).toBe(general);
      }),
      { numRuns: runs(1_500) },
    );
    expect(fixed).toBeGreaterThan(150);
  });
  test.each(["(a+)+", "^a+b+$", "a+", "^.*x", "^a|b", "[^a]", "a{3}+", "^[a-z]+[a-z]+$", "\\bx", "(?i)a"])(
    "%s is for RE2",
    (pattern) => {
      expect(isFixed(pattern)).toBe(false);
    },
  );
});

const run = (text: string) => ({
  args: { text },
  principal: { subject: "", client: "", groups: [], scopes: [], claims: {} },
  steps: {},
  run: { id: "" },
});
