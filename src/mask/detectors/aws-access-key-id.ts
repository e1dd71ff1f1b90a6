/** Ids of AWS access keys: `AKIA…` of users, `ASIA…` of sessions. Not secret alone, yet half of a credential and the name of an account. */
import { type Detector, endsAt, type Found, isAlnum } from "../detector.ts";

const PREFIXES = ["AKIA", "ASIA", "ABIA", "ACCA"];

export const awsAccessKeyId: Detector = {
  type: "aws_access_key_id",
  about: "secret",
  word: { find: keyId, first: "A" },
  hits: [
    ["export AWS_ACCESS_KEY_ID=AKIAGRBTEBHSFXJVKPQT\n", "AKIAGRBTEBHSFXJVKPQT"],
    ["found ASIAMRKDIRXILQXIU3LU in commit", "ASIAMRKDIRXILQXIU3LU"],
    ['{"text":"id:\\nAKIAKQQLHDW7I5ULMRF4"}', "AKIAKQQLHDW7I5ULMRF4"],
  ],
  misses: [
    "AKIAIOSFODNN7EXAMPLE",
    "AKIAXXXXXXXXXXXXXXXX",
    "AKIAGRBTEBHSFXJVKPQ",
    "AKIAGRBTEBHSFXJVKPQT1",
    "AKIAgrbtebhsfxjvkpqt",
    "XAKIAGRBTEBHSFXJVKPQT",
  ],
};

function keyId(text: string, start: number, end: number, found: Found): void {
  let from = start;
  while (from < end && (text.charCodeAt(from) === 45 || text.charCodeAt(from) === 95)) from++;
  if (end - from < 20 || text.charCodeAt(from) !== 65) return;
  if (!PREFIXES.some((prefix) => text.startsWith(prefix, from)) || !endsAt(text, from + 20)) return;
  for (let at = from; at < from + 20; at++) {
    const code = text.charCodeAt(at);
    if (!isAlnum(code) || code >= 97) return;
  }
  if (!text.startsWith("EXAMPLE", from + 13) && !text.startsWith("XXXX", from + 4)) found.add(from, from + 20);
}
