/** Signing in at a provider: the way there, and back at `/sign-in/callback/<provider>`. */
import { hash } from "node:crypto";
import { DrawbridgeError } from "../../core/errors.ts";
import type { ProviderFailure } from "../events.ts";
import { type Exchange, readForm, seeOther } from "../http.ts";
import { html, showPage } from "../pages/pages.ts";
import type { Site } from "../pages/site.ts";
import { AWAY_SECONDS } from "./browser.ts";
import type { Kept, Provider, Question } from "./providers.ts";

/** A sign-in under way, by the hash of its state. Whoever takes it goes on. */
interface Away {
  readonly provider: string;
  readonly kept: Omit<Kept, "state">;
  /** The browser that began it. */
  readonly mark: string;
  /** The session it began in. */
  readonly session: string | undefined;
  /** The request of a client that waits. */
  readonly interaction: string | undefined;
}

const AWAY = "oauth:away";

/** Sends the browser to the provider. False: it does not answer, and nothing was sent. */
export async function goToProvider(
  site: Site,
  exchange: Exchange,
  provider: Provider,
  question: Question & { readonly interaction: string | undefined },
): Promise<boolean> {
  const { records, browsers, log, clock } = site;
  const { interaction, ...about } = question;
  const asked = await provider.ask(about);
  if (!asked.ok) {
    log.warn({ provider: provider.name, detail: asked.detail }, "identity provider unavailable");
    return false;
  }
  const { state, ...kept } = asked.kept;
  const away: Away = {
    provider: provider.name,
    kept,
    mark: browsers.markAway(exchange),
    session: (await browsers.signedIn(exchange.request))?.session.id,
    interaction,
  };
  await records.put(AWAY, idOf(state), away, { expiresAt: clock() + AWAY_SECONDS * 1000 });
  seeOther(exchange.response, asked.url.href);
  return true;
}

/**
 * The answer of a provider. It counts once, in the browser and session that asked, within ten minutes, and only for the provider
 * that was asked; otherwise nobody is signed in and nothing is stored.
 */
export async function handleCallback(site: Site, exchange: Exchange, name: string): Promise<void> {
  const { records, browsers, users, providers, report, place } = site;
  const provider = providers.get(name);
  if (provider === undefined) throw new DrawbridgeError("not_found", "Nobody signs in here with this provider.");
  if (exchange.request.method === "POST") return comeBackByGet(site, exchange, name);

  const answer = parametersOf(exchange.query);
  const { state } = Object.fromEntries(answer);
  const found = state === undefined ? undefined : await records.get<Away>(AWAY, idOf(state));
  if (state === undefined || found === undefined) return refuse(site, exchange, { status: 400, message: OVER });

  const { interaction, session, mark } = found.value;
  const failed = async (reason: ProviderFailure, status: number, message: string, back?: string, who = "") => {
    const { source } = exchange;
    await report({ type: "sign-in-failed", name: who, provider: name, reason, source });
    return refuse(site, exchange, { status, message, back });
  };
  // Incident of FastMCP (GHSA-rww4-4w9c-7733): an attacker sends their own half-finished sign-in to somebody else.
  if (browsers.awayMark(exchange.request) !== mark) return failed("other-browser", 403, OTHER_BROWSER);
  const taken = await records.take<Away>(AWAY, idOf(state));
  if (taken === undefined) return refuse(site, exchange, { status: 400, message: OVER });
  if (taken.value.provider !== name) return failed("other-provider", 400, OTHER_PROVIDER, interaction);
  const present = await browsers.signedIn(exchange.request);
  if (present !== undefined && present.session.id !== session) {
    return failed("other-session", 403, OTHER_SESSION, interaction);
  }

  const result = await provider.answered(answer, { ...taken.value.kept, state });
  if (!result.ok) {
    if ("detail" in result) {
      site.log.warn({ provider: name, reason: result.reason, detail: result.detail }, "sign-in at provider failed");
    }
    return failed(result.reason, STATUS[result.reason] ?? 403, result.message, interaction, result.name);
  }
  const user = await users.federate(result.user);
  if (user.disabled) return failed("disabled", 403, DISABLED, interaction, user.name);
  await report({ type: "signed-in", user: user.id, name: user.name, provider: name, source: exchange.source });
  await browsers.signIn(exchange, user, { provider: name, ...(interaction !== undefined && { interaction }) });
  seeOther(exchange.response, pathTo(place.prefix, interaction, "/account"));
}

/**
 * `response_mode=form_post` comes from another site, and with a POST from there our cookies (`SameSite=Lax`) stay at home. With the
 * GET it is turned into they come along, so that no cookie has to be `SameSite=None`.
 */
async function comeBackByGet({ place }: Site, { request, response }: Exchange, name: string): Promise<void> {
  const answer = parametersOf(await readForm(request));
  seeOther(response, `${place.prefix}/sign-in/callback/${name}?${answer}`);
}

const PARAMETERS = ["state", "code", "iss", "error"];
const MAX_PARAMETER = 4096;

/** What OAuth 2.0 sends back, each at most once (RFC 6749 §3.1), and nothing else. */
function parametersOf(given: URLSearchParams): URLSearchParams {
  const answer = new URLSearchParams();
  for (const name of PARAMETERS) {
    const [value, ...more] = given.getAll(name);
    if (more.length > 0 || (value ?? "").length > MAX_PARAMETER) {
      throw new DrawbridgeError(
        "invalid_request",
        `The answer of the provider has more than one ${name}, or too long a one.`,
      );
    }
    if (value !== undefined) answer.set(name, value);
  }
  return answer;
}

const idOf = (state: string) => hash("sha256", state, "base64url");
const pathTo = (prefix: string, interaction: string | undefined, otherwise: string) =>
  `${prefix}${interaction === undefined ? otherwise : `/sign-in/${interaction}`}`;

const STATUS: Readonly<Partial<Record<ProviderFailure, number>>> = {
  "provider-unavailable": 503,
  "provider-refused": 400,
  "answer-not-believed": 400,
  "no-subject": 400,
};
const OVER = "This sign-in has ended: it was finished already, took longer than ten minutes, or never began.";
const OTHER_BROWSER =
  "This sign-in was begun in another browser. If somebody sent you here: they wanted you to sign in for them. Nothing was done.";
const OTHER_PROVIDER = "This answer came back from another provider than the one you chose. Nothing was done.";
const OTHER_SESSION = "Somebody signed in here meanwhile, so this sign-in is not gone on with.";
const DISABLED = "This account is disabled here. Ask whoever runs this gateway.";

interface Refusal {
  readonly status: number;
  readonly message: string;
  readonly back?: string | undefined;
}

/** Why nobody was signed in, and the way back. */
function refuse({ place }: Site, { response }: Exchange, { status, message, back }: Refusal): void {
  const body = html`<h1>You are not signed in</h1>
<p>${message}</p>
<p><a href="${pathTo(place.prefix, back, "/sign-in")}">Back to the sign-in page</a></p>
<p class="quiet small">If a program sent you here and that page has ended too, start again from the program.</p>`;
  const headers: Record<string, string> = status === 503 ? { "retry-after": "5" } : {};
  showPage(response, { title: "Not signed in", body }, { prefix: place.prefix, status, headers });
}
