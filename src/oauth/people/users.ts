/**
 * People: those kept by Drawbridge itself (name, groups, password), those who come from an identity provider, and the one-time
 * links that make the first one or let somebody choose a password.
 */
import { hash } from "node:crypto";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { newId, newToken } from "../../core/ids.ts";
import { networkOf } from "../../net/source.ts";
import type { Page, Records, Row } from "../../store/ports.ts";
import { throttle } from "../throttle.ts";
import { announceTo } from "../watch.ts";
import { checkPassword, hashPassword, MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH } from "./passwords.ts";

export interface User {
  /** Stable, never reused: the `sub` of tokens. */
  readonly id: string;
  /** What a local user signs in with, unique among them. Of a user from a provider only what they are called: names clash. */
  readonly name: string;
  /** Of a user from a provider: present only when the provider has verified it. */
  readonly email: string | undefined;
  /** Of a user from a provider: those of the last sign-in. */
  readonly groups: readonly string[];
  readonly disabled: boolean;
  /** PHC string. Absent: from a provider, or invited and not yet chosen. */
  readonly password?: string;
  /** Absent: kept by Drawbridge itself. */
  readonly from?: ProviderSubject;
  readonly createdAt: number;
}

/** Who somebody is at a provider: its name in the settings, and the `sub` there. */
export interface ProviderSubject {
  readonly provider: string;
  readonly subject: string;
}

export interface NewUser {
  readonly name: string;
  readonly email: string | undefined;
  /** Undefined: nobody can sign in as this user before an invitation was accepted. */
  readonly password: string | undefined;
  readonly groups: readonly string[];
}

/** What a provider said about somebody who signed in there. */
export interface FederatedUser extends ProviderSubject {
  readonly name: string;
  readonly email: string | undefined;
  readonly groups: readonly string[];
}

export type SignInResult =
  | { readonly ok: true; readonly user: User }
  | { readonly ok: false; readonly reason: "wrong-credentials" }
  | { readonly ok: false; readonly reason: "throttled"; readonly retryAfterSeconds: number };

export interface Users {
  find(id: string): Promise<User | undefined>;
  /** Whom a provider's `sub` stands for here; undefined before the first sign-in, and after `remove`. */
  findByProvider(provider: string, subject: string): Promise<User | undefined>;
  /** By id, by a local user's name, or by `provider:subject`. */
  lookUp(text: string): Promise<User | undefined>;
  /** All, oldest first. */
  list(page: Page): Promise<readonly User[]>;
  /** True when there is no user at all. */
  none(): Promise<boolean>;
  /** True when nobody has an account of our own: whoever there is comes from a provider. */
  noneLocal(): Promise<boolean>;
  /** Problems a person can repair, in their words; empty when `create` will accept it. */
  problems(user: Pick<NewUser, "name" | "email" | "password">): readonly string[];
  /** Rejects with `invalid_request` when the name is taken. */
  create(user: NewUser): Promise<User>;
  /**
   * The user of a person who signed in at a provider, made at the first sign-in, brought up to date at each. Of concurrent
   * first sign-ins one makes the user and all get it. It is never one that is kept here, nor another provider's, whatever the
   * name or e-mail address. Who is disabled stays so.
   */
  federate(user: FederatedUser): Promise<User>;
  /**
   * Checks a name and password. An unknown name, a disabled user and a wrong password take the same time and give the same
   * answer; tries are counted per name and per source whether or not the name exists.
   */
  signIn(name: string, password: string, source: string): Promise<SignInResult>;
  /** False when `current` is not the password; counted like a sign-in. */
  changePassword(id: string, current: string, next: string): Promise<boolean>;
  /** For the operator. Sessions go on: end them with `sessions.endAll`. Rejects with `invalid_request` for a provider's user. */
  setPassword(id: string, password: string): Promise<void>;
  /** Rejects with `invalid_request` for a provider's user, whose groups the next sign-in would bring back. */
  setGroups(id: string, groups: readonly string[]): Promise<void>;
  setDisabled(id: string, disabled: boolean): Promise<void>;
  /**
   * Deletes a user with all that is stored under their id: sessions, consents, grants, tokens. Nobody gets the id again; the
   * name is free. A person from a provider who signs in again is a new user (to keep somebody out, disable them). Other
   * processes believe a token they have verified until they hear of it (`grants.endUser`).
   */
  remove(id: string): Promise<void>;
  /**
   * Makes the token of a one-time link, valid for 24 h, with which a local user chooses a password; an earlier one of theirs is
   * void. Rejects with `invalid_request` for a provider's user or an unknown one.
   */
  newInvitation(id: string): Promise<string>;
  /** Whom the token is for, if it would be accepted now. */
  invited(token: string): Promise<User | undefined>;
  /** Spends the token and sets the password: of two callers exactly one gets the user. */
  acceptInvitation(token: string, password: string): Promise<User | undefined>;
  /** Makes the one-time set-up token; an earlier one is void. */
  newSetupToken(): Promise<string>;
  /** Whether the token would be accepted now. */
  setupTokenValid(token: string): Promise<boolean>;
  /** Spends the token: of two callers exactly one gets true. */
  spendSetupToken(token: string): Promise<boolean>;
}

const LINK_MS = 24 * 3_600_000;
const USER = "oauth:user";
/** One row per name that is taken: what makes names unique. */
const NAME = "oauth:user-name";
/** One row per person at a provider. */
const FROM = "oauth:user-from";
const INVITATION = "oauth:invitation";
const SETUP = "oauth:setup";
/** Finds all users, and not what is left of those removed. */
const ALL = { users: "all" };
const indexOf = (user: User) => (user.from === undefined ? { ...ALL, local: "yes" } : ALL);

/** What is left of a removed user, so that nothing under way brings the id back to life. */
interface Removed {
  readonly id: string;
  readonly removedAt: number;
}
interface Pointer {
  readonly id: string;
}

export function usersIn(records: Records, clock: Clock = systemClock): Users {
  // The fifth wrong password has to wait; guessing one name stays below 3,000 tries a day. A source may be a whole office.
  const perName = throttle({ burst: 5, secondsPerTry: 30 }, clock);
  const perSource = throttle({ burst: 30, secondsPerTry: 5 }, clock);
  const normal = (name: string) => name.normalize("NFKC").trim().toLowerCase().slice(0, 200);
  const digest = (text: string) => hash("sha256", text, "base64url");
  const fromKey = (provider: string, subject: string) => digest(JSON.stringify([provider, subject]));
  const present = (row: Row<User | Removed> | undefined) =>
    row === undefined || "removedAt" in row.value ? undefined : row.value;

  const find = async (id: string) => present(await records.get<User | Removed>(USER, id));

  async function at(kind: string, key: string): Promise<User | undefined> {
    const pointer = await records.get<Pointer>(kind, key);
    // Looked up even when there is nobody, so that the time it takes says nothing.
    return find(pointer?.value.id ?? "nobody");
  }

  /** Does nothing for a user who is not there. */
  async function update(id: string, change: (user: User) => User): Promise<User | undefined> {
    for (;;) {
      const row = await records.get<User | Removed>(USER, id);
      const user = present(row);
      if (row === undefined || user === undefined) return undefined;
      const changed = change(user);
      if (await records.put(USER, id, changed, { ifVersion: row.version, index: indexOf(changed) })) return changed;
    }
  }

  async function local(id: string): Promise<User> {
    const user = await find(id);
    if (user === undefined) throw new DrawbridgeError("invalid_request", `There is no user ${id}.`);
    if (user.from === undefined) return user;
    throw new DrawbridgeError(
      "invalid_request",
      `${user.name} comes from ${user.from.provider}: password and groups are kept there.`,
    );
  }

  /** Takes a name that nobody has: the version of its row; undefined when somebody has it, or is about to. */
  async function claimName(name: string, id: string, expiresAt: number): Promise<number | undefined> {
    if (await records.put(NAME, name, { id } satisfies Pointer, { ifVersion: 0, expiresAt })) return 1;
    const row = await records.get<Pointer>(NAME, name);
    // One that lasts and leads to nobody is what is left of a user whose making or removal failed.
    if (row === undefined || row.expiresAt !== undefined || (await find(row.value.id)) !== undefined) return undefined;
    const won = await records.put(NAME, name, { id } satisfies Pointer, { ifVersion: row.version, expiresAt });
    return won ? row.version + 1 : undefined;
  }

  /** Frees what points to a user, unless it points to another one by now. */
  async function release(kind: string, key: string, id: string): Promise<void> {
    const row = await records.get<Pointer>(kind, key);
    if (row?.value.id !== id) return;
    await records.put(kind, key, row.value, { ifVersion: row.version, expiresAt: clock() + 1 });
  }

  return {
    find,
    findByProvider: (provider, subject) => at(FROM, fromKey(provider, subject)),
    async lookUp(text) {
      const colon = text.indexOf(":");
      return (
        (await find(text)) ??
        (await at(NAME, normal(text))) ??
        (colon < 0 ? undefined : await at(FROM, fromKey(text.slice(0, colon), text.slice(colon + 1))))
      );
    },
    async list(page) {
      return (await records.find<User>(USER, "users", ALL.users, page)).map(({ value }) => value);
    },
    async none() {
      return (await records.find(USER, "users", ALL.users, { limit: 1 })).length === 0;
    },
    async noneLocal() {
      return (await records.find(USER, "local", "yes", { limit: 1 })).length === 0;
    },
    problems({ name, email, password }) {
      const found: string[] = [];
      if (!/^[\p{L}\p{N}][\p{L}\p{N}._@+-]{0,99}$/u.test(name.trim())) {
        found.push("Choose a name of letters, digits and . _ @ + -, up to 100 characters.");
      }
      if (email !== undefined && !/^[^\s@]{1,64}@[^\s@]{1,190}$/.test(email))
        found.push("This is not an e-mail address.");
      return password === undefined ? found : [...found, ...passwordProblems(password, normal(name))];
    },
    async create({ name, email, password, groups }) {
      const now = clock();
      const user: User = {
        id: newId(now),
        name: name.trim(),
        email,
        groups,
        disabled: false,
        ...(password === undefined ? {} : { password: await hashPassword(password) }),
        createdAt: now,
      };
      // For a minute only, until all is there: if this process dies in between, neither a name is lost nor somebody left who has none.
      const forNow = { expiresAt: now + 60_000 };
      const claimed = await claimName(normal(name), user.id, forNow.expiresAt);
      const taken = () => new DrawbridgeError("invalid_request", `The name ${user.name} is taken. Choose another.`);
      if (claimed === undefined) throw taken();
      await records.put(USER, user.id, user, { ...forNow, index: indexOf(user) });
      if (!(await records.put(NAME, normal(name), { id: user.id }, { ifVersion: claimed }))) throw taken();
      await records.put(USER, user.id, user, { index: indexOf(user) });
      return user;
    },
    async federate({ provider, subject, name, email, groups }) {
      const key = fromKey(provider, subject);
      for (;;) {
        const pointer = await records.get<Pointer>(FROM, key);
        const row = pointer && (await records.get<User | Removed>(USER, pointer.value.id));
        if (pointer === undefined || (row !== undefined && present(row) === undefined)) {
          // Of those who come here together one writes the id; then all of them go on with it.
          await records.put(FROM, key, { id: newId(clock()) }, { ifVersion: pointer?.version ?? 0 });
          continue;
        }
        const known = present(row);
        const user: User = {
          id: pointer.value.id,
          name,
          email,
          groups,
          disabled: known?.disabled ?? false,
          from: { provider, subject },
          createdAt: known?.createdAt ?? clock(),
        };
        if (!(await records.put(USER, user.id, user, { ifVersion: row?.version ?? 0, index: indexOf(user) }))) continue;
        // What a token may do is remembered with it for a moment; the announcement ends that.
        if (known !== undefined && rightsOf(known) !== rightsOf(user)) await announceTo(records, "ended");
        return user;
      }
    },
    async signIn(name, password, source) {
      // A source that has to wait takes no tries of a name with it: else it could lock its owner out.
      const wait = perSource.take(networkOf(source)) || perName.take(normal(name));
      if (wait > 0) return { ok: false, reason: "throttled", retryAfterSeconds: wait };
      const user = await at(NAME, normal(name));
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
      // Unless another password was set meanwhile: whoever knew the old one must not undo that.
      const changed = await update(id, (stored) =>
        stored.password === user?.password ? { ...stored, password } : stored,
      );
      return changed?.password === password;
    },
    async setPassword(id, next) {
      await local(id);
      const password = await hashPassword(next);
      await update(id, (user) => ({ ...user, password }));
    },
    async setGroups(id, groups) {
      await local(id);
      await update(id, (user) => ({ ...user, groups }));
    },
    async setDisabled(id, disabled) {
      await update(id, (user) => ({ ...user, disabled }));
    },
    async remove(id) {
      const user = await find(id);
      if (user === undefined) return;
      const removed: Removed = { id, removedAt: clock() };
      await records.put(USER, id, removed);
      if (user.from === undefined) await release(NAME, normal(user.name), id);
      else await release(FROM, fromKey(user.from.provider, user.from.subject), id);
      await records.deleteWhere("user", id);
    },
    async newInvitation(id) {
      await local(id);
      const token = newToken();
      await records.deleteWhere("user", id, INVITATION);
      await records.put(INVITATION, digest(token), { id }, { expiresAt: clock() + LINK_MS, index: { user: id } });
      return token;
    },
    async invited(token) {
      const user = await at(INVITATION, digest(token));
      return user?.disabled === false ? user : undefined;
    },
    async acceptInvitation(token, next) {
      const password = await hashPassword(next);
      const row = await records.take<Pointer>(INVITATION, digest(token));
      const user = row && (await find(row.value.id));
      if (user === undefined || user.disabled) return undefined;
      return update(user.id, (stored) => ({ ...stored, password }));
    },
    async newSetupToken() {
      const token = newToken();
      await records.put(SETUP, "link", { key: digest(token) }, { expiresAt: clock() + LINK_MS });
      return token;
    },
    async setupTokenValid(token) {
      return (await records.get<{ key: string }>(SETUP, "link"))?.value.key === digest(token);
    },
    async spendSetupToken(token) {
      const row = await records.get<{ key: string }>(SETUP, "link");
      if (row?.value.key !== digest(token)) return false;
      // Spent by a write that only one can win, so that a link made meanwhile by a new start is not the one deleted.
      return records.put(SETUP, "link", { key: "" }, { ifVersion: row.version, expiresAt: clock() + 1000 });
    },
  };
}

/** What policies see of a user. */
function rightsOf({ name, email, groups }: User): string {
  return JSON.stringify([name, email, groups]);
}

function passwordProblems(password: string, name: string): string[] {
  const found: string[] = [];
  if (password.length < MIN_PASSWORD_LENGTH) {
    found.push(`Choose a password of at least ${MIN_PASSWORD_LENGTH} characters. A few words in a row do well.`);
  }
  if (password.length > MAX_PASSWORD_LENGTH) found.push(`A password has at most ${MAX_PASSWORD_LENGTH} characters.`);
  if (name !== "" && password.normalize("NFKC").trim().toLowerCase() === name)
    found.push("The password may not be the name.");
  return found;
}
