/** Takes secrets that the gateway knows out of texts that it shows or writes: log lines, stderr of servers, errors, records. */
import type { Secret } from "../core/secret.ts";

export interface Concealer {
  /** These are taken out, too, from now on. `users`: of one user each, of which only the newest thousands are kept in mind. */
  add(secrets: readonly Secret[], whose?: "settings" | "users"): void;
  /** The text with `[secret]` for each secret in it, as it is, as JSON or a URL would write it, or in base64. The same text when there is none. */
  text(text: string): string;
}

/** Shorter ones stand in every other text by chance. */
const MIN_LENGTH = 6;
/** Of each kind; one has up to five spellings. The oldest go first. */
const MAX_VALUES = 10_000;
/** So many are looked for one by one; of more, those that can be in a text are found in one walk over it, whose cost is always the same. */
const FEW = 24;

export function openConcealer(): Concealer {
  const known = { settings: new Set<string>(), users: new Set<string>() };
  let find: (text: string) => readonly string[] = () => [];
  return {
    add(secrets, whose = "settings") {
      const mine = known[whose];
      const fresh = secrets
        .map((secret) => secret.reveal())
        .filter((value) => value.length >= MIN_LENGTH && !mine.has(value));
      if (fresh.length === 0) return;
      for (const value of fresh) for (const written of spellings(value)) mine.add(written);
      for (const oldest of mine) {
        if (mine.size <= MAX_VALUES) break;
        mine.delete(oldest);
      }
      find = finder([...known.settings, ...known.users]);
    },
    text: (text) => find(text).reduce((clean, value) => clean.replaceAll(value, "[secret]"), text),
  };
}

/** Finds those that are in a text, longest first, since one may be part of another. */
function finder(values: readonly string[]): (text: string) => readonly string[] {
  const sorted = [...values].sort((one, other) => other.length - one.length);
  if (sorted.length <= FEW) return (text) => sorted.filter((value) => text.includes(value));
  const heads = new Uint8Array(1 << 16);
  const byHead = new Map<number, string[]>();
  for (const value of sorted) {
    const head = headAt(value, 0);
    heads[head] = 1;
    const same = byHead.get(head);
    if (same === undefined) byHead.set(head, [value]);
    else same.push(value);
  }
  return (text) => {
    const found = new Set<string>();
    const last = text.length - MIN_LENGTH;
    for (let at = 0; at <= last; at++) {
      const head = headAt(text, at);
      if (heads[head] !== 1) continue;
      for (const value of byHead.get(head) ?? []) if (text.startsWith(value, at)) found.add(value);
    }
    return found.size > 0 ? [...found].sort((one, other) => other.length - one.length) : [];
  };
}

/** Four characters as one number; different ones may have the same. */
function headAt(text: string, at: number): number {
  const sum =
    text.charCodeAt(at) * 961 +
    text.charCodeAt(at + 1) * 31 +
    text.charCodeAt(at + 2) * 6_727 +
    text.charCodeAt(at + 3) * 13_331;
  return sum & 0xffff;
}

function spellings(value: string): readonly string[] {
  return [
    value,
    JSON.stringify(value).slice(1, -1),
    encodeURIComponent(value.toWellFormed()),
    Buffer.from(value).toString("base64"),
    Buffer.from(value).toString("base64url"),
  ];
}
