/** Opens the store that `store:` names; the one list of backends. */
import { resolve } from "node:path";
import type { Clock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import type { Store } from "./ports.ts";

export interface OpenStoreOptions {
  /** What the path of a `sqlite:` file is relative to; default: the working directory. */
  readonly baseDirectory?: string;
  /** Only what is there already is opened, and nothing is written. */
  readonly readOnly?: boolean;
  readonly clock?: Clock;
  /** Hears what the operator should know of the server: unencrypted, forgetful, not there yet. */
  readonly warn?: (message: string) => void;
}

/**
 * Opens the store. Only the named backend is loaded. Throws `settings_invalid` when it cannot be used; no error of it, now or later,
 * carries the password of its URL.
 */
export async function openStore(setting: string | Secret, options: OpenStoreOptions = {}): Promise<Store> {
  const place = setting instanceof Secret ? setting.reveal() : setting;
  const scheme = /^[a-z]+(?=:|$)/.exec(place)?.[0];
  const { baseDirectory = ".", ...rest } = options;
  switch (scheme) {
    case "memory": {
      const { memoryStore } = await import("./memory/memory.ts");
      return memoryStore(rest.clock);
    }
    case "sqlite": {
      const { sqliteStore } = await import("./sqlite/sqlite.ts");
      return sqliteStore(resolve(baseDirectory, place.slice("sqlite:".length)), rest);
    }
    case "postgres":
    case "postgresql": {
      const { postgresStore } = await import("./postgres/postgres.ts");
      return postgresStore(place, rest);
    }
    case "redis":
    case "rediss": {
      const { redisStore } = await import("./redis/redis.ts");
      return redisStore(place, rest);
    }
    default:
      throw new DrawbridgeError(
        "settings_invalid",
        "The store is none that is known here. Write sqlite:<file>, postgres://…, redis://…, rediss://… or memory.",
      );
  }
}
