/** How sandboxes are made: what is visible, what may be reached, what is enforced, and what is said where it is not. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { createLogger, silentLogger } from "../../src/observe/logger.ts";
import { openUpstream } from "../../src/upstream/open.ts";
import { authority, type EgressProxy, egressList, egressProxy } from "../../src/upstream/sandbox/egress.ts";
import { sandboxSupport as supportAt } from "../../src/upstream/sandbox/host.ts";
import { groupsAt, places } from "../../src/upstream/sandbox/limits.ts";
import { findProgram } from "../../src/upstream/sandbox/program.ts";
import { type SandboxSupport, sandboxedCommand, sandboxSupport } from "../../src/upstream/sandbox.ts";
import { sandboxSettings, stdioServer } from "../../src/upstream/settings.ts";
import { stdioUpstream } from "../../src/upstream/stdio.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { fixtureCommand, stopChild, waitFor } from "../fixtures/processes.ts";
import { findBubblewrap } from "../global/bubblewrap.ts";
import { codeOf, end, ignored, never, structuredOf, toolCall } from "./support.ts";

const place = mkdtempSync(join(tmpdir(), "drawbridge-sandbox-"));
const opened: Upstream[] = [];
afterAll(async () => {
  await Promise.all(opened.map(end));
  rmSync(place, { recursive: true, force: true });
});

const file = (path: string, text = "", mode = 0o644): string => {
  const full = join(place, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
  chmodSync(full, mode);
  return full;
};
const program = (path: string, text = "#!/bin/sh\n") => file(path, text, 0o755);
const here = (path: string) => join(place, path);

describe("the list of hosts", () => {
  const permits = (entries: string[], text: string) => {
    const target = authority(text, undefined);
    return target !== undefined && egressList(entries)(target) !== undefined;
  };

  test.each([
    [["api.example:443"], "api.example:443"],
    [["API.example:443"], "api.EXAMPLE:443"],
    [["*.example:443"], "a.example:443"],
    [["*.example:443"], "a.b.example:443"],
    [["10.1.2.3:5432"], "10.1.2.3:5432"],
    [["[fd00::1]:80"], "[fd00:0:0:0:0:0:0:1]:80"],
    [["a.example:1", "b.example:2"], "b.example:2"],
  ])("%j has %s", (entries, target) => expect(permits(entries, target)).toBe(true));

  test.each([
    [["api.example:443"], "api.example:80"],
    [["api.example:443"], "x.api.example:443"],
    [["api.example:443"], "api.example.:443"],
    [["api.example:443"], "apixexample:443"],
    [["api.example:443"], "api.example"],
    [["api.example:443"], "api.example:443@evil.example:443"],
    [["api.example:443"], "api.example:0443:1"],
    [["*.example:443"], "example:443"],
    [["*.example:443"], ".example:443"],
    [["*.example:443"], "evilexample:443"],
    [["*.0.0.1:443"], "127.0.0.1:443"],
    [["127.0.0.1:80"], "2130706433:80"],
    [["127.0.0.1:80"], "127.1:80"],
    [["127.0.0.1:80"], "0x7f000001:80"],
    [["127.0.0.1:80"], "0177.0.0.1:80"],
    [["127.0.0.1:80"], "[::ffff:127.0.0.1]:80"],
    [["127.0.0.1:80"], "localhost:80"],
    [["a.example:80"], "a.example:80\r\nx:1"],
    [["a.example:80"], "a.example:99999"],
    [[], "a.example:80"],
  ])("%j has no %s", (entries, target) => {
    if (entries[0] === "*.0.0.1:443") return expect(() => egressList(entries)).toThrow("no host and port");
    return expect(permits(entries, target)).toBe(false);
  });
});

describe("the way out", () => {
  interface Way extends AsyncDisposable {
    readonly proxy: EgressProxy;
    readonly refused: string[];
    /** What is answered to these bytes, until the connection ends or the text matches. */
    say(bytes: string, until?: RegExp): Promise<string>;
  }
  async function way(list: readonly string[], names: Record<string, readonly string[]> = {}): Promise<Way> {
    const refused: string[] = [];
    const proxy = egressProxy({
      list,
      refused: (host, reason, first) => void (first && refused.push(`${host}: ${reason}`)),
      resolve: async (host) => {
        const addresses = names[host];
        if (addresses === undefined) throw new Error(`ENOTFOUND ${host}`);
        return addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
      },
    });
    const listener = createTcpServer().listen(0, "127.0.0.1");
    await once(listener, "listening");
    const { port } = listener.address() as AddressInfo;
    proxy.serve(listener);
    return {
      proxy,
      refused,
      say: (bytes, until) =>
        new Promise((resolve, reject) => {
          const socket = connect(port, "127.0.0.1", () => socket.write(bytes));
          let heard = "";
          socket.setTimeout(10_000, () => socket.destroy(new Error(`heard only ${heard}`)));
          socket.on("data", (chunk) => {
            heard += chunk.toString("latin1");
            if (until?.test(heard) === true) socket.end();
          });
          socket.on("close", () => resolve(heard));
          socket.on("error", reject);
        }),
      [Symbol.asyncDispose]: async () => proxy.close(),
    };
  }
  async function echo(): Promise<{ port: number } & AsyncDisposable> {
    const server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      request.on("end", () => response.end(JSON.stringify({ url: request.url, headers: request.headers, body })));
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    return {
      port: (server.address() as AddressInfo).port,
      [Symbol.asyncDispose]: async () => void server.close().closeAllConnections(),
    };
  }

  test.each([
    "169.254.169.254",
    "127.0.0.1",
    "10.0.0.8",
    "192.168.1.1",
    "::1",
    "fd00::1",
    "fe80::1",
    "::ffff:10.0.0.1",
    "100.64.0.1",
    "0.0.0.0",
  ])("a name on the list that leads to %s is refused, whatever else it leads to", async (address) => {
    await using one = await way(["api.example:80"], { "api.example": ["93.184.215.14", address] });
    expect(await one.say("CONNECT api.example:80 HTTP/1.1\r\n\r\n")).toMatch(/^HTTP\/1\.1 403 /);
    expect(one.refused).toEqual([expect.stringContaining(`leads to ${address}`)]);
  });

  test("a name may lead to a private address that is on the list itself, with the same port", async () => {
    await using target = await echo();
    const names = { "db.internal": ["127.0.0.1"] };
    await using one = await way([`db.internal:${target.port}`, `127.0.0.1:${target.port}`], names);
    const bytes = `CONNECT db.internal:${target.port} HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`;
    expect(await one.say(bytes)).toContain('"url":"/x"');
    await using other = await way([`db.internal:${target.port}`, "127.0.0.1:1"], names);
    expect(await other.say(bytes)).toMatch(/^HTTP\/1\.1 403 /);
  });

  test("localhost on the list is the machine's own loopback, and never more", async () => {
    await using target = await echo();
    const list = [`localhost:${target.port}`];
    const bytes = `GET http://localhost:${target.port}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`;
    await using one = await way(list, { localhost: ["127.0.0.1"] });
    expect(await one.say(bytes)).toContain('"url":"/"');
    await using rebound = await way(list, { localhost: ["10.0.0.1"] });
    expect(await rebound.say(bytes)).toMatch(/^HTTP\/1\.1 403 /);
  });

  test("a plain request is passed on with its body, for the host that was checked, without what is for the proxy", async () => {
    await using target = await echo();
    await using one = await way([`127.0.0.1:${target.port}`]);
    const answer = await one.say(
      [
        `POST http://127.0.0.1:${target.port}/path?q=1 HTTP/1.1`,
        "Host: evil.example",
        "Proxy-Authorization: Basic abc",
        "Connection: close, x-hop",
        "X-Hop: 1",
        "X-End: 2",
        "Content-Length: 5",
        "",
        "hello",
      ].join("\r\n"),
    );
    const seen = JSON.parse(answer.slice(answer.indexOf("{"), answer.lastIndexOf("}") + 1)) as {
      url: string;
      body: string;
      headers: Record<string, string>;
    };
    expect(seen).toMatchObject({
      url: "/path?q=1",
      body: "hello",
      headers: { host: `127.0.0.1:${target.port}`, "x-end": "2" },
    });
    expect(Object.keys(seen.headers)).not.toContain("x-hop");
    expect(Object.keys(seen.headers)).not.toContain("proxy-authorization");
  });

  test("each host is reported once, each refusal is counted, and so is what passed", async () => {
    await using target = await echo();
    await using one = await way([`127.0.0.1:${target.port}`]);
    for (const host of ["a.example", "a.example", "b.example"]) await one.say(`CONNECT ${host}:1 HTTP/1.1\r\n\r\n`);
    await one.say(`GET http://127.0.0.1:${target.port}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    expect(one.refused).toHaveLength(2);
    await waitFor(() => one.proxy.counts().bytes > 0);
    expect(one.proxy.counts()).toMatchObject({ refused: 3, connections: 1 });
  });

  test("a host that does not answer, and a name that does not exist, are told apart from a refusal", async () => {
    const closed = createTcpServer().listen(0, "127.0.0.1");
    await once(closed, "listening");
    const { port } = closed.address() as AddressInfo;
    closed.close();
    await once(closed, "close");
    await using one = await way([`127.0.0.1:${port}`, "gone.example:1"]);
    expect(await one.say(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\n\r\n`)).toMatch(/^HTTP\/1\.1 502 /);
    expect(await one.say("CONNECT gone.example:1 HTTP/1.1\r\n\r\n")).toMatch(/^HTTP\/1\.1 502 /);
  });

  test("requests that do not wait for their answers open no more than 128 connections either", async () => {
    let open = 0;
    const silent = createTcpServer(() => void open++).listen(0, "127.0.0.1");
    await once(silent, "listening");
    const { port } = silent.address() as AddressInfo;
    const one = await way([`127.0.0.1:${port}`]);
    const all = one.say(`GET http://127.0.0.1:${port}/ HTTP/1.1\r\nHost: a\r\n\r\n`.repeat(400)).catch(() => "");
    await waitFor(() => open >= 128);
    expect(one.proxy.counts().connections).toBe(128);
    one.proxy.close();
    await all;
    expect(open).toBe(128);
    silent.close();
  });

  test("closing it ends what is open, and more than 128 connections at a time are not taken", async () => {
    const silent = createTcpServer(() => {}).listen(0, "127.0.0.1");
    await once(silent, "listening");
    const { port } = silent.address() as AddressInfo;
    const one = await way([`127.0.0.1:${port}`]);
    const request = `CONNECT 127.0.0.1:${port} HTTP/1.1\r\n\r\n`;
    const asked = Array.from({ length: 129 }, () => one.say(request).catch(() => ""));
    await waitFor(() => one.proxy.counts().connections === 128);
    one.proxy.close();
    const answers = await Promise.all(asked);
    expect(answers.filter((answer) => answer.includes("200 Connection established"))).toHaveLength(128);
    silent.close();
  });
});

describe("what a program needs", () => {
  const lookup = { cwd: place, path: "", home: here("home/me") };
  const needs = (command: string[], path: string[] = []) =>
    findProgram(command, { ...lookup, path: [...path, "/usr/bin", "/bin"].join(":") });

  test("a program of the system needs nothing more", () => {
    expect(needs(["sh"])).toMatchObject({ needs: [] });
  });
  test("an installation with bin and lib is needed as a whole", () => {
    program("opt/tool/bin/tool");
    file("opt/tool/lib/x");
    expect(needs(["tool"], [here("opt/tool/bin")])).toEqual({
      file: here("opt/tool/bin/tool"),
      needs: [here("opt/tool")],
    });
  });
  test("a Node version manager's folder is needed, the home folder around it is not", () => {
    program("home/me/.nvm/versions/node/v24/bin/node");
    expect(needs(["node"], [here("home/me/.nvm/versions/node/v24/bin")])?.needs).toEqual([here("home/me/.nvm")]);
  });
  test("a virtual environment is needed with the Python that it links to", () => {
    program("home/me/.pyenv/versions/3.12/bin/python3.12");
    file("srv/app/.venv/pyvenv.cfg");
    mkdirSync(here("srv/app/.venv/bin"), { recursive: true });
    symlinkSync(here("home/me/.pyenv/versions/3.12/bin/python3.12"), here("srv/app/.venv/bin/python"));
    expect(needs([here("srv/app/.venv/bin/python"), "-m", "server"])?.needs).toEqual([
      here("srv/app/.venv"),
      here("home/me/.pyenv"),
    ]);
  });
  test("a script of node_modules needs all of them, and the interpreter of its first line", () => {
    program("srv/web/node_modules/pkg/cli.js", "#!/usr/bin/env -S strange-node --flag\n");
    program("tools/strange/bin/strange-node");
    file("tools/strange/lib/x");
    mkdirSync(here("srv/web/node_modules/.bin"), { recursive: true });
    symlinkSync("../pkg/cli.js", here("srv/web/node_modules/.bin/pkg"));
    expect(needs([here("srv/web/node_modules/.bin/pkg")], [here("tools/strange/bin")])?.needs).toEqual([
      here("srv/web/node_modules"),
      here("tools/strange"),
    ]);
  });
  test("an interpreter's script needs its project, and the packages of a workspace around it", () => {
    file("srv/mono/node_modules/x/index.js");
    file("srv/mono/packages/one/package.json");
    file("srv/mono/packages/one/src/main.js");
    expect(needs(["sh", "srv/mono/packages/one/src/main.js"])?.needs).toEqual([
      here("srv/mono/packages/one"),
      here("srv/mono/node_modules"),
    ]);
  });
  test("a program that lies in a home folder is needed alone", () => {
    program("home/me/.local/bin/tool");
    program("home/me/own.sh");
    file("home/me/package.json");
    expect(needs([here("home/me/.local/bin/tool")])?.needs).toEqual([here("home/me/.local/bin/tool")]);
    expect(needs([here("home/me/own.sh")])?.needs).toEqual([here("home/me/own.sh")]);
  });
  test("links that lead in a circle, folders and files that may not be executed are no programs", () => {
    symlinkSync(here("circle-a"), here("circle-b"));
    symlinkSync(here("circle-b"), here("circle-a"));
    file("plain");
    for (const name of [here("circle-a"), place, here("plain"), "no-such-program"])
      expect(needs([name])).toBeUndefined();
  });
});

describe("control groups", () => {
  test("are looked for where this process is: delegated by systemd, in a container, and of version 1", () => {
    const v2 = "30 1 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw";
    expect(places(v2, "0::/system.slice/drawbridge.service/gateway\n")).toEqual([
      { version: 2, folders: ["/sys/fs/cgroup/system.slice/drawbridge.service/gateway"] },
      { version: 2, folders: ["/sys/fs/cgroup/system.slice/drawbridge.service"] },
    ]);
    expect(places(v2, "0::/\n")).toEqual([{ version: 2, folders: ["/sys/fs/cgroup"] }]);
    const v1 = [
      "31 1 0:27 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
      "32 1 0:28 /docker/abc /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
    ].join("\n");
    expect(places(v1, "4:memory:/docker/abc/x\n8:pids:/docker/abc\n")).toEqual([
      { version: 1, folders: ["/sys/fs/cgroup/memory/x", "/sys/fs/cgroup/pids"] },
    ]);
    expect(places("", "")).toEqual([]);
  });

  test("of version 2 get the limits, without swap and killed as a whole", async () => {
    const folder = here("cgroup");
    file("cgroup/cgroup.subtree_control", "cpu");
    const limits = { memoryBytes: 1 << 30, processes: 64 };
    // A folder of a plain file system has none of a group's files: they are put there by hand, as the kernel would.
    const groups = groupsAt({ version: 2, folders: [folder] });
    expect(readFileSync(join(folder, "cgroup.subtree_control"), "utf8")).toBe("+memory +pids");
    expect(() => groups.create(limits)).toThrow("has no memory.max");
  });
});

test("without Linux, without bubblewrap, and with one that is too old there is none, and the reason is said", () => {
  expect(supportAt({}, "darwin")).toEqual({ reason: expect.stringContaining("only Linux") });
  program("old/bwrap", "#!/bin/sh\necho 'bwrap: Unknown option --disable-userns' >&2\nexit 1\n");
  expect(supportAt({ PATH: here("old") })).toEqual({
    reason: expect.stringMatching(/Unknown option --disable-userns \(bubblewrap 0\.8 or newer is needed\)/),
  });
  program(
    "forbidden/bwrap",
    "#!/bin/sh\necho 'bwrap: No permissions to create new namespace, likely because the kernel does not allow it' >&2\nexit 1\n",
  );
  expect(supportAt({ PATH: here("forbidden") })).toEqual({
    reason: expect.stringMatching(/No permissions to create new namespace.*user namespaces are forbidden/),
  });
});

interface Opened {
  readonly upstream: Upstream;
  readonly lines: string[];
}

function open(
  command: readonly string[],
  sandbox: object | undefined,
  support?: SandboxSupport,
  more: object = {},
  environment: Record<string, string | undefined> = { PATH: process.env["PATH"] },
): Opened {
  const lines: string[] = [];
  const upstream = stdioUpstream(
    "s",
    stdioServer.parse({ command, processes: { max: 1 }, ...more, ...(sandbox !== undefined && { sandbox }) }),
    {
      logger: createLogger({ level: "info", format: "json" }, { write: (line) => lines.push(line) }),
      events: { listChanged() {}, resourceUpdated() {} },
      version: "0.0.0",
      baseDirectory: place,
      environment,
      ...(support !== undefined && { sandboxSupport: support }),
    },
  );
  opened.push(upstream);
  return { upstream, lines };
}

/** Answers every request with `here`. */
async function listening(): Promise<{ readonly port: number } & AsyncDisposable> {
  const server = createServer((_request, response) => response.end("here")).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => void server.close().closeAllConnections(),
  };
}

const echoCommand = fixtureCommand("echo-stdio");
const ask = async (upstream: Upstream, tool: string, args: Record<string, unknown> = {}) =>
  structuredOf(await upstream.send(toolCall(tool, args), ignored, never));

describe("where there is no sandbox", () => {
  const support = { reason: "bubblewrap is not installed" };

  test("the server runs, and the start and its state say that it is not confined", async () => {
    const { upstream, lines } = open(echoCommand, {}, support);
    await upstream.identity(never);
    expect(upstream.state().sandbox).toBe("Not confined: bubblewrap is not installed.");
    expect(lines.join()).toContain('"missing":"bubblewrap is not installed"');
  });

  test("a server that requires it is refused with the reason", () => {
    expect(() => open(echoCommand, { require: true }, support)).toThrow(
      expect.objectContaining({
        code: "settings_invalid",
        message: expect.stringMatching(/"s" requires a sandbox that cannot be had: bubblewrap is not installed/),
      }),
    );
  });

  test("a server that requires it is refused where the kernel counts neither memory nor processes for us", () => {
    const bare = { bwrap: "/usr/bin/bwrap", groups: undefined, groupsProblem: "EACCES" };
    expect(() => open(echoCommand, { require: true }, bare)).toThrow("looked at every 200 ms only");
  });

  test("a server without the setting says so", () => {
    expect(open(echoCommand, undefined).upstream.state().sandbox).toBe(
      "Not confined: there is no `sandbox` in its settings.",
    );
  });
});

describe.skipIf(findBubblewrap() === undefined)("in the sandbox", () => {
  const support = sandboxSupport(process.env);
  if (!("bwrap" in support)) return;
  /** As an ordinary user has it, for whom the kernel counts nothing. */
  const unprivileged = { ...support, groups: undefined, groupsProblem: "for a test" };

  test("a server answers, finds its own files, and says how it is confined", async () => {
    const { upstream } = open(echoCommand, {});
    expect((await upstream.identity(never)).info).toMatchObject({ name: "echo" });
    expect(upstream.state().sandbox).toMatch(
      /^Confined by bubblewrap: no network; 1024 MB and 64 processes and threads, /,
    );
  });

  test("programs find home, temporary folder and user where they look for them", async () => {
    const command = ["sh", "-c", 'cd && touch a "$TMPDIR/b" && id -un && pwd && cat /etc/hosts && echo $HTTP_PROXY.'];
    mkdirSync(here("home/you"), { recursive: true });
    const { stdout, status } = boxed(command, {}, { HOME: here("home/you"), PATH: "/usr/bin:/bin" });
    expect([status, stdout]).toEqual([0, `server\n${here("home/you")}\n127.0.0.1 localhost\n::1 localhost\n.\n`]);
    expect(existsSync(here("home/you/a"))).toBe(false);
  });

  test("the working directory keeps its name, and its content only where it was chosen", () => {
    file("work/settings.yaml", "x");
    const list = ["sh", "-c", "pwd; ls"];
    expect(boxed(list, {}, undefined, { workingDirectory: here("work") }).stdout).toBe(`${here("work")}\n`);
    expect(boxed(list, {}, undefined, { workingDirectory: here("work"), cwd: here("work") }).stdout).toBe(
      `${here("work")}\nsettings.yaml\n`,
    );
  });

  test("paths of read and write may be relative to the settings, in the home folder, within each other, and links", () => {
    file("shared/inner/file", "inner");
    file("home/me/.cache/x", "cached");
    symlinkSync(here("shared"), here("link"));
    const script =
      "cat shared/inner/file ~/.cache/x link/inner/file; echo new > shared/inner/new; echo no > shared/no || echo refused";
    const { stdout } = boxed(
      ["sh", "-c", script],
      { read: ["shared", "~/.cache", "link"], write: ["shared/inner"] },
      { HOME: here("home/me"), PATH: "/usr/bin:/bin" },
    );
    expect(stdout).toBe("innercachedinnerrefused\n");
    expect(readFileSync(here("shared/inner/new"), "utf8")).toBe("new\n");
  });

  test.each([
    ["a program that is not there", ["no-such-server"], {}, /the program no-such-server was not found/],
    [
      "a folder that is not there",
      ["sh"],
      { write: ["no-such-folder"] },
      /no-such-folder does not exist. Create it, or take it out of sandbox.write/,
    ],
    ["the root folder", ["sh"], { read: ["/"] }, /\/ cannot be given to a sandbox/],
    ["what the machine has in /proc", ["sh"], { read: ["/proc/1"] }, /\/proc\/1 cannot be given to a sandbox/],
  ])("%s is told by its name", async (_what, command, sandbox, message) => {
    const { upstream } = open(command, sandbox);
    expect(await codeOf(upstream.identity(never))).toBe("upstream_unavailable");
    expect(upstream.state().problem).toMatch(message);
  });

  test("a host that is refused is told to the operator, and counted", async () => {
    const { upstream, lines } = open(fixtureCommand("hostile-stdio"), { network: ["api.example:443"] });
    await ask(upstream, "proxied", { target: "http://evil.example/", host: "evil.example" });
    const said = lines.filter((line) => line.includes("refused a connection"));
    expect(said).toHaveLength(1);
    expect(said[0]).toContain('"target":"evil.example:80"');
    expect(upstream.state().sandbox).toContain("1 connection to another host was refused");
  });

  test("who used too much memory is told as the reason", async () => {
    const { upstream, lines } = open(fixtureCommand("hostile-stdio"), { memoryMb: 150 });
    const call = upstream.send(toolCall("memory", { mb: 300 }), ignored, never);
    await expect(call).rejects.toMatchObject({ code: "upstream_failed" });
    await waitFor(() => lines.join().includes("used more than 150 MB of memory"));
  });

  test("where the kernel does not count, memory is watched, and too much of it ends the server", async () => {
    const { upstream, lines } = open(fixtureCommand("hostile-stdio"), { memoryMb: 150 }, unprivileged);
    expect(upstream.state().sandbox).toContain("looked at every 200 ms only (for a test)");
    const call = upstream.send(toolCall("fill", { folder: "/tmp", mb: 50, keep: true }), ignored, never);
    expect(structuredOf(await call)).toMatchObject({ succeeded: true });
    await expect(
      upstream.send(toolCall("memoryInMany", { mb: 50, processes: 3 }), ignored, never),
    ).rejects.toMatchObject({ code: "upstream_failed" });
    await waitFor(() => lines.join().includes("used more than 150 MB of memory"));
    // It starts again, and what it kept in memory is gone.
    await waitFor(async () => (await codeOf(ask(upstream, "list", { path: "/tmp" }))) === "none");
  });

  test("where the kernel does not count, processes are watched", async () => {
    const { upstream, lines } = open(fixtureCommand("hostile-stdio"), { processes: 30 }, unprivileged);
    // As an ordinary user the kernel refuses the next one; as root the watch ends the server.
    const command = ["/bin/sh", "-c", "for i in $(seq 60); do sleep 15 & done; wait"];
    const outcome = await upstream
      .send(toolCall("run", { command }), ignored, never)
      .then(structuredOf, () => ({ succeeded: false }));
    expect(outcome["succeeded"]).toBe(false);
    if (process.getuid?.() === 0) await waitFor(() => lines.join().includes("had more than 30 processes"));
  });

  test("users with processes of their own have sandboxes of their own, each with its way out", async () => {
    await using target = await listening();
    const command = fixtureCommand("hostile-stdio");
    const sandbox = { network: [`127.0.0.1:${target.port}`] };
    const upstream = openUpstream("s", stdioServer.parse({ command, isolation: "per-user", sandbox }), {
      logger: silentLogger,
      events: { listChanged() {}, resourceUpdated() {} },
      version: "0.0.0",
      baseDirectory: place,
      environment: { PATH: process.env["PATH"] },
    });
    opened.push(upstream);
    const as = async (subject: string, tool: string, args: Record<string, unknown>) =>
      structuredOf(await upstream.send(toolCall(tool, args, { subject }), ignored, never));
    expect(await as("ann", "write", { path: "/tmp/note", text: "ann's" })).toMatchObject({ succeeded: true });
    expect(await as("ann", "read", { path: "/tmp/note" })).toMatchObject({ evidence: "ann's" });
    expect(await as("bob", "read", { path: "/tmp/note" })).toMatchObject({ succeeded: false });
    for (const subject of ["ann", "bob"])
      expect(await as(subject, "fetch", { url: `http://127.0.0.1:${target.port}/` })).toMatchObject({
        evidence: "200 here",
      });
    expect(upstream.state().sandbox).toMatch(/^Confined by bubblewrap/);
  });

  test("a server is asked to end by SIGTERM before everything is killed", async () => {
    const marker = here("ended");
    mkdirSync(here("notes"));
    const script = `trap 'echo yes > ${here("notes")}/ended; exit' TERM; echo ready; while :; do sleep 0.05; done`;
    const { box, child } = start(["sh", "-c", script], { write: ["notes"] });
    await once(child.stdout as NonNullable<typeof child.stdout>, "data");
    expect(existsSync(marker)).toBe(false);
    expect(box.terminate(child.pid as number)).toBe(true);
    await once(child, "exit");
    expect(readFileSync(join(here("notes"), "ended"), "utf8")).toBe("yes\n");
    await box.dispose();
  });

  // Who is an ordinary user has seen it in all the other tests.
  const asRoot = process.getuid?.() === 0 ? test : () => {};
  asRoot("an ordinary user has the same sandbox", async () => {
    const [node = "", fixture = ""] = fixtureCommand("hostile-stdio");
    const reached = spawnSync("/usr/bin/setpriv", [
      "--reuid=65534",
      "--regid=65534",
      "--clear-groups",
      node,
      "-e",
      `fs.accessSync(${JSON.stringify(fixture)})`,
    ]);
    expect(reached.status, "the checkout can be read by everybody").toBe(0);
    const box = sandboxedCommand(
      ["sh", "-c", "cat /proc/self/status | grep -E '^(NoNewPrivs|CapEff)'; ls /; cat /etc/shadow"],
      {
        settings: sandboxSettings.parse({}),
        baseDirectory: place,
        workingDirectory: "/",
        environment: { PATH: "/usr/bin:/bin" },
      },
      unprivileged,
    );
    const { stdout, stderr } = spawnSync(
      "/usr/bin/setpriv",
      ["--reuid=65534", "--regid=65534", "--clear-groups", ...box.command],
      { env: box.environment, encoding: "utf8" },
    );
    expect(stdout).toContain("NoNewPrivs:\t1");
    expect(stdout).toContain("CapEff:\t0000000000000000");
    expect(stderr).toContain("/etc/shadow: No such file");
    await box.dispose();
  });

  test("its control group is gone with it [control groups]", { skip: support.groups === undefined }, async () => {
    const { box, child } = start(["sh", "-c", "echo ready; read -r x"], {});
    await once(child.stdout as NonNullable<typeof child.stdout>, "data");
    const group = readFileSync(`/proc/${child.pid}/cgroup`, "utf8");
    const [name = ""] = /drawbridge-\d+-\d+/.exec(group) ?? [];
    expect(name).not.toBe("");
    await stopChild(child as never);
    await box.dispose();
    expect(spawnSync("find", ["/sys/fs/cgroup", "-name", name], { encoding: "utf8" }).stdout).toBe("");
  });

  type Start = { box: ReturnType<typeof sandboxedCommand>; child: ChildProcess };
  function start(command: readonly string[], settings: object): Start {
    if (!("bwrap" in support)) throw new Error(support.reason);
    const box = sandboxedCommand(
      command,
      {
        settings: sandboxSettings.parse(settings),
        baseDirectory: place,
        workingDirectory: place,
        environment: { PATH: "/usr/bin:/bin" },
      },
      support,
    );
    const [program = "", ...args] = box.command;
    const child = spawn(program, args, { env: box.environment, cwd: box.cwd, stdio: ["pipe", "pipe", "inherit"] });
    return { box, child };
  }
  function boxed(
    command: readonly string[],
    settings: object,
    environment: Record<string, string> = { PATH: "/usr/bin:/bin" },
    more: { workingDirectory?: string; cwd?: string } = {},
  ) {
    if (!("bwrap" in support)) throw new Error(support.reason);
    const box = sandboxedCommand(
      command,
      {
        settings: sandboxSettings.parse(settings),
        baseDirectory: place,
        workingDirectory: place,
        environment,
        ...more,
      },
      support,
    );
    const [program = "", ...args] = box.command;
    const result = spawnSync(program, args, { env: box.environment, cwd: box.cwd, encoding: "utf8" });
    void box.dispose();
    return result;
  }
});
