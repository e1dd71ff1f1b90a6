/** Where people connect their accounts at servers behind the gateway: what it means, the way there, and the way back. */
import { DrawbridgeError } from "../../core/errors.ts";
import { answerJson, type Exchange, readForm, seeOther } from "../http.ts";
import type { SignedIn } from "../people/browser.ts";
import type { User } from "../people/users.ts";
import { alert, day, formToken, type Html, html, showPage } from "./pages.ts";
import type { Site } from "./site.ts";

/** What the gateway knows of accounts at servers. Each function throws `not_found` for what is not this person's to connect. */
export interface Connections {
  /** The servers that this person can connect. */
  of(user: User): Promise<readonly Connectable[]>;
  /** Whether a link that was made for somebody was made for this person. */
  isFor(tag: string, user: User): boolean;
  /** Where to send the browser that has this mark. Rejects when the server cannot be connected to. */
  begin(server: string, by: { readonly user: User; readonly mark: string }): Promise<URL>;
  /**
   * The answer that a browser brought back. It counts once, within ten minutes, for the person and the browser that began it and the
   * server that was chosen; otherwise it is rejected and nothing is kept.
   */
  finish(
    server: string,
    answer: URLSearchParams,
    by: { readonly user: User; readonly mark: string | undefined; readonly source: string },
  ): Promise<void>;
  /** Forgets the tokens, and has them revoked. */
  end(server: string, by: { readonly user: User; readonly source: string }): Promise<void>;
  /** Our metadata document as a client of that server's authorization server; undefined where none is served. */
  document(server: string): object | undefined;
}

export interface Connectable {
  readonly server: string;
  readonly host: string;
  /** The operator's: calls of everybody carry it. */
  readonly forAll: boolean;
  readonly state: "none" | "connected" | "ended";
  readonly issuer: string | undefined;
  readonly scopes: readonly string[];
  /** What the server needs beside them. */
  readonly wanted: readonly string[];
  readonly since: number | undefined;
}

/** `/connections/<server>` and what is below it. */
export async function handleConnection(site: Site, exchange: Exchange, server: string, action?: string): Promise<void> {
  const { browsers, connections, place } = site;
  if (connections === undefined || !SERVER.test(server)) throw nothing();
  const { request, response, query } = exchange;
  if (action === "client.json") {
    const document = connections.document(server);
    if (document === undefined || request.method === "POST") throw nothing();
    return answerJson(response, 200, document, { "cache-control": "public, max-age=3600" });
  }
  const signedIn = await browsers.signedIn(request);
  if (signedIn === undefined) {
    if (request.method === "POST" || action !== undefined) throw new DrawbridgeError("wrong_origin", SIGNED_OUT);
    browsers.markWayBack(exchange, `/connections/${server}?${new URLSearchParams({ for: query.get("for") ?? "" })}`);
    return seeOther(response, `${place.prefix}/sign-in`);
  }
  const { user } = signedIn;
  const one = (await connections.of(user)).find((each) => each.server === server);
  if (one === undefined) throw nothing();
  if (request.method === "POST") return act(site, exchange, signedIn, one, action);
  if (action === "callback") return comeBack(site, exchange, signedIn, one);
  if (action !== undefined) throw nothing();
  // The link in somebody's call, opened by somebody else.
  const tag = query.get("for") ?? "";
  if (tag !== "" && !connections.isFor(tag, user))
    return showRefusal(site, exchange, server, 403, NOT_FOR_YOU(user.name));
  showOne(site, exchange, signedIn, one, []);
}

/** The list on the account page. */
export function connectionCards({ place }: Site, all: readonly Connectable[]): Html | undefined {
  if (all.length === 0) return undefined;
  return html`<h2>Connected servers</h2>
${all.map(
  (one) => html`<article class="card">
<header><h3>${one.server}</h3><span class="tag${one.state === "connected" && " good"}">${STATE[one.state]}</span></header>
<p>${summary(one)}</p>
<p><a href="${place.prefix}/connections/${one.server}">${one.state === "none" ? "Connect" : "Change"}<span class="unseen"> ${one.server}</span></a></p>
</article>`,
)}`;
}

const SERVER = /^[a-z][a-z0-9-]{0,39}$/;
const PARAMETERS = ["state", "code", "iss", "error"];
const MAX_PARAMETER = 4096;

async function act(site: Site, exchange: Exchange, signedIn: SignedIn, one: Connectable, action: string | undefined) {
  const { browsers, connections, departures, place } = site;
  const { user } = signedIn;
  const { response, source } = exchange;
  const { server } = one;
  browsers.checkForm(exchange, await readForm(exchange.request), purposeOf(user, server));
  if (connections === undefined || (action !== "connect" && action !== "disconnect")) throw nothing();
  if (action === "disconnect") {
    await connections.end(server, { user, source });
    return seeOther(response, `${place.prefix}/account?done=disconnected`);
  }
  const wait = departures.take(source);
  if (wait > 0)
    return showOne(site, exchange, signedIn, one, [`Too many tries. Wait ${wait} seconds, then try again.`], 429);
  let url: URL;
  try {
    url = await connections.begin(server, { user, mark: browsers.markAway(exchange) });
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown, "upstream_failed");
    site.log.warn({ server, message: error.message, detail: error.detail }, "a server cannot be connected to");
    return showOne(site, exchange, signedIn, one, [error.message], 503);
  }
  seeOther(response, url.href);
}

async function comeBack(site: Site, exchange: Exchange, { user }: SignedIn, { server }: Connectable): Promise<void> {
  const { browsers, connections, log } = site;
  const answer = new URLSearchParams();
  for (const name of PARAMETERS) {
    const [value, ...more] = exchange.query.getAll(name);
    // RFC 6749 §3.1: each at most once.
    if (more.length > 0 || (value ?? "").length > MAX_PARAMETER) throw new DrawbridgeError("invalid_request", DOUBTFUL);
    if (value !== undefined) answer.set(name, value);
  }
  try {
    const mark = browsers.awayMark(exchange.request);
    await connections?.finish(server, answer, { user, mark, source: exchange.source });
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown, "upstream_failed");
    log.warn({ server, message: error.message, detail: error.detail }, "a server was not connected");
    const status = error.http === 200 || error.http === 502 ? 400 : error.http;
    return showRefusal(site, exchange, server, status, error.message);
  }
  // Without the code in the address.
  seeOther(exchange.response, `${site.place.prefix}/connections/${server}?done=connected`);
}

function showOne(
  { browsers, place }: Site,
  exchange: Exchange,
  { user }: SignedIn,
  one: Connectable,
  problems: readonly string[],
  status = 200,
): void {
  const { server, host, forAll, state, wanted } = one;
  const token = formToken(browsers.formToken(exchange, purposeOf(user, server)));
  const path = `${place.prefix}/connections/${server}`;
  const done = state === "connected" && exchange.query.get("done") === "connected" && problems.length === 0;
  const goesOn = state !== "connected" || wanted.length > 0;
  const body = html`<h1>${goesOn ? "Connect" : "Connected:"} ${server}</h1>
<p class="lead">You are <strong>${user.name}</strong> at ${place.host}.</p>
${done && html`<div class="notice good" role="status"><p>Connected. Go back to the program that sent you here; it can go on now.</p></div>`}
${alert(problems)}
<p>${
    forAll
      ? html`Calls of <strong>everybody</strong> here to <strong>${host}</strong> will be made with the account that you choose there.`
      : html`Your calls to <strong>${host}</strong> will be made with the account that you choose there. Nobody else's are.`
  } Clients never see its tokens.</p>
<p>${summary(one)}</p>
<form method="post" action="${path}/connect">${token}<button${!goesOn && html` class="plain"`}>${goesOn ? "Go on to connect" : "Connect again"}</button></form>
${state !== "none" && html`<form method="post" action="${path}/disconnect">${token}<button class="plain">Disconnect</button></form>`}
<p><a href="${place.prefix}/account">Your account</a></p>`;
  showPage(
    exchange.response,
    { title: `Connect ${server}`, body },
    { prefix: place.prefix, status, leadsToClient: true },
  );
}

function showRefusal({ place }: Site, { response }: Exchange, server: string, status: number, message: string): void {
  const body = html`<h1>Not connected</h1>
<p>${message}</p>
<p><a href="${place.prefix}/connections/${server}">Connect ${server}</a> · <a href="${place.prefix}/account">Your account</a></p>`;
  showPage(response, { title: "Not connected", body }, { prefix: place.prefix, status });
}

function summary({ state, issuer, scopes, wanted, since }: Connectable): Html | string {
  if (state === "none") return "Not connected.";
  if (state === "ended") return "The connection has ended. Connect again to go on.";
  return html`Since ${day(since ?? 0)}, through ${URL.parse(issuer ?? "")?.host ?? "its authorization server"}${scopes.length > 0 && html`: ${scopes.join(" · ")}`}.${wanted.length > 0 && html` It needs more: ${wanted.join(" · ")}.`}`;
}

const STATE = { none: "not connected", connected: "connected", ended: "has ended" } as const;
const purposeOf = (user: User, server: string) => `connection ${server} ${user.id}`;
const nothing = () => new DrawbridgeError("not_found", "There is nothing here.");
const SIGNED_OUT = "You are not signed in any more. Sign in and connect again.";
const DOUBTFUL = "The answer of the server has a parameter more than once, or too long a one.";
const NOT_FOR_YOU = (name: string) =>
  `This link was made for another person: you are signed in as ${name}. Nothing was connected. If it came from your own program, sign in as the person whose program it is.`;
