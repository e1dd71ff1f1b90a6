/** `limits:` and `stepUp:` in the settings file, and `limit:` of a role: how often, how many at a time, and with which scopes. */
import { z } from "zod";

const count = (max: number) => z.int().min(1).max(max);
const rates = {
  perMinute: count(10_000_000).optional().describe("Calls in a minute, which begins with the first of them."),
  perDay: count(1_000_000_000).optional().describe("Calls in a day (UTC)."),
  concurrent: count(100_000).optional().describe("Calls at the same time."),
  together: z
    .boolean()
    .optional()
    .describe("Counts the calls of all users together. Default: each user has the limit for themselves."),
};

/** `60/min` or `1000/day`. */
const short = z
  .string()
  .regex(/^[1-9]\d{0,7}\/(min|minute|day)$/, "expected e.g. 60/min or 1000/day")
  .transform((text): RateLimit => {
    const [number, unit] = text.split("/");
    return unit === "day" ? { perDay: Number(number) } : { perMinute: Number(number) };
  });
const whole = z
  .strictObject(rates)
  .refine(
    ({ perMinute, perDay, concurrent }) => (perMinute ?? perDay ?? concurrent) !== undefined,
    "expected perMinute, perDay or concurrent",
  );

/** Of a role. */
export const roleLimit = short
  .or(whole)
  .describe(
    "How much whoever has this role may call by it: `60/min`, `1000/day`, or `perMinute`, `perDay` and `concurrent`. Calls that another role permits first do not count.",
  );

/** The greatest cost of one call. */
export const MAX_COST = 1_000_000;

const toolLimit = z
  .strictObject({
    ...rates,
    cost: z
      .number()
      .min(0)
      .max(MAX_COST)
      .or(z.string().regex(/^=/, 'expected a number, or "=" and a CEL expression').max(4000))
      .optional()
      .describe(
        'How many calls one call counts as, for every limit per minute or day of calls: a number, or CEL over `args` and `principal`, e.g. "=size(args.ids)". One that fails, or is negative, refuses the call. Of several the greatest counts.',
      ),
  })
  .refine(
    ({ perMinute, perDay, concurrent, cost }) => (perMinute ?? perDay ?? concurrent ?? cost) !== undefined,
    "expected perMinute, perDay, concurrent or cost",
  );

/** What stops only what runs wild. Limits at these values are each process's own. */
export const DEFAULT_PER_MINUTE = 600_000;
export const DEFAULT_CONCURRENT = 10_000;

export const limitsSettings = z
  .strictObject({
    perPrincipalPerMinute: count(10_000_000)
      .default(DEFAULT_PER_MINUTE)
      .describe(
        "Requests of one user through one client in a minute, refused ones too. The default stops only what runs wild; set what your users need.",
      ),
    perPrincipalPerDay: count(1_000_000_000)
      .optional()
      .describe("Calls of one user, through whichever client, in a day (UTC)."),
    perToolPerMinute: count(10_000_000)
      .optional()
      .describe("Calls of one user through one client to one tool, prompt or resource in a minute."),
    concurrentPerPrincipal: count(100_000)
      .default(DEFAULT_CONCURRENT)
      .describe("Requests of one user through one client at the same time."),
    tools: z
      .record(z.string().min(1).max(500), toolLimit)
      .optional()
      .describe(
        "Limits of tools, by patterns as roles have them: `refund_*`, `resource:orders://*`, `prompt:*`, `open-world`, `access:destructive` (tools that do at least that; one without a contract counts as the worst). All that one pattern matches is counted together.",
      ),
  })
  .prefault({});

/** RFC 6749 §3.3; those of OpenID Connect mean something else. */
const scopeName = z
  .string()
  .regex(
    /^(?!(?:openid|offline_access|profile|email)$)[\x21\x23-\x5b\x5d-\x7e]{1,100}$/,
    "expected the name of a scope, without spaces, and none of OpenID Connect",
  );

const furtherScope = z.strictObject({
  scope: scopeName,
  title: z.string().min(1).max(80).optional().describe("What the consent page calls it."),
  description: z.string().min(1).max(300).optional().describe("What the consent page says it allows."),
});

export const stepUpSettings = z
  .record(
    z.string().min(1).max(500),
    z.union([
      scopeName,
      furtherScope,
      z
        .array(z.union([scopeName, furtherScope]))
        .min(1)
        .max(20),
    ]),
  )
  .describe(
    'Further scopes that calls need, by patterns as in `limits.tools`: `"access:destructive": mcp:destructive`; of a list, all are needed. Clients do not get them unless they ask; a call without one is answered with 403 and a challenge that names it, and clients ask their user then.',
  );

/** At least one of the three. */
export interface RateLimit {
  readonly perMinute?: number | undefined;
  readonly perDay?: number | undefined;
  readonly concurrent?: number | undefined;
  readonly together?: boolean | undefined;
}
export type ToolLimit = z.infer<typeof toolLimit>;
export type LimitsSettings = z.infer<typeof limitsSettings>;
export type StepUpSettings = z.infer<typeof stepUpSettings>;
