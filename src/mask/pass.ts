/** One text on its way through masking: where something is private, and what stands there instead. */
import { createHmac, hkdfSync } from "node:crypto";
import { decoded, encoded, isBlank, isJson, mayBeJson, stringEnd, type Token, walk } from "../core/json-tokens.ts";
import type { Secret } from "../core/secret.ts";
import type { Detector } from "./detector.ts";
import type { Edit } from "./edits.ts";
import type { FieldRules, FieldState } from "./fields.ts";
import type { Plan } from "./plan.ts";
import type { FoundSpan, Scan, Scanned, Span } from "./scan.ts";
import type { Action } from "./settings.ts";
import { markOf } from "./stand-in.ts";
import type { Pending, Tokens } from "./tokens.ts";

/** JSON within JSON within JSON: deeper it is masked as the text it is. */
const MAX_NESTING = 8;
const MAX_MARKS = 20_000;

/** What passes of one masker have in common. */
export interface Shared {
  readonly scan: Scan;
  /** For keys, tokens and passwords alone. */
  readonly scanForSecrets: Scan;
  /** Undefined: nothing can be kept, so stand-ins and marks are redacted. */
  readonly marks: Marks | undefined;
}

export interface Marks {
  readonly standIns: Tokens;
  readonly hash: (type: string, value: string) => string;
}

/**
 * A document that is data in parts: what is around them is a protocol's, and has fields of its own. Regions have names; at the top
 * stands `""`.
 */
export interface Shape {
  /** The region below a key; undefined: data, whose top stands here, begins with it. */
  region(of: string, key: string): string | undefined;
  /** Strings that mean something to machines alone, by their place (`/content/0/data`), with what they say and what takes their place. */
  readonly except: ReadonlyMap<string, Exception>;
}

export interface Exception {
  /** As it was read, so that a member that is there twice cannot have another one passed over. */
  readonly is: string;
  readonly shown: string;
}

/** One text on its way through, with what is counted and stored for it. */
export class Pass {
  readonly pending: Pending[] = [];
  /** Something private stays as it is. */
  shown = false;
  readonly #plan: Plan;
  readonly #subject: string;
  readonly #shared: Shared;
  /** What is done with each type, and how often it was. */
  readonly #rules = new Map<string, Rule>();
  /** Masked keys so far: two keys of one object must not become the same. */
  readonly #keys = new Map<string, number>();

  constructor(plan: Plan, subject: string, shared: Shared) {
    this.#plan = plan;
    this.#subject = subject;
    this.#shared = shared;
  }

  /** Edits of a text, from `from` on: what stands before says what the text is about. */
  text(text: string, nesting: number, from = 0): readonly Edit[] {
    const scanned = this.#scan(text, from);
    if (scanned.spans.length === 0 && !scanned.escaped && this.#plan.fields === undefined) return [];
    const json = nesting < MAX_NESTING && from === 0 && mayBeJson(text) && isJson(text);
    if (json) return this.#document(text, scanned, nesting);
    return this.replacements(text, scanned.spans, mayBeJson(text) ? { before: "" } : undefined);
  }

  json(text: string, nesting: number, shape?: Shape): readonly Edit[] {
    return this.#document(text, this.#scan(text), nesting, shape);
  }

  /** Where people's data stays, nobody looks for it. */
  #scan(text: string, from = 0): Scanned {
    const { scan, scanForSecrets } = this.#shared;
    return this.#plan.secretsAlone ? scanForSecrets(text, from) : scan(text, from);
  }

  /** How many values of each type were masked. */
  get counts(): Readonly<Record<string, number>> {
    const counts: Record<string, number> = {};
    for (const [type, { times }] of this.#rules) if (times > 0) counts[type] = times;
    return counts;
  }

  /** `lines`: the text is lines of JSON perhaps, so what may be a number stays one; of it, this stood before `text`. */
  replacements(text: string, spans: readonly Span[], lines?: { readonly before: string }): readonly Edit[] {
    const edits: Edit[] = [];
    for (const span of spans) {
      const { start, end, detector } = span;
      const rule = this.#ruleOf(detector.type);
      if (rule.action === "redact" && lines === undefined) {
        rule.times++;
        edits.push({ start, end, type: detector.type, text: rule.redacted });
        continue;
      }
      const value = text.slice(start, end);
      const number = lines !== undefined && /^[1-9]\d*$/.test(value) && isNumberInLines(text, span, lines.before);
      const shown = this.#shown(detector, value, number);
      if (shown !== undefined) edits.push({ start, end, type: detector.type, text: shown });
    }
    return edits;
  }

  #document(text: string, scanned: Scanned, nesting: number, shape?: Shape): readonly Edit[] {
    if (this.#plan.fields === undefined) {
      const except = shape === undefined ? [] : [...shape.except.values()];
      const same = except.every(({ is, shown }) => is === shown);
      if (scanned.spans.length === 0 && !scanned.escaped && same) return [];
      const plain = except.length === 0 && !scanned.escaped;
      if (plain && allPlain(text, scanned.spans)) return this.replacements(text, scanned.spans);
    }
    return this.#walked(text, scanned, nesting, this.#plan.fields, shape);
  }

  /** The slow way: every string and number by itself, where its structure matters. */
  #walked(
    text: string,
    scanned: Scanned,
    nesting: number,
    fields: FieldRules | undefined,
    shape: Shape | undefined,
  ): readonly Edit[] {
    const edits: Edit[] = [];
    const spans = scanned.spans;
    let next = 0;
    let label = "";
    const places = (shape?.except.size ?? 0) > 0;
    const top: Walked = {
      field: shape === undefined ? fields?.top : undefined,
      depth: 0,
      region: shape === undefined ? undefined : "",
      place: places ? "" : undefined,
    };

    const scalar = (token: Token, { field, place }: Walked): void => {
      const { kind, start, end } = token;
      const exception = place === undefined || kind === "key" ? undefined : shape?.except.get(place);
      if (exception !== undefined && text.slice(start, end) === exception.is) {
        if (exception.shown !== exception.is) edits.push({ start, end, type: "field", text: exception.shown });
        return;
      }
      while (next < spans.length && (spans[next]?.end ?? 0) <= start) next++;
      const first = next;
      while (next < spans.length && (spans[next]?.start ?? 0) < end) next++;
      const within = spans.slice(first, next);
      if (kind === "key") label = text.slice(Math.max(start, end - 40), end);
      const action = kind === "key" ? undefined : field?.action;
      if (action === "keep") {
        if (within.length > 0) this.shown = true;
        return;
      }
      if (action !== undefined) this.#field(text, token, within, action, edits);
      else if (kind === "string" || kind === "key")
        this.#string(text, token, within, label, scanned.escaped, nesting, edits);
      else if (kind === "number") {
        const whole = within.find((span) => span.start <= start && span.end >= end);
        const shown = whole && this.#shown(whole.detector, text.slice(start, end), true);
        if (whole && shown !== undefined) edits.push({ start, end, type: whole.detector.type, text: shown });
      }
    };

    walk<Walked>(text, top, {
      scalar,
      drops: ({ field }) => field?.action === "drop",
      dropped: (start, end) => {
        this.#ruleOf("field").times++;
        edits.push({ start, end, type: "field", text: "" });
      },
      element: ({ field, depth, region, place }, index) => ({
        field: field && fields?.element(field, index),
        depth: depth + 1,
        region,
        place: place === undefined ? undefined : `${place}/${index}`,
      }),
      member: ({ field, depth, region, place }, token) => {
        const below = { depth: depth + 1, place: undefined, region: undefined };
        if (fields === undefined && place === undefined) return { ...below, field };
        const written = text.slice(token.start, token.end);
        const key = written.includes("\\") ? decoded(text, token.start, token.end).text : written;
        const at = place === undefined || depth > MAX_PLACE_DEPTH ? undefined : `${place}/${key}`;
        const next = region === undefined ? undefined : shape?.region(region, key);
        if (next !== undefined) return { field: undefined, depth: depth + 1, region: next, place: at };
        if (fields === undefined) return { ...below, field, place: at };
        const inside = fields.member(field ?? fields.top, key);
        // Paths that begin with `/` begin anew where a message holds the data itself.
        const starts = region !== undefined || (depth === 0 && key === "structuredContent");
        return {
          ...below,
          field: starts ? { places: [...inside.places, ...fields.top.places], action: inside.action } : inside,
          place: at,
        };
      },
    });
    return edits;
  }

  #string(
    text: string,
    { kind, start, end }: Token,
    spans: readonly Span[],
    label: string,
    escaped: boolean,
    nesting: number,
    edits: Edit[],
  ): void {
    const first = text.charCodeAt(start);
    const nested =
      kind === "string" && nesting < MAX_NESTING && (first === 123 || first === 91 || isBlank(first) || first === 92);
    const inFields = this.#plan.fields !== undefined && nested;
    if (spans.length === 0 && !escaped && !inFields) return;
    const written = text.slice(start, end);
    const backslashes = written.includes("\\");
    const hidden = escaped && (written.includes("\\u") || written.includes("\\/"));
    const within = spans.every((span) => span.start >= start && span.end <= end);
    const named = spans.length === 1 && spans[0]?.start === start && spans[0].end === end;
    if (named || (!hidden && !inFields && within && !(nested && spans.some((span) => isBare(text, span))))) {
      for (const { start, end, detector } of spans) {
        const value = backslashes ? decoded(text, start, end).text : text.slice(start, end);
        const shown = this.#shown(detector, value, false);
        if (shown !== undefined)
          edits.push({ start, end, type: detector.type, text: this.#unique(kind, encoded(shown)) });
      }
      return;
    }
    const inner = backslashes ? decoded(text, start, end) : undefined;
    const value = inner?.text ?? written;
    // The key before it says what a value is: `"phone": "…"`.
    const prefix = kind === "key" || mayBeJson(value) ? "" : `"${label}":"`;
    const shift = prefix.length;
    for (const edit of this.text(prefix + value, nesting + 1, shift)) {
      const from = edit.start - shift;
      const to = edit.end - shift;
      edits.push({
        start: inner ? inner.at(from) : start + from,
        end: inner ? inner.at(to) : start + to,
        type: edit.type,
        text: this.#unique(kind, encoded(edit.text)),
      });
    }
  }

  /** A value that a path names: all of it, whatever it is. */
  #field(text: string, { kind, start, end }: Token, spans: readonly Span[], action: Action, edits: Edit[]): void {
    const written = text.slice(start, end);
    if (kind === "word") {
      if (written === "null") return;
      this.#ruleOf("field").times++;
      edits.push({ start, end, type: "field", text: "false" });
      return;
    }
    if (kind === "string" && start === end) return;
    const [span] = spans;
    const detector = span !== undefined && span.start === start && span.end === end ? span.detector : undefined;
    const value = kind === "string" && written.includes("\\") ? decoded(text, start, end).text : written;
    this.#ruleOf("field").times++;
    const shown = this.#replacement(action, detector ?? FIELD, value, kind === "number");
    edits.push({ start, end, type: "field", text: kind === "string" ? encoded(shown) : shown });
  }

  /** What stands in place of a hit; undefined: it stays. */
  #shown(detector: Detector, value: string, number: boolean): string | undefined {
    const rule = this.#ruleOf(detector.type);
    const { action } = rule;
    if (action === "keep") {
      this.shown = true;
      return undefined;
    }
    rule.times++;
    return this.#replacement(action, detector, value, number);
  }

  #replacement(action: Action, detector: Detector, value: string, number: boolean): string {
    const { marks } = this.#shared;
    if (action === "token" && marks !== undefined) {
      return marks.standIns.standIn(detector.type, value, this.#subject, number, this.pending);
    }
    // A number stays one, so that it fits the schema it is promised by.
    if (number) return "0";
    if (action === "drop") return "";
    if (action === "partial") return detector.partial?.(value) ?? lastFour(value);
    if (action === "hash" && marks !== undefined)
      return `[${detector.type}#${marks.hash(detector.type, detector.canonical?.(value) ?? value)}]`;
    return `[${detector.type}]`;
  }

  #unique(kind: Token["kind"], shown: string): string {
    if (kind !== "key") return shown;
    const times = (this.#keys.get(shown) ?? 0) + 1;
    this.#keys.set(shown, times);
    return times === 1 ? shown : `${shown} ${times}`;
  }

  #ruleOf(type: string): Rule {
    let rule = this.#rules.get(type);
    if (rule === undefined) {
      rule = { action: this.#plan.actions.get(type) ?? "redact", redacted: `[${type}]`, times: 0 };
      this.#rules.set(type, rule);
    }
    return rule;
  }
}

interface Rule {
  readonly action: Action;
  /** What `redact` leaves. */
  readonly redacted: string;
  times: number;
}

interface Walked {
  readonly field: FieldState | undefined;
  readonly depth: number;
  /** Undefined: within data. */
  readonly region: string | undefined;
  /** Followed only where something is passed over. */
  readonly place: string | undefined;
}

const MAX_PLACE_DEPTH = 8;

/** Stands for a value that a path names and no detector knows. */
const FIELD: Detector = { type: "masked", about: "person", hits: [], misses: [] };

function lastFour(value: string): string {
  return value.length >= 12 ? `***${value.slice(-4)}` : "***";
}

/** Every span lies within a string that is no key, as it is written: the text can be edited without a walk. */
function allPlain(text: string, spans: readonly FoundSpan[]): boolean {
  let end = -1;
  let backslash = -1;
  for (const span of spans) {
    const { start } = span;
    if (backslash < start) backslash = indexOr(text, "\\", start);
    if (backslash < span.end) return false;
    const opened = text.charCodeAt(start - 1) === QUOTE && text.charCodeAt(start - 2) !== BACKSLASH;
    // A quote that ends a string: what was taken for a value stands between two of them.
    if (opened ? endsString(text.charCodeAt(start)) : isBare(text, span)) return false;
    // Behind a colon no key stands.
    let before = opened ? start - 2 : span.quote - 1;
    while (isBlank(text.charCodeAt(before))) before--;
    if (text.charCodeAt(before) === COLON) continue;
    if (end < span.end) end = stringEnd(text, span.end - 1);
    let after = end + 1;
    while (isBlank(text.charCodeAt(after))) after++;
    if (text.charCodeAt(after) === COLON) return false;
  }
  return true;
}

const [QUOTE, COLON, BACKSLASH] = [34, 58, 92];

function endsString(code: number): boolean {
  return code === COLON || code === 44 || code === 93 || code === 125 || isBlank(code);
}

/** Where `part` stands next; the length of the text when it does nowhere. */
function indexOr(text: string, part: string, from: number): number {
  const at = text.indexOf(part, from);
  return at < 0 ? text.length : at;
}

/** It may be a number of JSON: nothing but punctuation of JSON stands around it. */
function isBare(text: string, { start, end }: Span): boolean {
  let before = start - 1;
  while (isBlank(text.charCodeAt(before))) before--;
  let after = end;
  while (isBlank(text.charCodeAt(after))) after++;
  const left = text.charCodeAt(before);
  const right = text.charCodeAt(after);
  return (
    (before < 0 || left === 58 || left === 91 || left === 44) &&
    (after >= text.length || right === 44 || right === 125 || right === 93)
  );
}

/** Characters in which what stands before a number is looked for. */
const LOOK_BACK = 1024;

/**
 * It may be a number of JSON, in a text that is cut into lines: a member or an element by what stands before it, and by what follows
 * in its own line. The next line may be still to come, so it has no say.
 */
function isNumberInLines(text: string, { start, end }: Span, before: string): boolean {
  const near = text.slice(Math.max(0, start - LOOK_BACK), start);
  const all = near.length < LOOK_BACK ? before.slice(near.length - LOOK_BACK) + near : near;
  const left = all.trimEnd();
  const isMember = left.endsWith(":") && left.slice(0, -1).trimEnd().endsWith('"');
  const isElement = left.endsWith("[") || left.endsWith(",");
  if (!isMember && !isElement) return false;
  let at = end;
  while (text[at] !== "\n" && isBlank(text.charCodeAt(at))) at++;
  const next = text[at];
  if (next === "," || next === "}" || next === "]") return true;
  // The last one of a list that has a line for each; in a sentence a comma stands in the same line.
  return (next === undefined || next === "\n") && (isMember || all.includes("\n", left.length));
}

/** HMAC-SHA256, so that nobody can try values; remembered for a while, since the same ones come again. */
export function hasher(key: Secret): (type: string, value: string) => string {
  const derived = Buffer.from(hkdfSync("sha256", key.reveal(), "", "drawbridge mask hash", 32));
  const marks = new Map<string, string>();
  return (type, value) => {
    const name = JSON.stringify([type, value]);
    const ready = marks.get(name);
    if (ready !== undefined) return ready;
    const mark = markOf(createHmac("sha256", derived).update(name).digest());
    if (marks.size >= MAX_MARKS) marks.clear();
    marks.set(name, mark);
    return mark;
  };
}
