/**
 * The pages of MCP Apps (`ui://…`, extension io.modelcontextprotocol/ui) when several servers are served: a page and the tools that
 * show it carry their server's name, so that the tool of one server can never be shown in the page of another.
 */
import type { Outcome, Target } from "../core/call.ts";
import { elementTexts, isObject, type MemberTexts, memberTexts, objectText } from "../mcp/json-text.ts";

const SCHEME = "ui://";

export const isUi = (uri: string) => uri.startsWith(SCHEME);

/** What clients call a page of one of several servers: `ui://view/a.html` of `shop` is `ui://shop/view/a.html`. */
export function uiName(server: string, uri: string): string {
  return `${SCHEME}${server}/${uri.slice(SCHEME.length)}`;
}

/** The page of one of these servers that a client means, listed or not: tools may name pages that are in no list. */
export function uiTarget(name: string, servers: Iterable<string>): Target | undefined {
  if (!isUi(name)) return undefined;
  for (const server of servers) {
    const prefix = uiName(server, SCHEME);
    if (name.startsWith(prefix))
      return { server, kind: "resource", name, upstreamName: SCHEME + name.slice(prefix.length), pin: undefined };
  }
  return undefined;
}

/** Puts the names that clients use into a tool's `_meta.ui.resourceUri` and its older spelling `_meta["ui/resourceUri"]`. */
export function nameUiOf(tool: MemberTexts, server: string): void {
  const meta = memberTexts(tool.get("_meta") ?? "{}");
  if (meta === undefined) return;
  rename(meta, "ui/resourceUri", server);
  const ui = meta.get("ui");
  const members = ui === undefined ? undefined : memberTexts(ui);
  if (members !== undefined && rename(members, "resourceUri", server)) meta.set("ui", objectText(members));
  if (meta.size > 0) tool.set("_meta", objectText(meta));
}

function rename(members: MemberTexts, key: string, server: string): boolean {
  const uri: unknown = JSON.parse(members.get(key) ?? "null");
  if (typeof uri !== "string" || !isUi(uri)) return false;
  members.set(key, JSON.stringify(uiName(server, uri)));
  return true;
}

/** The answer to `resources/read`, its contents under the name that was asked for. */
export function underItsName(outcome: Outcome, { name, upstreamName }: Target): Outcome {
  if (outcome.kind === "error" || name === upstreamName) return outcome;
  const members = memberTexts(outcome.result);
  const { contents } = outcome.value;
  if (members === undefined || !Array.isArray(contents)) return outcome;
  const texts = elementTexts(members.get("contents") ?? "[]").map((text, at) => {
    const content: unknown = contents[at];
    const cut = isObject(content) && content["uri"] === upstreamName ? memberTexts(text) : undefined;
    return cut === undefined ? text : objectText(cut.set("uri", JSON.stringify(name)));
  });
  members.set("contents", `[${texts.join(",")}]`);
  return { ...outcome, result: objectText(members) };
}
