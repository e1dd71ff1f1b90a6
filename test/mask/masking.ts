/** A masker for tests: everything redacted unless the test says otherwise, a store in memory, a clock of the test. */
import { Secret } from "../../src/core/secret.ts";
import { compileMasker, type Masker } from "../../src/mask/masker.ts";
import { maskSettings } from "../../src/mask/settings.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Store } from "../../src/store/ports.ts";

export interface Masking {
  readonly masker: Masker;
  readonly store: Store;
  /** The time, to be moved. */
  readonly time: { now: number };
}

export function masking(settings: unknown = {}, shared?: Store): Masking {
  const time = { now: 1_790_000_000_000 };
  const clock = () => time.now;
  const store = shared ?? memoryStore(clock);
  const key = new Secret("a key that only tests use, long enough");
  return { masker: compileMasker(maskSettings.parse(settings), { key, records: store.records }, clock), store, time };
}

export const amy = { subject: "amy", roles: [] };
export const bob = { subject: "bob", roles: [] };
