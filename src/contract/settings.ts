/**
 * `tools:`, `resources:` and `prompts:` in the settings file: contracts. A contract is what one tool, resource or prompt is to its
 * clients, whatever the server behind it offers. As soon as one of the three is written, nothing of that kind is served without one.
 */
import { z } from "zod";
import type { JsonValue } from "../core/call.ts";
import { MASK_ACTIONS } from "../core/mask-actions.ts";

const json: z.ZodType<JsonValue> = z.json() as z.ZodType<JsonValue>;

/** `server/name`; in a contract that serves several as they are, `server/*` or another glob. */
const source = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,39}\/.+$/, "expected server/name, e.g. orders/get_order")
  .describe("Where it comes from: `server/name`, as the server calls it.");

/** CEL over `args`, `principal`, `steps` and `run`, written with `=` in front: `=args.order_id`. Anything else is the value itself. */
const expression = json.describe(
  "A value, or with `=` in front a CEL expression over `args`, `principal`, `steps` and `run.id` (another one for each call), e.g. `=steps.order.total`.",
);
const condition = z.string().min(1).max(4000).describe("A CEL condition over `args`, `principal`, `steps` and `run`.");

const FORMATS = ["date", "time", "date-time", "uri", "email", "uuid", "ipv4", "ipv6", "hostname"] as const;

export interface InputRule {
  readonly type?: "string" | "integer" | "number" | "boolean" | "array" | "object" | undefined;
  readonly enum?: readonly JsonValue[] | undefined;
  readonly pattern?: string | undefined;
  readonly format?: (typeof FORMATS)[number] | undefined;
  readonly minLength?: number | undefined;
  readonly maxLength?: number | undefined;
  readonly minimum?: number | undefined;
  readonly maximum?: number | undefined;
  readonly multipleOf?: number | undefined;
  readonly minItems?: number | undefined;
  readonly maxItems?: number | undefined;
  readonly uniqueItems?: boolean | undefined;
  readonly items?: InputRule | undefined;
  readonly properties?: Readonly<Record<string, InputRule>> | undefined;
  readonly required?: boolean | undefined;
  readonly description?: string | undefined;
  readonly default?: JsonValue | undefined;
  readonly fixed?: JsonValue | undefined;
  readonly bind?: string | undefined;
  readonly hidden?: boolean | undefined;
  readonly as?: string | undefined;
}

const inputRule: z.ZodType<InputRule> = z.lazy(() =>
  z.strictObject({
    type: z.enum(["string", "integer", "number", "boolean", "array", "object"]).optional(),
    enum: z.array(json).min(1).max(1000).optional().describe("The values that are taken, and no others."),
    pattern: z.string().min(1).max(1000).optional().describe("A regular expression (RE2); anchor it with ^ and $."),
    format: z.enum(FORMATS).optional(),
    minLength: z.int().min(0).optional(),
    maxLength: z.int().min(0).optional().describe("Characters (Unicode code points) at most."),
    minimum: z.number().optional(),
    maximum: z.number().optional(),
    multipleOf: z.number().positive().optional(),
    minItems: z.int().min(0).optional(),
    maxItems: z.int().min(0).optional(),
    uniqueItems: z.boolean().optional(),
    items: inputRule.optional().describe("What each element of an array may be."),
    properties: z
      .record(z.string().min(1).max(200), inputRule)
      .optional()
      .describe("The members of an object; others are refused."),
    required: z
      .boolean()
      .optional()
      .describe("Default: as the server says, and with `steps` true; always true is stricter."),
    description: z
      .string()
      .max(2000)
      .optional()
      .describe("What clients read about it, in place of the server's words."),
    default: json.optional().describe("Put in by the gateway when the client leaves it out."),
    fixed: json.optional().describe("Always this value; clients do not see the argument and cannot send it."),
    bind: z
      .string()
      .regex(
        /^principal\.(subject|client|claims\.[A-Za-z0-9_.:/-]+)$/,
        "expected principal.subject, principal.client or principal.claims.<name>",
      )
      .optional()
      .describe("Always this of who calls; clients do not see the argument and cannot send it."),
    hidden: z
      .boolean()
      .optional()
      .describe("Clients do not see it and cannot send it; sent only if it has a `default`."),
    as: z
      .string()
      .min(1)
      .max(200)
      .optional()
      .describe("What the server calls this argument, when clients call it otherwise."),
  }),
);

const output = z
  .strictObject({
    fields: z
      .array(z.string().min(1).max(500))
      .min(1)
      .max(500)
      .optional()
      .describe(
        "What clients get: paths such as `status`, `items/*/sku`, `customer/email`. `*` stands for every element or member. What no path names is not there. Needs an answer that is JSON.",
      ),
    text: z
      .boolean()
      .default(false)
      .describe("Also hands on text that is not JSON (an error, say). Default: only what `fields` name leaves."),
    maxBytes: z
      .int()
      .min(256)
      .max(1 << 30)
      .optional()
      .describe("The most bytes of an answer; what is longer is cut, stays valid and says so."),
    maxTokens: z
      .int()
      .min(16)
      .max(10_000_000)
      .optional()
      .describe("The same in tokens, counted as a model would: an estimate that errs on the safe side."),
    maxItems: z.int().min(1).max(1_000_000).optional().describe("The most elements of each list."),
  })
  .describe("What comes back.");

const outputRule = z.preprocess((written) => (Array.isArray(written) ? { fields: written } : written), output);

const shared = {
  title: z.string().min(1).max(200).optional(),
  description: z
    .string()
    .min(1)
    .max(10_000)
    .optional()
    .describe(
      "What clients read in place of the server's words: what it does, when to use it, when not, what it returns, its limits.",
    ),
  output: outputRule.optional(),
  mask: z
    .record(z.string().min(1).max(300), z.enum(MASK_ACTIONS))
    .optional()
    .describe(
      "What becomes of fields of the answer, e.g. `customer/email: token`, beside what `mask:` says of all answers; of the same path this one counts. Paths are those of `mask.fields`.",
    ),
  unproven: z
    .literal("accept")
    .optional()
    .describe(
      "Insecure: takes the contract although it cannot be proved that the server accepts all that it accepts; calls are then checked against both.",
    ),
};

/** What every demand for an approval says, in `approvals:` and in the contract of a tool. */
export const approvalTerms = {
  when: z
    .string()
    .min(1)
    .max(4000)
    .optional()
    .describe(
      "Only for calls that meet this CEL condition over `principal`, `args`, `call`, `resource` and `time`, and for those for which it cannot be evaluated. Default: for every call.",
    ),
  by: z
    .array(z.string().min(1).max(40))
    .min(1)
    .max(50)
    .optional()
    .describe("Roles whose members may approve. Default: whoever makes the call confirms it."),
  fourEyes: z.boolean().default(false).describe("Whoever approves must be another user than the one who calls."),
  expiresSeconds: z
    .int()
    .min(1)
    .max(86_400)
    .default(900)
    .describe("How long a request stays open, and how long, once approved, the call can be made."),
  reason: z.string().min(1).max(500).optional().describe("What people read: why this needs an approval."),
};

const approval = z
  .union([z.literal("required"), z.strictObject(approvalTerms)])
  .describe("A person has to approve each call before anything is sent: `required`, or when and by whom.");

const access = z
  .enum(["read", "write", "destructive"])
  .describe(
    "What a call does at most; the annotations that clients see are made of it. `read` refuses a tool that says otherwise.",
  );

const step = z.strictObject({
  id: z
    .string()
    .regex(/^[a-z][a-z0-9_]{0,39}$/)
    .describe("Names the result for later steps: `steps.<id>`."),
  call: source,
  with: z.record(z.string().min(1).max(200), expression).default({}).describe("The arguments."),
  when: condition.optional().describe("The step is left out when this is not met."),
  expect: condition.optional().describe("The whole fails when this is not met of `steps.<id>` after the call."),
  access: z
    .enum(["read", "write"])
    .optional()
    .describe(
      "What the step does. Default: as its server says; `write` where it says nothing. A step that only reads needs no `undo`.",
    ),
  undo: z
    .strictObject({ call: source, with: z.record(z.string().min(1).max(200), expression).default({}) })
    .optional()
    .describe(
      "What takes the step back when a later one fails. It may be sent more than once, always with the same `drawbridge/idempotency-key` in `_meta`, so it should do no harm the second time.",
    ),
});

const example = z.strictObject({
  arguments: z.record(z.string(), json).default({}),
  principal: z.record(z.string(), json).optional().describe("Who calls: `subject`, `client`, `claims`."),
  sends: z
    .union([z.record(z.string(), json), z.array(z.record(z.string(), json))])
    .optional()
    .describe("The arguments that the server gets; of each step, for a tool with steps."),
  refused: z.string().optional().describe("A part of the sentence with which the call is refused."),
  answer: z
    .union([json, z.array(json)])
    .optional()
    .describe("What the server answers; of each step, for a tool with steps."),
  returns: json.optional().describe("What the client gets."),
});

export const toolContract = z
  .strictObject({
    from: source.optional(),
    steps: z
      .array(step)
      .min(1)
      .max(20)
      .optional()
      .describe("Several calls as one tool: all of it, or nothing where each step says how it is undone."),
    result: expression.optional().describe("With `steps`: what comes back. Default: the result of the last step."),
    deadlineSeconds: z
      .int()
      .min(1)
      .max(86_400)
      .default(300)
      .describe(
        "With `steps`: how long all of them may take together, also while people are asked. Undoing has time of its own.",
      ),
    input: z
      .record(z.string().min(1).max(200), inputRule)
      .optional()
      .describe("The arguments that clients may send, and no others. Default: the server's own, closed and bounded."),
    maxDepth: z.int().min(1).max(64).default(8).describe("The deepest nesting of arguments."),
    maxBytes: z
      .int()
      .min(2)
      .max(1 << 30)
      .default(65_536)
      .describe("The most bytes of all arguments together."),
    access: access.optional(),
    restores: z
      .union([
        z.boolean(),
        z
          .array(z.string().regex(/^[a-z][a-z0-9_]{0,39}$/))
          .min(1)
          .max(100),
      ])
      .optional()
      .describe(
        "Stand-ins (`token`) in the arguments are turned into what they stand for on the way to the server: all of them, or those of some types, e.g. `[email, phone]`. Default: as `mask.standInsFor` says.",
      ),
    approval: approval.optional(),
    openWorld: z
      .boolean()
      .optional()
      .describe("Whether it reaches beyond the server's own data: the web, mail, other people."),
    idempotent: z.boolean().optional().describe("Calling it twice does no more than calling it once."),
    as: z
      .strictObject({
        resource: z
          .string()
          .min(3)
          .max(1000)
          .describe("A URI template over the arguments, e.g. `orders://{order_id}`."),
      })
      .optional()
      .describe("Served as a resource; for `access: read` alone."),
    examples: z.array(example).max(100).default([]).describe("Checked by `drawbridge contract test`."),
    ...shared,
  })
  .refine((tool) => (tool.from === undefined) !== (tool.steps === undefined), "expected either `from` or `steps`");

export const resourceContract = z.strictObject({
  from: source.describe("`server/uri` or `server/uri template`; a glob serves all that match, as they are."),
  ...shared,
});

export const promptContract = z.strictObject({
  from: source,
  input: z.record(z.string().min(1).max(200), inputRule).optional(),
  ...shared,
});

/** What clients call it. Letters, digits, `_`, `-` and `.`, as MCP has it (Tool Names); a glob in `from` keeps the server's names. */
const servedName = z
  .string()
  .regex(/^[A-Za-z0-9_.-]{1,128}$|^[A-Za-z0-9_.-]{0,64}\*$/, "expected letters, digits, _ - and .");

export const toolsSettings = z.record(servedName, toolContract);
export const resourcesSettings = z.record(z.string().min(1).max(1000), resourceContract);
export const promptsSettings = z.record(servedName, promptContract);

export type ToolContractSettings = z.infer<typeof toolContract>;
export type ResourceContractSettings = z.infer<typeof resourceContract>;
export type PromptContractSettings = z.infer<typeof promptContract>;
export type ApprovalTerms = z.infer<z.ZodObject<typeof approvalTerms>>;
export type OutputSettings = z.infer<typeof output>;
export type StepSettings = z.infer<typeof step>;
export type ContractExample = z.infer<typeof example>;
