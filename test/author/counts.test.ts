/** Limits that a server keeps by itself, over stdio. */
import { describe, expect, test } from "vitest";
import { openCounts } from "../../src/author/counts.ts";
import type { Tool } from "../../src/author/tool.ts";
import { clientAt, ERAS } from "./clients.ts";

const tool = (limits: Tool["limits"], name = "scarce") => ({ name, limits }) as Tool;
const START = Date.UTC(2026, 5, 1, 23, 59, 0);
const open = () => {
  const clock = { at: START };
  const counts = openCounts(() => clock.at);
  const takes = (one: Tool) => {
    try {
      return counts.take(one);
    } catch (thrown) {
      return String(thrown);
    }
  };
  return { clock, takes, passes: (one: Tool) => typeof takes(one) === "function" };
};

test("a minute begins with its first call, and after it there is a new one", () => {
  const { clock, passes, takes } = open();
  const twice = tool({ perMinute: 2 });
  expect([passes(twice), passes(twice), passes(twice)]).toEqual([true, true, false]);
  clock.at += 18_000;
  expect(takes(twice)).toContain("Too many calls of scarce: 2 a minute are permitted. Try again in 42 s.");
  clock.at += 42_000;
  expect([passes(twice), passes(twice), passes(twice)]).toEqual([true, true, false]);
});

test("a day is one of UTC, and what one limit refuses is counted at none", () => {
  const { clock, passes } = open();
  const both = tool({ perMinute: 1, perDay: 2 });
  expect([passes(both), passes(both)]).toEqual([true, false]);
  clock.at += 59_000;
  expect(passes(both)).toBe(false);
  // Midnight, and the minute is over with it.
  clock.at += 1_000;
  expect(passes(both)).toBe(true);
  clock.at += 60_000;
  expect(passes(both)).toBe(true);
  clock.at += 60_000;
  expect(passes(both)).toBe(false);
});

test("a call can count as several, and one that counts for too much is told that it never will", () => {
  const { passes, takes } = open();
  const dear = tool({ perMinute: 5, cost: 2 });
  expect([passes(dear), passes(dear), passes(dear)]).toEqual([true, true, false]);
  expect(takes(tool({ perDay: 1, cost: 2 }, "never"))).toContain("counts for more than 1 a day");
});

test("places are given back, and each tool has its own", () => {
  const { passes, takes } = open();
  const alone = tool({ concurrent: 1 });
  const end = takes(alone);
  expect(passes(alone)).toBe(false);
  expect(passes(tool({ concurrent: 1 }, "other"))).toBe(true);
  if (typeof end === "function") end();
  expect(passes(alone)).toBe(true);
});

describe("over stdio", () => {
  test.each(ERAS)("a %s client is refused as by a gateway; what does not fit is not counted", async (era) => {
    const program = `${import.meta.dirname}/desk.ts`;
    const client = await clientAt({ program }, era);
    try {
      const wrong = await client.callTool({ name: "scarce", arguments: { more: 1 } });
      expect(wrong.isError).toBe(true);
      const first = await client.callTool({ name: "scarce", arguments: {} });
      expect(first.structuredContent).toEqual({ given: true });
      await expect(client.callTool({ name: "scarce", arguments: {} })).rejects.toMatchObject({
        code: -31429,
        data: { limit: "limits.tools.scarce", permitted: 1, per: "minute" },
      });
    } finally {
      await client.close();
    }
  });
});
