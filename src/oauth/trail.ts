/**
 * How far clients came on their way to a call, and what stopped them: the last steps of each, kept for a day for whoever asks why
 * a client cannot connect (`drawbridge doctor --trail`). No codes, tokens or bodies are in it.
 */
import { hash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { networkOf, type SourceOf } from "../net/source.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import type { OAuthEvent } from "./events.ts";
import { throttle } from "./throttle.ts";

/** In the order of a client's way. The names are those of the doctor's steps. */
export type TrailStep =
  | "challenge"
  | "resource"
  | "server"
  | "registration"
  | "authorize"
  | "sign-in"
  | "consent"
  | "token"
  | "call";

export interface Seen {
  readonly step: TrailStep;
  readonly ok: boolean;
  /** Milliseconds since the epoch: the last time. */
  readonly at: number;
  /** How often in a row. */
  readonly times: number;
  /** HTTP status, when it was one answer. */
  readonly status?: number;
  /** Why it failed, or what came of it, in words. */
  readonly said?: string;
  /** Where it came from. */
  readonly source: string;
}

export interface Trail {
  /** Undefined: nobody knows yet which client asks from that source. */
  readonly client: string | undefined;
  /** Oldest first. */
  readonly steps: readonly Seen[];
}

export interface Trails {
  /** Looks at a request that was answered. Costs next to nothing for a call that went well. Never throws. */
  answered(request: IncomingMessage, response: ServerResponse): void;
  /** What people and clients did that is not seen at the edge. */
  heard(event: OAuthEvent): void;
  /** Writes what was not written yet. Never rejects. */
  close(): Promise<void>;
}

export interface TrailsOptions {
  readonly records: Records;
  /** Names this process: each keeps rows of its own. */
  readonly replica: string;
  readonly sourceOf: SourceOf;
  /** RFC 8707 identifier of the MCP endpoint. */
  readonly resource: string;
  readonly log: Logger;
  readonly clock?: Clock;
}

const KIND = "oauth:trail";
const MAX_TRAILS = 200;
const MAX_STEPS = 30;
const MAX_SAID = 300;
const KEPT_MS = 86_400_000;
const WRITE_EVERY_MS = 2_000;
const WRITES_AT_ONCE = 20;
/** A step that only repeats itself is not worth a write each time. */
const REPEATED_WRITE_MS = 60_000;

interface Kept {
  readonly client: string | undefined;
  readonly steps: Seen[];
  dirty: boolean;
  writtenAt: number;
}
interface Stored {
  readonly client?: string;
  readonly steps: readonly Seen[];
}

/** What an answer is about, said by whoever made it. Gone with the answer. */
const remarks = new WeakMap<object, Remark>();
interface Remark {
  readonly client?: string;
  readonly said?: string;
  /** Although its status does not say so: an error that is sent by a redirect. */
  readonly failed?: true;
}

/** Says of an answer which client it is for, or why it is what it is. A later remark adds to an earlier one. */
export function remark(response: object, about: Remark): void {
  remarks.set(response, { ...remarks.get(response), ...about });
}

export function openTrails(options: TrailsOptions): Trails {
  const { records, replica, sourceOf, resource, log, clock = systemClock } = options;
  const { pathname: mcpPath } = new URL(resource);
  const prefix = mcpPath.slice(0, -"/mcp".length);
  /** The one not added to for longest first. */
  const trails = new Map<string, Kept>();
  /** Where somebody got a token and has not called yet, and which client that was if it was one alone. */
  const expected = new Map<string, string | undefined>();
  // Who invents client ids gets no trail for each of them.
  const newClients = throttle({ burst: 10, secondsPerTry: 60 }, clock);
  const logged = throttle({ burst: 5, secondsPerTry: 60 }, clock);
  const rowId = (key: string) => `${hash("sha256", key, "base64url")}.${replica}`;

  function add(client: string | undefined, seen: Omit<Seen, "at" | "times">): void {
    const now = clock();
    const network = networkOf(seen.source);
    const own = client === undefined ? undefined : `client ${client}`;
    const known = own !== undefined && (trails.has(own) || newClients.take(network) === 0);
    const key = known ? own : `source ${network}`;
    // Whoever goes on as ever leaves no trail.
    if (!trails.has(key) && seen.ok && (seen.step === "token" || seen.step === "call")) return;
    const trail = trails.get(key) ?? { client: known ? client : undefined, steps: [], dirty: true, writtenAt: 0 };
    trails.delete(key);
    trails.set(key, trail);

    const last = trail.steps.at(-1);
    const again = last !== undefined && same(last, seen);
    if (again) trail.steps.pop();
    trail.steps.push({ ...seen, at: now, times: again ? last.times + 1 : 1 });
    if (trail.steps.length > MAX_STEPS) trail.steps.shift();
    if (!again || now - trail.writtenAt > REPEATED_WRITE_MS) trail.dirty = true;
    if (trails.size > MAX_TRAILS) forget(trails.keys().next().value ?? "");

    if (seen.ok && seen.step === "token")
      expected.set(network, expected.has(network) && expected.get(network) !== client ? undefined : client);
    if (expected.size > MAX_TRAILS) expected.delete(expected.keys().next().value ?? "");
    if (!seen.ok && logged.take(key) === 0) {
      const { step, source, status, said } = seen;
      log.info({ client, source, step, status, said }, "a client could not go on");
    }
  }

  function forget(key: string): void {
    const trail = trails.get(key);
    trails.delete(key);
    if (trail !== undefined && trail.writtenAt > 0) records.delete(KIND, rowId(key)).catch(() => {});
  }

  let writing: Promise<void> = Promise.resolve();
  async function write(most: number): Promise<void> {
    const due = [...trails].filter(([, trail]) => trail.dirty).slice(0, most);
    for (const [key, trail] of due) {
      trail.dirty = false;
      trail.writtenAt = clock();
      const value: Stored = { steps: trail.steps, ...(trail.client !== undefined && { client: trail.client }) };
      try {
        await records.put(KIND, rowId(key), value, { expiresAt: clock() + KEPT_MS });
      } catch (thrown) {
        // Nobody's call depends on it; it is tried again.
        trail.dirty = true;
        log.debug({ error: DrawbridgeError.from(thrown).detail }, "a trail could not be written");
        return;
      }
    }
  }
  const timer = setInterval(() => {
    writing = writing.then(() => write(WRITES_AT_ONCE));
  }, WRITE_EVERY_MS);
  timer.unref();

  function called(request: IncomingMessage, response: ServerResponse): void {
    const { statusCode: status } = response;
    const refused = status === 401 || status === 403;
    if (!refused && expected.size === 0) return;
    const source = sourceOf(request);
    if (!refused) {
      const network = networkOf(source);
      const client = expected.get(network);
      if (status === 200 && expected.delete(network)) add(client, { step: "call", ok: true, status, source });
      return;
    }
    const challenged = status === 401 && request.headers.authorization === undefined;
    const said = challenged ? "asked without a token" : remarks.get(response)?.said;
    add(undefined, { step: challenged ? "challenge" : "call", ok: challenged, status, source, ...cut(said) });
  }

  return {
    answered(request, response) {
      const url = request.url ?? "";
      const end = url.indexOf("?");
      const path = end < 0 ? url : url.slice(0, end);
      if (path === mcpPath || path === `${mcpPath}/`) return called(request, response);
      const step = stepAt(path, prefix, request.method ?? "");
      const { statusCode: status } = response;
      const about = remarks.get(response);
      const ok = status < 400 && about?.failed !== true;
      if (step === undefined || (ok && SEEN_ELSEWHERE.has(step))) return;
      const { client = clientIn(url, end), said = ok ? undefined : path.slice(0, 100) } = about ?? {};
      add(client, { step, ok, status, source: sourceOf(request), ...cut(said) });
    },
    heard(event) {
      const { source = "", client } = event;
      switch (event.type) {
        case "signed-in":
          return add(client, { step: "sign-in", ok: true, source, ...cut(`as ${event.name}`) });
        case "sign-in-failed":
          return add(client, { step: "sign-in", ok: false, source, ...cut(event.reason) });
        case "consent-granted":
          return add(client, { step: "consent", ok: true, source, ...cut(`allowed ${event.scopes.join(" ")}`) });
        case "consent-denied":
          return add(client, { step: "consent", ok: false, source, ...cut("the person said no") });
        default:
      }
    },
    async close() {
      clearInterval(timer);
      await writing;
      await write(MAX_TRAILS);
    },
  };
}

/** Of these a good end is told by an event, with what came of it. */
const SEEN_ELSEWHERE: ReadonlySet<TrailStep> = new Set(["sign-in", "consent"]);

function stepAt(path: string, prefix: string, method: string): TrailStep | undefined {
  if (method === "OPTIONS") return undefined;
  if (path.includes("/.well-known/")) return path.includes("/oauth-protected-resource") ? "resource" : "server";
  const below = path.startsWith(`${prefix}/`) ? path.slice(prefix.length) : path;
  if (below === "/oauth/register") return "registration";
  if (below === "/oauth/token") return "token";
  if (below === "/oauth/par" || /^\/oauth\/authorize(?:\/|$)/.test(below)) return "authorize";
  if (/^\/sign-in(?:\/|$)/.test(below)) return "sign-in";
  if (/^\/consent(?:\/|$)/.test(below)) return "consent";
  return undefined;
}

function clientIn(url: string, queryAt: number): string | undefined {
  if (queryAt < 0) return undefined;
  return new URLSearchParams(url.slice(queryAt + 1)).get("client_id")?.slice(0, 1024) || undefined;
}

function cut(said: string | undefined): { said?: string } {
  return said === undefined ? {} : { said: said.slice(0, MAX_SAID) };
}

function same(a: Seen, b: Omit<Seen, "at" | "times">): boolean {
  return a.step === b.step && a.ok === b.ok && a.said === b.said && a.source === b.source && a.status === b.status;
}

/**
 * What all replicas kept, the newest step last in each: of every client and, for steps before anybody knew the client, of every
 * source. At most 1000 rows are read.
 */
export async function readTrails(records: Records): Promise<readonly Trail[]> {
  const rows = await records.list<Stored>(KIND, { limit: 1000 });
  const merged = new Map<string, Trail>();
  for (const { value } of rows) {
    const { client, steps } = value;
    const key = client === undefined ? `source ${networkOf(steps[0]?.source ?? "")}` : `client ${client}`;
    const all = [...(merged.get(key)?.steps ?? []), ...steps].sort((a, b) => a.at - b.at);
    merged.set(key, { client, steps: all });
  }
  return [...merged.values()].sort((a, b) => lastOf(a) - lastOf(b));
}

/** A client's own steps with those of its sources that nobody could know to be its: one way, oldest first. */
export function wayOf(client: string, trails: readonly Trail[]): readonly Seen[] {
  const own = trails.filter((trail) => trail.client === client).flatMap(({ steps }) => steps);
  const networks = new Set(own.map(({ source }) => networkOf(source)));
  const strangers = trails
    .filter((trail) => trail.client === undefined)
    .flatMap(({ steps }) => steps)
    .filter(({ source }) => networks.has(networkOf(source)));
  return [...own, ...strangers].sort((a, b) => a.at - b.at);
}

function lastOf({ steps }: Trail): number {
  return steps.at(-1)?.at ?? 0;
}
