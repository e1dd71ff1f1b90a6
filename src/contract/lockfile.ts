/**
 * `drawbridge.lock`: every definition that was reviewed, in full, with the hash of each of its parts, signed as a whole. JSON, because
 * JSON can show what is invisible; in one order, so that a version control system shows what changed and nothing else. What is signed
 * is the content (RFC 8785), not the bytes: other white space or another order of keys breaks no signature.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  hash,
  type KeyObject,
  sign as signBytes,
  verify as verifyBytes,
} from "node:crypto";
import canonicalize from "canonicalize";
import type { JsonObject, JsonValue } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { type Drift, driftOf, type PinnedKind, type Suspicious } from "./drift.ts";

export interface Locked {
  readonly kind: PinnedKind;
  /** What its server calls it; of what a server says of itself, empty. */
  readonly name: string;
  /** SHA-256 of the canonical form, as `pinOf` has it. */
  readonly pin: string;
  readonly value: JsonObject;
}

/** What one server offers, or offered when it was pinned. */
export interface LockedServer {
  readonly server: string;
  readonly definitions: readonly Locked[];
}

/** By server, and then by `lockKey`. */
export type Lock = ReadonlyMap<string, ReadonlyMap<string, Locked>>;

export const lockKey = (kind: PinnedKind, name: string) => `${kind}\n${name}`;

export function lockOf(servers: readonly LockedServer[]): Lock {
  return new Map(
    servers.map(({ server, definitions }) => [
      server,
      new Map(definitions.map((one) => [lockKey(one.kind, one.name), one])),
    ]),
  );
}

/** Throws `settings_invalid` when it has no canonical form (numbers that are not finite, halves of surrogate pairs). */
export function lockedFrom(kind: PinnedKind, name: string, value: JsonObject): Locked {
  return { kind, name, pin: digest(value), value };
}

export interface LockTrust {
  /** `ed25519:…`; a lockfile has to be signed by one of them. */
  readonly keys: readonly string[];
  /** Takes one that none of them has signed. */
  readonly unsigned?: "accept" | undefined;
}

/**
 * Reads a lockfile. Throws `settings_invalid`, saying what to do, when it is damaged, of a newer format, changed after it was signed, or
 * not signed by a key of `trust`. `file` names it in messages.
 */
export function readLock(text: string, trust: LockTrust, file: string): Lock {
  const refuse = (message: string, cause?: unknown) =>
    new DrawbridgeError("settings_invalid", `The lockfile ${file} ${message}`, { cause });
  let content: JsonObject;
  try {
    content = asObject(JSON.parse(text));
  } catch (error) {
    throw refuse(`is damaged: it is no JSON object, or not all of it. ${RESTORE}`, error);
  }
  const { signatures, ...signed } = content;
  if (signed["drawbridgeLock"] !== FORMAT)
    throw refuse(`is of format ${JSON.stringify(signed["drawbridgeLock"])}, and this program reads ${FORMAT}.`);
  let bytes: Buffer;
  let lock: Lock;
  try {
    bytes = signedBytes(signed);
    lock = lockIn(signed);
  } catch (error) {
    const what = error instanceof Damaged ? error.message : "it has not the form of one";
    throw refuse(`is damaged: ${what}. ${RESTORE}`, error);
  }
  const ours = signaturesIn(signatures).filter(({ key }) => trust.keys.includes(key));
  if (ours.some(({ key, signature }) => verified(bytes, key, signature))) return lock;
  if (ours.length > 0)
    throw refuse(`was changed after it was signed: the signature of ${ours[0]?.key} does not fit. ${RESTORE}`);
  if (trust.unsigned === "accept") return lock;
  if (trust.keys.length > 0)
    throw refuse(
      `is not signed by any key of lock.keys. Sign it (\`drawbridge pin --key <file>\`), or name the key that has.`,
    );
  throw refuse(
    "cannot be trusted: no key is named. Put the public key that `drawbridge pin --key <file>` prints into lock.keys; or, insecurely, set lock.unsigned: accept.",
  );
}

/** The text of a lockfile, always the same for the same content, signed by each of the keys. */
export function writeLock(lock: Lock, keys: readonly LockSigner[]): string {
  const content: JsonObject = {
    drawbridgeLock: FORMAT,
    servers: Object.fromEntries(sorted(lock).map(([server, definitions]) => [server, written(definitions)])),
  };
  const bytes = signedBytes(content);
  const signatures = keys.map(({ key, sign }) => ({ key, signature: sign(bytes).toString("base64url") }));
  return `${visible(JSON.stringify({ ...content, signatures }, null, 2))}\n`;
}

/** A private key that signs lockfiles. */
export interface LockSigner {
  /** The public key, as `lock.keys` takes it. */
  readonly key: string;
  sign(bytes: Buffer): Buffer;
}

/** The PEM text (PKCS #8) of a new private key. */
export function newLockKey(): string {
  return generateKeyPairSync("ed25519").privateKey.export({ format: "pem", type: "pkcs8" }).toString();
}

/** Throws `settings_invalid` when the text is no Ed25519 private key. */
export function lockSigner(pem: string): LockSigner {
  let key: KeyObject | undefined;
  try {
    key = createPrivateKey(pem);
  } catch {
    // Said below: the text itself must be in no message.
  }
  if (key?.asymmetricKeyType !== "ed25519")
    throw new DrawbridgeError(
      "settings_invalid",
      "The key is no Ed25519 private key in PEM form. `drawbridge pin --key <file>` makes one where there is no file yet.",
    );
  const { x = "" } = createPublicKey(key).export({ format: "jwk" });
  const signing = key;
  return { key: `${ALGORITHM}:${x}`, sign: (bytes) => signBytes(null, bytes, signing) };
}

export interface LockDrift {
  readonly server: string;
  readonly kind: PinnedKind;
  readonly name: string;
  readonly drift: Drift;
}

/** Every difference between what is pinned and what the servers offer; of servers that are in both. */
export function lockDrift(pinned: Lock, offered: Lock, suspicious?: Suspicious): readonly LockDrift[] {
  return sorted(offered).flatMap(([server, now]) => {
    const before = pinned.get(server);
    if (before === undefined) return [];
    const keys = [...new Set([...before.keys(), ...now.keys()])].sort(byCharacter);
    return keys.flatMap((key): LockDrift[] => {
      const [was, is] = [before.get(key), now.get(key)];
      const one = is ?? was;
      if (one === undefined || was?.pin === is?.pin) return [];
      const drift = driftOf(one.kind, was?.value, is?.value, suspicious);
      return drift === undefined ? [] : [{ server, kind: one.kind, name: one.name, drift }];
    });
  });
}

const FORMAT = 1;
const ALGORITHM = "ed25519";
const RESTORE = "Take the last good one from your history, or make it anew with `drawbridge pin --renew`.";
/** Where the definitions of each kind stand. */
const SECTIONS = { tool: "tools", prompt: "prompts", resourceTemplate: "resourceTemplates" } as const;

class Damaged extends Error {}

/** The signature is good for nothing but a lockfile. */
function signedBytes(content: JsonObject): Buffer {
  return Buffer.from(`drawbridge lockfile\n${canonicalize(content) ?? ""}`);
}

function verified(bytes: Buffer, key: string, signature: string): boolean {
  try {
    const jwk = { kty: "OKP", crv: "Ed25519", x: key.slice(ALGORITHM.length + 1) };
    return verifyBytes(null, bytes, createPublicKey({ key: jwk, format: "jwk" }), Buffer.from(signature, "base64url"));
  } catch {
    return false;
  }
}

function signaturesIn(value: JsonValue | undefined): { readonly key: string; readonly signature: string }[] {
  if (!Array.isArray(value)) return [];
  return (value as readonly JsonValue[]).flatMap((one) => {
    const { key, signature } = isObject(one) ? one : {};
    return typeof key === "string" && typeof signature === "string" ? [{ key, signature }] : [];
  });
}

function written(definitions: ReadonlyMap<string, Locked>): JsonObject {
  const all = [...definitions.values()];
  const itself = all.find(({ kind }) => kind === "server");
  const sections = Object.entries(SECTIONS).flatMap(([kind, section]): [string, JsonValue][] => {
    const those = all.filter((one) => one.kind === kind).sort((a, b) => byCharacter(a.name, b.name));
    return those.length === 0 ? [] : [[section, Object.fromEntries(those.map((one) => [one.name, entry(one)]))]];
  });
  return { ...(itself !== undefined && { server: entry(itself) }), ...Object.fromEntries(sections) };
}

/** Each part with its hash beside it. A text of several lines is a list of them, so that a change of one shows as that. */
function entry({ pin, value }: Locked): JsonObject {
  const parts = Object.entries(value)
    .sort(([a], [b]) => byCharacter(a, b))
    .map(([part, content]): [string, JsonObject] => {
      const sum = digest(content);
      const lines = typeof content === "string" && content.includes("\n") ? content.split("\n") : undefined;
      return [part, lines === undefined ? { hash: sum, value: inOrder(content) } : { hash: sum, lines }];
    });
  return { pin, parts: Object.fromEntries(parts) };
}

function lockIn(content: JsonObject): Lock {
  const servers = Object.entries(asObject(content["servers"])).map(([server, value]): LockedServer => {
    const sections = asObject(value);
    const itself = sections["server"] === undefined ? [] : [locked("server", "", sections["server"], server)];
    const definitions = Object.entries(SECTIONS).flatMap(([kind, section]) =>
      Object.entries(sections[section] === undefined ? {} : asObject(sections[section])).map(([name, one]) =>
        locked(kind as PinnedKind, name, one, `${server} ${kind} ${JSON.stringify(name)}`),
      ),
    );
    return { server, definitions: [...itself, ...definitions] };
  });
  return lockOf(servers);
}

function locked(kind: PinnedKind, name: string, value: JsonValue, place: string): Locked {
  const { pin, parts } = asObject(value);
  const members = Object.entries(asObject(parts)).map(([part, one]): [string, JsonValue] => {
    const { hash: sum, value: whole, lines } = asObject(one);
    const content = Array.isArray(lines) ? lines.join("\n") : whole;
    if (content === undefined || digest(content) !== sum)
      throw new Damaged(`the hash of ${part} of ${place} does not fit its content`);
    return [part, content];
  });
  const definition = lockedFrom(kind, name, Object.fromEntries(members));
  if (definition.pin !== pin) throw new Damaged(`the hash of ${place} does not fit its parts`);
  return definition;
}

function digest(value: JsonValue): string {
  return `sha256:${hash("sha256", canonicalize(value) ?? "", "hex")}`;
}

/** Characters that nobody sees, or that change the order in which others are seen, as escapes. */
function visible(json: string): string {
  return json.replaceAll(
    /[\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u00A0\u115F\u1160\u3164\uFFA0\u007F-\u009F]|[\uFE00-\uFE0F]|[\u{E0100}-\u{E01EF}]/gu,
    (found) =>
      found
        .split("")
        .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
        .join(""),
  );
}

function inOrder(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return (value as readonly JsonValue[]).map(inOrder);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort(byCharacter)
      .map((key) => [key, inOrder(value[key] ?? null)]),
  );
}

function sorted<T>(map: ReadonlyMap<string, T>): [string, T][] {
  return [...map].sort(([a], [b]) => byCharacter(a, b));
}

/** The same everywhere, whatever the language of the machine. */
const byCharacter = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function asObject(value: unknown): JsonObject {
  if (!isObject(value)) throw new Damaged("something in it is not an object");
  return value;
}
