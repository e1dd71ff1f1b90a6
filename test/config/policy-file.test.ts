import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readPolicyCases, readPolicyFile } from "../../src/config/policy-file.ts";
import { SettingsProblems } from "../../src/config/problems.ts";

test("a policy or cases that aliases blow up are refused with their file and reason", async () => {
  const folder = await mkdtemp(join(tmpdir(), "drawbridge-policy-"));
  try {
    const file = join(folder, "bomb.yaml");
    const row = (name: string) => `[${Array.from({ length: 10 }, () => `*${name}`).join()}]`;
    await writeFile(file, `a: &a [${"x,".repeat(10)}]\nb: &b ${row("a")}\nc: &c ${row("b")}\nroles: ${row("c")}\n`);
    await expect(readPolicyFile(file)).rejects.toThrow(`the file ${file}: more than 100 aliases`);
    const thrown: unknown = await readPolicyCases(file, "cases.yaml").catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(SettingsProblems);
    expect(String((thrown as Error).message)).toContain("more than 100 aliases");
  } finally {
    await rm(folder, { recursive: true });
  }
});
