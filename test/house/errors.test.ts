/** The error table and its documentation say the same. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { DrawbridgeError, ERRORS, type ErrorCode } from "../../src/core/errors.ts";
import { verifies } from "../requirements.ts";
import { root } from "./sources.ts";

const rows = readFileSync(join(root, "docs/errors.md"), "utf8")
  .split("\n")
  .filter((line) => line.startsWith("| `"))
  .map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll("`", "")),
  );

test("docs/errors.md has one row for each error, with its codes, in the order of the table", () => {
  const documented = rows.map(([code, http, rpc, oauth]) => ({ code, http, rpc, oauth }));
  const expected = Object.entries(ERRORS).map(([code, row]) => ({
    code,
    http: String(row.http),
    rpc: String(row.rpc),
    oauth: row.oauth ?? "–",
  }));
  expect(documented).toEqual(expected);
});

test("every documented error says what happened and what to do", () => {
  for (const [code, , , , happened, remedy] of rows) {
    expect(happened, code).toMatch(/\.$/);
    expect(remedy, code).toMatch(/\.$/);
  }
});

verifies("error-codes-reserved", "codes of our own stay out of the ranges that JSON-RPC and MCP reserve", () => {
  const defined = new Set([-32700, -32600, -32601, -32602, -32603, -32020, -32021, -32022]);
  const wrong = Object.entries(ERRORS).filter(([, { rpc }]) => rpc <= -32000 && rpc >= -32768 && !defined.has(rpc));
  expect(wrong).toEqual([]);
});

test("what a stranger threw goes to the detail, not to the message", () => {
  const error = DrawbridgeError.from(new TypeError("the password is hunter2"));
  expect(error.code satisfies ErrorCode).toBe("internal");
  expect(error.message).not.toContain("hunter2");
  expect(error.detail).toContain("hunter2");
});
