/** The same desk as the SDK's second version builds one for 2026-07-28: `createMcpHandler` on node:http, and no control at all. */
import http from "node:http";
import { toNodeHandler } from "@modelcontextprotocol/node";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import { z } from "zod";

const handler = createMcpHandler(() => {
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
  return server;
});
const handle = toNodeHandler(handler);
const server = http.createServer((request, response) => void handle(request as Parameters<typeof handle>[0], response));
server.keepAliveTimeout = 120_000;
server.listen(Number(process.env["PORT"]), "127.0.0.1", 8192);
process.on("SIGTERM", () => process.exit(0));
