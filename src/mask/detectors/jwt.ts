/** JSON Web Tokens, signed (RFC 7515), unsigned or encrypted (RFC 7516): dots between parts of base64url, the first an object. */
import { type Detector, type Found, isAlnum } from "../detector.ts";

const MAX_PART = 65_536;

export const jwt: Detector = {
  type: "jwt",
  about: "secret",
  word: { find: token, first: "e" },
  hits: [
    [
      '"token":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"',
      "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    ],
    ["unsigned eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0. end", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."],
    [
      "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..bnVsbG51bGxudWxs.c2VjcmV0c2VjcmV0.dGFndGFndGFndGFn",
      "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..bnVsbG51bGxudWxs.c2VjcmV0c2VjcmV0.dGFndGFndGFndGFn",
    ],
    [
      '{"text":"jwt\\neyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP"}',
      "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP",
    ],
  ],
  misses: [
    "cursor eyJvZmZzZXQiOiAxNjMsICJ2IjogMX0",
    "package com.example.service loaded",
    "eyJvZmZzZXQiOjE2M30.next.page",
    "a.b.c",
  ],
};

function token(text: string, start: number, end: number, found: Found): void {
  if (!(text.startsWith("eyJ", start) || text.startsWith("eyA", start)) || text.charCodeAt(end) !== 46) return;
  const parts = [text.slice(start, end)];
  let last = end;
  while (parts.length < 5 && text.charCodeAt(last) === 46) {
    const from = last + 1;
    let at = from;
    while (at - from < MAX_PART && isPartCode(text.charCodeAt(at))) at++;
    parts.push(text.slice(from, at));
    last = at;
  }
  const [header = "", payload = ""] = parts;
  const signed = parts.length >= 3 && payload.startsWith("eyJ");
  const object =
    signed || (parts.length === 3 && payload.length >= 8) || parts.length === 5 ? headerOf(header) : undefined;
  if (!signed && (object === undefined || !("alg" in object))) return;
  // A full stop behind two parts may end the sentence; what follows a signature is no part of it.
  if (signed && parts.length > 3) last = start + header.length + payload.length + (parts[2]?.length ?? 0) + 2;
  found.add(start, last);
}

function headerOf(part: string): object | undefined {
  if (part.length > 4096) return undefined;
  try {
    const value: unknown = JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined; // Not JSON, so no header.
  }
}

function isPartCode(code: number): boolean {
  return isAlnum(code) || code === 45 || code === 95;
}
