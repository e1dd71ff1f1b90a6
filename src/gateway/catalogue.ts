/**
 * What the upstreams offer, under the names clients use. Read from the upstreams, pinned at first sight, refreshed when they say
 * that a list changed or when it has grown old. A definition that differs from its pin is withheld until an operator accepts it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type CompiledCheck, compileArguments } from "../contract/arguments.ts";
import { type Definition, type DefinitionKind, pinOf, readDefinition } from "../contract/definition.ts";
import type { JsonObject, Target, TargetKind } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { compileGlob } from "../core/glob.ts";
import { type MemberTexts, memberTexts, objectText } from "../mcp/json-text.ts";
import { isWrapped, wrappedSchema } from "../mcp/structured-content.ts";
import { taskSupport } from "../mcp/tasks.ts";
import type { Logger } from "../observe/logger.ts";
import { toldOf } from "../upstream/capabilities.ts";
import { type MirroredParameters, mirroredParameters } from "../upstream/mirrored-headers.ts";
import type { ListName, Upstream } from "../upstream/upstream.ts";
import type { Pins } from "./pins.ts";
import { isUi, nameUiOf, uiName, uiTarget } from "./ui-resources.ts";

export interface Entry {
  readonly target: Target;
  readonly definition: Definition;
  /** The definition as clients see it, as JSON text. */
  readonly served: string;
  /** The same for clients of 2025-11-25 and before. */
  readonly servedLegacy: string;
  /** Older clients are promised the structured content of this tool as the member `result` of an object. */
  readonly wrapped: boolean;
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
  /**
   * Every entry of one list, in the order of the settings and of the upstream. An upstream that only changes its order changes
   * nothing: what it first said stays. Refreshes first what is too old. `capabilities`: those of the client, to which servers may
   * offer more than to others.
   */
  list(list: ListName, capabilities?: JsonObject): Promise<readonly Entry[]>;
  /** What every client is offered, as it is known now. */
  now(list: ListName): readonly Entry[];
  /** What a name means, as far as it is known now, for whatever client. */
  find(kind: TargetKind, name: string): Target | undefined;
  /** What a name means, after looking again where what is known is too old; undefined when nothing has it. */
  resolve(kind: TargetKind, name: string, capabilities?: JsonObject): Promise<Target | undefined>;
  entry(target: Target): Entry | undefined;
  /** Definitions that are not served, and why. */
  withheld(): readonly Withheld[];
  /** Why a list of the server could not be read the last time; undefined when all could. */
  problem(server: string): string | undefined;
  /** Marks a list of a server as old. */
  changed(server: string, list: ListName): void;
  /** Offers what these upstreams have from now on, in this order. Of those that were there before, what is known stays. */
  serve(upstreams: readonly Upstream[]): void;
  /** Resolves when each upstream was read once or has failed. */
  readonly ready: Promise<void>;
  /** The same, without one that is slow once another was read. */
  readonly started: Promise<void>;
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
/** While others have something to show, nobody waits longer for one upstream; its lists are told as changes when they come. */
const PATIENCE_MS = 3_000;
/** The same for one that has failed before. */
const LITTLE_PATIENCE_MS = 300;

interface Shelf {
  readonly upstream: Upstream;
  readonly lists: Record<
    ListName,
    {
      /** It was read, or failed to be, before. */
      known: boolean;
      readAt: number;
      definitions: readonly (Definition & { readonly pin: string | undefined })[];
      withheld: readonly Withheld[];
      reading: Promise<void> | undefined;
      readingSince: number;
      problem: string | undefined;
    }
  >;
}

/** What is offered to clients that can do the same. */
interface View {
  readonly capabilities: JsonObject;
  shelves: readonly Shelf[];
  index: Index;
}

/** Views at most; beyond it the one unused for longest is forgotten. */
const MAX_VIEWS = 16;

interface Options {
  readonly pins: Pins;
  readonly log: Logger;
  /** Called after the lists changed. */
  onChange(list: ListName): void;
}

/** Opens the catalogue of some upstreams and starts reading them; nobody has to wait for a slow one but those who call it. */
export function openCatalogue(
  first: readonly Upstream[],
  { pins, log, onChange }: Options,
  clock: Clock = systemClock,
): Catalogue {
  let upstreams = first;
  // One server keeps its names; of several, each tool and prompt carries its server's.
  let prefixed = upstreams.length > 1;
  let version = 1;

  const newView = (capabilities: JsonObject): View => {
    const shelves = upstreams.map(newShelf);
    return { capabilities, shelves, index: buildIndex(shelves, prefixed, log) };
  };
  const plain = newView({});
  const views = new Map<string, View>();
  const viewOf = (capabilities: JsonObject = {}): View => {
    const told = toldOf(capabilities);
    if (Object.keys(told).length === 0) return plain;
    const key = JSON.stringify(told);
    const view = views.get(key) ?? newView(told);
    views.delete(key);
    views.set(key, view);
    if (views.size > MAX_VIEWS) for (const oldest of views.keys()) if (views.delete(oldest)) break;
    return view;
  };
  const allViews = () => [plain, ...views.values()];

  const read = async (view: View, shelf: Shelf, list: ListName): Promise<void> => {
    const slot = shelf.lists[list];
    const started = clock();
    try {
      const texts = await shelf.upstream.list(list, AbortSignal.timeout(REFRESH_MS), view.capabilities);
      const definitions: (Definition & { pin: string | undefined })[] = [];
      const withheld: Withheld[] = [];
      for (const text of texts) {
        const definition = readDefinition(shelf.upstream.name, KIND[list], text);
        if (definition === undefined) continue;
        const pin = list === "resources" ? undefined : canonicalPin(definition);
        const verdict =
          pin === NO_PIN
            ? "it has a number or a character without a canonical form (RFC 8785), so it cannot be pinned"
            : pin === undefined
              ? undefined
              : await pins.check(definition, pin);
        if (verdict === undefined) definitions.push({ ...definition, pin });
        else
          withheld.push({ server: definition.server, kind: definition.kind, name: definition.name, reason: verdict });
      }
      // It was taken away meanwhile.
      if (!view.shelves.includes(shelf)) return;
      // What a view shows first is new to nobody.
      const first = view !== plain && !slot.known;
      slot.known = true;
      slot.readAt = started;
      slot.withheld = withheld;
      slot.problem = undefined;
      if (sameSet(definitions, slot.definitions)) return;
      slot.definitions = definitions;
      view.index = buildIndex(view.shelves, prefixed, log);
      version++;
      if (!first) onChange(list);
    } catch (error) {
      log.warn({ server: shelf.upstream.name, list, error }, "a list of the upstream could not be read");
      slot.problem = error instanceof Error ? error.message : String(error);
      const base = plain.shelves.find(({ upstream }) => upstream === shelf.upstream)?.lists[list];
      if (view !== plain && !slot.known && base !== undefined) {
        slot.definitions = base.definitions;
        view.index = buildIndex(view.shelves, prefixed, log);
      }
      slot.known = true;
      // Ask again soon, but not with every request.
      slot.readAt = Math.max(slot.readAt, started - MAX_AGE_MS[list] + 1000);
    }
  };
  const refresh = (view: View, shelf: Shelf, list: ListName): Promise<void> => {
    const slot = shelf.lists[list];
    if (slot.reading === undefined) {
      slot.readingSince = clock();
      slot.reading = read(view, shelf, list).finally(() => {
        slot.reading = undefined;
      });
    }
    return slot.reading;
  };
  const fresh = async (view: View, list: ListName): Promise<void> => {
    const now = clock();
    const old = view.shelves.filter((shelf) => now - shelf.lists[list].readAt > MAX_AGE_MS[list]);
    if (old.length === 0) return;
    const reading = old.map((shelf) => refresh(view, shelf, list));
    if (!view.shelves.some((shelf) => shelf.lists[list].known)) await Promise.race(reading);
    await Promise.all(
      old.map((shelf, at) => {
        const { readingSince, problem } = shelf.lists[list];
        const patience = problem === undefined ? PATIENCE_MS : LITTLE_PATIENCE_MS;
        return view.shelves.length === 1 ? reading[at] : within(reading[at], readingSince + patience - clock());
      }),
    );
  };
  const find = (kind: TargetKind, name: string): Target | undefined => {
    const found = plain.index.find(kind, name);
    if (found !== undefined || views.size === 0) return found;
    for (const { index } of views.values()) {
      const target = index.find(kind, name);
      if (target !== undefined) return target;
    }
    return undefined;
  };

  const readFirst = plain.shelves.map((shelf) =>
    Promise.all(LISTS.map((list) => refresh(plain, shelf, list))).then(() => {
      if (LISTS.some((list) => shelf.lists[list].problem !== undefined)) throw new Error("it could not be read");
    }),
  );
  const ready = Promise.allSettled(readFirst).then(() => undefined);

  return {
    get version() {
      return version;
    },
    ready,
    started: Promise.any(readFirst).then(
      () => within(ready, PATIENCE_MS),
      () => ready,
    ),
    async list(list, capabilities) {
      const view = viewOf(capabilities);
      await fresh(view, list);
      return view.index.lists[list];
    },
    now: (list) => plain.index.lists[list],
    find,
    async resolve(kind, name, capabilities) {
      const found = find(kind, name);
      if (found !== undefined) return found;
      const view = viewOf(capabilities);
      if (kind === "resource") {
        await Promise.all([fresh(view, "resources"), fresh(view, "resourceTemplates")]);
        return find(kind, name) ?? onlyServer(plain.shelves, name);
      }
      await fresh(view, kind === "tool" ? "tools" : "prompts");
      return find(kind, name);
    },
    entry(target) {
      const key = `${target.kind}\n${target.name}`;
      const entry = plain.index.entries.get(key);
      if (entry !== undefined || views.size === 0) return entry;
      return allViews()
        .map(({ index }) => index.entries.get(key))
        .find((other) => other !== undefined);
    },
    withheld() {
      const all = allViews().flatMap(({ shelves, index }) => [
        ...shelves.flatMap((shelf) => LISTS.flatMap((list) => shelf.lists[list].withheld)),
        ...index.collisions,
      ]);
      return [...new Map(all.map((one) => [`${one.server}\n${one.kind}\n${one.name}`, one])).values()];
    },
    problem(server) {
      const shelf = plain.shelves.find((candidate) => candidate.upstream.name === server);
      return shelf && LISTS.map((list) => shelf.lists[list].problem).find((problem) => problem !== undefined);
    },
    changed(server, list) {
      for (const view of allViews()) {
        const shelf = view.shelves.find((candidate) => candidate.upstream.name === server);
        if (shelf === undefined) continue;
        // A view that nobody has looked at has nothing that could have changed.
        if (view !== plain && !shelf.lists[list].known) continue;
        shelf.lists[list].readAt = 0;
        void refresh(view, shelf, list);
      }
    },
    serve(wanted) {
      upstreams = wanted;
      prefixed = upstreams.length > 1;
      for (const view of allViews()) {
        view.shelves = upstreams.map(
          (upstream) => view.shelves.find((shelf) => shelf.upstream === upstream) ?? newShelf(upstream),
        );
        view.index = buildIndex(view.shelves, prefixed, log);
      }
      version++;
      for (const list of LISTS) {
        onChange(list);
        for (const shelf of plain.shelves) if (!shelf.lists[list].known) void refresh(plain, shelf, list);
      }
    },
  };
}

/** Resolves with `work`, or after so many milliseconds. */
function within(work: Promise<void> | undefined, ms: number): Promise<void> | undefined {
  const enough = new AbortController();
  const late = sleep(Math.max(0, ms), undefined, { ref: false, signal: enough.signal }).catch(() => {});
  return work && Promise.race([work.finally(() => enough.abort()), late]);
}

function newShelf(upstream: Upstream): Shelf {
  return {
    upstream,
    lists: Object.fromEntries(
      LISTS.map((list) => [
        list,
        {
          known: false,
          readAt: 0,
          definitions: [],
          withheld: [],
          reading: undefined,
          readingSince: 0,
          problem: undefined,
        },
      ]),
    ) as unknown as Shelf["lists"],
  };
}

/** Whether two lists hold the same definitions, in whatever order. */
function sameSet(some: readonly Definition[], others: readonly Definition[]): boolean {
  if (some.length !== others.length) return false;
  if (some.every(({ text }, at) => text === others[at]?.text)) return true;
  const sorted = others.map(({ text }) => text).sort();
  return some
    .map(({ text }) => text)
    .sort()
    .every((text, at) => text === sorted[at]);
}

const NO_PIN = "";

/** `NO_PIN` where there is none: numbers that are not finite, halves of surrogate pairs. */
function canonicalPin(definition: Definition): string {
  try {
    return pinOf(definition);
  } catch {
    return NO_PIN;
  }
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
  const servers = shelves.map((shelf) => shelf.upstream.name);
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
          templates.push({ matches: compileGlob(entry.target.name.replace(/\{[^{}]*\}/g, "*")), target: entry.target });
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
      const named = entries.get(`template\n${name}`);
      if (named !== undefined) return named.target;
      const page = prefixed ? uiTarget(name, servers) : undefined;
      if (page !== undefined) return page;
      const template = templates.find((candidate) => candidate.matches(name))?.target;
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
  const name = prefixed ? nameOf(definition) : definition.name;
  const kind = definition.kind === "tool" || definition.kind === "prompt" ? definition.kind : "resource";
  const served = callableAsItIs(prefixed ? renamed(definition, name) : definition.text, definition);
  const wrapped = kind === "tool" && isWrapped(definition.value["outputSchema"]);
  let compiling: Promise<CompiledCheck> | undefined;
  let compiled: CompiledCheck | undefined;
  let mirrored: MirroredParameters | undefined;
  return {
    target: { server: definition.server, kind, name, upstreamName: definition.name, pin },
    definition,
    served,
    servedLegacy: wrapped ? withWrappedSchema(served) : served,
    wrapped,
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

/** What clients of several servers call a definition: each tool and prompt carries its server's name, and each page of an app. */
function nameOf({ kind, name, server }: Definition): string {
  if (kind === "tool" || kind === "prompt") return `${server}_${name}`;
  return isUi(name) ? uiName(server, name) : name;
}

const NAMED_BY = { tool: "name", prompt: "name", resource: "uri", resourceTemplate: "uriTemplate" } as const;

function renamed({ text, value, kind, name: before, server }: Definition, name: string): string {
  if (name === before) return text;
  const members = membersOf(text, value).set(NAMED_BY[kind], JSON.stringify(name));
  if (kind === "tool") nameUiOf(members, server);
  return objectText(members);
}

/** A tool that is a task or nothing (MCP 2025-11-25, Tool-Level Negotiation) is run to its end for whoever calls it as it is. */
function callableAsItIs(served: string, { kind, value }: Definition): string {
  if (kind !== "tool" || taskSupport(value) !== "required") return served;
  const members = membersOf(served, value);
  const execution = membersOf(members.get("execution") ?? "{}", {}).set("taskSupport", '"optional"');
  return objectText(members.set("execution", objectText(execution)));
}

function withWrappedSchema(served: string): string {
  const members = membersOf(served, JSON.parse(served) as JsonObject);
  return objectText(members.set("outputSchema", wrappedSchema(members.get("outputSchema") ?? "{}")));
}

/** Cut from the text, so that numbers stay as they were written; from the value only where the text is ambiguous. */
function membersOf(text: string, value: JsonObject): MemberTexts {
  return memberTexts(text) ?? new Map(Object.entries(value).map(([key, member]) => [key, JSON.stringify(member)]));
}
