/** How clients find out who issues tokens: the challenge, RFC 9728, RFC 8414, RFC 9207. */
import type { Observed } from "./observed.ts";
import type { ProbeRule, ProbeSighting } from "./probe-rule.ts";

const resource = (document: Record<string, unknown> | undefined, problem?: string): Partial<Observed> => ({
  url: "https://mcp.example.com/mcp",
  resource: { place: "https://mcp.example.com/.well-known/oauth-protected-resource/mcp", document, problem },
});
const server = (document: Record<string, unknown>): Partial<Observed> => ({
  issuer: "https://login.example.com",
  server: { place: "https://login.example.com/.well-known/oauth-authorization-server", document },
});

export const discoveryRules: readonly ProbeRule[] = [
  {
    id: "no-challenge",
    title: "does not say how to sign in",
    owasp: "MCP07",
    principle: 5,
    severity: "medium",
    confidence: "high",
    why: "A client that is not told where tokens come from has to guess, or asks its user to paste a key that lives for ever.",
    fix: 'Answer 401 with WWW-Authenticate: Bearer resource_metadata="…" (RFC 9728 §5.1).',
    bad: [{ challenge: { bearer: false } }, { challenge: { bearer: true } }],
    good: [
      { challenge: { bearer: true, resourceMetadata: "https://mcp.example.com/.well-known/oauth-protected-resource" } },
    ],
    find: function* ({ challenge }): Generator<ProbeSighting> {
      if (challenge === undefined) return;
      if (!challenge.bearer) yield { where: "/challenge", evidence: "401 without WWW-Authenticate: Bearer" };
      else if (challenge.resourceMetadata === undefined)
        yield { where: "/challenge", evidence: "WWW-Authenticate without resource_metadata", severity: "low" };
    },
  },
  {
    id: "no-resource-metadata",
    title: "has no protected resource metadata",
    owasp: "MCP07",
    principle: 5,
    severity: "medium",
    confidence: "high",
    why: "Without the document of RFC 9728 a client cannot know which authorization server speaks for this resource; a wrong one is as good.",
    fix: "Serve /.well-known/oauth-protected-resource with resource and authorization_servers.",
    bad: [resource(undefined, "answers 404"), resource({ resource: "https://mcp.example.com/mcp" })],
    good: [resource({ resource: "https://mcp.example.com/mcp", authorization_servers: ["https://login.example.com"] })],
    find: function* ({ resource: found }): Generator<ProbeSighting> {
      if (found === undefined) return;
      if (found.document === undefined)
        yield { where: "/resource", evidence: `${found.place} ${found.problem ?? "has none"}` };
      else if (strings(found.document["authorization_servers"]).length === 0)
        yield { where: "/resource/authorization_servers", evidence: `${found.place} names no authorization server` };
    },
  },
  {
    id: "resource-mismatch",
    title: "publishes the metadata of another resource",
    owasp: "MCP07",
    principle: 5,
    severity: "high",
    confidence: "high",
    why: "Clients ask for tokens for what the document names (RFC 9728 §3.3): a token for another server ends here, or the reverse.",
    fix: "Write the address that clients use as `resource`; behind a proxy, set the public address.",
    bad: [
      resource({ resource: "https://other.example.com/mcp", authorization_servers: ["https://login.example.com"] }),
    ],
    good: [
      resource({ resource: "https://mcp.example.com/mcp", authorization_servers: ["https://login.example.com"] }),
      resource({ resource: "https://mcp.example.com", authorization_servers: ["https://login.example.com"] }),
    ],
    find: function* ({ resource: found, url }): Generator<ProbeSighting> {
      if (found?.document === undefined) return;
      const given = found.document["resource"];
      const named = typeof given === "string" ? URL.parse(given) : null;
      const own = URL.parse(url);
      // The official SDKs take the server's own address, or one above it on the same origin.
      const fits =
        named !== null &&
        named.origin === own?.origin &&
        `${own.pathname}/`.startsWith(`${named.pathname.replace(/\/$/, "")}/`);
      if (!fits)
        yield {
          where: "/resource/resource",
          evidence: `resource is ${typeof given === "string" ? given : "missing"}, the server ${url}`,
        };
    },
  },
  {
    id: "no-server-metadata",
    title: "names an authorization server that does not describe itself",
    owasp: "MCP07",
    principle: 5,
    severity: "medium",
    confidence: "high",
    why: "Without RFC 8414 or OpenID Connect metadata a client cannot see whether PKCE is there, and has to guess the addresses to which it sends codes.",
    fix: "Serve /.well-known/oauth-authorization-server at the issuer.",
    bad: [
      {
        issuer: "https://login.example.com",
        server: { place: "https://login.example.com/.well-known/x", problem: "answers 404" },
      },
    ],
    good: [server({ issuer: "https://login.example.com" })],
    find: function* ({ server: found }): Generator<ProbeSighting> {
      if (found !== undefined && found.document === undefined)
        yield { where: "/server", evidence: `${found.place} ${found.problem ?? "has none"}` };
    },
  },
  {
    id: "issuer-mismatch",
    title: "has an authorization server that says it is another",
    owasp: "MCP07",
    principle: 5,
    severity: "high",
    confidence: "high",
    why: "A document whose issuer is not the address it was read for may be another's (RFC 8414 §3.3): codes and tokens end in the wrong hands.",
    fix: "Write the same issuer, letter by letter, in both documents.",
    bad: [server({ issuer: "https://login.other.example" })],
    good: [server({ issuer: "https://login.example.com" })],
    find: function* ({ server: found, issuer }): Generator<ProbeSighting> {
      const given = found?.document?.["issuer"];
      if (found?.document === undefined || given === issuer) return;
      const slash = typeof given === "string" && given.replace(/\/$/, "") === issuer?.replace(/\/$/, "");
      yield {
        where: "/server/issuer",
        evidence: `issuer is ${typeof given === "string" ? given : "missing"}, not ${issuer}`,
        ...(slash && { severity: "low" as const }),
      };
    },
  },
  {
    id: "no-pkce",
    title: "does not offer PKCE with S256",
    owasp: "MCP07",
    principle: 5,
    severity: "high",
    confidence: "high",
    why: "A code that is caught on its way can be redeemed by whoever caught it. MCP clients have to refuse such a server.",
    fix: 'Support S256 and say so: code_challenge_methods_supported: ["S256"].',
    bad: [server({ issuer: "https://login.example.com" }), server({ code_challenge_methods_supported: ["plain"] })],
    good: [server({ code_challenge_methods_supported: ["S256"] })],
    find: function* ({ server: found }): Generator<ProbeSighting> {
      const methods = found?.document?.["code_challenge_methods_supported"];
      if (found?.document === undefined || strings(methods).includes("S256")) return;
      const given = methods === undefined ? "is missing" : `is ${strings(methods).join(", ") || "empty"}`;
      yield {
        where: "/server/code_challenge_methods_supported",
        evidence: `code_challenge_methods_supported ${given}`,
      };
    },
  },
  {
    id: "plain-pkce",
    title: "takes PKCE without a hash",
    owasp: "MCP07",
    principle: 5,
    severity: "medium",
    confidence: "high",
    why: "With `plain` the challenge is the secret: who sees the request can redeem the code (OAuth 2.1 §7.5).",
    fix: "Take S256 alone, and answer invalid_request to any other method.",
    bad: [
      server({ code_challenge_methods_supported: ["plain", "S256"] }),
      { authorization: { right: { outcome: "taken", said: "200" }, plainPkce: { outcome: "taken", said: "200" } } },
    ],
    good: [
      server({ code_challenge_methods_supported: ["S256"] }),
      {
        authorization: {
          right: { outcome: "taken", said: "200" },
          plainPkce: { outcome: "refused", said: "invalid_request" },
        },
      },
    ],
    find: function* ({ server: found, authorization = {} }): Generator<ProbeSighting> {
      if (strings(found?.document?.["code_challenge_methods_supported"]).includes("plain"))
        yield {
          where: "/server/code_challenge_methods_supported",
          evidence: "code_challenge_methods_supported names plain",
        };
      if (authorization.right?.outcome === "taken" && authorization.plainPkce?.outcome === "taken")
        yield {
          where: "/authorization/plainPkce",
          evidence: `code_challenge_method=plain: ${authorization.plainPkce.said}`,
        };
    },
  },
  {
    id: "answers-without-issuer",
    title: "does not say in its answers who gave the code",
    owasp: "MCP07",
    principle: 5,
    severity: "low",
    confidence: "high",
    why: "A client of several servers can be made to send the code of one to another (mix-up, RFC 9207).",
    fix: "Send `iss` with every authorization response, and say so in the metadata.",
    bad: [
      server({ issuer: "https://login.example.com" }),
      { ...server({ authorization_response_iss_parameter_supported: true }), authorization: { answerIssuer: null } },
      {
        ...server({ authorization_response_iss_parameter_supported: true }),
        authorization: { answerIssuer: "https://other.example" },
      },
    ],
    good: [server({ authorization_response_iss_parameter_supported: true })],
    find: function* ({ server: found, issuer, authorization }): Generator<ProbeSighting> {
      if (found?.document === undefined) return;
      const promised = found.document["authorization_response_iss_parameter_supported"] === true;
      const given = authorization?.answerIssuer;
      if (!promised)
        yield {
          where: "/server/authorization_response_iss_parameter_supported",
          evidence: "the metadata does not promise iss",
        };
      else if (given !== undefined && given !== issuer)
        yield {
          where: "/authorization/answerIssuer",
          evidence: given === null ? "iss is promised, and not sent" : `iss is ${given}, not ${issuer}`,
          severity: "high",
        };
    },
  },
  {
    id: "insecure-endpoint",
    title: "names an address that is not safe to use",
    owasp: "MCP07",
    principle: 5,
    severity: "high",
    confidence: "high",
    why: "Codes and tokens go where the metadata says: over plain http anybody reads them, and another scheme can reach a program of the client (CVE-2025-6514).",
    fix: "Name https addresses only, or http on this machine for a server that is there.",
    bad: [
      server({ token_endpoint: "http://login.example.com/token" }),
      server({ authorization_endpoint: "javascript:alert(1)" }),
      resource({ resource: "https://mcp.example.com/mcp", authorization_servers: ["http://login.example.com"] }),
    ],
    good: [
      server({ token_endpoint: "https://login.example.com/token" }),
      { local: true, ...server({ token_endpoint: "http://127.0.0.1:9000/token" }) },
    ],
    find: function* ({ resource: found, server: described, local }): Generator<ProbeSighting> {
      for (const issuer of strings(found?.document?.["authorization_servers"]))
        if (!safe(issuer, local))
          yield { where: "/resource/authorization_servers", evidence: `authorization_servers: ${issuer}` };
      for (const [name, value] of Object.entries(described?.document ?? {}))
        if ((name.endsWith("_endpoint") || name === "jwks_uri") && typeof value === "string" && !safe(value, local))
          yield { where: `/server/${name}`, evidence: `${name}: ${value}` };
    },
  },
  {
    id: "token-in-redirect",
    title: "gives tokens in an address, or for a password",
    owasp: "MCP01",
    principle: 5,
    severity: "medium",
    confidence: "high",
    why: "The implicit and the password grant put tokens into histories and passwords into clients; OAuth 2.1 has taken both away.",
    fix: "Offer response_types code, and the grants authorization_code, refresh_token and client_credentials.",
    bad: [
      server({ response_types_supported: ["code", "token"] }),
      server({ response_types_supported: ["code"], grant_types_supported: ["password"] }),
    ],
    good: [
      server({ response_types_supported: ["code", "code id_token"], grant_types_supported: ["authorization_code"] }),
    ],
    find: function* ({ server: found }): Generator<ProbeSighting> {
      const types = strings(found?.document?.["response_types_supported"]).filter((type) =>
        type.split(" ").includes("token"),
      );
      const grants = strings(found?.document?.["grant_types_supported"]).filter((grant) =>
        /^(?:implicit|password)$/.test(grant),
      );
      if (types.length > 0)
        yield { where: "/server/response_types_supported", evidence: `response_types_supported: ${types.join(", ")}` };
      if (grants.length > 0)
        yield { where: "/server/grant_types_supported", evidence: `grant_types_supported: ${grants.join(", ")}` };
    },
  },
  {
    id: "registration-alone",
    title: "knows new clients by open registration alone",
    owasp: "MCP07",
    principle: 5,
    severity: "info",
    confidence: "high",
    why: "Anybody registers under any name, and every start of a client leaves one more; a metadata document names a client by an address that is its own.",
    fix: "Take client ID metadata documents (client_id_metadata_document_supported), and leave registration off or bounded.",
    bad: [server({ registration_endpoint: "https://login.example.com/register" })],
    good: [
      server({
        registration_endpoint: "https://login.example.com/register",
        client_id_metadata_document_supported: true,
      }),
      server({ issuer: "https://login.example.com" }),
    ],
    find: function* ({ server: found }): Generator<ProbeSighting> {
      const { registration_endpoint: endpoint, client_id_metadata_document_supported: documents } =
        found?.document ?? {};
      if (typeof endpoint === "string" && documents !== true)
        yield { where: "/server/registration_endpoint", evidence: `registration_endpoint: ${endpoint}` };
    },
  },
];

const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);

function safe(address: string, local: boolean): boolean {
  const url = URL.parse(address);
  if (url === null || url.username !== "" || url.password !== "") return false;
  return url.protocol === "https:" || (url.protocol === "http:" && local && LOOPBACK.has(url.hostname));
}

function strings(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === "string") : [];
}
