/** The time of one call, which stands still while a person is asked. A handler that answers at once pays for the signal alone. */
import { DrawbridgeError } from "../core/errors.ts";

export interface Deadline {
  /** Aborts when the time is over, or the caller goes. */
  readonly signal: AbortSignal;
  /**
   * What `run` returns; when that is a promise, rejects with `upstream_timeout` or `cancelled` when it is not settled by then, whether or
   * not `run` heeds the signal. Once only.
   */
  within<T>(run: () => T | Promise<T>): T | Promise<T>;
  /** Waits for `answer` without the clock. */
  standing<T>(answer: () => Promise<T>): Promise<T>;
}

/** `outer`: aborts when the caller goes; asked for when there is something to wait for. */
export function openDeadline(ms: number, outer: () => AbortSignal): Deadline {
  const controller = new AbortController();
  let ended: DrawbridgeError | undefined;
  let over: PromiseWithResolvers<never> | undefined;
  let left = ms;
  let since = 0;
  let asking = 0;
  let timer: NodeJS.Timeout | undefined;
  const end = (error: DrawbridgeError) => {
    ended ??= error;
    over?.reject(ended);
    controller.abort(ended);
  };
  const start = () => {
    since = performance.now();
    timer = setTimeout(() => end(new DrawbridgeError("upstream_timeout", "The call took too long.")), left);
    timer.unref();
  };
  const gone = () => end(new DrawbridgeError("cancelled", "The request was cancelled."));

  const bounded = async <T>(work: Promise<T>): Promise<T> => {
    over = Promise.withResolvers<never>();
    over.promise.catch(() => {}); // Nobody may be waiting any more.
    const caller = outer();
    caller.addEventListener("abort", gone, { once: true });
    if (caller.aborted) gone();
    else if (asking === 0) start();
    try {
      return await Promise.race([work, over.promise]);
    } finally {
      over = undefined;
      clearTimeout(timer);
      caller.removeEventListener("abort", gone);
    }
  };

  return {
    signal: controller.signal,
    within(run) {
      const made = run();
      return made instanceof Promise ? bounded(made) : made;
    },
    async standing(answer) {
      if (asking++ === 0 && timer !== undefined) {
        clearTimeout(timer);
        left = Math.max(0, left - (performance.now() - since));
      }
      try {
        return await answer();
      } finally {
        if (--asking === 0 && over !== undefined && ended === undefined) start();
      }
    },
  };
}
