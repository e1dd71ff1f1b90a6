/** What the schema of contracts cannot say: names that must be known, settings that exclude each other, and what deserves a warning. */

import { servesAll, sourceOf } from "../contract/contract.ts";
import { compileFields } from "../contract/fields.ts";
import type { InputRule } from "../contract/settings.ts";
import { stepProblems } from "../contract/steps.ts";
import { compileUriTemplate } from "../contract/uri-template.ts";
import { compileGlob } from "../core/glob.ts";
import { compileExpression } from "../policy/expressions.ts";
import { compilePattern } from "../policy/globs.ts";
import type { SoundParts } from "./checks.ts";
import { type Finding, isRecord, nearest, type SettingsPath, valueAt } from "./problems.ts";
import type { Settings } from "./schema.ts";

const SECTIONS = ["tools", "resources", "prompts"] as const;
type Section = (typeof SECTIONS)[number];

/** What can be said of contracts without the servers. */
export function contractFindings(parts: SoundParts, raw: unknown): Finding[] {
  const declared = valueAt(raw, ["servers"]);
  const servers = isRecord(declared) ? Object.keys(declared) : [];
  return SECTIONS.flatMap((section) => {
    const contracts = Object.entries(parts[section] ?? {});
    return [
      ...contracts.flatMap(([name, contract]) => [
        ...sourceFindings([section, name], contract, servers),
        ...globFindings(section, name, contract),
        ...outputFindings(section, name, contract),
      ]),
      ...(section === "resources"
        ? []
        : alikeFindings(
            section,
            contracts.map(([name]) => name),
          )),
    ];
  }).concat(Object.entries(parts.tools ?? {}).flatMap(([name, tool]) => toolFindings(name, tool)));
}

type AnyContract = NonNullable<Settings[Section]>[string];
type ToolContract = NonNullable<Settings["tools"]>[string];

function sourceFindings(path: SettingsPath, contract: AnyContract, servers: readonly string[]): Finding[] {
  const steps = "steps" in contract ? (contract.steps ?? []) : [];
  const named: [SettingsPath, string | undefined][] = [
    [[...path, "from"], contract.from],
    ...steps.flatMap(({ call, undo }, index): [SettingsPath, string | undefined][] => [
      [[...path, "steps", index, "call"], call],
      [[...path, "steps", index, "undo", "call"], undo?.call],
    ]),
  ];
  return named.flatMap(([at, from]): Finding[] => {
    if (from === undefined || servers.includes(sourceOf(from).server)) return [];
    const { server, name } = sourceOf(from);
    const close = nearest(server, servers);
    return [
      {
        path: at,
        message: `there is no server ${JSON.stringify(server)}${close === undefined ? `; known servers: ${servers.join(", ") || "none"}` : ""}`,
        suggestion: close === undefined ? undefined : `${close}/${name}`,
      },
    ];
  });
}

/** What serves several as they are can say of them only how much of their answers comes back. */
function globFindings(section: Section, name: string, contract: AnyContract): Finding[] {
  const path = [section, name];
  if (contract.from === undefined) return [];
  const star = contract.from.includes("*");
  // A resource may have a star in its URI; nothing else has.
  if (!servesAll(name))
    return star && section !== "resources"
      ? [
          {
            path: [...path, "from"],
            message: `names several: end the name of the contract with * too, to serve them all as they are`,
          },
        ]
      : [];
  if (!star)
    return [
      {
        path: [...path, "from"],
        message: "names one, and the name of the contract ends with *: write the name that clients shall use",
      },
    ];
  const own = Object.keys(contract).filter(
    (key) =>
      !ABOUT_ALL.has(key) &&
      Reflect.get(contract, key) !== undefined &&
      !(key in DEFAULTS && DEFAULTS[key] === JSON.stringify(Reflect.get(contract, key))),
  );
  return own.map((key) => ({ path: [...path, key], message: "is for one; this contract serves several as they are" }));
}

const ABOUT_ALL: ReadonlySet<string> = new Set(["from", "output"]);
/** Settings that are there although nobody wrote them. */
const DEFAULTS: Readonly<Record<string, string>> = {
  maxDepth: "8",
  maxBytes: "65536",
  deadlineSeconds: "300",
  examples: "[]",
};

function outputFindings(section: Section, name: string, { output }: AnyContract): Finding[] {
  const path = [section, name, "output"];
  if (output?.fields === undefined) return [];
  if (section === "prompts")
    return [{ path: [...path, "fields"], message: "is for answers that are JSON, and those of prompts are messages" }];
  if (servesAll(name))
    return [{ path: [...path, "fields"], message: "is for one; this contract serves several as they are" }];
  return attempted(path, () => compileFields(output.fields ?? [], undefined));
}

function toolFindings(name: string, tool: ToolContract): Finding[] {
  const path = ["tools", name];
  const findings: Finding[] = [];
  if (tool.as !== undefined) {
    const { resource } = tool.as;
    if (tool.access !== "read")
      findings.push({ path: [...path, "as"], message: "is for tools that only read; add `access: read`" });
    if (tool.steps !== undefined) findings.push({ path: [...path, "as"], message: "cannot be together with `steps`" });
    if (tool.output === undefined)
      findings.push({ path: [...path, "as"], message: "needs `output`: what of the answer is the resource" });
    findings.push(...attempted([...path, "as", "resource"], () => compileUriTemplate(resource)));
  }
  if (tool.steps === undefined && tool.result !== undefined)
    findings.push({ path: [...path, "result"], message: "is for tools with `steps`" });
  for (const { path: below, message } of stepProblems(tool, compileExpression))
    findings.push({ path: [...path, ...below.map((key) => (/^\d+$/.test(key) ? Number(key) : key))], message });
  for (const [argument, rule] of Object.entries(tool.input ?? {}))
    findings.push(...ruleFindings([...path, "input", argument], rule));
  return findings;
}

function ruleFindings(path: SettingsPath, rule: InputRule): Finding[] {
  const hiding = (["fixed", "bind", "hidden"] as const).filter((key) => rule[key] !== undefined && rule[key] !== false);
  const findings: Finding[] =
    hiding.length > 1 ? [{ path, message: `is ${hiding.join(" and ")} at once; choose one` }] : [];
  for (const [least, most] of [
    ["minLength", "maxLength"],
    ["minimum", "maximum"],
    ["minItems", "maxItems"],
  ] as const)
    if ((rule[least] ?? Number.NEGATIVE_INFINITY) > (rule[most] ?? Number.POSITIVE_INFINITY))
      findings.push({ path: [...path, least], message: `is greater than ${most}` });
  return findings;
}

function attempted(path: SettingsPath, attempt: () => unknown): Finding[] {
  try {
    attempt();
    return [];
  } catch (thrown) {
    return [{ path, message: thrown instanceof Error ? thrown.message : String(thrown) }];
  }
}

/** Names that differ by case, `_`, `-` and `.` alone are one name to whoever reads them fast. */
function alikeFindings(section: Section, names: readonly string[]): Finding[] {
  const seen = new Map<string, string>();
  return names.flatMap((name): Finding[] => {
    const look = name.toLowerCase().replaceAll(/[_.-]/g, "");
    const other = seen.get(look);
    seen.set(look, other ?? name);
    return other === undefined
      ? []
      : [
          {
            path: [section, name],
            atKey: true,
            message: `looks like ${JSON.stringify(other)}; give one of them another name`,
          },
        ];
  });
}

/** Sentences for the operator: contracts that leave things open, and roles that are about nothing. */
export function contractWarnings(settings: Settings): string[] {
  const open = SECTIONS.flatMap((section) =>
    Object.entries(settings[section] ?? {}).flatMap(([name, { from, unproven }]): string[] => [
      ...(servesAll(name)
        ? [
            `${section}.${name} serves everything that ${from} stands for as its server offers it, without a contract of its own.`,
          ]
        : []),
      ...(unproven === "accept"
        ? [
            `${section}.${name}.unproven is accept. Insecure: the contract counts although it cannot be proved to be narrower than what the server takes.`,
          ]
        : []),
    ]),
  );
  return [...open, ...forgottenUndos(settings), ...idlePatterns(settings)];
}

/** What has to be undone is written down, and memory is no place for that. */
function forgottenUndos({ store, tools }: Settings): string[] {
  if (store !== "memory") return [];
  return Object.entries(tools ?? {}).flatMap(([name, { steps }]) =>
    steps?.some(({ undo }) => undo !== undefined)
      ? [
          `tools.${name} undoes its steps when one fails, but not after a crash or a restart: store is memory. A store in a file or a database keeps what has to be undone.`,
        ]
      : [],
  );
}

/** What is served under contract is known, so a pattern that matches none of it was written for something else. */
function idlePatterns({ tools, roles }: Settings): string[] {
  if (tools === undefined) return [];
  const names = Object.keys(tools);
  const uris = Object.values(tools).flatMap(({ as: form }) => (form === undefined ? [] : [form.resource]));
  return Object.entries(roles ?? {}).flatMap(([role, lists]) =>
    (["may", "deny"] as const).flatMap((list) =>
      lists[list].flatMap((pattern): string[] => {
        if (/^(?:resource:|prompt:|access:|open-world$)/.test(pattern) || uris.includes(pattern)) return [];
        const matches = compilePattern(pattern);
        const glob = pattern.replace(/^tool:/, "");
        const met = names.some((name) => (servesAll(name) ? overlap(name, glob) : matches({ kind: "tool", name })));
        const close = nearest(glob, names);
        return met
          ? []
          : [
              `roles.${role}.${list}: ${JSON.stringify(pattern)} matches no tool of \`tools\`, so it does nothing${close === undefined ? "" : `; did you mean ${JSON.stringify(close)}?`}`,
            ];
      }),
    ),
  );
}

/** Whether a name can match both; of two globs that is taken for granted where their beginnings agree. */
function overlap(served: string, pattern: string): boolean {
  const head = served.slice(0, -1);
  const star = pattern.indexOf("*");
  if (star < 0) return compileGlob(served)(pattern);
  const own = pattern.slice(0, star);
  return own.startsWith(head) || head.startsWith(own);
}
