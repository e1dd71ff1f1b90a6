/** What docs/audit-export.md shows is accepted, and what it names is there. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openCursor } from "../../src/audit/sinks/cursor.ts";
import { loadSettings } from "../../src/config/load.ts";
import { spillFolderOf } from "../../src/gateway/audit-export.ts";
import { everyStore } from "../store/backends.ts";

const root = join(import.meta.dirname, "../..");
const page = readFileSync(join(root, "docs/audit-export.md"), "utf8");
const blocks = [...page.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, text = ""]) => text);

test.each(blocks.map((text, at) => [at + 1, text] as const))("block %i of settings is accepted", async (_, text) => {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-sinks-doc-"));
  try {
    const file = join(folder, "drawbridge.yaml");
    writeFileSync(file, text);
    const { settings, warnings } = await loadSettings(file, { env: { SIEM_TOKEN: "one", KAFKA_PASSWORD: "two" } });
    expect(settings.audit).toBeDefined();
    expect(warnings.join()).not.toContain("Insecure");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("what leaves in clear is warned of at the start", async () => {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-sinks-doc-"));
  try {
    const file = join(folder, "drawbridge.yaml");
    const kafka = { brokers: ["kafka.acme.example:9092"], topic: "audit", allowInsecurePlaintext: true };
    writeFileSync(file, JSON.stringify({ servers: { a: { command: ["a"] } }, audit: { export: [{ kafka }] } }));
    const { warnings, settings } = await loadSettings(file, { env: {} });
    expect(warnings.join()).toContain("audit.export.0.kafka.allowInsecurePlaintext is on");
    expect(spillFolderOf(settings, folder)).toBe(join(folder, ".drawbridge"));
    expect(spillFolderOf({ ...settings, store: "sqlite:/var/lib/one.db" }, folder)).toBe("/var/lib");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the files that it links to are there, and the metrics that it names are written", () => {
  for (const [, file = ""] of page.matchAll(/\]\((?!https?:)([^)#]+)\)/g))
    expect(() => readFileSync(join(root, "docs", file)), file).not.toThrow();
  const metrics = readFileSync(join(root, "src/observe/metrics.ts"), "utf8");
  for (const [, name = ""] of page.matchAll(/`(drawbridge_audit_sink_[a-z_]+)`/g))
    expect(metrics, name).toContain(
      `"${name
        .replace(/_total$/, "")
        .replace("last_sent_seconds", "last_sent.seconds")
        .replace("drawbridge_audit_sink_", "drawbridge.audit.sink.")}"`,
    );
});

describe.each(everyStore.map((backend) => [backend.name, backend] as const))("in %s", (_, { openTwo }) => {
  test("the place of a sink is taken by one of two replicas, kept by it, and let go of", async () => {
    await using stores = await openTwo();
    const [one, other] = stores.map(({ records }, at) =>
      openCursor(records, { name: "x", kind: "file", replica: `r${at}` }),
    );
    if (one === undefined || other === undefined) throw new Error("no two stores");
    expect((await Promise.all([one.take(), other.take()])).filter(Boolean)).toHaveLength(1);
    const [holder, waiting] = one.held ? [one, other] : [other, one];
    for (const sequence of [1, 2, 3]) await holder.write({ sequence });
    expect(await waiting.take()).toBe(false);
    await holder.release();
    expect(await waiting.take()).toBe(true);
    expect(waiting.place.sequence).toBe(3);
    await expect(holder.write({ sequence: 9 })).rejects.toThrow();
  });
});
