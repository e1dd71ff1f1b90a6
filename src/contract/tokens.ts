/**
 * How many tokens a model would read, estimated without its vocabulary: words by their length, digits in threes, every other
 * character by itself. It errs on the high side for English and JSON (by a tenth or two), so a budget kept by it is kept.
 */

const PIECES = /[A-Za-z]+|[0-9]+|\s+|[^\sA-Za-z0-9]/gu;

export function estimateTokens(text: string): number {
  let tokens = 0;
  for (const [piece] of text.matchAll(PIECES)) {
    const code = piece.charCodeAt(0);
    if (code <= 32) {
      // A space before a word is part of it; longer runs are one token each.
      if (piece.length > 1 || piece === "\n") tokens++;
    } else if (code >= 48 && code <= 57) tokens += Math.ceil(piece.length / 3);
    else if (code < 128 && piece.length > 1) tokens += Math.ceil(piece.length / 6);
    else tokens += code < 128 ? 1 : Math.ceil(Buffer.byteLength(piece) / 3);
  }
  return tokens;
}
