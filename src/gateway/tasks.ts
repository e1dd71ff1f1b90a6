/**
 * Tasks (2025-11-25, and the extension of 2026-07-28), whatever client and server make of them: a call that becomes a task, and what
 * its client asks about it later. A client knows a task by a name of ours, which is good for the user and client that made it, and
 * only while they may call the tool. A tool that can only be called as a task is run to its end for those who know of no tasks.
 */
import type {
  Authenticated,
  JsonObject,
  McpCall,
  Outcome,
  PermittedCall,
  Question,
  Replies,
  Target,
  TraceContext,
} from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import type { Decision } from "../core/decision.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newToken } from "../core/ids.ts";
import { notificationText } from "../mcp/answers.ts";
import {
  answerProblem,
  covers,
  legacyAnswer,
  readInputResponses,
  readRequiredCapabilities,
} from "../mcp/interaction.ts";
import { isObject, memberTexts, objectText } from "../mcp/json-text.ts";
import { CALL_SCOPE, type Era } from "../mcp/methods.ts";
import type { Session } from "../mcp/sessions.ts";
import {
  acceptsTasks,
  hidden,
  isOver,
  MAX_TASK_MS,
  makesTasks,
  readCreated,
  readTask,
  relatedTo,
  TASKS_REQUIRED,
  type Task,
  taskGone,
  taskMembers,
  taskSupport,
  underOurName,
} from "../mcp/tasks.ts";
import type { Logger } from "../observe/logger.ts";
import { permit } from "../policy/engine.ts";
import type { Records } from "../store/ports.ts";
import type { Upstream, UpstreamIdentity } from "../upstream/upstream.ts";
import { performed, scopeMissing } from "./handle-call.ts";
import { type KeptTask, lifetimeOf, openKeptTasks, TOKEN } from "./kept-tasks.ts";
import { type Mailbox, noMailbox, openMailbox } from "./mailbox.ts";
import type { Asked, Parts } from "./parts.ts";
import type { Seals } from "./sealed-state.ts";
import {
  abandon,
  askFor,
  cancelledOutcome,
  finish,
  isUnknownTask,
  resultOf,
  stateOf,
  TaskDialogue,
  type Work,
} from "./task-work.ts";

export interface Tasks {
  /** What is to become of a tool call. Throws `unknown_method` when its client wants a task and the tool makes none. */
  plan(asked: Asked, target: Target, definition: JsonObject): TaskPlan;
  /** The server of a call as that call is to see it: what it answers is a result, or a task under our name. */
  over(asked: Asked, upstream: Upstream, plan: TaskPlan, args: JsonObject): Upstream;
  /** `tasks/…`: answers, and closes the record. */
  answer(asked: Asked): Promise<void>;
  /** A server told in `params`, JSON text, of a task's state; the session that made the task is told. */
  statusChanged(server: string, params: string): void;
  /** Nothing is waited for any more. */
  close(): Promise<void>;
}

/** What is to become of a tool call. */
export interface TaskPlan {
  /** The form in which the server speaks of tasks; undefined when it makes none of this tool. */
  readonly era: Era | undefined;
  /** The client gets a task. */
  readonly wanted: boolean;
  /** The server is asked for one. */
  readonly asTask: boolean;
  /** How long the client wants it to be kept. */
  readonly ttlMs: number | undefined;
}

export interface TasksOptions {
  readonly records: Records;
  /** Shared by the replicas; undefined when there can be only this process. */
  readonly shared: Records | undefined;
  readonly seals: Seals;
  readonly replica: string;
  /** How long a call of a server may take. */
  readonly maxCallSeconds: (server: string) => number;
  readonly parts: () => Parts;
  readonly log: Logger;
  readonly clock?: Clock;
}

const NO_TASK: TaskPlan = { era: undefined, wanted: false, asTask: false, ttlMs: undefined };
/** How long a server is asked to keep a task whose client did not say. */
const KEPT_MS = 3_600_000;
/** Results that came at once and are kept here for a client that wanted a task. */
const MAX_KEPT_LENGTH = 4 << 20;
/** Arguments are kept with a task, since what a role may do can depend on them. */
const MAX_ARGUMENTS_LENGTH = 256 << 10;
const MAX_TOLD = 5_000;
const ELSEWHERE_MS = 30_000;
/** What a server of 2026-07-28 says beside the state of a task. */
const DETAILS = ["result", "error", "inputRequests", "_meta"];

/** What replicas write to each other. */
type Letter =
  | {
      readonly kind: "ask";
      readonly id: string;
      readonly from: string;
      readonly by: Authenticated;
      readonly task: string;
      readonly method: string;
      readonly responses: string | undefined;
      readonly trace: TraceContext;
    }
  | { readonly kind: "said"; readonly id: string; readonly outcome: Outcome | undefined; readonly message: string };

/** Who is asked about a task, and for whom. */
interface About {
  readonly by: Authenticated;
  readonly task: KeptTask;
  /** The call that made it, permitted anew. */
  readonly permitted: PermittedCall;
  /** Of the client. */
  readonly era: Era;
  readonly signal: AbortSignal;
}

/** What the state of a task must have, and no words of its server. */
const WORDLESS: ReadonlySet<string> = new Set(
  "taskId status createdAt lastUpdatedAt ttl ttlMs pollInterval pollIntervalMs".split(" "),
);

export function openTasks(options: TasksOptions): Tasks {
  const { seals, replica, shared, log, maxCallSeconds, clock = systemClock } = options;
  const kept = openKeptTasks(options.records, seals, clock);
  const dialogues = new Map<string, TaskDialogue>();
  /** Sessions that made tasks, by what their server calls them; undefined where two are called the same. */
  const makers = new Map<string, { readonly session: Session; readonly task: KeptTask } | undefined>();
  const awaited = new Map<string, (letter: Letter & { kind: "said" }) => void>();
  const addressOf = (of: string) => `${of}:tasks`;
  const mailbox: Mailbox =
    shared === undefined
      ? noMailbox
      : openMailbox({
          records: shared,
          seals,
          address: addressOf(replica),
          log,
          deliver: (letter) => received(letter as Letter),
        });
  /** Others may ask for the tasks that are only here. */
  const attended = new Map<string, () => void>();

  // ---- calls ----

  function plan({ inbound, session }: Asked, target: Target, definition: JsonObject): TaskPlan {
    const { params } = inbound;
    const revision = session?.revision ?? inbound.revision;
    const asks = revision === "2025-11-25" && isObject(params["task"]);
    if (target.server === "") return NO_TASK;
    const identity = options.parts().identities().get(target.server);
    const era: Era = identity?.revision === "2026-07-28" ? "modern" : "legacy";
    const support = era === "modern" ? "optional" : taskSupport(definition);
    const makes = identity !== undefined && makesTasks(identity.capabilities, era) && support !== "forbidden";
    if (!makes) {
      // 2025-11-25, Tool-Level Negotiation. Where no server makes tasks we said that we do not, and the wish is ignored.
      if (asks && anyMakesTasks(options.parts().identities()))
        throw new DrawbridgeError("unknown_method", "This tool cannot be called as a task.");
      return NO_TASK;
    }
    const accepts = inbound.era === "modern" && acceptsTasks(inbound.clientCapabilities);
    const wanted = asks || (accepts && (era === "modern" || support === "required"));
    const ttl = isObject(params["task"]) ? params["task"]["ttl"] : undefined;
    return {
      era,
      wanted,
      asTask: wanted || (era === "legacy" && support === "required"),
      ttlMs: asks && typeof ttl === "number" && ttl >= 0 ? Math.min(ttl, MAX_TASK_MS) : undefined,
    };
  }

  function over(
    asked: Asked,
    upstream: Upstream,
    { era, wanted, asTask, ttlMs }: TaskPlan,
    args: JsonObject,
  ): Upstream {
    if (era === undefined) return upstream;
    const { by, session } = asked;
    const clientEra = asked.inbound.era;

    async function send(permitted: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome> {
      if (wanted) {
        if ((permitted.call.forward.get("arguments")?.length ?? 0) > MAX_ARGUMENTS_LENGTH)
          throw new DrawbridgeError(
            "invalid_params",
            `The arguments of a task may have ${MAX_ARGUMENTS_LENGTH} characters.`,
          );
        await kept.admit(by);
      }
      let process: string | undefined;
      const own: Replies = {
        notify: (notification) => replies.notify(notification),
        ...(replies.ask !== undefined && { ask: replies.ask.bind(replies) }),
        sentWith: (credential) => replies.sentWith?.(credential),
        servedBy(name) {
          process = name;
        },
      };
      let outcome = await upstream.send(asTask ? forTask(permitted) : permitted, own, signal);
      // A server of 2026-07-28 that can do this only as a task says so before it does anything.
      if (!asTask && needsTasks(outcome)) outcome = await upstream.send(forTask(permitted), own, signal);
      const made = readCreated(outcome);
      if (made === undefined) return wanted ? atOnce(permitted, outcome) : outcome;
      const work: Work = { upstream, permitted, era: era ?? "legacy", name: made.id, process, id: undefined };
      try {
        if (wanted) return await handed(work, made, outcome);
        const until = clock() + maxCallSeconds(upstream.name) * 1000;
        const came = await finish(work, { replies: own, signal, until, clock });
        if (readCreated(came) !== undefined)
          throw new DrawbridgeError("upstream_failed", "The server's task ended in another task.");
        return underOurName(relatedTo(came, undefined), made.id, "the task");
      } catch (thrown) {
        void abandon(work);
        throw thrown;
      }
    }

    function forTask(permitted: PermittedCall): PermittedCall {
      const { call } = permitted;
      if (era === "modern") return { ...permitted, call: { ...call, task: { accepted: true } } };
      const forward = new Map(call.forward).set("task", `{"ttl":${ttlMs ?? KEPT_MS}}`);
      return { ...permitted, call: { ...call, forward } };
    }

    const description = ({ call }: PermittedCall) => ({
      server: call.target.server,
      tool: call.target.name,
      upstreamName: call.target.upstreamName,
      pin: call.target.pin,
      args,
      capabilities: call.capabilities,
      session: session?.id,
      replica,
      createdAt: clock(),
    });

    /** The task is the client's from now on. */
    async function handed(work: Work, made: Task, outcome: Outcome): Promise<Outcome> {
      const endsAt = clock() + lifetimeOf(made.ttlMs);
      const { era: its, name, process } = work;
      const task = await kept.keep(by, { ...description(work.permitted), era: its, name, process, endsAt });
      asked.record.task(task.id);
      if (process !== undefined || its === "legacy") await attend(task);
      if (session !== undefined && its === "legacy") {
        if (makers.size >= MAX_TOLD) for (const [oldest] of makers) if (makers.delete(oldest)) break;
        const key = `${task.server}\n${name}`;
        makers.set(key, makers.has(key) ? undefined : { session, task });
      }
      return createdAnswer(made, task, outcome);
    }

    /** A server of 2026-07-28 may answer at once what a client of 2025-11-25 wanted a task for. */
    async function atOnce(permitted: PermittedCall, outcome: Outcome): Promise<Outcome> {
      const asks = outcome.kind === "result" && (outcome.value["resultType"] ?? "complete") !== "complete";
      if (clientEra === "modern" || outcome.kind === "error" || asks) return outcome;
      if (outcome.result.length > MAX_KEPT_LENGTH)
        throw new DrawbridgeError("answer_too_large", "The answer is too large to be kept for a task.");
      const endsAt = clock() + Math.min(ttlMs ?? KEPT_MS, KEPT_MS);
      const its = { ...description(permitted), era: "modern" as const, name: undefined, process: undefined, outcome };
      const task = await kept.keep(by, { ...its, endsAt });
      asked.record.task(task.id);
      return createdAnswer(ended(task), task, { kind: "result", result: "{}", value: {} });
    }

    function createdAnswer(made: Task, task: KeptTask, outcome: Outcome): Outcome {
      const members = membersFor(made, task, clientEra);
      const told = outcome.kind === "result" && !isQuiet(task) ? memberTexts(outcome.result) : undefined;
      const meta = told?.get("_meta");
      const after: [string, string][] = meta === undefined ? [] : [["_meta", meta]];
      const result =
        clientEra === "legacy"
          ? objectText(new Map([["task", objectText(members)], ...after]))
          : objectText(new Map([["resultType", '"task"'], ...members, ...after]));
      return resultOutcome(result);
    }

    return Object.create(upstream, { send: { value: send } }) as Upstream;
  }

  function membersFor(state: Task, task: KeptTask, era: Era, status = state.status): Map<string, string> {
    const ttlMs = task.endsAt - task.createdAt;
    const members = taskMembers(state, task.id, era, { status, ttlMs, now: task.createdAt });
    return isQuiet(task) ? new Map([...members].filter(([name]) => WORDLESS.has(name))) : members;
  }

  /** Whether its tool's contract names what leaves, and so none of its server's words do. Of a tool that is gone nobody can say. */
  function isQuiet({ tool }: KeptTask): boolean {
    const { catalogue } = options.parts();
    const target = catalogue.find("tool", tool);
    const entry = target && catalogue.entry(target);
    return entry === undefined || entry.contract?.projection?.strict === true;
  }

  // ---- what is asked about tasks ----

  async function answer(asked: Asked): Promise<void> {
    const parts = options.parts();
    const { by, inbound, session, record } = asked;
    const { era, method } = inbound;
    if (era === "modern" && !acceptsTasks(inbound.clientCapabilities)) throw tasksRequired();
    if (era === "legacy" && (session?.revision ?? inbound.revision) !== "2025-11-25")
      throw new DrawbridgeError("unknown_method", "Method not found");
    if (!by.scopes.includes(CALL_SCOPE)) throw scopeMissing(CALL_SCOPE);
    if (method === "tasks/list") return list(parts, asked);
    const id = inbound.params["taskId"];
    if (typeof id !== "string") throw new DrawbridgeError("invalid_params", `${method} needs a \`taskId\`, a string.`);
    const task = await kept.find(by, id);
    const allowed = task && (await allow(parts, by, task));
    if (allowed !== undefined) {
      record.aimed(allowed.target);
      record.decided(allowed.decision);
    }
    if (allowed?.decision.effect === "step-up") throw scopeMissing(allowed.decision.scope);
    // Whoever may not call the tool any more is told what strangers are told.
    if (task === undefined || allowed?.decision.effect !== "permit") throw unknownTask();
    record.task(task.id);
    const { decision } = allowed;
    parts.journal.check();
    const span = parts.telemetry.begin(`${method} ${task.tool}`, "client", record.trace, {
      "mcp.method.name": method,
      "server.address": task.server,
      "gen_ai.tool.name": task.upstreamName,
    });
    const call = callOf(task, allowed.target, inbound.id, span.context);
    const permitted = permit(by, { ...call, meta: inbound.meta }, decision);
    await performed(parts, asked, { span, target: allowed.target, method }, async (gone) => {
      const about: About = { by, task, permitted, era, signal: gone.signal };
      const responses = inbound.paramTexts.get("inputResponses");
      if (method !== "tasks/result") return perform(about, method, responses);
      const upstream = upstreamOf(task);
      const waits = Object.create(upstream, {
        send: { value: (_: PermittedCall, replies: Replies) => result(about, replies) },
      }) as Upstream;
      // What is asked meanwhile is asked on this request, of a client that can do what this session can.
      const capabilities = session?.capabilities ?? {};
      const asking = { ...permitted, call: { ...permitted.call, capabilities } };
      return parts.interaction.send(waits, asking, asked, gone);
    });
  }

  async function allow(
    parts: Parts,
    by: Authenticated,
    task: KeptTask,
  ): Promise<{ readonly target: Target; readonly decision: Decision } | undefined> {
    const { catalogue, policy } = parts;
    const target = catalogue.find("tool", task.tool) ?? (await catalogue.resolve("tool", task.tool, task.capabilities));
    // The tool that is called so today may be another.
    if (target?.server !== task.server || target.upstreamName !== task.upstreamName || target.pin !== task.pin)
      return undefined;
    const decision = policy.decide(by, target, {
      method: "tools/call",
      args: task.args,
      scope: CALL_SCOPE,
      at: clock(),
    });
    return { target, decision };
  }

  function callOf(task: KeptTask, target: Target, id: McpCall["id"], trace: TraceContext): McpCall {
    return {
      id,
      method: "tools/call",
      target,
      params: {},
      forward: new Map(),
      meta: new Map(),
      progressToken: undefined,
      logLevel: undefined,
      revision: task.era === "modern" ? "2026-07-28" : "2025-11-25",
      trace,
      capabilities: task.capabilities,
      session: task.session,
    };
  }

  function upstreamOf({ server }: KeptTask): Upstream {
    const upstream = options.parts().upstreams.get(server);
    if (upstream !== undefined) return upstream;
    throw new DrawbridgeError("upstream_unavailable", "The server behind this is not available.");
  }

  /** How the server of a task is reached from here. Another replica that has it speaks as a server of 2026-07-28 does. */
  function workOf({ by, task, permitted, era }: About): Work {
    const { name = "", process, id } = task;
    const here = { upstream: upstreamOf(task), permitted, era: task.era, name, process, id };
    const dialogue = task.era === "legacy" && era === "modern";
    if (task.replica === replica || (process === undefined && !dialogue)) return here;
    const send = async (sent: PermittedCall, _: Replies, signal: AbortSignal) => {
      const said = await elsewhere(by, task, sent.call, signal);
      if (said !== undefined) return said;
      // Over HTTP the task is its server's, and whoever asks may ask for it.
      if (process !== undefined) throw taskGone();
      const { method, forward } = sent.call;
      return perform({ by, task: { ...task, replica }, permitted, era, signal }, method, forward.get("inputResponses"));
    };
    return {
      ...here,
      upstream: Object.create(here.upstream, { send: { value: send } }) as Upstream,
      era: "modern",
      name: id,
      process: undefined,
    };
  }

  /** Answers one request about a task in the words of the client's era. */
  async function perform(about: About, method: string, responses: string | undefined): Promise<Outcome> {
    const { by, task } = about;
    try {
      const outcome = await (method === "tasks/get"
        ? get(about)
        : method === "tasks/cancel"
          ? cancel(about)
          : update(about, responses));
      return underOurName(outcome, task.name ?? "", task.id);
    } catch (thrown) {
      if (thrown instanceof DrawbridgeError && thrown.message === taskGone().message) await kept.forget(by, task.id);
      throw thrown;
    }
  }

  async function get(about: About): Promise<Outcome> {
    const { by, task, era, signal } = about;
    if (task.cancelled) return stateFor(about, ended(task), false);
    const known = task.outcome ?? dialogues.get(task.id)?.outcome;
    if (known !== undefined) return resultFor(about, ended(task, known), known);
    const work = workOf(about);
    const state = await stateOf(work, signal);
    if ("kind" in state) return state;
    if (isOver(state.task)) await left(by, task);
    if (era === "legacy" || work.era === "modern") return stateFor(about, state.task, work.era === "modern");
    if (state.task.status === "completed" || state.task.status === "failed")
      return resultFor(about, state.task, await resultOf(work, state.task, state.outcome, signal));
    return state.task.status === "input_required"
      ? asking(about, work, state.task)
      : stateFor(about, state.task, false);
  }

  /** A server with a handshake waits for its client, which has asked how the task is. */
  async function asking(about: About, work: Work, state: Task): Promise<Outcome> {
    const { id } = about.task;
    let dialogue = dialogues.get(id);
    if (dialogue === undefined || dialogue.over) {
      const begun = new TaskDialogue(work);
      dialogue = begun;
      dialogues.set(id, begun);
      setTimeout(() => {
        begun.close();
        if (dialogues.get(id) === begun) dialogues.delete(id);
      }, about.task.endsAt - clock()).unref();
    }
    const questions = await dialogue.questions();
    const { outcome } = dialogue;
    if (outcome !== undefined) return resultFor(about, ended(about.task, outcome), outcome);
    // It will ask in a moment, or somebody has answered.
    if (questions.size === 0) return stateFor(about, { ...state, status: "working" }, false);
    const texts = new Map([...questions].map(([key, question]) => [key, questionObject(question)]));
    return resultOutcome(objectText(membersFor(state, about.task, about.era).set("inputRequests", objectText(texts))));
  }

  /** The state of a task as its client is told it. `detailed`: by a server of 2026-07-28, with what came of it or is asked. */
  function stateFor({ task, era }: About, state: Task, detailed: boolean): Outcome {
    const { members } = state;
    if (era === "modern") {
      const told = membersFor(state, task, era);
      for (const name of detailed ? DETAILS : []) {
        const text = members.get(name);
        if (text !== undefined) told.set(name, name === "result" ? text : hidden(text, state.id, task.id));
      }
      return resultOutcome(objectText(told));
    }
    // The extension calls a task completed whose tool says that it failed.
    const failed = detailed && state.status === "completed" && isErrorResult(JSON.parse(members.get("result") ?? "{}"));
    return resultOutcome(objectText(membersFor(state, task, era, failed ? "failed" : state.status)));
  }

  /** The state of a task that has ended with this outcome. */
  function resultFor(about: About, state: Task, outcome: Outcome): Outcome {
    const { task, era } = about;
    if (era === "legacy") return stateFor(about, state, false);
    const told = membersFor(state, task, era, outcome.kind === "result" ? "completed" : "failed");
    const own = underOurName(relatedTo(outcome, undefined), task.name ?? "", task.id);
    if (own.kind === "result") told.set("result", own.result);
    else told.set("error", errorObject(own));
    return resultOutcome(objectText(told));
  }

  async function cancel(about: About): Promise<Outcome> {
    const { by, task, era, signal } = about;
    dialogues.get(task.id)?.close();
    dialogues.delete(task.id);
    const acknowledged = resultOutcome("{}");
    if (task.name === undefined || task.cancelled) return era === "legacy" ? alreadyOver(ended(task)) : acknowledged;
    const work = workOf(about);
    if (era === "modern") {
      const outcome = await askFor(work, "tasks/cancel", signal);
      if (outcome.kind === "result") await left(by, task);
      // A server of 2025-11-25 refuses to cancel what is over, which the extension has no word for.
      return outcome.kind === "error" && work.era === "legacy" && isUnknownTask(outcome) ? acknowledged : outcome;
    }
    if (work.era === "legacy") {
      const outcome = await askFor(work, "tasks/cancel", signal);
      const state = readTask(outcome);
      if (state === undefined) return outcome;
      await left(by, task);
      return stateFor(about, state, false);
    }
    const state = await stateOf(work, signal);
    if ("kind" in state) return state;
    if (isOver(state.task)) return alreadyOver(state.task);
    const outcome = await askFor(work, "tasks/cancel", signal);
    if (outcome.kind === "error") return outcome;
    // 2025-11-25, Task Cancellation: cancelled it stays, whatever its server makes of it.
    await kept.cancelled(by, task);
    return stateFor(about, { ...state.task, status: "cancelled" }, false);
  }

  async function update(about: About, text: string | undefined): Promise<Outcome> {
    const { task, signal } = about;
    if (text === undefined)
      throw new DrawbridgeError("invalid_params", "tasks/update needs `inputResponses`, an object.");
    const responses = readInputResponses(text);
    const acknowledged = resultOutcome("{}");
    if (task.name === undefined || task.cancelled) return acknowledged;
    const work = workOf(about);
    if (work.era === "modern") return askFor(work, "tasks/update", signal, { more: [["inputResponses", text]] });
    const dialogue = dialogues.get(task.id);
    for (const [key, response] of responses) {
      const question = dialogue?.question(key);
      const problem = question && answerProblem(question, response);
      if (problem !== undefined)
        throw new DrawbridgeError("invalid_params", `In \`inputResponses\`, ${JSON.stringify(key)} ${problem}.`);
    }
    for (const [key, response] of responses) dialogue?.reply(key, legacyAnswer(response));
    return acknowledged;
  }

  /** `tasks/result`: waits for the end of a task, and puts to the client what the task asks meanwhile. */
  async function result(about: About, replies: Replies): Promise<Outcome> {
    const { by, task, signal } = about;
    if (task.cancelled) return cancelledOutcome();
    const outcome = task.outcome ?? (await finish(workOf(about), { replies, signal, until: task.endsAt, clock }));
    await left(by, task);
    return relatedTo(underOurName(outcome, task.name ?? "", task.id), task.id);
  }

  /** `tasks/list`: the caller's own, each as its server says it is. */
  async function list(parts: Parts, asked: Asked): Promise<void> {
    const { by, inbound, record } = asked;
    const cursor = inbound.params["cursor"];
    if (cursor !== undefined && (typeof cursor !== "string" || !TOKEN.test(cursor)))
      throw new DrawbridgeError("invalid_params", "The cursor is not one of ours. Start the list anew.");
    const { tasks, next } = await kept.list(by, cursor);
    const span = parts.telemetry.begin("tasks/list", "client", record.trace, { "mcp.method.name": "tasks/list" });
    await performed(parts, asked, { span, target: undefined, method: "tasks/list" }, async (gone) => {
      const states = await Promise.all(
        tasks.map(async (task) => {
          const allowed = await allow(parts, by, task);
          if (allowed?.decision.effect !== "permit") return undefined;
          const permitted = permit(by, callOf(task, allowed.target, inbound.id, span.context), allowed.decision);
          const about: About = { by, task, permitted, era: inbound.era, signal: gone.signal };
          return perform(about, "tasks/get", undefined).catch(() => undefined);
        }),
      );
      const texts = states.flatMap((state) => (state?.kind === "result" ? [state.result] : []));
      const more = next === undefined ? "" : `,"nextCursor":${JSON.stringify(next)}`;
      return resultOutcome(`{"tasks":[${texts.join(",")}]${more}}`);
    });
  }

  async function left(by: Authenticated, task: KeptTask): Promise<void> {
    makers.delete(`${task.server}\n${task.name}`);
    await kept.over(by, task);
  }

  // ---- other replicas ----

  /** The process of a task is here, or its questions are: others can ask for it until it is over. */
  async function attend(task: KeptTask): Promise<void> {
    if (shared === undefined) return;
    const release = mailbox.wait();
    const timer = setTimeout(() => unattend(task.id), task.endsAt - clock()).unref();
    attended.set(task.id, () => {
      clearTimeout(timer);
      release();
    });
    await mailbox.present();
  }
  function unattend(id: string): void {
    attended.get(id)?.();
    attended.delete(id);
  }

  /** Has the replica of a task answer a request about it; undefined when that replica is gone. */
  async function elsewhere(
    by: Authenticated,
    task: KeptTask,
    { method, forward, trace }: McpCall,
    signal: AbortSignal,
  ): Promise<Outcome | undefined> {
    const id = newToken();
    const release = mailbox.wait();
    try {
      await mailbox.present();
      const responses = forward.get("inputResponses");
      const from = addressOf(replica);
      const said = Promise.withResolvers<Letter & { kind: "said" }>();
      awaited.set(id, said.resolve);
      const letter: Letter = { kind: "ask", id, from, by, task: task.id, method, responses, trace };
      if (!(await mailbox.post(addressOf(task.replica), id, letter))) return undefined;
      const limit = AbortSignal.any([signal, AbortSignal.timeout(ELSEWHERE_MS)]);
      if (limit.aborted) throw late(signal);
      limit.addEventListener("abort", () => said.reject(late(signal)), { once: true });
      const { outcome, message } = await said.promise;
      if (outcome === undefined)
        throw message === taskGone().message ? taskGone() : new DrawbridgeError("upstream_failed", message);
      return outcome;
    } finally {
      awaited.delete(id);
      release();
    }
  }

  function received(letter: Letter): void {
    if (letter.kind === "said") {
      awaited.get(letter.id)?.(letter);
      return;
    }
    const { id, from, by, method, responses, trace } = letter;
    const serve = async () => {
      const task = await kept.find(by, letter.task);
      const allowed = task && (await allow(options.parts(), by, task));
      if (task === undefined || allowed?.decision.effect !== "permit") throw unknownTask();
      const permitted = permit(by, callOf(task, allowed.target, 0, trace), allowed.decision);
      const signal = AbortSignal.timeout(ELSEWHERE_MS);
      return perform({ by, task, permitted, era: "modern", signal }, method, responses);
    };
    serve()
      .then(
        (outcome) => ({ outcome, message: "" }),
        (thrown: unknown) => ({ outcome: undefined, message: DrawbridgeError.from(thrown).message }),
      )
      .then((said) => mailbox.post(from, newToken(), { kind: "said", id, ...said } satisfies Letter))
      .catch((error: unknown) => log.warn({ error }, "another replica could not be written to"));
  }

  return {
    plan,
    over,
    answer,
    statusChanged(server, params) {
      const state = readTask({ kind: "result", result: params, value: JSON.parse(params) as JsonObject });
      const maker = state && makers.get(`${server}\n${state.id}`);
      if (state === undefined || maker === undefined) return;
      const members = membersFor(state, maker.task, "legacy");
      const { streams, masking, flow } = options.parts();
      const { by, id } = maker.session;
      const view = masking.viewOf(by);
      const told = view.said(objectText(members));
      flow?.heard(by, id, view, false);
      streams.tell(maker.session, notificationText("notifications/tasks/status", told));
    },
    async close() {
      for (const dialogue of dialogues.values()) dialogue.close();
      for (const id of [...attended.keys()]) unattend(id);
      await mailbox.close();
    },
  };
}

/** Whether at least one server makes tasks, so that we said so. */
export function anyMakesTasks(identities: ReadonlyMap<string, UpstreamIdentity>): boolean {
  return [...identities.values()].some(({ capabilities, revision }) =>
    makesTasks(capabilities, revision === "2026-07-28" ? "modern" : "legacy"),
  );
}

/** 2026-07-28, Tasks extension, Protocol Errors. */
export function tasksRequired(): DrawbridgeError {
  return new DrawbridgeError("missing_client_capability", "This needs a client that declares the tasks extension.", {
    data: { requiredCapabilities: TASKS_REQUIRED },
  });
}

function needsTasks(outcome: Outcome): boolean {
  const required = readRequiredCapabilities(outcome);
  return required !== undefined && covers(required, TASKS_REQUIRED);
}

/** A task that never was, is forgotten, is another's, or whose tool the caller may not call: all look the same. */
function unknownTask(): DrawbridgeError {
  return new DrawbridgeError("unknown_target", "Task not found");
}

function alreadyOver({ status }: Task): Outcome {
  return {
    kind: "error",
    code: -32602,
    message: `Cannot cancel task: already in terminal status '${status}'`,
    data: undefined,
  };
}

function late(signal: AbortSignal): DrawbridgeError {
  return signal.aborted
    ? new DrawbridgeError("cancelled", "The call was cancelled.")
    : new DrawbridgeError("upstream_timeout", "The replica that has the task did not answer in time.");
}

/** The state of a task whose end is known here: it was cancelled, or that is what came of it. */
function ended({ id, createdAt, endsAt, cancelled, outcome }: KeptTask, came = outcome): Task {
  const at = JSON.stringify(new Date(createdAt).toISOString());
  const members = new Map([
    ["createdAt", at],
    ["lastUpdatedAt", at],
  ]);
  const failed = came === undefined || came.kind === "error" || isErrorResult(came.value);
  const status = cancelled ? "cancelled" : failed ? "failed" : "completed";
  return { id, status, ttlMs: endsAt - createdAt, pollMs: undefined, members };
}

const isErrorResult = (result: unknown) => isObject(result) && result["isError"] === true;

function questionObject({ method, params }: Question): string {
  return `{"method":"${method}","params":${params}}`;
}

function errorObject({ code, message, data }: Outcome & { kind: "error" }): string {
  return `{"code":${code},"message":${JSON.stringify(message)}${data === undefined ? "" : `,"data":${data}`}}`;
}

function resultOutcome(result: string): Outcome {
  return { kind: "result", result, value: JSON.parse(result) as JsonObject };
}
