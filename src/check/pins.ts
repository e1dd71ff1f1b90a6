/** Whether what a command runs stays what was reviewed. */
import { packageOf, pinned } from "../inspect/packages.ts";

/** True: an exact version or digest. Undefined: no package of a registry. */
export function pinOf(command: readonly string[] | undefined): boolean | undefined {
  const ref = packageOf(command ?? []);
  return ref === undefined ? undefined : pinned(ref);
}
