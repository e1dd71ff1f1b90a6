/** Dynamic client registration (RFC 7591) when it is switched on: what is kept in bounds, for how long, from whom. */
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Records } from "../store/ports.ts";
import type { ClientMetadata, ClientPolicy } from "./clients.ts";
import type { ClientsSettings } from "./settings.ts";
import { throttle } from "./throttle.ts";

export interface Registration {
  readonly open: boolean;
  /** Until when a client that is used now is kept. */
  expiresAt(): number;
  /** Throws `rate_limited` for a source that registers too much, `overloaded` when no more clients are kept. */
  admit(source: string): Promise<void>;
  /** What will be registered. Throws `invalid_request` with an RFC 7591 §3.2.2 error in `data`. */
  checked(body: Buffer, policy: ClientPolicy): ClientMetadata;
  /** Keeps a client for longer because it is used. */
  used(clientId: string): Promise<void>;
}

const CLIENT = "oauth:Client";

export function registration(settings: ClientsSettings, records: Records, clock: Clock = systemClock): Registration {
  const perSource = throttle({ burst: 20, secondsPerTry: 30 }, clock);
  const lifeMs = settings.registeredUnusedDays * 86_400_000;

  async function full(): Promise<boolean> {
    let count = 0;
    for (let after: string | undefined; ; ) {
      const rows = await records.list(CLIENT, { limit: 1000, ...(after === undefined ? {} : { after }) });
      count += rows.length;
      if (count >= settings.maxRegistered) return true;
      after = rows.at(-1)?.id;
      if (rows.length < 1000) return false;
    }
  }

  return {
    open: settings.registration === "open",
    expiresAt: () => clock() + lifeMs,
    async admit(source) {
      const wait = perSource.take(source);
      if (wait > 0) {
        throw new DrawbridgeError("rate_limited", `Too many registrations from this address. Try again in ${wait} s.`, {
          retryAfterSeconds: wait,
        });
      }
      if (await full()) {
        throw new DrawbridgeError(
          "overloaded",
          "No more clients can be registered here. Use a client ID metadata document.",
          {
            retryAfterSeconds: 3600,
          },
        );
      }
    },
    checked(body, policy) {
      const given = parsed(body);
      const problem = policy.redirectProblem(given["redirect_uris"]);
      if (problem !== undefined) throw refused("invalid_redirect_uri", problem);
      if ("jwks" in given && "jwks_uri" in given)
        throw refused("invalid_client_metadata", "Give jwks or jwks_uri, not both.");
      const responses = given["response_types"];
      if (Array.isArray(responses) && !responses.includes("code")) {
        throw refused("invalid_client_metadata", "The only response_type here is code.");
      }
      const { client_id: _, ...metadata } = policy.normalise(given);
      return metadata;
    },
    async used(clientId) {
      const row = await records.get(CLIENT, clientId);
      // One write a day at most (or a tenth of a short life), not one a token.
      if (row?.expiresAt === undefined || row.expiresAt > clock() + lifeMs - Math.min(86_400_000, lifeMs / 10)) return;
      // Who loses to another writer loses to one that keeps it for as long.
      await records.put(CLIENT, clientId, row.value, { ifVersion: row.version, expiresAt: clock() + lifeMs });
    },
  };
}

function parsed(body: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body.toString("utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Answered below, like a body that is JSON but no object.
  }
  throw refused("invalid_client_metadata", "The body must be a JSON object.");
}

function refused(error: "invalid_redirect_uri" | "invalid_client_metadata", message: string): DrawbridgeError {
  return new DrawbridgeError("invalid_request", message, { data: { error } });
}
