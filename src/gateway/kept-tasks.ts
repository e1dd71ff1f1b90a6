/**
 * The tasks that calls have made, as every replica knows them: a sealed row for each, under a name of our own that is good for one
 * user and client. What servers call their tasks is inside and shown to nobody.
 */
import { hash } from "node:crypto";
import type { Authenticated, JsonObject, Outcome } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newToken } from "../core/ids.ts";
import type { Era } from "../mcp/methods.ts";
import { ownerOf } from "../mcp/sessions.ts";
import { MAX_TASK_MS } from "../mcp/tasks.ts";
import type { Records, Row } from "../store/ports.ts";
import type { Seals } from "./sealed-state.ts";

/** One task: the call that made it, and where it is. */
export interface KeptTask {
  readonly id: string;
  readonly server: string;
  /** What clients call the tool, what its server calls it, and its pinned definition then. */
  readonly tool: string;
  readonly upstreamName: string;
  readonly pin: string | undefined;
  /** The arguments of the call: what a role may depend on is decided again with each request about the task. */
  readonly args: JsonObject;
  /** What the client of the call had declared, and its session: with these its server is reached as it was then. */
  readonly capabilities: JsonObject;
  readonly session: string | undefined;
  /** The form in which the server speaks of it. */
  readonly era: Era;
  /** What the server calls it; undefined when it had answered at once, and the answer is `outcome`. */
  readonly name: string | undefined;
  readonly outcome?: Outcome;
  /** The process that works on it; undefined over HTTP. */
  readonly process: string | undefined;
  /** The replica whose process that is, and where its questions are. */
  readonly replica: string;
  /** In milliseconds since the epoch. */
  readonly createdAt: number;
  readonly endsAt: number;
  readonly cancelled?: boolean;
}

export interface KeptTasks {
  /** Throws `rate_limited` when the caller, or all together, have as many as they may. */
  admit(by: Authenticated): Promise<void>;
  keep(by: Authenticated, task: Omit<KeptTask, "id">): Promise<KeptTask>;
  /** Undefined for one that never was, has ended, or is somebody else's: all the same. */
  find(by: Authenticated, id: string): Promise<KeptTask | undefined>;
  /** The caller's own that come after this one; `next` names the last when there are more. */
  list(by: Authenticated, after: string | undefined): Promise<{ tasks: readonly KeptTask[]; next: string | undefined }>;
  cancelled(by: Authenticated, task: KeptTask): Promise<void>;
  /** It has ended: it stays, and gives way to newer ones. */
  over(by: Authenticated, task: KeptTask): Promise<void>;
  forget(by: Authenticated, id: string): Promise<void>;
}

interface Stored {
  readonly sealed: string;
  readonly over?: true;
}

const KIND = "task";
/** Of one user through one client; those that have ended give way. */
const MAX_OWN = 50;
/** Made by calls of this replica and not seen to end. */
const MAX_OPEN = 5_000;
const PAGE = 20;

export function openKeptTasks(records: Records, seals: Seals, clock: Clock = systemClock): KeptTasks {
  /** When they end, by id. */
  const open = new Map<string, number>();
  const rowId = (owner: string, id: string) => `${owner}.${id}`;
  const bindingOf = (owner: string, id: string) => `task\n${owner}\n${id}`;

  const write = async (owner: string, task: KeptTask, more: { over?: true } = {}) => {
    const seconds = Math.ceil((task.endsAt - clock()) / 1000);
    if (seconds <= 0) return;
    const sealed = await seals.seal(task, bindingOf(owner, task.id), seconds);
    const value: Stored = { sealed, ...more };
    await records.put(KIND, rowId(owner, task.id), value, { expiresAt: task.endsAt, index: { owner } });
  };
  const read = async (owner: string, row: Row<Stored>): Promise<KeptTask | undefined> =>
    seals.open<KeptTask>(row.value.sealed, bindingOf(owner, row.id.slice(owner.length + 1)));
  const find = async (owner: string, id: string) => {
    if (!TOKEN.test(id)) return undefined;
    const row = await records.get<Stored>(KIND, rowId(owner, id));
    return row === undefined ? undefined : { row, task: await read(owner, row) };
  };

  return {
    async admit(by) {
      const owner = ownerKey(by);
      const time = clock();
      if (open.size >= MAX_OPEN) for (const [id, endsAt] of open) if (endsAt <= time) open.delete(id);
      if (open.size >= MAX_OPEN) throw tooMany("There are too many tasks. Try again later.");
      const own = await records.find<Stored>(KIND, "owner", owner, { limit: MAX_OWN });
      if (own.length < MAX_OWN) return;
      const over = own.find(({ value }) => value.over);
      if (over === undefined)
        throw tooMany(`${MAX_OWN} of your tasks are under way. Wait until one ends, or cancel one.`);
      await records.delete(KIND, over.id);
    },
    async keep(by, made) {
      const task: KeptTask = { ...made, id: newToken() };
      await write(ownerKey(by), task, task.name === undefined ? { over: true } : {});
      if (task.name !== undefined) open.set(task.id, task.endsAt);
      return task;
    },
    find: async (by, id) => (await find(ownerKey(by), id))?.task,
    async list(by, after) {
      const owner = ownerKey(by);
      const page = { limit: PAGE + 1, ...(after !== undefined && { after: rowId(owner, after) }) };
      const rows = await records.find<Stored>(KIND, "owner", owner, page);
      const tasks = await Promise.all(rows.slice(0, PAGE).map((row) => read(owner, row)));
      const last = rows.length > PAGE ? rows[PAGE - 1]?.id.slice(owner.length + 1) : undefined;
      return { tasks: tasks.filter((task) => task !== undefined), next: last };
    },
    async cancelled(by, task) {
      open.delete(task.id);
      await write(ownerKey(by), { ...task, cancelled: true }, { over: true });
    },
    async over(by, task) {
      const owner = ownerKey(by);
      if (!open.delete(task.id) && (await find(owner, task.id))?.row.value.over) return;
      await write(owner, task, { over: true });
    },
    async forget(by, id) {
      open.delete(id);
      await records.delete(KIND, rowId(ownerKey(by), id));
    },
  };
}

/** As long as its server keeps it, and no longer than a day. */
export const lifetimeOf = (ttlMs: number | null) => Math.min(ttlMs ?? MAX_TASK_MS, MAX_TASK_MS - 60_000);

/** Ids of our own making; a cursor of `tasks/list` is one, too. */
export const TOKEN = /^[\w-]{22,64}$/;

function ownerKey(by: Authenticated): string {
  return hash("sha256", ownerOf(by), "base64url");
}

function tooMany(message: string): DrawbridgeError {
  return new DrawbridgeError("rate_limited", message, { retryAfterSeconds: 10 });
}
