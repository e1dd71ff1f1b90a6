/** Links of users to a server that keeps sessions: one for each user and client, never shared, bounded, ended when it is idle. */
import type { Authenticated } from "../core/call.ts";
import type { UpstreamCredentials } from "./credentials.ts";
import type { Stopwatch } from "./exchange.ts";
import type { Link, LinkOptions } from "./link.ts";

export interface PersonalLinks {
  /** The caller's link, made when there is none; it stays until it is given back as often as it was taken. */
  take(by: Authenticated): Personal;
  giveBack(personal: Personal): void;
  readonly size: number;
  /** Ends every session. */
  close(): Promise<void>;
}

/** One user's link through one client. */
export interface Personal {
  readonly link: Link;
  /** The newest proof of who it is: tokens are refreshed while a link lives. */
  by: Authenticated;
  /** Calls that use it. */
  calls: number;
  usedAt: number;
}

export interface PersonalLinksOptions {
  readonly credentials: UpstreamCredentials;
  readonly sessions: { readonly max: number; readonly idleSeconds: number };
  open(source: LinkOptions["source"]): Link;
  readonly now: Stopwatch;
}

export function personalLinks({ credentials, sessions, open, now }: PersonalLinksOptions): PersonalLinks {
  const idleMs = sessions.idleSeconds * 1000;
  // A Map keeps insertion order; taking a link puts it last, so the first is the one unused for longest.
  const links = new Map<string, Personal>();
  let timer: NodeJS.Timeout | undefined;

  /** Ends what is idle, and what is too much of what nobody uses at the moment. */
  function reap(): void {
    const time = now();
    for (const [key, personal] of links) {
      const idle = time - personal.usedAt > idleMs;
      if (personal.calls > 0 || (!idle && links.size <= sessions.max)) continue;
      links.delete(key);
      void end(personal);
    }
    if (links.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  }

  /** By the time a session is idle its user's last token has often ended, and the session is ours to end. */
  function end({ link, by }: Personal): Promise<void> {
    return link.end((signal, refused) =>
      credentials.for(by, signal, refused).catch(() => credentials.own(signal, refused)),
    );
  }

  return {
    take(by) {
      const key = `${by.subject}\n${by.client}`;
      let personal = links.get(key);
      if (personal === undefined) {
        const made: Personal = {
          by,
          calls: 0,
          usedAt: now(),
          link: open((signal, refused) => credentials.for(made.by, signal, refused)),
        };
        personal = made;
        timer ??= setInterval(reap, Math.min(60_000, idleMs)).unref();
      } else {
        links.delete(key);
      }
      links.set(key, personal);
      personal.by = by;
      personal.calls++;
      personal.usedAt = now();
      if (links.size > sessions.max) reap();
      return personal;
    },
    giveBack(personal) {
      personal.calls--;
      personal.usedAt = now();
    },
    get size() {
      return links.size;
    },
    async close() {
      clearInterval(timer);
      const all = [...links.values()];
      links.clear();
      await Promise.all(all.map(end));
    },
  };
}
