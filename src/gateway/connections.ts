/**
 * Accounts of people, or of the operator, at servers that have an authorization server of their own: connected once in a browser,
 * refreshed while they are used, sealed in the store, ended with whoever they belong to. No client ever sees a token of them.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import type { Report } from "../oauth/events.ts";
import type { Place } from "../oauth/http.ts";
import type { Connectable, Connections as Pages } from "../oauth/pages/connections.ts";
import type { User, Users } from "../oauth/people/users.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import type { Authorization, AuthorizationClient, Departure, OAuthClient } from "../upstream/authorization/client.ts";
import type { Discovered } from "../upstream/authorization/discovery.ts";
import { authorizationNet } from "../upstream/authorization/net.ts";
import { hasOAuth, type OAuthServerSettings, type ServerSettings } from "../upstream/settings.ts";
import {
  CONNECTION,
  digest,
  elicitationIdOf,
  type Kept,
  type Lending,
  OPERATOR,
  openVault,
  personTag,
  type Site,
} from "./connection-vault.ts";

export interface Connections extends Pages {
  /** The credentials of calls to a server. Throws for one that has no authorization server of its own. */
  credentials(server: string, settings: ServerSettings): Lending;
  /** The servers that the operator connects, for everybody. */
  operators(): Promise<readonly Connectable[]>;
  /** Begins the operator's own connection for a browser that will come back to `redirectUri`, somewhere else than here. */
  beginOperators(server: string, redirectUri: string): Promise<{ readonly url: URL; readonly departure: Departure }>;
  finishOperators(server: string, answer: URLSearchParams, departure: Departure, operator: string): Promise<void>;
  endOperators(server: string, operator: string): Promise<void>;
  /** Ends what belongs to people who are gone or disabled. */
  sweep(): Promise<void>;
  close(): Promise<void>;
}

export interface ConnectionsOptions {
  /** Those of this moment. */
  readonly servers: () => Readonly<Record<string, ServerSettings>>;
  readonly place: Place;
  readonly records: Records;
  readonly users: Pick<Users, "find">;
  /** The secret beside the store without which what is sealed in it is of no use. */
  readonly encryption: Secret | undefined;
  /** Awaited before something is kept: nothing is connected that is not recorded. */
  readonly report: Report;
  readonly log: Logger;
  /** Somebody has connected, so the server may say more now; `elicitationId`: the page that they were sent to. */
  readonly onConnected?: (server: string, elicitationId: string) => void;
  readonly clock?: Clock;
}

/** A browser on its way, by the hash of its state. Whoever takes it goes on. */
interface Away {
  readonly server: string;
  readonly user: string;
  readonly subject: string;
  readonly mark: string;
  readonly sealed: string;
}

/** A registration of ours at one authorization server. */
interface KeptClient {
  readonly sealed: string;
  /** Browsers sent there since the last one that came back well. */
  readonly begun: number;
}

const AWAY = "connection:away";
const CLIENT = "connection:client";
const AWAY_MS = 600_000;
/** Browsers that may stay away before we think that we are not known there any more, and register again. */
const MAX_BEGUN = 3;
const SWEEP_EVERY_MS = 2_000;
const PAGE = 500;

export function openConnections(options: ConnectionsOptions): Connections {
  const { place, records, users, report, onConnected, clock = systemClock } = options;
  const vault = openVault({ ...options, clock });
  const { idOf, seal, unseal } = vault;
  const known = new WeakMap<ServerSettings, Site>();
  const clients = new Set<AuthorizationClient>();
  const find = (name: string): Site | undefined => {
    const servers = options.servers();
    const settings = Object.hasOwn(servers, name) ? servers[name] : undefined;
    return settings && siteWith(name, settings);
  };
  // One for each version of a server's settings: the one before may still be in use.
  const siteWith = (name: string, settings: ServerSettings): Site | undefined => {
    if (!hasOAuth(settings)) return undefined;
    let site = known.get(settings);
    if (site === undefined) {
      site = { name, settings, client: lazily(() => openClient(name, settings)) };
      known.set(settings, site);
    }
    return site;
  };
  const openClient = async (name: string, settings: OAuthServerSettings) => {
    const { authorizationClient } = await import("../upstream/authorization/client.ts");
    const client = authorizationClient({ name, settings, net: authorizationNet(settings), clock });
    clients.add(client);
    return client;
  };
  const sites = () => Object.keys(options.servers()).flatMap((name) => find(name) ?? []);
  const siteOf = (name: string): Site => {
    const site = find(name);
    if (site === undefined) throw new DrawbridgeError("not_found", "Nothing is connected here.");
    return site;
  };
  async function clientAt({ name, settings, client }: Site, at: Discovered, redirectUri: string): Promise<OAuthClient> {
    const { clientId, clientSecret } = settings.credentials.oauth;
    if (clientId !== undefined) return { id: clientId, secret: clientSecret?.reveal() };
    const ours = redirectUri === callbackOf(name);
    // Its server must be able to read the document, which no other machine can at a loopback address.
    if (ours && documentServed() && at.server.client_id_metadata_document_supported === true)
      return { id: documentOf(name) };

    const clientName = `Drawbridge at ${place.host}`;
    // A command line comes back to another port each time, and seldom; what it registered is kept with its connection.
    if (!ours) return (await client()).register(at, redirectUri, clientName);
    const id = digest(JSON.stringify([at.server.issuer, redirectUri]));
    const row = await records.get<KeptClient>(CLIENT, id);
    const known = row && (await unseal<Registered>(row.value.sealed, CLIENT, id));
    if (
      row !== undefined &&
      known !== undefined &&
      row.value.begun < MAX_BEGUN &&
      (known.expiresAt ?? clock() + 1) > clock()
    ) {
      await records.put(CLIENT, id, { ...row.value, begun: row.value.begun + 1 }, { ifVersion: row.version });
      return known;
    }
    const registered = await (await client()).register(at, redirectUri, clientName);
    const value: KeptClient = { sealed: await seal(registered, CLIENT, id), begun: 1 };
    await records.put(CLIENT, id, value);
    return registered;
  }

  /** How it went at the authorization server with us as the client we are there. */
  async function cameBack({ issuer, redirectUri }: Departure, well: boolean): Promise<void> {
    const id = digest(JSON.stringify([issuer, redirectUri]));
    const row = await records.get<KeptClient>(CLIENT, id);
    if (row === undefined) return;
    await records.put(CLIENT, id, { ...row.value, begun: well ? 0 : MAX_BEGUN }, { ifVersion: row.version });
  }

  async function begin(site: Site, subject: string, redirectUri: string) {
    const client = await site.client();
    const at = await client.discover();
    const row = await vault.get(site, subject);
    // What was allowed before is asked for again: an answer to less would take it away.
    const more = row === undefined ? [] : [...row.value.scopes, ...row.value.wanted];
    return client.begin(at, await clientAt(site, at, redirectUri), redirectUri, more);
  }

  async function finish(
    site: Site,
    subject: string,
    answer: URLSearchParams,
    departure: Departure,
    by: { readonly user?: string; readonly source?: string; readonly operator?: string },
  ): Promise<void> {
    const { name } = site;
    const id = idOf(site, subject);
    let authorization: Authorization;
    try {
      authorization = await (await site.client()).finish(answer, departure);
    } catch (thrown) {
      const error = DrawbridgeError.from(thrown, "upstream_failed");
      await report({ type: "server-connection-refused", server: name, reason: error.detail ?? error.message, ...by });
      if (error.code === "outbound_refused" && answer.get("error") !== "access_denied")
        await cameBack(departure, false);
      throw error;
    }
    const { issuer, scopes } = authorization;
    try {
      await report({ type: "server-connected", server: name, issuer, scopes, ofAll: subject === OPERATOR, ...by });
    } catch (thrown) {
      await vault.revoked(site, authorization);
      throw thrown;
    }
    const before = await records.get<Kept>(CONNECTION, id);
    const replaced = await vault.authorizationOf(before);
    const grown = before === undefined || scopes.some((scope) => !before.value.scopes.includes(scope));
    const kept: Kept = {
      server: name,
      subject,
      state: "connected",
      issuer,
      scopes,
      wanted: [],
      asked: grown ? 0 : (before?.value.asked ?? 0),
      since: clock(),
      sealed: await seal(authorization, CONNECTION, id),
    };
    await vault.put(id, kept);
    await cameBack(departure, true);
    if (replaced !== undefined && replaced.refreshToken !== authorization.refreshToken)
      await vault.revoked(site, replaced);
    onConnected?.(name, elicitationIdOf(name, subject));
  }

  const callbackOf = (name: string) => `${place.issuer}/connections/${name}/callback`;
  const documentOf = (name: string) => `${place.issuer}/connections/${name}/client.json`;
  const documentServed = () => place.secure && !/^(localhost|127\.|\[::1\])/.test(place.host);
  /** As whom somebody connects a server; undefined when it is not theirs to connect. */
  const subjectFor = ({ settings }: Site, user: User) =>
    settings.credentials.oauth.of === "per-user" ? user.id : user.groups.includes("owner") ? OPERATOR : undefined;
  const allowed = (name: string, user: User) => {
    const site = siteOf(name);
    const subject = subjectFor(site, user);
    if (subject === undefined) throw new DrawbridgeError("not_found", "Nothing is connected here.");
    return { site, subject };
  };

  const operatorsOf = (name: string) => {
    const site = siteOf(name);
    if (site.settings.credentials.oauth.of === "operator") return site;
    const message = `Each user connects their own account at the server "${name}", on ${place.issuer}/account.`;
    throw new DrawbridgeError("settings_invalid", message);
  };
  async function connectable(site: Site, subject: string): Promise<Connectable> {
    const value = (await vault.get(site, subject))?.value;
    return {
      server: site.name,
      host: new URL(site.settings.url).host,
      forAll: subject === OPERATOR,
      state: value?.state ?? "none",
      issuer: value?.issuer,
      scopes: value?.scopes ?? [],
      wanted: value?.wanted ?? [],
      since: value?.since,
    };
  }

  const closing = new AbortController();
  let sweeping: Promise<void> | undefined;
  let sweptAt = Number.NEGATIVE_INFINITY;
  let again = false;
  /** Who is gone is refused already; what is left of them need not be looked for each time that anything ends. */
  async function sweepSoon(): Promise<void> {
    do {
      again = false;
      const wait = sweptAt + SWEEP_EVERY_MS - clock();
      if (wait > 0) await sleep(wait, undefined, { ref: false, signal: closing.signal }).catch(() => {});
      if (closing.signal.aborted) return;
      sweptAt = clock();
      await sweepAll();
    } while (again);
  }
  async function sweepAll(): Promise<void> {
    for (let after: string | undefined; ; ) {
      const rows = await records.list<Kept>(CONNECTION, { limit: PAGE, ...(after !== undefined && { after }) });
      for (const { id, value } of rows) {
        if (value.subject === OPERATOR) continue;
        const user = await users.find(value.subject);
        if (user !== undefined && !user.disabled) continue;
        const site = find(value.server);
        if (site !== undefined && id === idOf(site, value.subject)) await vault.end(site, value.subject, "user-gone");
        else await records.delete(CONNECTION, id);
      }
      after = rows.at(-1)?.id;
      if (rows.length < PAGE) return;
    }
  }

  return {
    credentials(name, settings) {
      const site = siteWith(name, settings);
      if (site === undefined) throw new DrawbridgeError("internal", `Nobody connects to the server "${name}".`);
      return vault.credentials(site);
    },
    async of(user) {
      const theirs = sites().flatMap((site) => {
        const subject = subjectFor(site, user);
        return subject === undefined ? [] : [connectable(site, subject)];
      });
      return Promise.all(theirs);
    },
    operators: () =>
      Promise.all(
        sites().flatMap((site) =>
          site.settings.credentials.oauth.of === "operator" ? [connectable(site, OPERATOR)] : [],
        ),
      ),
    isFor: (tag, user) => tag === personTag(user.id),
    async begin(name, { user, mark }) {
      const { site, subject } = allowed(name, user);
      const { url, departure } = await begin(site, subject, callbackOf(name));
      const id = digest(departure.state);
      const away: Away = { server: name, user: user.id, subject, mark, sealed: await seal(departure, AWAY, id) };
      await records.put(AWAY, id, away, { expiresAt: clock() + AWAY_MS, index: { user: user.id } });
      return url;
    },
    async finish(name, answer, { user, mark, source }) {
      const site = siteOf(name);
      const state = answer.get("state");
      const id = digest(state ?? "");
      const found = state === null ? undefined : await records.get<Away>(AWAY, id);
      if (found === undefined) throw new DrawbridgeError("invalid_request", OVER);
      // Whoever did not begin it does not end it, and does not use it up for whoever did.
      if (found.value.mark !== mark || found.value.user !== user.id) {
        const reason = found.value.mark === mark ? "other-person" : "other-browser";
        await report({ type: "server-connection-refused", server: found.value.server, reason, user: user.id, source });
        throw new DrawbridgeError("wrong_origin", NOT_YOURS);
      }
      const taken = await records.take<Away>(AWAY, id);
      if (taken === undefined) throw new DrawbridgeError("invalid_request", OVER);
      const { server, subject, sealed } = taken.value;
      const departure = await unseal<Departure>(sealed, AWAY, id);
      // RFC 9700 §4.4.2.2: a callback of its own for each server tells which one answered, where none says who it is.
      if (departure === undefined || server !== name) {
        await report({
          type: "server-connection-refused",
          server: name,
          reason: "other-server",
          user: user.id,
          source,
        });
        throw new DrawbridgeError("invalid_request", OTHER_SERVER);
      }
      if (subject !== subjectFor(site, user)) throw new DrawbridgeError("not_found", "Nothing is connected here.");
      await finish(site, subject, answer, departure, { user: user.id, source });
    },
    async end(name, { user, source }) {
      const { site, subject } = allowed(name, user);
      await vault.end(site, subject, "asked", { user: user.id, source });
    },
    document(name) {
      if (find(name) === undefined || !documentServed()) return undefined;
      return {
        client_id: documentOf(name),
        client_name: `Drawbridge at ${place.host}`,
        client_uri: place.issuer,
        redirect_uris: [callbackOf(name)],
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        token_endpoint_auth_method: "none",
        application_type: "web",
      };
    },
    beginOperators: async (name, redirectUri) => begin(operatorsOf(name), OPERATOR, redirectUri),
    finishOperators: async (name, answer, departure, operator) =>
      finish(operatorsOf(name), OPERATOR, answer, departure, { operator }),
    endOperators: async (name, operator) => vault.end(operatorsOf(name), OPERATOR, "asked", { operator }),
    sweep() {
      again = true;
      sweeping ??= sweepSoon().finally(() => {
        sweeping = undefined;
      });
      return sweeping;
    },
    async close() {
      closing.abort();
      await Promise.all([...clients].map((client) => client.close()));
    },
  };
}

type Registered = OAuthClient & { readonly expiresAt?: number | undefined };

const OVER = "This has ended: it was finished already, took longer than ten minutes, or never began. Connect again.";
const NOT_YOURS =
  "This was begun by somebody else or in another browser. If somebody sent you here: they wanted you to connect your account for them. Nothing was done.";
const OTHER_SERVER = "This answer came back from another server than the one you chose. Nothing was done.";

function lazily<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
