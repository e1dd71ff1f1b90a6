/** `servers:` in the settings file: the MCP servers behind the gateway. */
import { z } from "zod";
import { secretField } from "../core/secret.ts";

const seconds = z.number().min(0.001).max(86_400);

const common = {
  timeoutSeconds: seconds
    .default(60)
    .describe(
      "How long the upstream may stay silent during one call. Each progress notification starts the time anew.",
    ),
  maxCallSeconds: seconds.default(600).describe("The longest one call may take, progress or not."),
  answerSeconds: seconds
    .default(600)
    .describe(
      "How long a question of the server to its client (elicitation, sampling, roots) may wait for the answer. The call's own times stand still meanwhile.",
    ),
  startTimeoutSeconds: seconds.default(30).describe("How long the first handshake may take."),
  maxAnswerBytes: z
    .int()
    .min(1024)
    .max(1 << 30)
    .default(10 << 20)
    .describe("The largest single message of the upstream, in bytes. A larger one ends the call with an error."),
};

export const stdioServer = z.strictObject({
  command: z
    .array(z.string().min(1))
    .min(1)
    .describe("The program and its arguments. Started as it stands, never through a shell."),
  cwd: z.string().optional().describe("The working directory, relative to the settings file."),
  environment: z
    .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.union([z.string(), secretField]))
    .default({})
    .describe(
      "Environment of the process, beside PATH, HOME, LANG, TZ, TMPDIR and the like. Nothing else of the gateway's environment is passed on.",
    ),
  processes: z
    .strictObject({
      min: z.int().min(0).max(64).default(1).describe("Processes kept running."),
      max: z
        .int()
        .min(1)
        .max(64)
        .default(8)
        .describe(
          "The most processes of this server. More are started only while calls wait behind a process that does not answer pings, and for clients with other capabilities; 1 keeps all state in one process, which cannot ask clients anything.",
        ),
      idleSeconds: seconds.default(60).describe("How long a process beyond `min` may be idle before it is stopped."),
    })
    .prefault({}),
  maxInFlight: z
    .int()
    .min(1)
    .max(1000)
    .default(64)
    .describe("Calls under way in one process at most; further ones wait."),
  maxQueued: z
    .int()
    .min(0)
    .max(100_000)
    .default(10_000)
    .describe("Calls that may wait for a process; further ones are refused with 503."),
  ...common,
});

export const httpServer = z.strictObject({
  url: z
    .url({ protocol: /^https?$/ })
    .describe("The MCP endpoint. Plain http is for loopback or with `allowInsecureHttp`."),
  headers: z
    .record(z.string().regex(/^[A-Za-z0-9-]+$/), z.union([z.string(), secretField]))
    .default({})
    .describe("Headers sent with each request, for example an API key by reference. No client ever sees them."),
  credentials: z
    .union([
      z.literal("exchange"),
      z.strictObject({
        exchange: z.strictObject({
          audience: z.url().optional().describe("The resource identifier of the upstream. Default: its URL."),
          scopes: z
            .union([z.array(z.string().min(1)), z.record(z.string().min(1), z.array(z.string().min(1)))])
            .optional()
            .describe(
              "The upstream's scopes: a list, or for each of ours those it stands for. Default: the same names.",
            ),
        }),
      }),
    ])
    .optional()
    .describe(
      "Each call carries a token made for this upstream and the calling user (RFC 8693), never the caller's own. Default: none but `headers`.",
    ),
  transport: z
    .enum(["auto", "streamable-http", "sse"])
    .default("auto")
    .describe(
      "`sse` is HTTP+SSE of revision 2024-11-05; `auto` falls back to it when the server does not take Streamable HTTP.",
    ),
  sessions: z
    .strictObject({
      max: z
        .int()
        .min(1)
        .max(100_000)
        .default(1000)
        .describe("Sessions kept at most. Beyond it the one that was unused for longest is ended."),
      idleSeconds: seconds.default(300).describe("How long a session may be unused before it is ended."),
    })
    .prefault({})
    .describe(
      "At a server that keeps sessions, one for each user and client, never shared: with `credentials`, and for clients that the server may ask something.",
    ),
  allowInsecureHttp: z.boolean().default(false).describe("Insecure: allows plain http to a host that is not loopback."),
  allowPrivateAddresses: z
    .boolean()
    .default(true)
    .describe(
      "Upstreams may be on private networks; set to false to refuse private, loopback and link-local addresses.",
    ),
  maxConnections: z.int().min(1).max(10_000).default(256).describe("Open connections to this upstream at most."),
  maxQueued: z
    .int()
    .min(0)
    .max(100_000)
    .default(10_000)
    .describe("Calls that may wait for a connection; further ones are refused with 503."),
  ...common,
});

export const serverName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,39}$/, "expected lower-case letters, digits and hyphens, starting with a letter");

export const serversSettings = z
  .record(serverName, z.union([stdioServer, httpServer]))
  .refine((servers) => Object.keys(servers).length > 0, "at least one server is needed");

export type StdioServerSettings = z.infer<typeof stdioServer>;
export type HttpServerSettings = z.infer<typeof httpServer>;
export type ServerSettings = StdioServerSettings | HttpServerSettings;
