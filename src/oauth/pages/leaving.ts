/** Sending a browser on to a client: at once when that is safe, else by a link that a person chooses to follow. */
import type Provider from "oidc-provider";
import type { KoaContextWithOIDC } from "oidc-provider";
import { type ClientPolicy, localRedirect, readableHost } from "../clients/clients.ts";
import type { Place } from "../http.ts";
import type { Grants } from "../tokens/grants.ts";
import { changesSince, factsOf } from "../tokens/remembered.ts";
import { type Html, html, name, type Page, pageHeaders, pageText } from "./pages.ts";

export interface LeavingOptions {
  readonly place: Place;
  readonly policy: ClientPolicy;
  readonly grants: Grants;
}

/**
 * Shows a page instead of a redirect that carries an error to a client that nobody vouches for. A redirect that anyone can cause
 * with a link (an invalid request, `prompt=none`) would lend our name to whoever registered a client (RFC 9700 §4.11.2); the way
 * on is the same URL, `iss` and `state` included, behind a link that says where it leads. Not asked is where a person has said
 * yes to this client before, where the operator knows it, or where the answer stays on the person's own machine.
 */
export function askBeforeLeaving(provider: Provider, { place, policy, grants }: LeavingOptions): void {
  const allowed = new WeakSet<object>();
  provider.on("authorization.success", (ctx) => void allowed.add(ctx));

  async function vouchedFor({ client, session }: KoaContextWithOIDC["oidc"], to: URL): Promise<boolean> {
    if (localRedirect(to.href)) return true;
    if (client === undefined) return false;
    const trust = policy.trustOf(client.clientId);
    if (trust === "preregistered" || trust === "allowed") return true;
    const user = session?.accountId;
    const consent = user === undefined ? undefined : await grants.consents.find(user, client.clientId);
    return consent !== undefined && changesSince(consent, factsOf(client)).length === 0;
  }

  provider.use(async (ctx, next) => {
    await next();
    const route = ctx.oidc?.route;
    if (route !== "authorization" && route !== "resume") return;
    const to = URL.parse(ctx.response.get("location"));
    // Relative and own addresses are steps of our own.
    if (to === null || to.href.startsWith(`${place.issuer}/`)) return;
    if (allowed.has(ctx) || (await vouchedFor(ctx.oidc, to))) return;
    const { client, entities } = ctx.oidc;
    const clientName = client === undefined ? to.host : factsOf(client).clientName;
    const denied = entities.Interaction?.result?.error === "access_denied";
    ctx.remove("location");
    ctx.status = denied ? 200 : 400;
    ctx.set(pageHeaders({}));
    ctx.body = pageText(denied ? deniedPage(clientName, to) : strayPage(clientName, to), place.prefix);
  });
}

function deniedPage(clientName: string, to: URL): Page {
  return {
    title: "Denied",
    body: html`<h1>You denied ${name(clientName)}</h1>
<p class="lead">It got nothing, and it does not know your answer yet. To tell it, go back to it. You can also just close this window.</p>
${wayOn("Go back to", to)}`,
  };
}

function strayPage(clientName: string, to: URL): Page {
  const description = to.searchParams.get("error_description");
  return {
    title: "Leave for another site?",
    body: html`<h1>Leave for another site?</h1>
<p class="lead">${name(clientName)} asked for something that is not possible. The answer leads to <strong>${readableHost(to)}</strong>, and you have never let it in.</p>
<p>Go on only if you came from there a moment ago. If someone gave you a link that led here, close this window.</p>
${wayOn("Go on to", to)}
<p class="quiet small after">Code: <code>${to.searchParams.get("error") ?? "error"}</code>${description !== null && html` – ${description}`}</p>`,
  };
}

/** Never by the name alone: what counts is where the browser goes. */
function wayOn(verb: string, to: URL): Html {
  return html`<a class="button full" href="${to.href}" rel="noreferrer">${verb} ${readableHost(to)}</a>`;
}
