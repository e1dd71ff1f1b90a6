/** The lockfile as text: what it keeps, what it refuses, and that only its content counts. */
import { generateKeyPairSync } from "node:crypto";
import { describe, expect, test } from "vitest";
import {
  type Lock,
  lockDrift,
  lockedFrom,
  lockKey,
  lockOf,
  lockSigner,
  newLockKey,
  readLock,
  writeLock,
} from "../../src/contract/lockfile.ts";
import type { JsonObject, JsonValue } from "../../src/core/call.ts";
import { fc, runs } from "../properties.ts";

const tool = (name: string, more: JsonObject = {}) =>
  lockedFrom("tool", name, { name, description: `Does ${name}.\nWell.`, inputSchema: { type: "object" }, ...more });
const definitions = [
  lockedFrom("server", "", { instructions: "Read me.", serverInfo: { name: "shop" }, capabilities: {} }),
  tool("get", { _meta: { b: 1, a: [1, { z: 0, y: 1 }] } }),
  tool("__proto__"),
  lockedFrom("prompt", "get", { name: "get" }),
  lockedFrom("resourceTemplate", "shop://{id}", { uriTemplate: "shop://{id}", name: "item" }),
];
const lock = lockOf([
  { server: "shop", definitions },
  { server: "bank", definitions: [tool("pay")] },
]);
const signer = lockSigner(newLockKey());
const stranger = lockSigner(newLockKey());
const trust = { keys: [signer.key] };
const text = writeLock(lock, [signer]);
const plain = (one: Lock) =>
  [...one].map(([server, those]) => [server, [...those.values()].map(({ pin }) => pin).toSorted()] as const).sort();

test("what was written is what is read", () => {
  expect(plain(readLock(text, trust, "l"))).toEqual(plain(lock));
  const read = readLock(text, trust, "l").get("shop");
  expect(read?.get(lockKey("tool", "__proto__"))?.value["description"]).toBe("Does __proto__.\nWell.");
});

test("the same definitions make the same text, in whatever order they and their keys come", () => {
  const turned = (value: JsonValue): JsonValue =>
    typeof value !== "object" || value === null || Array.isArray(value)
      ? value
      : (Object.fromEntries(
          Object.entries(value)
            .reverse()
            .map(([key, one]) => [key, turned(one)]),
        ) as JsonObject);
  const other = lockOf([
    { server: "bank", definitions: [tool("pay")] },
    {
      server: "shop",
      definitions: definitions
        .toReversed()
        .map((one) => lockedFrom(one.kind, one.name, turned(one.value) as JsonObject)),
    },
  ]);
  expect(writeLock(other, [signer])).toBe(text);
});

test("a text of several lines has a line for each, each part its hash, and each definition is one block", () => {
  const lines = text.split("\n").map((line) => line.trim());
  expect(lines).toContain('"Does get.",');
  expect(lines).toContain('"Well."');
  expect(lines.filter((line) => /^"pin": "sha256:[0-9a-f]{64}",$/.test(line))).toHaveLength(6);
  const one = text.slice(text.indexOf('"get": {'), text.indexOf('"prompts"'));
  for (const part of ["_meta", "description", "inputSchema", "name"])
    expect(one).toMatch(new RegExp(`"${part}": \\{\\s+"hash": "sha256:`));
});

test("nothing in it is invisible", () => {
  const hidden = "a\u200Bb\u202Ec\u{E0041}d\u00A0e\uFE0Ff\u001Bg";
  const written = writeLock(lockOf([{ server: "shop", definitions: [tool(hidden, { title: hidden })] }]), [signer]);
  expect(written).not.toMatch(/[\p{Cf}\p{Co}\p{Zl}\p{Zp}\u00A0\u001B]|\uFE0F/u);
  expect(written).toContain("a\\u200bb\\u202ec\\udb40\\udc41d\\u00a0e\\ufe0ff\\u001bg");
  expect(readLock(written, trust, "l").get("shop")?.has(lockKey("tool", hidden))).toBe(true);
});

test("white space and the order of keys break no signature", () => {
  const { signatures, servers, drawbridgeLock } = JSON.parse(text) as Record<string, JsonValue>;
  expect(plain(readLock(JSON.stringify({ signatures, servers, drawbridgeLock }), trust, "l"))).toEqual(plain(lock));
});

describe("is refused, with what to do,", () => {
  const edited = (change: (content: Record<string, unknown>) => void) => {
    const content = JSON.parse(text) as Record<string, unknown>;
    change(content);
    return JSON.stringify(content);
  };
  test.each([
    [
      "when it is cut off",
      text.slice(0, -200),
      trust,
      /is damaged: it is no JSON object, or not all of it\. Take the last good/,
    ],
    ["when it is empty", "", trust, /is damaged/],
    ["when it is a list", "[]", trust, /is damaged/],
    [
      "when it is of a later format",
      edited((one) => (one["drawbridgeLock"] = 2)),
      trust,
      /is of format 2, and this program reads 1/,
    ],
    ["when it is not signed", writeLock(lock, []), trust, /is not signed by any key of lock\.keys/],
    ["when its signatures are gone", edited((one) => delete one["signatures"]), trust, /is not signed/],
    ["when a stranger has signed it", writeLock(lock, [stranger]), trust, /is not signed by any key of lock\.keys/],
    ["when no key is named", text, { keys: [] }, /no key is named/],
    [
      "when a server was taken out",
      edited((one) => delete (one["servers"] as Record<string, unknown>)["bank"]),
      trust,
      /was changed after it was signed/,
    ],
    [
      "when a signature was taken from elsewhere",
      edited(
        (one) =>
          (one["signatures"] = [{ key: signer.key, signature: signer.sign(Buffer.from("x")).toString("base64url") }]),
      ),
      trust,
      /was changed after it was signed/,
    ],
    [
      "when a trusted signature does not fit, although unsigned ones are taken",
      edited((one) => delete (one["servers"] as Record<string, unknown>)["bank"]),
      { ...trust, unsigned: "accept" as const },
      /was changed after it was signed/,
    ],
  ])("%s", (_, bad, trusted, message) => {
    expect(() => readLock(bad, trusted, "drawbridge.lock")).toThrow(message);
    expect(() => readLock(bad, trusted, "drawbridge.lock")).toThrow(/^The lockfile drawbridge\.lock /);
  });

  test("whichever character of it was changed", () => {
    const end = text.indexOf('"signatures"');
    fc.assert(
      fc.property(fc.integer({ min: 0, max: end - 1 }), fc.constantFrom("0", "a", "Z", "9", " x"), (at, put) => {
        const changed = text.slice(0, at) + put + text.slice(at + 1);
        let content: string | undefined;
        try {
          const { signatures: _, ...rest } = JSON.parse(changed) as Record<string, unknown>;
          content = JSON.stringify(rest);
        } catch {
          // Refused as damaged.
        }
        const { signatures: _, ...before } = JSON.parse(text) as Record<string, unknown>;
        if (content === JSON.stringify(before)) return;
        expect(() => readLock(changed, trust, "l")).toThrow();
      }),
      { numRuns: runs(300) },
    );
  });

  test("when its hashes do not fit, even where nobody has to sign it", () => {
    const changed = writeLock(lock, []).replace("Does pay.", "Does pay all.");
    expect(() => readLock(changed, { keys: [], unsigned: "accept" }, "l")).toThrow(
      /the hash of description of bank tool "pay" does not fit its content/,
    );
  });
});

test("an unsigned one is taken only where the settings say so", () => {
  const unsigned = writeLock(lock, []);
  expect(plain(readLock(unsigned, { keys: [], unsigned: "accept" }, "l"))).toEqual(plain(lock));
  expect(() => readLock(unsigned, { keys: [] }, "l")).toThrow(/no key is named/);
});

test("keys are changed by trusting both for a while", () => {
  const [old, fresh] = [signer, stranger];
  const both = { keys: [old.key, fresh.key] };
  for (const signers of [[old], [fresh], [old, fresh]])
    expect(plain(readLock(writeLock(lock, signers), both, "l"))).toEqual(plain(lock));
  expect(plain(readLock(writeLock(lock, [old, fresh]), { keys: [fresh.key] }, "l"))).toEqual(plain(lock));
  expect(() => readLock(writeLock(lock, [old]), { keys: [fresh.key] }, "l")).toThrow(/is not signed/);
});

test("only an Ed25519 private key signs, and no message has it in it", () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "pem", type: "pkcs8" });
  for (const wrong of [rsa.toString(), "nothing", signer.key]) {
    expect(() => lockSigner(wrong)).toThrow("The key is no Ed25519 private key in PEM form.");
  }
  expect(lockSigner(newLockKey()).key).toMatch(/^ed25519:[A-Za-z0-9_-]{43}$/);
});

test("differences are found by server, kind and name; a server that only one side has is none", () => {
  const now = lockOf([
    { server: "shop", definitions: [...definitions.slice(0, 1), tool("get"), tool("put"), ...definitions.slice(3)] },
    { server: "other", definitions: [tool("x")] },
  ]);
  expect(lockDrift(lock, now).map(({ server, kind, name, drift }) => [server, kind, name, drift.classes])).toEqual([
    ["shop", "tool", "__proto__", ["gone"]],
    ["shop", "tool", "get", ["metadata"]],
    ["shop", "tool", "put", ["new"]],
  ]);
});
