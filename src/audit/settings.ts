/** `audit:` in the settings file. */
import { z } from "zod";
import { auditExportSettings } from "./sinks/settings.ts";

export const auditSettings = z
  .strictObject({
    commit: z
      .enum(["durable", "async"])
      .default("durable")
      .describe(
        "`durable`: an answer leaves when its record is on disk. `async`: records follow within a second; calls are refused when they cannot.",
      ),
    arguments: z.enum(["full", "hash", "none"]).default("full").describe("How a call's arguments are recorded."),
    results: z.enum(["full", "hash", "none"]).default("hash").describe("How a call's result is recorded."),
    maxFieldBytes: z
      .int()
      .min(0)
      .max(1 << 20)
      .default(16_384)
      .describe("Arguments or results longer than this are recorded as hash and size."),
    maxPending: z
      .int()
      .min(1)
      .max(1_000_000)
      .default(10_000)
      .describe("Records that may wait to be written; beyond that calls are refused."),
    whenUnavailable: z
      .enum(["refuse", "spill"])
      .default("refuse")
      .describe(
        "What happens while the log cannot be written. `refuse`: nothing is permitted. `spill`: records go to files, each on disk before its answer leaves, and from there into the log when it can be written; calls are refused when that does not work either.",
      ),
    spillFolder: z
      .string()
      .min(1)
      .optional()
      .describe("Where those files are. Default: beside an SQLite store, or .drawbridge beside the settings file."),
    spillMaxBytes: z
      .int()
      .min(1 << 16)
      .max(2 ** 40)
      .default(2 ** 30)
      .describe("How large those files may be together."),
    insecureOff: z
      .boolean()
      .default(false)
      .describe("Insecure: nothing is recorded. For measurements, and for gateways that nobody relies on."),
    keep: z
      .string()
      .regex(/^[1-9]\d{0,4}d$/, "expected days, e.g. 400d")
      .optional()
      .describe(
        "How long records are kept, e.g. `400d`. Older ones are taken out, with a record of that, unless somebody put them on hold. Default: for ever. The EU AI Act (articles 19 and 26) asks for six months at least.",
      ),
    erasable: z
      .boolean()
      .default(true)
      .describe(
        "What in a record is about a person (arguments, results, addresses) is encrypted with a key of that person, so that destroying the key erases it and leaves the chain whole. `false`: it is kept in clear.",
      ),
    signingKey: z
      .string()
      .min(1)
      .optional()
      .describe(
        "PEM file (PKCS #8) of the Ed25519 key that signs the log. Default: one kept in the store, which vouches for nothing against whoever can write the store and knows tokens.keyEncryptionSecret.",
      ),
    checkpoint: z
      .strictObject({
        records: z.int().min(1).max(10_000_000).default(10_000).describe("Signed after so many records,"),
        seconds: z.int().min(1).max(86_400).default(60).describe("or with the first record after so long."),
      })
      .prefault({})
      .describe("When a checkpoint is written: a signed record of all that the chain held before it."),
    export: auditExportSettings,
  })
  .prefault({});
export type AuditSettings = z.infer<typeof auditSettings>;
