/** Attacks on servers that keep their users apart: by the name of a user, by what a process says, by opening too much. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { userSecretReader } from "../../src/config/user-secrets.ts";
import type { JsonObject, PermittedCall } from "../../src/core/call.ts";
import { Secret } from "../../src/core/secret.ts";
import { createLogger } from "../../src/observe/logger.ts";
import { openUpstream } from "../../src/upstream/open.ts";
import { stdioServer } from "../../src/upstream/settings.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { type ReadUserSecret, subjectFile, userValues } from "../../src/upstream/user-values.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { findBubblewrap } from "../global/bubblewrap.ts";
import { fc } from "../properties.ts";
import { type CallOptions, codeOf, ignored, never, structuredOf, toolCall } from "../upstream/support.ts";

/** A subject comes from a token; where another server issues them it can be anything. */
const HOSTILE = [
  "..",
  ".",
  "",
  "../canary",
  "../../canary",
  "/etc/passwd",
  "..\\canary",
  "ann/../bob",
  "ann/",
  "ann\0",
  "ann\n",
  "ann%2F",
  "%61nn",
  "%2e%2e/canary",
  "ann.",
  " ann",
  "ａnn",
  "a\u0301nn",
  "\ud800",
  "\udfff",
  "con",
  "ann:stream",
  "~ann",
  "-rf",
  "a".repeat(5_000),
];

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-isolation-"));
  await mkdir(join(folder, "secrets", "diary", "ann%2F"), { recursive: true });
  for (const file of ["canary", "secrets/canary", "secrets/diary/ann", "secrets/diary/bob"])
    await writeFile(join(folder, file), `secret of ${file}`, { mode: 0o600 });
});
afterAll(() => rm(folder, { recursive: true }));

describe("the secret of a user is found by the name of that user alone", () => {
  test.each(HOSTILE)("refused: %j is nobody whose secret there is", async (subject) => {
    const read = userSecretReader(folder, { CREDENTIALS_DIRECTORY: folder }, () => {});
    expect(await read("diary", subject)).toBeUndefined();
  });

  test("any subject is one name of a file, and different subjects are different ones", () => {
    const texts = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.string({ unit: fc.constantFrom("%", "2", "F", "u", "\ud800", "\ufffd", "/", ".") }),
    );
    fc.assert(
      fc.property(texts, texts, (one, other) => {
        expect(subjectFile(one)).toMatch(/^[A-Za-z0-9_%-]*$/);
        expect(basename(join("/folder", subjectFile(one) || "x"))).toBe(subjectFile(one) || "x");
        expect(subjectFile(one) === subjectFile(other)).toBe(one === other);
      }),
    );
  });

  test("a claim that is inherited by every object is no claim of the user's", async () => {
    const values = userValues("s", "userHeaders", { x: { from: "claims.constructor.name" } }, async () => undefined);
    await expect(values.for(toolCall("", {}).by)).rejects.toMatchObject({ code: "upstream_unavailable" });
    const dotted = userValues("s", "userHeaders", { x: { from: "claims.a.b" } }, async () => undefined);
    const by = { ...toolCall("", {}).by, claims: { "a.b": "whole", a: { b: "deep" } } as JsonObject };
    expect(await dotted.for(by as PermittedCall["by"])).toEqual({ x: "whole" });
  });

  test.each(["a\r\nauthorization: other", "a\0", "snow ☃", "a\u007f"])("refused: %j in a header", async (value) => {
    const values = userValues("s", "userHeaders", { x: { secret: "k" } }, async () => new Secret(value));
    const refused = await values.for(toolCall("", {}).by).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "upstream_unavailable" });
    expect(JSON.stringify(refused) + String(refused)).not.toContain(value);
  });
});

const opened: Upstream[] = [];
afterEach(async () => {
  for (const upstream of opened.splice(0)) await upstream.close(AbortSignal.abort());
});

function diary(settings: object, readUserSecret: ReadUserSecret, written: string[] = []): Upstream {
  const logger = createLogger({ level: "trace", format: "json" }, { write: (line) => void written.push(line) });
  const upstream = openUpstream(
    "s",
    stdioServer.parse({ command: fixtureCommand("diary-stdio"), isolation: "per-user", ...settings }),
    {
      logger,
      version: "0.0.0",
      baseDirectory: import.meta.dirname,
      environment: { PATH: process.env["PATH"] },
      readUserSecret,
      events: { listChanged() {}, resourceUpdated() {} },
    },
  );
  opened.push(upstream);
  return upstream;
}
const as = (subject: string, options: CallOptions = {}) => ({ ...options, subject });

test("a user's secret is in the user's own process, and in no log, state, error or process of another", async () => {
  const written: string[] = [];
  const canaries = { ann: "canary-of-ann-8d1f", bob: "canary-of-bob-77ac" } as Record<string, string>;
  const upstream = diary(
    { userEnvironment: { KEY: { secret: "k", otherwise: new Secret("canary-of-nobody-19be") } } },
    async (_, subject) => (canaries[subject] === undefined ? undefined : new Secret(canaries[subject])),
    written,
  );
  await upstream.list("tools", never);
  const seen = await Promise.all(
    ["ann", "bob"].map(async (who) =>
      JSON.stringify(structuredOf(await upstream.send(toolCall("environment", {}, as(who)), ignored, never))),
    ),
  );
  expect(seen[0]).toContain(canaries["ann"]);
  expect(seen[0]).not.toContain("canary-of-bob");
  expect(seen[1]).not.toContain("canary-of-ann");
  expect(seen.join("")).not.toContain("canary-of-nobody");
  const failed = await Promise.all(
    [toolCall("crash", {}, as("ann")), toolCall("environment", {}, as("eve"))].map((call) =>
      upstream.send(call, ignored, never).catch((error: unknown) => error),
    ),
  );
  const told = failed.map((error) => JSON.stringify(error) + String(error) + (error as { detail?: string }).detail);
  expect([...written, ...told, JSON.stringify(upstream.state())].join("\n")).not.toContain("canary-of-");
  expect(written.length).toBeGreaterThan(0);
});

test.runIf(findBubblewrap() !== undefined)(
  "refused in the sandbox: a process that reads the environment of another user's",
  async () => {
    for (const sandbox of [{}, undefined]) {
      const upstream = diary(
        { userEnvironment: { KEY: { from: "subject" } }, ...(sandbox && { sandbox }) },
        async () => undefined,
      );
      await Promise.all(
        ["ann-key", "bob-key"].map((who) => upstream.send(toolCall("write", {}, as(who)), ignored, never)),
      );
      const { found } = structuredOf(await upstream.send(toolCall("spy", {}, as("ann-key")), ignored, never));
      expect(found).toContain("KEY=ann-key");
      // Without a sandbox all run as one user of the machine, which docs/isolation.md says.
      if (sandbox === undefined) expect(found).toContain("KEY=bob-key");
      else expect([...new Set(found as string[])]).toEqual(["KEY=ann-key"]);
    }
  },
);

test("refused: more instances than one user's share, by new sessions and by new clients; others are served", async () => {
  for (const isolation of ["per-user", "per-session"]) {
    const upstream = diary(
      { isolation, instances: { max: 8 }, userEnvironment: { CLIENT: { from: "client", otherwise: "-" } } },
      async () => undefined,
    );
    const stop = new AbortController();
    const tries = Array.from({ length: 20 }, (_, index) =>
      codeOf(
        upstream.send(
          toolCall("silent", {}, as("eve", { client: `c${index}`, session: `s${index}` })),
          ignored,
          stop.signal,
        ),
      ),
    );
    const refused = await Promise.race([Promise.all(tries.slice(2)), ...tries.slice(0, 2)]);
    expect(refused).toEqual(Array.from({ length: 18 }, () => "overloaded"));
    for (const who of ["ann", "bob", "cid", "dan", "fay", "gus"])
      expect(structuredOf(await upstream.send(toolCall("write", {}, as(who)), ignored, never))).toBeDefined();
    expect(upstream.state()).toMatchObject({ instances: 8 });
    stop.abort();
    await Promise.all(tries);
  }
});

test("who opens many sessions while all places are taken gives up their own idle ones, not those of others", async () => {
  const upstream = diary({ isolation: "per-session", instances: { max: 4 } }, async () => undefined);
  const write = async (subject: string, session: string) =>
    structuredOf(await upstream.send(toolCall("write", { text: session }, as(subject, { session })), ignored, never));
  const others = await Promise.all(["ann", "bob", "cid"].map((who) => write(who, who)));
  for (let index = 0; index < 6; index++) await write("eve", `eve${index}`);
  const after = await Promise.all(["ann", "bob", "cid"].map((who) => write(who, who)));
  expect(after.map(({ pid }) => pid)).toEqual(others.map(({ pid }) => pid));
});
