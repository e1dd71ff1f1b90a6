/**
 * fast-check with one seed for all, so that a run of the tests says today what it said yesterday. To look further, in one room or all:
 * `FAST_CHECK_SEED=7 FAST_CHECK_TIMES=50 npx vitest run test/contracts --testTimeout 1000000`; what that finds becomes a test.
 */
import fc from "fast-check";

fc.configureGlobal({ seed: Number(process.env["FAST_CHECK_SEED"] ?? 20260728), numRuns: runs(100) });

/** How often a property runs that is to run so often. */
export function runs(number: number): number {
  return number * Number(process.env["FAST_CHECK_TIMES"] ?? 1);
}

export { fc };
