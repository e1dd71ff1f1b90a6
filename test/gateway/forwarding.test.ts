/** Clients that come back to another gateway than the one that has their stream. */
import { EventEmitter } from "node:events";
import type { ServerResponse } from "node:http";
import { afterEach, describe, expect, test } from "vitest";
import { type Forwarding, openForwarding } from "../../src/gateway/forwarding.ts";
import { openResumption, type Resumption } from "../../src/gateway/resume.ts";
import { openSeals } from "../../src/gateway/sealed-state.ts";
import type { Session } from "../../src/mcp/sessions.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";
import { waitFor } from "../fixtures/processes.ts";

const session = { id: "s", owner: "o", revision: "2025-11-25" } as Session;

/** A response that keeps what is written, and a client that can leave it. */
function connection() {
  const written: string[] = [];
  const state = { ended: false };
  const response = Object.assign(new EventEmitter(), {
    writableLength: 0,
    destroyed: false,
    writableFinished: false,
    writeHead() {},
    flushHeaders() {},
    write: (text: string) => written.push(text),
    end() {
      state.ended = true;
      response.writableFinished = true;
      response.emit("close");
    },
  });
  const data = () => [...written.join("").matchAll(/^data: (.+)$/gm)].map(([, text]) => text);
  return { response: response as unknown as ServerResponse, written, data, state, leave: () => response.emit("close") };
}

const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each.close();
});

/** A gateway as far as streams go. `records`: what it sees of the common store. */
function gateway(records: Records): { resumption: Resumption; forwarding: Forwarding } {
  const resumption = openResumption({ resumeSeconds: 30 });
  const seals = openSeals(records, undefined);
  const forwarding = openForwarding({ resumption, shared: records, seals, log: silentLogger });
  opened.push(resumption, forwarding);
  return { resumption, forwarding };
}

/** A stream with one event at a first gateway, and a second one whose looks for the first one's mailbox are counted. */
function twoGateways() {
  const { records } = memoryStore();
  const looks = { count: 0, after: (_count: number) => {} };
  const first = gateway(records);
  const second = gateway({
    ...records,
    async get<T>(kind: string, id: string) {
      const row = await records.get<T>(kind, id);
      if (kind === "mailbox" && id.includes(first.resumption.home)) looks.after(++looks.count);
      return row;
    },
  });
  const before = connection();
  const channel = first.resumption.begin(session, before.response, 1);
  if (channel === undefined) throw new Error("no channel");
  channel.send('{"step":1}');
  const lastEventId = /^id: (.+)$/m.exec(before.written.at(-1) ?? "")?.[1] ?? "";
  return { first, second, looks, before, channel, lastEventId };
}

describe("a client that comes back to another gateway", () => {
  test("sooner than the first one has noticed that it left goes on all the same, and misses nothing", async () => {
    const { first, second, looks, before, channel, lastEventId } = twoGateways();
    // The second gateway has looked twice and found nobody who waits; only then does the first one hear that its client is gone.
    looks.after = (count) => {
      if (count === 2) before.leave();
    };
    const after = connection();
    const goesOn = second.forwarding.goOn(first.resumption.home, session, lastEventId, after.response);
    await waitFor(() => looks.count >= 2);
    channel.send('{"step":2}');
    expect(await goesOn).toBe(true);
    channel.send('{"step":3}');
    channel.end('{"answer":true}');
    await waitFor(() => after.state.ended);
    expect(after.data()).toEqual(['{"step":2}', '{"step":3}', '{"answer":true}']);
    expect(before.data()).toEqual(['{"step":1}']);
    expect(looks.count).toBeGreaterThan(2);
  });

  test("and whom the first one never misses is told no after a bounded time, with nothing sent", async () => {
    const { first, second, looks, lastEventId } = twoGateways();
    const after = connection();
    expect(await second.forwarding.goOn(first.resumption.home, session, lastEventId, after.response)).toBe(false);
    expect(looks.count).toBeGreaterThan(5);
    expect(after.written).toEqual([]);
  });
});
