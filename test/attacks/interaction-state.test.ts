/**
 * What clients carry for the gateway (`requestState`, ids of questions) in hostile hands. Each title says what is refused. The state
 * is opened by who it was made for, for what it was made, and in time; for everybody else it is noise.
 */
import { describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { openMailbox } from "../../src/gateway/mailbox.ts";
import { openSeals } from "../../src/gateway/sealed-state.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import { waitFor } from "../fixtures/processes.ts";
import { fc, runs } from "../properties.ts";

const DAY_MS = 86_400_000;
const NOON = 20_000 * DAY_MS + DAY_MS / 2;
const value = { kind: "relay", state: "the server's own" };

describe("a sealed state", () => {
  test("cannot be read by whoever carries it", async () => {
    const sealed = await openSeals(memoryStore().records, undefined).seal(value, "me", 60);
    const body = Buffer.from(sealed.slice(sealed.indexOf(".") + 1), "base64url");
    expect(sealed + body.toString("latin1")).not.toMatch(/relay|server|me\b/);
  });

  test("does not open with any bit changed, cut off, added or spelt otherwise", async () => {
    const seals = openSeals(memoryStore().records, undefined);
    const sealed = await seals.seal(value, "me", 60);
    expect(await seals.open(sealed, "me")).toEqual(value);
    const [day = "", body = ""] = sealed.split(".");
    const bytes = Buffer.from(body, "base64url");
    for (let bit = 0; bit < bytes.length * 8; bit += 3) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(await seals.open(`${day}.${flipped.toString("base64url")}`, "me")).toBeUndefined();
    }
    for (const wrong of [
      `${sealed}-TAMPERED`,
      `${sealed}=`,
      `${sealed}!`,
      ` ${sealed}`,
      `${sealed}\n`,
      `0${sealed}`,
      `${Number(day) + 1}.${body}`,
      `${Number(day) - 1}.${body}`,
      `${day}.${body.slice(0, -4)}`,
      `${day}.`,
      body,
      "",
      "1.AAAA",
      `${day}.${"A".repeat(2 << 20)}`,
    ])
      expect(await seals.open(wrong, "me"), wrong.slice(0, 80)).toBeUndefined();
  });

  test("opens for none but the one it was bound to", async () => {
    const seals = openSeals(memoryStore().records, undefined);
    const sealed = await seals.seal(value, JSON.stringify(["ann", "client", "t"]), 60);
    for (const other of [["bob", "client", "t"], ["ann", "other", "t"], ["ann", "client", "u"], []])
      expect(await seals.open(sealed, JSON.stringify(other))).toBeUndefined();
  });

  test("ends by the clock, over midnight too, and never lives longer than a day", async () => {
    let now = NOON;
    const seals = openSeals(memoryStore(() => now).records, undefined, () => now);
    const late = await seals.seal(value, "me", 10 * 86_400);
    const soon = await seals.seal(value, "me", 60);
    now += 59_999;
    expect(await seals.open(soon, "me")).toEqual(value);
    now += 1;
    expect(await seals.open(soon, "me")).toBeUndefined();
    now = NOON + DAY_MS - 1;
    expect(await seals.open(late, "me")).toEqual(value);
    now++;
    expect(await seals.open(late, "me")).toBeUndefined();
  });

  test("of one replica opens at another with the same store, and at none with another store or secret", async () => {
    const { records } = memoryStore();
    const secret = new Secret("not in the store");
    const [one, two] = [openSeals(records, secret), openSeals(records, secret)];
    const [sealed, other] = await Promise.all([one.seal(value, "me", 60), two.seal(value, "me", 60)]);
    expect(await two.open(sealed, "me")).toEqual(value);
    expect(await one.open(other, "me")).toEqual(value);
    expect(await openSeals(records, undefined).open(sealed, "me")).toBeUndefined();
    expect(await openSeals(memoryStore().records, secret).open(sealed, "me")).toBeUndefined();
  });

  test("that is garbage asks the store nothing, beyond the keys of the days it can be from", async () => {
    const { records } = memoryStore();
    let reads = 0;
    const counted = {
      ...records,
      get<T>(kind: string, id: string) {
        reads++;
        return records.get<T>(kind, id);
      },
    };
    const seals = openSeals(counted, undefined);
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.tuple(fc.nat(), fc.base64String()).map((two) => two.join(".")),
        ),
        async (text) => {
          expect(await seals.open(text, "me")).toBeUndefined();
        },
      ),
      { numRuns: runs(500) },
    );
    expect(reads).toBeLessThan(12);
  });
});

describe("a letter between replicas", () => {
  test("cannot be read, written or sent on by somebody who only has the store", async () => {
    const { records } = memoryStore();
    const seals = openSeals(records, new Secret("not in the store"));
    const got: unknown[] = [];
    const mailbox = (address: string) =>
      openMailbox({ records, seals, address, log: silentLogger, deliver: (letter) => got.push([address, letter]) });
    const [one, two] = [mailbox("one"), mailbox("two")];
    const stop = one.wait();
    await one.present();
    const forged = { sealed: await openSeals(records, undefined).seal("forged", "letter\none\nf", 60) };
    await records.put("letter", "f", forged, { index: { to: "one" } });
    expect(await two.post("one", "a", "first")).toBe(true);
    expect(JSON.stringify(await records.list("letter", { limit: 10 }))).not.toContain("first");
    await waitFor(() => got.length > 0);
    // The same letter under another name or to another replica is not the same letter.
    await two.post("one", "b", "second");
    const row = await records.take<{ sealed: string }>("letter", "b");
    await records.put("letter", "c", row?.value, { index: { to: "one" } });
    await two.post("one", "d", "third");
    await waitFor(() => got.length > 1);
    expect(got).toEqual([
      ["one", "first"],
      ["one", "third"],
    ]);
    stop();
    await Promise.all([one.close(), two.close()]);
  });

  test("to a replica where nobody waits is not kept", async () => {
    const { records } = memoryStore();
    const seals = openSeals(records, undefined);
    const mailbox = openMailbox({ records, seals, address: "one", log: silentLogger, deliver: () => {} });
    expect(await mailbox.post("nobody", "a", "x")).toBe(false);
    const stop = mailbox.wait();
    await mailbox.present();
    stop();
    await mailbox.close();
    expect(await mailbox.post("one", "a", "x")).toBe(false);
    expect(await records.list("letter", { limit: 10 })).toEqual([]);
  });
});
