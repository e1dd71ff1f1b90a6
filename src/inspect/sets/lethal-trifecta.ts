/** Sets of tools that read what is private, read what strangers write, and can send. */
import type { JsonObject } from "../../core/call.ts";
import { isObject, parametersOf, runsCommand, wordsOf } from "../parameters.ts";
import type { InspectedServer, SetRule, SetSighting } from "../set-rule.ts";

const tool = (name: string, description: string): JsonObject => ({
  name,
  description,
  inputSchema: { type: "object" },
});
const one = (...tools: readonly JsonObject[]): readonly InspectedServer[] => [{ name: "one", tools }];

export const lethalTrifecta: SetRule = {
  id: "lethal-trifecta",
  title: "can read private data, read strangers' text, and send",
  owasp: "MCP06",
  principle: 5,
  severity: "medium",
  confidence: "medium",
  why: "Text of a stranger can order the model to fetch what is private and to send it out: all three in one set is all that takes.",
  fix: "Serve two of the three to one role, or ask a person before anything is sent.",
  bad: [
    one(
      tool("read_inbox", "Reads mails that came in."),
      tool("get_customer", "Returns the customer's record."),
      tool("send_email", "Sends a mail to any address."),
    ),
  ],
  good: [
    one(tool("browser_cookies", "The cookies of the page."), tool("browser_click", "Clicks.")),
    one(tool("get_console_message", "A message of the page's console."), tool("navigate", "Opens a page.")),
    one(tool("get_customer", "Returns the customer's record."), tool("send_email", "Sends a mail to any address.")),
    one(tool("add", "Adds two numbers.")),
  ],
  find: function* (servers): Generator<SetSighting> {
    const found: Record<Part, string[]> = { private: [], strangers: [], sends: [] };
    for (const { name: server, tools } of servers)
      for (const definition of tools) {
        const name = typeof definition["name"] === "string" ? definition["name"] : "";
        for (const part of partsOf(name, definition)) found[part].push(servers.length > 1 ? `${server}/${name}` : name);
      }
    const [holds] = found.private;
    // A tool may be several of the three; three tools tell a reader more.
    const strangers = found.strangers.find((one) => one !== holds) ?? found.strangers[0];
    const sends = found.sends.find((one) => one !== holds && one !== strangers) ?? found.sends[0];
    if (holds !== undefined && strangers !== undefined && sends !== undefined)
      yield {
        server: servers.length === 1 ? servers[0]?.name : undefined,
        where: "/tools",
        evidence: `private: ${holds}; strangers' text: ${strangers}; sends: ${sends}`,
      };
  },
};

type Part = "private" | "strangers" | "sends";
const READS = /\b(?:get|read|list|search|find|fetch|query|load|open|show|view|export|lookup|look up)\b/;
const PRIVATE =
  /\b(?:customers?|users?|accounts?|contacts?|employees?|patients?|orders?|payments?|invoices?|files?|documents?|repositor(?:y|ies)|secrets?|credentials?|calendar|mails?|emails?|inbox|database|sql|(?<!console )messages?|notes?|records?|(?<!console )logs?)\b/;
/** Private without a verb: what a browser or a desktop holds of its user's sessions. */
const SESSION = /\b(?:cookies?|network requests?|storage state|local storage|session storage|clipboard)\b/;
const STRANGERS =
  /\b(?:inbox|mails?|emails?|issues?|pull requests?|comments?|reviews?|tickets?|web ?pages?|websites?|url|feeds?|posts?|tweets?|messages?|browser|navigate|crawl|scrape|web search|customer notes?|attachments?)\b/;
/** What a tool does is the first word of its name: `update_customer_email` sends nothing. */
const SENDS =
  /^(?:send|post|publish|upload|email|mail|reply|forward|share|notify|tweet|push|navigate|fetch|browse|http|webhook|(?:create|add) (?:issue|pull request|comment|gist|page|message))\b/;

function partsOf(name: string, definition: JsonObject): readonly Part[] {
  const words = wordsOf(name);
  const hints = definition["annotations"];
  const closed = isObject(hints) && hints["openWorldHint"] === false;
  const free = parametersOf(definition).some(
    ({ words: one, schema }) =>
      /(?:^| )(?:url|uri)$/.test(one) && schema["enum"] === undefined && schema["type"] !== "boolean",
  );
  // A command of one's own reads, fetches and sends.
  if (parametersOf(definition).some(runsCommand)) return ["private", "strangers", "sends"];
  const reads = READS.test(words);
  return [
    ...((reads && PRIVATE.test(words)) || SESSION.test(words) ? (["private"] as const) : []),
    ...(!closed && ((reads && STRANGERS.test(words)) || free) ? (["strangers"] as const) : []),
    ...(!closed && (SENDS.test(words) || free) ? (["sends"] as const) : []),
  ];
}
