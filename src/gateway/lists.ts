/** What is answered from the catalogue: lists as the caller may see them, and who is told when they or a resource change. */
import { createHash } from "node:crypto";
import { MODERN_REVISION, type Principal, type Target } from "../core/call.ts";
import type { Decision } from "../core/decision.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { META } from "../mcp/inbound.ts";
import { isObject, withMember } from "../mcp/json-text.ts";
import { READ_SCOPE } from "../mcp/methods.ts";
import { acceptsTasks, makesTasks } from "../mcp/tasks.ts";
import type { CallFacts } from "../policy/engine.ts";
import type { ListName } from "../upstream/upstream.ts";
import type { Entry } from "./catalogue.ts";
import { scopeMissing, unknownTarget } from "./handle-call.ts";
import type { Asked, Parts } from "./parts.ts";
import type { ChangedList } from "./streams.ts";
import { tasksRequired } from "./tasks.ts";

/** Lists and subscriptions need the reading scope; there is no target to decide about yet. */
export function mayRead(by: Principal): void {
  if (!by.scopes.includes(READ_SCOPE)) throw scopeMissing(READ_SCOPE);
}

const LIST_TTL_MS = 5000;
/** A page ends at whichever comes first; one entry is always on it. */
const PAGE_ENTRIES = 1000;
const PAGE_CHARACTERS = 4 << 20;

/** A list as the caller may see it: the same decision as for calls, asked for each entry. One page of it. */
export async function listFor(parts: Parts, { by, inbound, session }: Asked, list: ListName): Promise<string> {
  const modern = inbound.era === "modern";
  const cursor = readCursor(inbound.params["cursor"]);
  const entries = await parts.catalogue.list(list, session?.capabilities ?? inbound.clientCapabilities);
  const visible = entries.filter((entry) => parts.policy.decide(by, entry.target).effect === "permit");
  const ofTasks = list === "tools" && (session?.revision ?? inbound.revision) === "2025-11-25" ? makers(parts) : [];
  const texts = visible.map((entry) =>
    parts.masking.definition(
      modern ? entry.served : ofTasks.includes(entry.target.server) ? offeredAsTask(entry) : entry.servedLegacy,
    ),
  );
  const end = pageEnd(texts, cursor?.offset ?? 0);
  // A cursor is good for the very list it was made for; most lists are one page and need none.
  const version = cursor !== undefined || end < texts.length ? versionOf(texts) : "";
  if (cursor !== undefined && cursor.version !== version)
    throw new DrawbridgeError("invalid_params", "The list has changed since this cursor was given. Start it anew.");
  const next = end < texts.length ? `,"nextCursor":"${cursorText({ offset: end, version })}"` : "";
  const head = modern
    ? `"resultType":"complete","ttlMs":${LIST_TTL_MS},"cacheScope":"private","_meta":{"${META.serverInfo}":${JSON.stringify(parts.serverInfo)}},`
    : "";
  return `{${head}"${list}":[${texts.slice(cursor?.offset ?? 0, end).join(",")}]${next}}`;
}

/** Servers of 2026-07-28 that make tasks. */
function makers(parts: Parts): readonly string[] {
  return [...parts.identities()].flatMap(([name, { capabilities, revision }]) =>
    revision === MODERN_REVISION && makesTasks(capabilities, "modern") ? [name] : [],
  );
}

/** The server decides whether a call becomes a task; whoever wants one gets one in any case. */
function offeredAsTask({ servedLegacy, definition }: Entry): string {
  if (definition.value["execution"] !== undefined) return servedLegacy;
  return withMember(servedLegacy, '"execution":{"taskSupport":"optional"}');
}

function pageEnd(texts: readonly string[], start: number): number {
  let end = start;
  for (let size = 0; end < texts.length && end - start < PAGE_ENTRIES; end++) {
    size += texts[end]?.length ?? 0;
    if (size > PAGE_CHARACTERS && end > start) break;
  }
  return end;
}

interface Cursor {
  readonly offset: number;
  /** Of the list as this caller sees it: another caller's cursor, or one of yesterday, has another. */
  readonly version: string;
}

/** The same on every replica that serves the same list. */
function versionOf(texts: readonly string[]): string {
  const digest = createHash("sha256");
  for (const text of texts) digest.update(`${text.length}:`).update(text);
  return digest.digest("base64url").slice(0, 22);
}

const cursorText = ({ offset, version }: Cursor) => Buffer.from(`${offset}.${version}`).toString("base64url");

function readCursor(cursor: unknown): Cursor | undefined {
  if (cursor === undefined) return undefined;
  const text = typeof cursor === "string" ? Buffer.from(cursor, "base64url").toString("latin1") : "";
  const [, offset, version] = /^(\d{1,9})\.([\w-]{22})$/.exec(text) ?? [];
  if (offset === undefined || version === undefined)
    throw new DrawbridgeError("invalid_params", "The cursor is not one of ours. Start the list anew.");
  return { offset: Number(offset), version };
}

/** `resources/subscribe` and `resources/unsubscribe` of a session (2025-11-25, Resources, Subscriptions). */
export async function changeSubscription(parts: Parts, { by, inbound, session, record }: Asked): Promise<void> {
  const { uri } = inbound.params;
  if (typeof uri !== "string") throw new DrawbridgeError("invalid_params", `${inbound.method} needs a \`uri\`.`);
  if (session === undefined)
    throw new DrawbridgeError("invalid_request", "Subscriptions need a session. Send `initialize` first.");
  if (inbound.method === "resources/unsubscribe") return parts.sessions.follow(session, uri, undefined);
  const { target, decision } = await readable(parts, by, uri);
  if (decision !== undefined) record.decided(decision);
  if (decision?.effect === "step-up") throw scopeMissing(decision.scope);
  if (target === undefined)
    throw unknownTarget({ server: "", kind: "resource", name: uri, upstreamName: uri, pin: undefined });
  if ((session.subscriptions?.size ?? 0) >= MAX_SUBSCRIPTIONS)
    throw new DrawbridgeError("rate_limited", `A session may subscribe to ${MAX_SUBSCRIPTIONS} resources.`);
  const caller = { by, session: session.id, capabilities: session.capabilities };
  const release = await parts.streams.hold(target.server, uri, AbortSignal.timeout(SUBSCRIBE_MS), caller);
  try {
    await parts.sessions.follow(session, uri, target.server);
  } finally {
    release();
  }
}

const SUBSCRIBE_MS = 30_000;
const MAX_SUBSCRIPTIONS = 1000;

async function readable(
  parts: Parts,
  by: Principal,
  uri: string,
): Promise<{ readonly target?: Target; readonly decision?: Decision }> {
  const target = await parts.catalogue.resolve("resource", uri);
  // Pages of apps that have their server's name in front of their own do not change while they are shown.
  if (target === undefined || target.upstreamName !== target.name) return {};
  const decision = parts.policy.decide(by, target, following(uri, parts.clock()));
  return { decision, ...(decision.effect === "permit" && { target }) };
}

/** What policy is asked when somebody begins to follow a resource, or is about to hear of it; the reading scope is theirs. */
export function following(uri: string, at: number): CallFacts {
  return { method: "resources/subscribe", args: { uri }, scope: undefined, at };
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
  // Of tasks nothing is told here, which the acknowledgment says by not naming them: their states are asked for.
  if (wanted["taskIds"] !== undefined && !acceptsTasks(inbound.clientCapabilities)) throw tasksRequired();
  const servers = new Map<string, string>();
  for (const uri of asked) {
    const { target } = typeof uri === "string" ? await readable(parts, by, uri) : {};
    if (target !== undefined) servers.set(target.name, target.server);
  }
  await record.close("permitted", undefined);
  parts.streams.openListen(inbound.id, by, { lists, uris: servers }, response);
}
