/** Writes a settings file from the MCP settings of a client. Secrets stay behind: the file refers to them by name. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { type ParseError, parse as parseJsonc, printParseErrorCode } from "jsonc-parser";
import { Document, parse as parseYaml, type YAMLMap } from "yaml";
import { DrawbridgeError } from "../core/errors.ts";
import { looksSecret } from "./checks.ts";
import { CLIENTS, type Machine } from "./clients.ts";
import { nameOfCommand, simpleName } from "./defaults.ts";
import { isRecord, nearest, valueAt } from "./problems.ts";

export interface ImportedSettings {
  /** The text of a `drawbridge.yaml`. */
  readonly text: string;
  /** The files it came from. */
  readonly sources: readonly string[];
  /** Secrets that the file refers to and nobody has provided yet, and where each stood. */
  readonly secrets: readonly { readonly name: string; readonly stoodIn: string }[];
  /** What was left out or needs a look, in sentences. */
  readonly notes: readonly string[];
  readonly servers: readonly string[];
  /** The entries of `servers:` in `text`. */
  readonly entries: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

/**
 * Reads the settings of a client, given its name (`claude`, `cursor`, `vscode`, …) or the path of a file in any of their spellings.
 * Values that look like secrets never reach the result. Throws `settings_invalid` when there is nothing to read.
 */
export async function importClientSettings(source: string, machine: Machine): Promise<ImportedSettings> {
  const files = locate(source, machine);
  const result = new Collected(machine);
  for (const file of files) {
    const content = parseSettings(file, await readFile(file, "utf8"));
    const secretInputs = passwordInputs(content);
    for (const [name, entry] of serverEntries(content, machine.cwd)) result.add(name, entry, secretInputs, file);
  }
  if (result.servers.size === 0)
    throw new DrawbridgeError(
      "settings_invalid",
      `No MCP server was found in ${files.join(", ")}.${result.notes.map((note) => `\n${note}`).join("")}`,
    );
  return {
    text: result.yaml(files),
    sources: files,
    secrets: result.secrets,
    notes: result.notes,
    servers: [...result.servers.keys()],
    entries: Object.fromEntries([...result.servers].map(([name, { settings }]) => [name, settings])),
  };
}

function locate(source: string, machine: Machine): readonly string[] {
  const locations = Object.hasOwn(CLIENTS, source) ? CLIENTS[source] : undefined;
  if (locations === undefined) {
    if (existsSync(source)) return [source];
    const near = nearest(source, Object.keys(CLIENTS));
    throw new DrawbridgeError(
      "settings_invalid",
      `There is no file ${source}, and no client of this name${near === undefined ? "" : `; did you mean "${near}"?`} Known clients: ${Object.keys(CLIENTS).join(", ")}.`,
    );
  }
  const candidates = locations(machine);
  const present = candidates.filter((file) => existsSync(file));
  if (present.length === 0)
    throw new DrawbridgeError(
      "settings_invalid",
      `No settings of ${source} were found. Looked for ${candidates.join(", ")}.`,
    );
  return present;
}

function parseSettings(file: string, text: string): unknown {
  if (/\.toml$/i.test(file)) {
    throw new DrawbridgeError(
      "settings_invalid",
      `${file} is TOML, which is not read. Write its servers as { "mcpServers": { "<name>": { "command": …, "args": […] } } } in a JSON file and import that.`,
    );
  }
  if (/\.ya?ml$/i.test(file)) {
    try {
      return parseYaml(text, { maxAliasCount: 100, prettyErrors: false });
    } catch {
      throw new DrawbridgeError("settings_invalid", `${file} is not valid YAML.`);
    }
  }
  const errors: ParseError[] = [];
  const parsed: unknown = parseJsonc(text.replace(/^\uFEFF/, ""), errors, { allowTrailingComma: true });
  const first = errors[0];
  if (first !== undefined) {
    const line = text.slice(0, first.offset).split("\n").length;
    throw new DrawbridgeError(
      "settings_invalid",
      `${file}:${line} is not valid JSON: ${printParseErrorCode(first.error)}.`,
    );
  }
  return parsed;
}

/** Every spelling of "here are the servers", in the order of preference. */
const SERVER_KEYS: readonly (readonly string[])[] = [
  ["mcpServers"],
  ["servers"],
  ["context_servers"],
  ["mcp", "servers"],
  ["mcp"],
  ["amp.mcpServers"],
  ["extensions"],
];

function serverEntries(content: unknown, cwd: string): [string, Record<string, unknown>][] {
  // Claude Code keeps a project's private servers under the project's path.
  const places = [["projects", cwd, "mcpServers"], ...SERVER_KEYS];
  const found = places.flatMap((path): [string, Record<string, unknown>][] => {
    const value = valueAt(content, path);
    if (Array.isArray(value)) return value.filter(isRecord).map((entry) => [String(entry["name"] ?? ""), entry]);
    return isRecord(value)
      ? Object.entries(value).filter((pair): pair is [string, Record<string, unknown>] => isRecord(pair[1]))
      : [];
  });
  const isServer = (entry: Record<string, unknown>) =>
    [...COMMAND_KEYS, ...URL_KEYS].some((key) => entry[key] !== undefined);
  const entries = found.filter(([, entry]) => isServer(entry));
  // A file may also be the bare map of servers, or one server.
  if (entries.length > 0 || !isRecord(content)) return entries;
  if (isServer(content)) return [["", content]];
  return Object.entries(content).filter(
    (pair): pair is [string, Record<string, unknown>] => isRecord(pair[1]) && isServer(pair[1]),
  );
}

const COMMAND_KEYS = ["command", "cmd"] as const;
/** Streamable HTTP first: Gemini's `url` is the older SSE transport when `httpUrl` stands beside it. */
const URL_KEYS = ["httpUrl", "serverUrl", "url", "uri"] as const;

function passwordInputs(content: unknown): ReadonlyMap<string, boolean> {
  const inputs = valueAt(content, ["inputs"]);
  return new Map(
    (Array.isArray(inputs) ? inputs : [])
      .filter(isRecord)
      .map((input) => [String(input["id"]), input["password"] === true]),
  );
}

interface Server {
  readonly settings: Record<string, unknown>;
  readonly comments: readonly string[];
}

class Collected {
  readonly servers = new Map<string, Server>();
  readonly notes: string[] = [];
  readonly secrets: { name: string; stoodIn: string }[] = [];
  readonly #secretValues = new Map<string, string>();
  readonly #machine: Machine;
  constructor(machine: Machine) {
    this.#machine = machine;
  }

  add(given: string, entry: Record<string, unknown>, inputs: ReadonlyMap<string, boolean>, file: string): void {
    const command = commandOf(entry);
    const url = URL_KEYS.map((key) => entry[key]).find((value) => typeof value === "string");
    const name = simpleName(given) || (command === undefined ? "server" : nameOfCommand(command));
    const label = given === "" ? name : given;
    if (entry["disabled"] === true || entry["enabled"] === false) {
      this.notes.push(`${label} is switched off in ${file} and was left out.`);
      return;
    }
    if (this.servers.has(name)) {
      this.notes.push(`${label} of ${file} was left out: a server of this name was read before.`);
      return;
    }
    const translate = (text: string, place: string) => this.#translate(text, inputs, `${label} ${place}`);
    const settings: Record<string, unknown> = {};
    const comments: string[] = [];
    if (command !== undefined) {
      settings["command"] = this.#command(name, command, label, translate);
      if (typeof entry["cwd"] === "string") settings["cwd"] = translate(entry["cwd"], "cwd");
      const environment = this.#values(name, [entry["env"], entry["environment"], entry["envs"]], label, translate);
      if (Object.keys(environment).length > 0) settings["environment"] = environment;
      const floating = floatingVersion(command);
      if (floating !== undefined)
        comments.push(`${floating} has no version: each start may run other code than the one you reviewed. Pin it.`);
    } else if (url !== undefined) {
      settings["url"] = this.#url(name, translate(url, "url"), label);
      const headers = this.#values(name, [entry["headers"], entry["http_headers"]], label, translate);
      if (Object.keys(headers).length > 0) settings["headers"] = headers;
      if (/sse/i.test(String(entry["type"] ?? entry["transport"] ?? ""))) {
        comments.push(
          "The client used the old HTTP+SSE transport. Drawbridge speaks Streamable HTTP: ask the server's documentation for that URL.",
        );
        this.notes.push(`${label} used HTTP+SSE; its URL may have to change.`);
      }
    }
    const timeout = entry["timeout"];
    // Gemini and Claude count milliseconds, Cline and Goose seconds.
    if (typeof timeout === "number" && timeout > 0)
      settings["timeoutSeconds"] = timeout >= 1000 ? timeout / 1000 : timeout;
    if (typeof entry["envFile"] === "string")
      this.notes.push(`${label} reads more environment from ${entry["envFile"]}; add what it needs under environment.`);
    if (entry["headersHelper"] !== undefined || entry["oauth"] !== undefined || entry["auth"] !== undefined) {
      this.notes.push(
        `${label} signs in to its server by a way of its client; give Drawbridge a credential for it under headers.`,
      );
    }
    this.servers.set(name, { settings, comments });
  }

  yaml(files: readonly string[]): string {
    const document = new Document({
      servers: Object.fromEntries([...this.servers].map(([name, { settings }]) => [name, settings])),
    });
    const map = document.get("servers") as YAMLMap;
    for (const pair of map.items) {
      const key = pair.key as { value: string; commentBefore?: string };
      const comments = this.servers.get(key.value)?.comments ?? [];
      if (comments.length > 0) key.commentBefore = comments.map((line) => ` ${line}`).join("\n");
    }
    const head = [
      "# yaml-language-server: $schema=./node_modules/drawbridge-mcp/schema/config.schema.json",
      `# Imported from ${files.join(", ")}`,
    ];
    if (this.secrets.length > 0) {
      head.push(
        "# Provide each secret as the file secrets/<name> beside this file (chmod 600), or as an environment variable:",
      );
      head.push(...this.secrets.map(({ name, stoodIn }) => `#   ${name}: stood in ${stoodIn}`));
    }
    return `${head.join("\n")}\n${document.toString({ lineWidth: 0 })}`;
  }

  #command(
    name: string,
    command: readonly string[],
    label: string,
    translate: (text: string, place: string) => string,
  ): string[] {
    return command.map((word, index) => {
      const option = /^(--?[A-Za-z0-9_-]+)=(.+)$/s.exec(word);
      // Only a plain option names the value after it: the word before could be a secret itself.
      const before = /^(--[A-Za-z][A-Za-z-]{0,30}|-[A-Za-z])$/.exec(command[index - 1] ?? "")?.[0] ?? "";
      const [key, value] = option === null ? [before, word] : [option[1] ?? "", option[2] ?? ""];
      const literal = !/^\$?\{|^\$/.test(value);
      if (
        literal &&
        (index > 0 && key !== "" && !value.startsWith("-")
          ? looksSecret(key.replace(/^-+/, ""), value)
          : looksSecret("", value))
      ) {
        const variable = `${name}_${key.replace(/^-+/, "") || "argument"}`.toUpperCase().replaceAll(/[^A-Z0-9]+/g, "_");
        this.notes.push(
          `${label} has a secret among its arguments, where every user of the machine can read it. The file refers to the environment variable ${variable}; better give it by environment, if the server can take it there.`,
        );
        return option === null ? `\${env:${variable}}` : `${key}=\${env:${variable}}`;
      }
      return translate(word, "command");
    });
  }

  #url(name: string, url: string, label: string): string {
    return url.replaceAll(/([?&])([^=&#]+)=([^&#]*)/g, (all, mark: string, key: string, value: string) => {
      if (value.startsWith("${") || !looksSecret(key, value)) return all;
      const variable = `${name}_${key}`.toUpperCase().replaceAll(/[^A-Z0-9]+/g, "_");
      this.notes.push(
        `${label} has a secret in its URL, where logs can keep it. The file refers to the environment variable ${variable}; better send it as a header, if the server can take it there.`,
      );
      return `${mark}${key}=\${env:${variable}}`;
    });
  }

  #values(
    name: string,
    maps: readonly unknown[],
    label: string,
    translate: (text: string, place: string) => string,
  ): Record<string, string> {
    const out: Record<string, string> = {};
    for (const [key, value] of maps.filter(isRecord).flatMap((map) => Object.entries(map))) {
      if (value === null || typeof value === "object") continue;
      const text = String(value);
      const scheme = /^(Bearer|Basic|Token)\s+/i.exec(text)?.[0] ?? "";
      const rest = text.slice(scheme.length);
      const isReference = /^\$?\{[^}]+\}$|^\$[A-Z_][A-Z0-9_]*$/.test(rest);
      out[key] =
        !isReference && looksSecret(key, text)
          ? `${scheme}\${secret:${this.#secretName(name, key, rest, label)}}`
          : translate(text, key);
    }
    return out;
  }

  /** One name for each value: the key's, with the server's before it where another value has that name. */
  #secretName(server: string, key: string, value: string, label: string): string {
    const plain = /^(authorization|cookie)$/i.test(key)
      ? `${server}-token`
      : key
          .toLowerCase()
          .replaceAll(/[^a-z0-9]+/g, "-")
          .replaceAll(/^-+|-+$/g, "");
    const name =
      [plain, `${server}-${plain}`].find((one) => (this.#secretValues.get(one) ?? value) === value) ??
      `${server}-${plain}-${this.#secretValues.size}`;
    if (!this.#secretValues.has(name)) {
      this.#secretValues.set(name, value);
      this.secrets.push({ name, stoodIn: `${label} ${key}` });
    }
    return name;
  }

  /** Client spellings of references into ours; any other `${` is kept as the characters it is. */
  #translate(text: string, inputs: ReadonlyMap<string, boolean>, place: string): string {
    return text.replaceAll(
      /\$\{([^{}]*)\}|(?<![${])\{env:([A-Za-z_][A-Za-z0-9_]*)\}|^\$([A-Z_][A-Z0-9_]*)$/g,
      (all, body: string | undefined, opencode: string | undefined, bare: string | undefined) => {
        const variable = opencode ?? bare;
        if (variable !== undefined) return `\${env:${variable}}`;
        const inside = body ?? "";
        const input = /^input:(.+)$/.exec(inside)?.[1];
        if (input !== undefined) {
          const plain = input.replaceAll(/[^A-Za-z0-9_.-]/g, "-");
          if (inputs.get(input) === false && !looksSecret(input, "value"))
            return `\${env:${plain.toUpperCase().replaceAll(/[^A-Z0-9]/g, "_")}}`;
          if (!this.secrets.some((one) => one.name === plain))
            this.secrets.push({ name: plain, stoodIn: `an input that the client asked for (${place})` });
          return `\${secret:${plain}}`;
        }
        if (/^(workspaceFolder|workspaceRoot)$/.test(inside)) return this.#machine.cwd;
        if (/^(userHome|HOME)$/.test(inside)) return this.#machine.home;
        if (inside === "pathSeparator" || inside === "/") return this.#machine.platform === "win32" ? "\\" : "/";
        if (/^env:[A-Za-z_][A-Za-z0-9_]*(:-.*)?$/s.test(inside)) return all;
        if (/^[A-Za-z_][A-Za-z0-9_]*(:-.*)?$/s.test(inside)) return `\${env:${inside}}`;
        this.notes.push(`${place}: \${${inside}} is a reference that only the client knows; replace it.`);
        return `$${all}`;
      },
    );
  }
}

function commandOf(entry: Record<string, unknown>): string[] | undefined {
  const command = COMMAND_KEYS.map((key) => entry[key]).find((value) => value !== undefined);
  const args = Array.isArray(entry["args"]) ? entry["args"].map(String) : [];
  if (Array.isArray(command)) return [...command.map(String), ...args];
  // Older Zed: { "command": { "path": …, "args": […], "env": … } }.
  if (isRecord(command) && typeof command["path"] === "string")
    return [command["path"], ...(Array.isArray(command["args"]) ? command["args"].map(String) : []), ...args];
  return typeof command === "string" && command.trim() !== "" ? [command, ...args] : undefined;
}

/** The package or image of a command that a registry may change under it. */
function floatingVersion(command: readonly string[]): string | undefined {
  const program = (command[0] ?? "").split(/[\\/]/).at(-1) ?? "";
  const words = command.slice(1).filter((word) => !word.startsWith("-") && !/^(dlx|x|exec|run|tool|-y)$/.test(word));
  const first = words[0];
  if (first === undefined) return undefined;
  if (/^(npx|bunx|pnpx|pnpm|yarn|npm)(\.cmd)?$/.test(program))
    return /.@(\^|~|latest|next|\*|>|<)?[^@]*$/.test(first) && /.@\d/.test(first) ? undefined : first;
  if (/^(uvx|pipx|uv)$/.test(program)) return /==|@\d/.test(first) ? undefined : first;
  if (/^(docker|podman)$/.test(program)) {
    const image = command.find((word) => /^[a-z0-9][\w.-]*(\/[\w.-]+)+(:[\w.-]+)?(@sha256:\w+)?$/.test(word)) ?? first;
    return /:(?!latest)[\w.-]+$|@sha256:/.test(image) ? undefined : image;
  }
  return undefined;
}
