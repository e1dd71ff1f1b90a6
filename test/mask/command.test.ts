/** `drawbridge mask`, as it is used in a shell. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { main } from "../../src/cli/main.ts";
import type { Terminal } from "../../src/cli/terminal.ts";

async function run(argv: readonly string[], pieces: readonly string[] = []) {
  const written = { stdout: "", stderr: "" };
  const stream = (name: "stdout" | "stderr") => ({
    write: (text: string) => {
      written[name] += text;
    },
  });
  const terminal: Terminal = {
    stdout: stream("stdout"),
    stderr: stream("stderr"),
    env: {},
    cwd: import.meta.dirname,
    home: import.meta.dirname,
    platform: "linux",
    stopped: () => new Promise(() => {}),
    startGateway: () => Promise.reject(new Error("no gateway is needed")),
    pieces: async function* () {
      yield* pieces;
    },
  };
  return { code: await main(["mask", ...argv], terminal), ...written };
}

function file(text: string): string {
  const path = join(mkdtempSync(join(tmpdir(), "drawbridge-mask-")), "drawbridge.yaml");
  writeFileSync(path, text);
  return path;
}

describe("drawbridge mask", () => {
  test("masks a text as it comes", async () => {
    const { code, stdout } = await run([], ["mail x@exam", "ple.org\ncard 5239 7914", " 0917 6951"]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: "mail [email]\ncard [credit_card]" });
  });

  test("prints rows with the places of what was private in UTF-16 code units", async () => {
    const { code, stdout } = await run(
      ["--format", "json"],
      ['{"id":"a","text":"😱 x@example.org"}\n\n{"id":2,"te', 'xt":"nothing"}'],
    );
    expect(code).toBe(0);
    expect(
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line)),
    ).toEqual([
      { id: "a", text: "😱 [email]", spans: [{ start: 3, end: 16, type: "EMAIL" }] },
      { id: 2, text: "nothing", spans: [] },
    ]);
  });

  test("reads rows behind a byte order mark", async () => {
    const { code, stdout } = await run(["--format", "json"], ['\uFEFF{"id":1,"text":"x@example.org"}\r\n']);
    expect({ code, text: JSON.parse(stdout).text }).toEqual({ code: 0, text: "[email]" });
  });

  test("names each line that is no row, goes on, and ends with 1", async () => {
    const { code, stdout, stderr } = await run(
      ["--format=json"],
      ['nonsense\n{"id":1,"text":"x@example.org"}\n{"id":2}\n[]\n'],
    );
    expect(code).toBe(1);
    expect(stdout).toContain("[email]");
    expect(stderr.match(/line \d/g)).toEqual(["line 1", "line 3", "line 4"]);
    expect(stderr).not.toContain("nonsense");
  });

  test("takes its settings from a settings file, or from what stands below `mask:`", async () => {
    const text = ["x@example.org EMP-123456"];
    const own =
      "types: { email: drop }\npatterns: { employee: { pattern: 'EMP-[0-9]{6}' } }\nsee: { hr: [employee] }\n";
    const indented = own.replaceAll(/^/gm, "  ").trimEnd();
    for (const path of [file(own), file(`publicUrl: https://a.example\nmask:\n${indented}\n`)]) {
      expect((await run(["--settings", path], text)).stdout).toBe(" [employee]");
      expect((await run(["--settings", path, "--role", "hr"], text)).stdout).toBe(" EMP-123456");
    }
  });

  test("says what is wrong with its settings, and where", async () => {
    const { code, stderr } = await run(["--settings", file("mask:\n  people: redakt\n")]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/drawbridge\.yaml:2:\d+ mask\.people/);
    expect((await run(["--settings", "/nowhere/x.yaml"])).code).toBe(2);
    expect((await run(["--settings", file("patterns: { a: { pattern: '(' } }")])).stderr).toContain("mask.patterns.a");
    expect((await run(["--format", "xml"])).code).toBe(2);
  });

  test("explains itself with examples", async () => {
    const { code, stdout } = await run(["--help"]);
    expect(code).toBe(0);
    expect(stdout).toContain("drawbridge mask --format json < texts.jsonl");
  });
});
