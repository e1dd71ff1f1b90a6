/**
 * The key of `_meta` in which the gateway hands a stdio server the token for the API behind it: one for each call and its caller, so that
 * processes can be shared. Only the gateway writes it; what a client sends under it goes no further (`inbound.ts`).
 */
import type { JsonObject } from "../core/call.ts";
import { isObject } from "./json-text.ts";

/** 2025-11-25 and later, `_meta`: a prefix, a slash and a name. */
export const UPSTREAM_TOKEN = "drawbridge/upstream-token";

export interface HandedToken {
  /** For `Authorization: Bearer`. */
  readonly token: string;
  /** The API that it is for, and no other (RFC 8707). */
  readonly audience: string;
  /** Milliseconds since the epoch; undefined when nobody said. */
  readonly expiresAt: number | undefined;
}

/** The member of `_meta` as JSON text. */
export function handedText({ token, audience, expiresAt }: HandedToken): string {
  const ends = expiresAt === undefined ? {} : { expiresAt: new Date(expiresAt).toISOString() };
  return `${KEY}:${JSON.stringify({ token, ...ends, audience })}`;
}

/** What was handed over with a request; undefined when nothing was. */
export function handedToken(meta: JsonObject): HandedToken | undefined {
  const handed = meta[UPSTREAM_TOKEN];
  if (!isObject(handed)) return undefined;
  const { token, audience, expiresAt } = handed;
  if (typeof token !== "string" || token === "" || typeof audience !== "string") return undefined;
  if (expiresAt === undefined) return { token, audience, expiresAt };
  const ends = typeof expiresAt === "string" ? Date.parse(expiresAt) : Number.NaN;
  return Number.isNaN(ends) ? undefined : { token, audience, expiresAt: ends };
}

const KEY = JSON.stringify(UPSTREAM_TOKEN);
