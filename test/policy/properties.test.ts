/** What holds of every policy: lists and calls agree, a denial only takes away, and the rule that is named did decide. */
import fc from "fast-check";
import { expect, test, vi } from "vitest";
import type { JsonObject, Principal, Target } from "../../src/core/call.ts";
import { compilePolicy } from "../../src/policy/engine.ts";
import { compilePattern } from "../../src/policy/globs.ts";
import { callView, compileCallCondition, resourceView, userView } from "../../src/policy/when.ts";
import { argumentsOf, policies, principals, type RandomPolicy, target, targets, toolCall } from "./support.ts";

vi.setConfig({ testTimeout: 60_000 });
const RUNS = { numRuns: 200 };
const call = fc
  .tuple(policies, principals, fc.constantFrom(...targets))
  .chain(([random, who, what]) => argumentsOf(random.flags).map((args) => ({ random, who, what, args })));

test("whatever a call would permit was listed", () => {
  fc.assert(
    fc.property(call, ({ random, who, what, args }) => {
      const policy = compilePolicy(random.roles, random.assign);
      const { effect } = policy.decide(who, what, toolCall(args));
      fc.pre(effect !== "deny");
      expect(policy.decide(who, what).effect).toBe("permit");
    }),
    RUNS,
  );
});

test("whatever is listed can be called with some arguments", () => {
  fc.assert(
    fc.property(policies, principals, fc.constantFrom(...targets), (random, who, what) => {
      fc.pre(random.flags.length <= 5);
      const policy = compilePolicy(random.roles, random.assign);
      const caller = { ...who, scopes: ["mcp:call"] };
      const listed = policy.decide(caller, what).effect === "permit";
      const callable = every(random.flags).some(
        (args) => policy.decide(caller, what, toolCall(args)).effect === "permit",
      );
      expect(callable).toBe(listed);
    }),
    RUNS,
  );
});

test("a decision is the one that reading the rules one by one gives", () => {
  fc.assert(
    fc.property(call, ({ random, who, what, args }) => {
      const { effect } = compilePolicy(random.roles, random.assign).decide(who, what, toolCall(args));
      expect(effect).toBe(plainly(random, who, what, args));
    }),
    { numRuns: 1000 },
  );
});

test("one more denial permits nothing that was not permitted before", () => {
  const more = fc.tuple(call, fc.nat({ max: 2 }), fc.constantFrom("*", "get_*", "x", "access:write", "open-world"));
  fc.assert(
    fc.property(more, fc.boolean(), ([{ random, who, what, args }, at, pattern], conditional) => {
      const name = `r${at % Object.keys(random.roles).length}`;
      const role = random.roles[name];
      if (role === undefined) throw new Error("no such role");
      const added = conditional
        ? { ...role, rules: [...(role.rules ?? []), { may: [], deny: [pattern], when: "args.f0 == true" }] }
        : { ...role, deny: [...role.deny, pattern] };
      const before = compilePolicy(random.roles, random.assign);
      const after = compilePolicy({ ...random.roles, [name]: added }, random.assign);
      if (after.decide(who, what, toolCall(args)).effect !== "deny")
        expect(before.decide(who, what, toolCall(args)).effect).not.toBe("deny");
      if (after.decide(who, what).effect === "permit") expect(before.decide(who, what).effect).toBe("permit");
    }),
    RUNS,
  );
});

test("the explanation names the clause that decided, which came out as the decision says", () => {
  fc.assert(
    fc.property(call, fc.boolean(), ({ random, who, what, args }, listing) => {
      const policy = compilePolicy(random.roles, random.assign);
      const facts = listing ? undefined : toolCall(args);
      const decision = policy.decide(who, what, facts);
      const { looked, needed, ...explained } = policy.explain(who, what, facts);
      expect(explained.decision).toEqual(decision);
      expect(needed.length > 0).toBe(decision.effect !== "permit");
      const deciding = looked.filter(({ decided }) => decided);
      const named = decision.effect !== "step-up" && decision.rule !== undefined;
      expect(deciding.length > 0).toBe(named);
      for (const { clause, effect, outcome } of deciding) {
        expect(clause).toBe(decision.effect === "step-up" ? undefined : decision.rule);
        if (decision.effect === "permit") expect([effect, outcome]).toEqual(["may", listing ? outcome : "met"]);
        if (decision.reason === "denied_by_rule") expect([effect, outcome]).toEqual(["deny", "met"]);
        if (decision.reason === "rule_failed" && !listing) expect(outcome).toBe("failed");
      }
    }),
    RUNS,
  );
});

test("a denial that holds whatever the call says is explained as met", () => {
  const policy = compilePolicy(
    { r: { may: ["*"], deny: [], rules: [{ may: [], deny: ["x"], when: "!(principal.claims.level > 2) || args.a" }] } },
    [{ role: "r", when: "true" }],
  );
  const { decision, looked } = policy.explain(principalOf(), target("x"));
  expect(decision).toMatchObject({ effect: "deny", rule: "r.rules.0: deny x" });
  expect(looked.find(({ decided }) => decided)?.outcome).toBe("met");
});

test("a template is listed when one of its resources could be read, and hidden when all are forbidden", () => {
  const part = fc.constantFrom("a", "b", "*", "{x}", "/");
  const texts = fc.array(part, { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(texts, texts, texts, (of, may, deny) => {
      const name = of.join("");
      fc.pre(name.includes("{x}") && !name.includes("*"));
      const glob = (from: string[]) => from.join("").replaceAll("{x}", "c");
      const policy = compilePolicy({ r: { may: [`resource:${glob(may)}`], deny: [`resource:${glob(deny)}`] } }, [
        { role: "r", when: "true" },
      ]);
      const template = target(name, "resource", { template: true });
      const listed = policy.decide(principalOf(), template).effect === "permit";
      const readable = values(name).some(
        (uri) => policy.decide(principalOf(), target(uri, "resource"), toolCall()).effect === "permit",
      );
      if (readable) expect(listed).toBe(true);
    }),
    RUNS,
  );
});

test("a call that names a template itself is about that text and nothing more", () => {
  const policy = compilePolicy({ r: { may: ["resource:o://1"], deny: [] } }, [{ role: "r", when: "true" }]);
  const template = target("o://{id}", "resource", { template: true });
  expect(policy.decide(principalOf(), template).effect).toBe("permit");
  expect(policy.decide(principalOf(), template, toolCall()).effect).toBe("deny");
});

function principalOf(): Principal {
  return {
    subject: "u",
    client: "c",
    actors: [],
    groups: [],
    scopes: ["mcp:call"],
    claims: {},
  } as unknown as Principal;
}

/** Short texts that a template stands for. */
function values(template: string): readonly string[] {
  return template
    .split("{x}")
    .reduce<string[]>(
      (made, text, at) => (at === 0 ? [text] : made.flatMap((one) => VALUES.map((value) => one + value + text))),
      [],
    );
}
const VALUES = ["", "a", "b", "c", "/", "ab", "ca", "a/b", "z"];

function every(flags: readonly string[]): readonly JsonObject[] {
  return flags.reduce<JsonObject[]>(
    (made, flag) =>
      made.flatMap((args) => [args, ...[true, false, "odd"].map((value) => ({ ...args, [flag]: value }))]),
    [{}],
  );
}

/** The rules, read by somebody in no hurry. */
function plainly({ roles, assign }: RandomPolicy, who: Principal, what: Target, args: JsonObject): string {
  const view = userView(who);
  const input = {
    principal: view,
    user: view,
    args,
    call: callView(what, "tools/call"),
    resource: resourceView(what),
    time: {},
  };
  const matches = (list: readonly string[], to: "may" | "deny") => list.some((one) => compilePattern(one, to)(what));
  const met = (when: string | undefined) => (when === undefined ? true : compileCallCondition(when).evaluate(input));
  const held = assign.flatMap(({ role, group }) => {
    const settings = roles[role];
    return group !== undefined && who.groups.includes(group) && settings !== undefined ? [settings] : [];
  });
  if (held.some(({ deny }) => matches(deny, "deny"))) return "deny";
  const rules = held.flatMap((role) => role.rules ?? []);
  if (rules.some(({ deny, when }) => matches(deny, "deny") && met(when) !== false)) return "deny";
  if (![...held, ...rules].some(({ may, when }) => matches(may, "may") && met(when) === true)) return "deny";
  return who.scopes.includes("mcp:call") ? "permit" : "step-up";
}
