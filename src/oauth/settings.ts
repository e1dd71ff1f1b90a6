/**
 * `signIn:`, `clients:`, `tokens:` and `authorization:` in the settings file: how people sign in, which clients may ask, how long
 * tokens live, or which other server does all of that.
 */
import { z } from "zod";
import { secretField } from "../core/secret.ts";
import { ALL_SCOPES } from "./metadata.ts";

const domain = z
  .string()
  .regex(
    /^(\*\.)?[\p{L}\p{M}\p{N}-]+(\.[\p{L}\p{M}\p{N}-]+)*(:\d+)?$/u,
    "expected a domain such as claude.ai or *.example.com",
  )
  .describe("A domain, or `*.domain` for all below it; with a port, only there.");

/** A claim by name, or a path of names for a nested one (`realm_access.roles`). */
const claim = z.string().regex(/^[^\s.]+(\.[^\s.]+)*$/, "expected a claim such as groups or realm_access.roles");
const issuer = z
  .url({ protocol: /^https?$/ })
  .describe("The issuer, exactly as its metadata document spells it. https, or http on loopback.");
const providerName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,39}$/, "expected lower-case letters, digits and hyphens, starting with a letter");
const scopeToken = z.string().regex(/^[\x21\x23-\x5B\x5D-\x7E]+$/, "expected a scope (RFC 6749 §3.3)");
const audience = z.url().describe("The resource identifier of an API (RFC 8707), e.g. https://orders.example/mcp.");

/** What a token for an API may say: a list of its scopes, or for each of our scopes those it stands for there. */
export const upstreamScopes = z.union([z.array(scopeToken), z.record(scopeToken, z.array(scopeToken))]);

const signInProvider = z.strictObject({
  issuer,
  label: z
    .string()
    .min(1)
    .max(60)
    .optional()
    .describe("What the button says: Sign in with <label>. Default: the name."),
  clientId: z.string().min(1).max(200).describe("What Drawbridge is called there."),
  clientSecret: secretField.optional().describe("Omit it for a public client; PKCE is used either way."),
  scopes: z.array(scopeToken).default(["openid", "profile", "email"]),
  responseMode: z
    .enum(["query", "form_post"])
    .default("query")
    .describe("How the provider answers: in the URL that it sends the browser to, or in a form that it has it send."),
  groupsClaim: claim
    .default("groups")
    .describe("The claim of the ID token, or of userinfo, whose values become the user's groups."),
  groupsPrefix: z
    .string()
    .max(60)
    .default("")
    .describe("Put before each group, so that groups of two providers (or the local `owner`) cannot be mistaken."),
  requiredGroups: z
    .array(z.string().min(1))
    .default([])
    .describe("Who is in none of these, as the provider calls them, may not sign in. Empty: everyone may."),
  emailDomains: z
    .array(domain)
    .default([])
    .describe("Only people with a verified e-mail address in one of these domains may sign in. Empty: everyone may."),
  identityAssertions: z
    .boolean()
    .default(false)
    .describe(
      "Accept identity assertions (ID-JAG, enterprise-managed authorization) that this provider signs for its users.",
    ),
});

export const signInSettings = z
  .strictObject({
    local: z
      .boolean()
      .default(true)
      .describe(
        "Users kept by Drawbridge itself. The first start prints a one-time link that makes the owner's account.",
      ),
    providers: z
      .record(providerName, signInProvider)
      .default({})
      .describe("OpenID Connect providers that people sign in with, each a button on the sign-in page."),
    trustedCertificates: z
      .string()
      .optional()
      .describe("A PEM file of certificates to trust for providers and other issuers, beside the system's."),
    sessionHours: z.number().min(0.1).max(720).default(8).describe("How long a browser stays signed in."),
  })
  .prefault({});

const groups = z.array(z.string().min(1)).default([]);
const ownScopes = z
  .array(z.enum(ALL_SCOPES).or(scopeToken))
  .min(1)
  .default([...ALL_SCOPES]);
const preregisteredClient = z
  .strictObject({
    id: z.string().min(1).max(200),
    name: z.string().min(1).max(100),
    redirectUris: z.array(z.string()).default([]).describe("Needed for clients that act for people."),
    secret: secretField.optional().describe("Makes it a confidential client (client_secret_basic or _post)."),
    jwks: z
      .looseObject({ keys: z.array(z.looseObject({ kty: z.string() })).min(1) })
      .optional()
      .describe("Public keys: makes it a confidential client (private_key_jwt)."),
    jwksUri: z
      .url({ protocol: /^https$/ })
      .optional()
      .describe("Where its public keys are: makes it a confidential client (private_key_jwt)."),
    service: z
      .strictObject({ groups, scopes: ownScopes })
      .optional()
      .describe("It may get tokens for itself (client_credentials), with these groups and at most these scopes."),
    owns: z
      .array(audience)
      .default([])
      .describe(
        "It is the API with these resource identifiers: it may introspect tokens for them, and exchange them onward.",
      ),
    mayExchangeFor: z
      .array(
        z.strictObject({
          audience,
          scopes: upstreamScopes
            .optional()
            .describe(
              "The API's scopes: a list, or for each scope of its own those it stands for there. Default: the same names.",
            ),
        }),
      )
      .default([])
      .describe("APIs that it may get a user's token for, in exchange for one it was called with (RFC 8693)."),
    dpop: z.boolean().default(false).describe("Its tokens must be bound to a key of its own (RFC 9449)."),
  })
  .superRefine((client, ctx) => {
    const ways = [client.secret, client.jwks, client.jwksUri].filter((way) => way !== undefined).length;
    const refuse = (path: string, message: string) => ctx.addIssue({ code: "custom", path: [path], message });
    if (ways > 1) refuse("secret", "give one of secret, jwks and jwksUri");
    if (client.jwks?.keys.some((key) => "d" in key || "k" in key))
      refuse("jwks", "a key in it is private: give the public part, and keep the private one where it is used");
    if (ways === 0 && (client.service !== undefined || client.owns.length > 0 || client.mayExchangeFor.length > 0))
      refuse("secret", "a service or an API must authenticate: give secret, jwks or jwksUri");
    if (client.redirectUris.length === 0 && client.service === undefined && client.owns.length === 0)
      refuse("redirectUris", "give at least one, or `service` or `owns` for a client that no person uses");
    if (client.mayExchangeFor.length > 0 && client.owns.length === 0)
      refuse("mayExchangeFor", "only the owner of an audience exchanges tokens for it: name the audience in `owns`");
  });

const workload = z.strictObject({
  id: z
    .string()
    .min(1)
    .max(200)
    .describe("What the workload is called here: the client and the subject of its tokens."),
  name: z.string().min(1).max(100),
  issuer,
  jwksUri: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe("Where the issuer's keys are. Default: its metadata document says."),
  subject: z
    .string()
    .min(1)
    .max(1000)
    .describe("Glob over the `sub` of its platform's token, e.g. repo:acme/shop:ref:refs/heads/*."),
  audience: z.string().min(1).optional().describe("The `aud` its platform's token must have. Default: our issuer."),
  reusable: z
    .boolean()
    .default(false)
    .describe(
      "The platform's token may be shown more than once while it is valid. Needed where the platform gives one for an hour, as Kubernetes does.",
    ),
  groups,
  scopes: ownScopes,
});

export const clientsSettings = z
  .strictObject({
    metadataDocuments: z
      .strictObject({
        enabled: z
          .boolean()
          .default(true)
          .describe("Client ID Metadata Documents: the client id is the https URL of a document about the client."),
        allow: z.array(domain).default([]).describe("Domains whose clients are shown as allowed by the operator."),
        deny: z.array(domain).default([]).describe("Domains whose clients are refused, whatever else names them."),
        pins: z
          .record(
            z.url({ protocol: /^https$/ }),
            z.string().regex(/^[a-f0-9]{64}$/, "expected a SHA-256 in lower-case hex"),
          )
          .default({})
          .describe(
            "Client id → SHA-256 of its document (`drawbridge clients show` prints it). The client is allowed by this; a document that differs is refused.",
          ),
        others: z
          .enum(["ask", "deny"])
          .default("ask")
          .describe("Clients of any other domain: ask the user with a warning, or refuse."),
        allowPrivateAddresses: z
          .boolean()
          .default(false)
          .describe("Insecure: fetch documents from loopback and private addresses too. For development."),
        extraPorts: z
          .array(z.int().min(1).max(65_535))
          .default([])
          .describe("Ports beside 443 that a document may be fetched from."),
        trustedCertificates: z
          .string()
          .optional()
          .describe("A PEM file of certificates to trust for documents, beside the system's."),
      })
      .prefault({}),
    registration: z
      .enum(["auto", "off", "initial-access-token", "open"])
      .default("auto")
      .describe(
        "RFC 7591 dynamic client registration, for clients without a metadata document. `auto`: open where publicUrl is loopback, so that only programs of this machine can register, and off elsewhere. `initial-access-token`: for holders of a token that `drawbridge clients token` made.",
      ),
    customSchemes: z
      .array(
        z
          .string()
          .regex(
            /^(?!(?:https?|javascript|data|file|blob|vbscript|about|ws|wss|ftp|mailto):?$)[a-z][a-z0-9+.-]*$/,
            "expected a scheme of a program such as cursor",
          ),
      )
      .default(["cursor", "vscode", "vscode-insiders"])
      .describe("URI schemes of programs that clients may be sent back to, beside https and loopback http."),
    maxRegistered: z.int().min(1).max(1_000_000).default(1000).describe("Dynamically registered clients kept at most."),
    requestsPerSourcePerMinute: z
      .int()
      .min(0)
      .max(10_000_000)
      .default(1200)
      .describe(
        "What one address (IPv6: one /64 network) may ask of each kind of endpoint of the authorization server in a minute. A token that is given costs nothing; a refused code, token or secret costs twenty. 0: no limit.",
      ),
    registrationsPerSourcePerHour: z
      .int()
      .min(1)
      .max(1_000_000)
      .default(60)
      .describe("Clients that one address may register in an hour."),
    registeredUnusedDays: z
      .number()
      .min(0.01)
      .max(3650)
      .default(30)
      .describe("A registered client that nobody uses for so long is deleted."),
    preregistered: z
      .array(preregisteredClient)
      .default([])
      .describe(
        "Clients that the operator sets up: confidential ones, services without a person, APIs that exchange tokens.",
      ),
    workloads: z
      .array(workload)
      .default([])
      .describe(
        "Workloads that authenticate with a token of their platform instead of a secret (RFC 7523 JWT bearer grant).",
      ),
  })
  .prefault({});

export const tokensSettings = z
  .strictObject({
    signingAlgorithm: z
      .enum(["ES256", "EdDSA", "RS256"])
      .default("ES256")
      .describe("How access tokens are signed. RS256 only for resource servers that know nothing else."),
    keyEncryptionSecret: secretField
      .optional()
      .describe("Encrypts the keys in the store. Without it, who can read the store can sign tokens."),
    dpop: z
      .enum(["off", "optional", "required"])
      .default("optional")
      .describe("Tokens bound to a key of the client (RFC 9449): refused, accepted, or demanded of every client."),
    dpopNonce: z
      .boolean()
      .default(false)
      .describe(
        "Each proof needs a nonce of ours, so that none can be made in advance (RFC 9449 §9). Clients ask once every two to four minutes.",
      ),
    accessTokenSeconds: z
      .int()
      .min(60)
      .max(3600)
      .default(300)
      .describe("How long an access token lives. Shorter limits what a stolen one can do."),
    refreshTokenDays: z
      .number()
      .min(0.01)
      .max(365)
      .default(14)
      .describe("How long an unused refresh token lives; each use gives a new one."),
    grantDays: z
      .number()
      .min(0.01)
      .max(3650)
      .default(30)
      .describe("How long a consent lasts before the user is asked again."),
    refreshGraceSeconds: z
      .int()
      .min(0)
      .max(60)
      .default(10)
      .describe(
        "A refresh token may be used again for so long after its first use, for clients that race themselves. 0 is strict.",
      ),
  })
  .prefault({});

/** Another authorization server than the embedded one. */
export const authorizationSettings = z.strictObject({
  issuer,
  audience: z
    .string()
    .min(1)
    .optional()
    .describe("The `aud` its tokens must have. Default: the MCP endpoint's URL, as RFC 8707 wants it."),
  introspection: z
    .strictObject({ clientId: z.string().min(1), clientSecret: secretField })
    .optional()
    .describe(
      "Ask the server about each token (RFC 7662), for servers whose tokens are no JWTs. Default: RFC 9068 JWTs.",
    ),
  exchange: z
    .strictObject({ clientId: z.string().min(1), clientSecret: secretField })
    .optional()
    .describe("What Drawbridge is called there when it exchanges a token for an upstream's (RFC 8693)."),
  subjectClaim: claim.default("sub"),
  clientClaims: z
    .array(claim)
    .default(["client_id", "azp", "cid"])
    .describe("The first of these that a token has names its client."),
  groupsClaim: claim.default("groups"),
  scopeClaims: z.array(claim).default(["scope", "scp"]),
  scopes: z
    .strictObject({ read: z.array(scopeToken).default(["mcp:read"]), call: z.array(scopeToken).default(["mcp:call"]) })
    .prefault({})
    .describe("Which scopes of the server stand for reading and for calling here; any of a list is enough."),
  trustedCertificates: z
    .string()
    .optional()
    .describe("A PEM file of certificates to trust for it, beside the system's."),
  allowPrivateAddresses: z
    .boolean()
    .default(true)
    .describe("It may be on a private network; false refuses private addresses."),
});

export type SignInSettings = z.infer<typeof signInSettings>;
export type SignInProvider = z.infer<typeof signInProvider>;
export type ClientsSettings = z.infer<typeof clientsSettings>;
export type PreregisteredClient = z.infer<typeof preregisteredClient>;
export type Workload = z.infer<typeof workload>;
export type UpstreamScopes = z.infer<typeof upstreamScopes>;
export type TokensSettings = z.infer<typeof tokensSettings>;
export type AuthorizationSettings = z.infer<typeof authorizationSettings>;
