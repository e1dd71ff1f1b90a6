/** `approvals:` in the settings file: which calls a person has to approve before anything is sent. */
import { z } from "zod";
import { approvalTerms } from "../contract/settings.ts";

export const approvalsSettings = z
  .array(
    z.strictObject({
      tools: z
        .array(z.string().min(1).max(500))
        .min(1)
        .max(1000)
        .describe(
          "Patterns as `deny` of a role has them: names of tools, globs, `resource:` and `prompt:`, `access:write` (at least that), `access:destructive`, `open-world`, `*`. A tool without a contract counts as the worst.",
        ),
      ...approvalTerms,
    }),
  )
  .max(1000)
  .default([]);

export type ApprovalsSettings = z.infer<typeof approvalsSettings>;
export type ApprovalRule = ApprovalsSettings[number];
