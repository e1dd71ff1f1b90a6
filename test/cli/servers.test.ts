/** `drawbridge servers` against running gateways: over the control socket, and from afar with a token. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openControl } from "../../src/gateway/control.ts";
import { type Logger, silentLogger } from "../../src/observe/logger.ts";
import { world } from "../e2e/world.ts";
import { fixtureCommand, stopChild, waitFor } from "../fixtures/processes.ts";
import { type Filed, filed } from "../gateway/filed.ts";
import { type Run, type RunOptions, run } from "./terminal.ts";

const echo = { command: fixtureCommand("echo-stdio") };
const leaky = { command: fixtureCommand("leaky"), environment: { KEY: "${secret:orders}" } };

describe("beside the gateway", () => {
  let at: Filed;
  beforeEach(async () => {
    at = await filed({ servers: { one: echo, two: leaky } }, { secrets: { orders: "the-first-key" } });
  });
  afterEach(() => at[Symbol.asyncDispose]());
  const cli = (argv: readonly string[], options: RunOptions = {}) =>
    run(["servers", ...argv], { cwd: at.folder, ...options });

  test("lists the servers in a table that fits into 80 columns", async () => {
    const { code, stdout, stderr } = await cli([]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout.replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d/g, "0000-00-00 00:00")).toBe(`\
SERVER  STATE  SIZE  CALLS  QUEUE  RESTARTS  VERSION  SINCE
one     ready  1     0      0      0         1        0000-00-00 00:00
two     ready  1     0      0      0         1        0000-00-00 00:00
`);
    expect(Math.max(...stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
    expect((await cli(["list"])).stdout).toBe(stdout);
  });

  test("prints everything as JSON", async () => {
    const { stdout } = await cli(["list", "--json"]);
    expect(JSON.parse(stdout)).toMatchObject({
      servers: [
        { name: "one", state: "ready", generation: 1, draining: false, restarts: 0, finishing: 0 },
        { name: "two", state: "ready" },
      ],
      withheld: [],
      lostSecrets: {},
    });
  });

  test("shows one server with what it wrote to stderr, without the secrets of the settings", async () => {
    await at.call("two_shout");
    const shown = await waitFor(async () => {
      const { stdout } = await cli(["show", "two"]);
      return stdout.includes("It said last") && stdout;
    });
    expect(shown).toContain('starting with key=[secret]; {"quoted":"[secret]"}');
    expect(shown).not.toContain("the-first-key");
    expect(shown).toMatch(/^name +two$/m);
    expect(shown).toMatch(/^calls +0 under way, 0 waiting$/m);
  });

  test("restarts a server, drains it and takes it back, each in the audit log with who did it", async () => {
    const pid = async () => (await at.call("one_count")).result?.structuredContent?.["pid"];
    const before = await pid();
    expect((await cli(["restart", "one"])).stdout).toMatch(/^restarted one/);
    expect(await pid()).not.toBe(before);
    expect((await cli(["drain", "one"])).stdout).toBe("one takes no new calls; none is under way\n");
    expect(await at.call("one_count")).toMatchObject({
      status: 503,
      error: { message: expect.stringContaining("takes no new calls") },
    });
    expect((await cli([])).stdout).toMatch(/^one +draining/m);
    expect((await cli(["resume", "one"])).stdout).toBe("one takes calls again\n");
    expect((await at.call("one_count")).status).toBe(200);
    const deeds = await at.deeds();
    expect(deeds.map(({ action }) => action)).toEqual(["server-restarted", "server-drained", "server-resumed"]);
    for (const deed of deeds)
      expect(deed).toMatchObject({
        kind: "configuration",
        outcome: "permitted",
        details: { server: "one", via: "control socket" },
      });
    expect((deeds[0] as { details: { operator: string } }).details.operator).not.toBe("");
  });

  test("reloads the settings file, and says what became of each change", async () => {
    expect((await cli(["reload"])).stdout).toBe("nothing has changed\n");
    at.write({
      servers: { one: { ...echo, environment: { MODE: "x" } }, three: echo },
      interaction: { answerSeconds: 30 },
    });
    expect((await cli(["reload"])).stdout.split("\n").sort()).toEqual(
      [
        "servers.three: added",
        "servers.two: removed; it finishes its calls",
        "servers.one: replaced; the one before it finishes its calls",
        "interaction.answerSeconds: counts after a restart of the gateway",
        "",
      ].sort(),
    );
    at.write({ servers: { one: { ...echo, timeoutSecond: 3 } } });
    const refused = await cli(["reload"]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('servers.one.timeoutSecond: unknown key; did you mean "timeoutSeconds"?');
  });

  test("a new version that cannot be reached is told, and the exit code is 1", async () => {
    at.write({
      servers: { one: { command: [process.execPath, "-e", "process.exit(3)"], startTimeoutSeconds: 3 }, two: leaky },
    });
    const { code, stdout } = await cli(["reload"]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/^servers\.one: kept as it was\. The new version of the server "one" cannot be reached: /);
    expect((await cli([])).stdout).toMatch(/^one: The new version of the server "one" cannot be reached/m);
  });

  test("a server that is not there is told, with those that are", async () => {
    const { code, stderr } = await cli(["restart", "three"]);
    expect(code).toBe(1);
    expect(stderr).toBe('error There is no server "three". There are: one, two.\n');
  });

  test("a token of the owner does the same from afar, and each deed is recorded as theirs", async () => {
    const { access_token } = await at.world.tokens();
    const env = { DRAWBRIDGE_TOKEN: access_token };
    const afar = (argv: readonly string[]) => cli([...argv, "--url", at.world.origin], { cwd: tmpdir(), env });
    expect((await afar(["list"])).stdout).toMatch(/^one +ready/m);
    expect((await afar(["list", "--url", `${at.world.origin}/mcp`])).code).toBe(0);
    expect((await afar(["restart", "two"])).stdout).toMatch(/^restarted two/);
    expect((await at.deeds())[0]).toMatchObject({
      action: "server-restarted",
      principal: { subject: expect.any(String), groups: ["owner"] },
      details: { server: "two", via: "admin" },
      source: expect.stringMatching(/127\.0\.0\.1/),
    });
    expect((await cli(["list", "--url", at.world.origin], { env: {} })).stderr).toContain("DRAWBRIDGE_TOKEN");
    const stranger = await cli(["list", "--url", at.world.origin], { env: { DRAWBRIDGE_TOKEN: "made-up" } });
    expect(stranger.code).toBe(1);
  });
});

describe("/admin", () => {
  let at: Filed;
  beforeEach(async () => {
    at = await filed({ servers: { two: leaky } }, { secrets: { orders: "the-first-key" } });
  });
  afterEach(() => at[Symbol.asyncDispose]());
  const ask = (path: string, init: RequestInit = {}) => fetch(`${at.world.origin}${path}`, init);

  test("is for owners with exactly one token, and challenges those without", async () => {
    const { access_token } = await at.world.tokens();
    const authorization = `Bearer ${access_token}`;
    expect((await ask("/admin/servers", { headers: { authorization } })).status).toBe(200);
    const without = await ask("/admin/servers");
    expect(without.status).toBe(401);
    expect(without.headers.get("www-authenticate")).toMatch(/^Bearer /);
    expect(
      (await ask("/admin/servers", { headers: { authorization: `${authorization}, ${authorization}` } })).status,
    ).toBe(401);
    expect((await ask(`/admin/servers?access_token=${access_token}`)).status).toBe(401);
    // What a browser would send along by itself is not enough.
    expect((await at.world.browser.fetch("/admin/servers")).status).toBe(401);
  });

  test("does not exist for somebody who is no owner any more", async () => {
    const { access_token } = await at.world.tokens();
    const status = async (method: string, path: string) =>
      (await ask(path, { method, headers: { authorization: `Bearer ${access_token}` } })).status;
    expect(await status("GET", "/admin/servers")).toBe(200);
    expect((await run(["users", "groups", "olive", "support"], { cwd: at.folder })).code).toBe(0);
    await waitFor(async () => (await status("GET", "/admin/servers")) === 404);
    expect(await status("POST", "/admin/servers/two/restart")).toBe(404);
    expect(await status("POST", "/admin/reload")).toBe(404);
    expect(await at.deeds()).toEqual([]);
  });

  test("shows stderr only to those who ask for it, without secrets", async () => {
    const { access_token } = await at.world.tokens();
    const headers = { authorization: `Bearer ${access_token}` };
    await at.call("shout");
    const shown = await waitFor(async () => {
      const text = await (await ask("/admin/servers/two?stderr", { headers })).text();
      return text.includes("starting with") && text;
    });
    expect(shown).toContain("key=[secret]");
    expect(shown).not.toContain("the-first-key");
    expect(await (await ask("/admin/servers", { headers })).text()).not.toContain("starting with");
  });

  test("changes nothing by GET, and has nothing at other paths", async () => {
    const { access_token } = await at.world.tokens();
    const headers = { authorization: `Bearer ${access_token}` };
    expect((await ask("/admin/servers/two/restart", { headers })).status).toBe(405);
    expect((await ask("/admin/reload", { headers })).status).toBe(405);
    for (const path of [
      "/admin",
      "/admin/",
      "/admin/servers/two/constructor",
      "/admin/servers/two/restart/x",
      "/admin/other",
    ])
      expect([path, (await ask(path, { headers, method: "POST" })).status]).toEqual([path, 404]);
    expect((await ask("/admin/servers/one/restart", { headers, method: "POST" })).status).toBe(404);
    expect(await at.deeds()).toEqual([]);
  });
});

describe("without a gateway", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "db-cli-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const cli = (argv: readonly string[]): Promise<Run> => run(["servers", ...argv], { cwd: folder });

  test("the message says where it was looked for, and what to do", async () => {
    const { code, stderr } = await cli([]);
    expect(code).toBe(1);
    expect(stderr.split("\n")[0]).toBe(
      `error No gateway runs here: nobody answers at ${join(folder, ".drawbridge/control.sock")}. Start it with drawbridge serve, or name another with --file, --socket or --url.`,
    );
  });

  test("settings without a socket say so", async () => {
    writeFileSync(
      join(folder, "drawbridge.yaml"),
      JSON.stringify({ servers: { one: echo }, control: { socket: "off" } }),
    );
    const { code, stderr } = await cli(["list"]);
    expect(code).toBe(2);
    expect(stderr).toContain("no control socket");
  });

  test("help teaches by example", async () => {
    const { stdout } = await cli(["--help"]);
    expect(stdout).toContain("$ drawbridge servers restart orders");
  });
});

describe("a served file", () => {
  let folder: string;
  let child: ChildProcessWithoutNullStreams | undefined;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "db-serve-"));
  });
  afterEach(async () => {
    if (child !== undefined) await stopChild(child);
    rmSync(folder, { recursive: true });
  });

  const write = (servers: object, more: object = {}) =>
    writeFileSync(join(folder, "drawbridge.yaml"), JSON.stringify({ listen: { port: 0 }, servers, ...more }));
  async function serve(...options: string[]): Promise<() => string> {
    const launcher = join(import.meta.dirname, "../../bin/drawbridge.js");
    const { NO_COLOR: _, ...env } = process.env;
    const served = spawn(process.execPath, [launcher, "serve", ...options], { cwd: folder, env, stdio: "pipe" });
    child = served;
    let output = "";
    for (const stream of [served.stdout, served.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => {
        output += text;
      });
    await waitFor(() => {
      if (served.exitCode !== null) throw new Error(`it ended with ${served.exitCode}: ${output}`);
      return output.includes("Ctrl-C stops");
    }, 30_000);
    return () => output;
  }
  const names = async () => {
    const { stdout } = await run(["servers", "list", "--json"], { cwd: folder });
    return (JSON.parse(stdout) as { servers: { name: string }[] }).servers.map(({ name }) => name);
  };

  test("is read again on SIGHUP, and a mistake in it is told while all goes on", async () => {
    write({ one: echo });
    const output = await serve();
    write({ one: echo, two: echo });
    child?.kill("SIGHUP");
    await waitFor(async () => (await names()).length === 2);
    write({ one: echo, two: echo }, { listne: {} });
    child?.kill("SIGHUP");
    await waitFor(() => output().includes('unknown key; did you mean "listen"?'));
    expect(output()).toContain("Nothing was changed");
    expect(await names()).toEqual(["one", "two"]);
  }, 60_000);

  test("is read again as it is saved, with --watch", async () => {
    write({ one: echo });
    await serve("--watch");
    writeFileSync(join(folder, ".next"), JSON.stringify({ listen: { port: 0 }, servers: { one: echo, two: echo } }));
    renameSync(join(folder, ".next"), join(folder, "drawbridge.yaml"));
    await waitFor(async () => (await names()).length === 2);
  }, 60_000);

  test("--watch needs a file", async () => {
    const { code, stderr } = await run(["serve", "--watch", "--url", "http://127.0.0.1:1/mcp"], { cwd: folder });
    expect(code).toBe(2);
    expect(stderr).toContain("--watch needs a settings file");
  });
});

describe("the control socket", () => {
  let folder: string;
  const warnings: string[] = [];
  const log: Logger = { ...silentLogger, warn: (_, message) => void warnings.push(message) };
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "db-sock-"));
    warnings.length = 0;
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const open = (path: string, named = false) =>
    openControl(path, { named, log, answer: async (_, response) => void response.end("{}") });

  test("can be opened by the gateway's user alone, and goes with the gateway", async () => {
    const at = await filed({ servers: { one: echo } });
    const path = at.world.gateway.control ?? "";
    expect(path).toBe(join(at.folder, "state", "control.sock"));
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(join(at.folder, "state")).mode & 0o077).toBe(0);
    await at.world.gateway.close();
    expect(existsSync(path)).toBe(false);
    await at[Symbol.asyncDispose]();
  });

  test("is not opened in a folder where others may write", async () => {
    const open_ = join(folder, "open");
    mkdirSync(open_);
    chmodSync(open_, 0o775);
    expect((await open(join(open_, "control.sock"))).path).toBeUndefined();
    expect(warnings.join()).toContain("others may write into the folder");
    await expect(open(join(open_, "control.sock"), true)).rejects.toMatchObject({ code: "settings_invalid" });
    expect(existsSync(join(open_, "control.sock"))).toBe(false);
  });

  test("takes the place of one that nobody answers at, and not of a living one or of a file", async () => {
    const path = join(folder, "control.sock");
    const first = await open(path);
    expect(first.path).toBe(path);
    expect((await open(path)).path).toBeUndefined();
    expect(warnings.join()).toContain("another gateway answers");
    await first.close();
    // What a gateway leaves that was killed.
    const dead = createServer();
    await new Promise<void>((resolve) => dead.listen(join(folder, "dead.sock"), resolve));
    renameSync(join(folder, "dead.sock"), path);
    await new Promise((resolve) => dead.close(resolve));
    expect(existsSync(path)).toBe(true);
    const second = await open(path);
    expect(second.path).toBe(path);
    await second.close();
    writeFileSync(path, "something of value");
    expect((await open(path)).path).toBeUndefined();
    expect(readFileSync(path, "utf8")).toBe("something of value");
  });

  test("with a path that is too long is told", async () => {
    await expect(open(join(folder, "x".repeat(120)), true)).rejects.toThrow("longer than the 103 bytes");
  });

  test("there is none for a gateway that keeps nothing, or when it is off", async () => {
    await using memory = await world({ servers: { one: echo } });
    expect(memory.gateway.control).toBeUndefined();
    await using off = await filed({ servers: { one: echo }, control: { socket: "off" } });
    expect(off.world.gateway.control).toBeUndefined();
  });
});
