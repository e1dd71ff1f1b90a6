/** Somebody else's issuer on loopback, which signs whatever it is told; clients with keys; and proofs of possession. */
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from "jose";
import { listen, type Running, stop } from "./support.ts";

export interface Issuer extends AsyncDisposable {
  readonly issuer: string;
  readonly key: CryptoKey;
  /** How often its keys were asked for. */
  readonly asked: () => number;
  /** Signs claims as they are. */
  sign(claims: JWTPayload, header?: Record<string, unknown>): Promise<string>;
}

export async function foreignIssuer(alg = "ES256"): Promise<Issuer> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = { ...(await exportJWK(publicKey)), kid: "k1", use: "sig", alg };
  let asked = 0;
  const made: { issuer?: string } = {};
  const http = createServer((request, response) => {
    response.setHeader("content-type", "application/json");
    if (request.url === "/.well-known/openid-configuration")
      return void response.end(JSON.stringify({ issuer: made.issuer, jwks_uri: `${made.issuer}/jwks` }));
    if (request.url !== "/jwks") return void response.writeHead(404).end("{}");
    asked++;
    response.end(JSON.stringify({ keys: [jwk] }));
  });
  const issuer = `http://127.0.0.1:${await listen(http)}`;
  made.issuer = issuer;
  return {
    issuer,
    key: privateKey,
    asked: () => asked,
    sign: (claims, header = {}) =>
      new SignJWT(claims).setProtectedHeader({ alg, kid: "k1", ...header }).sign(privateKey),
    [Symbol.asyncDispose]: () => stop(http),
  };
}

/** A key pair of a client. */
export interface Holder {
  readonly jwk: JWK;
  readonly key: CryptoKey;
}

export async function holder(alg = "ES256"): Promise<Holder> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return { key: privateKey, jwk: { ...(await exportJWK(publicKey)), kid: randomUUID(), alg } };
}

/** Form fields with which a client authenticates by its key (RFC 7523 §2.2). */
export async function clientAssertion(
  { base }: Running,
  client: string,
  { key, jwk }: Holder,
  claims: JWTPayload = {},
): Promise<Record<string, string>> {
  const now = Math.floor(Date.now() / 1000);
  const assertion = await new SignJWT({
    iss: client,
    sub: client,
    aud: base,
    jti: randomUUID(),
    iat: now,
    exp: now + 60,
    ...claims,
  })
    .setProtectedHeader({ alg: jwk.alg ?? "ES256", kid: jwk.kid ?? "" })
    .sign(key);
  return {
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: assertion,
  };
}

/** A proof for the token endpoint (RFC 9449 §4.2). */
export async function proof(
  { base }: Running,
  { key, jwk }: Holder,
  claims: JWTPayload = {},
  header: Record<string, unknown> = {},
): Promise<string> {
  const { kty, crv, x, y, n, e } = jwk;
  const plain = JSON.parse(JSON.stringify({ kty, crv, x, y, n, e }));
  return new SignJWT({
    htm: "POST",
    htu: `${base}/oauth/token`,
    jti: randomUUID(),
    iat: Math.floor(Date.now() / 1000),
    ...claims,
  })
    .setProtectedHeader({ alg: jwk.alg ?? "ES256", typ: "dpop+jwt", jwk: plain, ...header })
    .sign(key);
}

export function basic(client: string, secret: string): { authorization: string } {
  return { authorization: `Basic ${btoa(`${client}:${secret}`)}` };
}

/** Sends a form to an endpoint of the server. */
export async function post(
  { origin, base }: Running,
  path: string,
  params: Record<string, string>,
  headers: Record<string, string> = {},
) {
  const response = await fetch(`${origin}${new URL(`${base}${path}`).pathname}`, {
    method: "POST",
    body: new URLSearchParams(params),
    headers,
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: (text === "" ? {} : JSON.parse(text)) as Record<string, unknown>,
  };
}

let sources = 0;
/** A header that makes a request come from where none came from before, when the server trusts 127.0.0.1 as a proxy. */
export function elsewhere(): { "x-forwarded-for": string } {
  sources++;
  return { "x-forwarded-for": `198.18.${sources >> 8}.${sources & 255}` };
}
