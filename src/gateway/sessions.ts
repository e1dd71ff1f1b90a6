/**
 * Sessions that every replica understands. The id itself says, sealed, what was agreed at `initialize`, so a replica that never saw
 * a session can go on with it, also after a restart. What changes later is a row in the store: written when it changes, read when a
 * replica first meets the session or hears of a change. A call in a session that is known here touches neither.
 */
import type { Authenticated, JsonObject, LegacyRevision, RequestId } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import { negotiate, ownerOf, type Session } from "../mcp/sessions.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import { decrypted, encrypted, sharedKey } from "../store/sealing.ts";
import type { Changes } from "../store/watch.ts";
import { openAnnouncements } from "./announcements.ts";

export interface Sessions {
  open(principal: Authenticated, requested: unknown, clientName: string, capabilities?: JsonObject): Promise<Session>;
  /**
   * The session, at once when it is known here. Throws or rejects with `unknown_session` for one that never was, has ended, was idle for
   * too long, or belongs to somebody else: all look the same.
   */
  find(id: string, principal: Authenticated): Session | Promise<Session>;
  /** Ends a session: here at once, at other replicas within a second. */
  end(session: Session): Promise<void>;
  setLevel(session: Session, level: string): Promise<void>;
  /** Remembers that the client follows a resource of that server, or, with `undefined`, that it does not any more. */
  follow(session: Session, uri: string, server: string | undefined): Promise<void>;
  /** Cancels a call of the client, wherever it is under way. One that is not known is no error. */
  cancel(session: Session, request: RequestId): void;
  /** Forgets those that were idle for too long. */
  sweep(): void;
  /** Those known here. */
  readonly size: number;
  close(): Promise<void>;
}

export interface SessionsOptions {
  readonly records: Records;
  /** What other processes change; undefined when there are none that use the same store. */
  readonly changes: Changes | undefined;
  /** A secret that is not in the store, without which its keys are of no use. */
  readonly encryption: Secret | undefined;
  readonly limits: { readonly maxSessions: number; readonly sessionIdleSeconds: number };
  /** A session is over here: by the client, by idleness, or because there were too many. In the last case it may come back. */
  readonly onEnd: (session: Session) => void;
  /** A session follows these resources from now on; `session.subscriptions` says which it followed before. */
  readonly onFollow: (session: Session, subscriptions: ReadonlyMap<string, string>) => void;
  /** Whether a stream of it is open: such a session is not idle. */
  readonly streaming: (session: Session) => boolean;
  readonly log: Logger;
  readonly clock?: Clock;
}

/** What a row says beyond the id. */
interface State {
  readonly ended?: true;
  /** When they are too large for the id. */
  readonly capabilities?: JsonObject;
  readonly logLevel?: string;
  readonly subscriptions?: readonly (readonly [uri: string, server: string])[];
}

/** A session in this replica. */
interface Known extends Session {
  /** When its row was written last, or it began: later than that it was used. */
  notedAt: number;
}

/** What is sealed in an id: revision, seconds since the epoch, the client's name, its capabilities (`null`: in the row). */
type Inside = readonly [LegacyRevision, number, string, JsonObject | null];

const KIND = "mcp:session";
/** The end of an id is the end of its authentication tag: no two have the same, and it is of no use without the rest. */
const NAME_LENGTH = 21;
const nameOf = (id: string) => id.slice(-NAME_LENGTH);
/** Proxies and servers commonly take 8 KiB of headers, of which a token may need half. */
const MAX_INSIDE_BYTES = 1024;
const MAX_CAPABILITY_BYTES = 16 << 10;
const MAX_ID_LENGTH = 4096;
const MAX_FOLLOWED_BYTES = 256 << 10;
const TRIES = 8;

/** Rejects when the store does not give the key that ids are sealed with. */
export async function openSessions(options: SessionsOptions): Promise<Sessions> {
  const { records, changes, encryption, limits, onEnd, onFollow, streaming, log, clock = systemClock } = options;
  // It never changes: with it, and with a token of the same user and client, one could make up a session of one's own, and no more.
  const key = await sharedKey(records, "mcp sessions", "drawbridge sessions 1", encryption);
  // By name. A Map keeps insertion order; using a session puts it last, so the first is the one unused for longest.
  const sessions = new Map<string, Known>();
  const meeting = new Map<string, Promise<Session>>();
  const idleMs = limits.sessionIdleSeconds * 1000;
  /** A row is written anew when the last time is so long ago, so it lives for that much longer. */
  const noteMs = idleMs / 4;
  const rowEnd = () => clock() + idleMs + noteMs;

  const forget = (session: Session) => {
    if (!sessions.delete(nameOf(session.id))) return;
    for (const call of session.calls?.values() ?? []) call.abort();
    onEnd(session);
  };
  const touch = (session: Known, now: number) => {
    session.lastUsed = now;
    const name = nameOf(session.id);
    sessions.delete(name);
    sessions.set(name, session);
    if (now - session.notedAt < noteMs) return;
    session.notedAt = now;
    update(session, (state) => state).catch((error: unknown) =>
      log.debug({ error }, "it could not be noted that a session is still in use"),
    );
  };
  const reap = () => {
    const now = clock();
    for (const session of sessions.values()) {
      const tooMany = sessions.size > limits.maxSessions;
      if (!tooMany && now - session.lastUsed <= idleMs) return;
      if (!tooMany && streaming(session)) touch(session, now);
      else forget(session);
    }
  };
  const add = (session: Known) => {
    sessions.set(nameOf(session.id), session);
    if (sessions.size > limits.maxSessions) reap();
    return session;
  };

  /** Puts into a session what its row says. */
  const take = (session: Session, { logLevel, subscriptions }: State) => {
    session.logLevel = logLevel;
    if (subscriptions === undefined && session.subscriptions === undefined) return;
    const followed = new Map(subscriptions);
    onFollow(session, followed);
    session.subscriptions = followed;
  };
  /** What is written here to the row of a session, one after the other: a client may follow many things at once. */
  const updating = new Map<string, Promise<void>>();
  const update = (session: Session, change: (state: State) => State): Promise<void> => {
    const name = nameOf(session.id);
    const before = updating.get(name) ?? Promise.resolve();
    const mine = before.then(() => write(session, name, change));
    const done = mine.catch(() => {}).then(() => void (updating.get(name) === done && updating.delete(name)));
    updating.set(name, done);
    return mine;
  };
  /** Writes a row after its newest version, whichever replica wrote that. */
  const write = async (session: Session, name: string, change: (state: State) => State) => {
    for (let tries = 0; tries < TRIES; tries++) {
      const row = await records.get<State>(KIND, name);
      if (row?.value.ended) {
        forget(session);
        throw unknownSession();
      }
      const state = change(row?.value ?? {});
      if (!(await records.put(KIND, name, state, { ifVersion: row?.version ?? 0, expiresAt: rowEnd() }))) continue;
      heard(name, state);
      return;
    }
    throw new DrawbridgeError("overloaded", "The session is being changed from many places at once. Try again.");
  };
  const tell = (session: Session) => announcements?.announce(nameOf(session.id));

  /** A row was written, here or elsewhere. */
  const heard = (name: string, state: State | undefined) => {
    const session = sessions.get(name);
    if (session === undefined || state === undefined) return;
    session.notedAt = clock();
    if (state.ended) forget(session);
    else take(session, state);
  };
  const reread = async (name: string) => {
    // Whoever meets it at this moment may have read the row before it changed.
    await meeting.get(name)?.catch(() => {});
    heard(name, (await records.get<State>(KIND, name))?.value);
  };
  /** What is being read because others changed it. */
  let rereading: Promise<unknown> = Promise.resolve();
  const reads = (reading: Promise<void>) => {
    const noted = reading.catch((error: unknown) => log.warn({ error }, "changes of sessions could not be read"));
    rereading = Promise.all([rereading, noted]);
  };
  const announcements =
    changes &&
    openAnnouncements({
      records,
      changes,
      topic: "sessions",
      log,
      heard(messages) {
        for (const message of new Set(messages)) {
          const { name, cancelled } = readMessage(message);
          if (cancelled !== undefined) {
            sessions.get(name)?.calls?.get(cancelled)?.abort();
            continue;
          }
          if (!sessions.has(name) && !meeting.has(name)) continue;
          reads(reread(name));
        }
      },
      missed: () => reads(readAll()),
    });
  const readAll = async () => {
    for (let after: string | undefined = ""; after !== undefined && sessions.size > 0; ) {
      const rows: Awaited<ReturnType<typeof records.list<State>>> = await records.list<State>(KIND, {
        limit: 1000,
        ...(after !== "" && { after }),
      });
      for (const { id, value } of rows) heard(id, value);
      after = rows.length === 1000 ? rows.at(-1)?.id : undefined;
    }
  };

  /** A session of another replica, or of this one before it was restarted. */
  const meet = async (id: string, by: Authenticated, inside: Inside): Promise<Session> => {
    const [revision, startedSeconds, clientName, capabilities] = inside;
    const row = await records.get<State>(KIND, nameOf(id));
    const state = row?.value ?? {};
    const declared = capabilities ?? state.capabilities;
    const idle = row === undefined && clock() - startedSeconds * 1000 > idleMs;
    if (state.ended || idle || declared === undefined) throw unknownSession();
    const notedAt = row?.expiresAt === undefined ? startedSeconds * 1000 : row.expiresAt - idleMs - noteMs;
    const session = add({ ...begun(id, by, clock()), revision, clientName, capabilities: declared, notedAt });
    take(session, state);
    touch(session, session.lastUsed);
    return session;
  };

  const found = (id: string, principal: Authenticated): Session | Promise<Session> => {
    const now = clock();
    const session = sessions.get(nameOf(id));
    const owner = ownerOf(principal);
    if (session?.id === id && session.owner === owner) {
      if (now - session.lastUsed <= idleMs || streaming(session)) {
        session.by = principal;
        // Moving it to the end for each call would cost more than it tells; once a second is enough.
        if (now - session.lastUsed > 1000) touch(session, now);
        return session;
      }
      // Another replica may have been used meanwhile, so it is looked at as if it were new.
      forget(session);
    }
    const text = id.length > MAX_ID_LENGTH ? undefined : decrypted(key, id, owner);
    if (text === undefined) throw unknownSession();
    // Only who could open it comes so far, so the one that meets it first does it for all.
    const name = nameOf(id);
    const known = meeting.get(name);
    if (known !== undefined) return known;
    const met = meet(id, principal, JSON.parse(text) as Inside).finally(() => meeting.delete(name));
    meeting.set(name, met);
    return met;
  };

  return {
    async open(principal, requested, clientName, capabilities = {}) {
      const now = clock();
      const owner = ownerOf(principal);
      const revision = negotiate(requested);
      const declared = Buffer.byteLength(JSON.stringify(capabilities));
      if (declared > MAX_CAPABILITY_BYTES)
        throw new DrawbridgeError("invalid_params", `\`capabilities\` may have ${MAX_CAPABILITY_BYTES} bytes.`);
      const small = declared + Buffer.byteLength(clientName) <= MAX_INSIDE_BYTES;
      const inside: Inside = [revision, Math.floor(now / 1000), clientName, small ? capabilities : null];
      const id = encrypted(key, JSON.stringify(inside), owner);
      if (!small)
        await records.put(KIND, nameOf(id), { capabilities } satisfies State, { ifVersion: 0, expiresAt: rowEnd() });
      return add({ ...begun(id, principal, now), revision, clientName, capabilities });
    },
    find(id, principal) {
      const waking = changes?.wake();
      if (waking === undefined) return found(id, principal);
      return waking.then(() => rereading).then(() => found(id, principal));
    },
    async end(session) {
      // Written first: while it is known here nobody meets it anew.
      await records.put(KIND, nameOf(session.id), { ended: true } satisfies State, { expiresAt: rowEnd() });
      forget(session);
      tell(session);
    },
    async setLevel(session, logLevel) {
      if (session.logLevel === logLevel) return;
      await update(session, (state) => ({ ...state, logLevel }));
      tell(session);
    },
    async follow(session, uri, server) {
      if (session.subscriptions?.get(uri) === server) return;
      await update(session, (state) => {
        const others = (state.subscriptions ?? []).filter(([other]) => other !== uri);
        const subscriptions = server === undefined ? others : [...others, [uri, server] as const];
        if (server !== undefined && Buffer.byteLength(JSON.stringify(subscriptions)) > MAX_FOLLOWED_BYTES)
          throw new DrawbridgeError("rate_limited", "A session cannot subscribe to so many resources.");
        return { ...state, subscriptions };
      });
      tell(session);
    },
    cancel(session, request) {
      const call = session.calls?.get(request);
      if (call !== undefined) call.abort();
      // Then it is over, or another replica has it.
      else announcements?.announce(messageText(nameOf(session.id), request));
    },
    sweep: reap,
    get size() {
      return sessions.size;
    },
    close: async () => announcements?.close(),
  };
}

/** What is announced: the name of a session that changed, or of one with a request that its client cancelled. */
function messageText(name: string, cancelled: RequestId): string {
  return `${name} ${JSON.stringify(cancelled)}`;
}

function readMessage(message: string): { readonly name: string; readonly cancelled: RequestId | undefined } {
  const name = message.slice(0, NAME_LENGTH);
  if (message.length === NAME_LENGTH) return { name, cancelled: undefined };
  return { name, cancelled: JSON.parse(message.slice(NAME_LENGTH + 1)) as RequestId };
}

function begun(id: string, by: Authenticated, now: number) {
  return {
    id,
    owner: ownerOf(by),
    by,
    logLevel: undefined,
    lastUsed: now,
    calls: undefined,
    subscriptions: undefined,
    notedAt: now,
  };
}

function unknownSession(): DrawbridgeError {
  return new DrawbridgeError("unknown_session", "This session is not known here. Start a new one with `initialize`.");
}
