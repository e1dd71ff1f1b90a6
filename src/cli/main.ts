/** The command line. Commands are loaded when they are used, so that help and version answer at once. */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { DrawbridgeError } from "../core/errors.ts";
import { painter, processTerminal, type Terminal } from "./terminal.ts";

/** 0: done. 1: failed while running. 2: wrong usage or settings. 78: this Node is too old (from the launcher). */
export const EXIT = { ok: 0, failed: 1, usage: 2 } as const;

/** Adds a command's options and action to `command`. `rest` is what followed `--`, undefined without one. */
export type DefineCommand = (command: Command, terminal: Terminal, rest: readonly string[] | undefined) => void;

interface CommandRow {
  readonly summary: string;
  readonly load: () => Promise<{ readonly define: DefineCommand }>;
}

/** Every command: a line here, a file beside this one. */
const COMMANDS: Readonly<Record<string, CommandRow>> = {
  serve: {
    summary: "put any MCP server into production: sign-in, consent, roles, audit, tracing",
    load: () => import("./serve.ts"),
  },
  servers: {
    summary: "the servers behind a running gateway: see, restart and drain them; take changed settings",
    load: () => import("./servers.ts"),
  },
  config: { summary: "check a settings file; print its schema", load: () => import("./config.ts") },
  init: {
    summary: "look at a server and write a settings file with contracts for it",
    load: () => import("./init.ts"),
  },
  new: { summary: "write a server of one's own, with tests", load: () => import("./new.ts") },
  dev: {
    summary: "try a server while it is written: loaded anew on change, called in each role from a page",
    load: () => import("./dev.ts"),
  },
  contract: {
    summary: "run the examples of contracts and read their documentation",
    load: () => import("./contract.ts"),
  },
  import: { summary: "write a settings file from the settings of an MCP client", load: () => import("./import.ts") },
  check: { summary: "judge the tools of a server before it is served", load: () => import("./check.ts") },
  discover: {
    summary: "which MCP servers the clients on this machine run, and whether somebody approved them",
    load: () => import("./discover.ts"),
  },
  pin: {
    summary: "write the lockfile: every definition as it is now, signed",
    load: async () => ({ define: (await import("./lock.ts")).definePin }),
  },
  diff: {
    summary: "what the servers offer now against what was pinned, old and new words",
    load: async () => ({ define: (await import("./lock.ts")).defineDiff }),
  },
  approve: {
    summary: "take a changed definition into the lockfile, or into the store",
    load: async () => ({ define: (await import("./lock.ts")).defineApprove }),
  },
  verify: {
    summary: "for CI: whether the servers are as the lockfile says",
    load: async () => ({ define: (await import("./lock.ts")).defineVerify }),
  },
  approvals: {
    summary: "calls that wait for a person: see, approve and deny them",
    load: () => import("./approvals.ts"),
  },
  tools: { summary: "how many tools a role sees, and how many tokens they cost", load: () => import("./tools.ts") },
  pins: { summary: "see which definitions changed, and accept a change", load: () => import("./pins.ts") },
  why: { summary: "why somebody may call something, or may not", load: () => import("./why.ts") },
  access: { summary: "what each role can read, change, destroy and send outside", load: () => import("./access.ts") },
  policy: { summary: "run the cases of a policy", load: () => import("./policy.ts") },
  mask: { summary: "take private values out of texts", load: () => import("./mask.ts") },
  audit: { summary: "read the record of every call", load: () => import("./audit.ts") },
  users: { summary: "people: who there is, their groups, the end of their access", load: () => import("./users.ts") },
  clients: { summary: "the programs that connect: see, stop and remove them", load: () => import("./clients.ts") },
  grants: { summary: "who allowed which client what, and the end of it", load: () => import("./grants.ts") },
  connect: {
    summary: "connect a server that has a sign-in of its own, for everybody",
    load: () => import("./connect.ts"),
  },
  keys: { summary: "the keys that sign tokens: change them, revoke one", load: () => import("./keys.ts") },
  doctor: {
    summary: "walk through a server as a client would, and say where it breaks",
    load: () => import("./doctor.ts"),
  },
};

const EXAMPLES = `
Examples:
  Put a stdio server behind Drawbridge, with safe defaults and no file:
    $ drawbridge serve -- npx -y @modelcontextprotocol/server-filesystem ./docs

  The same for a server that already speaks HTTP:
    $ drawbridge serve --url http://127.0.0.1:9000/mcp

  Move the servers of your MCP client behind it, check the file, serve it:
    $ drawbridge import claude --output drawbridge.yaml
    $ drawbridge config check drawbridge.yaml
    $ drawbridge serve drawbridge.yaml

  Narrow what agents can do with a server:
    $ drawbridge init --sample -- npx -y @modelcontextprotocol/server-filesystem ./docs
    $ drawbridge contract test drawbridge.yaml

  See what agents did:
    $ drawbridge audit show --last 20

  Find out why a client cannot connect:
    $ drawbridge doctor https://mcp.example.com/mcp

Exit codes: 0 done, 1 failed while running, 2 wrong usage or settings, 78 Node is older than 24.11.
`;

/** Runs one command and resolves with its exit code. Never throws. */
export async function main(argv: readonly string[], terminal: Terminal): Promise<number> {
  const dashes = argv.indexOf("--");
  const own = dashes === -1 ? argv : argv.slice(0, dashes);
  const rest = dashes === -1 ? undefined : argv.slice(dashes + 1);
  const program = withOutput(new IdCommand("drawbridge"), terminal)
    .description("Takes any MCP server across the cliff between one laptop and production.")
    .version(version(), "-V, --version", "print the version")
    .helpOption("-h, --help", "explain, with examples")
    .addHelpText("after", EXAMPLES)
    .showSuggestionAfterError()
    .showHelpAfterError("(drawbridge --help explains)");
  const wanted = own.find((word) => !word.startsWith("-"));
  const asked = wanted === "help" ? own[own.indexOf("help") + 1] : wanted;
  for (const [name, row] of Object.entries(COMMANDS)) {
    const command = withOutput(program.command(name), terminal).description(row.summary);
    if (name === asked) (await row.load()).define(command, terminal, rest);
  }
  try {
    if (own.length === 0) {
      program.outputHelp();
      return EXIT.usage;
    }
    await program.parseAsync([...own], { from: "user" });
    return EXIT.ok;
  } catch (thrown) {
    return explain(thrown, terminal);
  }
}

/** A command that ends with an exit code of its own choosing, having said all there is to say. */
export class Ended extends Error {
  readonly exitCode: number;
  constructor(exitCode: number) {
    super(`ended with ${exitCode}`);
    this.exitCode = exitCode;
  }
}

function explain(thrown: unknown, terminal: Terminal): number {
  if (thrown instanceof Ended) return thrown.exitCode;
  // Commander has written its own message; help and version arrive here too, with exit code 0.
  if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? EXIT.ok : EXIT.usage;
  const paint = painter(terminal.stderr, terminal.env);
  const error = DrawbridgeError.from(thrown);
  terminal.stderr.write(`${paint("red", "error")} ${error.message}\n`);
  // At the command line the operator is the reader that `detail` is kept for.
  if (error.detail !== undefined) terminal.stderr.write(`${paint("dim", error.detail)}\n`);
  return error.code === "settings_invalid" ? EXIT.usage : EXIT.failed;
}

declare module "commander" {
  interface Command {
    /** Called for the first word that looks like an option and is none; not in the published types. */
    unknownOption(word: string): void;
  }
}

/** What some commands are told as an argument, or its beginning: in base64url, so one in 64 begins with a dash (RFC 4648 section 5). */
const IDS: ReadonlySet<string> = new Set(["kid", "id", "client"]);
const DASHED_ID = /^-(?=.*[A-Z\d])[\w-]{4,}$/;

/** A command that takes ids which begin with a dash. Its options are in small letters, so nothing else looks like one. */
class IdCommand extends Command {
  override createCommand(name?: string): Command {
    return new IdCommand(name);
  }

  override unknownOption(word: string): void {
    const takesIds = this.registeredArguments.some((argument) => IDS.has(argument.name()));
    if (!takesIds || !DASHED_ID.test(word)) super.unknownOption(word);
  }
}

function withOutput(command: Command, terminal: Terminal): Command {
  return command.exitOverride().configureOutput({
    writeOut: (text) => terminal.stdout.write(text),
    writeErr: (text) => terminal.stderr.write(text),
    getOutHasColors: () => false,
    getErrHasColors: () => false,
  });
}

/** From the manifest beside `src/` in the clone and at the root of the published package. */
export function version(): string {
  const found = ["../../package.json", "../package.json"]
    .map((path) => new URL(path, import.meta.url))
    .find((url) => {
      try {
        return (JSON.parse(readFileSync(url, "utf8")) as { name?: string }).name === "drawbridge-mcp";
      } catch {
        return false;
      }
    });
  return found === undefined ? "unknown" : (JSON.parse(readFileSync(found, "utf8")) as { version: string }).version;
}

/** Called by the launcher. */
export async function run(): Promise<void> {
  const code = await main(process.argv.slice(2), processTerminal());
  process.exitCode = code;
}
