/**
 * What specifications ask of the gateway, and which of it a test verifies. `verifies(id, title, fn)` is `test` that names the
 * clause it stands for. A house test fails on requirements that nothing verifies, unless they are in `pending`.
 */
import { test } from "vitest";

export interface Requirement {
  readonly clause: string;
  /** In our words: what must hold. */
  readonly sentence: string;
}

const MCP_2026 = "https://modelcontextprotocol.io/specification/2026-07-28/basic";
const MCP_2025 = "https://modelcontextprotocol.io/specification/2025-11-25/basic";
const RFC = "https://www.rfc-editor.org/rfc";

export const requirements = {
  // MCP 2026-07-28, Streamable HTTP
  "http-origin": {
    clause: `${MCP_2026}/transports/streamable-http#security-&-endpoint`,
    sentence: "A request with an Origin that is not allowed is answered 403.",
  },
  "http-single-message": {
    clause: `${MCP_2026}/transports/streamable-http#sending-messages`,
    sentence: "A POST carries one request or notification; batches and responses are refused.",
  },
  "http-notification-202": {
    clause: `${MCP_2026}/transports/streamable-http#sending-messages`,
    sentence: "An accepted notification is answered 202 without a body.",
  },
  "http-request-answer": {
    clause: `${MCP_2026}/transports/streamable-http#sending-messages`,
    sentence: "A request is answered with one JSON object or with an event stream that ends after its response.",
  },
  "http-stream-related": {
    clause: `${MCP_2026}/transports/streamable-http#receiving-messages`,
    sentence: "Notifications on a response stream belong to its request; no requests are sent on it.",
  },
  "http-cancel-by-close": {
    clause: `${MCP_2026}/transports/streamable-http#cancellation`,
    sentence: "A client that closes its response stream has cancelled the request; nothing further is sent for it.",
  },
  "http-version-header": {
    clause: `${MCP_2026}/transports/streamable-http#protocol-version-header`,
    sentence: "An MCP-Protocol-Version header that differs from the one in _meta is refused with 400.",
  },
  "http-version-unsupported": {
    clause: `${MCP_2026}/versioning#protocol-version-negotiation`,
    sentence: "A version that is not spoken is answered 400 with the versions that are.",
  },
  "http-unknown-method": {
    clause: `${MCP_2026}/transports/streamable-http#protocol-version-header`,
    sentence: "A method that is not implemented is answered 404 and -32601.",
  },
  "http-header-mismatch": {
    clause: `${MCP_2026}/transports/streamable-http#server-validation`,
    sentence:
      "A Mcp-Method, Mcp-Name or Mcp-Param header that differs from the body is refused with 400 and the header error code.",
  },
  "http-header-case": {
    clause: `${MCP_2026}/transports/streamable-http#case-sensitivity`,
    sentence: "Header names are compared without regard to case.",
  },
  "http-endpoint": {
    clause: `${MCP_2026}/transports/streamable-http`,
    sentence: "One path serves every client, of either era.",
  },
  "meta-required": {
    clause: `${MCP_2026}#_meta`,
    sentence: "A request without the required _meta fields is refused with 400 and -32602.",
  },
  "meta-capabilities": {
    clause: `${MCP_2026}#_meta`,
    sentence: "What a client did not declare is not used towards it.",
  },
  "meta-trace": {
    clause: `${MCP_2026}#_meta`,
    sentence:
      "traceparent and tracestate in _meta follow W3C Trace Context, are taken over when valid, and are passed on.",
  },
  "result-type": { clause: `${MCP_2026}#responses`, sentence: "Every result to a 2026-07-28 client has a resultType." },
  "request-id": {
    clause: `${MCP_2026}#requests`,
    sentence: "A request id is a string or an integer, never null; the answer has the same id.",
  },
  "error-codes-reserved": {
    clause: `${MCP_2026}#error-codes`,
    sentence: "No code of the reserved range is used in another than its specified meaning.",
  },
  "schema-no-remote-ref": {
    clause: `${MCP_2026}#$ref-resolution`,
    sentence: "A $ref to another document is never fetched.",
  },
  "server-discover": {
    clause: `${MCP_2026}/versioning#protocol-version-negotiation`,
    sentence: "server/discover answers versions, capabilities and identity without a session.",
  },
  stateless: {
    clause: `${MCP_2026}#statelessness`,
    sentence: "A 2026-07-28 request is served without regard to earlier requests of its connection.",
  },
  "stdio-stdout": {
    clause: `${MCP_2026}/transports/stdio`,
    sentence:
      "Only MCP messages, one per line, are written to a child's stdin; what is not one on its stdout harms no call.",
  },
  "stdio-shutdown": {
    clause: `${MCP_2026}/transports/stdio#shutdown`,
    sentence: "A child is stopped by closing its stdin, then by SIGTERM, then by SIGKILL.",
  },
  // MCP 2025-11-25, transports
  "legacy-session-id": {
    clause: `${MCP_2025}/transports#session-management`,
    sentence: "initialize is answered with an MCP-Session-Id of visible ASCII that cannot be guessed.",
  },
  "legacy-session-required": {
    clause: `${MCP_2025}/transports#session-management`,
    sentence: "A request without a session id is answered 400, one with an ended session 404.",
  },
  "legacy-session-delete": { clause: `${MCP_2025}/transports#session-management`, sentence: "DELETE ends a session." },
  "legacy-get-stream": {
    clause: `${MCP_2025}/transports#listening-for-messages-from-the-server`,
    sentence: "GET opens an event stream or is answered 405.",
  },
  "legacy-one-stream": {
    clause: `${MCP_2025}/transports#multiple-connections`,
    sentence: "A message is sent on one stream only.",
  },
  "legacy-version-header": {
    clause: `${MCP_2025}/transports#protocol-version-header`,
    sentence: "An invalid or unsupported MCP-Protocol-Version header is answered 400.",
  },
  "legacy-negotiation": {
    clause: `${MCP_2025}/lifecycle#version-negotiation`,
    sentence: "initialize is answered with the client's version when it is spoken, else with the newest legacy one.",
  },
  // MCP authorization
  "auth-401": {
    clause: `${MCP_2026}/authorization#token-handling`,
    sentence: "A missing, invalid or expired token is answered 401.",
  },
  "auth-audience": {
    clause: `${MCP_2026}/authorization/security-considerations#token-audience-binding-and-validation`,
    sentence: "A token for another audience is refused.",
  },
  "auth-no-passthrough": {
    clause: `${MCP_2026}/authorization/security-considerations#access-token-privilege-restriction`,
    sentence: "The client's token is never sent upstream.",
  },
  "auth-no-query-token": {
    clause: `${MCP_2026}/authorization#token-requirements`,
    sentence: "A token in the query string is not accepted.",
  },
  "auth-redirect-exact": {
    clause: `${MCP_2026}/authorization/security-considerations#open-redirection`,
    sentence: "Redirect URIs are compared exactly; a foreign one is never redirected to.",
  },
  "auth-redirect-shown": {
    clause: `${MCP_2026}/authorization/security-considerations#localhost-redirect-uri-risks`,
    sentence: "The consent page shows the host that the user is sent back to.",
  },
  "auth-redirect-https": {
    clause: `${MCP_2026}/authorization/security-considerations#communication-security`,
    sentence: "Redirect URIs are https or loopback.",
  },
  "cimd-client-id": {
    clause: `${MCP_2026}/authorization/client-registration#implementation-requirements`,
    sentence: "A client metadata document whose client_id is not its own URL is refused.",
  },
  "cimd-redirect": {
    clause: `${MCP_2026}/authorization/client-registration#implementation-requirements`,
    sentence: "Only redirect URIs of the document are accepted.",
  },
  "cimd-ssrf": {
    clause: `${MCP_2026}/authorization/security-considerations#authorization-server-abuse-protection`,
    sentence: "Documents are not fetched from private addresses, without bounds or through redirects.",
  },
  // RFCs
  "rfc9728-challenge": {
    clause: `${RFC}/rfc9728#section-5.1`,
    sentence: "The 401 names the protected resource metadata in WWW-Authenticate.",
  },
  "rfc9728-document": {
    clause: `${RFC}/rfc9728#section-3.2`,
    sentence: "The protected resource metadata has the resource identifier and the authorization servers.",
  },
  "rfc9728-path": {
    clause: `${RFC}/rfc9728#section-3.1`,
    sentence: "The document of a resource with a path is at the well-known path with that path appended.",
  },
  "rfc8414-document": {
    clause: `${RFC}/rfc8414#section-3.3`,
    sentence: "The issuer in the authorization server metadata is the URL it was asked for.",
  },
  "rfc8414-s256": {
    clause: `${MCP_2026}/authorization/security-considerations#authorization-code-protection`,
    sentence: "The metadata advertises code_challenge_methods_supported with S256.",
  },
  "rfc7636-required": {
    clause: `${RFC}/rfc7636#section-4.4.1`,
    sentence: "An authorization request without an S256 code_challenge is refused.",
  },
  "rfc7636-verifier": {
    clause: `${RFC}/rfc7636#section-4.6`,
    sentence: "A code with a wrong code_verifier gives no token.",
  },
  "rfc8707-resource": {
    clause: `${RFC}/rfc8707#section-2`,
    sentence: "A request for a resource that is not served here is refused with invalid_target.",
  },
  "rfc9068-token": {
    clause: `${RFC}/rfc9068#section-2`,
    sentence: "Access tokens are at+jwt with iss, exp, aud, sub, client_id, iat and jti.",
  },
  "rfc9068-typ": {
    clause: `${RFC}/rfc9068#section-4`,
    sentence: "A JWT of another type is not accepted as an access token.",
  },
  "rfc9207-iss": {
    clause: `${RFC}/rfc9207#section-2`,
    sentence: "Every authorization response, errors too, has iss, and the metadata says so.",
  },
  "rfc7591-register": {
    clause: `${RFC}/rfc7591#section-3`,
    sentence: "When registration is open a client gets an id for the metadata it sent; when off there is no endpoint.",
  },
  "rfc6749-code-once": {
    clause: `${RFC}/rfc6749#section-4.1.2`,
    sentence: "A code works once; a second use ends what the first gave.",
  },
  "rfc9700-rotation": {
    clause: `${RFC}/rfc9700#section-4.14.2`,
    sentence: "A public client's refresh token is replaced at each use; use of a replaced one ends the grant.",
  },
  "rfc6750-scope": {
    clause: `${RFC}/rfc6750#section-3.1`,
    sentence: "A token without the needed scope is answered 403 insufficient_scope with the scope that is needed.",
  },
} as const satisfies Record<string, Requirement>;

export type RequirementId = keyof typeof requirements;

/**
 * Requirements that no test verifies yet. The list only shrinks: an id that a test verifies must be taken out, and a new
 * requirement comes with its test.
 */
export const pending: readonly RequirementId[] = [
  "http-origin",
  "http-single-message",
  "http-notification-202",
  "http-request-answer",
  "http-stream-related",
  "http-cancel-by-close",
  "http-version-header",
  "http-version-unsupported",
  "http-unknown-method",
  "http-header-mismatch",
  "http-header-case",
  "http-endpoint",
  "meta-required",
  "meta-capabilities",
  "meta-trace",
  "result-type",
  "request-id",
  "schema-no-remote-ref",
  "server-discover",
  "stateless",
  "stdio-stdout",
  "stdio-shutdown",
  "legacy-session-id",
  "legacy-session-required",
  "legacy-session-delete",
  "legacy-get-stream",
  "legacy-one-stream",
  "legacy-version-header",
  "legacy-negotiation",
  "auth-401",
  "auth-audience",
  "auth-no-passthrough",
  "auth-no-query-token",
  "auth-redirect-exact",
  "auth-redirect-shown",
  "auth-redirect-https",
  "cimd-client-id",
  "cimd-redirect",
  "cimd-ssrf",
  "rfc9728-challenge",
  "rfc9728-document",
  "rfc9728-path",
  "rfc8414-document",
  "rfc8414-s256",
  "rfc7636-required",
  "rfc7636-verifier",
  "rfc8707-resource",
  "rfc9068-token",
  "rfc9068-typ",
  "rfc9207-iss",
  "rfc7591-register",
  "rfc6749-code-once",
  "rfc9700-rotation",
  "rfc6750-scope",
];

/** `test`, for the named clauses. Throws on an id that is not in `requirements`, for callers that are not type-checked. */
export function verifies(
  ids: RequirementId | readonly RequirementId[],
  title: string,
  fn: () => unknown,
  timeout?: number,
): void {
  const all = typeof ids === "string" ? [ids] : ids;
  for (const id of all)
    if (!Object.hasOwn(requirements, id)) throw new Error(`There is no requirement ${id} in test/requirements.ts.`);
  test(`${title} [${all.join(", ")}]`, fn, timeout);
}
