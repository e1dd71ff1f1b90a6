/** The clients there are, wherever they come from, for whoever operates the gateway. */
import { DrawbridgeError } from "../core/errors.ts";
import type { Outbound } from "../net/outbound.ts";
import type { Records, Row } from "../store/ports.ts";
import { clientPolicy, displayName, isDocumentUrl, type Trust } from "./clients.ts";
import { type DocumentStanding, documentStanding } from "./document-standing.ts";
import { CONSENT, type Consent, type Grants } from "./grants.ts";
import { deleteRegistered, REGISTERED_CLIENT } from "./registration.ts";
import type { ClientsSettings } from "./settings.ts";

export interface KnownClient {
  readonly id: string;
  readonly name: string;
  /** `denied`: people allowed it before the settings did not. */
  readonly trust: Trust | "workload" | "denied";
  /** How many people allow it something. */
  readonly people: number;
  /** Milliseconds since the epoch, as all times here: when it registered itself, and when that ends unless it is used. */
  readonly registeredAt?: number;
  readonly expiresAt?: number;
  /** When somebody last allowed it something. */
  readonly allowedAt?: number;
}

export interface ShownClient extends KnownClient {
  readonly redirectUris: readonly string[];
  readonly consents: readonly Pick<Consent, "user" | "scopes" | "lastAt" | "until">[];
  /** Of a client with a metadata document. */
  readonly document?: Pick<DocumentStanding, "sha256" | "pin" | "problem">;
}

export interface KnownClients {
  /** All of the settings file, all registered ones, and those with documents that somebody allows something; sorted by id. */
  list(): Promise<readonly KnownClient[]>;
  /** One of those, or any URL of a document: that is fetched. Undefined: no such client. */
  show(id: string): Promise<ShownClient | undefined>;
  /**
   * Deletes a registered client with all that it was given. Throws `invalid_params` for one that is not registered: those of the
   * settings file end there, and documents are denied there.
   */
  delete(id: string): Promise<void>;
}

export interface KnownClientsOptions {
  readonly records: Records;
  readonly grants: Grants;
  readonly settings: ClientsSettings;
  /** What documents are fetched with (`documentNet`). */
  readonly net: Outbound;
}

interface Registered {
  readonly client_name?: string;
  readonly client_id_issued_at?: number;
  readonly redirect_uris?: readonly string[];
}

/** How many consents of one client are shown. */
const MAX_CONSENTS = 1000;

export function knownClients({ records, grants, settings, net }: KnownClientsOptions): KnownClients {
  // Only what it knows without asking anybody.
  const policy = clientPolicy(settings, {
    get: () => Promise.reject(new DrawbridgeError("internal", "No document is fetched here.")),
  });

  function fromSettings(id: string): (KnownClient & { readonly redirectUris: readonly string[] }) | undefined {
    const client = settings.preregistered.find((one) => one.id === id);
    if (client !== undefined)
      return { id, name: client.name, trust: "preregistered", people: 0, redirectUris: client.redirectUris };
    const workload = settings.workloads.find((one) => one.id === id);
    return workload && { id, name: workload.name, trust: "workload", people: 0, redirectUris: [] };
  }

  function trustOf(id: string): KnownClient["trust"] {
    return isDocumentUrl(id) && policy.documentProblem(id) !== undefined ? "denied" : policy.trustOf(id);
  }

  return {
    async list() {
      const found = new Map<string, KnownClient>();
      for (const { id } of [...settings.preregistered, ...settings.workloads]) {
        const client = fromSettings(id);
        if (client === undefined) continue;
        const { redirectUris: _, ...known } = client;
        found.set(id, known);
      }
      for await (const row of all<Registered>(records, REGISTERED_CLIENT)) found.set(row.id, fromRegistration(row));
      for await (const { value } of all<Consent>(records, CONSENT)) {
        const { client: id, clientName: name, lastAt } = value;
        const client = found.get(id) ?? { id, name, trust: trustOf(id), people: 0 };
        const allowedAt = Math.max(client.allowedAt ?? 0, lastAt);
        found.set(id, { ...client, people: client.people + 1, allowedAt });
      }
      return [...found.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
    },

    async show(id) {
      const { client: key = "" } = grants.indexFor(undefined, id);
      const rows = await records.find<Consent>(CONSENT, "client", key, { limit: MAX_CONSENTS });
      const consents = rows.map(({ value }) => value).sort((a, b) => b.lastAt - a.lastAt);
      const [newest] = consents;
      const registered = await records.get<Registered>(REGISTERED_CLIENT, id);
      const known = fromSettings(id) ?? (registered && fromRegistration(registered));
      const document = isDocumentUrl(id) ? await documentStanding(id, settings, net) : undefined;
      if (known === undefined && newest === undefined && document === undefined) return undefined;
      const { metadata, sha256, pin, problem } = document ?? {};
      const redirectUris = metadata?.["redirect_uris"] ?? registered?.value.redirect_uris ?? newest?.redirectUris ?? [];
      return {
        id,
        name: displayName(metadata?.["client_name"]) || newest?.clientName || id,
        trust: trustOf(id),
        redirectUris: redirectUris as readonly string[],
        ...known,
        people: consents.length,
        ...(newest === undefined ? {} : { allowedAt: newest.lastAt }),
        consents: consents.map(({ user, scopes, lastAt, until }) => ({ user, scopes, lastAt, until })),
        ...(document === undefined ? {} : { document: { sha256, pin, problem } }),
      };
    },

    async delete(id) {
      if ((await records.get(REGISTERED_CLIENT, id)) === undefined) {
        throw new DrawbridgeError(
          "invalid_params",
          `There is no registered client ${id}. Clients of the settings file end there; documents are refused with clients.metadataDocuments.deny.`,
        );
      }
      await deleteRegistered(records, grants, id);
    },
  };
}

function fromRegistration({ id, value, expiresAt }: Row<Registered>): KnownClient {
  const { client_name: name, client_id_issued_at: issuedAt } = value;
  return {
    id,
    name: displayName(name) || id,
    trust: "registered",
    people: 0,
    ...(issuedAt === undefined ? {} : { registeredAt: issuedAt * 1000 }),
    ...(expiresAt === undefined ? {} : { expiresAt }),
  };
}

async function* all<T>(records: Records, kind: string): AsyncGenerator<Row<T>> {
  for (let after: string | undefined; ; ) {
    const rows = await records.list<T>(kind, { limit: 1000, ...(after === undefined ? {} : { after }) });
    yield* rows;
    after = rows.at(-1)?.id;
    if (rows.length < 1000) return;
  }
}
