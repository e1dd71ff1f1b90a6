/** Replicas of the embedded server without a socket, and tokens as it makes them, for tests of the side that checks tokens. */
import { createHash, randomUUID } from "node:crypto";
import {
  type CryptoKey,
  calculateJwkThumbprint,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWTPayload,
  SignJWT,
} from "jose";
import { type Clock, systemClock } from "../../src/core/clock.ts";
import { usersIn } from "../../src/oauth/people/users.ts";
import { type AuthorizationServer, authorizationServer } from "../../src/oauth/server.ts";
import { clientsSettings, signInSettings, tokensSettings } from "../../src/oauth/settings.ts";
import { grantsIn } from "../../src/oauth/tokens/grants.ts";
import { loadKeys } from "../../src/oauth/tokens/keys.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import type { Records } from "../../src/store/ports.ts";

export const PUBLIC_URL = "https://mcp.shop.example";
export const RESOURCE = `${PUBLIC_URL}/mcp`;

export interface ReplicaOptions {
  readonly clients?: Record<string, unknown>;
  readonly tokens?: Record<string, unknown>;
  readonly clock?: Clock;
}

/** One replica of the server at `PUBLIC_URL`. */
export function replica(
  records: Records,
  { clients = {}, tokens = {}, clock = systemClock }: ReplicaOptions = {},
): Promise<AuthorizationServer> {
  return authorizationServer({
    publicUrl: new URL(PUBLIC_URL),
    signIn: signInSettings.parse({}),
    clients: clientsSettings.parse({ registration: "off", ...clients }),
    tokens: tokensSettings.parse(tokens),
    records,
    log: silentLogger,
    clock,
  });
}

export interface Minted {
  readonly token: string;
  readonly jti: string;
  readonly grant: string | undefined;
  readonly user: string;
  readonly client: string;
}

export interface MintOptions {
  /** Undefined makes a new person; null a token that the client has for itself. */
  readonly user?: string | null;
  readonly client?: string;
  readonly claims?: JWTPayload;
  readonly clock?: Clock;
}

/** A token with everything in the store that it needs. */
export async function mint(records: Records, options: MintOptions = {}): Promise<Minted> {
  const { client = "c_1", claims = {}, clock = systemClock } = options;
  const own = options.user === null;
  const person = own
    ? undefined
    : (options.user ??
      (
        await usersIn(records, clock).create({
          name: `p${randomUUID()}`,
          email: undefined,
          password: undefined,
          groups: ["team"],
        })
      ).id);
  const jti = randomUUID();
  const grant = own ? undefined : randomUUID();
  const iat = Math.floor(clock() / 1000);
  const exp = iat + 300;
  const index = {
    ...grantsIn(records, async () => {}).indexFor(person, client),
    ...(grant !== undefined && { grant }),
  };
  const expiresAt = exp * 1000;
  await records.put(
    "oauth:AccessToken",
    jti,
    { jti, clientId: client, accountId: person, grantId: grant },
    { index, expiresAt },
  );
  if (grant !== undefined) await records.put("oauth:Grant", grant, { accountId: person, clientId: client }, { index });
  const keys = await loadKeys(records, { clock });
  keys.close();
  const [key] = keys.signing;
  if (key === undefined) throw new Error("no key");
  const token = await new SignJWT({
    iss: PUBLIC_URL,
    aud: RESOURCE,
    sub: person ?? client,
    client_id: client,
    ...(grant !== undefined && { gid: grant }),
    scope: "mcp:read mcp:call",
    jti,
    iat,
    exp,
    ...claims,
  })
    .setProtectedHeader({ alg: key.alg, kid: key.kid, typ: "at+jwt" })
    .sign(await importJWK(key, key.alg));
  return { token, jti, grant, user: person ?? client, client };
}

export interface Prover {
  readonly jkt: string;
  readonly privateKey: CryptoKey;
  /** A proof as RFC 9449 §4.2 wants it, but for `claims` and `header`. */
  prove(token: string, claims?: Record<string, unknown>, header?: Record<string, unknown>): Promise<string>;
}

/** The holder of a key that tokens are bound to. */
export async function prover(alg = "ES256", clock: Clock = systemClock, resource = RESOURCE): Promise<Prover> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = await exportJWK(publicKey);
  return {
    jkt: await calculateJwkThumbprint(jwk),
    privateKey,
    prove(token, claims = {}, header = {}) {
      return new SignJWT({
        jti: randomUUID(),
        htm: "POST",
        htu: resource,
        iat: Math.floor(clock() / 1000),
        ath: createHash("sha256").update(token).digest("base64url"),
        ...claims,
      })
        .setProtectedHeader({ alg, typ: "dpop+jwt", jwk, ...header })
        .sign(privateKey);
    },
  };
}
