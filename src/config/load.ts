/** Reads the settings: YAML, references, schema, and what must agree. All problems at once, each with its place in the file. */
import { readFile } from "node:fs/promises";
import { dirname, isAbsolute, resolve } from "node:path";
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type ParsedNode,
  parseDocument,
  type YAMLError,
} from "yaml";
import { z } from "zod";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret, secretField } from "../core/secret.ts";
import { crossCheck, insecureOptions, type SoundParts } from "./checks.ts";
import { contractWarnings } from "./contracts.ts";
import { withModules } from "./modules.ts";
import { readPolicyFile } from "./policy-file.ts";
import {
  type Finding,
  findingsOf,
  isRecord,
  optionsOf,
  type SettingsPath,
  type SettingsProblem,
  SettingsProblems,
  schemaAt,
  valueAt,
} from "./problems.ts";
import { type Environment, type ReadSecret, resolveReferences } from "./references.ts";
import { type Settings, settingsSchema } from "./schema.ts";
import { openSecrets, type SecretSource, type Secrets, secretsSettings } from "./secrets.ts";

export interface LoadedSettings {
  /** Checked; relative paths in it were made absolute. */
  readonly settings: Settings;
  /** The settings file as it was named; undefined when the settings came from the command line alone. */
  readonly file: string | undefined;
  /** The folder that relative paths were resolved against. */
  readonly folder: string;
  /** Sentences for the operator: insecure options that are on, secrets that others can read. */
  readonly warnings: readonly string[];
  /** Every secret that stands in them, for those who must not let one out. */
  readonly known: readonly Secret[];
  readonly secrets: Pick<Secrets, "look" | "lost">;
  /** The same text with the secrets that `secrets.look` found. Throws `SettingsProblems` when one of them does not fit its place. */
  renewed(): Promise<LoadedSettings>;
  /** Reads the file again, and every secret. Throws `SettingsProblems`; undefined when there is no file. */
  readonly reread: (() => Promise<LoadedSettings>) | undefined;
  /** Whether the file still says what was read, to the byte. Of settings that were just read from one. */
  readonly unchanged?: () => Promise<boolean>;
}

export interface LoadOptions {
  readonly env: Environment;
  /** Default: `provided`, which reads them as `secrets:` says. `path`: where the reference stands. */
  readonly readSecret?: (name: string, path: SettingsPath, provided: ReadSecret) => Promise<string | undefined>;
  /** Values from the command line that win over the file's, by option name: `{ "--port": { path: ["listen", "port"], value: 8080 } }`. */
  readonly overrides?: Overrides;
}
export type Overrides = Readonly<Record<string, { readonly path: readonly string[]; readonly value: unknown }>>;

const MAX_FILE_BYTES = 1 << 20;
const MAX_ALIASES = 100;
const MAX_DEPTH = 32;

/** Reads and checks a settings file. Throws `SettingsProblems` with everything that is wrong. */
export async function loadSettings(file: string, options: LoadOptions): Promise<LoadedSettings> {
  const text = await readText(file);
  const loaded = await settle(readYaml(file, text), dirname(resolve(file)), file, options);
  const unchanged = () =>
    readText(file).then(
      (now) => now === text,
      () => false,
    );
  return { ...loaded, unchanged };
}

/** Checks settings that were built by the program itself, for `serve -- command` and `serve --url`. */
export async function settleSettings(raw: unknown, folder: string, options: LoadOptions): Promise<LoadedSettings> {
  return settle(
    { raw, scalars: [], locate: () => nowhere, written: (path) => String(valueAt(raw, path)), problems: [] },
    folder,
    undefined,
    options,
  );
}

const places = new WeakMap<object, Source["locate"]>();

/** Where a part of loaded settings stands, e.g. `drawbridge.yaml:12:5`; undefined when they came from no file. For what is found later. */
export function placeIn(settings: object, path: SettingsPath): string | undefined {
  const place = places.get(settings)?.(path, false);
  return place === undefined || place.line === 0 ? undefined : `${place.file}:${place.line}:${place.column}`;
}

interface Place {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}
const nowhere: Place = { file: "command line", line: 0, column: 0 };

/** A parsed file: its values with references still in them, and where each stands. */
interface Source {
  readonly raw: unknown;
  readonly scalars: readonly { readonly path: SettingsPath; readonly text: string; readonly plain: boolean }[];
  locate(path: SettingsPath, atKey: boolean): Place;
  /** What stands in the file at a path. */
  written(path: SettingsPath): string;
  readonly problems: readonly SettingsProblem[];
}

async function settle(
  source: Source,
  folder: string,
  file: string | undefined,
  options: LoadOptions,
  before?: Secrets,
): Promise<LoadedSettings> {
  const warnings: string[] = [];
  const findings: Finding[] = [];
  const raw = structuredClone(source.raw ?? {});
  // A reference that failed was reported; that its replacement does not fit the schema either is no news.
  const failed: SettingsPath[] = [];
  const known = new Map<string, Secret>();
  const resolveAt = async ({ path, text, plain }: Source["scalars"][number], readSecret: ReadSecret) => {
    const resolved = await resolveReferences(text, options.env, readSecret);
    if (resolved.problems.length > 0) failed.push(path);
    findings.push(...resolved.problems.map((message) => ({ path, message })));
    const value = fitted(resolved, plain, schemaAt(settingsSchema, path), path);
    // What stands in the environment may be a word like any other; a long one is a secret.
    const revealed = value instanceof Secret ? [value.reveal()].filter((whole) => whole.length >= MIN_LONG) : [];
    for (const one of [...resolved.secrets, ...revealed]) if (one !== "") known.set(one, new Secret(one));
    setAt(raw, path, value);
  };
  const [sources, others] = [true, false].map((wanted) =>
    source.scalars.filter(({ path }) => (path[0] === "secrets") === wanted),
  );
  for (const scalar of sources ?? []) await resolveAt(scalar, noSecretOfSecrets);
  const secrets =
    before ??
    openSecrets({
      sources: soundSources(valueAt(raw, ["secrets"])),
      folder,
      env: options.env,
      warn: (message) => warnings.push(message),
    });
  for (const scalar of others ?? [])
    await resolveAt(scalar, (name) =>
      options.readSecret === undefined ? secrets.read(name) : options.readSecret(name, scalar.path, secrets.read),
    );
  const overridden = Object.entries(options.overrides ?? {}).filter(([, { value }]) => value !== undefined);
  for (const [, { path, value }] of overridden) setAt(raw, path, value);

  const policyFile = valueAt(raw, ["shadowPolicy"]);
  if (typeof policyFile === "string") {
    const path = ["shadowPolicy"];
    try {
      setAt(raw, path, await readPolicyFile(resolve(folder, policyFile)));
    } catch (thrown) {
      findings.push({ path, message: thrown instanceof Error ? thrown.message : String(thrown) });
    }
  }
  const parsed = settingsSchema.safeParse(raw);
  if (!parsed.success)
    findings.push(
      ...findingsOf(parsed.error.issues, raw, settingsSchema, source.written).filter(
        (one) => !failed.some((path) => startsWith(one.path, path)),
      ),
    );
  const parts = parsed.success ? absolute(parsed.data, folder) : soundParts(without(raw, findings), folder);
  findings.push(...crossCheck(parts, raw));

  const brought = parsed.success && findings.length === 0 ? await withModules(parts as Settings, folder) : undefined;
  findings.push(...(brought?.findings ?? []));
  const located = findings.map(({ path, message, suggestion, atKey }): SettingsProblem => {
    const option = overridden.find(([, one]) => samePath(one.path, path))?.[0];
    const place = option === undefined ? source.locate(path, atKey ?? false) : { ...nowhere, file: `option ${option}` };
    return { ...place, path: path.join("."), message, suggestion };
  });
  const problems = [...source.problems, ...unique(located)];
  if (problems.length > 0 || !parsed.success) throw new SettingsProblems(problems);
  // Nothing is absent from `parts` when the whole was parsed.
  const settings = brought?.settings ?? (parts as Settings);
  if (file !== undefined) places.set(settings, source.locate);
  return {
    settings,
    file,
    folder,
    warnings: [
      ...insecureOptions(settings, settingsSchema),
      ...contractWarnings(settings),
      ...secretArguments(settings),
      ...(brought?.warnings ?? []),
      ...new Set(warnings),
    ],
    known: [...known.values()],
    secrets,
    renewed: () => settle(source, folder, file, options, secrets),
    reread: file === undefined ? undefined : () => loadSettings(file, options),
  };
}

/** Shorter values from the environment are not taken for secrets where texts are searched for them. */
const MIN_LONG = 12;

const noSecretOfSecrets: ReadSecret = async () => {
  throw new DrawbridgeError(
    "settings_invalid",
    "a secret cannot be needed to find another; write ${env:NAME} or the value",
  );
};

/** The entries of `secrets:` that are right; the others are reported with the rest of the file. */
function soundSources(raw: unknown): Record<string, SecretSource> {
  if (!isRecord(raw)) return {};
  return Object.assign(
    {},
    ...Object.entries(raw).map(([name, source]) => secretsSettings.safeParse({ [name]: source }).data ?? {}),
  ) as Record<string, SecretSource>;
}

function secretArguments({ servers }: Settings): string[] {
  return Object.entries(servers).flatMap(([name, server]) =>
    "command" in server && server.command.some((word) => word instanceof Secret)
      ? [
          `servers.${name}.command has a secret in an argument, which every program of this machine can see while the server runs. Put it into servers.${name}.environment if the server can read it there.`,
        ]
      : [],
  );
}

/** A reference stands for what its place expects: `port: ${env:PORT}` is a number, a token from the environment is a secret. */
function fitted(
  resolved: { value: string | Secret; fromEnvironment: boolean; whole: boolean },
  plain: boolean,
  schema: z.ZodType | undefined,
  path: SettingsPath,
): unknown {
  const { value, fromEnvironment, whole } = resolved;
  if (value instanceof Secret || !fromEnvironment) return value;
  const options = optionsOf(schema);
  // An argument is no place for secrets, so what stands in one is none unless it says so.
  const argument = path[0] === "servers" && path[2] === "command";
  if (options.includes(secretField) && !argument) return new Secret(value);
  if (!whole || !plain) return value;
  if (options.some((one) => one instanceof z.ZodNumber) && /^-?\d+(\.\d+)?$/.test(value)) return Number(value);
  if (options.some((one) => one instanceof z.ZodBoolean) && /^(true|false)$/.test(value)) return value === "true";
  return value;
}

/** The settings without the keys that should not be there, so that what stands beside them is still checked. */
function without(raw: unknown, findings: readonly Finding[]): unknown {
  // No secret is lost on the way: a `Secret` is kept as it is.
  const copy = (value: unknown, path: SettingsPath): unknown => {
    if (Array.isArray(value)) return value.map((one, index) => copy(one, [...path, index]));
    if (!isRecord(value)) return value;
    const kept = Object.entries(value).filter(
      ([key]) =>
        !findings.some((one) => one.unknown === true && samePath(one.path.map(String), [...path, key].map(String))),
    );
    return Object.fromEntries(kept.map(([key, one]) => [key, copy(one, [...path, key])]));
  };
  return copy(raw, []);
}

/** Slices whose entries stand on their own. */
const BY_ENTRY: ReadonlySet<string> = new Set(["servers", "roles", "tools", "resources", "prompts"]);

/** Of settings with problems, the parts without: each top-level slice on its own, and each entry of those with entries. */
function soundParts(raw: unknown, folder: string): SoundParts {
  const parts: Record<string, unknown> = {};
  for (const [key, schema] of Object.entries(settingsSchema.shape)) {
    let value = valueAt(raw, [key]);
    if (BY_ENTRY.has(key) && isRecord(value)) {
      value = Object.fromEntries(
        Object.entries(value).filter(([name, entry]) => (schema as z.ZodType).safeParse({ [name]: entry }).success),
      );
    }
    const parsed = (schema as z.ZodType).safeParse(value);
    if (parsed.success && parsed.data !== undefined) parts[key] = parsed.data;
  }
  return absolute(parts as SoundParts, folder);
}

/** Resolves relative paths against the folder of the settings file; a stdio server without `cwd` runs in that folder. */
function absolute<P extends SoundParts>(parts: P, folder: string): P {
  const from = (path: string) => (isAbsolute(path) ? path : resolve(folder, path));
  const { store, tls, clients, servers, signIn, authorization, control, lock } = parts;
  const documents = clients?.metadataDocuments;
  return {
    ...parts,
    ...(typeof store === "string" && store.startsWith("sqlite:") && store !== "sqlite::memory:"
      ? { store: `sqlite:${from(store.slice("sqlite:".length))}` }
      : {}),
    ...(control === undefined || control.socket === "auto" || control.socket === "off"
      ? {}
      : { control: { socket: from(control.socket) } }),
    ...(lock?.file === undefined ? {} : { lock: { ...lock, file: from(lock.file) } }),
    ...(tls === undefined ? {} : { tls: { certificate: from(tls.certificate), key: from(tls.key) } }),
    ...(clients === undefined || documents?.trustedCertificates === undefined
      ? {}
      : {
          clients: {
            ...clients,
            metadataDocuments: { ...documents, trustedCertificates: from(documents.trustedCertificates) },
          },
        }),
    ...(signIn?.trustedCertificates === undefined
      ? {}
      : { signIn: { ...signIn, trustedCertificates: from(signIn.trustedCertificates) } }),
    ...(authorization?.trustedCertificates === undefined
      ? {}
      : { authorization: { ...authorization, trustedCertificates: from(authorization.trustedCertificates) } }),
    ...(servers === undefined
      ? {}
      : {
          servers: Object.fromEntries(
            Object.entries(servers).map(([name, server]) => [
              name,
              "command" in server ? { ...server, cwd: from(server.cwd ?? ".") } : server,
            ]),
          ),
        }),
  };
}

async function readText(file: string): Promise<string> {
  const problem = (message: string) =>
    new SettingsProblems([{ file, line: 0, column: 0, path: "", message, suggestion: undefined }]);
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (thrown) {
    const code = (thrown as NodeJS.ErrnoException).code;
    throw problem(
      code === "ENOENT"
        ? "there is no such file; `drawbridge import` writes one, and `drawbridge serve -- <command>` needs none"
        : `cannot be read (${code ?? "unknown"})`,
    );
  }
  if (bytes.length > MAX_FILE_BYTES) throw problem(`is larger than ${MAX_FILE_BYTES} bytes`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw problem("is not UTF-8 text");
  }
}

/**
 * Braces of references, replaced by characters of the same length that mean nothing in YAML, so that
 * `{ clientSecret: ${secret:idp} }` needs no quotes and every position stays what it was.
 */
const HIDDEN = { open: "\uE000", close: "\uE001" };
const hideBraces = (text: string) =>
  text.replaceAll(/\$\{((?:env|secret):[^{}\n]*)\}/g, (_, body: string) => `$${HIDDEN.open}${body}${HIDDEN.close}`);
const showBraces = (text: string) => text.replaceAll(HIDDEN.open, "{").replaceAll(HIDDEN.close, "}");

function readYaml(file: string, text: string): Source {
  const lines = new LineCounter();
  const document = parseDocument(hideBraces(text), {
    lineCounter: lines,
    prettyErrors: false,
    uniqueKeys: true,
    version: "1.2",
    strict: true,
  });
  const at = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { file, line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const problem = (offset: number, path: SettingsPath, message: string): SettingsProblem => ({
    ...at(offset),
    path: path.join("."),
    message,
    suggestion: undefined,
  });
  // The first syntax error brings others with it that only confuse; duplicate keys are all worth telling.
  const syntax = document.errors.filter((error) => error.code !== "DUPLICATE_KEY").slice(0, 1);
  const duplicates = document.errors.filter((error) => error.code === "DUPLICATE_KEY");
  if (syntax.length > 0)
    throw new SettingsProblems(
      [...syntax, ...duplicates].map((error) => problem(error.pos[0], [], yamlSentence(error))),
    );

  const problems = duplicates.map((error) => problem(error.pos[0], [], yamlSentence(error)));
  const scalars: { path: SettingsPath; text: string; plain: boolean }[] = [];
  const places = new Map<string, { key: number; value: number; written: string }>();
  let aliases = 0;

  const visit = (node: Node | null, path: SettingsPath, keyOffset: number): unknown => {
    const start = node?.range?.[0] ?? keyOffset;
    const known = { key: keyOffset, value: start, written: "" };
    places.set(path.join("\0"), known);
    if (isAlias(node)) {
      aliases++;
      const target = node.resolve(document as Document.Parsed);
      const message =
        target === undefined
          ? "this alias refers to nothing before it"
          : aliases > MAX_ALIASES
            ? `more than ${MAX_ALIASES} aliases`
            : undefined;
      if (message !== undefined) {
        if (aliases <= MAX_ALIASES + 1) problems.push(problem(start, path, message));
        return null;
      }
      return visit(target as Node, path, keyOffset);
    }
    if (path.length > MAX_DEPTH) {
      problems.push(problem(start, path.slice(0, 4), `nested deeper than ${MAX_DEPTH} levels`));
      return null;
    }
    if (isMap(node)) {
      const map: Record<string, unknown> = {};
      for (const pair of node.items) {
        const key = pair.key as ParsedNode | null;
        const offset = key?.range?.[0] ?? start;
        const name =
          isScalar(key) && (typeof key.value === "string" || typeof key.value === "number")
            ? showBraces(String(key.value))
            : undefined;
        if (name === undefined || name === "__proto__")
          problems.push(problem(offset, path, "a key must be a plain word"));
        else map[name] = visit(pair.value as Node | null, [...path, name], offset);
      }
      return map;
    }
    if (isSeq(node)) return node.items.map((item, index) => visit(item as Node | null, [...path, index], start));
    if (!isScalar(node)) return null;
    if (node.tag !== undefined && !node.tag.startsWith("tag:yaml.org,2002:"))
      problems.push(problem(start, path, "tags are not used in this file"));
    const value = typeof node.value === "string" ? showBraces(node.value) : node.value;
    known.written = String(value);
    if (typeof value === "string" && value.includes("${"))
      scalars.push({ path, text: value, plain: node.type === "PLAIN" });
    return value;
  };

  const root = visit(document.contents, [], 0);
  if (root !== null && !isRecord(root))
    problems.push(
      problem(document.contents?.range?.[0] ?? 0, [], "expected a mapping of settings at the top of the file"),
    );
  const nearestPlace = (path: SettingsPath): { key: number; value: number } =>
    places.get(path.join("\0")) ?? (path.length === 0 ? { key: 0, value: 0 } : nearestPlace(path.slice(0, -1)));
  return {
    raw: isRecord(root) ? root : {},
    scalars,
    problems,
    locate: (path, atKey) => {
      const exact = places.get(path.join("\0"));
      // What is missing is reported at the key of the mapping that lacks it.
      return at(exact === undefined || atKey ? nearestPlace(path).key : exact.value);
    },
    written: (path) => (places.get(path.join("\0"))?.written ?? "").slice(0, 60),
  };
}

/** Own words: those of the parser may quote the file, and with it a secret. */
function yamlSentence(error: YAMLError): string {
  const sentences: Partial<Record<YAMLError["code"], string>> = {
    DUPLICATE_KEY: "this key is there twice",
    MULTIPLE_DOCS: "one document only; remove what follows this ---",
    TAB_AS_INDENT: "tabs cannot indent; use spaces",
    MISSING_CHAR: "a closing quote, bracket or colon is missing",
    BAD_INDENT: "the indentation does not fit",
    BLOCK_AS_IMPLICIT_KEY: "a second colon in one line; put quotes around a value that contains ': '",
    UNEXPECTED_TOKEN: "did not expect this here; put quotes around values with special characters",
    BAD_SCALAR_START: "a value cannot start with this character; put it in quotes",
    BAD_DQ_ESCAPE: "not an escape that double quotes know; use single quotes or double the backslash",
    RESOURCE_EXHAUSTION: "nested too deeply",
  };
  return `not valid YAML: ${sentences[error.code] ?? error.code.toLowerCase().replaceAll("_", " ")}`;
}

function setAt(root: unknown, path: SettingsPath, value: unknown): void {
  let here = root;
  path.forEach((key, index) => {
    if (typeof here !== "object" || here === null) return;
    if (index === path.length - 1) Reflect.set(here, key, value);
    else {
      if (!Object.hasOwn(here, key)) Reflect.set(here, key, {});
      here = Reflect.get(here, key);
    }
  });
}

function startsWith(path: SettingsPath, prefix: SettingsPath): boolean {
  return prefix.every((key, index) => String(path[index]) === String(key));
}

function samePath(a: SettingsPath, b: SettingsPath): boolean {
  return a.length === b.length && startsWith(a, b);
}

function unique(problems: readonly SettingsProblem[]): SettingsProblem[] {
  return [...new Map(problems.map((one) => [JSON.stringify(one), one])).values()];
}
