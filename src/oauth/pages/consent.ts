/** The question whether a client may act for a person: what it may do, who it is, where the answer goes. */
import type Provider from "oidc-provider";
import { DrawbridgeError } from "../../core/errors.ts";
import { newToken } from "../../core/ids.ts";
import { isDocumentUrl, localRedirect, readableHost, type Trust } from "../clients/clients.ts";
import { type Likeness, likeness } from "../clients/look-alikes.ts";
import { type Exchange, readForm } from "../http.ts";
import { ALL_SCOPES, type OfferedScopes } from "../metadata.ts";
import type { User } from "../people/users.ts";
import { answerOnce, type Consent } from "../tokens/grants.ts";
import { type Change, type ClientFacts, changesSince, factsOf } from "../tokens/remembered.ts";
import type { Pending } from "./interaction.ts";
import { alert, count, day, duration, formToken, type Html, html, mark, name, nameInTitle, showPage } from "./pages.ts";
import type { Reach, ReachedServer, Site } from "./site.ts";

/** `/consent/<id of a waiting request>`. */
export async function handleConsent(site: Site, provider: Provider, exchange: Exchange, id: string): Promise<void> {
  const pending = await site.interactions.pending(exchange, id, "consent");
  const user = await site.browsers.user(exchange.request);
  // Signed out, disabled or someone else meanwhile: the answer would not be this person's.
  if (user === undefined || user.id !== pending.user) return pending.restart();
  const question = await questionOf(site, pending, user);
  if (question.requested.length === 0) {
    return pending.finish({
      error: "invalid_scope",
      error_description: `the scopes here are ${site.scopes.all().join(" and ")}`,
    });
  }
  if (exchange.request.method !== "POST") return show(site, exchange, question, []);

  const form = await readForm(exchange.request);
  site.browsers.checkForm(exchange, form, purposeOf(question));
  switch (form.get("answer")) {
    case "allow":
      return allow(site, provider, exchange, question, form);
    case "deny":
      return deny(site, exchange, question);
    case "switch":
      await site.browsers.signOut(exchange);
      await site.report({ type: "signed-out", user: user.id, source: exchange.source });
      return pending.restart();
    default:
      throw new DrawbridgeError("invalid_request", "Choose to allow or to deny.");
  }
}

/** What a person is asked, given what they answered before. */
interface Question {
  readonly pending: Pending;
  readonly user: User;
  readonly client: ClientFacts;
  readonly trust: Trust;
  readonly earlier: Consent | undefined;
  /** What differs from the client that was allowed earlier. */
  readonly changes: readonly Change[];
  readonly requested: readonly string[];
  /** What is asked now: all that is requested, or only what is new when the rest was allowed before. */
  readonly asked: readonly string[];
  /** Allowed before, to a client that has not changed since, and not asked again. */
  readonly kept: readonly string[];
  readonly resembles: Likeness | undefined;
  readonly reach: Reach | undefined;
}

async function questionOf(site: Site, pending: Pending, user: User): Promise<Question> {
  const { clientId } = pending.client;
  const client = factsOf(pending.client);
  const trust = site.policy.trustOf(clientId);
  const earlier = await site.grants.consents.find(user.id, clientId);
  const changes = earlier === undefined ? [] : changesSince(earlier, client);
  const requested = site.scopes.all().filter((scope) => pending.scopes.includes(scope));
  const stands = earlier !== undefined && changes.length === 0;
  const fresh = requested.filter((scope) => !(stands && earlier.scopes.includes(scope)));
  // A program on the person's computer is asked about each time, even when nothing is new.
  const more = stands && fresh.length > 0;
  return {
    pending,
    user,
    client,
    trust,
    earlier,
    changes,
    requested,
    asked: more ? fresh : requested,
    kept: more ? earlier.scopes : [],
    resembles: await resemblance(site, user, clientId, client.clientName, trust),
    reach: site.reach?.({
      subject: user.id,
      client: clientId,
      actors: [],
      groups: user.groups,
      scopes: ALL_SCOPES,
      claims: { name: user.name, ...(user.email === undefined ? {} : { email: user.email }) },
      grant: undefined,
      tokenId: "",
      expiresAt: site.clock(),
    }),
  };
}

/** The operator's clients and those the person let in before whose domain is known: a new one must not pass for one of them. */
async function resemblance(
  { clients, grants }: Site,
  user: User,
  id: string,
  clientName: string,
  trust: Trust,
): Promise<Likeness | undefined> {
  if (trust === "preregistered" || trust === "allowed") return undefined;
  const letIn = await grants.consents.of(user.id);
  const known = [
    ...clients.preregistered.map((client) => ({ id: client.id, name: client.name, host: undefined })),
    ...letIn.flatMap(({ client, clientName: theirs }) =>
      // What registered itself may be called anything, so its name is nobody's.
      isDocumentUrl(client) ? [{ id: client, name: theirs, host: new URL(client).host }] : [],
    ),
  ];
  const host = isDocumentUrl(id) ? new URL(id).host : undefined;
  return likeness({ id, name: clientName, host }, known, clients.metadataDocuments.allow);
}

/** A program on the person's computer has another port each time. */
const MAX_ANSWERS_TO = 20;

async function allow(
  site: Site,
  provider: Provider,
  exchange: Exchange,
  question: Question,
  form: URLSearchParams,
): Promise<void> {
  const { place, grants, tokens, report, clock } = site;
  const { pending, user, client, earlier, changes, requested, asked, kept } = question;
  if (nothingToGive(question)) return show(site, exchange, question, []);
  const ticked = asked.filter((scope) => form.getAll("scope").includes(scope));
  if (ticked.length === 0) return show(site, exchange, question, ["Tick at least one thing to allow, or deny."]);
  const scopes = requested.filter((scope) => ticked.includes(scope) || kept.includes(scope));
  const refused = requested.filter((scope) => !scopes.includes(scope));
  await answered(site, pending);

  // A grant of its own for each connection: ending one, or its refresh token being stolen, leaves the others.
  const { clientId } = pending.client;
  const grant = new provider.Grant({ accountId: user.id, clientId });
  grant.addResourceScope(place.resource, scopes.join(" "));
  // Remembered as refused, or the same question would come back at once.
  if (refused.length > 0) grant.rejectResourceScope(place.resource, refused.join(" "));
  grant.addOIDCScope("openid offline_access");
  grant.jti = newToken();
  const about = { user: user.id, client: clientId, grant: grant.jti, source: exchange.source };
  // The record first: a grant that nobody wrote down must not be there, whatever fails.
  await report({ type: "consent-granted", asked: true, scopes, refused, ...about });
  const grantId = await grant.save();
  // What was not asked about this time stays as it was, unless the client is not the one it was given to any more.
  const before = changes.length > 0 ? undefined : earlier;
  const answersTo = (before?.answersTo ?? []).filter((uri) => uri !== pending.redirectUri);
  await grants.consents.keep({
    user: user.id,
    client: clientId,
    ...client,
    clientHost: isDocumentUrl(clientId) ? readableHost(new URL(clientId)) : undefined,
    scopes: [...scopes, ...(before?.scopes ?? []).filter((scope) => !requested.some((one) => one === scope))],
    answersTo: [...answersTo, pending.redirectUri].slice(-MAX_ANSWERS_TO),
    firstAt: earlier?.firstAt ?? clock(),
    lastAt: clock(),
    until: clock() + tokens.grantDays * 86_400_000,
  });
  await pending.finish({ consent: { grantId } });
}

async function deny(site: Site, exchange: Exchange, { pending, user }: Question): Promise<void> {
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

/** With what was shown: an answer is not for a client that was changed, or a question that was answered, behind the page. */
function purposeOf({ pending, client, asked, kept }: Question): string {
  return `consent ${JSON.stringify([pending.id, client, asked, kept])}`;
}

/** No role permits this person anything: a client that is let in would find nothing and not know why. */
function nothingToGive({ reach }: Question): boolean {
  return reach !== undefined && reach.roles.length === 0;
}

function show(site: Site, exchange: Exchange, question: Question, problems: readonly string[]): void {
  const { place, browsers } = site;
  const { client } = question;
  const token = formToken(browsers.formToken(exchange, purposeOf(question)));
  const body = nothingToGive(question)
    ? html`<h1>${name(client.clientName)} could do nothing for you</h1>
<p class="lead">No role at ${place.host} permits anything to your account. Ask whoever runs it for one, then connect again.</p>
${facts(question, token)}
<form method="post">
${token}
<button class="calm full" name="answer" value="deny">Go back</button>
</form>`
    : html`${meeting(question)}
${heading(site, question)}
${alert(problems)}
${warnings(question)}
${facts(question, token)}
<form method="post">
${token}
${choices(question, site.scopes, problems.length === 0)}
${reached(question)}
<p class="small quiet after">Lasts up to ${duration(site.tokens.grantDays)}, also while you are away. You can end it at any time on your <a href="${place.prefix}/account">account page</a>.</p>
<div class="choice">
<button class="calm" name="answer" value="deny">Deny</button>
<button name="answer" value="allow">Allow</button>
</div>
</form>`;
  const status = problems.length === 0 ? 200 : 422;
  const title = `Let ${nameInTitle(client.clientName)} in?`;
  showPage(exchange.response, { title, body }, { prefix: place.prefix, leadsToClient: true, status });
}

function heading({ place }: Site, { pending, client, earlier, changes, kept }: Question): Html {
  const who = name(client.clientName);
  if (earlier === undefined) {
    return html`<h1>Let ${who} use ${place.host}?</h1>
<p class="lead">It asks to act for you, with no more than you may do yourself.</p>`;
  }
  if (changes.length > 0) {
    return html`<h1>Let ${who} in again?</h1>
<p class="lead">It has changed since you let it use ${place.host} on ${day(earlier.lastAt)}.</p>`;
  }
  if (kept.length > 0) {
    return html`<h1>Let ${who} do more?</h1>
<p class="lead">You let it use ${place.host} on ${day(earlier.lastAt)}. Now it asks for something in addition.</p>`;
  }
  const same = localRedirect(pending.redirectUri) || earlier.answersTo.includes(pending.redirectUri);
  return html`<h1>Let ${who} in again?</h1>
<p class="lead">You let it use ${place.host} on ${day(earlier.lastAt)}. ${same ? "Nothing has changed since." : "This time the answer goes to another address."}</p>`;
}

function warnings({ pending, client, changes, resembles, trust }: Question): Html {
  const local = localRedirect(pending.redirectUri);
  return html`${
    changes.length > 0 &&
    html`<div class="notice warn">
<p><strong>What is different now</strong></p>
<ul>${changes.flatMap(changeLines).map((line) => html`<li>${line}</li>`)}</ul>
</div>`
  }${resembles !== undefined && html`<div class="notice bad"><p><strong>This may not be who you think.</strong> ${likenessText(resembles)}</p></div>`}${
    (trust === "registered" || local) &&
    html`<div class="notice warn">
${trust === "registered" && html`<p><strong>Nobody has verified who this is.</strong> It registered itself, and anyone can choose this name.</p>`}
${local && html`<p>The answer goes to <strong>a program on this computer</strong>. Any program that runs here can pretend to be ${name(client.clientName)}.</p>`}
<p>Go on only if you have just started it yourself.</p>
</div>`
  }`;
}

const MAX_LINES = 3;

function changeLines(change: Change): readonly Html[] {
  switch (change.what) {
    case "name":
      return [html`It was called <strong>${name(change.before)}</strong>.`];
    case "keys":
      return [html`It proves who it is in another way: its keys are new.`];
    case "redirects": {
      const { added, removed } = change;
      const rest = added.length - MAX_LINES;
      return [
        ...added
          .slice(0, MAX_LINES)
          .map((uri) => html`Answers may now go to <strong>${readableAddress(uri)}</strong>.`),
        ...(rest > 0 ? [html`And to ${count(rest, "other address", "other addresses")}.`] : []),
        ...(added.length === 0
          ? [html`${count(removed.length, "address", "addresses")} that answers could go to is gone.`]
          : []),
      ];
    }
  }
}

function likenessText(resembles: Likeness): Html {
  switch (resembles.of) {
    case "operator-client":
      return html`Your operator has set up a client called <strong>${name(resembles.name)}</strong>, and this is another one.`;
    case "known-client":
      return html`You let in <strong>${name(resembles.name)}</strong> of <strong>${readableHost(new URL(`https://${resembles.host}`))}</strong> before. This one has the same name and is not from there.`;
    case "allowed-domain":
      return html`Its name or address resembles <strong>${resembles.domain}</strong>, which your operator allows. Nothing shows that it is from there.`;
  }
}

/** Who meets whom: the client as its first letter, in a broken line while nobody has proved who it is. */
function meeting({ client, trust }: Question): Html {
  const [initial = "?"] = client.clientName;
  return html`<div class="meet" aria-hidden="true"><span class="guest${trust !== "registered" && " proved"}">${initial.toUpperCase()}</span><span class="way"></span>${mark}</div>`;
}

function facts({ pending, client, trust, user }: Question, token: Html): Html {
  return html`<dl class="facts">
<div><dt>Who asks</dt><dd><strong>${name(client.clientName)}</strong>${trust !== "preregistered" && html`<span class="also">the name it gives itself</span>`}</dd></div>
<div><dt>Comes from</dt><dd>${origin(trust, pending.client.clientId)}</dd></div>
<div><dt>Answer goes to</dt><dd>${destination(pending.redirectUri)}</dd></div>
<div><dt>Signed in as</dt><dd><strong>${name(user.name)}</strong> · <form method="post">${token}<button class="link" name="answer" value="switch">Use another account</button></form></dd></div>
</dl>`;
}

/** What has been proved: a document's host was, by fetching it from there. */
function origin(trust: Trust, clientId: string): Html {
  const host = () => html`<strong>${readableHost(new URL(clientId))}</strong>`;
  switch (trust) {
    case "preregistered":
      return html`<span class="tag good">Set up by your operator</span>`;
    case "registered":
      return html`unknown <span class="tag warn">Not verified</span>`;
    case "allowed":
      return html`${host()} <span class="tag good">Verified, allowed by your operator</span>`;
    case "asked":
      return html`${host()} <span class="tag">Verified</span> <span class="tag warn">Not known to your operator</span>`;
  }
}

function destination(redirectUri: string): Html {
  const url = new URL(redirectUri);
  if (!localRedirect(redirectUri)) return html`<strong>${readableHost(url)}</strong>`;
  const where = url.protocol === "https:" || url.protocol === "http:" ? url.host : url.protocol;
  return html`<strong>${where}</strong> <span class="also">a program on this computer</span>`;
}

function readableAddress(uri: string): string {
  const url = new URL(uri);
  const text = url.protocol === "https:" ? `${readableHost(url)}${url.pathname}` : uri;
  return text.length > 100 ? `${text.slice(0, 99)}…` : text;
}

/** One thing asked needs no tick: Allow means it. */
function choices({ asked, kept }: Question, scopes: OfferedScopes, ticked: boolean): Html {
  const [only, ...others] = asked;
  return html`<fieldset>
<legend>${kept.length > 0 ? "New: it will also be able to" : "It will be able to"}</legend>
${
  only !== undefined && others.length === 0
    ? html`<div class="scope one"><input type="hidden" name="scope" value="${only}"><span>${scopeText(scopes, only)}</span></div>`
    : asked.map(
        (scope) =>
          html`<label class="scope"><input type="checkbox" name="scope" value="${scope}"${ticked && " checked"}><span>${scopeText(scopes, scope)}</span></label>`,
      )
}
</fieldset>
${kept.length > 0 && html`<p class="small quiet after">Allowed before, and still: ${kept.map((scope) => scopes.textOf(scope)?.title ?? scope).join(", ")}.</p>`}`;
}

function scopeText(scopes: OfferedScopes, scope: string): Html {
  const { title, description } = scopes.textOf(scope) ?? { title: scope, description: "" };
  return html`<b>${title}</b> <span>${description}</span>`;
}

const MAX_TOOLS = 100;

/** What the person's roles let it reach, for whoever wants to know before they answer. */
function reached({ reach }: Question): Html | undefined {
  if (reach === undefined) return undefined;
  const tools = reach.servers.reduce((sum, server) => sum + server.tools.length, 0);
  return html`<details class="more">
<summary>What that means here: ${count(tools, "tool", "tools")} of ${count(reach.servers.length, "server", "servers")}</summary>
<p class="small quiet">What your ${reach.roles.length === 1 ? "role" : "roles"} ${reach.roles.join(", ")} ${reach.roles.length === 1 ? "permits" : "permit"} today, and nothing else.</p>
${reach.servers.map(reachedServer)}
</details>`;
}

function reachedServer({ name: server, tools, resources, prompts }: ReachedServer): Html {
  const also = [
    resources > 0 && count(resources, "resource", "resources"),
    prompts > 0 && count(prompts, "prompt", "prompts"),
  ].filter((text) => text !== false);
  const rest = tools.length - MAX_TOOLS;
  return html`<h2>${server}</h2>
<ul class="tools">${tools
    .slice(0, MAX_TOOLS)
    .map(
      ({ name: tool, effect }) =>
        html`<li><code>${tool}</code> <span class="tag${effect === "deletes" && " warn"}">${effect}</span></li>`,
    )}</ul>
${rest > 0 && html`<p class="small quiet">and ${rest} more</p>`}
${also.length > 0 && html`<p class="small quiet">also ${also.join(" and ")} to read</p>`}`;
}
