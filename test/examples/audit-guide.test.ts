/** What docs/audit.md tells an auditor to do works, with what is on every Linux, and tells a forged export from a true one. */
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Operated, operated } from "../cli/operated.ts";
import { modernRequest } from "../e2e/world.ts";
import { root } from "../house/sources.ts";

const page = readFileSync(join(root, "docs/audit.md"), "utf8");
const blocks = [...page.matchAll(/```sh by-hand\n([\s\S]*?)```/g)].map(([, text = ""]) => text);
const commands = [...page.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, text = ""]) => text.trim().split("\n"));

let one: Operated;
let subject: string;
beforeAll(async () => {
  one = await operated();
  const { access_token } = await one.live.tokens();
  const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text: "hi" } }, "call");
  expect((await one.live.post(body, headers, access_token)).status).toBe(200);
  const { stdout } = await one.cli(["audit", "search", "--target", "echo", "--format", "json"]);
  subject = (JSON.parse(stdout) as { principal: { subject: string } }).principal.subject;
}, 60_000);
afterAll(() => one?.[Symbol.asyncDispose]());

/** What a shell prints for all blocks of the page, one after the other. */
async function byHand(): Promise<string> {
  try {
    const { stdout, stderr } = await promisify(execFile)("sh", ["-c", blocks.join("\n")], { cwd: one.folder });
    return stdout + stderr;
  } catch (thrown) {
    return String((thrown as { stdout: string }).stdout) + String((thrown as { stderr: string }).stderr);
  }
}

const GOOD = [
  /the lines are those of the last line/,
  /Signature Verified Successfully/,
  /the second record follows the first/,
];

test("each command of the page works as it stands there", async () => {
  for (const line of commands) {
    const [, argv = "", file] = /^drawbridge (.*?)(?: > (\S+))?$/.exec(line) ?? [];
    if (argv === "audit tail") continue; // It goes on until Ctrl-C.
    const words = [...argv.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? "");
    const named = words.map((word) => (word === "u_4821" ? subject : word));
    const { code, stdout, stderr } = await one.cli([...named, ...(named[1] === "erase" ? ["--yes"] : [])]);
    expect(`${line}: ${code} ${stderr}`).toBe(`${line}: 0 `);
    if (file !== undefined) writeFileSync(join(one.folder, file), stdout);
  }
  expect(commands.length).toBeGreaterThan(9);
});

test.skipIf(process.platform !== "linux")(
  "an auditor verifies the export by hand, and a changed one fails",
  async () => {
    const good = await byHand();
    for (const sentence of GOOD) expect(good).toMatch(sentence);
    const file = join(one.folder, "export.jsonl");
    const lines = readFileSync(file, "utf8");
    writeFileSync(file, lines.replace('"outcome":"permitted"', '"outcome":"refused"'));
    const changed = await byHand();
    expect(changed).not.toMatch(GOOD[0] as RegExp);
    expect(changed).not.toMatch(GOOD[2] as RegExp);
    writeFileSync(file, lines.replace(/"records":\d+/, '"records":1'));
    expect(await byHand()).not.toMatch(GOOD[1] as RegExp);
  },
);
