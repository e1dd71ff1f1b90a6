/**
 * Gets a real access token from a Drawbridge that was just started: the one-time set-up link makes the owner's account,
 * the bench registers itself as a client, and the OAuth code flow with PKCE runs through the same pages a person sees.
 */
import { createHash, randomBytes } from "node:crypto";

/** What lets the bench in, now and after a restart on the same store. */
export interface Account {
  readonly accessToken: string;
  /** When the access token ends, in milliseconds since the epoch. */
  readonly expiresAt: number;
  readonly refreshToken: string | undefined;
  readonly clientId: string;
  readonly tokenEndpoint: string;
  readonly resource: string;
}

/** Runs set-up and sign-in. `setUpLink` is what the gateway printed; `origin` its own address. */
export async function signUp(origin: string, setUpLink: string): Promise<Account> {
  const browser = new Browser();
  await browser.walk(setUpLink, (url) => url !== setUpLink);
  const resource = `${origin}/mcp`;
  const protectedResource = await json(`${origin}/.well-known/oauth-protected-resource/mcp`);
  const server = await json(`${origin}/.well-known/oauth-authorization-server`);
  const scopes = new Set([...strings(protectedResource["scopes_supported"])]);
  if (strings(server["scopes_supported"]).includes("offline_access")) scopes.add("offline_access");
  const registered = await json(text(server["registration_endpoint"]), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      client_name: "Drawbridge bench",
      redirect_uris: [REDIRECT_URI],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    }),
  });
  const clientId = text(registered["client_id"]);
  const verifier = randomBytes(32).toString("base64url");
  const state = randomBytes(16).toString("base64url");
  const authorize = new URL(text(server["authorization_endpoint"]));
  authorize.search = new URLSearchParams({
    response_type: "code",
    client_id: clientId,
    redirect_uri: REDIRECT_URI,
    scope: [...scopes].join(" "),
    state,
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
    resource,
    // OpenID Connect Core §11: without it no refresh token is due.
    prompt: "consent",
  }).toString();
  const landed = new URL(await browser.walk(authorize.href, (url) => url.startsWith(REDIRECT_URI)));
  const code = landed.searchParams.get("code");
  if (code === null || landed.searchParams.get("state") !== state) {
    throw new Error(`Sign-in ended without a code: ${landed.search}`);
  }
  const tokenEndpoint = text(server["token_endpoint"]);
  const grant = { grant_type: "authorization_code", code, redirect_uri: REDIRECT_URI, code_verifier: verifier };
  return token({ clientId, tokenEndpoint, resource }, grant, undefined);
}

/** The same account with at least `seconds` left on its token. */
export async function fresh(account: Account, seconds: number): Promise<Account> {
  if (account.expiresAt - Date.now() > seconds * 1000 || account.refreshToken === undefined) return account;
  const grant = { grant_type: "refresh_token", refresh_token: account.refreshToken };
  return token(account, grant, account.refreshToken);
}

/** Nothing listens there; the code is taken from the redirect itself. */
const REDIRECT_URI = "http://127.0.0.1:9/callback";
const OWNER = { name: "bench", email: "bench@example.com", password: "a-long-phrase-for-one-bench-run" };
const MOST_PAGES = 12;

async function token(
  client: Pick<Account, "clientId" | "tokenEndpoint" | "resource">,
  grant: Readonly<Record<string, string>>,
  oldRefreshToken: string | undefined,
): Promise<Account> {
  const body = new URLSearchParams({ ...grant, client_id: client.clientId, resource: client.resource });
  const answer = await json(client.tokenEndpoint, { method: "POST", body });
  const renewed = answer["refresh_token"];
  return {
    clientId: client.clientId,
    tokenEndpoint: client.tokenEndpoint,
    resource: client.resource,
    accessToken: text(answer["access_token"]),
    expiresAt: Date.now() + Number(answer["expires_in"] ?? 0) * 1000,
    refreshToken: typeof renewed === "string" ? renewed : oldRefreshToken,
  };
}

/** Follows redirects and fills in the plain HTML forms of set-up, sign-in and consent; keeps cookies of one origin. */
class Browser {
  readonly #cookies = new Map<string, string>();

  /** Goes on until an address satisfies `arrived`, or a page has no form; returns that address. */
  async walk(start: string, arrived: (url: string) => boolean): Promise<string> {
    let url = start;
    let body: URLSearchParams | undefined;
    for (let pages = 0; pages < MOST_PAGES; pages += 1) {
      const response = await this.#fetch(url, body);
      const html = await response.text();
      const location = response.headers.get("location");
      if (location !== null) {
        url = new URL(location, url).href;
        body = undefined;
        if (arrived(url)) return url;
        continue;
      }
      if (!response.ok) throw new Error(`${new URL(url).pathname} answered ${response.status}: ${plainText(html)}`);
      const form = filledForm(html);
      if (form === undefined) return url;
      const action = new URL(form.action ?? url, url);
      if (form.method === "get") action.search = form.fields.toString();
      url = action.href;
      body = form.method === "get" ? undefined : form.fields;
    }
    throw new Error(`Gave up after ${MOST_PAGES} pages, at ${new URL(url).pathname}.`);
  }

  async #fetch(url: string, body: URLSearchParams | undefined): Promise<Response> {
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const response = await fetch(url, {
      redirect: "manual",
      signal: AbortSignal.timeout(30_000),
      headers: {
        accept: "text/html",
        "sec-fetch-site": "same-origin",
        "sec-fetch-mode": "navigate",
        ...(cookie === "" ? {} : { cookie }),
        ...(body === undefined ? {} : { origin: new URL(url).origin }),
      },
      ...(body === undefined ? {} : { method: "POST", body }),
    });
    for (const line of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (value === "") this.#cookies.delete(name);
      else this.#cookies.set(name, value);
    }
    return response;
  }
}

export interface FilledForm {
  readonly action: string | undefined;
  readonly method: "get" | "post";
  readonly fields: URLSearchParams;
}

/** The page's form that goes on (not the one that cancels), filled in as the owner would. */
export function filledForm(html: string): FilledForm | undefined {
  const forms = [...html.matchAll(/<form\b([^>]*)>([\s\S]*?)<\/form>/gi)].map(([, head = "", inside = ""]) => ({
    head: attributes(head),
    inside,
  }));
  const form = forms.find(({ inside }) => button(inside) !== undefined) ?? forms[0];
  if (form === undefined) return undefined;
  const fields = new URLSearchParams();
  for (const [, tag = ""] of form.inside.matchAll(/<input\b([^>]*)>/gi)) {
    const input = attributes(tag);
    const name = input["name"];
    const unticked = /^(checkbox|radio)$/.test(input["type"] ?? "") && input["checked"] === undefined;
    if (name === undefined || unticked || /^(submit|button|reset)$/.test(input["type"] ?? "")) continue;
    fields.append(name, filledIn(input));
  }
  const pressed = button(form.inside);
  if (pressed?.["name"] !== undefined) fields.append(pressed["name"], pressed["value"] ?? "");
  const method = form.head["method"]?.toLowerCase() === "get" ? "get" : "post";
  return { action: form.head["action"], method, fields };
}

function filledIn(input: Readonly<Record<string, string>>): string {
  const name = input["name"] ?? "";
  if (input["type"] === "password") return OWNER.password;
  if (input["value"] !== undefined && input["value"] !== "") return input["value"];
  if (input["type"] === "email" || /mail/i.test(name)) return OWNER.email;
  return input["type"] === "hidden" ? "" : OWNER.name;
}

/** The first submit button that does not turn the request down. */
function button(form: string): Readonly<Record<string, string>> | undefined {
  const buttons = [...form.matchAll(/<button\b([^>]*)>([\s\S]*?)<\/button>|<input\b([^>]*type="?submit[^>]*)>/gi)];
  for (const [, head = "", label = "", input = ""] of buttons) {
    const found = attributes(head + input);
    const says = `${label} ${found["name"] ?? ""} ${found["value"] ?? ""}`;
    if (!/deny|decline|cancel|reject|refuse|another|sign.?out/i.test(says) && found["type"] !== "button") return found;
  }
  return undefined;
}

function attributes(tag: string): Readonly<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const [, name = "", double, single, bare] of tag.matchAll(
    /([a-z-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?/gi,
  )) {
    found[name.toLowerCase()] = unescaped(double ?? single ?? bare ?? "");
  }
  return found;
}

function unescaped(value: string): string {
  const named: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };
  return value
    .replaceAll(/&#(\d+);/g, (_, code: string) => String.fromCodePoint(Number(code)))
    .replaceAll(/&#x([0-9a-f]+);/gi, (_, code: string) => String.fromCodePoint(Number.parseInt(code, 16)))
    .replaceAll(/&([a-z]+);/g, (whole, name: string) => named[name] ?? whole);
}

function plainText(html: string): string {
  return html
    .replaceAll(/<(style|script)[\s\S]*?<\/\1>|<[^>]+>/gi, " ")
    .replaceAll(/\s+/g, " ")
    .trim()
    .slice(0, 300);
}

async function json(url: string, init: RequestInit = {}): Promise<Readonly<Record<string, unknown>>> {
  const response = await fetch(url, { ...init, signal: AbortSignal.timeout(30_000) });
  const body = await response.text();
  if (!response.ok) throw new Error(`${new URL(url).pathname} answered ${response.status}: ${body.slice(0, 300)}`);
  return JSON.parse(body) as Readonly<Record<string, unknown>>;
}

function text(value: unknown): string {
  if (typeof value !== "string") throw new Error(`Expected text, got ${JSON.stringify(value)}.`);
  return value;
}

function strings(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === "string") : [];
}
