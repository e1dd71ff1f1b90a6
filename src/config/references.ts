/** `${env:NAME}`, `${env:NAME:-default}` and `${secret:name}` in the settings file. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Secret } from "../core/secret.ts";

export type Environment = Readonly<Record<string, string | undefined>>;
/** The text of a secret, undefined when nobody provides it. */
export type ReadSecret = (name: string) => Promise<string | undefined>;

const REFERENCE = /\$(\$?)\{([^{}]*)\}/g;
const ENVIRONMENT = /^env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$/s;
const SECRET = /^secret:([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})$/;
const MAX_SECRET_BYTES = 64 * 1024;

export interface Resolved {
  /** A `Secret` when a secret had a part in it. */
  readonly value: string | Secret;
  /** An environment variable had a part in it. */
  readonly fromEnvironment: boolean;
  /** The text was one reference and nothing else. */
  readonly whole: boolean;
  readonly problems: readonly string[];
}

/**
 * Puts in what a text refers to. A text with a secret in it (`Bearer ${secret:github}`) becomes a secret as a whole. `$${` stands
 * for `${` itself; any other reference is a problem, because a misspelt one would be taken for a value.
 */
export async function resolveReferences(text: string, env: Environment, readSecret: ReadSecret): Promise<Resolved> {
  const problems: string[] = [];
  let fromEnvironment = false;
  let secret = false;
  let whole = false;
  let out = "";
  let end = 0;
  for (const match of text.matchAll(REFERENCE)) {
    const [all, escaped, body = ""] = match;
    out += text.slice(end, match.index);
    end = match.index + all.length;
    if (escaped === "$") {
      out += all.slice(1);
      continue;
    }
    whole = all.length === text.length;
    const variable = ENVIRONMENT.exec(body);
    const named = SECRET.exec(body);
    if (variable !== null) {
      fromEnvironment = true;
      const found = env[variable[1] ?? ""] ?? variable[2];
      if (found === undefined)
        problems.push(
          `environment variable ${variable[1]} is not set; set it or write \${env:${variable[1]}:-default}`,
        );
      out += found ?? "";
    } else if (named !== null) {
      secret = true;
      const name = named[1] ?? "";
      const found = await readSecret(name);
      if (found === undefined)
        problems.push(
          `secret ${name} is not provided; put it in the file secrets/${name} beside the settings, in $CREDENTIALS_DIRECTORY/${name} or in the environment variable ${secretVariable(name)}`,
        );
      else if (found === "") problems.push(`secret ${name} is empty`);
      out += found ?? "";
    } else {
      problems.push(
        "not a reference this file can have; write ${env:NAME}, ${env:NAME:-default} or ${secret:name}, or $${ for the characters themselves",
      );
    }
  }
  out += text.slice(end);
  return { value: secret ? new Secret(out) : out, fromEnvironment, whole, problems };
}

/** The environment variable that provides a secret: `DRAWBRIDGE_SECRET_GITHUB_TOKEN` for `github-token`. */
export function secretVariable(name: string): string {
  return `DRAWBRIDGE_SECRET_${name.toUpperCase().replaceAll(/[^A-Z0-9]/g, "_")}`;
}

/**
 * Finds secrets where operators keep them, the first that has it: `$CREDENTIALS_DIRECTORY/<name>` (systemd LoadCredential and mounted
 * secrets), the file `secrets/<name>` beside the settings, `DRAWBRIDGE_SECRET_<NAME>`. One newline at the end of a file is dropped.
 */
export function secretReader(folder: string, env: Environment, warn: (message: string) => void): ReadSecret {
  const folders = [env["CREDENTIALS_DIRECTORY"], join(folder, "secrets")].filter(
    (one) => one !== undefined && one !== "",
  );
  return async (name) => {
    for (const place of folders) {
      const file = join(place ?? "", name);
      const text = await readSecretFile(file, name, warn);
      if (text !== undefined) return text;
    }
    return env[secretVariable(name)];
  };
}

async function readSecretFile(
  file: string,
  name: string,
  warn: (message: string) => void,
): Promise<string | undefined> {
  try {
    const facts = await stat(file);
    if (!facts.isFile() || facts.size > MAX_SECRET_BYTES) return undefined;
    if (process.platform !== "win32" && (facts.mode & 0o007) !== 0)
      warn(`secret ${name}: its file can be read by everyone on this machine; chmod 600 it`);
    return (await readFile(file, "utf8")).replace(/\r?\n$/, "");
  } catch {
    // Absent or unreadable: the next place may have it; when none has, the reference is reported with all places named.
    return undefined;
  }
}
