/** Servers of a client's settings as the rules want them: what they run, where a secret stands, never the secret. */
import type { Target } from "../check/targets.ts";
import type { ImportedSettings } from "../config/import.ts";
import type { JsonObject } from "../core/call.ts";

type Inspected = Target["servers"][number];

/** `tools`: what a server listed, when it was started. */
export function importedServers(
  { entries, secrets, notes }: Pick<ImportedSettings, "entries" | "secrets" | "notes">,
  tools: (server: string) => readonly JsonObject[] = () => [],
): readonly Inspected[] {
  const written = (server: string) => [
    ...secrets.filter(({ stoodIn }) => stoodIn.startsWith(`${server} `)).map(({ stoodIn }) => stoodIn),
    ...notes.filter((note) => note.startsWith(`${server} has a secret`)).map((note) => note.split(",")[0] ?? note),
  ];
  return Object.entries(entries).map(([server, entry]) => ({
    ...setUp(server, entry, tools(server)),
    literalSecrets: written(server),
  }));
}

export interface ServerEntry {
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
