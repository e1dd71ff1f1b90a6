/** What is known of packages: popular servers, those that were found malicious, and versions with a published weakness. Offline. */

/** How a command names what it runs. */
export interface PackageRef {
  readonly registry: "npm" | "pypi" | "docker";
  readonly name: string;
  /** As it is written: a version, a range, a tag, or nothing. */
  readonly version: string | undefined;
}

/** Servers that many people run, whose names others may imitate. */
export const POPULAR: Readonly<Record<PackageRef["registry"], readonly string[]>> = {
  npm: `@modelcontextprotocol/server-filesystem @modelcontextprotocol/server-github @modelcontextprotocol/server-memory
    @modelcontextprotocol/server-everything @modelcontextprotocol/server-slack @modelcontextprotocol/server-postgres
    @modelcontextprotocol/server-puppeteer @modelcontextprotocol/server-brave-search @modelcontextprotocol/server-google-maps
    @modelcontextprotocol/server-sequential-thinking @modelcontextprotocol/inspector @modelcontextprotocol/sdk @playwright/mcp
    @upstash/context7-mcp chrome-devtools-mcp figma-developer-mcp firecrawl-mcp mcp-remote @notionhq/notion-mcp-server
    @supabase/mcp-server-supabase @sentry/mcp-server @stripe/mcp @shopify/dev-mcp @elastic/mcp-server-elasticsearch
    @circleci/mcp-server-circleci @brightdata/mcp @perplexity-ai/mcp-server @postman/postman-mcp-server @zereight/mcp-gitlab
    @wonderwhy-er/desktop-commander @antv/mcp-server-chart @bytebase/dbhub @cyanheads/git-mcp-server @eslint/mcp mcp-mermaid
    mcp-server-kubernetes n8n-mcp nx-mcp tavily-mcp exa-mcp-server @mongodb-js/mongodb-mcp-server @azure/mcp @azure-devops/mcp
    @heroku/mcp-server @cloudflare/mcp-server-cloudflare @browserbasehq/mcp-server-browserbase @executeautomation/playwright-mcp-server
    @larksuiteoapi/lark-mcp argocd-mcp time-mcp mcp-fetch-server @openbnb/mcp-server-airbnb @apify/actors-mcp-server`.split(
    /\s+/,
  ),
  pypi: `mcp fastmcp mcp-server-fetch mcp-server-git mcp-server-time mcp-server-sqlite mcp-atlassian mcp-server-qdrant
    mcp-server-motherduck chroma-mcp blender-mcp duckduckgo-mcp-server serena basic-memory mcp-clickhouse mcp-server-docker
    arxiv-mcp-server postgres-mcp dbt-mcp workspace-mcp excel-mcp-server awslabs.core-mcp-server awslabs.aws-documentation-mcp-server`.split(
    /\s+/,
  ),
  docker: ["mcp/fetch", "mcp/filesystem", "mcp/github", "mcp/postgres", "mcp/playwright", "mcp/time", "mcp/sqlite"],
};

export interface Malicious {
  readonly name: string;
  readonly registry: PackageRef["registry"];
  /** From this version on; every one without. */
  readonly from?: string;
  readonly what: string;
  readonly source: string;
}

export const MALICIOUS: readonly Malicious[] = [
  {
    name: "postmark-mcp",
    registry: "npm",
    from: "1.0.16",
    what: "sends a blind copy of every mail to its author",
    source: "reported in September 2025",
  },
];

export interface Weakness {
  readonly name: string;
  readonly registry: PackageRef["registry"];
  /** The first version that does not have it. */
  readonly fixedIn: string;
  /** The first that has it; every earlier one without. */
  readonly since?: string;
  readonly ids: string;
  readonly what: string;
}

/** Published weaknesses of servers and of the SDKs under them. */
export const WEAKNESSES: readonly Weakness[] = [
  {
    name: "@modelcontextprotocol/sdk",
    registry: "npm",
    fixedIn: "1.24.0",
    ids: "CVE-2025-66414",
    what: "DNS rebinding protection is off",
  },
  {
    name: "@modelcontextprotocol/sdk",
    registry: "npm",
    fixedIn: "1.25.2",
    ids: "CVE-2026-0621",
    what: "a URI template takes exponential time",
  },
  {
    name: "@modelcontextprotocol/sdk",
    registry: "npm",
    since: "1.10.0",
    fixedIn: "1.26.0",
    ids: "CVE-2026-25536",
    what: "answers of one session can reach another",
  },
  { name: "mcp", registry: "pypi", fixedIn: "1.23.0", ids: "CVE-2025-66416", what: "DNS rebinding protection is off" },
  {
    name: "mcp",
    registry: "pypi",
    fixedIn: "1.27.2",
    ids: "CVE-2026-52869, CVE-2026-52870",
    what: "what belongs to one caller can be reached by another",
  },
  { name: "mcp", registry: "pypi", fixedIn: "1.28.1", ids: "CVE-2026-59950", what: "WebSockets take any Origin" },
  {
    name: "mcp-remote",
    registry: "npm",
    fixedIn: "0.1.16",
    ids: "CVE-2025-6514",
    what: "a server can run commands on the client's machine",
  },
  {
    name: "@modelcontextprotocol/inspector",
    registry: "npm",
    fixedIn: "0.14.1",
    ids: "CVE-2025-49596",
    what: "any web page can run commands",
  },
  {
    name: "@playwright/mcp",
    registry: "npm",
    fixedIn: "0.0.40",
    ids: "CVE-2025-9611",
    what: "DNS rebinding protection is off",
  },
  {
    name: "mcp-server-kubernetes",
    registry: "npm",
    fixedIn: "3.6.0",
    ids: "CVE-2026-46519",
    what: "tools that are not listed can be called",
  },
  {
    name: "figma-developer-mcp",
    registry: "npm",
    fixedIn: "0.6.3",
    ids: "CVE-2025-53967",
    what: "arguments reach a shell",
  },
  {
    name: "@modelcontextprotocol/server-filesystem",
    registry: "npm",
    fixedIn: "0.6.3",
    ids: "CVE-2025-53109, CVE-2025-53110",
    what: "paths outside the allowed folders can be reached",
  },
  {
    name: "@modelcontextprotocol/server-filesystem",
    registry: "npm",
    since: "2025.0.0",
    fixedIn: "2025.7.1",
    ids: "CVE-2025-53109, CVE-2025-53110",
    what: "paths outside the allowed folders can be reached",
  },
  {
    name: "mcp-server-git",
    registry: "pypi",
    fixedIn: "2026.1.14",
    // The first three may have been mended some releases earlier; by this one all four are.
    ids: "CVE-2025-68143, CVE-2025-68144, CVE-2025-68145, CVE-2026-27735",
    what: "paths and arguments are not confined",
  },
  {
    name: "mcp-grafana",
    registry: "pypi",
    fixedIn: "0.17.2",
    ids: "CVE-2026-15583",
    what: "a header sends the server's token anywhere",
  },
];

const RUNNERS: Readonly<Record<string, "npm" | "pypi">> = {
  npx: "npm",
  bunx: "npm",
  pnpx: "npm",
  uvx: "pypi",
  pipx: "pypi",
};
/** Options of runners that take the next word. */
const TAKES_VALUE =
  /^(?:-p|--package|--from|--with|--python|--registry|--index|--index-url|-e|--env|--env-file|-v|--volume|--mount|--network|--name|-w|--workdir|-u|--user|--entrypoint|--platform|--add-host|--memory)$/;

/** The package that a command runs, or undefined for a program of one's own. */
export function packageOf(command: readonly string[]): PackageRef | undefined {
  const [program = "", ...words] = command;
  const runner = program.replace(/^.*[\\/]/, "").replace(/\.(?:cmd|exe)$/i, "");
  if (runner === "docker" || runner === "podman") return imageOf(words);
  const [first = "", second = ""] = words;
  if ((runner === "npm" || runner === "pnpm" || runner === "yarn") && /^(?:exec|x|dlx)$/.test(first))
    return refOf("npm", words.slice(1));
  if (runner === "bun" && first === "x") return refOf("npm", words.slice(1));
  if (runner === "uv" && first === "tool" && second === "run") return refOf("pypi", words.slice(2));
  if (runner === "pipx" && first === "run") return refOf("pypi", words.slice(1));
  const registry = Object.hasOwn(RUNNERS, runner) ? RUNNERS[runner] : undefined;
  return registry === undefined ? undefined : refOf(registry, words);
}

function refOf(registry: "npm" | "pypi", words: readonly string[]): PackageRef | undefined {
  const named = words.findIndex((word) => word === "--from" || word === "--package" || word === "-p");
  const word = named >= 0 ? words[named + 1] : operand(words);
  if (word === undefined || /^(?:[./~]|https?:|git\+|file:)/.test(word)) return undefined;
  const match =
    registry === "npm"
      ? /^((?:@[^/@]+\/)?[^@/]+)(?:@(.+))?$/.exec(word)
      : /^([\w.-]+)(?:\[[^\]]*\])?(?:(?:==|@)(.+)|([<>~!].+))?$/.exec(word);
  return match === null ? undefined : { registry, name: match[1] ?? word, version: match[2] ?? match[3] };
}

function imageOf(words: readonly string[]): PackageRef | undefined {
  const run = words.indexOf("run");
  const image = run < 0 ? undefined : operand(words.slice(run + 1));
  const match = image === undefined ? null : /^(.+?)(?:@(sha256:[0-9a-f]+)|:([\w.-]+))?$/.exec(image);
  return match === null ? undefined : { registry: "docker", name: match[1] ?? "", version: match[2] ?? match[3] };
}

function operand(words: readonly string[]): string | undefined {
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    if (TAKES_VALUE.test(word)) at++;
    else if (!word.startsWith("-")) return word;
  }
  return undefined;
}

/** An exact version; for an image its digest, or a tag that is a version. */
export function pinned({ version, registry }: PackageRef): boolean {
  if (version === undefined) return false;
  return registry === "docker"
    ? /^sha256:|^v?\d+\.\d+/.test(version)
    : /^v?\d+(?:\.\d+){1,3}(?:[-+.]?[\w.+-]+)?$/.test(version);
}

/** Less than zero when `one` is the earlier version. Only numbers count; a pre-release comes before its release. */
export function compareVersions(one: string, other: string): number {
  const parts = (version: string) => (version.replace(/^v/, "").split(/[-+]/)[0] ?? "").split(".").map(Number);
  const [a, b] = [parts(one), parts(other)];
  for (let at = 0; at < Math.max(a.length, b.length); at++) {
    const difference = (a[at] ?? 0) - (b[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return Number(other.includes("-")) - Number(one.includes("-"));
}

/** Edits (insert, remove, replace, swap of neighbours) from one word to the other; more than `most` counts as `most + 1`. */
export function editDistance(one: string, other: string, most: number): number {
  if (Math.abs(one.length - other.length) > most) return most + 1;
  let before: number[] = [];
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let i = 1; i <= one.length; i++) {
    const next = [i];
    for (let j = 1; j <= other.length; j++) {
      const same = one[i - 1] === other[j - 1] ? 0 : 1;
      let best = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1])
        best = Math.min(best, (before[j - 2] ?? 0) + 1);
      next.push(best);
    }
    before = row;
    row = next;
  }
  return Math.min(row[other.length] ?? 0, most + 1);
}
