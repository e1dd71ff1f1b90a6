/**
 * Prints how often instructions in answers are found, and how often harmless answers are touched, by kind and by where they stand.
 *
 *   node scripts/answers.ts [--seed 7] [--count 2000] [--texts folder] [--tools malicious.jsonl] [--misses]
 *
 * `--texts`: harmless texts of your own, every `.md`, `.txt` and `.html` file below the folder is an answer. `--tools`: rows with
 * `tool.description`, each put into a harmless answer as an instruction. `--misses` names what was judged wrongly by its position.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { answerSettings } from "../src/inspect/answer-settings.ts";
import { compileAnswerPolicy } from "../src/inspect/answers/answer-policy.ts";
import { harmlessAnswers, INJECTIONS, injectedAnswers, type Sample, UNSEEN } from "../test/inspect/answers/corpus.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "7" },
    count: { type: "string", default: "2000" },
    texts: { type: "string" },
    tools: { type: "string" },
    misses: { type: "boolean", default: false },
  },
});
const policy = compileAnswerPolicy(answerSettings.parse({}));
const strict = compileAnswerPolicy(answerSettings.parse({ instructions: { high: "withhold" } }));
const seed = Number(values.seed);
const count = Number(values.count);

table("injected, written with the rules", injectedAnswers(seed, count, INJECTIONS), "kind");
table("the same, by place", injectedAnswers(seed, count, INJECTIONS), "place");
table("injected, not looked at", injectedAnswers(seed + 1, count, UNSEEN), "kind");
if (values.tools !== undefined) {
  const rows = readFileSync(values.tools, "utf8").trim().split("\n");
  const said = rows.map(
    (row) => ["descriptions", (JSON.parse(row) as { tool: { description?: string } }).tool.description ?? ""] as const,
  );
  table("poisoned descriptions as answers", injectedAnswers(seed + 2, count, said), "kind");
}
table("harmless", harmlessAnswers(seed + 3, count), "kind");
if (values.texts !== undefined) {
  const files = readdirSync(values.texts, { recursive: true, encoding: "utf8" })
    .filter((name) => /\.(?:md|markdown|txt|html?)$/i.test(name))
    .map((name) => join(values.texts ?? "", name))
    .filter((file) => statSync(file).isFile());
  const texts = [...new Set(files.map((file) => readFileSync(file, "utf8")))];
  table(
    "harmless files",
    texts.map((text) => ({ kind: "files", answer: JSON.stringify({ content: [{ type: "text", text }] }) })),
    "kind",
  );
}

function table(title: string, samples: readonly (Sample & { readonly place?: string })[], by: "kind" | "place"): void {
  const rows = new Map<
    string,
    { answers: number; labelled: number; neutralised: number; withheld: number; cleaned: number; untouched: number }
  >();
  const started = performance.now();
  for (const [index, sample] of samples.entries()) {
    const { counts, text } = policy.apply(sample.answer, { kind: "tool", name: "example" });
    const held = strict.apply(sample.answer, { kind: "tool", name: "example" }).withheld !== undefined;
    for (const name of [sample[by] ?? "", "all"]) {
      const row = rows.get(name) ?? { answers: 0, labelled: 0, neutralised: 0, withheld: 0, cleaned: 0, untouched: 0 };
      rows.set(name, row);
      row.answers++;
      if (held) row.withheld++;
      if (counts["neutralised"]) row.neutralised++;
      else if (counts["labelled"]) row.labelled++;
      else if (text !== sample.answer) row.cleaned++;
      else row.untouched++;
    }
    if (
      values.misses &&
      (title.startsWith("harmless") ? counts["neutralised"] || counts["labelled"] : !counts["neutralised"])
    )
      console.log(`  ${title} ${sample.kind} ${index} ${sample.place ?? ""}`);
  }
  console.log(`\n${title} (${((performance.now() - started) / 2 / samples.length).toFixed(2)} ms each)`);
  console.table(
    Object.fromEntries(
      [...rows].sort(([one], [other]) => (one === "all" ? 1 : other === "all" ? -1 : one < other ? -1 : 1)),
    ),
  );
}
