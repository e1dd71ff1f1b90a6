/** Initial access tokens (RFC 7591 §3): what an operator gives to whoever may register clients. Kept as hashes. */
import { hash, timingSafeEqual } from "node:crypto";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { newId, newToken } from "../../core/ids.ts";
import { Secret } from "../../core/secret.ts";
import type { Records, Row } from "../../store/ports.ts";

export interface InitialAccessToken {
  /** Names the token in lists; no secret. */
  readonly id: string;
  /** What it is for, in the operator's words. */
  readonly note: string;
  /** Registrations that are left. */
  readonly usesLeft: number;
  readonly createdAt: number;
  readonly expiresAt: number;
}

export interface NewInitialAccessToken {
  /** How many clients may be registered with it. */
  readonly uses: number;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  readonly note?: string;
}

interface Stored extends InitialAccessToken {
  readonly hash: string;
}

const KIND = "oauth:initial-access";

/** Makes a token. It is told this once. Throws `invalid_params` for one that could never be used. */
export async function newInitialAccessToken(
  records: Records,
  { uses, expiresAt, note = "" }: NewInitialAccessToken,
  clock: Clock = systemClock,
): Promise<InitialAccessToken & { readonly token: Secret }> {
  if (!Number.isInteger(uses) || uses < 1) {
    throw new DrawbridgeError("invalid_params", "An initial access token is for at least one registration.");
  }
  if (expiresAt <= clock())
    throw new DrawbridgeError("invalid_params", "This initial access token would have expired.");
  const secret = newToken();
  const made = { id: newId(clock()), note: note.slice(0, 200), usesLeft: uses, createdAt: clock(), expiresAt };
  const stored: Stored = { ...made, hash: digest(secret) };
  await records.put(KIND, made.id, stored, { expiresAt });
  return { ...made, token: new Secret(`${made.id}.${secret}`) };
}

/** Those that have not expired, oldest first; at most 1000. */
export async function initialAccessTokens(records: Records): Promise<readonly InitialAccessToken[]> {
  const rows = await records.list<Stored>(KIND, { limit: 1000 });
  return rows.map(({ value: { hash: _, ...token } }) => token);
}

/** Ends a token. What was registered with it stays. */
export async function revokeInitialAccessToken(records: Records, id: string): Promise<void> {
  await records.delete(KIND, id);
}

/** True for a token with which something may still be registered. */
export async function initialAccessTokenStands(records: Records, token: string): Promise<boolean> {
  return (await find(records, token)) !== undefined;
}

/** Takes one use of a token. Of two who want the last one exactly one gets `true`. */
export async function spendInitialAccessToken(records: Records, token: string): Promise<boolean> {
  for (;;) {
    const row = await find(records, token);
    if (row === undefined) return false;
    const spent: Stored = { ...row.value, usesLeft: row.value.usesLeft - 1 };
    const kept = { ifVersion: row.version, ...(row.expiresAt === undefined ? {} : { expiresAt: row.expiresAt }) };
    if (await records.put(KIND, row.id, spent, kept)) return true;
  }
}

async function find(records: Records, token: string): Promise<Row<Stored> | undefined> {
  const [id = "", secret = ""] = token.split(".");
  if (id === "" || id.length > 100) return undefined;
  const row = await records.get<Stored>(KIND, id);
  if (row === undefined || row.value.usesLeft < 1) return undefined;
  return timingSafeEqual(Buffer.from(row.value.hash), Buffer.from(digest(secret))) ? row : undefined;
}

function digest(secret: string): string {
  return hash("sha256", secret, "base64url");
}
