/** What the gateway answers itself: who it is, what it can do, and the state of a legacy session. */
import { type Authenticated, type JsonObject, type JsonValue, MODERN_REVISION, type Revision } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { type InboundRequest, META, SUPPORTED_REVISIONS } from "../mcp/inbound.ts";
import { isObject } from "../mcp/json-text.ts";
import { LOG_LEVELS } from "../mcp/methods.ts";
import type { Session } from "../mcp/sessions.ts";
import { TASKS_EXTENSION } from "../mcp/tasks.ts";
import type { UpstreamIdentity } from "../upstream/upstream.ts";
import type { Answering } from "./exchange.ts";
import type { Asked, Parts } from "./parts.ts";
import { anyMakesTasks } from "./tasks.ts";

/** The result of a method of kind `local`, as JSON text. */
export async function answerLocally(parts: Parts, { by, inbound, session, answering }: Asked): Promise<string> {
  switch (inbound.method) {
    case "initialize":
      return initialize(parts, by, inbound, answering);
    case "server/discover":
      return discover(parts, by);
    case "logging/setLevel":
      return setLevel(parts, inbound, session);
    default:
      return "{}";
  }
}

/** MCP 2025-11-25, Lifecycle. A session begins here, whatever the upstreams think of sessions. */
async function initialize(
  parts: Parts,
  by: Authenticated,
  inbound: InboundRequest,
  answering: Answering,
): Promise<string> {
  const { protocolVersion, clientInfo, capabilities } = inbound.params;
  if (typeof protocolVersion !== "string")
    throw new DrawbridgeError("invalid_params", "`initialize` needs a `protocolVersion`, a string.");
  await known(parts);
  const name = isObject(clientInfo) && typeof clientInfo["name"] === "string" ? clientInfo["name"].slice(0, 200) : "";
  const session = await parts.sessions.open(by, protocolVersion, name, isObject(capabilities) ? capabilities : {});
  answering.header("mcp-session-id", session.id);
  const identities = identitiesOf(parts);
  const instructions = instructionsOf(parts, ofUseTo(parts, by, identities));
  return JSON.stringify({
    protocolVersion: session.revision,
    capabilities: capabilitiesOf(parts, identities, session.revision),
    serverInfo: parts.serverInfo,
    ...(instructions !== undefined && { instructions }),
  });
}

/** MCP 2026-07-28, Discovery. */
async function discover(parts: Parts, by: Authenticated): Promise<string> {
  await known(parts);
  const identities = identitiesOf(parts);
  const instructions = instructionsOf(parts, ofUseTo(parts, by, identities));
  return JSON.stringify({
    resultType: "complete",
    supportedVersions: SUPPORTED_REVISIONS,
    capabilities: capabilitiesOf(parts, identities, MODERN_REVISION),
    ...(instructions !== undefined && { instructions }),
    ttlMs: 60_000,
    cacheScope: "private",
    _meta: { [META.serverInfo]: parts.serverInfo },
  });
}

async function setLevel(parts: Parts, inbound: InboundRequest, session: Session | undefined): Promise<string> {
  const { level } = inbound.params;
  if (typeof level !== "string" || !LOG_LEVELS.includes(level)) {
    throw new DrawbridgeError("invalid_params", `\`level\` must be one of ${LOG_LEVELS.join(", ")}.`);
  }
  if (session !== undefined) await parts.sessions.setLevel(session, level);
  return "{}";
}

const KNOWN_WITHIN_MS = 15_000;

/** Waits until each upstream has said who it is, or has failed, or is too slow to wait for. */
async function known(parts: Parts): Promise<void> {
  if (parts.identities().size === parts.upstreams.size) return;
  let timer: NodeJS.Timeout | undefined;
  const enough = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, KNOWN_WITHIN_MS);
  });
  await Promise.race([parts.catalogue.started, enough]);
  clearTimeout(timer);
}

/** In the order of the settings, whoever answered first. */
function identitiesOf(parts: Parts): ReadonlyMap<string, UpstreamIdentity> {
  const known = parts.identities();
  const ordered = new Map<string, UpstreamIdentity>();
  for (const name of parts.upstreams.keys()) {
    const identity = known.get(name);
    if (identity !== undefined) ordered.set(name, identity);
  }
  return ordered;
}

/** Without servers of which the caller may use nothing: what those say of their tools is not for them. */
function ofUseTo(
  { catalogue, policy }: Parts,
  by: Authenticated,
  identities: ReadonlyMap<string, UpstreamIdentity>,
): ReadonlyMap<string, UpstreamIdentity> {
  const offered = LISTS.flatMap((list) => catalogue.now(list)).map(({ target }) => target);
  const useless = [...identities.keys()].filter((name) => {
    const its = offered.filter(({ server }) => server === name);
    return its.length > 0 && its.every((target) => policy.decide(by, target).effect === "deny");
  });
  return new Map([...identities].filter(([name]) => !useless.includes(name)));
}

const LISTS = ["tools", "resources", "resourceTemplates", "prompts"] as const;

/** Capabilities that mean what the gateway does with them, each with what it adds or promises itself. */
const OWN = {
  tools: { listChanged: true },
  resources: { listChanged: true },
  prompts: { listChanged: true },
  completions: {},
  logging: {},
} as const;
/** What the gateway makes of tasks, whichever server makes them and in whatever form (2025-11-25). */
const OWN_TASKS: JsonObject = { list: {}, cancel: {}, requests: { tools: { call: {} } } };

/**
 * What at least one upstream can do and the gateway passes on. What the gateway need not understand (vendors' own members,
 * `experimental`, `extensions`) is there as it came; of two servers that say different things by one name the first counts.
 */
function capabilitiesOf(
  { catalogue }: Parts,
  identities: ReadonlyMap<string, UpstreamIdentity>,
  to: Revision,
): JsonObject {
  const merged = new Map<string, JsonValue>();
  let subscribable = false;
  for (const { capabilities, revision } of identities.values()) {
    for (const [name, value] of Object.entries(capabilities)) {
      const before = merged.get(name);
      if (isObject(value) && isObject(before)) merged.set(name, { ...value, ...before });
      else if (before === undefined) merged.set(name, value);
    }
    const { resources } = capabilities;
    // 2026-07-28 has no word for it: whoever has resources can be asked to tell of their changes.
    subscribable ||= isObject(resources) && (resources["subscribe"] === true || revision === MODERN_REVISION);
  }
  merged.delete("tasks");
  // A server of tools alone has resources when a contract makes one of a tool.
  if (
    merged.get("resources") === undefined &&
    (["resources", "resourceTemplates"] as const).some((list) => catalogue.now(list).length > 0)
  )
    merged.set("resources", {});
  for (const [name, own] of Object.entries(OWN)) {
    const told = merged.get(name);
    if (isObject(told)) merged.set(name, { ...told, ...own, ...(name === "resources" && { subscribe: subscribable }) });
    else merged.delete(name);
  }
  // Whoever answers `prompts/list` declares it (2026-07-28, Prompts, Capabilities), also while there is none.
  if (!merged.has("prompts")) merged.set("prompts", {});
  const tasks = anyMakesTasks(identities);
  if (tasks && to === "2025-11-25") merged.set("tasks", OWN_TASKS);
  const extensions = merged.get("extensions");
  const { [TASKS_EXTENSION]: its, ...others } = isObject(extensions) ? extensions : {};
  const told = tasks && to === MODERN_REVISION ? { ...others, [TASKS_EXTENSION]: its ?? {} } : others;
  if (Object.keys(told).length > 0) merged.set("extensions", told);
  else merged.delete("extensions");
  return Object.fromEntries(merged);
}

/** They speak of the tools that the servers have; where those are under contract there are others, with words of their own. */
function instructionsOf(
  { catalogue, masking }: Parts,
  identities: ReadonlyMap<string, UpstreamIdentity>,
): string | undefined {
  if (catalogue.contracted("tool")) return undefined;
  const texts = [...identities].flatMap(([name, { instructions }]) =>
    instructions === undefined ? [] : [{ name, instructions: masking.words(instructions) }],
  );
  if (texts.length === 0) return undefined;
  if (identities.size === 1) return texts[0]?.instructions;
  return texts.map(({ name, instructions }) => `## ${name}\n\n${instructions}`).join("\n\n");
}
