/**
 * Whether records stand where they were written. A chain binds its own order; what binds it among the others is that records of one
 * commit stand right after one another, and that the first record of the next one says where the last of them stands.
 */
import type { JsonObject } from "../core/call.ts";
import type { Passed } from "./verify.ts";

export interface Places {
  /** A chain begins to say where its records stand: those of versions before do not. */
  began(first: Passed, details: JsonObject | undefined): void;
  /** `passed` follows `last` in its chain. */
  follows(last: Passed, passed: Passed): void;
  /** Somebody has seen the last record of a chain under this sequence number. */
  stands(last: Passed, sequence: number | undefined): void;
  /**
   * `gapless`: no number is left out between the first position and the last. `kept`: where retention says that the last record before
   * those that it has taken of a chain stands.
   */
  end(gapless: boolean, kept: (passed: Passed) => number | undefined): void;
}

/** `moved` hears of each record that does not stand where it should. */
export function placesIn(
  positions: "sequence numbers" | "lines",
  moved: (passed: Passed, why: string) => void,
): Places {
  /** Of each chain: the first record that does not stand behind the one before it, and whether the chain promises that. */
  const chains = new Map<string, { apart: Passed | undefined; promised: boolean }>();
  /** Records of which the next one, which said where they stand, has left its hash alone. */
  const edges: Passed[] = [];
  /** How much more the first sequence number that was said is than its line; and the first line of which something else was said. */
  let distance: number | undefined;
  let other: { readonly passed: Passed; readonly why: string } | undefined;

  function chainOf({ id }: Passed) {
    let chain = chains.get(id);
    if (chain === undefined) {
      chain = { apart: undefined, promised: false };
      chains.set(id, chain);
    }
    return chain;
  }

  function stands(passed: Passed, sequence: number | undefined) {
    if (sequence === undefined || sequence === 0) return;
    const expected = positions === "lines" ? passed.at + (distance ?? sequence - passed.at) : passed.at;
    if (positions === "lines") distance ??= sequence - passed.at;
    if (sequence === expected) return;
    const why = `It was written as record ${sequence} of the log: it, or others, were moved.`;
    if (positions === "sequence numbers") moved(passed, why);
    else if (other === undefined || passed.at < other.passed.at) other = { passed, why };
  }

  return {
    began(first, details) {
      if (details?.["places"] === true) chainOf(first).promised = true;
    },
    follows(last, passed) {
      if (passed.record === "" && last.record !== "") edges.push(last);
      if (passed.prevAt !== undefined) {
        chainOf(passed).promised = true;
        stands(last, passed.prevAt);
      } else if (passed.record !== "" && passed.at !== last.at + 1) chainOf(passed).apart ??= passed;
    },
    stands,
    end(gapless, kept) {
      if (positions === "sequence numbers") for (const edge of edges) stands(edge, kept(edge));
      for (const { apart, promised } of chains.values())
        if (promised && apart !== undefined)
          moved(
            apart,
            "It was written together with the one before it in its chain, right behind which it should stand.",
          );
      if (gapless && other !== undefined) moved(other.passed, other.why);
    },
  };
}
