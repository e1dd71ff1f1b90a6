/** Findings that a person has looked at and taken: why, and until when. What has expired counts again. */
import { z } from "zod";
import { DrawbridgeError } from "../core/errors.ts";

export interface Waiver {
  readonly fingerprint: string;
  readonly rule: string;
  /** Where it was found, for readers of the file. */
  readonly about: string;
  readonly reason: string;
  /** The last day on which it holds, as YYYY-MM-DD. */
  readonly expires: string;
}

const FORMAT = 1;
const MAX_WAIVERS = 100_000;
const waiver = z.strictObject({
  fingerprint: z.string().regex(/^[0-9a-f]{32}$/),
  rule: z.string(),
  about: z.string(),
  reason: z.string().trim().min(3, "say why the finding was taken"),
  expires: z.iso.date(),
});
const file = z.strictObject({ drawbridgeBaseline: z.literal(FORMAT), waivers: z.array(waiver).max(MAX_WAIVERS) });

/** Reads a baseline. `name` is what messages call it. */
export function readBaseline(text: string, name: string): readonly Waiver[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new DrawbridgeError("settings_invalid", `The baseline ${name} is no JSON.`, { cause });
  }
  const read = file.safeParse(value);
  if (!read.success)
    throw new DrawbridgeError("settings_invalid", `The baseline ${name} is not valid:\n${z.prettifyError(read.error)}`);
  return read.data.waivers;
}

/** Sorted, so that a change shows as what it is. */
export function writeBaseline(waivers: readonly Waiver[]): string {
  const byPrint = new Map(waivers.map((one) => [one.fingerprint, one]));
  const sorted = [...byPrint.values()].sort(
    (one, other) => order(one.about, other.about) || order(one.fingerprint, other.fingerprint),
  );
  return `${JSON.stringify({ drawbridgeBaseline: FORMAT, waivers: sorted }, null, 2)}\n`;
}

/** Whether a waiver still holds on `day` (YYYY-MM-DD, UTC). */
export function holds({ expires }: Waiver, day: string): boolean {
  return expires >= day;
}

function order(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
