/** Stand-ins of a user who is disabled or removed by the command line, whether or not a gateway runs. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { maskKey, secretOf } from "../../src/gateway/masking/key.ts";
import { compileMasker, type Viewer } from "../../src/mask/masker.ts";
import { maskSettings } from "../../src/mask/settings.ts";
import { usersIn } from "../../src/oauth/people/users.ts";
import { openStore } from "../../src/store/open.ts";
import { run } from "./terminal.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "drawbridge-stand-ins-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test.for(["disable", "remove"])("end with `users %s`, and nobody else's do", async (command) => {
  const place = `sqlite:${join(folder, "store.db")}`;
  const store = await openStore(place);
  try {
    const users = usersIn(store.records);
    const [jane, kim] = await Promise.all(
      ["jane", "kim"].map((name) => users.create({ name, email: undefined, groups: [], password: undefined })),
    );
    const viewer = (subject = ""): Viewer => ({ subject, roles: [] });
    const masker = async () =>
      compileMasker(maskSettings.parse({ people: "token" }), {
        key: secretOf(await maskKey(store.records, undefined)),
        records: store.records,
      });
    const shown = async (subject: string | undefined) => {
      const { text, kept } = (await masker()).text("write to anna@example.org", viewer(subject));
      await kept;
      return JSON.stringify(text);
    };
    const back = async (text: string, subject: string | undefined) =>
      (await masker()).restore(text, viewer(subject), "mail", ["mail"]);
    const [hers, his] = [await shown(jane?.id), await shown(kim?.id)];
    expect(await back(hers, jane?.id)).toContain("anna@example.org");
    const { code, stderr } = await run(["users", command, "jane", "--store", place, "--yes"], { cwd: folder });
    expect(code, stderr).toBe(0);
    await expect(back(hers, jane?.id)).rejects.toThrow(/has expired/);
    expect(await back(his, kim?.id)).toContain("anna@example.org");
  } finally {
    await store.close();
  }
});
