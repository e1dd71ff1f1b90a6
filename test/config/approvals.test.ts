/** Mistakes in `approvals:` and in `approval` of a contract are told with their place, all at once. */
import { expect, test } from "vitest";
import { settleSettings } from "../../src/config/load.ts";
import { SettingsProblems } from "../../src/config/problems.ts";

async function problems(settings: object): Promise<readonly string[]> {
  const servers = { desk: { url: "https://desk.example/mcp" } };
  try {
    await settleSettings({ store: "memory", servers, ...settings }, process.cwd(), { env: {} });
    return [];
  } catch (thrown) {
    if (!(thrown instanceof SettingsProblems)) throw thrown;
    return thrown.problems.map(({ path, message, suggestion }) =>
      [path, message, ...(suggestion === undefined ? [] : [`(${suggestion})`])].join(" "),
    );
  }
}
const roles = { owner: { may: ["*"] }, "shift-lead": { may: ["*"] } };

test("unknown roles, patterns, conditions and keys", async () => {
  const approvals = [
    { tools: ["access:all"], by: ["shift-laed"], when: "args.amount >" },
    { tools: ["*"], fourEyes: true },
    { tools: [], expiresSecond: 5 },
  ];
  const found = await problems({ roles, approvals });
  expect(found.filter((one) => one.startsWith("approvals.0") || one.startsWith("approvals.1"))).toEqual([]);
  expect(found.join("\n")).toContain("approvals.2.expiresSecond unknown key (expiresSeconds)");
  const rest = await problems({ roles, approvals: approvals.slice(0, 2) });
  expect(rest).toHaveLength(4);
  expect(rest.join("\n")).toMatch(/approvals\.0\.tools\.0 there is no class "access:all"/);
  expect(rest.join("\n")).toContain('approvals.0.by.0 there is no role "shift-laed" (shift-lead)');
  expect(rest.join("\n")).toMatch(/approvals\.0\.when /);
  expect(rest.join("\n")).toContain("approvals.1.fourEyes needs `by`");
});

test("the same in a contract", async () => {
  const contract = (approval: unknown) =>
    problems({ roles, tools: { pay: { from: "desk/pay", approval }, "all_*": { from: "desk/a*" } } });
  expect(await contract("required")).toEqual([]);
  expect(await contract({ by: ["shift-lead"], fourEyes: true, when: "args.amount > 5" })).toEqual([]);
  expect(await contract({ by: ["nobody"], fourEyes: true })).toEqual([
    'tools.pay.approval.by.0 there is no role "nobody"; known roles: owner, shift-lead',
  ]);
  expect(await contract({ when: "args." })).toEqual([expect.stringMatching(/^tools\.pay\.approval\.when /)]);
  expect((await contract("optional")).join()).toMatch(/^tools\.pay\.approval/);
  expect((await contract({ expireSeconds: 3 })).join()).toMatch(/^tools\.pay\.approval/);
});

test("without roles of its own the owner may be named", async () => {
  expect(await problems({ approvals: [{ tools: ["*"], by: ["owner"], fourEyes: true }] })).toEqual([]);
});
