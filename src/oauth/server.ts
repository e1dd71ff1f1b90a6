/** The embedded OAuth 2.1 authorization server: what is where, and the face that the gateway uses. */
import { readFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Resolve } from "../net/outbound.ts";
import { type SourceOf, sourceBehind } from "../net/source.ts";
import { trusted } from "../net/trusted.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import { type Changes, watchChanges } from "../store/watch.ts";
import type { Authority } from "./authority.ts";
import { boundedReport } from "./bounded-report.ts";
import { documentNet } from "./clients/clients.ts";
import { edgeLimits } from "./edge-limits.ts";
import type { OAuthEvent } from "./events.ts";
import type { Front } from "./front.ts";
import { ownExchange } from "./grant-types/own-exchange.ts";
import { answerJson, placeOf } from "./http.ts";
import { ALL_SCOPES, offeredScopes, type ScopeText } from "./metadata.ts";
import type { Connections } from "./pages/connections.ts";
import { errorPage, showPage } from "./pages/pages.ts";
import type { ReachOf } from "./pages/site.ts";
import { usersIn } from "./people/users.ts";
import { resourcesOf } from "./resources.ts";
import type { ClientsSettings, SignInSettings, TokensSettings } from "./settings.ts";
import { DPOP_ALGORITHMS, proofCheck } from "./tokens/dpop.ts";
import { grantsIn } from "./tokens/grants.ts";
import { tokensIn } from "./tokens/issue.ts";
import { loadKeys } from "./tokens/keys.ts";
import { verifier } from "./tokens/verify.ts";
import { remark } from "./trail.ts";
import { watch } from "./watch.ts";

export type { OAuthEvent } from "./events.ts";
export { type ProtectedResourceMetadata, protectedResourceMetadata } from "./metadata.ts";
export type { Reach, ReachedServer, ReachOf } from "./pages/site.ts";

export interface AuthorizationServer extends Authority {
  /**
   * True for every path this server answers: its metadata documents (also with the path inserted when publicUrl has one, RFC
   * 8414 §3.1), and below publicUrl /oauth/…, /sign-in…, /consent…, /setup…, /account…, /connections….
   */
  owns(pathname: string): boolean;
  /** Answers a request whose path it owns. Never rejects. */
  handle(request: IncomingMessage, response: ServerResponse): Promise<void>;
  /**
   * The one-time link that makes the first user kept here, or undefined when there is one, or when local users are switched off.
   * People of a provider do not count: none of them need be the owner. Valid for 24 h; each call makes a new one and voids the old one.
   */
  setupLink(): Promise<string | undefined>;
  /** Ends a grant with all its tokens; the next `verify` refuses them. */
  revokeGrant(grantId: string): Promise<void>;
  /** Ends one access token. */
  revokeToken(jti: string): Promise<void>;
  /** Ends all that was allowed to a client, whoever allowed it. */
  revokeClient(clientId: string): Promise<void>;
  /** Disables a user and ends their sessions, consents and tokens; or enables them again, to sign in anew. */
  setUserDisabled(userId: string, disabled: boolean): Promise<void>;
  /** Loads what the first sign-in would otherwise wait for. */
  warm(): Promise<void>;
}

export interface AuthorizationServerOptions {
  /** Where clients reach the gateway. https, or http on loopback. */
  readonly publicUrl: URL;
  readonly signIn: SignInSettings;
  readonly clients: ClientsSettings;
  readonly tokens: TokensSettings;
  readonly records: Records;
  /** What other processes change there; without it the server looks itself. */
  readonly changes?: Changes;
  readonly log: Logger;
  /** What a person's roles open to a client, for the consent page; without it the page speaks of scopes alone. */
  readonly reach?: ReachOf | undefined;
  /** Accounts at the servers behind the gateway, for the pages where people connect them. */
  readonly connections?: Connections | undefined;
  /** Scopes that some calls need, beside those that everybody asks for; asked for each time, as they may change. */
  readonly furtherScopes?: () => readonly ScopeText[];
  /** Awaited where something is granted: when it rejects, the grant is refused. */
  readonly onEvent?: (event: OAuthEvent) => void | Promise<void>;
  /** Where requests come from; by default the other end of their connection. */
  readonly sourceOf?: SourceOf;
  readonly clock?: Clock;
  /** Resolves the hosts of client documents. */
  readonly resolve?: Resolve;
}

export async function authorizationServer(options: AuthorizationServerOptions): Promise<AuthorizationServer> {
  const { publicUrl, signIn, clients, tokens, reach, connections, records, log, clock = systemClock } = options;
  checkPublicUrl(publicUrl);
  checkBinding(clients, tokens);
  const place = placeOf(publicUrl);
  const reports = boundedReport(async (event) => {
    log.info({ event }, event.type);
    await options.onEvent?.(event);
  }, clock);
  const { report } = reports;
  const { sourceOf = sourceBehind([]) } = options;
  const limits = edgeLimits(clients.requestsPerSourcePerMinute, clock);

  const net = await documentNet(clients.metadataDocuments, options.resolve);
  if (clients.metadataDocuments.allowPrivateAddresses)
    log.warn({}, "insecure: client documents are fetched from private addresses too");

  const { trustedCertificates: providerCertificates } = signIn;
  const trustedNet = trusted(
    providerCertificates === undefined ? {} : { trustedCertificates: await readFile(providerCertificates, "utf8") },
  );

  const resources = resourcesOf(place.resource, clients);
  const scopes = offeredScopes(options.furtherScopes);
  const changes = options.changes ?? (await watchChanges(records));
  const watching = watch(records, changes);
  const keys = await loadKeys(records, {
    algorithm: tokens.signingAlgorithm,
    encryption: tokens.keyEncryptionSecret,
    watch: watching,
    clock,
  });
  const users = usersIn(records, clock);
  const grants = grantsIn(records, report);
  // What is ended here is heard of everywhere before whoever ended it goes on.
  grants.onEnd(() => watching.announce("ended"));
  const issuing = tokensIn({ place, records, keys, users, grants, settings: tokens, report, clock });
  const onEnded = (listener: () => void) => {
    watching.on("ended", listener);
    watching.onStale(listener);
  };
  const { exchange, ownToken } = ownExchange({ tokens: issuing, resources, actor: place.issuer, onEnded, clock });
  const { verify, stands, current } = verifier({
    place,
    keys,
    records,
    users,
    services: resources.services,
    watch: watching,
    checkProof:
      tokens.dpop === "off"
        ? undefined
        : proofCheck({
            resource: place.resource,
            records,
            nonceSecrets: tokens.dpopNonce ? () => keys.secretsFor("DPoP nonces of the resource") : undefined,
            clock,
          }),
    proofRequired: tokens.dpop === "required",
    clock,
  });
  // What only clients and browsers that sign in need takes longer to load than all the rest; calls do not wait for it.
  let opened: Promise<Front> | undefined;
  const front = (): Promise<Front> => {
    opened ??= import("./front.ts").then(({ openFront }) =>
      openFront({
        place,
        records,
        users,
        grants,
        keys,
        net,
        trustedNet,
        resources,
        scopes,
        issuing,
        signIn,
        clients,
        tokens,
        reach,
        connections,
        report,
        log,
        clock,
      }),
    );
    return opened;
  };

  return {
    owns: (pathname) => pathBelow(pathname, place.prefix) !== undefined,
    async handle(request, response) {
      const [pathname = "/", query = ""] = (request.url ?? "/").split("?", 2);
      const path = pathBelow(pathname, place.prefix) ?? "";
      const source = sourceOf(request);
      let settle: ReturnType<typeof limits.begin> | undefined;
      try {
        settle = limits.begin(source, path);
        await (await front())({ request, response, path, query: new URLSearchParams(query), source });
      } catch (thrown) {
        const failure = DrawbridgeError.from(thrown);
        remark(response, { said: failure.detail ?? failure.message });
        const level = failure.http >= 500 ? log.error : log.info;
        level({ path, code: failure.code, message: failure.message, detail: failure.detail }, "request failed");
        answerFailure(response, path, failure, place.prefix);
      } finally {
        settle?.(response);
      }
    },
    verify,
    stands,
    current,
    exchange,
    ownToken,
    onEnded,
    async setupLink() {
      return signIn.local && (await users.noneLocal())
        ? `${place.issuer}/setup/${await users.newSetupToken()}`
        : undefined;
    },
    metadata: {
      issuer: place.issuer,
      resource: place.resource,
      offered: scopes.all,
      scopes: ALL_SCOPES,
      scopeNames: {},
      dpopAlgorithms: tokens.dpop === "off" ? [] : DPOP_ALGORITHMS,
      dpopRequired: tokens.dpop === "required",
    },
    revokeGrant: (grantId) => grants.end(grantId),
    revokeToken: (jti) => grants.endToken(jti),
    revokeClient: (clientId) => grants.endClient(clientId),
    async setUserDisabled(userId, disabled) {
      await users.setDisabled(userId, disabled);
      if (disabled) await grants.endUser(userId);
    },
    async warm() {
      await front();
    },
    async close() {
      if (options.changes === undefined) changes.close();
      keys.close();
      await Promise.all([net.close(), trustedNet.close(), reports.close()]);
    },
  };
}

function checkPublicUrl(publicUrl: URL): void {
  const loopback = ["localhost", "127.0.0.1", "[::1]"].includes(publicUrl.hostname);
  if (publicUrl.protocol !== "https:" && !(publicUrl.protocol === "http:" && loopback)) {
    throw new DrawbridgeError(
      "settings_invalid",
      `publicUrl ${publicUrl.href} must be https, or http on a loopback address.`,
    );
  }
  if (publicUrl.search !== "" || publicUrl.hash !== "" || publicUrl.username !== "" || publicUrl.password !== "") {
    throw new DrawbridgeError(
      "settings_invalid",
      `publicUrl ${publicUrl.href} must be an origin, with a path at most.`,
    );
  }
}

function checkBinding({ preregistered }: ClientsSettings, { dpop }: TokensSettings): void {
  const bound = dpop === "off" ? preregistered.find((client) => client.dpop) : undefined;
  if (bound === undefined) return;
  throw new DrawbridgeError(
    "settings_invalid",
    `The client ${bound.id} must have its tokens bound to a key (dpop: true), and tokens.dpop is off. Change one of them.`,
  );
}

const PAGES = /^\/(?:oauth|sign-in|consent|setup|account|connections)(?:\/|$)/;
const WELL_KNOWN = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];

/** The path below the issuer, when it is one of ours. A metadata path comes in each of its spellings and leaves in one. */
function pathBelow(pathname: string, prefix: string): string | undefined {
  // RFC 8414 §3.1 puts the issuer's path behind the well-known one, OIDC Discovery §4.1 puts it before.
  const document = WELL_KNOWN.find((path) => pathname === `${path}${prefix}` || pathname === `${prefix}${path}`);
  if (document !== undefined) return document;
  if (!pathname.startsWith(`${prefix}/`)) return undefined;
  const below = pathname.slice(prefix.length);
  return PAGES.test(below) ? below : undefined;
}

/** A browser gets a page, a client the JSON of RFC 6749 §5.2. */
function answerFailure(response: ServerResponse, path: string, failure: DrawbridgeError, prefix: string): void {
  if (response.headersSent) return void response.destroy();
  const { http: status, message, retryAfterSeconds } = failure;
  const headers: Record<string, string> =
    retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) };
  // RFC 6750 §3: whoever lacks a token is told which kind.
  if (status === 401) headers["www-authenticate"] = `Bearer error="${failure.oauth}"`;
  // Nothing more is read of a body that was too large, so the connection cannot go on.
  if (failure.code === "body_too_large") headers["connection"] = "close";
  if (path.startsWith("/oauth/") && path !== "/oauth/authorize") {
    const special = failure.data as { readonly error?: string } | undefined;
    const error = special?.error ?? failure.oauth ?? "invalid_request";
    answerJson(response, status, { error, error_description: message }, headers);
    return;
  }
  const title = status === 404 ? "Nothing here" : status >= 500 ? "Something went wrong" : "This cannot go on";
  showPage(response, errorPage(title, message), { prefix, status, headers });
}
