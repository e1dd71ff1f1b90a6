/** Runs of steps that somebody left, and that this gateway cannot read. */
import { expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { openUnfinished, type Unfinished } from "../../src/gateway/unfinished.ts";
import { type Logger, silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";

const NAMED = "what a run of steps left to be undone cannot be read, so it stays as it is";

function world() {
  const { records } = memoryStore();
  const said: { readonly run?: string; readonly message: string }[] = [];
  const error = ((fields: { readonly run?: string }, message: string) =>
    said.push({ ...fields, message })) as Logger["error"];
  const log: Logger = Object.create(silentLogger, { error: { value: error } });
  const opened = openUnfinished({ records, encryption: new Secret("of this gateway".repeat(4)), log });
  const left = (id: string) => records.put("unfinished", id, { sealed: "of another", until: 0, rounds: 0 });
  const named = () => said.flatMap(({ run, message }) => (message === NAMED && run !== undefined ? [run] : []));
  return { records, opened, left, named, said };
}

async function looked(opened: Unfinished): Promise<number> {
  let found = 0;
  for await (const _ of opened.abandoned()) found++;
  return found;
}

test("a run that cannot be read is named once, however often it is found, and stays", async () => {
  const { opened, left, named, records } = world();
  await left("a");
  for (let n = 0; n < 3; n++) expect(await looked(opened)).toBe(0);
  await left("b");
  for (let n = 0; n < 3; n++) await looked(opened);
  expect(named()).toEqual(["a", "b"]);
  expect(await records.get("unfinished", "a")).toBeDefined();
});

test("one that is gone is forgotten, so that what is remembered does not grow with all that ever were", async () => {
  const { opened, left, named, records } = world();
  await left("a");
  await looked(opened);
  await records.delete("unfinished", "a");
  await looked(opened);
  await left("a");
  await looked(opened);
  expect(named()).toEqual(["a", "a"]);
});

test("of very many a thousand are named, and that there may be more", async () => {
  const { opened, left, named, said } = world();
  for (let n = 0; n < 1205; n++) await left(`run-${String(n).padStart(5, "0")}`);
  for (let n = 0; n < 3; n++) expect(await looked(opened)).toBe(0);
  expect(named()).toHaveLength(1000);
  expect(new Set(named()).size).toBe(1000);
  expect(said.filter(({ message }) => message.startsWith("more runs"))).toHaveLength(1);
});
