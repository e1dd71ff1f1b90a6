/**
 * The two wrappers that people use today to put a stdio server on HTTP. They are no dependency of Drawbridge: npm
 * installs them under `results/rivals/` when the bench first needs them.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { freePort, RESULTS, start } from "../processes.ts";
import { type Arm, LeftOut } from "./arm.ts";
import { openEndpoint, runningArm } from "./http.ts";

const VERSIONS = { supergateway: "4.0.0", "mcp-proxy": "6.7.19" } as const;
const FOLDER = path.join(RESULTS, "rivals");

/** supergateway as its README starts it: Streamable HTTP out of a stdio server, no sessions. */
export function supergateway(child: readonly string[]): Arm {
  const name = `supergateway ${VERSIONS.supergateway}`;
  return {
    name,
    start: async (core) => {
      const port = await freePort();
      const script = programOf("supergateway");
      const options = ["--stdio", child.join(" "), "--outputTransport", "streamableHttp", "--logLevel", "none"];
      const command = [process.execPath, script, ...options, "--port", String(port)];
      return runningArm(await start({ name, command, core, port }), openEndpoint(port));
    },
  };
}

/** mcp-proxy with sessions (its default, for 2025-11-25 clients) or without (for 2026-07-28 clients). */
export function mcpProxy(child: readonly string[], sessions: boolean): Arm {
  const name = `mcp-proxy ${VERSIONS["mcp-proxy"]}${sessions ? ", sessions" : ""}`;
  return {
    name,
    start: async (core) => {
      const port = await freePort();
      const script = programOf("mcp-proxy");
      const options = ["--host", "127.0.0.1", "--port", String(port), "--server", "stream"];
      const command = [process.execPath, script, ...options, ...(sessions ? [] : ["--stateless"]), "--", ...child];
      const endpoint = openEndpoint(port, sessions ? "2025-11-25" : "2026-07-28", sessions);
      return runningArm(await start({ name, command, core, port }), endpoint);
    },
  };
}

/** The script that a rival's own package names as its program. */
function programOf(rival: keyof typeof VERSIONS): string {
  install();
  const folder = path.join(FOLDER, "node_modules", rival);
  const { bin } = JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8")) as {
    readonly bin: string | Readonly<Record<string, string>>;
  };
  const script = typeof bin === "string" ? bin : bin[rival];
  if (script === undefined) throw new LeftOut(`the package ${rival} names no program.`);
  return path.join(folder, script);
}

function install(): void {
  const complete = Object.entries(VERSIONS).every(([rival, version]) => {
    const file = path.join(FOLDER, "node_modules", rival, "package.json");
    return existsSync(file) && JSON.parse(readFileSync(file, "utf8")).version === version;
  });
  if (complete) return;
  mkdirSync(FOLDER, { recursive: true });
  const manifest = { name: "bench-rivals", private: true, dependencies: VERSIONS };
  writeFileSync(path.join(FOLDER, "package.json"), JSON.stringify(manifest, null, 2));
  console.error(`Installing supergateway and mcp-proxy for the comparison, under ${path.relative(".", FOLDER)} …`);
  try {
    const options = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    execFileSync("npm", options, { cwd: FOLDER, stdio: "pipe", timeout: 300_000 });
  } catch (error) {
    const why = error instanceof Error ? (error.message.trim().split("\n").at(-1) ?? "") : String(error);
    throw new LeftOut(`npm could not install it (${why}).`);
  }
}
