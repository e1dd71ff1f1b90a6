/** A stdio server as most are: the SDK's first version, one tool that answers at once and one that blocks the process for half a second. */
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { z } from "zod";

const server = new McpServer({ name: "echo", version: "1.0.0" });
const inputSchema = { text: z.string() };
server.registerTool("echo", { description: "Gives the text back.", inputSchema }, async ({ text }) => ({
  content: [{ type: "text", text }],
}));
server.registerTool(
  "block",
  { description: "Gives the text back after half a second.", inputSchema },
  async ({ text }) => {
    // Not a timer: like a synchronous database driver, it lets nothing else run meanwhile.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
    return { content: [{ type: "text", text }] };
  },
);
await server.connect(new StdioServerTransport());
