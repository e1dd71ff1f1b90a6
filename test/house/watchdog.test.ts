/** `test/global/watchdog.ts`: a run of tests ends, whatever a test does. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, expect, test } from "vitest";
import { root } from "./sources.ts";

const folder = mkdtempSync(join(tmpdir(), "drawbridge-watchdog-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const vitest = join(root, "node_modules/vitest/vitest.mjs");

/** Runs a file of tests as `npm test` does, with a second for each file. */
async function ran(body: string): Promise<{ code: number | null; said: string }> {
  writeFileSync(
    join(folder, "one.test.ts"),
    `import { spawnSync } from "node:child_process";\nimport { test } from "vitest";\n${body}`,
  );
  const reporters = ["--reporter=default", `--reporter=${join(root, "test/global/watchdog.ts")}`];
  const child = spawn(process.execPath, [vitest, "run", "--root", folder, "--pool", "forks", ...reporters], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env["PATH"], NO_COLOR: "1", TEST_FILE_LIMIT_MS: "1000" },
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  const parts = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  return { code: parts[2], said: parts[0] + parts[1] };
}

symlinkSync(join(root, "node_modules"), join(folder, "node_modules"), "junction");
const onLinux = test.runIf(process.platform === "linux");

onLinux("a file that goes round in a loop is named with the place, killed, and fails the run", async () => {
  const { code, said } = await ran(`test("round", function around() { for (;;); });`);
  expect(said).toMatch(/one\.test\.ts has not ended in \d+ s and is killed/);
  expect(said).toMatch(/at around \(.*one\.test\.ts:\d+\)/);
  expect(code).toBe(1);
});

onLinux("a file that waits for a child without end is named with the child, and both are killed", async () => {
  const { code, said } = await ran(`test("waits", () => void spawnSync("sleep", ["987654"]));`);
  expect(said).toMatch(/process \d+: sleep 987654/);
  expect(code).toBe(1);
});
