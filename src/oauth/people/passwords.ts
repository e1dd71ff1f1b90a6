/** Passwords at rest: argon2id, with a bound on how many are derived at once. */
import { argon2, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { DrawbridgeError } from "../../core/errors.ts";

export const MIN_PASSWORD_LENGTH = 12;
export const MAX_PASSWORD_LENGTH = 256;

/** OWASP's second argon2id profile: 19 MiB, two passes, one lane (RFC 9106 encodes them into the PHC string). */
const COST = { memory: 19_456, passes: 2, parallelism: 1, tagLength: 32 } as const;
const derive = promisify(argon2);
/** So that an unknown name costs what a known one does. */
const NOBODY = `$argon2id$v=19$m=${COST.memory},t=${COST.passes},p=${COST.parallelism}$${"A".repeat(22)}$${"A".repeat(43)}`;

/** The PHC string of a password. Rejects with `overloaded` when too many wait. */
export async function hashPassword(password: string): Promise<string> {
  const nonce = randomBytes(16);
  const tag = await inTurn(() => derive("argon2id", { message: password, nonce, ...COST }));
  return `$argon2id$v=19$m=${COST.memory},t=${COST.passes},p=${COST.parallelism}$${plain64(nonce)}$${plain64(tag)}`;
}

/** Whether it is the password of this PHC string. Without one: false, after the same time. */
export async function checkPassword(password: string, phc: string = NOBODY): Promise<boolean> {
  const parts = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([^$]+)\$([^$]+)$/.exec(phc);
  if (parts === null) throw new DrawbridgeError("internal", "A stored password cannot be read.");
  const [, memory, passes, parallelism, nonce = "", wanted = ""] = parts;
  const expected = Buffer.from(wanted, "base64");
  const tag = await inTurn(() =>
    derive("argon2id", {
      message: password.slice(0, MAX_PASSWORD_LENGTH + 1),
      nonce: Buffer.from(nonce, "base64"),
      memory: Number(memory),
      passes: Number(passes),
      parallelism: Number(parallelism),
      tagLength: expected.length,
    }),
  );
  return timingSafeEqual(tag, expected) && phc !== NOBODY;
}

const plain64 = (bytes: Buffer) => bytes.toString("base64").replace(/=+$/, "");

/** Each derivation takes 19 MiB and a thread: a burst of strangers waits here, and a long queue is refused. */
const MAX_AT_ONCE = 2;
const MAX_WAITING = 50;
let running = 0;
const waiting: (() => void)[] = [];

async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  if (running >= MAX_AT_ONCE) {
    if (waiting.length >= MAX_WAITING) {
      throw new DrawbridgeError("overloaded", "Too many people sign in at this moment. Try again shortly.", {
        retryAfterSeconds: 2,
      });
    }
    await new Promise<void>((resolve) => waiting.push(resolve));
  } else {
    running++;
  }
  try {
    return await work();
  } finally {
    // The turn is handed over, not given back, so that nobody slips in between.
    const next = waiting.shift();
    if (next === undefined) running--;
    else next();
  }
}
