/**
 * The only way out of a sandbox: an HTTP proxy (CONNECT, and plain http by absolute URL) that reaches what is on one server's list.
 * It resolves names itself and connects to the address that it checked, so that no answer of a name server leads elsewhere.
 */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, request, type ServerResponse } from "node:http";
import { connect, isIP, isIPv4, isIPv6, type Server, type Socket } from "node:net";
import { DrawbridgeError } from "../../core/errors.ts";
import { publicAddress } from "../../net/addresses.ts";
import { type Resolve, resolveByDns, resolveBySystem } from "../../net/outbound.ts";

export interface EgressOptions {
  /** Entries of `sandbox.network`. */
  readonly list: readonly string[];
  /** Called for each refusal. `first`: it is worth a line, since this host has had none; of a hundred hosts at most. */
  refused(host: string, reason: string, first: boolean): void;
  /** Default: the system for names that the operator wrote, name servers alone for those that `*.` lets a server choose. */
  readonly resolve?: Resolve | undefined;
}

export interface EgressCounts {
  readonly connections: number;
  readonly refused: number;
  /** Both ways. */
  readonly bytes: number;
}

export interface EgressProxy {
  /** Serves what is accepted by this listening socket, which belongs to the network of one sandbox. Closed with the proxy. */
  serve(listener: Server): void;
  counts(): EgressCounts;
  /** Ends every connection. */
  close(): void;
}

const MAX_CONNECTIONS = 128;
const MAX_REPORTED = 100;
const MAX_ADDRESSES = 3;
const RESOLVE_TIMEOUT_MS = 10_000;
const CONNECT_TIMEOUT_MS = 10_000;
const IDLE_MS = 15 * 60_000;
const MAX_HEADER_BYTES = 16_384;
const HEADERS_TIMEOUT_MS = 10_000;

export function egressProxy(options: EgressOptions): EgressProxy {
  const permits = egressList(options.list);
  const listeners = new Set<Server>();
  const inside = new Set<Socket>();
  const outside = new Set<Socket>();
  const reported = new Set<string>();
  const counts = { connections: 0, refused: 0, bytes: 0 };
  /** Connections to the outside: those that are there, and those that may be soon. */
  let established = 0;
  let underWay = 0;

  const server = createServer({ maxHeaderSize: MAX_HEADER_BYTES, requestTimeout: 0 });
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.on("connect", (asked, socket: Socket, head) => {
    socket.on("error", () => socket.destroy());
    void reach(authority(asked.url ?? "", undefined)).then(
      (out) => {
        if (socket.destroyed) return void out.destroy();
        socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
        if (head.length > 0) out.write(head);
        socket.pipe(out).pipe(socket);
        socket.once("close", () => out.destroy());
        out.once("close", () => socket.destroy());
      },
      (thrown) => {
        const { status, text } = said(thrown);
        socket.end(
          `HTTP/1.1 ${status}\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
        );
      },
    );
  });
  server.on("request", (asked, answer) => {
    const refuse = (thrown: unknown) => {
      if (answer.headersSent) return void answer.destroy();
      const { status, text } = said(thrown);
      answer.writeHead(Number(status.slice(0, 3)), { "content-type": "text/plain", connection: "close" }).end(text);
    };
    const url = /^http:\/\/([^/?#@\s]+)([/?][^#\s]*)?$/i.exec(asked.url ?? "");
    const target = url === null ? undefined : authority(url[1] ?? "", 80);
    void reach(target).then((out) => forward(asked, answer, out, url?.[1] ?? "", url?.[2] ?? "/", refuse), refuse);
  });

  async function reach(target: Target | undefined): Promise<Socket> {
    if (target === undefined)
      throw new DrawbridgeError("invalid_request", "This is not an address that the way out knows.");
    const rule = permits(target);
    if (rule === undefined) throw turnedAway(target, `${written(target)} is not on the list of this server.`);
    // Requests that are written one after another without waiting for answers come through one connection.
    if (established + underWay >= MAX_CONNECTIONS)
      throw new DrawbridgeError("overloaded", `There are ${MAX_CONNECTIONS} connections already.`);
    underWay++;
    try {
      return await firstConnected(target, rule);
    } finally {
      underWay--;
    }
  }

  async function firstConnected(target: Target, rule: Rule): Promise<Socket> {
    let failure: unknown;
    for (const address of (await checkedAddresses(target, rule)).slice(0, MAX_ADDRESSES)) {
      try {
        return await connected(address, target.port);
      } catch (error) {
        failure = error;
      }
    }
    const detail = failure instanceof Error ? failure.message : undefined;
    throw new DrawbridgeError("upstream_unavailable", `${written(target)} could not be reached.`, {
      cause: failure,
      ...(detail !== undefined && { detail }),
    });
  }

  /** What may be connected to. A name may lead to public addresses, and to others that are on the list themselves. */
  async function checkedAddresses(target: Target, rule: Rule): Promise<readonly string[]> {
    if (isIP(target.host) !== 0) return [target.host];
    const resolve = options.resolve ?? (rule.wildcard ? resolveByDns : resolveBySystem);
    const answers = await within(resolve(target.host), RESOLVE_TIMEOUT_MS, `${target.host} could not be resolved.`);
    const general = rule.host === "localhost" ? loopback : publicAddress;
    const allowed = (host: string) => general(host) || permits({ host, port: target.port })?.host === host;
    const wrong = answers.find(({ address }) => !allowed(address));
    // One private address among public ones is how rebinding begins: the whole answer is refused.
    if (wrong !== undefined)
      throw turnedAway(
        target,
        `${target.host} leads to ${wrong.address}, which is no public address; list that address too if it is meant.`,
      );
    return answers.map(({ address }) => address);
  }

  function turnedAway(target: Target, reason: string): DrawbridgeError {
    counts.refused++;
    const first = reported.size < MAX_REPORTED && !reported.has(written(target));
    if (first) reported.add(written(target));
    options.refused(written(target), reason, first);
    return new DrawbridgeError("outbound_refused", reason);
  }

  function connected(host: string, port: number): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host, port, noDelay: true });
      outside.add(socket);
      socket.setTimeout(CONNECT_TIMEOUT_MS, () => socket.destroy(new Error("no answer in time")));
      socket.on("error", reject);
      socket.once("close", () => {
        outside.delete(socket);
        counts.bytes += socket.bytesRead + socket.bytesWritten;
        reject(new Error("closed"));
      });
      socket.once("connect", () => {
        counts.connections++;
        established++;
        socket.once("close", () => established--);
        socket.setTimeout(IDLE_MS);
        resolve(socket);
      });
    });
  }

  return {
    serve(listener) {
      listeners.add(listener);
      listener.on("error", () => {});
      listener.on("connection", (socket) => {
        if (inside.size >= MAX_CONNECTIONS) return void socket.destroy();
        inside.add(socket);
        socket.on("error", () => {});
        socket.once("close", () => inside.delete(socket));
        server.emit("connection", socket);
      });
    },
    counts: () => ({ ...counts }),
    close() {
      for (const listener of listeners) listener.close();
      for (const socket of [...inside, ...outside]) socket.destroy();
      server.close();
    },
  };
}

export interface Target {
  /** Lower case; IPv6 without brackets, in its shortest form. */
  readonly host: string;
  readonly port: number;
}

interface Rule extends Target {
  readonly wildcard: boolean;
}

/** Whether a list has a target, and which entry it is. An address is had only by that address, `*.domain` not by the domain itself. */
export function egressList(entries: readonly string[]): (target: Target) => Rule | undefined {
  const rules = entries.map((entry): Rule => {
    const wildcard = entry.startsWith("*.");
    const target = authority(wildcard ? entry.slice(2) : entry, undefined);
    if (target === undefined || (wildcard && isIP(target.host) !== 0))
      throw new DrawbridgeError(
        "settings_invalid",
        `The entry ${entry} of sandbox.network is no host and port. Write host:port, *.domain:port or [address]:port.`,
      );
    return { ...target, wildcard };
  });
  return ({ host, port }) =>
    rules.find(
      (rule) =>
        rule.port === port &&
        (rule.wildcard
          ? isIP(host) === 0 && host.endsWith(`.${rule.host}`) && host.length > rule.host.length + 1
          : rule.host === host),
    );
}

/**
 * Reads `host:port`. Undefined for what is neither a plain name nor an address in its usual form: `2130706433`, `0x7f.1`, `127.1` and
 * a dot at the end are other spellings of what is, or is not, on a list.
 */
export function authority(text: string, defaultPort: number | undefined): Target | undefined {
  const parts = /^(?:([a-z0-9_.-]{1,253})|\[([0-9a-f:.]{2,45})\])(?::(\d{1,5}))?$/i.exec(text);
  if (parts === null) return undefined;
  const port = parts[3] === undefined ? defaultPort : Number(parts[3]);
  if (port === undefined || port < 1 || port > 65_535) return undefined;
  if (parts[2] !== undefined) {
    if (!isIPv6(parts[2])) return undefined;
    return { host: new URL(`http://[${parts[2]}]/`).hostname.slice(1, -1), port };
  }
  const host = (parts[1] ?? "").toLowerCase();
  if (isIPv4(host)) return { host, port };
  const labels = host.split(".");
  if (labels.some((label) => label === "") || /^(?:\d+|0x[0-9a-f]*)$/.test(labels.at(-1) ?? "")) return undefined;
  return { host, port };
}

function written({ host, port }: Target): string {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}`;
}

function loopback(address: string): boolean {
  return address === "::1" || (isIPv4(address) && address.startsWith("127."));
}

/** Headers that are between a client and its proxy (RFC 9110 §7.6.1). */
const HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authorization",
  "proxy-authenticate",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

function forward(
  asked: IncomingMessage,
  answer: ServerResponse,
  socket: Socket,
  host: string,
  path: string,
  refuse: (thrown: unknown) => void,
): void {
  const out = request({
    createConnection: () => socket,
    method: asked.method,
    path: path.startsWith("?") ? `/${path}` : path,
    // The host that was checked, whatever `Host` says: another one could be meant for what else lives at that address.
    headers: { ...endToEnd(asked.headers), host, connection: "close" },
    setHost: false,
  });
  out.on("error", (cause) =>
    refuse(new DrawbridgeError("upstream_unavailable", `${host} ended the connection.`, { cause })),
  );
  out.on("response", (response) => {
    answer.writeHead(response.statusCode ?? 502, response.statusMessage, endToEnd(response.headers));
    response.on("error", () => answer.destroy());
    response.pipe(answer);
  });
  asked.on("error", () => out.destroy());
  answer.on("close", () => out.destroy());
  asked.pipe(out);
}

function endToEnd(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const named = new Set((headers.connection ?? "").split(",").map((name) => name.trim().toLowerCase()));
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name) && !named.has(name)));
}

function said(thrown: unknown): { readonly status: string; readonly text: string } {
  const error = DrawbridgeError.from(thrown, "upstream_unavailable");
  const status =
    error.code === "outbound_refused"
      ? "403 Forbidden"
      : error.code === "invalid_request"
        ? "400 Bad Request"
        : "502 Bad Gateway";
  return { status, text: `drawbridge: ${error.message}\n` };
}

async function within<T>(promise: Promise<T>, ms: number, message: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new DrawbridgeError("upstream_timeout", message)), ms);
  promise.catch(() => {});
  try {
    return await Promise.race([promise, late.promise]);
  } catch (cause) {
    throw cause instanceof DrawbridgeError ? cause : new DrawbridgeError("upstream_unavailable", message, { cause });
  } finally {
    clearTimeout(timer);
  }
}
