/** What docs/oauth.md claims has a test, and what it shows is valid. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { root } from "./sources.ts";

const read = (path: string) => readFileSync(join(root, path), "utf8");
const page = read("docs/oauth.md");

/** Each test that a text names: `` `test/x.test.ts` "title", "another" ``. */
function namedTests(text: string): readonly { readonly file: string; readonly titles: readonly string[] }[] {
  const found = text.matchAll(/`(test\/[\w/.-]+\.test\.ts)`((?:,? "[^"\n]+")*)/g);
  return [...found].map(([, file = "", titles = ""]) => ({
    file,
    titles: [...titles.matchAll(/"([^"]+)"/g)].map(([, title = ""]) => title),
  }));
}

test("docs/oauth.md names tests that are there, by their titles", () => {
  const missing = namedTests(page).flatMap(({ file, titles }) => {
    if (!existsSync(join(root, file))) return [file];
    const source = read(file);
    return titles.filter((title) => !source.includes(`"${title}"`)).map((title) => `${file}: ${title}`);
  });
  expect(missing, "renamed or gone: say in docs/oauth.md what shows it now").toEqual([]);
});

const section = /## Specifications\n([\s\S]*?)\n## /.exec(page)?.[1] ?? "";
const specifications = section
  .split("\n")
  .filter((line) => line.startsWith("| "))
  .slice(1)
  .map((line) => line.split(" | "));

test("every specification in docs/oauth.md has a test that shows what is done of it", () => {
  expect(specifications.length).toBeGreaterThan(20);
  const unshown = specifications.filter((cells) =>
    namedTests(cells.at(-1) ?? "").every(({ titles }) => titles.length === 0),
  );
  expect(unshown.map(([name]) => name)).toEqual([]);
});

test("what is left out is shown to be", () => {
  expect(namedTests(/\*\*Left out[\s\S]*$/.exec(section)?.[0] ?? "")).not.toEqual([]);
});

test("no specification that the authorization server is made of is missing from docs/oauth.md", () => {
  const numbers =
    "6749 6750 7523 7591 7592 7636 7009 7662 8252 8414 8693 8707 8725 9068 9126 9207 9449 9700 9728".split(" ");
  expect(numbers.filter((number) => !section.includes(`RFC ${number}`))).toEqual([]);
});

describe("the settings of docs/oauth.md", () => {
  const schema = JSON.parse(read("schema/config.schema.json")) as { properties: object };
  const blocks = [...page.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, text = ""]) => text);
  const settings = blocks.filter((text) =>
    Object.keys(parse(text) as object).every((key) => Object.hasOwn(schema.properties, key)),
  );

  test("are most of its YAML, all of which can be read", () => {
    expect(settings.length).toBeGreaterThan(6);
    expect(blocks.length - settings.length).toBe(2);
  });

  test.each(settings.map((text, index) => [index + 1, text] as const))("are accepted, block %i", (_index, text) => {
    const ajv = new Ajv2020({ allErrors: true, allowUnionTypes: true });
    addFormats.default(ajv);
    const valid = ajv.compile(schema);
    const server = { servers: { orders: { url: "https://orders.acme.example/mcp" } } };
    expect(valid({ ...server, ...(parse(text) as object) }), JSON.stringify(valid.errors)).toBe(true);
  });
});

test("every link of docs/oauth.md to another page of ours leads to a heading that is there", () => {
  const links = [...page.matchAll(/\]\((?!https?:)([\w-]+\.md)(?:#([\w-]+))?\)/g)];
  expect(links.length).toBeGreaterThan(5);
  const broken = links.filter(([, file = "", heading]) => {
    if (!existsSync(join(root, "docs", file))) return true;
    const headings = [...read(`docs/${file}`).matchAll(/^#+ (.+)$/gm)].map(([, text = ""]) =>
      text
        .toLowerCase()
        .replaceAll(/[^\w\s-]/g, "")
        .replaceAll(" ", "-"),
    );
    return heading !== undefined && !headings.includes(heading);
  });
  expect(broken.map(([link]) => link)).toEqual([]);
});
