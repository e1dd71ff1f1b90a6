/**
 * Contracts that a person can begin with, proposed from what a server says of itself: which tools to serve and which to leave out,
 * narrow inputs, projected answers, access. All that is proposed can be proved; what is only a guess stands in a remark beside it.
 */
import { DANGERS, factsOf } from "./propose/facts.ts";
import { frequencies, grouped, subjectOf } from "./propose/groups.ts";
import { otherEntries } from "./propose/others.ts";
import type { LeftOut, Offer, Proposal, ProposedTool } from "./propose/proposal.ts";
import { proposedTool } from "./propose/tool.ts";

export type { LeftOut, Offer, Proposal, ProposedEntry, ProposedTool, Remark } from "./propose/proposal.ts";

/** Proposes contracts for all that a server offers. The order of the server's list is kept within a group. */
export async function proposeContracts(offer: Offer): Promise<Proposal> {
  const leftOut: LeftOut[] = [];
  const proposed: ProposedTool[] = [];
  const taken = new Set<string>();
  const all = offer.tools.map((definition) => factsOf(definition, offer.server));
  const frequency = frequencies(all.map(({ words }) => words));
  for (const facts of all) {
    const why = DANGERS.find((danger) => danger.applies(facts))?.why;
    const tool = why === undefined ? await proposedTool(facts, offer, taken) : why;
    if (typeof tool === "string") leftOut.push({ kind: "tool", name: facts.name, why: tool });
    else {
      taken.add(tool.name);
      proposed.push({ ...tool, about: subjectOf(facts.words, frequency) });
    }
  }
  const others = otherEntries(offer);
  return { tools: grouped(proposed), ...others, leftOut: [...leftOut, ...others.leftOut] };
}
