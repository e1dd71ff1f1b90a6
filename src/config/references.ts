/** `${env:NAME}`, `${env:NAME:-default}` and `${secret:name}` in the settings file. */
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";

export type Environment = Readonly<Record<string, string | undefined>>;
/** The text of a secret, undefined when nobody provides it. Throws `settings_invalid` when it is known why not. */
export type ReadSecret = (name: string) => Promise<string | undefined>;

const REFERENCE = /\$(\$?)\{([^{}]*)\}/g;
const ENVIRONMENT = /^env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$/s;
const SECRET = /^secret:([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})$/;

export interface Resolved {
  /** A `Secret` when a secret had a part in it. */
  readonly value: string | Secret;
  /** An environment variable had a part in it. */
  readonly fromEnvironment: boolean;
  /** The text was one reference and nothing else. */
  readonly whole: boolean;
  readonly problems: readonly string[];
  /** What the secrets in it were. */
  readonly secrets: readonly string[];
}

/**
 * Puts in what a text refers to. A text with a secret in it (`Bearer ${secret:github}`) becomes a secret as a whole. `$${` stands
 * for `${` itself; any other reference is a problem, because a misspelt one would be taken for a value.
 */
export async function resolveReferences(text: string, env: Environment, readSecret: ReadSecret): Promise<Resolved> {
  const problems: string[] = [];
  let fromEnvironment = false;
  const secrets: string[] = [];
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
      out += found ?? UNKNOWN;
    } else if (named !== null) {
      const name = named[1] ?? "";
      const found = await readSecret(name).catch((thrown: unknown) => DrawbridgeError.from(thrown, "settings_invalid"));
      const text = typeof found === "string" && found !== "" ? found : UNKNOWN;
      if (found === undefined)
        problems.push(
          `secret ${name} is not provided; put it in the file secrets/${name} beside the settings, in $CREDENTIALS_DIRECTORY/${name} or in the environment variable ${secretVariable(name)}`,
        );
      else if (typeof found !== "string") problems.push(found.message);
      else if (found === "") problems.push(`secret ${name} is empty`);
      secrets.push(text);
      out += text;
    } else {
      problems.push(
        "not a reference this file can have; write ${env:NAME}, ${env:NAME:-default} or ${secret:name}, or $${ for the characters themselves",
      );
    }
  }
  out += text.slice(end);
  return { value: secrets.length > 0 ? new Secret(out) : out, fromEnvironment, whole, problems, secrets };
}

/** In place of what could not be had, which is reported: the rest of the settings is checked all the same. */
const UNKNOWN = "unknown";

/** The environment variable that provides a secret: `DRAWBRIDGE_SECRET_GITHUB_TOKEN` for `github-token`. */
export function secretVariable(name: string): string {
  return `DRAWBRIDGE_SECRET_${name.toUpperCase().replaceAll(/[^A-Z0-9]/g, "_")}`;
}
