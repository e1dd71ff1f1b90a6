/** Events of the authorization server as audit records. */
import type { AuditRecord } from "../audit/record.ts";
import { newId } from "../core/ids.ts";
import type { OAuthEvent } from "../oauth/events.ts";

const KIND = {
  "user-created": "user",
  "signed-in": "sign-in",
  "sign-in-failed": "sign-in",
  "signed-out": "sign-in",
  "sessions-ended": "sign-in",
  "password-changed": "user",
  "user-changed": "user",
  "client-registered": "client",
  "client-changed": "client",
  "client-refused": "client",
  "client-administered": "client",
  "initial-access-changed": "client",
  "keys-changed": "configuration",
  "consent-granted": "consent",
  "consent-denied": "consent",
  "token-issued": "token",
  "token-refreshed": "token",
  "token-exchanged": "token",
  "token-refused": "token",
  "server-connected": "consent",
  "server-connection-refused": "consent",
  "server-disconnected": "consent",
  revoked: "token",
} as const satisfies Record<OAuthEvent["type"], AuditRecord["kind"]>;

const REFUSED = new Set<OAuthEvent["type"]>([
  "sign-in-failed",
  "client-refused",
  "consent-denied",
  "token-refused",
  "server-connection-refused",
]);

/** One record for one event; what is special to the event goes into its details. */
export function oauthRecord(event: OAuthEvent, replica: string, at: number): AuditRecord {
  const { type, user, client, grant, source, ...rest } = event;
  return {
    id: newId(at),
    kind: KIND[type],
    action: type,
    at,
    durationMs: 0,
    outcome: REFUSED.has(type) ? "refused" : "permitted",
    ...((user ?? client) !== undefined && {
      principal: {
        subject: user ?? ("subject" in rest ? rest.subject : ""),
        client: client ?? "",
        actors: "actors" in rest ? rest.actors : [],
        groups: [],
        scopes: "scopes" in rest ? rest.scopes : [],
        ...(grant !== undefined && { grant }),
        tokenId: "token" in rest ? (rest.token ?? "") : "",
      },
    }),
    details: rest,
    ...(source !== undefined && { source }),
    replica,
  };
}
