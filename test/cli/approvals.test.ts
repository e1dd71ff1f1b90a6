/** `drawbridge approvals` against a running gateway, and what `drawbridge why` says of calls that need one. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type HeldDesk, heldDesk, numberIn, rawCall, textOf } from "../e2e/held-desk.ts";
import { type RunOptions, run } from "./terminal.ts";

let here: HeldDesk;
let sam: string;
const RULES = [
  { tools: ["access:destructive"], by: ["shift-lead"], reason: "Money leaves the house." },
  { tools: ["look_up"], when: 'args.id.startsWith("ORD-9")', by: ["shift-lead"], fourEyes: true },
];
beforeAll(async () => {
  here = await heldDesk({ settings: { approvals: RULES } });
  const { store: _, control: __, listen: ___, ...settings } = here.settings;
  writeFileSync(join(here.folder, "drawbridge.yaml"), JSON.stringify(settings));
  sam = await here.token("sam");
}, 60_000);
afterAll(() => here?.[Symbol.asyncDispose]());

const cli = (argv: readonly string[], options: RunOptions = {}) =>
  run(["approvals", ...argv, ...(options.env === undefined ? ["--socket", join(here.folder, "control.sock")] : [])], {
    cwd: here.folder,
    ...options,
  });
let order = 0;
const params = () => ({ name: "refund", arguments: { order: `ORD-${++order}`, amount: 20 } });
const asked = async (of: object) => numberIn(textOf((await rawCall(here.url, sam, { ...of })).result));

describe("drawbridge approvals", () => {
  test("says when nothing waits", async () => {
    expect((await cli([])).stdout).toBe("no call waits for an approval\n");
  });

  test("lists what waits, shows what it would send, and approves it once somebody has said yes", async () => {
    const call = params();
    const number = await asked(call);
    const listed = await cli([]);
    expect(listed.stdout).toMatch(/^NUMBER {5}STATE {4}CALL {4}ASKED BY .* UNTIL\n/);
    expect(listed.stdout).toMatch(new RegExp(`^${number}  pending  refund  `, "m"));
    const { stdout: shown } = await cli(["show", number.toLowerCase()]);
    expect(shown).toContain("to decide by  somebody with the role shift-lead");
    expect(shown).toContain("What it does: may destroy something");
    expect(shown).toContain('Why it needs an approval: "Money leaves the house."');
    expect(shown).toContain('    "order": "ORD-1",');
    const questions: string[] = [];
    const no = await cli(["approve", number], { ask: async (question) => `${questions.push(question)}` });
    expect(no).toMatchObject({ code: 1, stdout: "" });
    expect(no.stderr).toContain('"order": "ORD-1"');
    expect(questions).toEqual(["Approve this call? [y/N] "]);
    expect(here.desk.calls).toEqual([]);
    expect((await cli(["approve", number], { ask: async () => "y" })).stdout).toMatch(
      /^approved: .* can make this call of refund once, by repeating it\n$/,
    );
    expect((await rawCall(here.url, sam, call)).result?.["isError"]).not.toBe(true);
    expect(here.desk.calls).toHaveLength(1);
    const steps = (await here.steps()).filter(({ details }) => details["approval"] === number);
    expect(steps.map(({ action }) => action)).toEqual(["approval-asked", "approval-approved", "approval-spent"]);
    expect(steps[1]?.details).toMatchObject({ via: "control socket", operator: expect.stringMatching(/./) });
    const again = await cli(["approve", number, "--yes"]);
    expect(again.code).toBe(1);
    expect(again.stderr).toContain("does not wait for a decision: it is spent");
  });

  test("denies, and prints JSON", async () => {
    const call = params();
    const number = await asked(call);
    expect((await cli(["deny", number])).stdout).toBe("denied: this call of refund is refused\n");
    expect(textOf((await rawCall(here.url, sam, call)).result)).toContain("was not approved");
    const next = await asked(params());
    const { stdout } = await cli(["list", "--json"]);
    expect(JSON.parse(stdout)).toMatchObject({ approvals: [{ number: next, state: "pending", name: "refund" }] });
    expect((await cli(["show", "0000-0000"])).stderr).toContain("There is no request for an approval 0000-0000.");
  });

  test("from afar it is for those whom the rule names", async () => {
    const number = await asked(params());
    const afar = (argv: string[], token: string) =>
      cli([...argv, "--url", here.gateway.origin], { env: { DRAWBRIDGE_TOKEN: token } });
    expect((await afar(["approve", number, "--yes"], await here.token("max"))).code).toBe(1);
    const lea = await here.token("lea");
    expect((await afar(["list"], lea)).stdout).toContain(number);
    expect((await afar(["approve", number, "--yes"], lea)).code).toBe(0);
  });
});

describe("drawbridge why", () => {
  const why = (...argv: string[]) => run(["why", "sam", ...argv, "--groups", "support"], { cwd: here.folder });
  test("says that a permitted call has to be approved, by whom and by which rule", async () => {
    const { code, stdout } = await why("refund", '{"order":"ORD-1","amount":1}');
    expect(code).toBe(0);
    expect(stdout).toContain(
      "Each such call has to be approved first, by somebody with the role shift-lead (approvals.0).",
    );
  });
  test("says when that depends on the call, and nothing when it need not be", async () => {
    expect((await why("look_up", "--list")).stdout).toContain(
      "It depends on the call whether it has to be approved first, by another user with the role shift-lead (approvals.1).",
    );
    expect((await why("look_up", '{"id":"ORD-1"}')).stdout).not.toContain("approved");
    expect((await why("look_up", '{"id":"ORD-91"}')).stdout).toContain("approvals.1");
    expect(JSON.parse((await why("refund", "{}", "--json")).stdout)).toMatchObject({
      approval: { rules: ["approvals.0"], by: [["shift-lead"]], fourEyes: false },
    });
  });
});
