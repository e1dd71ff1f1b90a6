/** Apps of three frameworks with a route of their own, each wired to a mounted server as `docs/author-mounting.md` says. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type ServerType, serve } from "@hono/node-server";
import { getConnInfo } from "@hono/node-server/conninfo";
import compression from "compression";
import express from "express";
import { fastify } from "fastify";
import { Hono } from "hono";
import type { Server } from "../../src/author/index.ts";
import { type Mounted, type MountOptions, mounted } from "../../src/author/mounted.ts";
import { listen, stop } from "../oauth/support.ts";

export interface App extends AsyncDisposable {
  readonly origin: string;
  readonly mount: Mounted;
  /** As an app ends itself. */
  close(): Promise<void>;
}

/** An app on a free port; what is mounted in it is made when the port is known, as every address in it has to name it. */
type Wire = (mount: () => Mounted) => Promise<{ readonly port: number; close(): Promise<void> }>;

const PATH = "/assistant";

export const APPS = {
  async Express(mount) {
    const app = express();
    app.use((request, response, next) => mount().node(request, response, next));
    app.use(express.json());
    app.post("/orders", (request, response) => void response.json({ got: request.body as unknown }));
    const server = createServer(app);
    return { port: await listen(server), close: () => stop(server) };
  },
  async "Express behind its parsers and compression"(mount) {
    const app = express();
    app.use(compression({ threshold: 0 }), express.json(), express.urlencoded({ extended: false }));
    app.post("/orders", (request, response) => void response.json({ got: request.body as unknown }));
    app.use((request, response, next) => mount().node(request, response, next));
    const server = createServer(app);
    return { port: await listen(server), close: () => stop(server) };
  },
  async Hono(mount) {
    const app = new Hono();
    app.use((c, next) => (mount().owns(c.req.url) ? mount().fetch(c.req.raw, getConnInfo(c).remote) : next()));
    app.post("/orders", async (c) => c.json({ got: (await c.req.json()) as object }));
    const server = await new Promise<ServerType>((resolve) => {
      const made = serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }, () => resolve(made));
    });
    return { port: (server.address() as AddressInfo).port, close: () => stop(server as never) };
  },
  async Fastify(mount) {
    const app = fastify({ forceCloseConnections: true });
    app.addHook("onRequest", (request, reply, done) => {
      if (!mount().owns(request.raw.url)) return done();
      reply.hijack();
      mount().node(request.raw, reply.raw);
    });
    app.addHook("preClose", () => mount().close());
    app.post("/orders", (request) => ({ got: request.body }));
    await app.listen({ port: 0, host: "127.0.0.1" });
    return { port: (app.server.address() as AddressInfo).port, close: () => app.close() };
  },
} as const satisfies Record<string, Wire>;

export type AppName = keyof typeof APPS;

export async function appWith(
  name: AppName,
  server: Server | string,
  { settings, ...options }: Partial<MountOptions> = {},
): Promise<App> {
  let mount: Mounted | undefined;
  const running = await (APPS[name] as Wire)(() => {
    if (mount === undefined) throw new Error("not mounted yet");
    return mount;
  });
  const origin = `http://127.0.0.1:${running.port}`;
  const close = async () => {
    await mount?.close();
    await running.close();
  };
  try {
    mount = await mounted(server, {
      publicUrl: `${origin}${PATH}`,
      ...options,
      ...(typeof server !== "string" && {
        settings: {
          store: "memory",
          ...(settings?.authorization === undefined && { clients: { registration: "open" } }),
          log: { level: "silent" },
          ...settings,
          listen: { shutdownSeconds: 3, ...settings?.listen },
        },
      }),
    });
  } catch (error) {
    // The app's own end ends the mount, too, and there is none.
    await running.close().catch(() => {});
    throw error;
  }
  return { origin, mount, close, [Symbol.asyncDispose]: close };
}
