/** Which tools each server has, as it last listed them: what a server says of itself may be about these. */
export interface OwnTools {
  listed(server: string, names: readonly string[]): void;
  /** Waits a little for a server that has listed nothing yet; of one that does not, none are known. */
  of(server: string): Promise<readonly string[]>;
}

/** A gateway reads the lists of a server while the server says who it is. */
const PATIENCE_MS = 3000;

export function openOwnTools(patienceMs = PATIENCE_MS): OwnTools {
  const known = new Map<string, readonly string[]>();
  const waiting = new Map<string, Set<() => void>>();

  return {
    listed(server, names) {
      known.set(server, names);
      for (const wake of waiting.get(server) ?? []) wake();
    },
    async of(server) {
      if (!known.has(server)) {
        const { promise, resolve } = Promise.withResolvers<void>();
        const waiters = waiting.get(server) ?? new Set();
        waiting.set(server, waiters.add(resolve));
        const timer = setTimeout(resolve, patienceMs);
        await promise;
        clearTimeout(timer);
        waiters.delete(resolve);
        if (waiters.size === 0) waiting.delete(server);
      }
      return known.get(server) ?? [];
    },
  };
}
