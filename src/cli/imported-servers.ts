/** Servers of a client's settings as the rules want them: what they run, where a secret stands, never the secret. */
import type { Target } from "../check/targets.ts";
import { simpleName } from "../config/defaults.ts";
import type { ImportedSettings } from "../config/import.ts";
import type { JsonObject } from "../core/call.ts";

type Inspected = Target["servers"][number];

/** `tools`: what a server listed, when it was started. */
export function importedServers(
  { entries, secrets, notes }: Pick<ImportedSettings, "entries" | "secrets" | "notes">,
  tools: (server: string) => readonly JsonObject[] = () => [],
): readonly Inspected[] {
  const literal = new Set(secrets.filter(({ stoodIn }) => !stoodIn.startsWith(ASKED)).map(({ name }) => name));
  return Object.entries(entries).map(([server, entry]) => ({
    ...setUp(server, entry, tools(server)),
    literalSecrets: [...inValues(server, entry, literal), ...inWords(server, entry, notes)],
  }));
}

/** A secret that the client asks its user for stands in no file. */
const ASKED = "an input that the client asked for";

function inValues(server: string, entry: Readonly<Record<string, unknown>>, literal: ReadonlySet<string>): string[] {
  return [entry["environment"], entry["headers"]].flatMap((values) =>
    Object.entries(values ?? {}).flatMap(([key, value]) =>
      [...String(value).matchAll(/\$\{secret:([^}]+)\}/g)].some(([, name = ""]) => literal.has(name))
        ? [`${server} ${key}`]
        : [],
    ),
  );
}

/** Secrets among arguments and in addresses are told in sentences that begin with the server's name. */
function inWords(server: string, { command }: ServerEntry, notes: readonly string[]): readonly string[] {
  const told = notes.flatMap((note) => {
    const [, label = "", place] = /^(.*?) has a secret (among its arguments|in its URL)/.exec(note) ?? [];
    return place !== undefined && (simpleName(label) || label) === server ? [`${server} has a secret ${place}`] : [];
  });
  const header = Array.isArray(command) && command.some((word) => HEADER.test(String(word)));
  return [...new Set([...told, ...(header ? [`${server} has a secret among its arguments`] : [])])];
}

/** A header with a token, as bridges take it: `--header "Authorization: Bearer …"`. */
const HEADER = /\b(?:Bearer|Basic|Token)\s+(?!\$)[^\s"']{8,}/i;

export interface ServerEntry {
  readonly module?: unknown;
  readonly command?: unknown;
  readonly url?: unknown;
}

export function setUp(name: string, { command, url }: ServerEntry, tools: readonly JsonObject[]): Inspected {
  return {
    name,
    ...(Array.isArray(command) && { command: command.map((word) => (typeof word === "string" ? word : "")) }),
    ...(typeof url === "string" && { url }),
    tools,
  };
}
