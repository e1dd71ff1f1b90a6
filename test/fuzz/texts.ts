/** What nobody should send: JSON texts that serialisers do not write, and messages of MCP bent in every way. */
import { META, MODERN } from "../fixtures/messages.ts";
import { fc } from "../properties.ts";

const space = fc.constantFrom("", "", "", "", " ", "\n", "\r\n", "\t ");

const numbers = fc.oneof(
  fc.constantFrom("0", "-0", "1.0", "1e400", "-1E+400", "1E-999", "12345678901234567890", "9007199254740993", "0.10"),
  fc.integer().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => JSON.stringify(value)),
);

/** One character as some serialiser may write it. */
const character = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.string({ unit: "binary", maxLength: 3 }).map((text) => JSON.stringify(text).slice(1, -1)),
  },
  fc.constantFrom("\\/", "\\u0000", "\\u0041", "\\ud83d\\ude00", "\\ud800", "\\udc00", "\u2028", "\\\\", '\\"', "\\b"),
  fc.constantFrom("result", '\\"result\\":', "é", "😀", "_meta", "}", "{", "]", "[", ",", ":", '\\"}'),
);
export const strings = fc.array(character, { maxLength: 6 }).map((parts) => `"${parts.join("")}"`);

const KEYS = [
  "_meta",
  "id",
  "result",
  "params",
  "name",
  "arguments",
  "uri",
  "Name",
  "\\u006eame",
  "__proto__",
  "constructor",
];
const MORE_KEYS = ["toString", "", "progressToken", "jsonrpc", "error", "method", "data", "n\\u0061me", "1", "0"];
const keys = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...KEYS, ...MORE_KEYS).map((key) => `"${key}"`) },
  { weight: 2, arbitrary: fc.string({ maxLength: 4 }).map((key) => JSON.stringify(key)) },
  { weight: 1, arbitrary: strings },
);

/** Any JSON value as text; keys may come twice. */
export const { value: values, object: objects } = fc.letrec<{ value: string; object: string; array: string }>(
  (tie) => ({
    value: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      numbers,
      strings,
      fc.constantFrom("true", "false", "null", "{}", "[]", " { } "),
      tie("object"),
      tie("array"),
    ),
    object: fc
      .array(fc.tuple(space, keys, space, tie("value"), space), { maxLength: 4 })
      .map((members) => `{${members.map(([a, key, b, value, c]) => `${a}${key}${b}:${value}${c}`).join(",")}}`),
    array: fc
      .array(fc.tuple(space, tie("value")), { maxLength: 3 })
      .map((all) => `[${all.map((one) => one.join("")).join(",")}]`),
  }),
);

/** Very deep, or very long in one direction. */
const extremes = fc.oneof(
  fc.integer({ min: 1, max: 2000 }).map((depth) => "[".repeat(depth) + "]".repeat(depth)),
  fc.integer({ min: 1, max: 2000 }).map((depth) => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`),
  fc
    .integer({ min: 1, max: 400 })
    .map((width) => `{${Array.from({ length: width }, (_, at) => `"k${at}":${at}`).join(",")}}`),
  fc.integer({ min: 1, max: 300 }).map((digits) => "9".repeat(digits)),
);
const anything = fc.oneof({ weight: 12, arbitrary: values }, { weight: 1, arbitrary: extremes });

const METHODS = [
  ...["initialize", "ping", "server/discover", "logging/setLevel", "tools/list", "resources/list", "prompts/list"],
  ...["resources/templates/list", "tools/call", "prompts/get", "resources/read", "completion/complete"],
  ...["resources/subscribe", "resources/unsubscribe", "notifications/cancelled", "notifications/initialized"],
  ...[
    "notifications/roots/list_changed",
    "notifications/progress",
    "tasks/get",
    "vendor/x",
    "constructor",
    "__proto__",
    "",
  ],
];
const NAMES = ["echo", "sum", "unusual", "rpc-error", "fail", "log", "nothing", "../etc", "constructor"];
const named = fc.constantFrom(...NAMES).map((name) => `"${name}"`);

const ids = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom("1", '"a"', "-7", '"\\u0041"') },
  { weight: 2, arbitrary: fc.constantFrom("null", "1.5", "1e3", "1e400", "true", "[]", "{}", `"${"x".repeat(1025)}"`) },
  strings,
);

/** Members of params as MCP has them, with right and wrong values. */
const members = fc.oneof(
  fc.tuple(fc.constant("name"), named),
  fc.tuple(fc.constant("uri"), fc.constantFrom('"test://static/greeting"', '"test://items/1"', '"file:///etc/passwd"')),
  fc.tuple(fc.constant("arguments"), fc.oneof(fc.constant('{"text":"t","a":1,"b":2}'), anything)),
  fc.tuple(fc.constantFrom("cursor", "level", "protocolVersion", "requestId", "taskId", "requestState"), anything),
  fc.tuple(
    fc.constantFrom("requestState", "cursor"),
    fc.base64String({ maxLength: 60 }).map((text) => `"${text}"`),
  ),
  fc.tuple(
    fc.constantFrom("inputResponses", "ref", "argument", "notifications", "capabilities", "clientInfo"),
    anything,
  ),
  fc.tuple(
    fc.string({ maxLength: 3 }).map((key) => JSON.stringify(key).slice(1, -1)),
    anything,
  ),
);

const ENVELOPE = [
  `"${META}/protocolVersion":"${MODERN}"`,
  `"${META}/clientInfo":{"name":"fuzz","version":"1"}`,
  `"${META}/clientCapabilities":{}`,
];
const metas = fc
  .tuple(
    fc.oneof({ weight: 5, arbitrary: fc.constant(ENVELOPE) }, fc.subarray(ENVELOPE)),
    fc.array(
      fc.tuple(
        fc.oneof(fc.constantFrom("progressToken", `${META}/logLevel`, "traceparent"), fc.string({ maxLength: 3 })),
        anything,
      ),
      {
        maxLength: 3,
      },
    ),
  )
  .map(([own, more]) => `{${[...own, ...more.map(([key, value]) => `${JSON.stringify(key)}:${value}`)].join(",")}}`);

/** A message with the parts of one, each of them as a rule as it should be. */
export interface Sent {
  readonly text: string;
  readonly headers: Readonly<Record<string, string>>;
}

const bent: fc.Arbitrary<Sent> = fc
  .record({
    method: fc.constantFrom(...METHODS),
    id: fc.option(ids, { freq: 8 }),
    params: fc.array(members, { maxLength: 4 }),
    meta: fc.option(fc.oneof({ weight: 8, arbitrary: metas }, anything), { freq: 2 }),
    more: fc.array(fc.tuple(keys, anything), { maxLength: 1 }),
    lies: fc.array(
      fc.tuple(fc.constantFrom("mcp-method", "mcp-name", "mcp-protocol-version", "mcp-param-x"), headerValues()),
      {
        maxLength: 2,
      },
    ),
    gap: space,
  })
  .map(({ method, id, params, meta, more, lies, gap }) => {
    const own = params.map(([key, value]) => `"${key}":${value}`);
    if (meta !== null) own.push(`"_meta":${meta}`);
    const text = [
      '"jsonrpc":"2.0"',
      ...(id === null ? [] : [`"id":${id}`]),
      `"method":${JSON.stringify(method)}`,
      `"params":{${own.join(",")}}`,
      ...more.map(([key, value]) => `${key}:${value}`),
    ].join(`,${gap}`);
    const name = params.find(([key]) => key === "name" || key === "uri")?.[1];
    const headers = {
      ...(meta !== null && { "mcp-protocol-version": MODERN, "mcp-method": method }),
      ...(meta !== null && name !== undefined && { "mcp-name": name.replaceAll('"', "") }),
      ...Object.fromEntries(lies),
    };
    return { text: `{${text}}`, headers };
  });

function headerValues(): fc.Arbitrary<string> {
  return fc.oneof(
    fc.constantFrom(
      "",
      MODERN,
      "2025-11-25",
      "2031-01-01",
      "tools/call",
      "echo",
      "=?base64?ZWNobw==?=",
      "=?base64?*?=",
      "é",
    ),
    fc.string({ maxLength: 8 }).map((text) => text.replace(/[^\t\x20-\x7e]/g, "?")),
  );
}

/** A conversation as real clients have it: traffic to mutate. */
export const RECORDED: readonly Sent[] = [
  legacy("initialize", '"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}'),
  legacy("tools/list", ""),
  legacy("tools/call", '"name":"echo","arguments":{"text":"h\\u00e9 😀"},"_meta":{"progressToken":1}'),
  legacy("resources/read", '"uri":"test://static/greeting"'),
  legacy("prompts/get", '"name":"greeting","arguments":{"name":"Ada"}'),
  { text: '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}', headers: {} },
  { text: '{"jsonrpc":"2.0","id":"q","result":{"action":"accept","content":{}}}', headers: {} },
  modern("server/discover", ""),
  modern("tools/list", ""),
  modern("tools/call", '"name":"sum","arguments":{"a":1,"b":2.50}', "sum"),
  modern(
    "tools/call",
    '"name":"echo","arguments":{"text":"x"},"requestState":"c2VhbGVk","inputResponses":{"a":{}}',
    "echo",
  ),
  modern("completion/complete", '"ref":{"type":"ref/prompt","name":"greeting"},"argument":{"name":"tone","value":"f"}'),
];

function legacy(method: string, params: string): Sent {
  const text = `{"jsonrpc":"2.0","id":1,"method":"${method}","params":{${params}}}`;
  return { text, headers: { "mcp-protocol-version": "2025-11-25" } };
}

function modern(method: string, params: string, name?: string): Sent {
  const own = params === "" ? "" : `${params},`;
  const text = `{"jsonrpc":"2.0","id":1,"method":"${method}","params":{${own}"_meta":{${ENVELOPE.join(",")}}}}`;
  return {
    text,
    headers: { "mcp-protocol-version": MODERN, "mcp-method": method, ...(name !== undefined && { "mcp-name": name }) },
  };
}

/** Cut, doubled, swapped, overwritten somewhere. */
export const mutated = (texts: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc
    .tuple(
      texts,
      fc.array(fc.tuple(fc.nat(), fc.nat(), fc.constantFrom("cut", "double", "write", "swap"), strings), {
        minLength: 1,
        maxLength: 3,
      }),
    )
    .map(([text, changes]) =>
      changes.reduce((now, [from, length, how, other]) => {
        const at = from % (now.length + 1);
        const end = Math.min(now.length, at + (length % 12));
        if (how === "cut") return now.slice(0, at) + now.slice(end);
        if (how === "double") return now.slice(0, end) + now.slice(at);
        if (how === "write") return now.slice(0, at) + other.slice(1, -1) + now.slice(end);
        return now.slice(0, at) + now.slice(end, end + 3) + now.slice(at, end) + now.slice(end + 3);
      }, text),
    );

/** What a client may send, by far not all of it well formed. */
export const sents: fc.Arbitrary<Sent> = fc.oneof(
  { weight: 5, arbitrary: bent },
  {
    weight: 3,
    arbitrary: fc
      .constantFrom(...RECORDED)
      .chain(({ text, headers }) => mutated(fc.constant(text)).map((changed) => ({ text: changed, headers }))),
  },
  { weight: 1, arbitrary: fc.constantFrom(...RECORDED) },
  { weight: 1, arbitrary: anything.map((text) => ({ text, headers: {} })) },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 40 }).map((text) => ({ text, headers: {} })) },
);

/** What a server may say. */
export const said: fc.Arbitrary<string> = fc.oneof(
  fc
    .tuple(fc.constantFrom("result", "error", "params", "r\\u0065sult"), objects, ids, fc.boolean(), keys, values)
    .map(([key, value, id, first, other, more]) =>
      first
        ? `{"jsonrpc":"2.0","id":${id},"${key}":${value}}`
        : `{"${key}":${value},${other}:${more},"jsonrpc":"2.0","id":${id}}`,
    ),
  fc
    .tuple(values, values)
    .map(([code, data]) => `{"jsonrpc":"2.0","id":1,"error":{"code":${code},"message":"m","data":${data}}}`),
  objects.map((value) => `{"jsonrpc":"2.0","method":"notifications/message","params":${value}}`),
  objects.map((value) => `{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":${value}}`),
  mutated(values.map((value) => `{"jsonrpc":"2.0","id":1,"result":{"content":[],"_meta":${value}}}`)),
  values,
  extremes,
);
