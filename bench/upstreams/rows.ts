/**
 * A server whose answers are 20 KB: the text back, and beside it rows as a shop has them, with ids, dates, prices, an e-mail address
 * and a phone number in each (2026-07-28, on bare node:http).
 */
import http from "node:http";

const DRESS = {
  resultType: "complete",
  _meta: { "io.modelcontextprotocol/serverInfo": { name: "rows", version: "1.0.0" } },
};
const CACHING = { ttlMs: 60_000, cacheScope: "public" };
const ROW = {
  type: "object",
  properties: { id: { type: "string" }, orderId: { type: "string" }, total: { type: "number" } },
  required: ["id", "orderId", "total"],
};
const TOOL = {
  name: "echo",
  description: "Gives the text back, and the orders of a day.",
  inputSchema: { type: "object", properties: { text: { type: "string" } }, required: ["text"] },
  outputSchema: { type: "object", properties: { rows: { type: "array", items: ROW } }, required: ["rows"] },
};
const BYTES = 20_000;

function rowOf(index: number): object {
  return {
    id: `0198c1d2-7a4e-7c3b-9f21-${String(index).padStart(12, "0")}`,
    orderId: `ORD-${88_000 + index}-${1000 + index}`,
    customer: { name: "Anna Smith", email: `anna.smith${index}@example.org`, phone: `+44 7700 9${10_000 + index}` },
    status: "shipped to the customer",
    total: 129.5 + index,
    createdAt: "2026-09-03T09:28:39.589Z",
  };
}

const rows: object[] = [];
for (let bytes = 0; bytes < BYTES; bytes += JSON.stringify(rows.at(-1)).length + 1) rows.push(rowOf(rows.length));

interface Message {
  readonly id?: string | number;
  readonly method: string;
  readonly params?: { readonly arguments?: { readonly text?: string } };
}

function resultOf({ method, params }: Message): object | undefined {
  if (method === "server/discover")
    return { ...DRESS, ...CACHING, supportedVersions: ["2026-07-28"], capabilities: { tools: {} } };
  if (method === "tools/list") return { ...DRESS, ...CACHING, tools: [TOOL] };
  if (method !== "tools/call") return undefined;
  const text = params?.arguments?.text ?? "";
  return { ...DRESS, content: [{ type: "text", text }], structuredContent: { rows } };
}

http
  .createServer(async (request, response) => {
    if (request.method !== "POST") return void response.writeHead(405).end();
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const message = JSON.parse(Buffer.concat(chunks).toString("utf8")) as Message;
    if (message.id === undefined) return void response.writeHead(202).end();
    const result = resultOf(message);
    const outcome = result === undefined ? { error: { code: -32601, message: "Method not found" } } : { result };
    response.writeHead(result === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify({ jsonrpc: "2.0", id: message.id, ...outcome }));
  })
  .listen(Number(process.env["PORT"]), "127.0.0.1");
