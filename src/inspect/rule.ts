/** The shape of a rule, what it is shown of a definition, and the ways in which most rules look for their signs. */
import type { JsonObject } from "../core/call.ts";
import { disguisedViews } from "./disguises.ts";
import { type Field, fieldsOf } from "./fields.ts";
import type { Confidence, OwaspId, Principle, Severity } from "./finding.ts";
import type { Concept } from "./lexicon.ts";
import { type Hidden, normalise, type View } from "./normalise.ts";
import { type Names, type Nearness, Reading, type Span } from "./reading.ts";

/** What is inspected: an entry of a list, or what a server says of itself when it is connected. */
export type InspectedKind = "tool" | "prompt" | "resource" | "resourceTemplate" | "instructions";

/** A rule. One file in `rules/`, one page in `docs/rules/`. */
export interface Rule {
  readonly id: string;
  /** What it finds, in a few words. */
  readonly title: string;
  readonly owasp: OwaspId;
  readonly principle: Principle;
  /** Of a usual finding; a sighting may be lighter or heavier. */
  readonly severity: Severity;
  readonly confidence: Confidence;
  readonly why: string;
  readonly fix: string;
  /** Definitions that it must find, and ones like them that it must leave alone. */
  readonly bad: readonly JsonObject[];
  readonly good: readonly JsonObject[];
  /** Of hygiene: how many of a tool's hundred points in its principle a sighting costs; one of severity `info` costs a quarter. */
  readonly cost?: number;
  /** Undefined between two strings: a moment at which other work may have its turn. */
  readonly find: (subject: Subject) => Iterable<Sighting | undefined>;
}

/** Where a rule saw its sign. */
export interface Sighting {
  readonly field: Pick<Field, "where" | "text">;
  /** In the text of the field; undefined for all of it. */
  readonly span?: Span | undefined;
  readonly severity?: Severity;
  readonly confidence?: Confidence;
  /** Said after the evidence, when the words alone do not show it. */
  readonly note?: string;
}

/** A string of a definition, read in every way that gives words. */
export interface Text extends Field {
  readonly readings: readonly Reading[];
  readonly hidden: readonly Hidden[];
}

/** A definition among others, for rules that compare. */
export interface Neighbour {
  readonly name: string;
  readonly server: string | undefined;
  readonly value: JsonObject;
}

export interface Subject {
  readonly kind: InspectedKind;
  readonly name: string;
  readonly value: JsonObject;
  readonly server: string | undefined;
  /** Every string. */
  readonly texts: readonly Text[];
  /** Strings that may be prose: all but short names and values. */
  readonly prose: readonly Text[];
  /** Names of the properties of the input, at any depth. */
  readonly properties: ReadonlySet<string>;
  /** More there was than is read. */
  readonly cut: boolean;
  /** Other definitions of the set; empty when each is judged by itself. */
  readonly neighbours: readonly Neighbour[];
}

/** Strings of a definition beyond so many characters in all are not read. */
const MAX_CHARS = 4_000_000;

/** Reads a definition for the rules, and pauses after each string. */
export function* readingOf(
  kind: InspectedKind,
  value: JsonObject,
  server: string | undefined,
  neighbours: readonly Neighbour[],
): Generator<undefined, Subject> {
  const { all, cut } = fieldsOf(value);
  const given = value["name"] ?? value["uri"] ?? value["uriTemplate"];
  const name = typeof given === "string" ? given : "";
  const properties = all.filter(({ role }) => role === "property");
  const own = new Set([...properties.map(({ text }) => text), name].map((one) => one.toLowerCase()));
  const names: Names = { own, name, siblings: kind === "instructions" ? namesOf(server, neighbours) : undefined };
  const read = new Map<string, Omit<Text, keyof Field>>();
  const texts: Text[] = [];
  let left = MAX_CHARS;
  for (const field of all) {
    // Schemas repeat themselves: equal strings are read once.
    const key = `${field.role === "name" || field.role === "property"} ${field.text}`;
    let text = read.get(key);
    if (text === undefined) {
      left -= field.text.length;
      if (left < 0) break;
      text = readText(field, names);
      read.set(key, text);
      yield undefined;
    }
    texts.push({ ...field, ...text });
  }
  return {
    kind,
    name,
    value,
    server,
    texts,
    prose: texts.filter(({ readings }) => readings.length > 0),
    properties: new Set(properties.filter(({ where }) => where.startsWith("/inputSchema/")).map(({ text }) => text)),
    cut: cut || left < 0,
    neighbours,
  };
}

/** A server's instructions are about its own tools: what they say of those is no order about others'. */
function namesOf(server: string | undefined, neighbours: readonly Neighbour[]): ReadonlySet<string> {
  return new Set(neighbours.flatMap((one) => (one.server === server ? [one.name.toLowerCase()] : [])));
}

/** Reads free text, of a definition or of an answer: plain, and as each disguise would have it read. */
export function readText({ text, role }: Pick<Field, "text" | "role">, names?: Names): Omit<Text, keyof Field> {
  const { plain, hidden } = normalise(text);
  const name = role === "name" || role === "property";
  const prose = name ? spelt(plain) : plain;
  const short = text.length < 8 || (name && (prose.text.match(/ /g)?.length ?? 0) < 3);
  if (short) return { readings: [], hidden };
  return {
    readings: [prose, ...disguisedViews(prose, text, hidden)].map((view) => new Reading(view, names)),
    hidden,
  };
}

/** A name as words: `read_file` and `readFile` are "read file". Keeps the length where words are parted by signs. */
function spelt(view: View): View {
  return { ...view, text: view.text.replace(/[_\-./]/g, " ") };
}

/** A sign made of concepts that stand together. */
export interface Sign extends Nearness {
  readonly of: readonly Concept[];
  readonly severity?: Severity;
  readonly confidence?: Confidence;
  /** Only where a tool says what it is: a parameter's own description may well say how it is to be set. */
  readonly main?: boolean;
  /** Only in a description of few words. */
  readonly brief?: boolean;
  /** The sign means nothing in a sentence with one of these. */
  readonly unless?: readonly Concept[];
}

/** The first place of each text that bears one of the signs; they are asked in their order. */
export function* signs(subject: Pick<Subject, "prose">, wanted: readonly Sign[]): Generator<Sighting | undefined> {
  for (const field of subject.prose) {
    const seen = signIn(field, wanted);
    yield seen;
  }
}

/** In a text of so few words a sign weighs more: it is what the text says, not a turn of phrase in a manual. */
const BRIEF = 120;
const VERY_BRIEF = 60;
/** In a longer text a sign of low confidence says nothing. */
const LONG = 160;
const RAISED = { low: "low", medium: "high", high: "high" } as const satisfies Record<Confidence, Confidence>;

export function signIn(field: Text, wanted: readonly Sign[], usual: Confidence = "medium"): Sighting | undefined {
  for (const reading of field.readings)
    for (const sign of wanted) {
      if (sign.main === true && field.where.includes("/properties/")) continue;
      if (sign.brief === true && reading.words > VERY_BRIEF) continue;
      if ((sign.confidence ?? usual) === "low" && reading.words > LONG) continue;
      if (!reading.holds(sign.of)) continue;
      const span = reading.near(sign.of, sign);
      if (span === undefined) continue;
      if (
        sign.unless?.some(
          (concept) => reading.near([sign.of[0] as Concept, concept], { within: 24, sentences: 1 }) !== undefined,
        )
      )
        continue;
      return {
        field,
        span: reading.original(span),
        ...(sign.severity === undefined ? {} : { severity: sign.severity }),
        confidence:
          reading.words <= BRIEF && sign.severity !== "medium"
            ? RAISED[sign.confidence ?? usual]
            : (sign.confidence ?? usual),
        ...(reading.view.disguise === undefined
          ? {}
          : { note: `${reading.view.disguise}: ${reading.text.slice(span.start, span.end)}` }),
      };
    }
  return undefined;
}
