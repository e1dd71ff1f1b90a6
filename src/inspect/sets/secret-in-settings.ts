/** Secrets written into settings. */
import type { InspectedServer, SetRule, SetSighting } from "../set-rule.ts";

const server = (more: Partial<InspectedServer>): readonly InspectedServer[] => [{ name: "one", tools: [], ...more }];

export const secretInSettings: SetRule = {
  id: "secret-in-settings",
  title: "has a secret written into its settings",
  owasp: "MCP01",
  principle: 5,
  severity: "high",
  confidence: "medium",
  why: "Settings are copied, shared and put into repositories; whoever reads them has the key, and nobody knows.",
  fix: "Write a reference in its place, and change the secret if the file was ever shared.",
  bad: [server({ literalSecrets: ["env GITHUB_TOKEN"] })],
  good: [server({ literalSecrets: [] })],
  find: function* (servers): Generator<SetSighting> {
    for (const { name, literalSecrets = [] } of servers)
      for (const place of literalSecrets) yield { server: name, where: "", evidence: place };
  },
};
