/** `drawbridge audit` beside a running gateway, as an operator and an auditor use it. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { newId } from "../../src/core/ids.ts";
import { modernRequest } from "../e2e/world.ts";
import { type Operated, operated, until } from "./operated.ts";

let one: Operated;
let subject: string;
const plain = (text: string) => text.replaceAll(/\u001b\[[\d;]*m/g, "");

beforeAll(async () => {
  one = await operated();
  const { access_token } = await one.live.tokens();
  for (const [at, text] of ["first words", "second words", "third words"].entries()) {
    const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text } }, `call-${at}`);
    expect((await one.live.post(body, headers, access_token)).status).toBe(200);
  }
  const [record] = await found("audit", "search", "--target", "echo", "--format", "json");
  subject = (record as { principal: { subject: string } }).principal.subject;
});
afterAll(() => one?.[Symbol.asyncDispose]());

async function found(...argv: string[]): Promise<object[]> {
  const { code, stdout, stderr } = await one.cli(argv);
  expect(code, stderr).toBe(0);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as object);
}

test("search finds calls by tool, user, outcome and time, and shows what was sent to those who can read it", async () => {
  const records = await found(
    "audit",
    "search",
    "--target",
    "echo",
    "--user",
    subject,
    "--since",
    "1h",
    "--format",
    "json",
  );
  expect(records).toHaveLength(3);
  expect(records[0]).toMatchObject({ outcome: "permitted", arguments: { json: { text: "first words" } } });
  expect(await found("audit", "search", "--target", "echo", "--outcome", "refused", "--format", "json")).toEqual([]);
  expect(await found("audit", "search", "--target", "echo", "--limit", "2", "--format", "json")).toHaveLength(2);
  const text = plain((await one.cli(["audit", "show", "--target", "echo"])).stdout);
  expect(text.match(/tools\/call {2}echo/g)).toHaveLength(3);
});

test("verify says that a log is whole while the gateway writes it", async () => {
  const { code, stdout } = await one.cli(["audit", "verify"]);
  expect(plain(stdout)).toMatch(/^whole {2}\d+ records in \d+ chains?, \d+ checkpoints?\n$/);
  expect(code).toBe(0);
  const { stdout: json } = await one.cli(["audit", "verify", "--format", "json"]);
  expect(JSON.parse(json)).toMatchObject({ whole: true, chains: expect.any(Number) });
});

describe("an export and the public key", () => {
  test("are all that an auditor needs; a changed line is named, and without the key nothing is believed", async () => {
    const key = (await one.cli(["audit", "key"])).stdout;
    expect(key).toMatch(/^-----BEGIN PUBLIC KEY-----/);
    const lines = (await one.cli(["audit", "export"])).stdout;
    const [exported, pem] = ["november.jsonl", "audit-public.pem"].map((name) => join(one.folder, name)) as [
      string,
      string,
    ];
    writeFileSync(pem, key);
    writeFileSync(exported, lines);
    const verify = (...more: string[]) => one.cli(["audit", "verify", "--export", exported, ...more]);
    expect(plain((await verify("--key", pem)).stdout)).toMatch(/^whole {2}/);
    expect(await verify()).toMatchObject({ code: 2, stderr: expect.stringContaining("--key") });

    const at = lines.split("\n").findIndex((line) => line.includes('"name":"echo"'));
    const forged = lines.split("\n");
    forged[at] = (forged[at] ?? "").replace('"outcome":"permitted"', '"outcome":"refused"');
    writeFileSync(exported, forged.join("\n"));
    const { code, stdout } = await verify("--key", pem);
    expect(plain(stdout)).toMatch(new RegExp(`^changed {2}line ${at + 1} \\(`));
    expect(code).toBe(1);
  });

  test("may be of some days only", async () => {
    expect((await one.cli(["audit", "export", "--since", "1h"])).stdout.split("\n").length).toBeGreaterThan(4);
    expect(await one.cli(["audit", "export", "--since", "2999-01-01"])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("no record of that time"),
    });
  });
});

test("a hold is placed, listed and lifted, each in the log; pruning takes nothing that is young", async () => {
  const place = ["audit", "hold", "place", "case-7", "--user", subject, "--reason", "dispute"];
  expect((await one.cli(place)).code).toBe(0);
  expect((await one.cli(place)).stderr).toContain("already");
  expect(plain((await one.cli(["audit", "hold", "list"])).stdout)).toMatch(/case-7 +\S+ +everything .*dispute/);
  expect((await one.cli(["audit", "prune"])).stderr).toContain("audit.keep");
  expect((await one.cli(["audit", "prune", "--older-than", "1"])).stdout).toContain("0 records");
  expect((await one.cli(["audit", "erase", subject, "--yes"])).stderr).toContain("case-7");
  expect((await one.cli(["audit", "hold", "lift", "case-7"])).code).toBe(0);
  expect((await one.cli(["audit", "hold", "lift", "case-7"])).stderr).toContain("no hold");
  const deeds = (await found("audit", "search", "--format", "json")).map(
    (record) => (record as { action?: string }).action,
  );
  expect(deeds).toEqual(expect.arrayContaining(["audit.hold-placed", "audit.hold-lifted"]));
  expect((await one.cli(["audit", "verify"])).code).toBe(0);
});

test("erasing a person leaves who called what, not what they sent, and the log verifies", async () => {
  const { code, stdout } = await one.cli(["audit", "erase", subject, "--yes"]);
  expect(stdout).toContain("Erased");
  expect(code).toBe(0);
  const [record] = await found("audit", "search", "--target", "echo", "--format", "json");
  expect(record).toMatchObject({ outcome: "permitted", principal: { subject }, sealed: { key: expect.any(String) } });
  expect(JSON.stringify(record)).not.toContain("words");
  expect((await one.cli(["audit", "verify"])).code).toBe(0);
  expect((await one.cli(["audit", "erase", "nobody", "--yes"])).stdout).toContain("nothing of nobody");
});

test("who comes back after being erased is recorded so that it can be read, by the gateway that is still running", async () => {
  const { access_token } = await one.live.tokens();
  const words = async () => {
    const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text: "words since" } }, newId());
    expect((await one.live.post(body, headers, access_token)).status).toBe(200);
    return JSON.stringify(await found("audit", "search", "--target", "echo", "--format", "json"));
  };
  await until(async () => (await words()).includes("words since"));
  expect(await words()).not.toContain("first words");
  expect((await one.cli(["audit", "verify"])).code).toBe(0);
});

test("a record that somebody changes in the database is named by verify", async () => {
  const copy = join(one.folder, "copy.db");
  const from = new DatabaseSync(join(one.folder, "gateway.db"));
  from.exec(`VACUUM INTO '${copy}'`);
  from.close();
  const database = new DatabaseSync(copy);
  database.exec("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_deleted");
  const row = database.prepare("SELECT sequence, id, json FROM audit WHERE target = 'echo' LIMIT 1").get() ?? {};
  database
    .prepare("UPDATE audit SET json = replace(json, 'permitted', 'refused') WHERE sequence = ?")
    .run(Number(row["sequence"]));
  database.close();
  const verify = await one.cli(["audit", "verify", "--store", `sqlite:${copy}`]);
  expect(plain(verify.stdout)).toContain(`changed  record ${row["sequence"]} (${row["id"]})`);
  expect(verify.code).toBe(1);
  expect(readFileSync(copy).length).toBeGreaterThan(0);
});
