/** Reads one text of an answer for instructions to the model that will read it. */

import { disguisedViews } from "../disguises.ts";
import { visible } from "../inspect.ts";
import { normalise, original, type View } from "../normalise.ts";
import type { Span } from "../reading.ts";
import { ANSWER_RULES, type AnswerRuleName, type Sign } from "./answer-rules.ts";
import { disguisedPieces } from "./encoded.ts";
import { flattened, placeOf, turned } from "./flatten.ts";
import { removals } from "./invisible.ts";
import { mannerOf } from "./manner.ts";
import { hiddenEnd } from "./places.ts";
import { signsOf } from "./signs.ts";
import { DISGUISED, type Stretch, triggers } from "./triggers.ts";

/** `high`: an instruction to the model, hardly anything else. `medium`: reads like one, and people may write so, too. */
export type AnswerConfidence = "high" | "medium";

export interface TextFinding {
  /** The heaviest sign of several. */
  readonly rule: (typeof ANSWER_RULES)[AnswerRuleName]["id"];
  /** All of them. */
  readonly rules: readonly string[];
  readonly owasp: string;
  readonly confidence: AnswerConfidence;
  /** What would be taken out: the instruction, to the end of its paragraph. UTF-16 code units, `end` exclusive. */
  readonly start: number;
  readonly end: number;
  /** The words, shortened, with what nobody sees as escapes. They are the server's: show them to people only. */
  readonly evidence: string;
}

const CHUNK = 16_384;
/** Chunks share so much, so that no instruction falls between two. */
const SHARED = 1024;
const BEFORE = 320;
const AFTER = 480;
const LONGEST = 2048;
/** Signs so near one another belong to one instruction. */
const NEAR = 360;
const HIGH = 3;
const MEDIUM = 2;
/** So much must be said before it matters that nobody sees it: alternative texts and comments are full of orders to people. */
const TELLING = 1.5;
const MAX_FINDINGS = 64;
const MAX_LOOKS = 4;
const MAX_EVIDENCE = 160;

/** Inspects a text at once. */
export function inspectText(text: string): readonly TextFinding[] {
  const steps = inspecting(text);
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

/** Inspects a text step by step; a step takes some ten milliseconds at most, and their number grows with the text. */
export function* inspecting(text: string, decoding = true): Generator<void, readonly TextFinding[]> {
  const signs: Sign[] = [];
  for (let from = 0; from < text.length; from += CHUNK - SHARED) {
    const chunk = text.slice(from, from + CHUNK);
    for (const window of windowsOf(chunk)) {
      signs.push(...signsIn(chunk.slice(window.start, window.end), from + window.start));
      yield;
    }
    if (decoding)
      for (const piece of disguisedPieces(chunk)) {
        const said = yield* inspecting(piece.text, false);
        const [first] = said;
        if (first !== undefined)
          signs.push({ rule: "disguise", weight: HIGH, start: from + piece.start, end: from + piece.end });
        else if (yield* ordersIn(piece.text))
          signs.push({ rule: "disguise", weight: MEDIUM, start: from + piece.start, end: from + piece.end });
      }
    if (from + CHUNK >= text.length) break;
    yield;
  }
  return clustered(text, signs);
}

/** A single weak sign is enough where somebody took the trouble to encode it. */
function* ordersIn(text: string): Generator<void, boolean> {
  for (const window of windowsOf(text.slice(0, CHUNK))) {
    if (signsIn(text.slice(window.start, window.end), 0).length > 0) return true;
    yield;
  }
  return false;
}

/** The parts of a chunk that are worth reading, none longer than `LONGEST`. */
function windowsOf(chunk: string): readonly Stretch[] {
  const view = DISGUISED.test(chunk) ? normalise(chunk).plain : plainView(chunk);
  const windows: { start: number; end: number }[] = [];
  for (const found of triggers(view.text)) {
    const place = original(view, found.start, found.end);
    const start = Math.max(0, place.start - BEFORE);
    const end = Math.min(chunk.length, place.end + AFTER);
    const last = windows.at(-1);
    if (last === undefined || start > last.end) windows.push({ start, end });
    else if (end - last.start <= LONGEST) last.end = Math.max(last.end, end);
    else if (end > last.end) windows.push({ start: Math.max(start, last.end - BEFORE), end });
  }
  return windows;
}

const plainView = (text: string): View => ({ text, offsets: undefined, disguise: undefined });

/** Signs of a window, in places of the whole text, where it begins at `offset`. */
function signsIn(window: string, offset: number): readonly Sign[] {
  const { plain, hidden } = DISGUISED.test(window) ? normalise(window) : { plain: plainView(window), hidden: [] };
  const odd = ODD.test(plain.text) || hidden.some(({ disguise }) => disguise === "direction override");
  const flat = flattened(plain);
  const views = odd ? [flat, ...disguisedViews(plain, window, hidden)] : [flat];
  return [...views, ...turned(plain)].flatMap((view) =>
    signsOf(view).flatMap((sign): readonly Sign[] => {
      const manner = mannerOf(view.text, sign);
      const weight = manner === "quotes" ? 0 : manner === "speaks about" ? sign.weight / 2 : sign.weight;
      if (weight === 0) return [];
      const place = placeOf(plain, view, sign);
      const found = { rule: sign.rule, weight, start: offset + place.start, end: offset + place.end };
      const disguised = view.disguise !== undefined || removals(window.slice(place.start, place.end)).length > 0;
      return disguised ? [found, { ...found, rule: "disguise", weight: 1.5 }] : [found];
    }),
  );
}

/** Digits within words, letters that stand apart, and words that are English when they are turned. */
const ODD =
  /[a-z][013457@$!]{1,2}[a-z]|\b[013457@$!][a-z]{3}|(?:\b[\p{L}\p{N}][ .\-_*|\t]{1,3}){7}|vtaber|vafgehpgvba|cerivbhf|erongi|snoitcurtsni|suoiverp/iu;

/** Signs that stand together, weighed together: each rule once. */
function clustered(text: string, signs: readonly Sign[]): readonly TextFinding[] {
  const findings: TextFinding[] = [];
  let cluster: Sign[] = [];
  let end = 0;
  const close = () => {
    const finding = findings.length < MAX_FINDINGS ? findingOf(text, cluster) : undefined;
    const last = findings.at(-1);
    // So many are one attack: nothing behind the last of them is trusted.
    if (findings.length === MAX_FINDINGS && last !== undefined)
      findings[MAX_FINDINGS - 1] = { ...last, end: text.length };
    else if (finding !== undefined) {
      // The paragraph of one may reach into the next.
      if (last !== undefined && finding.start < last.end) findings[findings.length - 1] = joined(last, finding);
      else findings.push(finding);
    }
    cluster = [];
  };
  for (const sign of [...signs].sort((one, other) => one.start - other.start)) {
    if (cluster.length > 0 && sign.start - end > NEAR) close();
    if (cluster.length === 0) end = 0;
    cluster.push(sign);
    end = Math.max(end, sign.end);
  }
  if (cluster.length > 0) close();
  return findings;
}

function joined(one: TextFinding, other: TextFinding): TextFinding {
  const [heavy, light] = one.confidence === "high" || other.confidence !== "high" ? [one, other] : [other, one];
  return {
    ...heavy,
    rules: [...new Set([...heavy.rules, ...light.rules])],
    start: Math.min(one.start, other.start),
    end: Math.max(one.end, other.end),
  };
}

function findingOf(text: string, cluster: readonly Sign[]): TextFinding | undefined {
  const weights = new Map<AnswerRuleName, number>();
  for (const { rule, weight } of cluster) weights.set(rule, Math.max(weights.get(rule) ?? 0, weight));
  // A tool may well be named in a comment; anything else that is said to a model there was not to be seen.
  const telling = cluster.filter(({ rule }) => rule !== "tool").slice(0, MAX_LOOKS);
  const said = [...weights.values()].reduce((sum, one) => sum + one, 0);
  const hidden = said >= TELLING && telling.some(({ start }) => hiddenEnd(text, start) !== undefined);
  if (hidden) weights.set("place", 1.5);
  const total = hidden ? said + 1.5 : said;
  if (total < MEDIUM) return undefined;
  const named = [...weights].sort(([, one], [, other]) => other - one).map(([rule]) => ANSWER_RULES[rule]);
  const [heaviest] = named;
  if (heaviest === undefined) return undefined;
  const { start, end } = extentOf(text, {
    start: Math.min(...cluster.map((sign) => sign.start)),
    end: Math.max(...cluster.map((sign) => sign.end)),
  });
  return {
    rule: heaviest.id,
    rules: named.map(({ id }) => id),
    owasp: heaviest.owasp,
    confidence: total >= HIGH ? "high" : "medium",
    start,
    end,
    evidence: visible(text.slice(start, Math.min(end, start + MAX_EVIDENCE))),
  };
}

const SENTENCE_BACK = 240;
const PARAGRAPH = 1200;

/** From the start of the sentence to the end of the paragraph, or of what hides it: what follows an order is a part of it. */
function extentOf(text: string, { start, end }: Span): Span {
  const back = text.slice(Math.max(0, start - SENTENCE_BACK), start);
  const stop = /^[\s\S]*(?:[.!?。！？:]["')\]]{0,2}\s|\n|<!--|\*\/|>|\|)/.exec(back);
  const from =
    stop === null ? (back.length < SENTENCE_BACK ? start - back.length : start) : start - back.length + stop[0].length;
  const limit = Math.min(text.length, end + PARAGRAPH);
  const hidden = hiddenEnd(text, start);
  if (hidden !== undefined && hidden >= end && hidden <= limit) return { start: from, end: hidden };
  const rest = text.slice(end, limit);
  const paragraph = /\r?\n[ \t]*\r?\n/.exec(rest);
  if (paragraph !== null) return { start: from, end: end + paragraph.index };
  if (limit === text.length) return { start: from, end: limit };
  const sentence = /[.!?。！？](?=\s)/.exec(rest);
  return { start: from, end: sentence === null ? limit : end + sentence.index + 1 };
}
