/** Answers on their way to a model: instructions in them are labelled, neutralised or withheld, what nobody sees and what loads by itself is taken out. */
import { compileGlob } from "../../core/glob.ts";
import { decoded, encoded, isJson, mayBeJson, type Token, walk } from "../../core/json-tokens.ts";
import type { AnswerSettings, InstructionAction } from "../answer-settings.ts";
import { mayBeEncoded, readable } from "./encoded.ts";
import { inspecting, type TextFinding } from "./inspect-text.ts";
import { mayHide, removals, removing } from "./invisible.ts";
import { compileLinks, type LinkEdit, type LinkRules } from "./links.ts";
import { refused, withNotice } from "./notice.ts";
import { triggers } from "./triggers.ts";

/** What kind of thing answered; `error`, `log` and `progress` are the JSON text of an error or of a notification's `params`. */
export type AnswerKind = "tool" | "resource" | "prompt" | "error" | "log" | "progress";

export interface AnswerPlace {
  readonly kind: AnswerKind;
  /** The name that clients use, or the URI. */
  readonly name: string;
  /** Whether structured content, as JSON text, keeps its promise. When it did and does no more, the answer is withheld. */
  readonly stillValid?: (structuredContent: string) => boolean;
  /** False: what is labelled gets no notice, because whoever asks adds it later (`withNotice`). */
  readonly notice?: boolean;
}

export interface AnswerFinding extends TextFinding {
  /** JSON pointer (RFC 6901) to the string, or to the member whose key it is; `start` and `end` are in the string as it reads. */
  readonly where: string;
  readonly action: InstructionAction;
}

export interface InspectedAnswer {
  /** What goes on. Of a withheld answer of a tool the error result; of any other, JSON text of `{ code, message }`. */
  readonly text: string;
  readonly findings: readonly AnswerFinding[];
  /** How much was done of what: `labelled`, `neutralised`, `withheld`, `invisible`, `image`, `link`, `script`. For metrics and records. */
  readonly counts: Readonly<Record<string, number>>;
  /** Why the answer was withheld, for the caller; undefined when it was not. */
  readonly withheld: string | undefined;
}

export interface AnswerPolicy {
  /** Inspects JSON text that `JSON.parse` accepts, at once. What is not changed stays byte for byte. */
  apply(text: string, place: AnswerPlace): InspectedAnswer;
  /** The same, in steps between which `turn` lets others have theirs: no step takes longer than some ten milliseconds. */
  applyInTurns(text: string, place: AnswerPlace, turn?: () => Promise<void>): Promise<InspectedAnswer>;
}

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));
const NO_COUNTS: Readonly<Record<string, number>> = Object.freeze({});
/** JSON within JSON within JSON: deeper it is inspected as the text it is. */
const MAX_NESTING = 8;
/** Shorter strings hold no instruction. */
const MIN_TEXT = 12;
/** Names of members are longer than this only when they are sentences. */
const MIN_KEY = 20;
/** So much is looked at between two turns. */
const STEP = 32_768;

/** Compiles the settings once. */
export function compileAnswerPolicy(settings: AnswerSettings): AnswerPolicy {
  const plans = plansOf(settings);
  return {
    apply: (text, place) => {
      const steps = inspected(text, place, plans(place.name));
      for (;;) {
        const { done, value } = steps.next();
        if (done === true) return value;
      }
    },
    applyInTurns: async (text, place, turn = nextTurn) => {
      const steps = inspected(text, place, plans(place.name));
      for (;;) {
        const { done, value } = steps.next();
        if (done === true) return value;
        await turn();
      }
    },
  };
}

interface Plan {
  readonly high: InstructionAction;
  readonly medium: InstructionAction;
  readonly invisible: boolean;
  readonly links:
    | {
        /** Where a text has some, how they are to be written. */
        readonly edits: (text: string) => Generator<void, readonly LinkEdit[]>;
        /** Addresses that stand alone count, too. */
        readonly bare: boolean;
      }
    | undefined;
}

function plansOf({ tools, ...base }: AnswerSettings): (name: string) => Plan {
  const overrides = Object.entries(tools).map(([glob, own]) => ({ fits: compileGlob(glob), own }));
  const kept = new Map<string, Plan>();
  return (name) => {
    const fitting = overrides.filter(({ fits }) => fits(name));
    const key = fitting.map((one) => overrides.indexOf(one)).join();
    let plan = kept.get(key);
    if (plan === undefined) {
      let { high, medium } = base.instructions;
      let { invisible } = base;
      let links: LinkRules = base.links;
      for (const { own } of fitting) {
        high = own.instructions?.high ?? high;
        medium = own.instructions?.medium ?? medium;
        invisible = own.invisible ?? invisible;
        links = {
          allow: own.links?.allow ?? links.allow,
          images: own.links?.images ?? links.images,
          others: own.links?.others ?? links.others,
        };
      }
      const idle = (links.images === "keep" && links.others === "keep") || links.allow.includes("*");
      plan = {
        high,
        medium,
        invisible: invisible === "remove",
        links: idle ? undefined : { edits: compileLinks(links), bare: links.others !== "keep" },
      };
      if (kept.size < 1000) kept.set(key, plan);
    }
    return plan;
  };
}

interface Edit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** One answer on its way: what is found and done in it. */
interface Pass {
  readonly plan: Plan;
  readonly kind: AnswerKind;
  readonly findings: AnswerFinding[];
  readonly counts: Record<string, number>;
  /** A place that cannot be neutralised without another shape. */
  fixed: TextFinding | undefined;
}

interface Path {
  readonly above: Path | undefined;
  readonly step: string | number;
}

function* inspected(text: string, place: AnswerPlace, plan: Plan): Generator<void, InspectedAnswer> {
  const reasons = reasonsToRead(text, plan, true);
  if (reasons === 0) return { text, findings: [], counts: NO_COUNTS, withheld: undefined };
  yield;
  const pass: Pass = { plan, kind: place.kind, findings: [], counts: {}, fixed: undefined };
  const edits = yield* document(text, pass, reasons, 0, undefined);
  const changed = applied(text, edits);
  const { findings } = pass;
  const reason = pass.fixed ?? findings.find(({ action }) => action === "withhold");
  if (reason !== undefined) return withheld(pass, place, reason);
  if (place.stillValid !== undefined && changed !== text) {
    const [before, after] = [structured(text), structured(changed)];
    const broken = before !== after && before !== undefined && after !== undefined;
    if (broken && place.stillValid(before) && !place.stillValid(after)) return withheld(pass, place, undefined);
  }
  const shown = findings.filter(({ action }) => action === "label");
  if (shown.length > 0) pass.counts["labelled"] = shown.length;
  return {
    text: shown.length > 0 && place.notice !== false ? withNotice(changed, place, shown) : changed,
    findings,
    counts: pass.counts,
    withheld: undefined,
  };
}

function withheld(pass: Pass, place: AnswerPlace, finding: TextFinding | undefined): InspectedAnswer {
  const { text, message } = refused(place, finding);
  return { text, findings: pass.findings, counts: { withheld: 1 }, withheld: message };
}

/** What the protocol has as an address is no link in a text: a client asks for it by just that name. */
function isAddress(path: Path | undefined): boolean {
  if (path?.step !== "uri" && path?.step !== "url") return false;
  let top: Path = path;
  while (top.above !== undefined) top = top.above;
  return top.step !== "structuredContent";
}

/** Why a text may be worth reading; they add up. */
const REASON = { hidden: 1, links: 2, letters: 4, escapes: 8, encoded: 16, words: 32, blob: 64 } as const;
const ANY = 127;
const LINKING = /\]\(|\]:|<[a-z!/]|url\(|@import|(?:src|href)\s?=|&#/i;
/** Letters of full width, in frames, of mathematics, phonetics and the like, struck out, and those of two scripts in one word. */
const NOT_PLAIN =
  /[\uff21-\uff5a\u2100-\u214f\u249c-\u24e9\u0250-\u02af\u1d00-\u1d7f\u2070-\u209f\ua730-\ua7ff\u01eb]|\ud835|\ud83c[\udd10-\udd89\udde6-\uddff]|[a-z][\u0300-\u036f]|[a-z][\u0370-\u058f]|[\u0370-\u058f][a-z]/i;
/** References and escapes of other languages within a text. */
const ESCAPES = /&#|\\[ux]/i;

/**
 * What speaks for reading a text; 0 for most: that is seen without taking them apart. `raw`: it is JSON as it is written. `among`: of
 * what it is a part of, nothing else spoke for that.
 */
function reasonsToRead(
  text: string,
  { high, medium, invisible, links }: Plan,
  raw: boolean,
  among: number = ANY,
): number {
  // JSON writes controls, and whatever it likes, as escapes.
  if (raw && (text.includes("\\u") || text.includes("\\b") || text.includes("\\f"))) return ANY;
  // Counted in no time, and most texts are.
  const ascii = (among & (REASON.hidden | REASON.letters)) === 0 || Buffer.byteLength(text) === text.length;
  let reasons = 0;
  if (invisible && (among & REASON.hidden) !== 0 && (ascii && raw ? text.includes("\x7f") : mayHide(text)))
    reasons |= REASON.hidden;
  const slashes = raw && text.includes("\\/");
  if (links !== undefined && (among & REASON.links) !== 0)
    if (slashes || LINKING.test(text) || (links.bare && text.includes("://"))) reasons |= REASON.links;
  if (high === "off" && medium === "off") return reasons;
  if (raw && (among & REASON.blob) !== 0 && text.includes('"blob"')) reasons |= REASON.blob;
  if ((among & REASON.letters) !== 0 && !ascii && NOT_PLAIN.test(text)) reasons |= REASON.letters;
  if ((among & REASON.escapes) !== 0 && (text.includes("&") || text.includes("\\")) && ESCAPES.test(text))
    reasons |= REASON.escapes;
  if ((among & REASON.encoded) !== 0 && (slashes || mayBeEncoded(text))) reasons |= REASON.encoded;
  if ((among & REASON.words) !== 0 && (slashes || triggers(text, raw, 1).length > 0)) reasons |= REASON.words;
  return reasons;
}

/** Goes through the strings and keys of a JSON text, for which these reasons speak. */
function* document(
  text: string,
  pass: Pass,
  reasons: number,
  depth: number,
  above: Path | undefined,
): Generator<void, readonly Edit[]> {
  const tokens: { readonly token: Token; readonly path: Path | undefined }[] = [];
  walk<Path | undefined>(text, above, {
    member: (path, key) => ({ above: path, step: text.slice(key.start, key.end) }),
    element: (path, index) => ({ above: path, step: index }),
    drops: () => false,
    scalar: (token, path) => {
      if (token.end - token.start > 1 && (token.kind === "string" || token.kind === "key"))
        tokens.push({ token, path });
    },
    dropped: () => {},
  });
  const edits: Edit[] = [];
  let looked = 0;
  for (const { token, path } of tokens) {
    looked += token.end - token.start + 16;
    if (looked > STEP) {
      looked = 0;
      yield;
    }
    const raw = text.slice(token.start, token.end);
    const read = raw.includes("\\") ? decoded(text, token.start, token.end) : undefined;
    const plain = read?.text ?? raw;
    const found =
      token.kind === "key"
        ? yield* keyEdits(plain, pass, reasons, depth, path)
        : (path?.step === "blob" || (path?.step === "data" && isBase64(plain))) && token.kind === "string"
          ? yield* blobEdits(plain, pass, depth, path)
          : yield* stringEdits(plain, pass, reasons, depth, path);
    for (const { start, end, text: replacement } of found)
      edits.push({
        start: read === undefined ? token.start + start : read.at(start),
        end: read === undefined ? token.start + end : read.at(end),
        text: encoded(replacement),
      });
  }
  return edits;
}

function* stringEdits(
  text: string,
  pass: Pass,
  among: number,
  depth: number,
  path: Path | undefined,
): Generator<void, readonly Edit[]> {
  if (depth < MAX_NESTING && mayBeJson(text) && isJson(text)) {
    const reasons = reasonsToRead(text, pass.plan, true);
    return reasons === 0 ? [] : yield* document(text, pass, reasons, depth + 1, path);
  }
  if (reasonsToRead(text, pass.plan, false, among) === 0) return [];
  const notes = (yield* findingsIn(text, pass, path))
    .filter(({ action }) => action === "neutralise")
    .map(({ start, end, rule }) => ({ start, end, text: noteFor(rule) }));
  const edits: Edit[] = [...notes];
  const clean = (edit: Edit, kind: string) => {
    if (notes.some(({ start, end }) => edit.start < end && edit.end > start)) return;
    edits.push(edit);
    count(pass, kind);
  };
  if (pass.plan.invisible)
    for (const { start, end } of yield* removing(text)) clean({ start, end, text: "" }, "invisible");
  if (pass.plan.links !== undefined && !(depth === 0 && isAddress(path)))
    for (const { kind, ...edit } of yield* pass.plan.links.edits(text)) clean(edit, kind);
  // Of those that overlap the longer goes first and stands: what nobody sees within an address goes with the address.
  return edits.length === notes.length
    ? edits
    : edits.sort((one, other) => one.start - other.start || other.end - one.end);
}

/** Keys of JSON within a text may change, those of the answer itself may not: its shape was promised. */
function* keyEdits(
  text: string,
  pass: Pass,
  among: number,
  depth: number,
  path: Path | undefined,
): Generator<void, readonly Edit[]> {
  const unseen = pass.plan.invisible && (among & REASON.hidden) !== 0 ? removals(text) : [];
  if (unseen.length > 0) count(pass, "invisible", unseen.length);
  if (text.length >= MIN_KEY) {
    const found = yield* findingsIn(text.replace(/[_-]/g, " "), pass, path);
    const wanted = found.filter(({ action }) => action === "neutralise");
    if (wanted.length > 0 && depth === 0) pass.fixed ??= wanted[0];
    if (wanted.length > 0) return wanted.map(({ start, end, rule }) => ({ start, end, text: noteFor(rule) }));
  }
  return unseen.map(({ start, end }) => ({ start, end, text: "" }));
}

/** What a picture or a sound is sent as; `data` of a message of a log is a text. */
function isBase64(text: string): boolean {
  return text.length % 4 === 0 && text.length >= 64 && /^[A-Za-z0-9+/]+={0,2}$/.test(text);
}

/** Text that is sent as base64, in `blob` of a resource or `data` of a block. */
function* blobEdits(text: string, pass: Pass, depth: number, path: Path): Generator<void, readonly Edit[]> {
  const bytes = Buffer.from(text, "base64");
  const plain = bytes.toString("utf8");
  if (!readable(plain.slice(0, 256)) || !Buffer.from(plain, "utf8").equals(bytes)) return [];
  const edits = yield* stringEdits(plain, pass, ANY, depth, path);
  return edits.length === 0
    ? []
    : [{ start: 0, end: text.length, text: Buffer.from(applied(plain, edits), "utf8").toString("base64") }];
}

function* findingsIn(text: string, pass: Pass, path: Path | undefined): Generator<void, readonly AnswerFinding[]> {
  const { high, medium } = pass.plan;
  if (text.length < MIN_TEXT || (high === "off" && medium === "off")) return [];
  const found: AnswerFinding[] = [];
  for (const finding of yield* inspecting(text)) {
    const wanted = finding.confidence === "high" ? high : medium;
    if (wanted === "off") continue;
    // Errors and notifications have no place for a notice.
    const action = wanted === "label" && NO_NOTICE.has(pass.kind) ? "neutralise" : wanted;
    found.push({ ...finding, where: pointer(path), action });
    if (action === "neutralise") count(pass, "neutralised");
  }
  pass.findings.push(...found);
  return found;
}

const NO_NOTICE: ReadonlySet<AnswerKind> = new Set(["error", "log", "progress"]);
const NOTE = "[Drawbridge took out text";

function noteFor(rule: string): string {
  return `${NOTE} of the server that gives orders to the model: ${rule}]`;
}

function count(pass: Pass, kind: string, by = 1): void {
  pass.counts[kind] = (pass.counts[kind] ?? 0) + by;
}

function pointer(path: Path | undefined): string {
  const steps: string[] = [];
  for (let at = path; at !== undefined; at = at.above)
    steps.push(String(at.step).replaceAll("~", "~0").replaceAll("/", "~1"));
  return steps
    .reverse()
    .map((step) => `/${step}`)
    .join("");
}

function applied(text: string, edits: readonly Edit[]): string {
  if (edits.length === 0) return text;
  const parts: string[] = [];
  let from = 0;
  for (const edit of edits) {
    if (edit.start < from) continue;
    parts.push(text.slice(from, edit.start), edit.text);
    from = edit.end;
  }
  parts.push(text.slice(from));
  return parts.join("");
}

/** The structured content of a result, as it is written. */
function structured(text: string): string | undefined {
  let from: number | undefined;
  let to = 0;
  walk<number>(text, 0, {
    member: (depth, key) => {
      if (depth === 0 && from === undefined && text.slice(key.start, key.end) === "structuredContent") return -1;
      return depth < 0 ? depth : depth + 1;
    },
    element: (depth) => (depth < 0 ? depth : depth + 1),
    drops: (depth) => depth === -1,
    scalar: () => {},
    dropped: (start, end) => {
      from = start;
      to = end;
    },
  });
  if (from === undefined) return undefined;
  const member = text.slice(from, to);
  return member.slice(member.indexOf(":") + 1).replace(/,\s*$/, "");
}
