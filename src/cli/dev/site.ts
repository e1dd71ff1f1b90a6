/**
 * The page of `drawbridge dev`, on loopback, for whoever has the launch link: the link is good once and gives a cookie, and nothing is
 * answered without it, to another host name, or to a page of another origin.
 */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { z } from "zod";
import { DrawbridgeError } from "../../core/errors.ts";
import { styleSheet } from "../../oauth/pages/style.ts";
import { type Issuer, same } from "./issuer.ts";

export interface Site {
  readonly origin: string;
  /** Opens the page, once. */
  readonly launch: string;
  /** Sends this to every page. */
  tell(event: string, data: object): void;
  close(): Promise<void>;
}

/** What a page may ask for: its shape, and who answers. */
export type Answers = Readonly<Record<string, { readonly shape: z.ZodType; answer(wanted: never): Promise<object> }>>;

/** What stands behind the page. */
export interface Behind {
  /** What a page is told first, and again whenever it comes back. */
  readonly greeting: () => { readonly event: string; readonly data: object };
  readonly answers: Answers;
  readonly issuer: Issuer;
}

const HOST = "127.0.0.1";
const MAX_BODY_BYTES = 4 << 20;
const MAX_STREAMS = 32;
const BEAT_MS = 15_000;
const FILES = {
  "/": ["index.html", "text/html; charset=utf-8"],
  "/page.css": ["page.css", "text/css; charset=utf-8"],
  "/page.js": ["page.js", "text/javascript; charset=utf-8"],
  "/form.js": ["form.js", "text/javascript; charset=utf-8"],
  "/dom.js": ["dom.js", "text/javascript; charset=utf-8"],
  "/session.js": ["session.js", "text/javascript; charset=utf-8"],
  "/thing.js": ["thing.js", "text/javascript; charset=utf-8"],
  "/result.js": ["result.js", "text/javascript; charset=utf-8"],
} as const satisfies Record<string, readonly [file: string, type: string]>;

const HEADERS = {
  "content-security-policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src data:",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "require-trusted-types-for 'script'",
  ].join("; "),
  "cache-control": "no-store",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
} as const;

/** Listens, then has made what stands behind it where it is. Throws `settings_invalid` when the port is taken. */
export async function openSite(port: number, make: (site: Omit<Site, "close">) => Behind): Promise<Site> {
  const server = createServer({ requestTimeout: 30_000 }, (request, response) => {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    answer(request, response).catch((thrown: unknown) => refuse(response, thrown));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const why =
        cause.code === "EADDRINUSE" ? "is taken; choose another with --port, or 0" : `cannot be used (${cause.code})`;
      reject(new DrawbridgeError("settings_invalid", `The port ${port} ${why}.`, { cause }));
    });
    server.listen(port, HOST, resolve);
  });
  const bound = (server.address() as AddressInfo).port;
  const hosts: ReadonlySet<string> = new Set([`${HOST}:${bound}`, `localhost:${bound}`]);
  const origins: ReadonlySet<string> = new Set([...hosts].map((host) => `http://${host}`));
  // Cookies do not know ports: without its own in the name, two of these would take each other's.
  const cookieName = `drawbridge-dev-${bound}`;
  const session = randomBytes(32).toString("base64url");
  const launch = randomBytes(32).toString("base64url");
  let launched = false;
  const streams = new Set<ServerResponse>();
  const beat = setInterval(() => {
    for (const stream of streams) stream.write(":\n\n");
  }, BEAT_MS);

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { host = "", origin, "sec-fetch-site": from } = request.headers;
    // DNS rebinding: a page of a stranger's name that leads here.
    if (!hosts.has(host)) throw new DrawbridgeError("wrong_host", "This host name is not served here.");
    const url = new URL(request.url ?? "/", `http://${host}`);
    if (behind.issuer.answer(request, response, url.pathname)) return;
    if (origin !== undefined && !origins.has(origin))
      throw new DrawbridgeError("wrong_origin", "Pages of this origin may not come here.");
    const token = url.searchParams.get("launch");
    if (token !== null && url.pathname === "/" && request.method === "GET") return enter(token, request, response);
    if (!known(request))
      throw new DrawbridgeError(
        "unauthenticated",
        "Open the link that `drawbridge dev` has printed. It is good once: start the command again for another.",
      );
    // Of the other ports of this machine a page is "same-site", and must not come in either.
    if (from !== undefined && from !== "same-origin" && from !== "none" && url.pathname !== "/")
      throw new DrawbridgeError("wrong_origin", "Pages of another origin may not come here.");
    if (url.pathname === "/events" && request.method === "GET") return stream(response);
    if (url.pathname.startsWith("/api/")) return api(url.pathname.slice("/api/".length), request, response);
    if (url.pathname === "/base.css") return content(response, Buffer.from(styleSheet), "text/css; charset=utf-8");
    if (!Object.hasOwn(FILES, url.pathname)) throw new DrawbridgeError("not_found", "There is nothing here.");
    if (request.method !== "GET") throw new DrawbridgeError("method_not_allowed", "Use GET.");
    const [file, type] = FILES[url.pathname as keyof typeof FILES];
    content(response, await readFile(new URL(`./page/${file}`, import.meta.url)), type);
  }

  function enter(token: string, request: IncomingMessage, response: ServerResponse): void {
    const good = !launched && same(token, launch);
    if (!good && !known(request))
      throw new DrawbridgeError(
        "unauthenticated",
        "This link was used, or is none of this run. Start `drawbridge dev` again for another.",
      );
    if (good) {
      launched = true;
      response.setHeader("set-cookie", `${cookieName}=${session}; HttpOnly; SameSite=Strict; Path=/`);
    }
    response.writeHead(303, { location: "/", "content-length": 0 }).end();
  }

  function known({ headers }: IncomingMessage): boolean {
    const cookies = (headers.cookie ?? "").split(/; */);
    return cookies.some((one) => one.startsWith(`${cookieName}=`) && same(one.slice(cookieName.length + 1), session));
  }

  function stream(response: ServerResponse): void {
    if (streams.size >= MAX_STREAMS) throw new DrawbridgeError("overloaded", "Too many pages are open.");
    response.writeHead(200, { "content-type": "text/event-stream" });
    streams.add(response);
    response.on("close", () => streams.delete(response));
    const { event, data } = behind.greeting();
    response.write(eventText(event, data));
  }

  async function api(name: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const found = Object.hasOwn(behind.answers, name) ? behind.answers[name] : undefined;
    if (found === undefined) throw new DrawbridgeError("not_found", "There is nothing here.");
    if (request.method !== "POST") throw new DrawbridgeError("method_not_allowed", "Use POST.");
    if (request.headers.origin === undefined)
      throw new DrawbridgeError("wrong_origin", "A request without an origin is not the page's.");
    if (!/^application\/json *(;|$)/i.test(request.headers["content-type"] ?? ""))
      throw new DrawbridgeError("unsupported_media_type", "Send JSON.");
    const wanted = found.shape.safeParse(await bodyOf(request));
    if (!wanted.success) throw new DrawbridgeError("invalid_request", z.prettifyError(wanted.error));
    const answered = JSON.stringify(await found.answer(wanted.data as never));
    response
      .writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(answered) })
      .end(answered);
  }

  const site = {
    origin: `http://${HOST}:${bound}`,
    launch: `http://${HOST}:${bound}/?launch=${launch}`,
    tell(event: string, data: object) {
      for (const one of streams) one.write(eventText(event, data));
    },
  };
  const behind = make(site);
  return {
    ...site,
    async close() {
      clearInterval(beat);
      for (const one of streams) one.end();
      const over = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await over;
    },
  };
}

function content(response: ServerResponse, bytes: Buffer, type: string): void {
  response.writeHead(200, { "content-type": type, "content-length": bytes.length }).end(bytes);
}

const eventText = (event: string, data: object) => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > MAX_BODY_BYTES) throw new DrawbridgeError("body_too_large", "That is too much.");
    parts.push(part);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString());
  } catch {
    throw new DrawbridgeError("parse_error", "That is no JSON.");
  }
}

/** In words, for people who opened a link, and for the page. */
function refuse(response: ServerResponse, thrown: unknown): void {
  const error = DrawbridgeError.from(thrown);
  if (response.headersSent) return void response.destroy();
  const text = `${JSON.stringify({ error: { code: error.code, message: error.message } })}\n`;
  const status = error.http < 400 ? 502 : error.http;
  response.writeHead(status, { "content-type": "application/json", connection: "close" }).end(text);
}
