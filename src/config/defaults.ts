/** Settings without a file: `serve -- <command…>` and `serve --url <url>`. Loopback only, local users, one server. */
import { basename, dirname, resolve } from "node:path";
import { type LoadedSettings, type LoadOptions, settleSettings } from "./load.ts";

/** Settings for one stdio server, started as `argv` stands, in `folder`. Throws `SettingsProblems`. */
export function settingsForCommand(
  argv: readonly string[],
  folder: string,
  options: LoadOptions,
): Promise<LoadedSettings> {
  return settleSettings({ servers: { [nameOfCommand(argv)]: { command: [...argv] } } }, folder, options);
}

/** Settings for one Streamable HTTP server. Throws `SettingsProblems`. */
export function settingsForUrl(url: string, folder: string, options: LoadOptions): Promise<LoadedSettings> {
  return settleSettings({ servers: { [nameOfUrl(url)]: { url } } }, folder, options);
}

/** Settings for `drawbridge serve server.ts`: a module of `drawbridge-mcp/author`, called after its folder when its own name tells nothing. */
export async function settingsForModule(file: string, folder: string, options: LoadOptions): Promise<LoadedSettings> {
  const module = resolve(folder, file);
  return settleSettings({ servers: { [nameOfModule(module)]: { module } } }, folder, options);
}

/** A server name from the absolute path of a module: `library` for `/srv/library/server.ts`. */
export function nameOfModule(file: string): string {
  const own = simpleName(basename(file).replace(/\.\w+$/, ""));
  return own === "" || TELLS_NOTHING.test(own) ? simpleName(basename(dirname(file))) || "server" : own;
}

const RUNNERS =
  /^(npx|bunx|uvx|pipx|pnpx|pnpm|npm|yarn|bun|uv|deno|docker|podman|node|nodejs|tsx|python\d*(\.\d+)?|ruby|java|env|cmd|dlx|exec|run|tool|x)$/;
/** Options of the runners above whose value is the next word. */
const VALUED =
  /^(-p|--package|--from|--with|--python|-e|--env|--env-file|-v|--volume|--mount|--network|--name|-w|--workdir|-u|--user|-r|--require|--import|--loader)$/;
const TELLS_NOTHING = /^(index|main|server|app|dist|build|src|lib|bin|cli|start|stdio|mcp)$/;

/** A server name from the package, image or script that a command runs: `filesystem` for `npx -y @modelcontextprotocol/server-filesystem .`. */
export function nameOfCommand(argv: readonly string[]): string {
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index] ?? "";
    if (VALUED.test(word)) index++;
    if (word.startsWith("-") || RUNNERS.test(basename(word).replace(/\.(exe|cmd)$/i, "")) || word === "/c") continue;
    const parts = word.split(/[\\/]/).reverse();
    const names = parts.map((part) =>
      simpleName(part.replace(/(?<=.)(@|==|:)[^@:]*$/, "").replace(/\.(m|c)?(js|ts|py|rb|jar|sh|exe)$/i, "")),
    );
    const telling = names.find((name) => name !== "" && !TELLS_NOTHING.test(name));
    return telling ?? "server";
  }
  return simpleName(basename(argv[0] ?? "")) || "server";
}

/** A server name from a host: `githubcopilot` for `https://api.githubcopilot.com/mcp/`. */
export function nameOfUrl(url: string): string {
  if (!URL.canParse(url)) return "server";
  const { hostname, port } = new URL(url);
  if (hostname === "localhost" || /^[\d.]+$|^\[/.test(hostname)) return port === "" ? "local" : `local-${port}`;
  const labels = hostname.split(".");
  const kept = labels
    .slice(0, Math.max(1, labels.length - 1))
    .filter((label) => !/^(www|api|mcp|sse|app|co|com)$/.test(label));
  return simpleName(kept.at(-1) ?? labels[0] ?? "") || "server";
}

/** What `serverName` in the settings accepts, as near to `text` as that allows; empty when nothing is left. */
export function simpleName(text: string): string {
  const plain = text
    .replace(/^@/, "")
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1-$2")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^[-0-9]+|-+$/g, "");
  const short = plain
    .replace(/^(mcp-server|server-mcp|mcp|server)-/, "")
    .replace(/-(mcp-server|server-mcp|mcp|server)$/, "");
  return (/^[a-z]/.test(short) ? short : plain).slice(0, 40).replace(/-+$/, "");
}
