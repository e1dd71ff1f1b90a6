/** Policies in files of their own: one that is tried out beside the settings, and the cases that a policy is tested with. */
import { readFile } from "node:fs/promises";
import { type Document, LineCounter, parseDocument } from "yaml";
import { DrawbridgeError } from "../core/errors.ts";
import { type PolicyCases, policyCases } from "../policy/cases.ts";
import {
  findingsOf,
  isRecord,
  type SettingsPath,
  type SettingsProblem,
  SettingsProblems,
  valueAt,
} from "./problems.ts";

const MAX_FILE_CHARS = 1 << 20;

/** What the file has for `shadowPolicy`, as it is written; it may be another settings file. Throws an `Error` with what is wrong. */
export async function readPolicyFile(file: string): Promise<unknown> {
  const whole = await readWhole(file);
  if (whole["roles"] === undefined) throw new Error(`the file ${file} has no \`roles\``);
  const { roles, assign } = whole;
  return { roles, ...(assign !== undefined && { assign }) };
}

/** What the file has beside a policy that matters for one. Throws an `Error` where it cannot be read. */
export async function readBesidePolicy(file: string): Promise<{ readonly servers: unknown; readonly stepUp: unknown }> {
  const { servers, stepUp } = await readWhole(file);
  return { servers, stepUp };
}

async function readWhole(file: string): Promise<Readonly<Record<string, unknown>>> {
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    throw new Error(`the file ${file} cannot be read`, { cause });
  });
  if (text.length > MAX_FILE_CHARS) throw new Error(`the file ${file} is too large for a policy`);
  const document = parseDocument(text, { uniqueKeys: true });
  const [mistake] = document.errors;
  if (mistake !== undefined) throw new Error(`the file ${file}: ${firstLine(mistake.message)}`);
  const whole = plainly(document);
  if (whole === TOO_MANY_ALIASES) throw new Error(`the file ${file}: ${whole}`);
  if (!isRecord(whole)) throw new Error(`the file ${file} has no \`roles\``);
  return whole;
}

/** Reads a file of cases. Throws `SettingsProblems` with everything that is wrong in it; `name` is what they call the file. */
export async function readPolicyCases(file: string, name: string): Promise<PolicyCases> {
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    const message = `${name} cannot be read. Name a file of cases that exists.`;
    throw new DrawbridgeError("settings_invalid", message, { cause });
  });
  if (text.length > MAX_FILE_CHARS) throw new DrawbridgeError("settings_invalid", `${name} is too large.`);
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const problem = (offset: number, path: SettingsPath, message: string, suggestion?: string): SettingsProblem => {
    const { line, col } = lines.linePos(offset);
    return { file: name, line, column: col, path: path.join("."), message, suggestion };
  };
  if (document.errors.length > 0)
    throw new SettingsProblems(document.errors.map((error) => problem(error.pos[0], [], firstLine(error.message))));
  const raw = plainly(document);
  if (raw === TOO_MANY_ALIASES) throw new SettingsProblems([problem(0, [], raw)]);
  const parsed = policyCases.safeParse(raw);
  if (parsed.success) return parsed.data;
  const findings = findingsOf(parsed.error.issues, raw, policyCases, (path) => String(valueAt(raw, path)));
  throw new SettingsProblems(
    findings.map(({ path, message, suggestion }) => problem(offsetOf(document, path), path, message, suggestion)),
  );
}

const MAX_ALIASES = 100;
const TOO_MANY_ALIASES = `more than ${MAX_ALIASES} aliases`;

/** The document as values; or that it grows without end, as a few lines of aliases of aliases do. */
function plainly(document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (thrown) {
    if (thrown instanceof ReferenceError) return TOO_MANY_ALIASES;
    throw thrown;
  }
}

/** Where a value stands, or what should have it. */
function offsetOf(document: Document, path: SettingsPath): number {
  const node = document.getIn(path, true) ?? document.getIn(path.slice(0, -1), true);
  const range = isRecord(node) && Array.isArray(node["range"]) ? node["range"] : [0];
  return Number(range[0]);
}

const firstLine = (message: string) => message.split("\n")[0] ?? "it cannot be read as YAML";
