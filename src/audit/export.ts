/**
 * An export is a file of lines: each record's text as it was written, and last what is signed about them. It needs nothing else to be
 * verified than a public key; each line of it can be hashed by any tool.
 */
import { createHash, hash } from "node:crypto";
import { DrawbridgeError } from "../core/errors.ts";
import type { AuditLog } from "../store/ports.ts";
import { leafHash } from "./merkle.ts";
import type { Signer, Vouchers } from "./signing.ts";
import { signedHead } from "./statements.ts";
import {
  type Beginning,
  linkOf,
  type Problem,
  type Verdict,
  type VerificationOptions,
  verification,
} from "./verify.ts";

/** Sequence numbers: from the one after `after`; up to `through`, or to the end of the log. */
export interface ExportRange {
  readonly after: number;
  readonly through?: number | undefined;
}

/** What is said about the lines before it, in the last line of an export as `exported`. */
interface Statement {
  readonly version: 1;
  readonly at: string;
  readonly records: number;
  /** Of all bytes before the last line, as hex: `head -n -1 export.jsonl | sha256sum`. */
  readonly sha256: string;
  /** Where chains begin whose first records are not here. */
  readonly beginnings: readonly Beginning[];
  /** Where chains end here. */
  readonly heads: readonly unknown[];
}
interface Footer {
  readonly exported: Statement;
  readonly kid: string;
  /** Ed25519 of `drawbridge audit export 1 ` and the SHA-256 of the JSON text of `exported`, as hex. */
  readonly signature: string;
}

const PAGE = 1000;
const FOOTER = '{"exported":{"version":1,';

/** The lines of an export, each with its line feed. */
export async function* exported(
  log: Pick<AuditLog, "read" | "heads">,
  signer: Signer,
  range: ExportRange,
  now: number,
): AsyncGenerator<string> {
  const digest = createHash("sha256");
  const beginnings: Beginning[] = [];
  const ends = new Map<string, { readonly size: number; readonly text: string }>();
  // Asked first: what is written meanwhile is then at most more than the heads say, and is left out.
  const heads = new Map((await log.heads()).map(({ chain, json }) => [chain, JSON.parse(json) as { size: number }]));
  let records = 0;
  for await (const json of texts(log, range)) {
    const link = linkOf(json);
    if (link !== undefined) {
      if (range.through === undefined && link.n >= (heads.get(link.id)?.size ?? 0)) continue;
      if (!ends.has(link.id) && link.n > 0) beginnings.push({ chain: link.id, n: link.n, prev: link.prev });
      ends.set(link.id, { size: link.n + 1, text: json });
    }
    records++;
    digest.update(json).update("\n");
    yield `${json}\n`;
  }
  const at = new Date(now).toISOString();
  const statement: Statement = {
    version: 1,
    at,
    records,
    sha256: digest.digest("hex"),
    beginnings,
    heads: await Promise.all(
      [...ends].map(([chain, { size, text }]) => {
        const head = heads.get(chain);
        // The writer's own word, where the export goes as far.
        if (head !== undefined && (range.through === undefined || head.size === size)) return head;
        return signedHead({ chain, size, hash: leafHash(text).toString("base64url"), at }, signer);
      }),
    ),
  };
  const footer: Footer = { exported: statement, kid: signer.kid, signature: await signer.sign(lineOf(statement)) };
  yield `${JSON.stringify(footer)}\n`;
}

async function* texts(log: Pick<AuditLog, "read">, { after, through = Infinity }: ExportRange): AsyncGenerator<string> {
  for (let last = after; ; ) {
    const page = await log.read({ limit: PAGE, after: last });
    for (const { sequence, json } of page) {
      if (sequence > through) return;
      last = sequence;
      yield json;
    }
    if (page.length < PAGE) return;
  }
}

function lineOf(statement: Statement): string {
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
  const checked = verification(vouchers, options);
  const digest = createHash("sha256");
  let at = 0;
  let footer: Footer | undefined;
  /** A line with its line feed, which only the last one may lack. */
  const line = (bytes: Buffer) => {
    const text = bytes.toString("latin1", 0, FOOTER.length);
    if (footer !== undefined) throw notAnExport("There is something after its last line.");
    if (text === FOOTER) {
      footer = JSON.parse(bytes.toString("utf8")) as Footer;
      return;
    }
    digest.update(bytes);
    checked.read(++at, bytes.toString("utf8", 0, bytes.length - 1));
  };
  let rest: Buffer = Buffer.alloc(0);
  for await (const piece of pieces) {
    const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    let from = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, from)) {
      line(bytes.subarray(from, end + 1));
      from = end + 1;
    }
    rest = bytes.subarray(from);
    if (rest.length > MAX_LINE) throw notAnExport(`Line ${at + 1} is longer than any record.`);
  }
  if (rest.length > 0) line(rest);
  if (footer === undefined) throw notAnExport("Its last line, which says what is in it, is missing.");
  const { exported: statement, kid, signature } = footer;
  const verdict = checked.end(statement.heads, statement.beginnings);
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

function notAnExport(why: string): DrawbridgeError {
  return new DrawbridgeError("settings_invalid", `This is no whole export of an audit log. ${why}`);
}
