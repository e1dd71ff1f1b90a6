/** What a client may send and what is refused, for both eras. */
import { describe, expect, test } from "vitest";
import { decode, decodedHeader, RefusedRequest } from "../../src/mcp/inbound.ts";
import { verifies, verifiesEach } from "../requirements.ts";

const meta = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientInfo": { name: "test", version: "1" },
  "io.modelcontextprotocol/clientCapabilities": {},
};
const modernHeaders = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "echo" };
const modernCall = (change: object = {}, params: object = {}) =>
  JSON.stringify({
    jsonrpc: "2.0",
    id: 1,
    method: "tools/call",
    params: { name: "echo", arguments: {}, _meta: meta, ...params },
    ...change,
  });

function refusal(text: string, headers: Record<string, string> = {}): RefusedRequest {
  try {
    decode(text, headers, 64);
  } catch (thrown) {
    if (thrown instanceof RefusedRequest) return thrown;
    throw thrown;
  }
  throw new Error(`accepted: ${text.slice(0, 200)}`);
}

describe("the JSON of a message", () => {
  verifiesEach(
    ["request-id", "http-single-message"],
    [
      ["text that is not JSON", "{", "parse_error"],
      ["an empty body", "", "parse_error"],
      ["a batch", "[]", "invalid_request"],
      ["a number", "7", "invalid_request"],
      ["null", "null", "invalid_request"],
      [
        "a key twice in the envelope",
        '{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}',
        "invalid_request",
      ],
      [
        "a key twice, the second written with an escape",
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","\\u006eame":"b"}}',
        "invalid_request",
      ],
      [
        "a key twice deep inside the arguments",
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":{"y":[{"k":1,"k":2}]}}}}',
        "invalid_request",
      ],
      [
        "a key that differs only in case",
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}',
        "invalid_request",
      ],
      [
        "an argument that differs only in case",
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"id":1,"ID":2}}}',
        "invalid_request",
      ],
      ["Method for method", '{"jsonrpc":"2.0","id":1,"Method":"tools/call"}', "invalid_request"],
      [
        "10,000 levels of nesting",
        `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":${"[".repeat(10_000)}${"]".repeat(10_000)}}}}`,
        "invalid_request",
      ],
      ["no jsonrpc", '{"id":1,"method":"ping"}', "invalid_request"],
      ["another jsonrpc", '{"jsonrpc":"1.0","id":1,"method":"ping"}', "invalid_request"],
      ["an id of null", '{"jsonrpc":"2.0","id":null,"method":"ping"}', "invalid_request"],
      ["an id that is an object", '{"jsonrpc":"2.0","id":{},"method":"ping"}', "invalid_request"],
      ["a fraction as id", '{"jsonrpc":"2.0","id":1.5,"method":"ping"}', "invalid_request"],
      ["params that are a list", '{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', "invalid_request"],
      ["a method that is a number", '{"jsonrpc":"2.0","id":1,"method":7}', "invalid_request"],
      ["_meta that is a text", '{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":"x"}}', "invalid_request"],
    ],
    "%s is refused",
    (_title, text, code) => {
      expect(refusal(text).code).toBe(code);
    },
  );

  verifies("error-id", "a refusal carries the id of the request where it can be read", () => {
    expect(refusal('{"jsonrpc":"2.0","id":"q7","method":"no/such"}').id).toBe("q7");
  });

  test("members of params are kept as the client wrote them", () => {
    const text =
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments": {"n":12345678901234567890,"f":1.0,"s":"\\u00e9\\/"} ,"vendor":{"x":1}}}';
    const inbound = decode(text, {}, 64);
    expect(inbound).toMatchObject({ kind: "request", era: "legacy" });
    if (inbound.kind !== "request") return;
    expect(Object.fromEntries(inbound.paramTexts)).toEqual({
      name: '"a"',
      arguments: '{"n":12345678901234567890,"f":1.0,"s":"\\u00e9\\/"}',
      vendor: '{"x":1}',
    });
  });

  test("keys of free maps below the arguments may differ in case", () => {
    expect(
      decode(
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"map":{"a":1,"A":2}}}}',
        {},
        64,
      ).kind,
    ).toBe("request");
  });
});

describe("2026-07-28", () => {
  test("a request with its envelope and headers is accepted, and what belongs to this hop is taken out of _meta", () => {
    const inbound = decode(
      modernCall(
        {},
        {
          _meta: {
            ...meta,
            progressToken: 7,
            "vendor.example/x": 1,
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
          },
        },
      ),
      modernHeaders,
      64,
    );
    expect(inbound).toMatchObject({
      kind: "request",
      era: "modern",
      revision: "2026-07-28",
      progressToken: 7,
      meta: new Map([["vendor.example/x", "1"]]),
    });
  });

  verifiesEach(
    ["http-version-header", "http-header-mismatch"],
    [
      ["without MCP-Protocol-Version", { ...modernHeaders, "mcp-protocol-version": undefined }],
      ["with another MCP-Protocol-Version", { ...modernHeaders, "mcp-protocol-version": "2025-11-25" }],
      ["without Mcp-Method", { ...modernHeaders, "mcp-method": undefined }],
      ["with another Mcp-Method", { ...modernHeaders, "mcp-method": "tools/list" }],
      ["with Mcp-Method in another case", { ...modernHeaders, "mcp-method": "Tools/Call" }],
      ["without Mcp-Name", { ...modernHeaders, "mcp-name": undefined }],
      ["with another Mcp-Name", { ...modernHeaders, "mcp-name": "echo2" }],
      ["with an Mcp-Name whose base64 form says another name", { ...modernHeaders, "mcp-name": "=?base64?ZWNobzI=?=" }],
      ["with an Mcp-Name that is not base64", { ...modernHeaders, "mcp-name": "=?base64?***?=" }],
    ],
    "a call %s is refused as HeaderMismatch",
    (_title, headers) => {
      expect(refusal(modernCall(), headers as Record<string, string>)).toMatchObject({
        code: "header_mismatch",
        http: 400,
        rpc: -32020,
        id: 1,
      });
    },
  );

  verifies("http-header-encoding", "an Mcp-Name in base64 form is compared after decoding", () => {
    const text = modernCall({}, { name: "日本" });
    expect(
      decode(text, { ...modernHeaders, "mcp-name": `=?base64?${Buffer.from("日本").toString("base64")}?=` }, 64).kind,
    ).toBe("request");
    expect(decodedHeader("=?base64?SGVsbG8sIOS4lueVjA==?=")).toBe("Hello, 世界");
    expect(decodedHeader("us-west1")).toBe("us-west1");
  });

  verifies("http-version-unsupported", "a revision that does not exist yet is refused with the ones we speak", () => {
    const text = modernCall({}, { _meta: { ...meta, "io.modelcontextprotocol/protocolVersion": "2099-01-01" } });
    expect(refusal(text, { ...modernHeaders, "mcp-protocol-version": "2099-01-01" })).toMatchObject({
      code: "unsupported_protocol_version",
      data: { requested: "2099-01-01", supported: expect.arrayContaining(["2026-07-28", "2025-11-25"]) },
    });
  });

  verifiesEach(
    "meta-required",
    [
      ["no _meta", { _meta: undefined }],
      ["no client capabilities", { _meta: { ...meta, "io.modelcontextprotocol/clientCapabilities": undefined } }],
      ["client capabilities that are a list", { _meta: { ...meta, "io.modelcontextprotocol/clientCapabilities": [] } }],
      ["a version that is a number", { _meta: { ...meta, "io.modelcontextprotocol/protocolVersion": 7 } }],
    ],
    "a modern request with %s is refused as invalid params with 400",
    (_title, params) => {
      expect(refusal(modernCall({}, params), modernHeaders)).toMatchObject({ http: 400, rpc: -32602 });
    },
  );

  verifiesEach(
    "http-unknown-method",
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "tasks/list", "toString", "__proto__"],
    "%s is not a method of this revision: 404",
    (method) => {
      const text = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: { _meta: meta } });
      expect(refusal(text, { "mcp-protocol-version": "2026-07-28", "mcp-method": method })).toMatchObject({
        code: "unknown_method",
        http: 404,
        rpc: -32601,
      });
    },
  );
});

describe("revisions with sessions", () => {
  verifies("legacy-default-version", "without the version header a request counts as 2025-03-26", () => {
    expect(decode('{"jsonrpc":"2.0","id":1,"method":"tools/list"}', {}, 64)).toMatchObject({
      era: "legacy",
      revision: "2025-03-26",
    });
  });
  verifies("legacy-version-header", "an unknown version header is refused with 400", () => {
    expect(
      refusal('{"jsonrpc":"2.0","id":1,"method":"tools/list"}', { "mcp-protocol-version": "1999-01-01" }),
    ).toMatchObject({ http: 400, code: "unsupported_protocol_version" });
  });
  test.each(["server/discover", "subscriptions/listen"])("%s is unknown to them", (method) => {
    expect(refusal(JSON.stringify({ jsonrpc: "2.0", id: 1, method }))).toMatchObject({ code: "unknown_method" });
  });
});
