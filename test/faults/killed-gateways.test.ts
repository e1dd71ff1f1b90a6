/** Gateways that are killed (SIGKILL) at each moment of a tool with steps: the next one undoes what they began, and records it. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { StoredRecord } from "../../src/audit/record.ts";
import { REFUND, type RefundDesk, refundDesk } from "../e2e/refund-desk.ts";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { waitFor } from "../fixtures/processes.ts";
import { text } from "../fixtures/raw-server.ts";

type Json = Record<string, unknown>;
const [order, refund, approve] = REFUND.steps;
/** Its undo needs no answer: also what nobody heard of is undone. */
const BLIND = {
  ...REFUND,
  steps: [order, { ...refund, undo: { call: "desk/reject_refund", with: { refund: "RF-1" } } }, approve],
};

/** When the gateway dies: at the desk's tool, before it did anything or after it. */
interface Moment {
  readonly at: "get_order" | "create_refund" | "approve_refund" | "reject_refund";
  readonly after: boolean;
  readonly tool: object;
  /** What is left at the desk, and what the record of the next gateway says; none where nothing was begun. */
  readonly left: readonly string[];
  readonly recorded: object | undefined;
}
const undone = { steps: [{ step: "refund", undo: true, outcome: "done" }] };
const MOMENTS: readonly Moment[] = [
  { at: "get_order", after: false, tool: REFUND, left: [], recorded: undefined },
  { at: "get_order", after: true, tool: REFUND, left: [], recorded: undefined },
  // The number of the refund is in the answer that never came.
  { at: "create_refund", after: true, tool: REFUND, left: ["open"], recorded: { steps: [], unsure: ["refund"] } },
  { at: "create_refund", after: false, tool: BLIND, left: [], recorded: undone },
  { at: "create_refund", after: true, tool: BLIND, left: [], recorded: undone },
  { at: "approve_refund", after: false, tool: REFUND, left: [], recorded: { ...undone, unsure: ["approve"] } },
  { at: "approve_refund", after: true, tool: REFUND, left: [], recorded: { ...undone, unsure: ["approve"] } },
  { at: "reject_refund", after: false, tool: REFUND, left: [], recorded: undone },
  { at: "reject_refund", after: true, tool: REFUND, left: [], recorded: undone },
];

let folder: string;
const lives: { readonly place: string; readonly desk: RefundDesk; readonly next: World }[] = [];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "drawbridge-killed-"));
  const killed: (readonly [string, RefundDesk, Json])[] = [];
  for (const [number, { at, after, tool }] of MOMENTS.entries()) {
    const place = join(folder, `${number}.db`);
    const desk = await refundDesk();
    const settings = { store: `sqlite:${place}`, servers: { desk: { url: desk.url } }, tools: { refund: tool } };
    await killedAt(desk, settings, at, after);
    desk.before = () => undefined;
    desk.after = () => undefined;
    killed.push([place, desk, settings]);
  }
  for (const [place, desk, settings] of killed) lives.push({ place, desk, next: await world(settings) });
}, 400_000);
afterAll(async () => {
  for (const { next, desk } of lives) {
    await next[Symbol.asyncDispose]();
    await desk[Symbol.asyncDispose]();
  }
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

describe("after a gateway was killed in the middle of a tool with steps", () => {
  test.each(MOMENTS.map((moment, number) => ({ ...moment, number, when: moment.after ? "after" : "before" })))(
    "$when $at ($number), nothing is left that could be undone, and the record says the rest",
    async ({ left, recorded, number }) => {
      const { place, desk } = lives[number] as (typeof lives)[number];
      // What was begun belongs to the dead one until its lease is over.
      if (recorded !== undefined) await waitFor(() => recoveredIn(place).length > 0, LEASE_MS);
      else await waitFor(() => rowsOf(place) === 0, LEASE_MS);
      expect([...desk.refunds.values()]).toEqual(left);
      expect(recoveredIn(place)).toMatchObject(
        recorded === undefined ? [] : [{ outcome: "abandoned", details: recorded }],
      );
    },
    150_000,
  );
});

const LEASE_MS = 120_000;

/** Calls the tool through a gateway that is killed when its desk is at this moment. */
async function killedAt(desk: RefundDesk, settings: Json, at: string, after: boolean): Promise<void> {
  const script = join(import.meta.dirname, "killed-gateway.ts");
  const child = spawn(process.execPath, [script, JSON.stringify(settings)], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  try {
    let said = "";
    child.stdout.on("data", (chunk) => {
      said += String(chunk);
    });
    await waitFor(() => said.includes("\n") || child.exitCode !== null, 60_000);
    const { url, token } = JSON.parse(said) as { url: string; token: string };
    const never = new Promise<Json>(() => {});
    const fails = at === "reject_refund";
    let there = false;
    const dies = (now: boolean) => (tool: string) => {
      if (!now && fails && tool === "approve_refund") return { ...text("no"), isError: true };
      if (tool !== at || now !== after) return undefined;
      there = true;
      return never;
    };
    desk.before = dies(false);
    desk.after = dies(true);
    const [body, headers] = modernRequest("tools/call", { name: "refund", arguments: { order_id: "ORD-1" } });
    const asked = fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}`, ...ACCEPT, ...headers },
      body: JSON.stringify(body),
    }).catch(() => undefined);
    await waitFor(() => there, 60_000);
    child.kill("SIGKILL");
    await ended;
    await asked;
  } finally {
    child.kill("SIGKILL");
  }
}
const ACCEPT = { accept: "application/json, text/event-stream" };

function query<T>(place: string, sql: string): T[] {
  const store = new DatabaseSync(place, { timeout: 10_000 });
  try {
    return store.prepare(sql).all() as T[];
  } finally {
    store.close();
  }
}
const recoveredIn = (place: string) =>
  query<{ json: string }>(place, "SELECT json FROM audit ORDER BY sequence")
    .map(({ json }) => JSON.parse(json) as StoredRecord)
    .filter(({ details }) => details?.["recovered"] === true);
const rowsOf = (place: string) => query(place, "SELECT 1 FROM records WHERE kind = 'unfinished'").length;
