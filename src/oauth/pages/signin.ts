/** Signing in, on the way to a client or to the account page: with a name and password kept here, or at a provider. */
import { DrawbridgeError } from "../../core/errors.ts";
import { networkOf } from "../../net/source.ts";
import { type Exchange, readForm, seeOther } from "../http.ts";
import type { SignedIn } from "../people/browser.ts";
import { goToProvider } from "../people/provider-sign-in.ts";
import type { Provider } from "../people/providers.ts";
import type { Pending } from "./interaction.ts";
import { alert, field, formToken, html, type Page, showPage } from "./pages.ts";
import type { Site } from "./site.ts";

/** `/sign-in` and `/sign-in/<id of a waiting request>`. */
export async function handleSignIn(site: Site, exchange: Exchange, id: string | undefined): Promise<void> {
  if (!site.signIn.local && site.providers.size === 0) {
    throw new DrawbridgeError(
      "not_found",
      "Nobody can sign in here: local users are switched off (signIn.local), and there is no provider (signIn.providers).",
    );
  }
  const pending = id === undefined ? undefined : await site.interactions.pending(exchange, id, "login");
  if (exchange.request.method === "POST") return answer(site, exchange, pending);

  const signedIn = await site.browsers.signedIn(exchange.request);
  if (signedIn !== undefined && !mustProveAnew(site, pending, signedIn)) return goOn(site, exchange, pending, signedIn);
  await show(site, exchange, pending, { name: pending?.loginHint ?? "", problems: [] });
}

/** A client may insist that the person proves who they are now (OIDC Core §3.1.2.1 `prompt=login`, `max_age`). */
function mustProveAnew({ clock }: Site, pending: Pending | undefined, { session }: SignedIn): boolean {
  if (pending === undefined || session.interaction === pending.id) return false;
  const { maxAge } = pending;
  return insists(pending) || (maxAge !== undefined && clock() - session.startedAt >= maxAge * 1000);
}

/** The reason `max_age` says nothing: it is given also when `oidc-provider` does not know yet who is signed in here. */
const insists = ({ reasons }: Pending) => reasons.includes("login_prompt");

async function answer(site: Site, exchange: Exchange, pending: Pending | undefined): Promise<void> {
  const form = await readForm(exchange.request);
  site.browsers.checkForm(exchange, form, purposeOf(pending));
  const provider = site.providers.get(form.get("provider") ?? "");
  if (provider !== undefined) return signInAt(site, exchange, pending, provider);
  if (form.has("provider") || !site.signIn.local) {
    throw new DrawbridgeError("invalid_request", "Nobody signs in here in this way. Choose one of those on the page.");
  }
  return signIn(site, exchange, pending, form);
}

async function signInAt(
  site: Site,
  exchange: Exchange,
  pending: Pending | undefined,
  provider: Provider,
): Promise<void> {
  const wait = site.departures.take(networkOf(exchange.source));
  if (wait > 0) {
    const problems = [`Too many tries. Wait ${wait} seconds, then try again.`];
    return show(site, exchange, pending, { name: "", problems, status: 429, retryAfterSeconds: wait });
  }
  const gone = await goToProvider(site, exchange, provider, {
    hint: pending?.loginHint,
    // With `max_age` too: only then is what we say about when the person was asked true, whatever session the provider has.
    anew: pending !== undefined && (insists(pending) || pending.maxAge !== undefined),
    interaction: pending?.id,
  });
  if (gone) return;
  const problems = [`${provider.label} does not answer at the moment. Try again shortly, or choose another way.`];
  await show(site, exchange, pending, { name: "", problems, status: 503, retryAfterSeconds: 5 });
}

async function signIn(
  site: Site,
  exchange: Exchange,
  pending: Pending | undefined,
  form: URLSearchParams,
): Promise<void> {
  const { users, browsers, report } = site;
  const name = (form.get("name") ?? "").slice(0, 256);
  const { source } = exchange;

  const result = await users.signIn(name, form.get("password") ?? "", source);
  if (!result.ok) {
    await report({ type: "sign-in-failed", name: name.slice(0, 100), reason: result.reason, source });
    if (result.reason === "throttled") {
      const { retryAfterSeconds } = result;
      const problems = [`Too many tries. Wait ${retryAfterSeconds} seconds, then try again.`];
      return show(site, exchange, pending, { name, problems, status: 429, retryAfterSeconds });
    }
    return show(site, exchange, pending, { name, problems: ["The name or the password is wrong."], status: 422 });
  }
  await report({ type: "signed-in", user: result.user.id, name: result.user.name, source });
  await browsers.signIn(exchange, result.user, pending === undefined ? {} : { interaction: pending.id });
  await goOn(site, exchange, pending, { user: result.user, session: { startedAt: site.clock() } });
}

/** On to the client's request, or to the account page when there is none. */
async function goOn(
  { place }: Site,
  { response }: Exchange,
  pending: Pending | undefined,
  { user, session }: Pick<SignedIn, "user"> & { readonly session: Pick<SignedIn["session"], "startedAt"> },
): Promise<void> {
  if (pending === undefined) return seeOther(response, `${place.prefix}/account`);
  // Someone else was signed in when the request began: it begins again, as this person's.
  if (pending.user !== undefined && pending.user !== user.id) return pending.restart();
  const ts = Math.floor(session.startedAt / 1000);
  return pending.finish({ login: { accountId: user.id, ts, remember: false } });
}

interface Shown {
  readonly name: string;
  readonly problems: readonly string[];
  readonly status?: number;
  readonly retryAfterSeconds?: number;
}

/**
 * Also with a single provider there is a page with one button, never a redirect of its own: somebody has to want it, no other site
 * can start it unseen, a provider that refuses leads to no loop, and after signing out one stays signed out.
 */
async function show(site: Site, exchange: Exchange, pending: Pending | undefined, shown: Shown): Promise<void> {
  const { browsers, place, users, providers, signIn } = site;
  const noAccountYet = signIn.local && (await users.none());
  const token = formToken(browsers.formToken(exchange, purposeOf(pending)));
  const labels = [...providers.values()];
  const signedOut = exchange.query.get("signed-out");
  const page: Page = {
    title: "Sign in",
    body: html`<h1>Sign in</h1>
<p class="lead">${
      pending === undefined
        ? html`to see what you have allowed at <strong>${place.host}</strong>`
        : html`to go on to <strong>${pending.clientName}</strong>`
    }</p>
${signedOut !== null && shown.problems.length === 0 && farewell(providers.get(signedOut))}
${noAccountYet && html`<div class="notice warn"><p>There is no account yet. Open the set-up link that Drawbridge printed when it started; it makes the first one.</p></div>`}
${alert(shown.problems)}
${labels.length > 0 && buttons(labels, token, signIn.local)}
${labels.length > 0 && signIn.local && html`<h2>Or with your name and password</h2>`}
${
  signIn.local &&
  html`<form method="post">
${token}
${field({ name: "name", label: "Name", autocomplete: "username", value: shown.name, focus: labels.length === 0 && shown.name === "" })}
${field({ name: "password", label: "Password", type: "password", autocomplete: "current-password", focus: shown.name !== "" })}
<button class="full">Sign in</button>
</form>`
}`,
  };
  const { retryAfterSeconds } = shown;
  showPage(exchange.response, page, {
    prefix: place.prefix,
    status: shown.status ?? 200,
    // A provider may send the browser on to anywhere.
    leadsToClient: pending !== undefined || labels.length > 0,
    ...(retryAfterSeconds === undefined ? {} : { headers: { "retry-after": String(retryAfterSeconds) } }),
  });
}

function buttons(labels: readonly Provider[], token: ReturnType<typeof formToken>, plain: boolean) {
  return html`<form method="post">
${token}
${labels.map(({ name, label }, index) => {
  const button = html`<button class="${plain ? "full plain" : "full"}" name="provider" value="${name}">Sign in with ${label}</button>`;
  return index < labels.length - 1 ? html`<div class="field">${button}</div>` : button;
})}
</form>`;
}

/** Our session has ended; the provider's is its own. */
function farewell(provider: Provider | undefined) {
  return html`<div class="notice good" role="status"><p>You are signed out here.</p>${
    provider !== undefined &&
    html`<p>At ${provider.label} you may still be signed in. On a computer that others use, sign out there too.</p>`
  }</div>`;
}

function purposeOf(pending: Pending | undefined): string {
  return `sign-in ${pending?.id ?? ""}`;
}
