/** What a person's roles open to them, for the page on which they decide about a client. */
import type { Principal } from "../core/call.ts";
import { isObject } from "../mcp/json-text.ts";
import type { Reach, ReachedServer } from "../oauth/server.ts";
import type { Policy } from "../policy/engine.ts";
import type { ListName } from "../upstream/upstream.ts";
import type { Catalogue, Entry } from "./catalogue.ts";

/** As far as it is known now: nobody waits here for a server that is slow to say what it has. */
export function reachOf(policy: Policy, catalogue: Catalogue | undefined, who: Principal): Reach {
  const servers = new Map<string, { tools: ReachedServer["tools"][number][]; resources: number; prompts: number }>();
  const permitted = (list: ListName): readonly Entry[] =>
    catalogue?.now(list).filter(({ target }) => policy.decide(who, target).effect === "permit") ?? [];
  const serverOf = ({ target }: Entry) => {
    const server = servers.get(target.server) ?? { tools: [], resources: 0, prompts: 0 };
    servers.set(target.server, server);
    return server;
  };
  for (const entry of permitted("tools"))
    serverOf(entry).tools.push({ name: entry.target.name, effect: effectOf(entry) });
  for (const list of ["resources", "resourceTemplates"] as const)
    for (const entry of permitted(list)) serverOf(entry).resources++;
  for (const entry of permitted("prompts")) serverOf(entry).prompts++;
  return { roles: policy.roles(who), servers: [...servers].map(([name, server]) => ({ name, ...server })) };
}

/** What its contract says of a tool, or else its server. What it does not say may change things. */
function effectOf({ contract, definition }: Entry): ReachedServer["tools"][number]["effect"] {
  const { annotations } = contract?.served ?? definition.value;
  if (!isObject(annotations)) return "changes";
  if (annotations["readOnlyHint"] === true) return "reads";
  return annotations["destructiveHint"] === true ? "deletes" : "changes";
}
