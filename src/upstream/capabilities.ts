/** What clients declare that they can do, and how much of it a server is told. */
import type { JsonObject, JsonValue } from "../core/call.ts";
import { covers } from "../mcp/interaction.ts";
import { isObject } from "../mcp/json-text.ts";
import { TASKS_EXTENSION } from "../mcp/tasks.ts";

/**
 * A set of capabilities as one connection declares it. A server with a handshake learns it once and offers its tools by it, so
 * clients of different flavours need processes or sessions of their own.
 */
export interface Flavour {
  readonly capabilities: JsonObject;
  /** The same as text; equal texts are equal flavours. */
  readonly text: string;
  /** Whether servers may ask such a client anything. */
  readonly askable: boolean;
}

/** That of clients that can do nothing of what servers are told, and of our own requests. */
export const PLAIN: Flavour = { capabilities: {}, text: "{}", askable: false };

const ASKABLE = ["elicitation", "sampling", "roots"] as const;
/** Capabilities of more text than this are cut down to what servers may ask. */
const MAX_TEXT = 4096;

/**
 * What a server is told of a client's capabilities: all of them, vendors' own included, but for changes of roots, which reach no
 * server, and for tasks: whether they are accepted depends on the call (`TaskRoute`), and no server makes tasks of its questions.
 * Keys are sorted.
 */
export function toldOf(capabilities: JsonObject): JsonObject {
  for (const _ in capabilities) {
    const { tasks: _tasks, roots, elicitation, extensions, ...rest } = capabilities;
    const told: Record<string, JsonValue> = { ...rest };
    if (isObject(roots)) told["roots"] = without(roots, "listChanged");
    // 2025-11-25, Elicitation: an empty object is forms alone, and the only spelling that older revisions know.
    if (isObject(elicitation)) told["elicitation"] = isFormAlone(elicitation) ? {} : elicitation;
    const extended = isObject(extensions) ? without(extensions, TASKS_EXTENSION) : {};
    if (Object.keys(extended).length > 0) told["extensions"] = extended;
    const sorted = inOrder(told) as JsonObject;
    return JSON.stringify(sorted).length <= MAX_TEXT
      ? sorted
      : Object.fromEntries(ASKABLE.flatMap((name) => (isObject(sorted[name]) ? [[name, {}]] : [])));
  }
  return PLAIN.capabilities;
}

/** The flavour of a client; one that cannot be asked has none of what servers ask for. */
export function flavourOf(capabilities: JsonObject, canBeAsked: boolean): Flavour {
  const told = toldOf(capabilities);
  if (told === PLAIN.capabilities) return PLAIN;
  const kept = canBeAsked ? told : without(told, ...ASKABLE);
  const text = JSON.stringify(kept);
  if (text === PLAIN.text) return PLAIN;
  return { capabilities: kept, text, askable: ASKABLE.some((name) => isObject(kept[name])) };
}

/** Keeps the number of flavours within bounds. */
export interface Flavours {
  /** The flavour itself, or when there are too many the nearest of those in use that promises no more. */
  admit(wanted: Flavour): Flavour;
}

/** `limit` counts the plain one. `release` gives up what is kept for a flavour; false while it is in use. */
export function boundedFlavours(limit: number, release: (flavour: Flavour) => boolean): Flavours {
  // The one unused for longest comes first.
  const known = new Map<string, Flavour>();
  return {
    admit(wanted) {
      if (wanted === PLAIN) return PLAIN;
      const found = known.get(wanted.text);
      if (found === undefined && known.size + 1 >= limit) {
        for (const [text, old] of known) {
          if (!release(old)) continue;
          known.delete(text);
          break;
        }
        if (known.size + 1 >= limit) return nearest(wanted, known.values());
      }
      known.delete(wanted.text);
      known.set(wanted.text, found ?? wanted);
      return found ?? wanted;
    },
  };
}

function nearest(wanted: Flavour, among: Iterable<Flavour>): Flavour {
  let best = PLAIN;
  for (const one of among)
    if (covers(wanted.capabilities, one.capabilities) && one.text.length > best.text.length) best = one;
  return best;
}

const isFormAlone = (elicitation: JsonObject) => JSON.stringify(elicitation) === '{"form":{}}';

function without(object: JsonObject, ...names: readonly string[]): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([name]) => !names.includes(name)));
}

function inOrder(value: JsonValue): JsonValue {
  if (!isObject(value)) return value;
  const sorted = Object.keys(value).sort();
  return Object.fromEntries(sorted.map((key) => [key, inOrder(value[key] ?? null)]));
}
