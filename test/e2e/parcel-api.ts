/** An HTTP API that believes tokens of the gateway alone, for tests. It notes what it was asked, and its spans go to a collector. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createRemoteJWKSet, type JWTPayload, jwtVerify } from "jose";
import { exportSpan } from "../fixtures/spans.ts";

export interface ParcelApi extends AsyncDisposable {
  /** Where it is, and whom tokens must be for. */
  readonly url: string;
  /** Those it let in, in order. */
  readonly accepted: readonly { readonly claims: JWTPayload; readonly traceparent: string; readonly body: string }[];
  /** Why it refused, in order. */
  readonly refused: readonly string[];
  /** Everything that came, headers and bodies. */
  text(): string;
  /** From then on it knows whom to believe. */
  trust(issuer: string): Promise<void>;
}

export async function startParcelApi(collector: string): Promise<ParcelApi> {
  const accepted: { claims: JWTPayload; traceparent: string; body: string }[] = [];
  const refused: string[] = [];
  const came: string[] = [];
  let callerOf = (_token: string): Promise<JWTPayload> => Promise.reject(new Error("nobody is trusted yet"));
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    const { authorization = "", traceparent = "" } = request.headers as Record<string, string | undefined>;
    came.push(JSON.stringify(request.headers), body);
    try {
      const claims = await callerOf(authorization.replace(/^Bearer /, ""));
      await exportSpan(collector, "POST /parcels", 2, traceparent);
      accepted.push({ claims, traceparent, body });
      response.end("shipped");
    } catch (thrown) {
      refused.push(String(thrown));
      response.writeHead(401, { "www-authenticate": 'Bearer error="invalid_token"' }).end("refused");
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/parcels`;
  return {
    url,
    accepted,
    refused,
    text: () => came.join("\n"),
    async trust(issuer) {
      const metadata = await fetch(`${issuer}/.well-known/oauth-authorization-server`);
      const { jwks_uri } = (await metadata.json()) as { jwks_uri: string };
      const keys = createRemoteJWKSet(new URL(jwks_uri));
      callerOf = async (token) => {
        const { payload } = await jwtVerify(token, keys, {
          issuer,
          audience: url,
          typ: "at+jwt",
          requiredClaims: ["sub", "exp", "jti", "act"],
        });
        if ((payload["act"] as { sub?: unknown }).sub !== issuer) throw new Error("somebody else acts");
        return payload;
      };
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
