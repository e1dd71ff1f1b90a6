/**
 * Drawbridge with everything on: a real access token verified on every call, roles, limits, one audit record a call in
 * SQLite, and every trace exported to a local OTLP receiver. Only the limits' numbers are raised, and the token lives
 * for an hour, so that neither ends a run.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { build } from "../../scripts/build.ts";
import { type Endpoint, listTools } from "../client.ts";
import { freePort, launch, portOpens, RESULTS, type Running } from "../processes.ts";
import { type Account, fresh, signUp } from "../sign-in.ts";
import type { Arm, RunningArm } from "./arm.ts";
import { runningArm } from "./http.ts";

export interface DrawbridgeOptions {
  /** Told apart from other Drawbridge arms of the same suite by this. */
  readonly name: string;
  /** Whether an answer waits until its record is on disk. */
  readonly audit: "durable" | "async" | "off";
  /** As in the settings file: `{ url }` or `{ command }`, with whatever else a server takes. */
  readonly server: Readonly<Record<string, unknown>>;
  /** Base address of an OTLP/HTTP receiver; without one nothing is traced. */
  readonly otlp?: string;
  /** `2025-11-25` opens a session on each connection. */
  readonly revision?: Endpoint["revision"];
  readonly nodeFlags?: readonly string[];
  /** Contracts, as in the settings file. */
  readonly tools?: Readonly<Record<string, unknown>> | undefined;
}

export interface Drawbridge extends Arm {
  start(core: number | undefined): Promise<RunningArm & { readonly server: Running }>;
  /** Starts it without waiting for anything; `endpoint` is where it will answer. Only after a first `start`. */
  launch(core: number | undefined): Promise<{ readonly server: Running; readonly endpoint: Endpoint }>;
  /** Its settings, store and audit log. */
  readonly folder: string;
}

/** An arm that keeps its account, port and store from one start to the next. */
export function drawbridge(options: DrawbridgeOptions): Drawbridge {
  const folder = path.join(RESULTS, "gateways", `${process.pid}-${options.name.replaceAll(/[^a-z0-9]+/gi, "-")}`);
  let port: number | undefined;
  let account: Account | undefined;
  let tool: string | undefined;

  const begin = async (core: number | undefined): Promise<Running> => {
    if (port === undefined) {
      port = await freePort();
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder, { recursive: true });
      writeFileSync(path.join(folder, "drawbridge.yaml"), settings(options, folder, port));
    }
    const file = path.join(folder, "drawbridge.yaml");
    const command = [process.execPath, ...(options.nodeFlags ?? []), builtProgram(), "serve", file];
    return launch({ name: options.name, command, core, port });
  };
  const endpoint = (onPort: number): Endpoint => ({
    port: onPort,
    path: "/mcp",
    revision: options.revision ?? "2026-07-28",
    sessions: options.revision === "2025-11-25",
    tool: tool ?? "",
    token: account?.accessToken,
  });

  return {
    name: options.name,
    folder,
    start: async (core) => {
      const server = await begin(core);
      try {
        await portOpens(server, 30);
        const origin = `http://127.0.0.1:${server.port}`;
        account =
          account === undefined
            ? await signUp(origin, await printedSetUpLink(server))
            : await fresh(account, TOKEN_SECONDS / 2);
        tool ??= await nameOf("echo", endpoint(server.port));
        return { ...runningArm(server, endpoint(server.port)), server };
      } catch (error) {
        await server.stop();
        throw error;
      }
    },
    launch: async (core) => {
      const server = await begin(core);
      return { server, endpoint: endpoint(server.port) };
    },
  };
}

const TOKEN_SECONDS = 3600;
const PACKAGE = path.join(RESULTS, "package");
let built = false;

/** What users run: the package as it is published, built from this checkout once in each run of the bench. */
export function builtPackage(): string {
  if (!built) build(PACKAGE);
  built = true;
  return PACKAGE;
}

export function builtProgram(): string {
  return path.join(builtPackage(), "bin/drawbridge.js");
}

/** YAML, written as its subset JSON. */
function settings(options: DrawbridgeOptions, folder: string, port: number): string {
  return JSON.stringify(
    {
      listen: { host: "127.0.0.1", port },
      store: `sqlite:${path.join(folder, "drawbridge.db")}`,
      clients: { registration: "open" },
      tokens: { accessTokenSeconds: TOKEN_SECONDS },
      servers: { upstream: options.server },
      ...(options.tools !== undefined && { tools: options.tools }),
      roles: { caller: { may: ["*echo", "*block", "*elicitation"] } },
      assign: [{ role: "caller", group: "owner" }],
      limits: { perPrincipalPerMinute: 10_000_000, perToolPerMinute: 10_000_000, concurrentPerPrincipal: 100_000 },
      audit: options.audit === "off" ? { insecureOff: true } : { commit: options.audit },
      ...(options.otlp !== undefined && { telemetry: { otlpEndpoint: options.otlp, sampleRatio: 1 } }),
    },
    null,
    2,
  );
}

/** The link that makes the owner's account. */
export async function printedSetUpLink(server: Running): Promise<string> {
  const until = Date.now() + 30_000;
  for (;;) {
    const links = server.output().match(/https?:\/\/[^\s"'<>\\]+/g) ?? [];
    const link = links.find((one) => /set-?up/i.test(one));
    if (link !== undefined) return link;
    if (Date.now() > until) throw new Error(`${server.name} printed no set-up link: ${server.output().slice(-1500)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** What the gateway calls an upstream's tool; with several servers a name has a prefix. */
async function nameOf(tool: string, endpoint: Endpoint): Promise<string> {
  const names = await listTools(endpoint);
  const name = names.find((one) => one === tool) ?? names.find((one) => one.endsWith(tool));
  if (name === undefined) throw new Error(`The gateway lists no tool ${tool}: ${names.join(", ") || "none at all"}`);
  return name;
}
