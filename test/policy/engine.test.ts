/** Who may do what: no role no access, deny beats may, a condition that fails permits nothing. */
import { describe, expect, test } from "vitest";
import type { Principal, Target } from "../../src/core/call.ts";
import { compilePolicy } from "../../src/policy/engine.ts";
import { compilePattern } from "../../src/policy/globs.ts";
import { openPolicy } from "../../src/policy/live.ts";
import type { RolesSettings } from "../../src/policy/settings.ts";
import { principal, target, toolCall } from "./support.ts";

describe("roles", () => {
  const policy = compilePolicy(
    {
      support: {
        may: ["get_*", "resource:orders://*"],
        deny: ["get_secret*"],
        when: 'call.kind != "tool" || args.order_id.startsWith("ORD-")',
      },
      admin: { may: ["*"], deny: [] },
    },
    [
      { role: "support", when: '"support" in user.groups' },
      { role: "admin", user: "root", client: "console" },
    ],
  );
  const effect = (who: Principal, what: Target, call?: ReturnType<typeof toolCall>) =>
    policy.decide(who, what, call).effect;

  test("somebody without a role may do nothing", () => {
    expect(effect(principal({ groups: [] }), target("get_order"), toolCall())).toBe("deny");
    expect(effect(principal({ groups: [] }), target("get_order"))).toBe("deny");
  });
  test("a role permits what its patterns match, on lists and on calls alike", () => {
    expect(effect(principal(), target("get_order"))).toBe("permit");
    expect(effect(principal(), target("get_order"), toolCall({ order_id: "ORD-1" }))).toBe("permit");
    expect(effect(principal(), target("orders://1", "resource"))).toBe("permit");
    expect(effect(principal(), target("delete_order"))).toBe("deny");
    expect(effect(principal(), target("get_order", "prompt"))).toBe("deny");
  });
  test("deny beats may, also another role's", () => {
    expect(effect(principal({ subject: "root", client: "console" }), target("get_secret_key"), toolCall())).toBe(
      "deny",
    );
    expect(
      effect(principal({ subject: "root", client: "console", groups: [] }), target("get_secret_key"), toolCall()),
    ).toBe("permit");
  });
  test("a condition sees the arguments", () => {
    expect(effect(principal(), target("get_order"), toolCall({ order_id: "X" }))).toBe("deny");
  });
  test("a condition that cannot be evaluated denies and says so", () => {
    expect(policy.decide(principal(), target("get_order"), toolCall({ order_id: 7 }))).toMatchObject({
      effect: "deny",
      reason: "rule_failed",
    });
    expect(policy.decide(principal(), target("get_order"), toolCall())).toMatchObject({
      effect: "deny",
      reason: "rule_failed",
    });
  });
  test("an assignment by user and client needs both", () => {
    expect(policy.roles(principal({ subject: "root" }))).toEqual(["support"]);
    expect(policy.roles(principal({ subject: "root", client: "console", groups: [] }))).toEqual(["admin"]);
  });
  test("a permitted call with too narrow a token asks for the missing scope; a denied one does not tell", () => {
    const narrow = principal({ scopes: ["mcp:read"] });
    expect(policy.decide(narrow, target("get_order"), toolCall({ order_id: "ORD-1" }))).toEqual({
      effect: "step-up",
      reason: "scope_missing",
      scope: "mcp:call",
    });
    expect(effect(narrow, target("delete_order"), toolCall())).toBe("deny");
  });
  test("without settings only the owner may call, and may do everything", () => {
    const byDefault = compilePolicy();
    expect(byDefault.decide(principal({ groups: ["owner"] }), target("x"), toolCall()).effect).toBe("permit");
    expect(byDefault.decide(principal(), target("x"), toolCall()).effect).toBe("deny");
    const unassigned = compilePolicy({ a: { may: ["*"], deny: [] } });
    expect(unassigned.decide(principal({ groups: ["owner"] }), target("x"), toolCall()).effect).toBe("deny");
  });
  test.each([
    [{ a: { may: ["*"], deny: [], when: "1 +" } }, [{ role: "a", when: "true" }], "roles.a.when"],
    [{ a: { may: ["*"], deny: [], when: "nobody.x" } }, [{ role: "a", when: "true" }], "Unknown variable: nobody"],
    [{ a: { may: ["*"], deny: [], when: "7" } }, [{ role: "a", when: "true" }], "true or false"],
    [{ a: { may: ["*"], deny: [] } }, [{ role: "b", when: "true" }], "there is no role"],
    [{ a: { may: ["*"], deny: [] } }, [{ role: "a" }], "says to nobody"],
  ])("settings that mean nothing are refused (%#)", (roles, assign, message) => {
    expect(() => compilePolicy(roles, assign)).toThrow(message);
  });
});

describe("rules of a role", () => {
  const anybody = [{ role: "a", when: "true" }];
  const of = (role: Partial<RolesSettings[string]>) => compilePolicy({ a: { may: [], deny: [], ...role } }, anybody);

  test("each has a condition of its own, for what it permits and for what it forbids", () => {
    const policy = of({
      may: ["list"],
      rules: [
        { may: ["refund"], deny: [], when: "args.amount <= 50" },
        { may: ["refund"], deny: [], when: "args.amount <= 500 && principal.claims.senior == true" },
        { may: [], deny: ["refund"], when: 'args.currency != "GBP"' },
      ],
    });
    const refund = (amount: number, who: Principal = principal(), currency = "GBP") =>
      policy.decide(who, target("refund"), toolCall({ amount, currency }));
    const senior = principal({ claims: { senior: true } });
    expect(refund(50)).toMatchObject({ effect: "permit", rule: "a.rules.0: may refund" });
    expect(refund(51).effect).toBe("deny");
    expect(refund(51, senior)).toMatchObject({ effect: "permit", rule: "a.rules.1: may refund" });
    expect(refund(1, senior, "EUR")).toMatchObject({ effect: "deny", rule: "a.rules.2: deny refund" });
    expect(policy.decide(senior, target("refund"), toolCall({ amount: 1 }))).toMatchObject({
      effect: "deny",
      reason: "rule_failed",
      rule: "a.rules.2: deny refund",
    });
  });
  test("a condition knows the resource, its parts, and when the call came", () => {
    const policy = of({
      rules: [
        { may: ["resource:orders://*"], deny: [], when: 'resource.parts[0] == "ORD-1" && resource.scheme == "orders"' },
        { may: ["restart"], deny: [], when: "time.weekday <= 5 && time.hour >= 9 && time.hour < 17" },
      ],
    });
    const read = (uri: string) => policy.decide(principal(), target(uri, "resource"), toolCall()).effect;
    expect([read("orders://ORD-1/items"), read("orders://ORD-2/items")]).toEqual(["permit", "deny"]);
    const restart = (at: string | undefined) =>
      policy.decide(principal(), target("restart"), toolCall({}, { at: at === undefined ? undefined : Date.parse(at) }))
        .effect;
    expect(restart("2026-11-20T09:00:00Z")).toBe("permit");
    expect(restart("2026-11-20T17:00:00Z")).toBe("deny");
    expect(restart("2026-11-21T10:00:00Z")).toBe("deny");
    expect(restart(undefined)).toBe("deny");
    expect(policy.decide(principal(), target("restart")).effect).toBe("permit");
  });
  test("what only a call says does not keep a tool from the list, what is known does", () => {
    const listed = (when: string, who = principal()) =>
      of({ may: ["x"], when }).decide(who, target("x")).effect === "permit";
    expect(listed("args.a == 1")).toBe(true);
    expect(listed('args.a == 1 && "sales" in principal.groups')).toBe(false);
    expect(listed('args.a == 1 || "sales" in principal.groups')).toBe(true);
    expect(listed("principal.claims.level > 2 && has(args.a)")).toBe(false);
    expect(listed("principal.claims.level > 2 && has(args.a)", principal({ claims: { level: 3 } }))).toBe(true);
    expect(listed("!(args.a == 1)")).toBe(true);
    expect(listed('call.server == "other" && args.a == 1')).toBe(false);
  });
  test("two roles whose names begin alike are never taken for one another", () => {
    const roles = {
      a: { may: [], deny: [], rules: [{ may: ["x"], deny: [], when: "principal.claims.vip == true" }] },
      "a-": { may: [], deny: [] },
      "a--": { may: ["y"], deny: [] },
    };
    const policy = compilePolicy(
      roles,
      Object.keys(roles).map((role) => ({ role, group: role })),
    );
    const may = (group: string, name: string, claims = {}) =>
      policy.decide(principal({ groups: [group], claims }), target(name), toolCall()).effect === "permit";
    expect([may("a-", "x"), may("a", "x", { vip: false }), may("a", "x", { vip: true })]).toEqual([false, false, true]);
    expect([may("a--", "x"), may("a--", "y"), may("a", "y", { vip: true })]).toEqual([false, true, false]);
  });
  test("only what the caller's claims say gives a role by a claim", () => {
    const policy = compilePolicy({ a: { may: ["*"], deny: [] } }, [
      { role: "a", claim: { department: "finance", level: 2 } },
    ]);
    const has = (claims: Principal["claims"]) => policy.roles(principal({ claims })).length === 1;
    expect(has({ department: "finance", level: 2 })).toBe(true);
    expect(has({ department: ["sales", "finance"], level: 2 })).toBe(true);
    expect(has({ department: "finance" })).toBe(false);
    expect(has({ department: "finance", level: "2" })).toBe(false);
    expect(has(JSON.parse('{"__proto__": {"department": "finance", "level": 2}}') as Principal["claims"])).toBe(false);
  });
  test("one that is only tried out counts for nothing, and does not change the name of the policy", () => {
    const plain = of({ may: ["x"] });
    const tried = of({ may: ["x"], rules: [{ may: ["y"], deny: ["x"], shadow: true }] });
    expect(tried.decide(principal(), target("x"), toolCall()).effect).toBe("permit");
    expect(tried.decide(principal(), target("y"), toolCall()).effect).toBe("deny");
    expect(compilePolicy({ a: { may: ["x"], deny: [], rules: [] } }, anybody).version).toBe(tried.version);
    expect(plain.version).not.toBe(of({ may: ["y"] }).version);
  });
});

describe("what tools do", () => {
  const access = (effect: "read" | "write" | "destructive" | undefined, openWorld?: boolean) =>
    target("t", "tool", { access: { effect, openWorld } });
  const unsaid = target("t");
  test.each([
    ["access:read", "may", [true, false, false, false]],
    ["access:write", "may", [true, true, false, false]],
    ["access:destructive", "may", [true, true, true, true]],
    ["access:read", "deny", [true, true, true, true]],
    ["access:write", "deny", [false, true, true, true]],
    ["access:destructive", "deny", [false, false, true, true]],
  ] as const)("%s in %s is about tools that do at most that, or at least that", (pattern, to, expected) => {
    const matches = compilePattern(pattern, to);
    const tools = [access("read"), access("write"), access("destructive"), unsaid];
    expect(tools.map((one) => matches(one))).toEqual(expected);
    expect(matches(target("t", "resource"))).toBe(false);
  });
  test("what nobody says counts as reaching outside where that is forbidden, and never where it is permitted", () => {
    const tools = [access("read", true), access("read", false), access("read"), unsaid];
    expect(tools.map((one) => compilePattern("open-world", "may")(one))).toEqual([true, false, false, false]);
    expect(tools.map((one) => compilePattern("open-world", "deny")(one))).toEqual([true, false, true, true]);
  });
  test("a class that does not exist is refused", () => {
    expect(() => compilePattern("access:harmless")).toThrow("there is no class");
  });
});

describe("a policy that is replaced while it is used", () => {
  const roles = (may: string[]) => ({ roles: { a: { may, deny: [] } }, assign: [{ role: "a", when: "true" }] });
  test("counts whole from the moment on, and what was wrong changes nothing", () => {
    const policy = openPolicy(roles(["x"]), () => {});
    const { now } = policy;
    const take = policy.prepare(roles(["y"]));
    const may = (name: string) => policy.decide(principal(), target(name), toolCall()).effect === "permit";
    expect([may("x"), may("y")]).toEqual([true, false]);
    expect(() => policy.prepare(roles(["access:no"]))).toThrow("there is no class");
    take();
    expect([may("x"), may("y")]).toEqual([false, true]);
    expect(now.decide(principal(), target("x"), toolCall()).effect).toBe("permit");
    expect(policy.version).not.toBe(now.version);
  });
});

describe("patterns", () => {
  test.each([
    ["get_*", "tool", "get_order", true],
    ["get_*", "tool", "forget_order", false],
    ["*_order", "tool", "get_order", true],
    ["a*b*c", "tool", "a--b--c", true],
    ["a*b*c", "tool", "ac", false],
    ["ab*ba", "tool", "aba", false],
    ["tool:get", "tool", "get", true],
    ["prompt:*", "prompt", "x", true],
    ["prompt:*", "tool", "x", false],
    ["resource:file:///a/*", "resource", "file:///a/b", true],
    ["*", "resource", "anything", true],
    ["orders.lookup", "tool", "ordersxlookup", false],
  ] as const)("%s on %s %s: %s", (pattern, kind, name, expected) => {
    expect(compilePattern(pattern)({ kind, name })).toBe(expected);
  });
  test("a hostile pattern is matched in linear time", () => {
    const matches = compilePattern(`${"*a".repeat(200)}b`);
    // Back-tracking would not end within this test's time.
    expect(matches({ kind: "tool", name: "a".repeat(100_000) })).toBe(false);
  });
});
