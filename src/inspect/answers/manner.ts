/** Whether a text gives an instruction or speaks about one: documentation of attacks is full of them. */
import type { Span } from "../reading.ts";

/** Words of texts that speak about such instructions instead of giving them. */
const ABOUT =
  /prompt[- ]injections?|\binjections?\b|jailbreak|adversarial|\battack(?:er|ers|s)?\b|malicious|red[- ]team|\bguardrails?\b|\bdetect(?:s|ed|or|ors|ion)?\b|\be\.g\.|\bfor (?:example|instance)\b|\bsuch as\b|sanitiz|\bpayloads?\b|\bowasp\b|\bexploit|\btest (?:case|string|that)|\bCVE-|\bassert\b|\bexpect\(|\bclassif|\bphrases? like\b|\bstrings? like\b|\btreated? as\b|\bvulnerab|angriff|einschleus|注入|攻撃|공격|инъекц/gi;
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
