import { describe, expect, test } from "vitest";
import { type User, type Users, usersIn } from "../../src/oauth/people/users.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";
import { everyStore } from "../store/backends.ts";
import { PASSWORD } from "./support.ts";

function people(records: Records = memoryStore().records, clock?: () => number) {
  return { records, users: usersIn(records, clock) };
}
const INES = { provider: "idp", subject: "s-1", name: "Ines", email: "ines@shop.example", groups: ["support"] };
const LOCAL = { name: "olive", email: "olive@shop.example", password: PASSWORD, groups: ["owner"] };

describe("a user from a provider", () => {
  test("is made at the first sign-in and found by provider and subject", async () => {
    const { users } = people();
    const made = await users.federate(INES);
    expect(made).toMatchObject({ name: "Ines", groups: ["support"], disabled: false });
    expect(await users.findByProvider("idp", "s-1")).toEqual(made);
    expect(await users.find(made.id)).toEqual(made);
    expect(await users.lookUp("idp:s-1")).toEqual(made);
    expect(await users.findByProvider("idp", "s-2")).toBeUndefined();
    expect(await users.findByProvider("other", "s-1")).toBeUndefined();
  });

  test("keeps the id and takes name, address and groups of the last sign-in", async () => {
    const { users } = people();
    const first = await users.federate(INES);
    const next = await users.federate({ ...INES, name: "Ines B", email: undefined, groups: [] });
    expect(next.id).toBe(first.id);
    expect(await users.find(first.id)).toMatchObject({ name: "Ines B", groups: [] });
    expect((await users.find(first.id))?.email).toBeUndefined();
  });

  test("is one user when twenty first sign-ins happen at once", async () => {
    const { users } = people();
    const made = await Promise.all(Array.from({ length: 20 }, () => users.federate(INES)));
    expect(new Set(made.map(({ id }) => id)).size).toBe(1);
    expect(await users.list({ limit: 100 })).toHaveLength(1);
  });

  test("is never a local user nor another provider's, whatever name and address say", async () => {
    const { users } = people();
    const olive = await users.create(LOCAL);
    const same = { name: olive.name, email: olive.email, groups: [] };
    const one = await users.federate({ provider: "idp", subject: olive.id, ...same });
    const two = await users.federate({ provider: "idp-2", subject: olive.id, ...same });
    expect(new Set([olive.id, one.id, two.id]).size).toBe(3);
    expect(await users.lookUp("olive")).toEqual(olive);
    expect((await users.find(olive.id))?.groups).toEqual(["owner"]);
  });

  test("stays disabled at the next sign-in", async () => {
    const { users } = people();
    const { id } = await users.federate(INES);
    await users.setDisabled(id, true);
    expect((await users.federate(INES)).disabled).toBe(true);
  });

  test("has no password: nobody signs in with the name, changes a password, sets one or is invited", async () => {
    const { users } = people();
    const { id } = await users.federate(INES);
    expect(await users.signIn("Ines", "", "s")).toMatchObject({ ok: false });
    expect(await users.changePassword(id, "", PASSWORD)).toBe(false);
    await expect(users.setPassword(id, PASSWORD)).rejects.toMatchObject({ code: "invalid_request" });
    await expect(users.setGroups(id, ["owner"])).rejects.toMatchObject({ code: "invalid_request" });
    await expect(users.newInvitation(id)).rejects.toMatchObject({ code: "invalid_request" });
  });

  test("that was removed comes back as a new one", async () => {
    const { users } = people();
    const { id } = await users.federate(INES);
    await users.remove(id);
    expect(await users.findByProvider("idp", "s-1")).toBeUndefined();
    const again = await users.federate(INES);
    expect(again.id).not.toBe(id);
    expect(await users.find(id)).toBeUndefined();
  });

  test("that is removed while signing in is not brought back to life under the old id", async () => {
    for (let step = 1; step <= 8; step++) {
      const { records, users } = people();
      const { id } = await users.federate(INES);
      let left = step;
      const late = usersIn({
        ...records,
        async put(...args) {
          if (--left === 0) await users.remove(id);
          return records.put(...args);
        },
        async get(...args) {
          if (--left === 0) await users.remove(id);
          return records.get(...(args as [string, string])) as never;
        },
      } as Records);
      const user = await late.federate(INES);
      const removed = left <= 0;
      if (removed && user.id !== id) expect(await users.find(id)).toBeUndefined();
      // The sign-in had ended before the removal; then nothing of the user is left.
      if (removed && user.id === id) expect(await users.list({ limit: 10 })).toEqual([]);
    }
  });
});

describe("a local user", () => {
  test("has a name of its own, freed when the user is removed", async () => {
    let now = 1_000_000;
    const { users } = people(memoryStore(() => now).records, () => now);
    const olive = await users.create(LOCAL);
    await expect(users.create({ ...LOCAL, name: "OLIVE" })).rejects.toMatchObject({ code: "invalid_request" });
    await users.remove(olive.id);
    now += 10;
    expect((await users.create(LOCAL)).id).not.toBe(olive.id);
  });

  test("that was removed takes sessions, consents and links along, and can do nothing more", async () => {
    const { records, users } = people();
    const olive = await users.create(LOCAL);
    const link = await users.newInvitation(olive.id);
    await records.put("oauth:browser-session", "x", {}, { index: { user: olive.id } });
    await users.remove(olive.id);
    await users.remove(olive.id);
    expect(await records.get("oauth:browser-session", "x")).toBeUndefined();
    expect(await users.invited(link)).toBeUndefined();
    expect(await users.acceptInvitation(link, PASSWORD)).toBeUndefined();
    expect(await users.signIn("olive", PASSWORD, "s")).toMatchObject({ ok: false });
    await users.setDisabled(olive.id, false);
    expect(await users.find(olive.id)).toBeUndefined();
    expect(await users.none()).toBe(true);
  });

  test("made without a password signs in after accepting the invitation, which works once", async () => {
    const { users } = people();
    const made = await users.create({ ...LOCAL, password: undefined });
    expect(await users.signIn("olive", "", "s")).toMatchObject({ ok: false, reason: "wrong-credentials" });
    const link = await users.newInvitation(made.id);
    expect((await users.invited(link))?.id).toBe(made.id);
    const accepted = await Promise.all(Array.from({ length: 5 }, () => users.acceptInvitation(link, PASSWORD)));
    expect(accepted.filter((user): user is User => user !== undefined)).toHaveLength(1);
    expect(await users.signIn("olive", PASSWORD, "s")).toMatchObject({ ok: true });
  });

  test("is invited by the last link only, for a day, and not while disabled", async () => {
    let now = 1_000_000;
    const { users } = people(memoryStore(() => now).records, () => now);
    const { id } = await users.create(LOCAL);
    const first = await users.newInvitation(id);
    const second = await users.newInvitation(id);
    expect(await users.invited(first)).toBeUndefined();
    await users.setDisabled(id, true);
    expect(await users.invited(second)).toBeUndefined();
    await users.setDisabled(id, false);
    expect(await users.invited(second)).toBeDefined();
    now += 24 * 3_600_000 + 1;
    expect(await users.invited(second)).toBeUndefined();
  });

  test("gets groups and a password from the operator", async () => {
    const { users } = people();
    const { id } = await users.create(LOCAL);
    await users.setGroups(id, ["support"]);
    await users.setPassword(id, "another four calm words");
    expect((await users.find(id))?.groups).toEqual(["support"]);
    expect(await users.signIn("olive", PASSWORD, "s")).toMatchObject({ ok: false });
    expect(await users.signIn("olive", "another four calm words", "s")).toMatchObject({ ok: true });
  });

  test("whose making failed half-way does not lose the name for ever", async () => {
    for (let failing = 1; failing <= 3; failing++) {
      let now = 1_000_000;
      const { records, users } = people(memoryStore(() => now).records, () => now);
      let left = failing;
      const broken = usersIn(
        {
          ...records,
          put: async (...args) => {
            if (--left === 0) throw new Error("the store is gone");
            return records.put(...args);
          },
        },
        () => now,
      );
      await expect(broken.create(LOCAL)).rejects.toThrow("the store is gone");
      now += 61_000;
      await users.create(LOCAL);
      expect(await users.signIn("olive", PASSWORD, "s")).toMatchObject({ ok: true });
    }
  });
});

test("users are listed in the order they came, page by page, without those removed", async () => {
  const { users } = people();
  const made: string[] = [];
  for (let i = 0; i < 5; i++) made.push((await users.federate({ ...INES, subject: `s-${i}` })).id);
  await users.remove(made[1] ?? "");
  const [first, second] = await users.list({ limit: 2 });
  expect([first?.id, second?.id]).toEqual([made[0], made[2]]);
  const rest = await users.list({ limit: 10, after: second?.id ?? "" });
  expect(rest.map(({ id }) => id)).toEqual([made[3], made[4]]);
  expect(await users.none()).toBe(false);
});

describe.each(everyStore)("two replicas on $name", ({ openTwo }) => {
  test("make one user of twenty first sign-ins at once, and of twenty invitations accepted at once one counts", async () => {
    await using stores = await openTwo();
    const [one, two] = stores.map(({ records }) => usersIn(records)) as [Users, Users];
    const twenty = Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? one : two));
    const made = await Promise.all(twenty.map((users, i) => users.federate({ ...INES, name: `Ines ${i}` })));
    expect(new Set(made.map(({ id }) => id)).size).toBe(1);
    expect(await two.list({ limit: 100 })).toHaveLength(1);

    const names = await Promise.allSettled(twenty.map((users) => users.create({ ...LOCAL, password: undefined })));
    const [olive, ...others] = names.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
    expect(others).toEqual([]);
    const link = await one.newInvitation(olive?.id ?? "");
    const accepted = await Promise.all(twenty.map((users) => users.acceptInvitation(link, PASSWORD)));
    expect(accepted.filter((user) => user !== undefined)).toHaveLength(1);

    await two.remove(olive?.id ?? "");
    expect(await one.lookUp("olive")).toBeUndefined();
    expect((await one.list({ limit: 100 })).map(({ id }) => id)).toEqual([made[0]?.id]);
  });
});

describe("guessing passwords", () => {
  test("from one IPv6 network is slowed down as from one address, whatever its last 64 bits", async () => {
    const clock = () => 1_700_000_000_000;
    const { users } = people(memoryStore(clock).records, clock);
    const results = [];
    for (let at = 0; at < 40; at++)
      results.push(await users.signIn(`name${at}`, "", `2001:db8:1:2::${(at + 1).toString(16)}`));
    expect(results.filter((one) => !one.ok && one.reason === "throttled")).toHaveLength(10);
  });

  test("by a source that has to wait takes no tries of the name away from its owner", async () => {
    const clock = () => 1_700_000_000_000;
    const { users } = people(memoryStore(clock).records, clock);
    await users.create(LOCAL);
    for (let at = 0; at < 30; at++) await users.signIn(`name${at}`, "", "192.0.2.1");
    for (let at = 0; at < 10; at++)
      expect(await users.signIn("olive", "", "192.0.2.1")).toMatchObject({ reason: "throttled" });
    expect(await users.signIn("olive", PASSWORD, "192.0.2.2")).toMatchObject({ ok: true });
  });
});
