/** `server()`: declarations put together, judged at once, and answered for. */
import { DrawbridgeError } from "../core/errors.ts";
import { MODULE_SERVER, type ModuleServer } from "../mcp/module-server.ts";
import { openCalls } from "./calls.ts";
import { DOCUMENTATION } from "./compile-errors.ts";
import { contractsOf, definitionsOf, variablesOf } from "./definitions.ts";
import type { Prompt, Resource } from "./resource.ts";
import { inputProblems, leadsSomewhere, outputProblems } from "./soundness.ts";
import { serveStdio } from "./stdio.ts";
import type { Tool } from "./tool.ts";

export interface Declared {
  readonly name: string;
  readonly version: string;
  readonly title?: string;
  /** What models read of the server as a whole. */
  readonly instructions?: string;
  readonly tools: readonly Tool[];
  readonly resources?: readonly Resource[];
  readonly prompts?: readonly Prompt[];
}

export interface Server extends ModuleServer {
  readonly declared: Declared;
  /**
   * Serves over the standard streams of this process, in both eras, until its input ends. One user: whoever started it. What needs a
   * gateway is not left out silently: see docs/author.md.
   */
  stdio(): Promise<void>;
}

/**
 * Makes a server of declarations. Throws `settings_invalid` with everything that is wrong with them, each with file and line of its
 * declaration.
 */
export function server(declared: Declared): Server {
  const problems = problemsOf(declared);
  if (problems.length > 0)
    throw new DrawbridgeError(
      "settings_invalid",
      `The server ${declared.name} cannot start:\n${problems.map((problem) => `  ${problem}`).join("\n")}`,
    );
  const { name, version, title, instructions, tools, resources = [], prompts = [] } = declared;
  const definitions = definitionsOf(declared);
  const made: Server = {
    [MODULE_SERVER]: true,
    declared,
    identity: {
      info: { name, ...(title !== undefined && { title }), version },
      capabilities: {
        ...(tools.length > 0 && { tools: {} }),
        ...(resources.length > 0 && { resources: {} }),
        ...(prompts.length > 0 && { prompts: {} }),
      },
      instructions,
    },
    list: (list) => definitions[list],
    contracts: (as) => contractsOf(declared, as),
    call: openCalls(declared),
    stdio: () => serveStdio(made),
  };
  return made;
}

type Declaration = Tool | Resource | Prompt;

function problemsOf({ name, version, tools, resources = [], prompts = [] }: Declared): readonly string[] {
  const all: readonly Declaration[] = [...tools, ...resources, ...prompts];
  const seen = new Map<string, string>();
  return [
    ...(name.trim() === "" || version.trim() === "" ? ["the server needs a name and a version"] : []),
    ...all.flatMap((one) => {
      const called = one.kind === "resource" ? one.uri : one.name;
      const other = seen.get(`${one.kind} ${called}`);
      seen.set(`${one.kind} ${called}`, one.place);
      return [
        ...(other === undefined ? [] : [`is declared twice, also at ${other}`]),
        ...(/^[A-Za-z0-9_.-]{1,128}$/.test(one.name)
          ? []
          : ["has a name of other characters than letters, digits, _ - ."]),
        ...PROBLEMS[one.kind](one as never),
      ].map((problem) => `${one.place} ${one.kind} ${called}: ${problem}`);
    }),
  ];
}

const PROBLEMS = {
  tool: (tool: Tool) => [
    ...wordless(tool, ["title"]),
    ...DOCUMENTATION.flatMap((part) =>
      isText(tool.description?.[part]) ? [] : [`the description lacks "${part}": a model that is not told guesses`],
    ),
    ...(isText(tool.description?.does) && tool.description.does.trim().split(/\s+/).length < 4
      ? ['the description\'s "does" says no more than the name: write a sentence']
      : []),
    ...(["read", "write", "destructive"].includes(tool.access)
      ? []
      : ['access is missing: "read", "write" or "destructive"']),
    ...(tool.scopes ?? []).flatMap((scope) =>
      SCOPE.test(scope) ? [] : [`${JSON.stringify(scope)} is no scope: a name without spaces, none of OpenID Connect`],
    ),
    ...(tool.input === undefined ? ["an input is missing: z.object({…})"] : inputProblems(tool.input)),
    ...(tool.output === undefined
      ? ["an output is missing: z.object({…}), what of the answer leaves"]
      : [
          ...outputProblems(tool.output),
          ...Object.keys(tool.mask ?? {}).flatMap((path) =>
            leadsSomewhere(tool.output, path) ? [] : [`mask ${JSON.stringify(path)} is about nothing in the output`],
          ),
        ]),
  ],
  resource: (resource: Resource) => [
    ...wordless(resource, ["title", "description"]),
    ...inputProblems(resource.input),
    ...outputProblems(resource.output),
    ...unequal(variablesOf(resource.uri), Object.keys(resource.input.shape)),
  ],
  prompt: (prompt: Prompt) => [...wordless(prompt, ["title", "description"]), ...inputProblems(prompt.input)],
} as const;

function wordless<T extends Declaration>(one: T, parts: readonly (keyof T & string)[]): readonly string[] {
  return parts.flatMap((part) => (isText(one[part]) ? [] : [`the ${part} is missing`]));
}

function unequal(variables: readonly string[], fields: readonly string[]): readonly string[] {
  return [
    ...variables
      .filter((name) => !fields.includes(name))
      .map((name) => `the variable {${name}} of its URI is no input`),
    ...fields.filter((name) => !variables.includes(name)).map((name) => `input "${name}" is no variable of its URI`),
  ];
}

/** RFC 6749 §3.3, as `stepUp` of a settings file has it. */
const SCOPE = /^(?!(?:openid|offline_access|profile|email)$)[\x21\x23-\x5b\x5d-\x7e]{1,100}$/;

const isText = (text: unknown): text is string => typeof text === "string" && text.trim() !== "";
