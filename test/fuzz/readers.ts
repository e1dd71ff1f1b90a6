/** What holds for everything that is read, whoever wrote it: properties of the decoder, the readers of servers, and our answers. */
import assert from "node:assert/strict";
import { type JsonObject, MODERN_REVISION } from "../../src/core/call.ts";
import { ERRORS } from "../../src/core/errors.ts";
import { decoded } from "../../src/core/json-tokens.ts";
import { answerText, sseEvent } from "../../src/mcp/answers.ts";
import { decode, RefusedRequest } from "../../src/mcp/inbound.ts";
import { elementTexts, isObject, memberTexts, parseRequestText, readUpstreamMessage } from "../../src/mcp/json-text.ts";
import { isWrapped, wrappedSchema } from "../../src/mcp/structured-content.ts";
import { lineReader } from "../../src/upstream/lines.ts";
import { eventReader } from "../../src/upstream/sse.ts";
import { fc } from "../properties.ts";
import { objects, type Sent, said, sents, strings, values } from "./texts.ts";

/** Codes that a message may be refused with before anybody looks for what it is aimed at. */
const REFUSALS: ReadonlySet<keyof typeof ERRORS> = new Set([
  ...(["parse_error", "invalid_request", "invalid_params", "invalid_envelope", "unknown_method"] as const),
  ...(["header_mismatch", "unsupported_protocol_version"] as const),
]);
const MAX_DEPTH = 64;

export interface Property {
  /** Of a million messages so many are for this one. */
  readonly share: number;
  readonly property: fc.IPropertyWithHooks<[unknown]>;
}

/** Counts what happened, so that a campaign can show that it met both sides. */
export const tally = new Map<string, number>();
const count = (what: string) => tally.set(what, (tally.get(what) ?? 0) + 1);

export const PROPERTIES: Readonly<Record<string, Property>> = {
  "a message of a client is read as JSON.parse reads it, or refused with a row of the table": {
    share: 0.5,
    property: one(sents, ({ text, headers }: Sent) => {
      try {
        const inbound = decode(text, headers, MAX_DEPTH);
        count(`client: ${inbound.kind}`);
        if (inbound.kind !== "request") return;
        const { params = {} } = JSON.parse(text) as { params?: Record<string, unknown> };
        assert.deepEqual(
          Object.fromEntries([...inbound.paramTexts].map(([key, part]) => [key, JSON.parse(part)])),
          params,
        );
        const { _meta: meta = {} } = params as { _meta?: Record<string, unknown> };
        for (const [key, part] of inbound.meta) assert.deepEqual(JSON.parse(part), meta[key]);
      } catch (thrown) {
        if (!(thrown instanceof RefusedRequest)) throw thrown;
        assert.ok(REFUSALS.has(thrown.code), `${thrown.code}: ${thrown.detail}`);
        assert.ok(Object.hasOwn(ERRORS, thrown.code));
        count(`client: ${thrown.code}`);
      }
    }),
  },
  "a message of a server is read as JSON.parse reads it, or is none": {
    share: 0.2,
    property: one(said, (text: string) => {
      const message = readUpstreamMessage(text);
      count(`server: ${message?.kind ?? "nothing"}`);
      if (message?.kind === "result") assert.deepEqual(JSON.parse(message.result), message.value);
      if (message?.kind === "error" && message.data !== undefined)
        assert.deepEqual(JSON.parse(message.data), (JSON.parse(text) as { error: { data: unknown } }).error.data);
      if (message?.kind === "notification" || message?.kind === "request")
        for (const [key, part] of message.paramTexts) assert.deepEqual(JSON.parse(part), message.params[key]);
    }),
  },
  "an answer is one message of the client's revision, with no key twice that was not there twice": {
    share: 0.1,
    property: one(fc.tuple(objects, fc.boolean(), fc.boolean(), fc.boolean()), ([text, modern, wrapped, foreign]) => {
      const value = JSON.parse(text) as unknown;
      if (!isObject(value)) return;
      const from = { revision: foreign ? MODERN_REVISION : "2025-11-25", info: { name: "s" } } as const;
      const outcome = { kind: "result", result: text, value } as const;
      const answer = answerText("i", "resources/read", modern ? MODERN_REVISION : "2025-11-25", outcome, from, wrapped);
      const { result } = JSON.parse(answer) as { result: JsonObject };
      if (modern) assert.ok(result["resultType"] !== undefined && result["cacheScope"] !== undefined);
      else if (foreign) assert.equal(result["resultType"], undefined);
      if (memberTexts(text) !== undefined) assert.ok(memberTexts(answer) !== undefined, answer);
      const event = sseEvent(answer);
      assert.equal(event.split(/\r\n|\r|\n/).length, 4);
      count("answers");
    }),
  },
  "members and elements are cut as JSON.parse cuts them": {
    share: 0.05,
    property: one(values, (text: string) => {
      const value = JSON.parse(text) as unknown;
      count("values");
      if (Array.isArray(value))
        assert.deepEqual(
          elementTexts(text).map((part) => JSON.parse(part) as unknown),
          value,
        );
      if (!isObject(value)) return;
      const members = memberTexts(text);
      if (members !== undefined)
        assert.deepEqual(
          Object.fromEntries([...members].map(([key, part]) => [key, JSON.parse(part) as unknown])),
          value,
        );
      else assert.throws(() => parseRequestText(text, 10_000));
      if (isWrapped(value)) JSON.parse(wrappedSchema(text));
    }),
  },
  "a string is read as JSON.parse reads it, and each piece of it is found as it is written": {
    share: 0.05,
    property: one(fc.tuple(strings, fc.nat(), fc.nat()), ([text, one, other]) => {
      const read = decoded(text, 1, text.length - 1);
      assert.equal(read.text, JSON.parse(text));
      const [from = 0, to = 0] = [one, other].map((at) => at % (read.text.length + 1)).sort((a, b) => a - b);
      const written = text.slice(read.at(from), read.at(to));
      assert.equal(JSON.parse(`"${written}"`), read.text.slice(from, to));
      count("strings");
    }),
  },
  "lines and events are the same however the bytes are cut": {
    share: 0.1,
    property: one(
      fc.tuple(
        fc.array(
          fc.oneof(
            fc.constantFrom("data: ", "id: 1\n", ": c\n", "\n\n", "\r\n", "\r", "event: x\n", "retry: 5\n"),
            said,
          ),
          { maxLength: 8 },
        ),
        fc.array(fc.nat({ max: 40 }), { maxLength: 12 }),
      ),
      ([parts, cuts]) => {
        const bytes = Buffer.from(parts.join(""));
        const whole = [bytes];
        const pieces: Buffer[] = [];
        let at = 0;
        for (const cut of cuts) {
          pieces.push(bytes.subarray(at, at + cut));
          at += cut;
        }
        pieces.push(bytes.subarray(at));
        assert.deepEqual(linesOf(pieces), linesOf(whole));
        assert.deepEqual(eventsOf(pieces), eventsOf(whole));
        count("streams");
      },
    ),
  },
};

function linesOf(chunks: readonly Buffer[]): string[] {
  const lines: string[] = [];
  const read = lineReader(
    1 << 20,
    (line) => void lines.push(line),
    () => void lines.push("too long"),
  );
  for (const chunk of [...chunks, Buffer.from("\n")]) read(chunk);
  return lines;
}

function eventsOf(chunks: readonly Buffer[]): unknown[] {
  const events: unknown[] = [];
  const reader = eventReader(
    1 << 20,
    (event) => void events.push(event),
    () => void events.push("too long"),
  );
  for (const chunk of [...chunks, Buffer.from("\n\n")]) reader.push(chunk);
  return [...events, reader.lastId, reader.retryMs];
}

function one<T>(arbitrary: fc.Arbitrary<T>, check: (value: T) => void): fc.IPropertyWithHooks<[unknown]> {
  return fc.property(arbitrary, check) as unknown as fc.IPropertyWithHooks<[unknown]>;
}
