/** A running gateway takes a changed settings file and changed secrets: all of it or nothing, without a failed call. */
import { createHash } from "node:crypto";
import { chmodSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { SettingsProblems } from "../../src/config/problems.ts";
import { type Logger, silentLogger } from "../../src/observe/logger.ts";
import { world } from "../e2e/world.ts";
import { alive, type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { type Filed, filed, TESTER } from "./filed.ts";

let here: Filed | undefined;
const fixtures: Fixture[] = [];
afterEach(async () => {
  await here?.[Symbol.asyncDispose]();
  here = undefined;
  await Promise.all(fixtures.splice(0).map((fixture) => fixture.stop()));
});

const start = async (...args: Parameters<typeof filed>): Promise<Filed> => {
  here = await filed(...args);
  return here;
};

const echo = { command: fixtureCommand("echo-stdio") };
const leaky = (more: object = {}) => ({ command: fixtureCommand("leaky"), ...more });
const digest = (text: string) => createHash("sha256").update(text).digest("hex");
const pidOf = async (at: Filed, tool: string) =>
  (await at.call(tool)).result?.structuredContent?.["pid"] as number | undefined;

describe("a changed settings file", () => {
  test("adds, replaces and removes servers, and clients see what they offer now", async () => {
    const at = await start({ servers: { one: echo } });
    expect(await at.tools()).toContain("echo");
    const old = await pidOf(at, "count");

    at.write({ servers: { one: echo, two: leaky() } });
    expect(await at.reloaded()).toEqual(["servers.two added"]);
    await waitFor(async () => (await at.tools()).includes("two_digest"));
    expect(await at.tools()).toContain("one_echo");
    expect(await pidOf(at, "one_count")).toBe(old);

    at.write({ servers: { one: { ...echo, environment: { MODE: "other" } }, two: leaky() } });
    expect(await at.reloaded()).toEqual(["servers.one replaced"]);
    expect(await pidOf(at, "one_count")).not.toBe(old);
    const second = await pidOf(at, "two_digest");

    at.write({ servers: { two: leaky() } });
    expect(await at.reloaded()).toEqual(["servers.one removed"]);
    expect(await at.tools()).not.toContain("one_echo");
    expect(await at.tools()).toContain("digest");
    expect(await pidOf(at, "digest")).toBe(second);
    expect((await at.call("one_echo", { text: "x" })).error?.message).toMatch(/^Unknown tool/);
    await waitFor(async () => !(await alive(old ?? 0)));
  });

  test("that was written while the gateway started is taken too", async () => {
    const at = await start({ servers: { one: echo } }, { meanwhile: { servers: { one: echo, two: leaky() } } });
    await waitFor(async () => (await at.tools()).includes("two_digest"));
  });

  test("that says the same changes nothing", async () => {
    const at = await start({ servers: { one: echo } });
    const pid = await pidOf(at, "count");
    at.writeText(`${readFileSync(at.file, "utf8")}\n`);
    expect(await at.reload()).toEqual([]);
    expect(await pidOf(at, "count")).toBe(pid);
  });

  test("tells connected clients that the lists changed", async () => {
    const at = await start({ servers: { one: echo } });
    const changed: string[] = [];
    const client = await at.world.legacy();
    client.fallbackNotificationHandler = async ({ method }) => void changed.push(method);
    at.write({ servers: { one: echo, two: leaky() } });
    await at.reload();
    await waitFor(() => changed.includes("notifications/tools/list_changed"));
    await waitFor(async () => (await client.listTools()).tools.some(({ name }) => name === "two_digest"));
  });

  test("with a mistake is refused as a whole, with every problem, and all goes on as before", async () => {
    const at = await start({ servers: { one: echo } });
    const pid = await pidOf(at, "count");
    at.write({ servers: { one: { ...echo, timeoutSecond: 3 }, two: leaky() }, log: { level: "loud" } });
    const refusal = await at.reload().then(
      () => undefined,
      (error: SettingsProblems) => error,
    );
    expect(refusal?.code).toBe("settings_invalid");
    expect(refusal?.message).toContain('servers.one.timeoutSecond: unknown key; did you mean "timeoutSeconds"?');
    expect(refusal?.message).toMatch(/log\.level: "loud" is not one of/);
    at.writeText("servers: {");
    await expect(at.reload()).rejects.toThrow("not valid YAML");
    rmSync(at.file);
    await expect(at.reload()).rejects.toThrow("there is no such file");
    expect(await pidOf(at, "count")).toBe(pid);
    expect(await at.tools()).not.toContain("two_digest");
  });

  test("with a server that cannot be used as it is written changes nothing either", async () => {
    const at = await start({ servers: { one: echo } });
    at.write({
      servers: {
        one: { ...echo, environment: { MODE: "x" } },
        two: { command: ["no-such-program"], cwd: "no-such-folder" },
      },
    });
    await expect(at.reload()).rejects.toMatchObject({ code: "settings_invalid" });
    expect(await at.tools()).not.toContain("two_digest");
  });

  test("says of each other setting that it needs a restart, and goes on saying so", async () => {
    const at = await start({ servers: { one: echo } });
    at.write({ telemetry: { serviceName: "other" }, interaction: { answerSeconds: 30 } });
    const said = await at.reloaded();
    expect(said.sort()).toEqual(["interaction.answerSeconds restart", "telemetry.serviceName restart"]);
    expect((await at.reloaded()).sort()).toEqual(said);
  });

  test("whose new server cannot be reached keeps the old one and says why; the next try puts it in place", async () => {
    const at = await start({ servers: { one: echo } });
    const pid = await pidOf(at, "count");
    const broken = { command: [process.execPath, "-e", "process.exit(3)"], startTimeoutSeconds: 3 };
    at.write({ servers: { one: broken } });
    const [change] = await at.reload();
    expect(change).toMatchObject({ setting: "servers.one", change: "kept" });
    expect(change?.problem).toMatch(/The new version of the server "one" cannot be reached: /);
    expect(await pidOf(at, "count")).toBe(pid);
    at.write({ servers: { one: { ...echo, environment: { MODE: "x" } } } });
    expect(await at.reloaded()).toEqual(["servers.one replaced"]);
    expect(await pidOf(at, "count")).not.toBe(pid);
  }, 30_000);

  test("of which two are taken at once are taken one after the other", async () => {
    const at = await start({ servers: { one: echo } });
    at.write({ servers: { one: echo, two: leaky() } });
    const [first, second] = await Promise.all([at.reloaded(), at.reloaded()]);
    expect(first).toEqual(["servers.two added"]);
    expect(second).toEqual([]);
  });

  test("is in the audit log: who, and which settings, without their values", async () => {
    const at = await start({ servers: { one: echo } });
    at.write({ servers: { one: { ...echo, environment: { MODE: "a-value-of-the-settings" } }, two: leaky() } });
    await at.reload();
    at.writeText("servers: []");
    await at.reload().catch(() => {});
    const [good, bad] = await at.deeds();
    expect(good).toMatchObject({
      kind: "configuration",
      action: "settings-reloaded",
      outcome: "permitted",
      details: { added: ["servers.two"], replaced: ["servers.one"], operator: "tester", via: "signal" },
    });
    expect(bad).toMatchObject({ action: "settings-reloaded", outcome: "refused", error: { code: "settings_invalid" } });
    expect(JSON.stringify(good)).not.toContain("a-value-of-the-settings");
  });

  test("a gateway without a file has nothing to read again, and says so", async () => {
    await using one = await world({ servers: { one: echo } });
    await expect(one.gateway.reload(TESTER)).rejects.toThrow("started without a settings file");
  });
});

describe("a changed secret", () => {
  /** Calls all the time; what failed. */
  function busy(at: Filed, tool: string) {
    const failures: unknown[] = [];
    let calls = 0;
    let stop = false;
    const caller = async () => {
      while (!stop) {
        const answer = await at.call(tool);
        calls++;
        if (answer.result?.structuredContent === undefined) failures.push(answer);
      }
    };
    const callers = Promise.all([caller(), caller(), caller(), caller()]);
    return {
      async end() {
        stop = true;
        await callers;
        expect(failures).toEqual([]);
        expect(calls).toBeGreaterThan(10);
      },
    };
  }
  const keyOf = async (at: Filed, tool = "digest") => (await at.call(tool)).result?.structuredContent?.["key"];

  test("in the environment of a program is taken without a failed call", async () => {
    const at = await start(
      { servers: { one: leaky({ environment: { KEY: "${secret:orders}" } }) } },
      { secrets: { orders: "the-first-key" } },
    );
    expect(await keyOf(at)).toBe(digest("the-first-key"));
    const load = busy(at, "digest");
    at.secret("orders", "the-second-key");
    await waitFor(async () => (await keyOf(at)) === digest("the-second-key"), 30_000);
    await load.end();
    const records = await at.deeds();
    expect(records).toEqual([
      expect.objectContaining({
        action: "secrets-changed",
        details: { secrets: ["orders"], replaced: ["servers.one"], via: "secrets" },
      }),
    ]);
    expect(JSON.stringify(records)).not.toContain("-key");
  }, 60_000);

  test("in a header is taken without a failed call, and the one before it is not sent any more", async () => {
    const fixture = await startFixture("leaky", ["--http"]);
    fixtures.push(fixture);
    const at = await start(
      { servers: { one: { url: `${fixture.origin}/mcp`, headers: { "x-api-key": "${secret:orders}" } } } },
      { secrets: { orders: "the-first-key" } },
    );
    const sent = async () => {
      const stats = (await (await fetch(`${fixture.origin}/stats`)).json()) as { headers: Record<string, string>[] };
      return stats.headers.map((headers) => headers["x-api-key"]);
    };
    const load = busy(at, "digest");
    // As tools do that replace a file instead of writing into it.
    const next = join(at.folder, "secrets", ".next");
    writeFileSync(next, "the-second-key", { mode: 0o600 });
    renameSync(next, join(at.folder, "secrets", "orders"));
    await waitFor(async () => (await keyOf(at)) === digest("the-second-key"), 30_000);
    await load.end();
    // The end of the old one's session is the last that is sent with the old key.
    const seen = await waitFor(async () => {
      const before = await sent();
      await keyOf(at);
      const now = await sent();
      return now.slice(before.length).every((key) => key === "the-second-key") && now;
    });
    for (let more = 0; more < 20; more++) await keyOf(at);
    expect(new Set((await sent()).slice(seen.length))).toEqual(new Set(["the-second-key"]));
  }, 60_000);

  test("of a command is asked for by its time", async () => {
    const at = await start({
      secrets: {
        orders: {
          command: [process.execPath, "-p", 'require("node:fs").readFileSync("value", "utf8")'],
          refreshSeconds: 1,
        },
      },
      servers: { one: leaky({ environment: { KEY: "${secret:orders}" } }) },
    }).catch((error: unknown) => String(error));
    // The command has nothing to print yet: the gateway does not start, and says why without what the command said.
    expect(at).toMatch(/secret orders is not provided: its command ended with 1/);
    expect(at).not.toContain("ENOENT");
  });

  test("of a command is put in place", async () => {
    const script = 'console.log("key-of-second-" + Math.floor(Date.now() / 3000))';
    const at = await start({
      secrets: { orders: { command: [process.execPath, "-e", script], refreshSeconds: 1 } },
      servers: { one: leaky({ environment: { KEY: "${secret:orders}" } }) },
    });
    const first = await keyOf(at);
    await waitFor(async () => (await keyOf(at)) !== first, 30_000);
  }, 60_000);

  test("that is gone keeps its last value, and is reported until it is back", async () => {
    const at = await start(
      {
        servers: { one: leaky({ environment: { KEY: "${secret:orders}" } }) },
        secrets: { orders: { file: "secrets/orders" } },
      },
      { secrets: { orders: "the-first-key" } },
    );
    const lost = async () => {
      const { access_token } = await at.world.tokens();
      const answer = await fetch(`${at.world.origin}/admin/servers`, {
        headers: { authorization: `Bearer ${access_token}` },
      });
      return ((await answer.json()) as { lostSecrets: Record<string, string> }).lostSecrets;
    };
    rmSync(join(at.folder, "secrets", "orders"));
    await waitFor(async () => (await lost())["orders"] !== undefined, 30_000);
    expect(await lost()).toEqual({ orders: "secret orders is not provided: its file cannot be read (ENOENT)" });
    expect(await keyOf(at)).toBe(digest("the-first-key"));
    at.secret("orders", "the-second-key");
    await waitFor(async () => (await keyOf(at)) === digest("the-second-key"), 30_000);
    expect(await lost()).toEqual({});
  }, 60_000);

  test("whose server does not start with it keeps the server that runs, and is tried again", async () => {
    const at = await start(
      {
        servers: {
          one: {
            command: [
              process.execPath,
              "-e",
              `if (process.env.KEY === "bad-key-value") process.exit(4); else import(${JSON.stringify(fixtureCommand("leaky")[1])})`,
            ],
            environment: { KEY: "${secret:orders}" },
            startTimeoutSeconds: 5,
          },
        },
      },
      { secrets: { orders: "the-first-key" } },
    );
    const pid = await pidOf(at, "digest");
    at.secret("orders", "bad-key-value");
    await waitFor(async () => (await at.deeds()).length > 0, 30_000);
    expect(await keyOf(at)).toBe(digest("the-first-key"));
    expect(await pidOf(at, "digest")).toBe(pid);
    expect((await at.deeds())[0]).toMatchObject({ details: { kept: ["servers.one"] } });
    at.secret("orders", "the-third-key");
    await waitFor(async () => (await keyOf(at)) === digest("the-third-key"), 30_000);
  }, 90_000);
});

describe("`secrets:`", () => {
  test("takes a file, a variable and a command, and no entry means the usual places", async () => {
    const at = await start(
      {
        secrets: {
          a: { file: "elsewhere" },
          b: { environment: "PATH" },
          c: {
            command: [
              process.execPath,
              "-p",
              "'from ' + process.argv.length + (process.env.DRAWBRIDGE_SECRET_X ?? '')",
            ],
          },
        },
        servers: {
          a: leaky({ environment: { KEY: "${secret:d}" } }),
          c: leaky({ environment: { KEY: "${secret:c}" } }),
          b: leaky({ environment: { KEY: "${secret:b}" } }),
        },
      },
      { secrets: { d: "usual" } },
    );
    expect((await at.call("a_digest")).result?.structuredContent?.["key"]).toBe(digest("usual"));
    expect((await at.call("b_digest")).result?.structuredContent?.["key"]).toBe(digest(process.env["PATH"] ?? ""));
    expect((await at.call("c_digest")).result?.structuredContent?.["key"]).toBe(digest("from 1"));
  });

  test.each([
    ["a file that is not there", { file: "nowhere" }, "its file cannot be read (ENOENT)"],
    [
      "a variable that is not set",
      { environment: "NOT_SET_ANYWHERE" },
      "the environment variable NOT_SET_ANYWHERE is not set",
    ],
    ["a program that is not there", { command: ["no-such-program"] }, "its command cannot be started (ENOENT)"],
    [
      "a command that fails",
      { command: ["sh", "-c", "echo said-in-vain >&2; echo said-in-vain; exit 3"] },
      "its command ended with 3",
    ],
    ["a command that prints nothing", { command: ["true"] }, "its command printed nothing"],
    [
      "a command that does not end",
      { command: ["sleep", "60"], timeoutSeconds: 0.3 },
      "its command took longer than 0.3 seconds",
    ],
    ["a command that prints too much", { command: ["yes"] }, "its command printed more than 65536 bytes"],
  ])("%s is a problem in the place of the reference, and nothing of its output is shown", async (_, source, reason) => {
    const problem = await start({
      secrets: { x: source },
      servers: { one: leaky({ environment: { KEY: "${secret:x}" } }) },
    }).then(
      () => "none",
      (error: Error) => error.message,
    );
    expect(problem).toMatch(/drawbridge\.yaml:\d+:\d+ servers\.one\.environment\.KEY: secret x is not provided: /);
    expect(problem).toContain(reason);
    expect(problem).not.toContain("said-in-vain");
  });

  test("a secret cannot be needed to find another", async () => {
    await expect(
      start({ secrets: { x: { file: "${secret:y}" } }, servers: { one: echo } }, { secrets: { y: "v" } }),
    ).rejects.toThrow("a secret cannot be needed to find another");
  });

  test("a file that everyone can read is warned of, at a reload too", async () => {
    const warnings: string[] = [];
    const logger: Logger = { ...silentLogger, warn: (_, message) => void warnings.push(message), child: () => logger };
    const server = leaky({ environment: { KEY: "${secret:x}" } });
    const at = await start({ servers: { one: server } }, { secrets: { x: "value-of-x" }, logger });
    chmodSync(join(at.folder, "secrets", "x"), 0o644);
    at.write({ servers: { one: server, two: echo } });
    expect(await at.reloaded()).toEqual(["servers.two added"]);
    expect(warnings).toContain("secret x: its file can be read by everyone on this machine; chmod 600 it");
  });
});
