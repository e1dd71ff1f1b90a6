/**
 * What the upstreams offer, under the names clients use. Read from the upstreams, pinned at first sight, refreshed when they say
 * that a list changed or when it has grown old. A definition that differs from its pin is withheld until an operator accepts it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type CompiledCheck, compileArguments } from "../contract/arguments.ts";
import type { Contract } from "../contract/contract.ts";
import { type Definition, type DefinitionKind, readDefinition } from "../contract/definition.ts";
import { lookAlikes, type Named } from "../contract/look-alikes.ts";
import type { PinnedTool } from "../contract/steps.ts";
import { compileUriTemplate } from "../contract/uri-template.ts";
import type { JsonObject, Target, TargetKind } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { compileGlob } from "../core/glob.ts";
import { type MemberTexts, memberTexts, objectText } from "../mcp/json-text.ts";
import { isWrapped, wrappedSchema } from "../mcp/structured-content.ts";
import { taskSupport } from "../mcp/tasks.ts";
import type { Logger } from "../observe/logger.ts";
import { compileUriGlob } from "../policy/spellings.ts";
import { toldOf } from "../upstream/capabilities.ts";
import { type MirroredParameters, mirroredParameters } from "../upstream/mirrored-headers.ts";
import type { ListName, Upstream } from "../upstream/upstream.ts";
import { type Contracts, contractEntry } from "./contracts.ts";
import { type Pins, pinFor, UNPINNABLE, type Verdict } from "./pins.ts";
import { isUi, nameUiOf, uiName, uiTarget } from "./ui-resources.ts";

export interface Entry {
  readonly target: Target;
  /** The server's own. */
  readonly definition: Definition;
  /** Undefined for what is served as it is. */
  readonly contract: Contract | undefined;
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
  /** `server`: what it says of itself. */
  readonly kind: DefinitionKind | "server";
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
  /** Whether a resource of a server is withheld with its template, or with the whole server. */
  blocked(server: string, uri: string): boolean;
  /** What became of what a server says of itself: why that is withheld, and whether with it all that the server offers. */
  judged(server: string, held: string | undefined, stops: boolean): void;
  /** Why a list of the server could not be read the last time; undefined when all could. */
  problem(server: string): string | undefined;
  /** Marks a list of a server as old. */
  changed(server: string, list: ListName): void;
  /** Offers what these upstreams have from now on, in this order. Of those that were there before, what is known stays. */
  serve(upstreams: readonly Upstream[]): void;
  /** Whether nothing of this kind is served without a contract. */
  contracted(kind: TargetKind): boolean;
  /** What a step may call now: neither held nor announced to have changed, for which it waits a little. */
  pinned(server: string, tool: string): Promise<PinnedTool | undefined>;
  /** Serves by these contracts, as soon as they are compiled. */
  contract(contracts: Contracts): Promise<void>;
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
const LISTS_OF: Record<TargetKind, readonly ListName[]> = {
  tool: ["tools"],
  prompt: ["prompts"],
  resource: ["resources", "resourceTemplates"],
};
/** Where what decides about a name is defined. */
const DEFINED_IN: Record<TargetKind, ListName> = { tool: "tools", prompt: "prompts", resource: "resourceTemplates" };
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

type Pinned = Definition & {
  readonly pin: string | undefined;
  /** A person has looked at just this. */
  readonly reviewed: boolean;
};

interface Shelf {
  readonly upstream: Upstream;
  readonly lists: Record<
    ListName,
    {
      /** It was read, or failed to be, before. */
      known: boolean;
      readAt: number;
      definitions: readonly Pinned[];
      withheld: readonly Withheld[];
      /** Why the whole server is withheld. */
      stops: string | undefined;
      /** How often the server said that it changed, and how often it had when the newest reading of it began. */
      announced: number;
      heard: number;
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
  /** Absent: everything is served as it is. */
  readonly contracts?: Contracts;
  readonly log: Logger;
  /** Called after the lists changed. */
  onChange(list: ListName): void;
}

/** Opens the catalogue of some upstreams and starts reading them; nobody has to wait for a slow one but those who call it. */
export function openCatalogue(
  first: readonly Upstream[],
  { pins, contracts: firstContracts, log, onChange }: Options,
  clock: Clock = systemClock,
): Catalogue {
  let upstreams = first;
  let contracts = firstContracts;
  // One server keeps its names; of several, each tool and prompt carries its server's.
  let prefixed = upstreams.length > 1;
  let version = 1;

  /** Servers that are withheld as a whole for what they say of themselves. */
  const stopped = new Map<string, string>();
  /** Servers of which clients are not told what they say of themselves. */
  const mute = new Map<string, string>();
  const alike = rememberedLookAlikes();
  const indexOf = (shelves: readonly Shelf[]) => buildIndex(shelves, { prefixed, stopped, alike, contracts, log });
  const newView = (capabilities: JsonObject): View => {
    const shelves = upstreams.map(newShelf);
    return { capabilities, shelves, index: indexOf(shelves) };
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

  /** Divides what a server offers into what is served and what is not. Resources are data: they have no pins. */
  const examined = async (server: string, list: ListName, all: readonly Definition[], whole: boolean) => {
    const kind = KIND[list];
    if (kind === "resource") {
      const definitions: Pinned[] = all.map((one) => ({ ...one, pin: undefined, reviewed: false }));
      return { definitions, withheld: [], stops: undefined };
    }
    const pinned = all.map((one) => ({ one, pin: pinFor(one) }));
    const offered = pinned.flatMap(({ one: { name, value }, pin }) =>
      pin === undefined ? [] : [{ name, value, pin }],
    );
    const { verdicts, gone } = await pins.check(server, kind, offered, whole);
    const inTurn = verdicts.values();
    const definitions: Pinned[] = [];
    const withheld: Withheld[] = [];
    let stops = gone;
    for (const { one, pin } of pinned) {
      const verdict: Verdict | undefined = pin === undefined ? undefined : inTurn.next().value;
      const held = verdict === undefined ? UNPINNABLE : verdict.held;
      if (held === undefined) definitions.push({ ...one, pin, reviewed: verdict?.reviewed === true });
      else withheld.push({ server, kind, name: one.name, reason: held });
      if (verdict?.stops === true) stops ??= `${kind} ${JSON.stringify(one.name)}: ${held}`;
    }
    return { definitions, withheld, stops };
  };

  const read = async (view: View, shelf: Shelf, list: ListName): Promise<void> => {
    const slot = shelf.lists[list];
    const started = clock();
    const { announced } = slot;
    try {
      const texts = await shelf.upstream.list(list, AbortSignal.timeout(REFRESH_MS), view.capabilities);
      const { name: server } = shelf.upstream;
      const all = texts.flatMap((text) => readDefinition(server, KIND[list], text) ?? []);
      const { definitions, withheld, stops } = await examined(server, list, all, view === plain);
      const same =
        sameSet(definitions, slot.definitions) && stops === slot.stops && names(withheld) === names(slot.withheld);
      if (!same) await contracts?.prepare(definitions);
      // It was taken away meanwhile.
      if (!view.shelves.includes(shelf)) return;
      // What a view shows first is new to nobody.
      const first = view !== plain && !slot.known;
      slot.known = true;
      slot.heard = announced;
      slot.readAt = slot.announced > announced ? 0 : started;
      slot.problem = undefined;
      slot.stops = stops;
      slot.withheld = withheld;
      // What is withheld takes part in what a URI means.
      if (same) return;
      slot.definitions = definitions;
      if (view === plain && list === "tools") await contracts?.compose(pinnedTool);
      view.index = indexOf(view.shelves);
      version++;
      if (!first) onChange(list);
    } catch (error) {
      log.warn({ server: shelf.upstream.name, list, error }, "a list of the upstream could not be read");
      slot.problem = error instanceof Error ? error.message : String(error);
      const base = plain.shelves.find(({ upstream }) => upstream === shelf.upstream)?.lists[list];
      if (view !== plain && !slot.known && base !== undefined) {
        slot.definitions = base.definitions;
        view.index = indexOf(view.shelves);
      }
      slot.known = true;
      // Ask again soon, but not with every request.
      slot.heard = announced;
      slot.readAt = slot.announced > announced ? 0 : Math.max(slot.readAt, started - MAX_AGE_MS[list] + 1000);
    }
  };
  /** What steps may call. */
  const pinnedTool = (server: string, tool: string): PinnedTool | undefined => {
    const shelf = stopped.has(server) ? undefined : plain.shelves.find(({ upstream }) => upstream.name === server);
    return shelf?.lists.tools.stops === undefined
      ? shelf?.lists.tools.definitions.find(({ name }) => name === tool)
      : undefined;
  };
  /** Tools of steps, when servers have come or gone. */
  const recomposed = async () => {
    const before = contracts?.outcomes();
    await contracts?.compose(pinnedTool);
    if (before === contracts?.outcomes()) return;
    rebuilt();
    onChange("tools");
  };
  const rebuilt = () => {
    for (const view of allViews()) view.index = indexOf(view.shelves);
    version++;
  };
  const refresh = (view: View, shelf: Shelf, list: ListName): Promise<void> => {
    const slot = shelf.lists[list];
    if (slot.reading === undefined) {
      slot.readingSince = clock();
      slot.reading = read(view, shelf, list)
        // What was announced while it was read may not be in what was read.
        .then(() => (slot.announced > slot.heard && view.shelves.includes(shelf) ? read(view, shelf, list) : undefined))
        .finally(() => {
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
  /** Tools can be served as resources. */
  const definedIn = (target: Target): ListName =>
    contracts !== undefined && entryOf(target)?.contract?.kind === "tool" ? "tools" : DEFINED_IN[target.kind];
  const entryOf = (target: Target): Entry | undefined => {
    const entry = plain.index.entry(target);
    if (entry !== undefined || views.size === 0) return entry;
    return allViews()
      .map(({ index }) => index.entry(target))
      .find((other) => other !== undefined);
  };
  const slotOf = (server: string, list: ListName) =>
    plain.shelves.find((shelf) => shelf.upstream.name === server)?.lists[list];
  /** What was said to have changed is not known until it was read again. Looks again, without waiting, when it has grown old. */
  const find = (kind: TargetKind, name: string): Target | undefined => {
    const target = findKnown(kind, name);
    if (target === undefined) return undefined;
    const shelf = plain.shelves.find(({ upstream }) => upstream.name === target.server);
    const list = definedIn(target);
    const slot = shelf?.lists[list];
    if (shelf === undefined || slot === undefined) return target;
    if (clock() - slot.readAt > MAX_AGE_MS[list]) void refresh(plain, shelf, list);
    return slot.announced > slot.heard ? undefined : target;
  };
  const findKnown = (kind: TargetKind, name: string): Target | undefined => {
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
      const known = findKnown(kind, name);
      if (known !== undefined) {
        // Of a server that says that a list changed, and then does not give it, what clients know goes on.
        const slot = slotOf(known.server, definedIn(known));
        if (slot !== undefined && slot.announced > slot.heard) await within(slot.reading, PATIENCE_MS);
        const still = findKnown(kind, name);
        if (still !== undefined) return still;
      }
      const view = viewOf(capabilities);
      const asResources = kind === "resource" && contracts?.covers("tool") === true;
      await Promise.all(
        [...LISTS_OF[kind], ...(asResources ? (["tools"] as const) : [])].map((list) => fresh(view, list)),
      );
      const now = findKnown(kind, name);
      if (now !== undefined || kind !== "resource" || contracts?.covers(kind) === true) return now;
      const only = onlyServer(plain.shelves, name);
      return only !== undefined && plain.index.blocked(only.server, name) ? undefined : only;
    },
    entry: entryOf,
    contracted: (kind) => contracts?.covers(kind) === true,
    async pinned(server, tool) {
      const slot = slotOf(server, "tools");
      if (slot !== undefined && slot.announced > slot.heard) await within(slot.reading, PATIENCE_MS);
      return slot === undefined || slot.announced > slot.heard ? undefined : pinnedTool(server, tool);
    },
    async contract(next) {
      const prepared = async () => {
        for (const { shelves } of allViews())
          for (const { lists } of shelves) for (const list of LISTS) await next.prepare(lists[list].definitions);
        await next.compose(pinnedTool);
      };
      // Those before serve until these are ready; what comes meanwhile is prepared by those before.
      await prepared();
      contracts = next;
      await prepared();
      rebuilt();
      for (const list of LISTS) onChange(list);
    },
    withheld() {
      const all = allViews().flatMap(({ shelves, index }) => [
        ...shelves.flatMap((shelf) => LISTS.flatMap((list) => shelf.lists[list].withheld)),
        ...index.refused,
      ]);
      const silent = upstreams.flatMap(({ name }): Withheld[] => {
        const reason = mute.get(name);
        return reason === undefined ? [] : [{ server: name, kind: "server", name, reason }];
      });
      return [...silent, ...new Map(all.map((one) => [`${one.server}\n${one.kind}\n${one.name}`, one])).values()];
    },
    blocked: (server, uri) => allViews().some(({ index }) => index.blocked(server, uri)),
    judged(server, held, stops) {
      if (held === undefined) mute.delete(server);
      else mute.set(server, held);
      const reason = stops ? held : undefined;
      if (stopped.get(server) === reason) return;
      if (reason === undefined) stopped.delete(server);
      else stopped.set(server, reason);
      rebuilt();
      for (const list of LISTS) onChange(list);
      void recomposed();
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
        shelf.lists[list].announced++;
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
      }
      rebuilt();
      void recomposed();
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
          stops: undefined,
          announced: 0,
          heard: 0,
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

const names = (withheld: readonly Withheld[]) => withheld.map(({ name }) => name).join("\n");

interface Index {
  readonly lists: Record<ListName, readonly Entry[]>;
  /** Of what `find` has found. */
  entry(target: Target): Entry | undefined;
  /** What is withheld for its name, or because its server is. */
  readonly refused: readonly Withheld[];
  blocked(server: string, uri: string): boolean;
  find(kind: TargetKind, name: string): Target | undefined;
}

interface Indexing {
  readonly prefixed: boolean;
  readonly stopped: ReadonlyMap<string, string>;
  readonly alike: (list: ListName, names: readonly Named[]) => ReadonlyMap<number, string>;
  readonly contracts: Contracts | undefined;
  readonly log: Logger;
}

function buildIndex(all: readonly Shelf[], { prefixed, stopped, alike, contracts, log }: Indexing): Index {
  const lists: Record<ListName, Entry[]> = { tools: [], resources: [], resourceTemplates: [], prompts: [] };
  const entries = new Map<string, Entry>();
  const refused: Withheld[] = [];
  const refuse = ({ server, kind, name }: Definition, reason: string) => refused.push({ server, kind, name, reason });
  const templates: { matches: (uri: string) => boolean; entry: Entry }[] = [];
  const add = (list: ListName, entry: Entry) => {
    const { target, definition } = entry;
    const key = `${list === "resourceTemplates" ? "template" : target.kind}\n${target.name}`;
    if (entries.has(key))
      return refuse(definition, `another definition is already called ${JSON.stringify(target.name)}`);
    entries.set(key, entry);
    lists[list].push(entry);
    const { uri } = entry.contract ?? {};
    if (list === "resourceTemplates")
      templates.push({
        matches: uri === undefined ? templateMatcher(target.name) : (written) => uri.match(written) !== undefined,
        entry,
      });
    return undefined;
  };
  const stops = new Map(
    all.flatMap(({ upstream: { name }, lists: its }) => {
      const reason = stopped.get(name) ?? LISTS.map((list) => its[list].stops).find((one) => one !== undefined);
      return reason === undefined ? [] : [[name, `its server is withheld as a whole: ${reason}`]];
    }),
  );
  const shelves = all.filter(({ upstream }) => !stops.has(upstream.name));
  for (const { upstream, lists: its } of all) {
    const reason = stops.get(upstream.name);
    if (reason !== undefined)
      for (const list of LISTS) for (const definition of its[list].definitions) refuse(definition, reason);
  }
  const lookingAlike = new Map<Definition, string>();
  for (const list of ["tools", "prompts"] as const) {
    // The names of contracts are the operator's own.
    const candidates = shelves
      .flatMap((shelf) => shelf.lists[list].definitions)
      .filter((one) => contracts?.of(one) === undefined);
    const named = candidates.map((one) => {
      return { server: one.server, name: one.name, served: prefixed ? nameOf(one) : one.name, reviewed: one.reviewed };
    });
    for (const [at, reason] of alike(list, named)) {
      const one = candidates[at];
      if (one !== undefined) lookingAlike.set(one, reason);
    }
  }
  const servers = shelves.map((shelf) => shelf.upstream.name);
  for (const shelf of shelves) {
    for (const list of LISTS) {
      for (const definition of shelf.lists[list].definitions) {
        const reason = lookingAlike.get(definition);
        if (reason !== undefined) {
          refuse(definition, reason);
          continue;
        }
        const met = contracts?.of(definition);
        if (met === undefined) add(list, newEntry(definition, definition.pin, prefixed, log));
        for (const one of met ?? []) {
          if ("problem" in one) refuse(definition, one.problem);
          else add(listOf(list, one.contract), contractEntry(one.contract, definition, definition.pin));
        }
      }
    }
  }
  if (contracts !== undefined) {
    for (const met of contracts.outcomes()) {
      if ("problem" in met)
        refused.push({ server: met.source.server, kind: "tool", name: met.name, reason: met.problem });
      else add("tools", contractEntry(met.contract, outcomeDefinition(met.contract), undefined));
    }
    for (const shelf of shelves) refused.push(...missingOf(shelf, contracts));
    const { position } = contracts;
    for (const list of LISTS)
      lists[list].sort(
        (one, other) => (one.contract ? position(one.contract) : 0) - (other.contract ? position(other.contract) : 0),
      );
  }
  const heldTemplates = shelves.flatMap(({ upstream, lists: its }) =>
    its.resourceTemplates.withheld.map(({ name }) => ({ server: upstream.name, name, covers: uriGlob(globOf(name)) })),
  );
  const blocked = (server: string, uri: string) =>
    stops.has(server) ||
    heldTemplates.some((held) => held.server === server && (held.name === uri || held.covers(uri)));
  const templateOf = (uri: string) =>
    templates.find(({ matches, entry: { target } }) => matches(uri) && !blocked(target.server, uri))?.entry;
  return {
    lists,
    entry: ({ kind, name }) => {
      const exact = entries.get(`${kind}\n${name}`);
      if (exact !== undefined || kind !== "resource") return exact;
      return entries.get(`template\n${name}`) ?? templateOf(name);
    },
    refused,
    blocked,
    find(kind, name) {
      const exact = entries.get(`${kind}\n${name}`);
      if (exact !== undefined) return exact.target;
      if (kind !== "resource") return undefined;
      // The template itself can be named too: completion asks for its variables.
      const named = entries.get(`template\n${name}`);
      if (named !== undefined) return named.target;
      const page = prefixed && contracts?.covers("resource") !== true ? uiTarget(name, servers) : undefined;
      if (page !== undefined) return page;
      const template = templateOf(name);
      return template === undefined
        ? undefined
        : { ...template.target, name, upstreamName: upstreamUri(template, name) };
    },
  };
}

/** What the server of a template calls a URI that clients made of it; of a tool, the tool. */
function upstreamUri({ contract, definition }: Entry, uri: string): string {
  if (contract?.uri === undefined) return uri;
  if (contract.kind === "tool" || contract.uri.text === definition.name)
    return contract.kind === "tool" ? definition.name : uri;
  return compileUriTemplate(definition.name).expand(contract.uri.match(uri) ?? {});
}

/** A tool that is served as a resource is listed as one. */
function listOf(list: ListName, { kind, uri }: Contract): ListName {
  if (kind !== "tool" || uri === undefined) return list;
  return uri.variables.length === 0 ? "resources" : "resourceTemplates";
}

/** A tool with steps has no definition at a server; what is served stands for it. */
function outcomeDefinition({ name, source, served }: Contract): Definition {
  return { server: source.server, kind: "tool", name, value: served, text: JSON.stringify(served) };
}

function missingOf({ upstream, lists }: Shelf, contracts: Contracts): readonly Withheld[] {
  const found = (list: ListName) => [...lists[list].definitions, ...lists[list].withheld].map(({ name }) => name);
  return [["tools"], ["prompts"], ["resources", "resourceTemplates"]].flatMap((some) => {
    const read = (some as ListName[]).every((list) => lists[list].known && lists[list].problem === undefined);
    if (!read) return [];
    const kinds = (some as ListName[]).map((list) => KIND[list]);
    return contracts.missing(upstream.name, kinds, new Set((some as ListName[]).flatMap(found)));
  });
}

const globOf = (template: string) => template.replace(/\{[^{}]*\}/g, "*");
const templateMatcher = (template: string) => compileGlob(globOf(template));

/** Whether a server may take a URI for one that the glob means, in whatever spelling; of one that is too long nobody can say. */
function uriGlob(glob: string): (uri: string) => boolean {
  const { written, meant } = compileUriGlob(glob);
  return (uri) => written(uri) || meant(uri) !== false;
}

/** The index is built anew with every change of any list; names seldom change. */
function rememberedLookAlikes(): Indexing["alike"] {
  const last = new Map<ListName, { readonly key: string; readonly found: ReadonlyMap<number, string> }>();
  return (list, named) => {
    const key = JSON.stringify(named);
    const before = last.get(list);
    if (before?.key === key) return before.found;
    const found = lookAlikes(named);
    last.set(list, { key, found });
    return found;
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
    target: {
      server: definition.server,
      kind,
      name,
      upstreamName: definition.name,
      pin,
      ...(definition.kind === "resourceTemplate" && { template: true as const }),
    },
    definition,
    contract: undefined,
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
