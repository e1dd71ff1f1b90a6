import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { rulePages } from "../../scripts/rules.ts";
import { judgeProbe, PROBE_RULES } from "../../src/check/probe/judge.ts";
import { OWASP, pointsOf } from "../../src/inspect/finding.ts";
import { inspectDefinition } from "../../src/inspect/inspect.ts";
import { HYGIENE, RULES } from "../../src/inspect/rules/index.ts";
import { LOOK_ALIKE_NEIGHBOUR } from "../../src/inspect/rules/look-alike-name.ts";
import { inspectServers } from "../../src/inspect/set-rule.ts";
import { SET_RULES } from "../../src/inspect/sets/index.ts";

const root = join(import.meta.dirname, "../..");

/** Points that alone, or twice, lead to no review. */
const PASSING = 25;

test("every file of rules/ holds the one rule it is named for", () => {
  const files = readdirSync(join(root, "src/inspect/rules")).filter((file) => file !== "index.ts");
  expect([...RULES, ...HYGIENE].map(({ id }) => `${id}.ts`).sort()).toEqual(files.sort());
  const sets = readdirSync(join(root, "src/inspect/sets")).filter((file) => file !== "index.ts");
  expect(SET_RULES.map(({ id }) => `${id}.ts`).sort()).toEqual(sets.sort());
});

test("every rule has its page, and no page is left of a rule that is gone", () => {
  const pages = rulePages();
  for (const [file, text] of pages) expect(readFileSync(file, "utf8"), `${file}: run node scripts/rules.ts`).toBe(text);
  expect(readdirSync(join(root, "docs/rules")).length).toBe(pages.size);
});

describe.each([...RULES, ...HYGIENE].map((rule) => [rule.id, rule] as const))("%s", (id, rule) => {
  const found = (definition: (typeof rule.bad)[number]) => {
    const { findings, hygiene } = inspectDefinition("tool", definition, { neighbours: [LOOK_ALIKE_NEIGHBOUR] });
    return [...findings, ...hygiene].filter((one) => one.rule === id);
  };

  test("says what it is, why, and what to do", () => {
    expect(id).toMatch(/^[a-z]+(?:-[a-z]+)*$/);
    expect(Object.keys(OWASP)).toContain(rule.owasp);
    expect(rule.why.length).toBeGreaterThan(40);
    expect(rule.fix.length).toBeGreaterThan(20);
  });

  test("finds its bad examples, with evidence that is in them", () => {
    expect(rule.bad.length).toBeGreaterThan(0);
    for (const bad of rule.bad) {
      const findings = found(bad);
      expect(findings.length, JSON.stringify(bad)).toBeGreaterThan(0);
      for (const { evidence, where } of findings) {
        expect(evidence.length).toBeGreaterThan(0);
        expect(evidence).not.toMatch(/[\u200b\u202a-\u202e\u{e0000}-\u{e007f}]/u);
        expect(where === "" || resolves(bad, where), where).toBe(true);
      }
    }
  });

  test("has at most a passing remark for its good examples", () => {
    expect(rule.good.length).toBeGreaterThan(0);
    for (const good of rule.good)
      expect(
        found(good).filter((finding) => pointsOf(finding) > PASSING),
        JSON.stringify(good),
      ).toEqual([]);
  });
});

describe.each(HYGIENE.map((rule) => [rule.id, rule] as const))("%s, which is of hygiene,", (id, rule) => {
  test("costs points, leaves its good examples alone, and makes no verdict", () => {
    expect(rule.cost).toBeGreaterThan(0);
    for (const good of rule.good)
      expect(
        inspectDefinition("tool", good).hygiene.filter((one) => one.rule === id),
        JSON.stringify(good),
      ).toEqual([]);
    for (const bad of rule.bad) {
      const { verdict, findings } = inspectDefinition("tool", bad);
      expect(verdict, JSON.stringify(findings)).toBe("clean");
    }
  });
});

describe.each(SET_RULES.map((rule) => [rule.id, rule] as const))("%s", (id, { bad, good, owasp, why, fix }) => {
  test("finds its bad examples, leaves its good ones alone, and says why", () => {
    expect(Object.keys(OWASP)).toContain(owasp);
    expect(why.length).toBeGreaterThan(20);
    expect(fix.length).toBeGreaterThan(8);
    const found = (servers: (typeof bad)[number]) => inspectServers(servers).filter(({ rule }) => rule === id);
    for (const servers of bad) {
      const findings = found(servers);
      expect(findings.length, JSON.stringify(servers)).toBeGreaterThan(0);
      for (const { evidence } of findings) expect(evidence).not.toBe("");
    }
    for (const servers of good) expect(found(servers), JSON.stringify(servers)).toEqual([]);
  });
});

describe.each(PROBE_RULES.map((rule) => [rule.id, rule] as const))("%s", (id, { bad, good, owasp, why, fix }) => {
  test("finds its bad examples, leaves its good ones alone, and says why", () => {
    expect(id).toMatch(/^[a-z]+(?:-[a-z]+)*$/);
    expect(Object.keys(OWASP)).toContain(owasp);
    expect(why.length).toBeGreaterThan(40);
    expect(fix.length).toBeGreaterThan(20);
    const seen = { url: "https://mcp.example.com/mcp", local: false };
    const found = (more: (typeof bad)[number]) =>
      judgeProbe({ ...seen, ...more }, "mcp.example.com").filter(({ rule }) => rule === id);
    for (const one of bad) {
      const findings = found(one);
      expect(findings.length, JSON.stringify(one)).toBeGreaterThan(0);
      for (const { evidence, where } of findings) {
        expect(evidence).not.toBe("");
        expect(where).toMatch(/^\//);
      }
    }
    for (const one of good) expect(found(one), JSON.stringify(one)).toEqual([]);
  });
});

test("no rule has the name of another", () => {
  const ids = [...RULES, ...HYGIENE, ...SET_RULES, ...PROBE_RULES].map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
});

test("what a server says cannot steer a terminal", () => {
  const [finding] = judgeProbe(
    { url: "https://a.example/mcp", local: false, anonymous: { outcome: "taken", said: "\u001b[2J\u202e" } },
    "a.example",
  );
  expect(finding?.evidence).not.toMatch(/[\u001b\u202e]/);
});

/** Whether a JSON pointer leads somewhere: to a value, or to a key for a finding about a name. */
function resolves(value: unknown, pointer: string): boolean {
  let at = value;
  for (const part of pointer.slice(1).split("/")) {
    const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
    if (typeof at !== "object" || at === null || !(key in at)) return false;
    at = (at as Record<string, unknown>)[key];
  }
  return true;
}
