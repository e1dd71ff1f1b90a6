/** Characters that nobody sees, or that show a text otherwise than it reads. */
import type { Severity } from "../finding.ts";
import { saying } from "../fixture.ts";
import type { Disguise } from "../normalise.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const hiddenUnicode: Rule = {
  id: "hidden-unicode",
  title: "holds characters that are not seen",
  owasp: "MCP03",
  principle: 3,
  severity: "high",
  confidence: "medium",
  why: "A model reads characters that people cannot see. Tag characters, direction marks and zero-width signs carry orders past a reviewer.",
  fix: "Remove the characters; the evidence shows each as an escape.",
  bad: [
    saying("Adds.\u{e0048}\u{e0069}"),
    saying("Ad\u200bds num\u200bbers for y\u200bou."),
    saying("Adds. \u202eneddih\u202c"),
    saying("Adds. Аlwаys соpу."),
  ],
  good: [
    saying("Zeigt das Wetter für Zürich 🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f} 👩‍💻 ☀️"),
    saying("Показывает погоду в городе."),
  ],
  find: found,
};

/** How heavy each class is: once, and from the third character on. */
const CLASSES: Readonly<Partial<Record<Disguise, readonly [Severity, Severity]>>> = {
  "tag characters": ["critical", "critical"],
  "direction override": ["high", "high"],
  "zero-width characters": ["high", "critical"],
  "private-use characters": ["high", "high"],
  "variation selectors": ["medium", "high"],
  "control characters": ["medium", "high"],
  "look-alike letters": ["high", "critical"],
  "full-width or mathematical letters": ["low", "high"],
};

function* found(subject: Subject): Generator<Sighting | undefined> {
  for (const field of subject.texts) {
    yield undefined;
    for (const { disguise, start, end, count } of field.hidden) {
      const weight = CLASSES[disguise]?.[count > 2 ? 1 : 0];
      if (weight !== undefined)
        yield {
          field,
          span: { start, end },
          severity: weight,
          confidence: weight === "critical" ? "high" : "medium",
          note: `${count} ${disguise}`,
        };
    }
  }
}
