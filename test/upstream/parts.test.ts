import { describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { Allowance } from "../../src/upstream/allowance.ts";
import { childEnvironment } from "../../src/upstream/environment.ts";
import { errorLines } from "../../src/upstream/error-lines.ts";
import { fairQueue } from "../../src/upstream/fair-queue.ts";
import { lineReader } from "../../src/upstream/lines.ts";
import { headerValue, mirroredParameters } from "../../src/upstream/mirrored-headers.ts";
import { eventReader } from "../../src/upstream/sse.ts";
import { fc } from "../properties.ts";

/** Cuts bytes at these places. */
function pieces(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  return [...places, bytes.length].map((end, index) => bytes.subarray(places[index - 1] ?? 0, end));
}

describe("lines", () => {
  test("come whole however the bytes are cut", () => {
    const line = fc.string({ unit: "grapheme", maxLength: 30 }).map((text) => text.replace(/[\r\n]/g, ""));
    fc.assert(
      fc.property(fc.array(line), fc.array(fc.nat(500)), fc.constantFrom("\n", "\r\n"), (lines, cuts, ending) => {
        const seen: string[] = [];
        const read = lineReader(
          1_000_000,
          (text) => seen.push(text),
          () => {},
        );
        for (const piece of pieces(Buffer.from(lines.map((text) => text + ending).join("")), cuts)) read(piece);
        expect(seen).toEqual(lines.filter((text) => text !== ""));
      }),
    );
  });

  test.each([[[2000]], [[100, 900, 1000]], [[2001, 1]]])(
    "over the limit end the reading once, in pieces of %j bytes",
    (sizes) => {
      const seen: string[] = [];
      let long = 0;
      const read = lineReader(
        1024,
        (text) => seen.push(text),
        () => long++,
      );
      read(Buffer.from("first\n"));
      for (const size of sizes) read(Buffer.alloc(size, "x"));
      read(Buffer.from("\nlast\n"));
      expect({ seen, long }).toEqual({ seen: ["first"], long: 1 });
    },
  );

  test("in one chunk are measured one by one", () => {
    const seen: number[] = [];
    const read = lineReader(
      1024,
      (text) => seen.push(text.length),
      () => seen.push(-1),
    );
    read(Buffer.from(`${"x".repeat(1000)}\n${"y".repeat(1000)}\n${"z".repeat(1025)}\nlast\n`));
    expect(seen).toEqual([1000, 1000, -1]);
  });
});

describe("what a server complains of", () => {
  function lines() {
    let time = 0;
    const seen: string[] = [];
    const reader = errorLines(
      (line) => seen.push(line),
      () => time,
    );
    const pass = (ms: number) => {
      time += ms;
    };
    return { seen, reader, pass };
  }

  test("comes in lines however the bytes are cut, the last one too when nothing follows it", () => {
    const text = fc.string({ unit: "grapheme", minLength: 1, maxLength: 30 }).map((one) => one.replace(/\s/g, "."));
    fc.assert(
      fc.property(fc.array(text), fc.array(fc.nat(200)), (texts, cuts) => {
        const { seen, reader } = lines();
        for (const piece of pieces(Buffer.from(texts.join("\n\n")), cuts)) reader.push(piece);
        reader.end();
        expect(seen).toEqual(texts);
      }),
    );
  });

  test("is cut where it is too long, and a line of a gigabyte is one line", () => {
    const { seen, reader, pass } = lines();
    const chunk = Buffer.alloc(1 << 20, "x");
    for (let n = 0; n < 1024; n++) {
      reader.push(chunk);
      pass(1);
    }
    reader.push(Buffer.from("\nthe end"));
    reader.end();
    expect(Math.max(...seen.map((line) => line.length))).toBe(1000);
    expect(seen.length).toBeLessThan(10);
    expect(seen.at(-1)).toBe("the end");
  });

  test("loses the middle of a flood, says how much, and begins anew with each second", () => {
    const { seen, reader, pass } = lines();
    const chunk = Buffer.from("again and again\n".repeat(4096));
    for (let n = 0; n < 3000; n++) {
      reader.push(chunk);
      pass(1);
    }
    reader.push(Buffer.from("last words"));
    reader.end();
    // Three seconds of 64 KB, and the ends of them.
    expect(seen.length).toBeLessThan(3 * 4096 + 4 * 100);
    const left = seen.flatMap((line) => /^\[(\d+) bytes left out\]$/.exec(line)?.[1] ?? []);
    expect(left.length).toBeGreaterThanOrEqual(3);
    expect(left.reduce((sum, bytes) => sum + Number(bytes), 0)).toBeGreaterThan(
      0.99 * 3000 * chunk.length - 4 * 65_536,
    );
    expect(seen.at(-1)).toBe("last words");
  });
});

test("an allowance is spent at once or little by little, and comes back with time", () => {
  const allowance = new Allowance(100, 10);
  expect([allowance.spend(100, 0), allowance.spend(1, 0)]).toEqual([true, false]);
  const slow = new Allowance(100, 10);
  for (let second = 0; second < 1000; second++) expect(slow.spend(10, second * 1000)).toBe(true);
  for (let second = 1000; second < 1009; second++) expect(slow.spend(20, second * 1000)).toBe(true);
  expect([slow.spend(20, 1_009_000), slow.spend(20, 1_030_000)]).toEqual([false, true]);
});

describe("server-sent events", () => {
  test("come whole however the bytes and line endings are cut", () => {
    const data = fc
      .string({ unit: "grapheme", minLength: 1, maxLength: 30 })
      .map((text) => text.replace(/[\r\n\u0000]/g, "."));
    fc.assert(
      fc.property(fc.array(data), fc.array(fc.nat(800)), fc.constantFrom("\n", "\r\n", "\r"), (texts, cuts, ending) => {
        const seen: string[] = [];
        const reader = eventReader(
          1_000_000,
          (event) => seen.push(event.data),
          () => {},
        );
        const stream = texts.map((text) => `: note${ending}data: ${text}${ending}${ending}`).join("");
        for (const piece of pieces(Buffer.from(stream), cuts)) reader.push(piece);
        expect(seen).toEqual(texts);
      }),
    );
  });

  test("have types, several data lines, ids and retry times", () => {
    const seen: unknown[] = [];
    const reader = eventReader(
      1000,
      (event) => seen.push(event),
      () => {},
    );
    reader.push(
      Buffer.from("\ufeffid: 7\nretry: 250\ndata:a\ndata: b\n\nevent: other\ndata\n\nevent: lost\n\ndata: open"),
    );
    expect(seen).toEqual([
      { type: "message", data: "a\nb" },
      { type: "other", data: "" },
    ]);
    expect([reader.lastId, reader.retryMs]).toEqual(["7", 250]);
  });

  test.each(["data: ".concat("x".repeat(2000)), "data: x\n".repeat(1000)])(
    "over the limit end the reading once",
    (text) => {
      let long = 0;
      const reader = eventReader(
        1024,
        () => {},
        () => long++,
      );
      for (const piece of pieces(Buffer.from(text), [100, 500, 900])) reader.push(piece);
      reader.push(Buffer.from("\n\n"));
      expect(long).toBe(1);
    },
  );
});

describe("the fair queue", () => {
  test("serves flows in turn, whoever came with how much", () => {
    const queue = fairQueue<string>();
    for (let n = 0; n < 100; n++) queue.push("greedy", "a", `greedy ${n}`);
    queue.push("modest", "a", "modest 0");
    queue.push("modest", "b", "modest 1");
    const first = Array.from({ length: 4 }, () => queue.take(() => true));
    expect(first).toEqual(["greedy 0", "modest 0", "greedy 1", "modest 1"]);
    expect(queue.size).toBe(98);
  });

  test("passes over lanes that are not open, and keeps their order", () => {
    const queue = fairQueue<number>();
    queue.push("f", "shut", 1);
    queue.push("f", "open", 2);
    queue.push("f", "shut", 3);
    expect(queue.take((lane) => lane === "open")).toBe(2);
    expect(queue.take((lane) => lane === "open")).toBeUndefined();
    expect([queue.waitingIn("shut"), queue.take(() => true), queue.take(() => true), queue.size]).toEqual([2, 1, 3, 0]);
  });

  test("gives out each entry once and never one that was removed, in each flow's order", () => {
    const step = fc.record({ flow: fc.nat(3), lane: fc.nat(2), removeAt: fc.option(fc.nat(100)), take: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const queue = fairQueue<{ flow: number; lane: number; n: number }>();
        const tickets = new Map<number, ReturnType<typeof queue.push>>();
        const taken: { flow: number; lane: number; n: number }[] = [];
        steps.forEach(({ flow, lane, removeAt, take }, n) => {
          tickets.set(n, queue.push(String(flow), String(lane), { flow, lane, n }));
          const removed = removeAt === null ? undefined : tickets.get(removeAt);
          if (removed !== undefined) {
            if (removed.item !== undefined) tickets.delete(removeAt as number);
            queue.remove(removed);
          }
          const next = take ? queue.take((name) => name !== "2") : undefined;
          if (next !== undefined) taken.push(next);
        });
        taken.push(...queue.drain());
        expect(taken.map(({ n }) => n).sort((a, b) => a - b)).toEqual([...tickets.keys()]);
        for (const { flow, lane, n } of taken) {
          const before = taken.slice(
            0,
            taken.findIndex((other) => other.n === n),
          );
          expect(before.every((other) => other.flow !== flow || other.lane !== lane || other.n < n)).toBe(true);
        }
        expect(queue.size).toBe(0);
      }),
    );
  });
});

describe("a child's environment", () => {
  test("has what is harmless of the gateway's, and what the settings add", () => {
    const gateway = {
      PATH: "/bin",
      HOME: "/home/x",
      LC_ALL: "C",
      TZ: "UTC",
      AWS_SECRET_ACCESS_KEY: "no",
      NODE_OPTIONS: "--inspect",
      LD_PRELOAD: "x.so",
      SHELL: "() { :; }",
    };
    expect(childEnvironment(gateway, { KEY: new Secret("s3"), HOME: "/elsewhere" }, "linux")).toEqual({
      PATH: "/bin",
      HOME: "/elsewhere",
      LC_ALL: "C",
      TZ: "UTC",
      KEY: "s3",
    });
    expect(childEnvironment({ Path: "C:\\", SystemRoot: "C:\\W", SECRET: "no" }, {}, "win32")).toEqual({
      Path: "C:\\",
      SystemRoot: "C:\\W",
    });
  });
});

describe("mirrored headers", () => {
  test.each([
    ["us-west1", "us-west1"],
    ["Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="],
    [" padded ", "=?base64?IHBhZGRlZCA=?="],
    ["line1\nline2", "=?base64?bGluZTEKbGluZTI=?="],
    ["=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="],
    ["", "=?base64??="],
  ])("encode %j as the specification's table says", (value, encoded) => {
    expect(headerValue(value)).toBe(encoded);
  });

  const string = (header: unknown) => ({ type: "string", "x-mcp-header": header });
  test("are found under properties, at any depth", () => {
    const schema = {
      type: "object",
      properties: { a: string("A"), b: { type: "object", properties: { c: string("C-d") } } },
    };
    expect(mirroredParameters(schema)).toEqual([
      { header: "mcp-param-a", path: ["a"] },
      { header: "mcp-param-c-d", path: ["b", "c"] },
    ]);
  });

  test.each<[string, unknown]>([
    ["empty name", { properties: { a: string("") } }],
    ["name that is no token", { properties: { a: string("a b") } }],
    ["line feed in a name", { properties: { a: string("a\nb") } }],
    ["same name twice", { properties: { a: string("X"), b: string("x") } }],
    ["number", { properties: { a: { type: "number", "x-mcp-header": "A" } } }],
    ["object", { properties: { a: { type: "object", "x-mcp-header": "A" } } }],
    ["array items", { properties: { a: { type: "array", items: string("A") } } }],
    ["anyOf", { anyOf: [{ properties: { a: string("A") } }] }],
    ["definitions", { $defs: { a: string("A") } }],
  ])("make a tool invalid: %s", (_, schema) => {
    expect(mirroredParameters(schema)).toBeTypeOf("string");
  });
});
