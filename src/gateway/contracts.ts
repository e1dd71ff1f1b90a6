/**
 * The contracts of the settings, met with what the servers offer: which definitions are served, as what, and which are not because
 * their contract does not fit them. Everything about a call is compiled here, when a definition is read.
 */
import { placeIn } from "../config/load.ts";
import type { Settings } from "../config/schema.ts";
import { type CompiledCheck, compileArguments } from "../contract/arguments.ts";
import {
  type Contract,
  type ContractProblem,
  type ContractSettings,
  compileContract,
  compileOutcome,
  isContract,
  type OutcomeSettings,
  servesAll,
  sourceOf,
} from "../contract/contract.ts";
import type { Definition, DefinitionKind } from "../contract/definition.ts";
import type { ComposeOptions } from "../contract/steps.ts";
import type { Access, Effect, JsonObject } from "../core/call.ts";
import { compileGlob } from "../core/glob.ts";
import { isObject, memberTexts, objectText } from "../mcp/json-text.ts";
import { isWrapped, wrappedSchema } from "../mcp/structured-content.ts";
import type { Logger } from "../observe/logger.ts";
import { type MirroredParameters, mirroredParameters } from "../upstream/mirrored-headers.ts";
import type { Entry, Withheld } from "./catalogue.ts";

export type ContractSections = Pick<Settings, "tools" | "resources" | "prompts">;

/** What became of one contract and one definition. */
export type Met =
  | { readonly contract: Contract }
  | {
      readonly name: string;
      readonly source: { readonly server: string; readonly name: string };
      readonly problem: string;
    };

export interface Contracts {
  /** Nothing of this kind is served without a contract. */
  covers(kind: DefinitionKind): boolean;
  /** Compiles what is served of these definitions; `of` knows it from then on. Never rejects. */
  prepare(definitions: readonly Definition[]): Promise<void>;
  /** What is served of a definition. Undefined: it is served as it is. */
  of(definition: Definition): readonly Met[] | undefined;
  /** Compiles the tools that are made of steps, where something that they call has changed. Never rejects. */
  compose(find: ComposeOptions["find"]): Promise<void>;
  outcomes(): readonly Met[];
  /** Contracts about what a server does not offer. `offered`: what it does, as far as it was read. */
  missing(server: string, kinds: readonly DefinitionKind[], offered: ReadonlySet<string>): readonly Withheld[];
  /** Where a contract stands in the settings, for lists in their order. */
  position(contract: Contract): number;
}

interface Row {
  readonly section: keyof ContractSections;
  readonly name: string;
  readonly settings: ContractSettings;
  readonly server: string;
  /** What the server calls it, or a glob over that. */
  readonly from: string;
  readonly matches: (name: string) => boolean;
}

const SECTION: Record<DefinitionKind, keyof ContractSections> = {
  tool: "tools",
  prompt: "prompts",
  resource: "resources",
  resourceTemplate: "resources",
};

/** `compile`: the language of conditions and values in steps; without it tools with steps are withheld. */
export function openContracts(sections: ContractSections, log: Logger, compile?: ComposeOptions["compile"]): Contracts {
  const rows = rowsOf(sections);
  const positions = positionsOf(rows);
  const met = new WeakMap<Definition, readonly Met[]>();
  let outcomes: readonly Met[] = [];
  let composedOf = "";
  const told = new Set<string>();

  const meet = async (row: Row, definition: Definition): Promise<Met> =>
    verdict(
      row,
      { server: row.server, name: definition.name },
      await compileContract(row.name, row.settings, definition),
    );

  const verdict = (
    row: Row,
    source: { server: string; name: string },
    made: Contract | readonly ContractProblem[],
  ): Met => {
    if (isContract(made)) return { contract: { ...made, settings: row.settings } };
    const places = made.map(({ path, message }) => {
      const keys = [row.section, row.name, ...path];
      const at = placeIn(
        sections,
        keys.map((key, index) => (index > 1 && /^\d+$/.test(key) ? Number(key) : key)),
      );
      return { at, path: keys.join("."), message };
    });
    const problem = places
      .map(({ at, path, message }) => `${at === undefined ? "" : `${at} `}${path}: ${message}`)
      .join("; ");
    if (!told.has(problem)) {
      for (const { at, path, message } of places)
        log.warn(
          { ...(at !== undefined && { at }), path, ...source, problem: message },
          "a contract does not fit what its server offers, which is withheld",
        );
      if (told.size < MAX_TOLD) told.add(problem);
    }
    return { name: row.name, source, problem: `its contract does not fit it: ${problem}` };
  };

  return {
    covers: (kind) => sections[SECTION[kind]] !== undefined,
    async prepare(definitions) {
      for (const definition of definitions) {
        if (met.has(definition) || sections[SECTION[definition.kind]] === undefined) continue;
        const mine = rows.filter((row) => row.section === SECTION[definition.kind] && row.server === definition.server);
        const named = mine.filter((row) => !servesAll(row.name) && row.from === definition.name);
        const all = mine.find((row) => servesAll(row.name) && row.matches(definition.name));
        const chosen = named.length > 0 || all === undefined ? named : [all];
        const found: Met[] = [];
        for (const row of chosen) found.push(await meet(row, definition));
        met.set(definition, found);
      }
    },
    // What was not prepared is not served.
    of: (definition) => (sections[SECTION[definition.kind]] === undefined ? undefined : (met.get(definition) ?? [])),
    async compose(find) {
      const mine = Object.entries(sections.tools ?? {}).filter(
        (entry): entry is [string, OutcomeSettings] => entry[1].steps !== undefined,
      );
      const called = mine.flatMap(([, { steps }]) =>
        steps.flatMap((step) => [step.call, ...(step.undo === undefined ? [] : [step.undo.call])]),
      );
      const state = JSON.stringify([
        mine,
        called.map((call) => {
          const { server, name } = sourceOf(call);
          return find(server, name)?.pin ?? null;
        }),
      ]);
      if (state === composedOf) return;
      composedOf = state;
      const found: Met[] = [];
      for (const [name, settings] of mine) {
        const source = sourceOf(settings.steps[0]?.call ?? "");
        const row: Row = {
          section: "tools",
          name,
          settings,
          server: source.server,
          from: source.name,
          matches: () => false,
        };
        const made: Contract | readonly ContractProblem[] =
          compile === undefined
            ? [{ path: ["steps"], message: "cannot be used here" }]
            : await compileOutcome(name, settings, { compile, find });
        if (isContract(made))
          for (const warning of made.composition?.warnings ?? []) {
            if (told.has(`${name}: ${warning}`)) continue;
            log.warn({ path: `tools.${name}`, warning }, "steps of a contract have a weak point");
            if (told.size < MAX_TOLD) told.add(`${name}: ${warning}`);
          }
        found.push(verdict(row, source, made));
      }
      if (state === composedOf) outcomes = found;
    },
    outcomes: () => outcomes,
    missing(server, kinds, offered) {
      return rows
        .filter((row) => row.server === server && !servesAll(row.name) && !offered.has(row.from))
        .filter((row) => kinds.some((kind) => SECTION[kind] === row.section))
        .map(({ section, name, from }) => ({
          server,
          kind: kinds[0] ?? "tool",
          name: from,
          reason: `${section}.${name}.from: the server does not offer it`,
        }));
    },
    position: ({ kind, name }) => positions(SECTION[kind], name),
  };
}

const MAX_TOLD = 1000;

function rowsOf(sections: ContractSections): readonly Row[] {
  return (["tools", "resources", "prompts"] as const).flatMap((section) =>
    Object.entries(sections[section] ?? {}).flatMap(([name, settings]): Row[] => {
      if (settings.from === undefined) return [];
      const { server, name: from } = sourceOf(settings.from);
      return [{ section, name, settings, server, from, matches: compileGlob(from) }];
    }),
  );
}

/** Every contract by its place; one that serves several stands for them all. */
function positionsOf(rows: readonly Row[]): (section: keyof ContractSections, name: string) => number {
  const exact = new Map(rows.map(({ section, name }, at) => [`${section}\n${name}`, at]));
  const open = rows.flatMap((row, at) => (servesAll(row.name) ? [{ ...row, at, serves: compileGlob(row.name) }] : []));
  return (section, name) =>
    exact.get(`${section}\n${name}`) ??
    open.find((row) => row.section === section && row.serves(name))?.at ??
    rows.length;
}

/** A contract as the catalogue lists and finds it. */
export function contractEntry(contract: Contract, definition: Definition, pin: string | undefined): Entry {
  const { narrowing, served } = contract;
  const tool = contract.kind === "tool" && contract.uri === undefined;
  const kind = contract.kind === "prompt" ? "prompt" : tool ? "tool" : "resource";
  const name = kind === "resource" && contract.uri !== undefined ? contract.uri.text : contract.name;
  const text = asItIs(contract) ? named(definition, contract.name) : JSON.stringify(served);
  const wrapped = tool && isWrapped(served["outputSchema"]);
  let compiling: Promise<CompiledCheck> | undefined;
  let compiled: CompiledCheck | undefined = narrowing && { check: narrowing.check, problem: undefined, unread: [] };
  let mirrored: MirroredParameters | undefined;
  return {
    target: {
      server: contract.source.server,
      kind,
      name,
      upstreamName: contract.source.name,
      pin,
      ...(contract.access !== undefined && { access: accessOf(contract.access, served) }),
      ...(kind === "resource" && name.includes("{") && { template: true as const }),
    },
    definition,
    contract,
    served: text,
    servedLegacy: wrapped ? withWrappedSchema(text) : text,
    wrapped,
    get compiled() {
      return compiled;
    },
    async compile() {
      compiling ??=
        compiled === undefined ? compileArguments(definition.value["inputSchema"]) : Promise.resolve(compiled);
      compiled = await compiling;
      return compiled;
    },
    mirrored() {
      if (mirrored !== undefined) return mirrored;
      const found = mirroredParameters(served["inputSchema"]);
      mirrored = typeof found === "string" ? [] : found;
      return mirrored;
    },
  };
}

/** Where a contract says what a tool does, the annotations are its own. */
function accessOf(effect: Effect, { annotations }: JsonObject): Access {
  const openWorld = isObject(annotations) ? annotations["openWorldHint"] : undefined;
  return { effect, openWorld: typeof openWorld === "boolean" ? openWorld : undefined };
}

/** The server's own definition under another name. */
const asItIs = ({ narrowing, projection, served, uri }: Contract) =>
  narrowing === undefined && projection === undefined && uri === undefined && served["inputSchema"] !== undefined;

function named({ text, value }: Definition, name: string): string {
  const members = memberTexts(text) ?? new Map(Object.entries(value).map(([key, one]) => [key, JSON.stringify(one)]));
  members.set("name", JSON.stringify(name));
  if (members.has("execution")) members.set("execution", '{"taskSupport":"optional"}');
  return objectText(members);
}

function withWrappedSchema(served: string): string {
  const members = memberTexts(served) ?? new Map<string, string>();
  return objectText(members.set("outputSchema", wrappedSchema(members.get("outputSchema") ?? "{}")));
}
