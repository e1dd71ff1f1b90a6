/**
 * Leave-one-family-out: what the rules find in each collection of malicious tools without the words that they owe to it alone.
 *
 *   node scripts/leave-one-out.ts malicious.jsonl
 *
 * Rules are written, not fitted, so what may be learnt by heart is their lexicon. For each family (all that comes from one source)
 * every phrase is taken out of the lexicon that stands in that family's tools, and in no tool of another family and no example of a
 * rule; then the family is judged. This is strict: plain English goes, too, when only one family happens to use it.
 */
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import type { JsonObject } from "../src/core/call.ts";
import { LEXICON } from "../src/inspect/lexicon.ts";

interface Row {
  readonly label: "malicious" | "benign";
  readonly subset: string;
  readonly source: string;
  readonly server: string;
  readonly tool: JsonObject;
}
type Engine = typeof import("../src/inspect/inspect.ts") & {
  readonly rule: typeof import("../src/inspect/rule.ts");
  readonly rules: typeof import("../src/inspect/rules/index.ts");
};

/** Lexicons that stand in for the real one, by the name that is put behind the modules that read it. */
const lexicons = new Map<string, Readonly<Record<string, string>>>();
registerHooks({
  resolve(specifier, context, next) {
    const resolved = next(specifier, context);
    const name = new URL(context.parentURL ?? "file:///").searchParams.get("lexicon");
    const inside = resolved.url.includes("/src/inspect/");
    return name !== null && inside ? { ...resolved, url: `${resolved.url}?lexicon=${name}` } : resolved;
  },
  load(url, context, next) {
    const name = new URL(url).searchParams.get("lexicon");
    if (name === null || !url.includes("/lexicon.ts")) return next(url, context);
    return {
      format: "module",
      source: `export const LEXICON = ${JSON.stringify(lexicons.get(name))};`,
      shortCircuit: true,
    };
  },
});

async function engineWith(name: string, lexicon: Readonly<Record<string, string>>): Promise<Engine> {
  lexicons.set(name, lexicon);
  const part = (file: string) => import(`../src/inspect/${file}?lexicon=${name}`);
  return { ...(await part("inspect.ts")), rule: await part("rule.ts"), rules: await part("rules/index.ts") };
}

const rows = process.argv
  .slice(2)
  .flatMap((file) => readFileSync(file, "utf8").split("\n").filter(Boolean))
  .map((line) => JSON.parse(line) as Row)
  .filter(({ label }) => label === "malicious");
const familyOf = ({ source }: Row) => source.replace(/@.*$/, "").replace(/^github:/, "");

const phrases = Object.entries(LEXICON).flatMap(([concept, text]: [string, string]) =>
  text
    .split(/[|\n]/)
    .map((phrase) => phrase.trim())
    .filter((phrase) => phrase !== "")
    .map((phrase) => ({ concept, phrase })),
);
/** A lexicon in which each phrase is a concept of its own shows which phrases stand in a text. */
const shapes = Object.entries(LEXICON).filter(([, text]: [string, string]) => text === "");
const single = await engineWith("single", {
  ...Object.fromEntries(shapes),
  ...Object.fromEntries(phrases.map(({ phrase }, index) => [`phrase ${index}`, phrase])),
});

/** The families whose tools hold each phrase; of the examples that rules carry, "examples". */
const seenIn = phrases.map(() => new Set<string>());
function note(tool: JsonObject, family: string): void {
  const steps = single.rule.readingOf("tool", tool, undefined, []);
  let step = steps.next();
  while (step.done !== true) step = steps.next();
  for (const { readings } of step.value.prose)
    for (const reading of readings)
      for (const [index, families] of seenIn.entries())
        if (reading.has(`phrase ${index}` as never)) families.add(family);
}
for (const row of rows) note(row.tool, familyOf(row));
for (const rule of single.rules.RULES) for (const bad of rule.bad) note(bad, "examples");

const engine = await engineWith("all", LEXICON);
const share = (of: readonly string[], wanted: (verdict: string) => boolean) =>
  `${((100 * of.filter(wanted).length) / of.length).toFixed(1).padStart(5)} %`;
const figures = (judge: Engine, of: readonly Row[]) => {
  const verdicts = of.map(({ tool, server }) => judge.inspectDefinition("tool", tool, { server }).verdict);
  return {
    verdicts,
    text: `${share(verdicts, (one) => one !== "clean")} / ${share(verdicts, (one) => one === "block")}`,
  };
};
console.log("family                                 tools  phrases out   review / block      without its phrases");
const left: { readonly row: Row; readonly verdict: string }[] = [];
for (const [family, members] of Map.groupBy(rows, familyOf)) {
  const out = new Set(
    phrases.flatMap((one, index) => {
      const families = seenIn[index] ?? new Set();
      return families.size === 1 && families.has(family) ? [`${one.concept} ${one.phrase}`] : [];
    }),
  );
  const lexicon = Object.fromEntries(
    Object.keys(LEXICON).map((concept) => [
      concept,
      phrases
        .filter((one) => one.concept === concept && !out.has(`${concept} ${one.phrase}`))
        .map(({ phrase }) => phrase)
        .join("|"),
    ]),
  );
  const without = await engineWith(`without-${left.length}`, lexicon);
  const { verdicts, text } = figures(without, members);
  left.push(...members.map((row, index) => ({ row, verdict: verdicts[index] ?? "clean" })));
  console.log(
    `${family.padEnd(38)} ${String(members.length).padStart(5)} ${String(out.size).padStart(12)}   ${figures(engine, members).text}   ${text}`,
  );
}
for (const [title, wanted] of [
  ["all", () => true],
  ["all but tools that are overtly for attacks", ({ row }: { row: Row }) => row.subset !== "cisco-overt"],
] as const) {
  const of = left.filter(wanted);
  const whole = figures(
    engine,
    of.map(({ row }) => row),
  ).text;
  const verdicts = of.map(({ verdict }) => verdict);
  console.log(
    `${title.padEnd(44).slice(0, 44)} ${String(of.length).padStart(4)}                ${whole}   ${share(verdicts, (one) => one !== "clean")} / ${share(verdicts, (one) => one === "block")}`,
  );
}
