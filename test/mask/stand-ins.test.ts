/** Stand-ins: the agent acts on values it never sees, and nobody else can turn them back. */
import { describe, expect, test } from "vitest";
import { memoryStore } from "../../src/store/memory/memory.ts";
import { faulty } from "../contract/faulty.ts";
import { amy, bob, masking } from "./masking.ts";

const TOKENS = { people: "token", secrets: "token" };
const HOUR = 3_600_000;

async function shown(masker: ReturnType<typeof masking>["masker"], value: unknown, viewer = amy): Promise<string> {
  const { text, kept } = masker.json(JSON.stringify(value), viewer);
  await kept;
  return text;
}

describe("a stand-in", () => {
  const customer = {
    email: "anna@example.org",
    phone: "+44 7700 900264",
    card: "5239 7914 0917 6951",
    iban: "GB93LIXY94004679928022",
    ip: "10.5.222.72",
    ssn: "463-30-7630",
    key: "ghp_k5xd0Yfk1YF6wYOcvvXRaABIx7NFQpa70Sac",
    pan: 5239791409176951,
  };

  test("looks like its type, belongs to nobody, and is put back as it was, byte for byte", async () => {
    const { masker } = masking(TOKENS);
    const text = await shown(masker, customer);
    const seen = JSON.parse(text) as Record<string, unknown>;
    expect(seen).toMatchObject({
      email: expect.stringMatching(/^p-[a-z0-9]{16}@masked\.example$/),
      phone: expect.stringMatching(/^\+999\d{12}$/),
      card: expect.stringMatching(/^9999\d{12}$/),
      iban: expect.stringMatching(/^XX\d{22}$/),
      ip: expect.stringMatching(/^2[45]\d\.\d+\.\d+\.\d+$/),
      ssn: expect.stringMatching(/^\[us_ssn@\w{16}\]$/),
      key: expect.stringMatching(/^\[api_key@\w{16}\]$/),
      pan: expect.any(Number),
    });
    for (const value of Object.values(customer)) expect(text).not.toContain(String(value));
    expect(JSON.parse(await masker.restore(text, amy, "mail", ["mail"]))).toEqual(customer);
  });

  test("is the same for one user in every answer and on every replica, and another for anyone else", async () => {
    const one = masking(TOKENS);
    const other = masking(TOKENS, one.store);
    const text = await shown(one.masker, customer);
    expect(await shown(other.masker, customer)).toBe(text);
    expect(await shown(one.masker, customer, bob)).not.toBe(text);
    expect(JSON.parse(await other.masker.restore(text, amy, "mail", ["*"]))).toEqual(customer);
  });

  test("of another user is worthless: the call is refused, and the value appears nowhere", async () => {
    const { masker } = masking(TOKENS);
    const text = await shown(masker, { email: customer.email });
    await expect(masker.restore(text, bob, "mail", ["mail"])).rejects.toThrow(/was not given to you/);
  });

  test("is put back only for tools that are named", async () => {
    const { masker } = masking(TOKENS);
    const text = await shown(masker, customer);
    expect(await masker.restore(text, amy, "post_publicly", ["mail", "orders_*"])).toBe(text);
    expect(await masker.restore(text, amy, "orders_refund", ["mail", "orders_*"])).not.toBe(text);
  });

  test("expires after it was last shown", async () => {
    const { masker, time } = masking({ ...TOKENS, standInHours: 2 });
    const text = await shown(masker, { email: customer.email });
    time.now += 1.5 * HOUR;
    expect(await shown(masker, { email: customer.email })).toBe(text);
    time.now += 1.5 * HOUR;
    expect(await masker.restore(text, amy, "mail", ["mail"])).toContain(customer.email);
    time.now += HOUR;
    await expect(masker.restore(text, amy, "mail", ["mail"])).rejects.toThrow(/has expired/);
  });

  test("may stand within a sentence, be written in groups, and be there many times", async () => {
    const { masker } = masking(TOKENS);
    const seen = JSON.parse(await shown(masker, { email: customer.email, phone: customer.phone })) as Record<
      string,
      string
    >;
    const grouped = seen["phone"]?.replace(/(\d{4})/g, "$1 ").trim();
    const args = JSON.stringify({ body: `Write to ${seen["email"]} or ${seen["email"]}, call ${grouped}`, n: 1.5 });
    expect(await masker.restore(args, amy, "mail", ["mail"])).toBe(
      JSON.stringify({ body: `Write to ${customer.email} or ${customer.email}, call ${customer.phone}`, n: 1.5 }),
    );
  });

  test("values that only look like one are left alone", async () => {
    const { masker } = masking(TOKENS);
    const args =
      '{"ip":"240.1.2.3","card":"9999 1234 5678 9012","v6":"2001:db8:0001:0002:0003:0004:0005:0006","n":8123456789012345}';
    expect(await masker.restore(args, amy, "t", ["*"])).toBe(args);
  });

  test("is forgotten with its user", async () => {
    const { masker } = masking(TOKENS);
    const text = await shown(masker, { email: customer.email });
    await masker.forget("amy");
    await expect(masker.restore(text, amy, "mail", ["mail"])).rejects.toThrow(/has expired/);
    expect(await masker.restore(await shown(masker, { email: customer.email }), amy, "mail", ["mail"])).toContain(
      "anna@",
    );
  });

  test("that another process has forgotten is stored anew when it is shown after it was given back in vain", async () => {
    const { masker, store } = masking(TOKENS);
    const text = await shown(masker, { email: customer.email });
    await masking(TOKENS, store).masker.forget("amy");
    await expect(masker.restore(text, amy, "mail", ["mail"])).rejects.toThrow(/has expired/);
    expect(await shown(masker, { email: customer.email })).toBe(text);
    expect(await masker.restore(text, amy, "mail", ["mail"])).toContain("anna@");
  });

  test("is stored so that the store shows neither the value nor the user nor the stand-in", async () => {
    const { masker, store } = masking(TOKENS);
    const text = await shown(masker, { email: customer.email });
    const rows = JSON.stringify(await store.records.list("mask_stand_in", { limit: 100 }));
    for (const secret of ["anna", "amy", JSON.parse(text).email]) expect(rows).not.toContain(secret);
    expect(rows.length).toBeGreaterThan(50);
  });

  test("that could not be stored stops the answer, whichever operation fails", async () => {
    for (let nth = 1; nth <= 2; nth++) {
      const { masker } = masking(TOKENS, faulty(memoryStore(), nth));
      await expect(masker.json('{"email":"anna@example.org"}', amy).kept).rejects.toThrow();
      await expect(shown(masker, { email: "anna@example.org" })).resolves.toContain("masked.example");
    }
  });

  test("that many answers show for the first time at once is stored, and none of them is stopped", async () => {
    const one = masking(TOKENS);
    const maskers = [one.masker, masking(TOKENS, one.store).masker];
    const texts = await Promise.all(
      Array.from({ length: 40 }, (_, turn) => shown(maskers[turn % 2] ?? one.masker, customer)),
    );
    expect(new Set(texts).size).toBe(1);
    expect(JSON.parse(await one.masker.restore(texts[0] ?? "", amy, "mail", ["mail"]))).toEqual(customer);
  });

  test("is written once while it is fresh", async () => {
    const store = faulty(memoryStore(), 0);
    const { masker } = masking(TOKENS, store);
    await shown(masker, { a: "anna@example.org", b: "anna@example.org" });
    const after = store.operations;
    expect(masker.json('{"a":"anna@example.org"}', amy).kept).toBeUndefined();
    expect(store.operations).toBe(after);
  });
});
