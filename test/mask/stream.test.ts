/** A text in pieces: however it is cut, what comes out is what the whole text gives. */
import { expect, test } from "vitest";
import { fc, runs } from "../properties.ts";
import { harmlessText, privateText, random } from "./generate.ts";
import { amy, masking } from "./masking.ts";

const { masker } = masking();

function streamed(pieces: readonly string[]): string {
  const stream = masker.stream(amy);
  return pieces.map((piece) => stream.push(piece).text).join("") + stream.end().text;
}
const whole = (text: string): string => masker.text(text, amy).text;

const TEXTS = [
  "Call +44 7700 900264 or x.y@example.org\nSSN 463-30-7630, card 5239 7914 0917 6951\n\nPhone:\n9472 7916\nend",
  "a\n-----BEGIN RSA PRIVATE KEY-----\nqQG+4igH/7aoMACpS7RmehT27uNGxXPR5RxVtm\nAAAA\n-----END RSA PRIVATE KEY-----\nafter ghp_k5xd0Yfk1YF6wYOcvvXRaABIx7NFQpa70Sac",
  'a\n---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: "k"\nP2/56wAAAi4AAAA3aWYtbW9kbntzaWdu\nqQG4igH7aoMACpS7RmehT27uNGxX\n---- END SSH2 ENCRYPTED PRIVATE KEY ----\nafter\n',
  "a\nPrivate-Lines: 2\nAAAAgQDqQG4igH7aoMACpS7RmehT27uN\nGxXPR5RxVtmqQG4igH7aoMACp\nPrivate-MAC: 1f\nafter\n",
  "postgres://app:X82cYQ3E8xoQuqVJuQ@db/x\r\nAuthorization: Bearer T1aFGIw9VZuNStXHsr71cNyjj7d19m-Y\r\n",
  '{"pan":5239791409176951,\n "text":"x@example.org"}\n',
  '{"pan":5239791409176951}\n{"mail":"x@example.org","ssn":375256015}\nplain x@example.org\n',
  '{"id":1}\nTel: 697714768\nOrder shipped',
  '{"id":1}\ncard 5239791409176951,\ncall Ann, 697714768\n5239791409176951\n',
  '[\n {"pan":\n 5239791409176951\n },\n 5239791409176951,\n 5239791409176951\n]\n{"a":[5239791409176951]}\n',
  "[2026-11-21 10:00] x@example.org\n[2026-11-21 10:01] 2001:db8::e245\n",
  "  \n\t{ \n",
];

test.for(TEXTS)("cut at every place, and after every character: %j", (text) => {
  for (let at = 0; at <= text.length; at++)
    expect(streamed([text.slice(0, at), text.slice(at)]), `cut at ${at}`).toBe(whole(text));
  expect(streamed([...text])).toBe(whole(text));
});

test("in a plain line behind lines of JSON a private number is named, and in a line of JSON it stays a number", () => {
  const text =
    '{"tel":697714768,\n"pan":5239791409176951}\nTel: 697714768\ncard 5239791409176951,\ncall Ann, tel 697714768\n';
  const masked = '{"tel":0,\n"pan":0}\nTel: [phone]\ncard [credit_card],\ncall Ann, tel [phone]\n';
  expect(whole(text)).toBe(masked);
  expect(streamed([text])).toBe(masked);
});

test("any text, cut anywhere, in any number of pieces", () => {
  const piece = fc.oneof(
    fc.integer().map((seed) => privateText(random(seed)).text),
    fc.integer().map((seed) => harmlessText(random(seed))),
    fc.constantFrom("\n", "\n\n", " ", "\r\n", "-----BEGIN ", "-----", "€", "😱"),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), fc.array(fc.nat(), { maxLength: 8 }), (parts, cuts) => {
      const text = parts.join("");
      const places = [0, ...cuts.map((cut) => cut % (text.length + 1)).toSorted((a, b) => a - b), text.length];
      const pieces = places.slice(1).map((end, index) => text.slice(places[index], end));
      expect(streamed(pieces)).toBe(whole(text));
    }),
    { numRuns: runs(500) },
  );
});

test("a line is given out when it ends, and a long line while it goes on", () => {
  const stream = masker.stream(amy);
  expect(stream.push("mail x@example.org").text).toBe("");
  expect(stream.push(" now\nand").text).toBe("mail [email] now\n");
  const long = masker.stream(amy);
  let given = 0;
  for (let row = 0; row < 5000; row++) given += long.push(`"a":"x${row}@example.org",`.padEnd(40, " ")).text.length;
  expect(given).toBeGreaterThan(50_000);
});

test("a long line without line ends, cut into pieces, gives what the whole gives", () => {
  const r = random(5);
  const text = `rows: ${Array.from({ length: 3000 }, () => JSON.stringify({ v: privateText(r).text, h: harmlessText(r) })).join(",")}`;
  const pieces: string[] = [];
  for (let at = 0; at < text.length; ) {
    const size = 1 + r.below(5000);
    pieces.push(text.slice(at, at + size));
    at += size;
  }
  expect(streamed(pieces)).toBe(whole(text));
});
