/** A person's browser: its session, and the proof that a form was filled in where it was shown. */
import { hash } from "node:crypto";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newToken } from "../core/ids.ts";
import type { Records } from "../store/ports.ts";
import type { Exchange } from "./http.ts";
import type { Keys } from "./keys.ts";
import type { User, Users } from "./users.ts";

export interface Browsers {
  /** The signed-in person, or undefined: no session, an ended one, a disabled user. */
  user(request: Pick<Exchange["request"], "headers">): Promise<User | undefined>;
  /** Begins a session and sets its cookie. */
  signIn(exchange: Exchange, user: User): Promise<void>;
  /** Ends this browser's session and clears its cookie. */
  signOut(exchange: Exchange): Promise<void>;
  /** Ends every other session of a user, e.g. after a changed password. */
  signOutOthers(exchange: Exchange, user: User): Promise<void>;
  /** The hidden field for a form with this purpose; sets the cookie that binds it to this browser. */
  formToken(exchange: Exchange, purpose: string): string;
  /** Throws `wrong_origin` unless the form was shown to this browser for this purpose. */
  checkForm(exchange: Exchange, form: URLSearchParams, purpose: string): void;
}

export interface BrowsersOptions {
  readonly records: Records;
  readonly users: Users;
  readonly keys: Keys;
  /** https: cookies are `__Host-` and Secure. Only plain http on loopback goes without. */
  readonly secure: boolean;
  readonly sessionHours: number;
  readonly clock?: Clock;
}

const SESSION = "oauth:browser-session";

export function browsers(options: BrowsersOptions): Browsers {
  const { records, users, keys, secure, sessionHours, clock = systemClock } = options;
  const sessionCookie = secure ? "__Host-drawbridge" : "drawbridge";
  const browserCookie = secure ? "__Host-drawbridge-browser" : "drawbridge-browser";
  // The cookie is a bearer secret; the store knows only its hash.
  const rowId = (cookie: string) => hash("sha256", cookie, "base64url");

  function setCookie({ response }: Exchange, name: string, value: string, maxAgeSeconds: number): void {
    const text = `${name}=${value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${maxAgeSeconds}${secure ? "; Secure" : ""}`;
    response.appendHeader("set-cookie", text);
  }

  async function begin(exchange: Exchange, user: User): Promise<void> {
    // Always a new one: an id planted before sign-in must not become a signed-in one.
    const cookie = newToken();
    const expiresAt = clock() + sessionHours * 3_600_000;
    const value = { user: user.id, startedAt: clock() };
    await records.put(SESSION, rowId(cookie), value, { expiresAt, index: { user: user.id } });
    setCookie(exchange, sessionCookie, cookie, Math.floor(sessionHours * 3600));
  }

  return {
    async user(request) {
      const cookie = cookieOf(request, sessionCookie);
      if (cookie === undefined) return undefined;
      const session = await records.get<{ user: string }>(SESSION, rowId(cookie));
      const user = session === undefined ? undefined : await users.find(session.value.user);
      return user?.disabled === false ? user : undefined;
    },
    signIn: begin,
    async signOut(exchange) {
      const cookie = cookieOf(exchange.request, sessionCookie);
      if (cookie !== undefined) await records.delete(SESSION, rowId(cookie));
      setCookie(exchange, sessionCookie, "", 0);
    },
    async signOutOthers(exchange, user) {
      await records.deleteWhere("user", user.id, SESSION);
      await begin(exchange, user);
    },
    formToken(exchange, purpose) {
      const known = cookieOf(exchange.request, browserCookie);
      const browser = known !== undefined && /^[\w-]{43}$/.test(known) ? known : newToken();
      if (browser !== known) setCookie(exchange, browserCookie, browser, 86_400);
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
  };
}

function cookieOf({ headers }: Pick<Exchange["request"], "headers">, name: string): string | undefined {
  for (const pair of (headers.cookie ?? "").split(";")) {
    const at = pair.indexOf("=");
    if (pair.slice(0, at).trim() === name) return pair.slice(at + 1).trim() || undefined;
  }
  return undefined;
}
