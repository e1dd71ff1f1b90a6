/** Contracts for resources, templates and prompts. */
import type { JsonObject } from "../../core/call.ts";
import { compileUriTemplate, type UriTemplate } from "../uri-template.ts";
import { wordsOf } from "./facts.ts";
import { LENGTHS, OTHER_LENGTH } from "./input.ts";
import { ANSWER_BYTES } from "./output.ts";
import type { LeftOut, Offer, Proposal, ProposedEntry, Remark } from "./proposal.ts";
import { servedNameOf } from "./tool.ts";
import { MAX_ARGUMENT_WORDS, plainWords } from "./words.ts";

const MAX_RESOURCES = 20;

export function otherEntries({
  server,
  resources = [],
  resourceTemplates = [],
  prompts = [],
}: Offer): Pick<Proposal, "resources" | "prompts" | "leftOut"> {
  const leftOut: LeftOut[] = [];
  const templates = resourceTemplates.flatMap(({ uriTemplate }) => templateOf(String(uriTemplate)) ?? []);
  const uris = [
    ...resourceTemplates.map(({ uriTemplate, ...rest }) => ({ ...rest, uri: uriTemplate })),
    // One that a template makes is served by it.
    ...resources.filter(({ uri }) => !templates.some((template) => template.match(String(uri)) !== undefined)),
  ] as readonly JsonObject[];
  const kept = uris.slice(0, MAX_RESOURCES);
  if (uris.length > kept.length)
    leftOut.push({
      kind: "resource",
      name: `${uris.length - kept.length} of ${uris.length}`,
      why: "a contract for each would be too long a list; name those that agents need",
    });
  const entry = (name: string, from: string, definition: JsonObject): ProposedEntry => {
    const remarks: Remark[] = [];
    const words = plainWords(String(definition["description"] ?? definition["title"] ?? ""), MAX_ARGUMENT_WORDS);
    if (words.suspicious)
      remarks.push({ path: [], text: "The server's own words read like orders to a model, so they are not copied." });
    const args = Array.isArray(definition["arguments"]) ? (definition["arguments"] as JsonObject[]) : [];
    const input = Object.fromEntries(
      args.map((one) => {
        const key = wordsOf(String(one["name"])).join("_");
        const [, maxLength = OTHER_LENGTH] = LENGTHS.find(([pattern]) => pattern.test(key)) ?? [];
        return [String(one["name"]), { maxLength }];
      }),
    );
    return {
      name,
      contract: {
        from,
        ...(words.text !== undefined && { description: words.text }),
        ...(args.length > 0 && { input }),
        output: { maxBytes: ANSWER_BYTES },
      },
      remarks,
    };
  };
  const named = prompts.flatMap((prompt): readonly ProposedEntry[] => {
    const own = String(prompt["name"]);
    const name = servedNameOf(own);
    if (name === undefined) leftOut.push({ kind: "prompt", name: own, why: "has a name that clients cannot be shown" });
    return name === undefined ? [] : [entry(name, `${server}/${own}`, prompt)];
  });
  return {
    resources: kept.map((one) => entry(String(one["uri"]), `${server}/${String(one["uri"])}`, one)),
    prompts: named,
    leftOut,
  };
}

/** Undefined for one of a kind that is not understood. */
function templateOf(text: string): UriTemplate | undefined {
  try {
    return compileUriTemplate(text);
  } catch {
    return undefined;
  }
}
