/** `drawbridge audit prune | hold | export | verify` on a log that is old enough, as an operator and an auditor use them. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openEvidence } from "../../src/audit/evidence.ts";
import { auditSettings } from "../../src/audit/settings.ts";
import { signerOfSeed } from "../../src/audit/signing.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { writer } from "../audit/paper-log.ts";
import { run } from "./terminal.ts";

const DAY = 86_400_000;
const plain = (text: string) => text.replaceAll(/\u001b\[[\d;]*m/g, "");
let folder: string;
let file: string;

/** Ten days ago until yesterday, a record a day of each of two users. */
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "drawbridge-keeping-"));
  file = join(folder, "gateway.db");
  writeFileSync(
    join(folder, "drawbridge.yaml"),
    JSON.stringify({ servers: { echo: { command: ["true"] } }, store: `sqlite:${file}`, audit: { keep: "5d" } }),
  );
  const store = sqliteStore(file);
  const evidence = openEvidence({
    store,
    settings: auditSettings.parse({}),
    encryption: undefined,
    folder,
    replica: "gateway",
    logger: silentLogger,
    clock: () => Date.now() - 11 * DAY,
  });
  for (let days = 10; days > 0; days--)
    for (const subject of ["ada", "bob"])
      await evidence.journal.append({
        id: `${subject}-${days}`,
        kind: "call",
        at: Date.now() - days * DAY,
        durationMs: 1,
        outcome: "permitted",
        principal: { subject, client: "c", actors: [], groups: [], scopes: [], tokenId: "t" },
        arguments: { json: '{"text":"words"}' },
        replica: "gateway",
      });
  await evidence.journal.close();
  await store.close();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const cli = (...argv: string[]) => run(["audit", ...argv], { cwd: folder });
async function said(...argv: string[]): Promise<string> {
  const { code, stdout, stderr } = await cli(...argv);
  expect(`${argv.join(" ")}: ${code} ${stderr}`).toBe(`${argv.join(" ")}: 0 `);
  return plain(stdout);
}
/** Ids of the calls that are left of a user, by the log's own search. */
async function left(user: string): Promise<readonly string[]> {
  const lines = (await said("search", "--user", user, "--format", "json")).split("\n");
  return lines.flatMap((line) => (line === "" ? [] : [(JSON.parse(line) as { id: string }).id]));
}
const ids = (user: string, from: number) => Array.from({ length: from }, (_, n) => `${user}-${from - n}`);

test("pruning takes out what is older than audit.keep, leaves what is on hold, and takes that when the hold is lifted", async () => {
  await said("hold", "place", "case-7", "--user", "bob", "--reason", "dispute");
  expect(await said("prune")).toMatch(
    /^\d+ records older than 5 days taken out\. Of \d+ of them a hash is left, .* 6 records stayed: they are on hold\.\n$/,
  );
  expect(await left("ada")).toEqual(ids("ada", 4));
  expect(await left("bob")).toEqual(ids("bob", 10));
  expect(await said("verify")).toMatch(/^whole {2}.*taken out by retention/);
  expect(await said("prune")).toMatch(/^0 records older .* 6 records stayed/);

  await said("hold", "lift", "case-7");
  expect(await said("prune")).toMatch(/^11 records older than 5 days taken out\.\n$/);
  expect(await left("bob")).toEqual(ids("bob", 4));
  expect(await said("verify")).toMatch(/^whole {2}/);
  expect(await said("prune", "--older-than", "2")).toMatch(/^\d+ records older than 2 days taken out\.\n$/);
  expect(await left("ada")).toEqual(ids("ada", 1));
  expect(await said("verify")).toMatch(/^whole {2}/);
}, 60_000);

test("an export of what retention has left verifies with the key alone, whole and in part, and a changed one does not", async () => {
  await said("hold", "place", "case-7", "--user", "bob", "--reason", "dispute");
  await said("prune");
  const [exported, key] = [join(folder, "part.jsonl"), join(folder, "key.pem")];
  writeFileSync(key, await said("key"));
  const verify = () => cli("verify", "--export", exported, "--key", key);
  for (const range of [[], ["--since", "8d"], ["--since", "8d", "--until", "6d"], ["--until", "3d"]]) {
    const lines = await said("export", ...range);
    writeFileSync(exported, lines);
    const { code, stdout } = await verify();
    expect(`${range.join(" ")}: ${code} ${plain(stdout)}`).toMatch(/: 0 whole {2}/);
    const forged = lines.replace(/"id":"bob-(\d+)"/, '"id":"bib-$1"');
    expect(forged).not.toBe(lines);
    writeFileSync(exported, forged);
    expect((await verify()).code).toBe(1);
  }
}, 60_000);

test("nothing is exported or pruned of a log that somebody has changed, and verify names what it was", async () => {
  const database = new DatabaseSync(file);
  database.exec("DROP TRIGGER audit_is_not_changed");
  database.prepare("UPDATE audit SET json = replace(json, 'permitted', 'refused') WHERE id = 'ada-7'").run();
  database.close();
  const [verify, exported, prune] = [await cli("verify"), await cli("export"), await cli("prune")];
  expect(plain(verify.stdout)).toMatch(/^changed {2}record \d+ \(ada-7\)/);
  expect(verify.code).toBe(1);
  expect(exported).toMatchObject({ stdout: "", stderr: expect.stringContaining("nothing is exported") });
  expect(exported.code).not.toBe(0);
  expect(prune.stderr).toContain("nothing is taken out");
  expect(prune.code).not.toBe(0);
  expect(await left("ada")).toHaveLength(10);
});

test("a log that somebody has written anew, with a key of theirs that they put into the store, is not believed", async () => {
  const store = sqliteStore(file);
  const stranger = signerOfSeed(Buffer.alloc(32, 9));
  const database = new DatabaseSync(file);
  database.exec("DROP TRIGGER audit_is_not_deleted; DELETE FROM audit; DELETE FROM audit_heads");
  database.close();
  await store.records.put("audit-signer", stranger.kid, { publicKey: stranger.publicKey });
  const forged = writer({ log: store.audit }, "forged", { signer: stranger });
  await forged.day(1);
  await forged.close();
  await store.close();
  const verify = await cli("verify");
  expect(plain(verify.stdout)).toMatch(/^unsigned {2}record \d+.* not among those that are trusted/);
  expect(verify.code).toBe(1);
  // Who names the store alone believes what it says, and is told so.
  const alone = await cli("verify", "--store", `sqlite:${file}`);
  expect(alone).toMatchObject({ code: 0, stderr: expect.stringMatching(/the store itself names.*--key/) });
});

/** Changes a row of the store as somebody with the database does. */
function inDatabase(sql: string, ...values: readonly string[]): void {
  const database = new DatabaseSync(file);
  database.exec("DROP TRIGGER IF EXISTS audit_is_not_changed; DROP TRIGGER IF EXISTS audit_is_not_deleted");
  expect(database.prepare(sql).run(...values).changes).toBe(1);
  database.close();
}

test("a hold that somebody took out of the store keeps its records, verify and prune name it, and lifting and placing it mends that", async () => {
  await said("hold", "place", "case-7", "--user", "bob", "--reason", "dispute");
  expect(await said("hold", "list")).toMatch(/case-7 +bob +everything .*signed +dispute/);
  expect(await said("verify")).toMatch(/^whole {2}/);
  inDatabase("DELETE FROM records WHERE kind = 'audit-hold'");
  const verify = await cli("verify");
  expect(plain(verify.stdout)).toMatch(/^removed {2}hold case-7: Record \d+ has placed it, none has lifted it/);
  expect(verify.code).toBe(1);
  expect(JSON.parse((await cli("verify", "--format", "json")).stdout)).toMatchObject({
    whole: false,
    holds: [{ hold: "case-7", kind: "removed" }],
  });
  expect(await said("hold", "list")).toMatch(/case-7 +bob .*removed +dispute/);
  const prune = await cli("prune");
  expect(prune.stdout).toMatch(/6 records stayed: they are on hold/);
  expect(prune.stderr).toMatch(/The hold case-7 is in doubt, so all that it may match stayed\. Record/);
  expect(prune.code).toBe(1);
  expect(await left("bob")).toEqual(ids("bob", 10));
  expect((await cli("erase", "bob", "--yes")).stderr).toContain("case-7");

  await said("hold", "lift", "case-7");
  expect(await said("verify")).toMatch(/^whole {2}/);
  await said("hold", "place", "case-7", "--user", "bob", "--reason", "dispute");
  expect(await said("verify")).toMatch(/^whole {2}/);
  expect(await said("prune")).toMatch(/6 records stayed/);
}, 60_000);

test("a hold that somebody shortened, or invented, is told with the record that says otherwise", async () => {
  await said("hold", "place", "case-7", "--user", "bob", "--reason", "dispute");
  inDatabase("UPDATE records SET value = json_set(value, '$.until', 1) WHERE kind = 'audit-hold'");
  expect(plain((await cli("verify")).stdout)).toMatch(/^changed {2}hold case-7: .* not what record \d+ has placed/);
  inDatabase("UPDATE records SET id = 'case-9', value = json_set(value, '$.id', 'case-9') WHERE kind = 'audit-hold'");
  const verify = plain((await cli("verify")).stdout);
  expect(verify).toMatch(/^removed {2}hold case-7: /m);
  expect(verify).toMatch(/^unsigned {2}hold case-9: /m);
  expect((await cli("prune")).code).toBe(1);
  expect(await left("bob")).toEqual(ids("bob", 10));
}, 60_000);

test("records of two processes that changed places are named", async () => {
  await said("hold", "place", "case-7", "--user", "bob", "--reason", "dispute");
  // The last of the gateway and the first of the command.
  const database = new DatabaseSync(file);
  const rows = database.prepare("SELECT sequence, json FROM audit ORDER BY sequence").all();
  const first = rows.findIndex(({ json }) => String(json).includes("command line"));
  const [one, other] = rows.slice(first - 1, first + 1);
  database.close();
  for (const [row, text] of [
    [one, other],
    [other, one],
  ])
    inDatabase("UPDATE audit SET json = ? WHERE sequence = ?", String(text?.["json"]), String(row?.["sequence"]));
  const { stdout, code } = await cli("verify");
  expect(plain(stdout)).toMatch(/^moved {2}record \d+/);
  expect(code).toBe(1);
});

test("a record that is no JSON any more is shown as that, and the others as before", async () => {
  inDatabase("UPDATE audit SET json = 'not JSON' WHERE id = 'ada-7'");
  const { code, stdout } = await cli("show", "--user", "ada");
  expect(code).toBe(0);
  expect(plain(stdout)).toContain("cannot be read");
  expect(plain(stdout).split("\n").length).toBeGreaterThan(9);
  expect((await cli("show", "--user", "ada", "--format", "json")).code).toBe(0);
  expect(plain((await cli("verify")).stdout)).toMatch(/^added {2}record \d+/);
});

test("a file that cannot be read, or is none, is no verdict about the log", async () => {
  writeFileSync(join(folder, "key.pem"), await said("key"));
  for (const [exported, key, why] of [
    ["nowhere", "key.pem", /--export: the file nowhere cannot be read \(ENOENT\)/],
    [".", "key.pem", /--export: the file \. cannot be read \(EISDIR\)/],
    ["gateway.db", "nowhere", /--key: the file nowhere cannot be read \(ENOENT\)/],
    ["key.pem", "key.pem", /no whole export/],
    ["key.pem", "drawbridge.yaml", /not an Ed25519 public key/],
  ] as const)
    expect(await cli("verify", "--export", exported, "--key", key)).toMatchObject({
      code: 2,
      stdout: "",
      stderr: expect.stringMatching(why),
    });
});
