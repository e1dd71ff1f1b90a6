/** Writes records for `spill.test.ts` until it is killed, into a store that can often not be written. Prints what it has answered for. */
import { writeSync } from "node:fs";
import { openEvidence } from "../../src/audit/evidence.ts";
import { auditSettings } from "../../src/audit/settings.ts";
import { newId } from "../../src/core/ids.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { callRecord } from "./sink-log.ts";

const [folder = ""] = process.argv.slice(2);
const store = sqliteStore(`${folder}/log.db`);
let asked = 0;
const log: typeof store.audit = {
  ...store.audit,
  async append(rows, head) {
    // Away, back, and sometimes away after it was done.
    if (Date.now() % 600 < 200) throw new Error("the store is away");
    await store.audit.append(rows, head);
    if (++asked % 29 === 0) throw new Error("nobody knows whether that was done");
  },
};
const { journal } = openEvidence({
  store: { audit: log, records: store.records },
  settings: auditSettings.parse({ whenUnavailable: "spill", checkpoint: { records: 50 } }),
  encryption: undefined,
  folder,
  spillFolder: folder,
  replica: newId(),
  logger: silentLogger,
});
const worker = async () => {
  for (;;) {
    const record = callRecord({ id: newId() });
    // Refused is refused; what is counted is what was answered.
    await journal.append(record).then(
      () => writeSync(1, `${record.id}\n`),
      () => new Promise((resolve) => setTimeout(resolve, 5)),
    );
  }
};
await Promise.all([worker(), worker(), worker()]);
