/** The formats that records are sent in. */
import type { StoredRecord } from "../record.ts";
import { ocsfEvent } from "./ocsf.ts";
import type { SinkSettings } from "./settings.ts";
import type { ContentType } from "./sink.ts";

export type Format = SinkSettings["format"];

/** A record that was read, and what is known of it besides. */
export interface Formatted {
  readonly record: StoredRecord;
  /** The text in the log. */
  readonly json: string;
  /** `record` has more in it than `json`: what was encrypted there. */
  readonly opened: boolean;
  /** Its number in the log. */
  readonly sequence: number;
  /** URI of the gateway. */
  readonly source: string;
}

export function formatted(format: Format, made: Formatted): string {
  return FORMATS[format].text(made);
}

export function contentTypeOf(format: Format): ContentType {
  return FORMATS[format];
}

const lines = (texts: readonly string[]) => texts.map((text) => `${text}\n`).join("");
const list = (texts: readonly string[]) => `[${texts.join(",")}]`;

const FORMATS = {
  json: { text: recordText, one: "application/json", many: "application/x-ndjson", join: lines },
  ocsf: {
    text: (made: Formatted) => JSON.stringify(ocsfEvent(made)),
    one: "application/json",
    many: "application/x-ndjson",
    join: lines,
  },
  cloudevents: {
    text: cloudEvent,
    one: "application/cloudevents+json",
    many: "application/cloudevents-batch+json",
    join: list,
  },
} as const satisfies Record<Format, ContentType & { text(made: Formatted): string }>;

function recordText({ record, json, opened }: Formatted): string {
  return opened ? JSON.stringify(record) : json;
}

/**
 * CloudEvents 1.0, structured mode. `source` and `id` are the same each time a record is sent, so that receivers can tell duplicates.
 * Extensions: Distributed Tracing (`traceparent`), Sequence (`sequence`, the number in the chain), and `chainid`.
 */
function cloudEvent(made: Formatted): string {
  const { record, source } = made;
  const { chain, trace, kind, call, principal } = record;
  const envelope = {
    specversion: "1.0",
    id: record.id,
    source,
    type: `io.drawbridge.audit.${kind}`,
    ...(subjectOf(call?.name, principal?.subject) !== undefined && {
      subject: subjectOf(call?.name, principal?.subject),
    }),
    time: record.at,
    datacontenttype: "application/json",
    // Whether the trace was sampled is not in a record.
    ...(trace !== undefined && { traceparent: `00-${trace.traceId}-${trace.spanId}-00` }),
    ...(chain !== undefined && { sequence: String(chain.n).padStart(15, "0"), chainid: chain.id }),
  };
  // The record stands there to the byte.
  return `${JSON.stringify(envelope).slice(0, -1)},"data":${recordText(made)}}`;
}

function subjectOf(...names: readonly (string | undefined)[]): string | undefined {
  return names.find((name) => name !== undefined && name !== "");
}
