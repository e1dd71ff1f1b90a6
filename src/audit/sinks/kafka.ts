/** Produces to a topic of Kafka. The records of one chain have one key, so they keep their order in one partition. */
import { ProduceAcks, Producer, stringSerializers } from "@platformatic/kafka";
import { DrawbridgeError } from "../../core/errors.ts";
import { contentTypeOf, type Format } from "./formats.ts";
import { signIn } from "./kafka-sign-in.ts";
import { type KafkaSinkSettings, onThisMachine } from "./settings.ts";
import type { Entry, Sink } from "./sink.ts";

/** `certificates`: PEM. It counts as sent when all replicas of the partition that are in sync have it. */
export function kafkaSink(settings: KafkaSinkSettings, format: Format, certificates: string | undefined): Sink {
  const { brokers, topic, sasl } = settings;
  const { one } = contentTypeOf(format);
  const secure = !settings.allowInsecurePlaintext && (settings.tls !== undefined || !brokers.every(onThisMachine));
  const producer = new Producer<string, string, string, string>({
    clientId: "drawbridge",
    bootstrapBrokers: [...brokers],
    acks: ProduceAcks.ALL,
    serializers: stringSerializers,
    autocreateTopics: false,
    // Who tries again is the follower, with everything that was not acknowledged.
    retries: 0,
    connectTimeout: 5_000,
    requestTimeout: 10_000,
    timeout: 8_000,
    ...(secure && { tls: certificates === undefined ? {} : { ca: certificates } }),
    ...(sasl !== undefined && {
      sasl: { mechanism: sasl.mechanism, authenticate: signIn(sasl) },
    }),
  });
  // Its connections tell their failures to those who wait for them, too.
  producer.on("error", () => {});
  return {
    // A broker takes batches of 1 MiB unless it is told otherwise.
    most: { entries: 500, bytes: 512 * 1024 },
    async send(entries) {
      await producer.send({ messages: entries.map((entry) => message(entry, topic, one)) }).catch((thrown: unknown) => {
        throw translated(thrown, settings);
      });
      return undefined;
    },
    close: () => producer.close(true),
  };
}

function message({ record, text }: Entry, topic: string, contentType: string) {
  const { id, chain, trace } = record;
  return {
    topic,
    key: chain?.id ?? "",
    value: text,
    timestamp: BigInt(Date.parse(record.at)),
    headers: {
      "content-type": contentType,
      id,
      ...(chain !== undefined && { chain: chain.id, n: String(chain.n) }),
      ...(trace !== undefined && { traceparent: `00-${trace.traceId}-${trace.spanId}-00` }),
    },
  };
}

function translated(thrown: unknown, { topic, sasl }: KafkaSinkSettings): DrawbridgeError {
  const words = [...wordsOf(thrown)].slice(0, 5).join("; ");
  if (/MESSAGE_TOO_LARGE|RECORD_LIST_TOO_LARGE/.test(words))
    return new DrawbridgeError("body_too_large", `Kafka does not take so much at once for ${topic}.`, {
      detail: words,
    });
  const message =
    sasl !== undefined && /SASL_AUTHENTICATION_FAILED|SASL mechanism/.test(words)
      ? `Kafka does not let ${sasl.username} sign in by ${sasl.mechanism}. Check kafka.sasl: the mechanism, the user and the password.`
      : `Kafka did not take records for ${topic}.`;
  return new DrawbridgeError("upstream_unavailable", message, {
    cause: thrown,
    detail: words,
  });
}

/** Errors of its connections are wrapped in errors of its retries. */
function* wordsOf(thrown: unknown, depth = 0): Generator<string> {
  if (!(thrown instanceof Error) || depth > 4) return;
  const { apiId } = thrown as { readonly apiId?: unknown };
  yield typeof apiId === "string" ? `${thrown.message} (${apiId})` : thrown.message;
  if (thrown instanceof AggregateError) for (const one of thrown.errors) yield* wordsOf(one, depth + 1);
  yield* wordsOf(thrown.cause, depth + 1);
}
