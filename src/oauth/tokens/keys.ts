/**
 * The server's own keys: one that signs tokens, secrets for cookies, forms and nonces. Made once, kept in the store, shared by all
 * replicas. A rotation is one write that says when the new ones begin and the old ones end; every replica follows the clock.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  hash,
  hkdfSync,
  randomBytes,
  timingSafeEqual,
} from "node:crypto";
import { calculateJwkThumbprint, exportJWK, generateKeyPair, type JWK } from "jose";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { newToken } from "../../core/ids.ts";
import type { Secret } from "../../core/secret.ts";
import type { Records } from "../../store/ports.ts";
import { announceTo, type Watch } from "../watch.ts";

export type SigningAlgorithm = "ES256" | "EdDSA" | "RS256";

/** A public key as a JWK (RFC 7517). */
export interface PublicKey extends JWK {
  readonly kty: string;
  readonly kid: string;
  readonly alg: SigningAlgorithm;
  readonly use: "sig";
}
/** The same with its private part. */
export interface SigningKey extends PublicKey {
  readonly d: string;
}

/** The keys of this moment: each member may be another one at the next look. */
export interface Keys {
  /** The first one signs; all verify. */
  readonly signing: readonly SigningKey[];
  readonly public: readonly PublicKey[];
  /** Of the key that signs. It may differ from the settings while a rotation to another one is under way. */
  readonly algorithm: SigningAlgorithm;
  /** The first one signs cookies; all verify. */
  readonly cookies: readonly string[];
  /** Binds a form to a browser and a purpose. */
  seal(browser: string, purpose: string): string;
  sealed(candidate: string, browser: string, purpose: string): boolean;
  /** 32 bytes for one purpose, the same in all replicas; the first ones are for making, all for checking. */
  secretsFor(purpose: string): readonly Buffer[];
  /** Called when other keys sign or verify than before. */
  onChange(listener: () => void): void;
  /** Reads the store now; callers at the same time share the read. */
  refresh(): Promise<void>;
  close(): void;
}

export interface KeyStoreOptions {
  readonly algorithm?: SigningAlgorithm;
  /** Encrypts what is in the store. Undefined: who can read the store has the keys. */
  readonly encryption?: Secret | undefined;
  readonly clock?: Clock;
}

export interface KeysOptions extends KeyStoreOptions {
  /** Tells when other keys are in the store; without it they are seen at `refresh` only. */
  readonly watch?: Watch;
}

/** How long the phases of a rotation are. */
export interface RotationTiming {
  /** How long a new key is published before it signs. Default: until every verifier that obeys Cache-Control has it. */
  readonly publishMs?: number;
  /** How long an old key verifies after its last signature. Default: the longest life of a token that the settings allow. */
  readonly tokenMs?: number;
  /** How long an old cookie secret is accepted. Default: the longest session that the settings allow. */
  readonly sessionMs?: number;
}

export interface KeyStatus {
  readonly kid: string;
  readonly algorithm: SigningAlgorithm;
  readonly state: "next" | "signing" | "retired";
  /** Milliseconds since the epoch: when it begins, or began, to sign. */
  readonly signsFrom: number;
  /** When it stops to verify; undefined: nothing is planned. */
  readonly until: number | undefined;
}

/** How long a client may keep the key set (Cache-Control). */
export const KEY_SET_SECONDS = 300;
const MARGIN_MS = 60_000;
const TIMING = {
  publishMs: KEY_SET_SECONDS * 1000 + MARGIN_MS,
  tokenMs: 3_600_000 + MARGIN_MS,
  sessionMs: 720 * 3_600_000,
} as const satisfies Required<RotationTiming>;

/** Something that begins at one time and ends at another: what it is now follows from the clock alone. */
interface Timed {
  readonly signsFrom: number;
  readonly until?: number;
}
interface StoredKey extends Timed {
  readonly key: SigningKey;
}
interface StoredSecret extends Timed {
  readonly secret: string;
}
interface Content {
  readonly tokens: readonly StoredKey[];
  /** Cookies, forms and nonces. */
  readonly browsers: readonly StoredSecret[];
}

const KIND = "oauth:keys";
const ID = "set";
const TICK_MS = 250;

/**
 * Reads the keys, or makes them, and follows what becomes of them. Of two processes that start together, both end with the keys of
 * the first. When the settings want another algorithm than the newest key has, a rotation to it begins. Throws
 * `settings_invalid` when the stored keys cannot be read with this encryption secret.
 */
export async function loadKeys(records: Records, options: KeysOptions = {}): Promise<Keys> {
  const { watch, clock = systemClock } = options;
  let content = await readOrMake(records, options);
  let now = momentOf(content, clock());
  let reading: Promise<void> | undefined;
  const listeners: (() => void)[] = [];

  function turn(): void {
    const next = momentOf(content, clock());
    const changed = next.fingerprint !== now.fingerprint;
    now = next;
    if (changed) for (const listener of listeners) listener();
  }
  const refresh = (): Promise<void> => {
    reading ??= read(records, options)
      .then((stored) => {
        if (stored === undefined) return;
        content = stored.content;
        turn();
      })
      .finally(() => {
        reading = undefined;
      });
    return reading;
  };

  watch?.on("keys", () => {
    // When the store cannot be read the keys known stay, and the next announcement or unknown key makes us look again.
    refresh().catch(() => {});
  });
  const timer = setInterval(() => {
    if (clock() < now.nextAt) return;
    turn();
    // Whoever comes first deletes what has ended, so that an old private key is not kept longer than it is of use.
    change(records, options, (stored) => stored).catch(() => {});
  }, TICK_MS);
  timer.unref();

  const sealWith = (secret: string, browser: string, purpose: string) =>
    createHmac("sha256", secret).update(`${browser}\n${purpose}`).digest("base64url");
  return {
    get signing() {
      return now.signing;
    },
    get public() {
      return now.public;
    },
    get algorithm() {
      return now.algorithm;
    },
    get cookies() {
      return now.cookies;
    },
    seal: (browser, purpose) => sealWith(now.cookies[0] ?? "", browser, purpose),
    sealed(candidate, browser, purpose) {
      return now.cookies.some((secret) => sameText(candidate, sealWith(secret, browser, purpose)));
    },
    secretsFor: (purpose) => now.cookies.map((secret) => Buffer.from(hkdfSync("sha256", secret, "", purpose, 32))),
    onChange: (listener) => void listeners.push(listener),
    refresh,
    close: () => clearInterval(timer),
  };
}

/**
 * Begins a rotation, which running gateways carry through by themselves: the new key is published, signs when every verifier must
 * have seen it, and the old one is dropped when its last token has ended. While a new key of the algorithm waits to sign, that
 * rotation is the one; nothing else begins.
 */
export async function rotateKeys(records: Records, options: KeyStoreOptions & RotationTiming = {}): Promise<KeyStatus> {
  const { clock = systemClock } = options;
  const made = await newKey(options.algorithm ?? "ES256");
  let kid = made.kid;
  const content = await change(records, options, (stored) => {
    const now = clock();
    const waiting = stored.tokens.find(({ key, signsFrom }) => signsFrom > now && key.alg === made.alg);
    kid = waiting?.key.kid ?? made.kid;
    return waiting === undefined ? rotated(stored, made, now, { ...TIMING, ...options }) : stored;
  });
  return statusOf(content, kid, clock());
}

/**
 * Takes a key out of use at once, because somebody else may have it: what it signed is refused within a second by this server's
 * gateways. Other APIs may believe it until their copy of the key set is old (five minutes). Another key signs from now on.
 * Throws `not_found` when there is no such key.
 */
export async function revokeKey(records: Records, kid: string, options: KeyStoreOptions = {}): Promise<KeyStatus> {
  const { clock = systemClock } = options;
  const found = (await read(records, options))?.content.tokens.find(({ key }) => key.kid === kid)?.key;
  if (found === undefined)
    throw new DrawbridgeError("not_found", `There is no key ${kid}. \`drawbridge keys\` lists them.`);
  const made = await newKey(options.algorithm ?? found.alg);
  const content = await change(records, options, (stored) => {
    const now = clock();
    const left = stored.tokens.filter(({ key }) => key.kid !== kid);
    // A key that only verifies signs no more: without a successor nothing would.
    const signs = left.some((key) => key.signsFrom <= now && key.until === undefined);
    return signs ? { ...stored, tokens: left } : { ...stored, tokens: [...left, { key: made, signsFrom: now }] };
  });
  return statusOf(content, signingOf(content.tokens, clock()).key.kid, clock());
}

/** What keys there are, the newest first. */
export async function listKeys(records: Records, options: KeyStoreOptions = {}): Promise<readonly KeyStatus[]> {
  const { clock = systemClock } = options;
  const content = (await read(records, options))?.content;
  if (content === undefined) return [];
  return aliveAt(content.tokens, clock())
    .toSorted((a, b) => b.signsFrom - a.signsFrom)
    .map(({ key }) => statusOf(content, key.kid, clock()));
}

function rotated(stored: Content, made: SigningKey, now: number, timing: Required<RotationTiming>): Content {
  const signsFrom = now + timing.publishMs;
  // One that waits for its turn and will not get it has signed nothing.
  const begun = <T extends Timed>(all: readonly T[]) => all.filter((one) => one.signsFrom <= now);
  const ending = <T extends Timed>(all: readonly T[], afterMs: number) =>
    begun(all).map((one) => ({ ...one, until: Math.min(one.until ?? Infinity, signsFrom + afterMs) }));
  return {
    tokens: [...ending(stored.tokens, timing.tokenMs), { key: made, signsFrom }],
    browsers: [...ending(stored.browsers, timing.sessionMs), { secret: newToken(), signsFrom }],
  };
}

interface Moment extends Pick<Keys, "signing" | "public" | "algorithm" | "cookies"> {
  /** When it will be otherwise. */
  readonly nextAt: number;
  readonly fingerprint: string;
}

function momentOf(content: Content, now: number): Moment {
  const signing = inOrder(content.tokens, now).map(({ key }) => key);
  const cookies = inOrder(content.browsers, now).map(({ secret }) => secret);
  const times = [...content.tokens, ...content.browsers].flatMap(({ signsFrom, until = Infinity }) => [
    signsFrom,
    until,
  ]);
  return {
    signing,
    public: signing.map(publicPart),
    algorithm: signingOf(content.tokens, now).key.alg,
    cookies,
    nextAt: Math.min(...times.filter((time) => time > now)),
    fingerprint: hash("sha256", JSON.stringify([signing.map(({ kid }) => kid), cookies])),
  };
}

const aliveAt = <T extends Timed>(all: readonly T[], now: number) => all.filter(({ until = Infinity }) => until > now);

/** The one that signs, then all others that verify. */
function inOrder<T extends Timed>(all: readonly T[], now: number): readonly T[] {
  const first = signingOf(all, now);
  return [first, ...aliveAt(all, now).filter((one) => one !== first)];
}

/** The newest that has begun. */
function signingOf<T extends Timed>(all: readonly T[], now: number): T {
  const [newest] = aliveAt(all, now)
    .filter(({ signsFrom }) => signsFrom <= now)
    .toSorted((a, b) => b.signsFrom - a.signsFrom);
  // A clock that stands before the first key was made still signs with it.
  const [earliest] = all.toSorted((a, b) => a.signsFrom - b.signsFrom);
  const signing = newest ?? earliest;
  if (signing === undefined) throw new DrawbridgeError("internal", "There is no key in the store.");
  return signing;
}

function statusOf({ tokens }: Content, kid: string, now: number): KeyStatus {
  const stored = tokens.find(({ key }) => key.kid === kid);
  if (stored === undefined) throw new DrawbridgeError("not_found", `There is no key ${kid}.`);
  const { key, signsFrom, until } = stored;
  const state = signsFrom > now ? "next" : signingOf(tokens, now) === stored ? "signing" : "retired";
  return { kid, algorithm: key.alg, state, signsFrom, until };
}

async function readOrMake(records: Records, options: KeyStoreOptions): Promise<Content> {
  const { algorithm = "ES256", encryption, clock = systemClock } = options;
  const stored = await read(records, options);
  if (stored === undefined) {
    const signsFrom = clock();
    const made: Content = {
      tokens: [{ key: await newKey(algorithm), signsFrom }],
      browsers: [{ secret: newToken(), signsFrom }],
    };
    if (await records.put(KIND, ID, encoded(made, encryption), { ifVersion: 0 })) return made;
    return readOrMake(records, options);
  }
  const [newest] = stored.content.tokens.toSorted((a, b) => b.signsFrom - a.signsFrom);
  if (newest !== undefined && newest.key.alg !== algorithm) await rotateKeys(records, { ...options, algorithm });
  // Keys from before there was a secret are encrypted with it now.
  else if (encryption !== undefined && stored.plain) await change(records, options, (content) => content);
  else return stored.content;
  return (await read(records, options))?.content ?? stored.content;
}

interface Read {
  readonly content: Content;
  readonly version: number;
  /** What is in the store is not encrypted. */
  readonly plain: boolean;
}

async function read(records: Records, { encryption }: KeyStoreOptions): Promise<Read | undefined> {
  const row = await records.get<Content | Encrypted>(KIND, ID);
  if (row === undefined) return undefined;
  const { value, version } = row;
  if (!("encrypted" in value)) return { content: value, version, plain: true };
  return { content: decrypted(value, encryption), version, plain: false };
}

/** Changes the stored keys, drops what has ended, and tells every gateway when there is anything to tell. */
async function change(
  records: Records,
  options: KeyStoreOptions,
  make: (stored: Content) => Content,
): Promise<Content> {
  const { encryption, clock = systemClock } = options;
  for (;;) {
    const stored = await read(records, options);
    if (stored === undefined) {
      await readOrMake(records, options);
      continue;
    }
    const made = make(stored.content);
    const content: Content = { tokens: aliveAt(made.tokens, clock()), browsers: aliveAt(made.browsers, clock()) };
    const same = JSON.stringify(content) === JSON.stringify(stored.content);
    if (same && !(stored.plain && encryption !== undefined)) return content;
    if (await records.put(KIND, ID, encoded(content, encryption), { ifVersion: stored.version })) {
      await announceTo(records, "keys");
      return content;
    }
  }
}

async function newKey(algorithm: SigningAlgorithm): Promise<SigningKey> {
  const { privateKey } = await generateKeyPair(algorithm, { extractable: true, modulusLength: 2048 });
  const jwk = await exportJWK(privateKey);
  const { kty, d } = jwk;
  if (kty === undefined || d === undefined) throw new DrawbridgeError("internal", "A key could not be made.");
  return { ...jwk, kty, d, kid: await calculateJwkThumbprint(jwk), alg: algorithm, use: "sig" };
}

/** RFC 7518 §6: `d`, and for RSA what makes it faster, are private. */
function publicPart({ d: _d, p: _p, q: _q, dp: _dp, dq: _dq, qi: _qi, oth: _oth, ...rest }: SigningKey): PublicKey {
  return rest;
}

interface Encrypted {
  /** AES-256-GCM: 12 bytes of nonce, the text, 16 bytes of tag. base64url. */
  readonly encrypted: string;
}

const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const keyFrom = (secret: Secret) => Buffer.from(hkdfSync("sha256", secret.reveal(), "", "drawbridge keys at rest", 32));

function encoded(content: Content, secret: Secret | undefined): Content | Encrypted {
  if (secret === undefined) return content;
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv("aes-256-gcm", keyFrom(secret), nonce).setAAD(Buffer.from(`${KIND}/${ID}`));
  const text = Buffer.concat([cipher.update(JSON.stringify(content), "utf8"), cipher.final()]);
  return { encrypted: Buffer.concat([nonce, text, cipher.getAuthTag()]).toString("base64url") };
}

function decrypted({ encrypted }: Encrypted, secret: Secret | undefined): Content {
  if (secret === undefined)
    throw new DrawbridgeError(
      "settings_invalid",
      "The keys in the store are encrypted. Set tokens.keyEncryptionSecret to the secret they were encrypted with.",
    );
  const bytes = Buffer.from(encrypted, "base64url");
  try {
    const decipher = createDecipheriv("aes-256-gcm", keyFrom(secret), bytes.subarray(0, NONCE_BYTES), {
      authTagLength: TAG_BYTES,
    });
    decipher.setAAD(Buffer.from(`${KIND}/${ID}`)).setAuthTag(bytes.subarray(-TAG_BYTES));
    const text = [decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()];
    return JSON.parse(Buffer.concat(text).toString("utf8")) as Content;
  } catch (cause) {
    throw new DrawbridgeError(
      "settings_invalid",
      "The keys in the store were encrypted with another secret than tokens.keyEncryptionSecret, or changed since.",
      { cause },
    );
  }
}

function sameText(a: string, b: string): boolean {
  return timingSafeEqual(hash("sha256", a, "buffer"), hash("sha256", b, "buffer"));
}
