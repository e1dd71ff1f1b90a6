/** What holds of every policy: lists and calls agree, a denial only takes away, and the rule that is named did decide. */
import { expect, test, vi } from "vitest";
import type { JsonObject, Principal, Target } from "../../src/core/call.ts";
import { compilePolicy } from "../../src/policy/engine.ts";
import { compilePattern } from "../../src/policy/globs.ts";
import { openPolicy } from "../../src/policy/live.ts";
import type { RolesSettings } from "../../src/policy/settings.ts";
import { callView, compileCallCondition, resourceView, userView } from "../../src/policy/when.ts";
import { fc, runs } from "../properties.ts";
import {
  anyPolicies,
  argumentsOf,
  callsOf,
  policies,
  principals,
  type RandomPolicy,
  target,
  targets,
  toolCall,
} from "./support.ts";

vi.setConfig({ testTimeout: 60_000 });
const RUNS = { numRuns: runs(200) };
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
    { numRuns: runs(1000) },
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

/** Everything that may be asked of anybody: calls, tasks, completions, prompts, resources, what follows them; and templates. */
const asked = fc
  .tuple(anyPolicies, principals, fc.constantFrom(...targets, target("o://{id}", "resource", { template: true })))
  .chain(([random, who, what]) =>
    callsOf(what, random.flags).map((facts) => ({ random, who, what, facts, policy: compiledOf(random) })),
  );
const compiledOf = ({ roles, assign }: RandomPolicy) => compilePolicy(roles, assign);

test("what no list shows is refused in every way: called, read, completed, followed, and as a task", () => {
  let hidden = 0;
  fc.assert(
    fc.property(asked, ({ who, what, facts, policy }) => {
      if (policy.decide(who, what).effect === "permit") return;
      hidden++;
      expect(policy.decide(who, what, facts).effect).toBe("deny");
    }),
    { numRuns: runs(800) },
  );
  expect(hidden).toBeGreaterThan(80);
});

test("a template is listed whenever one of its resources may be read, completed or followed", () => {
  fc.assert(
    fc.property(asked, fc.constantFrom("o://1", "o://2"), fc.integer(), ({ random, who, policy }, uri, seed) => {
      const template = target("o://{id}", "resource", { template: true });
      if (policy.decide(who, template).effect === "permit") return;
      return fc.assert(
        fc.property(callsOf(target(uri, "resource"), random.flags), (facts) => {
          expect(policy.decide(who, target(uri, "resource"), facts).effect).toBe("deny");
        }),
        { numRuns: 3, seed },
      );
    }),
    { numRuns: runs(400) },
  );
});

test("one permission less permits nothing that was not permitted before", () => {
  fc.assert(
    fc.property(asked, fc.nat(), ({ random, who, what, facts, policy }, at) => {
      const after = compilePolicy(withoutMay(random.roles, at), random.assign);
      if (after.decide(who, what, facts).effect !== "deny")
        expect(policy.decide(who, what, facts).effect).not.toBe("deny");
      if (after.decide(who, what).effect === "permit") expect(policy.decide(who, what).effect).toBe("permit");
    }),
    { numRuns: runs(800) },
  );
});

test("one denial more permits nothing, whatever its condition is and whatever is asked", () => {
  const more = fc.tuple(asked, anyPolicies, fc.nat());
  fc.assert(
    fc.property(more, ([{ random, who, what, facts, policy }, other, at]) => {
      const names = Object.keys(random.roles);
      const name = names[at % names.length] ?? "";
      const role = random.roles[name] ?? { may: [], deny: [] };
      const denials = Object.values(other.roles).flatMap(({ deny, when }) => [{ may: [], deny, when }]);
      const after = compilePolicy(
        { ...random.roles, [name]: { ...role, rules: [...(role.rules ?? []), ...denials] } },
        random.assign,
      );
      if (after.decide(who, what, facts).effect !== "deny")
        expect(policy.decide(who, what, facts).effect).not.toBe("deny");
      if (after.decide(who, what).effect === "permit") expect(policy.decide(who, what).effect).toBe("permit");
    }),
    { numRuns: runs(800) },
  );
});

test("a role less permits nothing, when it forbade nothing", () => {
  fc.assert(
    fc.property(asked, fc.nat(), ({ random, who, what, facts, policy }, at) => {
      const gone = random.assign[at % random.assign.length]?.role ?? "";
      const role = random.roles[gone];
      fc.pre(role !== undefined && [role, ...(role.rules ?? [])].every(({ deny }) => deny.length === 0));
      const after = compilePolicy(
        random.roles,
        random.assign.filter((one) => one.role !== gone),
      );
      if (after.decide(who, what, facts).effect !== "deny")
        expect(policy.decide(who, what, facts).effect).not.toBe("deny");
    }),
    RUNS,
  );
});

test("the rule that is named did decide: it decides the same when it is all that is left of its kind", () => {
  let named = 0;
  fc.assert(
    fc.property(asked, fc.boolean(), ({ random, who, what, facts, policy }, listing) => {
      const call = listing ? undefined : facts;
      const { decision, looked } = policy.explain(who, what, call);
      expect(decision).toEqual(policy.decide(who, what, call));
      const rule = decision.effect === "step-up" ? undefined : decision.rule;
      if (rule === undefined) return;
      named++;
      expect(looked.filter(({ decided }) => decided).map(({ clause }) => clause)).toContain(rule);
      const kind = / (may|deny) /.exec(rule)?.[1] === "deny" ? "deny" : "may";
      const alone = compilePolicy(only(random.roles, rule, kind), random.assign).decide(who, what, call);
      expect([alone.effect, alone.effect === "step-up" ? undefined : alone.rule]).toEqual([decision.effect, rule]);
    }),
    { numRuns: runs(800) },
  );
  expect(named).toBeGreaterThan(80);
});

test("a policy that is only tried out never changes a decision, beside it or within it", () => {
  let different = 0;
  fc.assert(
    fc.property(asked, anyPolicies, fc.boolean(), ({ random, who, what, facts, policy }, other, listing) => {
      const call = listing ? undefined : facts;
      const expected = policy.decide(who, what, call);
      const beside = openPolicy({ ...random, shadowPolicy: other }, () => different++);
      const { shadow, ...decided } = beside.decide(who, what, call);
      expect(decided).toEqual(expected);
      const tried = compilePolicy(other.roles, other.assign).decide(who, what, call).effect;
      expect(shadow?.effect).toBe(listing || tried === expected.effect ? undefined : tried);
      const within = openPolicy(
        {
          roles: { ...random.roles, ...tryingOut(other.roles) },
          assign: [...random.assign, ...other.assign.map((one) => ({ ...one, role: `s-${one.role}` }))],
        },
        () => {},
      );
      const { shadow: _, ...inside } = within.decide(who, what, call);
      expect(inside).toEqual(expected);
    }),
    { numRuns: runs(400) },
  );
  expect(different).toBeGreaterThan(10);
});

const tryingOut = (roles: RolesSettings): RolesSettings =>
  Object.fromEntries(Object.entries(roles).map(([name, role]) => [`s-${name}`, { ...role, shadow: true }]));

/** Without one pattern of a `may`, wherever it stands. */
function withoutMay(roles: RolesSettings, which: number): RolesSettings {
  const all = Object.values(roles).flatMap((role) => [role, ...(role.rules ?? [])]);
  const total = all.reduce((sum, { may }) => sum + may.length, 0);
  let left = total === 0 ? -1 : which % total;
  const less = <R extends { may: string[] }>(rule: R): R => ({ ...rule, may: rule.may.filter(() => left-- !== 0) });
  return Object.fromEntries(
    Object.entries(roles).map(([name, role]) => [name, { ...less(role), rules: (role.rules ?? []).map(less) }]),
  );
}

/** Of all that permits (or forbids) nothing but the clause of this name; what is named by its place keeps it. */
function only(roles: RolesSettings, clause: string, kind: "may" | "deny"): RolesSettings {
  const kept = <R extends { may: string[]; deny: string[] }>(path: string, rule: R): R => ({
    ...rule,
    [kind]: rule[kind].filter((pattern) => `${path}: ${kind} ${pattern}` === clause),
  });
  return Object.fromEntries(
    Object.entries(roles).map(([name, role]) => [
      name,
      { ...kept(name, role), rules: (role.rules ?? []).map((rule, at) => kept(`${name}.rules.${at}`, rule)) },
    ]),
  );
}

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
