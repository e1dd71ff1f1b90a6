/** Secrets that the gateway knows are taken out of texts, however they are written there. */
import { describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { openConcealer } from "../../src/gateway/conceal.ts";

describe.each([
  ["few", 0],
  ["many", 300],
])("of %s secrets", (_, others) => {
  const concealer = openConcealer();
  concealer.add(Array.from({ length: others }, (_unused, index) => new Secret(`another-secret-${index}-of-many`)));
  const value = 'p4ss/w"örd\\ with spaces';
  concealer.add([new Secret(value), new Secret("abc"), new Secret("p4ss/w")]);

  test.each([
    ["as it is", value],
    ["in JSON", JSON.stringify(value).slice(1, -1)],
    ["in a URL", encodeURIComponent(value)],
    ["in base64", Buffer.from(value).toString("base64")],
    ["in base64url", Buffer.from(value).toString("base64url")],
    ["as a part of another", "p4ss/w"],
  ])("one is found %s, each time that it is there", (_kind, written) => {
    expect(concealer.text(`${written}, then ${written}!`)).toBe("[secret], then [secret]!");
  });

  test("texts without any stay the same, and so do those with one that is too short to be told from words", () => {
    expect(concealer.text("an abc of p4ss and words")).toBe("an abc of p4ss and words");
    expect(concealer.text("")).toBe("");
  });

  test("one that is added later is found, too, and the oldest of many users are forgotten before those of the settings", () => {
    concealer.add([new Secret("of-a-user-1")], "users");
    expect(concealer.text("of-a-user-1")).toBe("[secret]");
    concealer.add(
      Array.from({ length: 6_000 }, (_unused, index) => new Secret(`of-the-user-${index}`)),
      "users",
    );
    expect(concealer.text("of-a-user-1 of-the-user-5999")).toBe("of-a-user-1 [secret]");
    expect(concealer.text(value)).toBe("[secret]");
  });
});
