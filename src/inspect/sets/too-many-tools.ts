/** Lists that are too long for a model to choose from. */
import type { InspectedServer, SetRule, SetSighting } from "../set-rule.ts";

const many = (count: number): readonly InspectedServer[] => [
  {
    name: "one",
    tools: Array.from({ length: count }, (_, index) => ({ name: `tool_${index}`, description: "Does one thing." })),
  },
];

export const tooManyTools: SetRule = {
  id: "too-many-tools",
  title: "lists more tools than a model can choose from",
  owasp: "MCP02",
  principle: 1,
  severity: "medium",
  confidence: "high",
  why: "Each tool is surface to attack and text in every request; from some dozens on models choose worse.",
  fix: "Serve the tools that a task needs, and join small ones into tools for an outcome.",
  bad: [many(60)],
  good: [many(12)],
  find: function* (servers): Generator<SetSighting> {
    for (const { name, tools } of servers) {
      const kilobytes = Math.round(JSON.stringify(tools).length / 1024);
      const severity = LIMITS.find(([count, size]) => tools.length > count || kilobytes > size)?.[2];
      if (severity !== undefined)
        yield {
          server: name,
          where: "/tools",
          severity,
          evidence: `${tools.length} tools, ${kilobytes} kB for the model to read`,
        };
    }
  },
};

/** Tools, kilobytes, and what one more is. About 4,000 characters are 1,000 tokens. */
const LIMITS = [
  [50, 100, "high"],
  [30, 60, "medium"],
  [20, 40, "low"],
] as const;
