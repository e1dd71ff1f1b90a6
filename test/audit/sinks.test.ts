/** Sinks that are files, standard output and HTTP; what is true of all sinks is shown with them. */
import { appendFile, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { leafHash } from "../../src/audit/merkle.ts";
import { retire } from "../../src/audit/retention.ts";
import { openCursor, placesIn } from "../../src/audit/sinks/cursor.ts";
import { auditExportSettings } from "../../src/audit/sinks/settings.ts";
import { reachedBy, type Sinks } from "../../src/audit/sinks/sinks.ts";
import { createLogger } from "../../src/observe/logger.ts";
import { idsOf, linesOf, SIGNER, type SinkLog, sinkLog, until } from "./sink-log.ts";

let folder: string;
let log: SinkLog;
const open: Sinks[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-sinks-"));
  log = sinkLog();
});
afterEach(async () => {
  for (const sinks of open.splice(0)) await sinks.close();
  await rm(folder, { recursive: true, force: true });
});

function started(settings: readonly object[], more: Parameters<SinkLog["sinks"]>[1] = {}): Sinks {
  const sinks = log.sinks(settings, { folder, ...more });
  open.push(sinks);
  return sinks;
}
const caughtUp = (sinks: Sinks) =>
  until(
    async () => {
      const newest = (await log.store.audit.read({ limit: 1, newest: true }))[0]?.sequence ?? 0;
      return sinks.state().every(({ sequence, behind }) => sequence >= newest && behind === 0);
    },
    `caught up: ${JSON.stringify(sinks.state())}`,
  );
const linesIn = async (name: string) => linesOf(await readFile(join(folder, name), "utf8"));

describe("a file", () => {
  test("has the text of each record on a line, in order, so that the chain can be checked by line", async () => {
    await log.write(600);
    const sinks = started([{ file: { path: "audit.jsonl" } }]);
    await caughtUp(sinks);
    const lines = await linesIn("audit.jsonl");
    expect(lines).toEqual(await log.texts());
    let prev = "";
    for (const line of lines) {
      expect((JSON.parse(line) as { chain: { prev: string } }).chain.prev).toBe(prev);
      prev = leafHash(line);
    }
    expect((await stat(join(folder, "audit.jsonl"))).mode & 0o777).toBe(0o600);
  });

  test("goes on after a restart where it was: nothing is lost, and nothing comes twice", async () => {
    await log.write(30);
    const first = started([{ file: { path: "audit.jsonl" } }]);
    await caughtUp(first);
    await first.close();
    await log.write(30);
    await caughtUp(started([{ file: { path: "audit.jsonl" } }]));
    expect(await linesIn("audit.jsonl")).toEqual(await log.texts());
  });

  test("loses the half line of a crash, whose record comes again", async () => {
    await log.write(5);
    const first = started([{ file: { path: "audit.jsonl" } }]);
    await caughtUp(first);
    await first.close();
    await appendFile(join(folder, "audit.jsonl"), '{"v":2,"id":"half');
    await log.write(5);
    await caughtUp(started([{ file: { path: "audit.jsonl" } }]));
    expect(await linesIn("audit.jsonl")).toEqual(await log.texts());
  });

  test("is followed by the next one when it is large enough, and only so many are kept", async () => {
    const sinks = started([{ file: { path: "audit.jsonl", maxBytes: 4096, keepFiles: 2 } }]);
    for (let batch = 0; batch < 8; batch++) {
      await log.write(5);
      await caughtUp(sinks);
    }
    const files = (await readdir(folder)).sort();
    expect(files).toHaveLength(3);
    const texts = (await Promise.all(files.map(linesIn))).flat();
    expect(new Set(texts).size).toBe(texts.length);
    // The newest are there, without a gap.
    const [newest, ...finished] = files;
    const inOrder = (await Promise.all([...finished, newest ?? ""].map(linesIn))).flat();
    expect(inOrder).toEqual((await log.texts()).slice(-inOrder.length));
  });

  test("is followed by the next one at midnight, if that was asked for", async () => {
    let now = Date.now();
    const sinks = started([{ file: { path: "audit.jsonl", daily: true } }], { clock: () => now });
    await log.write(3);
    await caughtUp(sinks);
    now += 86_400_000;
    await log.write(3);
    await caughtUp(sinks);
    expect(await readdir(folder)).toHaveLength(2);
  });

  test("that somebody has moved away is made anew", async () => {
    const sinks = started([{ file: { path: "audit.jsonl" } }]);
    await log.write(3);
    await caughtUp(sinks);
    await rename(join(folder, "audit.jsonl"), join(folder, "moved"));
    await log.write(3);
    await caughtUp(sinks);
    expect([...(await linesIn("moved")), ...(await linesIn("audit.jsonl"))]).toEqual(await log.texts());
  });

  test("that cannot be written is behind, says why, and has everything when it can", async () => {
    await writeFile(join(folder, "taken"), "a file where a folder should be");
    const sinks = started([{ file: { path: "taken/audit.jsonl" } }]);
    const ids = await log.write(20);
    await until(() => (sinks.state()[0]?.failures ?? 0) > 1, "it has failed");
    expect(sinks.state()[0]).toMatchObject({ name: "file", kind: "file", sending: true, sent: 0 });
    expect(sinks.state()[0]?.problem).toMatch(/EEXIST|ENOTDIR/);
    await rm(join(folder, "taken"));
    await caughtUp(sinks);
    expect(idsOf(await linesIn("taken/audit.jsonl"))).toEqual(ids);
    expect(sinks.state()[0]?.problem).toBeUndefined();
  });
});

describe("standard output", () => {
  test("gets a line for each record, and one that is closed holds nothing up", async () => {
    const written: string[] = [];
    let broken = true;
    const stdout = {
      write(text: string, done: (error?: Error) => void) {
        if (broken) return done(new Error("EPIPE"));
        written.push(text);
        done();
      },
      on: () => {},
    };
    const sinks = started([{ stdout: {} }], { stdout });
    await log.write(10);
    await until(() => (sinks.state()[0]?.failures ?? 0) > 0, "it has failed");
    broken = false;
    await caughtUp(sinks);
    expect(linesOf(written.join(""))).toEqual(await log.texts());
  });
});

describe("which records a sink gets", () => {
  test("is said by kind and outcome", async () => {
    await log.write(2);
    await log.write(3, { outcome: "refused" });
    await log.write(4, { kind: "sign-in", action: "signed-in", outcome: "refused" });
    const sinks = started([
      { name: "refused-calls", file: { path: "refused" }, only: { kinds: ["call"], outcomes: ["refused"] } },
      { name: "sign-ins", file: { path: "sign-ins" }, only: { kinds: ["sign-in"] } },
    ]);
    await caughtUp(sinks);
    expect(await linesIn("refused")).toHaveLength(3);
    expect(await linesIn("sign-ins")).toHaveLength(4);
  });

  test("with what is about persons only where the settings say so, and no more once it was erased", async () => {
    await log.write(1);
    const sealed = started([{ name: "sealed", file: { path: "sealed" } }]);
    const opened = started([{ name: "opened", open: true, file: { path: "opened" } }]);
    await caughtUp(sealed);
    await caughtUp(opened);
    expect(await readFile(join(folder, "sealed"), "utf8")).not.toContain("ORD-100001");
    expect(await readFile(join(folder, "opened"), "utf8")).toContain("ORD-100001");
    await log.write(1);
    await opened.close();
    await log.keys.destroy("u_1");
    await rm(join(folder, "opened"), { force: true });
    const { sequence = 0 } = opened.state()[0] ?? {};
    expect(sequence).toBeGreaterThan(0);
    await log.store.records.delete("audit-sink", "opened");
    await caughtUp(started([{ name: "opened", open: true, file: { path: "opened" } }]));
    expect(await readFile(join(folder, "opened"), "utf8")).not.toContain("ORD-100001");
  });
});

interface Received {
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** An HTTP server that does what the test tells it to. */
async function receiver() {
  const received: Received[] = [];
  /** Of all requests, those too that were not answered well. */
  const keys: string[] = [];
  const state = { answer: 200 as number | "hang" | "cut", headers: {} as Record<string, string>, maxBytes: 1 << 20 };
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const body = Buffer.concat(parts).toString();
      keys.push(String(request.headers["idempotency-key"]));
      if (state.answer === "hang") return;
      if (state.answer === "cut") return void request.socket.destroy();
      if (body.length > state.maxBytes) return void response.writeHead(413).end();
      if (state.answer === 200) received.push({ headers: request.headers, body });
      response.writeHead(state.answer, state.headers).end("said");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  servers.push(server);
  const { port } = server.address() as { port: number };
  return {
    received,
    keys,
    state,
    url: `http://127.0.0.1:${port}/audit`,
    lines: () => received.flatMap(({ body }) => linesOf(body)),
  };
}
const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

describe("HTTP", () => {
  test("gets batches with headers of the operator's, and a key that says which records they are", async () => {
    const there = await receiver();
    await log.write(25);
    const sinks = started([{ http: { url: there.url, batch: 10, headers: { "x-key": "abc" } } }]);
    await caughtUp(sinks);
    expect(there.lines()).toEqual(await log.texts());
    expect(there.received).toHaveLength(3);
    expect(there.received[0]?.headers).toMatchObject({ "x-key": "abc", "content-type": "application/x-ndjson" });
    expect(new Set(there.received.map(({ headers }) => headers["idempotency-key"])).size).toBe(3);
    expect(sinks.state()[0]).toMatchObject({ sent: 26, behind: 0, failures: 0 });
  });

  test.each([500, 503, 400, 302, "hang", "cut"] as const)(
    "that answers %s under load loses nothing, and gets the same key again",
    async (answer) => {
      const there = await receiver();
      const sinks = started([{ http: { url: there.url, batch: 50, timeoutSeconds: 1 } }]);
      await log.write(100);
      await caughtUp(sinks);
      there.state.answer = answer;
      there.state.headers = answer === 302 ? { location: "http://127.0.0.1:1/elsewhere" } : {};
      const { length: before } = there.keys;
      await log.write(70);
      await until(() => (sinks.state()[0]?.failures ?? 0) > 0, "it has failed");
      await log.write(100);
      await until(() => (sinks.state()[0]?.failures ?? 0) > 1, "it has failed again");
      const { behind = 0, problem } = sinks.state()[0] ?? {};
      expect(behind).toBeGreaterThan(0);
      expect(problem).toMatch(/127\.0\.0\.1/);
      there.state.answer = 200;
      await caughtUp(sinks);
      expect(there.lines()).toEqual(await log.texts());
      // The same records in each try, although there were more by then.
      expect(new Set(there.keys.slice(before, before + 3)).size).toBe(1);
      expect(there.received.map(({ headers }) => headers["idempotency-key"])).toContain(there.keys[before]);
    },
  );

  test("that asks for time gets it", async () => {
    const there = await receiver();
    there.state.answer = 429;
    there.state.headers = { "retry-after": "2" };
    await log.write(3);
    const began = performance.now();
    const sinks = started([{ http: { url: there.url } }]);
    await until(() => (sinks.state()[0]?.failures ?? 0) > 0, "it was refused");
    there.state.answer = 200;
    await caughtUp(sinks);
    expect(performance.now() - began).toBeGreaterThan(1900);
    expect(sinks.state()[0]?.failures).toBe(1);
  });

  test("that finds a batch too large gets smaller ones", async () => {
    const there = await receiver();
    there.state.maxBytes = 5000;
    await log.write(40);
    await caughtUp(started([{ http: { url: there.url } }]));
    expect(there.lines()).toEqual(await log.texts());
    expect(there.received.length).toBeGreaterThan(8);
  });

  test("is not spoken to without TLS on another machine", async () => {
    await log.write(1);
    const sinks = started([{ http: { url: "http://audit.acme.example/" } }]);
    await until(() => (sinks.state()[0]?.failures ?? 0) > 0, "it was refused");
    expect(sinks.state()[0]?.problem).toContain("not https");
  });

  test("is told of its failure in the log once, and of the end of it", async () => {
    const there = await receiver();
    there.state.answer = 500;
    const lines: string[] = [];
    const logger = createLogger({ level: "info", format: "json" }, { write: (line) => lines.push(line) });
    await log.write(3);
    const sinks = started([{ http: { url: there.url } }], { logger });
    await until(() => (sinks.state()[0]?.failures ?? 0) > 2, "it has failed three times");
    there.state.answer = 200;
    await caughtUp(sinks);
    expect(lines.map((line) => (JSON.parse(line) as { message: string }).message)).toEqual([
      "an audit sink takes no records, it gets them when it does",
      "an audit sink takes records again",
    ]);
  });

  test("does not hold another sink up", async () => {
    const there = await receiver();
    there.state.answer = "hang";
    await log.write(50);
    const sinks = started([{ http: { url: there.url } }, { file: { path: "audit.jsonl" } }]);
    await until(async () => sinks.state()[1]?.sequence === (await log.texts()).length, "the file has all");
    expect(sinks.state()[0]?.sequence).toBe(0);
  });
});

describe("several replicas", () => {
  test("send each record once, and when the one that sends is gone another goes on", async () => {
    const there = await receiver();
    const settings = [{ http: { url: there.url } }];
    const first = started(settings);
    await until(() => first.state()[0]?.sending === true, "the first sends");
    const second = started(settings);
    await log.write(20);
    await log.other("r2")(20);
    await caughtUp(first);
    expect(second.state()[0]?.sending).toBe(false);
    await first.close();
    await log.write(20);
    await caughtUp(second);
    expect(there.lines()).toEqual(await log.texts());
  });

  test("one that dies is followed within seconds, and can write nothing when it comes back", async () => {
    let now = 0;
    const cursorOf = (replica: string) =>
      openCursor(log.store.records, { name: "x", kind: "file", replica }, () => now);
    const [dead, heir] = [cursorOf("a"), cursorOf("b")];
    expect(await dead.take()).toBe(true);
    await dead.write({ sequence: 7 });
    expect(await heir.take()).toBe(false);
    now += 3000;
    await dead.write({});
    now += 5000;
    expect(await heir.take()).toBe(false);
    now += 6000;
    expect(await heir.take()).toBe(true);
    expect(heir.place.sequence).toBe(7);
    await expect(dead.sure()).rejects.toThrow();
    await expect(dead.write({ sequence: 99 })).rejects.toThrow();
    expect((await placesIn(log.store.records)).get("x")).toMatchObject({ sequence: 7, holder: "b" });
  });

  test("a write of which nobody knows whether it was done is found out about", async () => {
    const { records } = log.store;
    let fail: "before" | "after" | undefined;
    const flaky = {
      ...records,
      async put(...args: Parameters<typeof records.put>) {
        if (fail === "before") throw new Error("lost");
        const done = await records.put(...args);
        if (fail === "after") throw new Error("lost");
        return done;
      },
    };
    const cursor = openCursor(flaky, { name: "x", kind: "file", replica: "a" });
    await cursor.take();
    for (const when of ["before", "after"] as const) {
      fail = when;
      await expect(cursor.write({ sequence: cursor.place.sequence + 5 })).rejects.toThrow("lost");
      fail = undefined;
      await cursor.write({});
    }
    expect((await placesIn(records)).get("x")?.sequence).toBe(10);
  });
});

describe("while the gateway runs", () => {
  test("sinks come, change and go, and each keeps its place", async () => {
    const same = (some: unknown, other: unknown) => JSON.stringify(some) === JSON.stringify(other);
    const wanted = (...settings: object[]) => auditExportSettings.parse(settings);
    await log.write(10);
    const sinks = started([{ file: { path: "a" } }]);
    await caughtUp(sinks);
    await sinks.apply(wanted({ file: { path: "b" } }, { name: "late", file: { path: "c" } }), same);
    await log.write(10);
    await caughtUp(sinks);
    const all = await log.texts();
    expect([...(await linesIn("a")), ...(await linesIn("b"))]).toEqual(all);
    expect(await linesIn("c")).toEqual(all);
    await sinks.apply(wanted({ file: { path: "b" } }), same);
    expect(sinks.state().map(({ name }) => name)).toEqual(["file"]);
  });

  test("what a sink has not got may not be taken out, unless the sink is gone", async () => {
    const settings = auditExportSettings.parse([{ file: { path: "a" } }, { name: "new", file: { path: "b" } }]);
    await log.write(10);
    const sinks = started([{ file: { path: "a" } }]);
    await caughtUp(sinks);
    expect(await sinks.reached()).toBe(11);
    expect(await reachedBy(settings, log.store.records)).toBe(0);
    expect(await reachedBy([], log.store.records)).toBe(Number.POSITIVE_INFINITY);
  });

  test("retention takes out what every sink has got, and no more", async () => {
    const there = await receiver();
    await log.write(10);
    const sinks = started([{ http: { url: there.url } }, { file: { path: "a" } }]);
    await caughtUp(sinks);
    there.state.answer = 500;
    await log.write(10);
    await until(() => (sinks.state()[0]?.failures ?? 0) > 0, "it has failed");
    await until(() => (sinks.state()[1]?.sequence ?? 0) > 11, "the other one has more");
    const retiredBy = (notBeyond: () => Promise<number>) =>
      retire(Date.now() + 86_400_000, {
        log: log.store.audit,
        records: log.store.records,
        journal: log,
        signer: async () => SIGNER,
        replica: "r1",
        clock: Date.now,
        notBeyond,
      });
    const retirements = async () => (await log.texts()).filter((text) => text.includes('"audit.retired"')).length;
    expect((await retiredBy(sinks.reached)).removed).toBe(11);
    expect((await retiredBy(sinks.reached)).removed).toBe(0);
    expect(await retirements()).toBe(1);
    there.state.answer = 200;
    await caughtUp(sinks);
    expect(idsOf(there.lines())).toHaveLength(20);
    // The record of the first retirement among them.
    expect((await retiredBy(sinks.reached)).removed).toBe(11);
  });

  test("what there is when it stops is sent before it stops", async () => {
    const sinks = started([{ file: { path: "a" } }]);
    await log.write(5);
    await caughtUp(sinks);
    await log.write(700);
    await sinks.close(10_000);
    expect(await linesIn("a")).toEqual(await log.texts());
  });
});

describe("settings", () => {
  const problems = (...sinks: object[]) =>
    auditExportSettings.safeParse(sinks).error?.issues.map(({ path, message }) => `${path.join(".")} ${message}`) ?? [];

  test("a sink is of one kind, and each has a name of its own", () => {
    expect(problems({})).toEqual(["0 expected one of file, stdout, http, otlp, kafka, nats"]);
    expect(problems({ stdout: {}, file: { path: "a" } })).toHaveLength(1);
    expect(problems({ file: { path: "a" } }, { file: { path: "b" } })).toEqual([
      "1 there is a sink file already; give this one a name of its own",
    ]);
    expect(problems({ file: { path: "a" } }, { name: "second", file: { path: "b" } })).toEqual([]);
    expect(problems({ stdout: {} }, { name: "second", stdout: {} })).toEqual([" only one sink can have stdout"]);
    expect(problems({ otlp: { endpoint: "http://127.0.0.1:4318" }, format: "cef" })).toHaveLength(1);
  });

  test("nothing goes over a network in clear by accident", () => {
    const kafka = (more: object, ...brokers: string[]) => problems({ kafka: { brokers, topic: "audit", ...more } });
    expect(kafka({}, "kafka.acme.example:9093")).toEqual([]);
    expect(kafka({ tls: {}, allowInsecurePlaintext: true }, "kafka.acme.example:9092")).toHaveLength(1);
    expect(kafka({}, "127.0.0.1:9092", "kafka.acme.example:9093")).toHaveLength(1);
    expect(kafka({ sasl: { username: "a", password: "written here" } }, "localhost:9092")).toHaveLength(1);
    expect(problems({ nats: { servers: ["nats.acme.example:4222"], subject: "audit.*" } })).toHaveLength(1);
  });
});
