/** `roles:`, `assign:` and `limits:` in the settings file: who may do what, and how often. */
import { z } from "zod";

const pattern = z
  .string()
  .min(1)
  .max(500)
  .describe(
    "`*` is everything. Otherwise a glob over names as clients see them, of a tool, or of what its prefix says: `tool:`, `resource:` (its URI), `prompt:`. `*` in a glob matches any characters.",
  );
const expression = z
  .string()
  .min(1)
  .max(4000)
  .describe("A CEL condition. One that fails counts as not met for `may` and as met for `deny`.");

export const rolesSettings = z.record(
  z.string().regex(/^[a-z][a-z0-9-]{0,39}$/),
  z.strictObject({
    may: z.array(pattern).default([]).describe("What the role permits."),
    deny: z.array(pattern).default([]).describe("What the role forbids, whatever another role permits."),
    when: expression
      .optional()
      .describe("Limits `may` further: `args`, `call`, `user`, e.g. 'args.order_id.startsWith(\"ORD-\")'."),
  }),
);

export const assignSettings = z.array(
  z.strictObject({
    role: z.string(),
    group: z
      .string()
      .optional()
      .describe("Members of this group have the role. The first local user is in the group `owner`."),
    user: z.string().optional().describe("This subject has the role."),
    client: z.string().optional().describe("Only through this OAuth client (its client id)."),
    when: expression.optional().describe("CEL over `user`, e.g. '\"support\" in user.groups'."),
  }),
);

export const limitsSettings = z
  .strictObject({
    perPrincipalPerMinute: z
      .int()
      .min(1)
      .max(10_000_000)
      .default(600_000)
      .describe(
        "Requests of one user through one client in a minute. The default stops only what runs wild; set what your users need.",
      ),
    perToolPerMinute: z
      .int()
      .min(1)
      .max(10_000_000)
      .optional()
      .describe("Calls of one user through one client to one tool, prompt or resource in a minute."),
    concurrentPerPrincipal: z
      .int()
      .min(1)
      .max(100_000)
      .default(10_000)
      .describe("Calls of one user through one client at the same time."),
  })
  .prefault({});

export type RolesSettings = z.infer<typeof rolesSettings>;
export type AssignSettings = z.infer<typeof assignSettings>;
export type LimitsSettings = z.infer<typeof limitsSettings>;
