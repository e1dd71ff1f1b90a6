/** `signIn:`, `clients:` and `tokens:` in the settings file: how people sign in, which clients may ask, how long tokens live. */
import { z } from "zod";
import { secretField } from "../core/secret.ts";

const domain = z
  .string()
  .regex(/^(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*(:\d+)?$/, "expected a domain such as claude.ai or *.example.com")
  .describe("A domain, or `*.domain` for all below it.");

export const signInSettings = z
  .strictObject({
    local: z
      .boolean()
      .default(true)
      .describe(
        "Users kept by Drawbridge itself. The first start prints a one-time link that makes the owner's account.",
      ),
    sessionHours: z.number().min(0.1).max(720).default(8).describe("How long a browser stays signed in."),
  })
  .prefault({});

export const clientsSettings = z
  .strictObject({
    metadataDocuments: z
      .strictObject({
        enabled: z
          .boolean()
          .default(true)
          .describe("Client ID Metadata Documents: the client id is the https URL of a document about the client."),
        allow: z.array(domain).default([]).describe("Domains whose clients are shown as allowed by the operator."),
        deny: z.array(domain).default([]).describe("Domains whose clients are refused."),
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
      .enum(["auto", "off", "open"])
      .default("auto")
      .describe(
        "RFC 7591 dynamic client registration, for clients without a metadata document. `auto`: open where publicUrl is loopback, so that only programs of this machine can register, and off elsewhere.",
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
    registeredUnusedDays: z
      .number()
      .min(0.01)
      .max(3650)
      .default(30)
      .describe("A registered client that nobody uses for so long is deleted."),
    preregistered: z
      .array(
        z.strictObject({
          id: z.string().min(1).max(200),
          name: z.string().min(1).max(100),
          redirectUris: z.array(z.string()).min(1),
          secret: secretField.optional().describe("Makes it a confidential client (client_secret_basic or _post)."),
        }),
      )
      .default([]),
  })
  .prefault({});

export const tokensSettings = z
  .strictObject({
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

export type SignInSettings = z.infer<typeof signInSettings>;
export type ClientsSettings = z.infer<typeof clientsSettings>;
export type TokensSettings = z.infer<typeof tokensSettings>;
