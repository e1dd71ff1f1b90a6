/** Browsers that are signed in: begun at a sign-in, seen at each request, listed, ended. Every process reads them from the store. */
import { hash } from "node:crypto";
import { type Clock, systemClock } from "../../core/clock.ts";
import { newToken } from "../../core/ids.ts";
import type { Records } from "../../store/ports.ts";

export interface Session {
  /** Names the session in pages, commands and records. Whoever knows it cannot use the session. */
  readonly id: string;
  readonly user: string;
  /** When the person proved who they are. Milliseconds since the epoch. */
  readonly startedAt: number;
  /** Right to the minute. */
  readonly lastSeenAt: number;
  readonly endsAt: number;
  /** As the browser described itself at the sign-in, printable characters only; may be empty. */
  readonly userAgent: string;
  /** Network address at the sign-in. */
  readonly source: string;
  /** Where the person signed in; absent: with a password kept here. */
  readonly provider?: string;
  /** The request of a client that this sign-in was for. */
  readonly interaction?: string;
}

export type NewSession = Pick<Session, "user" | "userAgent" | "source" | "provider" | "interaction">;

export interface Sessions {
  /** How long one lasts. */
  readonly maxAgeSeconds: number;
  /** Begins one and returns the secret of its cookie, which is kept nowhere. */
  begin(session: NewSession): Promise<string>;
  /** The session of a cookie, noting that it was seen; undefined when it has ended. */
  seen(secret: string): Promise<Session | undefined>;
  /** A user's, the last seen first; at most 100. */
  list(user: string): Promise<readonly Session[]>;
  /** Ends one session, everywhere at once. False: that user has no such session. */
  end(user: string, id: string): Promise<boolean>;
  /** Ends all of a user's but one; returns how many. */
  endAll(user: string, but?: string): Promise<number>;
}

const SESSION = "oauth:browser-session";
const MAX_LISTED = 100;
const SEEN_EVERY_MS = 60_000;

type Stored = Omit<Session, "id" | "endsAt">;

export function sessionsIn(records: Records, sessionHours: number, clock: Clock = systemClock): Sessions {
  const list = async (user: string) => {
    const rows = await records.find<Stored>(SESSION, "user", user, { limit: MAX_LISTED });
    return rows
      .map(({ id, value, expiresAt = 0 }): Session => ({ id, endsAt: expiresAt, ...value }))
      .sort((a, b) => b.lastSeenAt - a.lastSeenAt);
  };

  return {
    maxAgeSeconds: Math.floor(sessionHours * 3600),
    async begin({ user, userAgent, source, provider, interaction }) {
      const secret = newToken();
      const now = clock();
      const value: Stored = {
        user,
        startedAt: now,
        lastSeenAt: now,
        userAgent: userAgent.replace(/[^\x20-\x7E]/g, "").slice(0, 256),
        source,
        ...(provider === undefined ? {} : { provider }),
        ...(interaction === undefined ? {} : { interaction }),
      };
      const expiresAt = now + sessionHours * 3_600_000;
      await records.put(SESSION, idOf(secret), value, { expiresAt, index: { user } });
      return secret;
    },
    async seen(secret) {
      const row = await records.get<Stored>(SESSION, idOf(secret));
      if (row === undefined) return undefined;
      const { id, value, version, expiresAt = 0 } = row;
      const now = clock();
      if (now - value.lastSeenAt >= SEEN_EVERY_MS) {
        // With the version: a session that was ended meanwhile does not come back.
        const index = { user: value.user };
        await records.put(SESSION, id, { ...value, lastSeenAt: now }, { ifVersion: version, expiresAt, index });
      }
      return { id, endsAt: expiresAt, ...value };
    },
    list,
    async end(user, id) {
      const row = await records.get<Stored>(SESSION, id);
      if (row?.value.user !== user) return false;
      return (await records.take(SESSION, id)) !== undefined;
    },
    async endAll(user, but) {
      if (but === undefined) return records.deleteWhere("user", user, SESSION);
      let ended = 0;
      for (;;) {
        const others = (await list(user)).filter(({ id }) => id !== but);
        if (others.length === 0) return ended;
        for (const { id } of others) if ((await records.take(SESSION, id)) !== undefined) ended++;
      }
    },
  };
}

/** The cookie is a bearer secret of 256 bits; the store knows only its hash, from which nobody comes back to it. */
function idOf(secret: string): string {
  return hash("sha256", secret, "base64url");
}

/** "Firefox on Linux", for a person who looks for the one they do not know. Never more than a hint: a browser says what it likes. */
export function browserName(userAgent: string): string {
  const browser = BROWSERS.find(([pattern]) => pattern.test(userAgent))?.[1];
  const system = SYSTEMS.find(([pattern]) => pattern.test(userAgent))?.[1];
  if (browser !== undefined) return system === undefined ? browser : `${browser} on ${system}`;
  return userAgent.split(" ")[0]?.slice(0, 60) || "A browser that does not say its name";
}

/** In this order: each names itself beside those it wants to be taken for. */
const BROWSERS: readonly (readonly [RegExp, string])[] = [
  [/\bEdg(e|A|iOS)?\//, "Edge"],
  [/\bOPR\//, "Opera"],
  [/\bSamsungBrowser\//, "Samsung Internet"],
  [/\b(Firefox|FxiOS)\//, "Firefox"],
  [/\b(HeadlessChrome|Chrome|CriOS|Chromium)\//, "Chrome"],
  [/\bVersion\/[\d.]+.*\bSafari\//, "Safari"],
];
const SYSTEMS: readonly (readonly [RegExp, string])[] = [
  [/\bWindows\b/, "Windows"],
  [/\bAndroid\b/, "Android"],
  [/\b(iPhone|iPad|iPod)\b/, "iOS"],
  [/\bMac OS X\b/, "macOS"],
  [/\bCrOS\b/, "ChromeOS"],
  [/\bLinux\b/, "Linux"],
];
