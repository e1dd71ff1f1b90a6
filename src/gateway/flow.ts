/**
 * The toxic flow in the gateway: what callers have read is noted when their calls end, and a call that could carry it outside, or
 * destroy on the word of a stranger, needs approval. What tools do, contracts say: a server's own word is worth nothing here.
 */
import type { Contract } from "../contract/contract.ts";
import type { Principal } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { type FlowKey, type FlowLimits, type FlowTool, toxic, toxicFlow } from "../policy/toxic-flow.ts";
import type { NeedsApproval } from "./approvals/needs.ts";
import type { View } from "./masking.ts";

export interface Flow {
  /** Takes down what a call brought its caller, before the answer leaves. `answered`: the server's answer is what leaves. */
  heard(
    by: Principal,
    session: string | undefined,
    view: Pick<View, "counts" | "shown" | "contract" | "read">,
    answered: boolean,
  ): void;
  readonly needs: NeedsApproval;
  sessionEnded(by: Principal, session: string): void;
  set(mode: FlowMode): void;
}

export type FlowMode = "approve" | "off";

const EXPIRES_SECONDS = 900;

export function openFlow(initial: FlowMode, limits: Partial<FlowLimits> = {}, clock: Clock = systemClock): Flow {
  const flow = toxicFlow(limits, clock);
  let mode = initial;

  return {
    heard(by, session, { counts, shown, contract, read }, answered) {
      const its = declared(contract);
      flow.saw(keyOf(by, session), {
        privateRead: Object.keys(counts).length > 0 || shown || (answered && its.private),
        // What an open world answers to a question was written by anybody; what it says to something sent is a receipt.
        untrustedSeen: read.findings.length > 0 || (answered && its.openWorld && its.reads),
      });
    },
    needs({ by, contract, session: { session } }) {
      const tool = declared(contract);
      if (mode === "off" || !(tool.openWorld || tool.destructive)) return undefined;
      const mine = flow.factsOf(keyOf(by, session));
      // Some is heard beside all sessions, on a stream that is nobody's call.
      const beside = session === undefined ? mine : flow.factsOf(keyOf(by, undefined));
      const facts = {
        privateRead: mine.privateRead || beside.privateRead,
        untrustedSeen: mine.untrustedSeen || beside.untrustedSeen,
      };
      if (!toxic(facts, tool)) return undefined;
      return {
        rules: ["answers.toxicFlow"],
        by: [],
        fourEyes: false,
        expiresSeconds: EXPIRES_SECONDS,
        reasons: [reasonOf(tool)],
        depends: false,
      };
    },
    sessionEnded: (by, session) => flow.forget(keyOf(by, session)),
    set(wanted) {
      mode = wanted;
    },
  };
}

function keyOf({ subject, client }: Principal, session: string | undefined): FlowKey {
  return { subject, client, session };
}

interface Declared extends FlowTool {
  readonly private: boolean;
  readonly reads: boolean;
}

function declared(contract: Contract | undefined): Declared {
  const settings = contract?.settings;
  return {
    openWorld: settings !== undefined && "openWorld" in settings && settings.openWorld === true,
    destructive: contract?.access === "destructive",
    private: Object.keys(settings?.mask ?? {}).length > 0,
    reads: contract?.access === "read",
  };
}

function reasonOf({ openWorld }: FlowTool): string {
  const what = openWorld
    ? "This sends something outside, and might carry the one away on the word of the other"
    : "This cannot be taken back, and might be done on their word";
  return `Before this call the client read private data, and text of people you may not know. ${what}: approve it only if it is what you wanted.`;
}
