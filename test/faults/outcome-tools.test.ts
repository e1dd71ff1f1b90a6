/**
 * Gateways that die, and stores that fail, in the middle of a tool with steps: afterwards all of it is done, or nothing is left of what
 * could be undone, and what could not be is in the records.
 */
import { describe, expect, test } from "vitest";
import type { AuditRecord } from "../../src/audit/record.ts";
import type { Plan } from "../../src/contract/carry-out.ts";
import { compose, composedInput } from "../../src/contract/compose.ts";
import type { Contract } from "../../src/contract/contract.ts";
import { toolContract } from "../../src/contract/settings.ts";
import type { Authenticated, JsonObject, McpCall, Outcome, PermittedCall } from "../../src/core/call.ts";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import { openOutcomeTools } from "../../src/gateway/outcome-tool.ts";
import type { Asked, Parts } from "../../src/gateway/parts.ts";
import { type About, openUnfinished } from "../../src/gateway/unfinished.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { compileExpression } from "../../src/policy/expressions.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records, Store } from "../../src/store/ports.ts";
import { faulty } from "../contract/faulty.ts";

const object = (...names: string[]): JsonObject => ({
  type: "object",
  properties: Object.fromEntries(names.map((name) => [name, { type: "string", maxLength: 80 }])),
  required: names,
  additionalProperties: false,
});
const TOOLS: Readonly<Record<string, JsonObject>> = {
  look: { inputSchema: object("order"), annotations: { readOnlyHint: true } },
  reserve: { inputSchema: object("hold") },
  release: { inputSchema: object("hold") },
  create: { inputSchema: object("request") },
  reject: { inputSchema: object("request") },
  approve: { inputSchema: object("request") },
};

/** Undone by what the client, or the gateway, gave: also when no answer came. */
const UNDOABLE = [
  { id: "order", call: "desk/look", with: { order: "=args.order" } },
  {
    id: "hold",
    call: "desk/reserve",
    with: { hold: "=args.order" },
    undo: { call: "desk/release", with: { hold: "=args.order" } },
  },
  {
    id: "refund",
    call: "desk/create",
    with: { request: "=run.id" },
    undo: { call: "desk/reject", with: { request: "=run.id" } },
  },
];
const APPROVE = { id: "approve", call: "desk/approve", with: { request: "=run.id" } };

/** What a server of the outside world has done. It outlives every gateway. */
class Desk {
  readonly holds = new Set<string>();
  readonly refunds = new Map<string, "open" | "approved">();
  readonly keys: string[] = [];
  refuses: string | undefined;

  get empty(): boolean {
    return this.holds.size + this.refunds.size === 0;
  }
  act(tool: string, args: JsonObject, key: string): Outcome {
    this.keys.push(`${tool} ${key}`);
    const [only = ""] = Object.values(args).map(String);
    if (tool === this.refuses) return failure("no");
    if (tool === "reserve") this.holds.add(only);
    if (tool === "release") this.holds.delete(only);
    if (tool === "create") this.refunds.set(only, "open");
    if (tool === "approve") this.refunds.set(only, "approved");
    if (tool === "reject") {
      if (this.refunds.get(only) === "approved") return failure("it is approved");
      this.refunds.delete(only);
    }
    return { kind: "result", result: '{"content":[],"structuredContent":{}}', value: { structuredContent: {} } };
  }
}

function failure(words: string): Outcome {
  const value: JsonObject = { content: [{ type: "text", text: words }], isError: true };
  return { kind: "result", result: JSON.stringify(value), value };
}

const by = {
  subject: "u",
  client: "c",
  actors: [],
  groups: [],
  scopes: [],
  claims: {},
  tokenId: "t",
} as unknown as Authenticated;

async function contractOf(steps: readonly object[]): Promise<Contract> {
  const settings = toolContract.parse({ steps, input: { order: { type: "string", maxLength: 20 } } });
  const narrowing = await composedInput(settings);
  if (!("served" in narrowing)) throw new Error(JSON.stringify(narrowing));
  const composition = await compose(settings, narrowing.served, {
    compile: compileExpression,
    find: (_server, tool) => ({ value: TOOLS[tool] ?? {}, pin: tool }),
  });
  if (!("run" in composition)) throw new Error(JSON.stringify(composition));
  return { name: "refund", composition, projection: undefined } as unknown as Contract;
}

/** Counts what a gateway does to the world, and lets it die at one of these moments: from then on nothing it does goes anywhere. */
class Life {
  readonly #at: number;
  readonly #after: boolean;
  #count = 0;
  readonly died = Promise.withResolvers<void>();
  dead = false;
  constructor(at = 0, after = false) {
    this.#at = at;
    this.#after = after;
  }
  async does<T>(work: () => T | Promise<T>): Promise<T> {
    if (this.dead) return new Promise<T>(() => {});
    const last = ++this.#count === this.#at;
    if (!last) return work();
    if (this.#after) await work();
    this.dead = true;
    this.died.resolve();
    return new Promise<T>(() => {});
  }
}

interface Running {
  readonly recorded: AuditRecord[];
  readonly steps: JsonObject[];
  call(): Promise<Outcome>;
  recover(): Promise<void>;
  close(): Promise<void>;
}

/** A gateway as far as steps go. `ahead`: how far its clock is. */
function gateway(
  contract: Contract,
  records: Records,
  desk: Desk,
  {
    life = new Life(),
    ahead = 0,
    pin = (tool: string) => tool,
  }: { life?: Life; ahead?: number; pin?: (tool: string) => string | undefined } = {},
): Running {
  const clock = () => Date.now() + ahead;
  const recorded: AuditRecord[] = [];
  const steps: JsonObject[] = [];
  const mortal = Object.fromEntries(
    Object.entries(records).map(([name, method]) => [
      name,
      (...words: readonly unknown[]) =>
        life.does(() => (method as (...all: readonly unknown[]) => Promise<unknown>).apply(records, [...words])),
    ]),
  ) as unknown as Records;
  const send = ({ call }: PermittedCall) =>
    life.does(() =>
      desk.act(
        call.target.upstreamName,
        call.params["arguments"] as JsonObject,
        String(call.meta.get("drawbridge/idempotency-key")),
      ),
    );
  const span = {
    context: { traceId: "", spanId: "", sampled: false, tracestate: undefined },
    set: () => {},
    end: () => {},
  };
  const parts = {
    catalogue: {
      pinned: async (_server: string, tool: string) =>
        pin(tool) === undefined ? undefined : { value: TOOLS[tool], pin: pin(tool) },
      find: () => undefined,
    },
    upstreams: new Map([["desk", { send }]]),
    telemetry: { begin: () => span },
    tasks: { plan: () => ({}), over: (_asked: unknown, upstream: unknown) => upstream },
    auditFields: { arguments: "full", results: "none", maxFieldBytes: 10_000 },
    masking: { recorded: (json: string) => json, recordedText: (text: string) => text },
    journal: { append: async (record: AuditRecord) => void recorded.push(record) },
    replica: "r",
  } as unknown as Parts;
  const tools = openOutcomeTools({
    parts: () => parts,
    unfinished: openUnfinished({ records: mortal, encryption: undefined, log: silentLogger, clock }),
    log: silentLogger,
    pauses: [],
    betweenMs: 0,
    everyMs: 3_600_000,
    clock,
  });
  const record = { did: (did: JsonObject) => steps.push(did) > 0, link: undefined };
  const call = {
    target: { server: "desk", kind: "tool", name: "refund", upstreamName: "look", pin: undefined },
    forward: new Map([["arguments", '{"order":"order-1"}']]),
    meta: new Map(),
    trace: span.context,
    revision: "2025-11-25",
    capabilities: {},
  } as unknown as McpCall;
  const permitted = { call, by, rule: "owner: may *" } as PermittedCall;
  return {
    recorded,
    steps,
    call: () =>
      tools
        .over({ record } as unknown as Asked, contract)
        .send(permitted, { notify: () => {} }, new AbortController().signal),
    recover: tools.recover,
    close: () => tools.close(AbortSignal.abort()),
  };
}

const LATER_MS = 3_600_000;
const unfinished = async ({ records }: Store) =>
  (await records.list<{ ended?: true }>("unfinished", { limit: 10 })).filter(({ value }) => !value.ended).length;
const succeeded = (outcome: Outcome) => outcome.kind === "result" && outcome.value["isError"] !== true;

describe.each([
  ["just before", false],
  ["just after", true],
] as const)("a gateway that dies %s it does something", (_when, after) => {
  test.each([
    ["all goes well", undefined],
    ["a step fails", "create"],
  ] as const)("leaves all or nothing when %s", async (_how, refuses) => {
    const contract = await contractOf(UNDOABLE);
    for (let at = 1, died = true; died; at++) {
      const store = memoryStore();
      const desk = new Desk();
      desk.refuses = refuses;
      const life = new Life(at, after);
      const first = gateway(contract, store.records, desk, { life });
      const answered = await Promise.race([first.call().then(succeeded), life.died.promise]);
      died = life.dead;
      const next = gateway(contract, store.records, desk, { ahead: LATER_MS });
      await next.recover();
      expect(await unfinished(store), `at ${at}`).toBe(0);
      const whole = desk.holds.size === 1 && desk.refunds.size === 1;
      expect(whole || desk.empty, `at ${at}: ${[...desk.holds]} ${[...desk.refunds.keys()]}`).toBe(true);
      // Who was told of a success has one.
      if (answered === true) expect(whole, `at ${at}`).toBe(true);
      if (answered === false) expect(desk.empty, `at ${at}`).toBe(true);
      await next.close();
      void first.close();
      await store.close();
    }
  });

  test("and the one that undoes it may die, too", async () => {
    const contract = await contractOf(UNDOABLE);
    for (let at = 1, died = true; died; at++) {
      const store = memoryStore();
      const desk = new Desk();
      // Dead in the last step: there is most to undo.
      const stuck = new Life();
      const first = gateway(contract, store.records, desk, { life: stuck });
      const act = desk.act.bind(desk);
      desk.act = (tool, ...rest) => {
        const outcome = act(tool, ...rest);
        if (tool === "create") {
          stuck.dead = true;
          stuck.died.resolve();
          throw new Error("dead");
        }
        return outcome;
      };
      void first.call().catch(() => {});
      await stuck.died.promise;
      const life = new Life(at, after);
      const second = gateway(contract, store.records, desk, { life, ahead: LATER_MS });
      await Promise.race([second.recover(), life.died.promise]);
      died = life.dead;
      const third = gateway(contract, store.records, desk, { ahead: 2 * LATER_MS });
      await third.recover();
      expect(desk.empty, `at ${at}`).toBe(true);
      expect(await unfinished(store)).toBe(0);
      expect([...second.recorded, ...third.recorded].length).toBeGreaterThan(0);
      // What is undone twice comes with the same key.
      expect(new Set(desk.keys.filter((key) => key.startsWith("release"))).size).toBe(1);
      await third.close();
      void second.close();
      void first.close();
      await store.close();
    }
  }, 20_000);

  test("says of what cannot be undone that it may have been done", async () => {
    const contract = await contractOf([...UNDOABLE, APPROVE]);
    for (let at = 1, died = true; died; at++) {
      const store = memoryStore();
      const desk = new Desk();
      const life = new Life(at, after);
      const first = gateway(contract, store.records, desk, { life });
      await Promise.race([first.call(), life.died.promise]);
      died = life.dead;
      const next = gateway(contract, store.records, desk, { ahead: LATER_MS });
      for (let round = 0; round < 12 && (await unfinished(store)) > 0; round++) await next.recover();
      const approved = [...desk.refunds.values()].includes("approved");
      const whole = approved && desk.holds.size === 1;
      const reported = JSON.stringify(next.recorded.map(({ details }) => details));
      if (!whole && !desk.empty) {
        expect(approved, `at ${at}`).toBe(true);
        expect(reported).toContain('"unsure":["approve"]');
        expect(reported).toContain('"notUndone":["refund"]');
      }
      expect(await unfinished(store)).toBe(0);
      await next.close();
      void first.close();
      await store.close();
    }
  });
});

test.each([
  ["the operation not done", false],
  ["the operation done and its answer lost", true],
] as const)("a store that fails once leaves all or nothing: %s", async (_how, after) => {
  const contract = await contractOf(UNDOABLE);
  for (let nth = 1, failed = true; failed; nth++) {
    const store = memoryStore();
    const desk = new Desk();
    const failing = faulty(store, nth, { after });
    const first = gateway(contract, failing.records, desk);
    const done = succeeded(await first.call());
    failed = failing.operations >= nth;
    const next = gateway(contract, store.records, desk, { ahead: LATER_MS });
    await next.recover();
    expect(done ? desk.holds.size + desk.refunds.size === 2 : desk.empty, `nth ${nth}`).toBe(true);
    expect(await unfinished(store)).toBe(0);
    await next.close();
    await first.close();
    await store.close();
  }
});

test("of several gateways that find what another one left, one undoes it", async () => {
  const contract = await contractOf(UNDOABLE);
  const store = memoryStore();
  const desk = new Desk();
  const life = new Life();
  const first = gateway(contract, store.records, desk, { life });
  const act = desk.act.bind(desk);
  desk.act = (tool, ...rest) => {
    if (tool === "create") life.dead = true;
    return act(tool, ...rest);
  };
  void first.call();
  await expect.poll(() => desk.refunds.size).toBe(1);
  const others = [1, 2, 3].map(() => gateway(contract, store.records, desk, { ahead: LATER_MS }));
  await Promise.all(others.map((other) => other.recover()));
  expect(desk.keys.filter((key) => key.startsWith("release"))).toHaveLength(1);
  expect(others.flatMap(({ recorded }) => recorded)).toHaveLength(1);
  for (const other of others) await other.close();
  void first.close();
});

test("what a gateway still works on is nobody else's", async () => {
  const contract = await contractOf(UNDOABLE);
  const store = memoryStore();
  const desk = new Desk();
  const held = Promise.withResolvers<void>();
  const reached = Promise.withResolvers<void>();
  const life = new Life();
  const does = life.does.bind(life);
  let calls = 0;
  life.does = async (work) => {
    const result = await does(work);
    if (desk.refunds.size > 0 && calls++ === 0) {
      reached.resolve();
      await held.promise;
    }
    return result;
  };
  const first = gateway(contract, store.records, desk, { life });
  const answered = first.call();
  await reached.promise;
  const other = gateway(contract, store.records, desk);
  await other.recover();
  expect(desk.refunds.size).toBe(1);
  // It was believed to be gone: what it does from then on counts for nothing, and it says so.
  const later = gateway(contract, store.records, desk, { ahead: LATER_MS });
  await later.recover();
  held.resolve();
  expect(succeeded(await answered)).toBe(false);
  expect(desk.empty).toBe(true);
  for (const one of [first, other, later]) await one.close();
});

test("a step calls only what is pinned as it was when the contract was read", async () => {
  const contract = await contractOf(UNDOABLE);
  for (const changed of [undefined, "sha256:other"]) {
    const store = memoryStore();
    const desk = new Desk();
    const one = gateway(contract, store.records, desk, { pin: (tool) => (tool === "create" ? changed : tool) });
    const outcome = await one.call();
    expect(succeeded(outcome)).toBe(false);
    expect(JSON.stringify(outcome)).toContain("what it calls has changed or is gone");
    expect(desk.empty).toBe(true);
    await one.close();
  }
});

test("an undo that fails is tried again later, and given up in the end, in so many words", async () => {
  const contract = await contractOf([...UNDOABLE, APPROVE]);
  const store = memoryStore();
  const desk = new Desk();
  const act = desk.act.bind(desk);
  desk.act = (tool, ...rest) => {
    if (tool === "release") throw new DrawbridgeError("upstream_unavailable", "away");
    return tool === "approve" ? failure("no") : act(tool, ...rest);
  };
  const one = gateway(contract, store.records, desk);
  const outcome = await one.call();
  expect(JSON.stringify(outcome)).toContain('\\"hold\\" had been done and could NOT be undone so far');
  expect(one.steps[0]).toMatchObject({ notUndone: ["hold"] });
  const next = gateway(contract, store.records, desk, { ahead: LATER_MS });
  for (let round = 0; round < 12; round++) await next.recover();
  expect(await unfinished(store)).toBe(0);
  expect(next.recorded).toHaveLength(1);
  expect(next.recorded[0]?.details).toMatchObject({ recovered: true, notUndone: ["hold"] });
  await next.close();
  await one.close();
});

test("nothing of a run can be read in the store", async () => {
  const contract = await contractOf(UNDOABLE);
  let found = 0;
  for (let at = 1, died = true; died; at++) {
    const store = memoryStore();
    const life = new Life(at, true);
    const first = gateway(contract, store.records, new Desk(), { life });
    await Promise.race([first.call(), life.died.promise]);
    died = life.dead;
    const rows = await store.records.list("unfinished", { limit: 10 });
    found += rows.length;
    expect(JSON.stringify(rows)).not.toContain("order-1");
    void first.close();
    await store.close();
  }
  expect(found).toBeGreaterThan(2);
});

test("what a gateway with another secret left half-done is kept for one that can read it", async () => {
  const { records } = memoryStore();
  const about = { by: { user: "u" }, tool: "t" } as unknown as About;
  const opened = (secret: string, ahead = 0) =>
    openUnfinished({ records, encryption: new Secret(secret), log: silentLogger, clock: () => Date.now() + ahead });
  const run = opened("first secret of at least 32 characters").begin("run-1", about);
  await run.keep({ undo: [] } as unknown as Plan);
  const found = async (secret: string) => {
    const ids: string[] = [];
    for await (const each of opened(secret, LATER_MS).abandoned()) ids.push(each.run.id);
    return ids;
  };
  for (let times = 0; times < 2; times++) expect(await found("another one of at least 32 characters")).toEqual([]);
  expect(await found("first secret of at least 32 characters")).toEqual(["run-1"]);
  await run.forget();
});
