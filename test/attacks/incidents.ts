/**
 * What happened to MCP servers, gateways and clients in 2025 and 2026, and the tests that show that it does not happen here. A test is
 * named by its file below `test/` and its title as the source has it; those in `attacks/incidents` and `attacks/access-control` carry
 * the incident's name themselves. `docs/threat-model.md` has the same list.
 */
export interface Incident {
  /** As it is known: a CVE, an advisory, or who and what. */
  readonly name: string;
  readonly happened: string;
  /** `file: title`. Empty where it cannot happen to a gateway, which `elsewhere` explains. */
  readonly tests: readonly string[];
  readonly elsewhere?: string;
}

export const incidents: readonly Incident[] = [
  {
    name: "WhatsApp MCP (Invariant)",
    happened: "A server changed its description after it was trusted and stole chats",
    tests: ["attacks/rug-pulls: without a lockfile, against what was first seen", "attacks/rug-pulls: with a lockfile"],
  },
  {
    name: "CVE-2025-6514 (mcp-remote)",
    happened: "A server's authorization_endpoint reached a shell",
    tests: [
      "attacks/incidents: a client's words and a server's addresses never reach a shell",
      "attacks/upstream-authorization: an authorization endpoint that runs something",
    ],
  },
  {
    name: "CVE-2025-49596, CVE-2025-58444 (MCP Inspector)",
    happened: "No sign-in on a local proxy that any page could reach; a server's URL ran as a script",
    tests: [
      "attacks/incidents: a page of another site gets nothing from a gateway with settings of its own making",
      "attacks/oauth-pages: show a hostile client's words as words",
    ],
  },
  {
    name: "GitHub MCP (Invariant)",
    happened: "Text of an issue made the agent publish private repositories",
    tests: ["cli/policy: warning: the lethal trifecta"],
  },
  {
    name: "Asana",
    happened: "Rows of other tenants were returned",
    tests: [
      "attacks/isolation: a user's secret is in the user's own process, and in no log, state, error or process of another",
      "attacks/access-control: two users of a server that keeps them apart never meet in one process, however their calls mix",
    ],
  },
  {
    name: "Supabase and Cursor",
    happened: "A ticket's text was obeyed by an agent whose role could do everything",
    tests: ["attacks/incidents: a role that reads calls nothing that writes, whatever the server says of its tool"],
  },
  {
    name: "postmark-mcp 1.0.16",
    happened: "One new line sent a copy of every mail elsewhere",
    tests: [
      "attacks/rug-pulls: with a lockfile",
      "attacks/sandbox: it reaches the host and port on its list by http and through a tunnel, and nothing else",
    ],
  },
  {
    name: "CVE-2025-53109, CVE-2025-53110 (server-filesystem)",
    happened: "Links and look-alike prefixes led out of the folder",
    tests: ["attacks/sandbox: it changes what it was given to write, and nothing beside it"],
  },
  {
    name: "CVE-2025-53967 (Figma MCP)",
    happened: "An argument became part of a shell command",
    tests: ["attacks/incidents: a client's words and a server's addresses never reach a shell"],
  },
  {
    name: "CVE-2025-54136 MCPoison, CVE-2025-54135 CurXecute",
    happened: "What had been approved was replaced under its name",
    tests: ["attacks/rug-pulls: with a lockfile", "attacks/rug-pulls: what comes back as it was is served again"],
  },
  {
    name: "Smithery",
    happened: "A path with `..` led to the credentials of all customers",
    tests: ["attacks/isolation: any subject is one name of a file, and different subjects are different ones"],
  },
  {
    name: "CVE-2025-34072 (Slack MCP)",
    happened: "Link previews carried data out",
    tests: [],
    elsewhere:
      "Previews are made by the service a message is posted to; a contract can fix or narrow the arguments of such a tool.",
  },
  {
    name: "CVE-2025-6515 (oatpp-mcp)",
    happened: "A session's id was a pointer and could be guessed",
    tests: [
      "attacks/incidents: the ids of sessions have 128 random bits at least, and belong to who began them",
      "attacks/gateway: looks like one that is not there, whatever is done with it; its owner goes on",
    ],
  },
  {
    name: "CVE-2025-66414, CVE-2025-66416, CVE-2025-9611",
    happened: "SDKs did not look at Host and Origin unless asked to",
    tests: ["attacks/incidents: a page of another site gets nothing from a gateway with settings of its own making"],
  },
  {
    name: "CVE-2026-0621 (TypeScript SDK)",
    happened: "A URI made the expression of a template explode",
    tests: ["attacks/incidents: a URI that fits no template is answered at once, however long it is"],
  },
  {
    name: "CVE-2026-25536 (TypeScript SDK)",
    happened: "A shared transport gave one caller's answers to another",
    tests: [
      "attacks/incidents: of several hundred calls at once, in both eras, each gets its own answer",
      "upstream/isolated: in fifty users' interleaved calls everybody gets their own answers, progress and messages",
    ],
  },
  {
    name: "CVE-2026-27896 (Go SDK)",
    happened: "Keys in other letters were read by one parser and not by the other",
    tests: [
      "attacks/gateway: a message that could be read in two ways",
      "attacks/gateway: what is sent on is what was checked, not what came in",
    ],
  },
  {
    name: "CVE-2026-52870 (Python SDK)",
    happened: "Any client could list and read the tasks of others",
    tests: ["attacks/tasks: another client's task is answered as one that never was, to the letter"],
  },
  {
    name: "CVE-2025-68143, CVE-2025-68144, CVE-2025-68145 (mcp-server-git)",
    happened: "Arguments were taken for options, paths led out of the repository",
    tests: ["attacks/sandbox: it changes what it was given to write, and nothing beside it"],
    elsewhere: "The gateway makes no command of arguments; a server that does can be held in its sandbox.",
  },
  {
    name: "CVE-2026-46519 (mcp-server-kubernetes)",
    happened: "The policy filtered the list and not the call",
    tests: [
      "attacks/access-control: CVE-2026-46519: a policy that filtered the list and not the call",
      "policy/gateway: lists, calls, prompts, resources, completions, subscriptions and tasks are decided as the policy says, in both eras",
    ],
  },
  {
    name: "CVE-2026-27124 (FastMCP)",
    happened: "Consent was not bound to the browser that gave it",
    tests: ["attacks/oauth-pages: is bound to the browser that began it"],
  },
  {
    name: "GHSA-6x8h-498w-gv8c (FastMCP)",
    happened: "A remembered consent let another site have a token",
    tests: [
      "attacks/oauth-pages: is asked for again by every native client, and by a web client that another site sends",
    ],
  },
  {
    name: "FastMCP #2056",
    happened: "Anybody could register, and nobody was asked for consent",
    tests: [
      "attacks/oauth-authorize: is off unless switched on",
      "attacks/oauth-pages: is kept on our side: no cookie stands for it, before or after",
    ],
  },
  {
    name: "CVE-2025-4143, CVE-2025-4144 (workers-oauth-provider)",
    happened: "Redirects were not compared, PKCE could be left out, schemes were hidden by capitals",
    tests: [
      "attacks/oauth-authorize: a redirect to %j is refused without a redirect",
      "attacks/oauth-authorize: refuses the redirects %j",
      "attacks/oauth-authorize: PKCE",
    ],
  },
  {
    name: "CVE-2026-31944 (LibreChat)",
    happened: "Who opened a link gave an attacker's account their tokens",
    tests: [
      "attacks/upstream-authorization: who was sent somebody else's half-finished consent finishes nothing, and nobody is connected",
    ],
  },
  {
    name: "CVE-2026-54030 (LibreChat)",
    happened: "The resource in a server's metadata was not compared",
    tests: ["attacks/upstream-authorization: of a neighbour's path"],
  },
  {
    name: "CVE-2026-32625, CVE-2026-31951 (LibreChat)",
    happened: "A user's text with ${NAME} in it was filled in from the environment",
    tests: ["attacks/incidents: what clients write is filled in from no environment and from no secret"],
  },
  {
    name: "CVE-2026-31945 (LibreChat)",
    happened: "A name that changed its address led inside",
    tests: [
      "attacks/client-id-urls: between being checked and being connected to is asked only once: the address that was checked is reached",
    ],
  },
  {
    name: "CVE-2026-42449 (n8n-mcp)",
    happened: "An IPv4 address passed the check in the form of IPv6",
    tests: ["attacks/oauth-client-documents: is refused with no packet sent, in every spelling of an address"],
  },
  {
    name: "CVE-2026-41495, CVE-2026-42282 (n8n-mcp)",
    happened: "Tokens and arguments were logged, also of refused requests",
    tests: ["attacks/incidents: no token and no argument is in the log, of served and of refused requests"],
  },
  {
    name: "CVE-2026-54052 (n8n-mcp)",
    happened: "Tenants read each other's backups",
    tests: ["attacks/isolation: the secret of a user is found by the name of that user alone"],
  },
  {
    name: "CVE-2026-15583 (mcp-grafana)",
    happened: "A header of the client said where the server's token went",
    tests: [
      "attacks/token-passthrough: reaches no server through the headers of a client that wants it to: they are not handed on",
    ],
  },
  {
    name: "CVE-2026-53840 (OpenClaw)",
    happened: "A redirect took headers with keys to another origin",
    tests: ["upstream/http-faults: a redirect takes no header, and so no key, to another server"],
  },
  {
    name: "CVE-2026-42271, CVE-2026-30623 (LiteLLM)",
    happened: "Whoever had a key could have a command of theirs started",
    tests: [
      "attacks/incidents: nobody who asks over HTTP can have a command started or a server added",
      "attacks/access-control: what only owners may is not there for others, with whatever token",
    ],
  },
  {
    name: "CVE-2026-59822 (LiteLLM)",
    happened: "A bad Authorization header became an empty identity",
    tests: ["attacks/access-control: CVE-2026-59822: a bad Authorization header fell through to an empty identity"],
  },
  {
    name: "CVE-2026-54446 (netlicensing-mcp)",
    happened: "Who had no key used the operator's",
    tests: ["attacks/token-passthrough: is never replaced by the gateway's own when the caller has none any more"],
  },
  {
    name: "CVE-2026-46701 (Network-AI)",
    happened: "An empty default secret, and every origin allowed",
    tests: ["attacks/incidents: an empty secret is none, and no origin is allowed that nobody named"],
  },
  {
    name: "CVE-2026-8719 (WP AI Engine)",
    happened: "Any valid token was an administrator's",
    tests: ["attacks/access-control: CVE-2026-8719: any valid token was an administrator's"],
  },
  {
    name: "CVE-2026-44118 (OpenClaw)",
    happened: "The owner was whoever a header said",
    tests: ["attacks/access-control: CVE-2026-44118: who the owner is was read from a request header"],
  },
  {
    name: "GHSA-g53w-w6mj-hrpp (Kuadrant)",
    happened: "A control header skipped the check and chose the server",
    tests: ["attacks/access-control: GHSA-g53w-w6mj-hrpp: control headers skipped the check and chose the server"],
  },
  {
    name: "context-forge #2055, #2712",
    happened: "Users shared a pool of sessions; one path asked for no token",
    tests: [
      "attacks/access-control: context-forge #2055: a pool of sessions was shared by its users",
      "attacks/incidents: nothing of MCP is served without a token, at whatever path and by whatever method",
    ],
  },
  {
    name: "CVE-2026-49257 (mcp-pinot), CVE-2026-33032 (nginx-ui)",
    happened: "The MCP endpoint asked nobody who they were",
    tests: ["attacks/incidents: nothing of MCP is served without a token, at whatever path and by whatever method"],
  },
  {
    name: "CVE-2026-26118 (Azure MCP)",
    happened: "A tool fetched addresses of the cloud's own network",
    tests: [
      "attacks/incidents: an address in a call is fetched by nobody here",
      "attacks/sandbox: it reaches no address at all: metadata services, private and public networks, IPv6",
    ],
  },
  {
    name: "SANDWORM_MODE",
    happened: "Packages with look-alike names added servers to the settings of clients",
    tests: [],
    elsewhere:
      "Settings of clients are not the gateway's; its own names each command, and a new one counts after the operator reloads.",
  },
  {
    name: "Scans of 2025 and 2026",
    happened: "Thousands of servers were open to the internet",
    tests: ["attacks/incidents: without a word in the settings it listens on this machine alone"],
  },
];
