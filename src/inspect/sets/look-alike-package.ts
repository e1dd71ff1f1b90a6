/** Packages whose names are a slip away from a popular server's. */
import { editDistance, POPULAR, packageOf } from "../packages.ts";
import type { InspectedServer, SetRule, SetSighting } from "../set-rule.ts";

const server = (more: Partial<InspectedServer>): readonly InspectedServer[] => [{ name: "one", tools: [], ...more }];

export const lookAlikePackage: SetRule = {
  id: "look-alike-package",
  title: "runs a package whose name imitates a popular one",
  owasp: "MCP04",
  principle: 5,
  severity: "high",
  confidence: "medium",
  why: "Names one letter away from a popular server are registered to be installed by mistake.",
  fix: "Compare the name with the server's own documentation, letter by letter.",
  bad: [
    server({ command: ["npx", "-y", "@modelcontextprotocoI/server-github@1.0.0"] }),
    server({ command: ["npx", "-y", "firecrawI-mcp@1.0.0"] }),
    server({ command: ["uvx", "mcp-server-fecth==1.0.0"] }),
  ],
  good: [
    server({ command: ["npx", "-y", "@modelcontextprotocol/server-github@1.0.0"] }),
    server({ command: ["npx", "-y", "@acme/orders-mcp@1.0.0"] }),
  ],
  find: function* (servers): Generator<SetSighting> {
    for (const { name, command = [] } of servers) {
      const ref = packageOf(command);
      if (ref === undefined || POPULAR[ref.registry].includes(ref.name)) continue;
      const near = POPULAR[ref.registry].find((popular) => {
        // Short names are near one another by nature.
        const most = popular.length >= 12 ? 2 : popular.length >= 7 ? 1 : 0;
        return most > 0 && editDistance(ref.name, popular, most) <= most;
      });
      if (near !== undefined) yield { server: name, where: "/command", evidence: `${ref.name}, not ${near}` };
    }
  },
};
