/**
 * Tasks in the two forms that the protocol has for them: 2025-11-25 (a call asks for one by `task`, and its result is fetched by
 * `tasks/result`) and the extension of 2026-07-28 (the server decides, and `tasks/get` brings the result). Shapes only: whose task
 * is where is kept in `gateway/tasks.ts`.
 */
import type { JsonObject, Outcome, Question } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { isObject, memberTexts, objectText } from "./json-text.ts";
import type { Era } from "./methods.ts";

export const TASKS_EXTENSION = "io.modelcontextprotocol/tasks";
/** Key of `_meta` that says which task a message of 2025-11-25 belongs to. */
const RELATED_TASK = "io.modelcontextprotocol/related-task";

/** No task is kept for longer, whatever its server says. */
export const MAX_TASK_MS = 24 * 3_600_000;

const STATUSES = ["working", "input_required", "completed", "failed", "cancelled"] as const;
export type TaskStatus = (typeof STATUSES)[number];

/** The state of a task as its server wrote it. */
export interface Task {
  readonly id: string;
  readonly status: TaskStatus;
  /** Since it was made; null: for ever. */
  readonly ttlMs: number | null;
  /** How often its server wants to be asked; undefined when it did not say. */
  readonly pollMs: number | undefined;
  /** Every member as JSON text, by its server's names. */
  readonly members: ReadonlyMap<string, string>;
}

export const isOver = ({ status }: Task) => status === "completed" || status === "failed" || status === "cancelled";

/** The task that an answer to `tools/call` speaks of instead of a result; undefined when it is a result. */
export function readCreated(outcome: Outcome): Task | undefined {
  if (outcome.kind === "error") return undefined;
  const { task, resultType } = outcome.value;
  if (resultType === "task") return readTask(outcome);
  if (!isObject(task) || outcome.value["content"] !== undefined || typeof task["taskId"] !== "string") return undefined;
  return readTask({ kind: "result", result: memberTexts(outcome.result)?.get("task") ?? "{}", value: task });
}

/** The task of an answer to `tasks/get` or `tasks/cancel`, or of a notification; undefined when it is none. */
export function readTask(outcome: Outcome): Task | undefined {
  if (outcome.kind === "error") return undefined;
  const { value, result } = outcome;
  const { taskId, status, ttl, ttlMs = ttl, pollInterval, pollIntervalMs = pollInterval } = value;
  const known = STATUSES.find((one) => one === status);
  const members = memberTexts(result);
  if (typeof taskId !== "string" || taskId.length > MAX_ID_LENGTH || known === undefined || members === undefined)
    return undefined;
  return { id: taskId, status: known, ttlMs: duration(ttlMs) ?? null, pollMs: duration(pollIntervalMs), members };
}

const MAX_ID_LENGTH = 1024;
const duration = (value: unknown) => (typeof value === "number" && value >= 0 ? value : undefined);

/** Whether after this answer nobody needs the task at its server any more. */
export function hadResult(method: string, outcome: Outcome): boolean {
  if (method === "tasks/result") return true;
  const task = readTask(outcome);
  if (method === "tasks/cancel") return outcome.kind === "result";
  return outcome.kind === "result" && task !== undefined && (task.members.has("result") || task.status === "cancelled");
}

/** Members that only one of the forms has, and what the other calls them. */
const RENAMED = [
  ["ttl", "ttlMs"],
  ["pollInterval", "pollIntervalMs"],
] as const;
/** What the extension puts into a task's state beside the state. */
const INLINED: readonly string[] = ["resultType", "result", "error", "inputRequests", "_meta"];

/**
 * The state of a task for a client of `era`, under the name that this client knows it by. `status`: when it is another for the client;
 * `ttlMs`: how long we keep it. Nothing of what the state is about (result, error, questions) is in it.
 */
export function taskMembers(
  task: Task,
  id: string,
  era: Era,
  { status = task.status, ttlMs, now }: { status?: TaskStatus; ttlMs: number; now: number },
): Map<string, string> {
  const members = new Map([["taskId", JSON.stringify(id)]]);
  for (const [name, text] of task.members) {
    if (INLINED.includes(name)) continue;
    const renamed = RENAMED.find((names) => names.includes(name as never));
    members.set(
      renamed?.[era === "legacy" ? 0 : 1] ?? name,
      name === "statusMessage" ? hidden(text, task.id, id) : text,
    );
  }
  members.set("taskId", JSON.stringify(id));
  members.set("status", JSON.stringify(status));
  for (const name of ["createdAt", "lastUpdatedAt"])
    if (!members.has(name)) members.set(name, JSON.stringify(new Date(now).toISOString()));
  members.set(era === "legacy" ? "ttl" : "ttlMs", String(Math.floor(Math.min(task.ttlMs ?? ttlMs, ttlMs))));
  return members;
}

/** JSON text without the name that the server has for a task. A name so short that it may be any word or number is left. */
export function hidden(text: string, name: string, id: string): string {
  return name.length < SHORTEST_NAME ? text : text.replaceAll(JSON.stringify(name).slice(1, -1), id);
}

const SHORTEST_NAME = 6;

/** An answer that is about a task by its server's name, under ours: `_meta` of results, and texts of errors. */
export function underOurName(outcome: Outcome, name: string, id: string): Outcome {
  if (outcome.kind === "error")
    return {
      ...outcome,
      message: JSON.parse(hidden(JSON.stringify(outcome.message), name, id)) as string,
      data: outcome.data === undefined ? undefined : hidden(outcome.data, name, id),
    };
  const meta = outcome.value["_meta"];
  if (!isObject(meta) || meta[RELATED_TASK] === undefined) return outcome;
  return withMeta(outcome, { ...meta, [RELATED_TASK]: { taskId: id } });
}

/** A result that says which task it is of (2025-11-25, Associating Task-Related Messages). */
export function relatedTo(outcome: Outcome, id: string | undefined): Outcome {
  if (outcome.kind === "error") return outcome;
  const before = outcome.value["_meta"];
  const { [RELATED_TASK]: _, ...rest } = isObject(before) ? before : {};
  return withMeta(outcome, id === undefined ? rest : { ...rest, [RELATED_TASK]: { taskId: id } });
}

function withMeta(outcome: Outcome & { kind: "result" }, meta: JsonObject): Outcome {
  const members = memberTexts(outcome.result) ?? new Map<string, string>();
  const { _meta: _, ...value } = outcome.value;
  if (Object.keys(meta).length === 0) {
    if (!members.delete("_meta")) return outcome;
    return { kind: "result", result: objectText(members), value };
  }
  members.set("_meta", JSON.stringify(meta));
  return { kind: "result", result: objectText(members), value: { ...value, _meta: meta } };
}

/** A question of a task for its client: about the task as the client knows it, or about none when it knows of none. */
export function questionOfTask(question: Question, id: string | undefined): Question {
  const members = memberTexts(question.params);
  const meta = memberTexts(members?.get("_meta") ?? "");
  if (members === undefined || meta === undefined) return question;
  meta.delete(RELATED_TASK);
  if (id !== undefined) meta.set(RELATED_TASK, JSON.stringify({ taskId: id }));
  if (meta.size > 0) members.set("_meta", objectText(meta));
  else members.delete("_meta");
  return { method: question.method, params: objectText(members) };
}

/** The task, by its server's name, that a question says it is of. */
export function taskOf(params: JsonObject): string | undefined {
  const meta = params["_meta"];
  const related = isObject(meta) ? meta[RELATED_TASK] : undefined;
  const id = isObject(related) ? related["taskId"] : undefined;
  return typeof id === "string" ? id : undefined;
}

/** How a tool of 2025-11-25 may be called (Tool-Level Negotiation). */
export function taskSupport(definition: JsonObject): "required" | "optional" | "forbidden" {
  const { execution } = definition;
  const support = isObject(execution) ? execution["taskSupport"] : undefined;
  return support === "required" || support === "optional" ? support : "forbidden";
}

/** Whether a server makes tasks of tool calls, in the form of its era. */
export function makesTasks(capabilities: JsonObject, era: Era): boolean {
  const { tasks, extensions } = capabilities;
  if (era === "modern") return isObject(extensions) && isObject(extensions[TASKS_EXTENSION]);
  const requests = isObject(tasks) ? tasks["requests"] : undefined;
  const tools = isObject(requests) ? requests["tools"] : undefined;
  return isObject(tools) && isObject(tools["call"]);
}

/** Whether a client of 2026-07-28 declared that it accepts tasks. */
export function acceptsTasks(capabilities: JsonObject | undefined): boolean {
  return capabilities !== undefined && makesTasks(capabilities, "modern");
}

/** A task that is nowhere any more: its process ended, or its server forgot it. */
export function taskGone(): DrawbridgeError {
  return new DrawbridgeError("unknown_target", "The task is gone: what worked on it has ended. Call the tool again.");
}

/** What a client of 2026-07-28 has to declare to be told of tasks. */
export const TASKS_REQUIRED: JsonObject = { extensions: { [TASKS_EXTENSION]: {} } };
