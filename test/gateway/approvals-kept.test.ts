/** What is kept of approvals, on every store: one request for one call, and a grant that is spent once whoever tries. */
import { describe, expect, test } from "vitest";
import { type Kept, type NewRequest, openKept, type Request } from "../../src/gateway/approvals/kept.ts";
import { openSeals } from "../../src/gateway/sealed-state.ts";
import { everyStore } from "../store/backends.ts";

const about = { title: undefined, arguments: '{"card":"5239791409176951"}' };
const wanted = (digest: string, subject = "sam"): NewRequest => ({
  digest,
  request: "sha256:0",
  requester: { subject, client: "agent" },
  target: { server: "desk", kind: "tool", name: "refund", upstreamName: "refund" },
  method: "tools/call",
  need: { rules: ["approvals.0"], by: [], fourEyes: false, expiresSeconds: 60, reasons: [], depends: false },
});
const decided = { by: "lea", via: "admin", at: 0 } as const;
const requestIn = (asked: Awaited<ReturnType<Kept["ask"]>>): Request => {
  if (typeof asked !== "object") throw new Error(`not asked: ${asked}`);
  return asked;
};

describe.each(everyStore)("$name", ({ openTwo }) => {
  test("of many who ask for the same call, one is the request", async () => {
    await using two = await openTwo();
    const all = two.map(({ records }) => openKept(records, openSeals(records, undefined)));
    const asked = await Promise.all([...all, ...all].map((kept) => kept.ask(wanted("d"), about, undefined)));
    expect(asked.filter((one) => one !== undefined)).toHaveLength(1);
  });

  test("of many who would spend a grant, on two replicas, exactly one does; and none before it is given", async () => {
    await using two = await openTwo();
    const [one, other] = two.map(({ records }) => openKept(records, openSeals(records, undefined))) as [Kept, Kept];
    const { number } = requestIn(await one.ask(wanted("d"), about, undefined));
    const pending = await other.find(number);
    expect(pending?.request.state).toBe("pending");
    if (pending === undefined) throw new Error("not found");
    expect(await other.decide(pending, "approved", decided)).toBe(true);
    // Decided upon what it was before.
    expect(await one.decide(pending, "denied", decided)).toBe(false);
    const known = await Promise.all(
      [one, other, one, other].map(async (kept) => ({ kept, was: await kept.look("d") })),
    );
    const spent = await Promise.all(known.map(({ kept, was }) => was && kept.spend(was)));
    expect(spent.filter((won) => won === true)).toHaveLength(1);
    expect((await one.look("d"))?.request.state).toBe("spent");
    expect(await one.open()).toEqual([]);
  });

  test("a question, and a round of a call, are taken once", async () => {
    await using two = await openTwo();
    const [one, other] = two.map(({ records }) => openKept(records, openSeals(records, undefined))) as [Kept, Kept];
    const { number } = requestIn(await one.question(wanted("d")));
    const answers = await Promise.all([one, other, one].map((kept) => kept.answer(number)));
    expect(answers.filter((taken) => taken !== undefined)).toHaveLength(1);
    const token = await one.nextRound(60);
    const rounds = await Promise.all([one, other, one].map((kept) => kept.goOn(token)));
    expect(rounds.filter((won) => won)).toHaveLength(1);
  });
});

describe("in bounds", () => {
  const [memory] = everyStore.filter(({ name }) => name === "memory");

  test("nobody has more than twenty requests open, and others still can ask", async () => {
    if (memory === undefined) throw new Error("there is always memory");
    await using store = await memory.open();
    const kept = openKept(store.records, openSeals(store.records, undefined));
    for (let at = 0; at < 20; at++) requestIn(await kept.ask(wanted(`d${at}`), about, undefined));
    expect(await kept.ask(wanted("more"), about, undefined)).toBe("own");
    requestIn(await kept.ask(wanted("other", "max"), about, undefined));
    for (let at = 0; at < 20; at++) requestIn(await kept.question(wanted(`q${at}`)));
    expect(await kept.question(wanted("more"))).toBe("own");
  });

  test("what a call would send is not readable in the store", async () => {
    if (memory === undefined) throw new Error("there is always memory");
    await using store = await memory.open();
    const kept = openKept(store.records, openSeals(store.records, undefined));
    const request = requestIn(await kept.ask(wanted("d"), about, undefined));
    const kinds = ["approval", "approval-about"];
    const rows = await Promise.all(kinds.map((kind) => store.records.list(kind, { limit: 10 })));
    expect(rows.flat()).toHaveLength(2);
    expect(JSON.stringify(rows)).not.toContain("5239791409176951");
    expect(await kept.about(request)).toEqual(about);
  });
});
