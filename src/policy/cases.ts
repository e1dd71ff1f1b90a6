/** Cases of a policy: who calls what with which arguments, and what must come of it. `drawbridge policy test` runs them. */
import { z } from "zod";
import type { JsonObject, JsonValue } from "../core/call.ts";
import type { Explanation } from "./explain.ts";

const json: z.ZodType<JsonValue> = z.json() as z.ZodType<JsonValue>;

const who = z.strictObject({
  user: z.string().default("somebody"),
  client: z.string().optional(),
  groups: z.array(z.string()).optional(),
  scopes: z.array(z.string()).optional().describe("Of the token. Default: mcp:read and mcp:call."),
  claims: z.record(z.string(), json).optional(),
});

const policyCase = z
  .strictObject({
    name: z.string().min(1).max(200).optional().describe("Default: made of the rest."),
    who: z.union([z.string(), who]).describe("A name of `people`, or the caller."),
    call: z.string().min(1).optional().describe("A tool, or `resource:` and its URI, or `prompt:` and its name."),
    list: z.string().min(1).optional().describe("The same, asked as lists ask: could they ever call it?"),
    args: z.record(z.string(), json).optional(),
    at: z.iso.datetime().optional().describe("When, UTC. Default: now."),
    expect: z.enum(["permit", "deny", "step-up"]),
    rule: z.string().optional().describe("The rule that must have decided, e.g. `support: may get_*`."),
  })
  .refine(({ call, list }) => (call === undefined) !== (list === undefined), "expected either `call` or `list`");

export const policyCases = z.strictObject({
  settings: z.string().optional().describe("The settings file. Default: drawbridge.yaml beside this file."),
  people: z.record(z.string(), who).default({}),
  cases: z.array(policyCase).min(1).max(100_000),
});

export type PolicyCases = z.infer<typeof policyCases>;
export type PolicyCase = z.infer<typeof policyCase>;
export type Person = z.infer<typeof who>;

export interface CaseResult {
  readonly name: string;
  readonly passed: boolean;
  /** What differs, one line each. */
  readonly differences: readonly { readonly what: string; readonly expected: string; readonly got: string }[];
  readonly explanation: Explanation;
}

/** Compares one case with what the policy says of it. */
export function caseResult(one: PolicyCase, explanation: Explanation): CaseResult {
  const { decision } = explanation;
  const rule = decision.effect === "step-up" ? undefined : decision.rule;
  const differences = [
    ...(decision.effect === one.expect ? [] : [{ what: "decision", expected: one.expect, got: decision.effect }]),
    ...(one.rule === undefined || one.rule === rule ? [] : [{ what: "rule", expected: one.rule, got: rule ?? "none" }]),
  ];
  return { name: one.name ?? nameOf(one), passed: differences.length === 0, differences, explanation };
}

function nameOf({ who: caller, call, list, args }: PolicyCase): string {
  const by = typeof caller === "string" ? caller : caller.user;
  return list === undefined ? `${by} calls ${call}${argsText(args)}` : `${by} lists ${list}`;
}

const argsText = (args: JsonObject | undefined) => (args === undefined ? "" : ` ${JSON.stringify(args)}`);
