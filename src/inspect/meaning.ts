/** What phrases mean where they stand: "the first ten rows" is no order, and what is forbidden is not asked for. */
import type { Concept } from "./lexicon.ts";

/** A phrase where it stands: its first word, those before it in the sentence (the nearest first), and the one after it. */
export interface Place {
  readonly word: string;
  readonly before: readonly string[];
  readonly after: string;
  /** The word is the name of a parameter of this tool. */
  readonly own: boolean;
  /** The text is what a server says of itself. */
  readonly ofServer: boolean;
}
/** So many words back a place tells of. */
export const LOOK_BACK = 8;

/** What an order may ask for, and what a ban may therefore take back. */
export const ACTS: ReadonlySet<Concept> = new Set([
  "read",
  "send",
  "use",
  "include",
  "fileAct",
  "obey",
  "install",
  "runOrder",
  "disable",
  "destroy",
  "rewrite",
  "strongRewrite",
  "deliver",
  "also",
  "shell",
]);
/** Begins a ban in the languages whose order of words is known here. */
export const BANS = /^(?:not|dont|never|avoid|cannot|cant|nicht|niemals|nie|pas|jamais|nunca|jamás|não|non|mai)$/;
/** Turns a ban round ("do not forget to send") or belongs to neither. */
export const STILL = /^(?:or|and|ever|to|attempt|try|directly|just|simply|use|using|read|open|write|copy|be)$/;
/** After "not" these tell of a state, and order nothing: "not supported, inform the user". */
const STATE =
  /^(?:supported|available|found|required|set|given|provided|specified|valid|present|known|empty|yet|installed|enabled|configured|possible|applicable|needed|allowed|recognized|recognised|included|exist|exists|match|matching|clear|sure|certain|necessary|already|only)$/;

/** Before a verb in -ing that tells of an occasion and orders nothing. */
const GERUND_OF = /^(?:before|when|while|for|by|of|after|without|or)$/;

/** Whether a phrase means its concept where it stands. */
export const MEANT: Readonly<Partial<Record<Concept, (place: Place) => boolean>>> = {
  // "the user did not mention", "not the alert configurations"
  not: ({ word, before: [before = ""], after }) =>
    !STATE.test(after) &&
    !(word === "not" && /^(?:did|does|has|have|had|was|were)$/.test(before)) &&
    !(word === "not" && /^(?:the|a|an|this|these)$/.test(after)),
  // "for what the other tools do not do", in a server's own instructions; "do not use the other tools" bans others', too
  otherTool: ({ word, before: [before = "", ...further], ofServer }) =>
    !(ofServer && word === "other" && before === "the" && !further.slice(0, 3).some((one) => BANS.test(one))),
  // "the first 10 rows"
  first: ({ before: [before = ""], after }) =>
    before !== "the" && !/^(?:\d|name|page|one|item|row|line|column|few|time|argument|element|and|letter)/.test(after),
  // "required for upload", "(required)": of a parameter, and no order
  // "the URL we should call", "when you need to send it"
  must: ({ word, before: [before = "", further = ""], after }) =>
    (word !== "required" || after === "to" || after === "that") &&
    !(/^(?:should|need|have)$/.test(word) && (before === "we" || /^(?:when|if|where|once|whenever)$/.test(further))),
  // "the model must be downloadable"
  reservedRole: ({ after }) => !/^(?:be|have|exist|support|match)$/.test(after),
  // "an access token", "the access level"
  read: ({ word, after }) =>
    word !== "access" ||
    !/^(?:tokens?|keys?|control|level|rights?|list|mode|polic(?:y|ies)|permissions?|code|and|or)$/.test(after),
  // "the target including its status"
  include: ({ word }) => word !== "including" && word !== "includes",
  // "before installing"
  install: ({ word, before: [before = ""] }) => word !== "installing" || !GERUND_OF.test(before),
  // "runs it if omitted"; "set `overwrite` to true", "change only what has to be"
  strongRewrite: ({ word, own, before: [before = ""], after }) =>
    !own && after !== "only" && !(/^(?:omitted|dropped)$/.test(word) && /^(?:if|when|is|are|or|be)$/.test(before)),
  // an e-mail address, not an order to mail; "review it before sending"; "messages sent to the number"
  send: ({ word, before: [before = ""], after }) =>
    !(word.endsWith("ing") && GERUND_OF.test(before)) &&
    !(word === "push" && /^notifications?$/.test(after)) &&
    (word !== "sent" || /^(?:be|is|are|was|been|being|get|gets|also|then)$/.test(before)) &&
    (!/^e?mails?$/.test(word) ||
      !(
        /^(?:address(?:es)?|ids?|accounts?|templates?|messages?|subject|body|notifications?|str|string|of|is)$/.test(
          after,
        ) ||
        /^(?:the|an|a|your|users?|primary|full|google|recipient|valid|of|by|their|name|or|and|to|new|with|e)$/.test(
          before,
        )
      )),
  // "do not guess without user confirmation"; "a plan that a human has approved"
  dontCare: ({ word, before }) =>
    (word !== "without" || !before.some((one) => BANS.test(one))) &&
    (word !== "has" || !before.slice(0, 4).some((one) => /^(?:that|which|who|if|once|until|unless|when)$/.test(one))),
  // "omit unless specified by the user"
  fromUser: ({ before }) => !before.slice(0, 3).includes("unless"),
  // "before running any Python code"
  runOrder: ({ word, before: [before = ""] }) => !(word.endsWith("ing") && GERUND_OF.test(before)),
};
