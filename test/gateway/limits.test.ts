/** What limits count, whom they refuse and what they give back, in one process and without a gateway around them. */
import { describe, expect, test } from "vitest";
import type { Principal } from "../../src/core/call.ts";
import type { DrawbridgeError } from "../../src/core/errors.ts";
import { type Admission, type Limits, openLimits } from "../../src/gateway/limits/limits.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { limitsSettings } from "../../src/policy/limit-settings.ts";
import { rolesSettings } from "../../src/policy/settings.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";
import { principal, target } from "../policy/support.ts";

const NOON = Date.UTC(2026, 10, 21, 12);
const MINUTE = 60_000;
const DAY = 86_400_000;

interface World {
  readonly limits: Limits;
  /** One call from beginning to end; what it was refused with. */
  call(tool?: string, more?: Call): DrawbridgeError | undefined;
  /** One that is under way until it leaves. */
  begin(tool?: string, more?: Call): Admission;
  later(ms: number): void;
}
interface Call {
  readonly by?: Principal;
  readonly args?: Record<string, never> | Record<string, string | number | readonly string[]>;
  readonly rule?: string;
  readonly round?: string;
  readonly access?: "read" | "write" | "destructive";
}

async function world(
  limits: object,
  { roles = {}, records, now = NOON }: { roles?: object; records?: Records; now?: number } = {},
): Promise<World> {
  let time = now;
  const opened = await openLimits({
    settings: { limits: limitsSettings.parse(limits), roles: rolesSettings.parse(roles) },
    records,
    log: silentLogger,
    clock: () => time,
  });
  const begin = (tool = "export", { by = principal(), args = {}, rule = "owner: may *", round, access }: Call = {}) => {
    const admission = opened.enter(by);
    try {
      const aimed = target(tool, "tool", { access: access && { effect: access, openWorld: false } });
      expect(admission.call({ target: aimed, args, rule }, round)).toBeUndefined();
      return admission;
    } catch (error) {
      admission.leave();
      throw error;
    }
  };
  return {
    limits: opened,
    begin,
    call(tool, more) {
      try {
        begin(tool, more).leave();
        return undefined;
      } catch (error) {
        return error as DrawbridgeError;
      }
    },
    later(ms) {
      time += ms;
    },
  };
}
const jane = principal({ subject: "jane" });
const joe = principal({ subject: "joe" });

describe("limits of tools", () => {
  test("per minute: whatever one pattern matches is counted together, each user for themselves", async () => {
    const w = await world({ tools: { "refund_*": { perMinute: 2 } } });
    expect(w.call("refund_one", { by: jane })).toBeUndefined();
    expect(w.call("refund_all", { by: jane })).toBeUndefined();
    expect(w.call("refund_one", { by: jane })).toMatchObject({
      code: "rate_limited",
      retryAfterSeconds: 60,
      message: "Too many calls of refund_* by you: 2 a minute are permitted. Try again in 60 s.",
      data: { limit: "limits.tools.refund_*", permitted: 2, per: "minute" },
    });
    expect(w.call("lookup", { by: jane })).toBeUndefined();
    expect(w.call("refund_one", { by: joe })).toBeUndefined();
    w.later(MINUTE);
    expect(w.call("refund_one", { by: jane })).toBeUndefined();
  });

  test("another client of the same user has no limit of its own", async () => {
    const w = await world({ tools: { "*": { perDay: 1 } }, perPrincipalPerDay: 5 });
    expect(w.call("a", { by: principal({ subject: "jane", client: "one" }) })).toBeUndefined();
    expect(w.call("a", { by: principal({ subject: "jane", client: "two" }) })).toMatchObject({ code: "rate_limited" });
  });

  test("together: all users have one limit", async () => {
    const w = await world({ tools: { export: { perMinute: 1, together: true } } });
    expect(w.call("export", { by: jane })).toBeUndefined();
    expect(w.call("export", { by: joe })?.message).toContain("Too many calls of export by all users: 1 a minute");
  });

  test("a class has in it what does at least that, and what no contract speaks of", async () => {
    const w = await world({ tools: { "access:write": { perMinute: 1 } } });
    expect(w.call("set", { access: "write" })).toBeUndefined();
    expect(w.call("drop", { access: "destructive" })?.message).toContain("access:write");
    expect(w.call("unknown")?.message).toContain("access:write");
    expect(w.call("get", { access: "read" })).toBeUndefined();
  });

  test("per day: until midnight UTC", async () => {
    const w = await world({ tools: { export: { perDay: 1 } } });
    expect(w.call()).toBeUndefined();
    expect(w.call()).toMatchObject({ retryAfterSeconds: 43_200 });
    w.later(DAY / 2 - 1);
    expect(w.call()).toMatchObject({ retryAfterSeconds: 1 });
    w.later(1);
    expect(w.call()).toBeUndefined();
  });

  test("concurrent: a place is free again when its call is over, whatever became of it", async () => {
    const w = await world({ tools: { export: { concurrent: 2 } } });
    const [one, two] = [w.begin(), w.begin()];
    expect(w.call()).toMatchObject({
      message: "Too many calls of export by you at the same time (limit 2).",
      retryAfterSeconds: 1,
    });
    one.leave();
    one.leave();
    const three = w.begin();
    expect(w.call()).toMatchObject({ code: "rate_limited" });
    two.leave();
    three.leave();
    expect([w.begin(), w.begin()]).toHaveLength(2);
    expect(w.call()).toMatchObject({ code: "rate_limited" });
  });
});

describe("limits of roles", () => {
  test("count calls that the role permits, in the short form or the long one", async () => {
    const roles = {
      support: { may: ["get_*"], limit: "2/min" },
      boss: { may: ["*"], limit: { perDay: 3, concurrent: 1 } },
      free: { may: ["*"] },
    };
    const w = await world({}, { roles });
    const asSupport = { rule: "support.rules.0: may get_*" };
    expect([w.call("get_a", asSupport), w.call("get_b", asSupport)]).toEqual([undefined, undefined]);
    expect(w.call("get_a", asSupport)?.message).toBe(
      "Too many calls in the role support by you: 2 a minute are permitted. Try again in 60 s.",
    );
    expect(w.call("get_a", { rule: "free: may *" })).toBeUndefined();
    const held = w.begin("x", { rule: "boss: may *" });
    expect(w.call("x", { rule: "boss: may *" })?.message).toContain("at the same time (limit 1)");
    held.leave();
    expect([w.call("x", { rule: "boss: may *" }), w.call("x", { rule: "boss: may *" })]).toEqual([
      undefined,
      undefined,
    ]);
    expect(w.call("x", { rule: "boss: may *" })?.data).toEqual({ limit: "roles.boss.limit", permitted: 3, per: "day" });
  });

  test("change with the settings, and what was counted stays counted", async () => {
    const w = await world({}, { roles: { support: { may: ["*"], limit: "5/day" } } });
    const by = { rule: "support: may *" };
    expect([w.call("a", by), w.call("a", by)]).toEqual([undefined, undefined]);
    const wanted = {
      limits: limitsSettings.parse({}),
      roles: rolesSettings.parse({ support: { may: ["*"], limit: "2/day" } }),
    };
    const put = w.limits.prepare(wanted);
    expect(w.call("a", by)).toBeUndefined();
    put();
    expect(w.call("a", by)?.message).toContain("2 a day");
    expect(() =>
      w.limits.prepare({ ...wanted, limits: limitsSettings.parse({ tools: { "access:some": { perDay: 1 } } }) }),
    ).toThrow(/no class "access:some"/);
  });
});

describe("the cost of a call", () => {
  test("is worked out from its arguments and counts at every limit per minute and day", async () => {
    const w = await world(
      { tools: { export: { perMinute: 10, cost: "=size(args.ids)" } }, perPrincipalPerDay: 15 },
      { roles: { r: { may: ["*"], limit: { concurrent: 1 } } } },
    );
    const call = (...ids: string[]) => w.call("export", { args: { ids }, rule: "r: may *" });
    expect(call("a", "b", "c", "d", "e", "f")).toBeUndefined();
    expect(call("a", "b", "c", "d", "e")?.message).toContain(
      "10 a minute are permitted. This one counts as 5. Try again",
    );
    expect(call("a", "b", "c", "d")).toBeUndefined();
    w.later(MINUTE);
    expect(call("a", "b", "c", "d", "e")).toBeUndefined();
    expect(call("a")?.data).toEqual({ limit: "limits.perPrincipalPerDay", permitted: 15, per: "day" });
    expect(call()).toBeUndefined();
  });

  test("may be a fraction, and fractions add up", async () => {
    const w = await world({ tools: { export: { perMinute: 1, cost: "=args.rows / 10.0" } } });
    for (let index = 0; index < 10; index++) expect(w.call("export", { args: { rows: 1 } })).toBeUndefined();
    expect(w.call("export", { args: { rows: 1 } })).toMatchObject({ code: "rate_limited" });
  });

  test("that fails, is negative, not a number or beyond all bounds refuses the call and counts nothing", async () => {
    const w = await world({ tools: { export: { perMinute: 1, cost: "=args.rows" } } });
    for (const args of [{}, { rows: -1 }, { rows: "many" }, { rows: 1e300 }, { rows: ["1"] }]) {
      const refused = w.call("export", { args });
      expect(refused).toMatchObject({ code: "invalid_params" });
      expect(refused?.message).not.toContain("args.rows");
      expect(refused?.detail).toContain("limits.tools.export.cost");
    }
    expect(w.call("export", { args: { rows: 1 } })).toBeUndefined();
  });

  test("that no limit has room for is said to be too great for ever", async () => {
    const w = await world({ tools: { export: { perDay: 10, cost: "=args.rows" } } });
    const refused = w.call("export", { args: { rows: 11 } });
    expect(refused?.message).toBe(
      "This call counts as 11, and no more than 10 a day are permitted of calls of export by you. Ask for less at a time.",
    );
    expect(refused?.retryAfterSeconds).toBeUndefined();
    expect(w.call("export", { args: { rows: 10 } })).toBeUndefined();
  });

  test("of several patterns is the greatest", async () => {
    const w = await world({ tools: { "*": { perMinute: 5, cost: 0 }, "ex*": { cost: 2 }, export: { cost: 1 } } });
    expect([w.call("export"), w.call("export")]).toEqual([undefined, undefined]);
    expect(w.call("export")?.message).toContain("counts as 2");
    for (let index = 0; index < 20; index++) expect(w.call("ping")).toBeUndefined();
  });
});

test("a call that one limit refuses is counted at none of the others", async () => {
  const w = await world(
    { tools: { export: { perDay: 3 }, "*": { concurrent: 1 }, "ex*": { perMinute: 2 } }, perPrincipalPerDay: 100 },
    { roles: { r: { may: ["*"], limit: "3/day" } } },
  );
  const by = { rule: "r: may *" };
  const held = w.begin("export", by);
  for (let index = 0; index < 50; index++) expect(w.call("export", by)?.message).toContain("at the same time");
  held.leave();
  expect(w.call("export", by)).toBeUndefined();
  for (let index = 0; index < 50; index++) expect(w.call("export", by)?.message).toContain("ex* by you: 2 a minute");
  w.later(MINUTE);
  expect(w.call("export", by)).toBeUndefined();
  expect(w.call("export", by)?.message).toContain("3 a day");
  expect(w.call("other", by)?.message).toContain("role r");
  expect(w.call("other")).toBeUndefined();
});

test("rounds of one call are one call; the same answer twice is another one", async () => {
  const w = await world({ tools: { export: { perMinute: 2, concurrent: 1 } } });
  expect(w.call("export")).toBeUndefined();
  expect(w.call("export", { round: "state-1" })).toBeUndefined();
  expect(w.call("export", { round: "state-2" })).toBeUndefined();
  expect(w.call("export", { round: "state-2" })).toBeUndefined();
  expect(w.call("export", { round: "state-2" })).toMatchObject({ code: "rate_limited" });
  // A round that found no place may come again.
  w.later(MINUTE);
  const held = w.begin();
  expect(w.call("export", { round: "state-3" })?.message).toContain("at the same time");
  held.leave();
  expect([w.call("export", { round: "state-3" }), w.call("export")]).toEqual([undefined, undefined]);
  expect(w.call("export")).toMatchObject({ code: "rate_limited" });
});

test("without limits of calls there is nothing to wait for and nothing to count", async () => {
  const w = await world({});
  for (let index = 0; index < 1000; index++) expect(w.call()).toBeUndefined();
  expect(w.limits.together).toBeUndefined();
});

describe("daily counts", () => {
  test("outlive a process that stops", async () => {
    const { records } = memoryStore();
    const settings = { tools: { export: { perDay: 3 } } };
    const first = await world(settings, { records });
    expect([first.call(), first.call("export", { by: joe })]).toEqual([undefined, undefined]);
    await first.limits.close();
    const second = await world(settings, { records });
    expect([second.call(), second.call()]).toEqual([undefined, undefined]);
    expect(second.call()).toMatchObject({ code: "rate_limited" });
    await second.limits.close();
    const tomorrow = await world(settings, { records, now: NOON + DAY });
    expect(tomorrow.call()).toBeUndefined();
    await tomorrow.limits.close();
    for (const { id, value } of await records.list("limits:day", { limit: 10 }))
      expect(`${id} ${JSON.stringify(value)}`).not.toMatch(/joe|u1/);
  });

  test("of processes on one store are added up", async () => {
    const { records } = memoryStore();
    const settings = { tools: { export: { perDay: 100 } } };
    const replicas = await Promise.all([1, 2, 3].map(() => world(settings, { records })));
    for (const one of replicas) for (let index = 0; index < 10; index++) expect(one.call()).toBeUndefined();
    await Promise.all(replicas.map((one) => one.limits.close()));
    const next = await world(settings, { records });
    for (let index = 0; index < 70; index++) expect(next.call()).toBeUndefined();
    expect(next.call()).toMatchObject({ code: "rate_limited" });
    await next.limits.close();
  });

  test("are kept while the store fails, and written when it is back", async () => {
    const { records } = memoryStore();
    let broken = true;
    const failing: Records = {
      ...records,
      put: async (...args) => {
        if (broken) throw new Error("the store is away");
        return records.put(...args);
      },
    };
    const settings = { tools: { export: { perDay: 2 } } };
    const first = await world(settings, { records: failing });
    expect([first.call(), first.call()]).toEqual([undefined, undefined]);
    await first.limits.close();
    expect(first.call()).toMatchObject({ code: "rate_limited" });
    broken = false;
    await first.limits.close();
    const second = await world(settings, { records });
    expect(second.call()).toMatchObject({ code: "rate_limited" });
    await second.limits.close();
  });
});

test("settings that say nothing or nonsense are refused", () => {
  const wrong = [
    { tools: { x: {} } },
    { tools: { x: { perDay: 0 } } },
    { tools: { x: { perDay: 1.5 } } },
    { tools: { x: { perMinute: 1, cost: -1 } } },
    { tools: { x: { perMinute: 1, cost: "size(args.a)" } } },
  ];
  for (const limits of wrong) expect(limitsSettings.safeParse(limits).success, JSON.stringify(limits)).toBe(false);
  for (const limit of ["60", "0/min", "60/hour", "x/min", {}, { together: true }])
    expect(rolesSettings.safeParse({ a: { may: ["*"], limit } }).success, JSON.stringify(limit)).toBe(false);
});
