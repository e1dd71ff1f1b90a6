/** Which core a process runs on: what is measured alone on one, the generator and the upstreams on the other. */
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";

export const SERVER_CORE = 0;
export const GENERATOR_CORE = 1;
/** For processes that may use the whole machine. */
export const ANY_CORE = undefined;

/** False when there is one core only or no `taskset`; then nothing is pinned, and figures say less. */
export const canPin: boolean = availableParallelism() >= 2 && existsSync("/usr/bin/taskset");

/** Whether Linux can be asked to end a server together with a bench that was killed and cannot do it any more. */
const canBind: boolean = existsSync("/usr/bin/setpriv");

/** The command line that runs `command` on `core`, with room for so many open files where the system permits it. */
export function onCore(
  core: number | undefined,
  command: readonly string[],
  openFiles = 0,
): readonly [string, ...string[]] {
  const bound = canBind ? ["setpriv", "--pdeathsig", "KILL", ...command] : command;
  const pinned = core !== undefined && canPin ? ["taskset", "-c", String(core), ...bound] : bound;
  const [program, ...args] = pinned;
  if (program === undefined) throw new Error("There is no command to run.");
  if (openFiles === 0) return [program, ...args];
  // Node has no setrlimit. A refused limit is not an error here: the run then shows what was missing.
  const raise = `[ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -ge ${openFiles} ] || ulimit -n ${openFiles} 2>/dev/null; exec "$@"`;
  return ["/bin/sh", "-c", raise, "sh", program, ...args];
}
