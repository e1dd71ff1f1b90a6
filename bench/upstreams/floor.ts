/**
 * The floor: an MCP echo server in as little code as answers every client rightly, on bare node:http. Both revisions;
 * a 2025 session is a small record in a Map, which is also the floor for memory per session. With ERA=legacy it knows
 * nothing of 2026-07-28, with ERA=modern nothing of what was before.
 */
import { randomUUID } from "node:crypto";
import http from "node:http";

const INFO = { name: "floor", version: "1.0.0" };
const TOOLS = [
  {
    name: "echo",
    description: "Gives the text back.",
    inputSchema: { type: "object", properties: { text: { type: "string" } }, required: ["text"] },
  },
];
const REFUSAL = { code: -32601, message: "Method not found" };

interface Message {
  readonly id?: string | number;
  readonly method: string;
  readonly params?: { readonly arguments?: { readonly text?: string }; readonly clientInfo?: unknown };
}

const MISSING = { legacy: "server/discover", modern: "initialize" }[process.env["ERA"] ?? ""];
const sessions = new Map<string, object>();

function resultOf(message: Message): object | undefined {
  if (message.method === MISSING) return undefined;
  switch (message.method) {
    case "tools/call":
      return {
        resultType: "complete",
        content: [{ type: "text", text: message.params?.arguments?.text ?? "" }],
      };
    case "tools/list":
      return { resultType: "complete", tools: TOOLS, ttlMs: 60_000, cacheScope: "public" };
    case "initialize":
      return { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: INFO };
    case "server/discover":
      return {
        resultType: "complete",
        supportedVersions: ["2026-07-28"],
        capabilities: { tools: {} },
        ttlMs: 60_000,
        cacheScope: "public",
        _meta: { "io.modelcontextprotocol/serverInfo": INFO },
      };
    case "ping":
      return {};
    default:
      return undefined;
  }
}

function answer(response: http.ServerResponse, message: Message): void {
  if (message.id === undefined) {
    response.writeHead(202).end();
    return;
  }
  const result = resultOf(message);
  const outcome = result === undefined ? { error: REFUSAL } : { result };
  const body = JSON.stringify({ jsonrpc: "2.0", id: message.id, ...outcome });
  const headers: http.OutgoingHttpHeaders = {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
  };
  if (message.method === "initialize" && result !== undefined) {
    const id = randomUUID();
    const now = Date.now();
    sessions.set(id, { id, created: now, used: now, revision: "2025-11-25", client: message.params?.clientInfo });
    headers["mcp-session-id"] = id;
  }
  response.writeHead(200, headers).end(body);
}

const server = http.createServer((request, response) => {
  if (request.method !== "POST") {
    response.writeHead(405).end();
    return;
  }
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => answer(response, JSON.parse(Buffer.concat(chunks).toString())));
});
server.keepAliveTimeout = 120_000;
server.listen(Number(process.env["PORT"]), "127.0.0.1", 8192);
process.on("SIGTERM", () => process.exit(0));
