/** `audit:` in the settings file. */
import { z } from "zod";

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
  })
  .prefault({});
export type AuditSettings = z.infer<typeof auditSettings>;
