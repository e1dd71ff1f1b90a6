/**
 * Masking: takes what is private out of texts and JSON on their way to a client. What is masked depends on who asks; all else stays
 * byte for byte as it was. Detectors say what is private by its form (`detectors/`), settings say it of fields by their path.
 */
import { createHmac, hkdfSync } from "node:crypto";
import { type Clock, systemClock } from "../core/clock.ts";
import { compileGlob } from "../core/glob.ts";
import type { Secret } from "../core/secret.ts";
import type { Records } from "../store/ports.ts";
import type { Detector } from "./detector.ts";
import { DETECTORS } from "./detectors/all.ts";
import { applied, type Edit, type PrivatePart } from "./edits.ts";
import { compileFields, type FieldRules, type FieldState } from "./fields.ts";
import { decoded, encoded, isBlank, isJson, mayBeJson, stringEnd, type Token, walk } from "./json-tokens.ts";
import { compilePatterns } from "./patterns.ts";
import { compileScan, type Scan, type Scanned, type Span } from "./scan.ts";
import type { Action, MaskSettings } from "./settings.ts";
import { markOf } from "./stand-in.ts";
import { type MaskStream, maskStream } from "./stream.ts";
import { type Pending, type Tokens, tokens } from "./tokens.ts";

/** Whom an answer is for. */
export interface Viewer {
  readonly subject: string;
  readonly roles: readonly string[];
}

export interface Masked {
  readonly text: string;
  /** How many values of each type were masked; `field` are those that a path named. For logs and metrics: no value is in it. */
  readonly counts: Readonly<Record<string, number>>;
  /** Where in the original something was private, in order. */
  readonly parts: readonly PrivatePart[];
  /**
   * Resolves when the stand-ins that `text` shows are stored; undefined when there are none to store. Await it before the text
   * leaves. It rejects when they could not be stored: the text must not leave then.
   */
  readonly kept: Promise<void> | undefined;
}

export interface Masker {
  /** Masks a text. One that is JSON is masked as such: it stays valid. */
  text(text: string, viewer: Viewer): Masked;
  /**
   * Masks JSON text that `JSON.parse` accepts: strings, keys, numbers, and JSON within strings. What comes out is valid, values keep
   * their type (a private number is `0`), and nothing but private values changes. Throws `upstream_failed` for a document that is
   * nested too deeply to find a field in it.
   */
  json(text: string, viewer: Viewer): Masked;
  /** Masks a text that comes in pieces. However it is cut, the same comes out. */
  stream(viewer: Viewer): MaskStream;
  /**
   * Puts true values in place of this user's stand-ins in the JSON text of a tool's arguments, when the tool is one of
   * `allowedTools` (globs); otherwise nothing changes and the stand-ins go as they are, worth nothing. Throws `invalid_params` for a
   * stand-in that has expired or is another user's.
   */
  restore(args: string, viewer: Viewer, tool: string, allowedTools: readonly string[]): Promise<string>;
  /** Forgets every stand-in of a user: when their access ends. */
  forget(subject: string): Promise<void>;
}

export interface MaskerParts {
  /** Hashes, stand-ins and their encryption are derived from it. Replicas share it. */
  readonly key: Secret;
  readonly records: Records;
}

const NONE: Readonly<Record<string, number>> = Object.freeze({});
const NO_PARTS: readonly PrivatePart[] = Object.freeze([]);
const MAX_PLANS = 1000;
/** JSON within JSON within JSON: deeper it is masked as the text it is. */
const MAX_NESTING = 8;
const MAX_MARKS = 20_000;

/** What is masked for one set of roles. */
interface Plan {
  /** By the type of the detector. */
  readonly actions: ReadonlyMap<string, Action>;
  readonly fields: FieldRules | undefined;
  /** Nothing is masked at all. */
  readonly idle: boolean;
}

/** Compiles the settings once. Throws `settings_invalid` for patterns and paths that cannot be read. */
export function compileMasker(settings: MaskSettings, parts: MaskerParts, clock: Clock = systemClock): Masker {
  const patterns = compilePatterns(settings.patterns);
  const scan = compileScan(DETECTORS, patterns);
  const standIns = tokens(parts.records, parts.key, settings.standInHours * 3_600_000, clock);
  const hash = hasher(parts.key);
  const shared = { scan, standIns, hash };
  const plans = plansOf(settings, [...DETECTORS, ...patterns]);
  // What cannot be read is refused now, and not when the first such user comes.
  plans(Object.keys(settings.see));
  plans([]);

  const masked = (viewer: Viewer, edit: (pass: Pass) => readonly Edit[], text: string): Masked => {
    const plan = plans(viewer.roles);
    if (plan.idle) return unchanged(text);
    const pass = new Pass(plan, viewer.subject, shared);
    const edits = edit(pass);
    if (edits.length === 0) return unchanged(text);
    const kept = pass.pending.length === 0 ? undefined : standIns.keep(pass.pending);
    return { text: applied(text, edits), counts: pass.counts, parts: edits, kept };
  };
  const text = (given: string, viewer: Viewer) => masked(viewer, (pass) => pass.text(given, 0), given);

  return {
    text,
    json: (given, viewer) => masked(viewer, (pass) => pass.json(given, 0), given),
    stream: (viewer) =>
      maskStream({
        whole: (given) => text(given, viewer),
        scan: (given, from) => scan(given, from).spans,
        replace: (given, spans, lines) => masked(viewer, (pass) => pass.replacements(given, spans, lines), given),
      }),
    restore: async (args, viewer, tool, allowedTools) => {
      if (!allowedTools.some((glob) => compileGlob(glob)(tool))) return args;
      return restored(args, (string) => standIns.restore(string, viewer.subject));
    },
    forget: (subject) => standIns.forget(subject),
  };
}

/** A text in which nothing is masked. */
export function unchanged(text: string): Masked {
  return { text, counts: NONE, parts: NO_PARTS, kept: undefined };
}

interface Shared {
  readonly scan: Scan;
  readonly standIns: Tokens;
  readonly hash: (type: string, value: string) => string;
}

/** One text on its way through, with what is counted and stored for it. */
class Pass {
  readonly counts: Record<string, number> = {};
  readonly pending: Pending[] = [];
  readonly #plan: Plan;
  readonly #subject: string;
  readonly #shared: Shared;
  /** Masked keys so far: two keys of one object must not become the same. */
  readonly #keys = new Map<string, number>();

  constructor(plan: Plan, subject: string, shared: Shared) {
    this.#plan = plan;
    this.#subject = subject;
    this.#shared = shared;
  }

  /** Edits of a text, from `from` on: what stands before says what the text is about. */
  text(text: string, nesting: number, from = 0): readonly Edit[] {
    const scanned = this.#shared.scan(text, from);
    if (scanned.spans.length === 0 && !scanned.escaped && this.#plan.fields === undefined) return [];
    const json = nesting < MAX_NESTING && from === 0 && mayBeJson(text) && isJson(text);
    return json ? this.#document(text, scanned, nesting) : this.replacements(text, scanned.spans, mayBeJson(text));
  }

  json(text: string, nesting: number): readonly Edit[] {
    return this.#document(text, this.#shared.scan(text), nesting);
  }

  /** `lines`: the text is lines of JSON perhaps, so what may be a number stays one. */
  replacements(text: string, spans: readonly Span[], lines = false): readonly Edit[] {
    const edits: Edit[] = [];
    for (const span of spans) {
      const { start, end, detector } = span;
      const value = text.slice(start, end);
      const shown = this.#shown(detector, value, lines && isBare(text, span) && /^[1-9]\d*$/.test(value));
      if (shown !== undefined) edits.push({ start, end, type: detector.type, text: shown });
    }
    return edits;
  }

  #document(text: string, scanned: Scanned, nesting: number): readonly Edit[] {
    if (this.#plan.fields === undefined) {
      if (scanned.spans.length === 0 && !scanned.escaped) return [];
      if (!scanned.escaped && allPlain(text, scanned.spans)) return this.replacements(text, scanned.spans);
    }
    return this.#walked(text, scanned, nesting, this.#plan.fields);
  }

  /** The slow way: every string and number by itself, where its structure matters. */
  #walked(text: string, scanned: Scanned, nesting: number, fields: FieldRules | undefined): readonly Edit[] {
    const edits: Edit[] = [];
    const spans = scanned.spans;
    let next = 0;
    let label = "";
    const top: Walked = { field: fields?.top, depth: 0 };

    const scalar = (token: Token, { field }: Walked): void => {
      const { kind, start, end } = token;
      while (next < spans.length && (spans[next]?.end ?? 0) <= start) next++;
      const first = next;
      while (next < spans.length && (spans[next]?.start ?? 0) < end) next++;
      const within = spans.slice(first, next);
      if (kind === "key") label = text.slice(Math.max(start, end - 40), end);
      const action = kind === "key" ? undefined : field?.action;
      if (action === "keep") return;
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
        this.#count("field");
        edits.push({ start, end, type: "field", text: "" });
      },
      element: ({ field, depth }, index) => ({ field: field && fields?.element(field, index), depth: depth + 1 }),
      member: ({ field, depth }, token) => {
        if (field === undefined || fields === undefined) return { field, depth: depth + 1 };
        const written = text.slice(token.start, token.end);
        const key = written.includes("\\") ? decoded(text, token.start, token.end).text : written;
        const below = fields.member(field, key);
        // Paths that begin with `/` begin anew where a result holds the data itself.
        const starts = depth === 0 && key === "structuredContent";
        return {
          field: starts ? { places: [...below.places, ...fields.top.places], action: below.action } : below,
          depth: depth + 1,
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
        const value = decoded(text, start, end).text;
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
        start: inner ? (inner.offsets[from] ?? end) : start + from,
        end: inner ? (inner.offsets[to] ?? end) : start + to,
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
      this.#count("field");
      edits.push({ start, end, type: "field", text: "false" });
      return;
    }
    if (kind === "string" && start === end) return;
    const [span] = spans;
    const detector = span !== undefined && span.start === start && span.end === end ? span.detector : undefined;
    const value = kind === "string" && written.includes("\\") ? decoded(text, start, end).text : written;
    this.#count("field");
    const shown = this.#replacement(action, detector ?? FIELD, value, kind === "number");
    edits.push({ start, end, type: "field", text: kind === "string" ? encoded(shown) : shown });
  }

  /** What stands in place of a hit; undefined: it stays. */
  #shown(detector: Detector, value: string, number: boolean): string | undefined {
    const action = this.#plan.actions.get(detector.type) ?? "redact";
    if (action === "keep") return undefined;
    this.#count(detector.type);
    return this.#replacement(action, detector, value, number);
  }

  #replacement(action: Action, detector: Detector, value: string, number: boolean): string {
    if (action === "token") {
      return this.#shared.standIns.standIn(detector.type, value, this.#subject, number, this.pending);
    }
    // A number stays one, so that it fits the schema it is promised by.
    if (number) return "0";
    if (action === "drop") return "";
    if (action === "partial") return detector.partial?.(value) ?? lastFour(value);
    if (action === "hash")
      return `[${detector.type}#${this.#shared.hash(detector.type, detector.canonical?.(value) ?? value)}]`;
    return `[${detector.type}]`;
  }

  #unique(kind: Token["kind"], shown: string): string {
    if (kind !== "key") return shown;
    const times = (this.#keys.get(shown) ?? 0) + 1;
    this.#keys.set(shown, times);
    return times === 1 ? shown : `${shown} ${times}`;
  }

  #count(type: string): void {
    this.counts[type] = (this.counts[type] ?? 0) + 1;
  }
}

interface Walked {
  readonly field: FieldState | undefined;
  readonly depth: number;
}

/** Stands for a value that a path names and no detector knows. */
const FIELD: Detector = { type: "masked", about: "person", hits: [], misses: [] };

function lastFour(value: string): string {
  return value.length >= 12 ? `***${value.slice(-4)}` : "***";
}

/** Every span lies within a string that is no key, as it is written: the text can be edited without a walk. */
function allPlain(text: string, spans: readonly Span[]): boolean {
  let quote = -1;
  for (const span of spans) {
    if (isBare(text, span) || hasBackslash(text, span)) return false;
    if (quote < span.end) quote = stringEnd(text, span.end - 1);
    let after = quote + 1;
    while (isBlank(text.charCodeAt(after))) after++;
    if (text.charCodeAt(after) === 58) return false;
  }
  return true;
}

function hasBackslash(text: string, { start, end }: Span): boolean {
  for (let at = start; at < end; at++) if (text.charCodeAt(at) === 92) return true;
  return false;
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

/** The plan of each set of roles, made when it is first needed. */
function plansOf(settings: MaskSettings, detectors: readonly Detector[]): (roles: readonly string[]) => Plan {
  const plans = new Map<string, Plan>();
  const known = new Set(Object.keys(settings.see));
  return (roles) => {
    const mine = roles.filter((role) => known.has(role));
    const name = mine.length > 1 ? mine.toSorted().join("\n") : (mine[0] ?? "");
    const ready = plans.get(name);
    if (ready !== undefined) return ready;
    const plan = planFor(settings, detectors, new Set(mine.flatMap((role) => settings.see[role] ?? [])));
    if (plans.size >= MAX_PLANS) plans.clear();
    plans.set(name, plan);
    return plan;
  };
}

function planFor(settings: MaskSettings, detectors: readonly Detector[], seen: ReadonlySet<string>): Plan {
  const types: Readonly<Partial<Record<string, Action>>> = settings.types;
  const actions = new Map<string, Action>(
    detectors.map(({ type, about }) => {
      const pattern = settings.patterns[type];
      const group = about === "secret" ? "secrets" : "people";
      const sees = seen.has(type) || (pattern === undefined && seen.has(group));
      return [type, sees ? "keep" : (types[type] ?? pattern?.do ?? settings[group])];
    }),
  );
  const names = new Set(["people", "secrets", ...actions.keys()]);
  const paths = [...seen].filter((path) => !names.has(path));
  const fields = compileFields({
    ...settings.fields,
    ...Object.fromEntries(paths.map((path) => [path, "keep" as const])),
  });
  return { actions, fields, idle: fields === undefined && [...actions.values()].every((action) => action === "keep") };
}

/** HMAC-SHA256, so that nobody can try values; remembered for a while, since the same ones come again. */
function hasher(key: Secret): (type: string, value: string) => string {
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

/** JSON text with every string and number put through `restore`. */
async function restored(args: string, restore: (text: string) => Promise<string>): Promise<string> {
  const tokens: Token[] = [];
  walk<undefined>(args, undefined, {
    member: () => undefined,
    element: () => undefined,
    drops: () => false,
    dropped: () => {},
    scalar: (token) => {
      if (token.kind === "string" || token.kind === "number") tokens.push(token);
    },
  });
  const edits: Edit[] = [];
  for (const { kind, start, end } of tokens) {
    const written = args.slice(start, end);
    const value = kind === "string" && written.includes("\\") ? decoded(args, start, end).text : written;
    const text = await restore(value);
    if (text !== value) edits.push({ start, end, type: "field", text: kind === "string" ? encoded(text) : text });
  }
  return applied(args, edits);
}
