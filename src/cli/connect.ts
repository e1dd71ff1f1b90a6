/** `drawbridge connect`: the operator's own account at servers that have an authorization server, used for the calls of everybody. */
import { userInfo } from "node:os";
import { resolve } from "node:path";
import type { Command } from "commander";
import { loadSettings } from "../config/load.ts";
import type { Settings } from "../config/schema.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { type Connections, openConnections } from "../gateway/connections.ts";
import { placeOf } from "../oauth/http.ts";
import type { Connectable } from "../oauth/pages/connections.ts";
import { usersIn } from "../oauth/people/users.ts";
import { createLogger } from "../observe/logger.ts";
import { openLanding } from "./doctor/authorize.ts";
import {
  day,
  linkTo,
  needKeySecret,
  OFFICE_HELP,
  type Office,
  type OfficeOptions,
  officeOptions,
  openOffice,
  PUBLIC_URL,
  table,
} from "./office.ts";
import { DEFAULT_FILE, UNREAD } from "./store.ts";
import type { Terminal } from "./terminal.ts";

interface ConnectOptions extends OfficeOptions {
  readonly publicUrl?: string;
  readonly redirect?: string;
  readonly end?: true;
}

const HELP = `${OFFICE_HELP}
For servers with \`credentials: { oauth: operator }\`. Your browser signs in there and comes back to a port of this machine. With
\`oauth: per-user\` there is nothing to do here: each user connects on the account page.

Examples:
  $ drawbridge connect
  $ drawbridge connect github
  $ drawbridge connect github --redirect http://127.0.0.1:7400/callback
  $ drawbridge connect github --end
`;
const WAIT_MS = 600_000;

export function define(command: Command, terminal: Terminal): void {
  officeOptions(command, true)
    .argument("[server]", "its name in the settings file; without it the servers are listed")
    .option("--redirect <url>", "a loopback address that is registered there (default: a free port)")
    .option("--end", "forget the connection, and have its tokens revoked")
    .option(...PUBLIC_URL)
    .addHelpText("after", HELP)
    .action((server: string | undefined, options: ConnectOptions) =>
      server === undefined ? list(options, terminal) : connect(server, options, terminal),
    );
}

function list(options: ConnectOptions, terminal: Terminal): Promise<void> {
  return withConnections(options, terminal, "look", async (connections, office) => {
    const all = await connections.operators();
    office.show(
      all,
      all.length === 0
        ? ["No server of the settings is connected by the operator (`credentials: { oauth: operator }`)."]
        : table(["SERVER", "STATE", "SINCE", "SCOPES"], all.map(row), terminal),
    );
  });
}

function row({ server, state, since, scopes }: Connectable): readonly string[] {
  return [server, state === "none" ? "not connected" : state, day(since), scopes.join(" ") || "–"];
}

function connect(server: string, options: ConnectOptions, terminal: Terminal): Promise<void> {
  return withConnections(options, terminal, "change", async (connections, office) => {
    needKeySecret(office);
    const who = userInfo().username;
    if (options.end === true) {
      await office.confirm(`End the connection to ${server}? Calls to it fail until it is connected again.`);
      await connections.endOperators(server, who);
      return office.show({ server, ended: true }, [`${server} is not connected any more`]);
    }
    const landing = await openLanding(loopback(options.redirect));
    try {
      const { url, departure } = await connections.beginOperators(server, landing.redirect);
      terminal.stderr.write(`Open this page and allow the access. It is waited for ten minutes:\n  ${url.href}\n`);
      terminal.openBrowser?.(url);
      const answer = await landing.arrival(AbortSignal.timeout(WAIT_MS));
      if (answer === undefined) throw new DrawbridgeError("upstream_timeout", "Nobody came back within ten minutes.");
      await connections.finishOperators(server, answer, departure, who);
    } finally {
      await landing.close();
    }
    const one = (await connections.operators()).find((each) => each.server === server);
    office.show(one, [`connected ${server}${one === undefined ? "" : `: ${one.scopes.join(" ")}`}`]);
  });
}

/** What comes back holds a code, so it must not leave this machine. */
function loopback(redirect: string | undefined): URL | undefined {
  if (redirect === undefined) return undefined;
  const url = URL.parse(redirect);
  if (url?.protocol === "http:" && ["127.0.0.1", "[::1]", "localhost"].includes(url.hostname)) return url;
  throw new DrawbridgeError(
    "settings_invalid",
    "--redirect must be a loopback address: http://127.0.0.1:<port>/<path>",
  );
}

function withConnections(
  options: ConnectOptions,
  terminal: Terminal,
  mode: "look" | "change",
  use: (connections: Connections, office: Office) => Promise<void>,
): Promise<void> {
  return openOffice(options, terminal, mode, async (office) => {
    const { records, report } = office;
    if (office.settings === undefined)
      throw new DrawbridgeError("settings_invalid", "Name the settings file, which says what the servers are: --file");
    // With the secrets that we have at those servers.
    const { settings } = await loadSettings(resolve(terminal.cwd, options.file ?? DEFAULT_FILE), {
      env: terminal.env,
      readSecret: async (name, _path, provided) => (await provided(name).catch(() => undefined)) ?? UNREAD,
    });
    if (mode === "change" && Object.values(settings.servers).some(hasUnreadSecret)) {
      const message =
        "A client secret of `servers` cannot be read here. Run this where the gateway runs, with its secrets.";
      throw new DrawbridgeError("settings_invalid", message);
    }
    const connections = openConnections({
      servers: () => settings.servers,
      place: placeOf(new URL(linkTo("", office, options.publicUrl))),
      records,
      users: usersIn(records),
      encryption: settings.tokens.keyEncryptionSecret,
      report,
      log: createLogger({ level: "warn", format: "text" }, terminal.stderr),
    });
    try {
      await use(connections, office);
    } finally {
      await connections.close();
    }
  });
}

function hasUnreadSecret(server: Settings["servers"][string]): boolean {
  if (!("url" in server) || typeof server.credentials !== "object" || !("oauth" in server.credentials)) return false;
  return server.credentials.oauth.clientSecret?.equals(UNREAD) === true;
}
