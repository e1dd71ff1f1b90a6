/** On whose behalf requests to a server over HTTP go, and what each carries for that: a credential, headers of the user's own. */
import type { Authenticated } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import type { UpstreamCredentials } from "./credentials.ts";
import type { Party } from "./endpoint.ts";
import type { HttpServerSettings } from "./settings.ts";
import { type Bound, type ReadUserSecret, type UserValues, userValues } from "./user-values.ts";

export interface Parties {
  /** Ourselves: who the server is, what it lists, the end of an unused session. */
  readonly own: Party;
  /** A caller. `by` is asked each time: tokens are refreshed while a session lives. */
  of(by: () => Authenticated): Party;
  /** For the end of a caller's session, by when its last token has often ended: then the session is ours to end. */
  ending(by: Authenticated): Party;
  /** Callers of one subject with different traits are different users for the server. */
  trait(by: Authenticated): string;
}

export function parties(credentials: UpstreamCredentials | undefined, values: UserValues): Parties {
  const named = !values.empty;
  return {
    own: {
      credential: credentials && ((signal, refused, said) => credentials.own(signal, refused, said)),
      headers: named ? async () => written(values.otherwise()) : undefined,
    },
    of: (by) => ({
      credential: credentials && ((signal, refused, said) => credentials.for(by(), signal, refused, said)),
      headers: named ? async () => written(await values.for(by())) : undefined,
    }),
    ending: (by) => ({
      credential:
        credentials &&
        ((signal, refused, said) =>
          credentials.for(by, signal, refused, said).catch((error: unknown) => {
            // Where accounts are connected, ours may be another person's, whose token has no place in this session.
            if (credentials.lacks !== undefined) throw error;
            return credentials.own(signal, refused, said);
          })),
      headers: named ? async () => written(await values.for(by).catch(() => values.otherwise())) : undefined,
    }),
    trait: values.trait,
  };
}

const written = (bound: Bound): string[] =>
  Object.entries(bound).flatMap(([name, value]) => [
    name.toLowerCase(),
    value instanceof Secret ? value.reveal() : value,
  ]);

const noSecret: ReadUserSecret = async () => undefined;

/** `userHeaders` of a server. Throws `settings_invalid` for those that say how we speak, or that something else goes into. */
export function userHeadersOf(
  name: string,
  { userHeaders, headers, isolation, credentials }: HttpServerSettings,
  readUserSecret: ReadUserSecret = noSecret,
): UserValues {
  const taken = [...OUR_HEADERS, ...Object.keys(headers), ...(credentials === undefined ? [] : ["authorization"])];
  const refuse = (why: string) => new DrawbridgeError("settings_invalid", `\`servers.${name}.userHeaders\` ${why}`);
  const names = Object.keys(userHeaders).map((header) => header.toLowerCase());
  const both = names.find((header) => taken.some((other) => other.toLowerCase() === header));
  if (both !== undefined) throw refuse(`cannot have ${both}, which is set otherwise.`);
  if (new Set(names).size < names.length) throw refuse("has a header twice.");
  if (names.length > 0 && isolation === "shared")
    throw refuse("needs `isolation: per-user` or `per-session`: users who share a session are one for the server.");
  return userValues(name, "userHeaders", userHeaders, readUserSecret);
}

const OUR_HEADERS = [
  "accept",
  "accept-encoding",
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "host",
  "keep-alive",
  "last-event-id",
  "mcp-method",
  "mcp-name",
  "mcp-protocol-version",
  "mcp-session-id",
  "te",
  "traceparent",
  "tracestate",
  "transfer-encoding",
  "upgrade",
];
