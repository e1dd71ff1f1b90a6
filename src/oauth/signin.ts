/** Signing in with a name and password, on the way to a client or to the account page. */
import { DrawbridgeError } from "../core/errors.ts";
import { type Exchange, readForm, seeOther } from "./http.ts";
import type { Pending } from "./interaction.ts";
import { alert, field, formToken, html, type Page, showPage } from "./pages.ts";
import type { Site } from "./site.ts";

/** `/sign-in` and `/sign-in/<id of a waiting request>`. */
export async function handleSignIn(site: Site, exchange: Exchange, id: string | undefined): Promise<void> {
  if (!site.signIn.local) {
    throw new DrawbridgeError(
      "not_found",
      "Nobody can sign in here: local users are switched off (signIn.local), and there is nothing else.",
    );
  }
  const pending = id === undefined ? undefined : await site.interactions.pending(exchange, id, "login");
  if (exchange.request.method === "POST") return signIn(site, exchange, pending);

  const user = await site.browsers.user(exchange.request);
  // A client may insist that the person proves who they are now (OIDC `prompt=login`, `max_age`).
  const insisted = pending?.reasons.some((reason) => reason === "login_prompt" || reason === "max_age") === true;
  if (user !== undefined && !insisted) return goOn(site, exchange, pending, user.id);
  await show(site, exchange, pending, { name: pending?.loginHint ?? "", problems: [] });
}

async function signIn(site: Site, exchange: Exchange, pending: Pending | undefined): Promise<void> {
  const { users, browsers, report } = site;
  const form = await readForm(exchange.request);
  browsers.checkForm(exchange, form, purposeOf(pending));
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
  await browsers.signIn(exchange, result.user);
  await goOn(site, exchange, pending, result.user.id);
}

/** On to the client's request, or to the account page when there is none. */
async function goOn(
  { place }: Site,
  { response }: Exchange,
  pending: Pending | undefined,
  user: string,
): Promise<void> {
  if (pending === undefined) return seeOther(response, `${place.prefix}/account`);
  // Someone else was signed in when the request began: it begins again, as this person's.
  if (pending.user !== undefined && pending.user !== user) return pending.restart();
  return pending.finish({ login: { accountId: user, remember: false } });
}

interface Shown {
  readonly name: string;
  readonly problems: readonly string[];
  readonly status?: number;
  readonly retryAfterSeconds?: number;
}

async function show(site: Site, exchange: Exchange, pending: Pending | undefined, shown: Shown): Promise<void> {
  const { browsers, place, users } = site;
  const noAccountYet = await users.none();
  const token = browsers.formToken(exchange, purposeOf(pending));
  const page: Page = {
    title: "Sign in",
    body: html`<h1>Sign in</h1>
<p class="lead">${
      pending === undefined
        ? html`to see what you have allowed at <strong>${place.host}</strong>`
        : html`to go on to <strong>${pending.clientName}</strong>`
    }</p>
${noAccountYet && html`<div class="notice warn"><p>There is no account yet. Open the set-up link that Drawbridge printed when it started; it makes the first one.</p></div>`}
${alert(shown.problems)}
<form method="post">
${formToken(token)}
${field({ name: "name", label: "Name", autocomplete: "username", value: shown.name, focus: shown.name === "" })}
${field({ name: "password", label: "Password", type: "password", autocomplete: "current-password", focus: shown.name !== "" })}
<button class="full">Sign in</button>
</form>`,
  };
  const { retryAfterSeconds } = shown;
  showPage(exchange.response, page, {
    prefix: place.prefix,
    status: shown.status ?? 200,
    leadsToClient: pending !== undefined,
    ...(retryAfterSeconds === undefined ? {} : { headers: { "retry-after": String(retryAfterSeconds) } }),
  });
}

function purposeOf(pending: Pending | undefined): string {
  return `sign-in ${pending?.id ?? ""}`;
}
