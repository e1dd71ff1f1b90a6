/** `docs/answers.md`: its settings load, and its words are those of the code. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { settleSettings } from "../../src/config/load.ts";
import { answerSettings, INSTRUCTION_ACTIONS } from "../../src/inspect/answer-settings.ts";
import { fixtureCommand } from "../fixtures/processes.ts";

const page = await readFile(join(import.meta.dirname, "../../docs/answers.md"), "utf8");
const [snippet = {}] = [...page.matchAll(/^```yaml\n([\s\S]*?)^```/gm)].map(([, text = ""]) => parse(text));
const servers = { wiki: { command: fixtureCommand("telling") } };

test("the settings of the page are a settings file's, and the defaults where the page has no example of its own", async () => {
  const { warnings, settings } = await settleSettings({ servers, ...snippet }, process.cwd(), { env: {} });
  expect(warnings).toEqual([]);
  const { tools: _, ...shown } = settings.answers;
  const { tools: __, ...defaults } = answerSettings.parse(undefined);
  expect({ ...shown, links: { ...shown.links, allow: [] } }).toEqual(defaults);
});

test("each action has a row", () => {
  const rows = [...page.matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name).filter((name) => name !== "instructions");
  expect(rows).toEqual(INSTRUCTION_ACTIONS);
});

test.each([
  [{ answers: { instructions: { high: "block" } } }, "answers.instructions.high"],
  [{ answers: { links: { allow: ["https://docs.example.com/"] } } }, "answers.links.allow"],
  [{ answers: { toxicFlow: "maybe" } }, "answers.toxicFlow"],
] as const)("what cannot be used is refused with its place: %j", async (wrong, said) => {
  await expect(settleSettings({ servers, ...wrong }, process.cwd(), { env: {} })).rejects.toThrow(said);
});
