/**
 * Who allowed which client what: remembered consents, the grants made from them, and their end. Ending something is one write,
 * after which no token of it is accepted by this process.
 */
import { hash } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import { newId } from "../core/ids.ts";
import type { Records } from "../store/ports.ts";
import type { Report } from "./events.ts";

/** What a person allowed a client, last time they were asked. */
export interface Consent {
  readonly user: string;
  readonly client: string;
  readonly clientName: string;
  /** The host of the client id, when the client id is the URL of its document. */
  readonly clientHost: string | undefined;
  readonly scopes: readonly string[];
  /** Changes with whatever of the client a person relied on: name, redirects, keys. */
  readonly fingerprint: string;
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
  /** For whoever has deleted tokens of a grant themselves. */
  forgetGrant(grant: string): void;
  /** Called in the same turn as the write, for each thing that ends. */
  onEnd(listener: (ended: Ended) => void): void;
}

const CONSENT = "oauth:consent";

export function grantsIn(records: Records, report: Report): Grants {
  const listeners: ((ended: Ended) => void)[] = [];
  const ended = (what: Ended) => {
    for (const listener of listeners) listener(what);
  };
  const clientKey = (client: string) => hash("sha256", client, "base64url");
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
      await records.deleteWhere("grant", grant);
      ended({ grant });
      const { user, client } = about;
      await report({ type: "revoked", what: "grant", grant, ...(user && { user }), ...(client && { client }) });
    },
    async endConsent(user, client) {
      await records.deleteWhere("pair", pairKey(user, client));
      ended({ user, client });
      await report({ type: "revoked", what: "client-of-user", user, client });
    },
    async endUser(user) {
      await records.deleteWhere("user", user);
      ended({ user });
      await report({ type: "revoked", what: "user", user });
    },
    async endClient(client) {
      await records.deleteWhere("client", clientKey(client));
      ended({ client });
      await report({ type: "revoked", what: "client", client });
    },
    async endToken(token) {
      await records.delete("oauth:AccessToken", token);
      ended({ token });
      await report({ type: "revoked", what: "token", token });
    },
    forgetGrant: (grant) => ended({ grant }),
    onEnd: (listener) => void listeners.push(listener),
  };
}

/** What a consent was given to, as one comparable text. */
export function fingerprintOf(client: { name: string; redirectUris: readonly string[]; keys: unknown }): string {
  return hash(
    "sha256",
    JSON.stringify([client.name, [...client.redirectUris].sort(), client.keys ?? null]),
    "base64url",
  );
}

/** An id for a consent page's answer, so that the same question is answered once. */
export async function answerOnce(records: Records, question: string, clock: Clock): Promise<boolean> {
  const expiresAt = clock() + 3_600_000;
  return records.put("oauth:answered", question, { id: newId() }, { ifVersion: 0, expiresAt });
}
