/** The dashboard and the alerts in `deploy/` name metrics and labels that a gateway exports, and pages that exist. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { ERRORS } from "../../src/core/errors.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { type Collector, startCollector } from "../e2e/collector.ts";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { root } from "../house/sources.ts";

interface Panel {
  readonly id: number;
  readonly title: string;
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[];
}
interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly annotations: { readonly summary: string; readonly description: string };
}
const dashboard = JSON.parse(readFileSync(join(root, "deploy/grafana/drawbridge.json"), "utf8")) as {
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { readonly query: string | { readonly query: string } }[] };
};
const alerts = (
  parse(readFileSync(join(root, "deploy/prometheus/alerts.yaml"), "utf8")) as {
    readonly groups: readonly { readonly rules: readonly Alert[] }[];
  }
).groups.flatMap(({ rules }) => rules);

/** What Prometheus adds. */
const OF_PROMETHEUS = ["instance", "le"];

/** Names of metrics with the labels that the expression looks at in each, and those that it groups by. */
function named(expression: string): { metrics: Map<string, Set<string>>; groups: Set<string> } {
  const groups = new Set<string>();
  const plain = expression.replaceAll(/\b(?:by|without|ignoring|on)\s*\(([^)]*)\)/g, (_, list: string) => {
    for (const label of list.split(",")) if (label.trim() !== "") groups.add(label.trim());
    return "";
  });
  const metrics = new Map<string, Set<string>>();
  for (const [, name = "", , matchers = ""] of plain.matchAll(
    /\b((?:drawbridge|mcp|process|v8js)_[a-z0-9_]+)(\{([^}]*)\})?/g,
  )) {
    const labels = metrics.get(name) ?? new Set();
    for (const [, label = ""] of matchers.matchAll(/([a-z_]+)\s*(?:=~|!~|!=|=)/g)) labels.add(label);
    metrics.set(name, labels);
    // What is inside braces is no metric.
  }
  for (const [, inside = ""] of plain.matchAll(/\{([^}]*)\}/g))
    for (const [label] of inside.matchAll(/\b[a-z_0-9]+/g)) if (metrics.get(label)?.size === 0) metrics.delete(label);
  return { metrics, groups };
}

/** Every metric in a text, with all labels that it has anywhere. */
function exportedIn(text: string): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  for (const line of text.split("\n")) {
    const [, name = "", labels = ""] = /^([a-z0-9_]+)(?:\{(.*)\})? /.exec(line) ?? [];
    if (name === "" || line.startsWith("#")) continue;
    const known = found.get(name) ?? new Set();
    for (const [, label = ""] of labels.matchAll(/([a-z_]+)="/g)) known.add(label);
    found.set(name, known);
  }
  return found;
}

let folder: string;
let collector: Collector;
let one: World;
let exported: Map<string, Set<string>>;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "drawbridge-deploy-"));
  collector = await startCollector();
  one = await world({
    store: `sqlite:${join(folder, "gateway.db")}`,
    servers: { echo: { command: fixtureCommand("echo-stdio") } },
    telemetry: { otlpEndpoint: collector.endpoint },
    audit: { export: [{ name: "archive", file: { path: join(folder, "audit.jsonl") } }] },
    roles: { owner: { may: ["*"], deny: ["sum"] } },
    assign: [{ role: "owner", group: "owner" }],
    shadowPolicy: { roles: { owner: { may: ["echo"] } }, assign: [{ role: "owner", group: "owner" }] },
    mask: {},
    limits: { tools: { slow: { perDay: 1 } } },
  });
  const { access_token: token } = await one.tokens();
  const call = async (name: string, args: object = {}, by = token) => {
    const [body, headers] = modernRequest("tools/call", { name, arguments: args });
    await (await one.post(body, headers, by)).text();
  };
  await call("echo", { text: "write to olive@shop.example" });
  await call("sum", { a: 1, b: 2 });
  await call("fail");
  await call("slow", { ms: 1 });
  await call("slow", { ms: 1 });
  await call("echo", {}, "nonsense");
  exported = exportedIn(await one.metrics());
}, 60_000);
afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  await collector?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** What takes more than one process, or a person: the same code writes it. */
async function elsewhere(): Promise<Map<string, Set<string>>> {
  const metrics = createMetrics("drawbridge");
  metrics.observeLimits(() => true);
  metrics.approval("asked");
  return exportedIn(await metrics.metricsText());
}

const expressions = [
  ...dashboard.panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => [title, expr] as const)),
  ...alerts.map(({ alert, expr }) => [alert, expr] as const),
];

test.each(expressions)("%s: %s", async (_title, expression) => {
  const { metrics, groups } = named(expression);
  expect(metrics.size).toBeGreaterThan(0);
  const others = await elsewhere();
  const all = new Set(OF_PROMETHEUS);
  for (const [name, labels] of metrics) {
    const known = exported.get(name) ?? (NOT_HERE.has(name) ? others.get(name) : undefined);
    expect(known, name).toBeDefined();
    for (const label of labels) expect([...(known ?? [])], `${name}{${label}}`).toContain(label);
    for (const label of known ?? []) all.add(label);
  }
  for (const label of groups) expect([...all]).toContain(label);
  for (const [, code = ""] of expression.matchAll(/code=~?"([^"]*)"/g))
    for (const each of code.split("|")) expect(Object.keys(ERRORS)).toContain(each);
});
const NOT_HERE: ReadonlySet<string> = new Set(["drawbridge_limits_together", "drawbridge_approvals_total"]);

test("the dashboard shows what its operators asked for, each panel once", () => {
  const titles = dashboard.panels.map(({ title }) => title);
  expect(new Set(titles).size).toBe(titles.length);
  expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(titles.length);
  for (const part of ["by server", "by tool", "95 %", "Denials by rule", "Limits", "Masked values", "Audit:", "sinks"])
    expect(titles.filter((title) => title.includes(part)).length, part).toBeGreaterThan(0);
  for (const { query } of dashboard.templating.list) {
    const text = typeof query === "string" ? query : query.query;
    const [, metric = "", label = ""] = /^label_values\((\w+), (\w+)\)$/.exec(text) ?? [];
    if (text.startsWith("label_values")) expect([...(exported.get(metric) ?? [])]).toContain(label);
  }
});

test("each legend names labels by which its expression groups", () => {
  for (const { targets = [], title } of dashboard.panels)
    for (const { expr, legendFormat } of targets) {
      const { groups } = named(expr);
      for (const [, label = ""] of legendFormat.matchAll(/\{\{(\w+)\}\}/g))
        if (groups.size > 0) expect([...groups], title).toContain(label);
    }
});

describe("each alert", () => {
  test.each(alerts.map((each) => [each.alert, each] as const))(
    "%s says what it means and where to read on",
    (_name, alert) => {
      expect(alert.annotations.summary).toMatch(/\.$/);
      for (const [page] of alert.annotations.description.matchAll(/docs\/[\w-]+\.md/g))
        expect(existsSync(join(root, page)), page).toBe(true);
      const { groups } = named(alert.expr);
      for (const [, label = ""] of alert.annotations.summary.matchAll(/\$labels\.(\w+)/g))
        expect([...groups]).toContain(label);
    },
  );
});
