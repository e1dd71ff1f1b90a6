/** JSON that a terminal can be shown: it means the same, and holds no character that steers one or turns a line round. */
export function plainJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, null, indent).replace(/[\p{Cc}\p{Cf}\p{Co}\u2028\u2029]/gu, (char) =>
    char === "\n"
      ? char
      : Array.from(
          { length: char.length },
          (_, unit) => `\\u${char.charCodeAt(unit).toString(16).padStart(4, "0")}`,
        ).join(""),
  );
}
