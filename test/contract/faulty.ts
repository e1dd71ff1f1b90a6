/** A store of which one operation fails: for loops that fail the first, the second, the third … and look at what is left. */
import { DrawbridgeError } from "../../src/core/errors.ts";
import type { AuditLog, Records, Store } from "../../src/store/ports.ts";

export interface FaultyOptions {
  /** The failing operation is done all the same, as when the answer was lost with the connection. */
  readonly after?: boolean;
  /** Which operations count; default: all of `records` and `audit`. E.g. only writes: `["put", "take", "append"]`. */
  readonly only?: readonly (keyof Records | keyof AuditLog)[];
}

/** Wraps `store`. Of the operations that are asked for from now on the `nth` (from 1) rejects as in an outage; 0: none does. */
export function faulty(
  store: Store,
  nth: number,
  { after = false, only }: FaultyOptions = {},
): Store & AsyncDisposable & { readonly operations: number } {
  let operations = 0;

  function wrap<Part extends Records | AuditLog>(part: Part): Part {
    const wrapped = Object.entries(part).map(([name, method]) => {
      const call = method as (...words: readonly unknown[]) => Promise<unknown>;
      const counts = only === undefined || (only as readonly string[]).includes(name);
      return [
        name,
        async (...words: readonly unknown[]) => {
          const failing = counts && ++operations === nth;
          if (failing && !after) throw outage(name, nth);
          const result = await call.apply(part, [...words]);
          if (failing) throw outage(name, nth);
          return result;
        },
      ];
    });
    return Object.fromEntries(wrapped) as Part;
  }

  const close = () => store.close();
  return {
    records: wrap(store.records),
    audit: wrap(store.audit),
    close,
    [Symbol.asyncDispose]: close,
    get operations() {
      return operations;
    },
  };
}

function outage(name: string, nth: number): DrawbridgeError {
  return new DrawbridgeError("internal", "The gateway could not complete the request.", {
    detail: `store: operation ${nth} (${name}) fails on purpose`,
  });
}
