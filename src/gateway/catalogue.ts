/**
 * What the upstreams offer, under the names clients use. Read from the upstreams, pinned at first sight, refreshed when they say
 * that a list changed or when it has grown old. A definition that differs from its pin is withheld until an operator accepts it.
 */
import { type CompiledCheck, compileArguments } from "../contract/arguments.ts";
import { type Definition, type DefinitionKind, pinOf, readDefinition } from "../contract/definition.ts";
import type { Target, TargetKind } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { compileGlob } from "../core/glob.ts";
import { isObject, memberTexts, objectText } from "../mcp/json-text.ts";
import type { Logger } from "../observe/logger.ts";
import { type MirroredParameters, mirroredParameters } from "../upstream/mirrored-headers.ts";
import type { ListName, Upstream } from "../upstream/upstream.ts";
import type { Pins } from "./pins.ts";

export interface Entry {
  readonly target: Target;
  readonly definition: Definition;
  /** The definition as clients see it, as JSON text. */
  readonly served: string;
  /** Checks the arguments of a tool; undefined until `compile` was called. */
  readonly compiled: CompiledCheck | undefined;
  compile(): Promise<CompiledCheck>;
  /** Arguments that clients of 2026-07-28 repeat in headers. */
  mirrored(): MirroredParameters;
}

export interface Withheld {
  readonly server: string;
  readonly kind: DefinitionKind;
  readonly name: string;
  readonly reason: string;
}

export interface Catalogue {
  /** Counts the changes; equal numbers mean equal lists. */
  readonly version: number;
  /** Every entry of one list, in the order of the settings and of the upstream. Refreshes first what is too old. */
  list(list: ListName): Promise<readonly Entry[]>;
  /** The same, as it is known now. */
  now(list: ListName): readonly Entry[];
  /** What a name means, as far as it is known now. */
  find(kind: TargetKind, name: string): Target | undefined;
  /** What a name means, after looking again where what is known is too old; undefined when nothing has it. */
  resolve(kind: TargetKind, name: string): Promise<Target | undefined>;
  entry(target: Target): Entry | undefined;
  /** Definitions that are not served, and why. */
  withheld(): readonly Withheld[];
  /** Why a list of the server could not be read the last time; undefined when all could. */
  problem(server: string): string | undefined;
  /** Marks a list of a server as old. */
  changed(server: string, list: ListName): void;
  /** Resolves when each upstream was read once or has failed. */
  readonly ready: Promise<void>;
}

const LISTS: readonly ListName[] = ["tools", "resources", "resourceTemplates", "prompts"];
const KIND: Record<ListName, DefinitionKind> = {
  tools: "tool",
  resources: "resource",
  resourceTemplates: "resourceTemplate",
  prompts: "prompt",
};
/** Resources are data and change; the rest are definitions. */
const MAX_AGE_MS: Record<ListName, number> = {
  tools: 60_000,
  resources: 2_000,
  resourceTemplates: 60_000,
  prompts: 60_000,
};
const REFRESH_MS = 30_000;

interface Shelf {
  readonly upstream: Upstream;
  readonly lists: Record<
    ListName,
    {
      readAt: number;
      definitions: readonly (Definition & { readonly pin: string | undefined })[];
      withheld: readonly Withheld[];
      reading: Promise<void> | undefined;
      problem: string | undefined;
    }
  >;
}

interface Options {
  readonly pins: Pins;
  readonly log: Logger;
  /** Called after the lists changed. */
  onChange(list: ListName): void;
}

/** Opens the catalogue of some upstreams and starts reading them; nobody has to wait for a slow one but those who call it. */
export function openCatalogue(
  upstreams: readonly Upstream[],
  { pins, log, onChange }: Options,
  clock: Clock = systemClock,
): Catalogue {
  const shelves = upstreams.map(
    (upstream): Shelf => ({
      upstream,
      lists: Object.fromEntries(
        LISTS.map((list) => [
          list,
          { readAt: 0, definitions: [], withheld: [], reading: undefined, problem: undefined },
        ]),
      ) as unknown as Shelf["lists"],
    }),
  );
  // One server keeps its names; of several, each tool and prompt carries its server's.
  const prefixed = upstreams.length > 1;
  let index = buildIndex(shelves, prefixed, log);
  let version = 1;

  const read = async (shelf: Shelf, list: ListName): Promise<void> => {
    const slot = shelf.lists[list];
    const started = clock();
    try {
      const texts = await shelf.upstream.list(list, AbortSignal.timeout(REFRESH_MS));
      const definitions: (Definition & { pin: string | undefined })[] = [];
      const withheld: Withheld[] = [];
      for (const text of texts) {
        const definition = readDefinition(shelf.upstream.name, KIND[list], text);
        if (definition === undefined) continue;
        const pin = list === "resources" ? undefined : pinOf(definition);
        const verdict = unservable(definition) ?? (pin === undefined ? undefined : await pins.check(definition, pin));
        if (verdict === undefined) definitions.push({ ...definition, pin });
        else
          withheld.push({ server: definition.server, kind: definition.kind, name: definition.name, reason: verdict });
      }
      const same =
        definitions.length === slot.definitions.length &&
        definitions.every((definition, at) => definition.text === slot.definitions[at]?.text);
      slot.readAt = started;
      slot.withheld = withheld;
      slot.problem = undefined;
      if (same) return;
      slot.definitions = definitions;
      index = buildIndex(shelves, prefixed, log);
      version++;
      onChange(list);
    } catch (error) {
      log.warn({ server: shelf.upstream.name, list, error }, "a list of the upstream could not be read");
      slot.problem = error instanceof Error ? error.message : String(error);
      // Ask again soon, but not with every request.
      slot.readAt = Math.max(slot.readAt, started - MAX_AGE_MS[list] + 1000);
    }
  };
  const refresh = (shelf: Shelf, list: ListName): Promise<void> => {
    const slot = shelf.lists[list];
    slot.reading ??= read(shelf, list).finally(() => {
      slot.reading = undefined;
    });
    return slot.reading;
  };
  const fresh = async (list: ListName): Promise<void> => {
    const now = clock();
    const old = shelves.filter((shelf) => now - shelf.lists[list].readAt > MAX_AGE_MS[list]);
    if (old.length > 0) await Promise.all(old.map((shelf) => refresh(shelf, list)));
  };

  return {
    get version() {
      return version;
    },
    ready: Promise.all(shelves.flatMap((shelf) => LISTS.map((list) => refresh(shelf, list)))).then(() => undefined),
    async list(list) {
      await fresh(list);
      return index.lists[list];
    },
    now: (list) => index.lists[list],
    find: (kind, name) => index.find(kind, name),
    async resolve(kind, name) {
      const found = index.find(kind, name);
      if (found !== undefined) return found;
      if (kind === "resource") {
        await Promise.all([fresh("resources"), fresh("resourceTemplates")]);
        return index.find(kind, name) ?? onlyServer(shelves, name);
      }
      await fresh(kind === "tool" ? "tools" : "prompts");
      return index.find(kind, name);
    },
    entry: (target) => index.entries.get(`${target.kind}\n${target.name}`),
    withheld: () => [
      ...shelves.flatMap((shelf) => LISTS.flatMap((list) => shelf.lists[list].withheld)),
      ...index.collisions,
    ],
    problem(server) {
      const shelf = shelves.find((candidate) => candidate.upstream.name === server);
      return shelf && LISTS.map((list) => shelf.lists[list].problem).find((problem) => problem !== undefined);
    },
    changed(server, list) {
      const shelf = shelves.find((candidate) => candidate.upstream.name === server);
      if (shelf === undefined) return;
      shelf.lists[list].readAt = 0;
      void refresh(shelf, list);
    },
  };
}

/** Why a definition cannot be served whatever anybody accepts; undefined when it can. */
function unservable({ kind, value }: Definition): string | undefined {
  const { execution } = value;
  // MCP 2025-11-25, Tasks: such a tool may only be called as a task, and tasks are not passed on.
  return kind === "tool" && isObject(execution) && execution["taskSupport"] === "required"
    ? "it can only be called as a task, which the gateway does not pass on"
    : undefined;
}

interface Index {
  readonly lists: Record<ListName, readonly Entry[]>;
  readonly entries: ReadonlyMap<string, Entry>;
  readonly collisions: readonly Withheld[];
  find(kind: TargetKind, name: string): Target | undefined;
}

function buildIndex(shelves: readonly Shelf[], prefixed: boolean, log: Logger): Index {
  const lists: Record<ListName, Entry[]> = { tools: [], resources: [], resourceTemplates: [], prompts: [] };
  const entries = new Map<string, Entry>();
  const collisions: Withheld[] = [];
  const templates: { matches: (uri: string) => boolean; target: Target }[] = [];
  for (const shelf of shelves) {
    for (const list of LISTS) {
      for (const definition of shelf.lists[list].definitions) {
        const entry = newEntry(definition, definition.pin, prefixed, log);
        const key = `${list === "resourceTemplates" ? "template" : entry.target.kind}\n${entry.target.name}`;
        if (entries.has(key)) {
          collisions.push({
            server: definition.server,
            kind: definition.kind,
            name: definition.name,
            reason: `another definition is already called ${JSON.stringify(entry.target.name)}`,
          });
          continue;
        }
        entries.set(key, entry);
        lists[list].push(entry);
        if (list === "resourceTemplates")
          templates.push({ matches: compileGlob(definition.name.replace(/\{[^{}]*\}/g, "*")), target: entry.target });
      }
    }
  }
  return {
    lists,
    entries,
    collisions,
    find(kind, name) {
      const exact = entries.get(`${kind}\n${name}`);
      if (exact !== undefined) return exact.target;
      if (kind !== "resource") return undefined;
      // The template itself can be named too: completion asks for its variables.
      const template =
        entries.get(`template\n${name}`)?.target ?? templates.find((candidate) => candidate.matches(name))?.target;
      return template === undefined ? undefined : { ...template, name, upstreamName: name };
    },
  };
}

/** A URI that is neither listed nor matched by a template goes to the server if there is but one: it may know more than it lists. */
function onlyServer(shelves: readonly Shelf[], uri: string): Target | undefined {
  const only = shelves.length === 1 ? shelves[0] : undefined;
  return only === undefined
    ? undefined
    : { server: only.upstream.name, kind: "resource", name: uri, upstreamName: uri, pin: undefined };
}

function newEntry(definition: Definition, pin: string | undefined, prefixed: boolean, log: Logger): Entry {
  const renamed = prefixed && (definition.kind === "tool" || definition.kind === "prompt");
  const name = renamed ? `${definition.server}_${definition.name}` : definition.name;
  const kind = definition.kind === "tool" || definition.kind === "prompt" ? definition.kind : "resource";
  let compiling: Promise<CompiledCheck> | undefined;
  let compiled: CompiledCheck | undefined;
  let mirrored: MirroredParameters | undefined;
  return {
    target: { server: definition.server, kind, name, upstreamName: definition.name, pin },
    definition,
    served: renamed ? withName(definition, name) : definition.text,
    get compiled() {
      return compiled;
    },
    compile() {
      compiling ??= compileArguments(definition.value["inputSchema"]).then((result) => {
        if (result.problem !== undefined)
          log.warn(
            { server: definition.server, tool: definition.name, problem: result.problem },
            "a tool's arguments cannot be checked against its schema",
          );
        compiled = result;
        return result;
      });
      return compiling;
    },
    mirrored() {
      if (mirrored !== undefined) return mirrored;
      // Clients leave out a tool whose annotations are invalid (Schema Extension), so nobody who calls it repeats anything.
      const found = mirroredParameters(definition.value["inputSchema"]);
      mirrored = typeof found === "string" ? [] : found;
      return mirrored;
    },
  };
}

function withName({ text, value }: Definition, name: string): string {
  const members = memberTexts(text);
  if (members === undefined) return JSON.stringify({ ...value, name });
  return objectText(members.set("name", JSON.stringify(name)));
}
