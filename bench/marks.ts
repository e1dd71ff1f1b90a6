/** The marks Drawbridge set itself, and whether a run met them. The only place where a figure has a wish. */
import type { Figure, Table } from "./figures.ts";

interface Mark {
  readonly what: string;
  /** The figure's name, as a suite gives it. */
  readonly figure: string;
  readonly unit: string;
  readonly digits: number;
  readonly atLeast?: number;
  readonly atMost?: number;
}

const AUDIT = ["durable", "async"] as const;

const MARKS: readonly Mark[] = [
  ...AUDIT.map((audit) => ({
    what: `throughput of nginx's, bare echo upstream, audit ${audit}`,
    figure: `hop.perNginx.${audit}`,
    unit: "",
    digits: 2,
    atLeast: 0.6,
  })),
  ...AUDIT.map((audit) => ({
    what: `throughput of direct, SDK v2 upstream, audit ${audit}`,
    figure: `sdk.perDirect.${audit}`,
    unit: "",
    digits: 2,
    atLeast: 0.78,
  })),
  ...AUDIT.map((audit) => ({
    what: `CPU a call, bare echo upstream, audit ${audit}`,
    figure: `hop.cpuMsPerCall.${audit}`,
    unit: " ms",
    digits: 4,
    atMost: 0.1,
  })),
  ...AUDIT.map((audit) => ({
    what: `calls through one stdio child, audit ${audit}`,
    figure: `stdio.perSecond.${audit}`,
    unit: "/s",
    digits: 0,
    atLeast: 8000,
  })),
  ...AUDIT.map((audit) => ({
    what: `throughput under contract of that without, audit ${audit}`,
    figure: `contracts.perPlain.${audit}`,
    unit: "",
    digits: 2,
    atLeast: 0.85,
  })),
  ...AUDIT.map((audit) => ({
    what: `throughput with audit ${audit} of that with audit off`,
    figure: `audit.perOff.${audit}`,
    unit: "",
    digits: 2,
    atLeast: 0.85,
  })),
  { what: "records verified in a second", figure: "audit.verified", unit: "/s", digits: 0, atLeast: 200_000 },
  { what: "a search over a million records", figure: "audit.searchMs", unit: " ms", digits: 0, atMost: 1000 },
  { what: "goodput at ten times the clients", figure: "overload.goodput", unit: "", digits: 2, atLeast: 0.8 },
  { what: "refusals at ten times the clients, p99", figure: "overload.refusalP99", unit: " ms", digits: 1, atMost: 50 },
  { what: "answers to the wrong caller at ten times", figure: "overload.wrong", unit: "", digits: 0, atMost: 0 },
  {
    what: "goodput at ten times the clients, HTTP",
    figure: "overload.goodput.http",
    unit: "",
    digits: 2,
    atLeast: 0.8,
  },
  {
    what: "refusals at ten times the clients, HTTP, p99",
    figure: "overload.refusalP99.http",
    unit: " ms",
    digits: 1,
    atMost: 50,
  },
  { what: "heap of an idle session", figure: "idle.heapKbPerSession", unit: " KB", digits: 2, atMost: 2 },
  { what: "a decision, 100 rules with conditions", figure: "policy.us.perTool", unit: " µs", digits: 2, atMost: 5 },
  { what: "1,000 rules compiled", figure: "policy.ms.load", unit: " ms", digits: 0, atMost: 1000 },
  { what: "first answer with a stdio child", figure: "cold.seconds.floor", unit: " s", digits: 3, atMost: 0.4 },
  ...AUDIT.map((audit) => ({
    what: `calls of a declared server for each of the SDK's, audit ${audit}`,
    figure: `author.perSdk.${audit}`,
    unit: "",
    digits: 2,
    atLeast: 6,
  })),
  { what: "first answer of a declared server", figure: "author.cold.package", unit: " s", digits: 3, atMost: 0.22 },
  ...["20", "200", "1000", "5000"].map((connections) => ({
    what: `failed calls, stdio, ${connections} connections, one id for all`,
    figure: `stdio.failed.${connections}`,
    unit: "",
    digits: 0,
    atMost: 0,
  })),
  ...["20", "200", "1000", "5000"].map((connections) => ({
    what: `answers to the wrong caller, ${connections} connections`,
    figure: `stdio.wrong.${connections}`,
    unit: "",
    digits: 0,
    atMost: 0,
  })),
  {
    what: "failed of 22 calls that block 0.5 s, 10 s limit",
    figure: "stdio.failed.blocked",
    unit: "",
    digits: 0,
    atMost: 0,
  },
];

/** One row for each mark. The median is judged; for marks of zero the worst run is. */
export function judged(figures: Readonly<Record<string, Figure>>): Table {
  const rows = MARKS.map((mark) => {
    const measured = figures[mark.figure];
    const wish = mark.atLeast === undefined ? `≤ ${mark.atMost}${mark.unit}` : `≥ ${mark.atLeast}${mark.unit}`;
    if (measured === undefined || Number.isNaN(measured.median)) return [mark.what, wish, "–", "", "not measured"];
    const value = mark.atMost === 0 ? measured.max : measured.median;
    const met =
      value >= (mark.atLeast ?? Number.NEGATIVE_INFINITY) && value <= (mark.atMost ?? Number.POSITIVE_INFINITY);
    const range = `${measured.min.toFixed(mark.digits)}–${measured.max.toFixed(mark.digits)}`;
    return [mark.what, wish, `${value.toFixed(mark.digits)}${mark.unit}`, range, met ? "met" : "NOT MET"];
  });
  return { title: "Marks", head: ["mark", "wanted", "measured", "range", "result"], rows, notes: [] };
}
