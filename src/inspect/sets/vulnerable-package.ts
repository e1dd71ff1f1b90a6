/** Versions with a published weakness. */
import { compareVersions, packageOf, pinned, WEAKNESSES } from "../packages.ts";
import type { InspectedServer, SetRule, SetSighting } from "../set-rule.ts";

const server = (more: Partial<InspectedServer>): readonly InspectedServer[] => [{ name: "one", tools: [], ...more }];

export const vulnerablePackage: SetRule = {
  id: "vulnerable-package",
  title: "runs a version with a published weakness",
  owasp: "MCP04",
  principle: 5,
  severity: "high",
  confidence: "high",
  why: "How to attack it is public.",
  fix: "Take the version that mends it, or a later one.",
  bad: [
    server({ command: ["npx", "-y", "mcp-remote@0.1.15", "https://mcp.example.com"] }),
    server({ command: ["uvx", "mcp-server-git==2025.7.1"] }),
  ],
  good: [
    server({ command: ["npx", "-y", "mcp-remote@0.1.16", "https://mcp.example.com"] }),
    server({ command: ["npx", "-y", "@modelcontextprotocol/server-filesystem@2026.8.31"] }),
  ],
  find: function* (servers): Generator<SetSighting> {
    for (const { name, command = [] } of servers) {
      const ref = packageOf(command);
      if (ref?.version === undefined || !pinned(ref)) continue;
      for (const { name: weak, registry, since, fixedIn, ids, what } of WEAKNESSES)
        if (
          weak === ref.name &&
          registry === ref.registry &&
          compareVersions(ref.version, fixedIn) < 0 &&
          (since === undefined || compareVersions(ref.version, since) >= 0)
        )
          yield {
            server: name,
            where: "/command",
            evidence: `${ref.name} ${ref.version}: ${ids}, ${what}; mended in ${fixedIn}`,
          };
    }
  },
};
