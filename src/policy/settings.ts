/** `roles:` and `assign:` in the settings file: who may do what. */
import { z } from "zod";
import { roleLimit } from "./limit-settings.ts";

const pattern = z
  .string()
  .min(1)
  .max(500)
  .describe(
    "`*` is everything. Otherwise a glob over names as clients see them, of a tool, or of what its prefix says: `tool:`, `resource:` (its URI), `prompt:`. `*` in a glob matches any characters. `access:read`, `access:write` and `access:destructive` are the tools that do at most that (in `may`) or at least that (in `deny`), `open-world` those that reach beyond their server's data; contracts say which, and a tool without one counts as the worst.",
  );
const expression = z
  .string()
  .min(1)
  .max(4000)
  .describe(
    "A CEL condition over `principal`, `args`, `call`, `resource` and `time`. One that fails counts as not met for `may` and as met for `deny`.",
  );
const shadow = z
  .boolean()
  .optional()
  .describe("Only tried out: decides nothing; what it would have changed is recorded, logged and counted.");

const rule = z
  .strictObject({
    may: z.array(pattern).default([]),
    deny: z.array(pattern).default([]),
    when: expression.optional().describe("Limits this rule, its `may` and its `deny`."),
    shadow,
  })
  .refine(({ may, deny }) => may.length + deny.length > 0, "expected `may` or `deny`: the rule says nothing");

const role = z.strictObject({
  may: z.array(pattern).default([]).describe("What the role permits."),
  deny: z.array(pattern).default([]).describe("What the role forbids, whatever another role permits."),
  when: expression.optional().describe("Limits `may` further, e.g. 'args.order_id.startsWith(\"ORD-\")'."),
  rules: z.array(rule).max(10_000).optional().describe("Further rules, each with a condition of its own."),
  limit: roleLimit.optional(),
  shadow,
});

export const rolesSettings = z.record(z.string().regex(/^[a-z][a-z0-9-]{0,39}$/), role);

export const assignSettings = z.array(
  z.strictObject({
    role: z.string(),
    group: z
      .string()
      .optional()
      .describe("Members of this group have the role. The first local user is in the group `owner`."),
    user: z.string().optional().describe("This subject has the role."),
    client: z.string().optional().describe("Only through this OAuth client (its client id)."),
    claim: z
      .record(z.string().min(1).max(200), z.union([z.string(), z.number(), z.boolean()]))
      .optional()
      .describe("Whoever has these claims with these values; of a claim that is a list, one element is enough."),
    when: expression.optional().describe("CEL over `principal`, e.g. '\"support\" in principal.groups'."),
  }),
);

/** A policy beside the one that counts. In the settings file also the name of a file that has `roles` and `assign`. */
export const shadowPolicySettings = z.strictObject({ roles: rolesSettings, assign: assignSettings.default([]) });

export type RolesSettings = z.infer<typeof rolesSettings>;
export type AssignSettings = z.infer<typeof assignSettings>;
export type RoleRule = z.infer<typeof rule>;
export type ShadowPolicySettings = z.infer<typeof shadowPolicySettings>;
