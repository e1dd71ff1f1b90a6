/**
 * A stdio server that keeps its callers apart (`isolation: per-user`, `per-session`): an `Upstream` over many instances, each with
 * processes, environment and subscriptions of its own, made when its user or session first needs it. What is asked on nobody's
 * behalf, such as lists, is asked of one more that serves nobody, the house.
 */
import { setTimeout as after } from "node:timers/promises";
import type { Authenticated, PermittedCall, Revision } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { type Stopwatch, stopwatch } from "./exchange.ts";
import type { Personal } from "./flavoured-pools.ts";
import type { StdioServerSettings } from "./settings.ts";
import { abortable, type StdioDeps, stdioUpstream } from "./stdio.ts";
import type { Caller, Upstream, UpstreamEvents, UpstreamState } from "./upstream.ts";
import { type Bound, type ReadUserSecret, sameValues, userValues } from "./user-values.ts";

export interface IsolatedDeps extends StdioDeps {
  readonly readUserSecret: ReadUserSecret;
}

/** The processes of one user or session. */
interface Instance {
  readonly key: string;
  readonly subject: string;
  readonly session: string | undefined;
  /** Resolves when it can be used. Rejects when its user may not have one, or nobody can have one more. */
  readonly opened: Promise<Upstream>;
  /** Undefined until it was opened. */
  upstream: Upstream | undefined;
  /** What is different for its user, as it was started with. */
  bound: Bound;
  checkedAt: number;
  /** Calls in flight, and those that wait for it. */
  calls: number;
  usedAt: number;
  /** The newest proof of its user through each client, newest last. */
  readonly proofs: Map<string, Authenticated>;
  /** It is used no more by others, and ends with its last call. */
  leaving: boolean;
  ending: Promise<void> | undefined;
}

/** How often it is looked whether the values of a user have changed. */
const CHECK_MS = 1_000;
/** A pool does not end the processes of an instance; the instance ends as a whole, unless somebody has subscribed. */
const NEVER_SECONDS = 8_000_000;
const MAX_PROOFS = 16;
const MAX_TRIES = 16;
const RETRY_SECONDS = 2;
/** Who is not known to stand after so long does not. */
const STANDS_MS = 2_000;
const SWEPT_AT_ONCE = 32;
const SUBSCRIBE_MS = 15_000;

export function isolatedUpstream(
  name: string,
  settings: StdioServerSettings,
  deps: IsolatedDeps,
  now: Stopwatch = stopwatch,
): Upstream {
  const { max, processes, idleSeconds } = settings.instances;
  const perSession = settings.isolation === "per-session";
  const logger = deps.logger.child({ server: name });
  const values = userValues(name, "userEnvironment", settings.userEnvironment, deps.readUserSecret);
  // One user may have many sessions, and clients; others must find room beside them.
  const fairShare = Math.max(1, Math.min(max - 1, Math.max(2, Math.ceil(max / 4))));
  const instances = new Map<string, Instance>();
  /** Whatever has processes, or is about to have some: no more than `max`. One stays until nothing is left of it, or a successor waits for that. */
  const places = new Set<Instance>();
  /** What users follow, whether or not there is an instance at the moment. */
  const followed = new Map<string, Set<string>>();
  let revision: Revision | undefined;
  let pastRestarts = 0;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  /** Access ended since the last look at who still has it. */
  let stale = false;
  let sweeping: Promise<void> | undefined;

  const house = stdioUpstream(
    name,
    {
      ...settings,
      environment: { ...settings.environment, ...values.otherwise() },
      // Clients of other capabilities may be offered other tools, which another process has to be asked for.
      processes: { min: 0, max: Math.max(2, processes), idleSeconds },
    },
    { ...deps, events: { listChanged: deps.events.listChanged, resourceUpdated() {} } },
  );

  if (settings.sandbox === undefined && Object.values(settings.userEnvironment).some((value) => "secret" in value))
    logger.warn(
      {},
      "users have secrets of their own, which their processes can read of each other, since all run as one user of this machine: set `sandbox`, unless the server does only what its makers thought of",
    );

  // ---- who is served by what ----

  function keyOf({ by, session }: Caller): string {
    const place = !perSession ? [] : session === undefined ? ["client", by.client] : ["session", session];
    return JSON.stringify([by.subject, ...place, values.trait(by)]);
  }

  /** Lends the caller's instance for as long as `run` takes. */
  async function use<T>(caller: Caller, signal: AbortSignal, run: (upstream: Upstream) => Promise<T>): Promise<T> {
    const key = keyOf(caller);
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      if (closed) throw unavailable("is being shut down");
      // The end of a session cancels its calls first: none of them makes it an instance again.
      if (signal.aborted) throw new DrawbridgeError("cancelled", "The call was cancelled.");
      const instance = instances.get(key) ?? make(key, caller);
      if (instance.upstream === undefined && instance.calls >= settings.maxQueued) throw crowded();
      instance.calls++;
      try {
        const upstream = instance.upstream ?? (await abortable(instance.opened, signal));
        if (instance.ending === undefined && (await current(instance, caller.by))) {
          note(instance, caller.by);
          return await run(upstream);
        }
      } finally {
        giveBack(instance);
      }
    }
    throw new DrawbridgeError("overloaded", `The server "${name}" is being changed for you. Try again.`, {
      retryAfterSeconds: RETRY_SECONDS,
    });
  }

  function giveBack(instance: Instance): void {
    instance.calls--;
    instance.usedAt = now();
    if (instance.leaving && instance.calls === 0) void end(instance, "its user's values changed");
  }

  /** Whether it has what its user has now. One that has not serves nobody else, and what it works on is finished. */
  async function current(instance: Instance, by: Authenticated): Promise<boolean> {
    if (values.empty || now() - instance.checkedAt < CHECK_MS) return true;
    instance.checkedAt = now();
    try {
      if (sameValues(await values.for(by), instance.bound)) return true;
      leave(instance);
      return false;
    } catch (error) {
      // That it cannot be known at the moment says nothing of it.
      if (error instanceof DrawbridgeError) leave(instance);
      throw error;
    }
  }

  function note({ proofs }: Instance, by: Authenticated): void {
    proofs.delete(by.client);
    proofs.set(by.client, by);
    if (proofs.size > MAX_PROOFS) for (const oldest of proofs.keys()) if (proofs.delete(oldest)) break;
  }

  // ---- instances ----

  function make(key: string, caller: Caller): Instance {
    const opened = Promise.withResolvers<Upstream>();
    const instance: Instance = {
      key,
      subject: caller.by.subject,
      session: perSession ? caller.session : undefined,
      opened: opened.promise,
      upstream: undefined,
      bound: {},
      checkedAt: 0,
      calls: 0,
      usedAt: now(),
      proofs: new Map([[caller.by.client, caller.by]]),
      leaving: false,
      ending: undefined,
    };
    instances.set(key, instance);
    open(instance, caller).then(opened.resolve, (error: unknown) => {
      leave(instance);
      places.delete(instance);
      opened.reject(error);
    });
    opened.promise.catch(() => {}); // Whoever waits for it is told.
    return instance;
  }

  async function open(instance: Instance, caller: Caller): Promise<Upstream> {
    // Whoever lacks a value takes nobody's place.
    instance.bound = await values.for(caller.by);
    instance.checkedAt = now();
    revision ??= (await house.identity(AbortSignal.timeout(settings.startTimeoutSeconds * 1000)).catch(() => undefined))
      ?.revision;
    await takePlace(instance);
    if (instance.ending !== undefined || closed) throw unavailable("is not kept for you any more");
    const personal: Personal = { revision, capabilities: perSession ? caller.capabilities : undefined };
    const upstream = stdioUpstream(
      name,
      {
        ...settings,
        environment: { ...settings.environment, ...instance.bound },
        processes: { min: 0, max: processes, idleSeconds: NEVER_SECONDS },
      },
      { ...deps, events: eventsOf(instance), logger: deps.logger.child({ subject: instance.subject }) },
      personal,
    );
    instance.upstream = upstream;
    timer ??= setInterval(reap, Math.min(60_000, Math.max(5, idleSeconds * 250))).unref();
    for (const uri of followed.get(instance.key) ?? [])
      upstream
        .subscribe(uri, AbortSignal.timeout(SUBSCRIBE_MS))
        .catch((error: unknown) => logger.debug({ error }, "a subscription could not be taken up again"));
    return upstream;
  }

  function eventsOf({ key }: Instance): UpstreamEvents {
    return {
      // The catalogue is everybody's, and its definitions are pinned: what one user's process offers is not put into it.
      listChanged: (list) =>
        logger.debug({ list }, "a list of one user's instance changed, which changes no list of ours"),
      resourceUpdated: (uri, params) => deps.events.resourceUpdated(uri, params, key),
      elicitationComplete: (params) => deps.events.elicitationComplete?.(params, key),
      // Processes count their tasks from one, each for itself: a state could be taken for that of another user's task. Clients ask.
    };
  }

  /**
   * Decides at once. Where all places are taken it is that of an instance that ends, else of the one idle for longest; the newcomer
   * then waits until nothing is left of that.
   */
  async function takePlace(instance: Instance): Promise<void> {
    const own = [...places].filter(({ subject }) => subject === instance.subject);
    if (own.length < fairShare && places.size < max) {
      places.add(instance);
      return;
    }
    // Whoever has something to give up takes nothing from others.
    const crowd =
      own.length >= fairShare || own.some((one) => idle(one) || one.ending !== undefined) ? own : [...places];
    const ending = crowd.find((one) => one.ending !== undefined);
    const [longest] = ending === undefined ? crowd.filter(idle).sort((a, b) => a.usedAt - b.usedAt) : [ending];
    if (longest === undefined) throw full(own.length >= fairShare);
    places.delete(longest);
    places.add(instance);
    await end(longest, "makes room for others");
  }

  /** Those that are being made too, and those that finish what they work on. */
  const everyInstance = () => [...new Set([...instances.values(), ...places])];

  /** Nothing is in flight, no question is open, and nobody follows a resource. */
  const idle = ({ key, calls, upstream }: Instance) => calls === 0 && upstream !== undefined && !followed.has(key);

  const tasksOf = ({ upstream }: Instance) => upstream?.state().tasks ?? 0;

  function reap(): void {
    for (const instance of places)
      if (idle(instance) && tasksOf(instance) === 0 && now() - instance.usedAt > idleSeconds * 1000)
        void end(instance, "was idle");
    if (places.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  }

  function leave(instance: Instance): void {
    if (instances.get(instance.key) === instance) instances.delete(instance.key);
    instance.leaving = true;
  }

  /** Ends it at once, whatever it works on. Resolves when nothing of it is left. */
  function end(instance: Instance, why: string, signal = AbortSignal.abort()): Promise<void> {
    leave(instance);
    instance.ending ??= (async () => {
      const { upstream } = instance;
      if (upstream === undefined) {
        // It may wait for its place; until then somebody else's processes are there.
        await instance.opened.catch(() => {});
        return;
      }
      logger.debug({ subject: instance.subject, why }, "the processes of a user are ended");
      await upstream.close(signal);
      pastRestarts += upstream.state().restarts;
      places.delete(instance);
    })();
    return instance.ending;
  }

  async function sweepAll(stands: (by: Authenticated) => Promise<boolean>): Promise<void> {
    while (stale) {
      stale = false;
      const all = everyInstance();
      for (let at = 0; at < all.length; at += SWEPT_AT_ONCE)
        await Promise.all(all.slice(at, at + SWEPT_AT_ONCE).map((instance) => recheck(instance, stands)));
    }
    sweeping = undefined;
  }

  async function recheck(instance: Instance, stands: (by: Authenticated) => Promise<boolean>): Promise<void> {
    const proofs = [...instance.proofs];
    const standing = await Promise.all(
      proofs.map(async ([, by]) => {
        const known = stands(by).catch(() => false);
        return Promise.race([known, after(STANDS_MS, false, { ref: false })]);
      }),
    );
    for (const [at, [client, by]] of proofs.entries()) {
      if (standing[at]) continue;
      if (instance.proofs.get(client) === by) instance.proofs.delete(client);
      // A call came with a newer one, which may have been checked before access ended.
      else if (instance.proofs.has(client)) stale = true;
    }
    if (instance.proofs.size === 0) void end(instance, "its user has no access any more");
  }

  // ---- what callers are told ----

  const unavailable = (what: string) => new DrawbridgeError("upstream_unavailable", `The server "${name}" ${what}.`);

  function full(ofOne: boolean): DrawbridgeError {
    const message = ofOne
      ? `You use as many processes of the server "${name}" at the same time as one user may. End a session, or try again later.`
      : `The server "${name}" serves as many users as it can at the moment. Try again later.`;
    const detail = `instances.max of the server is ${max}, of which one user may have ${fairShare}; none is idle`;
    return new DrawbridgeError("overloaded", message, { retryAfterSeconds: RETRY_SECONDS, detail });
  }

  const crowded = () =>
    new DrawbridgeError("overloaded", `The server "${name}" has too many calls waiting. Try again later.`, {
      retryAfterSeconds: RETRY_SECONDS,
    });

  /** Why lists cannot be had, and what the operator can do about it. */
  function problemOf({ problem }: UpstreamState): string | undefined {
    if (problem === undefined || values.ownOnly.length === 0) return problem;
    const lacking = values.ownOnly.map((own) => `servers.${name}.userEnvironment.${own}`).join(", ");
    return `${problem}. It is asked for its lists on nobody's behalf, without the values of a user: give ${lacking} an \`otherwise\` with which it starts`;
  }

  return {
    name,
    async identity(signal) {
      const who = await house.identity(signal);
      revision = who.revision;
      return who;
    },
    list: house.list,
    send: (call, replies, signal) => use(callerOf(call), signal, (upstream) => upstream.send(call, replies, signal)),
    instanceOf: keyOf,
    async subscribe(uri, signal, caller) {
      if (caller === undefined) throw unavailable("tells only its users of changes");
      const key = keyOf(caller);
      if (followed.get(key)?.has(uri) === true) return;
      await use(caller, signal, async (upstream) => {
        await upstream.subscribe(uri, signal);
        followed.set(key, (followed.get(key) ?? new Set()).add(uri));
      });
    },
    async unsubscribe(uri, signal, caller) {
      const key = caller && keyOf(caller);
      if (key !== undefined && forget(uri, key)) await instances.get(key)?.upstream?.unsubscribe(uri, signal);
    },
    sessionEnded(session) {
      for (const instance of everyInstance()) if (instance.session === session) void end(instance, "its session ended");
    },
    sweep(stands) {
      stale = true;
      sweeping ??= sweepAll(stands);
      return sweeping;
    },
    state() {
      const own = house.state();
      const all = [own, ...[...places].flatMap(({ upstream }) => upstream?.state() ?? [])];
      const sum = (of: (state: UpstreamState) => number) => all.reduce((total, state) => total + of(state), 0);
      return {
        ...own,
        size: sum(({ size }) => size),
        inFlight: sum(({ inFlight }) => inFlight),
        queued: sum(({ queued }) => queued),
        restarts: pastRestarts + sum(({ restarts }) => restarts),
        problem: problemOf(own),
        instances: places.size,
      };
    },
    async close(signal) {
      closed = true;
      clearInterval(timer);
      const opening = [...instances.values()].map(({ opened }) => opened.catch(() => {}));
      await Promise.all([house.close(signal), ...[...places].map((instance) => end(instance, "shutdown", signal))]);
      await Promise.all(opening);
      await Promise.all([...places].map(({ ending }) => ending));
    },
  };

  /** False when nobody followed it. */
  function forget(uri: string, key: string): boolean {
    const uris = followed.get(key);
    const known = uris?.delete(uri) ?? false;
    if (uris?.size === 0) followed.delete(key);
    return known;
  }
}

const callerOf = ({ by, call }: PermittedCall): Caller => ({
  by,
  session: call.session,
  ...(call.session !== undefined && { capabilities: call.capabilities }),
});
