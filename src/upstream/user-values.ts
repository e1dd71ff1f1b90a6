/** Values that are different for each user (`userEnvironment`, `userHeaders`): bound to whoever calls, or to nobody. */
import type { Authenticated, JsonObject, JsonValue } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { isObject } from "../mcp/json-text.ts";
import type { UserValue } from "./settings.ts";

/**
 * The secret `name` of one user; undefined when nobody provides it. Cheap: reads a file again only when that changed, and looks at
 * most once a second.
 */
export type ReadUserSecret = (name: string, subject: string) => Promise<Secret | undefined>;

export type Bound = Readonly<Record<string, string | Secret>>;

export interface UserValues {
  /** There are none, for anybody. */
  readonly empty: boolean;
  /**
   * What tells callers apart beside their subject: the values that come from their token, as text. Callers of one subject with
   * different texts must not share a process or session.
   */
  trait(by: Authenticated): string;
  /**
   * All values for one caller, as they are now. Rejects with `upstream_unavailable` when one is missing or cannot be used; the
   * message says what the operator has to provide, and never has a value in it.
   */
  for(by: Authenticated): Promise<Bound>;
  /** For what is asked on nobody's behalf. Values without `otherwise` are left out. */
  otherwise(): Bound;
  /** The names that have no `otherwise`. */
  readonly ownOnly: readonly string[];
}

/** Whether two answers of `for` are the same. */
export function sameValues(some: Bound, others: Bound): boolean {
  const names = Object.keys(some);
  return (
    names.length === Object.keys(others).length &&
    names.every((name) => Object.hasOwn(others, name) && text(some[name]) === text(others[name]))
  );
}

/** `setting`: where the values are written, which decides what a value may hold. */
export function userValues(
  server: string,
  setting: "userEnvironment" | "userHeaders",
  values: Readonly<Record<string, UserValue>>,
  readUserSecret: ReadUserSecret,
): UserValues {
  const entries = Object.entries(values);
  const refuse = (why: string, detail: string) =>
    new DrawbridgeError("upstream_unavailable", `The server "${server}" cannot be used by you yet: ${why}`, { detail });

  /** Undefined when it is missing, or no text. */
  async function read(value: UserValue, by: Authenticated): Promise<string | Secret | undefined> {
    return "secret" in value ? readUserSecret(value.secret, by.subject) : ofToken(value.from, by);
  }

  return {
    empty: entries.length === 0,
    trait: (by) =>
      JSON.stringify(entries.map(([, value]) => ("from" in value ? (ofToken(value.from, by) ?? null) : null))),
    async for(by) {
      const bound: Record<string, string | Secret> = {};
      for (const [name, value] of entries) {
        const found = await read(value, by);
        const where = `servers.${server}.${setting}.${name}`;
        if (found === undefined) throw refuse(missing(value, by), `${where} has no value for ${by.subject}`);
        if (!USABLE[setting](text(found), "from" in value))
          throw refuse(
            `${nameOf(value)} has characters that cannot be passed on. Ask the operator to correct it.`,
            `${where} has control characters for ${by.subject}`,
          );
        bound[name] = found;
      }
      return bound;
    },
    otherwise: () =>
      Object.fromEntries(
        entries.flatMap(([name, { otherwise }]) => (otherwise === undefined ? [] : [[name, otherwise]])),
      ),
    ownOnly: entries.filter(([, { otherwise }]) => otherwise === undefined).map(([name]) => name),
  };
}

/** A subject as the name of a file: one segment, different for different subjects. */
export function subjectFile(subject: string): string {
  const hex = (number: number) => number.toString(16).toUpperCase().padStart(2, "0");
  return subject.replace(/[^A-Za-z0-9_-]/gu, (character) =>
    // Halves of surrogate pairs would all be the same bytes.
    character.isWellFormed()
      ? [...Buffer.from(character)].map((byte) => `%${hex(byte)}`).join("")
      : `%u${hex(character.charCodeAt(0))}`,
  );
}

/** What a value of a token says; only texts, numbers and truth values can be passed on. */
function ofToken(from: string, by: Authenticated): string | undefined {
  if (from === "subject") return by.subject;
  if (from === "client") return by.client;
  const value = claimOf(by.claims, from.slice("claims.".length));
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean"
    ? String(value)
    : undefined;
}

/** A claim by its name, which may have dots in it, or by the way to it. */
function claimOf(claims: JsonObject, name: string): JsonValue | undefined {
  if (Object.hasOwn(claims, name)) return claims[name];
  let value: JsonValue | undefined = claims;
  for (const part of name.split(".")) value = isObject(value) && Object.hasOwn(value, part) ? value[part] : undefined;
  return value;
}

function missing(value: UserValue, by: Authenticated): string {
  if ("from" in value) return `your token has no ${nameOf(value)} that can be passed on.`;
  return `${nameOf(value)} is not provided for you. Ask the operator to put it in secrets/${value.secret}/${subjectFile(by.subject)}.`;
}

const nameOf = (value: UserValue) => ("secret" in value ? `the secret ${value.secret}` : value.from);

const text = (value: string | Secret | undefined) => (value instanceof Secret ? value.reveal() : value);

/** What a value may hold: one line when it comes from a token; a secret may be a key of several, but not in a header. */
const USABLE = {
  userEnvironment: (value: string | undefined, ofToken: boolean) => !(ofToken ? CONTROL : NUL).test(value ?? ""),
  // RFC 9110 §5.5; what is not ASCII would be sent as something else.
  userHeaders: (value: string | undefined) => /^[\x20-\x7e]*$/.test(value ?? ""),
} as const;
const CONTROL = /[\x00-\x1f\x7f]/;
const NUL = /\x00/;
