/** A resource under another spelling is still the same resource, to globs and to conditions. */
import { describe, expect, test } from "vitest";
import { approvalFor, compileApprovals } from "../../src/policy/approvals.ts";
import { compilePolicy } from "../../src/policy/engine.ts";
import type { RolesSettings } from "../../src/policy/settings.ts";
import { modernRequest, world } from "../e2e/world.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { fc, runs } from "../properties.ts";
import { principal, target } from "./support.ts";

const policyOf = (role: Partial<RolesSettings[string]>) =>
  compilePolicy({ r: { may: [], deny: [], ...role } }, [{ role: "r", group: "support" }]);

type Policy = ReturnType<typeof compilePolicy>;
const reads = (policy: Policy, uri: string): boolean => {
  const facts = { method: "resources/read", args: { uri }, scope: undefined };
  return policy.decide(principal(), target(uri, "resource"), facts).effect === "permit";
};
const lists = (policy: Policy, uri: string): boolean =>
  policy.decide(principal(), target(uri, "resource")).effect === "permit";

const SECRET = [
  "file:///secret/x",
  "FILE:///secret/x",
  "file:/secret/x",
  "file:secret/x",
  "file:////secret/x",
  "file:///secret//x",
  "file:///./secret/x",
  "file:///public/../secret/x",
  "file:///public/%2e%2e/secret/x",
  "file:///public/.%2E/secret/x",
  "file:///public/..%2Fsecret/x",
  "file:///public/..%5csecret/x",
  "file:///public\\..\\secret\\x",
  "file:///../secret/x",
  "file:///%73ecret/x",
  "file:///secret%2fx",
  "file:///SECRET/x",
  "file://localhost/secret/x",
  "file://somebody@/secret/x",
  "file:///secret/x?",
  "file:///secret/x#y",
  " file:///secret/x",
  "fi\nle:///se\tcret/x",
];

describe("a file that is denied", () => {
  test.each(SECRET)("is not read as %j", (uri) => {
    const globs = policyOf({
      may: ["resource:file:*", "resource: *", "resource:fi*"],
      deny: ["resource:file:///secret/*"],
    });
    const everything = policyOf({ may: ["*"], deny: ["resource:file:///secret/*"] });
    const exact = policyOf({ may: ["*"], deny: ["resource:file:///secret/x"] });
    for (const policy of [globs, everything, exact]) {
      expect(reads(policy, uri)).toBe(false);
      expect(lists(policy, uri)).toBe(false);
    }
  });

  test.each(SECRET.filter((uri) => !/SECRET/.test(uri)))("is not read as %j past a condition", (uri) => {
    for (const when of [
      'resource.path.startsWith("/secret/")',
      'resource.parts[0] == "secret"',
      'args.uri.startsWith("file:///secret/")',
    ]) {
      const policy = policyOf({ may: ["*"], rules: [{ may: [], deny: ["resource:*"], when }] });
      expect(reads(policy, uri)).toBe(false);
    }
  });
});

describe("a permission", () => {
  test("does not reach out of its folder by dots, encoded or not", () => {
    const globs = policyOf({ may: ["resource:file:///public/*"] });
    const conditions = policyOf({
      may: [],
      rules: [{ may: ["resource:*"], deny: [], when: 'resource.path.startsWith("/public/")' }],
    });
    for (const policy of [globs, conditions]) {
      expect(reads(policy, "file:///public/a/b.txt")).toBe(true);
      for (const uri of [
        "file:///public/../secret/x",
        "file:///public/%2e%2e/secret/x",
        "file:///public/a/..%2f../secret/x",
        "file:///secret/%2e%2e/public/x",
        "file:///secret/../public/x",
      ])
        expect(reads(policy, uri), uri).toBe(false);
    }
  });

  test("of a scheme whose host is the first folder does not reach out of it either", () => {
    const policy = policyOf({ may: ["resource:notes://public/*"] });
    expect(reads(policy, "notes://public/today")).toBe(true);
    expect(reads(policy, "notes://public/../secret/x")).toBe(false);
    const denying = policyOf({ may: ["*"], deny: ["resource:notes://secret/*"] });
    for (const uri of [
      "notes://public/../secret/x",
      "notes:///secret/x",
      "NOTES://secret/x",
      "notes://%73ecret/x",
      "notes://me@secret/x",
      "notes://secret%2Fx",
    ])
      expect(reads(denying, uri), uri).toBe(false);
    expect(reads(denying, "notes://public/x")).toBe(true);
  });

  test.each([
    ["resource:file:///My Docs/*", "file:///My Docs/x"],
    ["resource:file:///my%20docs/*", "file:///my%20docs/%C3%BC.txt"],
    ["resource:*README*", "file:///a/README.md"],
    ["resource:https://example.com", "https://example.com"],
    ["resource:https://exam*", "https://example.com/x?y=%20#z"],
    ["resource:https://münchen.example/*", "https://münchen.example/x"],
    ["resource:mail://me@example.com/*", "mail://me@example.com/inbox"],
    ["resource:db://x/a%2Fb", "db://x/a%2Fb"],
    ["resource:orders://ORD-1/*", "orders://ORD-1/items"],
    ["resource:urn:Isbn:*", "urn:Isbn:0451450523"],
    ["resource:file:///C:/Work/*", "file:///C:/Work/a.txt"],
    ["resource:*", "anything at all"],
    ["resource:my%20notes*", "my%20notes/x"],
  ])("%j still covers %j", (may, uri) => {
    expect(reads(policyOf({ may: [may] }), uri)).toBe(true);
  });

  test.each([
    ['resource.path == "/My Docs/x"', "file:///My Docs/x"],
    ['resource.path == "/my%20docs/x"', "file:///my%20docs/x"],
    ['resource.parts == ["a/b", "items"]', "orders://a%2Fb/items"],
    ['resource.host == "ORD-1"', "orders://ORD-1/items"],
    ['resource.uri == "https://example.com/"', "https://example.com/"],
  ])("with the condition %s still covers what it speaks of", (when, uri) => {
    const policy = policyOf({ may: [], rules: [{ may: ["resource:*"], deny: [], when }] });
    expect(reads(policy, uri)).toBe(true);
  });
});

test("hosts of the web are compared without their case, ports, users and dots", () => {
  const policy = policyOf({ may: ["*"], deny: ["resource:https://api.example.com/admin/*"] });
  for (const uri of [
    "HTTPS://API.example.COM/admin/x",
    "https://api.example.com:443/admin/x",
    "https://me:pw@api.example.com/admin/x",
    "https:api.example.com/admin/x",
    "https:\\\\api.example.com\\admin\\x",
    "https://api.example.com/x/../admin/x",
    "https://api.example.com/%61dmin/x",
  ])
    expect(reads(policy, uri), uri).toBe(false);
  expect(reads(policy, "https://api.example.com/public")).toBe(true);
});

test("a URI that is too long to take apart passes no denial and no permission by name", () => {
  const uri = `file:///public/${"a/".repeat(20_000)}`;
  expect(reads(policyOf({ may: ["*"], deny: ["resource:file:///secret/*"] }), uri)).toBe(false);
  expect(reads(policyOf({ may: ["resource:file:///public/*"] }), uri)).toBe(false);
  expect(reads(policyOf({ may: ["*"] }), uri)).toBe(true);
});

test("an approval that a resource needs is needed under each of its spellings", () => {
  const rules = compileApprovals([
    {
      tools: ["resource:*"],
      by: ["lead"],
      fourEyes: false,
      expiresSeconds: 60,
      when: 'resource.path.startsWith("/secret/")',
    },
  ]);
  for (const uri of SECRET.filter((one) => !/SECRET/.test(one))) {
    const call = { method: "resources/read", args: { uri }, scope: undefined };
    expect(approvalFor(rules, principal(), target(uri, "resource"), call), uri).toBeDefined();
  }
});

test("the explanation of a refused spelling names the clause that refused it", () => {
  const policy = policyOf({
    may: ["*"],
    rules: [{ may: [], deny: ["resource:*"], when: 'resource.parts[0] == "secret"' }],
  });
  const uri = "file:///public/../secret/x";
  const { looked } = policy.explain(principal(), target(uri, "resource"), {
    method: "resources/read",
    args: { uri },
    scope: undefined,
  });
  expect(looked.find(({ decided }) => decided)).toMatchObject({ effect: "deny", outcome: "met" });
});

const part = fc.constantFrom(
  "a",
  "secret",
  "..",
  ".",
  "",
  "%2e%2e",
  "%2F",
  "%5c",
  "\\",
  "%73ecret",
  "A",
  " ",
  "%ff",
  "ü",
  "?",
  "#",
  "@",
  ":",
);
const uris = fc
  .tuple(
    fc.constantFrom("file:///", "file:/", "FILE://", "x://", "x:", "https://h/", "https:/", ""),
    fc.array(part, { maxLength: 8 }),
  )
  .map(([head, parts]) => head + parts.join("/"));

test("whatever the spelling, a further denial never permits more, and what a list hides cannot be read", () => {
  const before = policyOf({
    may: ["resource:*a*", "resource:file:*"],
    rules: [{ may: ["resource:x:*"], deny: [], when: "size(resource.parts) < 4" }],
  });
  const after = policyOf({
    may: ["resource:*a*", "resource:file:*"],
    rules: [
      { may: ["resource:x:*"], deny: [], when: "size(resource.parts) < 4" },
      { may: [], deny: ["resource:*secret*"], when: undefined },
    ],
  } as Partial<RolesSettings[string]>);
  fc.assert(
    fc.property(uris, (uri) => {
      if (reads(after, uri)) expect(reads(before, uri)).toBe(true);
      if (reads(before, uri)) expect(lists(before, uri)).toBe(true);
    }),
    { numRuns: runs(2000) },
  );
});

test("at a running gateway a denied resource is answered as one that does not exist, in every spelling", async () => {
  await using at = await world({
    servers: { echo: { command: fixtureCommand("echo-stdio"), processes: { max: 1 } } },
    roles: { owner: { may: ["*"], deny: ["resource:test://items/secret*"] } },
  });
  const read = async (uri: string) => {
    const [body, headers] = modernRequest("resources/read", { uri });
    return (await (await at.post(body, headers)).json()) as { error?: { message: string }; result?: object };
  };
  // Its server has an item of whatever name.
  expect(await read("test://items/public1")).toHaveProperty("result.contents");
  for (const uri of ["secret1", "%73ecret1", "x%2F..%2Fsecret1", ".%2fsecret1", "x%5C..%5Csecret1"])
    expect((await read(`test://items/${uri}`)).error?.message, uri).toBe("Resource not found");
});
