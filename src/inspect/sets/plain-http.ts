/** Servers that are reached without encryption. */
import type { InspectedServer, SetRule, SetSighting } from "../set-rule.ts";

const server = (more: Partial<InspectedServer>): readonly InspectedServer[] => [{ name: "one", tools: [], ...more }];

export const plainHttp: SetRule = {
  id: "plain-http",
  title: "is reached without encryption",
  owasp: "MCP07",
  principle: 5,
  severity: "high",
  confidence: "high",
  why: "Whoever is on the way reads the token and the answers, and can change both.",
  fix: "Use https.",
  bad: [server({ url: "http://mcp.example.com/mcp" })],
  good: [server({ url: "https://mcp.example.com/mcp" }), server({ url: "http://127.0.0.1:9000/mcp" })],
  find: function* (servers): Generator<SetSighting> {
    for (const { name, url } of servers)
      if (
        url !== undefined &&
        /^http:\/\//i.test(url) &&
        !/^http:\/\/(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::|\/|$)/i.test(url)
      )
        yield { server: name, where: "/url", evidence: url.replace(/\/\/[^/@]*@/, "//").split("?")[0] ?? "" };
  },
};
