/** Settings of masking by themselves: for `drawbridge mask`, which needs nothing else of a settings file. */
import { readFile } from "node:fs/promises";
import { LineCounter, parseDocument } from "yaml";
import { DrawbridgeError } from "../core/errors.ts";
import { type MaskSettings, maskSettings } from "../mask/settings.ts";
import { findingsOf, isRecord, type SettingsProblem, SettingsProblems, valueAt } from "./problems.ts";

const MAX_FILE_CHARS = 1 << 20;

/** Reads `mask:` of a settings file, or a file that holds nothing but what stands below it. Throws `SettingsProblems`. */
export async function readMaskSettings(file: string): Promise<MaskSettings> {
  const lines = new LineCounter();
  const document = parseDocument(await textOf(file), { lineCounter: lines, uniqueKeys: true });
  const problem = (offset: number, path: string, message: string, suggestion?: string): SettingsProblem => {
    const { line, col } = lines.linePos(offset);
    return { file, line, column: col, path, message, suggestion };
  };
  if (document.errors.length > 0) {
    throw new SettingsProblems(
      document.errors.map((error) =>
        problem(error.pos[0], "", error.message.split("\n")[0] ?? "cannot be read as YAML"),
      ),
    );
  }
  const whole: unknown = document.toJS({ maxAliasCount: 100 });
  const within = isRecord(whole) && "mask" in whole ? ["mask"] : [];
  const raw = valueAt(whole, within) ?? {};
  const parsed = maskSettings.safeParse(raw);
  if (parsed.success) return parsed.data;
  const findings = findingsOf(parsed.error.issues, raw, maskSettings, (path) => String(valueAt(raw, path)));
  throw new SettingsProblems(
    findings.map(({ path, message, suggestion }) => {
      const full = [...within, ...path];
      const node = document.getIn(full, true) ?? document.getIn(full.slice(0, -1), true);
      const range = isRecord(node) && Array.isArray(node["range"]) ? node["range"] : [0];
      return problem(Number(range[0]), full.join("."), message, suggestion);
    }),
  );
}

async function textOf(file: string): Promise<string> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    throw new DrawbridgeError("settings_invalid", `${file} cannot be read. Name a file that exists and may be read.`, {
      cause,
    });
  }
  if (text.length > MAX_FILE_CHARS)
    throw new DrawbridgeError("settings_invalid", `${file} is too large for a settings file.`);
  return text;
}
