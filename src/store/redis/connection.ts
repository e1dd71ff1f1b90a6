/** The way to a Redis server: one connection that comes back by itself, commands whose wait ends, errors without the password. */
import { hash } from "node:crypto";
import { isIP } from "node:net";
import { createClient, ErrorReply } from "@redis/client";
import { DrawbridgeError } from "../../core/errors.ts";
import { failure, type PlaceSetting, placeOf, unusable } from "../place.ts";
import { SCRIPTS } from "./scripts.ts";

export type Reply = string | number | null | readonly Reply[];

export interface Redis {
  /** What every key begins with. */
  readonly prefix: string;
  /** For messages. */
  readonly place: string;
  /** Rejects with `internal`; after a lost connection or a timeout the command may have been done. */
  command(...words: readonly string[]): Promise<Reply>;
  run(script: keyof typeof SCRIPTS, words: readonly string[]): Promise<Reply>;
  close(): Promise<void>;
}

/** Commands are answered within this time, or the connection is made anew. */
const ANSWER_MS = 5000;
const CONNECT_MS = 3000;
/** A server that is starting together with the gateway is waited for so long. */
const OPEN_MS = 10_000;
const CLOSE_MS = 3000;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 2000;
/** Commands under way at most; further ones are rejected. */
const MAX_COMMANDS = 10_000;

/** Connects once, so that a wrong setting is known at once. Throws `settings_invalid`. `setting`: which one names it, for messages. */
export async function openRedis(
  url: string,
  warn: (message: string) => void,
  setting: PlaceSetting = "store",
): Promise<Redis> {
  const { prefix, ...target } = targetOf(url);
  const place = placeOf(url);
  let opened = false;
  let closed = false;
  let problem = "it is not connected";
  const begun = Date.now();

  /** Milliseconds until the next try, or false: give up, which only the very first connection does. */
  function retryIn(retries: number, cause: Error): number | false {
    problem = reason(cause);
    if (!opened && (hopeless(cause) || Date.now() - begun > OPEN_MS)) return false;
    if (!opened && retries === 0) warn(`The ${setting} ${place} does not answer yet (${problem}); trying again.`);
    // Replicas that lost the server together do not all come back in the same moment.
    return Math.min(FIRST_RETRY_MS * 2 ** Math.min(retries, 10), LAST_RETRY_MS) * (0.75 + Math.random() / 2);
  }

  function connection() {
    const client = createClient({
      ...target,
      socket: { ...target.socket, connectTimeout: CONNECT_MS, reconnectStrategy: retryIn },
      name: "drawbridge",
      // Maps are flat lists then, whatever the command.
      RESP: 2,
      disableOfflineQueue: true,
      commandsQueueMaxLength: MAX_COMMANDS,
      maintNotifications: "disabled",
    });
    client.on("error", (error: unknown) => {
      problem = reason(error);
    });
    return { client, connected: client.connect() };
  }

  let { client, connected } = connection();

  async function command(...words: readonly string[]): Promise<Reply> {
    const asked = client;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`no answer in ${ANSWER_MS / 1000} s`));
        // What hangs once hangs for everybody after: only another connection helps.
        if (asked === client && !closed) {
          asked.destroy();
          const next = connection();
          client = next.client;
          next.connected.catch(() => {});
        }
      }, ANSWER_MS);
    });
    try {
      return await Promise.race([asked.sendCommand<Reply>([...words]), late]);
    } catch (thrown) {
      throw asked.isReady ? thrown : new Error(`${reason(thrown)} (${problem})`, { cause: thrown });
    } finally {
      clearTimeout(timer);
    }
  }

  const digests = Object.fromEntries(Object.entries(SCRIPTS).map(([name, text]) => [name, hash("sha1", text)]));
  async function run(script: keyof typeof SCRIPTS, words: readonly string[]): Promise<Reply> {
    try {
      return await command("EVALSHA", digests[script] ?? "", "1", prefix, ...words);
    } catch (thrown) {
      // The server was restarted, or its scripts were flushed.
      if (!reason(thrown).startsWith("NOSCRIPT")) throw thrown;
      return await command("EVAL", SCRIPTS[script], "1", prefix, ...words);
    }
  }

  try {
    await connected;
    opened = true;
    // So that concurrent first calls keep their order. Where SCRIPT is not permitted, the first use loads each.
    for (const text of Object.values(SCRIPTS)) await command("SCRIPT", "LOAD", text).catch(() => {});
  } catch (thrown) {
    client.destroy();
    throw unusable(place, reason(thrown), setting);
  }
  return {
    prefix,
    place,
    command: (...words) => command(...words).catch(asFailure),
    run: (script, words) => run(script, words).catch(asFailure),
    async close() {
      if (closed) return;
      closed = true;
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise((resolve) => {
        timer = setTimeout(resolve, CLOSE_MS);
      });
      await Promise.race([client.close().catch(() => {}), late]);
      clearTimeout(timer);
      client.destroy();
    },
  };
}

interface Target {
  readonly socket: { readonly host: string; readonly port: number } & (
    | { readonly tls: true; readonly servername?: string }
    | object
  );
  readonly username?: string;
  readonly password?: string;
  readonly database?: number;
  readonly prefix: string;
}

/** Taken apart here and not by the client, whose errors would carry the URL. */
function targetOf(url: string): Target {
  const { protocol, hostname, port, username, password, pathname, searchParams } = new URL(url);
  const database = pathname.replace(/^\//, "");
  const unknown = [...searchParams.keys()].find((name) => name !== "prefix");
  const wrong = (problem: string) => new DrawbridgeError("settings_invalid", `The URL of the store ${problem}`);
  if (hostname === "") throw wrong("names no host. Write redis://host:6379.");
  if (!/^\d{0,5}$/.test(database)) throw wrong("names no database number. Write redis://host:6379/0.");
  if (unknown !== undefined) throw wrong(`has an unknown option ${unknown}. Known is prefix.`);
  let credentials: Pick<Target, "username" | "password">;
  try {
    credentials = {
      ...(username === "" ? {} : { username: decodeURIComponent(username) }),
      ...(password === "" ? {} : { password: decodeURIComponent(password) }),
    };
  } catch {
    throw wrong("has a user or password that is not percent-encoded (% itself is %25).");
  }
  const host = hostname.replace(/^\[(.*)\]$/, "$1");
  const tls = protocol === "rediss:";
  return {
    socket: {
      host,
      port: port === "" ? 6379 : Number(port),
      ...(tls ? { tls: true, ...(isIP(host) === 0 ? { servername: host } : {}) } : {}),
    },
    ...credentials,
    ...(database === "" ? {} : { database: Number(database) }),
    prefix: searchParams.get("prefix") ?? "drawbridge:",
  };
}

/** Whether trying again cannot help: the server refuses us, or is not the one we trust. */
function hopeless(cause: unknown): boolean {
  if (cause instanceof ErrorReply) return !/^(LOADING|MASTERDOWN|BUSY)/.test(cause.message);
  return /CERT|SIGNED|ERR_TLS|EPROTO|ERR_SSL/.test(String((cause as { code?: unknown }).code));
}

function reason(thrown: unknown): string {
  if (thrown instanceof AggregateError) return thrown.errors.map(reason).join("; ");
  return thrown instanceof Error ? thrown.message : String(thrown);
}

function asFailure(thrown: unknown): never {
  throw failure(`Redis: ${reason(thrown)}`);
}
