/** The time of one call, which stands still while a person is asked. */
import { DrawbridgeError } from "../core/errors.ts";

export interface Deadline extends AsyncDisposable {
  /** Aborts when the time is over, or the caller goes. */
  readonly signal: AbortSignal;
  /** Rejects with `upstream_timeout` or `cancelled` when `work` is not done by then, whether or not it heeds the signal. */
  within<T>(work: Promise<T>): Promise<T>;
  /** Waits for `answer` without the clock. */
  standing<T>(answer: () => Promise<T>): Promise<T>;
}

export function openDeadline(ms: number, outer: AbortSignal): Deadline {
  const controller = new AbortController();
  const over = Promise.withResolvers<never>();
  over.promise.catch(() => {}); // Nobody may be waiting any more.
  let left = ms;
  let since = 0;
  let asking = 0;
  let timer: NodeJS.Timeout | undefined;
  const end = (error: DrawbridgeError) => {
    over.reject(error);
    controller.abort(error);
  };
  const start = () => {
    since = performance.now();
    timer = setTimeout(() => end(new DrawbridgeError("upstream_timeout", "The call took too long.")), left);
    timer.unref();
  };
  const gone = () => end(new DrawbridgeError("cancelled", "The request was cancelled."));
  outer.addEventListener("abort", gone, { once: true });
  if (outer.aborted) gone();
  else start();
  return {
    signal: controller.signal,
    within: (work) => Promise.race([work, over.promise]),
    async standing(answer) {
      if (asking++ === 0) {
        clearTimeout(timer);
        left = Math.max(0, left - (performance.now() - since));
      }
      try {
        return await answer();
      } finally {
        if (--asking === 0 && !controller.signal.aborted) start();
      }
    },
    async [Symbol.asyncDispose]() {
      clearTimeout(timer);
      outer.removeEventListener("abort", gone);
    },
  };
}
