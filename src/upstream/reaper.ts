/**
 * Ends child processes when the gateway is gone, however it went (`kill -9` included). Servers may ignore that their stdin was
 * closed, and Node cannot ask the kernel to kill them with their parent. So one small shell, in a session of its own, holds a
 * pipe from the gateway; when the pipe closes it kills the process groups it was told about.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Logger } from "../observe/logger.ts";

export interface Reaper {
  /** From now on the group ends with the gateway. */
  add(group: number): void;
  /** The group has ended. */
  drop(group: number): void;
}

/**
 * Fixed text; only numbers are ever written to it. SIGTERM first, SIGKILL to whatever is left two seconds later.
 * `kill -s`: dash does not know `kill -TERM -- -1`.
 */
const SCRIPT = `
trap '' INT TERM HUP
groups=" "
while read -r verb group; do
  case "$verb" in
    add) groups="$groups$group " ;;
    drop) case "$groups" in *" $group "*) groups="\${groups%% $group *} \${groups#* $group }" ;; esac ;;
  esac
done
for group in $groups; do kill -s TERM -- "-$group" 2>/dev/null; done
for turn in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  left=
  for group in $groups; do kill -s 0 -- "-$group" 2>/dev/null && left=yes; done
  [ -z "$left" ] && exit 0
  sleep 0.1
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
`;

const MAX_STARTS = 5;

let shared: Reaper | undefined;

/** The reaper of this process. It starts with the first group; on Windows there is none. */
export function sharedReaper(logger: Logger): Reaper {
  shared ??= process.platform === "win32" ? { add() {}, drop() {} } : shellReaper(logger);
  return shared;
}

function shellReaper(logger: Logger): Reaper {
  const groups = new Set<number>();
  let shell: ChildProcess | undefined;
  let starts = 0;

  function tell(line: string): void {
    // The write goes into the kernel's pipe at once, so it survives a kill in the next instant.
    shell?.stdin?.write(`${line}\n`);
  }
  function start(): void {
    if (++starts > MAX_STARTS) return;
    // `detached`: Ctrl-C in the gateway's terminal must not reach it.
    const started = spawn("/bin/sh", ["-c", SCRIPT], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
      env: { PATH: "/usr/bin:/bin" },
      cwd: "/",
    });
    shell = started;
    let gone = false;
    const lost = (why: string) => {
      if (gone) return;
      gone = true;
      if (shell === started) shell = undefined;
      logger.warn({ why }, "the reaper of child processes ended; servers could outlive a gateway that is killed");
      if (groups.size > 0) start();
    };
    started.on("error", (error) => lost(error.message));
    started.on("exit", (code, signal) => lost(`exit ${signal ?? code}`));
    started.stdin?.on("error", () => {});
    started.unref();
    (started.stdin as unknown as { unref?: () => void }).unref?.();
    for (const group of groups) tell(`add ${group}`);
  }

  return {
    add(group) {
      groups.add(group);
      if (shell === undefined) start();
      else tell(`add ${group}`);
    },
    drop(group) {
      if (groups.delete(group)) tell(`drop ${group}`);
    },
  };
}
