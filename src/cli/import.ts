/** `drawbridge import`: a settings file from what an MCP client already has. */
import { writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import { CLIENTS } from "../config/clients.ts";
import { importClientSettings } from "../config/import.ts";
import { secretVariable } from "../config/references.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { painter, type Terminal } from "./terminal.ts";

export function define(command: Command, terminal: Terminal): void {
  command
    .argument("<client|file>", "a client's name, or a file with its settings (JSON, JSON with comments, YAML)")
    .option("-o, --output <file>", "write to this file instead of standard output")
    .option("--force", "replace the file if it is there")
    .addHelpText(
      "after",
      `
Clients: ${Object.keys(CLIENTS).join(", ")}

Secrets are not copied: the new file refers to them by name, and the command says which ones to provide.

Examples:
  $ drawbridge import claude
  $ drawbridge import .vscode/mcp.json --output drawbridge.yaml
`,
    )
    .action((source: string, options: { output?: string; force?: true }) => importSettings(source, options, terminal));
}

async function importSettings(
  source: string,
  options: { output?: string; force?: true },
  terminal: Terminal,
): Promise<void> {
  const { cwd, home, platform, env } = terminal;
  const known = Object.hasOwn(CLIENTS, source);
  const imported = await importClientSettings(known ? source : resolve(cwd, source), { cwd, home, platform, env });
  const paint = painter(terminal.stderr, env);
  const say = (line: string) => terminal.stderr.write(`${line}\n`);
  if (options.output === undefined) terminal.stdout.write(imported.text);
  else {
    const file = resolve(cwd, options.output);
    try {
      await writeFile(file, imported.text, { flag: options.force === true ? "w" : "wx" });
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== "EEXIST") throw thrown;
      throw new DrawbridgeError(
        "settings_invalid",
        `${options.output} is there already. Give another --output, or --force to replace it.`,
      );
    }
    say(`${paint("green", "wrote")} ${options.output}: ${imported.servers.join(", ")}`);
  }
  for (const note of imported.notes) say(`${paint("yellow", "note")} ${note}`);
  if (imported.secrets.length > 0) {
    const folder = join(options.output === undefined ? "." : dirname(options.output), "secrets");
    say(`\nProvide these secrets, each as a file (chmod 600) or as an environment variable:`);
    for (const { name, stoodIn } of imported.secrets)
      say(`  ${join(folder, name)}  or  ${secretVariable(name)}   ${paint("dim", `(${stoodIn})`)}`);
  }
  if (options.output !== undefined)
    say(`\nNext: drawbridge config check ${options.output} && drawbridge serve ${options.output}`);
}
