/** Steps of which a call does the one or the other: none of them has to come after the other, though neither can be undone. */
import { expect, test } from "vitest";
import { compileOutcome, isContract, type OutcomeSettings } from "../../src/contract/contract.ts";
import { toolContract } from "../../src/contract/settings.ts";
import { compileExpression } from "../../src/policy/expressions.ts";

const made = (first: string | undefined, second: string | undefined) => {
  const settings = toolContract.parse({
    steps: [
      { id: "approved", call: "shop/approve", ...(first !== undefined && { when: first }) },
      { id: "rejected", call: "shop/reject", ...(second !== undefined && { when: second }) },
    ],
    input: { decision: { enum: ["approve", "reject"] }, other: { enum: ["approve", "reject"] } },
    access: "destructive",
  }) as OutcomeSettings;
  const find = () => ({ value: { inputSchema: { type: "object" } }, pin: "pin" });
  return compileOutcome("decide", settings, { compile: compileExpression, find });
};

test("two values of one argument exclude each other", async () => {
  expect(isContract(await made('args.decision == "approve"', "args.decision == 'reject'"))).toBe(true);
});

test.each([
  ['args.decision == "approve"', 'args.decision == "approve"'],
  ['args.decision == "approve"', 'args.other == "reject"'],
  ['args.decision == "approve" || true', 'args.decision == "reject"'],
  ['args.decision != "approve"', 'args.decision == "reject"'],
  ['args.decision == "approve"', undefined],
  [undefined, undefined],
])("%s and %s do not", async (first, second) => {
  expect(await made(first, second)).toMatchObject([
    { path: ["steps", "0"], message: expect.stringContaining("cannot be undone") },
  ]);
});
