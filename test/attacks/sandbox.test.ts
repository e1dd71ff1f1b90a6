/** What a hostile stdio server tries, and does not get, inside its sandbox. Each attempt is shown to succeed without one. */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "../../src/observe/logger.ts";
import { sandboxSupport } from "../../src/upstream/sandbox.ts";
import { stdioServer } from "../../src/upstream/settings.ts";
import { stdioUpstream } from "../../src/upstream/stdio.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { alive, fixtureCommand, processesOf, waitFor } from "../fixtures/processes.ts";
import { findBubblewrap } from "../global/bubblewrap.ts";
import { end, ignored, never, structuredOf, toolCall } from "../upstream/support.ts";

interface Attempt {
  readonly succeeded: boolean;
  readonly evidence: unknown;
}

const root = process.getuid?.() === 0;
const support = sandboxSupport(process.env);
const countedByKernel = "bwrap" in support && support.groups !== undefined;

/** The folder of a gateway's settings, a home folder, and a folder that the server may use. */
const place = mkdtempSync(join(tmpdir(), "drawbridge-sandbox-"));
const folders = Object.fromEntries(
  ["settings", "settings/secrets", "settings/.drawbridge", "home", "home/.ssh", "data"].map((name) => [
    name,
    join(place, name),
  ]),
) as Record<string, string>;
for (const folder of Object.values(folders)) mkdirSync(folder);
const files = {
  key: join(place, "home/.ssh/id_ed25519"),
  settings: join(place, "settings/drawbridge.yaml"),
  secret: join(place, "settings/secrets/api-key"),
  store: join(place, "settings/.drawbridge/drawbridge.db"),
  data: join(place, "data/orders.csv"),
};
for (const [name, file] of Object.entries(files)) writeFileSync(file, `canary of ${name}`);

const opened: Upstream[] = [];
const closing: { close(): unknown }[] = [];
afterAll(async () => {
  await Promise.all(opened.map(end));
  for (const one of closing) one.close();
  rmSync(place, { recursive: true, force: true });
});

function hostile(sandbox: object | undefined, more: object = {}, args: readonly string[] = []): Upstream {
  const settings = stdioServer.parse({
    command: fixtureCommand("hostile-stdio", args),
    processes: { max: 1 },
    timeoutSeconds: 40,
    ...more,
    ...(sandbox !== undefined && { sandbox }),
  });
  const upstream = stdioUpstream("hostile", settings, {
    logger: silentLogger,
    events: { listChanged() {}, resourceUpdated() {} },
    version: "0.0.0",
    baseDirectory: join(place, "settings"),
    environment: { PATH: process.env["PATH"], HOME: folders["home"], GATEWAY_CANARY: "canary of the environment" },
    hidden: [files.settings],
  });
  opened.push(upstream);
  return upstream;
}

async function attempt(upstream: Upstream, name: string, args: Record<string, unknown> = {}): Promise<Attempt> {
  return structuredOf(await upstream.send(toolCall(name, args), ignored, never)) as unknown as Attempt;
}

describe.skipIf(findBubblewrap() === undefined)("a hostile server in its sandbox", () => {
  let outside: Upstream;
  let inside: Upstream;
  beforeAll(async () => {
    outside = hostile(undefined);
    inside = hostile({});
    await Promise.all([outside.identity(never), inside.identity(never)]);
  });

  /** The same attempt without a sandbox and within it. */
  async function both(name: string, args: Record<string, unknown> = {}): Promise<[Attempt, Attempt]> {
    return Promise.all([attempt(outside, name, args), attempt(inside, name, args)]);
  }
  async function fails(name: string, args: Record<string, unknown>, control = true): Promise<string> {
    const [without, within] = await both(name, args);
    if (control) expect(without, `control: ${JSON.stringify(without)}`).toMatchObject({ succeeded: true });
    expect(within).toMatchObject({ succeeded: false });
    return String(within.evidence);
  }

  describe("files", () => {
    test("it does not read a key in the home folder", async () => {
      expect(await fails("read", { path: files.key })).toContain("ENOENT");
    });
    test("it sees an empty home folder", async () => {
      const [without, within] = await both("list", { path: folders["home"] });
      expect(without.evidence).toContain(".ssh");
      expect(within).toEqual({ succeeded: true, evidence: [] });
    });
    test("it does not see who else has a home on the machine", async () => {
      expect(await fails("list", { path: "/root" }, root)).toMatch(/ENOENT|EACCES/);
      const [, users] = await both("read", { path: "/etc/passwd" });
      expect(String(users.evidence).trim().split("\n")).toHaveLength(2);
    });
    test("it does not read /etc/shadow", async () => {
      expect(await fails("read", { path: "/etc/shadow" }, root)).toContain("ENOENT");
    });
    test.each(["settings", "secret", "store"] as const)("it does not read the gateway's %s", async (name) => {
      expect(await fails("read", { path: files[name] })).toContain("ENOENT");
    });
    test.each(["settings", "secret", "store"] as const)(
      "it does not read the gateway's %s even where its working directory is the folder of the settings",
      async (name) => {
        const server = hostile({}, { cwd: "." });
        const { evidence, succeeded } = await attempt(server, "read", { path: files[name] });
        expect(succeeded ? evidence : "").toBe("");
        expect((await attempt(server, "list", { path: folders["settings"] })).succeeded).toBe(true);
        await end(server);
      },
    );
    test.each(["/proc/self/root", "/proc/1/root", "/proc/self/cwd/../../../../../../..", "/proc/thread-self/root"])(
      "it does not read them by way of %s",
      async (way) => {
        expect(await fails("read", { path: `${way}${files.secret}` }, way !== "/proc/1/root")).toMatch(/ENOENT|EACCES/);
      },
    );
    test("it does not change what it may read, nor anything of the system", async () => {
      const server = hostile({ read: [folders["data"]] });
      expect(await attempt(server, "read", { path: files.data })).toEqual({
        succeeded: true,
        evidence: "canary of data",
      });
      const targets = [
        files.data,
        join(place, "data/new"),
        fixtureCommand("hostile-stdio")[1],
        process.execPath,
        "/usr/x",
      ];
      for (const path of [...targets, "/x", "/etc/x", "/dev/x", "/bin/x", "/proc/self/comm"])
        expect(await attempt(server, "write", { path }), path).toMatchObject({ succeeded: false });
      for (const path of [files.data, process.execPath])
        expect(await attempt(server, "open", { path: `/proc/self/root${path}` }), path).toMatchObject({
          succeeded: false,
        });
      expect(readFileSync(files.data, "utf8")).toBe("canary of data");
      expect(await attempt(outside, "write", { path: join(place, "data/new") })).toMatchObject({ succeeded: true });
      await end(server);
    });
    test("it changes what it was given to write, and nothing beside it", async () => {
      const server = hostile({ write: [folders["data"]] });
      const path = join(place, "data/by-the-server");
      expect(await attempt(server, "write", { path, text: "allowed" })).toMatchObject({ succeeded: true });
      expect(readFileSync(path, "utf8")).toBe("allowed");
      // What it writes beside it is in its own /tmp, which is where this place lies.
      await attempt(server, "write", { path: join(place, "beside") });
      expect(existsSync(join(place, "beside"))).toBe(false);
      await end(server);
    });
    test("it keeps nothing in /tmp for the next process, and shows nothing there to another", async () => {
      expect(await attempt(inside, "write", { path: "/tmp/note" })).toMatchObject({ succeeded: true });
      const other = hostile({});
      expect(await attempt(other, "read", { path: "/tmp/note" })).toMatchObject({ succeeded: false });
      await end(other);
    });
    test("it does not write to the kernel's settings, which the user root outside would own", async () => {
      expect(await fails("open", { path: "/proc/sys/kernel/core_pattern" }, root)).toContain(root ? "EROFS" : "EACCES");
      expect(await fails("open", { path: "/proc/sysrq-trigger" }, false)).toMatch(/EROFS|EACCES|ENOENT/);
    });
    test("it does not fill the disk or the memory through its /tmp, home or /dev/shm", async () => {
      const server = hostile({ tmpMb: 8 });
      for (const folder of ["/tmp", folders["home"], "/dev/shm"])
        expect(await attempt(server, "fill", { folder, mb: 16 })).toMatchObject({
          evidence: expect.stringContaining("ENOSPC"),
        });
      expect(await attempt(outside, "fill", { folder: tmpdir(), mb: 16 })).toMatchObject({ succeeded: true });
      await end(server);
    });
  });

  describe("processes", () => {
    test("it sees no process but its own", async () => {
      const [without, within] = await both("processes");
      const seen = (one: Attempt) => (one.evidence as string[]).filter((command) => command !== "");
      expect(seen(without).length).toBeGreaterThan(3);
      // bubblewrap as the first process, and the server.
      expect(seen(within)).toHaveLength(2);
    });
    test("it neither signals the gateway nor reads its memory or environment", async () => {
      expect(await fails("signal", { pid: process.pid })).toContain("ESRCH");
      expect(await fails("read", { path: `/proc/${process.pid}/environ` })).toContain("ENOENT");
      expect(await fails("open", { path: `/proc/${process.pid}/mem` })).toContain("ENOENT");
    });
    test("it sees nothing of the gateway's environment", async () => {
      const [, within] = await both("environment");
      expect(JSON.stringify(within.evidence)).not.toContain("canary");
      const [, first] = await both("read", { path: "/proc/1/environ" });
      expect(String(first.evidence)).not.toContain("canary");
    });
    test("it has no handle but its three streams, and no channel to the gateway when it has a way out", async () => {
      const server = hostile({ network: ["api.example:443"] });
      const handles = async (upstream: Upstream) =>
        ((await attempt(upstream, "handles")).evidence as string[]).map(kind).sort();
      // The same as without a sandbox: neither the channel that handed out the socket, nor a file of the system's.
      expect(await handles(server)).toEqual(await handles(outside));
      expect(await handles(inside)).toEqual(await handles(outside));
      const environment = (await attempt(server, "environment")).evidence as Record<string, string>;
      expect(environment["NODE_CHANNEL_FD"]).toBeUndefined();
      await end(server);
    });
    test("it has no capability, gains none from setuid programs, and cannot make namespaces or mounts", async () => {
      const [without, within] = await both("read", { path: "/proc/self/status" });
      expect(String(without.evidence)).toMatch(/NoNewPrivs:\t0/);
      for (const line of [/NoNewPrivs:\t1/, /CapEff:\t0{16}/, /CapPrm:\t0{16}/, /CapBnd:\t0{16}/, /CapAmb:\t0{16}/])
        expect(String(within.evidence)).toMatch(line);
      await fails("run", { command: ["/usr/bin/unshare", "--user", "true"] }, root);
      await fails("run", { command: ["/usr/bin/unshare", "--mount", "true"] }, root);
      // Without a sandbox these would change the machine for whatever else runs on it, so that is not tried.
      for (const command of ["mount -t tmpfs none /tmp", "mount -o remount,rw /usr", "umount /proc"])
        expect(await attempt(inside, "run", { command: ["/bin/sh", "-c", command] })).toMatchObject({
          succeeded: false,
        });
    });
  });

  describe("the network", () => {
    test("it does not reach what listens on the machine's loopback, the gateway itself among it", async () => {
      const server = createTcpServer((socket) => socket.end("reached\r\n\r\n")).listen(0, "127.0.0.1");
      const port = await portOf(server);
      for (const host of ["127.0.0.1", "localhost"])
        expect(await fails("connect", { host, port })).toMatch(/ECONNREFUSED|ENOTFOUND|EAI_AGAIN|no answer/);
      await fails("fetch", { url: `http://127.0.0.1:${port}/` }, false);
    });
    test("it reaches no address at all: metadata services, private and public networks, IPv6", async () => {
      for (const host of ["169.254.169.254", "10.0.0.1", "192.0.2.1", "2001:db8::1", "fd00:ec2::254"])
        expect((await attempt(inside, "connect", { host, port: 80 })).evidence, host).toMatch(
          /ENETUNREACH|EADDRNOTAVAIL/,
        );
      expect((await attempt(inside, "read", { path: "/proc/net/route" })).evidence).toMatch(/^Iface[^\n]*\n$/);
    });
    test("it asks no name server", async () => {
      const names = createSocket("udp4", (_message, from) => names.send("answer", from.port, from.address));
      names.bind(0, "127.0.0.1");
      await once(names, "listening");
      closing.push(names);
      await fails("datagram", { host: "127.0.0.1", port: names.address().port });
      expect((await attempt(inside, "datagram", { host: "192.0.2.53", port: 53 })).evidence).toMatch(/ENETUNREACH/);
    });
    test("it reaches neither abstract sockets nor the files of sockets", async () => {
      const path = join(place, "socket");
      for (const name of [`\0drawbridge-test-${process.pid}`, path]) {
        const server = createTcpServer((socket) => socket.end("reached")).listen(name);
        await once(server, "listening");
        closing.push(server);
        await fails("connect", { path: name });
      }
    });
  });

  describe("the way out", () => {
    test("it reaches the host and port on its list by http and through a tunnel, and nothing else", async () => {
      const listed = await echo("listed");
      const other = await echo("other");
      const server = hostile({ network: [`127.0.0.1:${listed}`] });
      expect(await attempt(server, "proxied", { target: `http://127.0.0.1:${listed}/a`, host: "x" })).toEqual({
        succeeded: true,
        // The host that was checked, not the one that was written beside it.
        evidence: `200 listed /a 127.0.0.1:${listed}`,
      });
      expect(await attempt(server, "fetch", { url: `http://127.0.0.1:${listed}/b` })).toEqual({
        succeeded: true,
        evidence: `200 listed /b 127.0.0.1:${listed}`,
      });
      for (const target of [
        `http://127.0.0.1:${other}/`,
        `http://localhost:${listed}/`,
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        `http://2130706433:${listed}/`,
        `http://0x7f.1:${listed}/`,
        `http://127.1:${listed}/`,
        `http://0177.0.0.1:${listed}/`,
        `http://[::1]:${listed}/`,
        `http://[::ffff:127.0.0.1]:${listed}/`,
        `http://127.0.0.1.:${listed}/`,
        `http://127.0.0.1:${listed}@127.0.0.1:${other}/`,
        `http://127.0.0.1%3a${listed}:${other}/`,
        `https://127.0.0.1:${listed}/`,
        `//127.0.0.1:${listed}/`,
        "/",
      ]) {
        const { evidence } = await attempt(server, "proxied", { target, host: `127.0.0.1:${listed}` });
        expect(evidence, target).toMatch(/^40[03] drawbridge: /);
      }
      expect(server.state().sandbox).toContain(`network only to 127.0.0.1:${listed}`);
      await end(server);
    });

    test.each([
      [
        "another port",
        (listed: number, other: number) => `CONNECT 127.0.0.1:${other} HTTP/1.1\r\nHost: 127.0.0.1:${listed}\r\n\r\n`,
      ],
      [
        "a decimal address",
        (listed: number) => `CONNECT 2130706433:${listed} HTTP/1.1\r\nHost: 127.0.0.1:${listed}\r\n\r\n`,
      ],
      ["an IPv6 spelling", (listed: number) => `CONNECT [::ffff:7f00:1]:${listed} HTTP/1.1\r\n\r\n`],
      ["no port", () => "CONNECT 127.0.0.1 HTTP/1.1\r\n\r\n"],
      ["a URL", (listed: number) => `CONNECT http://127.0.0.1:${listed}/ HTTP/1.1\r\n\r\n`],
      [
        "a user name",
        (listed: number, other: number) => `CONNECT 127.0.0.1:${listed}@127.0.0.1:${other} HTTP/1.1\r\n\r\n`,
      ],
      [
        "a header within the target",
        (listed: number, other: number) =>
          `CONNECT 127.0.0.1:${other}\tHTTP/1.1\r\nX:127.0.0.1:${listed} HTTP/1.1\r\n\r\n`,
      ],
      [
        "two lines in one",
        (listed: number, other: number) => `CONNECT 127.0.0.1:${other}\nHost: 127.0.0.1:${listed} HTTP/1.1\r\n\r\n`,
      ],
    ])("a tunnel asked for with %s is refused", async (_name, bytes) => {
      const listed = await echo("listed");
      const other = await echo("other");
      const server = hostile({ network: [`127.0.0.1:${listed}`] });
      const tunnel = (send: string) => attempt(server, "connect", { host: "127.0.0.1", port: 3128, send });
      const good = await tunnel(
        `CONNECT 127.0.0.1:${listed} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`,
      );
      expect(good.evidence).toMatch(/^HTTP\/1.1 200 .*listed/s);
      const { evidence } = await tunnel(bytes(listed, other));
      expect(evidence).toMatch(/^HTTP\/1.1 40[03] /);
      expect(evidence).not.toMatch(/^HTTP\/1.1 200/m);
      await end(server);
    });

    test("a second request in a tunnel's first packet is for the tunnel, not for the way out", async () => {
      const listed = await echo("listed");
      const other = await echo("other");
      const server = hostile({ network: [`127.0.0.1:${listed}`] });
      const send = `CONNECT 127.0.0.1:${listed} HTTP/1.1\r\n\r\nCONNECT 127.0.0.1:${other} HTTP/1.1\r\n\r\n`;
      const { evidence } = await attempt(server, "connect", { host: "127.0.0.1", port: 3128, send });
      expect(evidence).not.toMatch(/other/);
      expect(String(evidence).match(/200 Connection established/g) ?? []).toHaveLength(1);
      await end(server);
    });

    test("a server has its own list, not that of another", async () => {
      const mine = await echo("mine");
      const theirs = await echo("theirs");
      const one = hostile({ network: [`127.0.0.1:${mine}`] });
      const two = hostile({ network: [`127.0.0.1:${theirs}`] });
      const get = (server: Upstream, port: number) =>
        attempt(server, "proxied", { target: `http://127.0.0.1:${port}/`, host: "x" });
      expect((await get(one, mine)).evidence).toMatch(/^200 mine/);
      expect((await get(two, theirs)).evidence).toMatch(/^200 theirs/);
      expect((await get(one, theirs)).evidence).toMatch(/^403/);
      expect((await get(two, mine)).evidence).toMatch(/^403/);
      await Promise.all([end(one), end(two)]);
    });
  });

  describe("limits", () => {
    test("a fork bomb ends at the number of processes that it may have", async () => {
      const server = hostile({ processes: 40 });
      expect(await attempt(outside, "fork", { wanted: 60 })).toMatchObject({ succeeded: true });
      // The kernel refuses the next one, or everything is killed for it.
      const { succeeded } = await attempt(server, "fork", { wanted: 60 }).catch(() => ({ succeeded: false }));
      expect(succeeded).toBe(false);
      await end(server);
    });

    test("who takes more memory than it may is ended, and nobody else", async () => {
      const server = hostile({ memoryMb: 200 });
      expect(await attempt(outside, "memory", { mb: 300 })).toMatchObject({ succeeded: true });
      await expect(attempt(server, "memory", { mb: 300 })).rejects.toMatchObject({ code: "upstream_failed" });
      expect(await attempt(inside, "memory", { mb: 10 })).toMatchObject({ succeeded: true });
      await end(server);
    });

    test.each(["/tmp", "/dev/shm"])(
      "memory that is hidden in %s counts [control groups]",
      { skip: !countedByKernel },
      async (folder) => {
        const server = hostile({ memoryMb: 200, tmpMb: 1000 });
        const { succeeded } = await attempt(server, "fill", { folder, mb: 300, keep: true }).catch(() => ({
          succeeded: false,
        }));
        expect(succeeded).toBe(false);
        await end(server);
      },
    );

    test("memory of many processes is counted together", async () => {
      const server = hostile({ memoryMb: 300 });
      const many = { mb: 60, processes: 5 };
      expect(await attempt(outside, "memoryInMany", many)).toMatchObject({ succeeded: true });
      const { succeeded } = await attempt(server, "memoryInMany", many).catch(() => ({ succeeded: false }));
      expect(succeeded).toBe(false);
      await end(server);
    });
  });

  describe("its end", () => {
    test.each(["closed", "killed with -9"])("nothing of it outlives a gateway that is %s", async (how) => {
      await using held = await holder(`outlive-${process.pid}-${how.length}`);
      const family = (await processesOf(held.process.pid as number)).map(({ pid }) => pid);
      if (how === "closed") held.process.stdin.end();
      else held.process.kill("SIGKILL");
      await waitFor(async () => (await held.left()).length === 0);
      await waitFor(async () => !(await Promise.all(family.map(alive))).includes(true));
    });

    test("without a sandbox, what gave itself a session of its own is left", async () => {
      await using held = await holder(`outlive-${process.pid}-bare`, "bare");
      held.process.stdin.end();
      await once(held.process, "exit");
      expect((await held.left()).length).toBeGreaterThan(0);
    });
  });
});

interface Holder extends AsyncDisposable {
  readonly process: ChildProcessByStdio<Writable, Readable, null>;
  /** What runs of its server. */
  left(): Promise<number[]>;
}

/** A gateway with a server that leaves processes behind, once they are there. */
async function holder(marker: string, ...more: string[]): Promise<Holder> {
  const script = fileURLToPath(new URL("../upstream/sandbox-holder.ts", import.meta.url));
  const process = spawn(globalThis.process.execPath, [script, marker, ...more], { stdio: ["pipe", "pipe", "inherit"] });
  const left = async () => (await processesOf(marker)).map(({ pid }) => pid).filter((pid) => pid !== process.pid);
  await once(process.stdout, "data");
  // The server, and two shells that gave themselves sessions of their own.
  await waitFor(async () => (await left()).length >= 3);
  return {
    process,
    left,
    async [Symbol.asyncDispose]() {
      process.kill("SIGKILL");
      for (const pid of await left()) {
        try {
          globalThis.process.kill(pid, "SIGKILL");
        } catch {
          // It went by itself.
        }
      }
    },
  };
}

/** `3 pipe:[123]` without what differs each time. */
const kind = (handle: string) => handle.replace(/^\d+ /, "").replaceAll(/\d+/g, "");

async function portOf(server: Server): Promise<number> {
  await once(server, "listening");
  closing.push(server);
  return (server.address() as AddressInfo).port;
}

/** A server that says its name, and what it was asked. */
async function echo(name: string): Promise<number> {
  const server = createServer((request, response) => {
    response.setHeader("connection", "close");
    response.end(`${name} ${request.url} ${request.headers.host}`);
  }).listen(0, "127.0.0.1");
  return portOf(server);
}
