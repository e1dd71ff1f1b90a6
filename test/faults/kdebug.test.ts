/**
 * A gateway that is killed (SIGKILL) with calls of tools with steps at each moment of their work: the next one on the same store
 * undoes what was begun, and records what it cannot know.
 */
import { spawn } from "node:child_process";
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { StoredRecord } from "../../src/audit/record.ts";
import { REFUND, type RefundDesk, refundDesk } from "../e2e/refund-desk.ts";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { waitFor } from "../fixtures/processes.ts";
import { text } from "../fixtures/raw-server.ts";

appendFileSync("/tmp/h6/trace", `imported ${Date.now()}\n`);
type Json = Record<string, unknown>;
type Tool = "get_order" | "create_refund" | "approve_refund" | "reject_refund";
const [order, refund, approve] = REFUND.steps;
/** Its undo needs no answer: also what nobody heard of is undone. */
const BLIND = {
  ...REFUND,
  steps: [order, { ...refund, undo: { call: "desk/reject_refund", with: { refund: "RF-1" } } }, approve],
};
const undone = { steps: [{ step: "refund", undo: true, outcome: "done" }] };

/** Where a call is when its gateway dies: at the desk's tool, which has done nothing yet, or has done it and not answered. */
const MOMENTS: readonly {
  readonly at: Tool;
  readonly when: "before" | "after";
  readonly tool: object;
  /** The refunds that are left at the desk. */
  readonly left: readonly string[];
  /** What the record of the next gateway has in it; undefined where nothing was begun that could have to be undone. */
  readonly recorded: object | undefined;
}[] = [
  { at: "get_order", when: "before", tool: REFUND, left: [], recorded: undefined },
  { at: "get_order", when: "after", tool: REFUND, left: [], recorded: undefined },
  // Which refund to reject stood in the answer that never came.
  { at: "create_refund", when: "before", tool: REFUND, left: [], recorded: { steps: [], unsure: ["refund"] } },
  { at: "create_refund", when: "after", tool: REFUND, left: ["open"], recorded: { steps: [], unsure: ["refund"] } },
  { at: "create_refund", when: "before", tool: BLIND, left: [], recorded: undone },
  { at: "create_refund", when: "after", tool: BLIND, left: [], recorded: undone },
  { at: "approve_refund", when: "before", tool: REFUND, left: [], recorded: { ...undone, unsure: ["approve"] } },
  { at: "approve_refund", when: "after", tool: REFUND, left: [], recorded: { ...undone, unsure: ["approve"] } },
  { at: "reject_refund", when: "before", tool: REFUND, left: [], recorded: undone },
  { at: "reject_refund", when: "after", tool: REFUND, left: [], recorded: undone },
];
const LEASE_MS = 3_000;
const PATIENCE_MS = 60_000;

let folder: string;
let place: string;
/** One for each moment. */
const desks: RefundDesk[] = [];
let next: World;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "drawbridge-killed-"));
  place = join(folder, "gateway.db");
  for (const _ of MOMENTS) desks.push(await refundDesk());
  const settings = {
    store: `sqlite:${place}`,
    servers: Object.fromEntries(desks.map(({ url }, number) => [`desk${number}`, { url }])),
    tools: Object.fromEntries(
      MOMENTS.map(({ tool }, number) => [
        `refund_${number}`,
        JSON.parse(JSON.stringify(tool).replaceAll('"desk/', `"desk${number}/`)) as Json,
      ]),
    ),
  };
  appendFileSync("/tmp/h6/trace", `${Date.now()} ` + "go\n"); await killedAtAllMoments(settings);appendFileSync("/tmp/h6/trace", `${Date.now()} ` + "killed\n");
  for (const desk of desks) {
    desk.before = () => undefined;
    desk.after = () => undefined;
  }
  next = await world(settings, { leaseMs: LEASE_MS });appendFileSync("/tmp/h6/trace", `${Date.now()} ` + "next\n");
}, 240_000);
afterAll(async () => {
  await next?.[Symbol.asyncDispose]();
  for (const desk of desks) await desk[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

appendFileSync("/tmp/h6/trace", `before each ${Date.now()}\n`);
test.each(MOMENTS.map((moment, number) => ({ ...moment, number, undo: moment.tool === BLIND ? "blindly" : "by id" })))(
  "killed $when the desk does $at, undone $undo: nothing is left that can be undone, and the record says the rest",
  async ({ left, recorded, number }) => {
    const mine = () => recovered().filter(({ call }) => call?.name === `refund_${number}`);
    // What is undone last shows that all was looked at.
    await waitFor(
      () => recovered().length >= MOMENTS.filter((moment) => moment.recorded !== undefined).length,
      PATIENCE_MS,
    );
    expect([...(desks[number]?.refunds.values() ?? [])]).toEqual(left);
    expect(mine()).toMatchObject(recorded === undefined ? [] : [{ outcome: "abandoned", details: recorded }]);
  },
  PATIENCE_MS + 10_000,
);

test(
  "nothing is left to do, and nothing is undone twice",
  async () => {
    await waitFor(() => query("SELECT 1 FROM records WHERE kind = 'unfinished'").length === 0, PATIENCE_MS);
    const { length } = recovered();
    expect(length).toBe(MOMENTS.filter(({ recorded }) => recorded !== undefined).length);
  },
  PATIENCE_MS + 10_000,
);

/** Starts a gateway, has a call of each tool come to its moment, and kills it with all of them under way. */
async function killedAtAllMoments(settings: Json): Promise<void> {
  const script = join(import.meta.dirname, "killed-gateway.ts");
  const child = spawn(process.execPath, [script, JSON.stringify(settings), String(LEASE_MS)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  try {
    let said = "";
    child.stdout.on("data", (chunk) => {
      said += String(chunk);
    });
    await waitFor(() => said.includes("\n") || child.exitCode !== null, PATIENCE_MS);
appendFileSync("/tmp/h6/trace", `${Date.now()} ` + "said\n");    const { url, token } = JSON.parse(said) as { url: string; token: string };
    const there = new Set<number>();
    const asked = MOMENTS.map(({ at, when }, number) => {
      const stops = (now: typeof when) => (tool: string) => {
        if (now === "before" && at === "reject_refund" && tool === "approve_refund")
          return { ...text("no"), isError: true };
        if (tool !== at || now !== when) return undefined;
        there.add(number);
        return new Promise<Json>(() => {});
      };
      const desk = desks[number];
      if (desk !== undefined) Object.assign(desk, { before: stops("before"), after: stops("after") });
      const [body, headers] = modernRequest("tools/call", {
        name: `refund_${number}`,
        arguments: { order_id: "ORD-1" },
      });
      const sent = { "content-type": "application/json", accept: ACCEPT, authorization: `Bearer ${token}`, ...headers };
      return fetch(url, { method: "POST", headers: sent, body: JSON.stringify(body) }).then(
        async (response) => expect.fail(`refund_${number} was answered: ${await response.text()}`),
        () => undefined,
      );
    });
    const answered = Promise.all(asked);
    await Promise.race([answered, waitFor(() => there.size === MOMENTS.length, PATIENCE_MS)]);
    child.kill("SIGKILL");
appendFileSync("/tmp/h6/trace", `${Date.now()} ` + `signal ${there.size}\n`);    await ended;appendFileSync("/tmp/h6/trace", `${Date.now()} ` + "ended\n");
    await answered;
  } finally {
    child.kill("SIGKILL");
  }
}
const ACCEPT = "application/json, text/event-stream";

function query<T>(sql: string): T[] {
  const store = new DatabaseSync(place, { timeout: 10_000 });
  try {
    return store.prepare(sql).all() as T[];
  } finally {
    store.close();
  }
}
const recovered = () =>
  query<{ json: string }>("SELECT json FROM audit ORDER BY sequence")
    .map(({ json }) => JSON.parse(json) as StoredRecord)
    .filter(({ details }) => details?.["recovered"] === true);
