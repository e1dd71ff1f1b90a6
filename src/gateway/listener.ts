/** The listening socket: plain or TLS (certificates read again when their files change), bounded, and closed without cutting answers off. */
import { watch } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createSecureServer, type Server as SecureServer, type ServerOptions } from "node:https";
import type { AddressInfo } from "node:net";
import { dirname } from "node:path";
import { DrawbridgeError } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Answer } from "./routes.ts";
import type { ListenSettings, TlsSettings } from "./settings.ts";

export interface Listener {
  /** `http(s)://host:port` of the socket, for when no public URL is set. */
  readonly url: string;
  /** Who answers from now on; until then requests wait a moment. */
  answer(answer: Answer): void;
  /** Takes no more connections, lets open answers finish for so long, then cuts them. */
  close(graceMs: number): Promise<void>;
}

const MAX_HEADER_BYTES = 16 * 1024;

/** Binds the port. Throws `settings_invalid` when it is taken or the certificate cannot be read. */
export async function listen(settings: ListenSettings, tls: TlsSettings | undefined, log: Logger): Promise<Listener> {
  const options = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: settings.bodyTimeoutSeconds * 1000,
    requestTimeout: settings.bodyTimeoutSeconds * 1000,
    connectionsCheckingInterval: 1000,
    keepAliveTimeout: 75_000,
    requireHostHeader: true,
    insecureHTTPParser: false,
  };
  const server: Server | SecureServer =
    tls === undefined
      ? createServer(options)
      : secureServer({ ...options, ...(await readCertificate(tls)), minVersion: "TLSv1.2" });
  server.maxConnections = settings.maxConnections;
  const stopWatching = tls === undefined ? () => {} : watchCertificate(server as SecureServer, tls, log);

  let answer: Answer | undefined;
  const waiting: [IncomingMessage, ServerResponse][] = [];
  const dispatch = (handler: Answer, request: IncomingMessage, response: ServerResponse) => {
    response.on("error", () => {});
    Promise.resolve(handler(request, response, "")).catch((error: unknown) => {
      log.error({ error }, "a request could not be answered");
      response.destroy();
    });
  };
  let answering = 0;
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    answering++;
    response.once("close", () => answering--);
    if (answer === undefined) waiting.push([request, response]);
    else dispatch(answer, request, response);
  });
  await bind(server, settings);
  const { address, port } = server.address() as AddressInfo;
  const host =
    address === "::" || address === "0.0.0.0" ? "localhost" : address.includes(":") ? `[${address}]` : address;
  return {
    url: `${tls === undefined ? "http" : "https"}://${host}:${port}`,
    answer(handler) {
      answer = handler;
      for (const [request, response] of waiting.splice(0)) dispatch(handler, request, response);
    },
    close(graceMs) {
      stopWatching();
      return new Promise((resolve) => {
        const cut = setTimeout(() => server.closeAllConnections(), graceMs);
        server.close(() => {
          clearTimeout(cut);
          resolve();
        });
        server.closeIdleConnections();
        const idle = setInterval(() => {
          // A connection on which nothing was ever asked does not count as idle, and need not be waited for either.
          if (answering === 0) server.closeAllConnections();
          else server.closeIdleConnections();
        }, 100);
        server.once("close", () => clearInterval(idle));
      });
    },
  };
}

function bind(server: Server | SecureServer, { host, port }: ListenSettings): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const reason =
        cause.code === "EADDRINUSE"
          ? `Port ${port} on ${host} is in use. Stop what uses it, or choose another with listen.port (--port).`
          : `Cannot listen on ${host}:${port} (${cause.code ?? cause.message}).`;
      reject(new DrawbridgeError("settings_invalid", reason, { cause }));
    });
    server.listen({ host, port, backlog: 4096 }, () => {
      server.removeAllListeners("error");
      server.on("error", () => {});
      resolve();
    });
  });
}

function secureServer(options: ServerOptions): SecureServer {
  try {
    return createSecureServer(options);
  } catch (cause) {
    throw new DrawbridgeError(
      "settings_invalid",
      `tls: certificate and key cannot be used together: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
}

async function readCertificate(tls: TlsSettings): Promise<{ cert: Buffer; key: Buffer }> {
  try {
    return { cert: await readFile(tls.certificate), key: await readFile(tls.key) };
  } catch (cause) {
    throw new DrawbridgeError(
      "settings_invalid",
      `tls: a file cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
}

/** Tools that renew certificates replace files or turn links, so the folders are watched. A pair that does not fit is not taken. */
function watchCertificate(server: SecureServer, tls: TlsSettings, log: Logger): () => void {
  let timer: NodeJS.Timeout | undefined;
  const reload = async () => {
    try {
      server.setSecureContext({ ...(await readCertificate(tls)), minVersion: "TLSv1.2" });
      log.info({ certificate: tls.certificate }, "the TLS certificate was read again");
    } catch (error) {
      log.warn({ error }, "the changed TLS certificate could not be used; the old one stays");
    }
  };
  const watchers = [...new Set([dirname(tls.certificate), dirname(tls.key)])].map((folder) =>
    watch(folder, () => {
      clearTimeout(timer);
      timer = setTimeout(() => void reload(), 200);
    }),
  );
  return () => {
    clearTimeout(timer);
    for (const watcher of watchers) watcher.close();
  };
}
