/**
 * What contracts and `drawbridge-mcp/author` change, measured: the same ten jobs are done with the order desk alone, through its
 * contracts, and with the desk that was written again, on a fresh database each. Writes the table into README.md:
 * `node scripts/before-after.ts`.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { check } from "../src/check/check.ts";
import { ofSettings } from "../src/cli/check-servers.ts";
import { type Look, openLook } from "../src/cli/look.ts";
import type { Terminal } from "../src/cli/terminal.ts";
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
import { clientAt } from "../test/author/clients.ts";

const root = join(import.meta.dirname, "..");
const ALONE = join(root, "examples/orders/careless.yaml");
const CONTRACTED = join(root, "examples/orders/drawbridge.yaml");
const AGAIN = join(root, "examples/orders-safe/drawbridge.yaml");
const PROGRAM = join(root, "examples/orders-safe/server.ts");
const BEGIN = "<!-- written by `node scripts/before-after.ts`: begin -->";
const END = "<!-- written by `node scripts/before-after.ts`: end -->";

type Call = readonly [tool: string, args: JsonObject];
interface Job {
  readonly alone: readonly Call[];
  readonly contracted: Call;
  readonly again: Call;
}

const order_id = "ORD-100007";
const open = "ORD-100406";
const email = "daniel.singh1@example.net";
const text = "We are sorry that the parcel was wet.";
const line = { sku: "KET-01", quantity: "2" };
const tracking_number = "GB123456789TR";

/** Each as an agent would do it that knows the tools. In this order: some need what others did. */
const JOBS: Readonly<Record<string, Job>> = {
  "look up an order": {
    alone: [["get_order", { order_id }]],
    contracted: ["look_up_order", { order_id }],
    again: ["look_up_order", { order_id }],
  },
  "find somebody's orders": {
    alone: [
      ["search_customers", { query: email }],
      ["get_customer_orders", { customer_id: "CUS-0001" }],
    ],
    contracted: ["find_orders", { email }],
    again: ["find_orders", { email }],
  },
  "see what is in stock": {
    alone: [["list_products", {}]],
    contracted: ["list_products", {}],
    again: ["show_desk", { show: "products" }],
  },
  "see what waits": {
    alone: [
      ["list_orders", { status: "paid" }],
      ["list_orders", { status: "packed" }],
      ["list_refunds", { status: "requested" }],
    ],
    contracted: ["show_open_work", {}],
    again: ["show_desk", { show: "open_work" }],
  },
  "place an order": {
    alone: [
      ["create_order", { customer_id: "CUS-0001" }],
      ["add_order_item", { order_id: "ORD-100421", ...line }],
      ["adjust_stock", { sku: "KET-01", by: "-2" }],
    ],
    contracted: ["place_order", { customer_id: "CUS-0001", sku: "KET-01", quantity: 2 }],
    again: ["place_order", { customer_id: "CUS-0001", items: [{ sku: "KET-01", quantity: 2 }] }],
  },
  "ship it": {
    alone: [["create_shipment", { order_id: open, carrier: "Northway", tracking_number }]],
    contracted: ["ship_order", { order_id: open, carrier: "Northway", tracking_number }],
    again: ["ship_order", { order_id: open, carrier: "Northway", tracking_number }],
  },
  "ask for a refund": {
    alone: [["create_refund", { order_id, amount: "1.00", reason: "Arrived late" }]],
    contracted: ["request_refund", { order_id, amount_pence: 100, reason: "Arrived late" }],
    again: ["settle_order", { order_id, remedy: "ask_for_refund", reason: "Arrived late", amount_pence: 100 }],
  },
  "decide on it": {
    alone: [["reject_refund", { refund_id: "{refund}" }]],
    contracted: ["decide_refund", { refund_id: "{refund}", decision: "reject" }],
    again: ["decide_refund", { refund_id: "{refund}", decision: "reject" }],
  },
  "write to its customer": {
    alone: [
      ["get_order", { order_id }],
      ["email_customer", { to: email, subject: "Your order", body: text }],
    ],
    contracted: ["write_about_order", { order_id, to: "customer", text }],
    again: ["settle_order", { order_id, remedy: "write_to_customer", reason: "Arrived damaged", text }],
  },
  "cancel an order": {
    alone: [["cancel_order", { order_id: "ORD-100421", reason: "Changed my mind" }]],
    contracted: ["cancel_order", { order_id: "ORD-100421", reason: "Changed my mind" }],
    again: ["settle_order", { order_id: "ORD-100421", remedy: "cancel", reason: "Changed my mind" }],
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
  settle_order: "refunds",
  decide_refund: "refunds",
};

export interface Side {
  /** What `drawbridge check` says of it. */
  readonly grade: string;
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
/** A side where a role that answers questions sees less. */
export interface Kept extends Side {
  readonly support: { readonly tools: number; readonly tokens: number };
}
export interface Measured {
  readonly alone: Side;
  readonly contracted: Kept;
  readonly again: Kept;
  readonly allColumns: number;
}

/** Measures all sides. The same numbers each time. */
export async function measure(): Promise<Measured> {
  const columns = await withDesk(columnsOf);
  return {
    alone: await withDesk((look) => measureAlone(look, columns)),
    contracted: await withDesk((look, settings) => measureContracted(look, settings, columns)),
    again: await withDesk((look, _, database) => measureAgain(look, database, columns), PROGRAM),
    allColumns: columns.length,
  };
}

async function measureAlone(look: Look, columns: readonly string[]): Promise<Side> {
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
    grade: await gradeOf(ALONE),
    tools: tools.length,
    others: resources.length + resourceTemplates.length + prompts.length,
    tokens: tokensOf(tools),
    unbounded: unboundedIn(tools),
    // run_sql reads them all.
    columns: columns.length,
    personal: personalIn(columns),
  };
}

async function measureContracted(look: Look, settings: Settings, columns: readonly string[]): Promise<Kept> {
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
  const support = (settings.roles?.["support"]?.may ?? []).map(String);
  return {
    ...sizes,
    ...shownBy(served, reached, columns),
    grade: await gradeOf(CONTRACTED),
    others: Object.keys(settings.resources ?? {}).length + Object.keys(settings.prompts ?? {}).length,
    support: seenOf(served.filter(({ name }) => support.includes(String(name)))),
  };
}

async function measureAgain(look: Look, database: string, columns: readonly string[]): Promise<Kept> {
  const { tools, resources, resourceTemplates, prompts } = await look.offered("orders");
  // A refund is decided by a person, who is asked.
  const client = await clientAt({ program: PROGRAM, environment: { ORDERS_DB: database } }, "legacy", () => ({
    action: "accept",
    content: { approve: true },
  }));
  const sizes = await sizesOf(
    ({ again }) => [again],
    async (name, args) => {
      const answer = (await client.callTool({ name, arguments: args })) as JsonObject;
      if (answer["isError"] === true) throw new Error(`${name}: ${JSON.stringify(answer)}`);
      return { bytes: bytesOf(answer), refund: refundIn(JSON.stringify(answer)) };
    },
  ).finally(() => client.close());
  const reached = new Set(
    tools.flatMap((tool) =>
      fieldsOf(tool["outputSchema"] as Schema).map((field) => columnOf(String(tool["name"]), field)),
    ),
  );
  // Its role `support` may `access:read`.
  const reads = (tool: JsonObject) => (tool["annotations"] as JsonObject | undefined)?.["readOnlyHint"] === true;
  return {
    ...sizes,
    ...shownBy(tools, reached, columns),
    grade: await gradeOf(AGAIN),
    others: resources.length + resourceTemplates.length + prompts.length,
    support: seenOf(tools.filter(reads)),
  };
}

function shownBy(tools: readonly JsonObject[], reached: ReadonlySet<string>, columns: readonly string[]) {
  const within = columns.filter((column) => reached.has(column));
  return {
    tools: tools.length,
    tokens: tokensOf(tools),
    unbounded: unboundedIn(tools),
    columns: within.length,
    personal: personalIn(within),
  };
}
const seenOf = (tools: readonly JsonObject[]) => ({ tools: tools.length, tokens: tokensOf(tools) });
const personalIn = (columns: readonly string[]) => columns.filter((column) => PERSONAL.has(column)).length;

async function gradeOf(file: string): Promise<string> {
  return withFolder(async (folder) => {
    const env = { ...process.env, ORDERS_DB: join(folder, "orders.db") };
    const terminal = { cwd: folder, home: folder, platform: process.platform, env, stderr: { write: () => true } };
    const { grades } = await check(await ofSettings(file, "desk", terminal as unknown as Terminal));
    return grades?.overall ?? "none";
  });
}

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
}
/** The paths of its leaves, as contracts write them. */
function fieldsOf({ properties, items }: Schema, path: readonly string[] = []): readonly string[] {
  if (items !== undefined) return fieldsOf(items, [...path, "*"]);
  if (properties === undefined) return [path.join("/")];
  return Object.entries(properties).flatMap(([name, schema]) => fieldsOf(schema, [...path, name]));
}

type Settings = Awaited<ReturnType<typeof loadSettings>>["settings"];

/** A desk of its own for `work`, with a database that nobody has changed. `program`: another one than the settings name. */
async function withDesk<T>(
  work: (look: Look, settings: Settings, database: string) => Promise<T>,
  program?: string,
): Promise<T> {
  return withFolder(async (folder) => {
    const loaded = await loadSettings(CONTRACTED, { env: process.env });
    const { orders } = loaded.settings.servers;
    if (orders === undefined || !("command" in orders)) throw new Error("the desk has no server orders");
    const command = program === undefined ? orders.command : ([process.execPath, program] as const);
    const database = join(folder, "orders.db");
    // A job after the other, by one process.
    const server = { ...orders, command: [...command] as typeof orders.command, environment: { ORDERS_DB: database } };
    const settings = { ...loaded.settings, servers: { orders: server } };
    await using look = openLook({ ...loaded, settings }, process);
    return await work(look, settings, database);
  });
}

async function withFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "before-after-"));
  try {
    return await work(folder);
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
    refund = answer.refund ?? refund;
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

/** How many arguments of these take text of any length. */
function unboundedIn(tools: readonly JsonObject[]): number {
  return tools
    .map(
      ({ inputSchema }) => (inputSchema as { properties?: Record<string, JsonObject> } | undefined)?.properties ?? {},
    )
    .flatMap((properties) => Object.values(properties))
    .filter(
      ({ type, maxLength, pattern, enum: values }) =>
        type === "string" && maxLength === undefined && pattern === undefined && values === undefined,
    ).length;
}

/** The rows as Markdown. */
export function table({ alone, contracted, again, allColumns }: Measured): string {
  const n = (number: number) => number.toLocaleString("en-GB");
  const seen = (side: Kept, what: "tools" | "tokens") => `${n(side[what])} (support: ${n(side.support[what])})`;
  const rows: readonly (readonly string[])[] = [
    ["grade of `drawbridge check`", ...[alone, contracted, again].map(({ grade }) => `**${grade}**`)],
    ["tools", n(alone.tools), seen(contracted, "tools"), seen(again, "tools")],
    ["resources, templates and prompts", n(alone.others), n(contracted.others), n(again.others)],
    ["tokens of the `tools/list` answer", n(alone.tokens), seen(contracted, "tokens"), seen(again, "tokens")],
    ...(
      [
        ["arguments that take any text", "unbounded"],
        ["calls for the desk's ten jobs", "calls"],
        ["bytes of their answers", "allBytes"],
        ["bytes of the largest one", "largestBytes"],
        [`columns of the database within reach (of ${allColumns})`, "columns"],
        ["of them about a person", "personal"],
      ] as const
    ).map(([what, name]) => [what, n(alone[name]), n(contracted[name]), n(again[name])]),
  ];
  return [
    "| | the desk alone | behind its contracts | written again |",
    "|---|--:|--:|--:|",
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
