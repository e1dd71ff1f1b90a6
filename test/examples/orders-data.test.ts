import { hash } from "node:crypto";
import { expect, test } from "vitest";
import { generateDesk } from "../../examples/orders/data.ts";

const desk = generateDesk();

test("the desk's data is the same in each generation", () => {
  expect(generateDesk()).toEqual(desk);
  expect(generateDesk(1).customers).not.toEqual(desk.customers);
  // A change of this hash changes what every reader of the documents sees: make it on purpose.
  expect(hash("sha256", JSON.stringify(desk)).slice(0, 16)).toBe("961d0256857dbecd");
});

test("the desk has a few hundred rows that fit together", () => {
  const customers = new Set(desk.customers.map((customer) => customer.id));
  const orders = new Map(desk.orders.map((order) => [order.id, order]));
  expect(customers.size).toBe(160);
  expect(orders.size).toBe(420);
  expect(desk.shipments.length).toBeGreaterThan(300);
  expect(desk.refunds.length).toBeGreaterThan(30);
  for (const order of desk.orders) expect(customers).toContain(order.customer_id);
  for (const { order_id } of [...desk.order_items, ...desk.shipments, ...desk.refunds])
    expect(orders.has(order_id)).toBe(true);
  const sums = new Map<string, number>();
  for (const { order_id, quantity, unit_pence } of desk.order_items)
    sums.set(order_id, (sums.get(order_id) ?? 0) + quantity * unit_pence);
  for (const order of desk.orders) expect(sums.get(order.id)).toBe(order.total_pence);
  expect(new Set(desk.orders.map((order) => order.status)).size).toBe(6);
});

test("nobody can be reached by the desk's data: reserved domains, drama numbers, postcodes that cannot be", () => {
  for (const customer of desk.customers) {
    expect(customer.email).toMatch(/^[a-z0-9.]+@example\.(com|org|net)$/);
    expect(customer.phone).toMatch(
      /^(07700 900|020 7946 0|011[34567] 496 0|0121 496 0|0131 496 0|0141 496 0|0151 496 0|0161 496 0)\d{3}$/,
    );
    expect(customer.national_insurance_number).toMatch(
      /^(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]( \d\d){3} [A-D]$/,
    );
    expect(customer.postcode).toMatch(/^[A-Z]{1,2}\d{1,2} \d[CIKMOV]{2}$/);
  }
  expect(new Set(desk.customers.map((customer) => customer.email)).size).toBe(desk.customers.length);
});
