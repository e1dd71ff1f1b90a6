/**
 * Values that strangers carry for us: encrypted and authenticated (AES-256-GCM) with a key that all replicas have from the store,
 * bound to whom and what they were made for, and ended by the clock. There is a new key each day, made by whoever needs it first.
 */
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import type { Records } from "../store/ports.ts";
import { decrypted, encrypted, sharedKey } from "../store/sealing.ts";

export interface Seals {
  /**
   * Seals `value` for `seconds`, at most a day. `binding` is not inside: whoever opens must say the same, so a value sealed for one
   * caller and request opens for no other. Rejects when the key cannot be had from the store, and with `answer_too_large`.
   */
  seal(value: unknown, binding: string, seconds: number): Promise<string>;
  /** What was sealed; undefined for what was changed, has ended, is bound to something else or was never sealed: all the same. */
  open<T>(sealed: string, binding: string): Promise<T | undefined>;
}

const DAY_MS = 86_400_000;
const MAX_SEALED = 16 << 20;

/** `encryption`: a secret that is not in the store, without which its keys are of no use. */
export function openSeals(records: Records, encryption: Secret | undefined, clock: Clock = systemClock): Seals {
  const keys = new Map<number, Promise<Buffer>>();

  const key = (day: number): Promise<Buffer> => {
    let known = keys.get(day);
    if (known === undefined) {
      known = load(day);
      keys.set(day, known);
      known.catch(() => keys.delete(day));
      for (const old of keys.keys()) if (old < day - 2) keys.delete(old);
    }
    return known;
  };
  // What is sealed at the end of the day lives for one more; a replica whose clock is ahead comes before it.
  const load = (day: number) =>
    sharedKey(records, String(day), "drawbridge interaction 1", encryption, (day + 3) * DAY_MS);
  const today = () => Math.floor(clock() / DAY_MS);

  return {
    async seal(value, binding, seconds) {
      const day = today();
      const text = JSON.stringify([clock() + Math.min(seconds * 1000, DAY_MS), value]);
      const sealed = `${day}.${encrypted(await key(day), text, `${day}\n${binding}`)}`;
      if (sealed.length <= MAX_SEALED) return sealed;
      throw new DrawbridgeError("answer_too_large", "The server's answer is too large to be passed on.");
    },
    async open<T>(sealed: string, binding: string) {
      const [, named = "", encoded = ""] =
        /^([1-9]\d{0,5})\.([\w-]+)$/.exec(sealed.length > MAX_SEALED ? "" : sealed) ?? [];
      const day = Number(named);
      // A day that cannot be right is not worth a question to the store.
      if (encoded === "" || Math.abs(day - today()) > 1) return undefined;
      const text = decrypted(await key(day), encoded, `${day}\n${binding}`);
      if (text === undefined) return undefined;
      const [until, value] = JSON.parse(text) as [number, T];
      return clock() < until ? value : undefined;
    },
  };
}
