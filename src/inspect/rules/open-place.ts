/** Paths, addresses and hosts that the caller chooses freely. */
import { saying } from "../fixture.ts";
import { parametersOf, takesAnyText, wordsOf } from "../parameters.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const openPlace: Rule = {
  id: "open-place",
  title: "takes any path, address or host",
  owasp: "MCP05",
  principle: 2,
  severity: "low",
  confidence: "medium",
  cost: 15,
  why: "A free path reads what was not meant (../../etc), a free address reaches inside the network or carries data out.",
  fix: "Give it a pattern or an enum: the folder, the hosts, the recipients that are meant.",
  bad: [saying("Fetches a page.", { url: { type: "string" } }), saying("Reads.", { file_path: { type: "string" } })],
  good: [
    saying("Fetches a page.", { url: { type: "string", pattern: "^https://docs\\.example\\.com/" } }),
    saying("Reads.", { file_path: { enum: ["a.txt", "b.txt"] } }),
    saying("Relates two things.", { from: { type: "string" }, to: { type: "string" } }, { name: "create_relation" }),
  ],
  find: found,
};

const PLACE =
  /(?:^| )(?:path|paths|file|filename|filepath|dir|directory|folder|cwd|url|urls|uri|href|link|endpoint|host|hostname|webhook|callback|proxy|recipient|recipients|cc|bcc|email address)$/;
/** "to" is an address only where something is sent. */
const SENDS = /(?:^| )(?:send|mail|email|message|sms|forward|share|invite|notify|transfer|pay)(?: |$)/;

function* found(subject: Subject): Generator<Sighting> {
  if (subject.kind !== "tool") return;
  for (const { words, where, name, schema } of parametersOf(subject.value)) {
    // A format says what it looks like, and leaves every place open.
    const { format: _, ...rest } = schema;
    const items = rest["items"];
    const open =
      takesAnyText(rest) || (typeof items === "object" && items !== null && takesAnyText(items as typeof rest));
    const place = PLACE.test(words) || (words === "to" && SENDS.test(wordsOf(subject.name)));
    if (place && open) yield { field: { where, text: name } };
  }
}
