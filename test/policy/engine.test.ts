/** Who may do what: no role no access, deny beats may, a condition that fails permits nothing. */
import { describe, expect, test } from "vitest";
import type { Principal, Target, TargetKind } from "../../src/core/call.ts";
import { compilePolicy } from "../../src/policy/engine.ts";
import { compilePattern } from "../../src/policy/globs.ts";

const principal = (change: Partial<Principal> = {}): Principal => ({
  subject: "u1",
  client: "c1",
  actors: [],
  groups: ["support"],
  scopes: ["mcp:read", "mcp:call"],
  claims: {},
  grant: undefined,
  tokenId: "t1",
  expiresAt: 0,
  ...change,
});
const target = (name: string, kind: TargetKind = "tool"): Target => ({
  server: "s",
  kind,
  name,
  upstreamName: name,
  pin: undefined,
});
const toolCall = (args: Record<string, string | number> = {}) => ({ method: "tools/call", args, scope: "mcp:call" });

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
