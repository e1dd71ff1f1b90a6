/**
 * The blast radius of a role: what whoever holds it could read, change, destroy and send outside at most, and whether that is the
 * lethal trifecta: private data, text of strangers, and a way out. Contracts say what a tool does; without one the server's own
 * words are taken, and without those a guess from names, each said to be what it is.
 */
import { EFFECTS, type Effect, type JsonObject, type Target } from "../core/call.ts";
import { compilePattern } from "./globs.ts";
import type { RolesSettings } from "./settings.ts";

/** Something that is served, with what is known of it. */
export interface Thing {
  readonly target: Target;
  /** Name, title and description, as far as they are known. */
  readonly words: string;
  /** The server's own annotations of a tool, which nobody has to believe. */
  readonly annotations: JsonObject | undefined;
}

/** Who says so. */
export type Source = "contract" | "server" | "guess";

export interface Reached {
  readonly name: string;
  readonly kind: Target["kind"];
  readonly by: Source;
  /** The conditions under which the role permits it; empty when always. One of them is enough. */
  readonly when: readonly string[];
}

export interface BlastRadius {
  readonly role: string;
  readonly reads: readonly Reached[];
  readonly changes: readonly Reached[];
  readonly destroys: readonly Reached[];
  /** What reaches beyond its server's own data, whatever else it does. */
  readonly sends: readonly Reached[];
  /** Tools of which nobody says whether they reach outside. */
  readonly unsaid: readonly string[];
  /** Undefined unless all three are there. */
  readonly trifecta: Trifecta | undefined;
}
export interface Trifecta {
  readonly privateData: readonly string[];
  readonly strangersText: readonly string[];
  readonly wayOut: readonly string[];
  /** Whether a guess is part of it. */
  readonly guessed: boolean;
}

/** Of one role, whatever other roles its holders have. Conditions count as met: it is the most that can happen. */
export function blastRadius(role: string, settings: RolesSettings[string], things: readonly Thing[]): BlastRadius {
  const { mays, denies } = patternsOf(settings);
  const permitted = things.flatMap((thing): Judged[] => {
    const { target } = thing;
    if (denies.some((matches) => matches(target))) return [];
    const matching = mays.filter(({ matches }) => matches(target));
    if (matching.length === 0) return [];
    const always = matching.some(({ when }) => when === undefined);
    const when = always ? [] : [...new Set(matching.flatMap((one) => one.when ?? []))];
    return [{ thing, when, effect: effectOf(thing), outside: outsideOf(thing) }];
  });
  const of = (effect: Effect) =>
    permitted.filter((one) => one.effect.value === effect).map((one) => reached(one, one.effect.by));
  const sending = permitted.filter(({ outside }) => outside?.value === true);
  return {
    role,
    reads: of("read"),
    changes: of("write"),
    destroys: of("destructive"),
    sends: sending.map((one) => reached(one, one.outside?.by ?? "guess")),
    unsaid: permitted.filter(({ outside }) => outside === undefined).map(nameOf),
    trifecta: trifectaOf(permitted),
  };
}

interface Said<Value> {
  readonly value: Value;
  readonly by: Source;
}
interface Judged {
  readonly thing: Thing;
  readonly when: readonly string[];
  readonly effect: Said<Effect>;
  readonly outside: Said<boolean> | undefined;
}

function patternsOf(role: RolesSettings[string]) {
  const all = [
    { may: role.may, deny: [], when: role.when },
    { may: [], deny: role.deny },
    ...(role.rules ?? []),
  ].filter((rule) => !("shadow" in rule && rule.shadow === true));
  return {
    mays: all.flatMap(({ may, when }: { may: readonly string[]; when?: string | undefined }) =>
      may.map((pattern) => ({ matches: compilePattern(pattern, "may"), when })),
    ),
    // A denial under a condition may not be met.
    denies: all.flatMap(({ deny, when }: { deny: readonly string[]; when?: string | undefined }) =>
      when === undefined ? deny.map((pattern) => compilePattern(pattern, "deny")) : [],
    ),
  };
}

function effectOf({ target, annotations = {} }: Thing): Said<Effect> {
  if (target.kind !== "tool") return { value: "read", by: target.access === undefined ? "server" : "contract" };
  const said = EFFECTS.find((effect) => effect === target.access?.effect);
  if (said !== undefined) return { value: said, by: "contract" };
  if (annotations["destructiveHint"] === true) return { value: "destructive", by: "server" };
  if (annotations["readOnlyHint"] === true) return { value: "read", by: "server" };
  if (DESTROYING.test(target.name)) return { value: "destructive", by: "guess" };
  if (typeof annotations["readOnlyHint"] === "boolean") return { value: "write", by: "server" };
  return { value: READING.test(target.name) ? "read" : "write", by: "guess" };
}

function outsideOf({ target, annotations = {}, words }: Thing): Said<boolean> | undefined {
  const said = target.access?.openWorld;
  if (said !== undefined) return { value: said, by: "contract" };
  const hint = annotations["openWorldHint"];
  if (typeof hint === "boolean") return { value: hint, by: "server" };
  if (OUTSIDE.test(words)) return { value: true, by: "guess" };
  return target.kind === "tool" ? undefined : { value: false, by: "guess" };
}

/** What nobody says of a tool counts as harmless here, because everything else would be a warning that nobody reads; `unsaid` lists it. */
function trifectaOf(permitted: readonly Judged[]): Trifecta | undefined {
  const inside = permitted.filter(({ effect, outside }) => effect.value === "read" && outside?.value !== true);
  const strangers = permitted.filter(
    ({ effect, outside, thing }) => effect.value === "read" && (outside?.value === true || STRANGERS.test(thing.words)),
  );
  const out = permitted.filter(({ outside }) => outside?.value === true);
  if (inside.length === 0 || strangers.length === 0 || out.length === 0) return undefined;
  const guessed = [...inside, ...strangers, ...out].some(
    ({ effect, outside }) => effect.by === "guess" || outside?.by === "guess",
  );
  return {
    privateData: inside.map(nameOf),
    strangersText: strangers.map(nameOf),
    wayOut: out.map(nameOf),
    guessed: guessed || strangers.some(({ outside }) => outside?.value !== true),
  };
}

const nameOf = ({ thing }: Judged) => thing.target.name;
const reached = ({ thing, when }: Judged, by: Source): Reached => {
  const { name, kind } = thing.target;
  return { name, kind, by, when };
};

const READING =
  /(^|[._/-])(get|list|read|search|find|look|lookup|show|describe|count|query|view|fetch|check|status)(?=$|[._/A-Z-])/;
const DESTROYING =
  /(^|[._/-])(delete|remove|drop|destroy|purge|wipe|erase|truncate|cancel|revoke|kill|terminate)(?=$|[._/A-Z-])/;
/** Words of what reaches other people and machines. */
const OUTSIDE =
  /\b(https?|urls?|web ?(sites?|pages?|hooks?)?|internet|browse|crawl|e-?mails?|mails?|sms|slack|tweets?|posts? (to|a|in)|publish(es)?|upload(s)?|send(s)?)\b/i;
/** Words of text that strangers write. */
const STRANGERS =
  /\b(issues?|tickets?|comments?|messages?|e-?mails?|inbox|reviews?|feedback|notes?|web ?pages?|chats?|forum|posts?|documents?|customers?)\b/i;
