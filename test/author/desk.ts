/** A small server that uses all there is to declare, for the tests of this folder. Run as a program it serves over stdio. */
import { hash } from "node:crypto";
import { prompt, refuse, resource, server, tool } from "drawbridge-mcp/author";
import { z } from "zod";

const description = {
  does: "Does what a test of this folder wants of it.",
  useWhen: "when a test says so",
  notWhen: "for anything else",
  returns: "what the test expects",
  limits: "one thing at a time",
};
const text = z.string().max(100).describe("Some text, e.g. hello.");

const echo = tool({
  name: "echo",
  title: "Echo",
  description,
  input: z.object({ text, times: z.int().min(1).max(3).default(1).describe("How often, e.g. 2.") }),
  output: z.object({ text: z.string(), by: z.string() }),
  access: "read",
  // More than is declared.
  handler: ({ text, times }, { principal }) => ({ text: text.repeat(times), by: principal.subject, secret: "canary" }),
});

const contact = tool({
  name: "contact",
  title: "Contact",
  description,
  input: z.object({}),
  output: z.object({ name: z.string(), people: z.array(z.object({ email: z.string(), age: z.int() })).max(5) }),
  access: "read",
  mask: { "people/*/email": "redact" },
  handler: () => ({ name: "Desk", people: [{ email: "daniel.singh1@example.net", age: 40 }] }),
});

const order = tool({
  name: "order",
  title: "Order",
  description,
  input: z.object({ sku: z.enum(["KET-01", "MUG-02"]).describe("What, e.g. KET-01.") }),
  output: z.object({ ordered: z.string(), engraved: z.string() }),
  access: "write",
  async handler({ sku }, { elicit }) {
    const answer = await elicit(
      "What shall be engraved?",
      z.object({ words: z.string().max(20).describe("The words.") }),
    );
    if (answer.action !== "accept") refuse("Nothing was ordered.");
    const sure = await elicit("Are you sure?", z.object({ sure: z.boolean() }));
    return { ordered: sure.action === "accept" && sure.content.sure ? sku : "nothing", engraved: answer.content.words };
  },
});

const wipe = tool({
  name: "wipe",
  title: "Wipe",
  description,
  input: z.object({}),
  output: z.object({ wiped: z.boolean() }),
  access: "destructive",
  approval: { reason: "All is gone afterwards." },
  handler: () => ({ wiped: true }),
});

const audited = tool({
  name: "audited",
  title: "Audited",
  description,
  input: z.object({}),
  output: z.object({ done: z.boolean() }),
  access: "destructive",
  approval: { by: ["owner"], fourEyes: true },
  handler: () => ({ done: true }),
});

const scarce = tool({
  name: "scarce",
  title: "Scarce",
  description,
  input: z.object({}),
  output: z.object({ given: z.boolean() }),
  access: "read",
  limits: { perMinute: 1 },
  handler: () => ({ given: true }),
});

const guarded = tool({
  name: "guarded",
  title: "Guarded",
  description,
  input: z.object({}),
  output: z.object({ seen: z.boolean() }),
  access: "read",
  scopes: ["desk:guarded", "desk:seen"],
  handler: () => ({ seen: true }),
});

const broken = tool({
  name: "broken",
  title: "Broken",
  description,
  input: z.object({ how: z.enum(["throws", "lies", "hangs"]).describe("How it fails.") }),
  output: z.object({ number: z.int() }),
  access: "read",
  timeoutSeconds: 0.05,
  handler({ how }) {
    if (how === "throws") throw new Error("canary: the password is hunter2");
    if (how === "lies") return { number: "canary" as unknown as number };
    return new Promise<{ number: number }>(() => {});
  },
});

const slow = tool({
  name: "slow",
  title: "Slow",
  description,
  input: z.object({}),
  output: z.object({ steps: z.int() }),
  access: "read",
  async handler(_, { progress, span, signal }) {
    for (let step = 1; step <= 3; step++) {
      await span("step", async () => progress(step, 3, `step ${step}`));
      // The SDKs drop what comes in one piece with the answer.
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    signal.throwIfAborted();
    return { steps: 3 };
  },
});

const lends = tool({
  name: "lends",
  title: "Lends",
  description,
  input: z.object({}),
  output: z.object({ audience: z.string(), token: z.string() }),
  access: "read",
  async handler(_, { upstreamToken }) {
    const token = await upstreamToken();
    const claims = Buffer.from(token.split(".")[1] ?? "", "base64url").toString();
    return { audience: (JSON.parse(claims) as { aud: string }).aud, token: hash("sha256", token, "hex") };
  },
});

const lendsLater = tool({
  name: "lends_later",
  title: "Lends later",
  description,
  input: z.object({}),
  output: z.object({ before: z.string(), after: z.string() }),
  access: "read",
  async handler(_, { upstreamToken, elicit }) {
    const before = await upstreamToken();
    await elicit("Are you sure?", z.object({ sure: z.boolean() }));
    return { before: hash("sha256", before, "hex"), after: hash("sha256", await upstreamToken(), "hex") };
  },
});

export const desk = server({
  name: "test-desk",
  version: "1.0.0",
  tools: [echo, contact, order, wipe, audited, scarce, guarded, broken, slow, lends, lendsLater],
  resources: [
    resource({
      uri: "desk://products/{sku}",
      name: "product",
      title: "A product",
      description: "One product by its number.",
      input: z.object({
        sku: z
          .string()
          .regex(/^[A-Z]{3}-[0-9]{2}$/)
          .describe("Its number, e.g. KET-01."),
      }),
      output: z.object({ sku: z.string() }),
      handler: ({ sku }) => ({ sku, cost: "canary" }),
    }),
  ],
  prompts: [
    prompt({
      name: "greet",
      title: "Greet",
      description: "Writes a greeting for somebody.",
      input: z.object({ name: text }),
      handler: ({ name }) => `Write a greeting for ${name}.`,
    }),
  ],
});

if (import.meta.main) await desk.stdio();
