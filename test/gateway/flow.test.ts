/** What the gateway holds of whom: by user, client and session, for as long as it matters. */
import { describe, expect, test } from "vitest";
import type { Contract } from "../../src/contract/contract.ts";
import type { Authenticated, Principal, Target } from "../../src/core/call.ts";
import { type Flow, openFlow } from "../../src/gateway/flow.ts";
import { unread } from "../../src/gateway/inspection.ts";

const HOUR = 3_600_000;

const principal = (subject: string, client = "c") => ({ subject, client }) as unknown as Principal;
const amy = principal("amy");

const contract = (settings: object, access?: string) => ({ settings, access }) as unknown as Contract;
const CUSTOMER = contract({ mask: { email: "redact" } }, "read");
const WEB = contract({ openWorld: true }, "read");
const MAIL = contract({ openWorld: true }, "write");
const CANCEL = contract({ openWorld: false }, "destructive");
const NOTE = contract({ openWorld: false }, "write");

function setting(mode: "approve" | "off" = "approve") {
  const time = { now: 1_000_000 };
  const flow = openFlow(mode, { keepSeconds: 3600 }, () => time.now);
  const heard = (of: Contract | undefined, more: object = {}, by = amy, session?: string) =>
    flow.heard(by, session, { counts: {}, shown: false, contract: of, read: unread(), ...more }, true);
  const needs = (of: Contract | undefined, by = amy, session?: string) => asks(flow, of, by, session);
  return { flow, time, heard, needs };
}

function asks(flow: Flow, of: Contract | undefined, by: Principal, session: string | undefined): boolean {
  const target = { server: "s", kind: "tool", name: "t", upstreamName: "t", pin: undefined } as Target;
  const call = { by: by as Authenticated, target, contract: of, session: { session, grant: undefined } };
  return flow.needs({ ...call, facts: { method: "tools/call", args: {}, scope: "", at: 0 } }) !== undefined;
}

const FOUND = { read: { ...unread(), findings: [{ rule: "r", confidence: "high", action: "label", where: "" }] } };

test.each([
  ["a contract that masks, and an open world", CUSTOMER, {}, WEB, {}],
  ["values that were masked, and an open world", undefined, { counts: { email: 1 } }, WEB, {}],
  ["values that only this user sees, and words that give orders", undefined, { shown: true }, undefined, FOUND],
] as const)("%s make sending and destroying need approval, in either order", (_, first, one, second, other) => {
  for (const turned of [false, true]) {
    const { heard, needs } = setting();
    const steps = [() => heard(first, one), () => heard(second, other)];
    for (const step of turned ? steps.toReversed() : steps) {
      expect(needs(MAIL)).toBe(false);
      step();
    }
    expect([MAIL, CANCEL, WEB, NOTE, CUSTOMER, undefined].map((tool) => needs(tool))).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
    ]);
  }
});

describe("what was read", () => {
  const toxic = (by = amy, session?: string) => {
    const all = setting();
    all.heard(CUSTOMER, {}, by, session);
    all.heard(WEB, {}, by, session);
    return all;
  };

  test("is another user's and another client's affair", () => {
    const { needs } = toxic();
    expect(needs(MAIL)).toBe(true);
    expect(needs(MAIL, principal("bob"))).toBe(false);
    expect(needs(MAIL, principal("amy", "d"))).toBe(false);
  });

  test("in one session is not known in another, and gone with it", () => {
    const { flow, needs } = toxic(amy, "one");
    expect(needs(MAIL, amy, "one")).toBe(true);
    expect(needs(MAIL, amy, "two")).toBe(false);
    expect(needs(MAIL, amy)).toBe(false);
    flow.sessionEnded(amy, "one");
    expect(needs(MAIL, amy, "one")).toBe(false);
  });

  test("beside all sessions counts in each", () => {
    expect(toxic().needs(MAIL, amy, "one")).toBe(true);
  });

  test("is forgotten an hour after the last of it", () => {
    const { time, heard, needs } = toxic();
    time.now += 0.9 * HOUR;
    heard(WEB);
    time.now += 0.9 * HOUR;
    expect(needs(MAIL)).toBe(true);
    time.now += 0.2 * HOUR;
    expect(needs(MAIL)).toBe(false);
  });

  test("counts from the moment that the setting says so", () => {
    const { flow, needs } = toxic();
    flow.set("off");
    expect(needs(MAIL)).toBe(false);
    flow.set("approve");
    expect(needs(MAIL)).toBe(true);
  });
});

test("what was sent brings no text of strangers by itself, and a call that was not answered nothing at all", () => {
  const { flow, heard, needs } = setting();
  heard(CUSTOMER);
  heard(MAIL);
  flow.heard(amy, undefined, { counts: {}, shown: false, contract: WEB, read: unread() }, false);
  expect(needs(MAIL)).toBe(false);
});
