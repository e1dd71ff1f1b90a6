/** `drawbridge policy shadow`: a policy is tried out on a running gateway, which goes on deciding as it did. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { parse } from "yaml";
import { openPolicy } from "../../src/policy/live.ts";
import { type Operated, operated } from "../cli/operated.ts";
import { deskFolder } from "../examples/desk.ts";
import { root } from "../house/sources.ts";
import { principal, target, toolCall } from "./support.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const everybody = [{ role: "all", when: "true" }];
const NEXT = { name: "next", policy: { roles: { all: { may: ["a"], deny: [] } }, assign: everybody } };

describe("a policy that is tried out", () => {
  const live = () => openPolicy({ roles: { all: { may: ["*"], deny: [] } }, assign: everybody }, () => {});
  const who = principal();

  test("counts what it would have changed, by what it was about, and changes nothing", () => {
    const policy = live();
    expect(policy.trials.report()).toBeUndefined();
    policy.trials.begin(NEXT);
    for (const name of ["a", "b", "b", "c"]) {
      const { effect, shadow } = policy.decide(who, target(name), toolCall());
      expect([effect, shadow?.effect]).toEqual(["permit", name === "a" ? undefined : "deny"]);
    }
    expect(policy.decide(who, target("b")).shadow).toBeUndefined();
    expect(policy.trials.report()).toMatchObject({
      name: "next",
      calls: 4,
      different: 3,
      rows: [
        { role: "all", kind: "tool", name: "b", from: "permit", to: "deny", rule: undefined, calls: 2 },
        { name: "c", calls: 1 },
      ],
    });
  });
  test("stays beside what the settings become, and is what `tried` means; at its end theirs is tried out again", () => {
    const policy = live();
    const { policy: version } = policy.trials.begin(NEXT);
    policy.prepare({
      roles: { all: { may: ["*"], deny: [] } },
      assign: everybody,
      shadowPolicy: { roles: { all: { may: ["c"], deny: [] } }, assign: everybody },
    })();
    expect(policy.tried.version).toBe(version);
    const b = () => policy.decide(who, target("a"), toolCall()).shadow?.effect;
    expect(b()).toBeUndefined();
    expect(policy.trials.end()).toMatchObject({ calls: 1, different: 0 });
    expect(b()).toBe("deny");
    expect(policy.trials.end()).toBeUndefined();
  });
  test("that cannot be used is refused, and the one before it goes on", () => {
    const policy = live();
    policy.trials.begin(NEXT);
    const wrong = {
      name: "wrong",
      policy: { roles: { all: { may: ["*"], deny: [], when: "1 +" } }, assign: everybody },
    };
    expect(() => policy.trials.begin(wrong)).toThrow(/roles\.all\.when/);
    expect(policy.trials.report()?.name).toBe("next");
  });
  test("lists no names that only clients made up, and no more rows than it may", () => {
    const policy = live();
    policy.trials.begin(NEXT);
    for (let at = 0; at < 700; at++) {
      policy.decide(who, target(`made-up-${at}`, "tool", { server: "" }), toolCall());
      policy.decide(who, target(`tool-${at}`), toolCall());
    }
    const report = policy.trials.report();
    expect(report).toMatchObject({ calls: 1400, different: 1400 });
    expect(report?.rows).toHaveLength(500);
    expect(report?.rows[0]).toMatchObject({ name: "", calls: 700 });
  });
});

describe("at a running gateway", () => {
  let at: Operated;
  let scratch: string;
  let token: string;
  beforeEach(async () => {
    scratch = mkdtempSync(join(tmpdir(), "db-trial-"));
    at = await operated(desk(scratch));
    writeFileSync(join(at.folder, "next.yaml"), nextOf(DOCUMENT));
    token = (await at.live.tokens()).access_token;
  });
  afterEach(async () => {
    await at?.[Symbol.asyncDispose]();
    rmSync(scratch, { recursive: true, force: true });
  });
  const call = async (name: string, args: object = {}) => {
    const body = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } };
    return (await at.live.post(body, { "mcp-protocol-version": "2025-11-25" }, token)).text();
  };

  test("docs/policy.md shows what is printed", async () => {
    const shown = [...DOCUMENT.matchAll(/```console\n\$ drawbridge (policy shadow.*)\n([\s\S]*?)```/g)];
    expect(shown.map(([, command]) => command)).toEqual([
      "policy shadow next.yaml",
      "policy shadow",
      "policy shadow --off",
    ]);
    for (const [, command = "", output = ""] of shown) {
      if (command === "policy shadow") {
        for (let time = 0; time < 3; time++) await call("list_products");
        await call("cancel_order", { order_id: "ORD-000001" });
        await call("nothing");
      }
      const { stdout, stderr, code } = await at.cli(command.split(" "));
      expect([stderr, code]).toEqual(["", 0]);
      const dated = (text: string) => text.replace(/since \d{4}-\d\d-\d\d \d\d:\d\d/, "since then");
      expect(dated(stdout)).toBe(dated(output));
    }
    expect((await at.cli(["policy", "shadow"])).stdout).toBe("No policy is tried out.\n");
    expect(await at.recorded("policy-trial-begun")).toMatchObject({ name: "next.yaml", via: "control socket" });
    expect(await at.recorded("policy-trial-ended")).toMatchObject({ via: "control socket" });
  });

  test("what cannot be used is refused with what is wrong, and nothing is tried out", async () => {
    for (const [text, message] of [
      ["roles: { a: { may: [x], when: '1 +' } }\nassign: []\n", "roles.a.when"],
      ["roles: { a: { mai: [x] } }\n", "mai"],
      ["assign: []\n", "has no `roles`"],
      ["roles: {", "next.yaml"],
    ] as const) {
      writeFileSync(join(at.folder, "next.yaml"), text);
      const { code, stderr } = await at.cli(["policy", "shadow", "next.yaml"]);
      expect(stderr).toContain(message);
      expect(code).toBe(2);
    }
    expect((await at.cli(["policy", "shadow", "nowhere.yaml"])).stderr).toContain("cannot be read");
    expect((await at.cli(["policy", "shadow", "next.yaml", "--off"])).stderr).toContain("not both");
    expect((await at.cli(["policy", "shadow"])).stdout).toBe("No policy is tried out.\n");
  });

  test("nobody can begin one over HTTP, the owner neither", async () => {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    for (const [method, path] of [
      ["GET", "/admin/policy/shadow"],
      ["POST", "/admin/policy/shadow"],
      ["POST", "/admin/policy/shadow/end"],
    ] as const) {
      const body = method === "POST" ? JSON.stringify(NEXT) : null;
      expect((await fetch(`${at.live.origin}${path}`, { method, headers, body })).status, path).toBe(404);
    }
  });
});

const DOCUMENT = readFileSync(join(root, "docs/policy.md"), "utf8");
const nextOf = (document: string) => /```yaml\n# next\.yaml\n([\s\S]*?)```/.exec(document)?.[1] ?? "";

/** The order desk's own settings, with a store and a database of this test's. */
function desk(folder: string): Record<string, unknown> {
  const {
    publicUrl: _,
    limits: __,
    store: ___,
    ...settings
  } = parse(readFileSync(join(deskFolder, "drawbridge.yaml"), "utf8"));
  const { orders } = settings.servers;
  const environment = { ORDERS_DB: join(folder, "orders.db") };
  return {
    ...settings,
    clients: { registration: "open" },
    servers: { orders: { ...orders, cwd: deskFolder, environment, processes: { min: 1, max: 1 } } },
  };
}
