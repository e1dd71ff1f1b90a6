/**
 * A gateway that is killed (SIGKILL) with calls of tools with steps at each moment of their work: the next one on the same store
 * undoes what was begun, and records what it cannot know.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { StoredRecord } from "../../src/audit/record.ts";
import { openedIn } from "../audit/opened.ts";
import { REFUND, type RefundDesk, refundDesk } from "../e2e/refund-desk.ts";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { waitFor } from "../fixtures/processes.ts";
import { text } from "../fixtures/raw-server.ts";

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
const BEGUN = MOMENTS.filter(({ recorded }) => recorded !== undefined).length;

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
  await killedAtAllMoments(settings);
  for (const desk of desks) {
    desk.before = () => undefined;
    desk.after = () => undefined;
  }
  next = await world(settings, { leaseMs: LEASE_MS });
  // When nothing is left to do, all was looked at.
  await waitFor(() => recovered().length >= BEGUN && left().length === 0, PATIENCE_MS);
}, 240_000);
afterAll(async () => {
  await next?.[Symbol.asyncDispose]();
  for (const desk of desks) await desk[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

test.each(MOMENTS.map((moment, number) => ({ ...moment, number, undo: moment.tool === BLIND ? "blindly" : "by id" })))(
  "killed $when the desk does $at, undone $undo: nothing is left that can be undone, and the record says the rest",
  ({ left, recorded, number }) => {
    const mine = () => recovered().filter(({ call }) => call?.name === `refund_${number}`);
    expect([...(desks[number]?.refunds.values() ?? [])]).toEqual(left);
    expect(mine()).toMatchObject(recorded === undefined ? [] : [{ outcome: "abandoned", details: recorded }]);
  },
);

test("nothing is left to do, and nothing is undone twice", () => {
  expect(left()).toEqual([]);
  expect(recovered()).toHaveLength(BEGUN);
  const undone = desks.map(({ calls }) => calls.filter(({ tool }) => tool === "reject_refund"));
  // Who died in the middle of undoing cannot know that it is done: the same is asked once more, and says that it is the same.
  for (const [number, { at }] of MOMENTS.entries())
    expect(new Set(undone[number]?.map(({ key }) => key)).size).toBe(
      at === "get_order" || (undone[number]?.length ?? 0) === 0 ? 0 : 1,
    );
});

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
    const { url, token } = JSON.parse(said) as { url: string; token: string };
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
    await ended;
    await answered;
  } finally {
    child.kill("SIGKILL");
  }
}
const ACCEPT = "application/json, text/event-stream";

function looked<T>(at: (store: DatabaseSync) => T): T {
  const store = new DatabaseSync(place, { timeout: 10_000 });
  try {
    return at(store);
  } finally {
    store.close();
  }
}
const recovered = (): StoredRecord[] =>
  looked((store) => openedIn(store).filter(({ details }) => details?.["recovered"] === true));
const left = () => looked((store) => store.prepare("SELECT id FROM records WHERE kind = 'unfinished'").all());
