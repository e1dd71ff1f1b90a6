/** Which files and folders a command needs to run: the program, what interprets it, and the installation around each of them. */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  realpathSync,
  statSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";

export interface Program {
  /** The program's path, as it was found. */
  readonly file: string;
  /** Files and folders that must be there, beside those of the system. */
  readonly needs: readonly string[];
}

export interface Lookup {
  readonly cwd: string;
  /** `PATH` of the process. */
  readonly path: string;
  /** The user's home folder, which is never given as a whole. */
  readonly home: string;
}

/** Folders of the system that every sandbox has. */
export const SYSTEM_FOLDERS = [
  "/usr",
  "/bin",
  "/sbin",
  "/lib",
  "/lib32",
  "/lib64",
  "/libx32",
  "/nix/store",
  "/gnu/store",
];

/** Programs whose first argument is a program too. */
const INTERPRETERS =
  /^(?:node|nodejs|bun|deno|tsx|python|python[23](?:\.\d+)?|pypy3?|ruby|perl|php|bash|sh|dash|zsh|java|pwsh)$/;
/** Words between an interpreter and its script: `deno run`, `bun run`. */
const SUBCOMMANDS = new Set(["run"]);
/** What the folder of a project has. */
const PROJECT = [
  "package.json",
  "pyproject.toml",
  "setup.py",
  "deno.json",
  "go.mod",
  "Cargo.toml",
  "Gemfile",
  "composer.json",
];
/** Version managers keep their programs, and nothing of the user's, in one folder. */
const MANAGED =
  /^(.*\/(?:\.nvm|\.pyenv|\.volta|\.asdf|\.fnm|\.rbenv|\.nodenv|\.bun\/install|\.sdkman|\.local\/share\/(?:mise|fnm)|\.local\/pipx\/venvs\/[^/]+|uv\/(?:python|tools)\/[^/]+))\//;
const MAX_STEPS = 40;

/** Finds the program of a command as `execvp` would. Undefined: there is none. */
export function findProgram(command: readonly string[], lookup: Lookup): Program | undefined {
  const [name = "", ...args] = command;
  const file = executable(name, lookup);
  if (file === undefined) return undefined;
  const needs = new Set<string>();
  const seen = new Set<string>();
  visit(file);
  if (INTERPRETERS.test(basename(name))) {
    const script = args.find((word) => !word.startsWith("-") && !SUBCOMMANDS.has(word));
    const path = script === undefined ? undefined : resolve(lookup.cwd, script);
    if (path !== undefined && existsSync(path)) visit(path);
  }
  return { file, needs: [...needs] };

  /** The file, each link on the way to it, and the interpreter that its first line names. */
  function visit(path: string): void {
    if (seen.has(path) || seen.size >= MAX_STEPS) return;
    seen.add(path);
    for (const need of around(path, lookup.home)) needs.add(need);
    const next = lstatSync(path).isSymbolicLink() ? resolve(dirname(path), readlinkSync(path)) : realpathSync(path);
    if (next !== path) visit(next);
    else {
      for (const word of shebang(path)) {
        const interpreter = executable(word, lookup);
        if (interpreter !== undefined) visit(interpreter);
      }
    }
  }
}

/** Whether a path is in a folder that every sandbox has. */
export function ofSystem(path: string): boolean {
  return SYSTEM_FOLDERS.some((folder) => within(path, folder));
}

export function within(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder === "/" ? "/" : `${folder}/`);
}

function executable(name: string, { cwd, path }: Lookup): string | undefined {
  const candidates = name.includes("/")
    ? [resolve(cwd, name)]
    : path.split(":").flatMap((folder) => (folder === "" ? [] : [join(resolve(cwd, folder), name)]));
  return candidates.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return statSync(file).isFile();
    } catch {
      return false;
    }
  });
}

/** The smallest folders around a file with which it works; the file alone where a folder would give away too much. */
function around(file: string, home: string): string[] {
  if (ofSystem(file)) return [];
  const modules = file.indexOf("/node_modules/");
  if (modules > 0) return [file.slice(0, modules + "/node_modules".length)];
  const managed = MANAGED.exec(file)?.[1];
  if (managed !== undefined) return [managed];
  const folder = dirname(file);
  const prefix = dirname(folder);
  if (basename(folder) === "bin" && !tooWide(prefix, home)) {
    if (["pyvenv.cfg", "lib", "include", "share"].some((name) => existsSync(join(prefix, name)))) return [prefix];
  }
  const ancestors = foldersAbove(folder, home);
  const project = ancestors.find((one) => PROJECT.some((name) => existsSync(join(one, name))));
  // Packages of a project may be in a folder above it (workspaces).
  const packages = ancestors.map((one) => join(one, "node_modules")).filter((one) => existsSync(one));
  if (project !== undefined) return [project, ...packages.filter((one) => !within(one, project))];
  return [tooWide(folder, home) ? file : folder, ...packages];
}

function foldersAbove(folder: string, home: string): string[] {
  const found: string[] = [];
  for (let at = folder; !tooWide(at, home); at = dirname(at)) found.push(at);
  return found;
}

/** Folders that hold much more than one program. */
function tooWide(folder: string, home: string): boolean {
  if (within(home, folder) || folder.split("/").length <= 2 || ["/home", "/Users"].includes(dirname(folder)))
    return true;
  return (
    [".local", ".config", ".cargo", ".ssh", ".local/bin", ".local/share", ".cargo/bin", "bin"].some(
      (name) => folder === join(home, name),
    ) || ["/var/lib", "/var/tmp", "/run/user", "/var/run"].includes(folder)
  );
}

/** `#!/usr/bin/env -S node --flag` and the like: the interpreter, and through `env` the program that it starts. */
function shebang(file: string): string[] {
  const line = firstLine(file);
  if (!line.startsWith("#!")) return [];
  const words = line.slice(2).trim().split(/\s+/);
  const [interpreter = "", ...rest] = words;
  if (basename(interpreter) !== "env") return [interpreter];
  const started = rest.find((word) => !word.startsWith("-") && !word.includes("="));
  return started === undefined ? [interpreter] : [interpreter, started];
}

function firstLine(file: string): string {
  let handle: number | undefined;
  try {
    handle = openSync(file, "r");
    const bytes = Buffer.alloc(256);
    return bytes.toString("latin1", 0, readSync(handle, bytes, 0, bytes.length, 0)).split("\n", 1)[0] ?? "";
  } catch {
    return ""; // It may be run but not read, or is a folder: then no line says what interprets it.
  } finally {
    if (handle !== undefined) closeSync(handle);
  }
}
