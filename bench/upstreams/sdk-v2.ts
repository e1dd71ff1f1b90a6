/** An echo server as the SDK's second version builds one for 2026-07-28: `createMcpHandler` on node:http. */
import http from "node:http";
import { toNodeHandler } from "@modelcontextprotocol/node";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import { z } from "zod";

const handler = createMcpHandler(() => {
  const server = new McpServer({ name: "echo", version: "1.0.0" });
  server.registerTool(
    "echo",
    { description: "Gives the text back.", inputSchema: z.object({ text: z.string() }) },
    async ({ text }) => ({ content: [{ type: "text", text }] }),
  );
  return server;
});
const handle = toNodeHandler(handler);
const server = http.createServer((request, response) => void handle(request as Parameters<typeof handle>[0], response));
server.keepAliveTimeout = 120_000;
server.listen(Number(process.env["PORT"]), "127.0.0.1", 8192);
process.on("SIGTERM", () => process.exit(0));
