/** Words of a server, made into sentences that a contract can have. */
export const MAX_ARGUMENT_WORDS = 300;

/** Words of a server that a model should not take for an order of the operator's. */
const ORDERS =
  /<\/?\s*(important|system|secret|instructions?)\b|\bignore (all |any\b |the )?(previous|prior|above|other)|\bdo not (tell|mention|inform|reveal|show)|\bbefore (using|calling) (this|any\b|other)\b|\bsystem prompt\b|\.ssh\b|\bid_rsa\b|\bwithout (telling|asking|informing)\b|\bsidenote\b/i;

/** One paragraph without anything invisible, cut at a sentence. */
export function plainWords(
  text: string,
  longest: number,
): { readonly text: string | undefined; readonly suspicious: boolean } {
  const suspicious = ORDERS.test(text) || /[\p{Cf}\p{Co}]/u.test(text);
  const plain = text.replaceAll(/[\p{C}\s]+/gu, " ").trim();
  if (suspicious || plain === "") return { text: undefined, suspicious };
  if (plain.length <= longest) return { text: plain, suspicious };
  const cut = plain.slice(0, longest);
  const end = Math.max(cut.lastIndexOf(". "), cut.lastIndexOf("! "));
  return { text: end > longest / 3 ? cut.slice(0, end + 1) : `${cut.slice(0, cut.lastIndexOf(" "))} …`, suspicious };
}

export function sentenceOf(words: readonly string[]): string {
  const text = words.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
