/** A person's browser: its session, and the proof that a form was filled in where it was shown. */
import { hash } from "node:crypto";
import { DrawbridgeError } from "../../core/errors.ts";
import { newToken } from "../../core/ids.ts";
import type { Exchange } from "../http.ts";
import type { Keys } from "../tokens/keys.ts";
import type { Session, Sessions } from "./sessions.ts";
import type { User, Users } from "./users.ts";

export interface Browsers {
  /** The signed-in person, or undefined: no session, an ended one, a disabled user. */
  user(request: Request): Promise<User | undefined>;
  /** The same with the session. */
  signedIn(request: Request): Promise<SignedIn | undefined>;
  /** Begins a session and sets its cookie. */
  signIn(exchange: Exchange, user: User, how?: Pick<Session, "provider" | "interaction">): Promise<void>;
  /** Ends this browser's session and clears its cookie. */
  signOut(exchange: Exchange): Promise<void>;
  /** Ends every session of a user, e.g. after a changed password, and gives this browser a new one. */
  signOutOthers(exchange: Exchange, signedIn: SignedIn): Promise<void>;
  /** The hidden field for a form with this purpose; sets the cookie that binds it to this browser. */
  formToken(exchange: Exchange, purpose: string): string;
  /** Throws `wrong_origin` unless the form was shown to this browser for this purpose. */
  checkForm(exchange: Exchange, form: URLSearchParams, purpose: string): void;
  /**
   * What a sign-in at a provider is bound to: this browser, for the ten minutes it may take, whichever of its windows comes
   * back. Sets the cookie.
   */
  markAway(exchange: Exchange): string;
  /** What `markAway` gave this browser. */
  awayMark(request: Request): string | undefined;
  /** Remembers, for ten minutes, the page of a server's connection that somebody wanted before they were signed in. */
  markWayBack(exchange: Exchange, path: string): void;
  /** What `markWayBack` was given, once. */
  takeWayBack(exchange: Exchange): string | undefined;
}

export interface SignedIn {
  readonly user: User;
  readonly session: Session;
}

type Request = Pick<Exchange["request"], "headers">;

export interface BrowsersOptions {
  readonly users: Users;
  readonly sessions: Sessions;
  readonly keys: Keys;
  /** https: cookies are `__Host-` and Secure. Only plain http on loopback goes without. */
  readonly secure: boolean;
}

/** How long a sign-in at a provider may take. */
export const AWAY_SECONDS = 600;

export function browsers({ users, sessions, keys, secure }: BrowsersOptions): Browsers {
  const sessionCookie = secure ? "__Host-drawbridge" : "drawbridge";
  const browserCookie = secure ? "__Host-drawbridge-browser" : "drawbridge-browser";
  const backCookie = secure ? "__Host-drawbridge-back" : "drawbridge-back";
  const awayCookie = secure ? "__Host-drawbridge-away" : "drawbridge-away";

  function setCookie({ response }: Exchange, name: string, value: string, maxAgeSeconds: number): void {
    const text = `${name}=${value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${maxAgeSeconds}${secure ? "; Secure" : ""}`;
    response.appendHeader("set-cookie", text);
  }

  async function signedIn(request: Request): Promise<SignedIn | undefined> {
    const cookie = cookieOf(request, sessionCookie);
    const session = cookie === undefined ? undefined : await sessions.seen(cookie);
    const user = session && (await users.find(session.user));
    return session === undefined || user === undefined || user.disabled ? undefined : { user, session };
  }

  const signIn: Browsers["signIn"] = async (exchange, user, how = {}) => {
    // Always a new one: an id planted before sign-in must not become a signed-in one. The old one would be nobody's.
    const { request, source } = exchange;
    const old = cookieOf(request, sessionCookie);
    const replaced = old === undefined ? undefined : await sessions.seen(old);
    const userAgent = request.headers["user-agent"] ?? "";
    const cookie = await sessions.begin({ user: user.id, userAgent, source, ...how });
    if (replaced !== undefined) await sessions.end(replaced.user, replaced.id);
    setCookie(exchange, sessionCookie, cookie, sessions.maxAgeSeconds);
  };

  return {
    signedIn,
    async user(request) {
      return (await signedIn(request))?.user;
    },
    signIn,
    async signOut(exchange) {
      const cookie = cookieOf(exchange.request, sessionCookie);
      const session = cookie === undefined ? undefined : await sessions.seen(cookie);
      if (session !== undefined) await sessions.end(session.user, session.id);
      setCookie(exchange, sessionCookie, "", 0);
    },
    async signOutOthers(exchange, { user, session }) {
      await sessions.endAll(user.id);
      await signIn(exchange, user, session.provider === undefined ? {} : { provider: session.provider });
    },
    formToken(exchange, purpose) {
      const known = secretOf(exchange.request, browserCookie);
      const browser = known ?? newToken();
      if (known === undefined) setCookie(exchange, browserCookie, browser, 86_400);
      return keys.seal(browser, purpose);
    },
    checkForm({ request }, form, purpose) {
      const browser = cookieOf(request, browserCookie);
      // Browsers say where a form was sent from. Origin says `null` under our Referrer-Policy, so it tells nothing here.
      const site = request.headers["sec-fetch-site"];
      const elsewhere = site !== undefined && site !== "same-origin" && site !== "none";
      if (browser === undefined || elsewhere || !keys.sealed(form.get("form") ?? "", browser, purpose)) {
        throw new DrawbridgeError(
          "wrong_origin",
          "This form was not shown to this browser, or it is too old. Go back, load the page again and repeat.",
        );
      }
    },
    markAway(exchange) {
      const mark = secretOf(exchange.request, awayCookie) ?? newToken();
      setCookie(exchange, awayCookie, mark, AWAY_SECONDS);
      return digest(mark);
    },
    markWayBack(exchange, path) {
      setCookie(exchange, backCookie, WAY_BACK.test(path) ? path : "", AWAY_SECONDS);
    },
    takeWayBack(exchange) {
      const path = cookieOf(exchange.request, backCookie);
      if (path === undefined) return undefined;
      setCookie(exchange, backCookie, "", 0);
      return WAY_BACK.test(path) ? path : undefined;
    },
    awayMark(request) {
      const mark = secretOf(request, awayCookie);
      return mark === undefined ? undefined : digest(mark);
    },
  };
}

/** A page of ours and nothing else, whoever may have set the cookie. */
const WAY_BACK = /^\/connections\/[a-z][a-z0-9-]{0,39}\?for=[\w-]{0,64}$/;

const digest = (text: string) => hash("sha256", text, "base64url");

/** The value of a cookie that looks like one of ours. */
function secretOf(request: Request, name: string): string | undefined {
  const value = cookieOf(request, name);
  return value !== undefined && /^[\w-]{43}$/.test(value) ? value : undefined;
}

function cookieOf({ headers }: Request, name: string): string | undefined {
  for (const pair of (headers.cookie ?? "").split(";")) {
    const at = pair.indexOf("=");
    if (pair.slice(0, at).trim() === name) return pair.slice(at + 1).trim() || undefined;
  }
  return undefined;
}
