/** Rules about servers as they are set up, and about what they make together. */
import type { JsonObject } from "../core/call.ts";
import { type Confidence, type Finding, type OwaspId, type Principle, pointsOf, type Severity } from "./finding.ts";
import { SET_RULES } from "./sets/index.ts";

/** A server as its settings start it, with the tools that it lists. */
export interface InspectedServer {
  readonly name: string;
  readonly command?: readonly string[] | undefined;
  readonly url?: string | undefined;
  /** Where a secret stands written out, in words: "env GITHUB_TOKEN". Never the secret. */
  readonly literalSecrets?: readonly string[] | undefined;
  readonly tools: readonly JsonObject[];
  /** Definitions go out under contracts: how the server itself is set up is its operator's business. */
  readonly byContract?: boolean | undefined;
}

export interface SetSighting {
  /** The server it is about; undefined for all of them together. */
  readonly server: string | undefined;
  /** JSON pointer into the server's settings, or into `{tools}`. */
  readonly where: string;
  readonly evidence: string;
  readonly severity?: Severity;
  readonly confidence?: Confidence;
}

/** A rule over servers. One file in `sets/`, one page in `docs/rules/`. */
export interface SetRule {
  readonly id: string;
  readonly title: string;
  readonly owasp: OwaspId;
  readonly principle: Principle;
  readonly severity: Severity;
  readonly confidence: Confidence;
  readonly why: string;
  readonly fix: string;
  readonly bad: readonly (readonly InspectedServer[])[];
  readonly good: readonly (readonly InspectedServer[])[];
  readonly find: (servers: readonly InspectedServer[]) => Iterable<SetSighting>;
}

export interface SetFinding extends Finding {
  readonly server: string | undefined;
}

const MAX_FINDINGS = 20;
const MAX_EVIDENCE = 200;

/** What the servers of one set show, heaviest first. Of one rule no more than twenty findings are listed. */
export function inspectServers(servers: readonly InspectedServer[]): readonly SetFinding[] {
  return SET_RULES.flatMap(({ find, ...rule }) =>
    [...find(servers)].slice(0, MAX_FINDINGS).map(
      (seen): SetFinding => ({
        rule: rule.id,
        owasp: rule.owasp,
        severity: seen.severity ?? rule.severity,
        confidence: seen.confidence ?? rule.confidence,
        server: seen.server,
        where: seen.where,
        evidence: seen.evidence.slice(0, MAX_EVIDENCE),
        why: rule.why,
        fix: rule.fix,
      }),
    ),
  ).sort((one, other) => pointsOf(other) - pointsOf(one));
}
