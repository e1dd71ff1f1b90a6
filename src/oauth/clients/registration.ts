/** Dynamic client registration (RFC 7591) when it is switched on: what is kept in bounds, for how long, from whom. */
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { newId } from "../../core/ids.ts";
import { networkOf } from "../../net/source.ts";
import { strictJsonObject } from "../../net/strict-json.ts";
import type { Records } from "../../store/ports.ts";
import type { ClientsSettings } from "../settings.ts";
import { throttle } from "../throttle.ts";
import type { Grants } from "../tokens/grants.ts";
import { hashedSecret } from "./client-secrets.ts";
import type { ClientMetadata, ClientPolicy } from "./clients.ts";
import { initialAccessTokenStands, spendInitialAccessToken } from "./initial-access.ts";

export interface Registration {
  readonly enabled: boolean;
  /** An id for a new client: never the URL of a document, nor one of the settings file. */
  newClientId(): string;
  /** Until when a client that is used now is kept. */
  expiresAt(): number;
  /**
   * Throws `unauthenticated` when an initial access token is needed and `authorization`, the request's header, has none that
   * stands. Nothing of the request has to be read for that.
   */
  authorised(authorization: string | undefined): Promise<void>;
  /**
   * Counts one registration. Throws `rate_limited` for a source that registers too much, `overloaded` when no more clients are
   * kept, `unauthenticated` when its initial access token is used up.
   */
  admit(source: string, authorization: string | undefined): Promise<void>;
  /** What will be registered. Throws `invalid_request` with an RFC 7591 §3.2.2 error in `data`. */
  checked(body: Buffer, policy: ClientPolicy): ClientMetadata;
  /** What a registration will be changed to (RFC 7592 §2.2). Throws as `checked` does. */
  changed(body: Buffer, policy: ClientPolicy): ClientMetadata;
  /** Keeps a client for longer because it is used. */
  used(clientId: string): Promise<void>;
}

export const REGISTERED_CLIENT = "oauth:Client";
export const REGISTRATION_TOKEN = "oauth:RegistrationAccessToken";
const ID_PREFIX = "registered-";

export function registration(settings: ClientsSettings, records: Records, clock: Clock = systemClock): Registration {
  const { registration: mode, maxRegistered, registrationsPerSourcePerHour } = settings;
  const perSource = throttle(
    { burst: registrationsPerSourcePerHour, secondsPerTry: 3600 / registrationsPerSourcePerHour },
    clock,
  );
  const lifeMs = settings.registeredUnusedDays * 86_400_000;

  async function full(): Promise<boolean> {
    let count = 0;
    for (let after: string | undefined; ; ) {
      const rows = await records.list(REGISTERED_CLIENT, { limit: 1000, ...(after === undefined ? {} : { after }) });
      count += rows.length;
      if (count >= maxRegistered) return true;
      after = rows.at(-1)?.id;
      if (rows.length < 1000) return false;
    }
  }

  /** Puts a row off until a client that is used now would end. */
  async function prolong(kind: string, id: string): Promise<boolean> {
    const row = await records.get<{ readonly clientId?: string }>(kind, id);
    // One write a day at most (or a tenth of a short life), not one a token.
    if (row?.expiresAt === undefined || row.expiresAt > clock() + lifeMs - Math.min(86_400_000, lifeMs / 10))
      return false;
    const index = row.value.clientId === undefined ? {} : { index: { registration: row.value.clientId } };
    // Who loses to another writer loses to one that keeps it for as long.
    await records.put(kind, id, row.value, { ifVersion: row.version, expiresAt: clock() + lifeMs, ...index });
    return true;
  }

  function checked(given: Record<string, unknown>, policy: ClientPolicy): ClientMetadata {
    const redirects = policy.redirectProblem(given["redirect_uris"]);
    if (redirects !== undefined) throw refused("invalid_redirect_uri", redirects);
    const problem = policy.metadataProblem(given);
    if (problem !== undefined) throw refused("invalid_client_metadata", problem);
    const { client_id: _, ...metadata } = policy.normalise(given);
    return metadata;
  }

  return {
    enabled: mode === "open" || mode === "initial-access-token",
    newClientId: () => `${ID_PREFIX}${newId(clock())}`,
    expiresAt: () => clock() + lifeMs,
    async authorised(authorization) {
      if (mode !== "initial-access-token") return;
      if (!(await initialAccessTokenStands(records, bearer(authorization)))) throw unauthorised();
    },
    async admit(source, authorization) {
      const wait = perSource.take(networkOf(source));
      if (wait > 0) {
        throw new DrawbridgeError("rate_limited", `Too many registrations from this address. Try again in ${wait} s.`, {
          retryAfterSeconds: wait,
        });
      }
      if (await full()) {
        throw new DrawbridgeError(
          "overloaded",
          "No more clients can be registered here. Use a client ID metadata document.",
          { retryAfterSeconds: 3600 },
        );
      }
      if (mode === "initial-access-token" && !(await spendInitialAccessToken(records, bearer(authorization))))
        throw unauthorised();
    },
    checked: (body, policy) => checked(parsed(body), policy),
    changed(body, policy) {
      const given = parsed(body);
      const { client_id: id, client_secret: secret } = given;
      return {
        ...checked(given, policy),
        client_id: id,
        // It was given out once and is kept as its hash, which is what the stored one is compared with.
        ...(typeof secret === "string" ? { client_secret: hashedSecret(secret) } : {}),
      };
    },
    async used(clientId) {
      if (!clientId.startsWith(ID_PREFIX) || !(await prolong(REGISTERED_CLIENT, clientId))) return;
      const tokens = await records.find(REGISTRATION_TOKEN, "registration", clientId, { limit: 10 });
      for (const { id } of tokens) await prolong(REGISTRATION_TOKEN, id);
    },
  };
}

/** Deletes a registered client with all that it was given (RFC 7592 §2.3). */
export async function deleteRegistered(
  records: Records,
  grants: Pick<Grants, "endClient">,
  clientId: string,
): Promise<void> {
  await records.delete(REGISTERED_CLIENT, clientId);
  await records.deleteWhere("registration", clientId);
  await grants.endClient(clientId);
}

function bearer(authorization: string | undefined): string {
  return /^Bearer +([\w.~+/-]+=*) *$/i.exec(authorization ?? "")?.[1] ?? "";
}

function parsed(body: Buffer): Record<string, unknown> {
  try {
    return strictJsonObject(body);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : "cannot be read";
    throw refused("invalid_client_metadata", `The body ${reason}.`);
  }
}

function unauthorised(): DrawbridgeError {
  return new DrawbridgeError(
    "unauthenticated",
    "Registering a client here needs an initial access token that stands, as a Bearer token. Ask your operator for one.",
  );
}

function refused(error: "invalid_redirect_uri" | "invalid_client_metadata", message: string): DrawbridgeError {
  return new DrawbridgeError("invalid_request", message, { data: { error } });
}
