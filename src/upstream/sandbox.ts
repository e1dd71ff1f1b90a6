/**
 * Confines what a stdio server may do, with bubblewrap on Linux: no files but the system's and its own, no network but a list, no
 * other processes, so much memory. What cannot be enforced is said, or refused where the settings require it.
 */
import { existsSync } from "node:fs";
import { Server } from "node:net";
import { join, resolve } from "node:path";
import { DrawbridgeError } from "../core/errors.ts";
import type { Resolve } from "../net/outbound.ts";
import { egressRefused, sandboxKilled, sandboxMissing } from "../observe/events.ts";
import type { Logger } from "../observe/logger.ts";
import type { Environment } from "./environment.ts";
import { type ProcessEvents, type ProcessOptions, type ServerProcess, startProcess } from "./process.ts";
import { type EgressCounts, type EgressOptions, egressList, egressProxy } from "./sandbox/egress.ts";
import { type SandboxHost, type SandboxSupport, sandboxSupport } from "./sandbox/host.ts";
import { JOIN, type Limits, runningProcesses, WATCH_MS, watch } from "./sandbox/limits.ts";
import { homeInside, memoryFolders, profile, systemFiles } from "./sandbox/profile.ts";
import { findProgram } from "./sandbox/program.ts";
import type { SandboxSettings } from "./settings.ts";

export type { SandboxSupport } from "./sandbox/host.ts";
export { sandboxSupport } from "./sandbox/host.ts";

export interface SandboxOptions {
  readonly settings: SandboxSettings;
  /** Where relative paths of the settings start. */
  readonly baseDirectory: string;
  /** The working directory, if it is to be readable inside. Otherwise it is there, and of its content only the program. */
  readonly cwd?: string | undefined;
  /** Files and folders that are never visible inside, such as the gateway's own settings and store. */
  readonly hidden?: readonly string[] | undefined;
  /** Hears of each connection that was refused, see `EgressOptions`. */
  readonly refused?: EgressOptions["refused"] | undefined;
  /** Resolves the names of `network`. For tests. */
  readonly resolve?: Resolve | undefined;
}

/** One process in a sandbox, ready to be started. */
export interface SandboxedCommand {
  readonly command: readonly string[];
  /** Complete; nothing is to be added. */
  readonly environment: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** When there is one, the process needs an IPC channel, and the first handle that comes through it belongs here. */
  readonly channel: ((handle: unknown) => void) | undefined;
  /** To be called with the id of the process, once it runs. `exceeded`: it was killed for this reason. */
  started(pid: number, exceeded: (reason: string) => void): void;
  /** Asks the server itself to end; a signal to its process group would end the whole sandbox at once. False: nobody was there. */
  terminate(pid: number): boolean;
  egress(): EgressCounts;
  /** Why the kernel has ended it or a part of it, if it has. */
  outOfMemory(): string | undefined;
  /** After the process has ended: closes its way out and takes away its control group. */
  dispose(): Promise<void>;
}

/** Starts processes as `startProcess` does, and says in one sentence how they are confined. */
export interface Confinement {
  readonly start: typeof startProcess;
  sentence(): string;
}

export interface ConfinementDeps extends Omit<SandboxOptions, "settings" | "refused"> {
  /** The gateway's environment, for finding bubblewrap and secrets. */
  readonly environment: Environment;
  readonly logger: Logger;
  readonly support?: SandboxSupport | undefined;
}

/**
 * How the server `name` starts its processes. Throws `settings_invalid` when a limit that is required cannot be enforced here, and for
 * entries of `network` that are no hosts.
 */
export function confinement(name: string, settings: SandboxSettings | undefined, deps: ConfinementDeps): Confinement {
  if (settings === undefined)
    return { start: startProcess, sentence: () => "Not confined: there is no `sandbox` in its settings." };
  egressList(settings.network);
  const support = deps.support ?? sandboxSupport(deps.environment);
  const missing = missingFrom(support);
  if (missing !== undefined && settings.require)
    throw new DrawbridgeError(
      "settings_invalid",
      `The server "${name}" requires a sandbox that cannot be had: ${missing}. Provide it, or leave out servers.${name}.sandbox.require.`,
    );
  if (missing !== undefined && !warned.has(`${name} ${missing}`)) {
    warned.add(`${name} ${missing}`);
    sandboxMissing(deps.logger, { missing });
  }
  if ("reason" in support) return { start: startProcess, sentence: () => `Not confined: ${support.reason}.` };

  const hidden = [
    ...(deps.hidden ?? []),
    // Where secrets and the store are kept unless the settings say otherwise.
    join(deps.baseDirectory, "secrets"),
    join(deps.baseDirectory, ".drawbridge"),
    ...(deps.environment["CREDENTIALS_DIRECTORY"] === undefined ? [] : [deps.environment["CREDENTIALS_DIRECTORY"]]),
  ];
  let refused = 0;
  const onRefused: EgressOptions["refused"] = (target, reason, first) => {
    refused++;
    if (first) egressRefused(deps.logger, { target, reason });
  };
  return {
    start: (process, logger, events) =>
      startConfined(process, { ...deps, settings, hidden, refused: onRefused }, support, logger, events),
    sentence: () => inWords(settings, support, refused),
  };
}

/** A server with processes for each user is opened for each of them; one warning is enough. */
const warned = new Set<string>();

/** What cannot be enforced, as the end of a sentence. */
function missingFrom(support: SandboxSupport): string | undefined {
  if ("reason" in support) return support.reason;
  if (support.groups === undefined)
    return `memory and processes are looked at every ${WATCH_MS} ms only, since the kernel counts them for nobody (${support.groupsProblem})`;
  return undefined;
}

function inWords({ network, memoryMb, processes }: SandboxSettings, support: SandboxHost, refused: number): string {
  const reach =
    network.length === 0
      ? "no network"
      : network.length <= 5
        ? `network only to ${network.join(", ")}`
        : `network only to ${network.length} hosts`;
  const limits =
    support.groups === undefined
      ? `looked at every ${WATCH_MS} ms only (${support.groupsProblem})`
      : `enforced by the kernel (cgroup v${support.groups.version})`;
  const turnedAway =
    refused === 0
      ? ""
      : refused === 1
        ? "; 1 connection to another host was refused"
        : `; ${refused} connections to other hosts were refused`;
  return `Confined by bubblewrap: ${reach}; ${memoryMb} MB and ${processes} processes and threads, ${limits}; CPU is not limited${turnedAway}.`;
}

function startConfined(
  process: ProcessOptions,
  options: SandboxOptions,
  host: SandboxHost,
  logger: Logger,
  events: ProcessEvents,
): ServerProcess {
  let box: SandboxedCommand;
  try {
    const { command, cwd, environment } = process;
    box = sandboxedCommand(command, { ...options, environment, workingDirectory: cwd }, host);
  } catch (thrown) {
    const error = thrown instanceof Error ? thrown.message : String(thrown);
    setImmediate(() => events.exited(`could not be started: ${error}`, false));
    return { pid: undefined, full: false, write() {}, end: async () => {}, kill: async () => {} };
  }
  let killedFor: string | undefined;
  let disposed: Promise<void> | undefined;
  const dispose = () => {
    disposed ??= box.dispose();
    return disposed;
  };
  const started = startProcess(
    {
      command: box.command,
      cwd: box.cwd,
      environment: box.environment,
      channel: box.channel,
      terminate: box.terminate,
    },
    logger,
    {
      ...events,
      exited(reason, startable, failure) {
        const why = killedFor ?? box.outOfMemory();
        if (why !== undefined) sandboxKilled(logger, { why });
        void dispose();
        events.exited(why === undefined ? reason : `was ended because it ${why}`, startable, failure);
      },
    },
  );
  if (started.pid !== undefined)
    box.started(started.pid, (reason) => {
      killedFor = reason;
    });
  const and = async (ended: Promise<void>) => {
    await ended;
    await dispose();
  };
  return {
    pid: started.pid,
    get full() {
      return started.full;
    },
    write: started.write,
    end: () => and(started.end()),
    kill: () => and(started.kill()),
  };
}

export interface CommandOptions extends SandboxOptions {
  /** What the program is to see, see `childEnvironment`. */
  readonly environment: Readonly<Record<string, string>>;
  /** The working directory inside; `cwd` says whether its content is there. */
  readonly workingDirectory: string;
}

/** The port of the way out, in a network where nothing else listens. */
const PROXY_PORT = 3128;

/**
 * What starts a command in a sandbox of its own. Throws when its program is not there, or a path of the settings is not. Makes a control
 * group, which `dispose` takes away: call it also when nothing was started.
 */
export function sandboxedCommand(
  command: readonly string[],
  options: CommandOptions,
  host: SandboxHost,
): SandboxedCommand {
  const { settings, baseDirectory, workingDirectory, environment } = options;
  const home = homeInside(environment["HOME"]);
  const path = environment["PATH"] ?? "/usr/bin:/bin";
  const lookup = { cwd: workingDirectory, path, home: environment["HOME"] ?? home };
  const program = findProgram(command, lookup);
  if (program === undefined)
    throw new Error(`the program ${command[0]} was not found, or may not be executed (PATH is ${path})`);
  const networked = settings.network.length > 0;
  // Ourselves, to open the way out from within.
  const opener = networked ? findProgram([process.execPath], lookup) : undefined;
  const place = (setting: "read" | "write") =>
    settings[setting].map((written) => {
      const full = resolve(baseDirectory, written.replace(/^~(?=\/|$)/, lookup.home));
      if (!existsSync(full)) throw new Error(`${full} does not exist. Create it, or take it out of sandbox.${setting}`);
      return full;
    });
  if (options.cwd !== undefined && !existsSync(options.cwd))
    throw new Error(`the working directory ${options.cwd} does not exist`);
  const limits = limitsOf(settings, networked);
  const words = profile({
    read: [
      ...program.needs,
      ...(opener?.needs ?? []),
      ...(options.cwd === undefined ? [] : [options.cwd]),
      ...place("read"),
    ],
    write: place("write"),
    hidden: options.hidden ?? [],
    cwd: workingDirectory,
    home,
    tmpBytes: settings.tmpMb * 2 ** 20,
  });
  const inside = [
    ...(host.groups === undefined ? ["/bin/sh", "-c", LIMITED, "sh", String(limits.processes)] : []),
    ...(opener === undefined ? [] : ["/bin/sh", "-c", WITH_WAY_OUT, "sh", opener.file, OPENER]),
    program.file,
    ...command.slice(1),
  ];
  const proxy = networked
    ? egressProxy({
        list: settings.network,
        resolve: options.resolve,
        refused: options.refused ?? (() => {}),
      })
    : undefined;
  const group = host.groups?.create(limits);
  const joins = group?.join ?? [];
  let unwatch: (() => void) | undefined;

  return {
    command: [
      "/bin/sh",
      "-c",
      OUTSIDE,
      "sh",
      ...systemFiles(home),
      String(joins.length),
      ...joins,
      host.bwrap,
      ...words,
      "--",
      ...inside,
    ],
    environment: { ...environment, ...ownEnvironment(home), ...(networked && wayOutEnvironment(settings.network)) },
    cwd: "/",
    channel:
      proxy === undefined
        ? undefined
        : (handle) => {
            if (handle instanceof Server) proxy.serve(handle);
          },
    started(pid, exceeded) {
      if (group !== undefined) return;
      unwatch = watch({ pid, limits, memoryFolders: memoryFolders(home), exceeded });
    },
    terminate,
    outOfMemory: () => ((group?.killed() ?? 0) > 0 ? `used more than ${settings.memoryMb} MB of memory` : undefined),
    egress: () => proxy?.counts() ?? { connections: 0, refused: 0, bytes: 0 },
    async dispose() {
      unwatch?.();
      proxy?.close();
      await group?.close();
    },
  };
}

/** Of the few threads that open the way out, none is there any more when the server starts. */
const OPENER_THREADS = 16;

function limitsOf({ memoryMb, processes }: SandboxSettings, networked: boolean): Limits {
  return { memoryBytes: memoryMb * 2 ** 20, processes: networked ? Math.max(processes, OPENER_THREADS) : processes };
}

/** Makes the files of `systemFiles` readable as 4 to 7 without a name on any disk, then joins the control groups. */
const OUTSIDE = `exec 4<<A 5<<B 6<<C 7<<D
$1
A
$2
B
$3
C
$4
D
shift 4
${JOIN}`;

/** Where the kernel has no groups for us it still counts for each user of a namespace; shells differ in the letter. */
const LIMITED = `ulimit -u "$1" 2>/dev/null || ulimit -p "$1" 2>/dev/null; shift; exec "$@"`;

/**
 * The listening socket is made inside, where its network is, and handed out through the channel of our own process, which then
 * accepts from it. Nothing stays: no forwarder, no memory, and no channel that the server could speak through.
 */
const OPENER = `const server = require("node:net").createServer().listen(${PROXY_PORT}, "127.0.0.1", 511, () => process.send("way out", server, () => process.exit()));`;
const WITH_WAY_OUT = `/usr/bin/env -i NODE_CHANNEL_FD="$NODE_CHANNEL_FD" "$1" -e "$2" || exit 125
shift 2; unset NODE_CHANNEL_FD NODE_CHANNEL_SERIALIZATION_MODE; exec 3>&-; exec "$@"`;

function ownEnvironment(home: string): Record<string, string> {
  return { HOME: home, TMPDIR: "/tmp", USER: "server", LOGNAME: "server", SHELL: "/bin/sh" };
}

function wayOutEnvironment(network: readonly string[]): Record<string, string> {
  const url = `http://127.0.0.1:${PROXY_PORT}`;
  const names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].flatMap((name) => [name, name.toLowerCase()]);
  // What is listed of the machine's own loopback is reached through the way out too; the rest of it is the sandbox's own.
  const local = network.some((entry) => /^(localhost|127\.|\[::1\])/i.test(entry)) ? "" : "localhost,127.0.0.1,::1";
  return {
    ...Object.fromEntries(names.map((name) => [name, url])),
    NO_PROXY: local,
    no_proxy: local,
    NODE_USE_ENV_PROXY: "1",
  };
}

/** bubblewrap outside, its first process inside, the server: the parents of each other. */
function terminate(pid: number): boolean {
  const all = [...runningProcesses().values()];
  const first = all.find(({ parent }) => parent === pid);
  const servers = all.filter(({ parent }) => parent === first?.pid);
  let told = false;
  for (const server of servers) {
    try {
      told = process.kill(server.pid, "SIGTERM") || told;
    } catch {
      // It ended while we looked.
    }
  }
  return told;
}
