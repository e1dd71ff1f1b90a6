/** What is masked for whom: settings and roles, compiled to one action for each type and rules for fields. */
import type { Detector } from "./detector.ts";
import { compileFields, type FieldRules } from "./fields.ts";
import type { Action, MaskSettings } from "./settings.ts";

const MAX_PLANS = 1000;

/** What is masked for one set of roles. */
export interface Plan {
  /** By the type of the detector. */
  readonly actions: ReadonlyMap<string, Action>;
  readonly fields: FieldRules | undefined;
  /** What is about people stays, whatever its type. */
  readonly secretsAlone: boolean;
  /** Nothing is masked at all. */
  readonly idle: boolean;
}

/** The plan of each set of roles, made when it is first needed. */
export function plansOf(settings: MaskSettings, detectors: readonly Detector[]): (roles: readonly string[]) => Plan {
  const plans = new Map<string, Plan>();
  const known = new Set(Object.keys(settings.see));
  return (roles) => {
    const mine = roles.filter((role) => known.has(role));
    const name = mine.length > 1 ? mine.toSorted().join("\n") : (mine[0] ?? "");
    const ready = plans.get(name);
    if (ready !== undefined) return ready;
    const plan = planFor(settings, detectors, new Set(mine.flatMap((role) => settings.see[role] ?? [])));
    if (plans.size >= MAX_PLANS) plans.clear();
    plans.set(name, plan);
    return plan;
  };
}

function planFor(settings: MaskSettings, detectors: readonly Detector[], seen: ReadonlySet<string>): Plan {
  const types: Readonly<Partial<Record<string, Action>>> = settings.types;
  const actions = new Map<string, Action>(
    detectors.map(({ type, about }) => {
      const pattern = settings.patterns[type];
      const group = about === "secret" ? "secrets" : "people";
      const sees = seen.has(type) || (pattern === undefined && seen.has(group));
      return [type, sees ? "keep" : (types[type] ?? pattern?.do ?? settings[group])];
    }),
  );
  const names = new Set(["people", "secrets", ...actions.keys()]);
  const paths = [...seen].filter((path) => !names.has(path));
  const fields = compileFields({
    ...settings.fields,
    ...Object.fromEntries(paths.map((path) => [path, "keep" as const])),
  });
  // What a field is like, all detectors say.
  const secretsAlone =
    fields === undefined && detectors.every(({ type, about }) => about === "secret" || actions.get(type) === "keep");
  return {
    actions,
    fields,
    secretsAlone,
    idle: fields === undefined && [...actions.values()].every((action) => action === "keep"),
  };
}
