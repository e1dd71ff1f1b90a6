/** A gateway that has just started reads its settings again only when they have changed meanwhile: each reading runs the commands of secrets. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { loadSettings } from "../../src/config/load.ts";
import { fixtureCommand, waitFor } from "../fixtures/processes.ts";
import { filed } from "./filed.ts";

let folder: string;
let runs: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "drawbridge-reload-start-"));
  runs = join(folder, "runs");
  writeFileSync(runs, "");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const PROGRAM = 'require("node:fs").appendFileSync(process.argv[1], "run\\n"); console.log("the secret of a command")';
const timesRun = () => readFileSync(runs, "utf8").split("\n").length - 1;
const settings = (more: object = {}) => ({
  secrets: { token: { command: [process.execPath, "-e", PROGRAM, runs] } },
  servers: { one: { command: fixtureCommand("echo-stdio"), environment: { TOKEN: "${secret:token}" } }, ...more },
});

describe("the command of a secret", () => {
  test("runs once for a start, and once more for a reload", async () => {
    {
      await using at = await filed(settings());
      expect(timesRun()).toBe(1);
      expect(await at.reload()).toEqual([]);
    }
    expect(timesRun()).toBe(2);
  });

  test("runs again when the file was written while the gateway started", async () => {
    await using at = await filed(settings(), {
      meanwhile: settings({ two: { command: fixtureCommand("leaky") } }),
    });
    await waitFor(async () => (await at.tools()).includes("two_digest"));
    expect(timesRun()).toBe(2);
  });
});

test("a file is unchanged while it says the same to the byte, however often it was written", async () => {
  const file = join(folder, "drawbridge.yaml");
  const text = "servers: { one: { command: [node] } }\n";
  writeFileSync(file, text);
  const { unchanged } = await loadSettings(file, { env: {} });
  expect(await unchanged?.()).toBe(true);
  writeFileSync(file, text);
  expect(await unchanged?.()).toBe(true);
  writeFileSync(file, `${text} `);
  expect(await unchanged?.()).toBe(false);
  rmSync(file);
  expect(await unchanged?.()).toBe(false);
});
