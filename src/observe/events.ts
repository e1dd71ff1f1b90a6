/** What the gateway says in its log, one function per event, so that the same thing is always said in the same words. */
import { DrawbridgeError, type ErrorCode } from "../core/errors.ts";
import type { Logger } from "./logger.ts";

export function serverStarted(
  logger: Logger,
  fields: { url: string; publicUrl: string; servers: readonly string[] },
): void {
  logger.info(fields, "server started");
}
export function serverStopping(logger: Logger, fields: { inFlight: number; waitSeconds: number }): void {
  logger.info(fields, "stopping: no new connections, calls in flight may finish");
}
export function serverStopped(logger: Logger, fields: { abandoned: number }): void {
  if (fields.abandoned === 0) logger.info({}, "stopped");
  else logger.warn(fields, "stopped with calls unfinished");
}
/** An option that its name calls insecure is on. */
export function insecureOption(logger: Logger, fields: { option: string; consequence: string }): void {
  logger.warn(fields, "an insecure option is on");
}
export function settingsReloaded(logger: Logger, fields: { file: string }): void {
  logger.info(fields, "settings read again");
}
export function certificateReloaded(logger: Logger, fields: { file: string; validUntil: string }): void {
  logger.info(fields, "TLS certificate read again");
}
export function certificateUnusable(logger: Logger, fields: { file: string }, error: unknown): void {
  logger.error({ ...fields, error }, "TLS certificate cannot be used, the former one stays");
}

export function upstreamReady(
  logger: Logger,
  fields: { server: string; revision: string; tools: number; resources: number; prompts: number },
): void {
  logger.info(fields, "upstream ready");
}
export function upstreamLost(
  logger: Logger,
  fields: { server: string; stderr?: readonly string[] },
  error: unknown,
): void {
  logger.warn({ ...fields, error }, "upstream lost");
}
export function upstreamRestarted(logger: Logger, fields: { server: string; restarts: number; afterMs: number }): void {
  logger.info(fields, "upstream started again");
}
export function upstreamGarbage(logger: Logger, fields: { server: string; sample: string }): void {
  logger.warn(fields, "upstream wrote what is no message");
}
/** Steps of a tool were done, a later one failed, and they could not be undone: a person has to look. */
export function stepsNotUndone(
  logger: Logger,
  fields: { tool: string; run: string; traceId: string; steps: readonly string[]; unsure: readonly string[] },
): void {
  logger.error(fields, "steps of a call that failed could not be undone");
}
/** A gateway was gone in the middle of a call with steps; what it had done is undone. */
export function stepsRecovered(logger: Logger, fields: { tool: string; run: string; steps: readonly string[] }): void {
  logger.warn(fields, "what a call had done when its gateway ended was undone");
}
/** A server is less confined than its settings say. */
export function sandboxMissing(logger: Logger, fields: { missing: string }): void {
  logger.warn(fields, "the sandbox of a server is not whole");
}
/** A process in a sandbox had too much, and was ended. */
export function sandboxKilled(logger: Logger, fields: { why: string }): void {
  logger.warn(fields, "a server exceeded a limit of its sandbox");
}
/** A process in a sandbox wanted to reach what is not on its list; said once for each host. */
export function egressRefused(logger: Logger, fields: { target: string; reason: string }): void {
  logger.warn(fields, "a server was refused a connection");
}
/** A pinned definition is not what it was; the target is withheld until someone approves it. */
export function definitionChanged(
  logger: Logger,
  fields: { server: string; kind: string; name: string; pinned: string; found: string },
): void {
  logger.warn(fields, "definition changed, withheld until approved");
}
export function definitionPinned(
  logger: Logger,
  fields: { server: string; kind: string; name: string; pin: string },
): void {
  logger.info(fields, "definition pinned at first sight");
}

/** A policy that is only tried out would have decided otherwise. Nothing was changed by it. */
export function shadowDiffers(
  logger: Logger,
  fields: {
    subject: string;
    client: string;
    target: string;
    effect: string;
    rule: string | undefined;
    wouldBe: string;
    wouldBeBy: string | undefined;
  },
): void {
  logger.info(fields, "the shadow policy would have decided otherwise");
}

/** One line for a request that was not served: in full for what the gateway broke, quiet for what a caller may do all day. */
export function callRefused(
  logger: Logger,
  fields: {
    method?: string | undefined;
    target?: string | undefined;
    subject?: string | undefined;
    client?: string | undefined;
    traceId?: string | undefined;
  },
  thrown: unknown,
): void {
  const error = DrawbridgeError.from(thrown);
  const said = { ...fields, code: error.code, detail: error.detail };
  const level = LOUD[error.code];
  if (level === "error") logger.error({ ...said, error }, "call failed");
  else logger[level ?? "info"](said, "call refused");
}
const LOUD: Partial<Record<ErrorCode, "error" | "warn" | "debug">> = {
  internal: "error",
  settings_invalid: "error",
  audit_unavailable: "warn",
  overloaded: "warn",
  upstream_unavailable: "warn",
  upstream_failed: "warn",
  upstream_timeout: "warn",
  cancelled: "debug",
};

export function signedIn(logger: Logger, fields: { subject: string; how: string }): void {
  logger.info(fields, "signed in");
}
export function signInRefused(
  logger: Logger,
  fields: { how: string; reason: string; source?: string | undefined },
): void {
  logger.warn(fields, "sign-in refused");
}
export function consentGiven(
  logger: Logger,
  fields: { subject: string; client: string; scopes: readonly string[] },
): void {
  logger.info(fields, "consent given");
}
export function grantRevoked(logger: Logger, fields: { grant: string; reason: string }): void {
  logger.info(fields, "grant revoked");
}
/** A spent refresh token or code came back: a copy of it is in other hands, or a client raced itself. */
export function tokenReused(
  logger: Logger,
  fields: { grant: string; client: string; what: "code" | "refresh token" },
): void {
  logger.warn(fields, "a spent credential was used again, its grant is ended");
}
export function clientRegistered(logger: Logger, fields: { client: string; name: string; source: string }): void {
  logger.info(fields, "client registered");
}
export function keyRotated(logger: Logger, fields: { kid: string }): void {
  logger.info(fields, "signing key rotated");
}

export function auditFailing(logger: Logger, fields: { pending: number; retryMs: number }, error: unknown): void {
  logger.error({ ...fields, error }, "audit log cannot be written, calls are refused until it can");
}
export function auditRecovered(logger: Logger, fields: { written: number; failedForMs: number }): void {
  logger.info(fields, "audit log is written again");
}
export function auditSpilling(logger: Logger, fields: { folder: string }, error: unknown): void {
  logger.error({ ...fields, error }, "audit log cannot be written, records go to files until it can");
}
export function auditUnspilled(logger: Logger, fields: { written: number; spilledForMs: number }): void {
  logger.info(fields, "audit records that had gone to files are in the log");
}
export function auditLost(
  logger: Logger,
  fields: { records: number; first: string | undefined },
  error: unknown,
): void {
  logger.error({ ...fields, error }, "audit records were lost");
}
/** Calls go on: a sink that is behind gets its records later. */
export function sinkFailing(logger: Logger, fields: { sink: string; kind: string; problem: string }): void {
  logger.error(fields, "an audit sink takes no records, it gets them when it does");
}
export function sinkRecovered(logger: Logger, fields: { sink: string; kind: string; failedForMs: number }): void {
  logger.info(fields, "an audit sink takes records again");
}
export function sinkRefused(logger: Logger, fields: { sink: string; records: number; why: string }): void {
  logger.error(fields, "an audit sink has refused records for good");
}
export function exportFailing(
  logger: Logger,
  fields: { endpoint: string; failures: number; dropped: number },
  error: unknown,
): void {
  logger.warn({ ...fields, error }, "telemetry cannot be exported");
}
