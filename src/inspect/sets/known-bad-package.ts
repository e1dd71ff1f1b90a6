/** Packages that were found malicious. */
import { compareVersions, MALICIOUS, packageOf, pinned } from "../packages.ts";
import type { InspectedServer, SetRule, SetSighting } from "../set-rule.ts";

const server = (more: Partial<InspectedServer>): readonly InspectedServer[] => [{ name: "one", tools: [], ...more }];

export const knownBadPackage: SetRule = {
  id: "known-bad-package",
  title: "runs a package that is known to be malicious",
  owasp: "MCP04",
  principle: 5,
  severity: "critical",
  confidence: "high",
  why: "It was published to steal; what it reaches has to be taken for lost.",
  fix: "Remove it, change every secret that it could see, and read what it sent.",
  bad: [server({ command: ["npx", "-y", "postmark-mcp@1.0.16"] }), server({ command: ["npx", "postmark-mcp"] })],
  good: [
    server({ command: ["npx", "-y", "postmark-mcp@1.0.12"] }),
    server({ command: ["npx", "-y", "other-mcp@1.0.16"] }),
  ],
  find: function* (servers): Generator<SetSighting> {
    for (const { name, command = [] } of servers) {
      const ref = packageOf(command);
      const known = MALICIOUS.find((one) => one.name === ref?.name && one.registry === ref.registry);
      if (ref === undefined || known === undefined) continue;
      if (known.from !== undefined && pinned(ref) && compareVersions(ref.version ?? "", known.from) < 0) continue;
      yield { server: name, where: "/command", evidence: `${ref.name} ${known.what}: ${known.source}` };
    }
  },
};
