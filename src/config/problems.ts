/** Problems of a settings file: where, what, and the nearest thing that would have been right. */
import { z } from "zod";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";

export interface SettingsProblem {
  /** The settings file as the user named it; `command line` for an option. */
  readonly file: string;
  /** From 1; 0 where the problem has no place in a file. */
  readonly line: number;
  readonly column: number;
  /** Keys joined by dots, e.g. `servers.files.timeoutSeconds`; empty for the whole file. */
  readonly path: string;
  /** Never contains a value that could be a secret. */
  readonly message: string;
  /** The nearest valid key or value. */
  readonly suggestion: string | undefined;
}

/** Everything that is wrong with the settings, at once, in the order of the file. */
export class SettingsProblems extends DrawbridgeError {
  readonly problems: readonly SettingsProblem[];
  constructor(problems: readonly SettingsProblem[]) {
    const sorted = [...problems].sort((a, b) => a.line - b.line || a.column - b.column);
    super("settings_invalid", sorted.map(problemText).join("\n"));
    this.problems = sorted;
  }
}

/** `drawbridge.yaml:12:5 servers.files.timeoutSecond: unknown key; did you mean "timeoutSeconds"?` */
export function problemText(problem: SettingsProblem): string {
  const place = problem.line === 0 ? problem.file : `${problem.file}:${problem.line}:${problem.column}`;
  const hint = problem.suggestion === undefined ? "" : `; did you mean "${problem.suggestion}"?`;
  return `${place}${problem.path === "" ? "" : ` ${problem.path}`}: ${problem.message}${hint}`;
}

export type SettingsPath = readonly (string | number)[];

/** A problem before it is known where in the file its path stands. */
export interface Finding {
  readonly path: SettingsPath;
  readonly message: string;
  readonly suggestion?: string | undefined;
  /** The key stands at the end of `path`: point at the key, not at its value. */
  readonly atKey?: boolean;
  /** The key has no business there; what stands beside it may be sound. */
  readonly unknown?: boolean;
}

type Issue = z.core.$ZodIssue;

/**
 * Turns what zod found into findings. `raw` is the value that was checked. Values are quoted only where the valid ones are a
 * closed list, and then as they stand in the file (`written`): a reference stays a reference.
 */
export function findingsOf(
  issues: readonly Issue[],
  raw: unknown,
  schema: z.ZodType,
  written: (path: SettingsPath) => string,
): Finding[] {
  return issues.flatMap((issue) => finding(issue, [], raw, schema, written));
}

function finding(
  issue: Issue,
  base: SettingsPath,
  raw: unknown,
  schema: z.ZodType,
  written: (path: SettingsPath) => string,
): Finding[] {
  const path: SettingsPath = [...base, ...issue.path.map((key) => (typeof key === "symbol" ? String(key) : key))];
  const value = valueAt(raw, path);
  switch (issue.code) {
    case "unrecognized_keys":
      return issue.keys.map((key) => {
        const known = knownKeys(schema, path, valueAt(raw, path));
        const suggestion = nearest(key, known);
        const list = suggestion === undefined && known.length > 0 ? `; known keys: ${known.join(", ")}` : "";
        return { path: [...path, key], atKey: true, unknown: true, message: `unknown key${list}`, suggestion };
      });
    case "invalid_value": {
      const valid = issue.values.map(String);
      if (value === undefined) return [{ path, message: `is missing; expected one of ${valid.join(", ")}` }];
      const text = written(path);
      return [
        {
          path,
          message: `${JSON.stringify(text)} is not one of ${valid.join(", ")}`,
          suggestion: nearest(text, valid),
        },
      ];
    }
    case "invalid_type":
      // Some places say themselves what belongs there.
      if (!issue.message.startsWith("Invalid input")) return [{ path, message: issue.message }];
      return [
        {
          path,
          message:
            value === undefined
              ? `is missing; expected ${article(issue.expected)}`
              : `expected ${article(issue.expected)}, found ${kindOf(value)}`,
        },
      ];
    case "too_small":
    case "too_big": {
      const bound = issue.code === "too_small" ? `at least ${issue.minimum}` : `at most ${issue.maximum}`;
      const unit = { string: " characters", array: " entries", set: " entries" }[issue.origin as string] ?? "";
      return [{ path, message: `must be ${bound}${unit}` }];
    }
    case "invalid_format": {
      if (issue.format === "url") return [{ path, message: "expected a URL that starts with http:// or https://" }];
      return [{ path, message: issue.message.replace(/^Invalid string: must match pattern/, "must match") }];
    }
    case "invalid_key": {
      const reason = issue.issues[0]?.message ?? "is not allowed here";
      return [
        {
          path,
          atKey: true,
          message: `the name is not allowed: ${reason.replace(/^Invalid string: must match pattern/, "must match")}`,
        },
      ];
    }
    case "invalid_union":
      return unionFindings(issue, path, raw, schema, written);
    default:
      return [{ path, message: value === undefined && issue.code !== "custom" ? "is missing" : issue.message }];
  }
}

/** Reports against the branch the author most likely meant: the one whose distinguishing keys are there, then the one nearest to valid. */
function unionFindings(
  issue: Issue & { code: "invalid_union" },
  path: SettingsPath,
  raw: unknown,
  schema: z.ZodType,
  written: (path: SettingsPath) => string,
): Finding[] {
  const value = valueAt(raw, path);
  const branches = issue.errors.map((issues, index) => {
    const missing = issues
      .filter((one) => one.code === "invalid_type" && one.path.length === 1 && valueAt(value, one.path) === undefined)
      .map((one) => one.path.join("."));
    return { issues, index, missing };
  });
  const best = [...branches].sort(
    (a, b) => a.missing.length - b.missing.length || a.issues.length - b.issues.length,
  )[0];
  if (best === undefined) return [{ path, message: issue.message }];
  if (best.missing.length > 0 && isRecord(value)) {
    return [
      {
        path,
        atKey: true,
        message: `needs one of the keys ${branches.flatMap((branch) => branch.missing).join(", ")}`,
      },
    ];
  }
  const options = optionsOf(schemaAt(schema, path));
  const branchSchema = options[best.index];
  return best.issues.flatMap((one) => {
    // Inside a branch, keys are looked up in that branch only, so that a hint does not name a key of the other one.
    const inner = finding(one, [], value, branchSchema ?? schema, (rest) => written([...path, ...rest]));
    return inner.map((found) => ({ ...found, path: [...path, ...found.path] }));
  });
}

function article(expected: string): string {
  const names: Record<string, string> = {
    int: "a whole number",
    number: "a number",
    boolean: "true or false",
    array: "a list",
    object: "a mapping",
    record: "a mapping",
    string: "a text",
  };
  return names[expected] ?? expected;
}

function kindOf(value: unknown): string {
  if (value === null) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (value instanceof Secret) return "a secret, which is not allowed here";
  const names: Record<string, string> = { string: "a text", number: "a number", boolean: "true or false" };
  return names[typeof value] ?? "a mapping";
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Secret);
}

/** The value at a path; own properties only. */
export function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (value, key) =>
      typeof value === "object" && value !== null && Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined,
    root,
  );
}

/** The schema without its defaults and optionality, and of one with a short form (`z.preprocess`) the long one. */
function bare(schema: z.ZodType): z.ZodType {
  let current = schema;
  while (
    current instanceof z.ZodOptional ||
    current instanceof z.ZodDefault ||
    current instanceof z.ZodPrefault ||
    current instanceof z.ZodNullable ||
    current instanceof z.ZodPipe
  ) {
    current = (current instanceof z.ZodPipe ? current.def.out : current.unwrap()) as z.ZodType;
  }
  return current;
}

export function optionsOf(schema: z.ZodType | undefined): readonly z.ZodType[] {
  if (schema === undefined) return [];
  const plain = bare(schema);
  return plain instanceof z.ZodUnion ? (plain.options as readonly z.ZodType[]).map(bare) : [plain];
}

/** The schema of the value at a path: all branches of a union that have the key, as one union. */
export function schemaAt(schema: z.ZodType, path: SettingsPath): z.ZodType | undefined {
  let here: readonly z.ZodType[] = [schema];
  for (const key of path) {
    here = here
      .flatMap((one) => optionsOf(one))
      .flatMap((one) => {
        if (one instanceof z.ZodObject) return Object.hasOwn(one.shape, key) ? [one.shape[key] as z.ZodType] : [];
        if (one instanceof z.ZodRecord) return [one.valueType as z.ZodType];
        if (one instanceof z.ZodArray) return [one.element as z.ZodType];
        return [];
      });
  }
  return here.length > 1 ? z.union(here as [z.ZodType, ...z.ZodType[]]) : here[0];
}

/** Keys that the mapping at `path` may have; of a union, of the branches that fit what is there. */
function knownKeys(schema: z.ZodType, path: SettingsPath, value: unknown): string[] {
  const objects = optionsOf(schemaAt(schema, path)).filter((one) => one instanceof z.ZodObject);
  const fitting = objects.filter((one) =>
    Object.entries(one.shape).every(
      ([key, field]) => isOptional(field as z.ZodType) || valueAt(value, [key]) !== undefined,
    ),
  );
  return [...new Set((fitting.length > 0 ? fitting : objects).flatMap((one) => Object.keys(one.shape)))];
}

function isOptional(schema: z.ZodType): boolean {
  return schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault;
}

/** The candidate within a third of the word's length (at least two edits), the nearest first; undefined when none is near. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const limit = Math.max(2, Math.floor(word.length / 3));
  const plain = (text: string) => text.toLowerCase().replaceAll(/[-_]/g, "");
  const ranked = candidates
    .map((candidate) => ({ candidate, distance: editDistance(plain(word), plain(candidate)) }))
    .filter(({ candidate, distance }) => distance <= limit && distance < candidate.length)
    .sort((a, b) => a.distance - b.distance);
  return ranked[0]?.candidate;
}

/** Edits (insert, delete, replace, swap neighbours) between two words; words are cut at 64 characters. */
function editDistance(first: string, second: string): number {
  const a = first.slice(0, 64);
  const b = second.slice(0, 64);
  let before: number[] = [];
  let last: number[] = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (last[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(replaced, (last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, (before[j - 2] ?? 0) + 1);
      row.push(best);
    }
    before = last;
    last = row;
  }
  return last[b.length] ?? 0;
}

/** A finding with what an attempt throws. */
export function failing(path: SettingsPath, attempt: () => unknown): Finding[] {
  try {
    attempt();
    return [];
  } catch (thrown) {
    return [{ path, message: thrown instanceof Error ? (thrown.message.split("\n")[0] ?? "") : String(thrown) }];
  }
}
