/** `drawbridge dev` as somebody starts it who writes a server: a project in a folder of its own, the command, and its page. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../house/sources.ts";

export type Json = Record<string, unknown>;

export interface DevWorld extends AsyncDisposable {
  readonly folder: string;
  readonly origin: string;
  /** The launch link, not used yet. */
  readonly launch: string;
  readonly child: ChildProcess;
  /** Both streams of the command, so far. */
  output(): string;
  /** Resolves when the command has said it after `from` characters. */
  said(text: string | RegExp, from?: number): Promise<void>;
  /** Uses the launch link, and gives the cookie. */
  enter(): Promise<string>;
  /** Asks as the page does. */
  api(cookie: string, name: string, wanted: object): Promise<{ readonly status: number; readonly body: Json }>;
  edit(file: string, change: (text: string) => string): void;
  /** Resolves with the exit code. */
  ended(): Promise<number | null>;
}

export const ANN = { role: "support", subject: "ann", groups: ["support"], scopes: ["mcp:read", "mcp:call"] };
export const OWNER = { ...ANN, role: "owner", subject: "olive", groups: ["owner"] };

const WORDS = `{ useWhen: "when somebody asks for it", notWhen: "for anything else", returns: "what was done", limits: "one at a time" }`;

export const SERVER = `import { prompt, refuse, resource, server, tool } from "drawbridge-mcp/author";
import { z } from "zod";
import { orders } from "./orders.ts";

const words = ${WORDS};
const order_id = z.string().regex(/^ORD-[0-9]{6}$/).describe("The order's number, e.g. ORD-100007.");

const lookUpOrder = tool({
  name: "look_up_order",
  title: "Look up an order",
  description: { does: "Shows one order and its state.", ...words },
  input: z.object({ order_id }),
  output: z.object({ id: z.string(), status: z.string(), customer: z.object({ email: z.string() }), items: z.array(z.object({ sku: z.string(), count: z.int() })).max(20) }),
  access: "read",
  mask: { "customer/email": "token" },
  handler: ({ order_id }) => orders.get(order_id) ?? refuse("There is no such order."),
});

const planDelivery = tool({
  name: "plan_delivery",
  title: "Plan a delivery",
  description: { does: "Plans when and how an order is brought.", ...words },
  input: z.object({
    order_id,
    day: z.iso.date().describe("On which day."),
    way: z.enum(["post", "courier", "collect"]).describe("How it gets there."),
    boxes: z.int().min(1).max(20).describe("How many boxes."),
    fragile: z.boolean().describe("Whether it may break."),
    gift: z.boolean().optional().describe("Whether it is wrapped."),
    days: z.array(z.enum(["mon", "tue", "wed"])).max(3).optional().describe("Other days that would do."),
    contents: z.array(z.object({ sku: z.string().max(20).describe("What."), count: z.int().min(1).max(99).describe("How many.") })).max(5).optional().describe("What is in the boxes."),
    note: z.string().max(400).optional().describe("What the driver should know."),
  }),
  output: z.object({ planned: z.string() }),
  access: "write",
  approval: { by: ["owner"], fourEyes: true, reason: "The driver is paid for it." },
  handler: ({ order_id, day, way, boxes, fragile, gift, days = [], contents = [] }) => ({
    planned: JSON.stringify({ order_id, day, way, boxes, fragile, gift, days, contents }),
  }),
});

const engrave = tool({
  name: "engrave",
  title: "Engrave a mug",
  description: { does: "Has words engraved on a mug.", ...words },
  input: z.object({ sku: z.enum(["MUG-01", "MUG-02"]).describe("Which mug, e.g. MUG-01.") }),
  output: z.object({ sku: z.string(), words: z.string() }),
  access: "write",
  async handler({ sku }, { elicit }) {
    const answer = await elicit("What shall it say?", z.object({ words: z.string().max(20).describe("The words.") }));
    if (answer.action !== "accept") refuse("Nothing was ordered.");
    return { sku, words: answer.content.words };
  },
});

const cancelOrder = tool({
  name: "cancel_order",
  title: "Cancel an order",
  description: { does: "Cancels an order that was not sent yet.", ...words },
  input: z.object({ order_id }),
  output: z.object({ cancelled: z.boolean() }),
  access: "destructive",
  scopes: ["orders:cancel"],
  handler: () => {
    throw new Error("the warehouse does not answer");
  },
});

const waits = tool({
  name: "wait_for_stock",
  title: "Wait for stock",
  description: { does: "Waits until there is stock again.", ...words },
  input: z.object({}),
  output: z.object({ there: z.boolean() }),
  access: "read",
  handler: (_, { signal, progress }) => {
    progress(1, 3, "asked the warehouse");
    return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  },
});

const order = resource({
  uri: "orders://{order_id}",
  name: "order",
  title: "An order",
  description: "One order by its number.",
  input: z.object({ order_id }),
  output: z.object({ id: z.string(), status: z.string() }),
  handler: ({ order_id }) => orders.get(order_id) ?? refuse("There is no such order."),
});

const apology = prompt({
  name: "apology",
  title: "An apology",
  description: "Words for a customer who waits.",
  input: z.object({ order_id }),
  handler: ({ order_id }) => \`Write to the customer of \${order_id} and apologise.\`,
});

export const desk = server({
  name: "order-desk",
  version: "1.0.0",
  tools: [lookUpOrder, planDelivery, engrave, cancelOrder, waits],
  resources: [order],
  prompts: [apology],
});
`;

const ORDERS = `export const orders = new Map([
  ["ORD-100007", { id: "ORD-100007", status: "shipped", customer: { email: "ann@example.net", id: 77 }, items: [{ sku: "MUG-01", count: 2 }], cost: 12 }],
]);
`;

const SETTINGS = `servers:
  desk: { module: ./server.ts }
roles:
  owner: { may: ["*"] }
  support: { may: ["access:read", "resource:*"] }
assign:
  - { role: owner, group: owner }
  - { role: support, group: support }
`;

const FILES = { "server.ts": SERVER, "orders.ts": ORDERS, "drawbridge.yaml": SETTINGS };

const SAID_MS = 50_000;

/** Writes the project and starts the command in it. */
export async function devWorld(
  words: readonly string[] = [],
  files: Readonly<Record<string, string>> = FILES,
): Promise<DevWorld> {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-dev-"));
  mkdirSync(join(folder, "node_modules"));
  for (const [name, to] of [
    ["drawbridge-mcp", root],
    ["zod", join(root, "node_modules/zod")],
  ] as const)
    symlinkSync(to, join(folder, "node_modules", name), "junction");
  for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, file), text);
  // No terminal and no browser: nothing is opened.
  const child = spawn(process.execPath, [join(root, "bin/drawbridge.js"), "dev", ...words], {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env["PATH"] ?? "", HOME: tmpdir() },
  });
  let output = "";
  const listeners = new Set<() => void>();
  const heard = (chunk: Buffer) => {
    output += chunk;
    for (const listener of listeners) listener();
  };
  child.stdout.on("data", heard);
  child.stderr.on("data", heard);
  const ended = new Promise<number | null>((resolve) => child.on("exit", (code) => resolve(code)));
  const said = (text: string | RegExp, from = 0) =>
    new Promise<void>((resolve, reject) => {
      const settle = (outcome: () => void) => {
        clearTimeout(late);
        listeners.delete(look);
        outcome();
      };
      const look = () => {
        const found = typeof text === "string" ? output.slice(from).includes(text) : text.test(output.slice(from));
        if (found) settle(resolve);
      };
      const failed = (why: string) =>
        settle(() => reject(new Error(`${why} without having said ${String(text)}:\n${output}`)));
      // So that what was started is stopped, which a test that is given up does not do.
      const late = setTimeout(() => failed("waited"), SAID_MS);
      listeners.add(look);
      void ended.then(() => failed("ended"));
      look();
    });
  const end = async () => {
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), 15_000);
    await ended;
    clearTimeout(late);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await said("launch=");
  } catch (error) {
    await end();
    throw error;
  }
  const launch = /http:\S+launch=\S+/.exec(output)?.[0] ?? "";
  const { origin } = new URL(launch);
  return {
    folder,
    origin,
    launch,
    child,
    output: () => output,
    said,
    async enter() {
      const { headers } = await fetch(launch, { redirect: "manual" });
      return (headers.get("set-cookie") ?? "").split(";")[0] ?? "";
    },
    async api(cookie, name, wanted) {
      const answer = await fetch(`${origin}/api/${name}`, {
        method: "POST",
        headers: { cookie, origin, "content-type": "application/json" },
        body: JSON.stringify(wanted),
      });
      return { status: answer.status, body: (await answer.json()) as Json };
    },
    edit(file, change) {
      const path = join(folder, file);
      writeFileSync(path, change(readFileSync(path, "utf8")));
    },
    ended: () => ended,
    [Symbol.asyncDispose]: end,
  };
}

/** One request with headers that `fetch` would not send. */
export function asked(
  url: string,
  headers: Record<string, string>,
  method = "GET",
  body = "",
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, text }));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}
