/** Names and hosts that a person could take for those of a client they know: said on the consent page, never decided by. */
import { domainToUnicode } from "node:url";
import { skeleton } from "../../core/confusables.ts";

/** A client whose name means something, because its operator or its domain stands behind it. */
export interface KnownClient {
  readonly id: string;
  readonly name: string;
  /** The host of its document; undefined for a client of the settings file. */
  readonly host: string | undefined;
}

export interface Candidate {
  readonly id: string;
  readonly name: string;
  /** The host of its document; undefined when nobody has verified where it is from. */
  readonly host: string | undefined;
}

/** What a client is like without being it: in the words of the page, "the client Billing that …", "claude.ai, which …". */
export type Likeness =
  | { readonly of: "operator-client"; readonly name: string }
  | { readonly of: "known-client"; readonly name: string; readonly host: string }
  | { readonly of: "allowed-domain"; readonly domain: string };

/**
 * What `candidate` could be mistaken for: a known client of the same name from elsewhere, or a domain that the operator allows and
 * that its name or host speaks of. Ask it only about clients that are neither of those themselves.
 */
export function likeness(
  candidate: Candidate,
  known: readonly KnownClient[],
  allowedDomains: readonly string[],
): Likeness | undefined {
  const name = skeleton(candidate.name);
  for (const { id, name: theirs, host } of known) {
    // A domain may have several clients of one name: who is behind them is the same.
    const same = id === candidate.id || (host !== undefined && host === candidate.host);
    if (same || skeleton(theirs) !== name) continue;
    return host === undefined ? { of: "operator-client", name: theirs } : { of: "known-client", name: theirs, host };
  }
  const host = candidate.host === undefined ? "" : domainToUnicode(candidate.host.replace(/:\d+$/, ""));
  const words = [...candidate.name.split(/[^\p{L}\p{M}\p{N}]+/u), ...host.split(/[.-]/)].map(skeleton);
  for (const pattern of allowedDomains) {
    const brand = brandOf(pattern);
    if (brand.length >= MIN_BRAND && words.some((word) => word.includes(brand))) {
      return { of: "allowed-domain", domain: pattern.replace(/^\*\./, "") };
    }
  }
  return undefined;
}

/** Shorter labels are part of too many words. */
const MIN_BRAND = 4;

/** The part of a domain that people know: `claude` of claude.ai, `acme` of *.mcp.acme.co.uk. */
function brandOf(pattern: string): string {
  const labels = pattern.replace(/^\*\./, "").replace(/:\d+$/, "").split(".");
  const last = labels.at(-2) ?? labels[0] ?? "";
  // Second-level suffixes such as co.uk and com.au are short.
  return skeleton(last.length <= 3 && labels.length > 2 ? (labels.at(-3) ?? last) : last);
}
