/** Sends records as OpenTelemetry logs: OTLP/HTTP with JSON, https://opentelemetry.io/docs/specs/otlp/ */
import { openPoster, type Poster } from "./http.ts";
import type { OtlpSinkSettings } from "./settings.ts";
import type { Entry, Refused, Sink } from "./sink.ts";

/** `source`: URI of the gateway; `certificates`: PEM. */
export function otlpSink(settings: OtlpSinkSettings, source: string, certificates: string | undefined): Sink {
  const url = `${settings.endpoint.replace(/\/+$/, "")}/v1/logs`;
  const poster: Poster = openPoster({ ...settings, url, timeoutSeconds: 15 }, certificates);
  const resource = { attributes: [text("service.name", "drawbridge"), text("drawbridge.url", source)] };
  return {
    most: { entries: 500, bytes: 1 << 20 },
    async send(entries, signal) {
      const scopeLogs = [{ scope: { name: "drawbridge.audit" }, logRecords: entries.map(logRecord) }];
      const body = JSON.stringify({ resourceLogs: [{ resource, scopeLogs }] });
      const said = await poster.post(body, { "content-type": "application/json" }, signal);
      // The protocol says that what was rejected is not sent again.
      return refusedIn(said);
    },
    close: poster.close,
  };
}

const SEVERITIES = {
  permitted: [9, "INFO"],
  abandoned: [9, "INFO"],
  refused: [13, "WARN"],
  failed: [17, "ERROR"],
} as const;

function logRecord({ record, text: body }: Entry): object {
  const { kind, action, call, chain, principal, outcome, trace } = record;
  const at = `${Date.parse(record.at)}000000`;
  const [severityNumber, severityText] = SEVERITIES[outcome];
  return {
    timeUnixNano: at,
    observedTimeUnixNano: at,
    severityNumber,
    severityText,
    eventName: `drawbridge.audit.${kind}`,
    body: { stringValue: body },
    attributes: [
      text("log.record.uid", record.id),
      text("drawbridge.outcome", outcome),
      text("drawbridge.action", action),
      text("mcp.method.name", call?.method),
      text(call?.kind === "prompt" ? "gen_ai.prompt.name" : "gen_ai.tool.name", call?.name),
      text("drawbridge.server", call?.server),
      text("user.id", principal?.subject),
      text("drawbridge.client", principal?.client),
      text("error.type", record.error?.code),
      text("drawbridge.chain", chain?.id),
      chain === undefined ? undefined : { key: "drawbridge.n", value: { intValue: String(chain.n) } },
    ].filter((attribute) => attribute !== undefined),
    ...(trace !== undefined && { traceId: trace.traceId, spanId: trace.spanId }),
  };
}

function text(key: string, value: string | undefined): object | undefined {
  return value === undefined || value === "" ? undefined : { key, value: { stringValue: value } };
}

/** https://opentelemetry.io/docs/specs/otlp/#partial-success-1 */
function refusedIn(said: string): Refused | undefined {
  try {
    const { partialSuccess } = JSON.parse(said) as {
      partialSuccess?: { rejectedLogRecords?: unknown; errorMessage?: unknown };
    };
    const records = Number(partialSuccess?.rejectedLogRecords ?? 0);
    return records > 0 ? { records, why: String(partialSuccess?.errorMessage ?? "") } : undefined;
  } catch {
    return undefined; // A collector that answers in another format took them all.
  }
}
