/** What comes out of masking: JSON stays JSON, only private values change, and who asks decides. */
import { describe, expect, test } from "vitest";
import { fc, runs } from "../properties.ts";
import { harmlessText, privateText, random } from "./generate.ts";
import { amy, masking } from "./masking.ts";

const json = (value: unknown, settings: unknown = {}, viewer = amy): unknown =>
  JSON.parse(masking(settings).masker.json(JSON.stringify(value), viewer).text);

describe("JSON", () => {
  test("a document with nothing private in it is the very same text", () => {
    const text = '{ "id" : 1.50e3,\n "n":[ true,null , "a\\/b\\u00e9" ] }';
    expect(masking().masker.json(text, amy).text).toBe(text);
  });

  test("what is not private stays byte for byte, with its blanks, escapes and numbers", () => {
    const text = '{ "a":1.0,\t"mail" : "x@example.org" ,"b":"\\/\\u0041\\n", "c":[ 1e2 ] }';
    expect(masking().masker.json(text, amy).text).toBe(
      '{ "a":1.0,\t"mail" : "[email]" ,"b":"\\/\\u0041\\n", "c":[ 1e2 ] }',
    );
  });

  test("a value written with escapes is found, and its neighbours in the string stay as written", () => {
    const text = '{"t":"caf\\u00e9 a\\u0040example.org \\/ end","u":"postgres:\\/\\/u:s3cret9@db\\/x"}';
    expect(masking().masker.json(text, amy).text).toBe(
      '{"t":"caf\\u00e9 [email] \\/ end","u":"postgres:\\/\\/u:[dsn_password]@db\\/x"}',
    );
  });

  test("a private number stays a number", () => {
    expect(json({ pan: 5239791409176951, qty: 3, ssn: 375256015 })).toEqual({ pan: 0, qty: 3, ssn: 0 });
  });

  test("JSON within a string, and within a string of that, stays JSON", () => {
    const inner = JSON.stringify({
      pan: 5239791409176951,
      note: 'say "hi" to x@example.org',
      deep: JSON.stringify({ ssn: 375256015 }),
    });
    const masked = json({ content: [{ type: "text", text: inner }] }) as { content: [{ text: string }] };
    expect(JSON.parse(masked.content[0].text)).toEqual({ pan: 0, note: 'say "hi" to [email]', deep: '{"ssn":0}' });
  });

  test("private keys of an object are masked and stay different", () => {
    expect(json({ "a@example.org": 1, "b@example.org": 2, c: 3 })).toEqual({ "[email]": 1, "[email] 2": 2, c: 3 });
  });

  test("blanks between two strings are no value, whatever the first one ends with", () => {
    for (const blanks of ["", " ", "      ", "\n          "]) {
      const text = `{"k":"password:",${blanks}"x":"y","list":["api_key=",${blanks}"a","b"]}`;
      expect(JSON.parse(masking().masker.json(text, amy).text)).toMatchObject({ x: expect.anything() });
    }
  });

  test("the key before a value says what it is, also when the value was written with escapes", () => {
    expect(json({ phone: "612345645", other: "612345645" })).toEqual({ phone: "[phone]", other: "612345645" });
    expect(masking().masker.json('{"phone":"6\\u00312345645"}', amy).text).toBe('{"phone":"[phone]"}');
  });

  test("a password with quotes and backslashes in it is masked to its end", () => {
    expect(json({ password: 'a"b\\c d', next: 1 })).toEqual({ password: "[password]", next: 1 });
    const nested = JSON.stringify({ password: 'a"b\\c d', next: 1 });
    expect(json({ text: nested })).toEqual({ text: '{"password":"[password]","next":1}' });
  });

  test("hits are counted by type, and the counts hold no value", () => {
    const { counts, parts } = masking().masker.json('{"a":"x@example.org y@example.org","b":"10.1.2.3"}', amy);
    expect(counts).toEqual({ email: 2, ip_address: 1 });
    expect(parts.map(({ type, start }) => [type, start])).toEqual([
      ["email", 6],
      ["email", 20],
      ["ip_address", 40],
    ]);
  });

  test("an answer that is nested too deeply to find a field in it is refused, not let through", () => {
    const deep = `${"[".repeat(10_000)}"x@example.org"${"]".repeat(10_000)}`;
    expect(() => masking({ fields: { a: "drop" } }).masker.json(deep, amy)).toThrow(/nested too deeply/);
    expect(masking().masker.json(deep, amy).text).toContain('"[email]"');
  });

  test("whatever the document: it stays valid, keeps its shape, and shows no private value", () => {
    const leaf = fc.oneof(
      fc.integer().map((seed) => privateText(random(seed))),
      fc.integer().map((seed) => ({ text: harmlessText(random(seed)), spans: [] })),
      fc.string({ unit: "binary" }).map((text) => ({ text, spans: [] })),
    );
    const tree = fc.letrec((tie) => ({
      node: fc.oneof(
        { depthSize: "small" },
        leaf,
        fc.array(tie("node"), { maxLength: 4 }),
        fc.dictionary(fc.constantFrom("a", "b", "note", "x y", "é"), tie("node")),
        tie("node").map((inner) => ({ "as text": JSON.stringify(plain(inner)) })),
      ),
    })).node;
    fc.assert(
      fc.property(tree, fc.constantFrom<unknown>({}, { fields: { note: "redact" } }), (value, settings) => {
        const text = JSON.stringify(plain(value));
        const masked = masking(settings).masker.json(text, amy).text;
        expect(shape(JSON.parse(masked))).toEqual(shape(JSON.parse(text)));
      }),
      { numRuns: runs(400) },
    );
  });
});

/** Leaves as their texts. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  if ("spans" in value && "text" in value) return value.text;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
}

/** Types and keys without the values. */
function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(shape);
  if (typeof value !== "object" || value === null) return typeof value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shape(inner)]));
}

describe("fields", () => {
  const customer = {
    customer: { email: "x@example.org", name: "Ann", age: 40, vip: true, tags: ["a", "b"] },
    total: 5,
  };

  test("a path is found at any depth and through lists", () => {
    expect(json({ rows: [customer, customer] }, { fields: { "customer.name": "redact" }, people: "keep" })).toEqual({
      rows: [1, 2].map(() => ({ ...customer, customer: { ...customer.customer, name: "[masked]" } })),
    });
  });

  test("a path that begins with / is found only from the top: of the document, of structured content, of JSON in text", () => {
    const settings = { fields: { "/name": "redact" } };
    expect(json({ name: "Ann", in: { name: "Bo" } }, settings)).toEqual({ name: "[masked]", in: { name: "Bo" } });
    const text = JSON.stringify({ name: "Ann" });
    expect(json({ structuredContent: { name: "Ann" }, content: [{ text }] }, settings)).toEqual({
      structuredContent: { name: "[masked]" },
      content: [{ text: '{"name":"[masked]"}' }],
    });
  });

  test("all within a named field is masked, whatever it is, and keeps its type", () => {
    expect(json(customer, { fields: { customer: "redact" } })).toEqual({
      customer: { email: "[email]", name: "[masked]", age: 0, vip: false, tags: ["[masked]", "[masked]"] },
      total: 5,
    });
  });

  test("a dropped field is gone, with its key, wherever it stands", () => {
    for (const keys of ["a", "b", "c"]) {
      expect(json({ a: 1, b: { x: [1] }, c: "s" }, { fields: { [keys]: "drop" } })).toEqual(
        Object.fromEntries(Object.entries({ a: 1, b: { x: [1] }, c: "s" }).filter(([key]) => key !== keys)),
      );
    }
    expect(json({ a: 1, b: 2, c: 3 }, { fields: { a: "drop", b: "drop" } })).toEqual({ c: 3 });
    expect(json({ a: 1, b: 2, c: 3 }, { fields: { a: "drop", b: "drop", c: "drop" } })).toEqual({});
    expect(json({ list: [1, 2, 3] }, { fields: { "list.1": "drop" } })).toEqual({ list: [1, 3] });
  });

  test("of two rules for one field the stricter holds; one further down wins over one above it", () => {
    expect(json({ a: { b: "text" } }, { fields: { b: "partial", "a.b": "redact" } })).toEqual({ a: { b: "[masked]" } });
    expect(json({ a: { b: "text", c: "text" } }, { fields: { a: "redact", "a.b": "keep" } })).toEqual({
      a: { b: "text", c: "[masked]" },
    });
  });

  test("keys with escapes, dots and slashes are named as they are", () => {
    expect(json({ "a/b": 1, "c.d": 2 }, { fields: { "/a~1b": "drop", "/c.d": "drop" } })).toEqual({});
    expect(masking({ fields: { name: "redact" } }).masker.json('{"n\\u0061me":"Ann"}', amy).text).toBe(
      '{"n\\u0061me":"[masked]"}',
    );
  });

  test.for(["", "a..b", `${"a.".repeat(20)}a`])("the path %j is refused when the settings are read", (path) => {
    expect(() => masking({ fields: { [path]: "drop" } })).toThrow();
  });
});

describe("actions", () => {
  const text = "x.y@example.org, card 5239791409176951, +44 7700 900264, key sk_live_zHqVaq00bEJ6t43TnYQmPhPm";

  test("partial shows what a person needs to recognise a value", () => {
    expect(masking({ people: "partial", secrets: "partial" }).masker.text(text, amy).text).toBe(
      "x***@example.org, card **** 6951, ***264, key ***PhPm",
    );
  });

  test("hash gives one value one mark in every answer, however it is written, and for every user", () => {
    const { masker, store } = masking({ people: "hash" });
    const mark = (given: string, viewer = amy) => /#(\w+)\]/.exec(masker.text(given, viewer).text)?.[1];
    expect(mark("card 5239791409176951")).toMatch(/^[a-z2-9]{12}$/);
    expect(mark("card 5239-7914-0917-6951", { subject: "bob", roles: [] })).toBe(mark("card 5239791409176951"));
    expect(masking({ people: "hash" }, store).masker.text("a@example.org", amy).text).toBe(
      masker.text("A@EXAMPLE.ORG", amy).text,
    );
    expect(mark("a@example.org")).not.toBe(mark("b@example.org"));
  });

  test("drop leaves nothing, keep leaves all, and a type stands above its group", () => {
    expect(masking({ people: "keep", secrets: "drop", types: { email: "redact" } }).masker.text(text, amy).text).toBe(
      "[email], card 5239791409176951, +44 7700 900264, key ",
    );
  });

  test("patterns of the operator are types like all others", () => {
    const settings = {
      patterns: {
        employee: { pattern: "EMP-[0-9]{6}" },
        project: { pattern: "(?i)project [a-z]+(ing|ed)?", do: "hash" },
      },
    };
    const masked = masking(settings).masker.text("EMP-123456 works on Project Flying", amy);
    expect(masked.text).toMatch(/^\[employee\] works on \[project#\w+\]$/);
    expect(masked.counts).toEqual({ employee: 1, project: 1 });
  });

  test.for(["(", "(a)\\1", "(?=a)", "a{1001}"])("the pattern %s is refused with its name", (pattern) => {
    expect(() => masking({ patterns: { mine: { pattern } } })).toThrow(/mask\.patterns\.mine/);
  });
});

describe("who asks", () => {
  const settings = {
    see: { finance: ["iban", "customer.email"], ops: ["secrets"], all: ["people"] },
    fields: { "customer.email": "redact" },
  };
  const value = {
    customer: { email: "x@example.org" },
    mail: "y@example.org",
    iban: "GB93LIXY94004679928022",
    key: "ghp_k5xd0Yfk1YF6wYOcvvXRaABIx7NFQpa70Sac",
  };
  const seen = (...roles: string[]) => json(value, settings, { subject: "amy", roles: roles as never[] });

  test("a role sees the types and fields it was given, and nothing else", () => {
    expect(seen()).toEqual({ customer: { email: "[email]" }, mail: "[email]", iban: "[iban]", key: "[api_key]" });
    expect(seen("finance")).toEqual({ ...value, mail: "[email]", key: "[api_key]" });
    expect(seen("ops")).toEqual({ customer: { email: "[email]" }, mail: "[email]", iban: "[iban]", key: value.key });
  });

  test("roles add up, and unknown ones see what everybody sees", () => {
    expect(seen("finance", "ops")).toEqual({ ...value, mail: "[email]" });
    expect(seen("nobody", "constructor")).toEqual(seen());
  });
});

describe("texts", () => {
  test("spaces, digits and hyphens of other scripts and invisible characters hide nothing", () => {
    const { masker } = masking();
    expect(masker.text("card 5239\u00a07914\u20090917\u202f6951.", amy).text).toBe("card [credit_card].");
    expect(masker.text("Tel ０２０ ７９４６ ０５８６", amy).text).toBe("Tel [phone]");
    expect(masker.text("SSN ٤٦٣-٣٠-٧٦٣٠ 𝟒𝟔𝟑-𝟑𝟎-𝟕𝟔𝟑𝟎", amy).text).toBe("SSN [us_ssn] [us_ssn]");
    expect(masker.text("x\u200b@exam\u00adple.org\u200b!", amy).text).toBe("[email]\u200b!");
  });

  test("a text of JSON is masked as JSON, one that only begins like it as text", () => {
    const { masker } = masking();
    expect(masker.text(' {"pan":5239791409176951}\n', amy).text).toBe(' {"pan":0}\n');
    expect(masker.text("[2026-11-21] card 5239791409176951", amy).text).toBe("[2026-11-21] card [credit_card]");
  });
});
