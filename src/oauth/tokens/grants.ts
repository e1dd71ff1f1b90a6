/**
 * Who allowed which client what: remembered consents, the grants made from them, and their end. Ending something is one write,
 * after which no token of it is accepted by this process.
 */
import { hash } from "node:crypto";
import type { Clock } from "../../core/clock.ts";
import { newId } from "../../core/ids.ts";
import type { Records, Row } from "../../store/ports.ts";
import type { Report } from "../events.ts";

/** What a person allowed a client, last time they were asked. */
export interface Consent {
  readonly user: string;
  readonly client: string;
  readonly clientName: string;
  /** The host of the client id, when the client id is the URL of its document. */
  readonly clientHost: string | undefined;
  /** Where the client said its answers may go. */
  readonly redirectUris: readonly string[];
  /** What it proves itself with: a hash of its keys, or the URL of its key set; undefined when it proves nothing. */
  readonly keys: string | undefined;
  readonly scopes: readonly string[];
  /** The redirect URIs that the person saw their answers go to, newest last. */
  readonly answersTo: readonly string[];
  readonly firstAt: number;
  readonly lastAt: number;
  /** When the grant made from it ends. */
  readonly until: number;
}

/** What ended: everything that has all of these members. Whoever remembers a verified token can forget it. */
export interface Ended {
  readonly token?: string;
  readonly grant?: string;
  readonly user?: string;
  readonly client?: string;
}

export interface Grants {
  readonly consents: {
    find(user: string, client: string): Promise<Consent | undefined>;
    keep(consent: Consent): Promise<void>;
    /** Those in force, newest first; at most 200. */
    of(user: string): Promise<readonly Consent[]>;
  };
  /** Index values that let `endConsent` and `endClient` find every record of a grant. */
  indexFor(user: string | undefined, client: string): Record<string, string>;
  /** Ends a grant with all its codes and tokens. */
  end(grant: string, about?: { user?: string | undefined; client?: string | undefined }): Promise<void>;
  /** Ends all that `user` allowed `client`, and forgets the consent. */
  endConsent(user: string, client: string): Promise<void>;
  endUser(user: string): Promise<void>;
  endClient(client: string): Promise<void>;
  endToken(token: string): Promise<void>;
  /** Deletes what belongs to a grant, of one kind or of all, without a record of it: whoever calls it ends the grant. */
  forgetGrant(grant: string, kind?: string): Promise<void>;
  /** Called in the same turn as the write, for each thing that ends, and awaited before its end is reported. */
  onEnd(listener: (ended: Ended) => void | Promise<void>): void;
}

export const CONSENT = "oauth:consent";

export function grantsIn(records: Records, report: Report): Grants {
  const listeners: ((ended: Ended) => void | Promise<void>)[] = [];
  /** Tells the listeners also when the store did not say whether it was done: whoever remembers a token asks it then. */
  const ended = async (what: Ended, written: Promise<unknown>) => {
    try {
      await written;
    } finally {
      await Promise.all(listeners.map((listener) => listener(what)));
    }
  };
  const pairKey = (user: string, client: string) => hash("sha256", JSON.stringify([user, client]), "base64url");

  return {
    consents: {
      async find(user, client) {
        return (await records.get<Consent>(CONSENT, pairKey(user, client)))?.value;
      },
      async keep(consent) {
        const { user, client, until } = consent;
        const index = { user, client: clientKey(client), pair: pairKey(user, client) };
        await records.put(CONSENT, pairKey(user, client), consent, { expiresAt: until, index });
      },
      async of(user) {
        const rows = await records.find<Consent>(CONSENT, "user", user, { limit: 200 });
        return rows.map(({ value }) => value).sort((a, b) => b.lastAt - a.lastAt);
      },
    },
    indexFor(user, client) {
      return { client: clientKey(client), ...(user === undefined ? {} : { user, pair: pairKey(user, client) }) };
    },
    async end(grant, about = {}) {
      await ended({ grant }, records.deleteWhere("grant", grant));
      const { user, client } = about;
      await report({ type: "revoked", what: "grant", grant, ...(user && { user }), ...(client && { client }) });
    },
    async endConsent(user, client) {
      await ended({ user, client }, records.deleteWhere("pair", pairKey(user, client)));
      await report({ type: "revoked", what: "client-of-user", user, client });
    },
    async endUser(user) {
      await ended({ user }, records.deleteWhere("user", user));
      await report({ type: "revoked", what: "user", user });
    },
    async endClient(client) {
      await ended({ client }, records.deleteWhere("client", clientKey(client)));
      await report({ type: "revoked", what: "client", client });
    },
    async endToken(token) {
      await ended({ token }, records.delete("oauth:AccessToken", token));
      await report({ type: "revoked", what: "token", token });
    },
    forgetGrant: (grant, kind) => ended({ grant }, records.deleteWhere("grant", grant, kind)),
    onEnd: (listener) => void listeners.push(listener),
  };
}

/** One grant in force: what a client may do for somebody, until it ends or is ended. */
export interface Grant {
  readonly id: string;
  readonly user: string;
  readonly client: string;
  readonly scopes: readonly string[];
  /** Milliseconds since the epoch. */
  readonly since: number;
  readonly until: number | undefined;
}

interface StoredGrant {
  readonly accountId?: string;
  readonly clientId?: string;
  readonly iat?: number;
  readonly resources?: Readonly<Record<string, string>>;
}

/** Grants of a user, of a client, or all; at most `most`. */
export async function listGrants(records: Records, filter: Pick<Ended, "user" | "client">, most: number) {
  const rows = await matching<StoredGrant>(records, "oauth:Grant", filter, most);
  return rows
    .map(({ id, value, expiresAt }): Grant => {
      const { accountId = "", clientId = "", iat = 0, resources = {} } = value;
      const scopes = [...new Set(Object.values(resources).flatMap((scope) => scope.split(" ")))];
      return { id, user: accountId, client: clientId, scopes, since: iat * 1000, until: expiresAt };
    })
    .filter(({ user, client }) => fits(filter, user, client))
    .sort((a, b) => a.since - b.since);
}

/** Remembered consents of a user, for a client, or all; at most `most`. */
export async function listConsents(records: Records, filter: Pick<Ended, "user" | "client">, most: number) {
  const rows = await matching<Consent>(records, CONSENT, filter, most);
  return rows.map(({ value }) => value).filter(({ user, client }) => fits(filter, user, client));
}

function fits(filter: Pick<Ended, "user" | "client">, user: string, client: string): boolean {
  return (filter.user ?? user) === user && (filter.client ?? client) === client;
}

/** Rows of a kind by the narrower of their indexes. */
async function matching<T>(
  records: Records,
  kind: string,
  { user, client }: Pick<Ended, "user" | "client">,
  most: number,
) {
  const [name, value] = user !== undefined ? ["user", user] : client !== undefined ? ["client", clientKey(client)] : [];
  const found: Row<T>[] = [];
  for (let after: string | undefined; found.length < most; ) {
    const page = { limit: 1000, ...(after === undefined ? {} : { after }) };
    const rows =
      name === undefined || value === undefined
        ? await records.list<T>(kind, page)
        : await records.find<T>(kind, name, value, page);
    found.push(...rows);
    after = rows.at(-1)?.id;
    if (rows.length < 1000) break;
  }
  return found.slice(0, most);
}

const clientKey = (client: string) => hash("sha256", client, "base64url");

/** An id for a consent page's answer, so that the same question is answered once. */
export async function answerOnce(records: Records, question: string, clock: Clock): Promise<boolean> {
  const expiresAt = clock() + 3_600_000;
  return records.put("oauth:answered", question, { id: newId() }, { ifVersion: 0, expiresAt });
}
