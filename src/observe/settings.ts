/** `telemetry:` and `log:` in the settings file. */
import { z } from "zod";

export const telemetrySettings = z
  .strictObject({
    otlpEndpoint: z
      .url({ protocol: /^https?$/ })
      .optional()
      .describe(
        "OTLP/HTTP endpoint, e.g. http://127.0.0.1:4318. OTEL_EXPORTER_OTLP_ENDPOINT is used when this is absent.",
      ),
    otlpHeaders: z.record(z.string(), z.string()).default({}),
    sampleRatio: z
      .number()
      .min(0)
      .max(1)
      .default(1)
      .describe("Share of new traces that is exported. A sampled parent is always followed."),
    alwaysFailed: z
      .boolean()
      .default(true)
      .describe(
        "Of traces that `sampleRatio` leaves out, the span of a request that failed or was refused is exported all the same. What a client asks not to trace never is.",
      ),
    serviceName: z.string().default("drawbridge"),
  })
  .prefault({});

export const logSettings = z
  .strictObject({
    level: z.enum(["trace", "debug", "info", "warn", "error", "silent"]).default("info"),
    format: z
      .enum(["auto", "json", "text"])
      .default("auto")
      .describe("`auto`: text on a terminal, JSON elsewhere. Always on stderr."),
  })
  .prefault({});

export type TelemetrySettings = z.infer<typeof telemetrySettings>;
export type LogSettings = z.infer<typeof logSettings>;
