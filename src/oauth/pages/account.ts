/** What a signed-in person can see and end: the clients they let in, the browsers they are signed in with, their password. */
import { DrawbridgeError } from "../../core/errors.ts";
import { type Exchange, readForm, seeOther } from "../http.ts";
import type { OfferedScopes } from "../metadata.ts";
import type { SignedIn } from "../people/browser.ts";
import { MIN_PASSWORD_LENGTH } from "../people/passwords.ts";
import { browserName, type Session } from "../people/sessions.ts";
import type { Consent } from "../tokens/grants.ts";
import { connectionCards } from "./connections.ts";
import { alert, day, field, formToken, type Html, html, showPage } from "./pages.ts";
import type { Site } from "./site.ts";

/** `/account` and what its forms post to: the names of `actions`. */
export async function handleAccount(site: Site, exchange: Exchange, action: string | undefined): Promise<void> {
  const { browsers, place } = site;
  const signedIn = await browsers.signedIn(exchange.request);
  if (signedIn === undefined) return seeOther(exchange.response, `${place.prefix}/sign-in`);
  if (exchange.request.method !== "POST") {
    const wayBack = browsers.takeWayBack(exchange);
    if (wayBack !== undefined) return seeOther(exchange.response, `${place.prefix}${wayBack}`);
    return show(site, exchange, signedIn, {});
  }

  const form = await readForm(exchange.request);
  browsers.checkForm(exchange, form, `account ${signedIn.user.id}`);
  const act = Object.hasOwn(actions, action ?? "") ? actions[action ?? ""] : undefined;
  if (act === undefined) throw new DrawbridgeError("not_found", "There is nothing here.");
  await act(site, exchange, signedIn, form);
}

type Action = (site: Site, exchange: Exchange, signedIn: SignedIn, form: URLSearchParams) => Promise<void>;

const actions: Readonly<Record<string, Action>> = {
  async revoke(site, exchange, { user }, form) {
    await site.grants.endConsent(user.id, form.get("client") ?? "");
    seeOther(exchange.response, `${site.place.prefix}/account?done=revoked`);
  },

  async password(site, exchange, signedIn, form) {
    const { user } = signedIn;
    if (!hasPassword(site, signedIn)) throw new DrawbridgeError("not_found", "There is nothing here.");
    const next = form.get("next") ?? "";
    const problems = [...site.users.problems({ name: user.name, email: undefined, password: next })];
    if (next !== form.get("again")) problems.push("The two new passwords differ.");
    if (problems.length === 0 && !(await site.users.changePassword(user.id, form.get("current") ?? "", next))) {
      problems.push("The current password is wrong, or was tried too often. Wait a little and try again.");
    }
    if (problems.length > 0) return show(site, exchange, signedIn, { problems });
    await site.report({ type: "password-changed", user: user.id, source: exchange.source });
    await site.browsers.signOutOthers(exchange, signedIn);
    seeOther(exchange.response, `${site.place.prefix}/account?done=password`);
  },

  async "end-session"(site, exchange, { user }, form) {
    const ended = await site.sessions.end(user.id, form.get("session") ?? "");
    if (ended) await site.report({ type: "sessions-ended", user: user.id, count: 1, source: exchange.source });
    seeOther(exchange.response, `${site.place.prefix}/account?done=session`);
  },

  async "end-others"(site, exchange, { user, session }) {
    const count = await site.sessions.endAll(user.id, session.id);
    await site.report({ type: "sessions-ended", user: user.id, count, source: exchange.source });
    seeOther(exchange.response, `${site.place.prefix}/account?done=others`);
  },

  async "sign-out"(site, exchange, { user, session }) {
    await site.browsers.signOut(exchange);
    await site.report({ type: "signed-out", user: user.id, source: exchange.source });
    const query = new URLSearchParams({ "signed-out": session.provider ?? "" });
    seeOther(exchange.response, `${site.place.prefix}/sign-in?${query}`);
  },
};

const DONE: Readonly<Record<string, string>> = {
  revoked: "The client's access has ended.",
  disconnected: "The server is disconnected.",
  password: "The password is changed. Your other browsers were signed out.",
  session: "That browser is signed out.",
  others: "Your other browsers are signed out.",
};

function hasPassword({ signIn }: Site, { user }: SignedIn): boolean {
  return signIn.local && user.password !== undefined;
}

async function show(
  site: Site,
  exchange: Exchange,
  signedIn: SignedIn,
  { problems = [] }: { problems?: readonly string[] },
): Promise<void> {
  const { browsers, grants, place, providers, sessions } = site;
  const { user, session } = signedIn;
  const token = formToken(browsers.formToken(exchange, `account ${user.id}`));
  const to = (action: string) => `${place.prefix}/account/${action}`;
  const [consents, open, connected] = await Promise.all([
    grants.consents.of(user.id),
    sessions.list(user.id),
    site.connections?.of(user) ?? [],
  ]);
  const others = open.filter(({ id }) => id !== session.id);
  const done = problems.length === 0 ? DONE[exchange.query.get("done") ?? ""] : undefined;
  const labelOf = (name: string | undefined) => (name === undefined ? undefined : (providers.get(name)?.label ?? name));

  const body = html`<div class="row"><h1>${user.name}</h1>
<form method="post" action="${to("sign-out")}">${token}<button class="link">Sign out</button></form></div>
<p class="lead">Your account at <strong>${place.host}</strong>${user.from !== undefined && html`, from <strong>${labelOf(user.from.provider)}</strong>`}</p>
${done !== undefined && html`<div class="notice good" role="status"><p>${done}</p></div>`}
<h2>Clients you let in</h2>
${
  consents.length === 0
    ? html`<p class="quiet">None. A client appears here once you have allowed it to use <code>${place.resource}</code>.</p>`
    : consents.map((consent) => consentCard(consent, site.scopes, token, to("revoke")))
}
${connectionCards(site, connected)}
<h2>Where you are signed in</h2>
${sessionCard(session, labelOf(session.provider))}
${others.map((other) => sessionCard(other, labelOf(other.provider), html`<form method="post" action="${to("end-session")}">${token}<input type="hidden" name="session" value="${other.id}"><button class="plain" aria-label="End the session of ${browserName(other.userAgent)}">End</button></form>`))}
${others.length > 1 && html`<form method="post" action="${to("end-others")}">${token}<button class="plain">End all others</button></form>`}
${hasPassword(site, signedIn) && passwordForm(user.name, token, to("password"), problems)}`;
  const status = problems.length === 0 ? 200 : 422;
  showPage(exchange.response, { title: "Your account", body, wide: true }, { prefix: place.prefix, status });
}

function passwordForm(name: string, token: Html, action: string, problems: readonly string[]): Html {
  return html`<details${problems.length > 0 && html` open`}>
<summary>Change the password</summary>
${alert(problems)}
<form method="post" action="${action}">
${token}
<input class="unseen" name="username" autocomplete="username" value="${name}" readonly tabindex="-1" aria-hidden="true">
${field({ name: "current", label: "Current password", type: "password", autocomplete: "current-password" })}
${field({ name: "next", label: "New password", type: "password", autocomplete: "new-password", minLength: MIN_PASSWORD_LENGTH, hint: `At least ${MIN_PASSWORD_LENGTH} characters.` })}
${field({ name: "again", label: "New password, once more", type: "password", autocomplete: "new-password", minLength: MIN_PASSWORD_LENGTH })}
<button>Change the password</button>
</form>
</details>`;
}

/** Without `end` it is the one that looks. */
function sessionCard(session: Session, provider: string | undefined, end?: Html): Html {
  const { userAgent, source, startedAt, lastSeenAt } = session;
  return html`<article class="card">
<header><h3>${browserName(userAgent)}</h3>${end === undefined && html`<span class="tag good">this browser</span>`}</header>
<p>Signed in ${provider !== undefined && html`with ${provider} `}from ${source}, ${moment(startedAt)}.</p>
${end !== undefined && html`<p>Last seen ${moment(lastSeenAt)}.</p>`}
${end}
</article>`;
}

function moment(ms: number): Html {
  return html`${day(ms)}, ${new Date(ms).toISOString().slice(11, 16)} UTC`;
}

function consentCard(
  { client, clientName, clientHost, scopes, firstAt, lastAt, until }: Consent,
  offered: OfferedScopes,
  token: Html,
  action: string,
): Html {
  const may = scopes.map((scope) => offered.textOf(scope)?.title ?? scope).join(" · ");
  return html`<article class="card">
<header><h3>${clientName}</h3><span class="tag">${clientHost ?? "registered client"}</span></header>
<p>${may}</p>
<p>Since ${day(firstAt)}${lastAt !== firstAt && html`, last allowed ${day(lastAt)}`}. Ends ${day(until)} at the latest.</p>
<form method="post" action="${action}">${token}<input type="hidden" name="client" value="${client}"><button class="plain" aria-label="End access of ${clientName}">End access</button></form>
</article>`;
}
