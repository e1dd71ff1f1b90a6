/** `drawbridge why`, `access` and `policy test`: on the order desk as its documentation shows them, and where things are wrong. */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { root } from "../house/sources.ts";
import { run } from "./terminal.ts";

const DESK = join(root, "examples/orders");
const DOCUMENT = readFileSync(join(root, "docs/policy.md"), "utf8");

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "db-policy-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** The desk's settings without its store, so that nothing of this machine shows. */
function desk(): string {
  for (const file of ["drawbridge.yaml", "policy.test.yaml"]) copyFileSync(join(DESK, file), join(folder, file));
  return folder;
}
const settings = (text: string) => writeFileSync(join(folder, "drawbridge.yaml"), text);
const here = (...argv: string[]) => run(argv, { cwd: folder });

/** A command line as a shell reads it, as far as the documentation needs one. */
function words(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? "");
}

// What it shows of `policy shadow` and `policy replay` needs a gateway: test/policy/trial.test.ts, policy-replay.test.ts.
describe("what docs/policy.md shows", () => {
  const shown = [
    ...DOCUMENT.matchAll(/```console\n\$ drawbridge (?!policy (?:shadow|replay))(.*)\n([\s\S]*?)```/g),
  ].map(([, command = "", output = ""]) => [command, output] as const);
  test("is there", () => {
    expect(shown.map(([command]) => command.split(" ")[0])).toEqual(["why", "why", "why", "access", "policy"]);
  });
  test.each(shown)("drawbridge %s prints just that", async (command, output) => {
    desk();
    const { stdout, stderr } = await here(...words(command));
    expect(stderr).toBe("");
    expect(stdout).toBe(output);
  });
  test("of settings can be loaded", async () => {
    const blocks = [...DOCUMENT.matchAll(/```yaml\n((?:roles|shadowPolicy):[\s\S]*?)```/g)].map(
      ([, text = ""]) => text,
    );
    expect(blocks.length).toBeGreaterThan(2);
    writeFileSync(join(folder, "next.yaml"), "roles: {}\n");
    for (const block of blocks) {
      settings(JSON.stringify({ servers: { a: { command: ["x"] } }, ...(parse(block) as object) }));
      expect(await here("config", "check"), block).toMatchObject({ code: 0 });
    }
  });
  test("of roles is part of the desk's", () => {
    const block = /```yaml\n(roles:[\s\S]*?)```/.exec(DOCUMENT)?.[1] ?? "";
    const part = parse(block) as { roles: object; assign: object[] };
    const whole = parse(readFileSync(join(DESK, "drawbridge.yaml"), "utf8")) as typeof part;
    expect(whole.roles).toMatchObject(part.roles);
    for (const one of part.assign) expect(whole.assign).toContainEqual(one);
  });
  test("of cases is part of the desk's", () => {
    const block = /```yaml\n(people:[\s\S]*?)```/.exec(DOCUMENT)?.[1] ?? "";
    const part = parse(block) as { people: object; cases: object[] };
    const whole = parse(readFileSync(join(DESK, "policy.test.yaml"), "utf8")) as typeof part;
    expect(whole.people).toMatchObject(part.people);
    for (const one of part.cases) expect(whole.cases).toContainEqual(one);
  });
});

describe("why", () => {
  const POLICY = `
servers: { s: { command: [x] } }
roles:
  a:
    may: [read_*]
    rules:
      - { deny: ["resource:o://secret*"] }
      - { may: ["resource:o://*"], when: 'resource.parts[0] != "x" && principal.client == "cli"' }
      - { may: [restart], when: time.hour >= 9 && time.hour < 17 }
  b: { may: [write] }
  c: { may: [write], deny: [read_all] }
assign:
  - { role: a, group: staff }
  - { role: b, claim: { level: 3 } }
  - { role: c, user: root, client: console }
`;
  const why = async (...argv: string[]) => {
    settings(POLICY);
    const { code, stdout } = await here("why", ...argv, "--json");
    const told = JSON.parse(stdout) as {
      decision: { effect: string; rule?: string };
      roles: { role: string; because: string[] }[];
      looked: { clause: string; outcome: string; unmet: string[]; decided: boolean }[];
      needed: string[];
      notes: string[];
    };
    return { code, ...told };
  };

  test("names the roles, by which assignment, and the rule that decided", async () => {
    const told = await why("anna", "read_x", "--groups", "staff,others");
    expect(told).toMatchObject({ code: 0, decision: { effect: "permit", rule: "a: may read_*" }, needed: [] });
    expect(told.roles).toEqual([{ role: "a", because: ["assign.0: members of the group staff"] }]);
    expect(told.looked).toMatchObject([{ clause: "a: may read_*", decided: true }]);
  });
  test("says which part of a condition is not met, and what it would take", async () => {
    const told = await why("anna", "resource:o://1", "--groups", "staff", "--client", "web");
    expect(told).toMatchObject({ code: 1, decision: { effect: "deny" } });
    expect(told.looked).toMatchObject([{ outcome: "not met", unmet: ['principal.client == "cli"'] }]);
    expect(told.needed).toEqual(['For a.rules.1: may resource:o://*, a call that meets principal.client == "cli".']);
    expect(await why("anna", "resource:o://1", "--groups", "staff", "--client", "cli")).toMatchObject({ code: 0 });
  });
  test("says of a denial that no role lifts it", async () => {
    const told = await why("anna", "resource:o://secret/1", "--groups", "staff", "--client", "cli");
    expect(told.decision).toMatchObject({ effect: "deny", rule: "a.rules.0: deny resource:o://secret*" });
    expect(told.needed).toEqual([
      "No role lifts a denial. It takes that a.rules.0: deny resource:o://secret* goes, or that the caller does not have the role a, which assign.0 (members of the group staff) gives.",
    ]);
  });
  test("says which roles would permit it, and who has them", async () => {
    const { needed } = await why("anna", "write", "--groups", "staff");
    expect(needed).toEqual([
      "The role b, for whose claim level is 3.",
      "The role c, for the user root and whoever comes through the client console.",
    ]);
    expect(await why("anna", "write", "--claims", '{"level": 3}')).toMatchObject({ code: 0 });
  });
  test("can ask about another time, about lists, and about a token with fewer scopes", async () => {
    const at = (time: string) => why("anna", "restart", "--groups", "staff", "--at", time);
    expect((await at("2026-11-20T10:00:00Z")).code).toBe(0);
    expect((await at("2026-11-20T18:00:00Z")).code).toBe(1);
    expect(await why("anna", "restart", "--groups", "staff", "--list")).toMatchObject({
      code: 0,
      looked: [{ outcome: "open" }],
    });
    expect(await why("anna", "read_x", "--groups", "staff", "--scopes", "mcp:read")).toMatchObject({
      code: 1,
      decision: { effect: "step-up" },
      needed: ["A token with the scope mcp:call."],
    });
  });
  test("says what it does not know", async () => {
    const { notes } = await why("anna", "read_x");
    expect(notes).toEqual([
      "The store does not know anna, so they are in no group. --groups says otherwise.",
      "Nothing is known of what the servers offer: no gateway has run on these settings here. --open asks the servers.",
    ]);
  });
  test.each([
    [["anna", "x", "{"], "The arguments must be a JSON object"],
    [["anna", "x", "--claims", "[]"], "--claims must be a JSON object"],
    [["anna", "x", "--at", "soon"], "--at must be a time"],
    [["anna", "x", "--file", "none.yaml"], "none.yaml"],
  ])("refuses %j", async (argv, message) => {
    settings(POLICY);
    const { code, stderr } = await here("why", ...argv);
    expect([code, stderr]).toEqual([2, expect.stringContaining(message)]);
  });
});

describe("access", () => {
  test("says what each role could do at most, and marks what is not certain", async () => {
    settings(`
servers: { s: { command: [x] } }
tools:
  read_mail: { from: s/read_mail, access: read, openWorld: true, description: Reads mails of customers. }
  look: { from: s/look, access: read, openWorld: false, description: Shows a file. }
  send: { from: s/send, access: write, openWorld: true, description: Sends a mail. }
  drop: { from: s/drop, access: destructive, openWorld: false, description: Drops it. }
  delete_thing: { from: s/delete_thing, description: Nobody says. }
roles:
  all: { may: ["*"] }
  careful: { may: ["access:write"], deny: [open-world] }
  seldom: { may: [look], when: time.hour == 3 }
assign: []
`);
    const { stdout } = await here("access", "--json");
    const { roles } = JSON.parse(stdout) as { roles: Record<string, unknown>[] };
    const names = (list: unknown) => (list as { name: string; by: string }[]).map(({ name, by }) => `${name} ${by}`);
    const [all, careful, seldom] = roles;
    expect(names(all?.["reads"])).toEqual(["read_mail contract", "look contract"]);
    expect(names(all?.["changes"])).toEqual(["send contract"]);
    expect(names(all?.["destroys"])).toEqual(["drop contract", "delete_thing guess"]);
    expect(names(all?.["sends"])).toEqual(["read_mail contract", "send contract"]);
    expect(all?.["unsaid"]).toEqual(["delete_thing"]);
    expect(all?.["trifecta"]).toMatchObject({ privateData: ["look"], strangersText: ["read_mail"] });
    expect(names(careful?.["reads"])).toEqual(["look contract"]);
    expect(careful?.["trifecta"]).toBeUndefined();
    expect(seldom?.["reads"]).toMatchObject([{ name: "look", when: ["time.hour == 3"] }]);
    const text = (await here("access", "--as", "all")).stdout;
    expect(text).toContain("warning: the lethal trifecta");
    expect(text).toContain("delete_thing?");
    expect(text).toContain("guessed from its name and words");
  });
  test("of servers without contracts asks the servers themselves", async () => {
    settings(`
servers: { echo: { command: ${JSON.stringify([process.execPath, join(root, "test/fixtures/echo-stdio.ts")])} } }
roles: { all: { may: [sum, crash, "resource:test://items/1"] } }
assign: []
`);
    const closed = await here("access");
    expect(closed.stdout).toContain("--open asks the servers");
    const { stdout } = await here("access", "--open", "--json");
    const [role] = (JSON.parse(stdout) as { roles: { reads: { name: string; by: string }[] }[] }).roles;
    expect(role?.reads).toMatchObject([
      { name: "sum", by: "server" },
      { name: "test://items/{id}", by: "server" },
    ]);
  }, 30_000);
  test("refuses a role that there is not", async () => {
    desk();
    const { code, stderr } = await here("access", "--as", "king");
    expect([code, stderr]).toEqual([2, expect.stringContaining('There is no role "king"; known roles: owner')]);
  });
});

describe("policy test", () => {
  const cases = (text: string) => writeFileSync(join(folder, "policy.test.yaml"), text);
  test("prints the difference and the reason of each case that is not as expected, and ends with 1", async () => {
    desk();
    cases(`
cases:
  - { name: support may cancel, who: { user: sam, groups: [support] }, call: cancel_order, expect: permit }
  - { who: { user: sam, groups: [support] }, call: look_up_order, expect: permit, rule: "support: may look_*" }
  - { who: { user: sam, groups: [support] }, call: find_orders, expect: permit }
`);
    const { code, stdout } = await here("policy", "test");
    expect(code).toBe(1);
    expect(stdout).toContain("wrong support may cancel\n        - decision: permit\n        + decision: deny\n");
    expect(stdout).toContain("        - rule: support: may look_*\n        + rule: support: may look_up_order\n");
    expect(stdout).toContain("ok    sam calls find_orders\n");
    expect(stdout).toContain("The role owner, for members of the group owner.");
    expect(stdout).toMatch(/3 cases, 2 not as expected\n$/);
  });
  test("runs the same cases against a policy that is only tried out", async () => {
    settings(`
servers: { s: { command: [x] } }
roles: { a: { may: [x], rules: [{ deny: [x], shadow: true }] } }
assign: [{ role: a, when: "true" }]
`);
    cases("cases: [{ who: anna, call: x, expect: permit }]");
    expect((await here("policy", "test")).code).toBe(0);
    expect((await here("policy", "test", "--shadow")).code).toBe(1);
  });
  test.each([
    ["cases: [{ who: a, call: x, expect: allow }]", /policy\.test\.yaml:1:\d+ cases\.0\.expect: "allow" is not one of/],
    ["cases: [{ who: a, expect: deny }]", /expected either `call` or `list`/],
    ["cases: [{ who: a, call: x, expect: deny, rules: x }]", /did you mean "rule"\?/],
    ["cases: {", /policy\.test\.yaml:1:\d+/],
  ])("ends with 2 for a file that is wrong: %s", async (text, message) => {
    desk();
    cases(text);
    const { code, stderr } = await here("policy", "test");
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
  });
  test("ends with 2 when there are no cases, or the settings are wrong", async () => {
    expect((await here("policy", "test")).code).toBe(2);
    settings("servers: { s: { command: [x] } }\nroles: { a: { may: [x], when: '1 +' } }\n");
    cases("cases: [{ who: a, call: x, expect: deny }]");
    const { code, stderr } = await here("policy", "test");
    expect([code, stderr]).toEqual([2, expect.stringContaining("roles.a.when")]);
  });
});
