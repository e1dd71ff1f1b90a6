/** `drawbridge tools`: what of the servers' tools a role sees, and what a model pays for reading it, before and after contracts. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import { type LoadedSettings, loadSettings } from "../config/load.ts";
import { type Lock, lockKey } from "../contract/lockfile.ts";
import { estimateTokens } from "../contract/tokens.ts";
import type { Principal } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { type Catalogue, type Entry, openCatalogue, type Withheld } from "../gateway/catalogue.ts";
import { type ContractSections, openContracts } from "../gateway/contracts.ts";
import { lockPath, readLockFile } from "../gateway/lock.ts";
import type { Pins, Verdict } from "../gateway/pins.ts";
import { suspicionOf } from "../gateway/suspicion.ts";
import { silentLogger } from "../observe/logger.ts";
import { compilePolicy, DEFAULT_ROLES } from "../policy/engine.ts";
import { compileExpression } from "../policy/expressions.ts";
import type { ListName, Upstream } from "../upstream/upstream.ts";
import { type Look, type Offered, openLook } from "./look.ts";
import { Ended, EXIT } from "./main.ts";
import { DEFAULT_FILE } from "./store.ts";
import { painter, printable, type Terminal } from "./terminal.ts";

interface ToolsOptions {
  readonly file: string;
  readonly as?: string;
  readonly json?: true;
}

const HELP = `
A model reads the list of tools with every request, and the longer it is the worse it chooses. This opens the servers of the
settings file, as the gateway would, and counts the tools and the tokens of the answer to tools/list: as the servers offer it, and
as clients get it under the contracts. Tokens are an estimate that errs on the high side. Nothing is called, and nothing is stored;
definitions that the gateway withholds because they changed are counted as if they had not, but those that read like an attack are
withheld here as there (lock.inspect), unless they are in the lockfile as they are.

Examples:
  $ drawbridge tools
  $ drawbridge tools --as support
  $ drawbridge tools --file drawbridge.yaml --json
`;

export function define(command: Command, terminal: Terminal): void {
  command
    .option("--file <settings>", "settings file", DEFAULT_FILE)
    .option("--as <role>", "what this role sees, in place of what is served to anybody")
    .option("--json", "print JSON")
    .addHelpText("after", HELP)
    .action((options: ToolsOptions) => tools(options, terminal));
}

interface Tool {
  readonly name: string;
  readonly server: string;
  readonly tokens: number;
}
/** The answer to `tools/list`. */
interface Listing {
  readonly count: number;
  readonly tokens: number;
  /** Those that cost most first. */
  readonly tools: readonly Tool[];
}
interface Report {
  readonly role: string | undefined;
  readonly before: Listing;
  readonly after: Listing;
  readonly withheld: readonly Withheld[];
  readonly unread: readonly { readonly server: string; readonly problem: string }[];
}

async function tools(options: ToolsOptions, terminal: Terminal): Promise<void> {
  const loaded = await loadSettings(resolve(terminal.cwd, options.file), { env: terminal.env });
  const sees = visibility(loaded, options.as);
  await using look = openLook(loaded, terminal);
  const { offered, unread } = await allOffered(look, Object.keys(loaded.settings.servers));
  const pins = loaded.settings.lock.inspect === "hold" ? suspecting(await lockOf(loaded)) : TRUSTING;
  const [plain, contracted] = await Promise.all([
    catalogueOf(offered, {}, TRUSTING),
    catalogueOf(offered, loaded.settings, pins),
  ]);
  const report: Report = {
    role: options.as,
    before: listing(plain.now("tools")),
    after: listing(contracted.now("tools").filter(sees)),
    withheld: contracted.withheld().filter(({ kind }) => kind === "tool"),
    unread,
  };
  terminal.stdout.write(options.json === true ? `${JSON.stringify(report, null, 2)}\n` : text(report, terminal));
  if (unread.length > 0) throw new Ended(EXIT.failed);
}

function visibility({ settings }: LoadedSettings, role: string | undefined): (entry: Entry) => boolean {
  if (role === undefined) return () => true;
  const roles = settings.roles ?? DEFAULT_ROLES;
  const mine = roles[role];
  if (mine === undefined) {
    const known = Object.keys(roles).join(", ");
    throw new DrawbridgeError("settings_invalid", `There is no role ${JSON.stringify(role)}; known roles: ${known}.`);
  }
  const policy = compilePolicy({ [role]: mine }, [{ role, user: HOLDER.subject }]);
  return ({ target }) => policy.decide(HOLDER, target).effect === "permit";
}

const HOLDER: Principal = {
  subject: "whoever holds the role",
  client: "command line",
  actors: [],
  groups: [],
  scopes: ["mcp:read", "mcp:call"],
  claims: {},
  grant: undefined,
  tokenId: "",
  expiresAt: Number.MAX_SAFE_INTEGER,
};

async function allOffered(
  look: Look,
  servers: readonly string[],
): Promise<{ readonly offered: ReadonlyMap<string, Offered>; readonly unread: Report["unread"] }> {
  const unread: { server: string; problem: string }[] = [];
  const found = await Promise.all(
    servers.map(async (server): Promise<readonly (readonly [string, Offered])[]> => {
      try {
        return [[server, await look.offered(server)]];
      } catch (thrown) {
        unread.push({ server, problem: DrawbridgeError.from(thrown).message });
        return [];
      }
    }),
  );
  return { offered: new Map(found.flat()), unread };
}

/** The gateway's own catalogue of what the servers have just said. */
async function catalogueOf(
  offered: ReadonlyMap<string, Offered>,
  sections: ContractSections,
  pins: Pins,
): Promise<Catalogue> {
  const upstreams = [...offered].map(([name, lists]) => {
    const list = async (wanted: ListName) => lists[wanted].map((entry) => JSON.stringify(entry));
    return { name, list } as Partial<Upstream> as Upstream;
  });
  const contracts = openContracts(sections, silentLogger, compileExpression);
  const catalogue = openCatalogue(upstreams, { pins, contracts, log: silentLogger, onChange() {} });
  await catalogue.ready;
  return catalogue;
}

const SERVED: Verdict = { held: undefined, stops: false, reviewed: true };

const TRUSTING: Pins = {
  check: async (_server, _kind, all) => ({ verdicts: all.map(() => SERVED), gone: undefined }),
  screened: async (_server, identity) => ({ identity, verdict: SERVED }),
  list: async () => [],
  accept: async () => false,
};

/** Withholds what the inspection finds something in, as a gateway does until somebody approves it. Whoever signs a lockfile has. */
function suspecting(lock: Lock | undefined): Pins {
  return {
    ...TRUSTING,
    async check(server, kind, all) {
      const locked = lock?.get(server);
      const verdicts: Verdict[] = [];
      for (const { name, value, pin } of all) {
        const approved = locked?.get(lockKey(kind, name))?.pin === pin;
        const found = approved ? undefined : await suspicionOf(server, kind, value);
        verdicts.push(found === undefined ? SERVED : { ...SERVED, held: `it has ${found}, unless it was approved` });
      }
      return { verdicts, gone: undefined };
    },
  };
}

async function lockOf({ settings: { lock: settings }, folder, file }: LoadedSettings): Promise<Lock | undefined> {
  const place = { settings, folder, beside: file !== undefined };
  const path = lockPath(place);
  return path !== undefined && existsSync(path) ? readLockFile(place) : undefined;
}

function listing(entries: readonly Entry[]): Listing {
  const found = entries.map(({ target, served }) => ({
    name: target.name,
    server: target.server,
    tokens: estimateTokens(served),
  }));
  return {
    count: found.length,
    tokens: estimateTokens(`{"tools":[${entries.map(({ served }) => served).join(",")}]}`),
    tools: found.toSorted((one, other) => other.tokens - one.tokens),
  };
}

function text({ role, before, after, withheld, unread }: Report, terminal: Terminal): string {
  const paint = painter(terminal.stdout, terminal.env);
  const number = (value: number, width: number) => value.toLocaleString("en-US").padStart(width);
  const row = (name: string, { count, tokens }: Listing, note = "") =>
    `${name.padEnd(24)} ${number(count, 6)} ${number(tokens, 9)}${note === "" ? "" : `   ${paint("green", note)}`}`;
  const saved = before.tokens === 0 ? 0 : Math.round((1 - after.tokens / before.tokens) * 100);
  const lines = [
    paint("dim", `${"".padEnd(24)} ${"tools".padStart(6)} ${"tokens".padStart(9)}`),
    row("the servers offer", before),
    row(
      role === undefined ? "clients may see" : `${printable(role)} sees`,
      after,
      saved > 0 ? `${saved}% less to read` : "",
    ),
    "",
    paint("dim", `${"tokens".padStart(9)}  tool`),
    ...after.tools.map(({ name, tokens }) => `${number(tokens, 9)}  ${printable(name)}`),
  ];
  if (withheld.length > 0)
    lines.push(
      "",
      paint("yellow", "withheld"),
      ...withheld.map(
        ({ server, name, reason }) => `  ${printable(server)}/${printable(name)}: ${printable(reason, 500)}`,
      ),
    );
  if (unread.length > 0)
    lines.push(
      "",
      paint("red", "not read"),
      ...unread.map(({ server, problem }) => `  ${printable(server)}: ${printable(problem, 500)}`),
    );
  return `${lines.join("\n")}\n`;
}
