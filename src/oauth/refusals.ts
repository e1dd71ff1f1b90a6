/** Requests that `oidc-provider` refused, in the log and as events. */
import type { EventEmitter } from "node:events";
import type { KoaContextWithOIDC } from "oidc-provider";
import { DrawbridgeError } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Report } from "./events.ts";
import { remark } from "./trail.ts";

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
    "registration_read",
    "registration_update",
    "registration_delete",
    "revocation",
    "introspection",
  ]) {
    provider.on(`${endpoint}.error`, (ctx: KoaContextWithOIDC, failure: Failure) => {
      if (endpoint === "grant") correct(ctx, failure);
      const asked = ctx.oidc?.client?.clientId ?? ctx.oidc?.params?.["client_id"];
      const client = typeof asked === "string" ? { client: asked.slice(0, 1024) } : {};
      const error = failure.error ?? failure.message;
      const reason = failure.error_detail ?? failure.error_description ?? failure.message;
      log.info(
        { ...client, endpoint, error, reason, cause: failure.cause && String(failure.cause) },
        "request refused",
      );
      remark(ctx.res, { ...client, said: `${error}: ${reason}`, failed: true });
      if (endpoint !== "grant") return;
      // Nothing was granted, so nothing has to be taken back when this is not recorded.
      report({ type: "token-refused", error, reason, ...client, ...sourceOf(ctx) }).catch((thrown: unknown) =>
        log.error({ error: DrawbridgeError.from(thrown).detail }, "a refusal could not be recorded"),
      );
    });
  }
  for (const success of ["authorization", "pushed_authorization_request", "grant", "registration_create"])
    provider.on(`${success}.success`, (ctx: KoaContextWithOIDC) => remarkClient(ctx));
  provider.on("interaction.started", (ctx: KoaContextWithOIDC, { name }: { readonly name: string }) =>
    remarkClient(ctx, `a person is asked: ${name}`),
  );
}

/** For the trail: whose answer this is. */
function remarkClient({ res, oidc }: KoaContextWithOIDC, said?: string): void {
  const client = oidc.client?.clientId;
  remark(res, { ...(client !== undefined && { client }), ...(said !== undefined && { said }) });
}

type Failure = Error & { error?: string; error_detail?: string; error_description?: string };

/** Says what a specification wants said where the library has another code for it. The answer is written, and has not been sent. */
function correct(ctx: KoaContextWithOIDC, failure: Failure): void {
  // It is how a client begins, and costs it nothing; whatever else went wrong is not the lack of a nonce.
  if (failure.error !== "use_dpop_nonce") ctx.remove("dpop-nonce");
  const { client, params } = ctx.oidc;
  if (client === undefined) return;
  const grantType = String(params?.["grant_type"]);
  const say = (error: string, description: string) => {
    Object.assign(failure, { error, error_description: description });
    ctx.body = { error, error_description: description };
  };
  // RFC 6749 §5.2.
  if (
    failure.error === "invalid_request" &&
    params?.["grant_type"] !== undefined &&
    !client.grantTypeAllowed(grantType)
  )
    say("unauthorized_client", `This client may not use the grant type ${grantType.slice(0, 100)}.`);
  // RFC 9449 §5: what is missing is a proof, and the grant is as good as before.
  if (failure.error === "invalid_grant" && client.dpopBoundAccessTokens === true && ctx.get("dpop") === "")
    say("invalid_dpop_proof", "This client's tokens are bound to a key. Send a DPoP proof.");
}

/** Where a request came from, for events: what `replay` wrote onto the request that the provider sees. */
export function sourceOf(ctx: { readonly req: object } | undefined): { readonly source?: string } {
  const source = (ctx?.req as { readonly source?: string } | undefined)?.source;
  return source === undefined ? {} : { source };
}
