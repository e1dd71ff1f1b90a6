/** Calls and upstreams for the tests of this folder. */
import type {
  CallNotification,
  McpCall,
  Outcome,
  PermittedCall,
  Replies,
  UpstreamCredential,
} from "../../src/core/call.ts";
import type { DrawbridgeError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import type { UpstreamCredentials } from "../../src/upstream/credentials.ts";
import { httpUpstream } from "../../src/upstream/http.ts";
import { openUpstream } from "../../src/upstream/open.ts";
import { httpServer, stdioServer } from "../../src/upstream/settings.ts";
import { stdioUpstream } from "../../src/upstream/stdio.ts";
import type { ListName, Upstream, UpstreamEvents } from "../../src/upstream/upstream.ts";
import { fixtureCommand } from "../fixtures/processes.ts";

/** Ids and tokens of clients in these tests: none of them may ever be seen by a server. */
export const CLIENT_ID = "client-id-of-everybody";
export const CLIENT_TOKEN = "progress-token-of-the-client";

export interface CallOptions extends Partial<McpCall> {
  readonly subject?: string;
  readonly client?: string;
}

/** A call as the policy would permit it. */
export function permitted(method: string, params: Record<string, unknown>, options: CallOptions = {}): PermittedCall {
  const { subject = "ann", client = "c", ...changed } = options;
  const name = String(params["name"] ?? params["uri"] ?? "");
  const kind = method === "tools/call" ? "tool" : method === "prompts/get" ? "prompt" : "resource";
  const call: McpCall = {
    id: CLIENT_ID,
    method,
    target: { server: "s", kind, name, upstreamName: name, pin: undefined },
    params: params as McpCall["params"],
    forward: new Map(Object.entries(params).map(([key, value]) => [key, JSON.stringify(value)])),
    meta: new Map(),
    progressToken: undefined,
    capabilities: {},
    logLevel: undefined,
    revision: "2025-11-25",
    trace: {
      traceId: "0af7651916cd43dd8448eb211c80319c",
      spanId: "b7ad6b7169203331",
      sampled: true,
      tracestate: undefined,
    },
    session: undefined,
    ...changed,
  };
  const by = { subject, client, actors: [], groups: [], scopes: [], claims: {} };
  return { call, by, rule: "test" } as unknown as PermittedCall;
}

export const toolCall = (name: string, args: Record<string, unknown> = {}, options: CallOptions = {}): PermittedCall =>
  permitted("tools/call", { name, arguments: args }, options);

export interface Recorded {
  readonly upstream: Upstream;
  readonly lists: ListName[];
  readonly updates: { readonly uri: string; readonly params: string }[];
}

type Settings<T> = Partial<Omit<T, "processes">> & { processes?: { min?: number; max?: number; idleSeconds?: number } };

function recorded(make: (events: UpstreamEvents) => Upstream): Recorded {
  const lists: ListName[] = [];
  const updates: { uri: string; params: string }[] = [];
  const upstream = make({
    listChanged: (list) => void lists.push(list),
    resourceUpdated: (uri, params) => void updates.push({ uri, params }),
  });
  return { upstream, lists, updates };
}

/** An upstream over a stdio fixture. `max: 1` unless told, so that state is in one place. */
export function stdio(
  fixture: string,
  args: readonly string[] = [],
  settings: Settings<ReturnType<typeof stdioServer.parse>> = {},
  environment: Record<string, string | undefined> = { PATH: process.env["PATH"] },
): Recorded {
  return recorded((events) =>
    stdioUpstream(
      "s",
      stdioServer.parse({ command: fixtureCommand(fixture, args), processes: { max: 1 }, ...settings }),
      { logger: silentLogger, events, version: "0.0.0", baseDirectory: import.meta.dirname, environment },
    ),
  );
}

type HttpSettings = Partial<Omit<ReturnType<typeof httpServer.parse>, "sessions">> & {
  sessions?: { max?: number; idleSeconds?: number };
};

/** An upstream over HTTP. */
export function http(url: string, settings: HttpSettings = {}, credentials?: UpstreamCredentials): Recorded {
  const parsed = httpServer.parse({ url, ...(credentials !== undefined && { credentials: "exchange" }), ...settings });
  return recorded((events) =>
    httpUpstream("s", parsed, { logger: silentLogger, events, version: "0.0.0", credentials }),
  );
}

/** An upstream over HTTP as the settings open it, whatever transport it turns out to speak. */
export function anyHttp(url: string, settings: HttpSettings = {}, credentials?: UpstreamCredentials): Recorded {
  const parsed = httpServer.parse({ url, ...(credentials !== undefined && { credentials: "exchange" }), ...settings });
  return recorded((events) =>
    openUpstream("s", parsed, {
      logger: silentLogger,
      events,
      version: "0.0.0",
      baseDirectory: import.meta.dirname,
      environment: {},
      credentials,
    }),
  );
}

/** Credentials that say whose they are: `Bearer own`, `Bearer <subject>`; with a number once one was turned away. */
export function namedCredentials(): UpstreamCredentials {
  const turnedAway = new Map<string, number>();
  const made = async (whose: string, refused: UpstreamCredential | undefined): Promise<UpstreamCredential> => {
    if (refused !== undefined) turnedAway.set(whose, (turnedAway.get(whose) ?? 0) + 1);
    const times = turnedAway.get(whose) ?? 0;
    const value = new Secret(`Bearer ${whose}${times === 0 ? "" : `-${times}`}`);
    return { header: "authorization", value, id: undefined, audience: "https://s.example" };
  };
  return {
    for: (by, _signal, refused) => made(by.subject, refused),
    own: (_signal, refused) => made("own", refused),
  };
}

export const never = new AbortController().signal;
export const ignored: Replies = { notify() {} };

/** Ends an upstream without waiting for calls in flight. */
export const end = (upstream: Upstream): Promise<void> => upstream.close(AbortSignal.abort());

export function collected(): Replies & { readonly all: CallNotification[] } {
  const all: CallNotification[] = [];
  return { all, notify: (notification) => void all.push(notification) };
}

/** The text of a tool's answer. */
export function textOf(outcome: Outcome): string {
  if (outcome.kind === "error") throw new Error(`${outcome.code}: ${outcome.message}`);
  const [first] = outcome.value["content"] as unknown as { text: string }[];
  return first?.text ?? "";
}

export function structuredOf(outcome: Outcome): Record<string, unknown> {
  if (outcome.kind === "error") throw new Error(`${outcome.code}: ${outcome.message}`);
  return outcome.value["structuredContent"] as Record<string, unknown>;
}

/** The code of the error that a promise rejects with; "none" when it does not. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "none",
    (error: DrawbridgeError) => error.code ?? String(error),
  );
}
