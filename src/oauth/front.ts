/** What clients and browsers talk to: the endpoints of OAuth and the pages of sign-in, consent, set-up and account. */
import type { Clock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { cachedDocuments } from "../net/cached.ts";
import type { Outbound } from "../net/outbound.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import { handleAccount } from "./account.ts";
import { browsers } from "./browser.ts";
import { clientPolicy } from "./clients.ts";
import { handleConsent } from "./consent.ts";
import { endpoints } from "./endpoints.ts";
import type { Report } from "./events.ts";
import type { Grants } from "./grants.ts";
import type { Exchange, Place } from "./http.ts";
import { interactions } from "./interaction.ts";
import type { Keys } from "./keys.ts";
import { errorPage, type Page, pageHeaders, pageText, STYLE_PATH, showStyleSheet } from "./pages.ts";
import { createProvider } from "./provider.ts";
import { recordsAdapter } from "./records.ts";
import { registration } from "./registration.ts";
import type { ClientsSettings, SignInSettings, TokensSettings } from "./settings.ts";
import { handleSetup } from "./setup.ts";
import { handleSignIn } from "./signin.ts";
import type { Site } from "./site.ts";
import type { Users } from "./users.ts";

/** Answers one request whose path is ours. Throws what `server.ts` turns into a page or the JSON of an OAuth error. */
export type Front = (exchange: Exchange) => Promise<void>;

export interface FrontParts {
  readonly place: Place;
  readonly records: Records;
  readonly users: Users;
  readonly grants: Grants;
  readonly keys: Keys;
  readonly net: Outbound;
  readonly signIn: SignInSettings;
  readonly clients: ClientsSettings;
  readonly tokens: TokensSettings;
  readonly report: Report;
  readonly log: Logger;
  readonly clock: Clock;
}

/** A metadata document of a client (draft-ietf-oauth-client-id-metadata-document §6.6 recommends this bound). */
const DOCUMENT_LIMITS = { maxBytes: 5 * 1024, timeoutMs: 3_000 };
/** The keys of a client that signs. */
const KEY_SET_LIMITS = { maxBytes: 64 * 1024, timeoutMs: 2_500 };

/** Makes the provider and everything around it. Costs a tenth of a second, so calls do not wait for it. */
export function openFront(parts: FrontParts): Front {
  const { place, records, users, grants, keys, net, signIn, clients, tokens, report, log, clock } = parts;
  const policy = clientPolicy(clients, cachedDocuments(net, DOCUMENT_LIMITS, clock));
  const registering = registration(clients, records, clock);
  const browsing = browsers({ records, users, keys, secure: place.secure, sessionHours: signIn.sessionHours, clock });
  const adapter = recordsAdapter({
    records,
    grants,
    refreshGraceSeconds: tokens.refreshGraceSeconds,
    clientExpiresAt: registering.expiresAt,
    report,
    clock,
  });
  const provider = createProvider({
    place,
    keys,
    adapter,
    signIn,
    clients,
    tokens,
    policy,
    registration: registering,
    keySets: cachedDocuments(net, KEY_SET_LIMITS, clock),
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
  const site: Site = {
    place,
    records,
    users,
    browsers: browsing,
    grants,
    policy,
    interactions: interactions(provider, records, place),
    signIn,
    tokens,
    report,
    log,
    clock,
  };
  const endpoint = endpoints({ site, provider, registration: registering, keys });

  return async (exchange) => {
    const { path, response } = exchange;
    if (path === STYLE_PATH) return showStyleSheet(response);
    if (path.startsWith("/oauth/") || path.startsWith("/.well-known/")) return endpoint(exchange);
    const [, first, second, ...more] = path.split("/");
    if (more.length === 0) {
      if (!["GET", "HEAD", "POST"].includes(exchange.request.method ?? "")) {
        throw new DrawbridgeError("method_not_allowed", "This page takes GET and POST.");
      }
      if (first === "sign-in") return handleSignIn(site, exchange, second);
      if (first === "consent" && second !== undefined) return handleConsent(site, provider, exchange, second);
      if (first === "setup" && second !== undefined) return handleSetup(site, exchange, second);
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
