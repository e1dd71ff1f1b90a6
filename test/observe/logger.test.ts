import { describe, expect, test } from "vitest";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import * as events from "../../src/observe/events.ts";
import { createLogger, type LogStream } from "../../src/observe/logger.ts";

const CANARY = "canary-7f3a91c2";

function recording(isTTY = false): { stream: LogStream; lines: string[]; last: () => Record<string, unknown> } {
  const lines: string[] = [];
  const stream = { isTTY, write: (line: string) => lines.push(line) };
  return { stream, lines, last: () => JSON.parse(lines.at(-1) ?? "null") as Record<string, unknown> };
}

describe("JSON lines", () => {
  test("an event is one line with level, time, message and its fields", () => {
    const { stream, lines, last } = recording();
    createLogger({ level: "info", format: "auto" }, stream).info({ server: "orders", n: 3 }, "upstream ready");
    expect(lines).toHaveLength(1);
    expect(lines[0]?.endsWith("}\n")).toBe(true);
    expect(last()).toMatchObject({ level: "info", message: "upstream ready", server: "orders", n: 3 });
    expect(String(last()["time"])).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  });

  test("events below the level are not written, and `silent` writes nothing", () => {
    const { stream, lines } = recording();
    createLogger({ level: "warn", format: "json" }, stream).info({}, "quiet");
    createLogger({ level: "silent", format: "json" }, stream).error({}, "quiet");
    expect(lines).toEqual([]);
  });

  test("a child adds its fields to each event", () => {
    const { stream, last } = recording();
    createLogger({ level: "info", format: "json" }, stream)
      .child({ server: "orders" })
      .child({ pid: 7 })
      .warn({ x: 1 }, "hm");
    expect(last()).toMatchObject({ server: "orders", pid: 7, x: 1 });
  });

  test("an error is written with its code, its detail and its causes", () => {
    const { stream, last } = recording();
    const cause = new Error("connection reset", { cause: new TypeError("deep") });
    const error = new DrawbridgeError("upstream_failed", "The server failed.", { detail: "read ECONNRESET", cause });
    createLogger({ level: "info", format: "json" }, stream).error({ error }, "call failed");
    expect(last()["error"]).toMatchObject({
      type: "DrawbridgeError",
      code: "upstream_failed",
      message: "The server failed.",
      detail: "read ECONNRESET",
      cause: { type: "Error", message: "connection reset", cause: { type: "TypeError", message: "deep" } },
    });
  });

  test("what refers to itself, is deep, long or no JSON is written without harm", () => {
    const { stream, last } = recording();
    const circle: Record<string, unknown> = {
      big: 10n,
      text: "x".repeat(100_000),
      bytes: Buffer.from(CANARY),
      when: new Date(0),
    };
    circle["self"] = circle;
    createLogger({ level: "info", format: "json" }, stream).info(circle, "odd");
    expect(last()).toMatchObject({ big: "10", bytes: "[15 bytes]", when: "1970-01-01T00:00:00.000Z" });
    expect(JSON.stringify(last()).length).toBeLessThan(80_000);
  });

  test("a stream that throws does not disturb the caller", () => {
    const broken = {
      write: () => {
        throw new Error("EPIPE");
      },
    };
    expect(() => createLogger({ level: "info", format: "json" }, broken).info({}, "lost")).not.toThrow();
  });
});

describe("secrets", () => {
  const secretive: readonly [string, object][] = [
    [
      "a header",
      { headers: { Authorization: `Bearer ${CANARY}`, Cookie: `sid=${CANARY}`, "set-cookie": [`sid=${CANARY}`] } },
    ],
    [
      "a token-like key",
      { access_token: CANARY, refreshToken: CANARY, idToken: CANARY, token: CANARY, tokens: [CANARY] },
    ],
    [
      "a password-like key",
      { password: CANARY, clientSecret: CANARY, client_secret: CANARY, passphrase: CANARY, "x-api-key": CANARY },
    ],
    ["a key of OAuth", { code_verifier: CANARY, client_assertion: CANARY, DPoP: CANARY, privateKey: { d: CANARY } }],
    ["a deep key", { a: { b: [{ c: { apiKey: CANARY } }] } }],
    ["a Map", { headers: new Map([["authorization", CANARY]]) }],
    ["a Secret", { value: new Secret(CANARY), list: [new Secret(CANARY)] }],
    ["a bearer value in a text", { line: `sent Authorization: Bearer ${CANARY} upstream` }],
    [
      "a URL",
      {
        url: new URL(`https://x.test/cb?code=${CANARY}&state=${CANARY}`),
        form: `grant_type=x&refresh_token=${CANARY}`,
      },
    ],
    ["a JWT", { text: `got eyJhbGciOiJFUzI1NiJ9.${Buffer.from(CANARY).toString("base64url")}.c2lnbmF0dXJl` }],
    [
      "an error's text",
      { error: new Error(`refused Bearer ${CANARY}`, { cause: new Error(`?access_token=${CANARY}`) }) },
    ],
    ["an error's detail", { error: new DrawbridgeError("internal", "No.", { detail: `sent Basic ${CANARY}=` }) }],
    ["an error's cause", { error: new DrawbridgeError("internal", "No.", { cause: { password: CANARY } }) }],
  ];
  for (const [where, fields] of secretive) {
    test(`in ${where} are never printed`, () => {
      for (const format of ["json", "text"] as const) {
        const { stream, lines } = recording();
        const logger = createLogger({ level: "trace", format }, stream);
        logger.info(fields, "event");
        logger.child(fields).error({}, "event");
        expect(lines).toHaveLength(2);
        for (const line of lines) {
          expect(line).not.toContain(CANARY);
          expect(line).not.toContain(Buffer.from(CANARY).toString("base64url"));
          expect(line).toContain("[secret]");
        }
      }
    });
  }

  test("in the message are not printed", () => {
    const { stream, lines } = recording();
    createLogger({ level: "info", format: "json" }, stream).info({}, `GET /cb?code=${CANARY}`);
    expect(lines[0]).not.toContain(CANARY);
  });

  test("are not confused with names and counts of tokens", () => {
    const { stream, last } = recording();
    createLogger({ level: "info", format: "json" }, stream).info(
      { tokenId: "jti-1", tokenCount: 4, hasToken: true },
      "event",
    );
    expect(last()).toMatchObject({ tokenId: "jti-1", tokenCount: 4, hasToken: true });
  });
});

describe("text for people", () => {
  test("is one short line", () => {
    const { stream, lines } = recording();
    createLogger({ level: "info", format: "text" }, stream).info(
      { url: "http://127.0.0.1:1", note: "two words" },
      "server started",
    );
    expect(lines[0]).toMatch(
      /^\d\d:\d\d:\d\d\.\d{3} INFO {2}server started {2}url=http:\/\/127\.0\.0\.1:1 note="two words"\n$/,
    );
  });

  test("is what a terminal gets by default", () => {
    const { stream, lines } = recording(true);
    createLogger({ level: "info", format: "auto" }, stream).warn({}, "hello");
    expect(() => JSON.parse(lines[0] ?? "")).toThrow();
    expect(lines[0]).toContain("hello");
  });

  test("cannot be made to move the cursor, colour the terminal or begin a line by what strangers wrote", () => {
    const { stream, lines } = recording();
    const evil = "a\u001b[2J\u009b31m\u202e\u2066b\n12:00:00.000 INFO  forged";
    createLogger({ level: "info", format: "text" }, stream).info({ name: evil, [evil]: 1, nested: { evil } }, evil);
    expect(lines[0]?.trimEnd()).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/);
  });
});

test("a refusal is quiet, a failure of ours is an error with its cause", () => {
  const { stream, lines } = recording();
  const logger = createLogger({ level: "info", format: "json" }, stream);
  events.callRefused(logger, { method: "tools/call" }, new DrawbridgeError("unknown_target", "No such tool."));
  events.callRefused(logger, { method: "tools/call" }, new TypeError("bug"));
  events.callRefused(logger, { method: "tools/call" }, new DrawbridgeError("cancelled", "Cancelled."));
  expect(lines.map((line) => (JSON.parse(line) as { level: string }).level)).toEqual(["info", "error"]);
  expect(lines[1]).toContain("TypeError: bug");
});
