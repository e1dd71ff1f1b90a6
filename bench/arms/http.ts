/** Upstreams over HTTP, and the simplest things in front of them: nothing, and a bare proxy. */
import type { Endpoint } from "../client.ts";
import { load } from "../load.ts";
import { plain } from "../plain.ts";
import { freePort, type Running, start } from "../processes.ts";
import type { Arm, RunningArm } from "./arm.ts";

/** Starts `bench/upstreams/<file>` as a server that echoes on 2026-07-28. */
export async function nodeServer(
  name: string,
  file: string,
  core: number | undefined,
  environment: Readonly<Record<string, string>> = {},
  nodeFlags: readonly string[] = [],
): Promise<Running> {
  const command = [process.execPath, ...nodeFlags, plain(`upstreams/${file}`)];
  return start({ name, command, core, environment, port: await freePort() });
}

/** Where an unguarded echo server on this port is called. */
export function openEndpoint(port: number, revision: Endpoint["revision"] = "2026-07-28", sessions = false): Endpoint {
  return { port, path: "/mcp", revision, sessions, tool: "echo", token: undefined };
}

/** The upstream itself, with nothing in front. */
export function direct(upstream: Running): Arm {
  return {
    name: "direct",
    start: async () => ({ name: "direct", endpoint: openEndpoint(upstream.port), pid: undefined, stop: async () => 0 }),
  };
}

/** node:http and undici with nothing in between: what any gateway on this platform costs at least. */
export function bareProxy(upstream: Running): Arm {
  return {
    name: "bare node:http + undici",
    start: async (core) => {
      const environment = { UPSTREAM: `http://127.0.0.1:${upstream.port}` };
      return runningArm(await nodeServer("bare node:http + undici", "bare-proxy.ts", core, environment));
    },
  };
}

export function runningArm(server: Running, endpoint: Endpoint = openEndpoint(server.port)): RunningArm {
  return { name: server.name, endpoint, pid: server.pid, stop: server.stop };
}

/** Calls an endpoint for so long without measuring. V8 compiles for some ten seconds until a server has its speed, SDK servers and ours. */
export async function warm(endpoint: Endpoint, seconds: number, connections = 20): Promise<void> {
  const shape = { kind: "closed", warmSeconds: 0, seconds } as const;
  await load({ endpoint, connections, shape, sameId: false, timeoutMs: 30_000, watched: {} });
}
