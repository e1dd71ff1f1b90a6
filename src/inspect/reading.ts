/** A text as words, sentences and concepts: what the rules ask their questions of. Linear in the length of the text. */
import type { Concept } from "./lexicon.ts";
import { ACTS, BANS, LOOK_BACK, MEANT, type Place, STILL } from "./meaning.ts";
import { original, type View } from "./normalise.ts";
import { PHRASES, type PhraseNode, visitStems } from "./phrases.ts";

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

/** Names that a text may speak of without speaking of a stranger's tools. In lower case, but for `name`. */
export interface Names {
  /** Of the definition and of its parameters. */
  readonly own?: ReadonlySet<string>;
  /** Of the definition; tools that share a telling word with it are its kin. */
  readonly name?: string;
  /** Of a server's instructions: its own tools, so far as they are known. "The other tools" are these, too. */
  readonly siblings?: ReadonlySet<string> | undefined;
}

/** A tool of such a name changes or sends something for good. */
const HARMS =
  /^(?:delete|remove|drop|purge|destroy|send|transfer|wire|pay|grant|exec|execute|upload|forward|email|share|publish|add_user|create_user|create_payment|make_payment|overwrite|write_file|run_command|run_shell|shell)(?:_|[A-Z]|$)/;
const DOCUMENTATION = /^https?:\/\/(?:docs?|developers?|support|help)\.|\/docs?\//;
const NAMED_TOOL = /^tools?$/;
/** "For billing reasons". */
const REASONS = /^(?:reasons|purposes)$/;
const ARTICLES = new Set("the a an any every each all no".split(" "));
/** Before "tool", these name none. */
const NO_KIND = new Set(
  "the a an this that these those any other another same following above below first next previous new single mcp available named given right appropriate correct relevant specific search only of best ai cli line external dedicated companion separate underlying read-only main and or your our my each every all no most certain different specialized powerful simple".split(
    " ",
  ),
);
/** Before an address that is an example of how one is written. */
const EXAMPLE = /^(?:e\.?g\.?|eg|example|examples|like|such|format|formatted|sample|default|placeholder|i\.?e\.?)$/;
/** Kept for examples (RFC 2606), and used as such. */
const EXAMPLE_MAIL =
  /^(?:user|username|name|first\.last|firstname\.lastname|example|john|jane|john\.doe|jane\.doe|johndoe|alice|bob|me|you|email|someone|test)@(?:example|company|domain|email|gmail|mail|test|yourcompany|acme)\b/;
/** Words of names that say nothing of what a tool is about. */
const COMMON =
  /^(?:get|list|create|update|delete|send|read|write|search|find|fetch|query|add|remove|set|run|call|execute|tool|tools|data|file|files|info|item|items|from|with|this|mail|email|message|user|users|name|open|make|check|show|view|load|save|path|text|content|value|values|price|stock|code)$/;

const TOKEN =
  /([a-z][a-z0-9+.-]{1,12}:\/\/[^\s"'<>()\]}`]{1,256})|([\p{L}\p{N}._%+-]{1,64}@[\p{L}\p{N}-]{1,63}(?:\.[\p{L}\p{N}-]{1,63}){1,4})|((?:~|\$HOME|%\w{3,20}%|\.{0,2})[\\/](?:[\w.@+*-]{1,64}[\\/]?){1,12}|\.[a-z][\w-]{1,20}(?:[\\/][\w.-]{1,40}){0,5})|([\w-]{1,48}\.(?:md|txt|json|ya?ml|toml|ini|cfg|conf|sh|bat|ps1|py|js|ts|env|log|csv|db|sqlite3?|lock|bak|key|pem|crt|xml|html|docx?|xlsx?|pdf|zip|tar|gz|exe|dll|so)(?![\w]))|(\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?)|(?:[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}ー])|(?:(?:(?![\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}ー])[\p{L}\p{M}\p{N}_$]){1,64}(?:['’][\p{L}]{1,4}(?![\p{L}]))?)|("\s{0,2}[,:](?=\s)|[.!?;。！？；।](?=[\s)"'»\]}*_]|$|[\u3000-\u9fff\uac00-\ud7af])|\n\s{0,8}\n|\n[ \t]{0,16}(?=[-*•#\d<[A-Z]))/giuy;

/** Longer texts are read in two pieces, from the start and from the end, each of this many characters. */
const MAX_CHARS = 16_384;
/** A concept that stands in a text more often than this is not looked for further. */
const MAX_HITS = 1000;

export class Reading {
  readonly view: View;
  readonly text: string;
  readonly #own: ReadonlySet<string>;
  readonly #siblings: ReadonlySet<string> | undefined;
  readonly #kin: ReadonlySet<string>;
  readonly #words: string[] = [];
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  readonly #sentence: number[] = [];
  readonly #hits = new Map<Concept, Hit[]>();

  constructor(view: View, { own = new Set(), name = "", siblings }: Names = {}) {
    this.view = view;
    this.#own = own;
    this.#siblings = siblings;
    this.#kin = kinOf(name);
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

  holds(concepts: readonly Concept[]): boolean {
    return concepts.every((concept) => this.#hits.has(concept));
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
    // What is forbidden is not asked for: "do not read .env files". Concealment is itself a ban.
    const affirmed = !concepts.includes("not");
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
      if ((this.#sentence[to - 1] ?? 0) - (this.#sentence[from] ?? 0) > sentences) continue;
      if (affirmed && taken.some((hit, index) => ACTS.has(concepts[index] ?? "link") && this.#banned(hit))) continue;
      return this.#span(from, to);
    }
    return undefined;
  }

  /** Whether a ban stands right before an act: "never read", "do not open or read". */
  #banned({ from }: Hit): boolean {
    for (let at = from - 1; at >= Math.max(0, from - 4); at--) {
      const word = this.#words[at] ?? "";
      if (this.#sentence[at] !== this.#sentence[from]) return false;
      if (BANS.test(word)) return true;
      if (!STILL.test(word)) return false;
    }
    return false;
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
        if (kind === "mail") {
          if (!this.#example(word, index)) this.#add("mail", index, index + 1);
        } else if (kind === "url") {
          // A reference to documentation is no place to send to: "[limits](https://example.com/docs/limits)".
          const reference = text[at - 1] === "(" && text[at - 2] === "]" && DOCUMENTATION.test(word);
          if (!reference) this.#add(isLink(word) ? "link" : "foreignUri", index, index + 1);
        }
        // "func/data/local" is a list of words.
        else if (path !== undefined && !(path.startsWith("/") && /[\p{L}\p{N}]/u.test(text[at - 1] ?? "")))
          this.#path(word, index);
        else if (file !== undefined) this.#add(SECRET_PATH.test(word) ? "secretPath" : "fileName", index, index + 1);
        else if (ip !== undefined) this.#add("ip", index, index + 1);
        else if (/^[\p{L}\p{N}$]+(?:_[\p{L}\p{N}]+)+$|^[a-z]+(?:[A-Z][a-z0-9]+)+$/u.test(match[0]))
          this.#identifier(word, match[0], index);
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
    const concept = ENV_FILE.test(word)
      ? "envFile"
      : SECRET_PATH.test(word)
        ? "secretPath"
        : SYSTEM_PATH.test(word)
          ? "systemPath"
          : "path";
    this.#add(concept, index, index + 1);
  }

  /** A name in code: of a parameter of this tool, or of another tool, which may be one of its kin. */
  #identifier(word: string, written: string, index: number): void {
    if (this.#own.has(word)) {
      this.#add("parameter", index, index + 1);
      return;
    }
    if (this.#siblings?.has(word) === true) return;
    this.#add("identifier", index, index + 1);
    if (HARMS.test(word)) this.#add("harmfulName", index, index + 1);
    const parts = written
      .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
      .toLowerCase()
      .split("_");
    if (parts.some((part) => this.#kin.has(stem(part)))) this.#add("sibling", index, index + 1);
  }

  #example(mail: string, index: number): boolean {
    if (EXAMPLE_MAIL.test(mail)) return true;
    for (let at = index - 1; at >= Math.max(0, index - 3); at--) if (EXAMPLE.test(this.#words[at] ?? "")) return true;
    return false;
  }

  #match(): void {
    const { length } = this.#words;
    for (let at = 0; at < length; at++) {
      this.#walk(PHRASES, at, at);
      if (REASONS.test(this.#words[at] ?? "") && this.#words[at - 2] === "for") this.#add("excuse", at - 2, at + 1);
      if (at > 1 && NAMED_TOOL.test(this.#words[at] ?? "")) this.#namedTool(at);
    }
    for (const [concept, meant] of Object.entries(MEANT) as [Concept, (place: Place) => boolean][]) {
      const hits = this.#hits.get(concept)?.filter((hit) => meant(this.#place(hit)));
      if (hits === undefined) continue;
      if (hits.length > 0) this.#hits.set(concept, hits);
      else this.#hits.delete(concept);
    }
  }

  /** "The browser tool" is another, unless this one's own name or a word for any tool stands there. */
  #namedTool(at: number): void {
    const kind = this.#words[at - 1] ?? "";
    const article = [this.#words[at - 2], this.#words[at - 3]].some((word) => ARTICLES.has(word ?? ""));
    // "Other quote tools are wrong"
    if (this.#words[at - 2] === "other") this.#add("otherTool", at - 2, at + 1);
    else if (
      article &&
      // A name in code is an identifier, and may be kin.
      !kind.includes("_") &&
      this.#sentence[at] === this.#sentence[at - 2] &&
      !NO_KIND.has(kind) &&
      !this.#kin.has(stem(kind))
    )
      this.#add("namedTool", at - 1, at + 1);
  }

  #place({ from, to }: Hit): Place {
    let start = from;
    while (start > 0 && from - start < LOOK_BACK && this.#sentence[start - 1] === this.#sentence[from]) start--;
    const word = this.#words[from] ?? "";
    const after = this.#sentence[to] === this.#sentence[from] ? (this.#words[to] ?? "") : "";
    return {
      word,
      before: this.#words.slice(start, from).reverse(),
      after,
      own: this.#own.has(word),
      ofServer: this.#siblings !== undefined,
    };
  }

  #walk(from: PhraseNode, start: number, at: number): void {
    if (from.concepts !== undefined) for (const concept of from.concepts) this.#add(concept, start, at);
    const word = this.#words[at];
    if (word === undefined || (at > start && this.#sentence[at] !== this.#sentence[start])) return;
    const exact = from.exact.get(word);
    if (exact !== undefined) this.#walk(exact, start, at + 1);
    visitStems(from, word, (stem) => this.#walk(stem, start, at + 1));
  }

  #add(concept: Concept, from: number, to: number): void {
    const hits = this.#hits.get(concept);
    if (hits === undefined) this.#hits.set(concept, [{ from, to }]);
    else if (hits.length < MAX_HITS) hits.push({ from, to });
  }
}

function kinOf(name: string): ReadonlySet<string> {
  const parts = name
    .slice(0, 256)
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .toLowerCase()
    .split(/[^\p{L}\p{N}]+/u);
  return new Set(parts.filter((part) => part.length > 3 && !COMMON.test(part)).map(stem));
}

/** Singular and plural are one: `modules` and `module`, `policies` and `policy`. */
function stem(word: string): string {
  return word.replace(/ies$/, "y").replace(/(?<=[^s])s$/, "");
}

/** Settings of a project; they may hold secrets, and honest tools speak of them. */
const ENV_FILE = /(?:^|[./\\])\.env(?:\.[\w.-]+)?$|\.env\.(?:local|example|development|production|test)$/;
const SECRET_PATH =
  /(?:^|[/~])\.(?:ssh|aws|env|netrc|npmrc|pypirc|git-credentials|kube|docker|gnupg|azure|gcloud|pgpass|bash_history|zsh_history|vault-token|htpasswd)(?:[./]|$)|id_(?:rsa|ed25519|ecdsa|dsa)|authorized_keys|\/etc\/(?:passwd|shadow|sudoers|ssl\/private)|credentials?(?:\.\w+)?$|secrets?(?:\.\w+)?$|\.(?:pem|p12|pfx|kdbx|keystore|ppk)$|wallet\.dat|mcp\.json$|login data|\/proc\/self\/environ|serviceaccount\/token|config\/(?:gcloud|gh|hub|op|doctl|rclone|heroku)\b|keychains?\b/;
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
