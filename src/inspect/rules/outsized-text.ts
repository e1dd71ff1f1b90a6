/** Texts that are far longer than documentation, or padded so that their end is not seen. */
import { saying } from "../fixture.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const outsizedText: Rule = {
  id: "outsized-text",
  title: "is padded or far too long to be read",
  owasp: "MCP03",
  principle: 3,
  severity: "medium",
  confidence: "high",
  why: "People stop reading where the page ends; a model does not. Padding puts orders behind the edge of the window.",
  fix: "Cut the text to what a caller needs, and remove the empty space.",
  bad: [saying(`Searches.${" ".repeat(200)}and more`), saying(`Searches.${"\n".repeat(60)}and more`)],
  good: [saying("Searches.\n\n    query: what to find\n\n\n    limit: how many")],
  find: found,
};

/** What is longer is not read to its middle. */
const LONGEST = 32_000;
const PADDING = /[ \t\u00a0\u2000-\u200a\u3000]{80}|(?:\r?\n[ \t]{0,80}){20}/;

function* found(subject: Subject): Generator<Sighting | undefined> {
  for (const field of subject.texts) {
    yield undefined;
    const padding = PADDING.exec(field.text);
    if (padding !== null && field.text.slice(padding.index).trim() !== "")
      yield { field, span: { start: padding.index, end: Math.min(field.text.length, padding.index + 400) } };
    else if (field.text.length > LONGEST)
      yield { field, span: { start: 0, end: 40 }, severity: "high", note: `${field.text.length} characters` };
  }
  if (subject.cut)
    yield { field: { where: "", text: subject.name }, note: "more strings, or deeper ones, than are read" };
}
