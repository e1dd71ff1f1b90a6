/** The tool that sandboxes are made with. */
import { sandboxSupport } from "../../src/upstream/sandbox.ts";

/** bubblewrap, if it works here: it may be installed where the kernel or a container forbids what it does. */
export function findBubblewrap(): string | undefined {
  const support = sandboxSupport(process.env);
  return "bwrap" in support ? support.bwrap : undefined;
}

/** Why `findBubblewrap` finds none. */
export function bubblewrapProblem(): string {
  const support = sandboxSupport(process.env);
  return "reason" in support ? support.reason : "";
}
