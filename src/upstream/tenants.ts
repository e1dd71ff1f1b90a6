/**
 * What is kept for one caller alone and never shared: one for each user and client, for each session of a client where that is
 * wanted; bounded, ended when it is idle, when its session ends, and when its user has no access any more.
 */
import type { Authenticated, PermittedCall } from "../core/call.ts";
import type { Stopwatch } from "./exchange.ts";

/** Part of what is kept; written here alone. */
export interface Tenancy {
  /** The newest proof of who it is: tokens are refreshed while it is kept. */
  by: Authenticated;
  /** The client's session that it is for, where each has its own. */
  readonly session: string | undefined;
  /** Calls that use it or are about to. */
  users: number;
  usedAt: number;
  /** Nobody gets it any more. */
  over: boolean;
}

export interface Tenants<T> {
  /** What is kept for the caller, made when there is nothing; it stays until each call has given it back. `kind`: of several things. */
  take(permitted: PermittedCall, kind: string, make: (tenancy: Tenancy) => T): T;
  giveBack(tenant: T): void;
  /** Ends all that `which` says, at once. */
  endAll(which: (tenant: T) => boolean): void;
  /** Ends at once what is kept for a client's session. */
  sessionEnded(session: string): void;
  /** Ends at once what is kept for those for whom `stands` does not say yes: no, or no answer. */
  sweep(stands: (by: Authenticated) => Promise<boolean>): Promise<void>;
  all(): IterableIterator<T>;
  readonly size: number;
  /** Ends everything. */
  close(): Promise<void>;
}

export interface TenantsOptions<T> {
  readonly perSession: boolean;
  /** Callers of one subject with different traits are different users. */
  trait(by: Authenticated): string;
  readonly sessions: { readonly max: number; readonly idleSeconds: number };
  /** Called again when a call gives back what was ended under it, and may have made it anew. */
  end(tenant: T): Promise<void>;
  readonly now: Stopwatch;
}

/** Who is not known to stand after so long does not. */
const STANDS_MS = 2_000;
const MAX_LOOK_MS = 60_000;

export function tenants<T extends { readonly tenancy: Tenancy }>(options: TenantsOptions<T>): Tenants<T> {
  const { perSession, trait, sessions, end, now } = options;
  const idleMs = sessions.idleSeconds * 1000;
  // A Map keeps insertion order; taking something puts it last, so the first is what is unused for longest.
  const kept = new Map<string, T>();
  let timer: NodeJS.Timeout | undefined;

  function drop(key: string, tenant: T): Promise<void> {
    kept.delete(key);
    tenant.tenancy.over = true;
    return end(tenant);
  }

  /** Ends what is idle, and what is too much of what nobody uses at the moment. */
  function reap(): void {
    const time = now();
    for (const [key, tenant] of kept) {
      const { users, usedAt } = tenant.tenancy;
      if (users === 0 && (time - usedAt > idleMs || kept.size > sessions.max)) void drop(key, tenant);
    }
    if (kept.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  }

  function endAll(which: (tenant: T) => boolean): void {
    for (const [key, tenant] of kept) if (which(tenant)) void drop(key, tenant);
  }

  return {
    take({ call, by }, kind, make) {
      const session = perSession ? call.session : undefined;
      const key = JSON.stringify([by.subject, by.client, trait(by), session ?? null, kind]);
      const tenant = kept.get(key) ?? make({ by, session, users: 0, usedAt: 0, over: false });
      kept.delete(key);
      kept.set(key, tenant);
      timer ??= setInterval(reap, Math.min(MAX_LOOK_MS, idleMs)).unref();
      const { tenancy } = tenant;
      tenancy.by = by;
      tenancy.users++;
      tenancy.usedAt = now();
      if (kept.size > sessions.max) reap();
      return tenant;
    },
    giveBack(tenant) {
      const { tenancy } = tenant;
      tenancy.users--;
      tenancy.usedAt = now();
      if (tenancy.over && tenancy.users === 0) void end(tenant);
    },
    endAll,
    sessionEnded: (session) => endAll(({ tenancy }) => tenancy.session === session),
    async sweep(stands) {
      await Promise.all(
        [...kept].map(async ([key, tenant]) => {
          const { by } = tenant.tenancy;
          const stand = await withinMs(STANDS_MS, stands(by));
          // A newer proof that came meanwhile is looked at next time.
          if (!stand && tenant.tenancy.by === by && kept.get(key) === tenant) await drop(key, tenant);
        }),
      );
    },
    all: () => kept.values(),
    get size() {
      return kept.size;
    },
    async close() {
      clearInterval(timer);
      await Promise.all([...kept].map(([key, tenant]) => drop(key, tenant)));
    },
  };
}

/** False too when it does not end in time, or not well. */
async function withinMs(ms: number, yes: Promise<boolean>): Promise<boolean> {
  const late = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => late.resolve(false), ms);
  try {
    return await Promise.race([yes, late.promise]);
  } catch {
    return false; // Whoever cannot be looked up does not stand.
  } finally {
    clearTimeout(timer);
  }
}
