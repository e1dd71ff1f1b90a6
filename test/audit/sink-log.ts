/** A log that records are written to, and sinks that follow it. */
import { type Chain, openChain } from "../../src/audit/chain.ts";
import { openPersonalKeys, type PersonalKeys } from "../../src/audit/personal.ts";
import { type AuditRecord, draftOf } from "../../src/audit/record.ts";
import { signerOfSeed } from "../../src/audit/signing.ts";
import { auditExportSettings } from "../../src/audit/sinks/settings.ts";
import { openSinks, type Sinks, type SinksParts } from "../../src/audit/sinks/sinks.ts";
import { newId } from "../../src/core/ids.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Store } from "../../src/store/ports.ts";

export const SIGNER = signerOfSeed(Buffer.alloc(32, 7));

export interface SinkLog {
  readonly store: Store;
  readonly keys: PersonalKeys;
  /** Writes so many calls in one chain, and gives back their ids. */
  write(count: number, more?: Partial<AuditRecord>): Promise<readonly string[]>;
  /** Writes one record into the same chain. */
  append(record: AuditRecord): Promise<void>;
  /** A chain of another replica. */
  other(replica: string): (count: number) => Promise<readonly string[]>;
  /** All texts of the log. */
  texts(): Promise<readonly string[]>;
  sinks(settings: readonly object[], more?: Partial<SinksParts>): Sinks;
}

export function sinkLog(store: Store = memoryStore()): SinkLog {
  const keys = openPersonalKeys(store.records, async () => Buffer.alloc(32, 3));
  const chainOf = (replica: string) => openChain({ signer: async () => SIGNER, log: store.audit, replica, keys });
  const appended = async (chain: Chain, records: readonly AuditRecord[]) => {
    const { rows, head, stands } = await chain.link(records.map((record) => draftOf(record)));
    stands(await store.audit.append(rows, head));
  };
  const writer = (replica: string, chain = chainOf(replica)) => {
    return async (count: number, more: Partial<AuditRecord> = {}) => {
      const records = Array.from({ length: count }, () => callRecord(more));
      await appended(chain, records);
      return records.map(({ id }) => id);
    };
  };
  const first = chainOf("r1");
  return {
    store,
    keys,
    write: writer("r1", first),
    append: (record) => appended(first, [record]),
    other: (replica) => writer(replica),
    async texts() {
      const texts: string[] = [];
      for (let after = 0; ; ) {
        const page = await store.audit.read({ limit: 1000, after });
        if (page.length === 0) return texts;
        texts.push(...page.map(({ json }) => json));
        after = page.at(-1)?.sequence ?? after;
      }
    },
    sinks: (settings, more = {}) =>
      openSinks({
        settings: auditExportSettings.parse(settings),
        log: store.audit,
        records: store.records,
        keys,
        replica: newId(),
        source: "https://mcp.acme.example",
        folder: "/nowhere",
        logger: silentLogger,
        ...more,
      }),
  };
}

export function callRecord(more: Partial<AuditRecord> = {}): AuditRecord {
  return {
    id: newId(),
    kind: "call",
    at: Date.parse("2026-11-21T10:00:00.123Z"),
    durationMs: 12.5,
    outcome: "permitted",
    principal: {
      subject: "u_1",
      client: "https://claude.ai/client.json",
      actors: [],
      groups: ["support"],
      scopes: ["mcp:call"],
      grant: "g_1",
      tokenId: "t_1",
    },
    call: {
      method: "tools/call",
      revision: "2026-07-28",
      server: "orders",
      kind: "tool",
      name: "orders.refund",
      upstreamName: "refund",
      pin: "sha256-abc",
      requestId: 7,
    },
    arguments: { json: '{"order_id":"ORD-100001"}' },
    result: { sha256: "ab".repeat(32), bytes: 42, isError: false },
    decision: { effect: "permit", reason: "a rule permits it", rule: "support: may orders.*" },
    policy: "p1",
    trace: { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331" },
    source: "203.0.113.7",
    replica: "r1",
    ...more,
  };
}

/** Waits for something that comes true by itself. */
export async function until(condition: () => boolean | Promise<boolean>, what: string, seconds = 60): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`it never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The records in a text of lines. */
export function linesOf(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

/** Ids of calls, in their order. */
export function idsOf(texts: readonly string[]): string[] {
  return texts
    .map((text) => JSON.parse(text) as { id: string; kind: string })
    .filter(({ kind }) => kind === "call")
    .map(({ id }) => id);
}
