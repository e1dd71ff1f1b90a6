/** Rules for fields, matched while a document is walked: which of them applies to the value at hand. */
import { DrawbridgeError } from "../core/errors.ts";
import { ACTIONS, type Action } from "./settings.ts";

interface State {
  readonly segment: string;
  /** Where the rule goes on when the segment matches. */
  readonly next: number;
  readonly action: Action | undefined;
}

/** Places within rules that are reached at some place of a document. `action` is what the rules say of the value there. */
export interface FieldState {
  readonly places: readonly number[];
  readonly action: Action | undefined;
}

export interface FieldRules {
  /** At the top of a document. */
  readonly top: FieldState;
  /** Below a key of an object. */
  member(state: FieldState, key: string): FieldState;
  /** In a list: an element is where its list is, and `*` or its index may name it. */
  element(state: FieldState, index: number): FieldState;
}

const MAX_SEGMENTS = 16;

/** Compiles paths with their actions. Throws `settings_invalid` for a path that cannot be read. */
export function compileFields(fields: Readonly<Record<string, Action>>): FieldRules | undefined {
  const states: State[] = [];
  const floating: number[] = [];
  const anchored: number[] = [];
  for (const [path, action] of Object.entries(fields)) {
    const segments = segmentsOf(path);
    (path.startsWith("/") ? anchored : floating).push(states.length);
    for (const [index, segment] of segments.entries()) {
      const last = index === segments.length - 1;
      states.push({ segment, next: last ? -1 : states.length + 1, action: last ? action : undefined });
    }
  }
  if (states.length === 0) return undefined;

  function step(state: FieldState, matches: (segment: string) => boolean, stay: boolean): FieldState {
    const places: number[] = stay ? [...state.places] : [...floating];
    let action: Action | undefined;
    for (const place of state.places) {
      const rule = states[place];
      if (rule === undefined || !matches(rule.segment)) continue;
      if (rule.next >= 0 && !places.includes(rule.next)) places.push(rule.next);
      if (rule.action !== undefined) action = stricter(action, rule.action);
    }
    // A rule for a value holds for all within it, until one further down says otherwise.
    return { places, action: action ?? state.action };
  }

  return {
    top: { places: [...anchored, ...floating], action: undefined },
    member: (state, key) => step(state, (segment) => segment === key || segment === "*", false),
    element: (state, index) => step(state, (segment) => segment === "*" || segment === String(index), true),
  };
}

function stricter(one: Action | undefined, other: Action): Action {
  return one !== undefined && ACTIONS.indexOf(one) > ACTIONS.indexOf(other) ? one : other;
}

/** `customer.email`, `customer/email`, `/items/0/a~1b`. */
function segmentsOf(path: string): readonly string[] {
  const segments = path.includes("/")
    ? path
        .replace(/^\//, "")
        .split("/")
        .map((segment) => segment.replaceAll("~1", "/").replaceAll("~0", "~"))
    : path.split(".");
  if (segments.length > MAX_SEGMENTS || segments.some((segment) => segment === ""))
    throw new DrawbridgeError(
      "settings_invalid",
      `The path ${path} cannot be read. Write keys with dots between them, such as customer.email.`,
    );
  return segments;
}
