/** The environment of a child process: an allow-list, so that the gateway's own secrets stay with the gateway. */
import { Secret } from "../core/secret.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

const POSIX = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "TERM", "SHELL"];
const WINDOWS = [
  "PATH",
  "SYSTEMROOT",
  "APPDATA",
  "LOCALAPPDATA",
  "PATHEXT",
  "USERPROFILE",
  "TEMP",
  "TMP",
  "LANG",
  "TZ",
];

/** What a child sees: the harmless variables of `environment`, and what the settings add. Secrets are revealed here and nowhere else. */
export function childEnvironment(
  environment: Environment,
  added: Readonly<Record<string, string | Secret>>,
  platform: NodeJS.Platform = process.platform,
): Record<string, string> {
  const windows = platform === "win32";
  const allowed = new Set(windows ? WINDOWS : POSIX);
  const result: Record<string, string> = {};
  for (const [name, value] of Object.entries(environment)) {
    const known = windows ? allowed.has(name.toUpperCase()) : allowed.has(name) || name.startsWith("LC_");
    // A value that starts with "()" is a function some shells export: code, not a setting.
    if (known && value !== undefined && !value.startsWith("()")) result[name] = value;
  }
  for (const [name, value] of Object.entries(added)) result[name] = value instanceof Secret ? value.reveal() : value;
  return result;
}
