/** `mask:` in the settings file: what is hidden in answers, how, and who sees it all the same. */
import { z } from "zod";
import { MASK_ACTIONS, type MaskAction } from "../core/mask-actions.ts";
import { DETECTORS } from "./detectors/all.ts";

export const ACTIONS = MASK_ACTIONS;
export type Action = MaskAction;

const action = z
  .enum(ACTIONS)
  .describe(
    "`keep`: as it is. `partial`: a part of it, such as the last four digits. `token`: a stand-in that looks alike; given back as an argument the gateway puts the true value in, for the same user alone and for a limited time. `hash`: the same mark for the same value, which cannot be turned back. `redact`: its type, `[email]`. `drop`: nothing.",
  );

/** What detectors call what they find. */
export const MASK_TYPES: readonly string[] = DETECTORS.map(({ type }) => type);
const typeName = z.enum(MASK_TYPES as [string, ...string[]]);

/** RE2 syntax, https://github.com/google/re2/wiki/Syntax. Whether it compiles is checked where it is compiled. */
const pattern = z.string().min(1).max(500);

const rules = z.strictObject({
  secrets: action.default("redact").describe("For keys, tokens and passwords of every kind."),
  people: action
    .default("redact")
    .describe("For what names a person: e-mail, phone, card, account, national number, IP address."),
  types: z
    .partialRecord(typeName, action)
    .default({})
    .describe("For one type, e.g. `email: token`; stands above `secrets` and `people`."),
  fields: z
    .record(z.string().min(1).max(300), action)
    .default({})
    .describe(
      "For a field, whatever is in it, e.g. `customer.email: token`, `*.ssn: drop`, `items/*/price: keep`. A path is found at any depth; one that begins with `/` only from the top of the answer (of its structured content, or of JSON in its text). `*` is any one key. Elements of lists need no key of their own.",
    ),
  patterns: z
    .record(
      z.string().regex(/^[a-z][a-z0-9_]{0,39}$/),
      z.strictObject({
        pattern: pattern.describe("A regular expression in RE2 syntax, e.g. `EMP-[0-9]{6}`. It runs in linear time."),
        do: action.default("redact"),
      }),
    )
    .default({})
    .describe("Types of your own, by name."),
  see: z
    .record(z.string(), z.array(z.string().min(1).max(300)))
    .default({})
    .describe(
      "What roles see all the same: types, names of `patterns`, `people`, `secrets` or paths, e.g. `finance: [customer.email, iban]`.",
    ),
  standInHours: z
    .int()
    .min(1)
    .max(720)
    .default(24)
    .describe("How long a stand-in (`token`) can be given back as an argument after it was last shown."),
  standInsFor: z
    .array(z.string().min(1).max(200))
    .max(1000)
    .default([])
    .describe(
      "Tools (globs over the names that clients use) in whose arguments stand-ins are put back. A contract says it with `restores`.",
    ),
});

export const maskSettings = rules.prefault({});

/** `mask:` of a gateway. Left out, answers are looked through for secrets alone. */
export const gatewayMaskSettings = z
  .union([rules, z.literal("off")])
  .optional()
  .describe(
    "What is private in answers, and what becomes of it. Default: keys, tokens and passwords are redacted, and people's data stays; once it is written, both are redacted where it does not say otherwise. `off`: answers stay as they are. Records, logs and traces are masked in any case.",
  );

export type MaskSettings = z.infer<typeof maskSettings>;
