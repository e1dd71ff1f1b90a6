/** A settings file from proposed contracts: whole, with a word beside each guess, and made to be edited. */
import { Document, isMap, isScalar, type Node, type Pair, type Scalar, visit } from "yaml";
import type { Proposal, ProposedEntry, ProposedTool } from "../contract/propose.ts";
import type { JsonObject, JsonValue } from "../core/call.ts";

export interface ProposedFile {
  readonly proposal: Proposal;
  /** Its name, and its entry of `servers:` as it is to be written. */
  readonly server: { readonly name: string; readonly settings: JsonObject };
}

/** The text of the file. It loads as it is. */
export function proposedFile({ proposal, server }: ProposedFile): string {
  const { tools, resources, prompts } = proposal;
  const sections: string[] = [HEAD];
  sections.push(block("servers", { [server.name]: server.settings }));
  sections.push([...leftOutLines(proposal), ...toolLines(tools)].join("\n"));
  sections.push(entryLines("resources", resources), entryLines("prompts", prompts));
  sections.push(rolesLines(tools, prompts, resources));
  return `${sections.map((section) => section.trimEnd()).join("\n\n")}\n`;
}

const HEAD = `# yaml-language-server: $schema=./node_modules/drawbridge-mcp/schema/config.schema.json
#
# Proposed by \`drawbridge init\`: a first version to be edited from top to bottom.
#
#   - Take out what agents do not need. What is not in this file does not exist for them.
#   - Narrow what they may send: a pattern, an enum or a range says more than a length.
#   - Name what comes back (\`output: [id, status, items/*/sku]\`). Where no field is named, all of the answer is handed on;
#     \`drawbridge init --sample\` looks at answers and proposes fields.
#   - Write the descriptions: what it does, when to use it, when not, what it returns, its limits. A model reads nothing else.
#   - Join calls that people want together into one tool with \`steps:\`.
#
# Then: drawbridge contract test && drawbridge serve. docs/contracts.md explains all of it.`;

function leftOutLines({ leftOut }: Proposal): readonly string[] {
  if (leftOut.length === 0) return [];
  return [
    "# Left out, and why:",
    ...leftOut.flatMap(({ kind, name, why }) => comment(`${kind === "tool" ? "" : `${kind} `}${name}: ${why}`, "  ")),
  ];
}

function toolLines(tools: readonly ProposedTool[]): readonly string[] {
  if (tools.length === 0) return ["tools: {}"];
  const lines = ["tools:"];
  let about: string | undefined;
  for (const tool of tools) {
    if (tool.about !== about) {
      about = tool.about;
      if (about !== "") lines.push(`  # ---- ${about} ----`, "");
      if (tool.together !== undefined) lines.push(...indented(comment(tool.together).join("\n")), "");
    }
    lines.push(...indented(entryText(tool)), "");
  }
  return lines;
}

function entryLines(section: string, entries: readonly ProposedEntry[]): string {
  if (entries.length === 0) return `${section}: {}`;
  return [`${section}:`, ...entries.flatMap((entry) => indented(entryText(entry)))].join("\n");
}

/** Who reads may read, who writes may also write; what destroys is for somebody to allow. */
function rolesLines(
  tools: readonly ProposedTool[],
  prompts: readonly ProposedEntry[],
  resources: readonly ProposedEntry[],
): string {
  const named = (access: ProposedTool["access"]) =>
    tools.filter((tool) => tool.access === access).map((tool) => tool.name);
  const others = [...(prompts.length > 0 ? ["prompt:*"] : []), ...(resources.length > 0 ? ["resource:*"] : [])];
  const list = (names: readonly string[]) =>
    names.map((name) => `      - ${/^[a-z][a-z0-9]*[_.-][A-Za-z0-9_.-]*$/.test(name) ? name : JSON.stringify(name)}`);
  const reading = [...named("read"), ...others];
  const writing = named("write");
  const destroying = named("destructive");
  return [
    "roles:",
    "  # Reads, and changes nothing.",
    "  reader:",
    ...(reading.length === 0 ? ["    may: []"] : ["    may:", ...list(reading)]),
    "",
    "  # Changes things, too.",
    "  writer:",
    ...(writing.length === 0 ? ["    may: []"] : ["    may:", ...list(writing)]),
    ...(destroying.length === 0
      ? []
      : [
          "      # Cannot be taken back: give it to somebody on purpose.",
          ...list(destroying).map((line) => line.replace("- ", "# - ")),
        ]),
    "",
    "assign:",
    "  - { role: reader, group: owner } # the first local user, made with the one-time link that the first start prints",
    "  - { role: writer, group: owner }",
    "  - { role: reader, group: reader }",
    "  - { role: reader, group: writer }",
    "  - { role: writer, group: writer }",
  ].join("\n");
}

// ---- YAML ----

const WIDTH = 110;
/** A mapping or list that is shorter stands on one line. */
const SHORT = 90;

function entryText({ name, contract, remarks }: ProposedEntry): string {
  const document = new Document({ [name]: contract });
  for (const { path, text } of remarks) remark(document, [name, ...path], text);
  return written(document);
}

/** Puts a comment before the key at a path, or the nearest one above it that is there. */
function remark(document: Document, path: readonly string[], text: string): void {
  let map: unknown = document.contents;
  let found: Pair<Scalar, Node> | undefined;
  for (const part of path) {
    const pair = isMap(map)
      ? (map.items as Pair<Scalar, Node>[]).find(({ key }) => isScalar(key) && key.value === part)
      : undefined;
    if (pair === undefined) break;
    found = pair;
    map = pair.value;
  }
  if (found === undefined) return;
  const lines = comment(text).map((line) => line.slice(1));
  found.key.commentBefore = [found.key.commentBefore, ...lines].filter((line) => line != null).join("\n");
}

const block = (key: string, value: JsonValue) => written(new Document({ [key]: value }));

function written(document: Document): string {
  visit(document, {
    Map: (key, node) => (key === null ? undefined : flow(node)),
    Seq: (_, node) => flow(node),
    Scalar(key, node) {
      if (typeof node.value !== "string" || key === "key") return;
      if (node.value.length > 80) node.type = "BLOCK_FOLDED";
      // A reader should not have to know which backslashes count.
      else if (/[\\[\]{}^$#:]/.test(node.value) && !node.value.includes("'")) node.type = "QUOTE_SINGLE";
    },
  });
  return document.toString({ lineWidth: WIDTH, flowCollectionPadding: true });
}

function flow(node: Node & { flow?: boolean }): void {
  const { items } = node as unknown as { items: readonly unknown[] };
  const text = JSON.stringify(node.toJSON());
  const nested = text.startsWith("[{") || text.startsWith('{"from"');
  if (items.length === 0 || (text.length < SHORT && !nested && !hasComment(node))) node.flow = true;
}

function hasComment(node: Node): boolean {
  let found = false;
  visit(node, {
    Scalar(_, one) {
      if (one.commentBefore != null) found = true;
    },
  });
  return found;
}

/** Lines of a comment, each with its `#`. */
function comment(text: string, indent = ""): readonly string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length < WIDTH - 4) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(`# ${indent}${lines.length > 0 && indent !== "" ? "  " : ""}${word}`);
  }
  return lines;
}

const indented = (text: string): readonly string[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => (line === "" ? "" : `  ${line}`));
