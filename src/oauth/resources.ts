/**
 * Every API that tokens are made for: our own endpoint, which clients ask for, and those of the settings file, which a token is
 * only exchanged for. And who, beside people, tokens are made for.
 */
import { DrawbridgeError } from "../core/errors.ts";
import type { ExchangeTarget } from "./authority.ts";
import { ALL_SCOPES } from "./metadata.ts";
import type { ClientsSettings } from "./settings.ts";

/** A client that gets tokens for itself: a service, or a workload of another platform. */
export interface Service {
  readonly id: string;
  readonly name: string;
  readonly groups: readonly string[];
  readonly scopes: readonly string[];
}

export interface Resources {
  /** Our own endpoint: the only one that ordinary grants give tokens for. */
  readonly own: string;
  /** The one spelling of an API we know (RFC 8707 §2), or the text as it came. */
  canonical(text: string): string;
  /** True when `client` is the API `audience`: it may look into tokens for it, and exchange them onward. */
  owns(client: string, audience: string): boolean;
  /** What `client` may have in exchange, when `audience` is among it. */
  target(client: string, audience: string): ExchangeTarget | undefined;
  /** Services and workloads by client id, which is the subject of their tokens too. */
  readonly services: ReadonlyMap<string, Service>;
}

/** Throws `settings_invalid` for what cannot be. */
export function resourcesOf(own: string, clients: Pick<ClientsSettings, "preregistered" | "workloads">): Resources {
  const spellings = new Map([[plain(own), own]]);
  const canonical = (text: string) => spellings.get(plain(text)) ?? text;
  const known = (audience: string) => {
    if (!spellings.has(plain(audience))) spellings.set(plain(audience), audience);
    return canonical(audience);
  };
  const owned = new Map<string, ReadonlySet<string>>();
  const targets = new Map<string, ReadonlyMap<string, ExchangeTarget>>();
  const services = new Map<string, Service>();
  const ids = new Set<string>();

  for (const client of [...clients.preregistered, ...clients.workloads]) {
    if (ids.has(client.id))
      throw new DrawbridgeError("settings_invalid", `Two clients have the id ${client.id}. Give each its own.`);
    ids.add(client.id);
  }
  for (const { id, name, service, owns, mayExchangeFor } of clients.preregistered) {
    owned.set(id, new Set(owns.map(known)));
    const its = new Map(
      mayExchangeFor.map(({ audience, scopes }) => [known(audience), { audience: known(audience), scopes }]),
    );
    // What comes from outside goes through sign-in and consent; a token for us is never what is left of another one.
    if (its.has(own))
      throw new DrawbridgeError(
        "settings_invalid",
        `The client ${id} may not exchange tokens for ${own}: it is this gateway.`,
      );
    targets.set(id, its);
    if (service !== undefined) services.set(id, { id, name, groups: service.groups, scopes: ours(service.scopes) });
  }
  for (const { id, name, groups, scopes } of clients.workloads)
    services.set(id, { id, name, groups, scopes: ours(scopes) });

  return {
    own,
    canonical,
    owns: (client, audience) => owned.get(client)?.has(audience) ?? false,
    target: (client, audience) => targets.get(client)?.get(canonical(audience)),
    services,
  };
}

/** The scopes of an API that somebody may have there who has `held` here (or at the API that hands on). */
export function scopesFor(scopes: ExchangeTarget["scopes"], held: readonly string[]): readonly string[] {
  if (scopes === undefined) return held;
  if (isList(scopes)) return scopes;
  return [...new Set(held.flatMap((scope) => (Object.hasOwn(scopes, scope) ? (scopes[scope] ?? []) : [])))];
}

/** All scopes that `scopes` can stand for. */
export function allScopesOf(scopes: ExchangeTarget["scopes"]): readonly string[] {
  if (scopes === undefined) return ALL_SCOPES;
  return isList(scopes) ? scopes : [...new Set(Object.values(scopes).flat())];
}

/** `Array.isArray` knows only lists that can be written to. */
function isList(scopes: ExchangeTarget["scopes"]): scopes is readonly string[] {
  return Array.isArray(scopes);
}

/** In one order, each once. */
const ours = (scopes: readonly string[]) => [
  ...ALL_SCOPES.filter((scope) => scopes.includes(scope)),
  ...new Set(scopes.filter((scope) => !(ALL_SCOPES as readonly string[]).includes(scope))),
];

/** Host in capitals, default port, slash at the end: ways to write the same. A text that is no plain URL stays what it is. */
function plain(text: string): string {
  const url = URL.parse(text);
  if (url === null || text.includes("#") || url.username !== "" || url.password !== "") return text;
  return url.href.replace(/\/$/, "");
}
