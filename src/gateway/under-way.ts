/** Counts calls under way, so that the gateway can stop when there are none. */
import type { UnderWay } from "./parts.ts";

export function countUnderWay(): UnderWay {
  let count = 0;
  let idle = () => {};
  return {
    begin() {
      count++;
    },
    end() {
      if (--count === 0) idle();
    },
    get count() {
      return count;
    },
    over: (deadline) =>
      new Promise((resolve) => {
        if (count === 0 || deadline.aborted) resolve();
        idle = resolve;
        deadline.addEventListener("abort", () => resolve(), { once: true });
      }),
  };
}
