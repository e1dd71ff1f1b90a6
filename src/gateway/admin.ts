/**
 * What operators may see and do while the gateway runs: over HTTP those in the group `owner`, with an access token and nothing else
 * (no page can make a browser send one); over the control socket whoever has the gateway's own account.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { userInfo } from "node:os";
import { z } from "zod";
import type { SinkState } from "../audit/sinks/sinks.ts";
import type { Authenticated } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Trials } from "../policy/live.ts";
import { type TrialReport, trialSettings } from "../policy/trial.ts";
import type { ManagedUpstream } from "../upstream/managed.ts";
import type { Office } from "./approvals/office.ts";
import type { Concealer } from "./conceal.ts";
import type { Actor, Deeds } from "./deeds.ts";
import { readBody, sendError } from "./exchange.ts";
import { authenticate, challengesFor } from "./handle-mcp.ts";
import type { Admission } from "./limits/limits.ts";
import type { Parts } from "./parts.ts";
import type { Change, Reload } from "./reload.ts";
import type { Served } from "./served.ts";

export interface Administered {
  readonly parts: Parts;
  readonly served: Served;
  readonly reload: Reload;
  readonly deeds: Deeds;
  readonly trials: Trials;
  /** Where people decide about calls that wait for them; who may, it knows itself. */
  readonly approvals: Office;
  /** Where records are sent, and how far that is. */
  readonly sinks: () => readonly SinkState[];
  readonly conceal: Concealer;
  /** The public URL, without a slash at its end: what proofs of bound tokens name. */
  readonly publicUrl: string;
}

/** One server as operators see it. */
export interface ServerView {
  readonly name: string;
  readonly state: string;
  /** ISO 8601. */
  readonly since: string;
  /** Its newest lines of stderr, without the secrets of the settings; only where they were asked for. */
  readonly stderr?: readonly string[];
  readonly size: number;
  readonly inFlight: number;
  readonly queued: number;
  readonly restarts: number;
  readonly generation: number;
  readonly finishing: number;
  readonly draining: boolean;
  readonly instances?: number | undefined;
  readonly sandbox?: string | undefined;
  readonly problem?: string | undefined;
  readonly refused?: string | undefined;
}

interface Ask {
  readonly method: string;
  /** `/admin/…`, without a query. */
  readonly path: string;
  readonly stderr: boolean;
  readonly by: Actor;
  /** What was sent along; undefined where nothing is taken. */
  readonly body?: () => Promise<string>;
}

/** Answers `/admin/…` for owners. Never throws. */
export async function answerAdmin(
  administered: Administered,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
): Promise<void> {
  const { parts, publicUrl } = administered;
  let by: Authenticated | undefined;
  let admission: Admission | undefined;
  try {
    by = await authenticate(parts, request, `${publicUrl}${path}`);
    // Whoever is not an owner learns nothing, not even what there is.
    if (!by.groups.includes("owner") && !APPROVALS.test(path)) throw notFound(path);
    admission = parts.limits.enter(by);
    await admission.request();
    const actor: Actor = { kind: "owner", by, source: parts.sourceOf(request) };
    // What is written to stderr may hold anything, so it is shown to those who say that they want it.
    const stderr = queryOf(request).has("stderr");
    send(response, await perform(administered, { method: request.method ?? "", path, stderr, by: actor }));
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown);
    refuse(administered, response, error, challengesFor(parts, error, request.headers.authorization, by));
  } finally {
    admission?.leave();
  }
}

/** Answers the same requests on the control socket, where nobody has to say who they are. Never throws. */
export async function answerControl(
  administered: Administered,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    const by: Actor = { kind: "operator", name: userInfo().username, via: "control socket" };
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const body = () => readBody(request, MAX_BODY_BYTES);
    const ask = { method: request.method ?? "", path: pathname, stderr: true, by, body };
    send(response, await perform(administered, ask));
  } catch (thrown) {
    refuse(administered, response, DrawbridgeError.from(thrown), {});
  }
}

/** A policy, at most. */
const MAX_BODY_BYTES = 4 << 20;

async function perform(administered: Administered, ask: Ask): Promise<object> {
  const { served, reload } = administered;
  const [, , resource, name, verb, ...more] = ask.path.split("/");
  if (resource === "reload" && name === undefined) {
    mustBe("POST", ask);
    return { changes: (await reload.reload(ask.by)) satisfies readonly Change[] };
  }
  if (resource === "approvals" && more.length === 0) return decideOn(administered.approvals, ask, name, verb);
  if (resource === "audit" && name === "sinks" && verb === undefined) {
    mustBe("GET", ask);
    return { sinks: administered.sinks() };
  }
  if (resource === "policy" && name === "shadow" && more.length === 0) return tryOut(administered, ask, verb);
  if (resource !== "servers" || more.length > 0) throw notFound(ask.path);
  if (name === undefined) {
    mustBe("GET", ask);
    return {
      servers: [...served.upstreams.values()].map((upstream) => view(administered, upstream, ask.stderr)),
      withheld: administered.parts.catalogue.withheld(),
      lostSecrets: Object.fromEntries(reload.lostSecrets()),
    };
  }
  const upstream = served.named(name);
  if (verb === undefined) {
    mustBe("GET", ask);
    return view(administered, upstream, ask.stderr);
  }
  const deed = Object.hasOwn(DEEDS, verb) ? DEEDS[verb as keyof typeof DEEDS] : undefined;
  if (deed === undefined) throw notFound(ask.path);
  mustBe("POST", ask);
  return administered.deeds.done(deed.name, ask.by, { server: name }, async () => {
    await deed.does(upstream);
    return { result: view(administered, upstream, false) };
  });
}

/** These are not for owners alone: each sees, and decides, what is theirs to. */
const APPROVALS = /^\/admin\/approvals(\/|$)/;
const VERDICTS = { approve: "approved", deny: "denied" } as const;

async function decideOn(
  approvals: Office,
  ask: Ask,
  number: string | undefined,
  verb: string | undefined,
): Promise<object> {
  if (number === undefined || verb === undefined) {
    mustBe("GET", ask);
    return number === undefined ? { approvals: await approvals.list(ask.by) } : approvals.show(number, ask.by);
  }
  const verdict = Object.hasOwn(VERDICTS, verb) ? VERDICTS[verb as keyof typeof VERDICTS] : undefined;
  if (verdict === undefined) throw notFound(ask.path);
  mustBe("POST", ask);
  return approvals.decide(number, verdict, ask.by);
}

/** Only at the socket: whoever can write a policy file there can also have it count. */
async function tryOut({ trials, deeds }: Administered, ask: Ask, verb: string | undefined): Promise<object> {
  const { body, by } = ask;
  if (body === undefined || (verb !== undefined && verb !== "end")) throw notFound(ask.path);
  if (verb === "end") {
    mustBe("POST", ask);
    return deeds.done("policy-trial-ended", by, {}, async () => ({ result: { trial: trials.end() ?? null } }));
  }
  if (ask.method === "GET") return { trial: trials.report() ?? null };
  mustBe("POST", ask);
  return deeds.done("policy-trial-begun", by, {}, async () => {
    const trial = begunWith(trials, await body());
    return { result: { trial }, details: { name: trial.name, policy: trial.policy } };
  });
}

function begunWith(trials: Trials, text: string): TrialReport {
  try {
    return trials.begin(trialSettings.parse(JSON.parse(text)));
  } catch (cause) {
    const [issue] = cause instanceof z.ZodError ? cause.issues : [];
    const path = issue?.path.slice(1).join(".") ?? "";
    const what = issue === undefined ? (cause as Error).message : `${path === "" ? "" : `${path}: `}${issue.message}`;
    throw new DrawbridgeError("settings_invalid", `The policy cannot be used: ${what}.`, { cause });
  }
}

const DEEDS = {
  restart: { name: "server-restarted", does: (upstream: ManagedUpstream) => upstream.restart() },
  drain: { name: "server-drained", does: async (upstream: ManagedUpstream) => upstream.drain() },
  resume: { name: "server-resumed", does: async (upstream: ManagedUpstream) => upstream.resume() },
} as const;

function view({ conceal, parts }: Administered, upstream: ManagedUpstream, withStderr: boolean): ServerView {
  const { since, stderr, problem, refused, ...state } = upstream.state();
  const why = problem ?? parts.catalogue.problem(upstream.name);
  return {
    name: upstream.name,
    ...state,
    since: new Date(since).toISOString(),
    ...(why !== undefined && { problem: conceal.text(why) }),
    ...(refused !== undefined && { refused: conceal.text(refused) }),
    ...(withStderr && { stderr: stderr.map((line) => conceal.text(line)) }),
  };
}

function mustBe(method: "GET" | "POST", ask: Ask): void {
  if (ask.method !== method) throw new DrawbridgeError("method_not_allowed", `Use ${method} for ${ask.path}.`);
}

function queryOf(request: IncomingMessage): URLSearchParams {
  const [, query = ""] = (request.url ?? "").split("?");
  return new URLSearchParams(query);
}

function send(response: ServerResponse, body: object): void {
  const text = JSON.stringify(body);
  response.writeHead(200, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
  });
  response.end(text);
}

function refuse(
  { parts, conceal }: Administered,
  response: ServerResponse,
  error: DrawbridgeError,
  options: { challenges?: readonly string[] },
): void {
  parts.telemetry.refused(error.code);
  if (error.code === "internal") parts.log.error({ error }, "a request of an operator could not be answered");
  const { code, retryAfterSeconds } = error;
  const told = new DrawbridgeError(code, conceal.text(error.message), {
    ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
    ...(error.proof !== undefined && { proof: error.proof }),
  });
  // A server that cannot be reached is told in band elsewhere; here the request itself has failed. A wrong file is the operator's.
  const status = code === "settings_invalid" ? 422 : error.http < 400 ? 502 : error.http;
  sendError(response, told, undefined, { ...options, status });
}

function notFound(path: string): DrawbridgeError {
  return new DrawbridgeError("not_found", `Nothing is served at ${path.slice(0, 200)}.`);
}
