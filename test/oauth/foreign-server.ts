/** Another authorization server, without a socket: what it publishes, what was asked of it, and tokens of its keys. */
import { type CryptoKey, exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import type { Clock } from "../../src/core/clock.ts";
import { DrawbridgeError } from "../../src/core/errors.ts";
import type { Trusted } from "../../src/net/trusted.ts";

export interface ForeignServer {
  readonly issuer: string;
  readonly http: Trusted;
  /** URLs asked for, in order. */
  readonly asked: string[];
  /** Answers by URL; another may be put in at any time. */
  readonly answers: Map<string, (init: RequestInit) => Response | Promise<Response>>;
  /** True: nothing answers. */
  down: boolean;
  /** Keys now, by kid; what is published is their public part. */
  readonly keys: Map<string, { readonly alg: string; readonly privateKey: CryptoKey; readonly jwk: object }>;
  addKey(kid: string, alg?: string): Promise<void>;
  sign(claims: JWTPayload, header?: Record<string, unknown>): Promise<string>;
}

export async function foreignServer(
  clock: Clock,
  issuer = "https://login.shop.example/realms/one",
): Promise<ForeignServer> {
  const { origin, pathname } = new URL(issuer);
  const keys: ForeignServer["keys"] = new Map();
  const asked: string[] = [];
  const answers: ForeignServer["answers"] = new Map();
  answers.set(`${origin}${pathname}/.well-known/openid-configuration`, () =>
    Response.json({
      issuer,
      jwks_uri: `${origin}/keys`,
      token_endpoint: `${origin}/token`,
      introspection_endpoint: `${origin}/introspect`,
    }),
  );
  answers.set(`${origin}/keys`, () => Response.json({ keys: [...keys.values()].map(({ jwk }) => jwk) }));
  const server: ForeignServer = {
    issuer,
    asked,
    answers,
    down: false,
    keys,
    http: {
      async fetch(url, init = {}) {
        asked.push(String(url));
        if (server.down) throw new DrawbridgeError("upstream_unavailable", "It is down.");
        return answers.get(String(url))?.(init) ?? new Response("nothing here", { status: 404 });
      },
      close: async () => {},
    },
    async addKey(kid, alg = "ES256") {
      const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
      keys.set(kid, { alg, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } });
    },
    async sign(claims, header = {}) {
      const [kid, key] = [...keys].at(-1) ?? [];
      if (key === undefined) throw new Error("no key");
      const now = Math.floor(clock() / 1000);
      return new SignJWT({ iss: issuer, iat: now, exp: now + 300, ...claims })
        .setProtectedHeader({ alg: key.alg, ...(kid !== undefined && { kid }), ...header })
        .sign(key.privateKey);
    },
  };
  await server.addKey("k1");
  return server;
}
