/** Why a version could not be loaded, with the lines of the file around the mistake. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface Problem {
  readonly message: string;
  /** Around the first place that the message names. */
  readonly frame?: Frame;
}
export interface Frame {
  readonly file: string;
  readonly lines: readonly { readonly number: number; readonly text: string; readonly here: boolean }[];
}

const AROUND = 2;
const MAX_LINE = 200;

export function problemOf(message: string | undefined): Problem | undefined {
  if (message === undefined) return undefined;
  const places = [...message.matchAll(/((?:file:\/\/)?(?:\/|[A-Za-z]:\\)[^\s:()]+):(\d+)/g)];
  // Where a module is wrong says more than where the settings name it.
  const [of, about] = [true, false].map((code) => places.filter(([, path = ""]) => /\.m?[jt]s$/.test(path) === code));
  for (const [, path = "", line = ""] of [...(of ?? []), ...(about ?? [])]) {
    const frame = frameAt(path.startsWith("file:") ? fileURLToPath(path) : path, Number(line));
    if (frame !== undefined) return { message, frame };
  }
  return { message };
}

function frameAt(file: string, at: number): Frame | undefined {
  try {
    const all = readFileSync(file, "utf8").split("\n");
    const first = Math.max(1, at - AROUND);
    const lines = all.slice(first - 1, at + AROUND).map((text, index) => ({
      number: first + index,
      text: text.replace(/\r$/, "").slice(0, MAX_LINE),
      here: first + index === at,
    }));
    return lines.some(({ here }) => here) ? { file, lines } : undefined;
  } catch {
    // Gone by now.
    return undefined;
  }
}
