/** The question whether a client may act for a person: what it may do, who it is, where the answer goes. */
import type Provider from "oidc-provider";
import { DrawbridgeError } from "../core/errors.ts";
import { isDocumentUrl, localRedirect, readableHost, type Trust } from "./clients.ts";
import { answerOnce, type Consent } from "./grants.ts";
import { type Exchange, readForm } from "./http.ts";
import type { Pending } from "./interaction.ts";
import { ALL_SCOPES, SCOPES, type Scope } from "./metadata.ts";
import { alert, day, duration, formToken, type Html, html, showPage } from "./pages.ts";
import { fingerprintOfClient } from "./remembered.ts";
import type { Site } from "./site.ts";
import type { User } from "./users.ts";

/** `/consent/<id of a waiting request>`. */
export async function handleConsent(site: Site, provider: Provider, exchange: Exchange, id: string): Promise<void> {
  const pending = await site.interactions.pending(exchange, id, "consent");
  const user = await site.browsers.user(exchange.request);
  // Signed out, disabled or someone else meanwhile: the answer would not be this person's.
  if (user === undefined || user.id !== pending.user) return pending.restart();
  if (requestedScopes(pending).length === 0) {
    return pending.finish({
      error: "invalid_scope",
      error_description: `the scopes here are ${ALL_SCOPES.join(" and ")}`,
    });
  }
  if (exchange.request.method !== "POST") return show(site, exchange, pending, user, []);

  const form = await readForm(exchange.request);
  site.browsers.checkForm(exchange, form, purposeOf(pending));
  switch (form.get("answer")) {
    case "allow":
      return allow(site, provider, exchange, pending, user, form);
    case "deny":
      return deny(site, exchange, pending, user);
    case "switch":
      await site.browsers.signOut(exchange);
      await site.report({ type: "signed-out", user: user.id, source: exchange.source });
      return pending.restart();
    default:
      throw new DrawbridgeError("invalid_request", "Choose to allow or to deny.");
  }
}

async function allow(
  site: Site,
  provider: Provider,
  exchange: Exchange,
  pending: Pending,
  user: User,
  form: URLSearchParams,
): Promise<void> {
  const { place, grants, records, tokens, report, clock } = site;
  const requested = requestedScopes(pending);
  const scopes = requested.filter((scope) => form.getAll("scope").includes(scope));
  const refused = requested.filter((scope) => !scopes.includes(scope));
  if (scopes.length === 0) return show(site, exchange, pending, user, ["Tick at least one thing to allow, or deny."]);
  await answered(site, pending);

  // A grant of its own for each connection: ending one, or its refresh token being stolen, leaves the others.
  const clientId = pending.client.clientId;
  const grant = new provider.Grant({ accountId: user.id, clientId });
  grant.addResourceScope(place.resource, scopes.join(" "));
  // Remembered as refused, or the same question would come back at once.
  if (refused.length > 0) grant.rejectResourceScope(place.resource, refused.join(" "));
  grant.addOIDCScope("openid offline_access");
  const grantId = await grant.save();

  const about = { user: user.id, client: clientId, grant: grantId, source: exchange.source };
  try {
    await report({ type: "consent-granted", asked: true, scopes, refused, ...about });
  } catch (unrecorded) {
    await records.deleteWhere("grant", grantId);
    throw unrecorded;
  }
  const earlier = await grants.consents.find(user.id, clientId);
  await grants.consents.keep({
    user: user.id,
    client: clientId,
    clientName: pending.clientName,
    clientHost: isDocumentUrl(clientId) ? readableHost(new URL(clientId)) : undefined,
    scopes,
    fingerprint: fingerprintOfClient(pending.client),
    firstAt: earlier?.firstAt ?? clock(),
    lastAt: clock(),
    until: clock() + tokens.grantDays * 86_400_000,
  });
  await pending.finish({ consent: { grantId } });
}

async function deny(site: Site, exchange: Exchange, pending: Pending, user: User): Promise<void> {
  await answered(site, pending);
  const { source } = exchange;
  await site.report({ type: "consent-denied", user: user.id, client: pending.client.clientId, source });
  await pending.finish({ error: "access_denied", error_description: "the user denied the request" });
}

/** Throws unless this is the first answer: of a double click, or of two tabs, one counts. */
async function answered({ records, clock }: Site, pending: Pending): Promise<void> {
  if (await answerOnce(records, pending.id, clock)) return;
  throw new DrawbridgeError("invalid_request", "This question was answered already. You can close this window.");
}

/** With what was shown of the client: an answer is not for a document that was changed behind the page. */
function purposeOf({ id, client }: Pending): string {
  return `consent ${id} ${fingerprintOfClient(client)}`;
}

function requestedScopes(pending: Pending): readonly Scope[] {
  return ALL_SCOPES.filter((scope) => pending.scopes.includes(scope));
}

async function show(
  site: Site,
  exchange: Exchange,
  pending: Pending,
  user: User,
  problems: readonly string[],
): Promise<void> {
  const { place, grants, policy, tokens, browsers } = site;
  const { client, clientName, redirectUri } = pending;
  const earlier = await grants.consents.find(user.id, client.clientId);
  const changed = earlier !== undefined && earlier.fingerprint !== fingerprintOfClient(client);
  const token = formToken(browsers.formToken(exchange, purposeOf(pending)));
  const local = localRedirect(redirectUri);
  const trust = policy.trustOf(client.clientId);

  const body = html`<h1>Let ${clientName} use ${place.host}?</h1>
<p class="lead">It asks to act for you, with no more than you may do yourself.</p>
${alert(problems)}
${changed && html`<div class="notice warn"><p>This client has changed since you allowed it on ${day(earlier.lastAt)}: its name, its addresses or its keys. Look again before you allow it.</p></div>`}
${
  (trust === "registered" || local) &&
  html`<div class="notice warn">
${trust === "registered" && html`<p><strong>Nobody has verified who this is.</strong> It registered itself, and anyone can choose this name.</p>`}
${local && html`<p>The answer goes to <strong>a program on this computer</strong>. Any program that runs here can pretend to be ${clientName}.</p>`}
<p>Go on only if you have just started it yourself.</p>
</div>`
}
<dl class="facts">
<div><dt>Who asks</dt><dd><strong>${clientName}</strong> <span class="quiet">(the name it gives itself)</span>${identity(trust, client.clientId)}</dd></div>
<div><dt>Answer goes to</dt><dd>${destination(redirectUri)}</dd></div>
<div><dt>Signed in as</dt><dd><strong>${user.name}</strong> <form method="post">${token}<button class="link" name="answer" value="switch">Use another account</button></form></dd></div>
</dl>
<form method="post">
${token}
<fieldset>
<legend>It will be able to</legend>
${requestedScopes(pending).map((scope) => scopeChoice(scope, earlier, changed))}
</fieldset>
<p class="small quiet after">Lasts up to ${duration(tokens.grantDays)}, also while you are away. You can end it at any time on your <a href="${place.prefix}/account">account page</a>.</p>
<div class="choice">
<button class="plain" name="answer" value="deny">Deny</button>
<button name="answer" value="allow">Allow</button>
</div>
</form>`;
  showPage(
    exchange.response,
    { title: `Let ${clientName} in?`, body },
    {
      prefix: place.prefix,
      leadsToClient: true,
      status: problems.length === 0 ? 200 : 422,
    },
  );
}

function scopeChoice(scope: Scope, earlier: Consent | undefined, changed: boolean): Html {
  const { title, description } = SCOPES[scope];
  const had = earlier?.scopes.includes(scope) === true;
  const tag =
    earlier === undefined || changed
      ? undefined
      : had
        ? html`<span class="tag">allowed before</span>`
        : html`<span class="tag warn">new</span>`;
  return html`<label class="scope"><input type="checkbox" name="scope" value="${scope}" checked><span><b>${title}</b> ${tag}<span>${description}</span></span></label>`;
}

function identity(trust: Trust, clientId: string): Html {
  const host = () => html`<br>${readableHost(new URL(clientId))}`;
  switch (trust) {
    case "preregistered":
      return html`<span class="tags"><span class="tag good">Set up by your operator</span></span>`;
    case "registered":
      return html`<span class="tags"><span class="tag warn">Not verified</span></span>`;
    case "allowed":
      return html`${host()}<span class="tags"><span class="tag good">Verified, allowed by your operator</span></span>`;
    case "asked":
      return html`${host()}<span class="tags"><span class="tag">Address verified</span><span class="tag warn">Not known to your operator</span></span>`;
  }
}

function destination(redirectUri: string): Html {
  const url = new URL(redirectUri);
  if (url.protocol === "https:") return html`<strong>${readableHost(url)}</strong>`;
  if (url.protocol === "http:") return html`<strong>${url.host}</strong> <span class="quiet">(this computer)</span>`;
  return html`<strong>${url.protocol}</strong> <span class="quiet">(a program on this computer)</span>`;
}
