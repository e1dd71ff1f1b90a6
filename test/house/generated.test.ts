/** Files that follow from the settings schema are up to date. */
import { readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { generated } from "../../scripts/generate.ts";
import { root } from "./sources.ts";

test.each([...generated()].map(([file, text]) => [relative(root, file), text]))(
  "%s is what `npm run schema` writes",
  (file, text) => {
    expect(readFileSync(join(root, file), "utf8"), "stale: npm run schema").toBe(text);
  },
);

const validate = () => {
  const ajv = new Ajv2020({ allErrors: true, allowUnionTypes: true });
  addFormats.default(ajv);
  return ajv.compile(JSON.parse(readFileSync(join(root, "schema/config.schema.json"), "utf8")) as object);
};

test("the schema accepts the example of docs/configuration.md and references where values stand", () => {
  const valid = validate();
  const example = /```yaml\n([\s\S]*?)```/.exec(readFileSync(join(root, "docs/configuration.md"), "utf8"))?.[1] ?? "";
  expect(valid(parse(example)), JSON.stringify(valid.errors)).toBe(true);
  expect(
    valid({
      listen: { port: "${env:PORT}", behindTlsProxy: "${env:PROXY:-true}" },
      servers: { a: { url: "https://a.example/mcp", headers: { Authorization: "Bearer ${secret:a}" } } },
    }),
    JSON.stringify(valid.errors),
  ).toBe(true);
});

test("the schema refuses what the gateway refuses", () => {
  const valid = validate();
  for (const wrong of [
    {},
    { servers: { a: { comand: ["x"] } } },
    { servers: { a: { command: ["x"] } }, listen: { port: "high" } },
    { servers: { a: { command: ["x"] } }, log: { level: "loud" } },
  ]) {
    expect(valid(wrong), JSON.stringify(wrong)).toBe(false);
  }
});
