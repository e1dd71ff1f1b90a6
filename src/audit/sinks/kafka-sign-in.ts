/**
 * Signs in to Kafka by SASL: PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677). The library's own SCRAM throws where nobody can catch it
 * when a broker answers nonsense, and works for as long as a broker likes.
 */
import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import type { SASLOptions } from "@platformatic/kafka";
import type { KafkaSinkSettings } from "./settings.ts";

type Sasl = NonNullable<KafkaSinkSettings["sasl"]>;
type Authenticate = NonNullable<SASLOptions["authenticate"]>;

const SCRAM = {
  "SCRAM-SHA-256": { hash: "sha256", bytes: 32 },
  "SCRAM-SHA-512": { hash: "sha512", bytes: 64 },
} as const;
/** RFC 7677 §4 asks for 4096 at least; beyond a million a sign-in takes longer than anybody waits. */
const ITERATIONS = { least: 4096, most: 1_000_000 } as const;

export function signIn({ mechanism, username, password }: Sasl): Authenticate {
  return (_mechanism, connection, send, _username, _password, _token, done) => {
    const say = (text: string) => send.async(connection, Buffer.from(text));
    const answered =
      mechanism === "PLAIN"
        ? say(`\0${username}\0${password.reveal()}`)
        : scram(mechanism, username, password.reveal(), say);
    answered.then(
      (answer) => done(null, answer),
      (error: Error) => done(error),
    );
  };
}

/** Resolves with the broker's last answer when both sides have proved that they know the password. */
async function scram<Answer extends { readonly authBytes: Buffer }>(
  mechanism: keyof typeof SCRAM,
  username: string,
  password: string,
  say: (text: string) => Promise<Answer>,
): Promise<Answer> {
  const { hash, bytes } = SCRAM[mechanism];
  const hmac = (key: Buffer, text: string) => createHmac(hash, key).update(text).digest();
  const nonce = randomBytes(18).toString("base64url");
  const first = `n=${username.replaceAll("=", "=3D").replaceAll(",", "=2C")},r=${nonce}`;
  const challenge = (await say(`n,,${first}`)).authBytes.toString();
  // RFC 5802 §5.1: in this order; extensions may follow.
  const [, theirs = "", salt = "", rounds = ""] = /^r=([^,]+),s=([^,]+),i=(\d{1,9})(?:,|$)/.exec(challenge) ?? [];
  const iterations = Number(rounds);
  if (!theirs.startsWith(nonce) || theirs === nonce) throw new Error(`The broker's answer is not ${mechanism}.`);
  if (iterations < ITERATIONS.least || iterations > ITERATIONS.most)
    throw new Error(
      `The broker wants ${iterations} iterations of ${mechanism}; ${ITERATIONS.least} to ${ITERATIONS.most} are right.`,
    );
  const salted = await promisify(pbkdf2)(password, Buffer.from(salt, "base64"), iterations, bytes, hash);
  const key = hmac(salted, "Client Key");
  // c=biws says that there is no channel binding: base64 of the `n,,` above.
  const last = `c=biws,r=${theirs}`;
  const signed = `${first},${challenge},${last}`;
  const signature = hmac(createHash(hash).update(key).digest(), signed);
  const proof = key.map((byte, at) => byte ^ (signature[at] ?? 0));
  const answer = await say(`${last},p=${Buffer.from(proof).toString("base64")}`);
  const [, verifier = ""] = /^v=([^,]+)/.exec(answer.authBytes.toString()) ?? [];
  const told = Buffer.from(verifier, "base64");
  const expected = hmac(hmac(salted, "Server Key"), signed);
  if (told.length === expected.length && timingSafeEqual(told, expected)) return answer;
  throw new Error("The broker does not know the password itself: it may be another one than it says.");
}
