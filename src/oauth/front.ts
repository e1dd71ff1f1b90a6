/** What clients and browsers talk to: the endpoints of OAuth and the pages of sign-in, consent, set-up and account. */
import type { Clock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { cachedDocuments } from "../net/cached.ts";
import type { Outbound } from "../net/outbound.ts";
import type { Trusted } from "../net/trusted.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import { clientPolicy, DOCUMENT_LIMITS } from "./clients/clients.ts";
import { hideDisabledClients } from "./clients/disabled.ts";
import { clientKeySets } from "./clients/preregistered.ts";
import { registration } from "./clients/registration.ts";
import { endpoints } from "./endpoints.ts";
import type { Report } from "./events.ts";
import type { Exchange, Place } from "./http.ts";
import type { OfferedScopes } from "./metadata.ts";
import { handleAccount } from "./pages/account.ts";
import { type Connections, handleConnection } from "./pages/connections.ts";
import { handleConsent } from "./pages/consent.ts";
import { interactions } from "./pages/interaction.ts";
import { errorPage, type Page, pageHeaders, pageText, STYLE_PATH, showStyleSheet } from "./pages/pages.ts";
import { handleSetup } from "./pages/setup.ts";
import { handleSignIn } from "./pages/signin.ts";
import type { ReachOf, Site } from "./pages/site.ts";
import { browsers } from "./people/browser.ts";
import { handleCallback } from "./people/provider-sign-in.ts";
import { providers } from "./people/providers.ts";
import { sessionsIn } from "./people/sessions.ts";
import type { Users } from "./people/users.ts";
import { createProvider } from "./provider.ts";
import { recordsAdapter } from "./records.ts";
import type { Resources } from "./resources.ts";
import type { ClientsSettings, SignInSettings, TokensSettings } from "./settings.ts";
import { throttle } from "./throttle.ts";
import type { Grants } from "./tokens/grants.ts";
import type { Tokens } from "./tokens/issue.ts";
import type { Keys } from "./tokens/keys.ts";

/** Answers one request whose path is ours. Throws what `server.ts` turns into a page or the JSON of an OAuth error. */
export type Front = (exchange: Exchange) => Promise<void>;

export interface FrontParts {
  readonly place: Place;
  readonly records: Records;
  readonly users: Users;
  readonly grants: Grants;
  readonly keys: Keys;
  readonly net: Outbound;
  /** To the identity providers of the settings. */
  readonly trustedNet: Trusted;
  readonly resources: Resources;
  readonly scopes: OfferedScopes;
  readonly issuing: Tokens;
  readonly signIn: SignInSettings;
  readonly clients: ClientsSettings;
  readonly tokens: TokensSettings;
  readonly reach: ReachOf | undefined;
  readonly connections: Connections | undefined;
  readonly report: Report;
  readonly log: Logger;
  readonly clock: Clock;
}

/** The keys of a client that signs. */
const KEY_SET_LIMITS = { maxBytes: 64 * 1024, timeoutMs: 2_500 };

/** Makes the provider and everything around it. Costs a tenth of a second, so calls do not wait for it. */
export function openFront(parts: FrontParts): Front {
  const {
    place,
    records,
    users,
    grants,
    keys,
    net,
    trustedNet,
    signIn,
    clients,
    tokens,
    reach,
    connections,
    report,
    log,
    clock,
  } = parts;
  const { resources, scopes, issuing } = parts;
  const policy = clientPolicy(clients, cachedDocuments(net, DOCUMENT_LIMITS, clock));
  const registering = registration(clients, records, clock);
  const sessions = sessionsIn(records, signIn.sessionHours, clock);
  const browsing = browsers({ users, sessions, keys, secure: place.secure });
  const adapter = recordsAdapter({
    records,
    grants,
    refreshGraceSeconds: tokens.refreshGraceSeconds,
    clientExpiresAt: registering.expiresAt,
    report,
    clock,
  });
  const keySets = clientKeySets(clients, trustedNet, cachedDocuments(net, KEY_SET_LIMITS, clock));
  const shared: Omit<Site, "interactions"> = {
    place,
    records,
    users,
    browsers: browsing,
    sessions,
    providers: providers({ settings: signIn.providers, place, net: trustedNet, clock }),
    departures: throttle({ burst: 60, secondsPerTry: 1 }, clock),
    grants,
    policy,
    scopes,
    reach,
    connections,
    signIn,
    clients,
    tokens,
    report,
    log,
    clock,
  };

  /** What has the keys in it. Requests under way end with what they began with. */
  const build = () => {
    const provider = createProvider({
      place,
      keys,
      adapter,
      signIn,
      clients,
      tokens,
      resources,
      scopes,
      issuing,
      trustedNet,
      policy,
      registration: registering,
      keySets,
      users,
      browsers: browsing,
      grants,
      report,
      log,
      showError(ctx, { error, description }) {
        ctx.set(pageHeaders({}));
        ctx.body = pageText(refusalPage(error, description), place.prefix);
      },
      clock,
    });
    hideDisabledClients(provider, records);
    const site: Site = { ...shared, interactions: interactions(provider, records, place) };
    return { provider, site, endpoint: endpoints({ site, provider, registration: registering, resources, issuing }) };
  };
  let current = build();
  keys.onChange(() => {
    current = build();
  });

  return async (exchange) => {
    const { path, response } = exchange;
    const { provider, site, endpoint } = current;
    if (path === STYLE_PATH) return showStyleSheet(response);
    if (path.startsWith("/oauth/") || path.startsWith("/.well-known/")) return endpoint(exchange);
    const [, first, second, third, ...more] = path.split("/");
    const callback = first === "sign-in" && second === "callback" && third !== undefined;
    const connection = first === "connections" && second !== undefined;
    if (more.length === 0 && (third === undefined || callback || connection)) {
      if (!["GET", "HEAD", "POST"].includes(exchange.request.method ?? "")) {
        throw new DrawbridgeError("method_not_allowed", "This page takes GET and POST.");
      }
      if (callback) return handleCallback(site, exchange, third);
      if (first === "sign-in") return handleSignIn(site, exchange, second);
      if (first === "consent" && second !== undefined) return handleConsent(site, provider, exchange, second);
      if (first === "setup" && second !== undefined) return handleSetup(site, exchange, second);
      if (connection) return handleConnection(site, exchange, second, third);
      if (first === "account") return handleAccount(site, exchange, second);
    }
    throw new DrawbridgeError("not_found", "There is nothing here.");
  };
}

/** What a person in front of a browser can make of an OAuth error. */
function refusalPage(error: string, description: string): Page {
  const message =
    REFUSALS[error] ??
    (/[.!?]$/.test(description)
      ? description
      : `The program that sent you here asked for something that is not possible: ${description || error}.`);
  return errorPage(
    "This request cannot go on",
    message,
    "Go back to the program that sent you here and start again.",
    error,
  );
}

const REFUSALS: Readonly<Record<string, string>> = {
  invalid_redirect_uri:
    "The answer would go to an address that this client has not declared as its own. Nothing was sent there.",
};
