/**
 * A Kafka broker that must be signed in to: it speaks SASL itself (KIP-43, KIP-152, KIP-368; SCRAM is RFC 5802) and hands whatever comes
 * after that to kcat's cluster, which cannot. Whoever has not signed in, or whose session is over, is cut off, as a real one does.
 */
import { createHash, createHmac, pbkdf2Sync, randomBytes, timingSafeEqual } from "node:crypto";
import { connect, createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { type KafkaBroker, startKafka } from "./brokers.ts";

export interface SaslOptions {
  readonly mechanisms: readonly string[];
  readonly username: string;
  readonly password: string;
  /** Versions of SaslAuthenticate that it says it has; undefined: it says nothing of that. Default: 0 to 2. */
  readonly versions?: readonly [number, number] | undefined;
  /** How long a session lasts until it must be signed in to again. 0: for ever. */
  readonly sessionMs?: number;
  /** Is answered to every message of a sign-in, as if all were well; `{nonce}` is the client's own, with `r=` before it. */
  readonly answer?: string;
  /** Its certificate: it speaks TLS. */
  readonly tls?: { readonly cert: string; readonly key: string };
}

export interface SaslBroker extends Pick<KafkaBroker, "place" | "messages">, AsyncDisposable {
  /** From now on. */
  password(now: string): void;
  /** Cuts all connections. */
  cut(): void;
  readonly seen: {
    /** Mechanisms by which somebody has signed in, or signed in again. */
    readonly signedIn: string[];
    readonly refused: string[];
    /** All that clients have sent. */
    bytes: Buffer;
  };
}

const API = { metadata: 3, handshake: 17, versions: 18, authenticate: 36 } as const;
const UNSUPPORTED_MECHANISM = 33;
const AUTHENTICATION_FAILED = 58;

export async function startSaslKafka(options: SaslOptions): Promise<SaslBroker> {
  const kafka = await startKafka();
  const seen: SaslBroker["seen"] = { signedIn: [], refused: [], bytes: Buffer.alloc(0) };
  const sockets = new Set<Socket>();
  let { password } = options;
  let port = 0;
  const serve = (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    serveClient(socket, { ...options, kafka, seen, password: () => password, port: () => port });
  };
  const server = options.tls === undefined ? createServer(serve) : createTlsServer(options.tls, serve);
  server.on("tlsClientError", () => {});
  port = await listening(server);
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    place: `127.0.0.1:${port}`,
    messages: kafka.messages,
    seen,
    password(now) {
      password = now;
    },
    cut,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      cut();
      await closed;
      await kafka[Symbol.asyncDispose]();
    },
  };
}

function listening(server: Server): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      resolve(typeof address === "object" ? (address?.port ?? 0) : 0);
    });
  });
}

interface Client extends Omit<SaslOptions, "password"> {
  readonly kafka: KafkaBroker;
  readonly seen: SaslBroker["seen"];
  readonly password: () => string;
  readonly port: () => number;
}

function serveClient(socket: Socket, parts: Client): void {
  const { kafka, seen, mechanisms, versions = [0, 2], sessionMs = 0 } = parts;
  const [, kafkaPort = ""] = kafka.place.split(":");
  const behind = connect(Number(kafkaPort), "127.0.0.1");
  let exchange: Exchange | undefined;
  let mechanism = "";
  let until = 0;
  const end = () => {
    socket.destroy();
    behind.destroy();
  };
  for (const each of [socket, behind]) each.on("error", end).on("close", end);
  behind.on(
    "data",
    frames((frame) => socket.write(sized(redirected(frame, Number(kafkaPort), parts.port())))),
  );
  socket.on("data", (part: Buffer) => {
    seen.bytes = Buffer.concat([seen.bytes, part]);
  });
  socket.on(
    "data",
    frames((frame) => {
      const [api, version, correlation] = [frame.readInt16BE(0), frame.readInt16BE(2), frame.readInt32BE(4)];
      // The header: a client id, and in flexible versions an empty list of tags.
      const body = frame.subarray(10 + Math.max(0, frame.readInt16BE(8)));
      const answer = (...words: readonly Buffer[]) =>
        socket.write(sized(Buffer.concat([int32(correlation), ...words])));
      if (exchange === undefined && api === API.versions && until === 0) {
        const known = [
          [API.versions, 0, 1],
          [API.handshake, 0, 1],
          ...(versions ? [[API.authenticate, ...versions]] : []),
        ];
        answer(int16(0), int32(known.length), ...known.flat().map(int16), int32(0));
      } else if (api === API.handshake) {
        mechanism = body.toString("utf8", 2, 2 + body.readInt16BE(0));
        const known = mechanisms.includes(mechanism);
        const made = exchangeOf(mechanism, parts.username, parts.password());
        const fixed = parts.answer;
        exchange = !known
          ? undefined
          : fixed === undefined
            ? made
            : (message) => ({
                bytes: Buffer.from(fixed.replace("{nonce}", /r=[^,]+/.exec(message.toString())?.[0] ?? "")),
                done: false,
              });
        answer(int16(known ? 0 : UNSUPPORTED_MECHANISM), int32(mechanisms.length), ...mechanisms.map(text));
      } else if (api === API.authenticate && exchange !== undefined) {
        const flexible = version >= 2;
        const reply = exchange(flexible ? compactBytes(body.subarray(1)) : body.subarray(4, 4 + body.readInt32BE(0)));
        const refused = reply === undefined;
        const why = `Authentication failed during authentication due to invalid credentials with SASL mechanism ${mechanism}`;
        const lifetime = version >= 1 ? [int64(refused ? 0 : sessionMs)] : [];
        const told = reply?.bytes ?? Buffer.alloc(0);
        if (flexible)
          answer(
            Buffer.of(0),
            int16(refused ? AUTHENTICATION_FAILED : 0),
            refused ? compact(Buffer.from(why)) : Buffer.of(0),
            compact(told),
            ...lifetime,
            Buffer.of(0),
          );
        else
          answer(
            int16(refused ? AUTHENTICATION_FAILED : 0),
            refused ? text(why) : int16(-1),
            int32(told.length),
            told,
            ...lifetime,
          );
        if (refused) {
          seen.refused.push(mechanism);
          socket.end();
        } else if (reply.done) {
          seen.signedIn.push(mechanism);
          exchange = undefined;
          until = sessionMs === 0 ? Number.POSITIVE_INFINITY : performance.now() + sessionMs;
        }
      } else if (exchange !== undefined || performance.now() > until) end();
      else behind.write(sized(frame));
    }),
  );
}

/** One side of a sign-in: what is answered to each message of the client; undefined: it is refused. */
type Exchange = (message: Buffer) => { readonly bytes: Buffer; readonly done: boolean } | undefined;

function exchangeOf(mechanism: string, username: string, password: string): Exchange {
  if (mechanism === "PLAIN")
    return (message) =>
      message.toString() === `\0${username}\0${password}` ? { bytes: Buffer.alloc(0), done: true } : undefined;
  const algorithm = mechanism === "SCRAM-SHA-256" ? "sha256" : "sha512";
  const length = algorithm === "sha256" ? 32 : 64;
  const hmac = (key: Buffer, of: string) => createHmac(algorithm, key).update(of).digest();
  const salt = randomBytes(16);
  const salted = pbkdf2Sync(password, salt, 4096, length, algorithm);
  const stored = createHash(algorithm).update(hmac(salted, "Client Key")).digest();
  let bare = "";
  let first = "";
  return (message) => {
    const words = message.toString();
    if (first === "") {
      bare = words.replace(/^n,,/, "");
      const [, name = "", nonce = ""] = /^n=([^,]*),r=(.+)$/.exec(bare) ?? [];
      if (name !== username) return undefined;
      first = `r=${nonce}${randomBytes(12).toString("base64url")},s=${salt.toString("base64")},i=4096`;
      return { bytes: Buffer.from(first), done: false };
    }
    const [, withoutProof = "", proof = ""] = /^(c=biws,r=[^,]+),p=(.+)$/.exec(words) ?? [];
    const auth = `${bare},${first},${withoutProof}`;
    const signature = hmac(stored, auth);
    const key = Buffer.from(proof, "base64").map((byte, at) => byte ^ (signature[at] ?? 0));
    const right = key.length === length && timingSafeEqual(createHash(algorithm).update(key).digest(), stored);
    if (!right) return undefined;
    return { bytes: Buffer.from(`v=${hmac(hmac(salted, "Server Key"), auth).toString("base64")}`), done: true };
  };
}

/** Whoever asks where the brokers are is sent to this one. */
function redirected(frame: Buffer, from: number, to: number): Buffer {
  const place = Buffer.concat([Buffer.from("127.0.0.1"), int32(from)]);
  const at = frame.indexOf(place);
  if (at >= 0) frame.writeInt32BE(to, at + place.length - 4);
  return frame;
}

/** Calls `take` with each whole message, without its size. */
function frames(take: (frame: Buffer) => void): (part: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (part) => {
    rest = Buffer.concat([rest, part]);
    while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
      const end = 4 + rest.readInt32BE(0);
      const frame = Buffer.from(rest.subarray(4, end));
      rest = rest.subarray(end);
      take(frame);
    }
  };
}

const sized = (frame: Buffer) => Buffer.concat([int32(frame.length), frame]);
function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}
function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}
function int64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt(value));
  return bytes;
}
const text = (value: string) => Buffer.concat([int16(Buffer.byteLength(value)), Buffer.from(value)]);

/** The length plus one as a varint, then the bytes. */
function compact(bytes: Buffer): Buffer {
  const length = bytes.length + 1;
  return Buffer.concat([length < 128 ? Buffer.of(length) : Buffer.of((length & 127) | 128, length >> 7), bytes]);
}
function compactBytes(from: Buffer): Buffer {
  const [low = 0, high = 0] = from;
  const [length, at] = low < 128 ? [low, 1] : [(low & 127) | (high << 7), 2];
  return from.subarray(at, at + length - 1);
}
