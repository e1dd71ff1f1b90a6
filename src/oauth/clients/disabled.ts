/** Clients that an operator has switched off: they get nothing more, and what they have is refused everywhere within a second. */
import { hash } from "node:crypto";
import type Provider from "oidc-provider";
import { type Clock, systemClock } from "../../core/clock.ts";
import type { Records } from "../../store/ports.ts";
import { announceTo } from "../watch.ts";

export interface DisabledClient {
  readonly client: string;
  /** Milliseconds since the epoch. */
  readonly since: number;
}

const KIND = "oauth:client-disabled";
const keyOf = (client: string) => hash("sha256", client, "base64url");

/** Switches a client off, known or not yet: also one whose document nobody has fetched before. */
export async function disableClient(records: Records, client: string, clock: Clock = systemClock): Promise<void> {
  await records.put(KIND, keyOf(client), { client, since: clock() } satisfies DisabledClient);
  await announceTo(records, "ended");
}

/** Switches it on again. Tokens that were not ended meanwhile are good again until they expire. */
export async function enableClient(records: Records, client: string): Promise<void> {
  await records.delete(KIND, keyOf(client));
}

export async function isDisabled(records: Records, client: string): Promise<boolean> {
  return (await records.get(KIND, keyOf(client))) !== undefined;
}

/** At most `limit` (1 to 1000) of them, in no order that means anything. */
export async function disabledClients(records: Records, limit = 1000): Promise<readonly DisabledClient[]> {
  return (await records.list<DisabledClient>(KIND, { limit })).map(({ value }) => value);
}

/** Makes a disabled client unknown to the authorization server: wherever it asks, as if it had never been registered. */
export function hideDisabledClients(provider: Provider, records: Records): void {
  const find = provider.Client.find.bind(provider.Client);
  provider.Client.find = async (id) => ((await isDisabled(records, id)) ? undefined : find(id));
}
