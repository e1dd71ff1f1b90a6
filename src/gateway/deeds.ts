/** What operators do to a running gateway, each with its audit record: who did what, and how it ended. */

import type { Journal } from "../audit/journal.ts";
import { recordedError, recordedPrincipal } from "../audit/record.ts";
import type { Authenticated, JsonObject } from "../core/call.ts";
import type { Clock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newId } from "../core/ids.ts";

export type Deed =
  | "settings-reloaded"
  | "secrets-changed"
  | "server-restarted"
  | "server-drained"
  | "server-resumed"
  | "policy-trial-begun"
  | "policy-trial-ended";

/** Who did it: somebody with a token, whoever has the account that the gateway runs under, or the gateway by itself. */
export type Actor =
  | { readonly kind: "owner"; readonly by: Authenticated; readonly source: string | undefined }
  | { readonly kind: "operator"; readonly name: string; readonly via: "control socket" | "signal" }
  | { readonly kind: "gateway"; readonly name: "secrets" | "file" | "another replica" };

export interface Deeds {
  /**
   * Does `work` and records it, whether it succeeds or fails. Nothing is begun while nothing can be recorded. `details`: names, never
   * values.
   */
  done<T>(
    deed: Deed,
    by: Actor,
    details: JsonObject,
    work: () => Promise<{ readonly result: T; readonly details?: JsonObject }>,
  ): Promise<T>;
}

export function openDeeds(journal: Pick<Journal, "append" | "check">, replica: string, clock: Clock): Deeds {
  return {
    async done(deed, by, details, work) {
      journal.check();
      const at = clock();
      const record = (ended: { readonly details?: JsonObject; readonly failure?: unknown }) => {
        const error = ended.failure === undefined ? undefined : DrawbridgeError.from(ended.failure);
        return journal.append({
          id: newId(at),
          kind: "configuration",
          action: deed,
          at,
          durationMs: clock() - at,
          outcome: error === undefined ? "permitted" : error.code === "settings_invalid" ? "refused" : "failed",
          ...(error !== undefined && { error: recordedError(error) }),
          ...(by.kind === "owner" && { principal: recordedPrincipal(by.by) }),
          ...(by.kind === "owner" && by.source !== undefined && { source: by.source }),
          details: { ...details, ...ended.details, ...actorDetails(by) },
          replica,
        });
      };
      let ended: Awaited<ReturnType<typeof work>>;
      try {
        ended = await work();
      } catch (failure) {
        await record({ failure });
        throw failure;
      }
      await record(ended.details === undefined ? {} : { details: ended.details });
      return ended.result;
    },
  };
}

function actorDetails(by: Actor): JsonObject {
  if (by.kind === "operator") return { operator: by.name, via: by.via };
  return by.kind === "gateway" ? { via: by.name } : { via: "admin" };
}
