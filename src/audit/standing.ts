/** A log at one moment, while others write it: neither more nor less than what its chains' heads vouched for then. */
import { setImmediate } from "node:timers/promises";
import type { AuditLog } from "../store/ports.ts";
import { linkOf } from "./link.ts";
import type { Told } from "./retired.ts";
import type { Vouchers } from "./signing.ts";
import { headIn } from "./statements.ts";
import { type Verdict, type VerificationOptions, verification } from "./verify.ts";

export interface StandingLog {
  /** Of each chain; undefined: what stands there is none. */
  readonly heads: readonly (ReturnType<typeof headIn> | undefined)[];
  /** In their order, those after a sequence number; it may be read as often as need be. */
  texts(after?: number): AsyncGenerator<StandingText>;
}

export interface StandingText {
  readonly sequence: number;
  readonly json: string;
}

/** A store that reads at once gives others their turn only between two of them. */
const PAGE = 500;
/** While records are taken out, a look at the log may meet both what was and what is. */
const MAX_LOOKS = 4;

/** Each commit has its records and the head that vouches for them, so what is older than the heads is in them. */
export async function standing(log: Pick<AuditLog, "read" | "heads">): Promise<StandingLog> {
  const surely = await newest(log);
  const heads = (await log.heads()).map(headIn);
  const perhaps = await newest(log);
  const sizes = new Map(heads.map((head) => [head?.chain, head?.size ?? 0]));
  const isIn = (sequence: number, json: string) => {
    const link = sequence <= surely ? undefined : linkOf(json);
    return link === undefined || link.n < (sizes.get(link.id) ?? 0);
  };
  return {
    heads,
    async *texts(after = 0) {
      // Numbers begin with 1. What somebody has put before that is looked at, too, for a search would find it.
      for (let last: number | undefined = after > 0 ? after : undefined; last === undefined || last < perhaps; ) {
        const page = await log.read({ limit: PAGE, ...(last !== undefined && { after: last }) });
        for (const { sequence, json } of page)
          if (sequence <= perhaps && isIn(sequence, json)) yield { sequence, json };
        last = page.at(-1)?.sequence ?? perhaps;
        await setImmediate();
      }
    },
  };
}

async function newest(log: Pick<AuditLog, "read">): Promise<number> {
  return (await log.read({ limit: 1, newest: true }))[0]?.sequence ?? 0;
}

export interface VerifiedLog extends StandingLog {
  readonly verdict: Verdict;
  readonly told: Told;
}

/**
 * Verifies a log that may be written meanwhile, and of which retention may take records. Positions are sequence numbers. What `look`
 * gives hears of each text; it is asked anew when the log is looked at again.
 */
export async function verifyLog(
  log: Pick<AuditLog, "read" | "heads">,
  vouchers: Vouchers,
  options: VerificationOptions = {},
  look: () => (text: StandingText) => void = () => () => {},
): Promise<VerifiedLog> {
  let last = "";
  for (let looks = 1; ; looks++) {
    const now = await standing(log);
    const checked = verification(vouchers, options);
    const passing = look();
    for await (const text of now.texts()) {
      checked.read(text.sequence, text.json);
      passing(text);
    }
    const verdict = checked.end(now.heads);
    const { problem } = verdict;
    // What is really wrong is wrong in the same way when it is looked at again.
    const wrong = problem === undefined ? "" : `${problem.kind} ${problem.at} ${problem.chain}`;
    if (wrong === last || problem === undefined || looks === MAX_LOOKS)
      return { ...now, verdict, told: checked.told() };
    last = wrong;
  }
}
