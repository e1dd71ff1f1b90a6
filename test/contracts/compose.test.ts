/** The steps of an outcome tool against a shop of our own: what is done, what is undone, and what is said of the rest. */
import { describe, expect, test } from "vitest";
import { type Deed, type Finished, type Hands, type Plan, undo } from "../../src/contract/carry-out.ts";
import { type Composition, compose, composedInput } from "../../src/contract/compose.ts";
import { compileProjection } from "../../src/contract/project.ts";
import { toolContract } from "../../src/contract/settings.ts";
import { type ComposeProblem, stepProblems } from "../../src/contract/steps.ts";
import type { JsonObject, JsonValue, Outcome } from "../../src/core/call.ts";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { compileExpression } from "../../src/policy/expressions.ts";
import { fc, runs } from "../properties.ts";

const READS = { readOnlyHint: true };
const text = { type: "string", maxLength: 40 };
const amount = { type: "number", exclusiveMinimum: 0 };

const object = (properties: JsonObject): JsonObject => ({
  type: "object",
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});

/** The order desk: each tool with its input schema and annotations. */
const DESK: Readonly<Record<string, JsonObject>> = {
  get_order: { inputSchema: object({ id: text }), annotations: READS },
  create_refund: { inputSchema: object({ order: text, amount }) },
  reject_refund: { inputSchema: object({ refund: text }) },
  approve_refund: { inputSchema: object({ refund: text }) },
  reserve: { inputSchema: object({ order: text }) },
  release: { inputSchema: object({ order: text }) },
};

const REFUND = {
  steps: [
    { id: "order", call: "desk/get_order", with: { id: "=args.order_id" }, expect: "steps.order.status == 'paid'" },
    {
      id: "refund",
      call: "desk/create_refund",
      with: { order: "=args.order_id", amount: "=steps.order.total * args.percent / 100" },
      undo: { call: "desk/reject_refund", with: { refund: "=steps.refund.id" } },
    },
    { id: "approve", call: "desk/approve_refund", with: { refund: "=steps.refund.id" } },
  ],
  result: { refund: "=steps.refund.id", amount: "=steps.refund.amount" },
  input: { order_id: { type: "string", maxLength: 20 }, percent: { type: "integer", minimum: 1, maximum: 100 } },
};

const answer = (value: JsonValue): Outcome => {
  const whole: JsonObject = { content: [{ type: "text", text: JSON.stringify(value) }], structuredContent: value };
  return { kind: "result", result: JSON.stringify(whole), value: whole };
};
const toolError = (words: string): Outcome => {
  const value: JsonObject = { content: [{ type: "text", text: words }], isError: true };
  return { kind: "result", result: JSON.stringify(value), value };
};

/** A server with effects that can be counted, and ways to fail. */
class Desk implements Hands {
  readonly calls: Deed[] = [];
  readonly open = new Set<string>();
  readonly approved = new Set<string>();
  readonly reserved = new Set<string>();
  kept: Plan | undefined;
  committed = false;
  readonly progressed: string[] = [];
  order: JsonObject = { status: "paid", total: 19.5, card: "4111" };
  /** Called before the n-th call, from 0: throws or answers in place of it, or `after` it was done. */
  before: (deed: Deed, at: number) => Outcome | undefined = () => undefined;
  after: (deed: Deed, at: number) => Outcome | undefined = () => undefined;

  async call(deed: Deed): Promise<Outcome> {
    const at = this.calls.push(deed) - 1;
    return this.before(deed, at) ?? this.#effect(deed, at);
  }
  #effect(deed: Deed, at: number): Outcome {
    const { tool, arguments: args } = deed;
    const done = (value: JsonValue) => this.after(deed, at) ?? answer(value);
    if (tool === "get_order") return done(this.order);
    if (tool === "create_refund") {
      const id = `r_${deed.key}`;
      this.open.add(id);
      return done({ id, amount: args["amount"] ?? null });
    }
    const refund = String(args["refund"]);
    if (tool === "reject_refund") {
      this.open.delete(refund);
      return done({ rejected: true });
    }
    if (tool === "approve_refund") {
      if (!this.open.delete(refund)) return toolError("there is no such refund");
      this.approved.add(refund);
      return done({ approved: true });
    }
    const order = String(args["order"]);
    if (tool === "reserve") this.reserved.add(order);
    else this.reserved.delete(order);
    return done({});
  }
  async keep(plan: Plan): Promise<void> {
    this.kept = JSON.parse(JSON.stringify(plan)) as Plan;
  }
  async commit(): Promise<void> {
    this.committed = true;
  }
  shape: Hands["shape"] = (value) => {
    const whole: JsonObject = { structuredContent: value };
    return { result: JSON.stringify(whole), value: whole, cut: [], withheld: undefined };
  };
  told: Hands["told"] = () => undefined;
  progress(at: number, of: number, step: string): void {
    this.progressed.push(`${at}/${of} ${step}`);
  }
}

const principal = { subject: "u_1", client: "c_1", groups: ["support"], scopes: [], claims: { desk: "north" } };

async function composed(
  contract: object = REFUND,
  tools: Readonly<Record<string, JsonObject>> = DESK,
): Promise<Composition | readonly ComposeProblem[]> {
  const settings = toolContract.parse(contract);
  const narrowing = await composedInput(settings);
  if (!("served" in narrowing)) throw new Error(JSON.stringify(narrowing));
  return compose(settings, narrowing.served, {
    compile: compileExpression,
    find: (server, tool) => {
      const value = server === "desk" && Object.hasOwn(tools, tool) ? tools[tool] : undefined;
      return value && { value, pin: `sha256:${tool}` };
    },
  });
}

async function compiled(contract?: object, tools?: Readonly<Record<string, JsonObject>>): Promise<Composition> {
  const made = await composed(contract, tools);
  if (!("run" in made)) throw new Error(JSON.stringify(made));
  return made;
}

async function problemsOf(contract: object, tools?: Readonly<Record<string, JsonObject>>): Promise<readonly string[]> {
  const made = await composed(contract, tools);
  return "run" in made ? [] : made.map(({ path, message }) => `${path.join(".")}: ${message}`);
}

interface Run {
  readonly contract?: object;
  readonly args?: JsonObject;
  readonly signal?: AbortSignal;
}

async function ran(
  desk: Desk,
  { contract, args = { order_id: "o_1", percent: 50 }, signal = new AbortController().signal }: Run = {},
): Promise<Finished> {
  const { run } = await compiled(contract);
  return run({ args, principal }, desk, { name: "refund", run: "run", signal, pauses: [1, 1] });
}

const failedIn = (finished: Finished) => {
  if (finished.kind === "done") throw new Error("it did not fail");
  return finished;
};
const toolsCalled = (desk: Desk) => desk.calls.map(({ tool }) => tool);

describe("an outcome tool", () => {
  test("does its steps in order, each with what earlier ones gave, and answers with its result", async () => {
    const desk = new Desk();
    const finished = await ran(desk);
    expect(finished).toMatchObject({
      kind: "done",
      projected: { value: { structuredContent: { refund: "r_run/refund", amount: 9.75 } } },
    });
    expect(toolsCalled(desk)).toEqual(["get_order", "create_refund", "approve_refund"]);
    expect(desk.calls[1]?.arguments).toEqual({ order: "o_1", amount: 9.75 });
    expect([...desk.approved]).toEqual(["r_run/refund"]);
    expect(desk.committed).toBe(true);
    expect(desk.progressed).toEqual(["0/3 order", "1/3 refund", "2/3 approve"]);
    expect(finished.steps.map(({ step, outcome }) => `${step} ${outcome}`)).toEqual([
      "order done",
      "refund done",
      "approve done",
    ]);
  });

  test("stops where something else was expected, before anything is changed", async () => {
    const desk = new Desk();
    desk.order = { status: "open", total: 5 };
    const { message } = failedIn(await ran(desk));
    expect(message).toBe(
      'refund failed at its step "order", because its result is not what was expected. Nothing was changed.',
    );
    expect(toolsCalled(desk)).toEqual(["get_order"]);
  });

  test("undoes what was done when a later step fails, and says nothing that its server said", async () => {
    const desk = new Desk();
    desk.before = ({ tool }) => (tool === "approve_refund" ? toolError("DB password is swordfish") : undefined);
    const failed = failedIn(await ran(desk));
    expect(failed.message).toBe(
      'refund failed at its step "approve", because its server reported an error. "refund" had been done and was undone.',
    );
    expect(failed.message).not.toContain("swordfish");
    expect(failed.steps.find(({ step }) => step === "approve")?.detail).toContain("swordfish");
    expect(desk.open.size + desk.approved.size).toBe(0);
    expect(desk.calls.at(-1)).toMatchObject({ tool: "reject_refund", arguments: { refund: "r_run/refund" } });
  });

  test("undoes a step whose own result is not what was expected", async () => {
    const steps = REFUND.steps.map((step) =>
      step.id === "refund" ? { ...step, expect: "steps.refund.amount > 100" } : step,
    );
    const desk = new Desk();
    const { message } = failedIn(await ran(desk, { contract: { ...REFUND, steps } }));
    expect(message).toContain('"refund" had been done and was undone');
    expect(desk.open.size).toBe(0);
  });

  test("tries an undo again, and says plainly when it cannot be done", async () => {
    const desk = new Desk();
    desk.before = ({ tool }) => {
      if (tool === "approve_refund") return toolError("no");
      if (tool === "reject_refund") throw new DrawbridgeError("upstream_unavailable", "away");
      return undefined;
    };
    const { message, undone, steps } = failedIn(await ran(desk));
    expect(toolsCalled(desk).filter((tool) => tool === "reject_refund")).toHaveLength(3);
    expect(new Set(desk.calls.slice(3).map(({ key }) => key))).toEqual(new Set(["run/refund/undo"]));
    expect(message).toContain('"refund" had been done and could NOT be undone so far');
    expect(undone.left.map(({ step }) => step)).toEqual(["refund"]);
    expect(steps.at(-1)).toMatchObject({ undoes: true, outcome: "failed", attempts: 3 });
  });

  test("an undo that works the second time was done", async () => {
    const desk = new Desk();
    let tries = 0;
    desk.before = ({ tool }) => {
      if (tool === "approve_refund") return toolError("no");
      return tool === "reject_refund" && ++tries < 2 ? toolError("busy") : undefined;
    };
    expect(failedIn(await ran(desk)).undone).toMatchObject({ undone: ["refund"], left: [] });
    expect(desk.open.size).toBe(0);
  });

  test("says that it does not know what became of a step whose answer never came", async () => {
    const desk = new Desk();
    desk.after = ({ tool }) => {
      if (tool === "create_refund") throw new DrawbridgeError("upstream_timeout", "late");
      return undefined;
    };
    const { message, undone } = failedIn(await ran(desk));
    expect(message).toBe(
      'refund failed at its step "refund", because its server did not answer in time. Whether "refund" was done is not known.',
    );
    expect(undone.unsure).toEqual(["refund"]);
  });

  test("undoes a step whose answer never came, when the undo does not need it", async () => {
    const contract = {
      steps: [
        {
          id: "hold",
          call: "desk/reserve",
          with: { order: "=args.order_id" },
          undo: { call: "desk/release", with: { order: "=args.order_id" } },
        },
      ],
      input: { order_id: { type: "string", maxLength: 20 } },
    };
    const desk = new Desk();
    desk.after = ({ tool }) => {
      if (tool === "reserve") throw new DrawbridgeError("upstream_failed", "the process ended");
      return undefined;
    };
    const { undone } = failedIn(await ran(desk, { contract, args: { order_id: "o_1" } }));
    expect(undone).toMatchObject({ undone: ["hold"], unsure: [] });
    expect(desk.reserved.size).toBe(0);
  });

  test("leaves out a step whose condition is not met; its result is null", async () => {
    const steps = [
      REFUND.steps[0],
      { ...REFUND.steps[1], when: "steps.order.total > 100" },
      { ...REFUND.steps[2], when: "steps.refund != null" },
    ];
    const desk = new Desk();
    const finished = await ran(desk, { contract: { ...REFUND, steps, result: "=steps.refund == null" } });
    expect(finished).toMatchObject({ kind: "done", projected: { value: { structuredContent: true } } });
    expect(finished.steps.map(({ outcome }) => outcome)).toEqual(["done", "skipped", "skipped"]);
    expect(toolsCalled(desk)).toEqual(["get_order"]);
  });

  test("a cancelled call waits for what was sent, sends nothing more and undoes", async () => {
    const desk = new Desk();
    const gone = new AbortController();
    desk.after = ({ tool }) => {
      if (tool === "create_refund") gone.abort();
      return undefined;
    };
    const { message, undone } = failedIn(await ran(desk, { signal: gone.signal }));
    expect(message).toContain("because the call was cancelled");
    expect(undone.undone).toEqual(["refund"]);
    expect(toolsCalled(desk)).toEqual(["get_order", "create_refund", "reject_refund"]);
  });

  test("a call that is cancelled when something was done for good is finished all the same", async () => {
    const gone = new AbortController();
    const desk = new Desk();
    desk.after = ({ tool }) => {
      if (tool === "approve_refund") gone.abort();
      return undefined;
    };
    const again = { id: "again", call: "desk/get_order", with: { id: "=args.order_id" } };
    const contract = { ...REFUND, steps: [...REFUND.steps, again] };
    expect(await ran(desk, { contract, signal: gone.signal })).toMatchObject({ kind: "done" });
    expect(toolsCalled(desk)).toEqual(["get_order", "create_refund", "approve_refund", "get_order"]);
  });

  test("ends with its deadline, and undoes what it had done by then", async () => {
    const desk = new Desk();
    const call = desk.call.bind(desk);
    desk.call = (deed: Deed, signal?: AbortSignal) =>
      deed.tool === "approve_refund"
        ? new Promise((_resolve, reject) => signal?.addEventListener("abort", () => reject(new Error("late"))))
        : call(deed);
    const { message, undone } = failedIn(await ran(desk, { contract: { ...REFUND, deadlineSeconds: 1 } }));
    expect(message).toBe(
      'refund failed at its step "approve", because the time was over. "refund" had been done and was undone. Whether "approve" was done is not known.',
    );
    expect(undone).toMatchObject({ undone: ["refund"], unsure: ["approve"] });
  });

  test("sends nothing that its server's schema refuses", async () => {
    const desk = new Desk();
    desk.order = { status: "paid", total: 0 };
    const { message } = failedIn(await ran(desk));
    expect(message).toContain('step "refund", because its server does not take the arguments');
    expect(toolsCalled(desk)).toEqual(["get_order"]);
  });

  test("sends nothing that may have to be undone before that is written down", async () => {
    const desk = new Desk();
    desk.keep = async () => {
      throw new Error("the store is away");
    };
    const { message } = failedIn(await ran(desk));
    expect(message).toContain("what would have to be undone could not be written down. Nothing was changed.");
    expect(toolsCalled(desk)).toEqual(["get_order"]);
  });

  test("undoes everything when its end cannot be written down, since nobody could tell it from a crash", async () => {
    const desk = new Desk();
    desk.commit = async () => {
      throw new Error("the store is away");
    };
    const { undone } = failedIn(await ran(desk));
    expect(undone).toMatchObject({ undone: ["refund"], stays: ["approve"] });
  });

  test("undoes everything when its result cannot be answered with", async () => {
    const steps = REFUND.steps.slice(0, 2);
    const { document } = await compileProjection({ fields: ["refund"], maxBytes: 64, text: false }, undefined);
    const desk = new Desk();
    desk.shape = (value) => ({ ...document(value), withheld: "it is too long" });
    const { undone } = failedIn(await ran(desk, { contract: { ...REFUND, steps } }));
    expect(undone.undone).toEqual(["refund"]);
  });

  test("keeps every digit of numbers that it hands on", async () => {
    const contract = {
      steps: [{ id: "order", call: "desk/get_order", with: { id: "=args.order_id" } }],
      result: { number: "=steps.order.number", next: "=steps.order.number + 1" },
      input: { order_id: { type: "string", maxLength: 20 } },
    };
    const desk = new Desk();
    desk.before = () => ({
      kind: "result",
      result: '{"content":[],"structuredContent":{"number":9007199254740993}}',
      value: { content: [], structuredContent: { number: 9007199254740992 } },
    });
    const finished = await ran(desk, { contract, args: { order_id: "o" } });
    expect(finished.kind === "done" && finished.projected.result).toBe(
      '{"structuredContent":{"number":9007199254740993,"next":9007199254740994}}',
    );
  });

  test("leaves out an argument that its client left out, and knows who calls", async () => {
    const tools = { find: { inputSchema: { type: "object", properties: { a: text, by: text } }, annotations: READS } };
    const contract = {
      steps: [
        { id: "found", call: "desk/find", with: { a: "=args.a", by: "=principal.claims.desk", list: ["=args.a", 1] } },
      ],
      input: { a: { type: "string", maxLength: 5, required: false } },
    };
    const { run } = await compiled(contract, tools);
    const desk = new Desk();
    desk.before = () => answer({});
    await run({ args: {}, principal }, desk, { name: "x", run: "r", signal: new AbortController().signal });
    expect(desk.calls[0]?.arguments).toEqual({ by: "north", list: [1] });
  });
});

describe("a contract with steps is refused", () => {
  const one = (step: object, more: object = {}) => ({ steps: [step], input: REFUND.input, ...more });

  test.each<[string, object, string]>([
    ["when a step calls what is not there", one({ id: "a", call: "desk/nothing" }), "steps.0.call"],
    [
      "when it names a step that comes later",
      { ...REFUND, steps: [{ ...REFUND.steps[0], with: { id: "=steps.refund.id" } }, ...REFUND.steps.slice(1)] },
      "steps.0.with.id: No such key: refund",
    ],
    [
      "when it names an argument that is not there",
      one({ id: "a", call: "desk/get_order", with: { id: "=args.id" } }),
      "No such key: id",
    ],
    ["when an expression is none", one({ id: "a", call: "desk/get_order", with: { id: "=args." } }), "steps.0.with.id"],
    [
      "when a condition is no condition",
      one({ id: "a", call: "desk/get_order", with: { id: "x" }, when: "'yes'" }),
      "must be true or false",
    ],
    [
      "when the server has no such argument",
      one({ id: "a", call: "desk/get_order", with: { id: "x", of: 1 } }),
      'has no argument "of"',
    ],
    ["when an argument is missing", one({ id: "a", call: "desk/get_order" }), 'the server needs "id"'],
    [
      "when a written value is refused",
      one({ id: "a", call: "desk/get_order", with: { id: 7 } }),
      "the server refuses it",
    ],
    [
      "when clients may send more than the server takes",
      one(
        { id: "a", call: "desk/get_order", with: { id: "=args.order_id" } },
        { input: { order_id: { type: "string", maxLength: 50 } } },
      ),
      "the server may refuse what clients may send",
    ],
    [
      "when what cannot be undone comes before another change",
      { ...REFUND, steps: [REFUND.steps[0], { ...REFUND.steps[1], undo: undefined }, REFUND.steps[2]] },
      'steps.1: "refund" changes something and cannot be undone',
    ],
    [
      "when two steps have one name",
      { ...REFUND, steps: [REFUND.steps[0], REFUND.steps[0]], result: undefined },
      "steps.1.id",
    ],
  ])("%s", async (_title, contract, problem) => {
    expect((await problemsOf(contract)).join("\n")).toContain(problem);
  });

  test("when a step is said to read and its server says otherwise", async () => {
    const tools = { drop: { inputSchema: object({}), annotations: { destructiveHint: true } } };
    const contract = { steps: [{ id: "a", call: "desk/drop", access: "read" }] };
    expect(await problemsOf(contract, tools)).toEqual([
      "steps.0.access: is `read`, but its server says that it may destroy",
    ]);
  });

  test("but not when the operator accepts what is unproven, which is then a warning", async () => {
    const steps = [REFUND.steps[0], { ...REFUND.steps[1], undo: undefined }, REFUND.steps[2]];
    const { warnings } = await compiled({ ...REFUND, steps, unproven: "accept" });
    expect(warnings.join()).toContain('"refund" changes something and cannot be undone');
  });

  test("without its servers as far as names and expressions go", () => {
    const contract = toolContract.parse({
      ...REFUND,
      steps: [{ ...REFUND.steps[0], expect: "steps.ordr.status == 'paid'" }, ...REFUND.steps.slice(1)],
    });
    expect(stepProblems(contract, compileExpression)).toEqual([
      { path: ["steps", "0", "expect"], message: expect.stringContaining("No such key: ordr") },
    ]);
    expect(stepProblems(toolContract.parse(REFUND), compileExpression)).toEqual([]);
  });
});

test("what cannot be undone and is followed by more that may fail is warned of", async () => {
  const steps = [...REFUND.steps.slice(0, 2), { ...REFUND.steps[2], expect: "steps.approve.approved" }];
  expect((await compiled({ ...REFUND, steps })).warnings).toEqual([
    expect.stringContaining('the undo of "refund" needs its result'),
    '"approve" cannot be undone and something is expected of its result: it stays done when that fails',
  ]);
  const named = { ...REFUND.steps[1], undo: { call: "desk/reject_refund", with: { refund: "=run.id" } } };
  expect((await compiled({ ...REFUND, steps: [REFUND.steps[0], named, REFUND.steps[2]] })).warnings).toEqual([]);
});

describe("whichever call fails, in whatever way", () => {
  type Way = "error" | "refused" | "lost before" | "lost after" | "never sent";
  const WAYS: readonly Way[] = ["error", "refused", "lost before", "lost after", "never sent"];

  /** Three reservations and a last step for good; undone by what the client sent. */
  const HOLDS = {
    steps: [
      ...["a", "b", "c"].map((id) => ({
        id,
        call: "desk/reserve",
        with: { order: `=args.order_id + '${id}'` },
        undo: { call: "desk/release", with: { order: `=args.order_id + '${id}'` } },
      })),
      {
        id: "refund",
        call: "desk/create_refund",
        with: { order: "=args.order_id", amount: 5 },
        undo: { call: "desk/reject_refund", with: { refund: "='r_run/refund'" } },
      },
    ],
    input: { order_id: { type: "string", maxLength: 20 } },
  };

  function failing(desk: Desk, at: number, way: Way): void {
    const error: Outcome = { kind: "error", code: -32000, message: "no", data: undefined };
    desk.before = (_deed, now) => {
      if (now !== at) return undefined;
      if (way === "error") return error;
      if (way === "refused") return toolError("no");
      if (way === "lost before") throw new DrawbridgeError("upstream_timeout", "lost");
      if (way === "never sent") throw new DrawbridgeError("overloaded", "busy");
      return undefined;
    };
    desk.after = (_deed, now) => {
      if (now === at && way === "lost after") throw new DrawbridgeError("upstream_failed", "lost");
      return undefined;
    };
  }

  test("either all is done or nothing is left of it", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(6), fc.constantFrom(...WAYS), async (at, way) => {
        const desk = new Desk();
        failing(desk, at, way);
        const finished = await ran(desk, { contract: HOLDS, args: { order_id: "o" } });
        if (finished.kind === "done") {
          expect([desk.reserved.size, desk.open.size]).toEqual([3, 1]);
          return;
        }
        expect(finished.undone).toMatchObject({ left: [], unsure: [], stays: [] });
        expect([desk.reserved.size, desk.open.size]).toEqual([0, 0]);
      }),
      { numRuns: runs(60) },
    );
  });

  test("a plan that was kept is enough to undo it by, wherever the process ended", async () => {
    const contract = { ...HOLDS, result: "=steps.c" };
    for (let at = 0; at < 4; at++) {
      for (const moment of ["before", "after"] as const) {
        const desk = new Desk();
        const { promise: reached, resolve: reach } = Promise.withResolvers<void>();
        // From here on the process is gone: nothing comes back, nothing is written.
        const crashing: Hands = {
          keep: (plan) => desk.keep(plan),
          commit: () => desk.commit(),
          shape: desk.shape,
          told: desk.told,
          progress: () => {},
          async call(deed) {
            if (desk.calls.length < at) return desk.call(deed);
            if (moment === "after") await desk.call(deed);
            reach();
            return new Promise<Outcome>(() => {});
          },
        };
        const { run } = await compiled(contract);
        const options = { name: "x", run: "run", signal: new AbortController().signal };
        void run({ args: { order_id: "o" }, principal }, crashing, options);
        await reached;
        const plan = desk.kept ?? [];
        const undone = await undo(plan, desk, { pauses: [] });
        expect(undone.left).toEqual([]);
        expect([desk.reserved.size, desk.open.size]).toEqual([0, 0]);
      }
    }
  });
});
