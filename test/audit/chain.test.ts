import { describe, expect, test, vi } from "vitest";
import { openChain } from "../../src/audit/chain.ts";
import { openJournal } from "../../src/audit/journal.ts";
import { openPersonalKeys } from "../../src/audit/personal.ts";
import type { AuditRecord } from "../../src/audit/record.ts";
import { searchRecords } from "../../src/audit/search.ts";
import { signerOfSeed, vouchersOf } from "../../src/audit/signing.ts";
import { type Verdict, verification } from "../../src/audit/verify.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";

const SIGNER = signerOfSeed(Buffer.alloc(32, 7));
const STRANGER = signerOfSeed(Buffer.alloc(32, 8));
const VOUCHERS = vouchersOf([SIGNER.publicKey]);

interface Line {
  readonly at: number;
  readonly text: string;
}
interface Log {
  readonly lines: readonly Line[];
  readonly heads: readonly unknown[];
}

/** Several processes that write into one log, one after the other record by record, and end well or are killed. */
async function written({ processes = 1, each = 20, end = true, checkpointRecords = 7, signer = SIGNER } = {}) {
  const store = memoryStore();
  const keys = openPersonalKeys(store.records, async () => Buffer.alloc(32, 3));
  const journals = Array.from({ length: processes }, (_, n) =>
    openJournal({
      log: store.audit,
      chain: openChain({ signer: async () => signer, log: store.audit, keys, checkpointRecords, replica: `r${n}` }),
      settings: { commit: "durable", maxPending: 1000 },
      logger: silentLogger,
    }),
  );
  for (let n = 0; n < each; n++)
    for (const [which, journal] of journals.entries()) await journal.append(call(`${which}-${n}`));
  if (end) for (const journal of journals) await journal.close();
  return { store, keys, ...(await logOf(store)) };
}

async function logOf({ audit }: ReturnType<typeof memoryStore>): Promise<Log> {
  const found = await audit.read({ limit: 1000 });
  const heads = (await audit.heads()).map(({ json }) => JSON.parse(json) as unknown);
  return { lines: found.map(({ sequence, json }) => ({ at: sequence, text: json })), heads };
}

function call(id: string): AuditRecord {
  return {
    id,
    kind: "call",
    at: 1_000,
    durationMs: 1,
    outcome: "permitted",
    principal: { subject: `user-${id.length}`, client: "c", actors: [], groups: [], scopes: [], tokenId: "t" },
    arguments: { json: `{"order":"${id}","note":"private note"}` },
    source: "192.0.2.1",
    replica: "r",
  };
}

function verdict({ lines, heads }: Log, vouchers = VOUCHERS): Verdict {
  const checked = verification(vouchers, { roots: true });
  for (const { at, text } of lines) checked.read(at, text);
  return checked.end(heads);
}

/** The sequence numbers stay where they were: in a database, positions are not what is changed. */
const renumbered = (texts: readonly string[]): readonly Line[] => texts.map((text, at) => ({ at: at + 1, text }));

describe("a log that nobody touched", () => {
  test.each([1, 3])("verifies, of %i processes that ended", async (processes) => {
    const log = await written({ processes });
    const { problem, records, chains, checkpoints } = verdict(log);
    expect(problem).toBeUndefined();
    expect({ records, chains }).toEqual({ records: log.lines.length, chains: processes });
    expect(checkpoints).toBeGreaterThan(processes);
  });

  test("verifies also when its process was killed and never ended its chain", async () => {
    expect(verdict(await written({ end: false, processes: 2 })).problem).toBeUndefined();
  });

  test("verifies when what was to be signed could not be, and was tried again", async () => {
    const store = memoryStore();
    let turn = 0;
    const moody = {
      ...SIGNER,
      sign: (statement: string) =>
        turn++ % 3 === 1 && turn < 60 ? Promise.reject(new Error("no key")) : SIGNER.sign(statement),
    };
    const journal = openJournal({
      log: store.audit,
      chain: openChain({ signer: async () => moody, log: store.audit, checkpointRecords: 3, replica: "r" }),
      settings: { commit: "durable", maxPending: 1000 },
      logger: silentLogger,
      wait: async () => {},
    });
    let refused = 0;
    for (let n = 0; n < 20; n++) await journal.append(call(`${n}`)).catch(() => refused++);
    turn = 60;
    await vi.waitFor(() => expect(journal.pending).toBe(0));
    await journal.close();
    expect(refused).toBeGreaterThan(0);
    const log = await logOf(store);
    expect(verdict(log).problem).toBeUndefined();
    expect(log.lines.filter(({ text }) => text.includes('"kind":"call"'))).toHaveLength(20);
  });

  test("verifies when a write was repeated because nobody knew how it ended", async () => {
    const store = memoryStore();
    let fail = true;
    const journal = openJournal({
      log: {
        async append(rows, head) {
          await store.audit.append(rows, head);
          fail = !fail;
          if (!fail) throw new Error("the connection was lost");
        },
      },
      chain: openChain({ signer: async () => SIGNER, log: store.audit, replica: "r" }),
      settings: { commit: "durable", maxPending: 1000 },
      logger: silentLogger,
      wait: async () => {},
    });
    for (let n = 0; n < 10; n++) await journal.append(call(`${n}`)).catch(() => {});
    await journal.close();
    expect(verdict(await logOf(store)).problem).toBeUndefined();
  });
});

describe.each([1, 2])("a log of %i processes", (processes) => {
  const changes: Readonly<Record<string, (text: string) => string>> = {
    "its outcome": (text) => text.replace('"outcome":"permitted"', '"outcome":"refused"'),
    "a digit of its time": (text) => text.replace('"at":"', '"at":"2'),
    "a member added": (text) => text.replace('{"v":2,', '{"v":2,"x":1,'),
    "its place": (text) => text.replace(/"n":(\d+),"prev"/, (_, n: string) => `"n":${Number(n) + 1},"prev"`),
    "the hash of the one before": (text) => text.replace(/"prev":"[\w-]*"/, `"prev":"${"A".repeat(43)}"`),
    "its chain": (text) => text.replace(/"chain":\{"id":"./, '"chain":{"id":"f'),
    "its end": (text) => `${text} `,
    everything: () => "{}",
  };
  test.each(Object.entries(changes))(
    "in which one record was edited (%s) is found out, wherever it is",
    async (_, edit) => {
      const log = await written({ processes, each: 12 });
      for (const [index, { at }] of log.lines.entries()) {
        const lines = log.lines.map((line, n) => (n === index ? { ...line, text: edit(line.text) } : line));
        if (lines[index]?.text === log.lines[index]?.text) continue;
        const { problem } = verdict({ ...log, lines });
        expect(problem?.at, `edited ${at}: ${problem?.why}`).toBe(at);
      }
    },
  );

  test("from which one record was removed is found out, wherever it was", async () => {
    const log = await written({ processes, each: 12 });
    for (const index of log.lines.keys()) {
      const { problem } = verdict({ ...log, lines: log.lines.filter((_, n) => n !== index) });
      expect(problem, `removed ${index + 1}`).toBeDefined();
      expect(problem?.kind).toBe("removed");
    }
  });

  test("to which one record was added is found out, wherever it was put and whatever it copies", async () => {
    const log = await written({ processes, each: 8 });
    const texts = log.lines.map(({ text }) => text);
    const forged = (text: string) => text.replace('"outcome":"permitted"', '"outcome":"failed"');
    for (const index of texts.keys()) {
      for (const added of [forged(texts[index] ?? ""), texts[index] ?? "", texts.at(-1) ?? "", '{"v":1,"id":"x"}']) {
        const lines = renumbered(texts.toSpliced(index, 0, added));
        if (index === 0 && added.startsWith('{"v":1')) continue;
        expect(verdict({ ...log, lines }).problem, `added before ${index + 1}`).toBeDefined();
      }
    }
  });

  test("in which two records of one process changed places is found out, and the first that is not in its place is named", async () => {
    const log = await written({ processes, each: 8 });
    const chainOf = (text: string) => /"chain":\{"id":"([^"]+)"/.exec(text)?.[1];
    const texts = log.lines.map(({ text }) => text);
    for (const [a, first] of texts.entries()) {
      for (const [b, second] of texts.entries()) {
        if (b <= a || chainOf(first) !== chainOf(second)) continue;
        const swapped = texts.with(a, second).with(b, first);
        const { problem } = verdict({ ...log, lines: renumbered(swapped) });
        expect(problem?.at, `${a + 1} and ${b + 1}: ${problem?.why}`).toBe(a + 1);
      }
    }
  });

  test("whose end was cut off, whose heads were cut off, or of which a whole process is missing is found out", async () => {
    const log = await written({ processes, each: 8 });
    for (let left = 0; left < log.lines.length; left++)
      expect(verdict({ ...log, lines: log.lines.slice(0, left) }).problem, `${left} left`).toBeDefined();
    expect(verdict({ ...log, heads: [] }).problem).toMatchObject({ kind: "unsigned" });
    if (processes < 2) return;
    const chain = /"chain":\{"id":"([^"]+)"/.exec(log.lines[0]?.text ?? "")?.[1] ?? "";
    const without: Log = {
      lines: log.lines.filter(({ text }) => !text.includes(`"chain":{"id":"${chain}"`)),
      heads: log.heads.filter((head) => !JSON.stringify(head).includes(chain)),
    };
    expect(verdict(without).problem).toMatchObject({ kind: "removed", chain });
  });
});

test("a log that somebody wrote anew, with every hash right, lacks the signatures", async () => {
  const log = await written({ signer: STRANGER });
  expect(verdict(log).problem).toMatchObject({ kind: "unsigned" });
  expect(verdict(log, vouchersOf([STRANGER.publicKey])).problem).toBeUndefined();
});

describe("what is about a person", () => {
  test("is not in the log in clear, and is read with the keys", async () => {
    const { store, keys, lines } = await written({});
    expect(JSON.stringify(lines)).not.toMatch(/private note|192\.0\.2\.1/);
    const [found] = await searchRecords(store.audit, { limit: 1, id: "0-1" }, keys);
    expect(found?.record).toMatchObject({
      arguments: { json: { order: "0-1", note: "private note" } },
      source: "192.0.2.1",
    });
    const [closed] = await searchRecords(store.audit, { limit: 1, id: "0-1" });
    expect(closed?.record).toMatchObject({ id: "0-1", outcome: "permitted", sealed: { key: expect.any(String) } });
    expect(closed?.record).not.toHaveProperty("arguments");
  });

  test("is erased with their key, theirs alone, and the log still verifies", async () => {
    const { store, keys } = await written({});
    expect(await keys.destroy("user-3")).toBe(1);
    const found = await searchRecords(store.audit, { limit: 100, client: "c" }, keys);
    for (const { record } of found) {
      const theirs = record.principal?.subject === "user-3";
      expect(record.arguments === undefined).toBe(theirs);
    }
    expect(verdict(await logOf(store)).problem).toBeUndefined();
  });

  test("cannot be moved into another record", async () => {
    const { store, keys } = await written({});
    const [one, two] = await Promise.all(
      ["0-1", "0-2"].map(async (id) => (await store.audit.read({ limit: 1, id }))[0]?.json ?? ""),
    );
    const { key, text } = (JSON.parse(one ?? "") as { sealed: { key: string; text: string } }).sealed;
    expect(await keys.open(key, text, "0-1")).toContain("private note");
    expect(await keys.open(key, text, "0-2")).toBeUndefined();
    expect(two).not.toContain(text);
  });
});
