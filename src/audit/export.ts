/**
 * An export is a file of lines: each record's text as it was written, and last what is signed about them. It needs nothing else to be
 * verified than a public key; each line of it can be hashed by any tool.
 */
import { createHash, hash } from "node:crypto";
import { z } from "zod";
import { DrawbridgeError } from "../core/errors.ts";
import type { AuditLog } from "../store/ports.ts";
import { linkOf, readStub } from "./link.ts";
import { leafHash } from "./merkle.ts";
import type { Beginning } from "./retired.ts";
import { type Signer, type Vouchers, vouchersOf } from "./signing.ts";
import { type StandingText, verifyLog } from "./standing.ts";
import { type Cut, type Problem, type Verdict, type VerificationOptions, verification } from "./verify.ts";

/** What is exported of a log: without any of these all of it. */
export interface ExportRange {
  /** Sequence numbers: from the one after `after`, up to `through`. */
  readonly after?: number | undefined;
  readonly through?: number | undefined;
  /** Milliseconds since the epoch: from the first record of that time on, and up to the first one of that time. */
  readonly since?: number | undefined;
  readonly until?: number | undefined;
}

/** What is said about the lines before it, in the last line of an export as `exported`. */
interface Statement extends Cut {
  readonly version: 1;
  readonly at: string;
  readonly records: number;
  /** Of all bytes before the last line, as hex: `head -n -1 export.jsonl | sha256sum`. */
  readonly sha256: string;
}
interface Footer {
  readonly exported: Statement;
  readonly kid: string;
  /** Ed25519 of `drawbridge audit export 1 ` and the SHA-256 of the JSON text of `exported`, as hex. */
  readonly signature: string;
}

const FOOTER = '{"exported":{"version":1,';

/**
 * The lines of an export, each with its line feed. The log is verified first, by the signer's own key and `earlierKeys` (PEM), and only
 * what was verified is exported. Throws `audit_unavailable` for a log that does not verify, and `settings_invalid` when there is no
 * record of `since` or later. Where chains end is said in the last line alone and not signed as their heads are: nobody can make the
 * log look as short as an export of it was.
 */
export async function* exported(
  log: Pick<AuditLog, "read" | "heads">,
  signer: Signer,
  range: ExportRange,
  now: number,
  earlierKeys: readonly string[] = [],
): AsyncGenerator<string> {
  let part = partOf(range);
  const vouchers = vouchersOf([signer.publicKey, ...earlierKeys], "the public key");
  const { texts, verdict, told } = await verifyLog(log, vouchers, {}, () => {
    part = partOf(range);
    return part.pass;
  });
  if (verdict.problem !== undefined) throw notWhole(verdict.problem);
  if (range.since !== undefined && part.began === undefined)
    throw new DrawbridgeError("settings_invalid", "There is no record of that time or later.");

  const digest = createHash("sha256");
  const beginnings = new Map<string, Beginning>();
  const ends = new Map<string, { readonly size: number; readonly text: string }>();
  let records = 0;
  for await (const { sequence, json } of texts(part.after)) {
    if (sequence > part.through) break;
    const link = linkOf(json);
    if (link !== undefined) {
      const { id: chain, n, prev } = link;
      if (!ends.has(chain) && n > 0) beginnings.set(chain, { chain, n, prev });
      ends.set(chain, { size: n + 1, text: json });
    }
    records++;
    digest.update(json).update("\n");
    yield `${json}\n`;
  }
  const sha256 = digest.digest("hex");
  if (sha256 !== part.digest()) throw changedMeanwhile();
  const statement: Statement = {
    version: 1,
    at: new Date(now).toISOString(),
    records,
    sha256,
    beginnings: [...beginnings.values()],
    ends: [...ends].map(([chain, { size, text }]) => ({ chain, size, hash: digestOf(text) })),
    retired: told.chains,
  };
  const footer: Footer = { exported: statement, kid: signer.kid, signature: await signer.sign(lineOf(statement)) };
  yield `${JSON.stringify(footer)}\n`;
}

/** The part of a log that a range is, found as its texts pass by: from the record after `after` to `through`. */
function partOf({ after = 0, through = Number.POSITIVE_INFINITY, since, until }: ExportRange) {
  const digest = createHash("sha256");
  const part = {
    began: since === undefined ? after : undefined,
    after,
    through,
    pass({ sequence, json }: StandingText) {
      // What columns say of the time is not signed, what the record says is.
      const at = since === undefined && until === undefined ? Number.NaN : timeIn(json);
      if (until !== undefined && at >= until) part.through = Math.min(part.through, sequence - 1);
      if (part.began === undefined && since !== undefined && at >= since) {
        part.began = Math.max(after, sequence - 1);
        part.after = part.began;
      }
      if (part.began !== undefined && sequence > part.began && sequence <= part.through)
        digest.update(json).update("\n");
    },
    digest: () => digest.digest("hex"),
  };
  return part;
}

/** The start of a record, milliseconds since the epoch; NaN for what is none. */
function timeIn(json: string): number {
  return Date.parse(/"at":"([^"]{20,30})"/.exec(json.slice(0, START_CHARACTERS))?.[1] ?? "");
}
const START_CHARACTERS = 400;

/** Of the record that stood there. */
function digestOf(text: string): string {
  return readStub(text)?.hash ?? leafHash(text);
}

function lineOf(statement: unknown): string {
  return `drawbridge audit export 1 ${hash("sha256", JSON.stringify(statement), "hex")}`;
}

/**
 * Verifies an export that comes in pieces, as `verification` does a log; positions are line numbers, from 1. Throws `settings_invalid`
 * for what is no export.
 */
export async function verifyExport(
  pieces: AsyncIterable<Buffer>,
  vouchers: Vouchers,
  options: VerificationOptions = {},
): Promise<Verdict> {
  // What is known of the beginnings comes last, so records are walked through first and judged then.
  const checked = verification(vouchers, { ...options, positions: "lines" });
  const digest = createHash("sha256");
  let at = 0;
  let footer: Buffer | undefined;
  let rest: Buffer = Buffer.alloc(0);
  for await (const piece of pieces) {
    const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    let from = 0;
    if (at === 0 && footer === undefined) checkStart(bytes);
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, from)) {
      if (footer !== undefined) throw notAnExport("There is something after its last line.");
      if (isFooter(bytes, from)) footer = Buffer.from(bytes.subarray(from, end));
      else checked.read(++at, bytes.subarray(from, end));
      from = end + 1;
    }
    // All lines at once: it costs half as much as one by one.
    digest.update(bytes.subarray(0, footer === undefined ? from : from - footer.length - 1));
    rest = bytes.subarray(from);
    if (rest.length > MAX_LINE) throw notAnExport(`Line ${at + 1} is longer than any record.`);
  }
  // The last line may lack its line feed.
  if (rest.length > 0 && footer !== undefined) throw notAnExport("There is something after its last line.");
  if (rest.length > 0 && isFooter(rest, 0)) footer = rest;
  if (footer === undefined) throw notAnExport("Its last line, which says what is in it, is missing.");
  const { exported: statement, kid, signature } = readFooter(footer);
  const verdict = checked.end([], statement);
  if (verdict.problem !== undefined) return verdict;
  const problem = ((): Pick<Problem, "kind" | "why"> | undefined => {
    if (!vouchers.verify(kid, lineOf(statement), signature))
      return {
        kind: "unsigned",
        why: "What the last line says of the export is not signed with a key that is trusted.",
      };
    if (digest.digest("hex") !== statement.sha256 || at !== statement.records)
      return { kind: "changed", why: "The lines are not those that the last line was signed for." };
    return undefined;
  })();
  return problem === undefined
    ? verdict
    : { ...verdict, problem: { ...problem, at: at + 1, id: undefined, chain: undefined } };
}

const MAX_LINE = 64 << 20;
const E = "e".charCodeAt(0);

/** Records begin with `{"v"`, and what is left of one with `{"re`. */
function isFooter(bytes: Buffer, from: number): boolean {
  return bytes[from + 2] === E && bytes.toString("latin1", from, from + FOOTER.length) === FOOTER;
}

const span = z.tuple([z.number(), z.number(), z.number().optional()]);
const beginning = z.object({ chain: z.string(), n: z.number(), prev: z.string() });
const footerText = z.object({
  exported: z.object({
    version: z.literal(1),
    at: z.string(),
    records: z.number(),
    sha256: z.string(),
    beginnings: z.array(beginning),
    ends: z.array(z.object({ chain: z.string(), size: z.number(), hash: z.string() })),
    retired: z.array(beginning.extend({ through: z.number(), kept: z.array(span) })),
  }),
  kid: z.string(),
  signature: z.string(),
});

/** What files become on their way, which nobody meant to change. */
const OTHERWISE = [
  [Buffer.from([0xef, 0xbb, 0xbf]), "It begins with a byte order mark, which was added on its way: take it away."],
  [Buffer.from([0xff, 0xfe]), "It is UTF-16, and exports are UTF-8: it was changed on its way."],
  [Buffer.from("{\0"), "It is UTF-16, and exports are UTF-8: it was changed on its way."],
  [Buffer.from([0x1f, 0x8b]), "It is compressed: unpack it first."],
  [Buffer.from("PK"), "It is compressed: unpack it first."],
] as const;

function checkStart(bytes: Buffer): void {
  for (const [start, why] of OTHERWISE) if (bytes.subarray(0, start.length).equals(start)) throw notAnExport(why);
}

/** There is one way to write it, too: what JSON leaves open would be read by one in this way and by another in that. */
function readFooter(bytes: Buffer): Footer {
  const text = bytes.toString();
  try {
    const footer: unknown = JSON.parse(text);
    const read: Footer = footerText.parse(footer);
    const { exported: statement } = footer as Footer;
    const { kid, signature } = read;
    if (JSON.stringify({ exported: statement, kid, signature }) === text)
      return { exported: statement, kid, signature };
  } catch (cause) {
    throw notAnExport("Its last line cannot be read.", cause);
  }
  throw notAnExport(
    text.endsWith("\r")
      ? "Its lines end as on Windows (CRLF), and exports have line feeds alone: it was changed on its way."
      : "Its last line is written otherwise than exports are.",
  );
}

function notAnExport(why: string, cause?: unknown): DrawbridgeError {
  return new DrawbridgeError("settings_invalid", `This is no whole export of an audit log. ${why}`, { cause });
}

function notWhole({ kind, at, why }: Problem): DrawbridgeError {
  const where = at === 0 ? "" : ` at record ${at}`;
  const message = `The audit log does not verify, so nothing is exported: ${kind}${where}. ${why} See drawbridge audit verify.`;
  return new DrawbridgeError("audit_unavailable", message);
}

function changedMeanwhile(): DrawbridgeError {
  const message =
    "Records were taken out of the audit log while it was exported, so the export is not whole. Run it again.";
  return new DrawbridgeError("audit_unavailable", message);
}
