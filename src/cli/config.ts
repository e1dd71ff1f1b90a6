/** `drawbridge config`: checks a settings file, prints its schema. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { loadSettings } from "../config/load.ts";
import { problemText, SettingsProblems } from "../config/problems.ts";
import { Ended, EXIT } from "./main.ts";
import { painter, type Terminal } from "./terminal.ts";

export function define(command: Command, terminal: Terminal): void {
  command
    .command("check")
    .argument("[file]", "settings file", "drawbridge.yaml")
    .description("print every problem of a settings file, with file, line and column")
    .addOption(new Option("--format <format>", "how to print").choices(["text", "json"]).default("text"))
    .addHelpText(
      "after",
      "\nReferences are resolved too, so provide the environment and secrets that the gateway will have.\nExit codes: 0 no problem, 2 problems.\n\nExample:\n  $ drawbridge config check drawbridge.yaml --format json\n",
    )
    .action((file: string, options: { format: "text" | "json" }) => check(file, options.format, terminal));
  command
    .command("schema")
    .description("print the JSON Schema of the settings file, for editors")
    .addHelpText(
      "after",
      "\nExample:\n  $ drawbridge config schema > drawbridge.schema.json\nand in the first line of the settings file:\n  # yaml-language-server: $schema=./drawbridge.schema.json\n",
    )
    .action(async () => void terminal.stdout.write(await schemaText()));
}

async function check(file: string, format: "text" | "json", terminal: Terminal): Promise<void> {
  const paint = painter(terminal.stdout, terminal.env);
  try {
    const { settings, warnings } = await loadSettings(named(file, terminal.cwd), { env: terminal.env });
    if (format === "json") terminal.stdout.write(`${JSON.stringify({ ok: true, problems: [], warnings }, null, 2)}\n`);
    else {
      for (const warning of warnings) terminal.stdout.write(`${paint("yellow", "warning")} ${warning}\n`);
      const names = Object.keys(settings.servers);
      terminal.stdout.write(
        `${paint("green", "ok")} ${file}: ${names.length} server${names.length === 1 ? "" : "s"} (${names.join(", ")})\n`,
      );
    }
  } catch (thrown) {
    if (!(thrown instanceof SettingsProblems)) throw thrown;
    if (format === "json")
      terminal.stdout.write(`${JSON.stringify({ ok: false, problems: thrown.problems, warnings: [] }, null, 2)}\n`);
    else {
      for (const problem of thrown.problems) terminal.stdout.write(`${problemText(problem)}\n`);
      terminal.stdout.write(
        `${paint("red", `${thrown.problems.length} problem${thrown.problems.length === 1 ? "" : "s"}`)}\n`,
      );
    }
    throw new Ended(EXIT.usage);
  }
}

/** Problems name the file as the user did, when that is what the process would open. */
function named(file: string, cwd: string): string {
  return resolve(file) === resolve(cwd, file) ? file : resolve(cwd, file);
}

async function schemaText(): Promise<string> {
  // In the clone beside `src/`, in the package beside `cli/`.
  for (const path of ["../../schema/config.schema.json", "../schema/config.schema.json"]) {
    const text = await readFile(new URL(path, import.meta.url), "utf8").catch(() => undefined);
    if (text !== undefined) return text;
  }
  throw new Error("schema/config.schema.json is missing from this installation");
}
