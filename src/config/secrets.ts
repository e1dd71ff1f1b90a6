/** Where secrets come from, and whether they are others now: `secrets:` in the settings file, and the places where operators keep them. */
import { execFile } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { isAbsolute, join, resolve } from "node:path";
import { z } from "zod";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { childEnvironment } from "../upstream/environment.ts";
import { type Environment, secretVariable } from "./references.ts";

const variable = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/);

const secretSource = z.union([
  z.strictObject({
    command: z
      .array(z.string().min(1))
      .min(1)
      .describe("A program that prints the secret, with its arguments. Started as it stands, never through a shell."),
    refreshSeconds: z
      .number()
      .min(1)
      .max(604_800)
      .default(300)
      .describe("How often it is asked again. Servers that use the secret go on with the new one."),
    timeoutSeconds: z.number().min(0.1).max(300).default(10).describe("How long it may take."),
    passEnvironment: z
      .array(variable)
      .max(100)
      .default([])
      .describe("Variables of the gateway's environment that it gets beside PATH, HOME and the like, e.g. VAULT_ADDR."),
  }),
  z.strictObject({
    file: z.string().min(1).describe("A file with the secret alone, relative to the settings file."),
  }),
  z.strictObject({ environment: variable.describe("A variable of the gateway's environment.") }),
]);

export const secretsSettings = z
  .record(z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$/), secretSource)
  .default({})
  .describe(
    "Where `${secret:<name>}` comes from. Files are looked at again every few seconds, commands by their `refreshSeconds`: servers that use a changed one are replaced without a failed call. Default for a name without an entry: `$CREDENTIALS_DIRECTORY/<name>`, `secrets/<name>` beside this file, the variable `DRAWBRIDGE_SECRET_<NAME>`.",
  );

export type SecretSource = z.infer<typeof secretSource>;

export interface Secrets {
  /**
   * The value of a secret, undefined when none of the usual places has it. Found once, it stays the same until `look` finds another.
   * Throws `settings_invalid`, with a reason for the operator, when its entry in `secrets:` gives none.
   */
  read(name: string): Promise<string | undefined>;
  /**
   * Looks again at those that were read, and resolves with the names of those whose values are others now. One that is gone keeps
   * its last value. Cheap when nothing has changed. Calls must not overlap.
   */
  look(): Promise<readonly string[]>;
  /** Those that could not be read again, and why; their last values stay in use. */
  lost(): ReadonlyMap<string, string>;
}

export interface SecretsOptions {
  readonly sources: Readonly<Record<string, SecretSource>>;
  /** The folder of the settings file. */
  readonly folder: string;
  readonly env: Environment;
  readonly warn: (message: string) => void;
}

/** How a secret is provided. */
interface Place {
  /** Rejects when it has none, with the reason. */
  value(): Promise<string>;
  /** Changes when the value may have. */
  stamp(): Promise<string> | string;
}

interface Held {
  value: string;
  stamp: string;
}

const MAX_SECRET_BYTES = 64 * 1024;

export function openSecrets({ sources, folder, env, warn }: SecretsOptions, clock: Clock = systemClock): Secrets {
  const held = new Map<string, Held>();
  const lost = new Map<string, string>();

  function placeOf(name: string): Place {
    const source = Object.hasOwn(sources, name) ? sources[name] : undefined;
    if (source === undefined) return usualPlaces(name, folder, env, warn);
    if ("file" in source)
      return inFile(name, isAbsolute(source.file) ? source.file : resolve(folder, source.file), warn);
    if ("environment" in source) return inEnvironment(name, source.environment, env);
    return fromCommand(name, source, folder, env, clock);
  }
  const places = new Map<string, Place>();
  const placeFor = (name: string): Place => {
    const place = places.get(name) ?? placeOf(name);
    places.set(name, place);
    return place;
  };

  return {
    async read(name) {
      const known = held.get(name);
      if (known !== undefined) return known.value;
      const place = placeFor(name);
      // Before the value, so that a change between the two is found later.
      const stamp = await place.stamp();
      try {
        const value = await place.value();
        held.set(name, { value, stamp });
        return value;
      } catch (error) {
        if (!(error instanceof Nowhere)) throw error;
        return undefined;
      }
    },
    async look() {
      const changed: string[] = [];
      await Promise.all(
        [...held].map(async ([name, now]) => {
          const place = placeFor(name);
          const stamp = await place.stamp();
          if (stamp === now.stamp) return;
          try {
            const value = await place.value();
            // An editor empties a file before it writes it.
            if (value === "") throw refusal(name, "it is empty");
            now.stamp = stamp;
            lost.delete(name);
            if (value === now.value) return;
            now.value = value;
            changed.push(name);
          } catch (error) {
            now.stamp = stamp;
            lost.set(name, error instanceof Error ? error.message : String(error));
          }
        }),
      );
      return changed.sort();
    },
    lost: () => lost,
  };
}

/** None of the usual places has the secret. */
class Nowhere extends DrawbridgeError {}

const refusal = (name: string, why: string) =>
  new DrawbridgeError("settings_invalid", `secret ${name} is not provided: ${why}`);

/** `$CREDENTIALS_DIRECTORY/<name>` (systemd LoadCredential and mounted secrets), `secrets/<name>` beside the settings, `DRAWBRIDGE_SECRET_<NAME>`. */
function usualPlaces(name: string, folder: string, env: Environment, warn: (message: string) => void): Place {
  const files = [env["CREDENTIALS_DIRECTORY"], join(folder, "secrets")].flatMap((place) =>
    place === undefined || place === "" ? [] : [join(place, name)],
  );
  return {
    async value() {
      for (const file of files) {
        const text = await readSecretFile(file, name, warn).catch(() => undefined);
        if (text !== undefined) return text;
      }
      const text = env[secretVariable(name)];
      if (text === undefined)
        throw new Nowhere("settings_invalid", `secret ${name} is in none of the places for secrets`);
      return text;
    },
    stamp: async () => (await Promise.all(files.map(stampOf))).join("\n"),
  };
}

function inFile(name: string, file: string, warn: (message: string) => void): Place {
  return {
    async value() {
      try {
        return await readSecretFile(file, name, warn);
      } catch (thrown) {
        const code = (thrown as NodeJS.ErrnoException).code;
        throw refusal(
          name,
          code === undefined ? "its file is no file, or too large" : `its file cannot be read (${code})`,
        );
      }
    },
    stamp: () => stampOf(file),
  };
}

function inEnvironment(name: string, from: string, env: Environment): Place {
  return {
    async value() {
      const text = env[from];
      if (text === undefined) throw refusal(name, `the environment variable ${from} is not set`);
      return text;
    },
    stamp: () => "",
  };
}

type CommandSource = Extract<SecretSource, { command: unknown }>;

function fromCommand(name: string, source: CommandSource, folder: string, env: Environment, clock: Clock): Place {
  const [program = "", ...args] = source.command;
  const passed = Object.fromEntries(
    source.passEnvironment.flatMap((key) => (env[key] === undefined ? [] : [[key, env[key]]])),
  );
  const options = {
    cwd: folder,
    env: childEnvironment(env, passed),
    timeout: source.timeoutSeconds * 1000,
    maxBuffer: MAX_SECRET_BYTES,
    killSignal: "SIGKILL" as const,
    windowsHide: true,
  };
  let due = 0;
  let times = 0;
  return {
    value: () =>
      new Promise((take, reject) => {
        due = clock() + source.refreshSeconds * 1000;
        // What it prints is the secret, and its complaints may quote it: neither goes into a message.
        execFile(program, args, options, (error, stdout) => {
          const text = stdout.replace(/\r?\n$/, "");
          if (error === null && text !== "") take(text);
          else if (error === null) reject(refusal(name, "its command printed nothing"));
          else reject(refusal(name, `its command ${endOf(error, source)}`));
        });
      }),
    stamp() {
      if (clock() >= due) times++;
      return String(times);
    },
  };
}

function endOf(error: Error & { code?: unknown; killed?: boolean; signal?: unknown }, source: CommandSource): string {
  if (error.code === "ERR_CHILD_PROCESS_STDIO_MAXBUFFER") return `printed more than ${MAX_SECRET_BYTES} bytes`;
  if (error.killed === true) return `took longer than ${source.timeoutSeconds} seconds`;
  if (typeof error.code === "string") return `cannot be started (${error.code})`;
  return typeof error.code === "number" ? `ended with ${error.code}` : `was ended by ${String(error.signal)}`;
}

/** One newline at the end is dropped. */
async function readSecretFile(file: string, name: string, warn: (message: string) => void): Promise<string> {
  const facts = await stat(file);
  if (!facts.isFile() || facts.size > MAX_SECRET_BYTES) throw new Error("no file, or too large");
  if (process.platform !== "win32" && (facts.mode & 0o007) !== 0)
    warn(`secret ${name}: its file can be read by everyone on this machine; chmod 600 it`);
  return (await readFile(file, "utf8")).replace(/\r?\n$/, "");
}

/** Of the file that a link leads to, so that a mounted secret whose link is turned counts as changed. */
async function stampOf(file: string): Promise<string> {
  try {
    const { ino, size, mtimeMs, ctimeMs } = await stat(file);
    return `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
  } catch {
    return "";
  }
}
