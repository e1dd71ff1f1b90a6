/** `drawbridge discover`: an inventory of made-up homes. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { packagesRun } from "../../src/cli/discover/machine.ts";
import { run } from "./terminal.ts";

const folders: string[] = [];
afterAll(() => folders.forEach((folder) => void rmSync(folder, { recursive: true })));

const GITHUB_TOKEN = `ghp_${"a1B2".repeat(9)}`;
const BEARER = "s3cr3t-of-linear-9f8e7d6c5b4a";
const ARGUMENT = "k-0123456789abcdef0123456789abcdef";
const PASSWORD = "hunter2hunter2";

/** A home and a project with these files; paths that begin with ~ are in the home. */
function machine(files: Readonly<Record<string, unknown>>) {
  const folder = mkdtempSync(join(tmpdir(), "discover-"));
  folders.push(folder);
  const home = join(folder, "home");
  const cwd = join(folder, "project");
  mkdirSync(home);
  mkdirSync(cwd);
  const write = (name: string, content: unknown) => {
    const file = name.startsWith("~/") ? join(home, name.slice(2)) : join(cwd, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, typeof content === "string" ? content : JSON.stringify(content));
    return file;
  };
  for (const [name, content] of Object.entries(files)) write(name, content);
  const discover = (...argv: string[]) => run(["discover", ...argv], { home, cwd });
  return {
    home,
    cwd,
    write,
    discover,
    async inventory(...argv: string[]) {
      const { code, stdout, stderr } = await discover(...argv, "--format", "json");
      if (!stdout.startsWith("{")) throw new Error(stderr);
      return { code, ...JSON.parse(stdout) };
    },
  };
}

const FILES = {
  "~/.config/Claude/claude_desktop_config.json": {
    mcpServers: {
      github: { command: "npx", args: ["-y", "@modelcontextprotocol/server-github"], env: { GITHUB_TOKEN } },
      time: { command: "uvx", args: ["mcp-server-time==2026.8.31"] },
    },
  },
  "~/.cursor/mcp.json": {
    mcpServers: {
      // The same token under the same name: it stands there all the same.
      "My Tools": { command: "npx", args: ["-y", "@modelcontextprotocol/server-github@1.0.0"], env: { GITHUB_TOKEN } },
      linear: {
        url: "https://mcp.linear.example/mcp?api_key=abcdef1234567890",
        headers: { Authorization: `Bearer ${BEARER}` },
      },
      mailer: { command: "npx", args: ["-y", "postmark-mcp@1.0.16", "--api-key", ARGUMENT] },
    },
  },
  ".vscode/mcp.json":
    '{ "servers": { "plain": { "url": "http://user:hunter2hunter2@mcp.example.com/mcp" }, }, /* a comment */ }',
  "~/.codeium/windsurf/mcp_config.json": {
    mcpServers: {
      remote: {
        command: "npx",
        args: ["mcp-remote@0.1.38", "https://a.example", "--header", `Authorization: Bearer ${BEARER}`],
      },
      off: { command: "node", args: ["x.js"], disabled: true },
    },
  },
  "~/.gemini/settings.json": { theme: "dark" },
};

test("every client's servers are listed, with what they run, their versions and their verdict", async () => {
  const { servers, unread, notes, code } = await machine(FILES).inventory();
  const row = ({ client, server, runs, pinned, verdict }: Record<string, unknown>) => [
    client,
    server,
    runs,
    pinned,
    verdict,
  ];
  expect(servers.map(row)).toEqual([
    ["claude-desktop", "github", "npx -y @modelcontextprotocol/server-github", false, expect.any(String)],
    ["claude-desktop", "time", "uvx mcp-server-time==2026.8.31", true, "clean"],
    ["cursor", "my-tools", "npx -y @modelcontextprotocol/server-github@1.0.0", true, expect.any(String)],
    ["cursor", "linear", "https://mcp.linear.example/mcp?api_key=…", null, expect.any(String)],
    ["cursor", "mailer", expect.stringMatching(/^npx -y postmark-mcp@1\.0\.16 --api-key /), true, "block"],
    ["vscode", "plain", "http://mcp.example.com/mcp", null, "block"],
    ["windsurf", "remote", expect.stringContaining("npx mcp-remote@0.1.38 https://a.example --header"), true, "review"],
  ]);
  expect(unread).toEqual([]);
  expect(notes.join("\n")).toContain("off is switched off");
  expect(code).toBe(0);
});

test("where a secret stands is said, and the secret never, in no format and no file", async () => {
  const { inventory, discover, cwd } = machine(FILES);
  const { servers } = await inventory();
  const secrets = Object.fromEntries(
    servers.map(({ server, secrets }: { server: string; secrets: string[] }) => [server, secrets.length]),
  );
  expect(secrets).toMatchObject({ github: 1, time: 0, "my-tools": 1, linear: 2, mailer: 1, remote: 1 });
  const outputs = [
    ...(await Promise.all([discover(), discover("--format", "json"), discover("--write-approved", "list.yaml")])),
  ].flatMap(({ stdout, stderr }) => [stdout, stderr]);
  const everything = [...outputs, readFileSync(join(cwd, "list.yaml"), "utf8")].join("\n");
  for (const secret of [GITHUB_TOKEN, BEARER, ARGUMENT, PASSWORD, "abcdef1234567890"])
    expect(everything).not.toContain(secret);
});

describe("compared with a list of approved servers", () => {
  test("what was written as approved is approved, also on a machine with another home", async () => {
    const one = machine(FILES);
    expect((await one.discover("--write-approved", "list.yaml")).code).toBe(0);
    const { code, servers, gone } = await one.inventory("--approved", "list.yaml");
    expect({ code, gone }).toEqual({ code: 0, gone: [] });
    expect(new Set(servers.map(({ approval }: { approval: string }) => approval))).toEqual(new Set(["approved"]));

    const inHome = (home: string) => ({
      "~/.cursor/mcp.json": { mcpServers: { own: { command: `${home}/bin/own-mcp` } } },
    });
    const first = machine({});
    first.write("~/.cursor/mcp.json", inHome(first.home)["~/.cursor/mcp.json"]);
    await first.discover("--write-approved", "list.yaml");
    const second = machine({ "list.yaml": readFileSync(join(first.cwd, "list.yaml"), "utf8") });
    second.write("~/.cursor/mcp.json", inHome(second.home)["~/.cursor/mcp.json"]);
    expect((await second.inventory("--approved", "list.yaml")).code).toBe(0);
  });

  test("what is new, what changed and what is gone is shown, and the exit code is 1", async () => {
    const { write, discover, inventory } = machine({
      "~/.cursor/mcp.json": {
        mcpServers: {
          kept: { command: "npx", args: ["kept-mcp@1.0.0"] },
          moved: { command: "npx", args: ["moved-mcp@1.0.0"], env: { LEVEL: "info" } },
          left: { command: "node", args: ["left.js"] },
        },
      },
    });
    await discover("--write-approved", "list.yaml");
    write("~/.cursor/mcp.json", {
      mcpServers: {
        kept: { command: "npx", args: ["kept-mcp@1.0.0"] },
        moved: { command: "npx", args: ["moved-mcp@1.0.1"], env: { LEVEL: "info" } },
        added: { url: "https://added.example/mcp" },
      },
    });
    const { code, servers, gone } = await inventory("--approved", "list.yaml");
    expect(code).toBe(1);
    expect(servers.map(({ server, approval, owasp }: Record<string, string>) => [server, approval, owasp])).toEqual([
      ["kept", "approved", undefined],
      ["moved", "changed", "MCP09"],
      ["added", "new", "MCP09"],
    ]);
    expect(gone.map(({ server }: { server: string }) => server)).toEqual(["left"]);
    const { stdout } = await discover("--approved", "list.yaml");
    expect(stdout).toContain("gone: left of cursor");
    expect(stdout).toContain("3 servers in the settings of clients: 1 approved, 1 new, 1 changed");
  });

  test("a changed value of the environment is no other server, a further name is", async () => {
    const entry = (env: object) => ({ mcpServers: { one: { command: "node", args: ["one.js"], env } } });
    const { write, discover, inventory } = machine({ "~/.cursor/mcp.json": entry({ LEVEL: "info" }) });
    await discover("--write-approved", "list.yaml");
    write("~/.cursor/mcp.json", entry({ LEVEL: "debug" }));
    expect((await inventory("--approved", "list.yaml")).code).toBe(0);
    write("~/.cursor/mcp.json", entry({ LEVEL: "info", NODE_OPTIONS: "--require ./x.js" }));
    expect((await inventory("--approved", "list.yaml")).code).toBe(1);
  });

  test("an entry without a client fits any", async () => {
    const { inventory, discover, write, cwd } = machine({ "~/.cursor/mcp.json": FILES["~/.cursor/mcp.json"] });
    await discover("--write-approved", "list.yaml");
    write("list.yaml", readFileSync(join(cwd, "list.yaml"), "utf8").replaceAll(/client: cursor\n\s+/g, ""));
    write("~/.kiro/settings/mcp.json", FILES["~/.cursor/mcp.json"]);
    expect((await inventory("--approved", "list.yaml")).code).toBe(0);
  });

  test("writing keeps what was approved for other machines", async () => {
    const { discover, write, cwd } = machine({ "~/.cursor/mcp.json": FILES["~/.cursor/mcp.json"] });
    await discover("--write-approved", "list.yaml");
    write("~/.cursor/mcp.json", { mcpServers: { only: { command: "node", args: ["only.js"] } } });
    await discover("--write-approved", "list.yaml");
    const text = readFileSync(join(cwd, "list.yaml"), "utf8");
    for (const name of ["only", "mailer", "linear"]) expect(text).toContain(`server: ${name}`);
  });

  test.each([
    ["is not there", undefined],
    ["is no YAML", "a: [b"],
    ["is of another format", "drawbridgeApproved: 2\nservers: []\n"],
    ["has a fingerprint that is none", "drawbridgeApproved: 1\nservers: [{ server: a, runs: b, fingerprint: c }]\n"],
  ])("a list that %s is wrong usage", async (_, content) => {
    const { discover, write } = machine({});
    if (content !== undefined) write("list.yaml", content);
    const { code, stderr } = await discover("--approved", "list.yaml");
    expect(code).toBe(2);
    expect(stderr).toContain("list.yaml");
  });
});

test("projects that Claude Code knows are looked at, each file once", async () => {
  const { home, write, inventory } = machine({});
  const project = join(home, "src", "shop");
  write("~/src/shop/.mcp.json", { mcpServers: { shared: { command: "node", args: ["shared.js"] } } });
  write("~/src/shop/.cursor/mcp.json", { mcpServers: { editor: { command: "node", args: ["editor.js"] } } });
  write("~/.claude.json", {
    mcpServers: { everywhere: { command: "node", args: ["everywhere.js"] } },
    projects: { [project]: { mcpServers: { private: { command: "node", args: ["private.js"] } } } },
  });
  const { servers } = await inventory();
  expect(servers.map(({ server }: { server: string }) => server).sort()).toEqual([
    "editor",
    "everywhere",
    "private",
    "shared",
  ]);
});

test("settings that cannot be read are named, hide nothing else, and are not approved", async () => {
  const { inventory, discover } = machine({
    "~/.cursor/mcp.json": "{ not JSON",
    "~/.codex/config.toml": '[mcp_servers.hidden]\ncommand = "npx"\n',
    "~/.kiro/settings/mcp.json": { mcpServers: { one: { command: "node", args: ["one.js"] } } },
  });
  const { servers, unread, code } = await inventory();
  expect(code).toBe(0);
  expect(servers).toHaveLength(1);
  expect(unread.map(({ file }: { file: string }) => file.split("/").at(-1)).sort()).toEqual([
    "config.toml",
    "mcp.json",
  ]);
  await discover("--write-approved", "list.yaml");
  expect((await inventory("--approved", "list.yaml")).code).toBe(1);
});

test("a file of another format that names no server is no trouble", async () => {
  const { inventory } = machine({ "~/.codex/config.toml": 'model = "large"\n' });
  expect(await inventory()).toMatchObject({ code: 0, unread: [], servers: [] });
});

test("a machine without clients has nothing", async () => {
  const { code, stdout } = await machine({}).discover();
  expect({ code, stdout }).toEqual({ code: 0, stdout: "No client on this machine is set up to run an MCP server.\n" });
});

test("what runs now, or waits in the cache of npx, is named by its package and never by its arguments", async () => {
  const { home, write, cwd } = machine({
    "~/.npm/_npx/abc/package.json": { dependencies: { "some-mcp": "^1.0.0", leftpad: "1.0.0" } },
    "~/.npm/_npx/def/package.json": "{",
  });
  const words = ["node", `${home}/x/node_modules/@acme/orders-mcp/dist/index.js`, "--api-key", ARGUMENT];
  write("proc/42/cmdline", `${words.join("\0")}\0`);
  write("proc/43/cmdline", "vim\0mcp.md\0");
  write("proc/meminfo/x", "");
  const found = await packagesRun({ home }, join(cwd, "proc"));
  expect(found).toContainEqual({ where: "running", what: "@acme/orders-mcp" });
  expect(found).toContainEqual({ where: "cache of npx", what: "some-mcp" });
  expect(JSON.stringify(found)).not.toContain(ARGUMENT);
  expect(JSON.stringify(found)).not.toContain("leftpad");
});
