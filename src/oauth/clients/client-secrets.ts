/**
 * Secrets of registered clients: given out once, kept as their hash. They are 256 random bits, so a plain hash hides them as well
 * as a slow one would.
 */
import { hash, timingSafeEqual } from "node:crypto";
import type Provider from "oidc-provider";

const HASHED = /^sha256\.[\w-]{43}$/;

/** What is kept of a secret. */
export function hashedSecret(secret: string): string {
  return `sha256.${hash("sha256", secret, "base64url")}`;
}

/** True for a secret that is its hash, which must not leave: whoever reads a registration again is not told its secret again. */
export function isHashedSecret(secret: unknown): boolean {
  return typeof secret === "string" && HASHED.test(secret);
}

/** Makes the provider compare hashes where hashes are stored, and leave them out of what it tells a client about itself. */
export function compareHashedSecrets(provider: Provider): void {
  const compare = provider.Client.prototype.compareClientSecret;
  provider.Client.prototype.compareClientSecret = function (actual: string) {
    const { clientSecret = "" } = this;
    if (!isHashedSecret(clientSecret)) return compare.call(this, actual);
    return timingSafeEqual(Buffer.from(clientSecret), Buffer.from(hashedSecret(actual)));
  };
  provider.use(async (ctx, next) => {
    await next();
    const body = ctx.body as Record<string, unknown> | undefined;
    if (ctx.oidc?.route?.startsWith("client") === true && isHashedSecret(body?.["client_secret"])) {
      delete body?.["client_secret"];
      delete body?.["client_secret_expires_at"];
    }
  });
}
