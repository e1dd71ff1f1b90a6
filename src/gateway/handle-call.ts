/**
 * The way of a call, top to bottom: aim → authorize → admit → send → record → answer. Both eras and every kind of upstream pass
 * here; there is no second way to an upstream.
 */
import type { JsonObject, McpCall, Outcome, PermittedCall, Revision, Target } from "../core/call.ts";
import { DrawbridgeError, type ErrorCode } from "../core/errors.ts";
import { answerText, errorText } from "../mcp/answers.ts";
import type { InboundRequest } from "../mcp/inbound.ts";
import { asksMore } from "../mcp/interaction.ts";
import { isObject, memberTexts, objectText } from "../mcp/json-text.ts";
import type { MethodRow } from "../mcp/methods.ts";
import type { Span } from "../observe/telemetry.ts";
import { permit } from "../policy/engine.ts";
import { mustMirror } from "../upstream/mirrored-headers.ts";
import type { Upstream } from "../upstream/upstream.ts";
import { sendError } from "./exchange.ts";
import type { Asked, Parts } from "./parts.ts";
import { underItsName } from "./ui-resources.ts";

type CallRow = Extract<MethodRow, { kind: "call" }>;

/** One call: what it is aimed at, whether the caller may, whether the arguments fit, and then the upstream's answer. */
export async function handleCall(parts: Parts, asked: Asked, row: CallRow): Promise<void> {
  const { by, inbound, headers, session, record, answering } = asked;
  const aimed = row.target(inbound.params);
  if (aimed === undefined)
    throw new DrawbridgeError("invalid_params", `${inbound.method} must say what it is aimed at.`);
  const { catalogue } = parts;
  const capabilities = session?.capabilities ?? inbound.clientCapabilities ?? {};
  const found =
    catalogue.find(aimed.kind, aimed.name) ?? (await catalogue.resolve(aimed.kind, aimed.name, capabilities));
  const target: Target = found ?? { server: "", ...aimed, upstreamName: aimed.name, pin: undefined };
  record.aimed(target);
  const args = argumentsOf(inbound);
  const decision = parts.policy.decide(by, target, { method: inbound.method, args, scope: row.scope });
  record.decided(decision);
  // What the caller may not use looks just like what does not exist.
  if (found === undefined || decision.effect === "deny") throw unknownTarget(target);
  if (decision.effect === "step-up") {
    throw new DrawbridgeError("insufficient_scope", `This needs the scope ${decision.scope}.`, {
      scope: decision.scope,
    });
  }
  parts.limits.spendOn(by, target);
  const revision = session?.revision ?? inbound.revision;

  if (inbound.method === "tools/call") {
    const entry = catalogue.entry(target);
    if (inbound.era === "modern" && entry !== undefined) mustMirror(headers, args, entry.mirrored());
    const problems = entry && (entry.compiled ?? (await entry.compile())).check(args);
    if (problems !== undefined) return refuseArguments(asked, target, revision, problems);
  }
  const upstream = parts.upstreams.get(target.server);
  if (upstream === undefined)
    throw new DrawbridgeError("upstream_unavailable", "The server behind this is not available.");
  // What is sent cannot be taken back, so it is not sent when it could not be recorded.
  parts.journal.check();
  const span = parts.telemetry.begin(
    `${inbound.method} ${target.kind === "resource" ? "" : target.name}`.trim(),
    "client",
    record.trace,
    {
      "mcp.method.name": inbound.method,
      "server.address": target.server,
      ...(target.kind === "tool" && { "gen_ai.tool.name": target.upstreamName }),
      ...(target.kind === "prompt" && { "gen_ai.prompt.name": target.upstreamName }),
    },
  );
  const mcpCall: McpCall = {
    id: inbound.id,
    method: inbound.method,
    target,
    params: inbound.params,
    forward: forwarded(inbound, target),
    meta: inbound.meta,
    progressToken: inbound.progressToken,
    logLevel: inbound.logLevel ?? session?.logLevel,
    revision,
    trace: span.context,
    capabilities,
    session: session?.id,
  };
  const outcome = await sent(parts, asked, upstream, permit(by, mcpCall, decision), span);
  if (outcome === undefined) return;
  // A client that left its stream may come back for the answer; until then nothing was answered.
  if (!(await answering.attended())) {
    await record.fail(new DrawbridgeError("cancelled", "The client went away."), true);
    return;
  }
  try {
    await record.answered(outcome);
  } catch (thrown) {
    // Nothing is answered that is not recorded; a stream that has begun is told so in band.
    if (!answering.streaming) throw thrown;
    answering.finish(errorText(inbound.id, DrawbridgeError.from(thrown, "audit_unavailable")));
    return;
  }
  const wrapped = inbound.method === "tools/call" && catalogue.entry(target)?.wrapped === true;
  const from = parts.identities().get(target.server);
  answering.finish(answerText(inbound.id, inbound.method, revision, underItsName(outcome, target), from, wrapped));
}

/** Sends a permitted call and waits for its outcome; undefined when there is none and the caller, if still there, was told why. */
async function sent(
  parts: Parts,
  asked: Asked,
  upstream: Upstream,
  call: PermittedCall,
  span: Span,
): Promise<Outcome | undefined> {
  const { inbound, session, record, answering, response } = asked;
  const gone = new AbortController();
  const attend = answering.whenGone(() => gone.abort());
  if (session !== undefined) {
    session.calls ??= new Map();
    session.calls.set(inbound.id, gone);
  }
  // A long call becomes a stream, so that what lies between can tell that it is alive.
  const patience = setTimeout(
    () => {
      answering.stream();
      if (answering.streaming && !answering.resumable) parts.streams.keepAlive(response);
    },
    // From then on the answer survives a lost connection.
    answering.resumable ? RESUMABLE_AFTER_MS : STREAM_AFTER_MS,
  );
  const { interaction } = parts;
  try {
    let outcome = await interaction.send(upstream, call, asked, gone);
    if (asksMore(outcome)) outcome = await interaction.settle(upstream, call, asked, gone, outcome);
    span.end(errorTypeOf(outcome));
    return outcome;
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown, "upstream_failed");
    span.end(error.code);
    // Refused as at the door: the caller's own token or scopes ended on the way, or it answers what nobody asked.
    if (REFUSED.has(error.code) && !answering.streaming) throw error;
    const told = await record.fail(error, gone.signal.aborted);
    if (answering.streaming) answering.finish(errorText(inbound.id, told));
    else if (!answering.over) sendError(response, told, inbound.id);
    return undefined;
  } finally {
    clearTimeout(patience);
    interaction.over(asked);
    attend();
    if (session?.calls?.get(inbound.id) === gone) session.calls.delete(inbound.id);
  }
}

/** MCP 2025-11-25 and later, Tools, Error Handling: a result, so that the model can correct itself. */
async function refuseArguments(
  { inbound, record, answering }: Asked,
  target: Target,
  revision: Revision,
  problems: readonly string[],
): Promise<void> {
  const text = `The arguments of ${target.name} were refused: ${problems.join("; ")}.`;
  await record.close("refused", new DrawbridgeError("invalid_params", text));
  const result = JSON.stringify({ content: [{ type: "text", text }], isError: true });
  answering.finish(answerText(inbound.id, inbound.method, revision, { kind: "result", result, value: {} }));
}

/** `error.type` of the MCP semantic conventions. */
function errorTypeOf(outcome: Outcome): string | undefined {
  if (outcome.kind === "error") return String(outcome.code);
  return outcome.value["isError"] === true ? "tool_error" : undefined;
}

const STREAM_AFTER_MS = 10_000;
const RESUMABLE_AFTER_MS = 1_000;
const REFUSED: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["unauthenticated", "insufficient_scope", "invalid_params"]);

/** What a target that does not exist and one that the caller may not use are told, both. */
export function unknownTarget(target: Target): DrawbridgeError {
  const message =
    target.kind === "resource" ? "Resource not found" : `Unknown ${target.kind}: ${target.name.slice(0, 200)}`;
  return new DrawbridgeError(
    "unknown_target",
    message,
    target.kind === "resource" ? { data: { uri: target.name } } : {},
  );
}

function argumentsOf(inbound: InboundRequest): JsonObject {
  const { arguments: args, uri } = inbound.params;
  if (args !== undefined && !isObject(args))
    throw new DrawbridgeError("invalid_params", "`arguments` must be an object.");
  return args ?? (typeof uri === "string" ? { uri } : {});
}

/** The members of `params` for the upstream: its own name for the target, and without `_meta`, which it gets anew. */
function forwarded(inbound: InboundRequest, target: Target): ReadonlyMap<string, string> {
  const members = new Map(inbound.paramTexts);
  members.delete("_meta");
  if (target.upstreamName === target.name) return members;
  const member = target.kind === "resource" ? "uri" : "name";
  const name = JSON.stringify(target.upstreamName);
  const ref = inbound.method === "completion/complete" ? memberTexts(members.get("ref") ?? "{}") : undefined;
  if (ref === undefined) members.set(member, name);
  else members.set("ref", objectText(ref.set(member, name)));
  return members;
}
