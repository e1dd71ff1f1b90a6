/** Which calls need an approval, and whose: the pure part. */
import { describe, expect, test } from "vitest";
import type { Principal, Target } from "../../src/core/call.ts";
import { approvalsSettings } from "../../src/policy/approval-settings.ts";
import { approvalFor, compileApprovals, mayApprove, type OwnApproval } from "../../src/policy/approvals.ts";

const who: Principal = {
  subject: "sam",
  client: "agent",
  actors: [],
  groups: [],
  scopes: [],
  claims: {},
  grant: undefined,
  tokenId: "t",
  expiresAt: 0,
};
const tool = (name: string, access?: Target["access"]): Target => ({
  server: "desk",
  kind: "tool",
  name,
  upstreamName: name,
  pin: undefined,
  ...(access !== undefined && { access }),
});
const call = (args: Record<string, number> = {}) => ({ method: "tools/call", args, scope: undefined, at: 0 });
const rules = (...written: object[]) => compileApprovals(approvalsSettings.parse(written));
const needed = (written: object[], target: Target, args?: Record<string, number>, own?: OwnApproval) =>
  approvalFor(rules(...written), who, target, args && call(args), own)?.rules;

describe("a rule", () => {
  test.each([
    ["refund", tool("refund"), true],
    ["refund", tool("refunds"), false],
    ["ref*", tool("refund"), true],
    ["*", tool("x"), true],
    ["access:destructive", tool("x"), true],
    ["access:destructive", tool("x", { effect: "write", openWorld: undefined }), false],
    ["access:write", tool("x", { effect: "destructive", openWorld: false }), true],
    ["open-world", tool("x"), true],
    ["open-world", tool("x", { effect: "read", openWorld: false }), false],
    ["prompt:x", tool("x"), false],
  ])("about %s and %o", (pattern, target, matches) => {
    expect(needed([{ tools: [pattern] }], target, {})).toEqual(matches ? ["approvals.0"] : undefined);
  });

  test("with a condition counts where it is met, and where it cannot be evaluated", () => {
    const written = [{ tools: ["refund"], when: "args.amount > 10.0" }];
    expect(needed(written, tool("refund"), { amount: 11 })).toEqual(["approvals.0"]);
    expect(needed(written, tool("refund"), { amount: 9 })).toBeUndefined();
    expect(needed(written, tool("refund"), {})).toEqual(["approvals.0"]);
  });

  test("without a call says that it depends on one, unless it is never met", () => {
    const depends = (when: string) => approvalFor(rules({ tools: ["*"], when }), who, tool("x"), undefined)?.depends;
    expect(depends("args.amount > 10.0")).toBe(true);
    expect(depends('principal.subject == "sam"')).toBe(false);
    expect(depends('principal.subject == "max"')).toBeUndefined();
  });

  test("of a contract counts like any other, and several count together", () => {
    const own: OwnApproval = {
      name: "refund",
      approval: { by: ["b"], fourEyes: true, expiresSeconds: 60, when: "args.amount > 1.0" },
    };
    expect(needed([], tool("refund"), { amount: 2 }, own)).toEqual(["tools.refund.approval"]);
    expect(needed([], tool("refund"), { amount: 1 }, own)).toBeUndefined();
    expect(needed([], tool("refund"), {}, { name: "refund", approval: "required" })).toEqual(["tools.refund.approval"]);
    const both = approvalFor(
      rules({ tools: ["*"], by: ["a"], reason: "why" }),
      who,
      tool("refund"),
      call({ amount: 2 }),
      own,
    );
    expect(both).toMatchObject({ by: [["a"], ["b"]], fourEyes: true, expiresSeconds: 60, reasons: ["why"] });
  });

  test("that cannot be compiled is named", () => {
    expect(() => rules({ tools: ["*"], when: "args." })).toThrow("approvals.0.when: ");
  });
});

test("who may approve", () => {
  const may = (by: string[][], fourEyes: boolean, subject: string, roles: string[]) =>
    mayApprove({ by, fourEyes }, { subject, roles }, "sam");
  expect(may([], false, "sam", [])).toBe(true);
  expect(may([], false, "lea", ["owner"])).toBe(false);
  expect(may([["a", "b"]], false, "sam", ["b"])).toBe(true);
  expect(may([["a", "b"]], true, "sam", ["b"])).toBe(false);
  expect(may([["a", "b"]], true, "lea", ["b"])).toBe(true);
  expect(may([["a"], ["b"]], false, "lea", ["b"])).toBe(false);
  expect(may([["a"], ["b"]], false, "lea", ["a", "b"])).toBe(true);
});
