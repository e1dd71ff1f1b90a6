/** Kafka that must be signed in to: SASL by PLAIN and SCRAM, with and without TLS. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { auditExportSettings } from "../../src/audit/sinks/settings.ts";
import type { Sinks, SinksParts } from "../../src/audit/sinks/sinks.ts";
import { Secret } from "../../src/core/secret.ts";
import { findKcat } from "../global/programs.ts";
import { selfSigned } from "../oauth/certificate.ts";
import { type SaslOptions, startSaslKafka } from "./sasl-broker.ts";
import { type SinkLog, sinkLog, until } from "./sink-log.ts";

const open: Sinks[] = [];
afterEach(async () => {
  for (const sinks of open.splice(0)) await sinks.close();
});
function started(log: SinkLog, settings: readonly object[], more: Partial<SinksParts> = {}): Sinks {
  const sinks = log.sinks(settings, more);
  open.push(sinks);
  return sinks;
}
const MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] as const;
const PASSWORD = "the right password, it is";
const broker = (more: Partial<SaslOptions> = {}) =>
  startSaslKafka({ mechanisms: MECHANISMS, username: "gateway", password: PASSWORD, ...more });
const sink = (place: string, mechanism: string | undefined, password = PASSWORD, tls?: object) => ({
  kafka: {
    brokers: [place],
    topic: "audit",
    sasl: { username: "gateway", password: new Secret(password), ...(mechanism !== undefined && { mechanism }) },
    ...(tls !== undefined && { tls }),
  },
});
const stateOf = (sinks: Sinks) => sinks.state()[0];
const caughtUp = (log: SinkLog, sinks: Sinks) =>
  until(
    async () => (stateOf(sinks)?.sequence ?? 0) >= (await log.texts()).length,
    `caught up: ${JSON.stringify(sinks.state())}`,
  );
async function expectWhole(log: SinkLog, messages: readonly { readonly value: string }[]): Promise<void> {
  expect(new Set(messages.map(({ value }) => value))).toEqual(new Set(await log.texts()));
}

describe.skipIf(findKcat() === undefined)("Kafka with SASL", () => {
  test.for(MECHANISMS)("by %s has every record, from whoever knows the password", async (mechanism) => {
    await using kafka = await broker();
    const log = sinkLog();
    await log.write(30);
    const sinks = started(log, [sink(kafka.place, mechanism)]);
    await caughtUp(log, sinks);
    await expectWhole(log, await kafka.messages());
    expect(new Set(kafka.seen.signedIn)).toEqual(new Set([mechanism]));
    // SCRAM proves that it knows the password and does not say it.
    expect(kafka.seen.bytes.includes(PASSWORD)).toBe(mechanism === "PLAIN");
  });

  test("is signed in to by SCRAM-SHA-512 unless the settings say otherwise", async () => {
    await using kafka = await broker();
    const log = sinkLog();
    await log.write(1);
    await caughtUp(log, started(log, [sink(kafka.place, undefined)]));
    expect(new Set(kafka.seen.signedIn)).toEqual(new Set(["SCRAM-SHA-512"]));
  });

  test.for([
    ["an old broker", [0, 0]],
    ["one of version 2.0", [0, 1]],
    ["one that does not say what it has", undefined],
  ] as const)("is signed in to where it is %s", async ([, versions]) => {
    await using kafka = await broker({ versions });
    const log = sinkLog();
    await log.write(2);
    await caughtUp(log, started(log, [sink(kafka.place, "SCRAM-SHA-256")]));
    await expectWhole(log, await kafka.messages());
  });

  test.for(MECHANISMS)(
    "by %s refuses the wrong password, which is said plainly; nothing is lost when it is right",
    async (mechanism) => {
      await using kafka = await broker();
      const log = sinkLog();
      await log.write(20);
      const sinks = started(log, [sink(kafka.place, mechanism, "quite wrong")]);
      await until(() => (stateOf(sinks)?.failures ?? 0) > 1, "it is refused again and again");
      expect(stateOf(sinks)).toMatchObject({ sent: 0, sequence: 0, failures: expect.any(Number) });
      expect(stateOf(sinks)?.problem).toContain(`does not let gateway sign in by ${mechanism}. Check kafka.sasl`);
      expect(stateOf(sinks)?.problem).not.toContain("quite wrong");
      expect(new Set(kafka.seen.refused)).toEqual(new Set([mechanism]));
      expect(await kafka.messages()).toEqual([]);
      await log.write(5);
      await sinks.apply(auditExportSettings.parse([sink(kafka.place, mechanism)]), () => false);
      await caughtUp(log, sinks);
      await expectWhole(log, await kafka.messages());
    },
  );

  test("that does not know the mechanism is told apart from one that does not know the password", async () => {
    await using kafka = await broker({ mechanisms: ["PLAIN"] });
    const log = sinkLog();
    await log.write(1);
    const sinks = started(log, [sink(kafka.place, "SCRAM-SHA-512")]);
    await until(() => (stateOf(sinks)?.failures ?? 0) > 0, "it is refused");
    expect(stateOf(sinks)?.problem).toMatch(/sign in by SCRAM-SHA-512.*suitable SASL mechanism/);
    expect(kafka.seen.bytes.includes(PASSWORD)).toBe(false);
  });

  test.for(["SCRAM-SHA-256", "SCRAM-SHA-512"])(
    "that answers nonsense to %s, or what proves nothing, harms nobody and gets nothing",
    async (mechanism) => {
      for (const answer of [
        "nonsense",
        "r=,s=,i=4096",
        "{nonce}",
        "{nonce}more,s=c2FsdA==,i=1",
        "{nonce}more,s=c2FsdA==,i=999999999",
        "{nonce}more,s=c2FsdA==,i=4096",
        "",
      ]) {
        await using kafka = await broker({ answer });
        const log = sinkLog();
        await log.write(1);
        const sinks = started(log, [sink(kafka.place, mechanism)]);
        await until(() => (stateOf(sinks)?.failures ?? 0) > 0, `it has failed: ${answer}`);
        expect(stateOf(sinks)).toMatchObject({ sent: 0 });
        expect(await kafka.messages()).toEqual([]);
      }
    },
  );

  test("that nobody signs in to takes nothing", async () => {
    await using kafka = await broker();
    const log = sinkLog();
    await log.write(1);
    const sinks = started(log, [{ kafka: { brokers: [kafka.place], topic: "audit" } }]);
    await until(() => (stateOf(sinks)?.failures ?? 0) > 0, "it is refused");
    expect(await kafka.messages()).toEqual([]);
  });

  test("whose password changes under load, and whose sessions are short, loses nothing", async () => {
    await using kafka = await broker({ sessionMs: 1500 });
    const log = sinkLog();
    const sinks = started(log, [sink(kafka.place, "SCRAM-SHA-256")]);
    let over = false;
    const writing = (async () => {
      for (; !over; await new Promise((resolve) => setTimeout(resolve, 40))) await log.write(3);
    })();
    try {
      await until(() => kafka.seen.signedIn.length > 4, "it was signed in to again, as it asked");
      const { failures = 0 } = stateOf(sinks) ?? {};
      kafka.password("another");
      kafka.cut();
      await until(() => (stateOf(sinks)?.failures ?? 0) > failures, "it is refused");
      await until(() => (stateOf(sinks)?.behind ?? 0) > 0, "it is behind");
      kafka.password(PASSWORD);
      const { sent = 0 } = stateOf(sinks) ?? {};
      await until(() => (stateOf(sinks)?.sent ?? 0) > sent, "it goes on");
    } finally {
      over = true;
      await writing;
    }
    await caughtUp(log, sinks);
    await expectWhole(log, await kafka.messages());
  });

  test("over TLS is told the password when its certificate is trusted, and nothing when it is not", async () => {
    const folder = await mkdtemp(join(tmpdir(), "drawbridge-kafka-"));
    try {
      const { certificate, key } = await selfSigned();
      await writeFile(join(folder, "ca.pem"), certificate);
      await using kafka = await broker({ tls: { cert: certificate, key } });
      const log = sinkLog();
      await log.write(10);
      const strangers = started(log, [{ name: "strangers", ...sink(kafka.place, "PLAIN", PASSWORD, {}) }]);
      await until(() => (stateOf(strangers)?.failures ?? 0) > 0, "it is not trusted");
      expect(stateOf(strangers)?.problem).toMatch(/certificate/i);
      await until(() => (stateOf(strangers)?.failures ?? 0) > 1, "it is not trusted again");
      expect(kafka.seen.bytes.length).toBe(0);
      const sinks = started(log, [sink(kafka.place, "PLAIN", PASSWORD, { trustedCertificates: "ca.pem" })], { folder });
      await caughtUp(log, sinks);
      await expectWhole(log, await kafka.messages());
      expect(kafka.seen.signedIn).toContain("PLAIN");
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
