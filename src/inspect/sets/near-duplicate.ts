/** Tools of two servers that a model could take for one another. */
import { wordsOf } from "../parameters.ts";
import type { InspectedServer, SetRule, SetSighting } from "../set-rule.ts";

const two = (one: string, other: string): readonly InspectedServer[] => [
  { name: "one", tools: [{ name: one, description: "Sends a message to a channel of the team's chat." }] },
  { name: "two", tools: [{ name: other, description: "Adds an entry to the calendar of one person." }] },
];

export const nearDuplicate: SetRule = {
  id: "near-duplicate",
  title: "has a tool that another server has, too",
  owasp: "MCP03",
  principle: 1,
  severity: "medium",
  confidence: "medium",
  why: "A model that sees two of a kind may take the wrong one; a server that shadows another's tool wants just that.",
  fix: "Serve one of them, or give each a name that says whose it is.",
  bad: [two("send_message", "sendMessage"), two("send_message", "send_messages")],
  good: [two("send_message", "create_event")],
  find: function* (servers): Generator<SetSighting> {
    const seen = new Map<string, { readonly server: string; readonly name: string }>();
    for (const { name: server, tools } of servers)
      for (const [index, tool] of tools.entries()) {
        const name = typeof tool["name"] === "string" ? tool["name"] : "";
        const description = typeof tool["description"] === "string" ? wordsOf(tool["description"]) : "";
        const keys = [
          `name ${wordsOf(name).replaceAll(" ", "").replace(/s$/, "")}`,
          ...(description.length >= 40 ? [`text ${description}`] : []),
        ];
        const other = keys.map((key) => seen.get(key)).find((one) => one !== undefined && one.server !== server);
        if (other !== undefined && name !== "")
          yield { server, where: `/tools/${index}`, evidence: `${name}, and ${other.name} of ${other.server}` };
        for (const key of keys) if (!seen.has(key)) seen.set(key, { server, name });
      }
  },
};
