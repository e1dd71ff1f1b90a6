/** Who the servers say they are, as far as it is what was pinned: what clients are told of them comes from here. */
import type { Logger } from "../observe/logger.ts";
import type { UpstreamIdentity } from "../upstream/upstream.ts";
import type { Catalogue } from "./catalogue.ts";
import type { Pins } from "./pins.ts";

export interface Identities {
  /** Those that were looked at, in no particular order. One that has just come is there a moment later. */
  now(): ReadonlyMap<string, UpstreamIdentity>;
  /** Looks at all again: what counts as pinned has changed. Resolves when all were looked at. */
  again(): Promise<void>;
}

export interface IdentitiesOptions {
  readonly raw: () => ReadonlyMap<string, UpstreamIdentity>;
  readonly pins: Pins;
  readonly judged: Catalogue["judged"];
  readonly log: Logger;
}

interface Screened {
  readonly raw: UpstreamIdentity;
  readonly told: UpstreamIdentity;
}

export function openIdentities({ raw, pins, judged, log }: IdentitiesOptions): Identities {
  const known = new Map<string, Screened>();
  const looking = new Map<string, UpstreamIdentity>();

  async function look(server: string, identity: UpstreamIdentity): Promise<void> {
    looking.set(server, identity);
    try {
      const { identity: told, verdict } = await pins.screened(server, identity);
      // It was replaced meanwhile, and the other is looked at, too.
      if (looking.get(server) !== identity) return;
      known.set(server, { raw: identity, told });
      judged(server, verdict.held, verdict.stops);
    } catch (error) {
      log.error({ server, error }, "what a server says of itself could not be compared with its pin");
    } finally {
      if (looking.get(server) === identity) looking.delete(server);
    }
  }

  return {
    now() {
      const told = new Map<string, UpstreamIdentity>();
      for (const [server, identity] of raw()) {
        const one = known.get(server);
        if (one?.raw === identity) told.set(server, one.told);
        else if (looking.get(server) !== identity) void look(server, identity);
      }
      return told;
    },
    again: () => Promise.all([...raw()].map(([server, one]) => look(server, one))).then(() => undefined),
  };
}
