/** Who a provider says somebody is: its claims, read within bounds and held against what the operator demands. */
import { displayName } from "../clients/clients.ts";
import type { SignInProvider } from "../settings.ts";
import type { FederatedUser } from "./users.ts";

export type Claims = Readonly<Record<string, unknown>>;

export type Admission =
  | { readonly ok: true; readonly user: FederatedUser }
  | {
      readonly ok: false;
      readonly name: string;
      readonly reason: "no-subject" | "too-many-groups" | "not-in-group" | "email-not-allowed";
      /** For the person. */
      readonly message: string;
    };

const MAX_SUBJECT = 512;
const MAX_GROUPS = 500;
const MAX_GROUP = 256;

/** A claim by its name, or by a path of names when there is none of that name (`realm_access.roles`, `https://app.example/groups`). */
export function claimAt(claims: Claims, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name];
  let value: unknown = claims;
  for (const step of name.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) return undefined;
    value = (value as Claims)[step];
  }
  return value;
}

/**
 * Whether a claim is one that its reader should fetch from another place (OIDC Core §5.6.2), which is how Microsoft Entra names
 * the groups of people who have more than 200. We do not, so it is not known.
 */
export function isKeptElsewhere(claims: Claims, name: string): boolean {
  const names = claims["_claim_names"];
  return typeof names === "object" && names !== null && Object.hasOwn(names, name);
}

/** Whether there is anything left to ask the userinfo endpoint for. */
export function incomplete(claims: Claims, { groupsClaim }: SignInProvider): boolean {
  return claimAt(claims, groupsClaim) === undefined || claims["email"] === undefined || nameIn(claims) === undefined;
}

/** The user these claims make, or why not. What the ID token says counts before what userinfo says. */
export function admitted(
  provider: string,
  settings: SignInProvider,
  idToken: Claims,
  userinfo: Claims = {},
): Admission {
  const { label = provider, groupsClaim, groupsPrefix, requiredGroups, emailDomains } = settings;
  const subject = idToken["sub"];
  const email = verifiedEmail(idToken["email"] === undefined ? userinfo : idToken);
  const name = nameIn(idToken) ?? nameIn(userinfo) ?? email ?? (displayName(subject) || "somebody");
  const refused = (reason: Exclude<Admission, { ok: true }>["reason"], message: string): Admission => ({
    ok: false,
    name,
    reason,
    message,
  });

  if (typeof subject !== "string" || subject === "" || subject.length > MAX_SUBJECT) {
    return refused("no-subject", `${label} did not say who you are. This is for the operator of ${label} to repair.`);
  }
  const found = claimAt(idToken, groupsClaim) ?? claimAt(userinfo, groupsClaim);
  const elsewhere =
    found === undefined && (isKeptElsewhere(idToken, groupsClaim) || isKeptElsewhere(userinfo, groupsClaim));
  const groups = elsewhere ? undefined : groupsIn(found);
  if (groups === undefined) {
    return refused(
      "too-many-groups",
      `${label} names more groups for you, or longer ones, than are taken here (${MAX_GROUPS} groups of ${MAX_GROUP} characters). Its operator can send only those that matter.`,
    );
  }
  if (requiredGroups.length > 0 && !requiredGroups.some((group) => groups.includes(group))) {
    return refused(
      "not-in-group",
      "Your account is in none of the groups that may sign in here. Ask whoever runs this gateway, or sign in with another account.",
    );
  }
  if (emailDomains.length > 0 && (email === undefined || !inDomains(email, emailDomains))) {
    return refused(
      "email-not-allowed",
      `Only people with a verified e-mail address in certain domains may sign in here, and ${label} names none for you. Sign in with another account.`,
    );
  }
  return { ok: true, user: { provider, subject, name, email, groups: groups.map((group) => groupsPrefix + group) } };
}

function nameIn(claims: Claims): string | undefined {
  return displayName(claims["name"]) || displayName(claims["preferred_username"]) || undefined;
}

/** Policies may read the address, so one that anybody could have typed in is none (OIDC Core §5.1 `email_verified`). */
function verifiedEmail({ email, email_verified: verified }: Claims): string | undefined {
  // Some providers write their booleans as strings.
  if (verified !== true && verified !== "true") return undefined;
  return typeof email === "string" && /^[^\s@]{1,64}@[^\s@]{1,190}$/.test(email) ? email : undefined;
}

function inDomains(email: string, domains: readonly string[]): boolean {
  const host = email.slice(email.lastIndexOf("@") + 1).toLowerCase();
  return domains.some((domain) => (domain.startsWith("*.") ? host.endsWith(domain.slice(1)) : host === domain));
}

/** A list, or one text; undefined when it is more than we take. A group that was left out could be one that forbids something. */
function groupsIn(claim: unknown): readonly string[] | undefined {
  const given = (Array.isArray(claim) ? claim : [claim]).filter((group) => typeof group === "string" && group !== "");
  const groups = [...new Set(given as string[])];
  return groups.length > MAX_GROUPS || groups.some((group) => group.length > MAX_GROUP) ? undefined : groups;
}
