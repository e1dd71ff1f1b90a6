/** A bounded campaign of what nobody should send; `node test/fuzz/long.ts` runs it for as long as one likes. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fc } from "../properties.ts";
import { PROPERTIES } from "./readers.ts";
import { type RunningTarget, startTarget } from "./target.ts";
import { RECORDED, type Sent } from "./texts.ts";
import { converse, hangUpEverywhere, requestBytes, sendMessages } from "./wire.ts";

const SEED = 20260728;
const MESSAGES = 40_000;

describe("whatever is written", () => {
  test.each(Object.entries(PROPERTIES))("%s", (_, { property, share }) => {
    fc.assert(property, { seed: SEED, numRuns: MESSAGES * share });
  });
});

describe("a running gateway", () => {
  let target: RunningTarget;
  beforeAll(async () => {
    target = await startTarget();
  });
  afterAll(() => target?.[Symbol.asyncDispose]());
  const call = (text: string, id: number): Sent => ({
    text: `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{"name":"echo","arguments":{"text":"${text}"}}}`,
    headers: {},
  });
  const CLOSE = "connection: close";

  test("answers or refuses by the table whatever comes, and is none the worse for it", async () => {
    const answers = await sendMessages(target, 2000, SEED);
    for (const kind of ["200 answered", "400 -32700", "400 -32600", "400 -32020", "404 -32601", "202 empty"])
      expect([...answers.keys()]).toContain(kind);
    await target.unharmed();
  });

  test("stays well when clients hang up, wherever in a conversation that is", async () => {
    const calls = RECORDED.filter(({ text }) => text.includes('"tools/call"')).slice(0, 2);
    expect(await hangUpEverywhere(target, calls)).toBeGreaterThan(1000);
    await target.unharmed();
  });

  test("reads characters that are cut in two, byte by byte", async () => {
    const bytes = requestBytes(target, call("é☃😀", 1), [CLOSE]);
    const pieces = Array.from({ length: bytes.length }, (_, at) => bytes.subarray(at, at + 1));
    expect(await converse(target.url, pieces)).toContain('"text":"é☃😀"');
    const body = Buffer.from(call("é☃😀", 2).text);
    const chunks = [...body].map((byte) => Buffer.concat([Buffer.from("1\r\n"), Buffer.of(byte), Buffer.from("\r\n")]));
    const head = requestBytes(target, { text: "", headers: {} }, ["transfer-encoding: chunked", CLOSE]);
    expect(await converse(target.url, [head, ...chunks, Buffer.from("0\r\n\r\n")])).toContain('"text":"é☃😀"');
  });

  test("answers requests that come without waiting, each under its id, in their order", async () => {
    const all = Array.from({ length: 20 }, (_, at) =>
      requestBytes(target, call(`t${at}`, at), at === 19 ? [CLOSE] : []),
    );
    const got = await converse(target.url, [Buffer.concat(all)]);
    expect([...got.matchAll(/"id":(\d+)/g)].map(([, id]) => Number(id))).toEqual(all.map((_, at) => at));
    for (let at = 0; at < 20; at++) expect(got).toContain(`"text":"t${at}"`);
  });

  const good = call("hi", 1);
  const length = Buffer.byteLength(good.text);
  const BAD_BYTES = Buffer.from([0x22, 0xc3, 0x28, 0x22]);
  test.each<[string, (target: RunningTarget) => Buffer[], RegExp]>([
    [
      "a length that is too small",
      (it) => [requestBytes(it, good, [`content-length: ${length - 5}`, CLOSE])],
      /^HTTP\/1.1 400/,
    ],
    [
      "a length that is too large",
      (it) => [requestBytes(it, good, [`content-length: ${length + 5}`, CLOSE])],
      /^HTTP\/1.1 408|^$/,
    ],
    ["a length that is no number", (it) => [requestBytes(it, good, ["content-length: 1e3"])], /^HTTP\/1.1 400/],
    [
      "two lengths",
      (it) => [requestBytes(it, good, [`content-length: ${length}`, "content-length: 3"])],
      /^HTTP\/1.1 400/,
    ],
    [
      "a length and chunks",
      (it) => [requestBytes(it, good, [`content-length: ${length}`, "transfer-encoding: chunked"])],
      /^HTTP\/1.1 400/,
    ],
    ["chunks of another size", (it) => [requestBytes(it, good, ["transfer-encoding: chunked"])], /^HTTP\/1.1 400/],
    [
      "a body larger than permitted",
      (it) => [requestBytes(it, { text: " ".repeat((1 << 20) + 1), headers: {} }, [CLOSE])],
      /^HTTP\/1.1 413/,
    ],
    [
      "a header of 100 KiB",
      (it) => [requestBytes(it, { text: good.text, headers: { "mcp-name": "x".repeat(100_000) } })],
      /^HTTP\/1.1 431/,
    ],
    ["a header twice", (it) => [requestBytes(it, good, ["authorization: Bearer other", CLOSE])], /^HTTP\/1.1 401/],
    ["no HTTP at all", () => [Buffer.from("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")], /^HTTP\/1.1 400/],
    [
      "bytes that are no UTF-8",
      (it) => [requestBytes(it, { text: "", headers: {} }, [`content-length: ${BAD_BYTES.length}`, CLOSE]), BAD_BYTES],
      /^HTTP\/1.1 400.*-32700/s,
    ],
  ])("refuses %s", async (_, pieces, wanted) => {
    expect(await converse(target.url, pieces(target))).toMatch(wanted);
    await target.unharmed();
  });

  test("has nothing to tell about sessions, events and states that nobody was given", async () => {
    for (const headers of [{ "mcp-session-id": "guessed" }, { "last-event-id": "guessed/1" }]) {
      for (const method of ["GET", "DELETE"]) {
        const response = await fetch(target.url, {
          method,
          headers: { authorization: `Bearer ${target.token}`, accept: "text/event-stream", ...headers },
        });
        expect([404, 405, 400]).toContain(response.status);
        await response.body?.cancel();
      }
    }
    const forged = RECORDED.find(({ text }) => text.includes("requestState"));
    const got = await converse(target.url, [requestBytes(target, forged ?? good, [CLOSE])]);
    expect(got).toMatch(/"error":\{"code":-32602|"result"/);
    await target.unharmed();
  });
});
