/** What the gateway answers itself: who it is, what it can do, and the state of a legacy session. */
import type { JsonObject, Principal } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { type InboundRequest, META, SUPPORTED_REVISIONS } from "../mcp/inbound.ts";
import { isObject } from "../mcp/json-text.ts";
import { LOG_LEVELS } from "../mcp/methods.ts";
import type { Session } from "../mcp/sessions.ts";
import type { UpstreamIdentity } from "../upstream/upstream.ts";
import type { Answering } from "./exchange.ts";
import type { Asked, Parts } from "./parts.ts";

/** The result of a method of kind `local`, as JSON text. */
export async function answerLocally(parts: Parts, { by, inbound, session, answering }: Asked): Promise<string> {
  switch (inbound.method) {
    case "initialize":
      return initialize(parts, by, inbound, answering);
    case "server/discover":
      return discover(parts);
    case "logging/setLevel":
      return setLevel(inbound, session);
    default:
      return "{}";
  }
}

/** MCP 2025-11-25, Lifecycle. A session begins here, whatever the upstreams think of sessions. */
async function initialize(parts: Parts, by: Principal, inbound: InboundRequest, answering: Answering): Promise<string> {
  const { protocolVersion, clientInfo, capabilities } = inbound.params;
  if (typeof protocolVersion !== "string")
    throw new DrawbridgeError("invalid_params", "`initialize` needs a `protocolVersion`, a string.");
  await known(parts);
  const name = isObject(clientInfo) && typeof clientInfo["name"] === "string" ? clientInfo["name"].slice(0, 200) : "";
  const session = parts.sessions.open(by, protocolVersion, name, isObject(capabilities) ? capabilities : {});
  answering.header("mcp-session-id", session.id);
  const instructions = instructionsOf(parts.identities());
  return JSON.stringify({
    protocolVersion: session.revision,
    capabilities: capabilitiesOf(parts.identities()),
    serverInfo: parts.serverInfo,
    ...(instructions !== undefined && { instructions }),
  });
}

/** MCP 2026-07-28, Discovery. */
async function discover(parts: Parts): Promise<string> {
  await known(parts);
  const instructions = instructionsOf(parts.identities());
  return JSON.stringify({
    resultType: "complete",
    supportedVersions: SUPPORTED_REVISIONS,
    capabilities: capabilitiesOf(parts.identities()),
    ...(instructions !== undefined && { instructions }),
    ttlMs: 60_000,
    cacheScope: "private",
    _meta: { [META.serverInfo]: parts.serverInfo },
  });
}

function setLevel(inbound: InboundRequest, session: Session | undefined): string {
  const { level } = inbound.params;
  if (typeof level !== "string" || !LOG_LEVELS.includes(level)) {
    throw new DrawbridgeError("invalid_params", `\`level\` must be one of ${LOG_LEVELS.join(", ")}.`);
  }
  if (session !== undefined) session.logLevel = level;
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
  await Promise.race([parts.catalogue.ready, enough]);
  clearTimeout(timer);
}

/** What at least one upstream can do and the gateway passes on. */
function capabilitiesOf(identities: ReadonlyMap<string, UpstreamIdentity>): JsonObject {
  const has = (name: string) => [...identities.values()].some((identity) => isObject(identity.capabilities[name]));
  const subscribe = [...identities.values()].some(({ capabilities, revision }) => {
    const { resources } = capabilities;
    return isObject(resources) && (resources["subscribe"] === true || revision === "2026-07-28");
  });
  return {
    ...(has("tools") && { tools: { listChanged: true } }),
    ...(has("resources") && { resources: { listChanged: true, ...(subscribe && { subscribe: true }) } }),
    ...(has("prompts") && { prompts: { listChanged: true } }),
    ...(has("completions") && { completions: {} }),
    ...(has("logging") && { logging: {} }),
  };
}

function instructionsOf(identities: ReadonlyMap<string, UpstreamIdentity>): string | undefined {
  const texts = [...identities].flatMap(([name, { instructions }]) =>
    instructions === undefined ? [] : [{ name, instructions }],
  );
  if (texts.length === 0) return undefined;
  if (identities.size === 1) return texts[0]?.instructions;
  return texts.map(({ name, instructions }) => `## ${name}\n\n${instructions}`).join("\n\n");
}
