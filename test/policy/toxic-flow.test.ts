import { expect, test } from "vitest";
import { toxic, toxicFlow } from "../../src/policy/toxic-flow.ts";

const me = { subject: "u_1", client: "c_1" };
const sends = { openWorld: true, destructive: false };
const PRIVATE = { privateRead: true, untrustedSeen: false };
const STRANGE = { privateRead: false, untrustedSeen: true };

test("only both facts together make tools that send outside or destroy need approval, in any order", () => {
  for (const order of [
    [PRIVATE, STRANGE],
    [STRANGE, PRIVATE],
  ]) {
    const flow = toxicFlow();
    expect(toxic(flow.factsOf(me), sends)).toBe(false);
    const before = order.map((facts) => {
      flow.saw(me, facts);
      return toxic(flow.factsOf(me), sends);
    });
    expect(before).toEqual([false, true]);
    expect(toxic(flow.factsOf(me), { openWorld: false, destructive: true })).toBe(true);
    expect(toxic(flow.factsOf(me), { openWorld: false, destructive: false })).toBe(false);
  }
});

test("another user, client or session has a flow of its own", () => {
  const flow = toxicFlow();
  flow.saw(me, { privateRead: true, untrustedSeen: true });
  for (const other of [
    { ...me, subject: "u_2" },
    { ...me, client: "c_2" },
    { ...me, session: "s" },
    { subject: 'u_1","c_1', client: "" },
  ])
    expect(flow.factsOf(other)).toEqual({ privateRead: false, untrustedSeen: false });
});

test("facts are forgotten after their time, and a new one keeps the others", () => {
  let now = 0;
  const flow = toxicFlow({ keepSeconds: 10 }, () => now);
  flow.saw(me, PRIVATE);
  now = 9_000;
  flow.saw(me, STRANGE);
  now = 18_000;
  expect(toxic(flow.factsOf(me), sends)).toBe(true);
  now = 19_001;
  expect(flow.factsOf(me)).toEqual({ privateRead: false, untrustedSeen: false });
});

test("when there are too many flows whoever is not known needs approval until the others have expired", () => {
  let now = 0;
  const flow = toxicFlow({ keepSeconds: 10, maxFlows: 2 }, () => now);
  for (const client of ["a", "b", "c"]) flow.saw({ subject: "u", client }, PRIVATE);
  expect(flow.factsOf({ subject: "u", client: "a" })).toEqual(PRIVATE);
  expect(toxic(flow.factsOf({ subject: "u", client: "c" }), sends)).toBe(true);
  now = 10_001;
  expect(flow.factsOf({ subject: "u", client: "c" })).toEqual({ privateRead: false, untrustedSeen: false });
});

test("what is forgotten is gone", () => {
  const flow = toxicFlow();
  flow.saw(me, { privateRead: true, untrustedSeen: true });
  flow.forget(me);
  expect(toxic(flow.factsOf(me), sends)).toBe(false);
});
