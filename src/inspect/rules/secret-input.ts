/** Parameters that carry a password or a key through the model. */
import { saying } from "../fixture.ts";
import { parametersOf } from "../parameters.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const secretInput: Rule = {
  id: "secret-input",
  title: "takes a secret as an argument",
  owasp: "MCP01",
  principle: 5,
  severity: "low",
  confidence: "medium",
  cost: 30,
  why: "An argument is written by the model: the secret has to be in its context, in transcripts and in logs.",
  fix: "Give the server its credential in its settings, or let the gateway add it on the way.",
  bad: [saying("Signs in.", { password: { type: "string" } }), saying("Lists.", { apiKey: { type: "string" } })],
  good: [
    saying("Lists.", { page_token: { type: "string" } }),
    saying("Counts.", { max_tokens: { type: "integer" } }),
    saying("Rotates a secret by its name.", { secret_name: { type: "string" } }),
  ],
  find: found,
};

const SECRET =
  /(?:^| )(?:password|passwd|passphrase|api ?key|secret(?: key)?|client secret|private key|access (?:token|key)|auth token|bearer(?: token)?|credentials?|jwt|session cookie|cookies?)$/;
const TEXT = new Set<unknown>(["string", undefined]);

function* found(subject: Subject): Generator<Sighting> {
  if (subject.kind !== "tool") return;
  for (const { words, where, name, schema } of parametersOf(subject.value))
    if (SECRET.test(words) && TEXT.has(schema["type"])) yield { field: { where, text: name } };
}
