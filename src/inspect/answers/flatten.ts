/** A text as it reads when its lines, its emphasis and what stands between its words are nothing but layout. */
import { original, type View } from "../normalise.ts";
import type { Span } from "../reading.ts";

/**
 * What stands for one blank: a break within a sentence, with what begins lines of comments and quotations; blanks of any kind; the
 * blank of an address; what parts six and more words that are written as one.
 */
const BLANK =
  /(?<=[\p{L}\p{N},'")\]])[ \t]{0,64}\r?\n[ \t]{0,64}(?:[#>*;]{1,3}|\/\/|--)?[ \t]{0,64}(?=\p{Ll})|[ \t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\u3164\uffa0\u2800]{2,}|[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3164\uffa0\u2800]|%20/u;
/** Emphasis, which no reader hears. */
const EMPHASIS =
  /(?<![\w*])\*{1,3}(?=\w)|(?<=[\w.,!?:;)])\*{1,3}(?![\w*])|~~|(?<!\w)_{1,3}(?=[a-z])|(?<=[a-z])_{1,3}(?!\w)/i;
const LAYOUT = new RegExp(`(${BLANK.source})|${EMPHASIS.source}`, "giu");
/** Six and more words with a sign between them, or with nothing but capitals. */
const CAMEL = /(?<![a-zA-Z])[A-Z]?[a-z]{1,16}(?:[A-Z][a-z]{0,15}){5,}/g;
const SIGNED = /(?<![a-z])(?:[a-z]{1,16}[-_+]{1,2}){5}(?:[a-z]{1,16}[-_+]{1,2})*[a-z]{1,16}/gi;

/** The same words with single blanks, or the view itself where nothing is to be done. Linear. */
export function flattened(view: View): View {
  const { text } = view;
  const cuts: { readonly start: number; readonly end: number; readonly by: string }[] = [];
  for (const match of text.matchAll(LAYOUT))
    cuts.push({ start: match.index, end: match.index + match[0].length, by: match[1] === undefined ? "" : " " });
  if (/[a-z][-_+]{1,2}[a-z]{1,16}[-_+]{1,2}[a-z]{1,16}[-_+]/i.test(text))
    for (const run of text.matchAll(SIGNED))
      for (const sign of run[0].matchAll(/[-_+]+/g)) {
        const start = run.index + sign.index;
        cuts.push({ start, end: start + sign[0].length, by: " " });
      }
  if (/[a-z][A-Z][a-z]{0,15}[A-Z]/.test(text))
    for (const run of text.matchAll(CAMEL))
      for (const capital of run[0].slice(1).matchAll(/[A-Z]/g)) {
        const start = run.index + 1 + capital.index;
        cuts.push({ start, end: start, by: " " });
      }
  if (cuts.length === 0) return view;
  cuts.sort((one, other) => one.start - other.start);
  const at = (index: number) => view.offsets?.[index] ?? index;
  const pieces: string[] = [];
  const offsets = new Uint32Array(text.length + cuts.length + 1);
  let from = 0;
  let length = 0;
  const keep = (to: number) => {
    pieces.push(text.slice(from, to));
    for (let index = from; index < to; index++) offsets[length++] = at(index);
  };
  for (const { start, end, by } of cuts) {
    if (start < from) continue;
    keep(start);
    pieces.push(by);
    if (by !== "") offsets[length++] = at(start);
    from = end;
  }
  keep(text.length);
  offsets[length] = at(text.length);
  return { text: pieces.join(""), offsets: offsets.subarray(0, length + 1), disguise: view.disguise };
}

/** Words that are hardly anything but English, turned letter by letter or back to front. */
const ROT13 =
  /\b(?:gur|hfre|hfref|fraq|pnyy|gbby|cnffjbeq|nffvfgnag|pbairefngvba|cebzcg|frperg|sbejneq|rznvy|vafgehpgvbaf|cerivbhf|vtaber|nafjre|ercyl|orsber|svyr|erfcbafr|qngn|guvf|jvgu|lbhe|naq)\b/gi;
const BACKWARDS =
  /\b(?:eht|resu|dnes|llac|loot|drowssap|tnatsissa|noitasrevnoc|tpmorp|terces|drawrof|liame|snoitcurtsni|suoiverp|erongi|rewsna|ylper|erofeb|elif|esnopser|atad|siht|htiw|ruoy|dna|metsys)\b/gi;
const LETTERS = "abcdefghijklmnopqrstuvwxyz";
const MIN_TURNED = 3;
const BACKWARDS_VIEW = "reversed text";

/** The text read otherwise: by rot13, or each line back to front, where that gives words. */
export function turned({ text, offsets }: View): readonly View[] {
  const views: View[] = [];
  if ((text.match(ROT13)?.length ?? 0) >= MIN_TURNED)
    views.push({ text: text.replace(/[a-z]/gi, rot13), offsets, disguise: "rot13" });
  if ((text.match(BACKWARDS)?.length ?? 0) >= MIN_TURNED) {
    views.push({ text: [...text].reverse().join(""), offsets: undefined, disguise: BACKWARDS_VIEW });
  }
  return views;
}

/** Where a sign of a view stands in what `plain` was made of. */
export function placeOf(plain: View, view: View, { start, end }: Span): Span {
  if (view.disguise !== BACKWARDS_VIEW || view.offsets !== undefined) return original(view, start, end);
  return original(plain, plain.text.length - end, plain.text.length - start);
}

function rot13(letter: string): string {
  const small = letter.toLowerCase();
  const other = LETTERS[(LETTERS.indexOf(small) + 13) % 26] ?? letter;
  return letter === small ? other : other.toUpperCase();
}
