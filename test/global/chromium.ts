/** The browser of tests that sign in and consent as a person does. */
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

export const CHROMIUM_NAMES = [
  "chromium",
  "chromium-browser",
  "google-chrome",
  "google-chrome-stable",
  "chrome",
] as const;

/** The path of an installed Chromium or Chrome: `CHROMIUM`, then the search path, then where macOS keeps it. */
export function findChromium(env: Readonly<Record<string, string | undefined>> = process.env): string | undefined {
  const folders = (env["PATH"] ?? "").split(delimiter).filter((folder) => folder !== "");
  const candidates = [
    ...(env["CHROMIUM"] === undefined ? [] : [env["CHROMIUM"]]),
    ...CHROMIUM_NAMES.flatMap((name) => folders.map((folder) => join(folder, name))),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
  ];
  return candidates.find((file) => existsSync(file));
}
