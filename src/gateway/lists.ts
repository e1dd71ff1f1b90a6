/** What is answered from the catalogue: lists as the caller may see them, and who is told when they or a resource change. */
import type { Principal, Target } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { isObject } from "../mcp/json-text.ts";
import { READ_SCOPE } from "../mcp/methods.ts";
import type { ListName } from "../upstream/upstream.ts";
import { unknownTarget } from "./handle-call.ts";
import type { Asked, Parts } from "./parts.ts";
import type { ChangedList } from "./streams.ts";

/** Lists and subscriptions need the reading scope; there is no target to decide about yet. */
export function mayRead(by: Principal): void {
  if (!by.scopes.includes(READ_SCOPE))
    throw new DrawbridgeError("insufficient_scope", `This needs the scope ${READ_SCOPE}.`, { scope: READ_SCOPE });
}

const PAGE = 1000;
const LIST_TTL_MS = 5000;

/** A list as the caller may see it: the same decision as for calls, asked for each entry. */
export async function listFor(parts: Parts, { by, inbound }: Asked, list: ListName): Promise<string> {
  const offset = readCursor(inbound.params["cursor"]);
  const entries = await parts.catalogue.list(list);
  const visible = entries.filter((entry) => parts.policy.decide(by, entry.target).effect === "permit");
  if (offset > visible.length)
    throw new DrawbridgeError("invalid_params", "The cursor is no longer valid. Start the list anew.");
  const page = visible.slice(offset, offset + PAGE);
  const next =
    offset + PAGE < visible.length ? `,"nextCursor":"${Buffer.from(String(offset + PAGE)).toString("base64url")}"` : "";
  const modern =
    inbound.era === "modern" ? `"resultType":"complete","ttlMs":${LIST_TTL_MS},"cacheScope":"private",` : "";
  return `{${modern}"${list}":[${page.map((entry) => entry.served).join(",")}]${next}}`;
}

function readCursor(cursor: unknown): number {
  if (cursor === undefined) return 0;
  const offset = typeof cursor === "string" ? Number(Buffer.from(cursor, "base64url").toString("utf8")) : Number.NaN;
  if (!Number.isSafeInteger(offset) || offset < 0)
    throw new DrawbridgeError("invalid_params", "The cursor is not one of ours. Start the list anew.");
  return offset;
}

/** `resources/subscribe` and `resources/unsubscribe` of a session (2025-11-25, Resources, Subscriptions). */
export async function changeSubscription(parts: Parts, { by, inbound, session }: Asked): Promise<void> {
  const { uri } = inbound.params;
  if (typeof uri !== "string") throw new DrawbridgeError("invalid_params", `${inbound.method} needs a \`uri\`.`);
  if (session === undefined)
    throw new DrawbridgeError("invalid_request", "Subscriptions need a session. Send `initialize` first.");
  const signal = AbortSignal.timeout(SUBSCRIBE_MS);
  if (inbound.method === "resources/unsubscribe") return parts.streams.unsubscribe(session, uri, signal);
  const target = await readable(parts, by, uri);
  if (target === undefined)
    throw unknownTarget({ server: "", kind: "resource", name: uri, upstreamName: uri, pin: undefined });
  if ((session.subscriptions?.size ?? 0) >= MAX_SUBSCRIPTIONS)
    throw new DrawbridgeError("rate_limited", `A session may subscribe to ${MAX_SUBSCRIPTIONS} resources.`);
  return parts.streams.subscribe(session, uri, target.server, signal);
}

const SUBSCRIBE_MS = 30_000;
const MAX_SUBSCRIPTIONS = 1000;

async function readable(parts: Parts, by: Principal, uri: string): Promise<Target | undefined> {
  const target = await parts.catalogue.resolve("resource", uri);
  return target !== undefined && parts.policy.decide(by, target).effect === "permit" ? target : undefined;
}

/** `subscriptions/listen` (2026-07-28, Subscriptions). What the caller may not read is left out of the acknowledgment. */
export async function listenStream(parts: Parts, { by, inbound, record, response }: Asked): Promise<void> {
  const wanted = inbound.params["notifications"];
  if (!isObject(wanted))
    throw new DrawbridgeError("invalid_params", "subscriptions/listen needs `notifications`, an object.");
  const lists = new Set<ChangedList>();
  if (wanted["toolsListChanged"] === true) lists.add("tools");
  if (wanted["promptsListChanged"] === true) lists.add("prompts");
  if (wanted["resourcesListChanged"] === true) lists.add("resources");
  const asked = Array.isArray(wanted["resourceSubscriptions"]) ? wanted["resourceSubscriptions"] : [];
  if (asked.length > MAX_SUBSCRIPTIONS)
    throw new DrawbridgeError("invalid_params", `One stream may follow ${MAX_SUBSCRIPTIONS} resources.`);
  const servers = new Map<string, string>();
  for (const uri of asked) {
    const target = typeof uri === "string" ? await readable(parts, by, uri) : undefined;
    if (target !== undefined) servers.set(target.name, target.server);
  }
  await record.close("permitted", undefined);
  parts.streams.openListen(inbound.id, by, { lists, uris: servers }, response);
}
