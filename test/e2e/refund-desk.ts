/** A desk that makes refunds, over HTTP in this process: what it did can be counted, and each of its tools can be made to fail. */
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Era, Json, Message } from "../fixtures/messages.ts";
import { type Call, Peer, type RawServer, rawServer, structured, text } from "../fixtures/raw-server.ts";

export interface RefundDesk extends AsyncDisposable {
  readonly url: string;
  /** What was called, in order. */
  readonly calls: { readonly tool: string; readonly args: Json; readonly key: unknown }[];
  /** Refunds by id: `open` or `approved`. Rejected ones are gone. */
  readonly refunds: Map<string, string>;
  /** Called before a tool does anything; what it answers is the answer, and nothing is done. */
  before: (tool: string, call: Call) => Promise<Json | undefined> | Json | undefined;
  /** Called when it is done, before it is answered. */
  after: (tool: string, call: Call) => Promise<Json | undefined> | Json | undefined;
}

const id = { type: "string", maxLength: 40 };
const amount = { type: "number", exclusiveMinimum: 0 };

export async function refundDesk(era: Era = "legacy"): Promise<RefundDesk> {
  const calls: RefundDesk["calls"] = [];
  const refunds = new Map<string, string>();
  const tool = (name: string, properties: Json, work: (args: Json) => Json, more: Json = {}) => ({
    description: `${name} of the desk`,
    properties,
    required: Object.keys(properties),
    more,
    async run(call: Call): Promise<Json> {
      calls.push({ tool: name, args: call.args, key: call.meta["drawbridge/idempotency-key"] });
      return (await desk.before(name, call)) ?? done(name, call, work(call.args));
    },
  });
  const done = async (name: string, call: Call, value: Json) => (await desk.after(name, call)) ?? value;
  const tools = {
    get_order: tool(
      "get_order",
      { id },
      (args) =>
        structured({ id: args["id"], status: args["id"] === "ORD-2" ? "open" : "paid", total: 40, card: "4111" }),
      { annotations: { readOnlyHint: true } },
    ),
    create_refund: tool("create_refund", { order: id, amount }, (args) => {
      const refund = `RF-${refunds.size + 1}`;
      refunds.set(refund, "open");
      return structured({ refund, amount: args["amount"] });
    }),
    reject_refund: tool("reject_refund", { refund: id }, (args) => {
      refunds.delete(String(args["refund"]));
      return structured({ rejected: true });
    }),
    approve_refund: tool("approve_refund", { refund: id }, (args) => {
      if (!refunds.has(String(args["refund"]))) return { ...text("no such refund"), isError: true };
      refunds.set(String(args["refund"]), "approved");
      return structured({ approved: true });
    }),
  };
  const offer = {
    serverInfo: { name: "desk", version: "1" },
    instructions: "",
    tools,
    resources: [],
    templates: [],
    prompts: [],
    read: () => undefined,
    prompt: () => ({}),
    complete: () => ({}),
  };
  const server = rawServer(offer, { era, pageSize: 100 });
  const http = createServer((request, response) => void serve(server, sessions, request, response));
  const sessions = new Map<string, Peer>();
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const desk: RefundDesk = {
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/mcp`,
    calls,
    refunds,
    before: () => undefined,
    after: () => undefined,
    async [Symbol.asyncDispose]() {
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
    },
  };
  return desk;
}

/** Answers are event streams, so that questions have a place. */
async function serve(
  server: RawServer,
  sessions: Map<string, Peer>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== "POST") return void response.writeHead(405).end();
  const message = JSON.parse(Buffer.concat(await request.toArray()).toString()) as Message;
  const tell = (said: Message) => void response.write(`data: ${JSON.stringify(said)}\n\n`);
  const known = sessions.get(String(request.headers["mcp-session-id"]));
  const peer = known ?? new Peer(() => {});
  const headers: Record<string, string> = { "content-type": "text/event-stream" };
  if (message.method === "initialize") {
    headers["mcp-session-id"] = randomUUID();
    sessions.set(headers["mcp-session-id"], peer);
  }
  if (message.id === undefined || message.method === undefined) {
    response.writeHead(202).end();
    await server.handle(message, peer);
    return;
  }
  response.writeHead(200, headers);
  const reply = await server.handle(message, peer, { tell });
  if (reply !== undefined) tell(reply);
  response.end();
}

/** The contract over it: order → refund → approve, all or nothing. */
export const REFUND = {
  description: "Refunds a part of a paid order.",
  access: "write",
  input: {
    order_id: { type: "string", pattern: "^ORD-[0-9]{1,6}$", description: "The order." },
    percent: { type: "integer", minimum: 1, maximum: 100, default: 100 },
  },
  steps: [
    { id: "order", call: "desk/get_order", with: { id: "=args.order_id" }, expect: "steps.order.status == 'paid'" },
    {
      id: "refund",
      call: "desk/create_refund",
      with: { order: "=args.order_id", amount: "=steps.order.total * args.percent / 100" },
      undo: { call: "desk/reject_refund", with: { refund: "=steps.refund.refund" } },
    },
    { id: "approve", call: "desk/approve_refund", with: { refund: "=steps.refund.refund" } },
  ],
  result: { refund: "=steps.refund.refund", amount: "=steps.refund.amount", card: "=steps.order.card" },
  output: ["refund", "amount"],
} as const;
