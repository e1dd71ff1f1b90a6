/**
 * The official suite at servers of `drawbridge-mcp/author`, inside the gateway and alone over stdio (behind a gateway that adds nothing but
 * HTTP): the one that `drawbridge new` writes, and one that has all the tools, resources and prompts of the suite that an authored server
 * can have. What the suite wants beyond that is listed, each with its reason, so that a scenario nobody thought of fails.
 */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { filesOf } from "../../src/cli/new.ts";
import { clientAt } from "../author/clients.ts";
import { type World, world } from "../e2e/world.ts";
import { root } from "../house/sources.ts";
import { requiredOfServers, testServer } from "./suite.ts";
import { type TokenProxy, tokenProxy } from "./token-proxy.ts";

/** Scenarios that cannot be passed, by what they want. */
interface Beyond {
  readonly scenarios: RegExp;
  readonly because: string;
}
/** The same of single checks. */
interface BeyondCheck {
  readonly checks: RegExp;
  readonly because: string;
}

/** Of any authored server. */
const NEVER: readonly Beyond[] = [
  { scenarios: /^tools-call-(image|audio|embedded-resource|mixed-content)$/, because: "answers are declared objects" },
  { scenarios: /^prompts-get-(embedded-resource|with-image)$/, because: "prompts are texts" },
  { scenarios: /^resources-read-binary$/, because: "resources are read as JSON" },
  { scenarios: /^resources-(un)?subscribe$/, because: "no subscriptions are declared" },
  { scenarios: /^completion-complete$/, because: "no completions are declared" },
  { scenarios: /^tools-call-with-logging$/, because: "logs are the operator's" },
  { scenarios: /^(tools-call|input-required-result-basic)-(sampling|list-roots)$/, because: "only forms are asked" },
  { scenarios: /^input-required-result-(multiple-input-requests|capability-check)$/, because: "only forms are asked" },
  { scenarios: /^elicitation-sep1330-enums$/, because: "wants titled and many choices in a form" },
  { scenarios: /^json-schema-2020-12$/, because: "wants an open schema with references" },
  { scenarios: /^http-custom-header-server-validation$/, because: "no argument is mirrored in a header" },
  { scenarios: /^tasks-/, because: "no tasks are declared" },
];
const NEVER_CHECKS: readonly BeyondCheck[] = [
  { checks: /^sep-2575-server-rejects-undeclared-capability$/, because: "the tool is to want sampling" },
  { checks: /-list-changed-on-subscription$/, because: "SHOULD, and what is declared does not change" },
];
/** Of a server that has none of the suite's own tools, resources and prompts. */
const FIXTURES: readonly Beyond[] = [
  { scenarios: /^(tools-call|elicitation)-/, because: "calls tools of the suite" },
  { scenarios: /^input-required-result-(?!unsupported-methods|validate-input)/, because: "calls tools of the suite" },
  { scenarios: /^resources-(templates-)?read/, because: "reads resources of the suite" },
  { scenarios: /^prompts-get-/, because: "gets prompts of the suite" },
];
const FIXTURE_CHECKS: readonly BeyondCheck[] = [
  { checks: /^sep-2575-missing-capability-http-400$/, because: "calls test_missing_capability" },
  { checks: /^sep-2575-http-server-no-independent-requests-on-stream$/, because: "calls test_streaming_elicitation" },
  { checks: /^sep-2575-server-no-log-without-loglevel$/, because: "calls test_logging_tool" },
];
/** Over stdio the gateway speaks 2025-11-25 to it, which has no error for a client that lacks something. */
const IN_WORDS: BeyondCheck = { checks: /^sep-2575-missing-capability-http-400$/, because: "it is told in words" };

const place = mkdtempSync(join(tmpdir(), "drawbridge-authored-"));
afterAll(() => rmSync(place, { recursive: true, force: true }));
for (const [file, text] of Object.entries(filesOf("shelf", "0.1.0"))) {
  mkdirSync(dirname(join(place, file)), { recursive: true });
  writeFileSync(join(place, file), text);
}
mkdirSync(join(place, "node_modules"));
symlinkSync(root, join(place, "node_modules/drawbridge-mcp"), "junction");
symlinkSync(join(root, "node_modules/zod"), join(place, "node_modules/zod"), "junction");

const SERVERS = {
  "the server of `drawbridge new`": {
    file: join(place, "server.ts"),
    beyond: [...NEVER, ...FIXTURES],
    beyondChecks: [...NEVER_CHECKS, ...FIXTURE_CHECKS],
    passes: {
      "2025-11-25": [
        "dns-rebinding-protection",
        "logging-set-level",
        "ping",
        "prompts-list",
        "resources-list",
        "server-initialize",
        "server-session-lifecycle",
        "server-sse-multiple-streams",
        "server-sse-polling",
        "tools-list",
      ],
      "2026-07-28": [
        "caching",
        "dns-rebinding-protection",
        "http-header-validation",
        "input-required-result-unsupported-methods",
        "input-required-result-validate-input",
        "prompts-list",
        "resources-list",
        "sep-2164-resource-not-found",
        "server-sse-multiple-streams",
        "server-stateless",
        "tools-list",
      ],
    },
  },
  "a server with all that the suite can want of it": {
    file: join(import.meta.dirname, "authored/server.ts"),
    beyond: NEVER,
    beyondChecks: NEVER_CHECKS,
    passes: {
      "2025-11-25": [
        "dns-rebinding-protection",
        "elicitation-sep1034-defaults",
        "logging-set-level",
        "ping",
        "prompts-get-simple",
        "prompts-get-with-args",
        "prompts-list",
        "resources-list",
        "resources-read-text",
        "resources-templates-read",
        "server-initialize",
        "server-session-lifecycle",
        "server-sse-multiple-streams",
        "server-sse-polling",
        "tools-call-elicitation",
        "tools-call-error",
        "tools-call-simple-text",
        "tools-call-with-progress",
        "tools-list",
      ],
      "2026-07-28": [
        "caching",
        "dns-rebinding-protection",
        "http-header-validation",
        "input-required-result-basic-elicitation",
        "input-required-result-ignore-extra-params",
        "input-required-result-missing-input-response",
        "input-required-result-multi-round",
        "input-required-result-non-tool-request",
        "input-required-result-request-state",
        "input-required-result-result-type",
        "input-required-result-tampered-state",
        "input-required-result-unsupported-methods",
        "input-required-result-validate-input",
        "prompts-get-simple",
        "prompts-get-with-args",
        "prompts-list",
        "resources-list",
        "resources-read-text",
        "resources-templates-read",
        "sep-2164-resource-not-found",
        "server-sse-multiple-streams",
        "server-stateless",
        "tools-call-error",
        "tools-call-simple-text",
        "tools-call-with-progress",
        "tools-list",
      ],
    },
  },
} as const;
/** Nothing is to be seen there: the suite can drop a stream and come back only where one was begun. */
const EMPTY: ReadonlySet<string> = new Set(["server-sse-polling"]);
const WAYS = ["inside the gateway", "alone over stdio"] as const;

const all = Object.entries(SERVERS).flatMap(([name, under]) => WAYS.map((way) => [name, way, under] as const));
describe.each(all)("%s, %s", (_, way, { file, passes, beyond, beyondChecks }) => {
  let one: World;
  let proxy: TokenProxy;
  beforeAll(async () => {
    // The suite leaves questions unanswered; each keeps a process of its own for a while.
    const server =
      way === "inside the gateway"
        ? { module: file }
        : { command: [process.execPath, file], cwd: dirname(file), processes: { max: 16 } };
    one = await world({
      servers: { shelf: server },
      roles: { owner: { may: ["*"] } },
      assign: [{ role: "owner", group: "owner" }],
    });
    const token = (await one.tokens()).access_token;
    proxy = await tokenProxy(one.url, token);
    // Clients that can be asked have processes of their own; the suite waits 600 ms for the first one's first word.
    const asked = await clientAt({ url: one.url, token }, "modern", () => ({ action: "decline" }));
    for (const name of ["test_simple_text", "test_elicitation"])
      await asked.callTool({ name, arguments: {} }).catch(() => {}); // The server of `drawbridge new` has neither.
    await asked.close();
  }, 60_000);
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await one?.[Symbol.asyncDispose]();
  });

  test.each(["2025-11-25", "2026-07-28"] as const)(
    "passes what %s wants of what it declares",
    async (revision) => {
      const { scored, rest } = requiredOfServers(revision);
      const wanted = [...scored, ...rest].filter((name) => beyond.every(({ scenarios }) => !scenarios.test(name)));
      expect(wanted.toSorted()).toEqual(passes[revision]);
      const { scenarios, failing } = await testServer(proxy.url, revision);
      const excused = way === "inside the gateway" ? beyondChecks : [...beyondChecks, IN_WORDS];
      const failed = failing.filter(
        ({ scenario, check }) => wanted.includes(scenario) && excused.every(({ checks }) => !checks.test(check)),
      );
      expect(failed).toEqual([]);
      // Each was tried, and something of it passed.
      for (const name of wanted.filter((name) => !EMPTY.has(name)))
        expect(scenarios.get(name)?.passed, name).toBeGreaterThan(0);
    },
    180_000,
  );
});
