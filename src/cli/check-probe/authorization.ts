/** Asks an authorization server for what it should refuse: as a client that nobody knows, and as one registered for the probe. */
import { createHash, randomBytes } from "node:crypto";
import type { Attempt, ObservedAuthorization } from "../../check/probe/observed.ts";
import { Secret } from "../../core/secret.ts";
import { type Answer, parsed, strings, urlProblem } from "../doctor/http.ts";
import { type Asking, form, grantOf, posted } from "./asking.ts";

export interface AuthorizationServer {
  readonly document: Readonly<Record<string, unknown>>;
  /** What tokens are asked for. */
  readonly resource: string;
  /** A client may be registered, and is taken back. */
  readonly register: boolean;
  /** One that is there already, in place of it. */
  readonly client: { readonly id: string; readonly redirect: string | undefined } | undefined;
}

const ATTACKER = "https://attacker.example/callback";
/** Nobody listens there: codes that come by are read from the redirect. */
const OWN = "http://127.0.0.1:43117/callback";
/** Redirects that no server should register, by what is wrong with them. */
const UNSAFE = {
  "a script": "javascript:alert(1)",
  "plain http on another machine": "http://attacker.example/callback",
  "a host with a star": "https://*.example.com/callback",
  "an address with a fragment": "https://client.example.com/callback#here",
} as const;
const MAX_REDIRECTS = 4;

/** Asks. What could not be asked goes to `untested`, in sentences. */
export async function probeAuthorization(
  asking: Asking,
  server: AuthorizationServer,
  untested: string[],
): Promise<ObservedAuthorization> {
  const endpoint = (name: string): string | undefined => {
    const value = server.document[name];
    return urlProblem(value, asking.local) === undefined ? String(value) : undefined;
  };
  const at = {
    authorize: endpoint("authorization_endpoint"),
    token: endpoint("token_endpoint"),
    register: endpoint("registration_endpoint"),
    revoke: endpoint("revocation_endpoint"),
  };
  const strangers = await asStranger(asking, at, server.resource);
  const redirects =
    at.register !== undefined && server.register ? { redirects: await unsafeRedirects(asking, at.register) } : {};
  const seen = { ...strangers, ...redirects };
  if (at.authorize === undefined || at.token === undefined) {
    untested.push("What the authorization server does for a known client: it names no endpoints that may be asked.");
    return seen;
  }
  const client = await knownClient(asking, at.register, server);
  if (typeof client === "string") {
    untested.push(`What the authorization server does for a known client: ${client}.`);
    return seen;
  }
  try {
    const places = { authorize: at.authorize, token: at.token, revoke: at.revoke };
    return { ...seen, ...(await asClient(asking, places, client, server.resource, untested)) };
  } finally {
    await client.remove?.();
  }
}

interface KnownClient {
  readonly id: string;
  readonly redirect: string;
  readonly remove?: () => Promise<void>;
}

/** The client that was named, or one registered for the probe; in words why there is none. */
async function knownClient(
  asking: Asking,
  endpoint: string | undefined,
  { client, register }: AuthorizationServer,
): Promise<KnownClient | string> {
  if (client !== undefined) return { id: client.id, redirect: client.redirect ?? OWN };
  if (endpoint === undefined) return "it registers none; name one by --client-id and --redirect";
  if (!register) return "--register makes one for the probe, and takes it back; --client-id names one";
  const { id, said, remove } = await registered(asking, endpoint, OWN);
  if (id === undefined) return `it registered none (${said})`;
  return { id, redirect: OWN, ...(remove !== undefined && { remove }) };
}

async function asStranger(
  asking: Asking,
  at: { readonly authorize: string | undefined; readonly token: string | undefined },
  resource: string,
): Promise<ObservedAuthorization> {
  const client = `unknown-${randomBytes(8).toString("hex")}`;
  const away =
    at.authorize === undefined
      ? undefined
      : await visit(asking, authorizeUrl(at.authorize, client, { redirect_uri: ATTACKER, resource }));
  const strangersRedirect: Attempt | undefined =
    away === undefined
      ? undefined
      : toAttacker(away)
        ? { outcome: "taken", said: `${away.status}, sent to attacker.example` }
        : { outcome: away.status >= 500 ? "unclear" : "refused", said: `${away.status}` };
  const strangersToken: Record<string, Attempt> = {};
  if (at.token !== undefined) {
    const code = { code: newVerifier(), code_verifier: newVerifier(), redirect_uri: ATTACKER };
    const grants = { authorization_code: code, client_credentials: { client_secret: newVerifier() } };
    for (const [grant_type, more] of Object.entries(grants)) {
      const answer = await asking.ask(at.token, form({ grant_type, client_id: client, resource, ...more }));
      strangersToken[grant_type] = grantOf(answer, "access_token");
    }
  }
  return {
    ...(strangersRedirect !== undefined && { strangersRedirect }),
    ...(at.token !== undefined && { strangersToken }),
  };
}

interface Places {
  readonly authorize: string;
  readonly token: string;
  readonly revoke: string | undefined;
}

async function asClient(
  asking: Asking,
  at: Places,
  { id: client, redirect }: KnownClient,
  resource: string,
  untested: string[],
): Promise<ObservedAuthorization> {
  const verifier = newVerifier();
  const challenge = createHash("sha256").update(verifier).digest("base64url");
  const sound = { redirect_uri: redirect, resource, code_challenge: challenge, code_challenge_method: "S256" };
  const ask = (changed: Record<string, string | undefined>) =>
    visit(asking, authorizeUrl(at.authorize, client, { ...sound, ...changed }));
  const first = await ask({});
  const right = attemptAt(first, first);
  if (right.outcome !== "taken") {
    untested.push(`What the authorization server refuses: it refused a right request, too (${right.said}).`);
    return { right };
  }
  const wrong = async (changed: Record<string, string | undefined>) => attemptAt(await ask(changed), first);
  const observed: ObservedAuthorization = {
    right,
    withoutPkce: await wrong({ code_challenge: undefined, code_challenge_method: undefined }),
    plainPkce: await wrong({ code_challenge: verifier, code_challenge_method: "plain" }),
    otherRedirect: await wrong({ redirect_uri: ATTACKER }),
    otherAudience: await wrong({ resource: "https://other.example/mcp" }),
    ...(first?.page !== undefined && { page: first.page }),
  };
  const code = codeOf(first, redirect);
  if (code === undefined) {
    untested.push("Whether codes are redeemed once, and with their verifier alone: that takes a person's sign-in.");
    return { ...observed, codeWithoutSignIn: false };
  }
  const redeem = async (given: string, used: string) => {
    const fields = { grant_type: "authorization_code", client_id: client, redirect_uri: redirect, resource };
    const answer = await asking.ask(at.token, form({ ...fields, code: given, code_verifier: used }));
    await giveBack(asking, at.revoke, client, answer);
    return grantOf(answer, "access_token");
  };
  const wrongVerifier = await redeem(code, newVerifier());
  // A code that was tried in vain may be spent: the next is another.
  const second = codeOf(await ask({}), redirect);
  const once = second === undefined ? undefined : await redeem(second, verifier);
  const codeTwice = second !== undefined && once?.outcome === "taken" ? await redeem(second, verifier) : undefined;
  return {
    ...observed,
    codeWithoutSignIn: true,
    answerIssuer: first?.away?.searchParams.get("iss") ?? null,
    wrongVerifier,
    ...(codeTwice !== undefined && { codeTwice }),
  };
}

/** Where a visitor without a session ends: at a page, or sent away from the authorization server. */
interface Visit {
  readonly status: number;
  /** The path of the last page, what looks like an id left out. */
  readonly path: string;
  readonly away?: URL;
  readonly page?: NonNullable<ObservedAuthorization["page"]>;
}

async function visit(asking: Asking, from: URL): Promise<Visit | undefined> {
  const cookies = new Map<string, string>();
  let url = from;
  for (let step = 0; step <= MAX_REDIRECTS; step++) {
    const cookie = [...cookies].map((pair) => pair.join("=")).join("; ");
    const answer = await asking.ask(url, { headers: { accept: "text/html", ...(cookie !== "" && { cookie }) } });
    if (answer === undefined) return undefined;
    const { status, headers } = answer;
    const path = url.pathname.replaceAll(/\/(?=[^/]*\d)[^/]{8,}/g, "/*");
    const to = status >= 300 && status < 400 ? URL.parse(headers.get("location") ?? "", url.href) : null;
    if (to === null)
      return {
        status,
        path,
        ...(status === 200 && {
          page: {
            frameOptions: headers.get("x-frame-options") ?? undefined,
            policy: headers.get("content-security-policy") ?? undefined,
          },
        }),
      };
    if (to.origin !== from.origin) return { status, path, away: to };
    for (const line of headers.getSetCookie()) {
      const [name = "", value = ""] = (line.split(";")[0] ?? "").split(/=(.*)/s);
      if (cookies.size < 20) cookies.set(name.trim(), value.trim());
    }
    url = to;
  }
  return undefined;
}

/** Taken: a code, or the way to the sign-in that a right request takes. */
function attemptAt(visited: Visit | undefined, rightOne: Visit | undefined): Attempt {
  if (visited === undefined) return { outcome: "unclear", said: "no answer" };
  const { status, path, away } = visited;
  if (away !== undefined) {
    const error = away.searchParams.get("error");
    if (toAttacker(visited)) return { outcome: "taken", said: `${status}, sent to attacker.example` };
    if (error !== null) return { outcome: "refused", said: /^\w{1,60}$/.test(error) ? error : `${status}` };
    if (away.searchParams.has("code")) return { outcome: "taken", said: `${status} and a code` };
    return { outcome: "taken", said: `${status}, on to a sign-in elsewhere`, unsure: true };
  }
  if (status >= 500) return { outcome: "unclear", said: `${status}` };
  const same = status < 300 && path === rightOne?.path && rightOne.away === undefined;
  return same
    ? { outcome: "taken", said: `${status}, on to the sign-in`, unsure: true }
    : { outcome: "refused", said: `${status}` };
}

function toAttacker({ away }: Visit): boolean {
  return away?.hostname === new URL(ATTACKER).hostname;
}

function codeOf(visited: Visit | undefined, redirect: string): string | undefined {
  return visited?.away?.href.startsWith(redirect) === true
    ? (visited.away.searchParams.get("code") ?? undefined)
    : undefined;
}

async function unsafeRedirects(asking: Asking, endpoint: string): Promise<Record<string, Attempt>> {
  const found: Record<string, Attempt> = {};
  for (const [kind, uri] of Object.entries(UNSAFE)) {
    const { id, kept, said, remove } = await registered(asking, endpoint, uri);
    found[kind] = id !== undefined && kept ? { outcome: "taken", said } : { outcome: "refused", said };
    await remove?.();
  }
  return found;
}

interface Registered {
  readonly id: string | undefined;
  /** The redirect is among those that were registered. */
  readonly kept: boolean;
  readonly said: string;
  readonly remove?: () => Promise<void>;
}

/** RFC 7591, and RFC 7592 to take it back. */
async function registered(asking: Asking, endpoint: string, redirect: string): Promise<Registered> {
  const answer = await asking.ask(
    endpoint,
    posted({
      client_name: "drawbridge check",
      redirect_uris: [redirect],
      grant_types: ["authorization_code"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
      application_type: redirect.startsWith("https:") ? "web" : "native",
    }),
  );
  const { outcome, said } = grantOf(answer, "client_id");
  if (answer === undefined || outcome !== "taken") return { id: undefined, kept: false, said };
  const body = parsed(answer.text) ?? {};
  const { registration_client_uri: manage, registration_access_token: token, redirect_uris: uris } = body;
  const mayRemove =
    typeof manage === "string" && typeof token === "string" && URL.parse(manage)?.origin === new URL(endpoint).origin;
  const secret = mayRemove ? new Secret(token) : undefined;
  return {
    id: String(body["client_id"]),
    kept: uris === undefined || strings(uris).includes(redirect),
    said,
    ...(secret !== undefined && {
      remove: async () => {
        const headers = { authorization: `Bearer ${secret.reveal()}` };
        await asking.end(String(manage), { method: "DELETE", headers });
      },
    }),
  };
}

/** A token that the probe was given ends at once (RFC 7009). */
async function giveBack(
  asking: Asking,
  endpoint: string | undefined,
  client: string,
  answer: Answer | undefined,
): Promise<void> {
  const token = parsed(answer?.text ?? "")?.["access_token"];
  if (endpoint !== undefined && typeof token === "string")
    await asking.end(endpoint, form({ token, client_id: client }));
}

function authorizeUrl(endpoint: string, client: string, params: Record<string, string | undefined>): URL {
  const url = new URL(endpoint);
  const all = { response_type: "code", client_id: client, state: newVerifier(), ...params };
  for (const [name, value] of Object.entries(all)) if (value !== undefined) url.searchParams.set(name, value);
  return url;
}

function newVerifier(): string {
  return randomBytes(32).toString("base64url");
}
