/** What docs/approvals.md shows is what happens at the order desk. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import { run } from "../cli/terminal.ts";
import { type HeldDesk, heldDesk, type Json, numberIn, rawCall, textOf } from "../e2e/held-desk.ts";
import { root } from "../house/sources.ts";
import { deskFolder } from "./desk.ts";

const page = readFileSync(join(root, "docs/approvals.md"), "utf8");
const shown = (kind: string) =>
  [...page.matchAll(new RegExp(`\`\`\`${kind}\\n([\\s\\S]*?)\`\`\``, "g"))].map(([, text = ""]) => text);
const [form, refusal] = shown("text");
const [decided, why] = shown("console");

let here: HeldDesk;
let sam: string;
beforeAll(async () => {
  const { tools } = parse(readFileSync(join(deskFolder, "drawbridge.yaml"), "utf8")) as Json;
  const orders = { command: [process.execPath, join(deskFolder, "server.ts")], processes: { min: 1, max: 1 } };
  const settings = { tools, ...(parse(shown("yaml")[0] ?? "") as Json) };
  here = await heldDesk({
    settings: {
      ...settings,
      servers: { orders },
      roles: { owner: { may: ["*"] }, ...(settings as { roles?: Json }).roles },
    },
  });
  writeFileSync(join(here.folder, "drawbridge.yaml"), JSON.stringify({ ...settings, servers: { orders } }));
  sam = await here.token("sam");
}, 60_000);
afterAll(() => here?.[Symbol.asyncDispose]());

/** What is another each time, as the page has it. */
const steady = (text: string, number: string) =>
  text
    .replaceAll(number, "KTQM-BXVD")
    .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d/g, "2026-11-21 10:30")
    .replaceAll(/registered-[0-9a-f-]{36}/g, "registered-7f3a")
    .replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, "01a1fe6f");

test("the form, as a client shows it", async () => {
  const params = {
    name: "request_refund",
    arguments: { order_id: "ORD-100007", amount_pence: 2500, reason: "Arrived late" },
  };
  const { result } = await rawCall(here.url, sam, params);
  const { message } = (result as { inputRequests: { user_approve: { params: { message: string } } } }).inputRequests
    .user_approve.params;
  // A user's id may look like a number, too.
  const [, number = ""] = /^Number: ([0-9A-Z]{4}-[0-9A-Z]{4}),/m.exec(message) ?? [];
  expect(`${steady(message, number)}\n`).toBe(form);
});

test("the refusal, and what the operator does about it", async () => {
  const params = { name: "cancel_order", arguments: { order_id: "ORD-100419", reason: "Ordered twice" } };
  const text = textOf((await rawCall(here.url, sam, params)).result);
  const number = numberIn(text);
  let log = "";
  for (const argv of [[], ["show", number], ["approve", number, "--yes"]]) {
    const { stdout, stderr } = await run(["approvals", ...argv, "--socket", join(here.folder, "control.sock")], {
      cwd: here.folder,
    });
    expect(stderr).toBe("");
    log += `$ ${["drawbridge approvals", ...argv].join(" ").replace(" --yes", "")}\n${stdout}`;
  }
  const { result } = await rawCall(here.url, sam, params);
  expect(result).toMatchObject({ structuredContent: { id: "ORD-100419", status: "cancelled" } });
  expect(steady(text, number)).toBe(refusal?.replaceAll(/\s+/g, " ").trim());
  expect(steady(log, number)).toBe(decided);
});

test("why a call would need one", async () => {
  const command = /^\$ drawbridge (.*)\n/.exec(why ?? "")?.[1] ?? "";
  const argv = [...command.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? "");
  const { stdout } = await run(argv, { cwd: here.folder });
  expect(`$ drawbridge ${command}\n${stdout}`).toBe(why);
});
