/** Places of HTML and Markdown that a reader of the page does not see, and a model does. */

const MAX_HIDDEN = 4000;

interface Place {
  readonly opens: RegExp;
  /** What ends it, of what opened it. */
  readonly closes: (opening: string) => string;
}

const PLACES: readonly Place[] = [
  { opens: /<!--/g, closes: () => "-->" },
  { opens: /\[\/\/\]:\s?#\s?[("']|\[comment\]:\s?<?#?>?\s?[("']?/gi, closes: () => "\n" },
  {
    opens:
      /<(?:div|span|p|section|td|li|a|font|small|b|i|label|h\d)\b[^<>]{0,300}(?:display\s?:\s?none|visibility\s?:\s?hidden|font-size\s?:\s?[01](?:\.\d+)?(?:px|pt|em|rem|%)?\b|opacity\s?:\s?0(?![.\d]*[1-9])|(?<![-\w])color\s?:\s?(?:white|transparent|#fff(?:fff)?)\b|text-indent\s?:\s?-\d{3}|left\s?:\s?-\d{3}|\shidden\b|aria-hidden\s?=\s?["']?true|sr-only|visually-hidden)[^<>]{0,300}>/gi,
    closes: (opening) => `</${/^<(\w+)/.exec(opening)?.[1] ?? ""}`,
  },
  {
    opens: /<(?:template|noscript|script|style|textarea|meta|head|title|details|svg)\b[^<>]{0,300}>/gi,
    closes: (opening) => `</${/^<(\w+)/.exec(opening)?.[1] ?? ""}`,
  },
  {
    opens: /\b(?:alt|title|aria-label|aria-description|data-[a-z-]{1,30}|content|placeholder|summary)\s?=\s?"/gi,
    closes: () => '"',
  },
  {
    opens: /\b(?:alt|title|aria-label|aria-description|data-[a-z-]{1,30}|content|placeholder|summary)\s?=\s?'/gi,
    closes: () => "'",
  },
  { opens: /!\[/g, closes: () => "]" },
];

/** Where the hidden place that `at` stands in ends; undefined when it stands in none. */
export function hiddenEnd(text: string, at: number): number | undefined {
  const from = Math.max(0, at - MAX_HIDDEN);
  const before = text.slice(from, at);
  for (const { opens, closes } of PLACES) {
    let last: RegExpExecArray | undefined;
    for (const match of before.matchAll(opens)) last = match;
    if (last === undefined) continue;
    const close = closes(last[0]);
    if (before.indexOf(close, last.index + last[0].length) >= 0) continue;
    const end = text.indexOf(close, at);
    return end < 0 || end - at > MAX_HIDDEN ? Math.min(text.length, at + MAX_HIDDEN) : end;
  }
  return undefined;
}
