/** The phrases of the lexicon as a tree of words, in which a text is looked up word by word. */
import { type Concept, LEXICON } from "./lexicon.ts";

export interface PhraseNode {
  readonly exact: Map<string, PhraseNode>;
  readonly stems: Map<string, PhraseNode>;
  concepts: Concept[] | undefined;
}

/** A word of a phrase of the lexicon. */
const PHRASE_WORD =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}ー]|(?:(?![\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}ー])[\p{L}\p{M}\p{N}_$])+\*?/gu;

const node = (): PhraseNode => ({ exact: new Map(), stems: new Map(), concepts: undefined });
/** Lengths of what a star ends: shorter and longer beginnings of a word need not be tried. */
let shortestStem = 99;
let longestStem = 0;
/** Every word of the lexicon, to tell words that are written oddly. */
const vocabulary = new Set<string>();
export const PHRASES = trie();

/** Visits where the beginnings of a word lead that the lexicon ends with a star. */
export function visitStems({ stems }: PhraseNode, word: string, visit: (node: PhraseNode) => void): void {
  if (stems.size === 0) return;
  const longest = Math.min(longestStem, word.length);
  for (let length = shortestStem; length <= longest; length++) {
    const stem = stems.get(word.slice(0, length));
    if (stem !== undefined) visit(stem);
  }
}

/** True for a word that the lexicon holds, or a small English word. */
export function known(word: string): boolean {
  return vocabulary.has(word);
}

/** The lexicon as a tree of words. A star ends a word that may go on. */
function trie(): PhraseNode {
  const root = node();
  for (const [concept, phrases] of Object.entries(LEXICON) as [Concept, string][]) {
    for (const phrase of phrases.split(/[|\n]/)) {
      const words = wordsOf(phrase.trim().toLowerCase());
      if (words.length === 0) continue;
      let current = root;
      for (const word of words) {
        const stem = word.endsWith("*");
        const key = stem ? word.slice(0, -1) : word;
        vocabulary.add(key);
        if (stem) {
          shortestStem = Math.min(shortestStem, key.length);
          longestStem = Math.max(longestStem, key.length);
        }
        const branches = stem ? current.stems : current.exact;
        let next = branches.get(key);
        if (next === undefined) {
          next = node();
          branches.set(key, next);
        }
        current = next;
      }
      current.concepts = [...(current.concepts ?? []), concept];
    }
  }
  return root;
}

function wordsOf(phrase: string): readonly string[] {
  return phrase.replace(/['’]/g, "").match(PHRASE_WORD) ?? [];
}
