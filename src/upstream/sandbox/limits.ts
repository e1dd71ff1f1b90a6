/**
 * Memory and processes of everything that one sandbox runs, together. The kernel counts where the gateway may make control groups;
 * elsewhere the gateway looks every so often and kills what has too much.
 */
import { spawnSync } from "node:child_process";
import {
  accessSync,
  constants,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { within } from "./program.ts";

export interface Limits {
  readonly memoryBytes: number;
  /** Processes and threads. */
  readonly processes: number;
}

/** Where groups of processes can be made. */
export interface Groups {
  readonly version: 1 | 2;
  /** Throws when the system refuses. */
  create(limits: Limits): Group;
}

export interface Group {
  /** A process is in the group, with all that it will start, when it has written its id into each of these files. */
  readonly join: readonly string[];
  /** Processes that the kernel has ended because the group's memory was used up. */
  killed(): number;
  /** Ends what is left of it and takes it away. */
  close(): Promise<void>;
}

/** `bwrap` outside and as the first process inside are not the server's own. */
const OWN_PROCESSES = 2;
const REMOVE_ATTEMPTS = 100;
const REMOVE_PAUSE_MS = 20;
const PREFIX = "drawbridge-";
let made = 0;

/** Finds where groups can be made by making one and joining it; else the reason why not. Takes away groups of gateways that are gone. */
export function findGroups(proc = "/proc"): Groups | { readonly reason: string } {
  let problem = "no control groups with memory and pids are mounted";
  try {
    const candidates = places(
      readFileSync(`${proc}/self/mountinfo`, "utf8"),
      readFileSync(`${proc}/self/cgroup`, "utf8"),
    );
    for (const place of candidates) {
      try {
        const groups = groupsAt(place);
        const group = groups.create({ memoryBytes: 1 << 26, processes: 16 });
        const joined = spawnSync("/bin/sh", ["-c", JOIN, "sh", String(group.join.length), ...group.join, "true"], {
          timeout: 5000,
          stdio: ["ignore", "ignore", "pipe"],
        });
        void group.close();
        if (joined.status !== 0) throw new Error(joined.stderr.toString().trim());
        for (const folder of place.folders) sweep(folder);
        return groups;
      } catch (error) {
        problem = error instanceof Error ? error.message : String(error);
      }
    }
  } catch (error) {
    problem = error instanceof Error ? error.message : String(error);
  }
  return { reason: problem };
}

/** Joins groups (their number, then their files), then becomes the command that follows. */
export const JOIN = `n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1" || exit 125; shift; n=$((n-1)); done; exec "$@"`;

export interface Place {
  readonly version: 1 | 2;
  /** Version 2: one. Version 1: of the controllers memory and pids, which may be one. */
  readonly folders: readonly string[];
}

/** Where this process may hope to make groups, best first: beside itself (a delegated part of the tree), below itself. */
export function places(mountinfo: string, own: string): Place[] {
  const mounts = mountinfo.split("\n").flatMap((line) => {
    const fields = line.split(" ");
    const [type, , options = ""] = fields.slice(fields.indexOf("-") + 1);
    const [root = "", at = ""] = fields.slice(3, 5);
    return type === "cgroup" || type === "cgroup2" ? [{ type, root, at, options: options.split(",") }] : [];
  });
  const lines = own
    .trim()
    .split("\n")
    .map((line) => /^\d+:([^:]*):(.*)$/.exec(line));
  const folder = (controller: string): string | undefined => {
    const mount = mounts.find((one) => (controller === "" ? one.type === "cgroup2" : one.options.includes(controller)));
    const path = lines.find((line) => line?.[1]?.split(",").includes(controller))?.[2];
    if (mount === undefined || path === undefined) return undefined;
    const rest = mount.root === "/" ? path : within(path, mount.root) ? path.slice(mount.root.length) : "";
    return resolve(mount.at, rest.slice(1));
  };
  const unified = folder("");
  const memory = folder("memory");
  const pids = folder("pids");
  const result: Place[] = [];
  if (unified !== undefined) {
    const mount = mounts.find((one) => one.type === "cgroup2");
    result.push({ version: 2, folders: [unified] });
    // A group with processes of its own cannot divide its memory; its parent can, when that part of the tree is ours.
    if (unified !== mount?.at) result.push({ version: 2, folders: [dirname(unified)] });
  }
  if (memory !== undefined && pids !== undefined) result.push({ version: 1, folders: [...new Set([memory, pids])] });
  return result;
}

export function groupsAt({ version, folders }: Place): Groups {
  if (version === 2) {
    const [folder = ""] = folders;
    const control = join(folder, "cgroup.subtree_control");
    const given = new Set(readFileSync(control, "utf8").trim().split(" "));
    if (!given.has("memory") || !given.has("pids")) writeFileSync(control, "+memory +pids");
  }
  return {
    version,
    create({ memoryBytes, processes }) {
      const name = `${PREFIX}${process.pid}-${++made}`;
      const own = folders.map((folder) => join(folder, name));
      const set = (file: string, value: string | number, optional = false) => {
        for (const folder of own) {
          const path = join(folder, file);
          if (exists(path)) return writeFileSync(path, String(value));
        }
        if (!optional) throw new Error(`the control group has no ${file}`);
      };
      const remove = () => own.every((folder) => removed(folder));
      try {
        for (const folder of own) mkdirSync(folder);
        if (version === 2) {
          set("memory.max", memoryBytes);
          set("memory.swap.max", 0, true);
          set("memory.oom.group", 1, true);
        } else {
          set("memory.limit_in_bytes", memoryBytes);
          set("memory.memsw.limit_in_bytes", memoryBytes, true);
        }
        set("pids.max", processes + OWN_PROCESSES);
      } catch (error) {
        remove();
        throw error;
      }
      return {
        join: own.map((folder) => join(folder, "cgroup.procs")),
        killed: () =>
          Math.max(
            0,
            ...own.map((folder) => counter(join(folder, version === 2 ? "memory.events" : "memory.oom_control"))),
          ),
        async close() {
          try {
            if (version === 2) set("cgroup.kill", 1, true);
          } catch {
            // Nobody is left to be killed.
          }
          // Processes that were killed leave their group when the kernel has buried them.
          for (let attempt = 0; attempt < REMOVE_ATTEMPTS && !remove(); attempt++)
            await new Promise((resolve) => setTimeout(resolve, REMOVE_PAUSE_MS));
        },
      };
    },
  };
}

function counter(file: string): number {
  try {
    return Number(/^oom_kill (\d+)$/m.exec(readFileSync(file, "utf8"))?.[1] ?? 0);
  } catch {
    return 0; // The controller for processes has no such file.
  }
}

function removed(folder: string): boolean {
  try {
    rmdirSync(folder);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT";
  }
}

/** Empty groups of gateways that were killed; those in use cannot be removed. */
function sweep(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (!name.startsWith(PREFIX)) continue;
    const pid = Number(name.slice(PREFIX.length).split("-")[0]);
    if (pid !== process.pid && !exists(`/proc/${pid}`)) removed(join(folder, name));
  }
}

function exists(path: string): boolean {
  try {
    accessSync(path, constants.F_OK);
    return true;
  } catch {
    return false;
  }
}

export interface Watched {
  readonly pid: number;
  readonly limits: Limits;
  /** Folders inside whose content is memory. */
  readonly memoryFolders: readonly string[];
  /** Called once; the whole sandbox has been killed. */
  exceeded(reason: string): void;
}

export const WATCH_MS = 200;
/** Looking may take a twentieth of the time at most. */
const WATCH_SHARE = 20;
const watched = new Map<number, Watched>();
let timer: NodeJS.Timeout | undefined;

/** Kills the sandbox whose outer process is `pid` when it has too much. Returns what ends the watch. */
export function watch(one: Watched): () => void {
  watched.set(one.pid, one);
  schedule(WATCH_MS);
  return () => {
    watched.delete(one.pid);
    if (watched.size > 0) return;
    clearTimeout(timer);
    timer = undefined;
  };
}

function schedule(ms: number): void {
  timer ??= setTimeout(() => {
    timer = undefined;
    if (watched.size === 0) return;
    const started = performance.now();
    look();
    schedule(Math.max(WATCH_MS, (performance.now() - started) * WATCH_SHARE));
  }, ms).unref();
}

function look(): void {
  const all = runningProcesses();
  const children = Map.groupBy(all.values(), (one) => one.parent);
  for (const one of [...watched.values()]) {
    const family = descendants(one.pid, children);
    const first = children.get(one.pid)?.[0];
    const memory =
      family.reduce((sum, { bytes }) => sum + bytes, 0) +
      (first === undefined ? 0 : contents(first.pid, one.memoryFolders));
    const count = family.reduce((sum, { threads }) => sum + threads, 0);
    const reason =
      memory > one.limits.memoryBytes
        ? `used more than ${one.limits.memoryBytes / 2 ** 20} MB of memory`
        : count > one.limits.processes + OWN_PROCESSES
          ? `had more than ${one.limits.processes} processes and threads`
          : undefined;
    if (reason === undefined) continue;
    watched.delete(one.pid);
    // The first process of the process namespace: the kernel ends all others with it.
    for (const pid of [first?.pid, one.pid]) {
      try {
        if (pid !== undefined) process.kill(pid, "SIGKILL");
      } catch {
        // It ended while we looked.
      }
    }
    one.exceeded(reason);
  }
}

interface Running {
  readonly pid: number;
  readonly parent: number;
  readonly threads: number;
  /** What is its own: anonymous and shared memory, not the files that it maps. */
  readonly bytes: number;
}

/** Every process of the machine that can be seen. */
export function runningProcesses(): Map<number, Running> {
  const found = new Map<number, Running>();
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    try {
      const status = readFileSync(`/proc/${pid}/status`, "latin1");
      const field = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
      found.set(pid, {
        pid,
        parent: field("PPid"),
        threads: field("Threads"),
        bytes: (field("RssAnon") + field("RssShmem")) * 1024,
      });
    } catch {
      // It ended while we looked.
    }
  }
  return found;
}

/** Processes below one: orphans of a process namespace are adopted by its first process, so none is missed. */
function descendants(pid: number, children: ReadonlyMap<number, readonly Running[]>): Running[] {
  const family: Running[] = [];
  const queue = [...(children.get(pid) ?? [])];
  for (let one = queue.pop(); one !== undefined; one = queue.pop()) {
    family.push(one);
    queue.push(...(children.get(one.pid) ?? []));
  }
  return family;
}

function contents(pid: number, folders: readonly string[]): number {
  let bytes = 0;
  for (const folder of folders) {
    try {
      const { blocks, bfree, bsize } = statfsSync(`/proc/${pid}/root${folder}`);
      bytes += (blocks - bfree) * bsize;
    } catch {
      // Not mounted yet, or gone.
    }
  }
  return bytes;
}
