/** `listen:`, `tls:`, `interaction:` and `control:` in the settings file: the HTTP edge, what servers may ask their clients, and the operator's own door. */
import { z } from "zod";
import { isNetwork } from "../net/source.ts";

export const listenSettings = z
  .strictObject({
    host: z
      .string()
      .default("127.0.0.1")
      .describe("The address to listen on. One that is not loopback needs `tls`, or `behindTlsProxy`."),
    port: z.int().min(0).max(65_535).default(7337).describe("0 takes a free port (only where publicUrl is absent)."),
    behindTlsProxy: z.boolean().default(false).describe("TLS ends at a proxy in front; publicUrl must be https."),
    trustedProxies: z
      .array(z.string().refine(isNetwork, "expected an address or a CIDR block such as 10.0.0.0/8, not all addresses"))
      .default([])
      .describe(
        "Addresses and CIDR blocks of proxies in front whose X-Forwarded-For is believed, e.g. 10.0.0.0/8. It says where requests come from, for records and for limits per source. Without it both know only the proxy.",
      ),
    allowInsecureHttp: z.boolean().default(false).describe("Insecure: plain http on an address that is not loopback."),
    allowedOrigins: z
      .array(z.string())
      .default([])
      .describe(
        "Browser origins that may call /mcp, beside publicUrl's own, e.g. https://inspector.example. Loopback origins may when publicUrl is loopback.",
      ),
    allowedHosts: z
      .array(z.string())
      .default([])
      .describe("Host header values accepted beside publicUrl's own (and loopback names when publicUrl is loopback)."),
    maxBodyBytes: z
      .int()
      .min(1024)
      .max(1 << 30)
      .default(4 << 20)
      .describe("The largest request body."),
    maxDepth: z.int().min(8).max(10_000).default(64).describe("The deepest nesting of a request."),
    bodyTimeoutSeconds: z
      .number()
      .min(0.1)
      .max(600)
      .default(30)
      .describe("How long a client may take to send one request."),
    maxConnections: z.int().min(1).max(1_000_000).default(20_000),
    maxSessions: z
      .int()
      .min(1)
      .max(10_000_000)
      .default(100_000)
      .describe("Sessions of 2025 clients kept at most; the one unused for longest goes first."),
    sessionIdleSeconds: z
      .int()
      .min(10)
      .max(2_592_000)
      .default(86_400)
      .describe("A session that nobody uses for so long ends."),
    resumeSeconds: z
      .int()
      .min(0)
      .max(3600)
      .default(60)
      .describe(
        "How long a 2025 client that lost its connection may take to come back to a stream. Its calls go on meanwhile, and end then. 0: a lost connection cancels its call at once.",
      ),
    metrics: z
      .enum(["local", "open"])
      .default("local")
      .describe(
        "Who may read /metrics: processes of this machine that come without a proxy, or everyone who reaches the port.",
      ),
    shutdownSeconds: z
      .number()
      .min(0)
      .max(600)
      .default(20)
      .describe("How long calls in flight may go on when the gateway is stopped."),
  })
  .prefault({});

export const tlsSettings = z.strictObject({
  certificate: z.string().describe("PEM file of the certificate chain. Read again when it changes, without a restart."),
  key: z.string().describe("PEM file of the private key."),
});

export const interactionSettings = z
  .strictObject({
    answerSeconds: z
      .int()
      .min(5)
      .max(86_400)
      .default(600)
      .describe(
        "How long a client may take to answer what a server asks it during a call. Then the call is cancelled.",
      ),
    maxSuspendedPerPrincipal: z
      .int()
      .min(1)
      .max(100_000)
      .default(10)
      .describe(
        "Calls of one user through one client that may wait for answers while the client is not connected (2026-07-28). The newest beyond it is refused.",
      ),
    maxSuspended: z.int().min(1).max(1_000_000).default(1000).describe("The same for all users together."),
  })
  .prefault({});

export const controlSettings = z
  .strictObject({
    socket: z
      .string()
      .min(1)
      .default("auto")
      .describe(
        "Where `drawbridge servers` reaches the gateway on its own machine: the path of a Unix socket that only the gateway's user can open, or `off`. `auto`: `control.sock` beside the SQLite store, else in `.drawbridge/` beside this file; none with the store `memory`, and on Windows.",
      ),
    watch: z
      .boolean()
      .default(true)
      .describe(
        "Takes changes of this file within a second after they are saved, as `drawbridge servers reload` does: all of them, or none when anything in it is wrong. false: only when somebody asks for it.",
      ),
  })
  .prefault({});

export type ControlSettings = z.infer<typeof controlSettings>;
export type InteractionSettings = z.infer<typeof interactionSettings>;
export type ListenSettings = z.infer<typeof listenSettings>;
export type TlsSettings = z.infer<typeof tlsSettings>;
