/**
 * The processes of one server, in a pool for each flavour of client: a server with a handshake learns once what its clients can do.
 * All pools together keep to the server's limit of processes. One of 2026-07-28 is told with each request, and needs one pool only.
 */
import {
  type JsonObject,
  MODERN_REVISION,
  type Outcome,
  type PermittedCall,
  type Replies,
  type Revision,
} from "../core/call.ts";
import { boundedFlavours, type Flavour, flavourOf, PLAIN } from "./capabilities.ts";
import type { Child } from "./child.ts";
import { type Stopwatch, stopwatch } from "./exchange.ts";
import { type Pool, type PoolOptions, type PoolShare, processPool } from "./pool.ts";
import type { UpstreamIdentity, UpstreamState } from "./upstream.ts";

/** Processes that serve one user or session alone. No plain one is kept beside those that were told what the clients can do. */
export interface Personal {
  /** What the server's other processes were seen to speak. */
  readonly revision: Revision | undefined;
  /** Those of the one client there is; undefined where each call says what its client can do. */
  readonly capabilities: JsonObject | undefined;
}

export interface FlavouredPools {
  /**
   * A process that has shaken hands and was told of these capabilities, as far as there is one. Of processes that serve one user
   * any that runs, when no capabilities are named.
   */
  reach(signal: AbortSignal, capabilities?: JsonObject): Promise<Child>;
  send(call: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome>;
  /** Processes that have shaken hands. */
  ready(): readonly Child[];
  identity(): UpstreamIdentity | undefined;
  state(): UpstreamState;
  close(signal: AbortSignal): Promise<void>;
}

/** Flavours at most, the plain one among them. */
const MAX_FLAVOURS = 8;

export function flavouredPools(
  options: PoolOptions,
  subscribed: ReadonlySet<string>,
  personal?: Personal,
  now: Stopwatch = stopwatch,
): FlavouredPools {
  const { min, max: most } = options.settings.processes;
  const max = Math.max(min, most);
  const pools = new Map<string, Pool>();
  /** Somebody waits for room. */
  let wanting = false;
  let closed = false;
  // With one process for all, it is plain: nobody is asked. One user's process is told anew when their next client can do other things.
  const flavours = boundedFlavours(personal === undefined ? Math.min(MAX_FLAVOURS, max) : MAX_FLAVOURS, (flavour) => {
    const pool = pools.get(flavour.text);
    if (pool?.idle === false) return false;
    pools.delete(flavour.text);
    if (pool !== undefined) void pool.close(AbortSignal.abort());
    return true;
  });
  const plain = open(PLAIN);

  function open(flavour: Flavour): Pool {
    const share: PoolShare = {
      flavour,
      min: flavour === PLAIN ? min : 0,
      room: () => max - sizeOf(pools.values()),
      squeeze(bare, waiting) {
        const others = [...pools.values()].filter((other) => other !== pool);
        if (others.some((other) => other.spare(false, waiting)) || !bare) return;
        // There are no more flavours than processes, so another pool has two; or all are one user's.
        const largest = others.sort((a, b) => b.state().size - a.state().size)[0];
        if (largest?.spare(true, waiting)) wanting = true;
      },
      vacated() {
        if (!wanting) return;
        wanting = false;
        queueMicrotask(() => {
          for (const other of pools.values()) if (other !== pool) other.ensure();
        });
      },
    };
    const pool = processPool(options, share, subscribed, now);
    pools.set(flavour.text, pool);
    return pool;
  }

  function poolOf(wanted: Flavour): Pool {
    if (closed) return plain;
    const flavour = flavours.admit(wanted);
    return pools.get(flavour.text) ?? open(flavour);
  }

  function identity(): UpstreamIdentity | undefined {
    for (const pool of pools.values()) {
      const known = pool.identity();
      if (known !== undefined) return known;
    }
    return undefined;
  }

  /** Whether a client's capabilities are told with each request; undefined before the server was reached. */
  function modern(): boolean | undefined {
    const revision = identity()?.revision ?? personal?.revision;
    return revision === undefined ? undefined : revision === MODERN_REVISION;
  }

  /** Where a call goes; one user's calls stay in one process, also those during which nobody can be asked. */
  function wantedBy({ call }: PermittedCall, askable: boolean): Flavour {
    if (personal === undefined) return flavourOf(call.capabilities, askable);
    return flavourOf(personal.capabilities ?? call.capabilities, true);
  }

  return {
    async reach(signal, capabilities) {
      if (capabilities === undefined && personal !== undefined) {
        const running = [...pools.values()].find(({ size }) => size > 0);
        if (running !== undefined) return running.reach(signal);
      }
      const wanted = flavourOf(capabilities ?? personal?.capabilities ?? PLAIN.capabilities, true);
      if (wanted === PLAIN || modern() === true) return plain.reach(signal);
      if (modern() === undefined) await plain.reach(signal);
      return modern() ? plain.reach(signal) : poolOf(wanted).reach(signal);
    },
    send(call, replies, signal) {
      const { process } = call.call.task ?? {};
      if (process !== undefined) {
        const its = [...pools.values()].find((pool) => pool.has(process));
        return (its ?? plain).send(call, replies, signal);
      }
      const wanted = wantedBy(call, replies.ask !== undefined);
      if (wanted === PLAIN || modern() === true) return plain.send(call, replies, signal);
      if (modern() === false) return poolOf(wanted).send(call, replies, signal);
      return plain.reach(signal).then(() => (modern() ? plain : poolOf(wanted)).send(call, replies, signal));
    },
    ready: () => [...pools.values()].flatMap((pool) => pool.ready()),
    identity,
    state() {
      const states = [...pools.values()].map((pool) => pool.state());
      const sum = (of: (state: UpstreamState) => number) => states.reduce((total, state) => total + of(state), 0);
      return {
        state: plain.state().state,
        size: sum(({ size }) => size),
        inFlight: sum(({ inFlight }) => inFlight),
        tasks: sum(({ tasks }) => tasks ?? 0),
        queued: sum(({ queued }) => queued),
        restarts: sum(({ restarts }) => restarts),
        problem: states.find(({ problem }) => problem !== undefined)?.problem,
        stderr: states.flatMap(({ stderr }) => stderr).slice(-MAX_STDERR_LINES),
      };
    },
    async close(signal) {
      closed = true;
      await Promise.all([...pools.values()].map((pool) => pool.close(signal)));
    },
  };
}

const MAX_STDERR_LINES = 100;

function sizeOf(pools: Iterable<Pool>): number {
  let size = 0;
  for (const pool of pools) size += pool.size;
  return size;
}
