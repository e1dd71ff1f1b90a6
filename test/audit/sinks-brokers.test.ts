/** Sinks on Kafka and NATS JetStream, stopped and started while records come. */
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { afterEach, describe, expect, test } from "vitest";
import { auditExportSettings } from "../../src/audit/sinks/settings.ts";
import type { Sinks } from "../../src/audit/sinks/sinks.ts";
import { Secret } from "../../src/core/secret.ts";
import { findKcat, findNats } from "../global/programs.ts";
import { type Broker, type Message, startKafka, startNats } from "./brokers.ts";
import { type SinkLog, sinkLog, until } from "./sink-log.ts";

const open: Sinks[] = [];
afterEach(async () => {
  for (const sinks of open.splice(0)) await sinks.close();
});
function started(log: SinkLog, settings: readonly object[]): Sinks {
  const sinks = log.sinks(settings);
  open.push(sinks);
  return sinks;
}
const caughtUp = (log: SinkLog, sinks: Sinks) =>
  until(
    async () => (sinks.state()[0]?.sequence ?? 0) >= (await log.texts()).length,
    `caught up: ${JSON.stringify(sinks.state())}`,
  );

/** Two replicas write while `during` happens. */
async function underLoad(log: SinkLog, during: () => Promise<void>): Promise<void> {
  const other = log.other("r2");
  let over = false;
  const writing = (async () => {
    while (!over) {
      await log.write(4);
      await other(4);
      // The cluster of kcat keeps no more than 5 MB of a partition.
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
  })();
  try {
    await during();
  } finally {
    over = true;
    await writing;
  }
}

interface Got {
  readonly id: string;
  readonly chain: string;
  readonly n: number;
  readonly text: string;
}

/** Everything is there; what came twice says so by its id; each chain is in its order. Returns how many came twice. */
async function expectWhole(log: SinkLog, got: readonly Got[]): Promise<number> {
  const first = new Map<string, Got>();
  let twice = 0;
  const reached = new Map<string, number>();
  for (const one of got) {
    const known = first.get(one.id);
    if (known !== undefined) {
      expect(one.text).toBe(known.text);
      twice++;
      continue;
    }
    first.set(one.id, one);
    expect(one.n, `order of ${one.chain}`).toBe(reached.get(one.chain) ?? 0);
    reached.set(one.chain, one.n + 1);
  }
  const texts = await log.texts();
  expect(first.size).toBe(texts.length);
  expect(new Set([...first.values()].map(({ text }) => text))).toEqual(new Set(texts));
  return twice;
}

const fromKafka = ({ headers, value }: Message): Got => ({
  id: headers["id"] ?? "",
  chain: headers["chain"] ?? "",
  n: Number(headers["n"]),
  text: value,
});

async function frozen(broker: Broker, sinks: Sinks): Promise<void> {
  await until(() => (sinks.state()[0]?.sent ?? 0) > 0, "some were sent");
  const { failures = 0 } = sinks.state()[0] ?? {};
  broker.freeze();
  try {
    await until(() => (sinks.state()[0]?.failures ?? 0) > failures, "it hangs");
    expect(sinks.state()[0]?.problem).toBeDefined();
  } finally {
    broker.thaw();
  }
  const { sent = 0 } = sinks.state()[0] ?? {};
  await until(() => (sinks.state()[0]?.sent ?? 0) > sent, "it goes on");
}

describe.skipIf(findKcat() === undefined)("Kafka", () => {
  test("has every record with its id, its chain as key, and each chain in order in one partition", async () => {
    await using kafka = await startKafka();
    const log = sinkLog();
    await log.write(300);
    await log.other("r2")(300);
    const sinks = started(log, [{ kafka: { brokers: [kafka.place], topic: "audit" } }]);
    await caughtUp(log, sinks);
    const messages = await kafka.messages();
    expect(await expectWhole(log, messages.map(fromKafka))).toBe(0);
    for (const { key, headers, value } of messages) {
      const { id, chain } = JSON.parse(value) as { id: string; chain: { id: string; n: number } };
      expect(key).toBe(chain.id);
      expect(headers).toMatchObject({ id, chain: chain.id, n: String(chain.n), "content-type": "application/json" });
    }
    const chains = new Map(messages.map(({ key, partition }) => [`${key} ${partition}`, key]));
    expect(chains.size).toBe(2);
  });

  test("that hangs under load loses nothing, and what comes twice is known by its id", async () => {
    await using kafka = await startKafka();
    const log = sinkLog();
    const sinks = started(log, [{ kafka: { brokers: [kafka.place], topic: "audit" } }]);
    await underLoad(log, () => frozen(kafka, sinks));
    await caughtUp(log, sinks);
    await expectWhole(log, (await kafka.messages()).map(fromKafka));
  });

  test("that is gone under load is behind until the settings name another, which has what the first one had not", async () => {
    const log = sinkLog();
    const settings = (place: string) => [{ kafka: { brokers: [place], topic: "audit" } }];
    const before = await startKafka();
    const sinks = started(log, settings(before.place));
    await underLoad(log, async () => {
      await until(() => (sinks.state()[0]?.sent ?? 0) > 0, "some were sent");
      await before[Symbol.asyncDispose]();
      await until(() => (sinks.state()[0]?.failures ?? 0) > 1, "it is gone");
      await until(() => (sinks.state()[0]?.behind ?? 0) > 0, "it is behind");
    });
    const { sequence = 0 } = sinks.state()[0] ?? {};
    await using after = await startKafka();
    await sinks.apply(auditExportSettings.parse(settings(after.place)), () => false);
    await caughtUp(log, sinks);
    const wanted = (await log.texts()).slice(sequence);
    expect(wanted.length).toBeGreaterThan(0);
    expect(new Set((await after.messages()).map(({ value }) => value))).toEqual(new Set(wanted));
  });

  test("gets CloudEvents as what they are", async () => {
    await using kafka = await startKafka();
    const log = sinkLog();
    await log.write(2);
    const kafkaSettings = { brokers: [kafka.place], topic: "audit" };
    const sinks = started(log, [{ kafka: kafkaSettings, format: "cloudevents" }]);
    await caughtUp(log, sinks);
    const messages = await kafka.messages();
    expect(new Set(messages.map(({ headers }) => headers["content-type"]))).toEqual(
      new Set(["application/cloudevents+json"]),
    );
    expect(messages.map(({ value }) => (JSON.parse(value) as { specversion: string }).specversion)).toEqual([
      "1.0",
      "1.0",
      "1.0",
    ]);
  });

  test("that has no such topic, and one that is not there, are named in the problem", async () => {
    await using kafka = await startKafka();
    const log = sinkLog();
    await log.write(1);
    const sinks = started(log, [
      { name: "closed", kafka: { brokers: ["127.0.0.1:1"], topic: "audit" } },
      { name: "secured", kafka: { brokers: [kafka.place], topic: "audit", tls: {} } },
    ]);
    await until(() => sinks.state().every(({ failures }) => failures > 0), "both have failed");
    expect(sinks.state()[0]?.problem).toMatch(/ECONNREFUSED|127\.0\.0\.1:1/);
    expect(sinks.state()[1]?.sent).toBe(0);
  });
});

/** All messages of the stream, with their headers. */
async function streamed(place: string, more: object = {}): Promise<readonly Got[]> {
  const connection = await connect({ servers: place, ...more });
  try {
    const { messages } = (await (await jetstreamManager(connection)).streams.info("AUDIT")).state;
    if (messages === 0) return [];
    const got: Got[] = [];
    const consumer = await jetstream(connection).consumers.get("AUDIT");
    for await (const message of await consumer.fetch({ max_messages: messages, expires: 5000 })) {
      const header = (name: string) => message.headers?.get(name) ?? "";
      got.push({
        id: header("Nats-Msg-Id"),
        chain: header("Drawbridge-Chain"),
        n: Number(header("Drawbridge-N")),
        text: message.string(),
      });
      if (got.length === messages) break;
    }
    return got;
  } finally {
    await connection.close();
  }
}

async function withStream(place: string, more: object = {}): Promise<void> {
  const connection = await connect({ servers: place, ...more });
  try {
    await (await jetstreamManager(connection)).streams.add({ name: "AUDIT", subjects: ["audit.>"] });
  } finally {
    await connection.close();
  }
}

describe.skipIf(findNats() === undefined)("NATS JetStream", () => {
  const settings = (place: string) => [{ nats: { servers: [place], subject: "audit.drawbridge", stream: "AUDIT" } }];

  test("has every record once and in order, whatever hangs, dies and comes back under load", async () => {
    await using nats = await startNats();
    await withStream(nats.place);
    const log = sinkLog();
    const sinks = started(log, settings(nats.place));
    await underLoad(log, async () => {
      await frozen(nats, sinks);
      const { failures = 0, sent = 0 } = sinks.state()[0] ?? {};
      await nats.kill();
      await until(() => (sinks.state()[0]?.failures ?? 0) > failures, "it is gone");
      await nats.start();
      await until(() => (sinks.state()[0]?.sent ?? 0) > sent, "it goes on");
    });
    await caughtUp(log, sinks);
    // The stream itself knows what comes twice.
    expect(await expectWhole(log, await streamed(nats.place))).toBe(0);
  });

  test("without a stream takes nothing, and has everything when there is one", async () => {
    await using nats = await startNats();
    const log = sinkLog();
    await log.write(10);
    const sinks = started(log, settings(nats.place));
    await until(() => (sinks.state()[0]?.failures ?? 0) > 0, "nobody takes it");
    expect(sinks.state()[0]).toMatchObject({ sent: 0, sequence: 0 });
    await withStream(nats.place);
    await caughtUp(log, sinks);
    expect(await expectWhole(log, await streamed(nats.place))).toBe(0);
  });

  test("without TLS gets nothing where TLS is wanted", async () => {
    await using nats = await startNats();
    await withStream(nats.place);
    const log = sinkLog();
    await log.write(1);
    const sinks = started(log, [{ nats: { servers: [nats.place], subject: "audit.drawbridge", tls: {} } }]);
    await until(() => (sinks.state()[0]?.failures ?? 0) > 1, "it is refused");
    expect(sinks.state()[0]?.problem).toMatch(/tls/i);
    expect(await streamed(nats.place)).toEqual([]);
  });

  test("is signed in to, and who has the wrong password sends nothing", async () => {
    await using nats = await startNats("authorization { user: gateway, password: right }");
    const by = { user: "gateway", pass: "right" };
    await withStream(nats.place, by);
    const log = sinkLog();
    await log.write(3);
    const with_ = (name: string, password: string) => ({
      ...settings(nats.place)[0],
      name,
      nats: { ...settings(nats.place)[0]?.nats, credentials: { username: "gateway", password: new Secret(password) } },
    });
    const wrong = started(log, [with_("wrong", "wrong")]);
    await until(() => (wrong.state()[0]?.failures ?? 0) > 0, "it is refused");
    expect(wrong.state()[0]?.problem).toMatch(/authorization/i);
    await caughtUp(log, started(log, [with_("right", "right")]));
    await expectWhole(log, await streamed(nats.place, by));
    expect(wrong.state()[0]?.sent).toBe(0);
  });
});
