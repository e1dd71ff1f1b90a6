/** What a suite is: a question, the arms that answer it, and the figures that come out. */
import { type Drawbridge, type DrawbridgeOptions, drawbridge } from "../arms/drawbridge.ts";
import { nodeServer } from "../arms/http.ts";
import { GENERATOR_CORE } from "../cores.ts";
import type { Figure, Table } from "../figures.ts";
import type { Running } from "../processes.ts";
import type { Patience } from "../rounds.ts";

export interface Effort {
  readonly rounds: number;
  /** Measured seconds of one contender in one round. */
  readonly seconds: number;
  readonly patience: Patience;
  readonly tell: (line: string) => void;
}

export interface SuiteResult {
  readonly tables: readonly Table[];
  /** By name, such as `hop.perNginx.durable`; what `marks.ts` judges. */
  readonly figures: Readonly<Record<string, Figure>>;
  /** Everything measured, for the JSON file. */
  readonly raw: unknown;
}

export interface Suite {
  readonly name: string;
  readonly question: string;
  run(effort: Effort): Promise<SuiteResult>;
}

/** The two ways Drawbridge keeps its audit log; everything else is on in both. */
export const AUDITS = ["durable", "async"] as const;
export type Audit = (typeof AUDITS)[number];

export function armName(audit: Audit): string {
  return `drawbridge, audit ${audit}`;
}

/** Both Drawbridge arms in front of one server, and the receiver of their traces. */
export async function drawbridges(
  server: DrawbridgeOptions["server"],
  more: Pick<DrawbridgeOptions, "revision" | "nodeFlags"> = {},
): Promise<{ readonly arms: readonly Drawbridge[]; readonly sink: Running }> {
  const sink = await traceSink();
  const otlp = `http://127.0.0.1:${sink.port}`;
  return { sink, arms: AUDITS.map((audit) => drawbridge({ name: armName(audit), audit, server, otlp, ...more })) };
}

export function traceSink(): Promise<Running> {
  return nodeServer("OTLP receiver", "otlp-sink.ts", GENERATOR_CORE);
}
