/**
 * An echo server as the SDK's first version builds one with sessions: a server object and a transport for each. With
 * `JSON_ANSWERS=1` it is known to keep some 5 KB a call: the control that shows that the leak suite can find a leak.
 */
import { randomUUID } from "node:crypto";
import http from "node:http";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { z } from "zod";

const sessions = new Map<string, StreamableHTTPServerTransport>();

async function newSession(): Promise<StreamableHTTPServerTransport> {
  const transport: StreamableHTTPServerTransport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    enableJsonResponse: process.env["JSON_ANSWERS"] === "1",
    onsessioninitialized: (id) => void sessions.set(id, transport),
  });
  const server = new McpServer({ name: "echo", version: "1.0.0" });
  server.registerTool(
    "echo",
    { description: "Gives the text back.", inputSchema: { text: z.string() } },
    async ({ text }) => ({ content: [{ type: "text", text }] }),
  );
  // The SDK's own type lacks `| undefined` on optional members.
  await server.connect(transport as Parameters<typeof server.connect>[0]);
  return transport;
}

const server = http.createServer(async (request, response) => {
  const id = request.headers["mcp-session-id"];
  const transport = typeof id === "string" ? sessions.get(id) : await newSession();
  if (transport === undefined) response.writeHead(404).end();
  else await transport.handleRequest(request, response);
});
server.keepAliveTimeout = 120_000;
server.listen(Number(process.env["PORT"]), "127.0.0.1", 8192);
process.on("SIGTERM", () => process.exit(0));
