/** What clients have in their settings becomes a settings file of ours, without its secrets. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { CLIENTS } from "../../src/config/clients.ts";
import { type ImportedSettings, importClientSettings } from "../../src/config/import.ts";
import { loadSettings } from "../../src/config/load.ts";

const folder = mkdtempSync(join(tmpdir(), "drawbridge-import-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const machine = { home: join(folder, "home"), cwd: join(folder, "project"), platform: "linux", env: {} } as const;

let count = 0;
/** Imports a file of this content and proves that the result is a settings file without problems. */
async function imported(
  content: string | object,
  ending = "json",
): Promise<ImportedSettings & { servers: readonly string[]; settings: Record<string, unknown> }> {
  const file = join(folder, `settings-${count++}.${ending}`);
  writeFileSync(file, typeof content === "string" ? content : JSON.stringify(content));
  const result = await importClientSettings(file, machine);
  const target = join(folder, `drawbridge-${count++}.yaml`);
  writeFileSync(target, result.text);
  const env = new Proxy({} as Record<string, string>, { get: (_, name) => `value-of-${String(name)}` });
  await loadSettings(target, { env, readSecret: async (name) => `secret-${name}` });
  return { ...result, settings: (parse(result.text) as { servers: Record<string, unknown> }).servers };
}

const stdio = { command: "npx", args: ["-y", "@acme/orders-mcp@1.4.2"] };
const expected = { orders: { command: ["npx", "-y", "@acme/orders-mcp@1.4.2"] } };

describe("every spelling of a client's settings is read", () => {
  test.each<[string, string | object, string?]>([
    ["Claude and Cursor", { mcpServers: { orders: stdio } }],
    [
      "VS Code, with comments and trailing commas",
      `{\n  // servers\n  "servers": { "orders": { "type": "stdio", "command": "npx", "args": ["-y", "@acme/orders-mcp@1.4.2"], }, }, /* end */ }`,
    ],
    ["VS Code user settings", { mcp: { servers: { orders: stdio } } }],
    ["Zed", { context_servers: { orders: { source: "custom", ...stdio } } }],
    ["older Zed", { context_servers: { orders: { command: { path: "npx", args: stdio.args } } } }],
    ["OpenCode", { mcp: { orders: { type: "local", command: ["npx", ...stdio.args] } } }],
    ["Amp", { "amp.mcpServers": { orders: stdio } }],
    ["a bare map of servers", { orders: stdio }],
    ["one server", stdio],
    ["a byte order mark", `\uFEFF${JSON.stringify({ mcpServers: { orders: stdio } })}`],
    [
      "Goose",
      "extensions:\n  orders:\n    type: stdio\n    cmd: npx\n    args: [-y, '@acme/orders-mcp@1.4.2']\n",
      "yaml",
    ],
    ["Continue", "mcpServers:\n  - name: orders\n    command: npx\n    args: [-y, '@acme/orders-mcp@1.4.2']\n", "yaml"],
  ])("%s", async (_, content, ending) => {
    expect((await imported(content, ending)).settings).toEqual(expected);
  });

  test.each(["url", "serverUrl", "httpUrl", "uri"])("a remote server under %s", async (key) => {
    const { settings } = await imported({ mcpServers: { tickets: { [key]: "https://tickets.example/mcp" } } });
    expect(settings).toEqual({ tickets: { url: "https://tickets.example/mcp" } });
  });

  test("Gemini's httpUrl wins over its url, and its timeout is in milliseconds", async () => {
    const { settings } = await imported({
      mcpServers: { t: { url: "https://t.example/sse", httpUrl: "https://t.example/mcp", timeout: 30_000 } },
    });
    expect(settings).toEqual({ t: { url: "https://t.example/mcp", timeoutSeconds: 30 } });
  });
});

describe("secrets stay behind", () => {
  test("in environment and headers they become references, and the user is told which to provide", async () => {
    const result = await imported({
      mcpServers: {
        github: {
          command: "docker",
          args: ["run", "ghcr.io/github/github-mcp-server:v1.2"],
          env: { GITHUB_TOKEN: "ghp_hunter2hunter2hunter2", MODE: "read" },
        },
        tickets: {
          url: "https://t.example/mcp",
          headers: { Authorization: "Bearer hunter2", "X-Api-Key": "hunter2-too", Accept: "x" },
        },
        other: { command: "x", env: { GITHUB_TOKEN: "hunter2-another" } },
      },
    });
    expect(result.text).not.toMatch(/hunter2/i);
    expect(JSON.stringify(result)).not.toMatch(/hunter2/i);
    expect(result.settings).toMatchObject({
      github: { environment: { GITHUB_TOKEN: "${secret:github-token}", MODE: "read" } },
      tickets: {
        headers: { Authorization: "Bearer ${secret:tickets-token}", "X-Api-Key": "${secret:x-api-key}", Accept: "x" },
      },
      other: { environment: { GITHUB_TOKEN: "${secret:other-github-token}" } },
    });
    expect(result.secrets).toEqual([
      { name: "github-token", stoodIn: "github GITHUB_TOKEN" },
      { name: "tickets-token", stoodIn: "tickets Authorization" },
      { name: "x-api-key", stoodIn: "tickets X-Api-Key" },
      { name: "other-github-token", stoodIn: "other GITHUB_TOKEN" },
    ]);
    expect(result.text).toContain("#   github-token: stood in github GITHUB_TOKEN");
  });

  test("in arguments and URLs they become environment variables, with a warning", async () => {
    const result = await imported({
      mcpServers: {
        a: {
          command: "a",
          args: ["--api-key", "hunter2-hunter2", "--token=hunter2", "sk-hunter2hunter2hunter2", "--max-tokens", "5"],
        },
        b: { url: "https://b.example/mcp?api_key=hunter2&x=1" },
      },
    });
    expect(JSON.stringify(result)).not.toMatch(/hunter2/i);
    expect(result.settings).toEqual({
      a: {
        command: [
          "a",
          "--api-key",
          "${env:A_API_KEY}",
          "--token=${env:A_TOKEN}",
          "${env:A_ARGUMENT}",
          "--max-tokens",
          "5",
        ],
      },
      b: { url: "https://b.example/mcp?api_key=${env:B_API_KEY}&x=1" },
    });
    expect(result.notes.filter((note) => note.includes("has a secret"))).toHaveLength(4);
  });
});

test("references of clients become ours", async () => {
  const result = await imported({
    inputs: [
      { id: "gh", type: "promptString", password: true },
      { id: "region", type: "promptString" },
    ],
    servers: {
      a: {
        command: "node",
        args: [
          "${workspaceFolder}/x.js",
          "${userHome}",
          "${VAR}",
          "${VAR:-d}",
          "${env:E}",
          "${unknown:thing}",
          "{env:OPEN}",
        ],
        env: { GH_TOKEN: "${input:gh}", REGION: "${input:region}", KEY_TOKEN: "$FROM_SHELL" },
      },
    },
  });
  expect(result.settings).toEqual({
    a: {
      command: [
        "node",
        `${machine.cwd}/x.js`,
        machine.home,
        "${env:VAR}",
        "${env:VAR:-d}",
        "${env:E}",
        "$${unknown:thing}",
        "${env:OPEN}",
      ],
      environment: { GH_TOKEN: "${secret:gh}", REGION: "${env:REGION}", KEY_TOKEN: "${env:FROM_SHELL}" },
    },
  });
  expect(result.secrets.map(({ name }) => name)).toEqual(["gh"]);
  expect(result.notes).toEqual([expect.stringContaining("${unknown:thing}")]);
});

test("versions that may change are noted in the file, pinned ones are not", async () => {
  const { text } = await imported({
    mcpServers: {
      "floating-npx": { command: "npx", args: ["-y", "@acme/orders-mcp"] },
      "floating-latest": { command: "npx", args: ["-y", "orders@latest"] },
      "floating-uvx": { command: "uvx", args: ["mcp-server-git"] },
      "floating-image": { command: "docker", args: ["run", "-i", "mcp/git"] },
      "pinned-npx": { command: "npx", args: ["-y", "@acme/orders-mcp@1.4.2"] },
      "pinned-uvx": { command: "uvx", args: ["mcp-server-git==1.2"] },
      "pinned-image": { command: "docker", args: ["run", "-i", "mcp/git@sha256:ab12"] },
    },
  });
  const lines = text.split("\n");
  const noted = lines
    .filter((_, index) => /has no version/.test(lines[index - 1] ?? ""))
    .map((line) => line.trim().replace(":", ""));
  expect(noted).toEqual(["floating-npx", "floating-latest", "floating-uvx", "floating-image"]);
});

test("the file begins with its schema, so that editors help at once", async () => {
  expect((await imported({ mcpServers: { orders: stdio } })).text.split("\n")[0]).toBe(
    "# yaml-language-server: $schema=./node_modules/drawbridge-mcp/schema/config.schema.json",
  );
});

test("names become ones that settings accept; what is switched off or there twice is left out and said", async () => {
  const result = await imported({
    mcpServers: { "My Orders!": stdio, my_orders: stdio, off: { ...stdio, disabled: true } },
  });
  expect(result.servers).toEqual(["my-orders"]);
  expect(result.notes).toEqual([expect.stringContaining("my_orders"), expect.stringContaining("off is switched off")]);
});

describe("a client is found by its name", () => {
  test.each(Object.keys(CLIENTS).filter((name) => name !== "codex"))("%s", async (name) => {
    const own = { ...machine, home: join(folder, name, "home"), cwd: join(folder, name, "project") };
    const file = CLIENTS[name]?.(own).at(-1) ?? "";
    mkdirSync(dirname(file), { recursive: true });
    const yaml = file.endsWith(".yaml");
    writeFileSync(
      file,
      yaml
        ? "mcpServers: [{ name: orders, command: npx, args: [-y, '@acme/orders-mcp@1.4.2'] }]\n"
        : JSON.stringify({ mcpServers: { orders: stdio } }),
    );
    const result = await importClientSettings(name, own);
    expect(result.sources).toEqual([file]);
    expect(parse(result.text)).toEqual({ servers: expected });
  });

  test("on macOS and Windows in the folders of these systems", () => {
    const mac = CLIENTS["claude-desktop"]?.({ ...machine, platform: "darwin" });
    const windows = CLIENTS["vscode"]?.({ ...machine, platform: "win32", env: { APPDATA: "/appdata" } });
    expect(mac).toEqual([join(machine.home, "Library/Application Support/Claude/claude_desktop_config.json")]);
    expect(windows?.at(-1)).toBe(join("/appdata", "Code/User/mcp.json"));
  });

  test("Claude Code's private servers of the current project are read too, the project's own file first", async () => {
    const own = { ...machine, home: join(folder, "cc", "home"), cwd: join(folder, "cc", "project") };
    mkdirSync(own.home, { recursive: true });
    mkdirSync(own.cwd, { recursive: true });
    writeFileSync(join(own.cwd, ".mcp.json"), JSON.stringify({ mcpServers: { a: { command: "from-project" } } }));
    writeFileSync(
      join(own.home, ".claude.json"),
      JSON.stringify({
        mcpServers: { a: { command: "from-home" }, b: { command: "b" } },
        projects: {
          [own.cwd]: { mcpServers: { c: { command: "c" } } },
          "/else": { mcpServers: { d: { command: "d" } } },
        },
      }),
    );
    expect(parse((await importClientSettings("claude-code", own)).text)).toEqual({
      servers: { a: { command: ["from-project"] }, c: { command: ["c"] }, b: { command: ["b"] } },
    });
  });
});

describe("what cannot be read is said plainly", () => {
  test.each<[string, string, string, RegExp]>([
    ["TOML", "[mcp_servers.x]\n", "toml", /is TOML, which is not read/],
    ["broken JSON", '{\n "mcpServers": {\n', "json", /:3 is not valid JSON: CloseBraceExpected/],
    ["broken YAML", "a: [", "yaml", /is not valid YAML/],
    ["no servers", "{}", "json", /No MCP server was found in/],
  ])("%s", async (_, content, ending, message) => {
    const file = join(folder, `bad-${count++}.${ending}`);
    writeFileSync(file, content);
    await expect(importClientSettings(file, machine)).rejects.toThrow(message);
  });

  test("a name that is no client suggests the nearest", async () => {
    await expect(importClientSettings("cursr", machine)).rejects.toThrow(/did you mean "cursor"\?/);
  });

  test("a client without settings names the places that were looked at", async () => {
    await expect(importClientSettings("windsurf", { ...machine, home: "/nowhere" })).rejects.toThrow(
      "Looked for /nowhere/.codeium/windsurf/mcp_config.json",
    );
  });
});
