/** What is there inside a sandbox: words for bubblewrap. */
import { existsSync, lstatSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { ofSystem, SYSTEM_FOLDERS, within } from "./program.ts";

export interface ProfileOptions {
  /** Files and folders that are there as they are outside. */
  readonly read: readonly string[];
  readonly write: readonly string[];
  /** Never there, even within the others: what is the gateway's own. */
  readonly hidden: readonly string[];
  /** The working directory. It is there, and empty unless one of the others has it. */
  readonly cwd: string;
  /** An empty folder that can be written to, as `/tmp`. */
  readonly home: string;
  readonly tmpBytes: number;
}

/** Something at a place of the new file tree. */
export interface Mount {
  readonly at: string;
  readonly words: readonly string[];
}

/** The user inside: a number that says nothing about the one outside. */
export const INSIDE_UID = "1000";

/**
 * Namespaces of its own for everything, no capabilities (bubblewrap lets root keep them unless told), no further user namespaces in
 * which there would be some again, no privileges through setuid programs (bubblewrap always sets `no_new_privs`).
 */
export const ISOLATION: readonly string[] = [
  ...["user", "pid", "net", "ipc", "uts", "cgroup"].map((name) => `--unshare-${name}`),
  "--disable-userns",
  ...["--uid", INSIDE_UID, "--gid", INSIDE_UID, "--cap-drop", "ALL", "--hostname", "sandbox"],
  "--die-with-parent",
  "--new-session",
];

/** Of /etc only what programs need to find libraries, certificates and the time. Its private keys and users stay outside. */
const ETC = [
  "alternatives",
  "ca-certificates",
  "ca-certificates.conf",
  "crypto-policies",
  "fonts",
  "ld.so.cache",
  "ld.so.conf",
  "ld.so.conf.d",
  "localtime",
  "mime.types",
  "os-release",
  "pki/ca-trust/extracted",
  "pki/tls/cert.pem",
  "pki/tls/certs",
  "protocols",
  "services",
  "ssl/cert.pem",
  "ssl/certs",
  "ssl/openssl.cnf",
  "timezone",
].map((name) => `/etc/${name}`);

/**
 * Parts of /proc that show what runs elsewhere, or the kernel's memory. Permissions do not keep the user that is root outside from
 * them, nor from writing to /proc/sys, which is why all of /proc is read-only.
 */
const HIDDEN_IN_PROC = [
  "kcore",
  "key-users",
  "keys",
  "kmsg",
  "kpagecgroup",
  "kpagecount",
  "kpageflags",
  "latency_stats",
  "locks",
  "pagetypeinfo",
  "sched_debug",
  "slabinfo",
  "sysrq-trigger",
  "timer_list",
  "timer_stats",
  "vmallocinfo",
].map((name) => `/proc/${name}`);

/** The system, read-only, and devices that are no hardware. */
export function systemMounts(): Mount[] {
  const mounts: Mount[] = [];
  for (const folder of SYSTEM_FOLDERS) {
    if (!existsSync(folder)) continue;
    const link = lstatSync(folder).isSymbolicLink();
    mounts.push({
      at: folder,
      words: link ? ["--symlink", readlinkSync(folder), folder] : ["--ro-bind", folder, folder],
    });
  }
  for (const path of ETC) if (existsSync(path)) mounts.push({ at: path, words: ["--ro-bind", path, path] });
  const hidden = HIDDEN_IN_PROC.filter((path) => existsSync(path));
  mounts.push({
    at: "/proc",
    words: ["--proc", "/proc", ...hidden.flatMap((path) => ["--ro-bind", "/dev/null", path]), "--remount-ro", "/proc"],
  });
  mounts.push({ at: "/var/tmp", words: ["--symlink", "/tmp", "/var/tmp"] });
  return mounts;
}

/** Folders whose content is memory. */
export const memoryFolders = (home: string): readonly string[] => ["/tmp", "/dev/shm", home];

/** Places that the sandbox makes itself; those of the machine would undo it. */
const NEVER_GIVEN = ["/proc", "/dev"];

/** All words before `--`. Throws when a path of `read` or `write` does not exist, or is one that cannot be given. */
export function profile(options: ProfileOptions): string[] {
  const mounts = new Map<string, Mount>();
  const put = (at: string, ...words: string[]) => void mounts.set(at, { at, words });
  const size = String(options.tmpBytes);

  for (const mount of systemMounts()) mounts.set(mount.at, mount);
  // Its own size, or half of the machine's memory could be filled through it.
  put("/dev", "--dev", "/dev", "--size", size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev");
  put("/tmp", "--size", size, "--tmpfs", "/tmp");
  put(options.home, "--size", size, "--tmpfs", options.home);
  if (!ofSystem(options.cwd) && !mounts.has(options.cwd)) put(options.cwd, "--dir", options.cwd);
  const given: string[] = [];
  for (const [paths, word] of [
    [options.read, "--ro-bind"],
    [options.write, "--bind"],
  ] as const) {
    for (const path of paths) {
      const real = realpathSync(path);
      if (real === "/" || NEVER_GIVEN.some((one) => within(real, one)))
        throw new Error(`${path} cannot be given to a sandbox. Name the files or folders that are needed`);
      given.push(real);
      put(real, word, real, real);
      // By the name it was given too, unless a folder that is there already leads from one to the other.
      if (real !== path && !given.some((one) => within(path, one)) && !ofSystem(path)) put(path, word, real, path);
    }
  }

  // Folders before what is in them: the shorter path is first among those with the same beginning.
  const sorted = [...mounts.values()].sort((a, b) => (`${a.at}/` < `${b.at}/` ? -1 : 1));
  return [
    ...ISOLATION,
    ...[
      "--file",
      "4",
      "/etc/passwd",
      "--file",
      "5",
      "/etc/group",
      "--file",
      "6",
      "/etc/hosts",
      "--file",
      "7",
      "/etc/nsswitch.conf",
    ],
    ...sorted.flatMap(({ words }) => words),
    ...options.hidden.flatMap((path) => hide(path, given)),
    // The root itself is memory too. Mounts below it keep what they may.
    ...["--remount-ro", "/"],
    ...["--chdir", options.cwd],
  ];
}

/** Files that 4 to 7 are read from: a user without a name, and no name service. */
export function systemFiles(home: string): string[] {
  return [
    `server:x:${INSIDE_UID}:${INSIDE_UID}:server:${home}:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false`,
    `server:x:${INSIDE_UID}:\nnogroup:x:65534:`,
    "127.0.0.1 localhost\n::1 localhost",
    "passwd: files\ngroup: files\nhosts: files",
  ];
}

/** Something empty over a path that would be visible. */
function hide(path: string, given: readonly string[]): string[] {
  if (!existsSync(path)) return [];
  const real = realpathSync(path);
  if (!ofSystem(real) && !given.some((one) => within(real, one))) return [];
  return statSync(real).isDirectory()
    ? ["--perms", "0500", "--size", "4096", "--tmpfs", real, "--remount-ro", real]
    : ["--ro-bind", "/dev/null", real];
}

/** The home folder inside: at the same place as outside, so that what is given of it is where programs look for it. */
export function homeInside(home: string | undefined): string {
  const usable = home?.startsWith("/") === true && home !== "/" && existsSync(home) && !ofSystem(home);
  return usable && dirname(home) !== "/proc" ? realpathSync(home) : "/home/server";
}
