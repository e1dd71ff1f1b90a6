/** The same desk on the SDK's second version, over stdio. */
import { McpServer } from "@modelcontextprotocol/server";
import { StdioServerTransport } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";

const server = new McpServer({ name: "echo-desk", version: "1.0.0" });
server.registerTool(
  "echo",
  {
    title: "Echo",
    description: "Gives the text back, with the address of whoever keeps the desk.",
    inputSchema: z.object({ text: z.string().max(200).describe("The text, e.g. hello.") }),
    outputSchema: z.object({ text: z.string(), keeper: z.object({ email: z.string() }) }),
  },
  async ({ text }) => {
    const structuredContent = { text, keeper: { email: "ann@example.net" } };
    return { structuredContent, content: [{ type: "text", text: JSON.stringify(structuredContent) }] };
  },
);
await server.connect(new StdioServerTransport());
