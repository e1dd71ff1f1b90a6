/** `drawbridge policy replay` on the log of a gateway: calls of every kind, decided again by other settings. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import type { Replay } from "../../src/audit/replay.ts";
import { legacySession } from "../e2e/legacy-client.ts";
import { taskClient } from "../e2e/tasking.ts";
import { modernRequest } from "../e2e/world.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { root } from "../house/sources.ts";
import { type Operated, operated } from "./operated.ts";

const PRESENT = {
  roles: { owner: { may: ["*"], deny: ["echo_fail"] } },
  assign: [{ role: "owner", group: "owner" }],
  stepUp: { echo_sum: "echo:sum" },
};
const SERVERS = {
  echo: { command: fixtureCommand("echo-stdio") },
  every: { command: fixtureCommand("everything/stdio", ["--era", "modern"]) },
};

describe("the calls of a gateway", () => {
  let one: Operated;
  beforeAll(async () => {
    one = await operated({ servers: SERVERS, ...PRESENT });
    const { access_token: token } = await one.live.tokens();
    const ask = async (method: string, params: Record<string, unknown>) => {
      const [body, headers] = modernRequest(method, params);
      await (await one.live.post(body, headers, token)).text();
    };
    await ask("tools/call", { name: "echo_echo", arguments: { text: "short" } });
    await ask("tools/call", { name: "echo_echo", arguments: { text: "very, very long" } });
    await ask("tools/call", { name: "echo_echo", arguments: { text: "of olive@shop.example" } });
    await ask("tools/call", { name: "echo_sum", arguments: { a: 1, b: 2 } });
    await ask("tools/call", { name: "echo_fail", arguments: {} });
    await ask("tools/call", { name: "made_up", arguments: {} });
    await ask("tools/list", {});
    await ask("resources/read", { uri: "test://static/greeting" });
    await ask("prompts/get", { name: "echo_greeting", arguments: { name: "you" } });
    await ask("completion/complete", {
      ref: { type: "ref/prompt", name: "echo_greeting" },
      argument: { name: "tone", value: "fr" },
    });
    const client = await taskClient(one.live.url, token, "modern");
    const task = await client.begin("every_job-only", { tag: "A", ms: 1 });
    await client.end(task.taskId);
    const session = await legacySession(one.live.url, token);
    await session.ask("resources/subscribe", { uri: "test://static/greeting" });
  }, 60_000);
  afterAll(() => one?.[Symbol.asyncDispose]());

  const replayed = async (next: object, ...more: string[]): Promise<Replay> => {
    writeFileSync(join(one.folder, "next.yaml"), JSON.stringify(next));
    return one.json<Replay>(["policy", "replay", "--since", "1h", ...more, "next.yaml"]);
  };
  const listed = ({ rows }: Replay) => rows.map(({ name, was, next }) => [name, was, next]).sort();
  const reasons = ({ unjudged }: Replay) => Object.fromEntries(unjudged.map(({ reason, calls }) => [reason, calls]));

  test("are decided by the very same policy as they were", async () => {
    for (const next of [PRESENT, { servers: SERVERS, ...PRESENT, clients: { registration: "open" } }]) {
      const found = await replayed(next);
      expect(found).toMatchObject({ flips: 0, already: 0, restored: 0, rows: [] });
      expect(found.policy).toBe(found.present);
      // The tool that nobody serves; and of a subscription is not recorded what it was aimed at.
      expect(reasons(found)).toEqual({ was_not_served: 1, name_absent: 1 });
      expect(found.calls).toBeGreaterThanOrEqual(12);
      expect(found.records).toBeGreaterThan(found.calls);
    }
  });

  test("are listed where a policy denies, permits or asks for a scope otherwise, with the rule and examples", async () => {
    const found = await replayed({
      ...PRESENT,
      roles: { owner: { may: ["echo_*", "resource:*", "prompt:*"], deny: ["resource:test://static/*"] } },
      stepUp: { echo_echo: "echo:echo" },
    });
    expect(listed(found)).toEqual([
      ["echo_echo", "permit", "step-up"],
      ["echo_fail", "deny", "permit"],
      ["echo_sum", "step-up", "permit"],
      ["every_job-only", "permit", "deny"],
      ["test://static/greeting", "permit", "deny"],
    ]);
    const row = (name: string) => found.rows.find((each) => each.name === name);
    expect(row("echo_echo")).toMatchObject({ role: "owner", calls: 3 });
    expect(row("test://static/greeting")).toMatchObject({
      kind: "resource",
      rule: "owner: deny resource:test://static/*",
    });
    // The call that made the task, and what was asked about it.
    expect(row("every_job-only")?.calls).toBeGreaterThan(1);
    const [example = ""] = row("echo_fail")?.examples ?? [];
    const records = (await one.cli(["audit", "search", "--target", "echo_fail", "--format", "json"])).stdout;
    expect(JSON.parse(records)).toMatchObject({ id: example, decision: { effect: "deny" } });
  });

  test("are judged by their arguments, but for those that are recorded masked", async () => {
    const when = 'call.name != "echo_echo" || size(args.text) < 10';
    const found = await replayed({ ...PRESENT, roles: { owner: { ...PRESENT.roles.owner, when } } });
    expect(listed(found)).toEqual([["echo_echo", "permit", "deny"]]);
    expect(found.flips).toBe(1);
    expect(reasons(found)).toMatchObject({ arguments_inexact: 1, was_not_served: 1 });
  });

  test("are not judged where the settings serve nothing of their name, or claims decide", async () => {
    const fewer = await replayed({ ...PRESENT, servers: { every: SERVERS.every } });
    // The other server is the only one then, and its tools have no prefix any more. A task is asked about until it is over.
    const { rows } = await replayed({ ...PRESENT, assign: [] });
    const aboutTask = rows.find(({ name }) => name === "every_job-only")?.calls ?? 0;
    expect(reasons(fewer)["not_served"]).toBe(8 + aboutTask);
    const claims = await replayed({ ...PRESENT, assign: [{ role: "owner", claim: { team: "a" } }] });
    expect(claims.flips).toBe(0);
    expect(reasons(claims)["claims"]).toBeGreaterThan(5);
  });

  test("can be chosen by tool, role and time", async () => {
    const nobody = { ...PRESENT, assign: [] };
    expect(listed(await replayed(nobody, "--tool", "echo_echo"))).toEqual([["echo_echo", "permit", "deny"]]);
    expect((await replayed(nobody, "--role", "other")).rows).toEqual([]);
    expect((await replayed(nobody, "--role", "owner")).flips).toBeGreaterThan(5);
    expect(await replayed(nobody, "--until", "30m")).toMatchObject({ records: 0, calls: 0 });
  });

  test("make the command fail where the policy changes a decision, when that is asked for", async () => {
    writeFileSync(join(one.folder, "next.yaml"), JSON.stringify({ ...PRESENT, assign: [] }));
    writeFileSync(join(one.folder, "same.yaml"), JSON.stringify(PRESENT));
    const ended = async (...argv: string[]) => (await one.cli(["policy", "replay", ...argv])).code;
    expect(await ended("next.yaml")).toBe(0);
    expect(await ended("--fail-on-flip", "next.yaml")).toBe(1);
    expect(await ended("--fail-on-flip", "same.yaml")).toBe(0);
    // Of changes that are made already nobody need be warned.
    const changed = JSON.parse(readFileSync(join(one.folder, "drawbridge.yaml"), "utf8")) as object;
    writeFileSync(join(one.folder, "changed.yaml"), JSON.stringify({ ...changed, assign: [] }));
    expect(await ended("--fail-on-flip", "--file", "changed.yaml", "next.yaml")).toBe(0);
    const { stdout } = await one.cli(["policy", "replay", "--file", "changed.yaml", "next.yaml"]);
    expect(stdout).toMatch(/of these are so by the policy of today, too/);
  });

  test("are not decided by what cannot be used, which is said", async () => {
    for (const [text, message] of [
      ["roles: { a: { may: [x], when: '1 +' } }\nassign: []\n", "roles.a.when"],
      ["roles: { a: { mai: [x] } }\n", "mai"],
      ["assign: []\n", "has no `roles`"],
      ["servers: { s: { comand: [x] } }\n", "needs one of the keys command"],
      ["roles: {", "next.yaml"],
    ] as const) {
      writeFileSync(join(one.folder, "next.yaml"), text);
      const { code, stderr } = await one.cli(["policy", "replay", "next.yaml"]);
      expect(stderr).toContain(message);
      expect(code).toBe(2);
    }
    expect((await one.cli(["policy", "replay", "nowhere.yaml"])).stderr).toContain("cannot be read");
  });
});

test("what was sent and is erased by now is not guessed", async () => {
  await using one = await operated(PRESENT);
  const { access_token: token } = await one.live.tokens();
  const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text: "short" } });
  await (await one.live.post(body, headers, token)).text();
  const when = "size(args.text) < 2";
  const next = { ...PRESENT, roles: { owner: { ...PRESENT.roles.owner, when } } };
  writeFileSync(join(one.folder, "next.yaml"), JSON.stringify(next));
  const seen = async () => {
    const { flips, unjudged } = await one.json<Replay>(["policy", "replay", "next.yaml"]);
    return [flips, unjudged.map(({ reason }) => reason)];
  };
  expect(await seen()).toEqual([1, []]);
  const found = await one.cli(["audit", "search", "--target", "echo", "--format", "json"]);
  const { principal } = JSON.parse(found.stdout) as { principal: { subject: string } };
  const erased = await one.cli(["audit", "erase", principal.subject, "--yes"]);
  expect(erased.stderr).toBe("");
  expect(await seen()).toEqual([0, ["arguments_sealed"]]);
});

test("docs/policy.md shows what is printed", async () => {
  const document = readFileSync(join(root, "docs/policy.md"), "utf8");
  const [, command = "", output = ""] =
    /```console\n\$ drawbridge (policy replay.*)\n([\s\S]*?)```/.exec(document) ?? [];
  const next = /```yaml\n# january\.yaml\n([\s\S]*?)```/.exec(document)?.[1] ?? "";
  const desk = join(root, "examples/orders");
  const scratch = mkdtempSync(join(tmpdir(), "db-replay-"));
  const settings = parse(readFileSync(join(desk, "drawbridge.yaml"), "utf8"));
  const { publicUrl: _, limits: __, store: ___, servers, ...rest } = settings;
  const environment = { ORDERS_DB: join(scratch, "orders.db") };
  const orders = { ...servers.orders, cwd: desk, environment, processes: { min: 1, max: 1 } };
  await using one = await operated({ ...rest, clients: { registration: "open" }, servers: { orders } });
  try {
    const { access_token: token } = await one.live.tokens();
    const calls: [string, object][] = [
      ...Array.from({ length: 4 }, (_, at): [string, object] => ["look_up_order", { order_id: `ORD-10000${at}` }]),
      ["list_products", {}],
      ["list_products", {}],
      ["cancel_order", { order_id: "ORD-000001" }],
      ["hold_order", { order_id: "ORD-100007" }],
    ];
    for (const [name, args] of calls) {
      const [body, headers] = modernRequest("tools/call", { name, arguments: args });
      await (await one.live.post(body, headers, token)).text();
    }
    writeFileSync(join(one.folder, "january.yaml"), next);
    const { stdout, stderr, code } = await one.cli(command.split(" "));
    expect([stderr, code]).toEqual(["", 0]);
    const dated = (text: string) =>
      text
        .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d/g, "2026-11-21 10:00")
        .replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, "019aa60e-1c9b-7d3e-8f4a-5b6c7d8e9f00")
        .replace(/in \d+ records/, "in some records");
    expect(dated(stdout)).toBe(dated(output));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}, 60_000);
