/**
 * Reversible stand-ins. What a user is shown in place of a value is derived from both, so a value has the same stand-in in every
 * answer to that user and another in those to anyone else. The value is stored encrypted, under the user and the stand-in, until it
 * expires: nobody else can give it back, and the store shows neither.
 */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import type { Records } from "../store/ports.ts";
import { numberFor, STAND_INS, standInFor } from "./stand-in.ts";

const KIND = "mask_stand_in";
/** Stand-ins that this process knows to be stored. */
const MAX_KNOWN = 50_000;
const MAX_ATTEMPTS = 8;
/** More stand-ins than this in the arguments of one call are nobody's work. */
const MAX_IN_ARGUMENTS = 1000;

/** A stand-in that must be stored before an answer that shows it leaves. */
export interface Pending {
  readonly id: string;
  readonly subject: string;
  readonly value: string;
  readonly type: string;
}

/** A stand-in that was given back, and what it stood for. */
export interface PutBack {
  readonly standIn: string;
  readonly value: string;
  readonly type: string;
}

/** Whose stand-ins are put back: all, or those of some types. */
export type Allowed = true | readonly string[];

interface Stored {
  readonly sealed: string;
  readonly type?: string;
}

export interface Tokens {
  /** The stand-in of `value` for a user, written as a number when it stands in place of one. Adds to `pending` what is not stored yet. */
  standIn(type: string, value: string, subject: string, number: boolean, pending: Pending[]): string;
  /** Stores what is pending. Rejects when a stand-in could not be stored: the answer must not leave then. */
  keep(pending: readonly Pending[]): Promise<void>;
  /**
   * Puts the true values in place of the stand-ins of this user in one string; the same string when there is none. Throws
   * `invalid_params` for what can only be a stand-in and is not (no longer, or not for this user) known. Stand-ins of other types
   * than `types` stay.
   */
  restore(
    text: string,
    subject: string,
    types?: Allowed,
  ): Promise<{ readonly text: string; readonly put: readonly PutBack[] }>;
  /** Forgets every stand-in of a user. */
  forget(subject: string): Promise<void>;
}

/** Makes the stand-ins of one gateway. All its replicas need the same key. */
export function tokens(records: Records, key: Secret, ttlMs: number, clock: Clock): Tokens {
  const [shapeKey, idKey, sealKey] = [derived(key, "stand-in"), derived(key, "id"), derived(key, "seal")];
  const known = new Map<string, { readonly mark: string; readonly expiresAt: number }>();
  /** The first choice for a value, which comes again and again. */
  const first = new Map<string, { readonly mark: string; readonly standIn: string; readonly id: string }>();

  const idOf = (subject: string, standIn: string) => digest(idKey, "row", subject, standIn).toString("base64url");
  const markOf = (value: string) => digest(idKey, "value", value).toString("base64url");

  function remember(id: string, mark: string, expiresAt: number): void {
    known.delete(id);
    known.set(id, { mark, expiresAt });
    const oldest = known.size > MAX_KNOWN ? known.keys().next().value : undefined;
    if (oldest !== undefined) known.delete(oldest);
  }

  function choice(type: string, value: string, subject: string, number: boolean, attempt: number) {
    const random = digest(shapeKey, subject, type, value, number ? "number" : "text", String(attempt));
    const standIn = number ? numberFor(random) : standInFor(type, random);
    return { standIn, id: idOf(subject, standIn) };
  }

  async function keepOne({ id, subject, value, type }: Pending): Promise<void> {
    const expiresAt = clock() + ttlMs;
    const options = { expiresAt, index: { maskOwner: ownerOf(idKey, subject) } };
    for (let attempt = 0; attempt < 3; attempt++) {
      const row = await records.get<Stored>(KIND, id);
      if (row !== undefined && open(sealKey, id, row.value.sealed) !== value) {
        // Two values of one user have one stand-in. The next time the second one gets another.
        remember(id, "taken", expiresAt);
        throw new DrawbridgeError("internal", "The answer could not be masked. Try again.", {
          detail: "mask: two values have the same stand-in",
        });
      }
      // Another answer has stored it meanwhile, here or at another replica.
      if (row?.expiresAt !== undefined && row.expiresAt - clock() > ttlMs / 2)
        return remember(id, markOf(value), row.expiresAt);
      if (
        await records.put(KIND, id, { sealed: seal(sealKey, id, value), type } satisfies Stored, {
          ...options,
          ifVersion: row?.version ?? 0,
        })
      ) {
        remember(id, markOf(value), expiresAt);
        return;
      }
    }
    throw new DrawbridgeError("internal", "The answer could not be masked. Try again.", {
      detail: "mask: a stand-in was written by others each time",
    });
  }

  return {
    standIn(type, value, subject, number, pending) {
      const name = JSON.stringify([subject, type, value, number]);
      let chosen = first.get(name);
      if (chosen === undefined) {
        chosen = { mark: markOf(value), ...choice(type, value, subject, number, 0) };
        if (first.size >= MAX_KNOWN) first.clear();
        first.set(name, chosen);
      }
      const { mark } = chosen;
      for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        const { standIn, id } = attempt === 0 ? chosen : choice(type, value, subject, number, attempt);
        const stored = known.get(id);
        const now = clock();
        if (stored !== undefined && stored.expiresAt > now && stored.mark !== mark) continue;
        const fresh = stored !== undefined && stored.expiresAt - now > ttlMs / 2;
        if (!fresh && !pending.some((other) => other.id === id)) pending.push({ id, subject, value, type });
        return standIn;
      }
      return `[${type}]`;
    },

    async keep(pending) {
      await Promise.all(pending.map(keepOne));
    },

    async restore(text, subject, types = true) {
      const found = STAND_INS.flatMap(({ pattern, sure, plain }) =>
        [...text.matchAll(pattern)].map((match) => ({
          start: match.index,
          end: match.index + match[0].length,
          written: match[0],
          standIn: plain?.(match[0]) ?? match[0],
          sure,
        })),
      ).sort((a, b) => a.start - b.start);
      if (found.length === 0) return { text, put: [] };
      if (found.length > MAX_IN_ARGUMENTS)
        throw new DrawbridgeError("invalid_params", "The arguments hold too many stand-ins for private values.");
      const put: PutBack[] = [];
      let restored = "";
      let from = 0;
      for (const { start, end, written, standIn, sure } of found) {
        if (start < from) continue;
        const id = idOf(subject, standIn);
        const row = await records.get<Stored>(KIND, id);
        // Others may have forgotten it: it is stored anew when it is shown again.
        if (row === undefined) known.delete(id);
        const value = row === undefined ? undefined : open(sealKey, id, row.value.sealed);
        if (value === undefined && sure) {
          throw new DrawbridgeError(
            "invalid_params",
            `${written} stands for a private value and has expired, or was not given to you. Ask for the value again and use what you are given.`,
          );
        }
        const type = row?.value.type ?? "masked";
        const back = value !== undefined && (types === true || types.includes(type));
        if (back) put.push({ standIn: written, value, type });
        restored += text.slice(from, start) + (back ? value : written);
        from = end;
      }
      return { text: restored + text.slice(from), put };
    },

    async forget(subject) {
      await forgetStandInsOf(records, key, subject);
      known.clear();
      first.clear();
    },
  };
}

/** Forgets every stand-in of a user in the store, which is all that they are worth. */
export async function forgetStandInsOf(records: Records, key: Secret, subject: string): Promise<void> {
  await records.deleteWhere("maskOwner", ownerOf(derived(key, "id"), subject), KIND);
}

function derived(key: Secret, use: string): Buffer {
  return Buffer.from(hkdfSync("sha256", key.reveal(), "", `drawbridge mask ${use}`, 32));
}

function digest(hmacKey: Buffer, ...parts: readonly string[]): Buffer {
  return createHmac("sha256", hmacKey).update(JSON.stringify(parts)).digest();
}

function ownerOf(idKey: Buffer, subject: string): string {
  return digest(idKey, "owner", subject).toString("base64url");
}

/** AES-256-GCM; the id is authenticated with it, so a row cannot be moved to another user. */
function seal(key: Buffer, id: string, value: string): string {
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(Buffer.from(id));
  const sealed = Buffer.concat([cipher.update(value, "utf8"), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString("base64");
}

/** Undefined: sealed with another key, or tampered with. */
function open(key: Buffer, id: string, sealed: string): string | undefined {
  const bytes = Buffer.from(sealed, "base64");
  try {
    const cipher = createDecipheriv("aes-256-gcm", key, bytes.subarray(0, 12)).setAAD(Buffer.from(id));
    cipher.setAuthTag(bytes.subarray(12, 28));
    return Buffer.concat([cipher.update(bytes.subarray(28)), cipher.final()]).toString("utf8");
  } catch {
    return undefined;
  }
}
