/**
 * What the order desk's contracts change, measured: the same ten jobs are done with the desk alone and through its contracts, on a fresh
 * database each. Writes the table into README.md: `node scripts/before-after.ts`.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Look, openLook } from "../src/cli/look.ts";
import { loadSettings } from "../src/config/load.ts";
import {
  type Contract,
  compileContract,
  compileOutcome,
  isContract,
  type OutcomeSettings,
} from "../src/contract/contract.ts";
import { principalOf, tryCall } from "../src/contract/examples.ts";
import { estimateTokens } from "../src/contract/tokens.ts";
import type { JsonObject } from "../src/core/call.ts";
import { compileExpression } from "../src/policy/expressions.ts";

const root = join(import.meta.dirname, "..");
const SETTINGS = join(root, "examples/orders/drawbridge.yaml");
const BEGIN = "<!-- written by `node scripts/before-after.ts`: begin -->";
const END = "<!-- written by `node scripts/before-after.ts`: end -->";

type Call = readonly [tool: string, args: JsonObject];
interface Job {
  readonly alone: readonly Call[];
  readonly contracted: Call;
}

const order_id = "ORD-100007";
const open = "ORD-100406";
const email = "daniel.singh1@example.net";
const text = "We are sorry that the parcel was wet.";
const line = { sku: "KET-01", quantity: "2" };
const tracking_number = "GB123456789TR";

/** Each as an agent would do it that knows the tools. In this order: some need what others did. */
const JOBS: Readonly<Record<string, Job>> = {
  "look up an order": { alone: [["get_order", { order_id }]], contracted: ["look_up_order", { order_id }] },
  "find somebody's orders": {
    alone: [
      ["search_customers", { query: email }],
      ["get_customer_orders", { customer_id: "CUS-0001" }],
    ],
    contracted: ["find_orders", { email }],
  },
  "see what is in stock": { alone: [["list_products", {}]], contracted: ["list_products", {}] },
  "see what waits": {
    alone: [
      ["list_orders", { status: "paid" }],
      ["list_orders", { status: "packed" }],
      ["list_refunds", { status: "requested" }],
    ],
    contracted: ["show_open_work", {}],
  },
  "place an order": {
    alone: [
      ["create_order", { customer_id: "CUS-0001" }],
      ["add_order_item", { order_id: "ORD-100421", ...line }],
      ["adjust_stock", { sku: "KET-01", by: "-2" }],
    ],
    contracted: ["place_order", { customer_id: "CUS-0001", sku: "KET-01", quantity: 2 }],
  },
  "ship it": {
    alone: [["create_shipment", { order_id: open, carrier: "Northway", tracking_number }]],
    contracted: ["ship_order", { order_id: open, carrier: "Northway", tracking_number }],
  },
  "ask for a refund": {
    alone: [["create_refund", { order_id, amount: "1.00", reason: "Arrived late" }]],
    contracted: ["request_refund", { order_id, amount_pence: 100, reason: "Arrived late" }],
  },
  "decide on it": {
    alone: [["reject_refund", { refund_id: "{refund}" }]],
    contracted: ["decide_refund", { refund_id: "{refund}", decision: "reject" }],
  },
  "write to its customer": {
    alone: [
      ["get_order", { order_id }],
      ["email_customer", { to: email, subject: "Your order", body: text }],
    ],
    contracted: ["write_about_order", { order_id, to: "customer", text }],
  },
  "cancel an order": {
    alone: [["cancel_order", { order_id: "ORD-100421", reason: "Changed my mind" }]],
    contracted: ["cancel_order", { order_id: "ORD-100421", reason: "Changed my mind" }],
  },
};

/** Columns that say something of a person. */
const PERSONAL: ReadonlySet<string> = new Set([
  ..."name email phone national_insurance_number date_of_birth address city postcode notes"
    .split(" ")
    .map((column) => `customers.${column}`),
  "orders.delivery_note",
  "orders.payment_reference",
  "shipments.address",
  "refunds.requested_by",
  "outbox.recipient",
  "outbox.subject",
  "outbox.body",
]);

/** The table that the fields of an answer come from, by the member that they are in; at the top by the tool. */
const TABLES: Readonly<Record<string, string>> = {
  customer: "customers",
  items: "order_items",
  shipments: "shipments",
  refunds: "refunds",
  refunds_to_decide: "refunds",
  products: "products",
  orders: "orders",
  to_pack: "orders",
  to_ship: "orders",
  look_up_order: "orders",
  place_order: "orders",
  cancel_order: "orders",
  ship_order: "shipments",
  request_refund: "refunds",
};

export interface Side {
  readonly tools: number;
  readonly others: number;
  readonly tokens: number;
  /** Arguments that take text of any length. */
  readonly unbounded: number;
  readonly largestBytes: number;
  readonly allBytes: number;
  readonly calls: number;
  readonly columns: number;
  readonly personal: number;
}
export interface Measured {
  readonly alone: Side;
  readonly contracted: Side;
  readonly support: { readonly tools: number; readonly tokens: number };
  readonly allColumns: number;
}

/** Measures both sides. The same numbers each time. */
export async function measure(): Promise<Measured> {
  const columns = await withDesk(columnsOf);
  const alone = await withDesk(async (look) => {
    const { tools, resources, resourceTemplates, prompts } = await look.offered("orders");
    const sizes = await sizesOf(
      ({ alone: calls }) => calls,
      async (tool, args) => {
        const answer = await look.call("orders", tool, args);
        return { bytes: bytesOf(answer), refund: refundIn(JSON.stringify(answer)) };
      },
    );
    return {
      ...sizes,
      tools: tools.length,
      others: resources.length + resourceTemplates.length + prompts.length,
      tokens: tokensOf(tools),
      unbounded: tools.map((tool) => unboundedIn(tool)).reduce((sum, one) => sum + one, 0),
      // run_sql reads them all.
      columns: columns.length,
      personal: columns.filter((column) => PERSONAL.has(column)).length,
    };
  });
  return withDesk(async (look, settings) => {
    const contracts = await contractsOf(look, settings);
    const served = contracts.map((contract) => contract.served);
    const byName = new Map(contracts.map((contract) => [contract.name, contract]));
    const sizes = await sizesOf(
      ({ contracted }) => [contracted],
      async (tool, args) => {
        const contract = byName.get(tool);
        if (contract === undefined) throw new Error(`no contract ${tool}`);
        const tried = await tryCall(contract, args, principalOf({}), look.call);
        if (tried.refused !== undefined) throw new Error(`${tool}: ${tried.refused}`);
        return { bytes: tried.bytes, refund: refundIn(JSON.stringify(tried.returned)) };
      },
    );
    const reached = new Set(
      Object.entries(settings.tools ?? {}).flatMap(([name, { output }]) =>
        (output?.fields ?? []).map((field) => columnOf(name, field)),
      ),
    );
    const within = columns.filter((column) => reached.has(column));
    const support = (settings.roles?.["support"]?.may ?? []).map(String);
    const seen = served.filter(({ name }) => support.includes(String(name)));
    const contracted: Side = {
      ...sizes,
      tools: served.length,
      others: Object.keys(settings.resources ?? {}).length + Object.keys(settings.prompts ?? {}).length,
      tokens: tokensOf(served),
      unbounded: served.map((tool) => unboundedIn(tool)).reduce((sum, one) => sum + one, 0),
      columns: within.length,
      personal: within.filter((column) => PERSONAL.has(column)).length,
    };
    return {
      alone,
      contracted,
      support: { tools: seen.length, tokens: tokensOf(seen) },
      allColumns: columns.length,
    };
  });
}

type Settings = Awaited<ReturnType<typeof loadSettings>>["settings"];

/** A desk of its own for `work`, with a database that nobody has changed. */
async function withDesk<T>(work: (look: Look, settings: Settings) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "before-after-"));
  try {
    const loaded = await loadSettings(SETTINGS, { env: process.env });
    const { orders } = loaded.settings.servers;
    if (orders === undefined || !("command" in orders)) throw new Error("the desk has no server orders");
    // A job after the other, by one process.
    const server = { ...orders, environment: { ORDERS_DB: join(folder, "orders.db") } };
    const settings = { ...loaded.settings, servers: { orders: server } };
    await using look = openLook({ ...loaded, settings }, process);
    return await work(look, settings);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function contractsOf(look: Look, { tools = {} }: Settings): Promise<readonly Contract[]> {
  const offered = new Map((await look.offered("orders")).tools.map((tool) => [String(tool["name"]), tool]));
  const found: Contract[] = [];
  for (const [name, contract] of Object.entries(tools)) {
    const from = contract.from?.slice("orders/".length) ?? "";
    const made =
      contract.steps === undefined
        ? await compileContract(name, contract, {
            server: "orders",
            kind: "tool",
            name: from,
            value: offered.get(from) ?? {},
            text: "",
          })
        : await compileOutcome(name, contract as OutcomeSettings, {
            compile: compileExpression,
            find(_, tool) {
              const value = offered.get(tool);
              return value && { value, pin: tool };
            },
          });
    if (!isContract(made)) throw new Error(`${name}: ${made.map(({ message }) => message).join("; ")}`);
    found.push(made);
  }
  return found;
}

async function sizesOf(
  callsOf: (job: Job) => readonly Call[],
  run: (tool: string, args: JsonObject) => Promise<{ readonly bytes: number; readonly refund: string | undefined }>,
): Promise<Pick<Side, "largestBytes" | "allBytes" | "calls">> {
  const sizes: number[] = [];
  let refund = "";
  for (const [tool, args] of Object.values(JOBS).flatMap(callsOf)) {
    const own = JSON.parse(JSON.stringify(args).replaceAll("{refund}", refund)) as JsonObject;
    const answer = await run(tool, own);
    sizes.push(answer.bytes);
    if (/refund/.test(tool)) refund = answer.refund ?? refund;
  }
  return {
    largestBytes: Math.max(...sizes),
    allBytes: sizes.reduce((sum, size) => sum + size, 0),
    calls: sizes.length,
  };
}

const bytesOf = (answer: JsonObject) => Buffer.byteLength(JSON.stringify(answer));
const tokensOf = (tools: readonly JsonObject[]) => estimateTokens(JSON.stringify({ tools }));
const refundIn = (answer: string) => /REF-[0-9]{5}/.exec(answer)?.[0];

/** Every column of the desk's database, as `table.column`. */
async function columnsOf(look: Look): Promise<readonly string[]> {
  const sql = `SELECT m.name || '.' || p.name AS field FROM sqlite_master m JOIN pragma_table_info(m.name) p
    WHERE m.type = 'table' ORDER BY 1`;
  const { content } = (await look.call("orders", "run_sql", { sql })) as unknown as { content: { text: string }[] };
  return (JSON.parse(content[0]?.text ?? "[]") as { field: string }[]).map(({ field }) => field);
}

/** The column that a field of an answer shows, when it shows one. */
function columnOf(tool: string, field: string): string {
  const parts = field.split("/").filter((part) => part !== "*");
  const name = parts.at(-1) ?? "";
  const table = TABLES[parts.at(-2) ?? tool];
  // Some go by another name.
  if (name === "customer_id") return "customers.id";
  return `${table}.${name === "refund_id" ? "id" : name}`;
}

function unboundedIn(tool: JsonObject): number {
  const { properties = {} } = (tool["inputSchema"] ?? {}) as { properties?: Record<string, JsonObject> };
  return Object.values(properties).filter(
    ({ type, maxLength, pattern, enum: values }) =>
      type === "string" && maxLength === undefined && pattern === undefined && values === undefined,
  ).length;
}

/** The rows as Markdown. */
export function table({ alone, contracted, support, allColumns }: Measured): string {
  const n = (number: number) => number.toLocaleString("en-GB");
  const rows: readonly (readonly [string, string, string])[] = [
    ["tools", n(alone.tools), `${n(contracted.tools)} (support: ${support.tools})`],
    ["resources, templates and prompts", n(alone.others), n(contracted.others)],
    ["tokens of the `tools/list` answer", n(alone.tokens), `${n(contracted.tokens)} (support: ${n(support.tokens)})`],
    ["arguments that take any text", n(alone.unbounded), n(contracted.unbounded)],
    ["calls for the desk's ten jobs", n(alone.calls), n(contracted.calls)],
    ["bytes of their answers", n(alone.allBytes), n(contracted.allBytes)],
    ["bytes of the largest one", n(alone.largestBytes), n(contracted.largestBytes)],
    [`columns of the database within reach (of ${allColumns})`, n(alone.columns), n(contracted.columns)],
    ["of them about a person", n(alone.personal), n(contracted.personal)],
  ];
  return [
    "| | the desk alone | behind its contracts |",
    "|---|--:|--:|",
    ...rows.map((cells) => `| ${cells.join(" | ")} |`),
  ].join("\n");
}

/** README.md with the table in its place. */
export function withTable(readme: string, measured: Measured): string {
  const begin = readme.indexOf(BEGIN);
  const end = readme.indexOf(END);
  if (begin < 0 || end < begin) throw new Error(`README.md lacks the lines ${BEGIN} and ${END}`);
  return `${readme.slice(0, begin)}${BEGIN}\n${table(measured)}\n${readme.slice(end)}`;
}

if (import.meta.main) {
  const file = join(root, "README.md");
  const measured = await measure();
  writeFileSync(file, withTable(readFileSync(file, "utf8"), measured));
  console.log(table(measured));
}
