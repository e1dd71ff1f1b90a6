/** `answers:` in the settings file: what is done about instructions, hidden characters and links in what servers answer. */
import { z } from "zod";

/** From what changes nothing to what lets nothing through. */
export const INSTRUCTION_ACTIONS = ["off", "label", "neutralise", "withhold"] as const;
export type InstructionAction = (typeof INSTRUCTION_ACTIONS)[number];

const instruction = z.enum(INSTRUCTION_ACTIONS);
const link = z.enum(["defuse", "keep", "remove"]);

const host = z
  .string()
  .max(253)
  .regex(
    /^\*$|^(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$|^\[[0-9a-f:]+\]$/,
    "A host in lower case, such as docs.example.com or *.example.com.",
  );

const high = instruction.describe(
  "For what is an instruction to the model and hardly anything else. `label`: the answer goes on with a notice before it. `neutralise`: a short note stands in its place. `withhold`: an error goes on instead of the answer. `off`: nothing.",
);
const medium = instruction.describe(
  "The same, for what reads like an instruction to the model, and people may write, too.",
);
const invisible = z
  .enum(["remove", "keep"])
  .describe(
    "For control characters, escape sequences of terminals, direction controls, tag characters and others that nobody sees. Those that emoji and scripts need stay in any case.",
  );
const allow = z
  .array(host)
  .max(1000)
  .describe('Hosts whose addresses stay as they are, e.g. `[docs.example.com, "*.example.com"]`.');
const images = z
  .enum(["risky", "defuse", "keep", "remove"])
  .describe(
    "For images, frames and whatever else a client loads by itself, and for `javascript:` and `data:` addresses. `defuse`: the address stays readable, `hxxps://host[.]example`. `remove`: it goes. `risky`: pictures stay whose address has no room for data; all else is defused.",
  );
const others = link.describe("For links, which somebody must follow.");

/** What one tool may have of its own. */
const override = z.strictObject({
  instructions: z.strictObject({ high: high.optional(), medium: medium.optional() }).optional(),
  invisible: invisible.optional(),
  links: z.strictObject({ allow: allow.optional(), images: images.optional(), others: others.optional() }).optional(),
});

export const answerSettings = z
  .strictObject({
    instructions: z.strictObject({ high: high.default("neutralise"), medium: medium.default("label") }).prefault({}),
    invisible: invisible.default("remove"),
    links: z
      .strictObject({ allow: allow.default([]), images: images.default("defuse"), others: others.default("keep") })
      .prefault({}),
    toxicFlow: z
      .enum(["approve", "off"])
      .default("approve")
      .describe(
        "Once a user's client has read private data and text of strangers, tools that send something outside or destroy need the user's approval (`approve`). Only contracts say which tools these are (`openWorld: true`, `access: destructive`); without any nothing is asked.",
      ),
    tools: z
      .record(z.string().min(1).max(300), override)
      .default({})
      .describe(
        'Other settings for some tools, resources or prompts, by glob over their names, e.g. `"wiki.*": { links: { allow: ["*"] } }`. Of several that fit, later ones stand above earlier ones.',
      ),
  })
  .prefault({});

export type AnswerSettings = z.infer<typeof answerSettings>;
