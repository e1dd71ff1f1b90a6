/** Judges the definitions of servers before anybody serves them: offline, from what they say of themselves. */
import type { JsonObject } from "../core/call.ts";
import { type Finding, type Inspection, type Verdict, verdictOf } from "../inspect/finding.ts";
import { inspecting } from "../inspect/inspect.ts";
import { HYGIENE } from "../inspect/rules/index.ts";
import { inspectServers, type SetFinding } from "../inspect/set-rule.ts";
import { SET_RULES } from "../inspect/sets/index.ts";
import { holds, type Waiver } from "./baseline.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { type Grades, gradesOf } from "./grade.ts";
import { PROBE_RULES } from "./probe/judge.ts";
import type { Target } from "./targets.ts";

/** A finding with what a baseline says of it. */
export interface Judged extends Finding {
  readonly fingerprint: string;
  /** A person took it; it counts for nothing. */
  readonly waived: boolean;
}

export interface CheckedTool {
  /** In the order of the list that was read, over all servers. */
  readonly index: number;
  readonly name: string;
  /** Empty when the list does not say. */
  readonly server: string;
  readonly verdict: Verdict;
  /** What is suspicious first, then what is careless. */
  readonly findings: readonly Judged[];
}

export interface CheckedServer {
  /** Empty for what several servers make together. */
  readonly name: string;
  readonly verdict: Verdict;
  readonly findings: readonly Judged[];
}

export interface Report {
  readonly target: string;
  readonly tools: readonly CheckedTool[];
  readonly servers: readonly CheckedServer[];
  /** Undefined when each tool was judged by itself. */
  readonly grades: Grades | undefined;
  readonly waivers: {
    readonly used: number;
    /** No longer in force; what they were for counts again. */
    readonly expired: readonly Waiver[];
    /** Fit nothing that was found: mended, or of another target. */
    readonly unused: readonly Waiver[];
  };
  readonly unread: readonly { readonly server: string; readonly problem: string }[];
  /** What a live probe could not look at, in sentences: grades say nothing of it. */
  readonly untested: readonly string[];
}

export interface CheckOptions {
  /** Judges each tool as if it stood alone, and by what is suspicious in it: nothing is compared, graded or said of servers. */
  readonly isolate?: boolean;
  readonly baseline?: readonly Waiver[];
  /** Today, as YYYY-MM-DD. */
  readonly day?: string;
}

/** After so long, other work of the process gets its turn. */
const TURN_MS = 10;
/** What costs points and makes no verdict: careless definitions, and what sets of servers make together. */
const CARELESS = new Set(
  [
    ...HYGIENE,
    ...[...SET_RULES, ...PROBE_RULES].filter(({ severity }) => severity !== "critical" && severity !== "high"),
  ].map(({ id }) => id),
);

/** Judges every tool of a target, in its order. Lets other work in between strings and rules. */
export async function check(target: Target, options: CheckOptions = {}): Promise<Report> {
  const { isolate = false, baseline = [], day = new Date().toISOString().slice(0, 10) } = options;
  const waivers = new Map(baseline.filter((one) => holds(one, day)).map((one) => [one.fingerprint, one]));
  const used = new Set<string>();
  const judged = (finding: Finding, server: string | undefined, tool: string | undefined): Judged => {
    const fingerprint = fingerprintOf(finding, server, tool);
    const waived = waivers.has(fingerprint);
    if (waived) used.add(fingerprint);
    return { ...finding, fingerprint, waived };
  };
  const named = target.servers.flatMap(({ name: server, tools }) =>
    tools.map((value) => ({ name: nameOf(value), server: server === "" ? undefined : server, value })),
  );
  const neighbours = isolate ? [] : named;
  const tools: CheckedTool[] = [];
  const turn = { began: performance.now() };
  for (const [index, { name, server, value }] of named.entries()) {
    const { findings, hygiene } = await inTurns(inspecting("tool", value, { server, neighbours }), turn);
    const all = [...findings, ...(isolate ? [] : hygiene)].map((finding) => judged(finding, server, name));
    tools.push({ index, name, server: server ?? "", verdict: verdict(all), findings: all });
  }
  const found = isolate ? [] : [...inspectServers(target.servers), ...(target.probed ?? [])];
  const servers = isolate ? [] : serversOf(target, found, judged);
  return {
    target: target.name,
    tools,
    servers,
    grades: isolate ? undefined : gradesOf(tools, servers, (target.unread ?? []).length > 0),
    waivers: {
      used: used.size,
      expired: baseline.filter((one) => !holds(one, day)),
      unused: baseline.filter((one) => holds(one, day) && !used.has(one.fingerprint)),
    },
    unread: target.unread ?? [],
    untested: target.untested ?? [],
  };
}

/** The gravest verdict of a report. */
export function worst({ tools, servers }: Pick<Report, "tools" | "servers">): Verdict {
  const has = (wanted: Verdict) => [...tools, ...servers].some((one) => one.verdict === wanted);
  return has("block") ? "block" : has("review") ? "review" : "clean";
}

/** Of what is suspicious alone, and not waived. */
function verdict(findings: readonly Judged[]): Verdict {
  return verdictOf(findings.filter(({ rule, waived }) => !waived && !CARELESS.has(rule)));
}

async function inTurns(steps: Generator<undefined, Inspection>, turn: { began: number }): Promise<Inspection> {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    if (performance.now() - turn.began < TURN_MS) continue;
    await new Promise<void>((resolve) => setImmediate(resolve));
    turn.began = performance.now();
  }
}

function serversOf(
  target: Target,
  found: readonly SetFinding[],
  judged: (finding: Finding, server: string | undefined, tool: string | undefined) => Judged,
): readonly CheckedServer[] {
  const names = [...new Set([...target.servers.map(({ name }) => name), ""])];
  return names.flatMap((name) => {
    const findings = found
      .filter(({ server }) => (server ?? "") === name)
      .map(({ server, ...finding }) => judged(finding, server, undefined));
    return name === "" && findings.length === 0 ? [] : [{ name, verdict: verdict(findings), findings }];
  });
}

function nameOf({ name }: JsonObject): string {
  return typeof name === "string" ? name : "";
}
