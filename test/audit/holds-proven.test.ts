/** A legal hold that somebody with the database takes away, shortens or invents: it is told, and what it may match is kept. */
import { describe, expect, test } from "vitest";
import { type Hold, lookAtHolds } from "../../src/audit/holds.ts";
import { logRecord } from "../../src/audit/record.ts";
import { signerOfSeed, vouchersOf } from "../../src/audit/signing.ts";
import {
  chainOf,
  copied,
  DAY,
  heldBefore,
  hold,
  lifted,
  type Paper,
  paper,
  placed,
  problemOf,
  SIGNER,
  STRANGER,
  taken,
  VOUCHERS,
  type Writer,
  writer,
} from "./paper-log.ts";

const CASE = hold("case-7", "bob");
const doubtsOf = async ({ log, records }: Paper) => (await lookAtHolds(log, records, VOUCHERS)).doubts;
const left = ({ rows }: Paper, subject: string) => rows.filter(({ json }) => json.includes(`-${subject}"`)).length;

/** Six days of three users, and what bob did is on hold by a command of its own chain, on the first day. */
async function onHold(): Promise<{ readonly one: Paper; readonly by: Writer; readonly held: Hold }> {
  const one = paper();
  const by = writer(one, "one");
  await by.day(0);
  const command = writer(one, "command line");
  const held = await placed(one, command, CASE, { at: DAY });
  await command.close();
  await by.day(1, 2, 3, 4, 5);
  return { one, by, held };
}

describe("a hold that was placed by a record of the log", () => {
  test("keeps what it matches, without a doubt, and its own record stays as long as it does", async () => {
    const { one, by, held } = await onHold();
    expect(await doubtsOf(one)).toEqual([]);
    expect(await taken(one, by, 5)).toMatchObject({ doubts: [], held: 6 });
    expect(left(one, "bob")).toBe(6);
    expect(one.rows.filter(({ json }) => json.includes("audit.hold-placed"))).toHaveLength(1);
    expect(await doubtsOf(one)).toEqual([]);
    await lifted(one, by, held, 2 * DAY);
    expect(await doubtsOf(one)).toEqual([]);
    expect((await taken(one, by, 5)).doubts).toEqual([]);
    expect(left(one, "bob")).toBe(1);
    expect(one.rows.filter(({ json }) => json.includes("audit.hold-placed"))).toEqual([]);
    await by.close();
    expect(await problemOf(one)).toBeUndefined();
  });

  test.each<[string, string, (one: Paper, held: Hold) => Promise<unknown>]>([
    ["is removed from the store", "removed", ({ records }) => records.delete("audit-hold", "case-7")],
    [
      "is made another person's",
      "changed",
      async ({ records }) => {
        const row = await records.get<Hold>("audit-hold", "case-7");
        await records.put("audit-hold", "case-7", { ...row?.value, subject: "nobody" });
      },
    ],
    [
      "is shortened",
      "changed",
      async ({ records }) => {
        const row = await records.get<Hold>("audit-hold", "case-7");
        await records.put("audit-hold", "case-7", { ...row?.value, until: 1 });
      },
    ],
    [
      "is shortened and signed with a key of somebody else",
      "changed",
      async ({ records }, held) => {
        await records.delete("audit-hold", "case-7");
        const { placeHold } = await import("../../src/audit/holds.ts");
        await placeHold(records, { ...held, until: 1 }, STRANGER);
      },
    ],
    ["is made unreadable", "removed", ({ records }) => records.put("audit-hold", "case-7", { id: 7 })],
    [
      "is put under another name",
      "removed",
      async ({ records }) => {
        const row = await records.take<Hold>("audit-hold", "case-7");
        await records.put("audit-hold", "case-8", row?.value);
      },
    ],
  ])("and %s still holds, and that is told", async (_, kind, change) => {
    const { one, by, held } = await onHold();
    await change(one, held);
    expect(await doubtsOf(one)).toContainEqual(expect.objectContaining({ hold: "case-7", kind }));
    const { doubts } = await taken(one, by, 5);
    expect(doubts).toContainEqual(expect.objectContaining({ hold: "case-7", kind, why: expect.stringMatching(/\.$/) }));
    expect(left(one, "bob")).toBe(6);
    await by.close();
    expect(await problemOf(one)).toBeUndefined();
  });

  test("and whose record was taken out of the log keeps everything, since that is not whole", async () => {
    const { one, by } = await onHold();
    const command = chainOf(one.rows.find(({ json }) => json.includes("audit.hold-placed"))?.json ?? "");
    const copy = copied(one);
    copy.rows = copy.rows.filter(({ json }) => !json.includes("audit.hold-placed"));
    await copy.records.delete("audit-hold", "case-7");
    await expect(taken(copy, by, 5)).rejects.toThrow(/not whole.*audit verify/);
    // The chain of the command as a whole, which no other has seen yet: its copy in the store is signed.
    const { one: other, by: writing } = await onHold();
    const gone = chainOf(other.rows.find(({ json }) => json.includes("audit.hold-placed"))?.json ?? "");
    expect(gone).not.toBe(command);
    other.rows = other.rows.filter(({ json }) => chainOf(json) !== gone);
    other.heads = other.heads.filter(({ chain }) => chain !== gone);
    const doubts = await doubtsOf(other);
    if ((await problemOf(other)) === undefined) expect(doubts).toMatchObject([{ hold: "case-7", kind: "removed" }]);
    await taken(other, writing, 5).catch(() => {});
    expect(left(other, "bob")).toBe(6);
  });

  test("and a record of its lifting by somebody who is not trusted still holds", async () => {
    const { one, by, held } = await onHold();
    const stranger = writer(one, "stranger", { signer: STRANGER });
    await lifted(one, stranger, held);
    await stranger.close();
    const { doubts } = await taken(one, by, 5);
    expect(doubts).toMatchObject([{ hold: "case-7", kind: "removed" }]);
    expect(left(one, "bob")).toBe(6);
  });

  test("and that was lifted and put back holds until it is lifted again", async () => {
    const { one, by, held } = await onHold();
    const row = await one.records.get("audit-hold", "case-7");
    await lifted(one, by, held);
    await one.records.put("audit-hold", "case-7", row?.value);
    expect(await doubtsOf(one)).toMatchObject([{ hold: "case-7", kind: "added" }]);
    expect((await taken(one, by, 5)).doubts).toMatchObject([{ kind: "added" }]);
    expect(left(one, "bob")).toBe(6);
    await lifted(one, by, held);
    expect((await taken(one, by, 5)).doubts).toEqual([]);
    expect(left(one, "bob")).toBe(1);
  });

  test("and placed again under the same name needs its own lifting", async () => {
    const { one, by, held } = await onHold();
    await lifted(one, by, held);
    const again = await placed(one, by, CASE);
    // The first lifting put into the place of a second: it names what it lifted.
    await by.journal.append(
      logRecord("audit.hold-lifted", { hold: "case-7", placed: [held.key ?? ""] }, "r", 1000 * DAY),
    );
    expect(await doubtsOf(one)).toEqual([]);
    await taken(one, by, 5);
    expect(left(one, "bob")).toBe(6);
    await lifted(one, by, again);
    await taken(one, by, 5);
    expect(left(one, "bob")).toBe(1);
  });

  test("is known under a new key, too, when the log goes on under that", async () => {
    const { one, by } = await onHold();
    await by.close();
    const later = writer(one, "later", { signer: STRANGER });
    const signer = async () => STRANGER;
    expect((await taken(one, later, 5, { signer })).doubts).toEqual([]);
    expect(left(one, "bob")).toBe(6);
    await one.records.delete("audit-hold", "case-7");
    expect((await taken(one, later, 6, { signer })).doubts).toMatchObject([{ kind: "removed" }]);
    expect(left(one, "bob")).toBe(6);
    const both = vouchersOf([SIGNER.publicKey, STRANGER.publicKey]);
    expect((await lookAtHolds(one.log, one.records, both)).verdict.problem).toBeUndefined();
  });
});

describe("a lifting", () => {
  test("stays in the log while another hold keeps the record of its placing, so that the hold does not come back", async () => {
    const { one, by, held } = await onHold();
    await lifted(one, by, held, 3 * DAY);
    await placed(one, by, {
      id: "all",
      reason: "all of the first two days",
      until: 2 * DAY,
      placedBy: "sam",
      placedAt: 0,
    });
    await by.day(6, 7);
    await taken(one, by, 6);
    expect(one.rows.filter(({ json }) => json.includes('"audit.hold-lifted"'))).toHaveLength(1);
    expect(await doubtsOf(one)).toEqual([]);
    await by.close();
    expect(await problemOf(one)).toBeUndefined();
  });
});

describe("a hold of a version that signed none", () => {
  test("and recorded it holds without a doubt, and is told as unsigned", async () => {
    const one = paper();
    const by = writer(one, "one");
    await by.day(0, 1, 2);
    await by.journal.append(
      logRecord(
        "audit.hold-placed",
        { hold: "case-7", reason: "case 7", user: "bob", operator: "sam" },
        "r",
        1000 * DAY,
      ),
    );
    await heldBefore(one.records, CASE);
    const { doubts, unsigned, inForce } = await lookAtHolds(one.log, one.records, VOUCHERS);
    expect({ doubts, unsigned: [...unsigned], inForce: inForce.length }).toEqual({
      doubts: [],
      unsigned: ["case-7"],
      inForce: 1,
    });
    expect((await taken(one, by, 3)).doubts).toEqual([]);
    expect(left(one, "bob")).toBe(3);
    await by.journal.append(logRecord("audit.hold-lifted", { hold: "case-7", operator: "sam" }, "r", 1000 * DAY));
    await one.records.delete("audit-hold", "case-7");
    expect(await doubtsOf(one)).toEqual([]);
    await taken(one, by, 3);
    expect(left(one, "bob")).toBe(0);
  });

  test("or that somebody has invented, without a record of it, holds and is told as unsigned", async () => {
    const one = paper();
    const by = writer(one, "one");
    await by.day(0, 1, 2);
    const signer = signerOfSeed(Buffer.alloc(32, 9));
    const { placeHold } = await import("../../src/audit/holds.ts");
    await placeHold(one.records, { ...CASE, key: "k" }, signer);
    await heldBefore(one.records, hold("case-8", "eve"));
    expect(await doubtsOf(one)).toMatchObject([
      { hold: "case-7", kind: "unsigned" },
      { hold: "case-8", kind: "unsigned" },
    ]);
    expect((await taken(one, by, 3)).doubts).toHaveLength(2);
    expect([left(one, "ada"), left(one, "bob"), left(one, "eve")]).toEqual([0, 3, 3]);
  });
});

test("a hold that is being placed while somebody looks is not doubted", async () => {
  const { one, by } = await onHold();
  const late = hold("case-9", "eve");
  let looks = 0;
  const log = {
    ...one.log,
    async heads() {
      const heads = await one.log.heads();
      // Recorded and put between the look at the log and the one at the store.
      if (looks++ === 0) await placed(one, by, late);
      return heads;
    },
  };
  expect((await lookAtHolds(log, one.records, VOUCHERS)).doubts).toEqual([]);
  expect(looks).toBe(2);
});
