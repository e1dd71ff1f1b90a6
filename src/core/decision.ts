/** What policy says of one call. */
export type Reason = "permitted_by_rule" | "denied_by_rule" | "no_rule_permits" | "rule_failed" | "scope_missing";

export type Decision =
  | { readonly effect: "permit"; readonly reason: "permitted_by_rule"; readonly rule: string }
  | {
      readonly effect: "deny";
      readonly reason: Exclude<Reason, "permitted_by_rule" | "scope_missing">;
      readonly rule: string | undefined;
    }
  /** The caller's roles would permit it, its token's scopes do not: RFC 6750 §3.1 `insufficient_scope`. */
  | { readonly effect: "step-up"; readonly reason: "scope_missing"; readonly scope: string };
