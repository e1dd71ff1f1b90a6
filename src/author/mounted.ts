/**
 * `drawbridge-mcp/mounted`: a server inside an app that is there already, below a path of its own, with all that a gateway does:
 * sign-in, roles, limits, approvals, masks, audit. Apart from `drawbridge-mcp/author`, which needs none of it.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { type MountSettings, settingsForMount } from "../config/mount.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { startGateway } from "../gateway/gateway.ts";
import { openAppEdge } from "./app-edge.ts";
import type { Server } from "./server.ts";

export interface MountOptions {
  /**
   * Where clients reach it: the app's own address and a path that nothing else of the app has, e.g. `https://shop.example/assistant`.
   * The MCP endpoint is at `/mcp` below it.
   */
  readonly publicUrl: string;
  /** What a settings file would say: `roles`, `assign`, `authorization`, `store`, `limits`, `audit`, … Not beside a file. */
  readonly settings?: MountSettings;
  /** What relative paths in the settings start from, and where `.drawbridge/` is made. Default: the working directory. */
  readonly folder?: string;
  /** What `${env:…}` of the settings is read from. Default: the environment of the process. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

export interface Mounted {
  /** The MCP endpoint, for clients. */
  readonly url: string;
  /** The path that all else is below, without a slash at its end. */
  readonly path: string;
  /** The documents that discovery wants at the root of the host (RFC 9728 §3.1, RFC 8414 §3.1), with our path behind them. */
  readonly documents: readonly string[];
  /** Whether a path, or a URL, is answered here: `path`, all below it, and `documents`. */
  owns(url: string | undefined): boolean;
  /** Answers a request of `node:http` that is ours, and calls `next` for any other; without `next`, those get 404. */
  readonly node: (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void) => void;
  /** Answers a request of the web's kind; 404 for what is not ours. `client`: where it came from, for records and limits. */
  readonly fetch: (request: Request, client?: { readonly address?: string | undefined }) => Promise<Response>;
  /** The one-time link that makes the owner's account; undefined when there is one, or another server issues the tokens. */
  setupLink(): Promise<string | undefined>;
  /** Ends open streams, lets calls in flight finish for `listen.shutdownSeconds`, and stops. Before the app closes its port. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Starts `server`, or all that a settings file has, for an app that hands requests over. Resolves when it can take them. Throws
 * `settings_invalid` with everything that is wrong.
 *
 *     const assistant = await mounted(desk, { publicUrl: "https://shop.example/assistant" });
 *     app.use(assistant.node); // before body parsers
 */
export async function mounted(server: Server | string, options: MountOptions): Promise<Mounted> {
  const publicUrl = placeIn(options.publicUrl);
  const { settings, environment, forget } = await settingsForMount(server, { ...options, publicUrl: publicUrl.href });
  const edge = openAppEdge(publicUrl, settings.settings.listen.bodyTimeoutSeconds * 1000);
  try {
    const gateway = await startGateway({ settings, environment, listener: edge.listener });
    await gateway.ready;
    const close = () => gateway.close().finally(forget);
    return {
      url: gateway.url,
      path: edge.path,
      documents: edge.documents,
      owns: edge.owns,
      node: edge.node,
      fetch: edge.fetch,
      setupLink: gateway.setupLink,
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    forget();
    throw error;
  }
}

function placeIn(publicUrl: string): URL {
  const url = URL.canParse(publicUrl) ? new URL(publicUrl.replace(/\/+$/, "")) : undefined;
  if (url === undefined || url.pathname === "/" || /[^A-Za-z0-9._~/-]|\/\//.test(url.pathname))
    throw new DrawbridgeError(
      "settings_invalid",
      `publicUrl ${JSON.stringify(publicUrl)} must be the app's address with a path that is ours alone, e.g. https://shop.example/assistant.`,
    );
  return url;
}
