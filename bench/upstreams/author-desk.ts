/** A desk of one tool, written with `drawbridge-mcp/author`: what its declaration says is enforced on every call. Alone it serves over stdio. */
import { server, tool } from "drawbridge-mcp/author";
import { z } from "zod";

const echo = tool({
  name: "echo",
  title: "Echo",
  description: {
    does: "Gives the text back, with the address of whoever keeps the desk.",
    useWhen: "when it shall be seen that a call went through",
    notWhen: "for anything else",
    returns: "the text, and the address as a stand-in",
    limits: "200 letters",
  },
  input: z.object({ text: z.string().max(200).describe("The text, e.g. hello.") }),
  output: z.object({ text: z.string(), keeper: z.object({ email: z.string() }) }),
  access: "read",
  mask: { "keeper/email": "token" },
  limits: { perMinute: 10_000_000, concurrent: 10_000 },
  handler: ({ text }) => ({ text, keeper: { email: "ann@example.net" } }),
});

export const desk = server({ name: "echo-desk", version: "1.0.0", tools: [echo] });

if (import.meta.main) await desk.stdio();
