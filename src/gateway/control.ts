/** The operator's own door: a Unix socket that only the account can open that the gateway runs under. No token is asked for there. */
import { chmodSync, lstatSync, mkdirSync, statSync, unlinkSync } from "node:fs";
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import type { Settings } from "../config/schema.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import type { Logger } from "../observe/logger.ts";

export interface Control {
  /** Undefined when there is none. */
  readonly path: string | undefined;
  close(): Promise<void>;
}

type Answer = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

/** What the kernel takes as the address of a socket (unix(7): 108 bytes with the NUL at the end; 104 on macOS). */
const MAX_PATH_BYTES = 103;
const MAX_CONNECTIONS = 32;
const PROBE_MS = 1_000;

/** Where the socket of a gateway with these settings is; undefined when it has none. `file`: there is a settings file in `folder`. */
export function controlSocketOf(
  { control, store }: Pick<Settings, "control" | "store">,
  folder: string,
  file: boolean,
  platform: NodeJS.Platform = process.platform,
): string | undefined {
  const { socket } = control;
  if (socket === "off" || platform === "win32") return undefined;
  if (socket !== "auto") return socket;
  const place = store instanceof Secret ? store.reveal() : store;
  if (place.startsWith("sqlite:") && place !== "sqlite::memory:")
    return join(dirname(place.slice("sqlite:".length)), "control.sock");
  // A gateway that keeps nothing leaves nothing in the folder where it was started.
  return place === "memory" || place === "sqlite::memory:" || !file
    ? undefined
    : join(folder, ".drawbridge", "control.sock");
}

/**
 * Opens the socket, with mode 0600. When that cannot be done safely (others may write into its folder, another gateway answers
 * there): throws `settings_invalid` if the settings name the socket, else there is none and the log says why.
 */
export async function openControl(
  path: string | undefined,
  { named, answer, log }: { readonly named: boolean; readonly answer: Answer; readonly log: Logger },
): Promise<Control> {
  if (path === undefined) return { path, close: async () => {} };
  try {
    return await bind(path, answer, log);
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown, "settings_invalid");
    const message =
      thrown instanceof DrawbridgeError ? thrown.message : `${path} cannot be opened (${codeOf(thrown)}).`;
    if (named) throw new DrawbridgeError("settings_invalid", `control.socket: ${message}`, { cause: thrown });
    log.warn({ error }, `there is no control socket: ${message}`);
    return { path: undefined, close: async () => {} };
  }
}

async function bind(path: string, answer: Answer, log: Logger): Promise<Control> {
  if (Buffer.byteLength(path) > MAX_PATH_BYTES)
    throw refusal(`${path} is longer than the ${MAX_PATH_BYTES} bytes that a socket's path may have`);
  const folder = dirname(path);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  checkFolder(folder);
  await clear(path);
  const server = createServer({ maxHeaderSize: 8_192, requestTimeout: 30_000 }, (request, response) => {
    answer(request, response).catch((error: unknown) => {
      log.error({ error }, "a request of the operator could not be answered");
      response.destroy();
    });
  });
  server.maxConnections = MAX_CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
    // Bound by now, and nobody was let in yet: connections are accepted later than this line.
    try {
      chmodSync(path, 0o600);
    } catch (error) {
      // Not bound after all: the error comes by itself.
      if (codeOf(error) !== "ENOENT") reject(error);
    }
  });
  server.removeAllListeners("error");
  server.on("error", (error) => log.warn({ error }, "the control socket failed"));
  server.unref();
  const own = lstatSync(path).ino;
  return {
    path,
    close: () =>
      new Promise((resolve) => {
        // One that took its place is not ours to remove; Node removes it by its path.
        if (inodeOf(path) === own) unlinkSync(path);
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Whoever may write into the folder could put a socket of theirs in its place. */
function checkFolder(folder: string): void {
  const { uid, mode } = statSync(folder);
  if (uid !== process.getuid?.() && uid !== 0) throw refusal(`the folder ${folder} belongs to somebody else`);
  // The sticky bit keeps others from replacing what is there, but not from being there first.
  if ((mode & 0o022) !== 0) throw refusal(`others may write into the folder ${folder}; chmod go-w it`);
}

/** Removes what a gateway that is gone has left. Throws when one answers, or when it is no socket. */
async function clear(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw refusal(`${path} is there and is no socket`);
  const answers = await new Promise<boolean>((resolve) => {
    const socket = connect(path);
    const over = (yes: boolean) => {
      socket.destroy();
      resolve(yes);
    };
    socket.setTimeout(PROBE_MS, () => over(true));
    socket.once("connect", () => over(true)).once("error", (error) => over(codeOf(error) !== "ECONNREFUSED"));
  });
  if (answers) throw refusal(`another gateway answers at ${path}; give each its own control.socket`);
  unlinkSync(path);
}

const inodeOf = (path: string) => lstatSync(path, { throwIfNoEntry: false })?.ino;

const refusal = (why: string) => new DrawbridgeError("settings_invalid", `${why}.`);

const codeOf = (thrown: unknown): string => {
  const { code } = (typeof thrown === "object" && thrown !== null ? thrown : {}) as { code?: unknown };
  return typeof code === "string" ? code : String(thrown);
};

export interface ControlAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** For a restart to be done, or to have failed. */
const ASK_MS = 120_000;
const MAX_ANSWER_BYTES = 16 << 20;

/** Asks the gateway behind a socket. Throws `upstream_unavailable` when none answers there. */
export function askControl(
  path: string,
  method: "GET" | "POST",
  target: string,
  body?: string,
): Promise<ControlAnswer> {
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown) => reject(nobodyAnswers(path, cause));
    const signal = AbortSignal.timeout(ASK_MS);
    const asked = httpRequest({ socketPath: path, method, path: target, signal, headers: { host: "localhost" } });
    asked.once("error", fail);
    asked.once("response", (response) => {
      const parts: Buffer[] = [];
      let bytes = 0;
      response.on("data", (part: Buffer) => {
        bytes += part.length;
        if (bytes > MAX_ANSWER_BYTES) asked.destroy(new Error("the answer is too long"));
        else parts.push(part);
      });
      response.once("error", fail);
      response.once("end", () => {
        try {
          resolve({ status: response.statusCode ?? 0, body: JSON.parse(Buffer.concat(parts).toString()) });
        } catch (error) {
          fail(error);
        }
      });
    });
    asked.end(body);
  });
}

function nobodyAnswers(path: string, cause: unknown): DrawbridgeError {
  const code = codeOf(cause);
  const absent = code === "ENOENT" || code === "ECONNREFUSED";
  const message = absent
    ? `No gateway runs here: nobody answers at ${path}. Start it with drawbridge serve, or name another with --file, --socket or --url.`
    : code === "EACCES"
      ? `The gateway's socket ${path} is not yours to open. Run this as the user that the gateway runs as.`
      : `The gateway at ${path} did not answer (${code}).`;
  return new DrawbridgeError("upstream_unavailable", message, { cause });
}
