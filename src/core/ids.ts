/** Identifiers: UUIDv7 (RFC 9562 §5.7), so that they sort by time; secrets of 256 random bits. */
import { randomBytes } from "node:crypto";

let lastMs = 0;
let sequence = 0;
let pool = Buffer.alloc(0);
let poolOffset = 0;

function random(bytes: number): Buffer {
  if (poolOffset + bytes > pool.length) {
    pool = randomBytes(8192);
    poolOffset = 0;
  }
  const slice = pool.subarray(poolOffset, poolOffset + bytes);
  poolOffset += bytes;
  return slice;
}

/** `bytes` random bytes as lower-case hex, for trace and span ids. */
export function randomHex(bytes: number): string {
  return random(bytes).toString("hex");
}

/** A UUIDv7 that is greater than every one this process made before (a 12-bit sequence follows the milliseconds). */
export function newId(now: number = Date.now()): string {
  if (now > lastMs) {
    lastMs = now;
    sequence = 0;
  } else if (++sequence > 0xfff) {
    lastMs++;
    sequence = 0;
  }
  const time = lastMs.toString(16).padStart(12, "0");
  const tail = random(8);
  const variant = (0x80 | ((tail[0] ?? 0) & 0x3f)).toString(16).padStart(2, "0");
  const rest = tail.toString("hex", 1);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${sequence.toString(16).padStart(3, "0")}-${variant}${rest.slice(0, 2)}-${rest.slice(2)}`;
}

/** 256 random bits, base64url, for tokens, codes and session ids. */
export function newToken(): string {
  return randomBytes(32).toString("base64url");
}
