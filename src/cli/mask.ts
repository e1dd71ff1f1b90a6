/** `drawbridge mask`: what masking does to a text, without a gateway. */
import { type Command, Option } from "commander";
import { readMaskSettings } from "../config/mask-file.ts";
import { newToken } from "../core/ids.ts";
import { Secret } from "../core/secret.ts";
import { compileMasker, type Masked, type Masker, type Viewer } from "../mask/masker.ts";
import { type MaskSettings, maskSettings } from "../mask/settings.ts";
import { memoryStore } from "../store/memory/memory.ts";
import { Ended, EXIT } from "./main.ts";
import { painter, type Terminal } from "./terminal.ts";
import { type Write, writer } from "./writer.ts";

/** A row of more characters is reported and left out. */
const MAX_ROW = 1 << 26;

const HELP = `
Reads standard input and writes it masked, while it comes. Without --settings everything private is replaced by its type:
e-mail addresses, phone numbers, cards, accounts, national numbers, IP addresses, keys, tokens and passwords.

  text   the text, masked
  json   one row of JSON a line, {"id":…,"text":"…"}; written is {"id":…,"text":"…masked…","spans":[{"start","end","type"}]}, where
         offsets count UTF-16 code units of the text that was read. A line that is no such row is named on standard error, and
         the exit code is then 1.

The marks of \`hash\` and the stand-ins of \`token\` hold for one run; those of a gateway hold as long as its key.

Examples:
  $ drawbridge mask < ticket.txt
  $ tail -f app.log | drawbridge mask
  $ drawbridge mask --format json < texts.jsonl > masked.jsonl
  $ drawbridge mask --settings drawbridge.yaml --role finance < answer.json
`;

interface MaskOptions {
  readonly format: "text" | "json";
  readonly settings?: string;
  readonly role: readonly string[];
}

export function define(command: Command, terminal: Terminal): void {
  command
    .addOption(new Option("--format <format>", "what is read and written").choices(["text", "json"]).default("text"))
    .option("--settings <file>", "a settings file with `mask:`, or a file of what stands below it")
    .option(
      "--role <role>",
      "show what this role sees; may be repeated",
      (role, roles: string[]) => [...roles, role],
      [],
    )
    .addHelpText("after", HELP)
    .action((options: MaskOptions) => mask(options, terminal));
}

async function mask(options: MaskOptions, terminal: Terminal): Promise<void> {
  const settings = options.settings === undefined ? maskSettings.parse({}) : await readMaskSettings(options.settings);
  await using store = memoryStore();
  const masker = compileMasker(settings, { key: new Secret(newToken()), records: store.records });
  const viewer: Viewer = { subject: "command line", roles: options.role };
  warnOfRoles(options.role, settings, terminal);
  const pieces = terminal.pieces?.() ?? [];
  const write = writer(terminal);
  if (options.format === "text") await maskText(masker, viewer, pieces, write);
  else if ((await maskRows(masker, viewer, pieces, write, terminal)) > 0) throw new Ended(EXIT.failed);
}

/** A role that sees nothing more may be a slip of the pen. */
function warnOfRoles(roles: readonly string[], settings: MaskSettings, terminal: Terminal): void {
  for (const role of roles.filter((one) => settings.see[one] === undefined)) {
    const paint = painter(terminal.stderr, terminal.env);
    terminal.stderr.write(
      `${paint("yellow", "note")} no role ${role} is named under \`see\`: it sees what everybody sees\n`,
    );
  }
}

type Pieces = AsyncIterable<string> | Iterable<string>;

async function maskText(masker: Masker, viewer: Viewer, pieces: Pieces, write: Write): Promise<void> {
  const stream = masker.stream(viewer);
  for await (const piece of pieces) await write(await settled(stream.push(piece)));
  await write(await settled(stream.end()));
}

async function settled({ text, kept }: Masked): Promise<string> {
  await kept;
  return text;
}

/** Masks row by row, and returns how many lines were none. */
async function maskRows(
  masker: Masker,
  viewer: Viewer,
  pieces: Pieces,
  write: Write,
  terminal: Terminal,
): Promise<number> {
  const paint = painter(terminal.stderr, terminal.env);
  let bad = 0;
  let number = 0;
  for await (const line of linesOf(pieces)) {
    number++;
    if (line?.trim() === "") continue;
    // Some editors begin a file with a byte order mark.
    const row = line === undefined ? undefined : rowOf(number === 1 ? line.replace(/^\uFEFF/, "") : line);
    if (row === undefined) {
      bad++;
      const problem = line === undefined ? "is too long" : 'is no JSON object with a string "text"';
      terminal.stderr.write(`${paint("red", "error")} line ${number} ${problem}\n`);
      continue;
    }
    const masked = masker.text(row.text, viewer);
    await write(`${JSON.stringify({ ...row.id, text: await settled(masked), spans: spansOf(masked) })}\n`);
  }
  return bad;
}

function spansOf({ parts }: Masked): readonly object[] {
  return parts.map(({ start, end, type }) => ({ start, end, type: type.toUpperCase() }));
}

function rowOf(line: string): { readonly id: { readonly id?: unknown }; readonly text: string } | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined; // Reported with its line.
  }
  if (typeof value !== "object" || value === null || !("text" in value) || typeof value.text !== "string")
    return undefined;
  return { id: "id" in value ? { id: value.id } : {}, text: value.text };
}

/** Lines without their ends; undefined for one that is too long to be held. */
async function* linesOf(pieces: Pieces): AsyncGenerator<string | undefined> {
  let parts: string[] = [];
  let length = 0;
  for await (const piece of pieces) {
    let from = 0;
    for (let end = piece.indexOf("\n"); end >= 0; end = piece.indexOf("\n", from)) {
      if (length <= MAX_ROW) parts.push(piece.slice(from, end));
      yield length > MAX_ROW ? undefined : parts.join("");
      parts = [];
      length = 0;
      from = end + 1;
    }
    length += piece.length - from;
    if (length > MAX_ROW) parts = [];
    else parts.push(piece.slice(from));
  }
  if (length > MAX_ROW) yield undefined;
  else if (length > 0) yield parts.join("");
}
