/**
 * One version of the developed server, in a process of its own with the gateway in front of it: whatever a module does when it is loaded,
 * and however it hangs or ends, the versions before and after it do not notice. Started by `versions.ts`; it ends with whoever started it.
 */
import { subscribe } from "node:diagnostics_channel";
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import { personalKeysOf } from "../../audit/evidence.ts";
import { searchRecords } from "../../audit/search.ts";
import { check } from "../../check/check.ts";
import type { JsonObject } from "../../core/call.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { type RunningGateway, startGateway } from "../../gateway/gateway.ts";
import { furtherScopes } from "../../policy/step-up.ts";
import { memoryStore } from "../../store/memory/memory.ts";
import type { Store } from "../../store/ports.ts";
import type { Upstream } from "../../upstream/upstream.ts";
import { setUp } from "../imported-servers.ts";
import type { Evidence, FromVersion, Grading, Handled, IssuerPlace, Question, Subject, ToVersion } from "./messages.ts";
import { type DevSettings, devSettings } from "./settings.ts";

/** What handlers said is kept of so many calls. */
const MAX_CALLS = 200;
const MAX_HANDLED = 50;
const MAX_TEXT = 200_000;
const END_MS = 7_000;
const SOURCES = `${resolve(import.meta.dirname, "../..")}${sep}`;
const SCOPES = [
  { scope: "mcp:read", title: "Read lists, resources and prompts" },
  { scope: "mcp:call", title: "Call tools" },
];

interface Running {
  readonly gateway: RunningGateway;
  readonly store: Store;
  readonly dev: DevSettings;
}

const files = new Set<string>();
const handled = new Map<string, Handled[]>();
let running: Running | undefined;
/** Where an import leads to nothing, for the message that says only what is missing. */
let astray = "";

// Ctrl-C reaches the whole group of the terminal; when we end, whoever started us says.
process.on("SIGINT", () => {});
process.on("disconnect", () => void end());
process.on("message", (message) => void heard(message as ToVersion));
registerHooks({
  resolve(specifier, context, next) {
    try {
      return next(specifier, context);
    } catch (thrown) {
      const { parentURL } = context;
      if (/^\.{1,2}\//.test(specifier) && parentURL?.startsWith("file:") === true) {
        files.add(fileURLToPath(new URL(specifier, parentURL)));
        astray = placeOfImport(specifier, fileURLToPath(parentURL));
      }
      throw thrown;
    }
  },
  load(url, context, next) {
    if (url.startsWith("file:")) {
      const file = fileURLToPath(url.replace(/[?#].*$/, ""));
      if (!file.startsWith(SOURCES) && !file.includes(`${sep}node_modules${sep}`)) noted(file);
    }
    return next(url, context);
  },
});
subscribe("drawbridge-mcp/author/handled", (message) => {
  const { trace, value, thrown } = message as { trace?: { traceId: string }; value?: unknown; thrown?: unknown };
  if (trace === undefined) return;
  const text = thrown === undefined ? textOf(value) : thrown instanceof Error ? (thrown.stack ?? "") : textOf(thrown);
  remember(trace.traceId, { from: "handler", threw: thrown !== undefined, text });
});
say({ kind: "warm" });

async function heard(message: ToVersion): Promise<void> {
  if (message.kind === "start") await start(message.subject, message.issuer, message.logLevel);
  else if (message.kind === "ask") {
    const { id } = message;
    const answer = await answerTo(message.about).catch(() => undefined);
    say({ kind: "answer", id, answer });
  } else await end();
}

/** Lets calls finish, and ends the servers that were started. A handler that never gives way is ended by whoever started us. */
async function end(): Promise<never> {
  setTimeout(() => process.exit(1), END_MS).unref();
  await running?.gateway.close().catch(() => {});
  process.exit(0);
}

async function start(subject: Subject, issuer: IssuerPlace, logLevel: string): Promise<void> {
  if ("file" in subject) noted(subject.file);
  try {
    const environment = process.env;
    const dev = await devSettings(subject, issuer, logLevel, environment);
    const { loaded, roles, name } = dev;
    const store = memoryStore();
    const gateway = await startGateway({
      settings: loaded,
      // Nothing is sent to collectors that the shell knows of.
      environment: Object.fromEntries(Object.entries(environment).filter(([key]) => !key.startsWith("OTEL_"))),
      store,
      around: observed,
    });
    await gateway.ready;
    running = { gateway, store, dev };
    flush();
    const { stepUp } = loaded.settings;
    say({
      kind: "ready",
      offer: {
        url: gateway.url,
        name,
        roles,
        scopes: [...SCOPES, ...furtherScopes(stepUp).map(({ scope, title }) => ({ scope, title }))],
        servers: gateway.servers(),
        withheld: gateway.withheld().map(({ kind, name: what, reason }) => ({ kind, name: what, reason })),
        warnings: loaded.warnings,
      },
    });
  } catch (thrown) {
    const { message, detail } = DrawbridgeError.from(thrown);
    const words = thrown instanceof DrawbridgeError || detail === undefined ? message : detail;
    const where = /Cannot find module/.test(words) && astray !== "" ? `\n${astray}` : "";
    flush();
    say({ kind: "failed", problem: `${words}${where}` });
  }
}

/** What another server answered, before anything is taken out of it. Of a module its handlers tell more. */
function observed(upstream: Upstream): Upstream {
  return {
    ...upstream,
    async send(permitted, replies, signal) {
      const { traceId } = permitted.call.trace;
      const outcome = await upstream.send(permitted, replies, signal);
      const known = handled.get(traceId)?.some(({ from }) => from === "handler") === true;
      if (!known)
        remember(traceId, {
          from: "server",
          threw: outcome.kind === "error",
          text: cut(outcome.kind === "error" ? outcome.message : outcome.result),
        });
      return outcome;
    },
  };
}

async function answerTo(question: Question): Promise<Evidence | Grading | undefined> {
  if (running === undefined) return undefined;
  return question.about === "evidence" ? evidenceOf(question.traceId, running) : gradeOf(question.tools, running);
}

async function evidenceOf(traceId: string, { store, dev }: Running): Promise<Evidence> {
  const encryption = dev.loaded.settings.tokens.keyEncryptionSecret;
  const keys = personalKeysOf({ store, encryption });
  const found = await searchRecords(store.audit, { traceId, limit: MAX_HANDLED }, keys);
  return {
    handled: handled.get(traceId) ?? [],
    records: found.map(({ sequence, record }) => ({ sequence, ...record }) as unknown as JsonObject),
  };
}

/** As `drawbridge check` would grade it, by what clients are served. */
async function gradeOf(tools: readonly JsonObject[], { gateway, dev }: Running): Promise<Grading | undefined> {
  const { servers } = dev.loaded.settings;
  const targets = gateway.servers().map(({ name, tools: names }) => {
    const mine = tools.filter((tool) => names.includes(String(tool["name"])));
    return setUp(name, servers[name] ?? {}, mine);
  });
  const report = await check({ name: dev.name, servers: targets });
  if (report.grades === undefined) return undefined;
  const told = (tool: string | undefined, found: (typeof report.tools)[number]["findings"]) =>
    found.map(({ rule, severity, why, fix }) => ({ tool, rule, severity, why, fix }));
  return {
    grades: report.grades,
    findings: [
      ...report.servers.flatMap(({ findings }) => told(undefined, findings)),
      ...report.tools.flatMap(({ name, findings }) => told(name, findings)),
    ],
  };
}

function remember(traceId: string, one: Handled): void {
  const known = handled.get(traceId) ?? [];
  if (known.length < MAX_HANDLED) known.push(one);
  handled.delete(traceId);
  handled.set(traceId, known);
  if (handled.size > MAX_CALLS) handled.delete(handled.keys().next().value ?? "");
}

/** Imports that come during a call, too. */
function noted(file: string): void {
  if (files.has(file)) return;
  files.add(file);
  if (running !== undefined) flush();
}

function flush(): void {
  say({ kind: "files", files: [...files] });
}

function say(message: FromVersion): void {
  // Nobody is there any more: then this process ends by itself.
  process.send?.(message, undefined, undefined, () => {});
}

function textOf(value: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value, undefined, 2);
  } catch {
    // A cycle, a bigint: shown as it prints.
  }
  return cut(text ?? inspect(value, { depth: 6 }));
}

const cut = (text: string) =>
  text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT)}\n… (${text.length} characters)`;

/** `file:line` of an import that leads nowhere. */
function placeOfImport(specifier: string, file: string): string {
  try {
    const lines = readFileSync(file, "utf8").split("\n");
    const at = lines.findIndex((line) => line.includes(`"${specifier}"`) || line.includes(`'${specifier}'`));
    return at === -1 ? file : `${file}:${at + 1}`;
  } catch {
    return file;
  }
}
