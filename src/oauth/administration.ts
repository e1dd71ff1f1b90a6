/**
 * What an operator can see and end, from a process beside the gateways: people, clients, grants, keys. Every change is recorded,
 * and announced, so that running gateways follow it within a second.
 */
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import type { Outbound } from "../net/outbound.ts";
import type { Records, Row } from "../store/ports.ts";
import { displayName, isDocumentUrl } from "./clients/clients.ts";
import { disableClient, disabledClients, enableClient } from "./clients/disabled.ts";
import { type DocumentStanding, documentStanding } from "./clients/document-standing.ts";
import {
  type InitialAccessToken,
  initialAccessTokens,
  type NewInitialAccessToken,
  newInitialAccessToken,
  revokeInitialAccessToken,
} from "./clients/initial-access.ts";
import { deleteRegistered, REGISTERED_CLIENT } from "./clients/registration.ts";
import type { OAuthEvent, Report } from "./events.ts";
import { type Session, sessionsIn } from "./people/sessions.ts";
import { type NewUser, type User, usersIn } from "./people/users.ts";
import type { ClientsSettings } from "./settings.ts";
import { type Consent, type Grant, grantsIn, listConsents, listGrants } from "./tokens/grants.ts";
import {
  type KeyStatus,
  type KeyStoreOptions,
  listKeys,
  type RotationTiming,
  revokeKey,
  rotateKeys,
} from "./tokens/keys.ts";
import { announceTo } from "./watch.ts";

export interface AdministrationOptions {
  /** Records a change before it is made; when it rejects, nothing is changed. */
  readonly report: Report;
  /** Who changes. */
  readonly operator: string;
  readonly keys?: Omit<KeyStoreOptions, "clock"> & RotationTiming;
  /** Of the gateway that is administered. */
  readonly clients: ClientsSettings;
  /** What documents of clients are fetched with (`documentNet`). */
  readonly net: Outbound;
  readonly clock?: Clock;
}

/** What is known of a client, whatever way it came. */
export interface KnownClient {
  readonly id: string;
  readonly name: string;
  /** By the settings file (a client or a workload), by registration, or by the URL of its document. */
  readonly knownBy: "settings" | "workload" | "registration" | "document";
  readonly disabled: boolean;
  /** Grants in force, and how many people gave them. */
  readonly grants: number;
  readonly people: number;
  readonly redirectUris: readonly string[];
  /** Milliseconds since the epoch: when a registered client ends unless it is used. */
  readonly expiresAt: number | undefined;
}

export interface ShownClient extends KnownClient {
  readonly consents: readonly Consent[];
  /** Of a client with a metadata document: how it stands with the settings now. */
  readonly document: Omit<DocumentStanding, "metadata"> | undefined;
}

export interface GrantFilter {
  /** Ids. */
  readonly user?: string;
  readonly client?: string;
}

export interface Administration {
  readonly users: {
    /** All, oldest first; at most 10,000. */
    list(): Promise<readonly User[]>;
    /** By id, name or `provider:subject`. Throws `not_found`. */
    get(text: string): Promise<User>;
    /** Makes a user who cannot sign in yet, and the token of the link that lets them choose a password. */
    create(user: Pick<NewUser, "name" | "email" | "groups">): Promise<{ readonly user: User; readonly token: Secret }>;
    /** The token of a new link; earlier ones are void. */
    invite(user: User): Promise<Secret>;
    setGroups(user: User, groups: readonly string[]): Promise<void>;
    /** Ends their sessions. Throws `invalid_request` for a password that would not be accepted from themselves. */
    setPassword(user: User, password: Secret): Promise<void>;
    /** Ends their sessions, consents and grants, and lets them in no more. */
    disable(user: User): Promise<void>;
    enable(user: User): Promise<void>;
    remove(user: User): Promise<void>;
    sessions(user: User): Promise<readonly Session[]>;
    /** One session, or all. Returns how many ended. */
    endSessions(user: User, id?: string): Promise<number>;
  };
  readonly clients: {
    /** Those of the settings, those registered, and those whose document somebody let in or an operator disabled. */
    list(): Promise<readonly KnownClient[]>;
    /** By id, by name, or by the beginning of an id, when only one fits; or any URL of a document. Throws `not_found`. */
    get(text: string): Promise<KnownClient>;
    /** With its consents and, when it has one, its document as it is now. Throws `not_found`. */
    show(text: string): Promise<ShownClient>;
    /** Gives it nothing more and refuses what it has, until it is enabled. Also one that was never seen. */
    disable(id: string): Promise<void>;
    enable(id: string): Promise<void>;
    /** Ends all that was allowed to it and forgets its registration. Throws `invalid_request` for one of the settings. */
    remove(client: KnownClient): Promise<void>;
    tokens(): Promise<readonly InitialAccessToken[]>;
    newToken(token: NewInitialAccessToken): Promise<InitialAccessToken & { readonly token: Secret }>;
    /** Throws `not_found`. */
    revokeToken(id: string): Promise<void>;
  };
  readonly grants: {
    /** Oldest first; at most 10,000. */
    list(filter?: GrantFilter): Promise<readonly Grant[]>;
    /** What people said yes to, and will not be asked again. */
    consents(filter?: GrantFilter): Promise<readonly Consent[]>;
    /** Throws `not_found`. */
    get(id: string): Promise<Grant>;
    /** Ends one grant; the consent stays, so the client may ask for another. */
    revoke(grant: Grant): Promise<void>;
    /** Ends the grants and consents of a user, of a client, or of a user for a client. */
    revokeAll(filter: GrantFilter): Promise<number>;
  };
  readonly keys: {
    list(): Promise<readonly KeyStatus[]>;
    rotate(): Promise<KeyStatus>;
    /** Returns the key that signs from now on. Throws `not_found`. */
    revoke(kid: string): Promise<KeyStatus>;
  };
}

const MOST = 10_000;

export function administration(records: Records, options: AdministrationOptions): Administration {
  const { operator, net, clock = systemClock } = options;
  const report = (event: OAuthEvent) => options.report({ ...event, operator });
  const keyOptions = { ...options.keys, clock };
  const users = usersIn(records, clock);
  // Only begun sessions need to know how long one lasts, and none is begun here.
  const sessions = sessionsIn(records, 0, clock);
  const grants = grantsIn(records, report);
  // Before the end is recorded: what could not be recorded has ended all the same.
  grants.onEnd(() => announceTo(records, "ended"));

  const changed = (user: User, change: (OAuthEvent & { type: "user-changed" })["change"], more: object = {}) =>
    report({ type: "user-changed", user: user.id, name: user.name, change, ...more });

  async function listClients(): Promise<readonly KnownClient[]> {
    const [registered, consents, all, disabled] = await Promise.all([
      everyRow<Registered>(records, REGISTERED_CLIENT),
      listConsents(records, {}, MOST),
      listGrants(records, {}, MOST),
      disabledClients(records),
    ]);
    const found = new Map<string, Facts>();
    for (const { client } of [...disabled, ...all]) if (isDocumentUrl(client)) found.set(client, unseen(client));
    for (const { client, clientName: name, redirectUris } of consents)
      if (isDocumentUrl(client)) found.set(client, { ...unseen(client), name, redirectUris });
    for (const { id, value, expiresAt } of registered) {
      const { client_name: name = "", redirect_uris: redirectUris = [] } = value;
      found.set(id, { id, name: displayName(name), knownBy: "registration", redirectUris, expiresAt });
    }
    const { preregistered, workloads } = options.clients;
    for (const { id, name, redirectUris } of preregistered)
      found.set(id, { id, name, knownBy: "settings", redirectUris, expiresAt: undefined });
    for (const { id, name } of workloads)
      found.set(id, { id, name, knownBy: "workload", redirectUris: [], expiresAt: undefined });
    const off = new Set(disabled.map(({ client }) => client));
    return [...found.values()].map((client) => {
      const own = all.filter((grant) => grant.client === client.id);
      const people = new Set(own.map(({ user }) => user)).size;
      return { ...client, disabled: off.has(client.id), grants: own.length, people };
    });
  }

  async function getClient(text: string): Promise<KnownClient> {
    const all = await listClients();
    const exact = all.find(({ id }) => id === text);
    if (exact !== undefined) return exact;
    if (isDocumentUrl(text)) return { ...unseen(text), disabled: false, grants: 0, people: 0 };
    const near = all.filter(({ id, name }) => id.startsWith(text) || name === text);
    const [only] = near;
    if (only === undefined) throw missing("client", text, "clients list");
    if (near.length === 1) return only;
    const some = near.slice(0, 5).map(({ id }) => id);
    throw invalid(`${near.length} clients fit ${text}: ${some.join(", ")}. Write more of the id.`);
  }

  return {
    users: {
      async list() {
        const found: User[] = [];
        for (let after: string | undefined; found.length < MOST; ) {
          const page = await users.list({ limit: 1000, ...(after === undefined ? {} : { after }) });
          found.push(...page);
          after = page.at(-1)?.id;
          if (page.length < 1000) break;
        }
        return found;
      },
      async get(text) {
        const user = await users.lookUp(text);
        if (user === undefined) throw missing("user", text, "users list");
        return user;
      },
      async create({ name, email, groups }) {
        const problems = users.problems({ name, email, password: undefined });
        if (problems.length > 0) throw invalid(problems.join(" "));
        // Recorded with its id, and before the link: without one the user is nobody yet.
        const user = await users.create({ name, email, groups, password: undefined });
        await report({ type: "user-created", user: user.id, name: user.name, groups });
        return { user, token: await newLink(user) };
      },
      async invite(user) {
        await changed(user, "invited");
        return newLink(user);
      },
      async setGroups(user, groups) {
        refuseFederated(user, "groups");
        await changed(user, "groups", { groups });
        await users.setGroups(user.id, groups);
        // What a token may do is remembered with it for a moment; the announcement ends that.
        await announceTo(records, "ended");
      },
      async setPassword(user, password) {
        refuseFederated(user, "password");
        const problems = users.problems({ name: user.name, email: undefined, password: password.reveal() });
        if (problems.length > 0) throw invalid(problems.join(" "));
        await changed(user, "password");
        await users.setPassword(user.id, password.reveal());
        await sessions.endAll(user.id);
      },
      async disable(user) {
        await changed(user, "disabled");
        await users.setDisabled(user.id, true);
        await grants.endUser(user.id);
      },
      async enable(user) {
        await changed(user, "enabled");
        await users.setDisabled(user.id, false);
        await announceTo(records, "ended");
      },
      async remove(user) {
        await changed(user, "removed");
        await users.remove(user.id);
        await grants.endUser(user.id);
      },
      sessions: (user) => sessions.list(user.id),
      async endSessions(user, id) {
        const open = await sessions.list(user.id);
        const ends = id === undefined ? open : open.filter((session) => session.id.startsWith(id));
        if (id !== undefined && ends.length !== 1) throw missing("session", id, `users sessions ${user.name}`);
        await report({ type: "sessions-ended", user: user.id, count: ends.length });
        let ended = 0;
        for (const session of ends) if (await sessions.end(user.id, session.id)) ended++;
        return id === undefined ? ended + (await sessions.endAll(user.id)) : ended;
      },
    },

    clients: {
      list: listClients,
      get: getClient,
      async show(text) {
        const client = await getClient(text);
        const consents = await listConsents(records, { client: client.id }, MOST);
        if (client.knownBy !== "document") return { ...client, consents, document: undefined };
        const { metadata, ...document } = await documentStanding(client.id, options.clients, net);
        const redirectUris = strings(metadata?.["redirect_uris"]) ?? client.redirectUris;
        const name = displayName(metadata?.["client_name"]) || client.name;
        return { ...client, name, redirectUris, consents, document };
      },
      async disable(id) {
        await report({ type: "client-administered", client: id, change: "disabled" });
        await disableClient(records, id, clock);
      },
      async enable(id) {
        await report({ type: "client-administered", client: id, change: "enabled" });
        await enableClient(records, id);
      },
      async remove({ id, knownBy }) {
        if (knownBy === "settings" || knownBy === "workload")
          throw invalid(
            `${id} is in the settings file. Remove it there, or switch it off with \`drawbridge clients disable\`.`,
          );
        await report({ type: "client-administered", client: id, change: "removed" });
        if (knownBy === "registration") await deleteRegistered(records, grants, id);
        else await grants.endClient(id);
      },
      tokens: () => initialAccessTokens(records),
      async newToken(token) {
        await report({ type: "initial-access-changed", change: "made", note: token.note ?? "" });
        return newInitialAccessToken(records, token, clock);
      },
      async revokeToken(id) {
        const found = (await initialAccessTokens(records)).find((token) => token.id === id);
        if (found === undefined) throw missing("initial access token", id, "clients token --list");
        await report({ type: "initial-access-changed", change: "revoked", note: found.note });
        await revokeInitialAccessToken(records, id);
      },
    },

    grants: {
      list: (filter = {}) => listGrants(records, filter, MOST),
      consents: (filter = {}) => listConsents(records, filter, MOST),
      async get(id) {
        const found = (await listGrants(records, {}, MOST)).filter((grant) => grant.id.startsWith(id));
        const [only] = found;
        if (only === undefined) throw missing("grant", id, "grants list");
        if (found.length > 1 && only.id !== id)
          throw invalid(`${found.length} grants begin with ${id}. Write more of the id.`);
        return only;
      },
      revoke: ({ id, user, client }) => grants.end(id, { user, client }),
      async revokeAll(filter) {
        const { user, client } = filter;
        const { length } = await listGrants(records, filter, MOST);
        if (user !== undefined && client !== undefined) await grants.endConsent(user, client);
        else if (user !== undefined) await grants.endUser(user);
        else if (client !== undefined) await grants.endClient(client);
        return length;
      },
    },

    keys: {
      list: () => listKeys(records, keyOptions),
      async rotate() {
        await report({ type: "keys-changed", change: "rotated" });
        const signing = (await listKeys(records, keyOptions)).find(({ state }) => state === "signing");
        return rotateKeys(records, { ...keyOptions, algorithm: keyOptions.algorithm ?? signing?.algorithm ?? "ES256" });
      },
      async revoke(kid) {
        const found = (await listKeys(records, keyOptions)).filter((key) => key.kid.startsWith(kid));
        const [only] = found;
        if (only === undefined || found.length > 1) throw missing("key", kid, "keys list");
        await report({ type: "keys-changed", change: "revoked", key: only.kid });
        return revokeKey(records, only.kid, keyOptions);
      },
    },
  };

  async function newLink(user: User): Promise<Secret> {
    return new Secret(await users.newInvitation(user.id));
  }
}

interface Registered {
  readonly client_name?: string;
  readonly redirect_uris?: readonly string[];
}
type Facts = Omit<KnownClient, "disabled" | "grants" | "people">;

/** A client with a document of which nothing else is known. */
function unseen(id: string): Facts {
  return { id, name: "", knownBy: "document", redirectUris: [], expiresAt: undefined };
}

function strings(value: unknown): readonly string[] | undefined {
  return Array.isArray(value) ? value.filter((one) => typeof one === "string") : undefined;
}

async function everyRow<T>(records: Records, kind: string): Promise<readonly Row<T>[]> {
  const found: Row<T>[] = [];
  for (let after: string | undefined; found.length < MOST; ) {
    const page = await records.list<T>(kind, { limit: 1000, ...(after === undefined ? {} : { after }) });
    found.push(...page);
    after = page.at(-1)?.id;
    if (page.length < 1000) break;
  }
  return found;
}

function refuseFederated({ name, from }: User, what: string): void {
  if (from !== undefined)
    throw invalid(`${name} comes from ${from.provider}, which keeps their ${what}. Change it there.`);
}

function missing(what: string, named: string, command: string): DrawbridgeError {
  return new DrawbridgeError(
    "not_found",
    `There is no ${what} ${named}. \`drawbridge ${command}\` shows what there is.`,
  );
}

function invalid(message: string): DrawbridgeError {
  return new DrawbridgeError("invalid_request", message);
}
