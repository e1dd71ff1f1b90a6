/** Servers whose code may be another at each start. */
import { packageOf, pinned } from "../packages.ts";
import type { InspectedServer, SetRule, SetSighting } from "../set-rule.ts";

const server = (more: Partial<InspectedServer>): readonly InspectedServer[] => [{ name: "one", tools: [], ...more }];

export const floatingVersion: SetRule = {
  id: "floating-version",
  title: "runs whatever version is newest",
  owasp: "MCP04",
  principle: 5,
  severity: "medium",
  confidence: "high",
  why: "The code that was reviewed is not the code that runs: a release with one bad line is installed at the next start.",
  fix: "Name the exact version, or the digest of the image.",
  bad: [
    server({ command: ["npx", "-y", "some-mcp"] }),
    server({ command: ["uvx", "some-mcp@latest"] }),
    server({ command: ["docker", "run", "-i", "--rm", "acme/mcp:latest"] }),
  ],
  good: [
    server({ command: ["npx", "-y", "@acme/mcp@1.4.2"] }),
    server({ command: ["uvx", "--from", "some-mcp==2.0.1", "some"] }),
    server({ command: ["node", "server.js"] }),
  ],
  find: function* (servers): Generator<SetSighting> {
    for (const { name, command = [] } of servers) {
      const ref = packageOf(command);
      if (ref !== undefined && !pinned(ref))
        yield {
          server: name,
          where: "/command",
          evidence: `${ref.name}${ref.version === undefined ? " without a version" : ` at ${ref.version}`}`,
        };
    }
  },
};
