/** What a signed-in person can see and end: the clients they let in, their password, their session. */
import { DrawbridgeError } from "../core/errors.ts";
import type { Consent } from "./grants.ts";
import { type Exchange, readForm, seeOther } from "./http.ts";
import { SCOPES } from "./metadata.ts";
import { alert, day, field, formToken, type Html, html, showPage } from "./pages.ts";
import type { Site } from "./site.ts";
import { MIN_PASSWORD_LENGTH, type User } from "./users.ts";

/** `/account` and what its forms post to: `revoke`, `password`, `sign-out`. */
export async function handleAccount(site: Site, exchange: Exchange, action: string | undefined): Promise<void> {
  const { browsers, place } = site;
  const user = await browsers.user(exchange.request);
  if (user === undefined) return seeOther(exchange.response, `${place.prefix}/sign-in`);
  if (exchange.request.method !== "POST") return show(site, exchange, user, {});

  const form = await readForm(exchange.request);
  browsers.checkForm(exchange, form, `account ${user.id}`);
  const act = actions[action ?? ""];
  if (act === undefined) throw new DrawbridgeError("not_found", "There is nothing here.");
  await act(site, exchange, user, form);
}

type Action = (site: Site, exchange: Exchange, user: User, form: URLSearchParams) => Promise<void>;

const actions: Readonly<Record<string, Action>> = {
  async revoke(site, exchange, user, form) {
    await site.grants.endConsent(user.id, form.get("client") ?? "");
    seeOther(exchange.response, `${site.place.prefix}/account?done=revoked`);
  },

  async password(site, exchange, user, form) {
    const next = form.get("next") ?? "";
    const problems = [...site.users.problems({ name: user.name, email: undefined, password: next })];
    if (next !== form.get("again")) problems.push("The two new passwords differ.");
    if (problems.length === 0 && !(await site.users.changePassword(user.id, form.get("current") ?? "", next))) {
      problems.push("The current password is wrong, or was tried too often. Wait a little and try again.");
    }
    if (problems.length > 0) return show(site, exchange, user, { problems });
    await site.report({ type: "password-changed", user: user.id, source: exchange.source });
    await site.browsers.signOutOthers(exchange, user);
    seeOther(exchange.response, `${site.place.prefix}/account?done=password`);
  },

  async "sign-out"(site, exchange, user) {
    await site.browsers.signOut(exchange);
    await site.report({ type: "signed-out", user: user.id, source: exchange.source });
    seeOther(exchange.response, `${site.place.prefix}/sign-in`);
  },
};

const DONE: Readonly<Record<string, string>> = {
  revoked: "The client's access has ended.",
  password: "The password is changed. Your other browsers were signed out.",
};

async function show(
  site: Site,
  exchange: Exchange,
  user: User,
  { problems = [] }: { problems?: readonly string[] },
): Promise<void> {
  const { browsers, grants, place } = site;
  const token = formToken(browsers.formToken(exchange, `account ${user.id}`));
  const to = (action: string) => `${place.prefix}/account/${action}`;
  const consents = await grants.consents.of(user.id);
  const done = problems.length === 0 ? DONE[exchange.query.get("done") ?? ""] : undefined;

  const body = html`<div class="row"><h1>${user.name}</h1>
<form method="post" action="${to("sign-out")}">${token}<button class="link">Sign out</button></form></div>
<p class="lead">Your account at <strong>${place.host}</strong></p>
${done !== undefined && html`<div class="notice good" role="status"><p>${done}</p></div>`}
<h2>Clients you let in</h2>
${
  consents.length === 0
    ? html`<p class="quiet">None. A client appears here once you have allowed it to use <code>${place.resource}</code>.</p>`
    : consents.map((consent) => card(consent, token, to("revoke")))
}
<details${problems.length > 0 && html` open`}>
<summary>Change the password</summary>
${alert(problems)}
<form method="post" action="${to("password")}">
${token}
<input class="unseen" name="username" autocomplete="username" value="${user.name}" readonly tabindex="-1" aria-hidden="true">
${field({ name: "current", label: "Current password", type: "password", autocomplete: "current-password" })}
${field({ name: "next", label: "New password", type: "password", autocomplete: "new-password", minLength: MIN_PASSWORD_LENGTH, hint: `At least ${MIN_PASSWORD_LENGTH} characters.` })}
${field({ name: "again", label: "New password, once more", type: "password", autocomplete: "new-password", minLength: MIN_PASSWORD_LENGTH })}
<button>Change the password</button>
</form>
</details>`;
  const status = problems.length === 0 ? 200 : 422;
  showPage(exchange.response, { title: "Your account", body, wide: true }, { prefix: place.prefix, status });
}

function card(
  { client, clientName, clientHost, scopes, firstAt, lastAt, until }: Consent,
  token: Html,
  action: string,
): Html {
  const may = scopes.map((scope) => SCOPES[scope as keyof typeof SCOPES]?.title ?? scope).join(" · ");
  return html`<article class="card">
<header><h3>${clientName}</h3><span class="tag">${clientHost ?? "registered client"}</span></header>
<p>${may}</p>
<p>Since ${day(firstAt)}${lastAt !== firstAt && html`, last allowed ${day(lastAt)}`}. Ends ${day(until)} at the latest.</p>
<form method="post" action="${action}">${token}<input type="hidden" name="client" value="${client}"><button class="plain" aria-label="End the access of ${clientName}">End access</button></form>
</article>`;
}
