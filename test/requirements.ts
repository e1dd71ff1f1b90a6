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
const MCP_CLIENT_2026 = "https://modelcontextprotocol.io/specification/2026-07-28/client";
const MCP_SERVER_2026 = "https://modelcontextprotocol.io/specification/2026-07-28/server";
const TASKS_2026 = "https://github.com/modelcontextprotocol/ext-tasks/blob/main/specification/draft/tasks.md";
const RFC = "https://www.rfc-editor.org/rfc";
const OAUTH_2_1 = "https://datatracker.ietf.org/doc/html/draft-ietf-oauth-v2-1-13";
const CIMD = "https://datatracker.ietf.org/doc/html/draft-ietf-oauth-client-id-metadata-document-00";

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
  "http-param-header": {
    clause: `${MCP_2026}/transports/streamable-http#server-behavior-for-custom-headers`,
    sentence: "An annotated argument whose Mcp-Param header is missing, malformed or different is refused with 400.",
  },
  "http-header-encoding": {
    clause: `${MCP_2026}/transports/streamable-http#value-encoding`,
    sentence: "Header values in the Base64 form are decoded before they are compared; malformed ones match nothing.",
  },
  "http-header-case": {
    clause: `${MCP_2026}/transports/streamable-http#case-sensitivity`,
    sentence: "Header names are compared without regard to case.",
  },
  "http-endpoint": {
    clause: `${MCP_2026}/transports/streamable-http`,
    sentence: "One path serves every client, of either era.",
  },
  "http-authenticated": {
    clause: `${MCP_2026}/transports/streamable-http#security-&-endpoint`,
    sentence: "Every connection is authenticated, and without settings only loopback is listened on.",
  },
  "http-unbuffered": {
    clause: `${MCP_2026}/transports/streamable-http#receiving-messages`,
    sentence: "An event stream tells proxies not to hold it back.",
  },
  "http-no-sessions": {
    clause: `${MCP_2026}/transports/streamable-http#earlier-streamable-http-revisions`,
    sentence: "On a 2026-07-28 request session and resumption headers are ignored, and no session is given.",
  },
  "http-get-405": {
    clause: `${MCP_2026}/transports/streamable-http#earlier-streamable-http-revisions`,
    sentence: "GET and DELETE outside a session of an older revision are answered 405.",
  },
  "versioning-eras": {
    clause: `${MCP_2026}/versioning#backward-compatibility-with-initialization-based-versions`,
    sentence: "_meta of a request selects the modern revision, initialize an older one, side by side.",
  },
  "meta-required": {
    clause: `${MCP_2026}#_meta`,
    sentence: "A request without the required _meta fields is refused with 400 and -32602.",
  },
  "meta-capabilities": {
    clause: `${MCP_2026}#_meta`,
    sentence: "What a client did not declare is not used towards it.",
  },
  "missing-capability": {
    clause: `${MCP_2026}#_meta`,
    sentence:
      "A request that needs a capability which it did not declare is answered 400 and -32021 with what is missing.",
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
  "error-id": {
    clause: `${MCP_2026}#error-responses`,
    sentence: "An error has the id of its request, and no id when that could not be read.",
  },
  "error-codes-relayed": {
    clause: `${MCP_2026}#error-codes`,
    sentence: "Codes that a server must not use, or that speak about another hop, do not reach a client.",
  },
  "error-codes-reserved": {
    clause: `${MCP_2026}#error-codes`,
    sentence: "No code of the reserved range is used in another than its specified meaning.",
  },
  "schema-no-remote-ref": {
    clause: `${MCP_2026}#$ref-resolution`,
    sentence: "A $ref to another document is never fetched.",
  },
  "schema-dialects": {
    clause: `${MCP_2026}#schema-dialect`,
    sentence: "Schemas are read as 2020-12, or as the dialect they name when it is known.",
  },
  "schema-bounds": {
    clause: `${MCP_2026}#composition-keyword-resource-use`,
    sentence: "A schema cannot make its validation expensive.",
  },
  "server-discover": {
    clause: `${MCP_SERVER_2026}/discover`,
    sentence: "server/discover answers versions, capabilities and identity without a session.",
  },
  stateless: {
    clause: `${MCP_2026}#statelessness`,
    sentence: "A 2026-07-28 request is served without regard to earlier requests of its connection.",
  },
  "subscription-acknowledged": {
    clause: `${MCP_2026}/patterns/subscriptions#acknowledgment`,
    sentence: "The first message of a subscription acknowledges it, with its id and what is honoured.",
  },
  "subscription-filter": {
    clause: `${MCP_2026}/patterns/subscriptions#opening-a-stream`,
    sentence: "A subscription carries only what was asked for, each message with the id of its subscription.",
  },
  "subscription-closed": {
    clause: `${MCP_2026}/patterns/subscriptions#graceful-closure`,
    sentence: "A subscription that the server ends is ended with its response.",
  },
  // MCP 2026-07-28, Multi Round-Trip Requests
  "mrtr-only-way": {
    clause: `${MCP_2026}/patterns/mrtr#multi-round-trip-requests`,
    sentence: "A client of 2026-07-28 is asked by the answer to its request; no request is sent to it.",
  },
  "mrtr-requests": {
    clause: `${MCP_2026}/patterns/mrtr#supported-requests`,
    sentence: "Only prompts/get, resources/read and tools/call are answered with questions.",
  },
  "mrtr-keys": {
    clause: `${MCP_2026}/patterns/mrtr#server-requirements-basic-workflow`,
    sentence: "Each question of a request has a key of its own.",
  },
  "mrtr-questions": {
    clause: `${MCP_2026}/patterns/mrtr#server-requirements-basic-workflow`,
    sentence: "What is asked is an elicitation, a sampling request or a list of roots, and nothing else.",
  },
  "mrtr-state-verified": {
    clause: `${MCP_2026}/patterns/mrtr#server-requirements-basic-workflow`,
    sentence: "A requestState is an attacker's until it is verified; one that was changed is refused.",
  },
  "mrtr-state-bound": {
    clause: `${MCP_2026}/patterns/mrtr#server-requirements-basic-workflow`,
    sentence: "A requestState is refused from another principal, on another request, and after its time.",
  },
  "mrtr-state-once": {
    clause: `${MCP_2026}/patterns/mrtr#server-requirements-basic-workflow`,
    sentence: "Where a requestState may count once, a second use is refused.",
  },
  "mrtr-not-empty": {
    clause: `${MCP_2026}/patterns/mrtr#server-requirements-basic-workflow`,
    sentence: "An answer that asks has questions, a requestState, or both.",
  },
  "mrtr-declared": {
    clause: `${MCP_2026}/patterns/mrtr#server-requirements-basic-workflow`,
    sentence: "A client is not asked what it did not declare.",
  },
  "mrtr-abandoned": {
    clause: `${MCP_2026}/patterns/mrtr#server-requirements-basic-workflow`,
    sentence: "Nothing depends on a client that answers or comes back.",
  },
  "mrtr-malformed": {
    clause: `${MCP_2026}/patterns/mrtr#error-handling`,
    sentence: "Malformed answers are refused with an error.",
  },
  "mrtr-extra": {
    clause: `${MCP_2026}/patterns/mrtr#error-handling`,
    sentence: "Answers to what was not asked are ignored.",
  },
  "mrtr-missing": {
    clause: `${MCP_2026}/patterns/mrtr#error-handling`,
    sentence: "What was not answered is asked again.",
  },
  "mrtr-client-answers": {
    clause: `${MCP_2026}/patterns/mrtr#client-requirements-basic-workflow`,
    sentence: "A server is called again when its questions are answered, or at once when it has none.",
  },
  "mrtr-client-state": {
    clause: `${MCP_2026}/patterns/mrtr#client-requirements-basic-workflow`,
    sentence: "A server gets back exactly its requestState, and none when it gave none.",
  },
  "mrtr-client-id": {
    clause: `${MCP_2026}/patterns/mrtr#client-requirements-basic-workflow`,
    sentence: "A retry has another id than the request before.",
  },
  "mrtr-client-scope": {
    clause: `${MCP_2026}/patterns/mrtr#client-requirements-basic-workflow`,
    sentence: "Answers and requestState are sent with the retry of their request and with no other.",
  },
  "elicitation-modes": {
    clause: `${MCP_CLIENT_2026}/elicitation#capabilities`,
    sentence: "A client is asked for a visit to a page or for a form only when it declared that one.",
  },
  "elicitation-declined": {
    clause: `${MCP_CLIENT_2026}/elicitation#error-handling`,
    sentence: "A user who declines or dismisses a question, and a client that fails at it, end it in an orderly way.",
  },
  "elicitation-bound": {
    clause: `${MCP_CLIENT_2026}/elicitation#security-considerations`,
    sentence: "A question is bound to the user and the client that it is for.",
  },
  "sampling-tools": {
    clause: `${MCP_CLIENT_2026}/sampling#capabilities`,
    sentence: "Sampling with tools is asked of nobody who did not declare it.",
  },
  // MCP 2026-07-28, utilities and servers' features
  "request-timeout": {
    clause: `${MCP_2026}/patterns/cancellation#timeouts`,
    sentence: "A request to a server that does not answer is given up and cancelled after its time.",
  },
  "progress-token": {
    clause: `${MCP_2026}/patterns/progress#progress-flow`,
    sentence: "Progress has the client's own token, and there is none for a request without a token.",
  },
  "log-level": {
    clause: `${MCP_SERVER_2026}/utilities/logging#per-request-log-level`,
    sentence: "Log messages reach only the request that asked for them, from its level on.",
  },
  "caching-hints": {
    clause: `${MCP_SERVER_2026}/utilities/caching#cacheable-results`,
    sentence: "Lists, resources and server/discover say how long and for whom they may be kept.",
  },
  "list-order": {
    clause: `${MCP_SERVER_2026}/tools#capabilities`,
    sentence: "Tools are listed in the same order each time.",
  },
  "tool-names": {
    clause: `${MCP_SERVER_2026}/tools#tool-names`,
    sentence: "Names of tools are unique, however many servers there are.",
  },
  "tool-unknown": {
    clause: `${MCP_SERVER_2026}/tools#error-handling`,
    sentence: "A call of an unknown tool is answered -32602.",
  },
  "tool-input": {
    clause: `${MCP_SERVER_2026}/tools#error-handling`,
    sentence: "Arguments against the schema are refused as a tool execution error, so that a model can correct itself.",
  },
  "resource-unknown": {
    clause: `${MCP_SERVER_2026}/resources#error-handling`,
    sentence: "A resource that does not exist is answered -32602, and -32002 to older clients.",
  },
  "cursor-unknown": {
    clause: `${MCP_SERVER_2026}/utilities/pagination#error-handling`,
    sentence: "A cursor that is not one of ours is answered -32602.",
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
  // What the gateway does as a client of servers
  "upstream-eras": {
    clause: `${MCP_2026}/versioning#backward-compatibility-with-initialization-based-versions`,
    sentence: "Servers of either generation are recognised and served to clients of either.",
  },
  "upstream-headers": {
    clause: `${MCP_2026}/transports/streamable-http#client-behavior`,
    sentence: "Calls to a 2026-07-28 server repeat method, name and annotated arguments in headers.",
  },
  "upstream-annotations": {
    clause: `${MCP_SERVER_2026}/tools#x-mcp-header`,
    sentence: "A tool whose x-mcp-header annotations break the rules is not taken.",
  },
  "upstream-session": {
    clause: `${MCP_2025}/transports#session-management`,
    sentence:
      "The session that a server gave comes with every request, is opened anew after a 404, and is ended with DELETE.",
  },
  // MCP 2025-11-25, transports
  "legacy-session-id": {
    clause: `${MCP_2025}/transports#session-management`,
    sentence: "initialize is answered with an MCP-Session-Id of visible ASCII that cannot be guessed.",
  },
  "legacy-session-required": {
    clause: `${MCP_2025}/transports#session-management`,
    sentence:
      "A request with an unknown or ended session is answered 404, one that needs a session and names none 400.",
  },
  "legacy-session-delete": { clause: `${MCP_2025}/transports#session-management`, sentence: "DELETE ends a session." },
  "legacy-session-owner": {
    clause: `${MCP_2025}/transports#session-management`,
    sentence: "The session of somebody else looks like one that does not exist.",
  },
  "legacy-accepted": {
    clause: `${MCP_2025}/transports#sending-messages-to-the-server`,
    sentence: "An accepted notification or response is answered 202 without a body.",
  },
  "legacy-default-version": {
    clause: `${MCP_2025}/transports#protocol-version-header`,
    sentence: "Without a version header and a session a request counts as 2025-03-26.",
  },
  "legacy-cancellation": {
    clause: `${MCP_2025}/utilities/cancellation#behavior-requirements`,
    sentence: "notifications/cancelled ends the call it names; one that names nothing known is ignored.",
  },
  "legacy-ping": {
    clause: `${MCP_2025}/utilities/ping#behavior-requirements`,
    sentence: "ping is answered at once with an empty result.",
  },
  "legacy-get-stream": {
    clause: `${MCP_2025}/transports#listening-for-messages-from-the-server`,
    sentence: "GET opens an event stream or is answered 405.",
  },
  "legacy-one-stream": {
    clause: `${MCP_2025}/transports#multiple-connections`,
    sentence: "A message is sent on one stream only.",
  },
  "legacy-session-replicas": {
    clause: `${MCP_2025}/transports#session-management`,
    sentence: "A session that was begun is served until it is ended, whichever process its requests reach.",
  },
  "legacy-event-ids": {
    clause: `${MCP_2025}/transports#resumability-and-redelivery`,
    sentence: "Each event of a resumable stream has an id that is unique in its session.",
  },
  "legacy-priming": {
    clause: `${MCP_2025}/transports#sending-messages-to-the-server`,
    sentence: "A stream begins with an empty event that has an id, and says after how long to come back.",
  },
  "legacy-resume": {
    clause: `${MCP_2025}/transports#resumability-and-redelivery`,
    sentence: "A client that comes back with Last-Event-ID gets what it missed on that stream, and then the rest.",
  },
  "legacy-replay-own": {
    clause: `${MCP_2025}/transports#resumability-and-redelivery`,
    sentence: "What was sent on another stream, or in another session, is never replayed.",
  },
  "legacy-disconnect": {
    clause: `${MCP_2025}/transports#sending-messages-to-the-server`,
    sentence: "A lost connection is not taken for a cancellation.",
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
  "auth-https": {
    clause: `${MCP_2026}/authorization/security-considerations#communication-security`,
    sentence: "The authorization server is served over https, except on loopback.",
  },
  "auth-consent": {
    clause: `${MCP_2026}/authorization/security-considerations#confused-deputy-problem`,
    sentence: "Each client needs the user's consent; one that could be posed as needs it each time.",
  },
  "auth-resource-spelling": {
    clause: `${MCP_2026}/authorization#canonical-server-uri`,
    sentence: "Capitals in scheme and host, a default port and a slash at the end name the same resource.",
  },
  "auth-no-offline-scope": {
    clause: `${MCP_2026}/authorization#refresh-tokens`,
    sentence: "Neither the challenge nor the resource metadata asks for offline_access.",
  },
  "cimd-client-id": {
    clause: `${MCP_2026}/authorization/client-registration#implementation-requirements`,
    sentence: "A client metadata document whose client_id is not its own URL is refused.",
  },
  "cimd-url": {
    clause: `${CIMD}#section-3`,
    sentence: "A client id URL is https with a path and without fragment, user name and dot segments, spelled plainly.",
  },
  "cimd-document": {
    clause: `${MCP_2026}/authorization/client-registration#implementation-requirements`,
    sentence: "A document that is not JSON or lacks required fields is refused.",
  },
  "cimd-no-secret": {
    clause: `${CIMD}#section-4.1`,
    sentence: "A document with a shared secret, or a method that needs one, is refused.",
  },
  "cimd-cache": {
    clause: `${MCP_2026}/authorization/client-registration#implementation-requirements`,
    sentence: "Documents are cached as their HTTP headers say, within bounds.",
  },
  "cimd-trust": {
    clause: `${MCP_2026}/authorization/security-considerations#trust-policies`,
    sentence: "Operators allow and deny domains of client documents, and users see which is which.",
  },
  "cimd-advertised": {
    clause: `${CIMD}#section-5`,
    sentence: "The metadata says that client ID metadata documents are supported.",
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
  "rfc9728-hosts": {
    clause: `${RFC}/rfc9728#section-3.3`,
    sentence: "The resource in the document is the URL that clients call, whatever Host or Forwarded headers say.",
  },
  "rfc8414-well-known": {
    clause: `${RFC}/rfc8414#section-3.1`,
    sentence: "The metadata of an issuer with a path is where its path is inserted, as JSON.",
  },
  "rfc8414-endpoints": {
    clause: `${RFC}/rfc8414#section-2`,
    sentence: "The metadata names the endpoints, response types and grant types that work.",
  },
  "rfc8414-document": {
    clause: `${RFC}/rfc8414#section-3.3`,
    sentence: "The issuer in the authorization server metadata is the URL it was asked for.",
  },
  "rfc8414-issuer": {
    clause: `${RFC}/rfc8414#section-3.3`,
    sentence: "Metadata of another issuer than the one that was asked for are not used.",
  },
  "rfc8414-s256": {
    clause: `${MCP_2026}/authorization/security-considerations#authorization-code-protection`,
    sentence: "The metadata advertises code_challenge_methods_supported with S256.",
  },
  "rfc7636-required": {
    clause: `${RFC}/rfc7636#section-4.4.1`,
    sentence: "An authorization request without an S256 code_challenge is refused.",
  },
  "rfc7636-s256-only": {
    clause: `${RFC}/rfc7636#section-4.3`,
    sentence: "The method plain, and no method, are refused.",
  },
  "rfc7636-challenge": {
    clause: `${RFC}/rfc7636#section-4.2`,
    sentence: "A code_challenge that is not 43 to 128 unreserved characters is refused.",
  },
  "rfc7636-verifier": {
    clause: `${RFC}/rfc7636#section-4.6`,
    sentence: "A code with a wrong code_verifier gives no token.",
  },
  "rfc8707-resource": {
    clause: `${RFC}/rfc8707#section-2`,
    sentence: "A request for a resource that is not served here is refused with invalid_target.",
  },
  "rfc8707-audience": {
    clause: `${RFC}/rfc8707#section-2.2`,
    sentence: "The token's audience is the resource that was asked for, and nothing else.",
  },
  "rfc8707-token-request": {
    clause: `${RFC}/rfc8707#section-2.2`,
    sentence: "A code or refresh token gives no token for another resource than was granted.",
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
  "rfc9207-metadata": {
    clause: `${RFC}/rfc9207#section-3`,
    sentence: "The metadata has authorization_response_iss_parameter_supported.",
  },
  "rfc9068-validation": {
    clause: `${RFC}/rfc9068#section-4`,
    sentence: "A token of another server is accepted only with its signature, issuer, our audience and an end to come.",
  },
  "rfc7009-revoked": {
    clause: `${RFC}/rfc7009#section-2.1`,
    sentence: "A revoked token is refused at once; with a refresh token all tokens of its grant end.",
  },
  "rfc7009-other-client": {
    clause: `${RFC}/rfc7009#section-2.1`,
    sentence: "A client cannot revoke the token of another client.",
  },
  "rfc7009-unknown": {
    clause: `${RFC}/rfc7009#section-2.2`,
    sentence: "Revoking a token that does not exist is answered 200.",
  },
  "rfc7662-authenticated": {
    clause: `${RFC}/rfc7662#section-2.1`,
    sentence: "Introspection without client authentication is refused.",
  },
  "rfc7662-active": {
    clause: `${RFC}/rfc7662#section-2.2`,
    sentence: "A client learns about its own live tokens; of any other it learns active: false and nothing more.",
  },
  "rfc6749-client-credentials": {
    clause: `${RFC}/rfc6749#section-4.4`,
    sentence:
      "A client that authenticates gets a token for itself, without a refresh token, where it is set up for it.",
  },
  "rfc6749-unauthorized-client": {
    clause: `${RFC}/rfc6749#section-5.2`,
    sentence: "A client that asks for a grant it may not use is answered unauthorized_client.",
  },
  "rfc6749-scope": {
    clause: `${RFC}/rfc6749#section-3.3`,
    sentence: "A scope that is unknown is refused; what was given, when it differs from what was asked, is said.",
  },
  "rfc7523-grant": {
    clause: `${RFC}/rfc7523#section-3`,
    sentence: "An assertion is a grant only when issuer, subject, audience, age, key and id are right, and only once.",
  },
  "rfc7523-error": {
    clause: `${RFC}/rfc7523#section-3.1`,
    sentence: "An assertion that is not valid is answered invalid_grant.",
  },
  "id-jag-processing": {
    clause: "https://datatracker.ietf.org/doc/html/draft-ietf-oauth-identity-assertion-authz-grant-01#section-4.4.1",
    sentence:
      "An identity assertion has its own type, names us alone and the client that shows it, and its scopes bound ours.",
  },
  "rfc7662-resource": {
    clause: `${RFC}/rfc7662#section-4`,
    sentence: "A token that its server calls inactive, expired, or meant for others is refused.",
  },
  "rfc7662-owner": {
    clause: `${RFC}/rfc7662#section-4`,
    sentence: "Only a token's own client and the API it is for learn that it is live, and what it says.",
  },
  "rfc8693-response": {
    clause: `${RFC}/rfc8693#section-2.2.1`,
    sentence: "An exchange is answered with the token, its issued_token_type, token_type, life and scope.",
  },
  "rfc8693-error": {
    clause: `${RFC}/rfc8693#section-2.2.2`,
    sentence:
      "A subject token that cannot be taken is answered invalid_request, a target that cannot be had invalid_target.",
  },
  "rfc8693-act": {
    clause: `${RFC}/rfc8693#section-4.1`,
    sentence: "An exchanged token keeps its subject and names who acts, and within that who acted before.",
  },
  "rfc9449-proof": {
    clause: `${RFC}/rfc9449#section-4.3`,
    sentence:
      "A proof counts only for its method and URL, once, soon after it was made, signed with the public key in it.",
  },
  "rfc9449-bound": {
    clause: `${RFC}/rfc9449#section-5`,
    sentence: "A token asked for with a proof is bound to its key, as is a public client's refresh token.",
  },
  "rfc9449-nonce": {
    clause: `${RFC}/rfc9449#section-8`,
    sentence: "A proof without the nonce that is needed is answered use_dpop_nonce, with the nonce.",
  },
  "rfc9449-resource": {
    clause: `${RFC}/rfc9449#section-7.1`,
    sentence:
      "A bound token is accepted with a proof of its key for this method, URL and token, and for one request only.",
  },
  "rfc9449-downgrade": {
    clause: `${RFC}/rfc9449#section-7.2`,
    sentence: "A bound token is refused as a bearer token, an unbound one under the DPoP scheme.",
  },
  "rfc9449-challenge": {
    clause: `${RFC}/rfc9449#section-7.1`,
    sentence:
      "A refusal names the DPoP scheme with the algorithms of proofs, and what was wrong with the one that came.",
  },
  "rfc9449-resource-nonce": {
    clause: `${RFC}/rfc9449#section-9`,
    sentence: "A resource that wants a nonce answers use_dpop_nonce with one, and takes the proof that has it.",
  },
  "rfc9728-dpop": {
    clause: `${RFC}/rfc9728#section-2`,
    sentence: "The resource's metadata say how proofs may be signed, and whether tokens must be bound.",
  },
  "rfc9449-code": {
    clause: `${RFC}/rfc9449#section-10`,
    sentence: "A code asked for with a key's thumbprint, or pushed with its proof, is redeemed with that key alone.",
  },
  "rfc7591-redirect": {
    clause: `${RFC}/rfc7591#section-3.2.2`,
    sentence: "A registration with a redirect URI that is not allowed is answered invalid_redirect_uri.",
  },
  "rfc9126-pushed": {
    clause: `${RFC}/rfc9126#section-2`,
    sentence: "A pushed authorization request gives a request_uri that is answered like the request itself.",
  },
  "rfc7523-client": {
    clause: `${RFC}/rfc7523#section-3`,
    sentence: "A client with keys authenticates with a JWT that it signed, and not without one.",
  },
  "rfc8252-loopback": {
    clause: `${RFC}/rfc8252#section-7.3`,
    sentence: "A loopback redirect takes any port, and differs in nothing else.",
  },
  "rfc8725-algorithms": {
    clause: `${RFC}/rfc8725#section-3.1`,
    sentence:
      "Only the algorithms and keys we chose are accepted: not none, not HMAC, not a key that the token brings.",
  },
  "rfc7592-token": {
    clause: `${RFC}/rfc7592#section-2`,
    sentence:
      "A registration is read and changed with its own access token alone; one that is used at another client's is ended.",
  },
  "rfc7592-update": {
    clause: `${RFC}/rfc7592#section-2.2`,
    sentence:
      "A change names its client and is checked like a registration; what is answered is what counts from then on.",
  },
  "rfc7592-secret": {
    clause: `${RFC}/rfc7592#section-2.2`,
    sentence: "A client can name its secret in a change, and not choose another.",
  },
  "rfc7592-delete": {
    clause: `${RFC}/rfc7592#section-2.3`,
    sentence: "A client that is deleted is answered 204, and its grants and tokens end.",
  },
  "rfc7591-register": {
    clause: `${RFC}/rfc7591#section-3`,
    sentence: "When registration is open a client gets an id for the metadata it sent; when off there is no endpoint.",
  },
  "oauth21-redirect": {
    clause: `${OAUTH_2_1}#section-2.3.1`,
    sentence: "A redirect_uri that is not registered, character by character, is refused without a redirect.",
  },
  "oauth21-code-bound": {
    clause: `${OAUTH_2_1}#section-4.1.3`,
    sentence: "A code is redeemed only by the client, for the redirect_uri and within the time that it was given for.",
  },
  "oauth21-grants": {
    clause: `${OAUTH_2_1}#section-10`,
    sentence: "There is no implicit and no password grant.",
  },
  "oauth21-no-store": {
    clause: `${OAUTH_2_1}#section-3.2.3`,
    sentence: "Answers with tokens are not to be stored.",
  },
  "oauth21-refresh": {
    clause: `${OAUTH_2_1}#section-4.3`,
    sentence: "A refresh token works for its client only and gives no wider scope.",
  },
  "rfc9700-clickjacking": {
    clause: `${RFC}/rfc9700#section-4.16`,
    sentence: "Sign-in and consent cannot be framed.",
  },
  "rfc6749-code-once": {
    clause: `${RFC}/rfc6749#section-4.1.2`,
    sentence: "A code works once; a second use ends what the first gave.",
  },
  "rfc9700-redirector": {
    clause: `${RFC}/rfc9700#section-4.11.2`,
    sentence: "An error does not redirect a browser by itself to a client that nobody vouches for.",
  },
  "rfc9700-rotation": {
    clause: `${RFC}/rfc9700#section-4.14.2`,
    sentence: "A public client's refresh token is replaced at each use; use of a replaced one ends the grant.",
  },
  "rfc6750-header": {
    clause: `${RFC}/rfc6750#section-2`,
    sentence: "A token comes once, in the Authorization header.",
  },
  "rfc6750-challenge": {
    clause: `${RFC}/rfc6750#section-3`,
    sentence: "A request without a token gets a Bearer challenge that has no error.",
  },
  "rfc6750-invalid-token": {
    clause: `${RFC}/rfc6750#section-3.1`,
    sentence: "A token that is malformed, expired, revoked or not ours is answered 401 invalid_token.",
  },
  "rfc6750-scope": {
    clause: `${RFC}/rfc6750#section-3.1`,
    sentence: "A token without the needed scope is answered 403 insufficient_scope with the scope that is needed.",
  },

  // Tasks: MCP 2025-11-25, and the extension of 2026-07-28
  "tasks-created": {
    clause: `${MCP_2025}/utilities/tasks#result-retrieval`,
    sentence: "A call that becomes a task is answered at once with the task: its id, status, times and lifetime.",
  },
  "tasks-result": {
    clause: `${MCP_2025}/utilities/tasks#result-retrieval`,
    sentence: "What a task ends with is exactly what the call would have been answered, result or error.",
  },
  "tasks-cancel": {
    clause: `${MCP_2025}/utilities/tasks#task-cancellation`,
    sentence: "A cancelled task stays cancelled; one that is over cannot be cancelled.",
  },
  "tasks-list": {
    clause: `${MCP_2025}/utilities/tasks#task-isolation-and-access-control`,
    sentence: "A list of tasks has those of the caller and no others, in pages.",
  },
  "tasks-isolation": {
    clause: `${MCP_2025}/utilities/tasks#task-isolation-and-access-control`,
    sentence: "A request about a task of another authorization context is refused as one about a task that never was.",
  },
  "tasks-limits": {
    clause: `${MCP_2025}/utilities/tasks#resource-management`,
    sentence: "The tasks of one caller and their lifetimes are bounded.",
  },
  "tasks-capability": {
    clause: `${TASKS_2026}#protocol-errors`,
    sentence: "A client that did not declare the extension is answered -32021 when it asks about tasks.",
  },
  "tasks-input": {
    clause: `${TASKS_2026}#task-update-requests`,
    sentence: "What a task asks reaches its client, and the answer the task.",
  },

  // JSON-RPC batches, MCP 2025-03-26
  "batch-received": {
    clause: "https://modelcontextprotocol.io/specification/2025-03-26/basic#batching",
    sentence: "Batches are received; each request in one is answered.",
  },
  "batch-initialize": {
    clause: "https://modelcontextprotocol.io/specification/2025-03-26/basic/lifecycle#initialization",
    sentence: "The initialize request is not part of a batch.",
  },
} as const satisfies Record<string, Requirement>;

export type RequirementId = keyof typeof requirements;

/**
 * Requirements that no test verifies yet. The list only shrinks: an id that a test verifies must be taken out, and a new
 * requirement comes with its test.
 */
export const pending: readonly RequirementId[] = [];

/** `test`, for the named clauses. Throws on an id that is not in `requirements`, for callers that are not type-checked. */
export function verifies(
  ids: RequirementId | readonly RequirementId[],
  title: string,
  fn: Body,
  timeout?: number,
): void {
  test(named(ids, title), fn, timeout);
}

/** `test.each`, for the named clauses: one test for each case, which `title` may quote. */
export function verifiesEach<T extends string | readonly [unknown, ...unknown[]]>(
  ids: RequirementId | readonly RequirementId[],
  cases: readonly T[],
  title: string,
  fn: (...args: T extends readonly unknown[] ? [...T] : [T]) => unknown,
): void {
  test.each(cases as readonly never[])(named(ids, title), fn as () => void);
}

type Body = () => unknown;

function named(ids: RequirementId | readonly RequirementId[], title: string): string {
  const all = typeof ids === "string" ? [ids] : ids;
  for (const id of all)
    if (!Object.hasOwn(requirements, id)) throw new Error(`There is no requirement ${id} in test/requirements.ts.`);
  return `${title} [${all.join(", ")}]`;
}
