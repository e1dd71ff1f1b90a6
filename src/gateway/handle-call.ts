/**
 * The way of a call, top to bottom: aim → authorize → admit → send → shape → record → answer. Both eras and every kind of upstream pass
 * here; there is no second way to an upstream.
 */
import type { Contract } from "../contract/contract.ts";
import type { JsonObject, McpCall, Outcome, Revision, Target } from "../core/call.ts";
import { DrawbridgeError, type ErrorCode } from "../core/errors.ts";
import { answerText, errorText } from "../mcp/answers.ts";
import type { InboundRequest } from "../mcp/inbound.ts";
import { asksMore } from "../mcp/interaction.ts";
import { isObject, memberTexts, objectText } from "../mcp/json-text.ts";
import type { MethodRow } from "../mcp/methods.ts";
import { readCreated } from "../mcp/tasks.ts";
import type { Span } from "../observe/telemetry.ts";
import { permit } from "../policy/engine.ts";
import { mustMirror } from "../upstream/mirrored-headers.ts";
import { connectFirst } from "./connect-first.ts";
import { completedHere, heardUnder, sentUnder } from "./contracted-call.ts";
import { leaving, promisedBy } from "./leaving.ts";
import { meant } from "./masking/meant.ts";
import type { Asked, Parts } from "./parts.ts";
import type { TaskPlan } from "./tasks.ts";
import { underItsName } from "./ui-resources.ts";

type CallRow = Extract<MethodRow, { kind: "call" }>;

/** One call: what it is aimed at, whether the caller may, whether the arguments fit, and then the upstream's answer. */
export async function handleCall(parts: Parts, asked: Asked, row: CallRow): Promise<void> {
  const { by, inbound, headers, session, record } = asked;
  const aimed = row.target(inbound.params);
  if (aimed === undefined)
    throw new DrawbridgeError("invalid_params", `${inbound.method} must say what it is aimed at.`);
  const { catalogue } = parts;
  const capabilities = session?.capabilities ?? inbound.clientCapabilities ?? {};
  const found =
    catalogue.find(aimed.kind, aimed.name) ?? (await catalogue.resolve(aimed.kind, aimed.name, capabilities));
  const target: Target = found ?? { server: "", ...aimed, upstreamName: aimed.name, pin: undefined };
  record.aimed(target);
  const given = argumentsOf(inbound);
  const entry = found && catalogue.entry(found);
  const contract = entry?.contract;
  record.view.under(contract);
  // Policy, contract and server all see what the caller means; the record keeps what the caller wrote.
  const { args, inbound: told, refused } = await meant(parts, asked, target, contract, given);
  const decision = parts.policy.decide(by, target, {
    method: inbound.method,
    args,
    scope: row.scope,
    at: parts.clock(),
  });
  record.decided(decision);
  // What the caller may not use looks just like what does not exist, which takes a look at lists that have grown old.
  if (found !== undefined && decision.effect === "deny") await catalogue.resolve(aimed.kind, NOBODYS, capabilities);
  if (found === undefined || decision.effect === "deny") throw unknownTarget(target);
  if (decision.effect === "step-up") {
    throw scopeMissing(decision.scope);
  }
  if (refused !== undefined) throw refused;
  const revision = session?.revision ?? inbound.revision;

  let plan: TaskPlan | undefined;
  if (inbound.method === "tools/call") {
    // Steps are called one by one: the whole is no task of any server.
    if (contract?.composition === undefined) plan = entry && parts.tasks.plan(asked, target, entry.definition.value);
    if (inbound.era === "modern" && entry !== undefined) mustMirror(headers, given, entry.mirrored());
    const problems = entry && (entry.compiled ?? (await entry.compile())).check(args);
    if (problems !== undefined) return refuseArguments(asked, target, revision, problems);
  }
  // When nothing of ours refuses it any more; a round of a call was counted with the call.
  record.step("admit");
  await asked.admission.call({ target, args, rule: decision.rule }, roundOf(inbound));
  record.step("limits");
  const completed = contract && completedHere(contract, inbound);
  if (completed !== undefined) return answerHere(asked, revision, completed);
  const sent = contract
    ? sentUnder(contract, told, args, forwarded(told, target), by)
    : { method: inbound.method, forward: forwarded(told, target) };
  const whole =
    contract?.composition === undefined ? parts.upstreams.get(target.server) : parts.outcomes?.(asked, contract);
  const upstream = whole && contract?.composition === undefined && contract ? heardUnder(contract, whole) : whole;
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
      ...(target.kind === "tool" && {
        "gen_ai.tool.name": target.upstreamName,
        "gen_ai.operation.name": "execute_tool",
      }),
      ...(target.kind === "prompt" && { "gen_ai.prompt.name": target.upstreamName }),
    },
  );
  const mcpCall: McpCall = {
    id: inbound.id,
    method: sent.method,
    target,
    params: told.params,
    forward: sent.forward,
    meta: inbound.meta,
    progressToken: inbound.progressToken,
    logLevel: inbound.logLevel ?? session?.logLevel,
    revision,
    trace: span.context,
    capabilities,
    session: session?.id,
  };
  const permitted = permit(by, mcpCall, decision);
  const over = plan === undefined ? upstream : parts.tasks.over(asked, upstream, plan, args);
  const facts = { method: inbound.method, args, scope: row.scope, at: parts.clock() };
  const held = parts.approvals?.over(asked, over, { target, entry, facts }) ?? over;
  const { interaction } = parts;
  await performed(parts, asked, { span, target, method: inbound.method, contract }, async (gone) => {
    const outcome = await interaction
      .send(held, permitted, asked, gone)
      .catch((thrown) => connectFirst(thrown, permitted));
    // The server's own name of a task is for nobody to see.
    if (over === upstream && inbound.method === "tools/call" && readCreated(outcome) !== undefined)
      throw new DrawbridgeError("upstream_failed", "The server made a task of a call that was to be none.");
    return asksMore(outcome) ? interaction.settle(held, permitted, asked, gone, outcome) : outcome;
  });
}

/** What is done at upstreams, and in whose name. */
interface Deed {
  readonly span: Span;
  /** Undefined when it is about several. */
  readonly target: Target | undefined;
  readonly method: string;
  /** What it was permitted under. Default: the contract that its target has when it begins. */
  readonly contract?: Contract | undefined;
}

/** Does what was permitted, records what came of it and answers with that. */
export async function performed(
  parts: Parts,
  asked: Asked,
  { span, target, method, contract: agreed }: Deed,
  deed: (gone: AbortController) => Promise<Outcome>,
): Promise<void> {
  const { inbound, session, record, answering } = asked;
  // Looked up before anything is sent: what is withheld meanwhile has no entry any more, and its answer would leave as it came.
  const entry = target && parts.catalogue.entry(target);
  const contract = agreed ?? entry?.contract;
  record.view.under(contract);
  const promised = promisedBy(contract === undefined ? entry?.definition.value : contract.served);
  const came = await sent(parts, asked, span, deed);
  if (came === undefined) return;
  record.step("upstream");
  let outcome: Outcome;
  try {
    outcome = await leaving(parts, asked, { contract, promised }, came);
  } catch (thrown) {
    const told = await record.fail(DrawbridgeError.from(thrown), false);
    parts.interaction.unheard(came);
    if (answering.streaming) answering.finish(errorText(inbound.id, told));
    else answering.refuse(told, inbound.id);
    return;
  }
  record.step("mask");
  // A client that left its stream may come back for the answer; until then nothing was answered.
  if (!(await answering.attended())) {
    await record.fail(new DrawbridgeError("cancelled", "The client went away."), true);
    parts.interaction.unheard(came);
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
  const revision = session?.revision ?? inbound.revision;
  const ofTool = method === "tools/call" || method === "tasks/result";
  const wrapped = ofTool && entry?.wrapped === true;
  const from = target && parts.identities().get(target.server);
  const named = target === undefined ? outcome : underItsName(outcome, target);
  answering.finish(answerText(inbound.id, method, revision, named, from, wrapped));
}

/** Waits for an outcome; undefined when there is none and the caller, if still there, was told why. */
async function sent(
  parts: Parts,
  asked: Asked,
  span: Span,
  deed: (gone: AbortController) => Promise<Outcome>,
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
  try {
    const outcome = await deed(gone);
    span.end(errorTypeOf(outcome));
    return outcome;
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown, "upstream_failed");
    span.end(error.code);
    // Refused as at the door: the caller's own token or scopes ended on the way, or it answers what nobody asked.
    if (REFUSED.has(error.code) && !answering.streaming) throw error;
    const told = await record.fail(error, gone.signal.aborted);
    if (answering.streaming) answering.finish(errorText(inbound.id, told));
    else if (!answering.over) answering.refuse(told, inbound.id);
    return undefined;
  } finally {
    clearTimeout(patience);
    parts.interaction.over(asked);
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
  const text = record.view.text(`The arguments of ${target.name} were refused: ${problems.join("; ")}.`);
  await record.close("refused", new DrawbridgeError("invalid_params", text));
  const result = JSON.stringify({ content: [{ type: "text", text }], isError: true });
  answering.finish(answerText(inbound.id, inbound.method, revision, { kind: "result", result, value: {} }));
}

/** What needs no server. */
async function answerHere({ inbound, record, answering }: Asked, revision: Revision, result: string): Promise<void> {
  await record.close("permitted", undefined, result);
  const outcome = { kind: "result", result, value: JSON.parse(result) as JsonObject } as const;
  answering.finish(answerText(inbound.id, inbound.method, revision, outcome));
}

/** `error.type` of the MCP semantic conventions. */
function errorTypeOf(outcome: Outcome): string | undefined {
  if (outcome.kind === "error") return String(outcome.code);
  return outcome.value["isError"] === true ? "tool_error" : undefined;
}

const STREAM_AFTER_MS = 10_000;
const RESUMABLE_AFTER_MS = 1_000;
const REFUSED: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["unauthenticated", "insufficient_scope", "invalid_params"]);

/** No definition is called that. */
const NOBODYS = "";

/** `scope`: all that the token lacks. */
export function scopeMissing(scope: string): DrawbridgeError {
  return new DrawbridgeError(
    "insufficient_scope",
    `This needs the scope ${scope.replaceAll(" ", " and the scope ")}.`,
    {
      scope,
    },
  );
}

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

/** What a request goes on with. Only where a state that is none of ours never gets to a server. */
function roundOf({ era, method, params }: InboundRequest): string | undefined {
  const { requestState } = params;
  // The text itself and not one of its many spellings in JSON: each would be a round of its own.
  return era === "modern" && method === "tools/call" && typeof requestState === "string" ? requestState : undefined;
}

/** The members of `params` for the upstream: its own name for the target, and without `_meta`, which it gets anew. */
function forwarded(inbound: InboundRequest, target: Target): ReadonlyMap<string, string> {
  const members = new Map(inbound.paramTexts);
  members.delete("_meta");
  // Whether a call becomes a task is for us to ask.
  if (inbound.method === "tools/call") members.delete("task");
  if (target.upstreamName === target.name) return members;
  const member = target.kind === "resource" ? "uri" : "name";
  const name = JSON.stringify(target.upstreamName);
  const ref = inbound.method === "completion/complete" ? memberTexts(members.get("ref") ?? "{}") : undefined;
  if (ref === undefined) members.set(member, name);
  else members.set("ref", objectText(ref.set(member, name)));
  return members;
}
