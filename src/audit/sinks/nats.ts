/** Publishes to NATS JetStream. A record that comes again within the stream's window is known by its `Nats-Msg-Id` and not kept twice. */
import { jetstream } from "@nats-io/jetstream";
import { connect, credsAuthenticator, headers } from "@nats-io/transport-node";
import { DrawbridgeError } from "../../core/errors.ts";
import { contentTypeOf, type Format } from "./formats.ts";
import { type NatsSinkSettings, onThisMachine } from "./settings.ts";
import type { Entry, Sink } from "./sink.ts";

interface NatsFiles {
  /** PEM. */
  readonly certificates: string | undefined;
  /** What is in a .creds file. */
  readonly creds: Buffer | undefined;
}

const HEADER_BYTES = 1024;
const ACK_MS = 5_000;

/** It counts as sent when the stream has acknowledged it. */
export async function natsSink(
  settings: NatsSinkSettings,
  format: Format,
  { certificates, creds }: NatsFiles,
): Promise<Sink> {
  const { servers, subject, stream, credentials } = settings;
  const { one } = contentTypeOf(format);
  const secure = !settings.allowInsecurePlaintext && (settings.tls !== undefined || !servers.every(onThisMachine));
  const connection = await connect({
    servers: [...servers],
    name: "drawbridge",
    timeout: 5_000,
    // Who tries again is the follower, with everything that was not acknowledged.
    reconnect: false,
    ...(secure && { tls: certificates === undefined ? {} : { ca: certificates } }),
    ...(creds !== undefined && { authenticator: credsAuthenticator(creds) }),
    ...(credentials !== undefined && "token" in credentials && { token: credentials.token.reveal() }),
    ...(credentials !== undefined &&
      "username" in credentials && { user: credentials.username, pass: credentials.password.reveal() }),
  }).catch((thrown: unknown) => {
    throw translated(thrown, subject);
  });
  const client = jetstream(connection, { timeout: ACK_MS });

  function publish({ record, text }: Entry) {
    const { id, chain, trace } = record;
    const told = headers();
    told.set("Content-Type", one);
    if (chain !== undefined) {
      told.set("Drawbridge-Chain", chain.id);
      told.set("Drawbridge-N", String(chain.n));
    }
    if (trace !== undefined) told.set("traceparent", `00-${trace.traceId}-${trace.spanId}-00`);
    return client.publish(subject, text, {
      msgID: id,
      headers: told,
      timeout: ACK_MS,
      ...(stream !== undefined && { expect: { streamName: stream } }),
    });
  }

  return {
    most: { entries: 250, bytes: 1 << 20 },
    async send(entries) {
      // Refused among others, one would come behind those after it; alone it holds them up.
      const limit = (connection.info?.max_payload ?? Number.POSITIVE_INFINITY) - HEADER_BYTES;
      if (entries.length > 1 && entries.some(({ text }) => Buffer.byteLength(text) > limit))
        throw new DrawbridgeError("body_too_large", `A record is larger than NATS takes for ${subject} (max_payload).`);
      // All on one connection, so they arrive in their order; the acknowledgements may come in any.
      const sent = await Promise.allSettled(entries.map(publish));
      const failure = sent.find((one) => one.status === "rejected");
      if (failure !== undefined) throw translated(failure.reason, subject);
      return undefined;
    },
    close: () => connection.close(),
  };
}

function translated(thrown: unknown, subject: string): DrawbridgeError {
  const { name, message } = thrown instanceof Error ? thrown : { name: "Error", message: String(thrown) };
  const detail = `${name}: ${message}`;
  if (/max.?payload/i.test(detail))
    return new DrawbridgeError("upstream_failed", `A record is larger than NATS takes for ${subject} (max_payload).`, {
      detail,
    });
  return new DrawbridgeError("upstream_unavailable", `NATS did not take records for ${subject}.`, {
    cause: thrown,
    detail,
  });
}
