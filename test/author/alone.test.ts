/** A server alone: what its process loads, what is kept for its next start and where, and how long a handler may take. */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { openDeadline } from "../../src/author/deadline.ts";
import { root } from "../house/sources.ts";

const program = join(import.meta.dirname, "desk.ts");
const folder = mkdtempSync(join(tmpdir(), "drawbridge-alone-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const MESSAGES = [
  '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"a","version":"1"}}}',
  '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}',
];
/** Starts the desk with these flags of Node, calls it once and ends it. */
function started(flags: readonly string[], environment: Record<string, string | undefined> = {}) {
  const { PATH } = process.env;
  return spawnSync(process.execPath, [...flags, program], {
    cwd: root,
    input: `${MESSAGES.join("\n")}\n`,
    encoding: "utf8",
    env: { PATH, HOME: folder, ...environment },
  });
}

test("it loads nothing of a gateway, and no package but zod", () => {
  const watch = join(folder, "watch.mjs");
  writeFileSync(
    watch,
    `import { registerHooks } from "node:module";
const seen = [];
registerHooks({ load: (url, context, next) => (seen.push(url), next(url, context)) });
process.on("exit", () => console.error(JSON.stringify(seen)));
`,
  );
  const { stdout, stderr } = started(["--import", watch]);
  expect(stdout).toContain("hellohello".slice(0, 5));
  const loaded = JSON.parse(stderr.trim().split("\n").at(-1) ?? "[]") as string[];
  const packages = loaded.flatMap((url) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1] ?? []);
  expect([...new Set(packages)]).toEqual(["zod"]);
  const rooms = loaded.flatMap((url) => /\/src\/([^/]+)\//.exec(url)?.[1] ?? []);
  expect([...new Set(rooms)].toSorted()).toEqual(["author", "core", "mcp", "observe"]);
  // Each costs a start about a millisecond, and from its source three.
  expect(rooms.length).toBeLessThanOrEqual(30);
});

describe.skipIf(process.platform === "win32")("what is kept for the next start", () => {
  const flags = ["--import", "drawbridge-mcp/compile-cache"];
  const home = join(folder, "home");
  const kept = join(home, ".cache/drawbridge/compiled");
  beforeEach(() => {
    rmSync(home, { recursive: true, force: true });
    mkdirSync(home, { recursive: true });
  });

  test("lies in the user's own folder, where nobody else can read or write", () => {
    expect(started(flags, { HOME: home }).stdout).toContain("hello");
    expect(readdirSync(kept)).toHaveLength(1);
    expect(statSync(kept).mode & 0o777).toBe(0o700);
    expect(statSync(join(kept, "..")).mode & 0o777).toBe(0o700);
    expect(started(flags, { HOME: home }).stdout).toContain("hello");
  });

  test("follows the place for caches that the user has set, when it is a whole path", () => {
    const place = join(folder, "caches");
    started(flags, { HOME: home, XDG_CACHE_HOME: place });
    expect([existsSync(join(place, "drawbridge/compiled")), existsSync(kept)]).toEqual([true, false]);
    started(flags, { HOME: home, XDG_CACHE_HOME: "caches" });
    expect(existsSync(kept)).toBe(true);
  });

  test("is nothing where others can write, or the folder is a link, and the server starts all the same", () => {
    mkdirSync(kept, { recursive: true });
    chmodSync(kept, 0o777);
    expect(started(flags, { HOME: home }).stdout).toContain("hello");
    expect(readdirSync(kept)).toEqual([]);
    rmSync(kept, { recursive: true });
    const elsewhere = join(home, "elsewhere");
    mkdirSync(elsewhere);
    symlinkSync(elsewhere, kept);
    expect(started(flags, { HOME: home }).stdout).toContain("hello");
    expect(readdirSync(elsewhere)).toEqual([]);
  });

  test("is nothing where there is no home, or Node was told to keep nothing", () => {
    expect(started(flags, { HOME: join(program, "no-folder") }).stdout).toContain("hello");
    started(flags, { HOME: home, NODE_DISABLE_COMPILE_CACHE: "1" });
    expect(existsSync(kept) ? readdirSync(kept) : []).toEqual([]);
  });

  test("never lies where everybody may put something, for the command either", () => {
    const temporary = join(folder, "temporary");
    mkdirSync(temporary, { recursive: true });
    const { status } = spawnSync(process.execPath, [join(root, "bin/drawbridge.js"), "--version"], {
      env: { PATH: process.env["PATH"], HOME: home, TMPDIR: temporary },
    });
    expect(status).toBe(0);
    expect([readdirSync(temporary), existsSync(kept)]).toEqual([[], true]);
  });
});

describe("the time of a handler", () => {
  const never = new AbortController().signal;
  const hanging = () => new Promise<string>(() => {});

  test("is not kept for one that answers at once", () => {
    const deadline = openDeadline(1, () => {
      throw new Error("asked for the caller");
    });
    expect(deadline.within(() => "now")).toBe("now");
    expect(deadline.signal.aborted).toBe(false);
  });

  test("ends one that does not heed it, and its signal says so", async () => {
    const deadline = openDeadline(5, () => never);
    const { signal } = deadline;
    await expect(deadline.within(hanging)).rejects.toMatchObject({ code: "upstream_timeout" });
    expect(signal.aborted).toBe(true);
  });

  test("ends with its caller, also one that had gone before", async () => {
    const caller = new AbortController();
    const deadline = openDeadline(60_000, () => caller.signal);
    const over = deadline.within(hanging);
    caller.abort();
    await expect(over).rejects.toMatchObject({ code: "cancelled" });
    expect(deadline.signal.aborted).toBe(true);
    const late = openDeadline(60_000, () => caller.signal);
    await expect(late.within(hanging)).rejects.toMatchObject({ code: "cancelled" });
  });

  test("stands still while a person is asked, also before the first wait, and goes on after", async () => {
    const deadline = openDeadline(30, () => never);
    const asked = Promise.withResolvers<string>();
    const work = deadline.within(async () => {
      const answer = await deadline.standing(() => asked.promise);
      return answer === "hang" ? hanging() : answer;
    });
    // Ten times as long as a handler may take.
    setTimeout(() => asked.resolve("hang"), 300);
    const began = performance.now();
    await expect(work).rejects.toMatchObject({ code: "upstream_timeout" });
    expect(performance.now() - began).toBeGreaterThan(299);
  });
});
