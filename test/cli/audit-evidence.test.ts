/** Records of what a command does: they are on disk before the deed, whatever the gateway's settings say of its calls. */
import { expect, test } from "vitest";
import { logRecord } from "../../src/audit/record.ts";
import { recorderOf } from "../../src/cli/evidence.ts";
import { type Settings, settingsSchema } from "../../src/config/schema.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { AuditLog } from "../../src/store/ports.ts";

test("a command goes on when its record is on disk, also where calls do not wait for theirs", async () => {
  const settings: Settings = settingsSchema.parse({
    servers: { echo: { command: ["echo"] } },
    audit: { commit: "async" },
  });
  expect(settings.audit.commit).toBe("async");
  const { audit, records } = memoryStore();
  const writing = Promise.withResolvers<void>();
  const disk = Promise.withResolvers<void>();
  const append: AuditLog["append"] = async (rows, head) => {
    writing.resolve();
    await disk.promise;
    await audit.append(rows, head);
  };
  await using recorder = recorderOf({ audit: { ...audit, append }, records }, settings, undefined);
  let done = false;
  const recorded = recorder.append(logRecord("audit.hold-placed", { hold: "case-7" }, "command line", 1)).then(() => {
    done = true;
  });
  await writing.promise;
  expect(done).toBe(false);
  disk.resolve();
  await recorded;
  const written = (await audit.read({ limit: 10 })).map(({ json }) => json).join("\n");
  expect(written).toContain("audit.hold-placed");
});
