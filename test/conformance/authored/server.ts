/**
 * What the official suite wants of servers, written with `drawbridge-mcp/author` as far as an authored server is meant to be it: answers
 * are objects that were declared, questions are forms. Alone over stdio: node test/conformance/authored/server.ts.
 */
import { setTimeout as after } from "node:timers/promises";
import { prompt, refuse, resource, server, tool } from "drawbridge-mcp/author";
import { z } from "zod";

const described = (does: string) => ({
  does,
  useWhen: "when the conformance suite calls it",
  notWhen: "for anything else",
  returns: "what the suite looks for",
  limits: "a fixture",
});
const nothing = z.object({});
const said = z.object({ text: z.string() });
const word = (about: string) => z.string().max(100).describe(about);

/** A tool that asks questions one after the other, and says so. */
const asking = (
  name: string,
  questions: readonly { readonly message: string; readonly form: z.ZodObject }[],
  reply = "All was answered.",
) =>
  tool({
    name,
    title: name,
    description: described("Asks the person at the client."),
    input: nothing,
    output: said,
    access: "read",
    async handler(_, { elicit }) {
      for (const { message, form } of questions) {
        const { action } = await elicit(message, form);
        if (action !== "accept") refuse(`The question was answered with ${action}.`);
      }
      return { text: reply };
    },
  });

const itsName = { message: "What is your name?", form: z.object({ name: word("A name.") }) };
const confirmed = { message: "Please confirm", form: z.object({ ok: z.boolean().describe("Whether it is so.") }) };

const tools = [
  tool({
    name: "test_simple_text",
    title: "Simple text",
    description: described("Returns one line of text."),
    input: nothing,
    output: said,
    access: "read",
    handler: () => ({ text: "This is a simple text response for testing." }),
  }),
  tool({
    name: "test_error_handling",
    title: "Error",
    description: described("Refuses each call that is made."),
    input: nothing,
    output: said,
    access: "read",
    handler: () => refuse("This tool intentionally returns an error for testing"),
  }),
  tool({
    name: "test_tool_with_progress",
    title: "Progress",
    description: described("Tells how far it is, three times."),
    input: nothing,
    output: said,
    access: "read",
    async handler(_, { progress }) {
      for (const done of [0, 50, 100]) {
        progress(done, 100);
        await after(50);
      }
      return { text: "Done." };
    },
  }),
  tool({
    name: "test_elicitation",
    title: "Elicitation",
    description: described("Asks for a name and an address."),
    input: z.object({ message: z.string().max(200).describe("What the person is asked, e.g. Who are you?") }),
    output: said,
    access: "read",
    async handler({ message }, { elicit }) {
      const form = z.object({ username: word("A name."), email: word("An e-mail address.") });
      return { text: `User response: ${JSON.stringify(await elicit(message, form))}` };
    },
  }),
  asking("test_elicitation_sep1034_defaults", [
    {
      message: "Are these right?",
      form: z.object({
        name: word("A name.").default("John Doe"),
        age: z.int().default(30),
        score: z.number().default(95.5),
        status: z.enum(["active", "inactive", "pending"]).default("active"),
        verified: z.boolean().default(true),
      }),
    },
  ]),
  asking("test_missing_capability", [itsName]),
  asking("test_streaming_elicitation", [itsName]),
  tool({
    name: "test_logging_tool",
    title: "Log",
    description: described("Writes to the operator's log."),
    input: nothing,
    output: said,
    access: "read",
    handler(_, { log }) {
      log.info({}, "nothing of this reaches clients");
      return { text: "Logged." };
    },
  }),
  asking("test_input_required_result_elicitation", [itsName], "Hello!"),
  asking("test_input_required_result_request_state", [confirmed], "state-ok"),
  asking("test_input_required_result_tampered_state", [confirmed]),
  asking("test_input_required_result_multi_round", [
    { message: "Step 1: What is your name?", form: itsName.form },
    { message: "Step 2: What is your favorite color?", form: z.object({ color: word("A colour.") }) },
  ]),
];

const resources = [
  resource({
    uri: "test://static-text",
    name: "static-text",
    title: "Static text",
    description: "A resource that does not change.",
    input: nothing,
    output: said,
    handler: () => ({ text: "This is the content of the static text resource." }),
  }),
  resource({
    uri: "test://template/{id}/data",
    name: "template",
    title: "Template",
    description: "A resource for each number.",
    input: z.object({ id: word("The number.") }),
    output: z.object({ id: z.string(), templateTest: z.boolean(), data: z.string() }),
    handler: ({ id }) => ({ id, templateTest: true, data: `Data for ID: ${id}` }),
  }),
];

const prompts = [
  prompt({
    name: "test_simple_prompt",
    title: "Simple prompt",
    description: "A prompt without arguments.",
    input: nothing,
    handler: () => "This is a simple prompt for testing.",
  }),
  prompt({
    name: "test_prompt_with_arguments",
    title: "Prompt with arguments",
    description: "A prompt with two arguments.",
    input: z.object({ arg1: word("The first."), arg2: word("The second.") }),
    handler: ({ arg1, arg2 }) => `Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`,
  }),
  prompt({
    name: "test_input_required_result_prompt",
    title: "Prompt that asks",
    description: "A prompt that needs to know something.",
    input: nothing,
    async handler(_, { elicit }) {
      const form = z.object({ context: word("What it is for.") });
      const answer = await elicit("What context should the prompt use?", form);
      return answer.action === "accept" ? `Context: ${answer.content.context}` : "No context.";
    },
  }),
];

export const authored = server({ name: "conformance", version: "1.0.0", tools, resources, prompts });

if (import.meta.main) await authored.stdio();
