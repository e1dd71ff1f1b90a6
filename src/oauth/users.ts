/** People kept by Drawbridge itself: their names, groups and passwords (argon2id), and the one-time link that makes the first. */
import { argon2, hash, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newId, newToken } from "../core/ids.ts";
import type { Records } from "../store/ports.ts";
import { throttle } from "./throttle.ts";

export interface User {
  /** Stable, never reused: the `sub` of tokens. */
  readonly id: string;
  /** What they sign in with. */
  readonly name: string;
  readonly email: string | undefined;
  readonly groups: readonly string[];
  readonly disabled: boolean;
  /** PHC string of the password. */
  readonly password: string;
  readonly createdAt: number;
}

export interface NewUser {
  readonly name: string;
  readonly email: string | undefined;
  readonly password: string;
  readonly groups: readonly string[];
}

export type SignInResult =
  | { readonly ok: true; readonly user: User }
  | { readonly ok: false; readonly reason: "wrong-credentials" }
  | { readonly ok: false; readonly reason: "throttled"; readonly retryAfterSeconds: number };

export interface Users {
  find(id: string): Promise<User | undefined>;
  /** True when there is no user at all. */
  none(): Promise<boolean>;
  /** Problems a person can repair, in their words; empty when `create` will accept it. */
  problems(user: Pick<NewUser, "name" | "email" | "password">): readonly string[];
  /** Rejects with `invalid_request` when the name is taken. */
  create(user: NewUser): Promise<User>;
  /**
   * Checks a name and password. An unknown name, a disabled user and a wrong password take the same time and give the same
   * answer; tries are counted per name and per source whether or not the name exists.
   */
  signIn(name: string, password: string, source: string): Promise<SignInResult>;
  /** False when `current` is not the password; counted like a sign-in. */
  changePassword(id: string, current: string, next: string): Promise<boolean>;
  setDisabled(id: string, disabled: boolean): Promise<void>;
  /** Makes the one-time set-up token; an earlier one is void. */
  newSetupToken(): Promise<string>;
  /** Whether the token would be accepted now. */
  setupTokenValid(token: string): Promise<boolean>;
  /** Spends the token: of two callers exactly one gets true. */
  spendSetupToken(token: string): Promise<boolean>;
}

export const MIN_PASSWORD_LENGTH = 12;
const MAX_PASSWORD_LENGTH = 256;
const SETUP_HOURS = 24;
const USER = "oauth:user";
/** One row per name that is taken: what makes names unique. */
const NAME = "oauth:user-name";
const SETUP = "oauth:setup";

export function usersIn(records: Records, clock: Clock = systemClock): Users {
  // The fifth wrong password has to wait; guessing one name stays below 3,000 tries a day. A source may be a whole office.
  const perName = throttle({ burst: 5, secondsPerTry: 30 }, clock);
  const perSource = throttle({ burst: 30, secondsPerTry: 5 }, clock);
  const normal = (name: string) => name.normalize("NFKC").trim().toLowerCase();
  const setupKey = (token: string) => hash("sha256", token, "base64url");

  const find = async (id: string) => (await records.get<User>(USER, id))?.value;

  async function update(id: string, change: (user: User) => User): Promise<void> {
    for (;;) {
      const row = await records.get<User>(USER, id);
      if (row === undefined) return;
      if (await records.put(USER, id, change(row.value), { ifVersion: row.version })) return;
    }
  }

  return {
    find,
    async none() {
      return (await records.list(USER, { limit: 1 })).length === 0;
    },
    problems({ name, email, password }) {
      const found: string[] = [];
      if (!/^[\p{L}\p{N}][\p{L}\p{N}._@+-]{0,99}$/u.test(name.trim())) {
        found.push("Choose a name of letters, digits and . _ @ + -, up to 100 characters.");
      }
      if (email !== undefined && !/^[^\s@]{1,64}@[^\s@]{1,190}$/.test(email))
        found.push("This is not an e-mail address.");
      if (password.length < MIN_PASSWORD_LENGTH) {
        found.push(`Choose a password of at least ${MIN_PASSWORD_LENGTH} characters. A few words in a row do well.`);
      }
      if (password.length > MAX_PASSWORD_LENGTH)
        found.push(`A password has at most ${MAX_PASSWORD_LENGTH} characters.`);
      if (name !== "" && normal(password) === normal(name)) found.push("The password may not be the name.");
      return found;
    },
    async create({ name, email, password, groups }) {
      const user: User = {
        id: newId(clock()),
        name: name.trim(),
        email,
        groups,
        disabled: false,
        password: await hashPassword(password),
        createdAt: clock(),
      };
      if (!(await records.put(NAME, normal(name), { id: user.id }, { ifVersion: 0 }))) {
        throw new DrawbridgeError("invalid_request", `The name ${user.name} is taken. Choose another.`);
      }
      await records.put(USER, user.id, user);
      return user;
    },
    async signIn(name, password, source) {
      const wait = Math.max(perSource.take(source), perName.take(normal(name)));
      if (wait > 0) return { ok: false, reason: "throttled", retryAfterSeconds: wait };
      const taken = await records.get<{ id: string }>(NAME, normal(name).slice(0, 200));
      const user = taken === undefined ? undefined : await find(taken.value.id);
      const right = await checkPassword(password, user?.password);
      if (user === undefined || user.disabled || !right) return { ok: false, reason: "wrong-credentials" };
      perName.reset(normal(name));
      return { ok: true, user };
    },
    async changePassword(id, current, next) {
      if (perName.take(id) > 0) return false;
      const user = await find(id);
      if (!(await checkPassword(current, user?.password))) return false;
      perName.reset(id);
      const password = await hashPassword(next);
      await update(id, (stored) => ({ ...stored, password }));
      return true;
    },
    setDisabled: (id, disabled) => update(id, (user) => ({ ...user, disabled })),
    async newSetupToken() {
      const token = newToken();
      await records.put(SETUP, "link", { key: setupKey(token) }, { expiresAt: clock() + SETUP_HOURS * 3_600_000 });
      return token;
    },
    async setupTokenValid(token) {
      return (await records.get<{ key: string }>(SETUP, "link"))?.value.key === setupKey(token);
    },
    async spendSetupToken(token) {
      const row = await records.get<{ key: string }>(SETUP, "link");
      if (row?.value.key !== setupKey(token)) return false;
      // Spent by a write that only one can win, so that a link made meanwhile by a new start is not the one deleted.
      const spent = await records.put(
        SETUP,
        "link",
        { key: "" },
        { ifVersion: row.version, expiresAt: clock() + 1000 },
      );
      return spent;
    },
  };
}

/** OWASP's second argon2id profile: 19 MiB, two passes, one lane (RFC 9106 encodes them into the PHC string). */
const COST = { memory: 19_456, passes: 2, parallelism: 1, tagLength: 32 } as const;
const derive = promisify(argon2);
/** So that an unknown name costs what a known one does. */
const NOBODY = `$argon2id$v=19$m=${COST.memory},t=${COST.passes},p=${COST.parallelism}$${"A".repeat(22)}$${"A".repeat(43)}`;

async function hashPassword(password: string): Promise<string> {
  const nonce = randomBytes(16);
  const tag = await inTurn(() => derive("argon2id", { message: password, nonce, ...COST }));
  return `$argon2id$v=19$m=${COST.memory},t=${COST.passes},p=${COST.parallelism}$${plain64(nonce)}$${plain64(tag)}`;
}

async function checkPassword(password: string, phc: string = NOBODY): Promise<boolean> {
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
