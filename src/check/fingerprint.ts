/** What stays the same of a finding when lists are ordered anew: by it a finding is waived, and code scanning follows it. */
import { createHash } from "node:crypto";
import type { Finding } from "../inspect/finding.ts";

/** 32 hexadecimal digits. `tool`: the name of the tool, undefined for a finding about a server. */
export function fingerprintOf(
  { rule, where, evidence }: Pick<Finding, "rule" | "where" | "evidence">,
  server: string | undefined,
  tool: string | undefined,
): string {
  // Places in lists move when something is put before them.
  const place = where.replace(/\/\d+(?=\/|$)/g, "/*");
  return createHash("sha256")
    .update(JSON.stringify([1, rule, server ?? "", tool ?? null, place, evidence.replace(/\s+/g, " ")]))
    .digest("hex")
    .slice(0, 32);
}
