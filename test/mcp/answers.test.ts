/** What clients of each revision are told, and that the rest of an answer keeps its bytes. */
import { describe, expect, test } from "vitest";
import type { JsonObject } from "../../src/core/call.ts";
import { answerText, sseEvent } from "../../src/mcp/answers.ts";
import { readUpstreamMessage, withMember } from "../../src/mcp/json-text.ts";
import { verifies } from "../requirements.ts";

const result = (text: string) => ({ kind: "result" as const, result: text, value: JSON.parse(text) as JsonObject });

describe("answers", () => {
  test("an answer between equal revisions keeps its bytes", () => {
    const text = '{ "content":[{"type":"vendor/x","n":12345678901234567890,"k":1.0}], "_meta":{"a.b/c":null} }';
    expect(answerText("q", "tools/call", "2025-11-25", result(text))).toBe(
      `{"jsonrpc":"2.0","id":"q","result":${text}}`,
    );
  });
  verifies(
    ["result-type", "caching-hints"],
    "a legacy result gets what 2026-07-28 demands and nothing else changes",
    () => {
      const text = '{"content":[{"type":"text","text":"é\\u0041 \\/"}]}';
      expect(answerText(1, "tools/call", "2026-07-28", result(text))).toBe(
        '{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":"é\\u0041 \\/"}]}}',
      );
      expect(JSON.parse(answerText(1, "resources/read", "2026-07-28", result('{"contents":[]}'))).result).toEqual({
        resultType: "complete",
        ttlMs: 0,
        cacheScope: "private",
        contents: [],
      });
    },
  );
  test("a modern result loses the fields that a legacy client does not know", () => {
    const text =
      '{"resultType":"complete","ttlMs":5,"cacheScope":"public","contents":[],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"up"},"v.x/y":1}}';
    expect(JSON.parse(answerText(1, "resources/read", "2025-11-25", result(text))).result).toEqual({
      contents: [],
      _meta: { "v.x/y": 1 },
    });
  });
  verifies("error-codes-relayed", "codes that speak about one hop are not passed on", () => {
    for (const code of [-32020, -32021, -32022]) {
      expect(
        JSON.parse(answerText(1, "tools/call", "2026-07-28", { kind: "error", code, message: "x", data: undefined }))
          .error.code,
      ).toBe(-32603);
    }
  });
  verifies("resource-unknown", "resource not found has the code of the client's revision", () => {
    const outcome = { kind: "error" as const, code: -32002, message: "no", data: '{"uri":"x"}' };
    expect(JSON.parse(answerText(1, "resources/read", "2026-07-28", outcome)).error).toEqual({
      code: -32602,
      message: "no",
      data: { uri: "x" },
    });
    expect(JSON.parse(answerText(1, "resources/read", "2025-11-25", outcome)).error.code).toBe(-32002);
  });
  test("a message with line breaks stays one server-sent event", () => {
    expect(sseEvent('{\r\n"a":1\n}')).toBe('event: message\ndata: { "a":1 }\n\n');
  });
  test("a member is put in front of any object", () => {
    expect(
      [
        withMember("{}", '"b":2'),
        withMember("{ }", '"b":2'),
        withMember('{"a":1}', '"b":2'),
        withMember(`{${" ".repeat(100)}}`, '"b":2'),
      ].map((text) => JSON.parse(text)),
    ).toEqual([{ b: 2 }, { b: 2 }, { b: 2, a: 1 }, { b: 2 }]);
  });
});

describe("what upstreams say", () => {
  test.each([
    '{"result":{"a":[1,2,{"result":3}]},"jsonrpc":"2.0","id":5}',
    '{"jsonrpc":"2.0","id":5,"result":{"a":[1,2,{"result":3}]}}',
    ' { "id" : 5 ,\n "jsonrpc":"2.0", "result" : {"a":[1,2,{"result":3}]} } ',
    '{"jsonrpc":"2.0","id":5,"r\\u0065sult":{"a":[1,2,{"result":3}]}}',
    '{"jsonrpc":"2.0","result":{"a":[1,2,{"result":3}]},"id":5,"extra":{"result":{}}}',
  ])("the result is cut out of %s", (text) => {
    expect(readUpstreamMessage(text)).toMatchObject({ kind: "result", id: 5, result: '{"a":[1,2,{"result":3}]}' });
  });
  test.each([
    ["garbage", "hello"],
    ["a list", "[]"],
    ["nothing", ""],
    ["a result twice", '{"result":{"a":1},"result":{"b":2},"jsonrpc":"2.0","id":5}'],
    ["a result twice, once with an escape", '{"result":{"a":1},"r\\u0065sult":{"b":2},"jsonrpc":"2.0","id":5}'],
    ["a result twice, once before a space", '{"jsonrpc":"2.0","id":5,"result":{"a":1},"result" :{"b":2}}'],
    ["an answer with its id twice, in the middle", '{"result":{"a":1},"id":{},"jsonrpc":"2.0","id":5}'],
    ["an answer with its id twice, at the end", '{"jsonrpc":"2.0","id":5,"result":{"a":1},"id":5}'],
    ["an answer with its id twice, at the end, after a space", '{"jsonrpc":"2.0","id":5,"result":{"a":1} , "id" : 5 }'],
    ["an answer with its version twice", '{"jsonrpc":"2.0","id":5,"result":{"a":1},"jsonrpc":"2.0"}'],
    ["an answer without an id", '{"jsonrpc":"2.0","result":{}}'],
  ])("%s is no message", (_title, text) => {
    expect(readUpstreamMessage(text)).toBeUndefined();
  });
  test("an error may be nested deeper than any stack, and its data keeps its bytes", () => {
    const data = "[".repeat(200_000) + "]".repeat(200_000);
    const text = `{"jsonrpc":"2.0","id":5,"error":{"code":1,"message":"m","data":${data}}}`;
    expect(readUpstreamMessage(text)).toEqual({ kind: "error", id: 5, code: 1, message: "m", data });
  });
  test.each([
    ['{"result":{"id":1,"id":2},"jsonrpc":"2.0","id":5}', '{"id":1,"id":2}'],
    ['{"jsonrpc":"2.0","id":5,"result":{"items":[{"id":1},{"id":2}]}}', '{"items":[{"id":1},{"id":2}]}'],
    ['{"jsonrpc":"2.0","id":5,"result":{"jsonrpc":"2.0"} }', '{"jsonrpc":"2.0"}'],
  ])("keys of the result itself are its own affair: %s", (text, result) => {
    expect(readUpstreamMessage(text)).toMatchObject({ result });
  });
  test("a string that holds what looks like the end of the message does not fool it", () => {
    const inner = JSON.stringify({ text: ',"jsonrpc":"2.0","id":5}' });
    expect(readUpstreamMessage(`{"result":${inner},"jsonrpc":"2.0","id":5}`)).toMatchObject({ result: inner });
  });
});
