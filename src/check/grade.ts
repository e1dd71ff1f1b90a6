/** Grades from A to F for each of the five principles and for the whole. docs/check.md tells the weights. */
import { type Principle, pointsOf, REVIEW_POINTS, type Severity } from "../inspect/finding.ts";
import { HYGIENE, RULES } from "../inspect/rules/index.ts";
import { SET_RULES } from "../inspect/sets/index.ts";
import type { CheckedServer, CheckedTool, Judged } from "./check.ts";
import { PROBE_RULES } from "./probe/judge.ts";

export type Grade = "A" | "B" | "C" | "D" | "F";

export interface PrincipleGrade {
  readonly principle: Principle;
  readonly title: string;
  readonly grade: Grade;
  /** Of a hundred. */
  readonly score: number;
  /** Findings that lowered it, waived ones left out. */
  readonly findings: number;
}

export interface Grades {
  readonly overall: Grade;
  readonly score: number;
  readonly principles: readonly PrincipleGrade[];
}

/** The principles, and how much each weighs in the whole. */
const PRINCIPLES = [
  { principle: 1, title: "Shrink the attack surface", weight: 15 },
  { principle: 2, title: "Constrain inputs", weight: 25 },
  { principle: 3, title: "Documentation as a defence", weight: 20 },
  { principle: 4, title: "Return only what is needed", weight: 15 },
  { principle: 5, title: "Minimise the blast radius", weight: 25 },
] as const satisfies readonly { principle: Principle; title: string; weight: number }[];

/** The lowest score that still has the grade. */
const GRADES: readonly (readonly [number, Grade])[] = [
  [90, "A"],
  [80, "B"],
  [65, "C"],
  [50, "D"],
  [0, "F"],
];
/** What a finding about a server takes from its principle. */
const SERVER_COST: Readonly<Record<Severity, number>> = { critical: 100, high: 40, medium: 20, low: 10, info: 0 };
/** A principle's score: the mean of its tools counts for so much, the worst of them for the rest. */
const MEAN_SHARE = 0.5;
/** The whole is at most so many points better than its worst principle. */
const ABOVE_WORST = 10;
/** Two principles with an F make an F of the whole, which has at most so many points then. */
const FAILED = 49;

const ROWS = new Map([...RULES, ...HYGIENE, ...SET_RULES, ...PROBE_RULES].map((rule) => [rule.id, rule]));
const COSTS = new Map(HYGIENE.map(({ id, cost = 10 }) => [id, cost]));

/** Grades what was judged. Waived findings cost nothing. A list without tools has nothing to hold against it; a server that
 * could not be read (`unread`) makes an F of the whole. */
export function gradesOf(tools: readonly CheckedTool[], servers: readonly CheckedServer[], unread = false): Grades {
  const principles = PRINCIPLES.map(({ principle, title }): PrincipleGrade => {
    const costs = tools.map((tool) => costOf(tool, principle));
    const mean = costs.length === 0 ? 0 : costs.reduce((sum, cost) => sum + cost, 0) / costs.length;
    const worst = costs.reduce((most, cost) => Math.max(most, cost), 0);
    const about = servers.flatMap(({ findings }) => findings.filter((one) => !one.waived && isOf(one, principle)));
    const set = about.reduce((sum, { severity }) => sum + SERVER_COST[severity], 0);
    const score = bounded(100 - MEAN_SHARE * mean - (1 - MEAN_SHARE) * worst - set);
    const findings = tools.flatMap((tool) => tool.findings.filter((one) => !one.waived && isOf(one, principle))).length;
    return { principle, title, grade: letter(score), score, findings: findings + about.length };
  });
  const weighed = PRINCIPLES.reduce((sum, { weight }, at) => sum + weight * (principles[at]?.score ?? 0), 0) / 100;
  const capped = Math.min(weighed, Math.min(...principles.map((one) => one.score)) + ABOVE_WORST);
  const failed = principles.filter(({ grade }) => grade === "F").length;
  const score = unread ? 0 : bounded(failed > 1 ? Math.min(capped, FAILED) : capped);
  return { overall: letter(score), score, principles };
}

/** True when `grade` is this bad, or worse. */
export function atLeastAsBad(grade: Grade, than: Grade): boolean {
  return grade >= than;
}

/** Of a hundred points of one tool in one principle. */
function costOf({ findings }: CheckedTool, principle: Principle): number {
  let cost = 0;
  for (const finding of findings) {
    if (finding.waived || !isOf(finding, principle)) continue;
    const hygiene = COSTS.get(finding.rule);
    if (hygiene !== undefined) cost += finding.severity === "info" ? hygiene / 4 : hygiene;
    // One suspicion of weight is as bad as it gets; a passing remark costs what it is worth.
    else cost += pointsOf(finding) >= REVIEW_POINTS ? 100 : pointsOf(finding) / 2;
  }
  return Math.min(100, cost);
}

function isOf({ rule }: Judged, principle: Principle): boolean {
  return ROWS.get(rule)?.principle === principle;
}

function letter(score: number): Grade {
  return GRADES.find(([least]) => score >= least)?.[1] ?? "F";
}

function bounded(score: number): number {
  return Math.max(0, Math.min(100, Math.round(score)));
}
