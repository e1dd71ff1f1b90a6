/**
 * The way of a tool with steps: to the pipeline it is one more upstream, whose one call is several of others. Every call of a step has
 * the permission of the whole; what was done is undone when a later step fails, also when its client, or this process, is gone.
 */

import { field, type RecordedField, recordedPrincipal } from "../audit/record.ts";
import { type Deed, type Finished, type Hands, type StepReport, type Undone, undo } from "../contract/carry-out.ts";
import type { Contract } from "../contract/contract.ts";
import { parseExactly, withoutRaw } from "../contract/exact.ts";
import type { Projected } from "../contract/project.ts";
import type { JsonObject, JsonValue, McpCall, Outcome, PermittedCall, Replies, Target } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError, type ErrorCode } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import { asksMore, inputResponse, readInputRequired, withAnswers } from "../mcp/interaction.ts";
import { isObject, objectText } from "../mcp/json-text.ts";
import { readCreated } from "../mcp/tasks.ts";
import { stepsNotUndone, stepsRecovered } from "../observe/events.ts";
import type { Logger } from "../observe/logger.ts";
import { permit } from "../policy/engine.ts";
import type { Upstream } from "../upstream/upstream.ts";
import { MAX_ROUNDS } from "./bridged-call.ts";
import type { Asked, Parts } from "./parts.ts";
import type { About, Found, Run, Unfinished } from "./unfinished.ts";

export interface OutcomeTools {
  /** The steps of a contract as the server of a call. Its answers are shaped already. */
  over(asked: Asked, contract: Contract): Upstream;
  /** Undoes what processes that are gone have left, as far as that can be done now. */
  recover(): Promise<void>;
  /** Waits for runs to end until `deadline` aborts; what is not undone then is left to the next start, or another replica. */
  close(deadline: AbortSignal): Promise<void>;
}

export interface OutcomeToolsOptions {
  readonly parts: () => Parts;
  readonly unfinished: Unfinished;
  readonly log: Logger;
  /** How often it is looked for what others have left. */
  readonly everyMs?: number;
  /** How long after it could not be undone it is tried again. */
  readonly betweenMs?: number;
  readonly pauses?: readonly number[];
  readonly clock?: Clock;
}

const EVERY_MS = 15_000;
/** What could not be undone is tried again so often and after so long, by whoever runs then. */
const MAX_ROUNDS_LEFT = 8;
const BETWEEN_ROUNDS_MS = 60_000;
/** Names the same call to servers that want to know, so that what comes twice is done once. */
const KEY = "drawbridge/idempotency-key";
/** Refusals that say what their caller has to do. */
const TELLING: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "connection_required",
  "unauthenticated",
  "insufficient_scope",
  "cancelled",
]);

export function openOutcomeTools(options: OutcomeToolsOptions): OutcomeTools {
  const {
    parts,
    unfinished,
    log,
    pauses,
    everyMs = EVERY_MS,
    betweenMs = BETWEEN_ROUNDS_MS,
    clock = systemClock,
  } = options;
  const stopping = new AbortController();
  const running = new Set<Promise<unknown>>();
  let recovering: Promise<void> | undefined;

  const tracked = <T>(work: Promise<T>): Promise<T> => {
    running.add(work);
    const done = () => running.delete(work);
    work.then(done, done);
    return work;
  };

  function over(asked: Asked, contract: Contract): Upstream {
    const nothing = () => Promise.resolve();
    return {
      // No server is called so: nobody asks this one which revision it speaks.
      name: "",
      identity: () =>
        Promise.resolve({ revision: "2025-11-25", info: {}, capabilities: {}, instructions: undefined } as const),
      list: () => Promise.resolve([]),
      send: (permitted, replies, signal) => tracked(all(asked, contract, permitted, replies, signal)),
      subscribe: nothing,
      unsubscribe: nothing,
      state: () => ({ state: "ready", size: 0, inFlight: 0, queued: 0, restarts: 0, problem: undefined, stderr: [] }),
      close: nothing,
    };
  }

  /** All steps of one call. */
  async function all(
    asked: Asked,
    contract: Contract,
    permitted: PermittedCall,
    replies: Replies,
    signal: AbortSignal,
  ): Promise<Outcome> {
    const { name, composition, projection } = contract;
    const { call, by, rule } = permitted;
    const { record } = asked;
    if (composition === undefined) throw new DrawbridgeError("internal", "This tool has no steps.");
    const args = parseExactly(call.forward.get("arguments") ?? "{}") as JsonObject;
    const id = newId();
    const about: About = {
      tool: name,
      by,
      rule,
      revision: call.revision,
      trace: { traceId: call.trace.traceId, spanId: call.trace.spanId },
      startedAt: clock(),
      arguments: fieldOf(args, contract),
    };
    const run = unfinished.begin(id, about);
    const quiet = projection?.strict === true;
    const hands: Hands = {
      call: (deed, limit) =>
        sent(deed, { permitted, replies: deed.undoes ? SILENT : heard(replies, quiet), asked }, limit),
      keep: (plan) => run.keep(plan),
      commit: () => run.commit(),
      shape: (value) => (projection === undefined ? plainly(value) : projection.document(value)),
      told: (outcome) => (quiet || projection === undefined ? undefined : wordsOf(outcome)),
      progress(at, of, step) {
        const { progressToken } = call;
        if (progressToken === undefined) return;
        const params = JSON.stringify({ progressToken, progress: at, total: of, message: step });
        replies.notify({ method: "notifications/progress", params });
      },
    };
    const cancelled = AbortSignal.any([signal, run.lost, stopping.signal]);
    const finished = await composition.run({ args, principal: by }, hands, {
      name,
      run: id,
      signal: cancelled,
      stop: stopping.signal,
      clock,
      ...(pauses !== undefined && { pauses }),
    });
    if (finished.kind === "failed") await settled(run, about, finished.undone, 0);
    else await run.forget().catch(() => {});
    const details = {
      ...detailsOf(id, finished.steps, contract),
      ...(finished.kind === "failed" && leftOf(finished.undone)),
    };
    if (!record.did(details)) await recordLater(about, details, finished, record.link);
    if (finished.kind === "done") {
      const { result, value } = finished.projected;
      return { kind: "result", result, value };
    }
    log.warn({ tool: name, run: id, reason: finished.detail }, "a tool with steps failed");
    const { thrown, undone } = finished;
    const clean = undone.left.length + undone.stays.length + undone.unsure.length === 0;
    if (clean && thrown instanceof DrawbridgeError && TELLING.has(thrown.code)) throw thrown;
    const value: JsonObject = { content: [{ type: "text", text: finished.message }], isError: true };
    return { kind: "result", result: JSON.stringify(value), value };
  }

  /** One call of a step to its server. */
  async function sent(deed: Deed, { permitted, replies, asked }: Sending, limit: AbortSignal): Promise<Outcome> {
    const { catalogue, upstreams, telemetry, tasks } = parts();
    if (stopping.signal.aborted) throw new DrawbridgeError("overloaded", "The gateway is being stopped.");
    const pinned = await catalogue.pinned(deed.server, deed.tool);
    const upstream = upstreams.get(deed.server);
    if (pinned === undefined || upstream === undefined || pinned.pin !== deed.pin)
      throw new DrawbridgeError("unknown_target", "What the step calls is not there as it was.", {
        detail: `${deed.server}/${deed.tool} is gone or held, or was accepted in another form`,
      });
    const span = telemetry.begin(`tools/call ${deed.tool}`, "client", permitted.call.trace, {
      "mcp.method.name": "tools/call",
      "server.address": deed.server,
      "gen_ai.tool.name": deed.tool,
      "drawbridge.step": deed.undoes ? `undo ${deed.step}` : deed.step,
    });
    const target: Target = {
      server: deed.server,
      kind: "tool",
      name: permitted.call.target.name,
      upstreamName: deed.tool,
      pin: deed.pin,
    };
    const text = JSON.stringify(deed.arguments);
    const args = withoutRaw(deed.arguments) as JsonObject;
    const call: McpCall = {
      ...permitted.call,
      method: "tools/call",
      target,
      params: { name: deed.tool, arguments: args },
      forward: new Map([
        ["name", JSON.stringify(deed.tool)],
        ["arguments", text],
      ]),
      meta: new Map(permitted.call.meta).set(KEY, JSON.stringify(deed.key)),
      progressToken: undefined,
      trace: span.context,
      ...(deed.undoes && { capabilities: {} }),
    };
    const signal = AbortSignal.any([limit, stopping.signal]);
    // Permitted as the whole is: what its steps are the contract says, which only the operator writes.
    const own: PermittedCall = { ...permitted, call };
    // A tool that is a task or nothing is run to its end; what the client wants of the whole is not asked of its steps.
    const alone = asked && { ...asked, inbound: { ...asked.inbound, params: {} } };
    const plan = alone && tasks.plan(alone, target, pinned.value);
    const over =
      plan === undefined || alone === undefined
        ? upstream
        : tasks.over(alone, upstream, { ...plan, wanted: false }, args);
    try {
      const outcome = await answered(over, own, replies, signal);
      if (readCreated(outcome) !== undefined)
        throw new DrawbridgeError("upstream_failed", "The server made a task of a step.");
      span.end(
        outcome.kind === "error" ? String(outcome.code) : outcome.value["isError"] === true ? "tool_error" : undefined,
      );
      return outcome;
    } catch (thrown) {
      span.end(DrawbridgeError.from(thrown, "upstream_failed").code);
      throw thrown;
    }
  }

  /**
   * What is left of a run that failed is tried again later, by whoever is there then; or it is the operator's, and nobody's any more.
   * `record`: writes down what was undone, before that is forgotten.
   */
  async function settled(
    run: Run,
    { tool, trace }: About,
    undone: Undone,
    rounds: number,
    record: () => Promise<unknown> = () => Promise.resolve(),
  ): Promise<void> {
    // Whoever has taken it does all this, too.
    if (run.lost.aborted) return;
    const { left, stays, unsure, rest } = undone;
    const undoable = rest.some(({ undo: deed }) => deed !== undefined);
    const again = undoable && (stopping.signal.aborted || rounds < MAX_ROUNDS_LEFT);
    if (!again || undone.undone.length > 0) await record();
    if (!again) {
      const steps = [...left.map(({ step }) => step), ...stays];
      if (rest.length > 0) stepsNotUndone(log, { tool, run: run.id, traceId: trace.traceId, steps, unsure });
    }
    try {
      if (!again) return await run.forget();
      await run.keep(rest);
      await run.leave(stopping.signal.aborted ? 0 : clock() + betweenMs);
    } catch (error) {
      // A row that stays has somebody undo once more what is undone: that is why an undo must bear it.
      log.error({ run: run.id, tool, error }, "the end of a run of steps could not be written down");
    }
  }

  async function recoverAll(): Promise<void> {
    if (stopping.signal.aborted) return;
    try {
      for await (const found of unfinished.abandoned()) await tracked(recovered(found));
    } catch (error) {
      log.warn({ error }, "runs of steps that were left could not be looked for");
    }
  }

  async function recovered({ about, plan, rounds, run }: Found): Promise<void> {
    const { tool, by, rule, revision } = about;
    const span = parts().telemetry.begin(`undo ${tool}`, "client", undefined, { "gen_ai.tool.name": tool });
    const call: McpCall = {
      id: run.id,
      method: "tools/call",
      target: { server: "", kind: "tool", name: tool, upstreamName: tool, pin: undefined },
      params: {},
      forward: new Map(),
      meta: new Map(),
      progressToken: undefined,
      logLevel: undefined,
      revision,
      trace: span.context,
      capabilities: {},
      session: undefined,
    };
    // It was permitted when it was begun; taking it back is a part of it.
    const permitted = permit(by, call, { effect: "permit", reason: "permitted_by_rule", rule });
    const hands = {
      call: (deed: Deed, limit: AbortSignal) => sent(deed, { permitted, replies: SILENT, asked: undefined }, limit),
      keep: run.keep,
    };
    const undone = await undo(plan, hands, { clock, stop: stopping.signal, ...(pauses !== undefined && { pauses }) });
    span.end(undone.left.length > 0 ? "tool_error" : undefined);
    if (undone.undone.length > 0) stepsRecovered(log, { tool, run: run.id, steps: undone.undone });
    const target = parts().catalogue.find("tool", tool);
    const contract = target && parts().catalogue.entry(target)?.contract;
    const details = { ...detailsOf(run.id, undone.steps, contract), recovered: true, ...leftOf(undone) };
    await settled(run, about, undone, rounds + 1, () => recordLater(about, details, undefined, undefined));
  }

  /** A run whose call is recorded already, or whose gateway is gone, has a record of its own. */
  async function recordLater(
    { tool, by, revision, trace, startedAt, arguments: args }: About,
    details: JsonObject,
    finished: Finished | undefined,
    link: { readonly id: string; readonly round: number } | undefined,
  ): Promise<void> {
    const { journal, replica, masking } = parts();
    const message =
      finished === undefined
        ? "The gateway ended in the middle of the call."
        : finished.kind === "failed"
          ? masking.recordedText(finished.message)
          : undefined;
    try {
      await journal.append({
        id: newId(startedAt),
        kind: "call",
        at: startedAt,
        durationMs: clock() - startedAt,
        outcome: finished?.kind === "done" ? "permitted" : finished === undefined ? "abandoned" : "failed",
        ...(message !== undefined && { error: { code: "upstream_failed", message } }),
        principal: recordedPrincipal(by),
        call: { method: "tools/call", revision, kind: "tool", name: tool },
        ...(args !== undefined && { arguments: args }),
        trace,
        replica,
        details: { ...details, ...(link !== undefined && { interaction: { ...link } }) },
      });
    } catch (error) {
      log.error({ error, tool }, "what became of a run of steps was not recorded");
    }
  }

  function detailsOf(run: string, steps: readonly StepReport[], contract: Contract | undefined): JsonObject {
    return {
      run,
      steps: steps.map(
        ({ step, server, tool, pin, undoes, outcome, durationMs, arguments: args, attempts, detail }) => ({
          step,
          ...(undoes && { undo: true }),
          server,
          tool,
          ...(pin !== undefined && { pin }),
          outcome,
          durationMs,
          ...(args !== undefined && recordedArguments(args, contract)),
          ...(attempts !== undefined && { attempts }),
          ...(detail !== undefined && { detail: parts().masking.recordedText(detail).slice(0, 1000) }),
        }),
      ),
    };
  }

  function fieldOf(args: JsonObject, contract: Contract | undefined): RecordedField | undefined {
    const { auditFields, masking } = parts();
    const text = JSON.stringify(args);
    const masked = auditFields.arguments === "full" ? masking.recorded(text, contract) : text;
    return field(masked ?? text, masked === undefined ? "hash" : auditFields.arguments, auditFields.maxFieldBytes);
  }
  function recordedArguments(args: JsonObject, contract: Contract | undefined): JsonObject {
    const kept = fieldOf(args, contract);
    if (kept === undefined) return {};
    return { arguments: "json" in kept ? { json: JSON.parse(kept.json) as JsonObject } : { ...kept } };
  }

  const recover = () => {
    recovering ??= recoverAll().finally(() => {
      recovering = undefined;
    });
    return recovering;
  };
  const looking = setInterval(() => void recover(), everyMs);
  looking.unref();

  return {
    over,
    recover,
    async close(deadline) {
      clearInterval(looking);
      const over = () => Promise.allSettled([...running]);
      const late = Promise.withResolvers<void>();
      if (deadline.aborted) late.resolve();
      deadline.addEventListener("abort", () => late.resolve(), { once: true });
      await Promise.race([over(), late.promise]);
      stopping.abort();
      // What is under way ends at once, since nothing is sent any more, and leaves the rest to others.
      await over();
      await recovering;
    },
  };
}

interface Sending {
  /** The call that the step is a part of. */
  readonly permitted: PermittedCall;
  readonly replies: Replies;
  /** Undefined when there is no request any more. */
  readonly asked: Asked | undefined;
}

/** Sends a step's call, and puts what a server of 2026-07-28 asks in its answer to the client, until it asks nothing. */
async function answered(
  upstream: Upstream,
  permitted: PermittedCall,
  replies: Replies,
  signal: AbortSignal,
): Promise<Outcome> {
  let outcome = await upstream.send(permitted, replies, signal);
  for (let round = 1; asksMore(outcome); round++) {
    const asks = readInputRequired(outcome);
    if (asks === undefined || replies.ask === undefined || round > MAX_ROUNDS)
      throw new DrawbridgeError("invalid_params", "The server needs something of the client that it cannot be given.");
    const responses = new Map<string, string>();
    for (const [key, question] of asks.requests) {
      const answer = await replies.ask(question, signal);
      const response = inputResponse(question, answer);
      if (response === undefined)
        throw new DrawbridgeError("invalid_params", `The client did not answer ${question.method}.`);
      responses.set(key, response);
    }
    const { call } = permitted;
    const forward = withAnswers(
      call.forward,
      responses.size === 0 ? undefined : objectText(responses),
      asks.state === undefined ? undefined : JSON.stringify(asks.state),
    );
    outcome = await upstream.send({ ...permitted, call: { ...call, forward } }, replies, signal);
  }
  return outcome;
}

const SILENT: Replies = { notify: () => {} };

/** What a step's server says meanwhile, for the client: how far it is only the steps say, and words where the contract has no say. */
function heard(replies: Replies, quiet: boolean): Replies {
  return {
    notify(said) {
      if (!quiet && said.method !== "notifications/progress") replies.notify(said);
    },
    ...(replies.ask !== undefined && { ask: replies.ask.bind(replies) }),
    sentWith: (credential) => replies.sentWith?.(credential),
  };
}

function plainly(value: JsonValue): Projected {
  // MCP 2025-11-25 and before: structured content is an object.
  const document = isObject(value) ? value : { result: value };
  const text = JSON.stringify(document);
  const whole: JsonObject = { content: [{ type: "text", text }], structuredContent: document };
  return { result: JSON.stringify(whole), value: whole, cut: [], withheld: undefined };
}

const MAX_WORDS = 1000;

function wordsOf(outcome: Outcome): string | undefined {
  if (outcome.kind === "error") return outcome.message.slice(0, MAX_WORDS);
  const content = Array.isArray(outcome.value["content"]) ? (outcome.value["content"] as JsonObject[]) : [];
  const texts = content.flatMap((block) => (typeof block?.["text"] === "string" ? [block["text"]] : []));
  return texts.length === 0 ? undefined : texts.join("\n").slice(0, MAX_WORDS);
}

function leftOf({ left, stays, unsure }: Undone): JsonObject {
  return {
    ...(left.length > 0 && { notUndone: left.map(({ step }) => step) }),
    ...(stays.length > 0 && { stays: [...stays] }),
    ...(unsure.length > 0 && { unsure: [...unsure] }),
  };
}
