/** Compiles a glob: `*` stands for any characters, also none; everything else for itself. Matches in linear time, whatever it looks like. */
export function compileGlob(glob: string): (name: string) => boolean {
  const parts = glob.split("*");
  const first = parts[0] ?? "";
  if (parts.length === 1) return (name) => name === glob;
  const last = parts.at(-1) ?? "";
  const middle = parts.slice(1, -1);
  return (name) => {
    if (name.length < first.length + last.length || !name.startsWith(first) || !name.endsWith(last)) return false;
    let at = first.length;
    const end = name.length - last.length;
    for (const part of middle) {
      const found = name.indexOf(part, at);
      if (found < 0 || found + part.length > end) return false;
      at = found + part.length;
    }
    return true;
  };
}
