/** The server's own keys: ES256 for tokens, HMAC for cookies and forms. Made once, kept in the store, shared by all replicas. */
import { createHmac, generateKeyPairSync, hash, timingSafeEqual } from "node:crypto";
import { calculateJwkThumbprint } from "jose";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newToken } from "../core/ids.ts";
import type { Records } from "../store/ports.ts";

/** An EC P-256 private key as a JWK (RFC 7517). */
export interface SigningKey {
  readonly kty: "EC";
  readonly crv: "P-256";
  readonly x: string;
  readonly y: string;
  readonly d: string;
  readonly kid: string;
  readonly alg: "ES256";
  readonly use: "sig";
}
export type PublicKey = Omit<SigningKey, "d">;

export interface Keys {
  /** The first one signs; all verify. */
  readonly signing: readonly SigningKey[];
  readonly public: readonly PublicKey[];
  /** The first one signs cookies; all verify. */
  readonly cookies: readonly string[];
  /** Binds a form to a browser and a purpose. */
  seal(browser: string, purpose: string): string;
  sealed(candidate: string, browser: string, purpose: string): boolean;
}

interface Stored {
  readonly signing: readonly SigningKey[];
  readonly cookies: readonly string[];
  readonly forms: string;
  readonly createdAt: number;
}

const KIND = "oauth:keys";
const ID = "current";

/** Reads the keys, or makes them. Of two processes that start together, both end with the keys of the first. */
export async function loadKeys(records: Records, clock: Clock = systemClock): Promise<Keys> {
  const stored = await records.get<Stored>(KIND, ID);
  if (stored !== undefined) return keysFrom(stored.value);
  const made: Stored = {
    signing: [await newSigningKey()],
    cookies: [newToken()],
    forms: newToken(),
    createdAt: clock(),
  };
  if (await records.put(KIND, ID, made, { ifVersion: 0 })) return keysFrom(made);
  const others = await records.get<Stored>(KIND, ID);
  if (others === undefined) {
    throw new DrawbridgeError("internal", "The gateway could not read its keys from the store.");
  }
  return keysFrom(others.value);
}

function keysFrom({ signing, cookies, forms }: Stored): Keys {
  const seal = (browser: string, purpose: string) =>
    createHmac("sha256", forms).update(`${browser}\n${purpose}`).digest("base64url");
  return {
    signing,
    public: signing.map(({ d: _, ...rest }) => rest),
    cookies,
    seal,
    sealed: (candidate, browser, purpose) => sameText(candidate, seal(browser, purpose)),
  };
}

async function newSigningKey(): Promise<SigningKey> {
  const {
    x = "",
    y = "",
    d = "",
  } = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
  const key = { kty: "EC", crv: "P-256", x, y } as const;
  return { ...key, d, kid: await calculateJwkThumbprint(key), alg: "ES256", use: "sig" };
}

function sameText(a: string, b: string): boolean {
  return timingSafeEqual(hash("sha256", a, "buffer"), hash("sha256", b, "buffer"));
}
