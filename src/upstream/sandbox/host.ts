/** What this machine can do for a sandbox, found out by trying. */
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import type { Environment } from "../environment.ts";
import { findGroups, type Groups } from "./limits.ts";
import { ISOLATION, systemMounts } from "./profile.ts";

export interface SandboxHost {
  /** The path of bubblewrap. */
  readonly bwrap: string;
  readonly groups: Groups | undefined;
  /** Why the kernel cannot be told the limits. */
  readonly groupsProblem: string | undefined;
}

export type SandboxSupport = SandboxHost | { readonly reason: string };

const TRIAL_TIMEOUT_MS = 10_000;
const tried = new Map<string, SandboxSupport>();

/** Whether and how processes can be confined here. Runs each bubblewrap once; later calls share the answer. */
export function sandboxSupport(environment: Environment, platform: NodeJS.Platform = process.platform): SandboxSupport {
  if (platform !== "linux") return { reason: "only Linux has what it takes (bubblewrap)" };
  const bwrap = [...(environment["PATH"] ?? "").split(":"), "/usr/bin", "/bin", "/usr/local/bin"]
    .filter((folder) => folder.startsWith("/"))
    .map((folder) => join(folder, "bwrap"))
    .find(executable);
  if (bwrap === undefined) return { reason: "bubblewrap is not installed (Debian's package bubblewrap has it)" };
  const known = tried.get(bwrap) ?? support(bwrap);
  tried.set(bwrap, known);
  return known;
}

function support(bwrap: string): SandboxSupport {
  const problem = trial(bwrap);
  if (problem !== undefined) return { reason: problem };
  const groups = findGroups();
  return "reason" in groups
    ? { bwrap, groups: undefined, groupsProblem: groups.reason }
    : { bwrap, groups, groupsProblem: undefined };
}

/** The whole profile around a program that does nothing. */
function trial(bwrap: string): string | undefined {
  const { status, signal, stderr, error } = spawnSync(
    bwrap,
    [...ISOLATION, ...systemMounts().flatMap(({ words }) => words), "--", "/bin/sh", "-c", ":"],
    { env: {}, cwd: "/", timeout: TRIAL_TIMEOUT_MS, encoding: "utf8", stdio: ["ignore", "ignore", "pipe"] },
  );
  if (status === 0) return undefined;
  const text = (error?.message ?? (stderr.trim().split("\n")[0] || `ended with ${signal ?? status}`)).slice(0, 300);
  const hint = HINTS.find(([pattern]) => pattern.test(text))?.[1];
  return `bubblewrap does not work here: ${text}${hint === undefined ? "" : ` (${hint})`}`;
}

const HINTS: readonly (readonly [RegExp, string])[] = [
  [/unknown option/i, "bubblewrap 0.8 or newer is needed"],
  [
    /no permissions to create|creating new namespace failed|operation not permitted.*namespace|clone/i,
    "user namespaces are forbidden, by kernel.unprivileged_userns_clone, user.max_user_namespaces or the container that this runs in",
  ],
  [
    /uid map|RTM_NEWADDR|loopback/i,
    "on Ubuntu AppArmor forbids it unless a profile for bwrap allows user namespaces; see kernel.apparmor_restrict_unprivileged_userns",
  ],
  [/mount proc/i, "the container that this runs in hides parts of /proc; let it run with systempaths=unconfined"],
];

function executable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
