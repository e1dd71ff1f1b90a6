/**
 * Numbers of the running gateway. The call path only adds to plain counters (0.2 µs); OpenTelemetry's Prometheus writer, which takes
 * some 50 ms to load, is loaded when somebody first asks for the text.
 */
import type { Attributes } from "@opentelemetry/api";
import { type Clock, systemClock } from "../core/clock.ts";
import type { ErrorCode } from "../core/errors.ts";
import { type Family, openMetricsText, type Point, prometheusWriter, type Series } from "./exposition.ts";

/** One finished call. Names come from the catalogue, never from the client: each distinct value is a series for ever. */
export interface MeasuredCall {
  readonly method: string;
  readonly tool?: string | undefined;
  readonly prompt?: string | undefined;
  /** The upstream's name. */
  readonly server?: string | undefined;
  /** As in its audit record. */
  readonly outcome: string;
  /** JSON-RPC code, or `tool_error`. */
  readonly errorType?: string | undefined;
  readonly seconds: number;
  /** Of a call whose trace is exported: what a number leads to. */
  readonly exemplar?: { readonly traceId: string; readonly spanId: string; readonly record: string } | undefined;
}

/** One upstream, now; the members of `UpstreamState` with its name. */
export interface MeasuredUpstream {
  readonly name: string;
  readonly state: string;
  readonly size: number;
  readonly inFlight: number;
  readonly queued: number;
  readonly restarts: number;
  /** Users or sessions with processes of their own; undefined where all share. */
  readonly instances?: number | undefined;
  /** Counts the versions of it, from 1. */
  readonly generation?: number | undefined;
  readonly draining?: boolean | undefined;
  /** Former versions that still finish what they began. */
  readonly finishing?: number | undefined;
}

/** What a policy that is only tried out would have said of a call. Names come from the catalogue and the settings. */
export interface MeasuredDifference {
  /** Of the rule that would have decided; undefined when none would have permitted. */
  readonly role?: string | undefined;
  readonly tool?: string | undefined;
  readonly from: string;
  readonly to: string;
}

/** How a question of a server to a client ended, as far as the gateway waited for the answer. */
export type QuestionEnd =
  | "answered"
  /** The client answered with an error, or could not be asked. */
  | "refused"
  /** Nobody answered in time. */
  | "expired"
  /** By its server, or because its call or its session ended. */
  | "withdrawn";

/** One place that audit records are sent to. */
export interface MeasuredSink {
  readonly name: string;
  readonly kind: string;
  /** This replica sends to it. */
  readonly sending: boolean;
  readonly behind: number;
  readonly sent: number;
  readonly failures: number;
  readonly refused: number;
  /** ISO 8601. */
  readonly lastSent?: string;
}

/** What the clients of one server's calls are asked, now. */
export interface MeasuredQuestions {
  readonly server: string;
  /** Questions that wait for an answer. */
  readonly open: number;
  /** Calls that wait for clients which are not connected. */
  readonly suspended: number;
}

export interface Metrics {
  call(call: MeasuredCall): void;
  questionEnded(server: string, end: QuestionEnd): void;
  /** A policy that is only tried out would have decided otherwise. */
  shadowed(difference: MeasuredDifference): void;
  /** What became of an approval, as the record of the call says it. */
  approval(state: string): void;
  /** The policy did not permit a call: by a rule, or because none permits it. */
  denied(rule: string | undefined, tool: string | undefined): void;
  /** A request that was answered with an error of ours. */
  refused(code: ErrorCode): void;
  /** Private values in what left, by their type. */
  masked(counts: Readonly<Record<string, number>>): void;
  /** What was done about instructions (with their rule), hidden characters and links in answers. */
  inspected(action: string, rule: string | undefined, count: number): void;
  /** What is read when somebody asks; a later function takes the place of an earlier one. */
  observeUpstreams(read: () => readonly MeasuredUpstream[]): void;
  observeSessions(read: () => number): void;
  observeQuestions(read: () => readonly MeasuredQuestions[]): void;
  /** Records that are not on disk yet, and whether writing them fails. */
  observeJournal(read: () => number, failing?: () => boolean): void;
  observeSinks(read: () => readonly MeasuredSink[]): void;
  /** Whether replicas count limits together; undefined where they have nothing to do so. */
  observeLimits(read: () => boolean | undefined): void;
  /** Prometheus text exposition format 0.0.4; OpenMetrics 1.0 with exemplars when that is asked for. */
  metricsText(openMetrics?: boolean): Promise<string>;
}

/** Seconds. From half a millisecond, because that is what the gateway itself adds, to the longest call. */
const BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
/** Beyond so many series of calls, further ones are counted together as `_other`. */
const MAX_SERIES = 2000;

/** `UpstreamState.state`. */
const UPSTREAM_STATES = ["starting", "ready", "degraded", "stopped"] as const;

/** `droppedSpans` is read when somebody asks. */
export function createMetrics(serviceName: string, droppedSpans?: () => number, clock: Clock = systemClock): Metrics {
  const calls = new Map<string, Series>();
  const refusals = new Map<ErrorCode, number>();
  const masked = new Map<string, number>();
  const inspected = new Map<string, { readonly attributes: Attributes; count: number }>();
  const questionEnds = new Map<string, { readonly attributes: Attributes; count: number }>();
  const approvals = new Map<string, number>();
  const denials = new Map<string, { readonly attributes: Attributes; count: number }>();
  const differences = new Map<string, { readonly attributes: Attributes; count: number }>();
  let upstreams: () => readonly MeasuredUpstream[] = () => [];
  let sessions: (() => number) | undefined;
  let questions: () => readonly MeasuredQuestions[] = () => [];
  let journal: (() => number) | undefined;
  let journalFailing: (() => boolean) | undefined;
  let sinks: () => readonly MeasuredSink[] = () => [];
  let limits: () => boolean | undefined = () => undefined;

  function seriesOf(call: MeasuredCall): Series {
    const { method, tool, prompt, server, outcome, errorType } = call;
    const key = `${method}\n${server}\n${tool}\n${prompt}\n${outcome}\n${errorType}`;
    const known = calls.get(key);
    if (known !== undefined) return known;
    if (calls.size >= MAX_SERIES && method !== "_other") return seriesOf({ method: "_other", outcome, seconds: 0 });
    const series = {
      attributes: callAttributes(call),
      counts: new Array<number>(BUCKETS.length + 1).fill(0),
      count: 0,
      sum: 0,
      exemplars: [],
    };
    calls.set(key, series);
    return series;
  }

  function collect(): Family[] {
    const up = safely(upstreams, []);
    const perUpstream = (value: (upstream: MeasuredUpstream) => number) =>
      up.map((each): Point => [{ "drawbridge.server": each.name }, value(each)]);
    const asked = safely(questions, []);
    const perAsking = (value: (questions: MeasuredQuestions) => number) =>
      up.map(({ name }): Point => {
        const its = asked.find(({ server }) => server === name);
        return [{ "drawbridge.server": name }, its === undefined ? 0 : value(its)];
      });
    const perSink = (value: (sink: MeasuredSink) => number | undefined) =>
      safely(sinks, []).flatMap((sink): Point[] => {
        const n = sink.sending ? value(sink) : undefined;
        return n === undefined ? [] : [[{ "drawbridge.sink": sink.name, kind: sink.kind }, n]];
      });
    const { cpuUser, cpuSystem, rss, heap } = processNumbers();
    return [
      kinds.histogram(
        "mcp.server.operation.duration.seconds",
        "How long calls took, from request to answer.",
        calls.values(),
      ),
      kinds.counter(
        "drawbridge.refusals",
        "Requests answered with an error of the gateway, by its code.",
        [...refusals].map(([code, n]): Point => [{ code }, n]),
      ),
      kinds.counter(
        "drawbridge.masked.values",
        "Private values that were masked in what left, by their type.",
        [...masked].map(([type, n]): Point => [{ type }, n]),
      ),
      kinds.counter(
        "drawbridge.answers.inspected",
        "What was done about instructions, hidden characters and links in answers, by action and rule.",
        [...inspected.values()].map(({ attributes, count }): Point => [attributes, count]),
      ),
      kinds.gauge(
        "drawbridge.upstream.ready",
        "1 when the upstream can be called.",
        perUpstream(({ state }) => Number(state === "ready")),
      ),
      kinds.gauge(
        "drawbridge.upstream.size",
        "Processes or connections of the upstream.",
        perUpstream(({ size }) => size),
      ),
      kinds.gauge(
        "drawbridge.upstream.in_flight",
        "Calls under way.",
        perUpstream(({ inFlight }) => inFlight),
      ),
      kinds.gauge(
        "drawbridge.upstream.queued",
        "Calls that wait for the upstream.",
        perUpstream(({ queued }) => queued),
      ),
      kinds.counter(
        "drawbridge.upstream.restarts",
        "Times the upstream was started again.",
        perUpstream(({ restarts }) => restarts),
      ),
      kinds.gauge(
        "drawbridge.upstream.state",
        "1 for the state that the upstream is in: starting, ready, degraded (calls are refused at once) or stopped.",
        up.flatMap(({ name, state }) =>
          UPSTREAM_STATES.map((each): Point => [{ "drawbridge.server": name, state: each }, Number(each === state)]),
        ),
      ),
      kinds.gauge(
        "drawbridge.upstream.draining",
        "1 when the upstream takes no new calls because an operator said so.",
        perUpstream(({ draining }) => Number(draining === true)),
      ),
      kinds.gauge(
        "drawbridge.upstream.instances",
        "Users or sessions that have processes of their own.",
        up.flatMap(({ name, instances }): Point[] =>
          instances === undefined ? [] : [[{ "drawbridge.server": name }, instances]],
        ),
      ),
      kinds.gauge(
        "drawbridge.upstream.finishing",
        "Former versions of the upstream that finish their calls.",
        perUpstream(({ finishing }) => finishing ?? 0),
      ),
      kinds.counter(
        "drawbridge.upstream.replacements",
        "Times a new version of the upstream took over.",
        perUpstream(({ generation }) => (generation ?? 1) - 1),
      ),
      kinds.gauge(
        "drawbridge.questions.open",
        "Questions of servers that wait for an answer.",
        perAsking(({ open }) => open),
      ),
      kinds.gauge(
        "drawbridge.calls.suspended",
        "Calls that wait for clients which are not connected.",
        perAsking(({ suspended }) => suspended),
      ),
      kinds.counter(
        "drawbridge.questions.ended",
        "Questions of servers to clients, by how they ended: answered, refused, expired, withdrawn.",
        [...questionEnds.values()].map(({ attributes, count }): Point => [attributes, count]),
      ),
      kinds.counter(
        "drawbridge.policy.differences",
        "Calls that a policy which is only tried out would have decided otherwise.",
        [...differences.values()].map(({ attributes, count }): Point => [attributes, count]),
      ),
      kinds.counter(
        "drawbridge.approvals",
        "Calls that needed an approval, by what became of it: asked, and later approved, denied, spent or expired.",
        [...approvals].map(([state, n]): Point => [{ state }, n]),
      ),
      kinds.counter(
        "drawbridge.policy.denials",
        "Calls that the policy did not permit, by the rule; none, when none permits it.",
        [...denials.values()].map(({ attributes, count }): Point => [attributes, count]),
      ),
      kinds.gauge("drawbridge.sessions", "Open sessions of clients.", one(sessions)),
      kinds.gauge(
        "drawbridge.limits.together",
        "1 while replicas count limits together by the cache, 0 while each counts by itself.",
        [safely(limits, undefined)].flatMap((together): Point[] =>
          together === undefined ? [] : [[{}, Number(together)]],
        ),
      ),
      kinds.gauge("drawbridge.audit.pending", "Audit records not on disk yet.", one(journal)),
      kinds.gauge(
        "drawbridge.audit.failing",
        "1 while audit records cannot be written, and calls are refused.",
        one(journalFailing && (() => Number(journalFailing?.()))),
      ),
      kinds.gauge(
        "drawbridge.audit.sink.behind",
        "Audit records that the sink has not got yet. Of several replicas the one that sends says so.",
        perSink(({ behind }) => behind),
      ),
      kinds.counter(
        "drawbridge.audit.sink.sent",
        "Audit records that the sink has got.",
        perSink(({ sent }) => sent),
      ),
      kinds.counter(
        "drawbridge.audit.sink.failures",
        "Batches of audit records that the sink did not take.",
        perSink(({ failures }) => failures),
      ),
      kinds.counter(
        "drawbridge.audit.sink.refused",
        "Audit records that the sink has refused for good.",
        perSink(({ refused }) => refused),
      ),
      kinds.gauge(
        "drawbridge.audit.sink.last_sent.seconds",
        "When the sink got something last, seconds since the epoch.",
        perSink(({ lastSent }) => (lastSent === undefined ? undefined : Date.parse(lastSent) / 1000)),
      ),
      kinds.counter("drawbridge.spans.dropped", "Spans that did not reach the collector.", one(droppedSpans)),
      kinds.counter("process.cpu.time.seconds", "CPU time of this process.", [
        [{ "cpu.mode": "user" }, cpuUser],
        [{ "cpu.mode": "system" }, cpuSystem],
      ]),
      kinds.gauge("process.memory.usage.bytes", "Resident memory of this process.", [[{}, rss]]),
      kinds.gauge("v8js.memory.heap.used.bytes", "Used heap of this process.", [[{}, heap]]),
    ].filter((family) => (family.kind === "histogram" ? family.series : family.points).length > 0);
  }

  let writer: ReturnType<typeof prometheusWriter> | undefined;
  return {
    call(call) {
      const series = seriesOf(call);
      let bucket = 0;
      while (bucket < BUCKETS.length && call.seconds > (BUCKETS[bucket] ?? 0)) bucket++;
      series.counts[bucket] = (series.counts[bucket] ?? 0) + 1;
      series.count++;
      series.sum += call.seconds;
      if (call.exemplar !== undefined)
        series.exemplars[bucket] = { ...call.exemplar, value: call.seconds, at: clock() };
    },
    questionEnded(server, end) {
      const key = `${server}\n${end}`;
      const known = questionEnds.get(key);
      if (known === undefined)
        questionEnds.set(key, { attributes: { "drawbridge.server": server, "drawbridge.outcome": end }, count: 1 });
      else known.count++;
    },
    shadowed({ role, tool, from, to }) {
      const key = `${role}\n${tool}\n${from}\n${to}`;
      const known = differences.get(key);
      if (known !== undefined) known.count++;
      else if (differences.size < MAX_SERIES)
        differences.set(key, {
          attributes: { role: role ?? "", "gen_ai.tool.name": tool ?? "", from, to },
          count: 1,
        });
    },
    approval(state) {
      approvals.set(state, (approvals.get(state) ?? 0) + 1);
    },
    denied(rule = "none", tool = "") {
      const key = `${rule}\n${tool}`;
      const known = denials.get(key);
      if (known !== undefined) known.count++;
      else if (denials.size < MAX_SERIES)
        denials.set(key, { attributes: { "drawbridge.rule": rule, "gen_ai.tool.name": tool }, count: 1 });
    },
    refused(code) {
      refusals.set(code, (refusals.get(code) ?? 0) + 1);
    },
    masked(counts) {
      for (const [type, n] of Object.entries(counts)) masked.set(type, (masked.get(type) ?? 0) + n);
    },
    inspected(action, rule, count) {
      const key = `${action}\n${rule ?? ""}`;
      const known = inspected.get(key);
      if (known !== undefined) known.count += count;
      else inspected.set(key, { attributes: rule === undefined ? { action } : { action, rule }, count });
    },
    observeUpstreams(read) {
      upstreams = read;
    },
    observeSessions(read) {
      sessions = read;
    },
    observeQuestions(read) {
      questions = read;
    },
    observeSinks(read) {
      sinks = read;
    },
    observeJournal(read, failing) {
      journal = read;
      journalFailing = failing;
    },
    observeLimits(read) {
      limits = read;
    },
    async metricsText(openMetrics = false) {
      if (openMetrics) return openMetricsText(serviceName, collect());
      writer ??= prometheusWriter(serviceName);
      return (await writer)(collect());
    },
  };
}

function callAttributes({ method, tool, prompt, server, outcome, errorType }: MeasuredCall): Attributes {
  return {
    "mcp.method.name": method,
    ...(server === undefined ? undefined : { "drawbridge.server": server }),
    ...(tool === undefined ? undefined : { "gen_ai.tool.name": tool }),
    ...(prompt === undefined ? undefined : { "gen_ai.prompt.name": prompt }),
    "drawbridge.outcome": outcome,
    ...(errorType === undefined ? undefined : { "error.type": errorType }),
  };
}

const one = (read: (() => number) | undefined): readonly Point[] =>
  read === undefined ? [] : [[{}, safely(read, Number.NaN)]];

/** A gauge that cannot be read must not cost the others. */
function safely<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

function processNumbers(): { cpuUser: number; cpuSystem: number; rss: number; heap: number } {
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed } = process.memoryUsage();
  return { cpuUser: user / 1e6, cpuSystem: system / 1e6, rss, heap: heapUsed };
}

const kinds = {
  histogram: (name: string, description: string, series: Iterable<Series>): Family => ({
    kind: "histogram",
    name,
    description,
    series: [...series],
    buckets: BUCKETS,
  }),
  counter: (name: string, description: string, points: readonly Point[]): Family => ({
    kind: "counter",
    name,
    description,
    points,
  }),
  gauge: (name: string, description: string, points: readonly Point[]): Family => ({
    kind: "gauge",
    name,
    description,
    points,
  }),
};
