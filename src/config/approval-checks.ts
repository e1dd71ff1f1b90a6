/** What the schema of `approvals:` cannot say: patterns and conditions that must compile, roles that must be known. */
import type { ApprovalTerms } from "../contract/settings.ts";
import { readPattern } from "../policy/globs.ts";
import { compileCallCondition } from "../policy/when.ts";
import type { SoundParts } from "./checks.ts";
import { type Finding, failing, isRecord, nearest, type SettingsPath, valueAt } from "./problems.ts";

export function approvalFindings({ approvals, tools }: SoundParts, raw: unknown): Finding[] {
  const declared = valueAt(raw, ["roles"]);
  const roles = isRecord(declared) ? Object.keys(declared) : ["owner"];
  const rules = (approvals ?? []).flatMap((rule, at) => [
    ...rule.tools.flatMap((pattern, index) => failing(["approvals", at, "tools", index], () => readPattern(pattern))),
    ...termFindings(["approvals", at], rule, roles),
  ]);
  const contracts = Object.entries(tools ?? {}).flatMap(([name, { approval }]) =>
    typeof approval === "object" ? termFindings(["tools", name, "approval"], approval, roles) : [],
  );
  return [...rules, ...contracts];
}

function termFindings(path: SettingsPath, { when, by, fourEyes }: ApprovalTerms, roles: readonly string[]): Finding[] {
  const unknown = (by ?? []).flatMap((role, index): Finding[] => {
    if (roles.includes(role)) return [];
    const suggestion = nearest(role, roles);
    const known = suggestion === undefined ? `; known roles: ${roles.join(", ")}` : "";
    return [{ path: [...path, "by", index], message: `there is no role ${JSON.stringify(role)}${known}`, suggestion }];
  });
  const alone: Finding[] =
    fourEyes && by === undefined
      ? [{ path: [...path, "fourEyes"], message: "needs `by`: the roles of which another user may approve" }]
      : [];
  return [
    ...unknown,
    ...alone,
    ...(when === undefined ? [] : failing([...path, "when"], () => compileCallCondition(when))),
  ];
}
