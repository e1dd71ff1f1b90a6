/** Inspects a definition before a model may read it: every rule over every string, a verdict from what they found. */
import type { JsonObject } from "../core/call.ts";
import { type Finding, type Inspection, verdictOf } from "./finding.ts";
import { type InspectedKind, type Neighbour, type Rule, readingOf, type Sighting, type Subject } from "./rule.ts";
import { HYGIENE, RULES } from "./rules/index.ts";

export interface InspectionContext {
  readonly server?: string | undefined;
  /** Other definitions that the same model sees. Without them nothing is compared. */
  readonly neighbours?: readonly Neighbour[];
}

/** Of one rule no more findings than this are listed for one definition. */
const MAX_FINDINGS = 5;
const MAX_EVIDENCE = 160;
/** Words of the sentence that are shown on each side of what was found. */
const AROUND = 24;

/** Inspects one definition, or the instructions of a server as `{ instructions }`. Pure; time is linear in its size. */
export function inspectDefinition(kind: InspectedKind, value: JsonObject, context: InspectionContext = {}): Inspection {
  const steps = inspecting(kind, value, context);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** The same in steps of a few milliseconds each, for a process that has other work to do. */
export function* inspecting(
  kind: InspectedKind,
  value: JsonObject,
  context: InspectionContext = {},
): Generator<undefined, Inspection> {
  const subject = yield* readingOf(kind, value, context.server, context.neighbours ?? []);
  const findings = yield* sought(RULES, subject);
  return { verdict: verdictOf(findings), findings, hygiene: yield* sought(HYGIENE, subject) };
}

function* sought(rules: readonly Rule[], subject: Subject): Generator<undefined, readonly Finding[]> {
  const findings: Finding[] = [];
  for (const rule of rules) {
    let found = 0;
    for (const sighting of rule.find(subject)) {
      if (sighting !== undefined) findings.push(findingOf(rule, sighting));
      if (sighting !== undefined && ++found === MAX_FINDINGS) break;
      yield undefined;
    }
    yield undefined;
  }
  return findings;
}

function findingOf(rule: Rule, sighting: Sighting): Finding {
  return {
    rule: rule.id,
    owasp: rule.owasp,
    severity: sighting.severity ?? rule.severity,
    confidence: sighting.confidence ?? rule.confidence,
    where: sighting.field.where,
    evidence: evidenceOf(sighting),
    why: rule.why,
    fix: rule.fix,
  };
}

function evidenceOf({ field, span, note }: Sighting): string {
  const { text } = field;
  const start = span === undefined ? 0 : Math.max(0, span.start - AROUND);
  const end = Math.min(span === undefined ? text.length : span.end + AROUND, text.length, start + MAX_EVIDENCE);
  const quoted = `${start > 0 ? "…" : ""}${visible(text.slice(start, end))}${end < text.length ? "…" : ""}`;
  return note === undefined ? quoted : `${quoted} (${visible(note.slice(0, MAX_EVIDENCE))})`;
}

/** Makes what nobody would see, or what would turn the line round, visible as an escape. */
export function visible(text: string): string {
  return text
    .replace(/\s+/g, " ")
    .replace(
      /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Cn}\p{Default_Ignorable_Code_Point}]/gu,
      (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`,
    )
    .trim();
}
