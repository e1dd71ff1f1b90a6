/** Instructions as frames: words of certain parts that stand near one another, whatever their order and, mostly, their language. */
import type { Span } from "../reading.ts";
import type { AnswerRuleName, Sign } from "./answer-rules.ts";
import { FRAME_WORDS, type FrameWord } from "./frame-words.ts";
import { CONDITIONAL, isConditional, isForgotten, isReported } from "./manner.ts";

/** What stands in a text: a word of the table, or something that its form tells. */
type Part = FrameWord | "mail" | "url" | "iban" | "toolName" | "outTool" | "yourTool" | "thisLink" | "theirs";

interface Frame {
  readonly rule: AnswerRuleName;
  readonly weight: number;
  /** One of each must be there. */
  readonly of: readonly (readonly Part[])[];
  /** Within so many characters. */
  readonly within: number;
  /** One after the other. */
  readonly ordered?: true;
  /** Over the ends of sentences, too. */
  readonly loose?: true;
}

const MOVE: readonly Part[] = ["send", "put"];
const ACT: readonly Part[] = ["send", "put", "call", "money", "grant"];
const HELD: readonly Part[] = ["secret", "context", "token", "secretFile"];
/** The same where an address or a tool that sends stands beside it. */
const ANYTHING: readonly Part[] = [...HELD, "theirs"];

const FRAMES: readonly Frame[] = [
  { rule: "override", weight: 3, of: [["ignore"], ["orders"], ["earlier", "all"]], within: 70 },
  { rule: "override", weight: 3, of: [["ignore"], ["rules"], ["earlier"]], within: 60 },
  { rule: "override", weight: 2, of: [["orders", "rules"], ["earlier"], ["void"]], within: 70 },
  { rule: "override", weight: 2, of: [["ignore", "void"], ["task"]], within: 60 },
  { rule: "persona", weight: 2, of: [["role"], ["unrestricted"]], within: 140 },
  {
    rule: "persona",
    weight: 2,
    of: [["role"], ["unrestricted", "machine"], ["call", "send", "put"]],
    within: 140,
    loose: true,
  },
  { rule: "persona", weight: 2, of: [["role"], MOVE, HELD], within: 140, loose: true },
  { rule: "persona", weight: 1, of: [["role"], ["machine", "assistant"]], within: 60 },
  { rule: "conceal", weight: 2, of: [["silence"], ["user"]], within: 50 },
  { rule: "conceal", weight: 2, of: [["not"], ["tell"], ["user"]], within: 50 },
  { rule: "exfiltrate", weight: 3, of: [MOVE, ["context"], ["mail", "url"]], within: 120 },
  { rule: "exfiltrate", weight: 2, of: [["send"], ["secret", "secretFile", "token", "theirs"], ["mail"]], within: 110 },
  { rule: "exfiltrate", weight: 2, of: [["send"], ["secret", "secretFile"], ["url"]], within: 110 },
  { rule: "exfiltrate", weight: 2, of: [["outTool"], ANYTHING], within: 110 },
  { rule: "exfiltrate", weight: 2, of: [["toolName"], ["secretFile"]], within: 110 },
  { rule: "exfiltrate", weight: 2, of: [["put"], ["secret", "context", "secretFile"], ["toolName"]], within: 110 },
  { rule: "exfiltrate", weight: 2, of: [["publish"], ["secret", "context", "secretFile"]], within: 90 },
  { rule: "exfiltrate", weight: 2, of: [["payee", "money"], ["yours"], ["mail", "iban"]], within: 100 },
  { rule: "override", weight: 3, of: [["not"], ["heed"], ["orders"], ["earlier"]], within: 70 },
  { rule: "tool", weight: 2, of: [["beforeAnswer"], ["visit"], ["url"]], within: 90 },
  { rule: "exfiltrate", weight: 2, of: [["yourTool"], HELD], within: 90 },
  { rule: "exfiltrate", weight: 3, of: [["fill"], ["secret", "context", "secretFile"], ["url"]], within: 160 },
  { rule: "exfiltrate", weight: 1, of: [["fill"], ["token"], ["url"]], within: 160 },
  { rule: "exfiltrate", weight: 2, of: [["put"], ["secret", "context", "secretFile"], ["thisLink"]], within: 90 },
  { rule: "exfiltrate", weight: 1, of: [["put"], ["token"], ["thisLink"]], within: 90 },
  {
    rule: "tool",
    weight: 2,
    of: [["must"], ["call"], ["toolName", "outTool"], ["secret", "context", "secretFile"]],
    within: 120,
  },
  { rule: "tool", weight: 2, of: [["beforeAnswer"], ["toolName", "outTool"]], within: 110 },
  { rule: "conceal", weight: 1, of: [["covert"], ["user"]], within: 60 },
  { rule: "tool", weight: 2, of: [["covert"], ["call"], ["tool", "toolName", "outTool"]], within: 90 },
  { rule: "conceal", weight: 2, of: [["covert"], ACT, [...HELD, "mail", "url", "outTool", "toolName"]], within: 120 },
  { rule: "tool", weight: 1, of: [["call"], ["toolName", "outTool"], HELD], within: 110 },
  { rule: "tool", weight: 1, of: [["call", "send"], ["outTool"], ["mail", "iban"]], within: 120 },
  { rule: "tool", weight: 2, of: [["beforeAnswer"], ACT, ["toolName", "outTool", "tool"]], within: 140 },
  {
    rule: "tool",
    weight: 2,
    of: [["beforeAnswer"], ACT, ["secret", "context", "secretFile", "mail", "iban"]],
    within: 160,
  },
  {
    rule: "tool",
    weight: 2,
    of: [["later"], [...ACT, "change"], ["secret", "secretFile", "mail", "iban", "payee"]],
    within: 140,
    ordered: true,
  },
  { rule: "address", weight: 2, of: [["machine"], ["must"], ACT], within: 90, ordered: true },
  {
    rule: "address",
    weight: 2,
    of: [["machine"], ["send", "grant"], [...HELD, "mail", "iban", "outTool"]],
    within: 140,
    ordered: true,
  },
  { rule: "address", weight: 2, of: [["machine"], ["dictate"]], within: 90, ordered: true },
  {
    rule: "memory",
    weight: 2,
    of: [["store"], ["memory"], ["user", "mail", "url", "iban", "agreed", "unasked"]],
    within: 140,
    ordered: true,
  },
  { rule: "memory", weight: 2, of: [["memory"], ["store"], ["send", "dictate", "money"]], within: 140 },
  {
    rule: "memory",
    weight: 2,
    of: [["steering"], ["store", "put"], ["send", "call"], ["url"]],
    within: 160,
    loose: true,
  },
  {
    rule: "consent",
    weight: 2,
    of: [["user"], ["agreed"], ["assistant", "machine", "unasked", "toolName", "outTool"]],
    within: 100,
  },
  { rule: "consent", weight: 2, of: [["agreed"], ["send"], HELD], within: 120 },
  { rule: "consent", weight: 2, of: [["agreed"], ["call"], ["toolName", "outTool"]], within: 110 },
  { rule: "consent", weight: 2, of: [["unasked"], ["toolName", "outTool"]], within: 90, loose: true },
  { rule: "secrets", weight: 2, of: [["failure"], ["ask"], ["secret", "token"]], within: 200, loose: true },
  {
    rule: "tool",
    weight: 2,
    of: [["failure"], ["machine", "assistant"], ["must"], ["call", "send", "ask"]],
    within: 140,
    ordered: true,
  },
  {
    rule: "tool",
    weight: 2,
    of: [["failure"], ["toolName", "outTool"], ["secret", "context", "secretFile", "token", "mail"]],
    within: 170,
    ordered: true,
    loose: true,
  },
  {
    rule: "exfiltrate",
    weight: 2,
    of: [["money"], ["iban"], ["machine", "assistant", "outTool", "unasked", "later", "beforeAnswer"]],
    within: 170,
    loose: true,
  },
  { rule: "exfiltrate", weight: 2, of: [["change"], ["payee"], ["iban", "mail"]], within: 90 },
  {
    rule: "tamper",
    weight: 2,
    of: [["reply"], ["dictate", "put"], ["url", "secret", "secretFile", "token", "context"]],
    within: 120,
  },
];

interface Stem {
  readonly text: string;
  /** Its third letter, which tells most words apart; 0 when it has none. */
  readonly third: number;
  readonly part: number;
  /** Whether the word ends with it. */
  readonly whole: boolean;
}

/** What is told by its form. Tools are named as programs name things, so capitals count for them. */
const FORMS: readonly { readonly part: Part; readonly pattern: RegExp; readonly needs: string }[] = [
  { part: "mail", needs: "@", pattern: /[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,63}/g },
  { part: "url", needs: "", pattern: /\b(?:https?|hxxps?):\/\/|\bwww\.\w/gi },
  { part: "iban", needs: "", pattern: /\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b/g },
  {
    part: "theirs",
    needs: "'s ",
    pattern: /\b(?:user|customer|client|owner)'s (?!guide|manual|perspective)[a-z]{3,16}\b/gi,
  },
  { part: "yourTool", needs: "our ", pattern: /\b[Yy]our (?:[a-z-]{2,16} )?tools?\b/g },
  { part: "thisLink", needs: "", pattern: /\b(?:this|the|that) (?:address|url|link|image)\b/gi },
  {
    part: "outTool",
    needs: "_",
    pattern:
      /\b(?:send|post|http|upload|share|forward|e?mail|slack|publish|notify|transfer)_[a-z]{2,24}(?:_[a-z0-9]{1,24}){0,3}\b/g,
  },
  {
    part: "toolName",
    needs: "_",
    pattern:
      /\b(?:run|execute|exec|create|read|write|delete|update|get|list|search|fetch|call|add|remove|grant|query|set|open|make|invoke)_[a-z]{2,24}(?:_[a-z0-9]{1,24}){0,3}\b/g,
  },
];

const PARTS: readonly Part[] = [...(Object.keys(FRAME_WORDS) as FrameWord[]), ...FORMS.map(({ part }) => part)];
const PART = new Map(PARTS.map((part, index) => [part, index]));

/** Stems by their first two letters. */
const STEMS = new Map<number, Stem[]>();
for (const [word, list] of Object.entries(FRAME_WORDS))
  for (const entry of list.split(";")) {
    const whole = entry.endsWith("$");
    const text = whole ? entry.slice(0, -1) : entry;
    const key = keyAt(text, 0);
    const third = text.length > 2 ? text.charCodeAt(2) : 0;
    STEMS.set(key, [...(STEMS.get(key) ?? []), { text, third, part: PART.get(word as FrameWord) ?? 0, whole }]);
  }
/** The same for letters of ASCII: places in `LISTS`. */
const ASCII = new Int16Array(128 * 128);
const LISTS: (readonly Stem[] | undefined)[] = [undefined];
for (const [key, stems] of STEMS) {
  const [first, second] = [Math.floor(key / 65_536), key % 65_536];
  if (first < 128 && second < 128) ASCII[first * 128 + second] = LISTS.push(stems) - 1;
}
/** Which letters begin one. */
const FIRST = new Uint8Array(65_536);
for (const key of STEMS.keys()) FIRST[Math.floor(key / 65_536)] = 1;

function keyAt(text: string, at: number): number {
  return text.charCodeAt(at) * 65_536 + (at + 1 < text.length ? text.charCodeAt(at + 1) : 0);
}

/** Letters that words are made of. */
const LETTER = new Uint8Array(65_536);
/** Letters of scripts that put no blanks between words, or join small words to others: a word may begin and end within. */
const JOINED = new Uint8Array(65_536);
for (let code = 0; code < LETTER.length; code++) {
  if (/[\p{L}\p{N}_]/u.test(String.fromCharCode(code))) LETTER[code] = 1;
  if (
    /[\u0590-\u08ff\u0900-\u097f\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]/.test(String.fromCharCode(code))
  )
    JOINED[code] = 1;
}

/** For each part the places of a frame that it fills, as bits. */
interface Compiled extends Frame {
  readonly slots: Uint8Array;
  /** Whether a tool stands in it, whose arguments are written as programs write them. */
  readonly named: boolean;
}
const COMPILED: readonly Compiled[] = FRAMES.map((frame) => ({
  ...frame,
  named: frame.of.some((parts) => parts.includes("outTool") || parts.includes("toolName")),
  slots: Uint8Array.from(PARTS, (part) =>
    frame.of.reduce((bits, parts, slot) => (parts.includes(part) ? bits | (1 << slot) : bits), 0),
  ),
}));
/** Parts that give an order when they are verbs. */
const VERBS = Uint8Array.from(PARTS, (part) =>
  Number(["send", "put", "call", "money", "grant", "role", "publish"].includes(part)),
);

interface Hit extends Span {
  readonly part: number;
}

/** `forward-compatible`. */
function goesOn(text: string, at: number): boolean {
  return text.charCodeAt(at) === 45 && LETTER[text.charCodeAt(at + 1)] === 1;
}

const MAX_HITS = 400;

/** Every frame that a text fills, in places of that text. */
export function framesIn(text: string): readonly Sign[] {
  // Of all letters only this one grows when it is made small.
  const lower = text.replaceAll("İ", "i").toLowerCase().replaceAll("’", "'");
  const hits = hitsIn(lower, text);
  if (hits.length < 2) return [];
  const found: Sign[] = [];
  for (const frame of COMPILED) {
    let filledSlots = 0;
    for (const { part } of hits) filledSlots |= frame.slots[part] ?? 0;
    if (filledSlots !== (1 << frame.of.length) - 1) continue;
    const span = filled(lower, frame, hits);
    if (span === undefined) continue;
    const halved = CONDITIONAL.has(frame.rule) && isConditional(lower, span.start);
    found.push({ rule: frame.rule, weight: halved ? frame.weight / 2 : frame.weight, ...span });
  }
  return found;
}

function hitsIn(lower: string, text: string): readonly Hit[] {
  const hits: Hit[] = [];
  for (let at = 0; at < lower.length && hits.length < MAX_HITS; at++) {
    const code = lower.charCodeAt(at);
    if (FIRST[code] === 0) continue;
    const joined = JOINED[code] === 1;
    if (!joined && at > 0 && LETTER[lower.charCodeAt(at - 1)] === 1) continue;
    const second = lower.charCodeAt(at + 1);
    const stems = code < 128 && second < 128 ? LISTS[ASCII[code * 128 + second] ?? 0] : STEMS.get(keyAt(lower, at));
    if (stems === undefined) continue;
    const next = lower.charCodeAt(at + 2);
    for (const { text: stem, third, part, whole } of stems) {
      if ((third !== 0 && third !== next) || !lower.startsWith(stem, at)) continue;
      const end = at + stem.length;
      if (whole && !joined && (LETTER[lower.charCodeAt(end)] === 1 || goesOn(lower, end))) continue;
      hits.push({ part, start: at, end });
    }
  }
  for (const { part, pattern, needs } of FORMS) {
    if (!text.includes(needs)) continue;
    for (const match of text.matchAll(pattern)) {
      hits.push({ part: PART.get(part) ?? 0, start: match.index, end: match.index + match[0].length });
      if (hits.length > MAX_HITS) break;
    }
  }
  return hits.sort((one, other) => one.start - other.start);
}

const ENDS = /[.!?]["')\]]{0,2}\s|[。！？؟।]|\n/;
/** A program, whose parts stand near one another for reasons of their own. */
const PROGRAM = /[;{}]|=>|\):|\(f["']|\w\.\w{2,}\(|\bif not\b|\b(?:func|return|raise|except|throw|const|def)\b/;
const ASSIGNS = /[{};]|\w=[\w"']/;
const HARD_END = /\n[ \t]*\n/;

/** The first place where one of each kind stands near the others. */
function filled(
  lower: string,
  { of, within, loose, ordered, named, rule, slots }: Compiled,
  hits: readonly Hit[],
): Span | undefined {
  const last: (Hit | undefined)[] = of.map(() => undefined);
  for (const hit of hits) {
    const bits = slots[hit.part] ?? 0;
    if (bits === 0) continue;
    let start = hit.start;
    let end = hit.end;
    for (let slot = 0; slot < last.length; slot++) {
      if ((bits & (1 << slot)) === 0) continue;
      // The same word does not fill two places.
      if (last.some((one, other) => other !== slot && one !== undefined && one.start < hit.end && one.end > hit.start))
        continue;
      last[slot] = hit;
    }
    for (const one of last) {
      start = Math.min(start, one?.start ?? Number.NEGATIVE_INFINITY);
      end = Math.max(end, one?.end ?? 0);
    }
    if (end - start > within) continue;
    const words = lower.slice(start, end);
    if ((loose === true ? HARD_END : ENDS).test(words) || (loose === true && PROGRAM.test(words))) continue;
    if (ordered === true && last.some((one, slot) => slot > 0 && (one?.start ?? 0) < (last[slot - 1]?.start ?? 0)))
      continue;
    // Who forgot a password writes where a new one is to go.
    if (rule === "exfiltrate" && isForgotten(lower, start, end)) continue;
    // What a program or a file of settings says.
    if (rule === "exfiltrate" && ASSIGNS.test(words) && !named) continue;
    // An order is one phrase, and no table of words.
    if (rule === "override" && /["{}=;|<>]/.test(words)) continue;
    if (rule === "conceal" && ENGLISH_USER.test(words)) continue;
    if (
      ACTING.has(rule) &&
      last.some((one) => one !== undefined && VERBS[one.part] === 1 && isReported(lower, one.start))
    )
      continue;
    return { start, end };
  }
  return undefined;
}

/** English says it in shapes, which know whom "user" belongs to. */
const ENGLISH_USER = /\b(?:users?|human)\b/;
/** Rules whose verbs give orders, unless somebody else does what they say. */
const ACTING: ReadonlySet<AnswerRuleName> = new Set(["exfiltrate", "tool", "secrets", "persona", "consent"]);
