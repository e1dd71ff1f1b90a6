/** The servers behind the gateway, as the settings have them now: opened, replaced while they are used, added and taken away. */
import type { Settings } from "../config/schema.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import { type Candidate, type ManagedUpstream, managedUpstream, type Terms } from "../upstream/managed.ts";
import type { ServerSettings } from "../upstream/settings.ts";
import type { Upstream, UpstreamEvents, UpstreamIdentity } from "../upstream/upstream.ts";
import { type Prepared, sameSettings } from "./reload.ts";

export interface Served {
  /** In the order of the settings; always the same map. */
  readonly upstreams: ReadonlyMap<string, ManagedUpstream>;
  /** Who the servers said they are. Those who have not said it yet are asked again whenever somebody wants to know. */
  identities(): ReadonlyMap<string, UpstreamIdentity>;
  /** Resolves when each of the first servers has said who it is or has failed. */
  readonly met: Promise<void>;
  /**
   * Opens what changed beside what runs. Throws `settings_invalid` when a server cannot be used as it is written, and then nothing
   * is left of it. Nobody sees the new ones before `commit`.
   */
  prepare(servers: Settings["servers"]): Prepared;
  /** Of a name nobody has: `not_found`. */
  named(name: string): ManagedUpstream;
  /** Lets calls in flight finish until `deadline` aborts, then ends everything. */
  close(deadline: AbortSignal): Promise<void>;
}

export interface ServedOptions {
  readonly servers: Settings["servers"];
  /** Opens one version of a server. */
  readonly open: (name: string, settings: ServerSettings, events: UpstreamEvents) => Upstream;
  readonly eventsOf: (name: string) => UpstreamEvents;
  /** Takes secrets out of what servers say in errors and on stderr. */
  readonly conceal: (text: string) => string;
  /** Servers have come or gone. */
  readonly onChange: () => void;
  readonly log: Logger;
}

/** For a server to say who it is, when the gateway starts. */
const START_MS = 60_000;

/** Throws what `open` throws, and leaves nothing behind. */
export function openServed({ servers, open, eventsOf, conceal, onChange, log }: ServedOptions): Served {
  const upstreams = new Map<string, ManagedUpstream>();
  /** What runs, which differs from the settings where a change could not be put in place. */
  const running = new Map<string, ServerSettings>();
  const leaving = new Set<Promise<void>>();
  const cutting = new AbortController();
  const known = new Map<string, UpstreamIdentity>();
  const asking = new Set<ManagedUpstream>();

  const openManaged = (name: string, settings: ServerSettings): ManagedUpstream => {
    const managed: ManagedUpstream = managedUpstream({
      name,
      open: (events) => open(name, settings, events),
      terms: termsOf(settings),
      events: eventsOf(name),
      replaced: () => void meet(managed, true),
      conceal,
      logger: log,
    });
    return managed;
  };

  async function meet(upstream: ManagedUpstream, again = false): Promise<void> {
    const { name } = upstream;
    if ((known.has(name) && !again) || asking.has(upstream)) return;
    asking.add(upstream);
    try {
      const identity = await upstream.identity(AbortSignal.timeout(START_MS));
      if (upstreams.get(name) === upstream) known.set(name, identity);
    } catch (error) {
      log.warn({ server: name, error }, "an upstream is not available yet");
    } finally {
      asking.delete(upstream);
    }
  }

  function leave(upstream: ManagedUpstream, settings: ServerSettings): void {
    const limit = AbortSignal.timeout(termsOf(settings).finishSeconds * 1000);
    const left = upstream
      .close(AbortSignal.any([limit, cutting.signal]))
      .catch((error: unknown) => log.warn({ server: upstream.name, error }, "a server could not be ended cleanly"))
      .finally(() => leaving.delete(left));
    leaving.add(left);
  }

  function prepare(wanted: Settings["servers"]): Prepared {
    const candidates = new Map<string, Candidate>();
    const added = new Map<string, ManagedUpstream>();
    const abandon = async () => {
      const at = AbortSignal.abort();
      await Promise.all([
        ...[...candidates.values()].map((candidate) => candidate.abandon()),
        ...[...added.values()].map((upstream) => upstream.close(at)),
      ]);
    };
    try {
      for (const [name, settings] of Object.entries(wanted)) {
        const present = upstreams.get(name);
        if (present === undefined) added.set(name, openManaged(name, settings));
        else if (!sameSettings(running.get(name), settings))
          candidates.set(
            name,
            present.candidate((events) => open(name, settings, events), termsOf(settings)),
          );
      }
    } catch (error) {
      void abandon();
      throw error;
    }
    return {
      abandon,
      async commit() {
        const removed = [...upstreams].filter(([name]) => !Object.hasOwn(wanted, name));
        const formerly = new Map(running);
        const order = new Map(upstreams);
        upstreams.clear();
        for (const name of Object.keys(wanted)) {
          const upstream = order.get(name) ?? added.get(name);
          if (upstream !== undefined) upstreams.set(name, upstream);
        }
        for (const [name, upstream] of removed) {
          known.delete(name);
          running.delete(name);
          const settings = formerly.get(name);
          if (settings !== undefined) leave(upstream, settings);
        }
        for (const [name, upstream] of added) {
          const settings = wanted[name];
          if (settings !== undefined) running.set(name, settings);
          void meet(upstream);
        }
        if (removed.length > 0 || added.size > 0 || [...order.keys()].join() !== [...upstreams.keys()].join())
          onChange();
        const done = [
          ...[...added.keys()].map((name) => ({ setting: `servers.${name}`, change: "added" as const })),
          ...removed.map(([name]) => ({ setting: `servers.${name}`, change: "removed" as const })),
        ];
        const replaced = [...candidates].map(async ([name, candidate]) => {
          const setting = `servers.${name}`;
          try {
            await candidate.take();
            const settings = wanted[name];
            if (settings !== undefined) running.set(name, settings);
            return { setting, change: "replaced" as const };
          } catch (thrown) {
            return { setting, change: "kept" as const, problem: DrawbridgeError.from(thrown).message };
          }
        });
        return [...done, ...(await Promise.all(replaced))];
      },
    };
  }

  try {
    for (const [name, settings] of Object.entries(servers)) {
      upstreams.set(name, openManaged(name, settings));
      running.set(name, settings);
    }
  } catch (error) {
    for (const upstream of upstreams.values()) void upstream.close(AbortSignal.abort());
    throw error;
  }
  return {
    upstreams,
    met: Promise.all([...upstreams.values()].map((upstream) => meet(upstream))).then(() => undefined),
    identities() {
      if (known.size < upstreams.size) for (const upstream of upstreams.values()) void meet(upstream);
      return known;
    },
    prepare,
    named(name) {
      const upstream = upstreams.get(name);
      if (upstream !== undefined) return upstream;
      const names = [...upstreams.keys()].join(", ");
      throw new DrawbridgeError(
        "not_found",
        `There is no server ${JSON.stringify(name.slice(0, 64))}. There are: ${names}.`,
      );
    },
    async close(deadline) {
      if (deadline.aborted) cutting.abort();
      else deadline.addEventListener("abort", () => cutting.abort(), { once: true });
      await Promise.all([...leaving, ...[...upstreams.values()].map((upstream) => upstream.close(deadline))]);
    },
  };
}

/** A call may take `maxCallSeconds`, and stands still while its client is asked. */
function termsOf({ startTimeoutSeconds, maxCallSeconds, answerSeconds }: ServerSettings): Terms {
  return { startSeconds: startTimeoutSeconds, finishSeconds: maxCallSeconds + answerSeconds, answerSeconds };
}
