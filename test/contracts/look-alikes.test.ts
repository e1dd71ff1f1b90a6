/** Names that could be taken for another's. */
import { describe, expect, test } from "vitest";
import { lookAlikes, type Named, resemblance } from "../../src/contract/look-alikes.ts";

const on = (server: string, ...names: string[]): Named[] =>
  names.map((name) => ({ server, name, served: `${server}_${name}` }));
const held = (names: readonly Named[]) => [...lookAlikes(names)].map(([at]) => names[at]?.served).toSorted();

describe("within one server the second of two is held that differ only in", () => {
  test.each([
    ["case", "get_order", "Get_Order"],
    ["_, - and .", "get_order", "get-order"],
    ["dots", "get_order", "get.order"],
    ["camel case", "get_order", "getOrder"],
    ["a Cyrillic letter", "get_order", "get_оrder"],
    ["a Greek letter", "get_order", "get_οrder"],
    ["full-width letters (NFKC)", "get_order", "ｇet_order"],
    ["a digit that looks like a letter", "get_order", "get_0rder"],
    ["1, l and I", "list_bills", "1ist_biIIs"],
    ["rn and m", "form", "forrn"],
    ["an accent", "resume", "résumé"],
    ["characters that nobody sees", "get_order", "get_\u200Border"],
  ])("%s", (_, first, second) => {
    expect(held(on("shop", first, second))).toEqual([`shop_${second}`]);
    expect(held(on("shop", second, first))).toEqual([`shop_${first}`]);
  });
});

test("the reason names the one that was there first, and only the later ones are held", () => {
  const names = on("shop", "get_order", "getOrder", "get-order", "list_orders");
  expect([...lookAlikes(names)]).toEqual([
    [1, 'its name looks like "shop_get_order", which was there first'],
    [2, 'its name looks like "shop_get_order", which was there first'],
  ]);
});

test("between servers letters that only look alike are held, and long names one letter apart", () => {
  const first = on("bank", "get_balance", "create_invoice");
  expect(held([...first, ...on("shop", "get_baIance", "create_invoise")])).toEqual([
    "shop_create_invoise",
    "shop_get_baIance",
  ]);
});

test("between servers equal names, other case, plurals, numbers and short names are nobody's trick", () => {
  const first = on("bank", "get_order", "create_invoice", "delete_note", "search_archive_v1");
  const second = on("shop", "get_order", "getOrders", "create_invoices", "delete_node", "search_archive_v2");
  expect(held([...first, ...second])).toEqual([]);
  expect(held([...on("bank", "get_order"), ...on("shop", "getOrder")])).toEqual([]);
});

test("a server's name and a tool's do not add up to another's", () => {
  expect(held([...on("my", "shop_refund"), ...on("my-shop", "refund")])).toEqual(["my-shop_refund"]);
});

test("what a person has seen beside the others is never held, and is first", () => {
  const [first, second] = on("shop", "get_order", "getOrder") as [Named, Named];
  expect(held([first, { ...second, reviewed: true }])).toEqual(["shop_get_order"]);
  expect(
    held([
      { ...first, reviewed: true },
      { ...second, reviewed: true },
    ]),
  ).toEqual([]);
});

test.each([
  "send_emails",
  "send_email_v2",
  "send_email2",
  "safe_send_email",
  "sendEmailOfficial",
  "send_emial",
  "send_emall",
  "SEND_EMAIL",
  "send_mail_new",
  "new-send-email",
])("a tool %s that comes later resembles one that was there", (name) => {
  expect(resemblance(["list_folders", "send_email", "send_mail"])(name)).toMatch(/^send_e?mail$/);
});

test.each([
  ["search_code", "search"],
  ["list_issues", "list_users"],
  ["get_node", "get_note"],
  ["read_text_file", "read_file"],
  ["step_2", "run_2"],
  ["v2", "v1"],
])("%s does not resemble %s", (name, other) => {
  expect(resemblance([other])(name)).toBeUndefined();
});

test("ten thousand names are compared in seconds", () => {
  const names = Array.from({ length: 10_000 }, (_, at) => `tool_for_things_number_${at.toString(26)}_x`);
  const began = performance.now();
  lookAlikes(on("shop", ...names));
  const alike = resemblance(names);
  for (const name of names) alike(name);
  expect(performance.now() - began).toBeLessThan(10_000);
});
