/** Runs the official conformance suite (`@modelcontextprotocol/conformance`, exact version) and reads what it found. */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parse } from "yaml";
import { stopChild } from "../fixtures/processes.ts";

export type Revision = "2025-11-25" | "2026-07-28";

/** A check that did not pass: FAILURE breaks a MUST, WARNING a SHOULD. */
export interface Failing {
  readonly scenario: string;
  readonly check: string;
  readonly status: "FAILURE" | "WARNING";
  readonly message: string;
}

export interface Findings {
  /** Scenarios that were run, by name: how many checks passed, of how many. */
  readonly scenarios: ReadonlyMap<string, { readonly passed: number; readonly total: number }>;
  readonly failing: readonly Failing[];
}

interface Check {
  readonly id: string;
  readonly status: "SUCCESS" | "FAILURE" | "WARNING" | "SKIPPED" | "INFO";
  readonly errorMessage?: string;
  readonly description?: string;
}

const manifest = createRequire(import.meta.url).resolve("@modelcontextprotocol/conformance/package.json");
const folder = dirname(manifest);
/** Longer than any run: four seconds are usual, and a scenario that hangs is given up by the suite after 30. */
const LONGEST_MS = 120_000;

/** The scenarios a revision requires of a server. The others that are run (`rest`) do not count for its score. */
export function requiredOfServers(revision: Revision): { scored: readonly string[]; rest: readonly string[] } {
  const text = readFileSync(join(folder, "requirements", `${revision}.yaml`), "utf8");
  const { server, not_scored } = parse(text) as {
    server: string[];
    not_scored: { scenario: string; leg: string }[];
  };
  return { scored: server, rest: not_scored.filter(({ leg }) => leg === "server").map(({ scenario }) => scenario) };
}

/** Every scenario that a revision requires of servers, on that revision's wire, against the MCP endpoint at `url`. */
export async function testServer(url: string, revision: Revision): Promise<Findings> {
  const { scored, rest } = requiredOfServers(revision);
  return run(["server", "--url", url, "--requirements", revision], "server", [...scored, ...rest]);
}

export interface AuthorizationServerUnderTest {
  readonly issuer: string;
  readonly client: string;
  /** The client's redirect URI is `http://127.0.0.1:<port>/callback`. */
  readonly port: number;
  readonly resource: string;
  readonly revision: Revision;
  /** Takes a person's way from the authorization URL to the callback, which it loads. */
  readonly walk: (authorizationUrl: string) => Promise<void>;
}

/** Both scenarios for authorization servers; the second needs what the first one found. */
export async function testAuthorizationServer(under: AuthorizationServerUnderTest): Promise<Findings> {
  const { issuer, client, port, resource, revision, walk } = under;
  const words = ["authorization", "--url", issuer, "--client-id", client, "-p", String(port), "--resource", resource];
  const scenarios = ["authorization-server-metadata-endpoint", "authorization-code-grant"];
  return run([...words, "--spec-version", revision], "authorization-server", scenarios, walk);
}

async function run(
  words: readonly string[],
  prefix: string,
  scenarios: readonly string[],
  walk?: (url: string) => Promise<void>,
): Promise<Findings> {
  const results = mkdtempSync(join(tmpdir(), "drawbridge-conformance-"));
  try {
    const output = await finished([join(folder, "dist", "index.js"), ...words, "-o", results], walk);
    const found = new Map(scenarios.map((name) => [name, checksOf(results, `${prefix}-${name}`, output)]));
    return {
      scenarios: new Map([...found].map(([name, checks]) => [name, score(checks)])),
      failing: [...found].flatMap(([name, checks]) => failingOf(name, checks)),
    };
  } finally {
    rmSync(results, { recursive: true, force: true });
  }
}

/** Runs the suite to its end; its exit code says nothing that its results do not. */
async function finished(words: readonly string[], walk?: (url: string) => Promise<void>): Promise<string> {
  const child = spawn(process.execPath, words, { stdio: "pipe" });
  child.stdin.end();
  let output = "";
  let walked: Promise<void> | undefined;
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk;
      const url = /^(https?:\/\/\S+response_type=code\S*)\n/m.exec(output)?.[1];
      if (url !== undefined && walk !== undefined) walked ??= walk(url);
      // Whoever waits for a callback that does not come waits for five minutes.
      walked?.catch(() => child.kill());
    });
  const timer = setTimeout(() => child.kill(), LONGEST_MS);
  try {
    await new Promise<void>((resolve) => void child.once("close", () => resolve()));
    await walked;
    return output;
  } finally {
    clearTimeout(timer);
    await stopChild(child);
  }
}

/** What one scenario found. One that did not come to its end has no results, and that is a failure. */
function checksOf(results: string, name: string, output: string): readonly Check[] {
  const stamped = new RegExp(`^${name}-\\d{4}-\\d\\d-\\d\\dT[\\d-]+Z$`);
  const directory = readdirSync(results).find((one) => stamped.test(one));
  try {
    return JSON.parse(readFileSync(join(results, directory ?? name, "checks.json"), "utf8")) as Check[];
  } catch {
    const errorMessage = `The scenario did not come to its end. The suite's last words: …${output.slice(-500)}`;
    return [{ id: "was-run", status: "FAILURE", errorMessage }];
  }
}

function score(checks: readonly Check[]): { passed: number; total: number } {
  const passed = checks.filter(({ status }) => status === "SUCCESS").length;
  return { passed, total: passed + checks.filter(({ status }) => status === "FAILURE" || status === "WARNING").length };
}

/** One for each check, although some are made several times in one scenario. */
function failingOf(scenario: string, checks: readonly Check[]): Failing[] {
  const found = new Map<string, Failing>();
  for (const { id, status, errorMessage, description = "" } of checks) {
    if (status !== "FAILURE" && status !== "WARNING") continue;
    if (!found.has(id)) found.set(id, { scenario, check: id, status, message: errorMessage ?? description });
  }
  return [...found.values()];
}
