/** JSON that strangers wrote, read so that nobody else can read it differently. */

/**
 * Parses a JSON object. Throws `SyntaxError`, with a message that quotes nothing of the text, for what is no JSON object, a member
 * that is there twice (of which two readers may each take another), or nesting deeper than `maxDepth`.
 */
export function strictJsonObject(body: Uint8Array, maxDepth = 16): Record<string, unknown> {
  const text = decoded(body);
  const value = parsed(text);
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new SyntaxError("is not a JSON object");
  checkMembers(text, maxDepth);
  return value as Record<string, unknown>;
}

function decoded(body: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(body);
  } catch {
    throw new SyntaxError("is not UTF-8");
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new SyntaxError("is not JSON");
  }
}

/** Looks at the tokens of a text that is JSON. */
function checkMembers(text: string, maxDepth: number): void {
  /** The names seen in each open object; undefined stands for a list. */
  const open: (Set<string> | undefined)[] = [];
  let expectsName = false;
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],]/gs)) {
    switch (token) {
      case "{":
      case "[":
        open.push(token === "{" ? new Set() : undefined);
        if (open.length > maxDepth) throw new SyntaxError(`is nested more than ${maxDepth} deep`);
        expectsName = token === "{";
        break;
      case "}":
      case "]":
        open.pop();
        expectsName = false;
        break;
      case ",":
        expectsName = open.at(-1) !== undefined;
        break;
      default: {
        const names = open.at(-1);
        if (!expectsName || names === undefined) break;
        // One name can be spelled in many ways: "\\u0061" is "a".
        const name = String(parsed(token));
        if (names.has(name)) throw new SyntaxError("has a member that is there twice");
        names.add(name);
        expectsName = false;
      }
    }
  }
}
