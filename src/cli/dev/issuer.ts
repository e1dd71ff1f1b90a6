/**
 * Issues the tokens that the page calls with: an authorization server of RFC 8414 and RFC 9068 with no users, whose key lives as long as this
 * process. The gateway checks them as it checks those of any server.
 */
import {
  createHash,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  randomUUID,
  sign,
  timingSafeEqual,
} from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { type Clock, systemClock } from "../../core/clock.ts";
import type { IssuerPlace } from "./messages.ts";

/** Whom a token is for. */
export interface Bearer {
  readonly subject: string;
  readonly client: string;
  readonly groups: readonly string[];
  readonly scopes: readonly string[];
  readonly email?: string | undefined;
}

export interface Issuer {
  readonly place: IssuerPlace;
  /** A token of five minutes for this endpoint. */
  mint(bearer: Bearer, audience: string): string;
  /** Answers its own addresses; false: it was none of them. They have no secrets but those that one must show. */
  answer(request: IncomingMessage, response: ServerResponse, path: string): boolean;
}

const METADATA = "/.well-known/oauth-authorization-server/issuer";
const LIFE_SECONDS = 300;
const MAX_FORM_BYTES = 65_536;

/**
 * `origin`: where its addresses are. `upstreamToken`: what every exchange gives, for APIs that want a token of their own; without it, a
 * token of this issuer.
 */
export function openIssuer(origin: string, upstreamToken: string | undefined, clock: Clock = systemClock): Issuer {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const issuer = `${origin}/issuer`;
  const place: IssuerPlace = {
    issuer,
    clientId: "drawbridge-dev",
    clientSecret: randomBytes(32).toString("base64url"),
  };
  const kid = randomUUID();
  const keys = { keys: [{ ...publicKey.export({ format: "jwk" }), kid, alg: "ES256", use: "sig" }] };
  const credentials = `Basic ${Buffer.from(`${place.clientId}:${place.clientSecret}`).toString("base64")}`;

  const issue = (claims: object, audience: string) => {
    const now = Math.floor(clock() / 1000);
    const standing = { iss: issuer, aud: audience, iat: now, exp: now + LIFE_SECONDS, jti: randomUUID() };
    return signed({ ...standing, ...claims }, kid, privateKey);
  };
  const exchanged = (form: URLSearchParams) => {
    const [, payload = ""] = (form.get("subject_token") ?? "").split(".");
    const { sub = place.clientId } = payload === "" ? {} : (parsed(payload) as { sub?: string });
    const scope = form.get("scope") ?? "";
    const claims = { sub, client_id: place.clientId, scope };
    return {
      access_token: upstreamToken ?? issue(claims, form.get("audience") ?? issuer),
      issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
      token_type: "Bearer",
      expires_in: LIFE_SECONDS,
      scope,
    };
  };

  return {
    place,
    mint({ subject, client, groups, scopes, email }, audience) {
      const address = email === undefined ? {} : { email, email_verified: true };
      return issue({ sub: subject, client_id: client, groups, scope: scopes.join(" "), ...address }, audience);
    },
    answer(request, response, path) {
      if (path === METADATA)
        json(response, 200, {
          issuer,
          jwks_uri: `${issuer}/jwks`,
          token_endpoint: `${issuer}/token`,
          response_types_supported: [],
          grant_types_supported: ["urn:ietf:params:oauth:grant-type:token-exchange", "client_credentials"],
        });
      else if (path === "/issuer/jwks") json(response, 200, keys);
      else if (path === "/issuer/token" && request.method === "POST") {
        if (!same(request.headers.authorization ?? "", credentials)) json(response, 401, { error: "invalid_client" });
        else
          formOf(request).then(
            (form) => json(response, 200, exchanged(form)),
            () => json(response, 400, { error: "invalid_request" }),
          );
      } else return false;
      return true;
    },
  };
}

/** Whether two texts are the same, in a time that says nothing of where they differ. */
export function same(given: string, expected: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(expected));
}

/** RFC 7515, ES256; `typ` as RFC 9068 §2.1 wants it. */
function signed(claims: object, kid: string, key: KeyObject): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const text = `${part({ alg: "ES256", typ: "at+jwt", kid })}.${part(claims)}`;
  const signature = sign("sha256", Buffer.from(text), { key, dsaEncoding: "ieee-p1363" });
  return `${text}.${signature.toString("base64url")}`;
}

const parsed = (payload: string): unknown => JSON.parse(Buffer.from(payload, "base64url").toString());

async function formOf(request: IncomingMessage): Promise<URLSearchParams> {
  let text = "";
  for await (const part of request.setEncoding("utf8")) {
    text += part;
    if (text.length > MAX_FORM_BYTES) throw new Error("too long");
  }
  return new URLSearchParams(text);
}

function json(response: ServerResponse, status: number, value: object): void {
  response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" });
  response.end(JSON.stringify(value));
}
