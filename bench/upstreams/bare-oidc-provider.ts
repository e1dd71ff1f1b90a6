/**
 * `oidc-provider` as its own documentation starts it: in-memory adapter, its development pages for sign-in and consent, no
 * records, no limits. It signs the same ES256 JWTs for one resource, and rotates refresh tokens. Listens on $PORT.
 */
import { createServer } from "node:http";
import { exportJWK, generateKeyPair } from "jose";
import Provider from "oidc-provider";

const issuer = `http://127.0.0.1:${process.env["PORT"]}`;
const { privateKey } = await generateKeyPair("ES256", { extractable: true });
const key = { ...(await exportJWK(privateKey)), alg: "ES256", use: "sig", kid: "bench" };

const provider = new Provider(issuer, {
  jwks: { keys: [key] },
  clients: [
    {
      client_id: "bench",
      client_secret: process.env["CLIENT_SECRET"] ?? "",
      redirect_uris: ["https://client.example/callback"],
      grant_types: ["authorization_code", "refresh_token", "client_credentials"],
      id_token_signed_response_alg: "ES256",
    },
  ],
  cookies: { keys: ["a key for the cookies of one bench run"] },
  issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed("refresh_token"),
  rotateRefreshToken: () => true,
  pkce: { required: () => true },
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => `${issuer}/mcp`,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: "mcp:read mcp:call",
        audience: `${issuer}/mcp`,
        accessTokenTTL: 300,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: "ES256" } },
      }),
    },
  },
});

createServer(provider.callback()).listen(Number(process.env["PORT"]), "127.0.0.1");
