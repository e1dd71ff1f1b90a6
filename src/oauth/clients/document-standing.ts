/** How a client with a metadata document stands with the settings now, for whoever operates the gateway. */
import { DrawbridgeError } from "../../core/errors.ts";
import type { Outbound } from "../../net/outbound.ts";
import type { ClientsSettings } from "../settings.ts";
import { type ClientMetadata, clientPolicy, DOCUMENT_LIMITS, documentHash } from "./clients.ts";

export interface DocumentStanding {
  readonly trust: "allowed" | "asked" | "denied";
  /** SHA-256 of the document's bytes, as `clients.metadataDocuments.pins` wants it; undefined when it cannot be had. */
  readonly sha256: string | undefined;
  /** What the settings pin. */
  readonly pin: string | undefined;
  /** What would be made of it, put right; undefined when it would be refused. */
  readonly metadata: ClientMetadata | undefined;
  /** Why it would be refused. */
  readonly problem: string | undefined;
}

/** Fetches the document as the gateway would, once. Nothing is sent to a place that is denied. `net`: from `documentNet`. */
export async function documentStanding(
  clientId: string,
  settings: ClientsSettings,
  net: Pick<Outbound, "getJson">,
): Promise<DocumentStanding> {
  const pin = settings.metadataDocuments.pins[clientId];
  let sha256: string | undefined;
  const policy = clientPolicy(settings, {
    async get(url) {
      const { body } = await net.getJson(url, DOCUMENT_LIMITS);
      sha256 = documentHash(body);
      return body;
    },
  });
  const unwelcome = policy.documentProblem(clientId);
  if (unwelcome !== undefined) return { trust: "denied", sha256, pin, metadata: undefined, problem: unwelcome };
  const trust = policy.trustOf(clientId) === "allowed" ? "allowed" : "asked";
  try {
    const metadata = await policy.loadDocument(clientId);
    return { trust, sha256, pin, metadata, problem: undefined };
  } catch (thrown) {
    return { trust, sha256, pin, metadata: undefined, problem: DrawbridgeError.from(thrown).message };
  }
}
