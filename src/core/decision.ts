/** What policy says of one call. */
export type Reason = "permitted_by_rule" | "denied_by_rule" | "no_rule_permits" | "rule_failed" | "scope_missing";

export type Decision = (
  | { readonly effect: "permit"; readonly reason: "permitted_by_rule"; readonly rule: string }
  | {
      readonly effect: "deny";
      readonly reason: Exclude<Reason, "permitted_by_rule" | "scope_missing">;
      readonly rule: string | undefined;
    }
  /** The caller's roles would permit it, its token lacks these scopes, with spaces between: RFC 6750 §3.1 `insufficient_scope`. */
  | { readonly effect: "step-up"; readonly reason: "scope_missing"; readonly scope: string }
) & {
  /** What a policy that is only tried out would have said, where that is something else. */
  readonly shadow?: ShadowDecision;
};

export interface ShadowDecision {
  readonly effect: "permit" | "deny" | "step-up";
  readonly reason: Reason;
  readonly rule: string | undefined;
  /** Version of the policy that says so. */
  readonly policy: string;
}
