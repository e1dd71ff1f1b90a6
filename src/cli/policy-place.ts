/** What the commands about policies work on: the roles of a settings file, and everything that is served under them. */
import { resolve } from "node:path";
import { type LoadedSettings, loadSettings } from "../config/load.ts";
import type { Settings } from "../config/schema.ts";
import { servesAll, sourceOf } from "../contract/contract.ts";
import type { JsonObject, JsonValue, Principal, Target, TargetKind } from "../core/call.ts";
import { compileGlob } from "../core/glob.ts";
import { openPins } from "../gateway/pins.ts";
import { silentLogger } from "../observe/logger.ts";
import type { Thing } from "../policy/blast-radius.ts";
import { DEFAULT_ROLES } from "../policy/engine.ts";
import { type LivePolicy, openPolicy } from "../policy/live.ts";
import type { RolesSettings } from "../policy/settings.ts";
import { openLook } from "./look.ts";
import { DEFAULT_FILE, settingsOf, UNREAD, withStore } from "./store.ts";
import type { Terminal } from "./terminal.ts";

export interface PlaceOptions {
  readonly file?: string;
  /** Starts the servers and asks them, in place of what the store knows. */
  readonly open?: true;
}

export interface PolicyPlace {
  readonly file: string;
  readonly settings: Settings;
  readonly roles: RolesSettings;
  readonly policy: LivePolicy;
  readonly things: readonly Thing[];
  /** What is not known of what is served, as a sentence for the reader. */
  readonly missing: string | undefined;
}

/** Reads the settings and what is known of the servers. Throws `settings_invalid` with every problem of the file. */
export async function policyPlace(options: PlaceOptions, terminal: Terminal): Promise<PolicyPlace> {
  const file = resolve(terminal.cwd, options.file ?? DEFAULT_FILE);
  const loaded = await loadSettings(file, {
    env: terminal.env,
    ...(options.open !== true && {
      readSecret: async (name, _, provided) => (await provided(name).catch(() => undefined)) ?? UNREAD,
    }),
  });
  const { settings } = loaded;
  const { found, missing } =
    options.open === true ? await lookedAt(loaded, terminal) : await remembered(file, terminal);
  return {
    file,
    settings,
    roles: settings.roles ?? DEFAULT_ROLES,
    policy: openPolicy(settings, () => {}),
    things: thingsOf(settings, found),
    missing: settings.tools !== undefined && found.length === 0 ? undefined : missing,
  };
}

/** One definition of a server. */
interface Found {
  readonly server: string;
  readonly kind: TargetKind;
  readonly template: boolean;
  readonly name: string;
  readonly value: JsonObject;
}

const KINDS = { tools: "tool", prompts: "prompt", resources: "resource", resourceTemplates: "resource" } as const;

async function lookedAt(
  loaded: LoadedSettings,
  terminal: Terminal,
): Promise<{ found: readonly Found[]; missing: string | undefined }> {
  await using look = openLook(loaded, terminal);
  const found: Found[] = [];
  for (const server of Object.keys(loaded.settings.servers)) {
    const offered = await look.offered(server);
    for (const [list, kind] of Object.entries(KINDS) as [keyof typeof KINDS, TargetKind][]) {
      for (const value of offered[list]) {
        const name = value[list === "resources" ? "uri" : list === "resourceTemplates" ? "uriTemplate" : "name"];
        if (typeof name === "string") found.push({ server, kind, template: list === "resourceTemplates", name, value });
      }
    }
  }
  return { found, missing: undefined };
}

/** What a gateway has pinned. Resources are data and have no pins. */
async function remembered(
  file: string,
  terminal: Terminal,
): Promise<{ found: readonly Found[]; missing: string | undefined }> {
  const found: Found[] = [];
  try {
    await withStore({ file, store: undefined, readOnly: true }, terminal, async (store) => {
      for (const { server, kind, name, definition } of await openPins(store.records, silentLogger).list()) {
        if (definition === undefined || !(kind === "tool" || kind === "prompt" || kind === "resourceTemplate"))
          continue;
        const template = kind === "resourceTemplate";
        found.push({ server, kind: template ? "resource" : kind, template, name, value: definition });
      }
    });
  } catch {
    // A gateway that has never run has no store; that is said, and `--open` asks the servers themselves.
  }
  const missing =
    found.length > 0
      ? undefined
      : "Nothing is known of what the servers offer: no gateway has run on these settings here. --open asks the servers.";
  return { found, missing };
}

/** Everything that clients are served, as far as it is known. */
function thingsOf(settings: Settings, found: readonly Found[]): readonly Thing[] {
  const prefixed = Object.keys(settings.servers).length > 1;
  const known = found.filter(({ server }) => Object.hasOwn(settings.servers, server));
  const sections = { tool: settings.tools, resource: settings.resources, prompt: settings.prompts };
  const bare = known
    .filter(({ kind }) => sections[kind] === undefined)
    .map((one) => thingOf(one, prefixed && one.kind !== "resource" ? `${one.server}_${one.name}` : one.name));
  return [...contracted(settings, known), ...bare];
}

function contracted({ tools, resources, prompts }: Settings, found: readonly Found[]): readonly Thing[] {
  const from = (kind: TargetKind, source: string) => {
    const { server, name } = sourceOf(source);
    const matches = compileGlob(name);
    return found.filter((one) => one.kind === kind && one.server === server && matches(one.name));
  };
  const ofTools = Object.entries(tools ?? {}).flatMap(([name, contract]): Thing[] => {
    const source = contract.from ?? contract.steps?.[0]?.call ?? "";
    const access = { effect: contract.access, openWorld: contract.openWorld };
    const said = contract.access === undefined && contract.openWorld === undefined ? undefined : access;
    if (servesAll(name))
      return from("tool", source).map((one) => thingOf(one, `${name.slice(0, -1)}${one.name}`, said));
    const [server = "", ...rest] = source.split("/");
    const [one] = contract.from === undefined ? [] : from("tool", source);
    const value = { ...one?.value, ...(contract.description !== undefined && { description: contract.description }) };
    const kind = contract.as === undefined ? "tool" : "resource";
    const served = contract.as?.resource ?? name;
    const template = kind === "resource" && served.includes("{");
    return [thingOf({ server, kind, template, name: rest.join("/"), value }, served, said)];
  });
  const others = (["resource", "prompt"] as const).flatMap((kind) =>
    Object.entries((kind === "resource" ? resources : prompts) ?? {}).flatMap(([name, contract]) => {
      const all = from(kind, contract.from);
      if (servesAll(name)) return all.map((one) => thingOf(one, one.name));
      const { server, name: named } = sourceOf(contract.from);
      const value = { ...all[0]?.value, description: contract.description ?? "" };
      return [thingOf({ server, kind, template: name.includes("{"), name: named, value }, name)];
    }),
  );
  return [...ofTools, ...others];
}

function thingOf({ server, kind, template, name, value }: Found, served: string, access?: Target["access"]): Thing {
  const { annotations, title, description } = value;
  const words = [served.replaceAll(/[_.-]/g, " "), title, description].filter((one) => typeof one === "string");
  return {
    target: {
      server,
      kind,
      name: served,
      upstreamName: name,
      pin: undefined,
      ...(access !== undefined && { access }),
      ...(template && { template: true as const }),
    },
    words: words.join(" "),
    annotations: isRecord(annotations) ? annotations : undefined,
  };
}

const isRecord = (value: JsonValue | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Somebody who calls, as commands and test cases describe them. */
export interface Described {
  readonly user: string;
  readonly client?: string | undefined;
  readonly groups?: readonly string[] | undefined;
  readonly scopes?: readonly string[] | undefined;
  readonly claims?: JsonObject | undefined;
}

export function principalOf({ user, client, groups, scopes, claims }: Described): Principal {
  return {
    subject: user,
    client: client ?? "",
    actors: [],
    groups: groups ?? [],
    scopes: scopes ?? ["mcp:read", "mcp:call"],
    claims: claims ?? {},
    grant: undefined,
    tokenId: "",
    expiresAt: 0,
  };
}

/** `name` of a tool, or with its kind in front: `resource:orders://1`, `prompt:greet`. */
export function aimedAt(text: string, things: readonly Thing[]): { readonly target: Target; readonly known: boolean } {
  const [, prefix, rest] = /^(tool|resource|prompt):(.*)$/s.exec(text) ?? [];
  const kind = (prefix ?? "tool") as TargetKind;
  const name = rest ?? text;
  const same = things.filter(({ target }) => target.kind === kind);
  const exact = same.find(({ target }) => target.name === name)?.target;
  if (exact !== undefined) return { target: exact, known: true };
  const template = same.find(
    ({ target }) => target.template === true && compileGlob(target.name.replace(/\{[^{}]*\}/g, "*"))(name),
  )?.target;
  const { template: _, ...made } = template ?? { server: "", kind, name, upstreamName: name, pin: undefined };
  return { target: { ...made, kind, name, upstreamName: name }, known: template !== undefined };
}

const METHODS = { tool: "tools/call", resource: "resources/read", prompt: "prompts/get" } as const;
const SCOPES = { tool: "mcp:call", resource: "mcp:read", prompt: "mcp:read" } as const;

/** What the gateway would ask its policy about such a call. */
export function callOf({ kind, name }: Target, args: JsonObject | undefined, at: number) {
  return { method: METHODS[kind], scope: SCOPES[kind], args: args ?? (kind === "resource" ? { uri: name } : {}), at };
}

/** The groups and the subject of somebody the store knows by name; undefined when it does not. */
export async function knownUser(
  file: string,
  name: string,
  terminal: Terminal,
): Promise<{ readonly id: string; readonly groups: readonly string[] } | undefined> {
  let found: { readonly id: string; readonly groups: readonly string[] } | undefined;
  const settings = await settingsOf({ file, store: undefined }, terminal).catch(() => undefined);
  if (settings === undefined) return undefined;
  try {
    await withStore({ file, store: undefined, readOnly: true }, terminal, async (store) => {
      const { usersIn } = await import("../oauth/people/users.ts");
      const user = await usersIn(store.records).lookUp(name);
      if (user !== undefined) found = { id: user.id, groups: user.groups };
    });
  } catch {
    // Without a store nobody is known; what the command line says of the caller counts.
  }
  return found;
}
