/** Callers, targets and calls for tests of policies, and random ones. */
import type { Access, JsonObject, Principal, Target, TargetKind } from "../../src/core/call.ts";
import type { CallFacts } from "../../src/policy/engine.ts";
import type { AssignSettings, RolesSettings } from "../../src/policy/settings.ts";
import { fc } from "../properties.ts";

export const principal = (change: Partial<Principal> = {}): Principal => ({
  subject: "u1",
  client: "c1",
  actors: [],
  groups: ["support"],
  scopes: ["mcp:read", "mcp:call"],
  claims: {},
  grant: undefined,
  tokenId: "t1",
  expiresAt: 0,
  ...change,
});

export const target = (name: string, kind: TargetKind = "tool", more: Partial<Target> = {}): Target => ({
  server: "s",
  kind,
  name,
  upstreamName: name,
  pin: undefined,
  ...more,
});

export const toolCall = (args: JsonObject = {}, more: Partial<CallFacts> = {}): CallFacts => ({
  method: "tools/call",
  args,
  scope: "mcp:call",
  ...more,
});

const NAMES = ["get_order", "get_item", "set_order", "drop", "a.b", "x"];
const PATTERNS = [
  "*",
  "get_order",
  "get_*",
  "*_order",
  "*_*",
  "drop",
  "x",
  "access:read",
  "access:write",
  "access:destructive",
  "open-world",
  "resource:o://*",
  "resource:o://1",
  "resource:*1",
  "prompt:*",
];
const ACCESSES: readonly (Access | undefined)[] = [
  undefined,
  { effect: "read", openWorld: false },
  { effect: "read", openWorld: true },
  { effect: "write", openWorld: undefined },
  { effect: "destructive", openWorld: false },
];

export const targets: readonly Target[] = [
  ...NAMES.flatMap((name) => ACCESSES.slice(0, 3).map((access) => target(name, "tool", { access }))),
  target("drop", "tool", { access: ACCESSES[4] }),
  target("x", "tool", { access: ACCESSES[3], server: "t" }),
  target("o://1", "resource"),
  target("o://2", "resource"),
  target("p", "prompt"),
];

/** A condition, and the names of the arguments in it: no name is in two places. */
interface Written {
  readonly text: string;
  readonly flags: readonly string[];
}

const leaf = fc.constantFrom<(flag: string) => string>(
  (flag) => `args.${flag}`,
  (flag) => `args.${flag} == true`,
  (flag) => `has(args.${flag})`,
  () => "principal.claims.vip == true",
  () => "principal.claims.level > 2",
  () => 'principal.subject == "u1"',
  () => 'call.server == "s"',
  () => 'call.access == "read"',
  () => "has(resource.uri) && resource.uri.endsWith('1')",
  () => "false",
);
/** Also what depends on the call in other ways, and arguments that several conditions look at. */
const anyLeaf = fc.oneof(
  leaf,
  fc.constantFrom<(flag: string) => string>(
    () => "args.shared == true",
    () => "!has(args.shared)",
    () => 'call.method == "tools/call"',
    () => 'call.method.startsWith("resources/")',
    () => "time.hour < 12",
    () => "time.weekday > 5 || time.minute == 0",
    () => 'args.uri.matches("^o://[12]$")',
    () => 'resource.parts[0] == "1"',
    () => "args.shared",
    () => "args.missing.deep == 1",
  ),
);
type Shape = { readonly leaf: (flag: string) => string } | { readonly op: string; readonly of: readonly Shape[] };
const shapesOf = (leaves: typeof leaf): fc.Arbitrary<Shape> =>
  fc.letrec<{ shape: Shape }>((tie) => ({
    shape: fc.oneof(
      { maxDepth: 2, withCrossShrink: true },
      leaves.map((make): Shape => ({ leaf: make })),
      fc.tuple(tie("shape"), tie("shape")).map((of): Shape => ({ op: "&&", of })),
      fc.tuple(tie("shape"), tie("shape")).map((of): Shape => ({ op: "||", of })),
      tie("shape").map((of): Shape => ({ op: "!", of: [of] })),
    ),
  })).shape;

function written(of: Shape, next: () => string): Written {
  if ("leaf" in of) {
    const flag = next();
    const text = `(${of.leaf(flag)})`;
    return { text, flags: text.includes(flag) ? [flag] : [] };
  }
  const parts = of.of.map((part) => written(part, next));
  const text = of.op === "!" ? `!(${parts[0]?.text})` : `(${parts.map((part) => part.text).join(` ${of.op} `)})`;
  return { text, flags: parts.flatMap(({ flags }) => flags) };
}

export interface RandomPolicy {
  readonly roles: RolesSettings;
  readonly assign: AssignSettings;
  /** Every argument that a condition looks at. */
  readonly flags: readonly string[];
}

const policiesOf = (
  shapes: fc.Arbitrary<Shape>,
  patternList: readonly string[] = PATTERNS,
): fc.Arbitrary<RandomPolicy> => {
  const patterns = fc.array(fc.constantFrom(...patternList), { maxLength: 3 });
  const rule = fc.record({ may: patterns, deny: patterns, when: fc.option(shapes, { nil: undefined }) });
  return fc
    .array(fc.record({ own: rule, rules: fc.array(rule, { maxLength: 2 }) }), { minLength: 1, maxLength: 3 })
    .map((all) => {
      let count = 0;
      const flags: string[] = [];
      const next = () => `f${count++}`;
      const settle = ({ may, deny, when }: { may: string[]; deny: string[]; when: Shape | undefined }) => {
        if (when === undefined) return { may, deny };
        const condition = written(when, next);
        flags.push(...condition.flags);
        return { may, deny, when: condition.text };
      };
      const roles = Object.fromEntries(
        all.map(({ own, rules }, at) => [`r${at}`, { ...settle(own), rules: rules.map(settle) }]),
      );
      const assign = all.map((_, at) => ({ role: `r${at}`, group: `g${at}` }));
      return { roles, assign, flags };
    });
};
/** Each argument is in one place, so that each condition can be met whatever the others need. */
export const policies = policiesOf(shapesOf(leaf));
/** All that a policy may say. */
export const anyPolicies = policiesOf(shapesOf(anyLeaf));
/** The same about other things. */
export const policiesAbout = (patterns: readonly string[]) => policiesOf(shapesOf(anyLeaf), patterns);

export const principals: fc.Arbitrary<Principal> = fc
  .record({
    groups: fc.subarray(["g0", "g1", "g2"]),
    subject: fc.constantFrom("u1", "u2"),
    claims: fc.constantFrom<JsonObject>({}, { vip: true }, { vip: false, level: 3 }, { vip: "yes", level: "high" }),
    scopes: fc.constantFrom(["mcp:read", "mcp:call"], ["mcp:read"]),
  })
  .map((change) => principal(change));

/** What the pipeline asks about, of every kind. */
export function callsOf(what: Target, flags: readonly string[]): fc.Arbitrary<CallFacts> {
  const methods = { tool: TOOL_METHODS, resource: RESOURCE_METHODS, prompt: PROMPT_METHODS }[what.kind];
  const shared = fc.constantFrom<JsonObject>({}, { shared: true }, { shared: false }, { shared: "odd" });
  return fc
    .tuple(fc.constantFrom(...methods), argumentsOf(flags), shared, fc.constantFrom(undefined, MORNING, EVENING))
    .map(([method, own, more, at]) => {
      const args = what.kind === "resource" ? { uri: what.name } : { ...own, ...more };
      const following = method === "resources/subscribe";
      return { method, args, scope: following ? undefined : what.kind === "tool" ? "mcp:call" : "mcp:read", at };
    });
}
const TOOL_METHODS = ["tools/call", "tasks/get", "tasks/result", "tasks/cancel"];
const RESOURCE_METHODS = ["resources/read", "resources/subscribe", "completion/complete"];
const PROMPT_METHODS = ["prompts/get", "completion/complete"];
const MORNING = Date.parse("2026-11-20T09:00:00Z");
const EVENING = Date.parse("2026-11-21T21:30:00Z");

export function argumentsOf(flags: readonly string[]): fc.Arbitrary<JsonObject> {
  return fc.record(
    Object.fromEntries(flags.map((flag) => [flag, fc.constantFrom<boolean | string>(true, false, "odd")])),
    {
      requiredKeys: [],
    },
  ) as fc.Arbitrary<JsonObject>;
}
