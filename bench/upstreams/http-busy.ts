/** The same as `stdio-busy.ts` over Streamable HTTP (2026-07-28): four places and 20 ms for each call, so 200 calls a second. */
import http from "node:http";

const PLACES = 4;
const TAKES_MS = 20;
const DRESS = {
  resultType: "complete",
  _meta: { "io.modelcontextprotocol/serverInfo": { name: "busy", version: "1.0.0" } },
};
const TOOL = {
  name: "echo",
  description: "Gives the text back.",
  inputSchema: { type: "object", properties: { text: { type: "string" } }, required: ["text"] },
};

interface Message {
  readonly id?: string | number;
  readonly method: string;
  readonly params?: { readonly arguments?: { readonly text?: string } };
}

const waiting: (() => void)[] = [];
let taken = 0;

function serve(): void {
  while (taken < PLACES) {
    const answer = waiting.shift();
    if (answer === undefined) return;
    taken += 1;
    setTimeout(() => {
      taken -= 1;
      answer();
      serve();
    }, TAKES_MS);
  }
}

http
  .createServer(async (request, response) => {
    if (request.method !== "POST") return void response.writeHead(405).end();
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { id, method, params } = JSON.parse(Buffer.concat(chunks).toString("utf8")) as Message;
    if (id === undefined) return void response.writeHead(202).end();
    const say = (outcome: object, status = 200) =>
      void response
        .writeHead(status, { "content-type": "application/json" })
        .end(JSON.stringify({ jsonrpc: "2.0", id, ...outcome }));
    const caching = { ttlMs: 0, cacheScope: "private" };
    if (method === "server/discover")
      return say({ result: { ...DRESS, ...caching, supportedVersions: ["2026-07-28"], capabilities: { tools: {} } } });
    if (method === "tools/list") return say({ result: { ...DRESS, ...caching, tools: [TOOL] } });
    if (method !== "tools/call") return say({ error: { code: -32601, message: "Method not found" } }, 404);
    const text = params?.arguments?.text ?? "";
    waiting.push(() => say({ result: { ...DRESS, content: [{ type: "text", text }] } }));
    serve();
  })
  .listen(Number(process.env["PORT"]), "127.0.0.1");
