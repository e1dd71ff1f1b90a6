/** `audit.export` in the settings file: where records are sent besides being kept. */
import { z } from "zod";
import { secretField } from "../../core/secret.ts";

const headerName = z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, "expected the name of an HTTP header");
const headers = z
  .record(headerName, z.union([z.string(), secretField]))
  .default({})
  .describe("Headers sent with each request, for example a key by reference.");
const trustedCertificates = z
  .string()
  .min(1)
  .optional()
  .describe("A PEM file of certificates to trust, beside the system's.");
const allowInsecureHttp = z
  .boolean()
  .default(false)
  .describe("Insecure: plain http to a host that is not this machine.");
const allowPrivateAddresses = z
  .boolean()
  .default(true)
  .describe("It may be on a private network; false refuses private addresses.");
const tls = z
  .strictObject({ trustedCertificates })
  .optional()
  .describe("TLS is used to every host but this machine; `{}` uses it there too.");
const allowInsecurePlaintext = z
  .boolean()
  .default(false)
  .describe("Insecure: no TLS to hosts that are not this machine.");
const hostAndPort = z
  .string()
  .regex(/^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$/, "expected host:port, e.g. kafka-1.acme.example:9093");

export const fileSinkSettings = z.strictObject({
  path: z.string().min(1).describe("The file, relative to the settings file. Mode 0600."),
  maxBytes: z
    .int()
    .min(1024)
    .max(2 ** 40)
    .default(100 * 2 ** 20)
    .describe("A new file is begun when the one in use is as large."),
  daily: z.boolean().default(false).describe("A new file is begun each day too (UTC)."),
  keepFiles: z
    .int()
    .min(1)
    .max(10_000)
    .default(30)
    .describe("So many finished files are kept; older ones are deleted."),
});

export const httpSinkSettings = z.strictObject({
  url: z.url({ protocol: /^https?$/ }).describe("Gets POST requests. Redirects are not followed."),
  headers,
  batch: z.int().min(1).max(1000).default(100).describe("Records in one request, at most."),
  timeoutSeconds: z.int().min(1).max(120).default(15).describe("A request without an answer for so long has failed."),
  trustedCertificates,
  allowPrivateAddresses,
  allowInsecureHttp,
});

export const otlpSinkSettings = z.strictObject({
  endpoint: z
    .url({ protocol: /^https?$/ })
    .describe("OTLP/HTTP, e.g. http://127.0.0.1:4318; `/v1/logs` is put behind it."),
  headers,
  trustedCertificates,
  allowPrivateAddresses,
  allowInsecureHttp,
});

export const kafkaSinkSettings = z.strictObject({
  brokers: z.array(hostAndPort).min(1).max(100).describe("Brokers to begin with, as host:port."),
  topic: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,249}$/, "expected the name of a topic")
    .describe("It must be there already."),
  tls,
  sasl: z
    .strictObject({
      mechanism: z.enum(["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]).default("SCRAM-SHA-512"),
      username: z.string().min(1),
      password: secretField,
    })
    .optional()
    .describe("How the gateway signs in."),
  allowInsecurePlaintext,
});

export const natsSinkSettings = z.strictObject({
  servers: z.array(hostAndPort).min(1).max(100).describe("NATS servers, as host:port."),
  subject: z
    .string()
    .regex(/^[^\s.*>]+(\.[^\s.*>]+)*$/, "expected a subject without wildcards, e.g. audit.drawbridge")
    .describe("The subject that a JetStream stream takes up."),
  stream: z
    .string()
    .regex(/^[^\s.*>/\\]+$/, "expected the name of a stream")
    .optional()
    .describe("The stream it must be; records that another one would take are not sent."),
  credentials: z
    .union([
      z.strictObject({ file: z.string().min(1).describe("A .creds file.") }),
      z.strictObject({ username: z.string().min(1), password: secretField }),
      z.strictObject({ token: secretField }),
    ])
    .optional(),
  tls,
  allowInsecurePlaintext,
});

const KINDS = ["file", "stdout", "http", "otlp", "kafka", "nats"] as const;
export type SinkKind = (typeof KINDS)[number];

const sinkSettings = z
  .strictObject({
    file: fileSinkSettings.optional().describe("Appends lines to a file, each batch synced to disk."),
    stdout: z.strictObject({}).optional().describe("Writes lines to the gateway's standard output: `stdout: {}`."),
    http: httpSinkSettings.optional().describe("Posts batches to a URL."),
    otlp: otlpSinkSettings.optional().describe("Sends OpenTelemetry logs."),
    kafka: kafkaSinkSettings.optional().describe("Produces to a topic of Kafka."),
    nats: natsSinkSettings.optional().describe("Publishes to NATS JetStream."),
    name: z
      .string()
      .regex(/^[a-z][a-z0-9-]{0,39}$/, "expected lower-case letters, digits and hyphens")
      .optional()
      .describe("What its place in the log is kept under. Default: its kind, e.g. `kafka`."),
    format: z
      .enum(["json", "ocsf", "cloudevents"])
      .default("json")
      .describe(
        "`json`: the record's text to the byte, as `verify` hashes it. `ocsf`: an event of the Open Cybersecurity Schema Framework 1.9. `cloudevents`: the record in a CloudEvents 1.0 envelope.",
      ),
    only: z
      .strictObject({
        kinds: z
          .array(
            z.enum(["call", "sign-in", "consent", "token", "client", "user", "approval", "configuration", "audit"]),
          )
          .min(1)
          .optional(),
        outcomes: z
          .array(z.enum(["permitted", "refused", "failed", "abandoned"]))
          .min(1)
          .optional(),
      })
      .optional()
      .describe("Sends these records alone. Default: all."),
    open: z
      .boolean()
      .default(false)
      .describe(
        "Decrypts what is about persons (arguments, results, addresses) for this sink. `drawbridge audit erase` does not reach what has left in clear, so it is off unless you say so.",
      ),
  })
  .superRefine((sink, context) => {
    if (KINDS.filter((kind) => sink[kind] !== undefined).length !== 1)
      context.addIssue({ code: "custom", message: `expected one of ${KINDS.join(", ")}` });
    for (const kind of ["kafka", "nats"] as const) {
      const to = sink[kind];
      const hosts = to === undefined ? [] : "brokers" in to ? to.brokers : to.servers;
      if (to?.tls !== undefined && to.allowInsecurePlaintext)
        context.addIssue({
          code: "custom",
          path: [kind, "tls"],
          message: "TLS and allowInsecurePlaintext exclude each other",
        });
      if (new Set(hosts.map(onThisMachine)).size > 1)
        context.addIssue({ code: "custom", path: [kind], message: "all of them must be this machine, or none" });
    }
  });

export const auditExportSettings = z
  .array(sinkSettings)
  .max(20)
  .superRefine((sinks, context) => {
    const names = sinks.map(nameOf);
    for (const [index, name] of names.entries())
      if (names.indexOf(name) < index)
        context.addIssue({
          code: "custom",
          path: [index],
          message: `there is a sink ${name} already; give this one a name of its own`,
        });
    if (sinks.filter(({ stdout }) => stdout !== undefined).length > 1)
      context.addIssue({ code: "custom", message: "only one sink can have stdout" });
  })
  .default([])
  .describe(
    "Where records are sent, besides being kept: in order, at least once, from where each sink was when the gateway stopped. Calls never wait for it.",
  );

export type SinkSettings = z.infer<typeof sinkSettings>;
export type FileSinkSettings = z.infer<typeof fileSinkSettings>;
export type HttpSinkSettings = z.infer<typeof httpSinkSettings>;
export type OtlpSinkSettings = z.infer<typeof otlpSinkSettings>;
export type KafkaSinkSettings = z.infer<typeof kafkaSinkSettings>;
export type NatsSinkSettings = z.infer<typeof natsSinkSettings>;

export function kindOf(sink: SinkSettings): SinkKind {
  return KINDS.find((kind) => sink[kind] !== undefined) ?? "stdout";
}

export function nameOf(sink: SinkSettings): string {
  return sink.name ?? kindOf(sink);
}

/** Whether `host:port` is on the machine of the gateway, where nobody listens in between. */
export function onThisMachine(place: string): boolean {
  return /^(localhost|127\.\d+\.\d+\.\d+|\[::1\]):\d+$/.test(place);
}
