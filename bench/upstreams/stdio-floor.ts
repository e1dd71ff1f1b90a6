/** A stdio echo server in as little code as possible: the quickest child a gateway can have. */
import { createInterface } from "node:readline";

const TOOL = {
  name: "echo",
  description: "Gives the text back.",
  inputSchema: { type: "object", properties: { text: { type: "string" } }, required: ["text"] },
};
const INFO = { name: "floor", version: "1.0.0" };

interface Message {
  readonly id?: string | number;
  readonly method: string;
  readonly params?: { readonly arguments?: { readonly text?: string } };
}

function outcomeOf(message: Message): object {
  switch (message.method) {
    case "initialize":
      return { result: { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: INFO } };
    case "tools/list":
      return { result: { tools: [TOOL] } };
    case "tools/call":
      return { result: { content: [{ type: "text", text: message.params?.arguments?.text ?? "" }] } };
    case "ping":
      return { result: {} };
    default:
      return { error: { code: -32601, message: "Method not found" } };
  }
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const message = JSON.parse(line) as Message;
  if (message.id === undefined) return;
  process.stdout.write(`${JSON.stringify({ jsonrpc: "2.0", id: message.id, ...outcomeOf(message) })}\n`);
});
