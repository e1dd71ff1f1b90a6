/** What is measured: something that can be put in front of an upstream, started and stopped. */
import type { Contender } from "../rounds.ts";

export interface Arm {
  readonly name: string;
  /** Starts it on a core (undefined: on any) and returns when it answers. Throws `LeftOut` when this machine cannot run it. */
  start(core: number | undefined): Promise<RunningArm>;
}

export interface RunningArm extends Contender {
  /** Ends it and returns how many processes of its tree outlived it. */
  stop(): Promise<number>;
}

/** Why an arm is missing from a table; not an error of the bench. */
export class LeftOut extends Error {}

/** Starts the arms that this machine can run; says why the others are missing. */
export async function startAll(
  arms: readonly Arm[],
  core: number | undefined,
  tell: (line: string) => void,
): Promise<{ readonly running: readonly RunningArm[]; readonly missing: readonly string[] }> {
  const running: RunningArm[] = [];
  const missing: string[] = [];
  for (const arm of arms) {
    try {
      running.push(await arm.start(core));
    } catch (error) {
      if (!(error instanceof LeftOut)) throw error;
      const line = `${arm.name} is left out: ${error.message}`;
      missing.push(line);
      tell(line);
    }
  }
  return { running, missing };
}
