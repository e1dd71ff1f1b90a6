import { expect, test } from "vitest";
import { memoryStore } from "../../src/store/memory/memory.ts";
import { storeContract } from "../contract/store.ts";
import { everyStore } from "./backends.ts";

for (const { name, open, openTwo } of everyStore) if (name === "memory") storeContract(name, open, openTwo);

test("a memory log keeps only its newest records, with their sequence numbers", async () => {
  const store = memoryStore(() => 0, { maxAuditRecords: 10 });
  const bare = {
    at: 0,
    subject: undefined,
    client: undefined,
    method: undefined,
    target: undefined,
    traceId: undefined,
  };
  for (let n = 1; n <= 100; n++) await store.audit.append([{ ...bare, id: `r${n}`, outcome: "permitted", json: "{}" }]);
  const kept = await store.audit.read({ limit: 1000 });
  expect(kept.length).toBeLessThanOrEqual(11);
  expect(kept.at(-1)?.sequence).toBe(100);
});
