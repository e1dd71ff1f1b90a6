/**
 * Connections as they are kept: sealed rows, one for each person and server URL, refreshed once for all who want that at the same
 * time in whatever replica, and turned into the credentials of calls.
 */
import { hash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { UpstreamCredential } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import type { Report } from "../oauth/events.ts";
import type { Place } from "../oauth/http.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records, Row } from "../store/ports.ts";
import { decrypted, encrypted, sharedKey } from "../store/sealing.ts";
import type { Authorization, AuthorizationClient } from "../upstream/authorization/client.ts";
import { readChallenge } from "../upstream/authorization/discovery.ts";
import { prover } from "../upstream/authorization/proof.ts";
import type { UpstreamCredentials } from "../upstream/credentials.ts";
import type { OAuthServerSettings } from "../upstream/settings.ts";
import type { ConnectionWanted } from "./connect-first.ts";

/** A server that has an authorization server of its own. */
export interface Site {
  readonly name: string;
  readonly settings: OAuthServerSettings;
  /** Loads what only these servers need, when one is first used. */
  readonly client: () => Promise<AuthorizationClient>;
}

/** A connection as it is stored. The row of whoever disconnects is deleted. */
export interface Kept {
  readonly server: string;
  /** Empty: the operator. */
  readonly subject: string;
  /** `ended`: the authorization server takes it no more. */
  readonly state: "connected" | "ended";
  readonly issuer: string;
  readonly scopes: readonly string[];
  /** What the server asked for in vain (step-up). */
  readonly wanted: readonly string[];
  /** How often it did so since it last got more. */
  readonly asked: number;
  readonly since: number;
  /** Somebody is refreshing it until then at the latest. */
  readonly refreshingUntil?: number;
  /** The `Authorization`; absent when it has ended. */
  readonly sealed?: string;
}

export interface Lending extends UpstreamCredentials {
  /** Whether what is asked on nobody's behalf is asked with the token of some person, because the server has no other way. */
  lent(): Promise<boolean>;
}

export interface Vault {
  /** The row of a connection; another one when the server has another URL. */
  idOf(site: Site, subject: string): string;
  get(site: Site, subject: string): Promise<Row<Kept> | undefined>;
  put(id: string, value: Kept, version?: number): Promise<boolean>;
  /** What is in a row; undefined when it has ended, or was sealed with another secret or for another row. */
  authorizationOf(row: Row<Kept> | undefined): Promise<Authorization | undefined>;
  /** Encrypts for one row of one kind, and opens what was encrypted for it. */
  seal(value: unknown, kind: string, id: string): Promise<string>;
  unseal<T>(sealed: string, kind: string, id: string): Promise<T | undefined>;
  credentials(site: Site): Lending;
  /** Forgets a connection and has its tokens revoked. `by`: what the record says beside. */
  end(site: Site, subject: string, why: "asked" | "user-gone", by?: object): Promise<void>;
  /** Tells the authorization server, as well as may be, that these are not needed. Never rejects. */
  revoked(site: Site, authorization: Authorization): Promise<void>;
}

export interface VaultOptions {
  readonly place: Place;
  readonly records: Records;
  readonly encryption: Secret | undefined;
  readonly report: Report;
  readonly log: Logger;
  readonly clock?: Clock;
}

export const CONNECTION = "connection";
/** In place of a person. */
export const OPERATOR = "";
/** A refresh takes no longer; whoever does it has died otherwise. */
const LEASE_MS = 30_000;
const LOOK_AGAIN_MS = 50;
/** Tokens are refreshed so long before they end, those that live shortly after three quarters of their life. */
const EARLY_MS = 30_000;
/** A token that was got so lately for another one is not replaced because the server turns it down: the next would fare no better. */
const YOUNG_MS = 10_000;
/** A server may ask for more so often without getting any. */
const MAX_ASKED = 3;
const MAX_WANTED = 50;
const MAX_OPENED = 10_000;
const MAX_LENDERS = 20;

export function openVault({ place, records, encryption, report, log, clock = systemClock }: VaultOptions): Vault {
  let key: Promise<Buffer> | undefined;
  const sealing = () => {
    key ??= sharedKey(records, "connections", "drawbridge connections 1", encryption);
    key.catch(() => {
      key = undefined;
    });
    return key;
  };
  /** What was read from the store and opened, by row. */
  const opened = new Map<string, { readonly version: number; readonly authorization: Authorization }>();
  const made = new Map<string, { readonly token: string; readonly credential: UpstreamCredential }>();
  const tokens = new WeakMap<UpstreamCredential, string>();
  /** What servers want to see in proofs (RFC 9449 §9). */
  const nonces = new Map<string, string>();
  const refreshing = new Map<string, Promise<Authorization>>();
  /** Of ours, at servers that give clients tokens for themselves. */
  const ownTokens = new Map<string, Authorization>();
  /** Whose connection lists are read with, as long as it lasts. */
  const lenders = new Map<string, string>();
  // With the URL: what was given for one server is never shown to another that took its name.
  const idOf = ({ name, settings }: Site, subject: string) => digest(JSON.stringify([name, settings.url, subject]));
  const bindingOf = (kind: string, id: string) => `${kind}\n${id}`;
  const seal = async (value: unknown, kind: string, id: string) =>
    encrypted(await sealing(), JSON.stringify(value), bindingOf(kind, id));
  async function unseal<T>(sealed: string, kind: string, id: string): Promise<T | undefined> {
    const text = decrypted(await sealing(), sealed, bindingOf(kind, id));
    return text === undefined ? undefined : (JSON.parse(text) as T);
  }

  async function authorizationOf(row: Row<Kept> | undefined): Promise<Authorization | undefined> {
    if (row?.value.sealed === undefined) return undefined;
    const known = opened.get(row.id);
    if (known?.version === row.version) return known.authorization;
    const authorization = await unseal<Authorization>(row.value.sealed, CONNECTION, row.id);
    if (authorization === undefined) {
      log.warn(
        { server: row.value.server },
        "a connection cannot be opened: tokens.keyEncryptionSecret was another one",
      );
      return undefined;
    }
    if (opened.size >= MAX_OPENED) opened.clear();
    opened.set(row.id, { version: row.version, authorization });
    return authorization;
  }

  async function credentialFor(
    site: Site,
    subject: string,
    refused?: UpstreamCredential,
    said?: IncomingHttpHeaders,
  ): Promise<UpstreamCredential> {
    const id = idOf(site, subject);
    // Read each time: whoever disconnects anywhere is disconnected everywhere, with the next call.
    const row = await records.get<Kept>(CONNECTION, id);
    const current = await authorizationOf(row);
    if (current === undefined) throw required(site, subject, row?.value.state === "ended" ? "ended" : "none");
    if (refused === undefined || tokens.get(refused) !== current.accessToken) {
      const usable = expiring(current, clock()) ? await refreshed(site, subject, current) : current;
      return credentialOf(site, id, usable);
    }
    if (learnt(site, current, said)) return credentialOf(site, id, current);
    if (current.renewed && clock() - current.issuedAt < YOUNG_MS) return refused;
    return credentialOf(site, id, await refreshed(site, subject, current));
  }

  /** Whether the server told us a nonce that its proofs shall have and that we had not used. */
  function learnt({ name }: Site, { key: bound }: Authorization, said: IncomingHttpHeaders | undefined): boolean {
    const nonce = said?.["dpop-nonce"];
    if (bound === undefined || typeof nonce !== "string" || nonce.length > 512 || nonces.get(name) === nonce)
      return false;
    nonces.set(name, nonce);
    return true;
  }

  function credentialOf({ name }: Site, id: string, authorization: Authorization): UpstreamCredential {
    const { accessToken, key: bound, resource } = authorization;
    const nonce = bound === undefined ? undefined : nonces.get(name);
    const token = `${accessToken}\n${nonce ?? ""}`;
    const known = made.get(id);
    if (known?.token === token) return known.credential;
    const credential: UpstreamCredential = {
      header: "authorization",
      value: new Secret(`${bound === undefined ? "Bearer" : "DPoP"} ${accessToken}`),
      id: `connection-${id.slice(0, 16)}`,
      audience: resource,
      ...(bound !== undefined && { proof: prover(bound, accessToken, nonce, clock) }),
    };
    if (made.size >= MAX_OPENED) made.clear();
    made.set(id, { token, credential });
    tokens.set(credential, accessToken);
    return credential;
  }

  /** New tokens for these; once for all who want them at the same time, here and in other replicas. */
  function refreshed(site: Site, subject: string, old: Authorization): Promise<Authorization> {
    const id = idOf(site, subject);
    let pending = refreshing.get(id);
    if (pending === undefined) {
      pending = refresh(site, subject, old).finally(() => refreshing.delete(id));
      refreshing.set(id, pending);
    }
    return pending;
  }

  async function refresh(site: Site, subject: string, old: Authorization): Promise<Authorization> {
    const id = idOf(site, subject);
    for (;;) {
      const row = await records.get<Kept>(CONNECTION, id);
      const current = await authorizationOf(row);
      if (row === undefined || current === undefined)
        throw required(site, subject, row?.value.state === "ended" ? "ended" : "none");
      if (current.accessToken !== old.accessToken) return current;
      const now = clock();
      // A refresh token is good for once: of all replicas one uses it, and the others wait for what it gets.
      if ((row.value.refreshingUntil ?? 0) > now) {
        await sleep(LOOK_AGAIN_MS);
        continue;
      }
      const claimed = { ...row.value, refreshingUntil: now + LEASE_MS };
      if (!(await store(id, claimed, row.version))) continue;
      const released = (value: Partial<Kept>) => store(id, { ...row.value, ...value }, row.version + 1);
      let next: Authorization | undefined;
      try {
        next = await (await site.client()).refresh(current);
      } catch (thrown) {
        await released({});
        // What is still good serves until the authorization server is back.
        if ((current.expiresAt ?? 0) > clock()) return current;
        throw DrawbridgeError.from(thrown, "upstream_unavailable");
      }
      if (next === undefined) {
        const { sealed: _, ...rest } = row.value;
        await store(id, { ...rest, state: "ended" }, row.version + 1);
        await told({ type: "server-disconnected", server: site.name, why: "refused", ...whose(subject) });
        throw required(site, subject, "ended");
      }
      if (await released({ sealed: await seal(next, CONNECTION, id), scopes: next.scopes })) return next;
      // Disconnected or connected anew meanwhile: what came is nobody's.
      await revoked(site, next);
    }
  }

  function store(id: string, value: Kept, version?: number): Promise<boolean> {
    const index = { connectionServer: value.server, connectionOf: value.subject };
    return records.put(CONNECTION, id, value, { index, ...(version !== undefined && { ifVersion: version }) });
  }

  /** The server wants scopes that this connection does not have: they are asked for when its person connects again. */
  async function lackingScopes(
    site: Site,
    subject: string,
    header: string | undefined,
  ): Promise<DrawbridgeError | undefined> {
    const challenge = readChallenge(header);
    if (challenge?.error !== "insufficient_scope" || challenge.scopes === undefined) return undefined;
    const id = idOf(site, subject);
    for (;;) {
      const row = await records.get<Kept>(CONNECTION, id);
      if (row === undefined) return required(site, subject, "none");
      const { scopes, wanted, asked } = row.value;
      const missing = challenge.scopes.filter((scope) => !scopes.includes(scope));
      if (missing.length === 0 || asked >= MAX_ASKED) return undefined;
      const all = [...new Set([...wanted, ...missing])].slice(0, MAX_WANTED);
      const known = missing.every((scope) => wanted.includes(scope));
      if (known || (await store(id, { ...row.value, wanted: all, asked: asked + 1 }, row.version)))
        return required(site, subject, "more");
    }
  }

  /** Ours, for what is asked on nobody's behalf. */
  async function ownCredential(
    site: Site,
    refused?: UpstreamCredential,
    said?: IncomingHttpHeaders,
  ): Promise<UpstreamCredential | undefined> {
    const { name, settings } = site;
    if (settings.credentials.oauth.of === "operator") return credentialFor(site, OPERATOR, refused, said);
    // An answer of 401 to a request without a token says more than what we found out before.
    if ((said === undefined || refused !== undefined) && !(await (await site.client()).needsToken())) return undefined;
    const own = await ownToken(site, refused, said);
    if (own !== undefined) return own;
    const last = lenders.get(name);
    if (last !== undefined) {
      const lent = await credentialFor(site, last, refused, said).catch(unlessRequired);
      if (lent !== undefined && lent !== refused) return lent;
      lenders.delete(name);
    }
    const rows = await records.find<Kept>(CONNECTION, "connectionServer", name, { limit: MAX_LENDERS });
    for (const { id, value } of rows) {
      if (value.state !== "connected" || value.subject === last || id !== idOf(site, value.subject)) continue;
      const lent = await credentialFor(site, value.subject).catch(unlessRequired);
      if (lent === undefined) continue;
      lenders.set(name, value.subject);
      return lent;
    }
    throw required(site, undefined, "none");
  }

  async function ownToken(
    site: Site,
    refused: UpstreamCredential | undefined,
    said: IncomingHttpHeaders | undefined,
  ): Promise<UpstreamCredential | undefined> {
    const { name } = site;
    let own = ownTokens.get(name);
    const turnedDown = own !== undefined && refused !== undefined && tokens.get(refused) === own.accessToken;
    if (own !== undefined && turnedDown && learnt(site, own, said)) return credentialOf(site, `own ${name}`, own);
    if (own === undefined || turnedDown || (own.expiresAt ?? Number.POSITIVE_INFINITY) - EARLY_MS < clock()) {
      own = await (await site.client()).own();
      if (own === undefined) ownTokens.delete(name);
      else ownTokens.set(name, own);
    }
    return own && credentialOf(site, `own ${name}`, own);
  }

  function required(site: Site, subject: string | undefined, why: "none" | "ended" | "more"): DrawbridgeError {
    const { name } = site;
    if (subject === undefined) {
      return new DrawbridgeError(
        "connection_required",
        `Nobody has connected an account at the server "${name}" yet.`,
        {
          detail: "what it offers is known once somebody has, on the account page",
        },
      );
    }
    if (subject === OPERATOR) {
      const message = `The server "${name}" can be used once the operator of this gateway has connected it.`;
      return new DrawbridgeError("connection_required", message, {
        detail: `${WHY[why](name)} Run: drawbridge connect ${name}`,
      });
    }
    const url = `${place.issuer}/connections/${name}?for=${personTag(subject)}`;
    return new DrawbridgeError("connection_required", `${WHY[why](name)} Open this page: ${url}`, {
      data: { url, elicitationId: elicitationIdOf(name, subject), message: WHY[why](name) } satisfies ConnectionWanted,
    });
  }

  async function end(site: Site, subject: string, why: "asked" | "user-gone", by: object = {}): Promise<void> {
    const row = await records.take<Kept>(CONNECTION, idOf(site, subject));
    if (row === undefined) return;
    const authorization = await authorizationOf(row);
    opened.delete(row.id);
    made.delete(row.id);
    await told({ type: "server-disconnected", server: site.name, why, ...whose(subject), ...by });
    if (authorization !== undefined) await revoked(site, authorization);
  }

  /** Gone here in any case; the authorization server is told as well as may be. */
  async function revoked({ name, client }: Site, authorization: Authorization): Promise<void> {
    try {
      await (await client()).revoke(authorization);
    } catch (error) {
      log.warn(
        { server: name, error },
        "the authorization server of a server was not told that its tokens are not needed",
      );
    }
  }

  const told = (event: Parameters<Report>[0]) =>
    report(event).catch((error: unknown) => log.error({ error }, "the end of a connection could not be recorded"));

  return {
    idOf,
    get: (site, subject) => records.get<Kept>(CONNECTION, idOf(site, subject)),
    put: store,
    authorizationOf,
    seal,
    unseal,
    credentials(site) {
      const { of } = site.settings.credentials.oauth;
      const subjectOf = (subject: string) => (of === "operator" ? OPERATOR : subject);
      return {
        for: ({ subject }, _signal, refused, said) => credentialFor(site, subjectOf(subject), refused, said),
        own: (_signal, refused, said) => ownCredential(site, refused, said),
        async lent() {
          if (of === "operator" || !(await (await site.client()).needsToken())) return false;
          return (await ownToken(site, undefined, undefined)) === undefined;
        },
        lacks: ({ subject }, header) => lackingScopes(site, subjectOf(subject), header),
      };
    },
    end,
    revoked,
  };
}

const WHY: Readonly<Record<"none" | "ended" | "more", (name: string) => string>> = {
  none: (name) => `Your account at the server "${name}" must be connected first.`,
  ended: (name) => `Your connection to the server "${name}" has ended and must be made again.`,
  more: (name) => `The server "${name}" needs more than it was allowed; allow it, and call again.`,
};

export const digest = (text: string) => hash("sha256", text, "base64url");
/** Tells a page whom a link is for. It opens nothing: the page goes by who is signed in. */
export const personTag = (subject: string) => digest(`drawbridge connection for ${subject}`).slice(0, 22);
export const elicitationIdOf = (name: string, subject: string) =>
  digest(`drawbridge connection of ${name} for ${subject}`).slice(0, 22);
const whose = (subject: string) => (subject === OPERATOR ? {} : { user: subject });

function expiring({ issuedAt, expiresAt, refreshToken }: Authorization, now: number): boolean {
  if (expiresAt === undefined) return false;
  // Without a way to a new one it is good to its last second.
  const early = refreshToken === undefined ? 0 : Math.min(EARLY_MS, (expiresAt - issuedAt) / 4);
  return now >= expiresAt - early;
}

function unlessRequired(thrown: unknown): undefined {
  if (thrown instanceof DrawbridgeError && thrown.code === "connection_required") return undefined;
  throw thrown;
}
