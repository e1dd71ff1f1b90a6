/** Client ID metadata documents as `oidc-provider` takes them: fetched and judged by us, handed over already put right. */
import { errors, type KoaContextWithOIDC } from "oidc-provider";
import { DrawbridgeError } from "../../core/errors.ts";
import type { CachedDocuments } from "../../net/cached.ts";
import type { Logger } from "../../observe/logger.ts";
import type { Report } from "../events.ts";
import { takesIdentityAssertions } from "../metadata.ts";
import { sourceOf } from "../refusals.ts";
import type { ClientsSettings, SignInSettings } from "../settings.ts";
import { type ClientMetadata, type ClientPolicy, JWT_BEARER } from "./clients.ts";

export interface ClientDocumentsOptions {
  readonly clients: ClientsSettings;
  readonly signIn: SignInSettings;
  readonly policy: ClientPolicy;
  /** Key sets of clients (`jwks_uri`). */
  readonly keySets: CachedDocuments;
  readonly report: Report;
  readonly log: Logger;
}

/** The feature's settings, and the only `fetch` that `oidc-provider` gets. */
export function clientDocuments({ clients, signIn, policy, keySets, report, log }: ClientDocumentsOptions) {
  /** Documents that `allowFetch` loaded, put right, for the fetch that follows it. */
  const loaded = new Map<string, ClientMetadata>();
  const refusedIn = new WeakMap<object, Error>();

  async function load(clientId: string, source?: string): Promise<ClientMetadata> {
    const document = await policy.loadDocument(clientId, source);
    return takesIdentityAssertions(signIn) ? document : withoutAssertions(document);
  }

  return {
    feature: {
      enabled: clients.metadataDocuments.enabled,
      ack: "draft-02",
      // Our own cache knows ETag, failures and limits; this one only joins the lookups of one request.
      cacheDuration: { min: 1, max: 1 },
      async allowFetch(ctx: KoaContextWithOIDC | undefined, clientId: string) {
        const before = ctx === undefined ? undefined : refusedIn.get(ctx);
        // A refused request looks its client up once more, to see where it may send the refusal.
        if (before !== undefined) throw before;
        try {
          const document = await load(clientId, sourceOf(ctx).source);
          loaded.delete(clientId);
          loaded.set(clientId, document);
          if (loaded.size > 1000) loaded.delete(loaded.keys().next().value ?? "");
          return true;
        } catch (thrown) {
          const { message, detail } = DrawbridgeError.from(thrown);
          log.info({ clientId, message, detail }, "client document refused");
          await report({
            type: "client-refused",
            client: clientId.slice(0, 1024),
            reason: message,
            ...sourceOf(ctx),
          });
          const refusal = new errors.InvalidClient(message);
          if (ctx !== undefined) refusedIn.set(ctx, refusal);
          throw refusal;
        }
      },
      allowClient: () => true,
    },
    async fetch(input: string | URL | Request, init?: RequestInit) {
      const url = String(input);
      // Only a document is asked for without redirects. One that was crowded out is judged again, never handed on as it came.
      const document = init?.redirect === "manual" ? (loaded.get(url) ?? (await load(url))) : undefined;
      const body = document === undefined ? await keySets.get(url) : JSON.stringify(document);
      return new Response(body, { headers: { "content-type": "application/json", "cache-control": "max-age=1" } });
    },
  };
}

/** A grant that nobody here gives is one that the client uses elsewhere. */
function withoutAssertions({ grant_types: grants, ...document }: ClientMetadata): ClientMetadata {
  return { ...document, grant_types: [grants].flat().filter((grant) => grant !== JWT_BEARER) };
}
