/**
 * A stdio echo server in front of something that has four places and takes 20 ms for each call, as a small database does: no
 * more than 200 calls a second, whoever asks.
 */
import { createInterface } from "node:readline";

const PLACES = 4;
const TAKES_MS = 20;
const TOOL = {
  name: "echo",
  description: "Gives the text back.",
  inputSchema: { type: "object", properties: { text: { type: "string" } }, required: ["text"] },
};
const INFO = { name: "busy", version: "1.0.0" };

interface Message {
  readonly id?: string | number;
  readonly method: string;
  readonly params?: { readonly arguments?: { readonly text?: string } };
}

const waiting: Message[] = [];
let taken = 0;

function answer(message: Message, outcome: object): void {
  process.stdout.write(`${JSON.stringify({ jsonrpc: "2.0", id: message.id, ...outcome })}\n`);
}

function serve(): void {
  while (taken < PLACES) {
    const message = waiting.shift();
    if (message === undefined) return;
    taken += 1;
    setTimeout(() => {
      taken -= 1;
      answer(message, { result: { content: [{ type: "text", text: message.params?.arguments?.text ?? "" }] } });
      serve();
    }, TAKES_MS);
  }
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const message = JSON.parse(line) as Message;
  if (message.id === undefined) return;
  switch (message.method) {
    case "initialize":
      return answer(message, {
        result: { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: INFO },
      });
    case "tools/list":
      return answer(message, { result: { tools: [TOOL] } });
    case "ping":
      return answer(message, { result: {} });
    case "tools/call":
      waiting.push(message);
      return serve();
    default:
      return answer(message, { error: { code: -32601, message: "Method not found" } });
  }
});
