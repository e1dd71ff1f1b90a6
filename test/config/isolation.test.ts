/** `isolation` in the settings file: what must agree, and what docs/isolation.md shows. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { loadSettings } from "../../src/config/load.ts";
import { SettingsProblems } from "../../src/config/problems.ts";

const folder = mkdtempSync(join(tmpdir(), "drawbridge-isolation-settings-"));
afterAll(() => rmSync(folder, { recursive: true }));

function load(text: string) {
  const file = join(folder, "drawbridge.yaml");
  writeFileSync(file, text);
  return loadSettings(file, { env: { READER: "key" } });
}

async function problemsOf(server: object): Promise<string> {
  const thrown: unknown = await load(stringify({ servers: { s: server } })).then(
    () => undefined,
    (error: unknown) => error,
  );
  if (thrown === undefined) return "";
  if (!(thrown instanceof SettingsProblems)) throw thrown;
  return thrown.problems.map(({ path, message }) => `${path} ${message}`).join("\n");
}

const stdio = { command: ["node"] };
const http = { url: "https://mcp.acme.example/mcp" };

describe("settings that do not agree are named", () => {
  const who = { X_WHO: { from: "subject" } };
  test.each([
    ["stdio", { ...stdio, userEnvironment: who }, /userEnvironment needs servers\.s\.isolation: per-user/],
    [
      "http",
      { ...http, userHeaders: { "X-Who": { from: "subject" } } },
      /userHeaders needs servers\.s\.isolation: per-user/,
    ],
  ])("values of users where all share: %s", async (_, server, problem) => {
    expect(await problemsOf(server)).toMatch(problem);
    expect(await problemsOf({ ...server, isolation: "per-user" })).toBe("");
    expect(await problemsOf({ ...server, isolation: "per-session" })).toBe("");
  });

  test.each([
    [
      "stdio",
      { ...stdio, environment: { X_WHO: "a" }, userEnvironment: who },
      /userEnvironment\.X_WHO has a value for/,
    ],
    [
      "http",
      { ...http, headers: { "x-who": "a" }, userHeaders: { "X-Who": { from: "client" } } },
      /X-Who has a value for/,
    ],
  ])("one value for all and for each: %s", async (_, server, problem) => {
    expect(await problemsOf({ ...server, isolation: "per-user" })).toMatch(problem);
  });

  test("a secret that is written into the file instead of named", async () => {
    const isolation = "per-user";
    const literal = {
      ...stdio,
      isolation,
      userEnvironment: { API_KEY: { from: "subject", otherwise: "hunter2hunter2" } },
    };
    expect(await problemsOf(literal)).toMatch(/userEnvironment\.API_KEY\.otherwise looks like a secret/);
    const written = { ...stdio, isolation, userEnvironment: { K: { secret: "k", otherwise: "a literal" } } };
    expect(await problemsOf(written)).toMatch(/\$\{secret:name\}|reference/);
    expect(await problemsOf(written)).not.toContain("a literal");
    const named = { ...stdio, isolation, userEnvironment: { K: { secret: "k", otherwise: "${env:READER}" } } };
    expect(await problemsOf(named)).toBe("");
  });

  test.each(["../k", "k/../../x", ".k", "", "a b"])("a folder of secrets is a name: %j is refused", async (secret) => {
    expect(await problemsOf({ ...stdio, isolation: "per-user", userEnvironment: { K: { secret } } })).not.toBe("");
  });
});

test("docs/isolation.md shows settings that are accepted", async () => {
  const page = readFileSync(new URL("../../docs/isolation.md", import.meta.url), "utf8");
  const examples = [...page.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, text = ""]) => text);
  expect(examples).toHaveLength(1);
  const { settings } = await load((examples[0] ?? "").replace("env:TICKETS_READER", "env:READER"));
  expect(settings.servers["tickets"]).toMatchObject({ isolation: "per-user", instances: { max: 40 } });
});
