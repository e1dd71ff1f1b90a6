/** Where MCP clients keep their settings. */
import { join } from "node:path";

export interface Machine {
  readonly home: string;
  /** The current project. */
  readonly cwd: string;
  readonly platform: NodeJS.Platform;
  readonly env: Readonly<Record<string, string | undefined>>;
}

type Locations = (machine: Machine) => readonly string[];

/** The folder where desktop programs keep their settings. */
function programs({ home, platform, env }: Machine): string {
  if (platform === "darwin") return join(home, "Library", "Application Support");
  if (platform === "win32") return env["APPDATA"] ?? join(home, "AppData", "Roaming");
  return env["XDG_CONFIG_HOME"] ?? join(home, ".config");
}

const claudeCode: Locations = ({ cwd, home }) => [join(cwd, ".mcp.json"), join(home, ".claude.json")];
const claudeDesktop: Locations = (machine) => [join(programs(machine), "Claude", "claude_desktop_config.json")];
const codeUser = (machine: Machine, ...rest: string[]) => join(programs(machine), "Code", "User", ...rest);

/** Each client's files, the one that wins first. */
export const CLIENTS: Readonly<Record<string, Locations>> = {
  claude: (machine) => [...claudeCode(machine), ...claudeDesktop(machine)],
  "claude-code": claudeCode,
  "claude-desktop": claudeDesktop,
  cursor: ({ cwd, home }) => [join(cwd, ".cursor", "mcp.json"), join(home, ".cursor", "mcp.json")],
  vscode: (machine) => [join(machine.cwd, ".vscode", "mcp.json"), codeUser(machine, "mcp.json")],
  windsurf: ({ home }) => [join(home, ".codeium", "windsurf", "mcp_config.json")],
  gemini: ({ cwd, home }) => [join(cwd, ".gemini", "settings.json"), join(home, ".gemini", "settings.json")],
  antigravity: ({ home }) => [join(home, ".gemini", "antigravity", "mcp_config.json")],
  copilot: ({ home }) => [join(home, ".copilot", "mcp-config.json")],
  codex: ({ cwd, home }) => [join(cwd, ".codex", "config.toml"), join(home, ".codex", "config.toml")],
  zed: ({ cwd, home }) => [join(cwd, ".zed", "settings.json"), join(home, ".config", "zed", "settings.json")],
  opencode: ({ cwd, home }) => [join(cwd, "opencode.json"), join(home, ".config", "opencode", "opencode.json")],
  goose: ({ home }) => [join(home, ".config", "goose", "config.yaml")],
  continue: ({ cwd, home }) => [join(cwd, ".continue", "config.yaml"), join(home, ".continue", "config.yaml")],
  cline: (machine) => [
    codeUser(machine, "globalStorage", "saoudrizwan.claude-dev", "settings", "cline_mcp_settings.json"),
  ],
  roo: (machine) => [
    join(machine.cwd, ".roo", "mcp.json"),
    codeUser(machine, "globalStorage", "rooveterinaryinc.roo-cline", "settings", "mcp_settings.json"),
  ],
  amp: ({ cwd, home }) => [join(cwd, ".amp", "settings.json"), join(home, ".config", "amp", "settings.json")],
  kiro: ({ cwd, home }) => [join(cwd, ".kiro", "settings", "mcp.json"), join(home, ".kiro", "settings", "mcp.json")],
  lmstudio: ({ home }) => [join(home, ".lmstudio", "mcp.json")],
};
