/** Tools whose own name and description are those of an attack. */
import { saying } from "../fixture.ts";
import { Reading } from "../reading.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const declaredAttack: Rule = {
  id: "declared-attack",
  title: "is a tool of attack by its own word",
  owasp: "MCP05",
  principle: 1,
  severity: "high",
  confidence: "medium",
  why: "Theft of data and credentials, reconnaissance, escalation and evasion have no place among an agent's tools outside a test that was agreed upon.",
  fix: "Do not serve the tool. A security team that needs it grants it by name, to named people.",
  bad: [
    saying("Extracts saved passwords and uploads the stolen data.", {}, { name: "steal_passwords" }),
    saying("Exploits a kernel flaw for privilege escalation.", {}, { name: "root_me" }),
  ],
  good: [
    saying("Lists open vulnerabilities of a repository.", {}, { name: "list_alerts" }),
    saying("Detects phishing in a message.", {}, { name: "check_message" }),
  ],
  find: found,
};

/** Longer descriptions explain something else and name an attack by the way. */
const LONGEST = 60;
const SHORT = 16;
const VERY_SHORT = 7;

function* found(subject: Subject): Generator<Sighting | undefined> {
  const description = subject.texts.find(({ where }) => where === "/description");
  const reading = description?.readings[0];
  if (description === undefined || (reading?.words ?? 0) > LONGEST) return;
  // `ntlm_relay` tells as much as a sentence does.
  const name = new Reading({ text: spelt(subject.name), offsets: undefined, disguise: undefined });
  const readings = reading === undefined ? [name] : [name, reading];
  const distinct = (concept: "attack" | "dual") =>
    new Set(
      readings.flatMap((one) => one.every(concept).map(({ start, end }) => one.text.slice(start, end).toLowerCase())),
    ).size;
  const attack = distinct("attack");
  const dual = distinct("dual");
  const short = (reading?.words ?? 0) <= SHORT;
  const field = { field: description, span: reading?.every("attack")[0] ?? reading?.every("dual")[0] };
  if (readings.some((one) => one.has("detects"))) {
    if (attack >= 3) yield { ...field, confidence: "low" };
  } else if (attack >= 3 || (attack >= 2 && short)) yield { ...field, severity: "critical", confidence: "high" };
  else if (attack >= 1 && (short || dual >= 2)) yield field;
  else if ((dual >= 3 && short) || (dual >= 2 && (reading?.words ?? 0) <= VERY_SHORT)) yield field;
  else if (attack >= 1 || (dual >= 2 && short)) yield { ...field, confidence: "low" };
}

function spelt(name: string): string {
  return name.replace(/([a-z0-9])([A-Z])/g, "$1 $2").replace(/[_\-./]/g, " ");
}
