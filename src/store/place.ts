/** How a store on a server is named and how it fails: alike for every backend, and never with its password. */
import { DrawbridgeError } from "../core/errors.ts";

/** The settings that name a server. */
export type PlaceSetting = "store" | "cache";

/** The URL without user, password and options, for messages. */
export function placeOf(url: string): string {
  if (!URL.canParse(url)) return "(a URL that cannot be read)";
  const { protocol, host, pathname } = new URL(url);
  // A password with an unescaped `/` in it has its end here.
  return `${protocol}//${host}${/^\/[\w-]*$/.test(pathname) ? pathname : ""}`;
}

/** Throws `settings_invalid` for what is no URL. Node's own error would carry the text, and with it the password. */
export function checkUrl(url: string, setting: PlaceSetting = "store"): void {
  if (URL.canParse(url)) return;
  throw new DrawbridgeError(
    "settings_invalid",
    `The URL of \`${setting}:\` cannot be read. Write ${setting === "store" ? "postgres://user:password@host/database or " : ""}redis://user:password@host, with special characters of the password percent-encoded (/ is %2F).`,
  );
}

/** An operation that failed: of a caller's doing or an outage. */
export function failure(problem: string): DrawbridgeError {
  return new DrawbridgeError("internal", "The gateway could not complete the request.", {
    detail: `store: ${problem}`,
  });
}

/** A store that cannot be opened. */
export function unusable(place: string, problem: string, setting: PlaceSetting = "store"): DrawbridgeError {
  return new DrawbridgeError(
    "settings_invalid",
    `The ${setting} ${place} cannot be used: ${problem}. Check \`${setting}:\`, that the server runs, and its user and password.`,
  );
}

/** A store of a newer version: it may hold what this one would not understand. */
export function tooNew(place: string, version: number, known: number): DrawbridgeError {
  return new DrawbridgeError(
    "settings_invalid",
    `The store ${place} was written by a newer Drawbridge (its schema is ${version}, this one knows ${known}). Run the newer version, or point \`store:\` elsewhere.`,
  );
}

/** A store that is only looked into must be there already. */
export function absent(place: string): DrawbridgeError {
  return new DrawbridgeError(
    "settings_invalid",
    `There is no store in ${place}. Start the gateway once, or name another store.`,
  );
}
