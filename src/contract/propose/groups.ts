/** Tools in groups by what they are about. */
import type { JsonObject } from "../../core/call.ts";
import { ACCESSES, VERBS, wordsOf } from "./facts.ts";
import type { ProposedTool } from "./proposal.ts";

const SMALL_WORDS: ReadonlySet<string> = new Set("a an the of to by for from in on with or and all my new".split(" "));

const isVerb = (word: string) => ACCESSES.some((one) => VERBS[one].has(word));
/** Verbs that are nouns where they do not come first. */
const NOUNS_TOO: ReadonlySet<string> = new Set(
  "order book comment post mark status info list register copy".split(" "),
);

const nounsOf = (words: readonly string[]): readonly string[] =>
  words
    .filter((word, at) => !SMALL_WORDS.has(word) && !(isVerb(word) && (at === 0 || !NOUNS_TOO.has(word))))
    .map(singular);

/** Of the nouns in its name the one that most tools have. */
export function subjectOf(words: readonly string[], frequency: ReadonlyMap<string, number>): string {
  const often = (word: string) => frequency.get(word) ?? 0;
  return nounsOf(words).reduce((best, word) => (often(word) >= often(best) ? word : best), "");
}

export function frequencies(tools: readonly (readonly string[])[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const word of tools.flatMap((words) => [...new Set(nounsOf(words))]))
    counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts;
}

const singular = (word: string) =>
  word.endsWith("ies") ? `${word.slice(0, -3)}y` : /[^s]s$/.test(word) && word.length > 3 ? word.slice(0, -1) : word;

export function grouped(tools: readonly ProposedTool[]): readonly ProposedTool[] {
  const groups = Map.groupBy(tools, ({ about }) => about);
  const alone = [...groups.values()].filter((group) => group.length === 1).flat();
  const several = [...groups.values()].filter((group) => group.length > 1);
  return [
    ...several.flatMap((group) =>
      group.map((tool, at) => (at === 0 ? { ...tool, together: chainOf(group, tools) } : tool)),
    ),
    ...alone.map((tool) => ({ ...tool, about: several.length === 0 ? "" : "other" })),
  ];
}

/** A search whose answer has what another tool asks for: what people want is the two together. */
function chainOf(group: readonly ProposedTool[], all: readonly ProposedTool[]): string | undefined {
  for (const tool of group) {
    for (const name of Object.keys(tool.contract["input"] as JsonObject)) {
      const noun = /^(.+?)_?id$/i.exec(name)?.[1];
      const finder = all.find(
        (one) =>
          one !== tool &&
          one.access === "read" &&
          /^(search|find|lookup)/.test(one.name) &&
          nounsOf(wordsOf(one.name)).includes(singular(wordsOf(noun ?? "").at(-1) ?? "-")),
      );
      if (finder !== undefined)
        return `${finder.name} finds what ${tool.name} asks for (${name}): one tool with \`steps:\` can do both.`;
    }
  }
  return undefined;
}
