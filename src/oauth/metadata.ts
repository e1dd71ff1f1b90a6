/** What the MCP endpoint says of itself before a client has a token, and the scopes there are. */
import type { Place } from "./http.ts";

/** What each scope allows, in the words of the consent page. The order is the order shown. */
export const SCOPES = {
  "mcp:read": {
    title: "See what is there",
    description: "List tools, prompts and resources, and read resources and prompts that you may read.",
  },
  "mcp:call": {
    title: "Use tools for you",
    description: "Call the tools that you may call. Some of them can change or delete things.",
  },
} as const;
export type Scope = keyof typeof SCOPES;
export const ALL_SCOPES = Object.keys(SCOPES) as readonly Scope[];

/** RFC 9728 §2: the document that the gateway serves at `/.well-known/oauth-protected-resource…`. */
export interface ProtectedResourceMetadata {
  readonly resource: string;
  readonly authorization_servers: readonly string[];
  readonly scopes_supported: readonly string[];
  readonly bearer_methods_supported: readonly ["header"];
  readonly resource_name: string;
}

export function protectedResourceMetadata(
  place: Pick<Place, "issuer" | "resource">,
  resourceName = "Drawbridge",
): ProtectedResourceMetadata {
  return {
    resource: place.resource,
    authorization_servers: [place.issuer],
    scopes_supported: ALL_SCOPES,
    bearer_methods_supported: ["header"],
    resource_name: resourceName,
  };
}

/**
 * The one spelling of our resource for any way to write it (host in capitals, default port, slash at the end), or the text
 * as it came, to be refused as an unknown resource (RFC 8707 §2 `invalid_target`).
 */
export function canonicalResource(text: string, resource: string): string {
  const url = URL.parse(text);
  if (url === null || url.hash !== "" || text.includes("#") || url.username !== "" || url.password !== "") return text;
  return url.href.replace(/\/$/, "") === new URL(resource).href ? resource : text;
}
