/** Callers, targets and calls for tests of policies, and random ones. */
import fc from "fast-check";
import type { Access, JsonObject, Principal, Target, TargetKind } from "../../src/core/call.ts";
import type { CallFacts } from "../../src/policy/engine.ts";
import type { AssignSettings, RolesSettings } from "../../src/policy/settings.ts";

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
type Shape = { readonly leaf: (flag: string) => string } | { readonly op: string; readonly of: readonly Shape[] };
const shape: fc.Arbitrary<Shape> = fc.letrec<{ shape: Shape }>((tie) => ({
  shape: fc.oneof(
    { maxDepth: 2, withCrossShrink: true },
    leaf.map((make): Shape => ({ leaf: make })),
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

const patterns = fc.array(fc.constantFrom(...PATTERNS), { maxLength: 3 });
const rule = fc.record({ may: patterns, deny: patterns, when: fc.option(shape, { nil: undefined }) });
export const policies: fc.Arbitrary<RandomPolicy> = fc
  .array(fc.record({ own: rule, rules: fc.array(rule, { maxLength: 2 }) }), { minLength: 1, maxLength: 3 })
  .map((shapes) => {
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
      shapes.map(({ own, rules }, at) => [`r${at}`, { ...settle(own), rules: rules.map(settle) }]),
    );
    const assign = shapes.map((_, at) => ({ role: `r${at}`, group: `g${at}` }));
    return { roles, assign, flags };
  });

export const principals: fc.Arbitrary<Principal> = fc
  .record({
    groups: fc.subarray(["g0", "g1", "g2"]),
    subject: fc.constantFrom("u1", "u2"),
    claims: fc.constantFrom<JsonObject>({}, { vip: true }, { vip: false, level: 3 }, { vip: "yes", level: "high" }),
    scopes: fc.constantFrom(["mcp:read", "mcp:call"], ["mcp:read"]),
  })
  .map((change) => principal(change));

export function argumentsOf(flags: readonly string[]): fc.Arbitrary<JsonObject> {
  return fc.record(
    Object.fromEntries(flags.map((flag) => [flag, fc.constantFrom<boolean | string>(true, false, "odd")])),
    {
      requiredKeys: [],
    },
  ) as fc.Arbitrary<JsonObject>;
}
