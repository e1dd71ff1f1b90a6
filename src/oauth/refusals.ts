/** Requests that `oidc-provider` refused, in the log and as events. */
import type { EventEmitter } from "node:events";
import type { KoaContextWithOIDC } from "oidc-provider";
import { DrawbridgeError } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Report } from "./events.ts";

/** What a client is told is a code; why it was refused is what an operator needs. */
export function recordRefusals(provider: EventEmitter, report: Report, log: Logger): void {
  provider.on("error", (error: Error) => log.error({ error: error.message }, "answer could not be sent"));
  provider.on("server_error", (_ctx: KoaContextWithOIDC, error: Error) => {
    log.error({ error: error.message, stack: error.stack }, "authorization server error");
  });
  for (const endpoint of [
    "authorization",
    "grant",
    "pushed_authorization_request",
    "registration_create",
    "revocation",
    "introspection",
  ]) {
    provider.on(
      `${endpoint}.error`,
      (ctx: KoaContextWithOIDC, failure: Error & { error_detail?: string; error?: string }) => {
        const asked = ctx.oidc?.client?.clientId ?? ctx.oidc?.params?.["client_id"];
        const client = typeof asked === "string" ? { client: asked.slice(0, 1024) } : {};
        const error = failure.error ?? failure.message;
        const reason = failure.error_detail ?? failure.message;
        log.info(
          { ...client, endpoint, error, reason, cause: failure.cause && String(failure.cause) },
          "request refused",
        );
        if (endpoint !== "grant") return;
        // Nothing was granted, so nothing has to be taken back when this is not recorded.
        report({ type: "token-refused", error, reason, ...client, ...sourceOf(ctx) }).catch((thrown: unknown) =>
          log.error({ error: DrawbridgeError.from(thrown).detail }, "a refusal could not be recorded"),
        );
      },
    );
  }
}

/** Where a request came from, for events. */
export function sourceOf(
  ctx: { readonly req?: { readonly socket?: { readonly remoteAddress?: string | undefined } } } | undefined,
) {
  const source = ctx?.req?.socket?.remoteAddress;
  return source === undefined ? {} : { source };
}
