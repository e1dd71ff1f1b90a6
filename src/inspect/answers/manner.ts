/** Whether a text gives an instruction or speaks about one: documentation of attacks is full of them. */
import type { Span } from "../reading.ts";
import type { AnswerRuleName } from "./answer-rules.ts";

/** Words of texts that speak about such instructions instead of giving them. */
const ABOUT =
  /prompt[- ]injections?|\binjections?\b|jailbreak|adversarial|\battack(?:er|ers|s)?\b|malicious|red[- ]team|\bguardrails?\b|\bdetect(?:s|ed|or|ors|ion)?\b|\be\.g\.|\bfor (?:example|instance)\b|\bsuch as\b|sanitiz|\bpayloads?\b|\bowasp\b|\bexploit|\btest (?:case|string|that)|\bCVE-|\bassert\b|\bexpect\(|\bclassif|\bphrases? like\b|\bstrings? like\b|\btreated? as\b|\bvulnerab|\bresearchers?\b|\bphishing|\bscam|\bawareness\b|\brefus(?:al|es|ed)\b|\bmention(?:s|ed)\b|\bprobes?\b|\bstill works?\b|\bthe (?:sentence|phrase|words?|string)\b|\bthe (?:study|paper|law)\b|\baccording to\b|angriff|einschleus|注入|攻撃|공격|инъекц/gi;
const QUOTED = /["'“”‘’„«»`「」『』*]/;

/** How a text speaks of a sign in it: gives it, speaks about it, or quotes it while doing so. */
export function mannerOf(text: string, sign: Span): "gives" | "speaks about" | "quotes" {
  const around = text.slice(Math.max(0, sign.start - 400), sign.start) + text.slice(sign.end, sign.end + 300);
  const about = new Set((around.match(ABOUT) ?? []).map((word) => word.toLowerCase().slice(0, 6))).size;
  if (about === 0) return "gives";
  const line = text.lastIndexOf("\n", sign.start) + 1;
  const before = text.slice(Math.max(line, sign.start - 160), sign.start);
  const end = text.indexOf("\n", sign.end);
  const after = text.slice(sign.end, Math.min(end < 0 ? text.length : end, sign.end + 160));
  const quoted = QUOTED.test(before) && QUOTED.test(after);
  const fenced = ((text.slice(0, sign.start).match(/```/g)?.length ?? 0) & 1) === 1;
  return quoted || fenced ? "quotes" : about > 1 ? "speaks about" : "gives";
}

/** Somebody else does, did or might do what follows, or must not do it: no order to whoever reads. */
const REPORTED =
  /(?:\b(?:not|never|cannot|attackers?|adversar\w{1,4}|(?<!\byou )(?:could|would|can|may|might)(?! you)|was|were|been|(?:told|tried|tries|refuse[sd]?|able|how|asks?|asked)(?: (?:the|an?) \w{2,16})? to|why|whether)\s(?:[\w']{1,16}\s){0,2}|n't\s|\b(?:i|we|they|he|she)\s(?:[\w']{1,16}\s)?|\b(?<!(?:user|human|customer|they) )(?:says?|said|reported|claims?|claimed|showed|shows|argues?)(?: that)?\s[^.\n]{0,60}|\b(?:kein\w{0,2}|nicht|niemals|jamais|nunca|никогда|не)\s(?:\S{1,16}\s){0,2})$/;

/** Whether what begins at `at` of a text in small letters is told of somebody. */
export function isReported(lower: string, at: number): boolean {
  return REPORTED.test(lower.slice(Math.max(0, at - 90), at));
}

/** What people may be told to pass over when something is so, or must have agreed to before something happens. */
export const CONDITIONAL: ReadonlySet<AnswerRuleName> = new Set(["override", "consent"]);
const CONDITION =
  /\b(?:if (?:you|the|your|it|this|there)(?! are (?:an? )?(?:ai|llm|language|assistant|agent|model))|before|until|unless|once|whether|only when|only after|must not)\b[^.!?\n]*$/i;

/** Whether a condition stands before `at`, in its sentence. */
export function isConditional(text: string, at: number): boolean {
  return CONDITION.test(text.slice(Math.max(0, at - 90), at));
}

const FORGOTTEN = /\bforg[eo]t|забыл|vergessen|oublié|olvid|dimentic|esquec|忘/i;

/** Whether somebody who lost a password writes where a new one is to go. */
export function isForgotten(text: string, start: number, end: number): boolean {
  return FORGOTTEN.test(text.slice(Math.max(0, start - 24), end));
}
