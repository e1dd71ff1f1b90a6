/**
 * Keeps what `oidc-provider` wants kept. Its storage interface cannot say "exactly one of two wins"; this adapter can: a code
 * or refresh token is consumed once, a replayed proof is refused, whoever loses the race ends the whole family.
 */
import { hash } from "node:crypto";
import Provider, { type Adapter, type AdapterFactory, type AdapterPayload, errors } from "oidc-provider";
import type { Clock } from "../core/clock.ts";
import type { Records, Row } from "../store/ports.ts";
import { hashedSecret, isHashedSecret } from "./clients/client-secrets.ts";
import { deleteRegistered } from "./clients/registration.ts";
import type { Report } from "./events.ts";
import { sourceOf } from "./refusals.ts";
import type { Grants } from "./tokens/grants.ts";

/** Ids that are no secret. All others are bearer secrets and are stored as their hash, so that a stolen database opens nothing. */
const PUBLIC_IDS = new Set(["AccessToken", "Client", "Grant", "Interaction", "ReplayDetection", "Session"]);

export interface RecordsAdapterOptions {
  readonly records: Records;
  readonly grants: Grants;
  /** A refresh token that was used may be used again for so long. */
  readonly refreshGraceSeconds: number;
  /** Until when a dynamically registered client is kept. */
  readonly clientExpiresAt: () => number;
  readonly report: Report;
  readonly clock: Clock;
}

/** A proof of a client whose clock is ahead is good for so much longer than the library remembers it. */
const AHEAD_SECONDS = 300;

interface RegisteredClient {
  readonly client_name?: string;
  readonly redirect_uris?: readonly string[];
}
type Stored = AdapterPayload & { readonly consumedAtMs?: number };

/** The record kind of an `oidc-provider` model. */
export function kindOf(model: string): string {
  return `oauth:${model}`;
}

export function recordsAdapter(options: RecordsAdapterOptions): AdapterFactory {
  const { records, grants, refreshGraceSeconds, report, clock } = options;

  return (model: string): Adapter => {
    const kind = kindOf(model);
    const keyOf = (id: string) => (PUBLIC_IDS.has(model) ? id : hash("sha256", id, "base64url"));
    const graceful = (value: Stored) =>
      model === "RefreshToken" &&
      value.consumedAtMs !== undefined &&
      clock() - value.consumedAtMs < refreshGraceSeconds * 1000;

    const payload = (id: string, row: Row<Stored> | undefined): AdapterPayload | undefined => {
      if (row === undefined) return undefined;
      const { consumedAtMs, ...value } = row.value;
      const restored: AdapterPayload = model === "Client" ? withoutDefaults(value) : { ...value, jti: id };
      if (consumedAtMs !== undefined && !graceful(row.value)) restored.consumed = Math.floor(consumedAtMs / 1000);
      return restored;
    };
    const findBy = async (name: string, value: string) => {
      const [row] = await records.find<Stored>(kind, name, value, { limit: 1 });
      return row === undefined ? undefined : payload(row.value.jti ?? row.id, row);
    };

    return {
      async upsert(id, given, expiresInSeconds) {
        const { jti: _, ...rest } = given;
        if (model === "Client") {
          const { client_name: name = "", redirect_uris: redirectUris = [] } = given as RegisteredClient;
          const known = (await records.get(kind, id)) !== undefined;
          const type = known ? "client-changed" : "client-registered";
          await report({ type, client: id, name, redirectUris, ...sourceOf(Provider.ctx) });
        }
        const expiresAt =
          model === "Client" || model === "RegistrationAccessToken"
            ? options.clientExpiresAt()
            : expiresInSeconds
              ? clock() + (expiresInSeconds + (model === "ReplayDetection" ? AHEAD_SECONDS : 0)) * 1000
              : undefined;
        const value = model === "Client" ? withoutSecret(given) : PUBLIC_IDS.has(model) ? given : rest;
        const written = await records.put(kind, keyOf(id), value, {
          ...(expiresAt === undefined ? {} : { expiresAt }),
          // A proof or assertion is new, or it is a replay (RFC 9449 §11.1, RFC 7523 §3).
          ...(model === "ReplayDetection" ? { ifVersion: 0 } : {}),
          index: indexOf(model, id, given, grants),
        });
        if (!written) throw new errors.InvalidGrant("proof or assertion replay detected");
      },
      async find(id) {
        return payload(id, await records.get<Stored>(kind, keyOf(id)));
      },
      findByUid: (uid) => findBy("uid", uid),
      findByUserCode: (userCode) => findBy("userCode", userCode),
      async consume(id) {
        // A loser reads again: what it lost to may have been another reader's grace, not a first use.
        for (;;) {
          const row = await records.get<Stored>(kind, keyOf(id));
          if (row === undefined) throw new errors.InvalidGrant(`${model} not found`);
          const { grantId, accountId, clientId } = row.value;
          if (row.value.consumedAtMs !== undefined) {
            if (graceful(row.value)) return;
            // RFC 6749 §4.1.2 and RFC 9700 §4.14.2: one of the two who hold it stole it, and we cannot know which.
            if (grantId !== undefined) await grants.end(grantId, { user: accountId, client: clientId });
            throw new errors.InvalidGrant(`${model} already consumed`);
          }
          const consumed: Stored = { ...row.value, consumedAtMs: clock() };
          const kept = { ...(row.expiresAt === undefined ? {} : { expiresAt: row.expiresAt }), ifVersion: row.version };
          if (await records.put(kind, keyOf(id), consumed, { ...kept, index: indexOf(model, id, row.value, grants) }))
            return;
        }
      },
      async destroy(id) {
        if (model === "Grant") return grants.end(id);
        if (model === "AccessToken" || model === "RefreshToken") {
          // With a token its grant ends (RFC 7009 §2.1): in one write, or a revocation that failed half-way could not be repeated,
          // as the token that it names would be gone.
          const grant = (await records.get<Stored>(kind, keyOf(id)))?.value.grantId;
          if (grant !== undefined) await grants.forgetGrant(grant);
        }
        if (model === "AccessToken") return grants.endToken(id);
        if (model === "Client") return deleteRegistered(records, grants, id);
        await records.delete(kind, keyOf(id));
      },
      revokeByGrantId: (grantId) => grants.forgetGrant(grantId, kind),
    };
  };
}

/** A registered client, as it is kept: its secret was given out, and a stolen database must not give it out again. */
function withoutSecret(client: AdapterPayload & { readonly client_secret?: unknown }): AdapterPayload {
  const { client_secret: secret } = client;
  if (typeof secret !== "string" || isHashedSecret(secret)) return client;
  return { ...client, client_secret: hashedSecret(secret) };
}

/** What was stored is what was the default then. How ID tokens are signed, and whether all tokens must be bound, is said now. */
function withoutDefaults({ id_token_signed_response_alg: _, ...client }: AdapterPayload): AdapterPayload {
  const { dpop_bound_access_tokens: bound, ...rest } = client as AdapterPayload & {
    dpop_bound_access_tokens?: unknown;
  };
  return bound === true ? client : rest;
}

function indexOf(model: string, id: string, value: AdapterPayload, grants: Grants): Record<string, string> {
  const { accountId: user, clientId: client, uid, userCode } = value;
  const grant = model === "Grant" ? id : value.grantId;
  return {
    ...(grant === undefined ? {} : { grant }),
    ...(model === "RegistrationAccessToken" && client !== undefined ? { registration: client } : {}),
    ...(uid === undefined ? {} : { uid }),
    ...(userCode === undefined ? {} : { userCode }),
    // Only what belongs to a grant is found by its people: an interaction or browser session must not end with a consent.
    ...(grant === undefined || client === undefined ? {} : grants.indexFor(user, client)),
  };
}
