/**
 * Every way a request can fail, with what each side is told: the one error table. `docs/errors.md` has a row for each, and a
 * test keeps the two equal. JSON-RPC codes of our own lie outside -32768…-32000, which MCP 2026-07-28 (basic, Error Codes) reserves.
 */
export const ERRORS = {
  parse_error: { http: 400, rpc: -32700, oauth: "invalid_request" },
  invalid_request: { http: 400, rpc: -32600, oauth: "invalid_request" },
  invalid_params: { http: 200, rpc: -32602, oauth: undefined },
  /** Also the answer to a tool, prompt or resource that the caller may not use: it must look like one that does not exist. */
  unknown_target: { http: 200, rpc: -32602, oauth: undefined },
  /** The per-request `_meta` of 2026-07-28 lacks a required key (basic, Per-request protocol fields). */
  invalid_envelope: { http: 400, rpc: -32602, oauth: undefined },
  unknown_method: { http: 404, rpc: -32601, oauth: undefined },
  header_mismatch: { http: 400, rpc: -32020, oauth: undefined },
  missing_client_capability: { http: 400, rpc: -32021, oauth: undefined },
  unsupported_protocol_version: { http: 400, rpc: -32022, oauth: undefined },
  unknown_session: { http: 404, rpc: -31404, oauth: undefined },
  /** A 2025 client came back to a stream whose answer is no longer kept. */
  answer_lost: { http: 200, rpc: -31410, oauth: undefined },
  not_found: { http: 404, rpc: -31404, oauth: undefined },
  method_not_allowed: { http: 405, rpc: -31405, oauth: "invalid_request" },
  not_acceptable: { http: 406, rpc: -31406, oauth: undefined },
  unsupported_media_type: { http: 415, rpc: -31415, oauth: "invalid_request" },
  body_too_large: { http: 413, rpc: -31413, oauth: "invalid_request" },
  request_timeout: { http: 408, rpc: -31408, oauth: undefined },
  wrong_host: { http: 403, rpc: -31403, oauth: undefined },
  wrong_origin: { http: 403, rpc: -31403, oauth: undefined },
  unauthenticated: { http: 401, rpc: -31401, oauth: "invalid_token" },
  insufficient_scope: { http: 403, rpc: -31403, oauth: "insufficient_scope" },
  /** The caller's account at the server behind is not connected; `data` has the page where they connect it. */
  connection_required: { http: 200, rpc: -31428, oauth: undefined },
  /** A person has to approve the call first; `data` has the number of the request. */
  approval_required: { http: 200, rpc: -31426, oauth: undefined },
  approval_denied: { http: 200, rpc: -31427, oauth: undefined },
  /** Somebody may see a request and not decide it. */
  not_approver: { http: 403, rpc: -31403, oauth: undefined },
  rate_limited: { http: 429, rpc: -31429, oauth: "temporarily_unavailable" },
  overloaded: { http: 503, rpc: -31503, oauth: "temporarily_unavailable" },
  // Failures behind the gateway are answered in band: a 502 would make proxies and clients repeat a call that may have had effects.
  upstream_unavailable: { http: 200, rpc: -31502, oauth: undefined },
  upstream_failed: { http: 200, rpc: -31502, oauth: undefined },
  upstream_timeout: { http: 200, rpc: -31504, oauth: undefined },
  answer_too_large: { http: 200, rpc: -31513, oauth: undefined },
  cancelled: { http: 499, rpc: -31499, oauth: undefined },
  audit_unavailable: { http: 503, rpc: -31503, oauth: "temporarily_unavailable" },
  outbound_refused: { http: 502, rpc: -31502, oauth: "invalid_request" },
  settings_invalid: { http: 500, rpc: -32603, oauth: "server_error" },
  internal: { http: 500, rpc: -32603, oauth: "server_error" },
} as const satisfies Record<string, { http: number; rpc: number; oauth: string | undefined }>;

export type ErrorCode = keyof typeof ERRORS;

export interface ErrorOptions {
  /** For the log and the audit record; never leaves the process. */
  readonly detail?: string;
  readonly cause?: unknown;
  /** JSON-RPC `error.data`, for the caller. */
  readonly data?: unknown;
  /** Seconds for a `Retry-After` header. */
  readonly retryAfterSeconds?: number;
  /** Scopes that would have been enough (RFC 6750 `insufficient_scope`). */
  readonly scope?: string;
  /** What was wrong with the proof of a token that is bound to a key, and the nonce that the next one needs (RFC 9449 §7.1, §9). */
  readonly proof?: { readonly error: "invalid_dpop_proof" | "use_dpop_nonce"; readonly nonce?: string };
}

/** A promise of the gateway that could not be kept: a row of `ERRORS`, a sentence for the caller, a detail for the log. */
export class DrawbridgeError extends Error {
  override readonly name = "DrawbridgeError";
  readonly code: ErrorCode;
  readonly detail: string | undefined;
  readonly data: unknown;
  readonly retryAfterSeconds: number | undefined;
  readonly scope: string | undefined;
  readonly proof: ErrorOptions["proof"];

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.detail = options.detail;
    this.data = options.data;
    this.retryAfterSeconds = options.retryAfterSeconds;
    this.scope = options.scope;
    this.proof = options.proof;
  }

  /** Wraps anything thrown; one of ours passes unchanged. What a stranger wrote goes to `detail`, never to the caller. */
  static from(thrown: unknown, fallback: ErrorCode = "internal"): DrawbridgeError {
    if (thrown instanceof DrawbridgeError) return thrown;
    const detail = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
    return new DrawbridgeError(fallback, "The gateway could not complete the request.", { cause: thrown, detail });
  }

  get http(): number {
    return ERRORS[this.code].http;
  }
  get rpc(): number {
    return ERRORS[this.code].rpc;
  }
  get oauth(): string | undefined {
    return ERRORS[this.code].oauth;
  }
}
