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
  healthSeconds: z
    .number()
    .min(0)
    .max(86_400)
    .default(15)
    .describe(
      "How often a server that is not in use is asked for a sign of life (a ping of MCP). 0: only after failures.",
    ),
  startTimeoutSeconds: seconds.default(30).describe("How long the first handshake may take."),
  maxAnswerBytes: z
    .int()
    .min(1024)
    .max(1 << 30)
    .default(10 << 20)
    .describe("The largest single message of the upstream, in bytes. A larger one ends the call with an error."),
};

const isolation = z.enum(["shared", "per-user", "per-session"]).default("shared");

/** Where a value comes from that is different for each user. */
const userValue = z.union([
  z.strictObject({
    from: z
      .union([z.enum(["subject", "client"]), z.string().regex(/^claims\.[A-Za-z0-9_.:/-]+$/)])
      .describe("`subject`, `client`, or a claim of the user's, such as `claims.email`."),
    otherwise: z.string().optional().describe("For what is asked on nobody's behalf, such as the list of tools."),
  }),
  z.strictObject({
    secret: z
      .string()
      .regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*$/)
      .describe(
        "The folder of a secret for each user: `secrets/<name>/<subject>`. A user without one is refused, and told so.",
      ),
    otherwise: secretField.optional().describe("For what is asked on nobody's behalf, such as the list of tools."),
  }),
]);
const environmentName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/);
const headerName = z.string().regex(/^[A-Za-z0-9-]+$/);

/** `host:port`, `*.domain:port`; nothing else may be reached. */
const egress = z
  .string()
  .regex(
    /^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?:\d{1,5}$|^\[[0-9A-Fa-f:.]+\]:\d{1,5}$/,
    "expected host:port, *.domain:port or [address]:port",
  );

export const sandboxSettings = z.strictObject({
  network: z
    .array(egress)
    .max(100)
    .default([])
    .describe(
      "Hosts that the server may reach through the proxy it is given, as host:port. Default: none; there is no other way out. A name that leads to a private address needs that address beside it.",
    ),
  read: z
    .array(z.string().min(1))
    .max(100)
    .default([])
    .describe(
      "Files and folders that it may read beside its own program and the system's. Relative to the settings file, or to the home folder by `~`.",
    ),
  write: z
    .array(z.string().min(1))
    .max(100)
    .default([])
    .describe(
      "Files and folders that it may change. Default: none but its own empty /tmp and home, which are gone with it.",
    ),
  memoryMb: z
    .int()
    .min(16)
    .max(1_048_576)
    .default(1024)
    .describe("Memory of a process and all that it starts, together."),
  processes: z
    .int()
    .min(1)
    .max(10_000)
    .default(64)
    .describe("Processes and threads that it may have; a Node program alone has 11."),
  tmpMb: z
    .int()
    .min(1)
    .max(1_048_576)
    .default(64)
    .describe("The size of its /tmp, of its home and of /dev/shm, each; what is in them counts as memory."),
  require: z
    .boolean()
    .default(false)
    .describe(
      "Refuse to start where this cannot be enforced (no bubblewrap, no control groups); otherwise the start says what is missing.",
    ),
});

/** For a server without a URL of its own. */
const NO_AUDIENCE =
  "must name the API behind the server, which has no url: `credentials: { exchange: { audience: https://api.example } }`";

/** `credentials` of a server that is no API itself, and calls one. */
const forApiBehind = z.strictObject(
  {
    exchange: z.strictObject(
      {
        audience: z.url({ error: audienceError }).describe("The resource identifier of the API behind the server."),
        scopes: z
          .union([z.array(z.string().min(1)), z.record(z.string().min(1), z.array(z.string().min(1)))])
          .optional()
          .describe("That API's scopes: a list, or for each of ours those it stands for. Default: the same names."),
      },
      { error: audienceError },
    ),
  },
  { error: audienceError },
);

/** Whatever form it is missing in. */
function audienceError({ code }: { readonly code?: string | undefined }): string | undefined {
  return code === "invalid_type" ? NO_AUDIENCE : undefined;
}

export const stdioServer = z.strictObject({
  command: z
    .array(z.union([z.string().min(1), secretField]))
    .min(1)
    .describe(
      "The program and its arguments. Started as it stands, never through a shell. A secret in an argument can be seen by every program of the machine: prefer `environment`.",
    ),
  isolation: isolation.describe(
    "Who shares a process: everybody; nobody with another user (`per-user`); nobody with another session (`per-session`).",
  ),
  instances: z
    .strictObject({
      max: z
        .int()
        .min(1)
        .max(10_000)
        .default(64)
        .describe(
          "Users (or sessions) that have processes at the same time. For a further one the one idle for longest gives way; when none is idle it is refused with 503.",
        ),
      processes: z.int().min(1).max(64).default(2).describe("The most processes of one user (or session)."),
      idleSeconds: seconds
        .default(600)
        .describe("A user (or session) whose processes do nothing for so long loses them."),
    })
    .prefault({})
    .describe("With `isolation: per-user` and `per-session`; `processes` is for shared ones."),
  userEnvironment: z
    .record(environmentName, userValue)
    .default({})
    .describe("Environment that is different for each user; needs `isolation: per-user` or `per-session`."),
  sandbox: sandboxSettings
    .optional()
    .describe("Confines the processes (bubblewrap, Linux). Default: they may do what the gateway's own user may."),
  credentials: forApiBehind
    .optional()
    .describe(
      "Each call carries, in `_meta`, a token for this API and the calling user (RFC 8693), never the caller's own. Default: none.",
    ),
  cwd: z.string().optional().describe("The working directory, relative to the settings file."),
  environment: z
    .record(environmentName, z.union([z.string(), secretField]))
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

const upstreamOAuth = z.preprocess(
  (written) => (typeof written === "string" ? { of: written } : written),
  z.strictObject({
    of: z
      .enum(["per-user", "operator"])
      .describe("Whose authorization calls carry: that of the calling user, or one that the operator gave for all."),
    scopes: z
      .array(z.string().min(1))
      .optional()
      .describe("Scopes to ask for at first. Default: those that the server's challenge or metadata names."),
    clientId: z
      .string()
      .min(1)
      .optional()
      .describe("A client that was registered there by hand. Default: our metadata document, or dynamic registration."),
    clientSecret: secretField.optional(),
    issuer: z
      .url({ protocol: /^https?$/ })
      .optional()
      .describe(
        "The only authorization server that is believed, which may then be on a private network. Default: the first that the server names, on public addresses unless the server's own URL is a private address.",
      ),
    allowInsecureHttp: z
      .boolean()
      .default(false)
      .describe("Insecure: allows plain http to an authorization server that is not loopback."),
  }),
);

export const httpServer = z.strictObject({
  url: z
    .url({ protocol: /^https?$/ })
    .describe("The MCP endpoint. Plain http is for loopback or with `allowInsecureHttp`."),
  headers: z
    .record(headerName, z.union([z.string(), secretField]))
    .default({})
    .describe("Headers sent with each request, for example an API key by reference. No client ever sees them."),
  userHeaders: z
    .record(headerName, userValue)
    .default({})
    .describe("Headers that are different for each user; needs `isolation: per-user` or `per-session`."),
  isolation: isolation.describe(
    "Who shares a session at the server: everybody; nobody with another user; nobody with another session.",
  ),
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
      z.strictObject({ oauth: upstreamOAuth }),
    ])
    .optional()
    .describe(
      "`exchange`: each call carries a token made for this upstream and the calling user (RFC 8693), never the caller's own. `oauth`: the server has an authorization server of its own, and each user (or the operator) connects once. Default: none but `headers`.",
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
      "At a server that keeps sessions, one for each user and client, never shared: with `credentials` or `isolation`, and for clients that the server may ask something.",
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

export const moduleServer = z.strictObject({
  module: z
    .string()
    .min(1)
    .describe(
      "A file that exports a server of `drawbridge-mcp/author`, relative to the settings file. It runs inside the gateway, with no hop and with the gateway's own rights; what its tools declare (access, masks, limits, scopes, approvals) is enforced as if it stood under `tools:`, and what stands there counts first.",
    ),
  credentials: forApiBehind
    .optional()
    .describe(
      "What `context.upstreamToken()` of a handler gives: a token for this API and the calling user (RFC 8693), never the caller's own.",
    ),
  ...common,
});

export const serverName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,39}$/, "expected lower-case letters, digits and hyphens, starting with a letter");

export const serversSettings = z
  .record(serverName, z.union([stdioServer, httpServer, moduleServer]))
  .refine((servers) => Object.keys(servers).length > 0, "at least one server is needed");

export type SandboxSettings = z.infer<typeof sandboxSettings>;
export type UserValue = z.infer<typeof userValue>;
export type UpstreamOAuthSettings = z.infer<typeof upstreamOAuth>;
export type Isolation = z.infer<typeof isolation>;
export type StdioServerSettings = z.infer<typeof stdioServer>;
export type HttpServerSettings = z.infer<typeof httpServer>;
/** A server that has an authorization server of its own. */
export type OAuthServerSettings = HttpServerSettings & {
  readonly credentials: { readonly oauth: UpstreamOAuthSettings };
};
export type ModuleServerSettings = z.infer<typeof moduleServer>;
export type ServerSettings = StdioServerSettings | HttpServerSettings | ModuleServerSettings;

export function hasOAuth(server: ServerSettings): server is OAuthServerSettings {
  return "url" in server && typeof server.credentials === "object" && "oauth" in server.credentials;
}
