/** A text as words, sentences and concepts: what the rules ask their questions of. Linear in the length of the text. */
import { type Concept, LEXICON } from "./lexicon.ts";
import { original, type View } from "./normalise.ts";

export interface Span {
  readonly start: number;
  readonly end: number;
}

interface Hit {
  readonly from: number;
  /** Exclusive. */
  readonly to: number;
}

export interface Nearness {
  /** Words from the first to the last, at most. Default 12. */
  readonly within?: number;
  /** The concepts stand in this order. Default: any. */
  readonly ordered?: boolean;
  /** Sentence ends that may lie between. Default 0. */
  readonly sentences?: number;
}

const TOKEN =
  /([a-z][a-z0-9+.-]{1,12}:\/\/[^\s"'<>()\]}`]{1,256})|([\p{L}\p{N}._%+-]{1,64}@[\p{L}\p{N}-]{1,63}(?:\.[\p{L}\p{N}-]{1,63}){1,4})|((?:~|\$HOME|%\w{3,20}%|\.{0,2})[\\/](?:[\w.@+*-]{1,64}[\\/]?){1,12}|\.[a-z][\w-]{1,20}(?:[\\/][\w.-]{1,40}){0,5})|([\w-]{1,48}\.(?:md|txt|json|ya?ml|toml|ini|cfg|conf|sh|bat|ps1|py|js|ts|env|log|csv|db|sqlite3?|lock|bak|key|pem|crt|xml|html|docx?|xlsx?|pdf|zip|tar|gz|exe|dll|so)(?![\w]))|(\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?)|(?:[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}ー])|(?:(?:(?![\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}ー])[\p{L}\p{M}\p{N}_$]){1,64}(?:['’][\p{L}]{1,4})?)|("\s{0,2}[,:](?=\s)|[.!?;。！？；।](?=[\s)"'»\]}*_]|$|[\u3000-\u9fff\uac00-\ud7af])|\n\s{0,8}\n|\n[ \t]{0,16}(?=[-*•#\d<[A-Z]))/giuy;

/** A word of a phrase of the lexicon. */
const PHRASE_WORD =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}ー]|(?:(?![\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}ー])[\p{L}\p{M}\p{N}_$])+\*?/gu;

/** Longer texts are read in two pieces, from the start and from the end, each of this many characters. */
const MAX_CHARS = 24_576;
/** A concept that stands in a text more often than this is not looked for further. */
const MAX_HITS = 1000;

interface Node {
  readonly exact: Map<string, Node>;
  readonly stems: Map<string, Node>;
  concepts: Concept[] | undefined;
}

const node = (): Node => ({ exact: new Map(), stems: new Map(), concepts: undefined });
let shortestStem = 99;
let longestStem = 0;
/** Every word of the lexicon, to tell words that are written oddly. */
const vocabulary = new Set<string>();
const TRIE = trie();

/** True for a word that the lexicon holds, or a small English word. */
export function known(word: string): boolean {
  return vocabulary.has(word);
}

export class Reading {
  readonly view: View;
  readonly text: string;
  readonly #own: ReadonlySet<string>;
  readonly #words: string[] = [];
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  readonly #sentence: number[] = [];
  readonly #hits = new Map<Concept, Hit[]>();

  /** `own`: names, in lower case, that are no other tool's: that of the definition and those of its parameters. */
  constructor(view: View, own: ReadonlySet<string> = new Set()) {
    this.view = view;
    this.#own = own;
    this.text =
      view.text.length <= 2 * MAX_CHARS
        ? view.text
        : view.text.slice(0, MAX_CHARS) + " ".repeat(view.text.length - 2 * MAX_CHARS) + view.text.slice(-MAX_CHARS);
    this.#tokenise();
    this.#match();
  }

  /** Where a concept stands. */
  every(concept: Concept): readonly Span[] {
    return (this.#hits.get(concept) ?? []).map((hit) => this.#span(hit.from, hit.to));
  }

  has(...concepts: readonly Concept[]): boolean {
    return concepts.some((concept) => this.#hits.has(concept));
  }

  count(concept: Concept): number {
    return this.#hits.get(concept)?.length ?? 0;
  }

  get words(): number {
    return this.#words.length;
  }

  /** Words as they are matched: lower case, without apostrophes. */
  word(index: number): { readonly text: string; readonly span: Span; readonly sentence: number } {
    return {
      text: this.#words[index] ?? "",
      span: this.#span(index, index + 1),
      sentence: this.#sentence[index] ?? 0,
    };
  }

  /** The first place where all of these concepts stand near one another, each with words of its own. */
  near(concepts: readonly Concept[], nearness: Nearness = {}): Span | undefined {
    const { within = 12, ordered = false, sentences = 0 } = nearness;
    const lists = concepts.map((concept) => this.#hits.get(concept));
    const [first, ...others] = lists;
    if (first === undefined || others.includes(undefined)) return undefined;
    next: for (const start of first) {
      let { from, to } = start;
      const taken = [start];
      for (const list of others) {
        const hit = closest(list ?? [], ordered ? to : from, ordered, taken);
        if (hit === undefined) continue next;
        taken.push(hit);
        from = Math.min(from, hit.from);
        to = Math.max(to, hit.to);
        if (to - from > (within + concepts.length) * this.#measure(from)) continue next;
      }
      if ((this.#sentence[to - 1] ?? 0) - (this.#sentence[from] ?? 0) <= sentences) return this.#span(from, to);
    }
    return undefined;
  }

  /** Where letters are words, a phrase has more of them. */
  #measure(index: number): number {
    return isCjk(this.text.charCodeAt(this.#starts[index] ?? 0)) ? 2 : 1;
  }

  /** The first of several questions that has an answer. */
  any(patterns: readonly (readonly Concept[])[], nearness?: Nearness): Span | undefined {
    for (const pattern of patterns) {
      const span = this.near(pattern, nearness);
      if (span !== undefined) return span;
    }
    return undefined;
  }

  /** What each sentence speaks of. Sentences without a concept are left out. */
  sentences(): readonly { readonly span: Span; readonly concepts: ReadonlySet<Concept> }[] {
    const sentences = new Map<number, { from: number; to: number; concepts: Set<Concept> }>();
    for (const [concept, hits] of this.#hits)
      for (const { from, to } of hits) {
        const index = this.#sentence[from] ?? 0;
        const one = sentences.get(index);
        if (one === undefined) sentences.set(index, { from, to, concepts: new Set([concept]) });
        else {
          one.from = Math.min(one.from, from);
          one.to = Math.max(one.to, to);
          one.concepts.add(concept);
        }
      }
    return [...sentences.values()].map(({ from, to, concepts }) => ({ span: this.#span(from, to), concepts }));
  }

  /** In the original text. */
  original(span: Span): Span {
    return original(this.view, span.start, span.end);
  }

  #span(from: number, to: number): Span {
    return { start: this.#starts[from] ?? 0, end: this.#ends[to - 1] ?? 0 };
  }

  #tokenise(): void {
    let sentence = 0;
    let at = 0;
    const { text } = this;
    while (at < text.length) {
      const code = text.charCodeAt(at);
      if (code === 32 || code === 9) {
        at++;
        continue;
      }
      if (isCjk(code)) {
        this.#put(text[at] ?? "", at, at + 1, sentence);
        at++;
        continue;
      }
      TOKEN.lastIndex = at;
      const match = TOKEN.exec(text);
      if (match === null) {
        at++;
        continue;
      }
      const end = at + match[0].length;
      const [, url, mail, path, file, ip, stop] = match;
      if (stop !== undefined) sentence++;
      else {
        const kind = url !== undefined ? "url" : mail !== undefined ? "mail" : undefined;
        let word = match[0].toLowerCase().replace(/['’]/g, "");
        if (path !== undefined) word = word.replace(/[.,/\\]+$/, "").replaceAll("\\", "/");
        const index = this.#words.length;
        this.#put(word, at, end, sentence);
        if (kind !== undefined)
          this.#add(kind === "mail" ? "mail" : isLink(word) ? "link" : "foreignUri", index, index + 1);
        else if (path !== undefined) this.#path(word, index);
        else if (file !== undefined) this.#add(SECRET_PATH.test(word) ? "secretPath" : "fileName", index, index + 1);
        else if (ip !== undefined) this.#add("ip", index, index + 1);
        else if (/^[\p{L}\p{N}$]+(?:_[\p{L}\p{N}]+)+$|^[a-z]+(?:[A-Z][a-z0-9]+)+$/u.test(match[0]))
          this.#add(this.#own.has(word) ? "parameter" : "identifier", index, index + 1);
        else if (/^\d/.test(word)) this.#add("number", index, index + 1);
        // A full stop may be the last character of a link.
        if (kind !== undefined && /[.!?]$/.test(match[0])) sentence++;
      }
      at = end;
    }
  }

  #put(word: string, start: number, end: number, sentence: number): void {
    this.#words.push(word);
    this.#starts.push(start);
    this.#ends.push(end);
    this.#sentence.push(sentence);
  }

  #path(word: string, index: number): void {
    this.#add(SECRET_PATH.test(word) ? "secretPath" : SYSTEM_PATH.test(word) ? "systemPath" : "path", index, index + 1);
  }

  #match(): void {
    const { length } = this.#words;
    for (let at = 0; at < length; at++) this.#walk(TRIE, at, at);
  }

  #walk(from: Node, start: number, at: number): void {
    if (from.concepts !== undefined) for (const concept of from.concepts) this.#add(concept, start, at);
    const word = this.#words[at];
    if (word === undefined || (at > start && this.#sentence[at] !== this.#sentence[start])) return;
    const exact = from.exact.get(word);
    if (exact !== undefined) this.#walk(exact, start, at + 1);
    if (from.stems.size === 0) return;
    const longest = Math.min(longestStem, word.length);
    for (let length = shortestStem; length <= longest; length++) {
      const stem = from.stems.get(word.slice(0, length));
      if (stem !== undefined) this.#walk(stem, start, at + 1);
    }
  }

  #add(concept: Concept, from: number, to: number): void {
    const hits = this.#hits.get(concept);
    if (hits === undefined) this.#hits.set(concept, [{ from, to }]);
    else if (hits.length < MAX_HITS) hits.push({ from, to });
  }
}

const SECRET_PATH =
  /(?:^|[/~])\.(?:ssh|aws|env|netrc|npmrc|pypirc|git-credentials|kube|docker|gnupg|azure|gcloud|pgpass|bash_history|zsh_history|vault-token|htpasswd|cursor|claude)(?:[./]|$)|id_(?:rsa|ed25519|ecdsa|dsa)|authorized_keys|\/etc\/(?:passwd|shadow|sudoers|ssl\/private)|credentials?(?:\.\w+)?$|secrets?(?:\.\w+)?$|\.(?:pem|p12|pfx|kdbx|keystore|ppk)$|wallet\.dat|mcp\.json$|login data|\/proc\/self\/environ|serviceaccount\/token|config\/gcloud|keychains?\b/;
const SYSTEM_PATH =
  /^(?:\/(?:etc|root|boot|usr\/s?bin|lib|var\/(?:log|spool)|proc|sys|dev)(?:\/|$)|c:\/windows|~?\/?\.(?:bashrc|zshrc|profile|bash_profile|config\/autostart|vimrc|gitconfig)$|~\/library\/launchagents)/;

/** Chinese, Japanese and Korean in the basic plane: each letter is a word. */
function isCjk(code: number): boolean {
  return (
    (code >= 0x3040 && code <= 0x30ff && code !== 0x30fb) ||
    (code >= 0x3400 && code <= 0x9fff) ||
    (code >= 0xac00 && code <= 0xd7af)
  );
}

function isLink(word: string): boolean {
  return /^(?:https?|ftp|wss?):/.test(word);
}

/** The hit nearest to `at` (or the first from there on, when ordered) that shares no word with those taken. */
function closest(hits: readonly Hit[], at: number, ordered: boolean, taken: readonly Hit[]): Hit | undefined {
  let low = 0;
  let high = hits.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((hits[middle]?.from ?? 0) < at) low = middle + 1;
    else high = middle;
  }
  const free = (hit: Hit) => taken.every((one) => hit.to <= one.from || hit.from >= one.to);
  let after: Hit | undefined;
  for (let index = low; index < Math.min(low + 6, hits.length) && after === undefined; index++) {
    const hit = hits[index];
    if (hit !== undefined && free(hit)) after = hit;
  }
  if (ordered) return after;
  let before: Hit | undefined;
  for (let index = low - 1; index >= Math.max(0, low - 6) && before === undefined; index--) {
    const hit = hits[index];
    if (hit !== undefined && free(hit)) before = hit;
  }
  if (before === undefined || after === undefined) return before ?? after;
  return at - before.to < after.from - at ? before : after;
}

/** The lexicon as a tree of words. A star ends a word that may go on. */
function trie(): Node {
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
