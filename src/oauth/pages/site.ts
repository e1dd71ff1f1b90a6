/** What the pages share. */
import type { Principal } from "../../core/call.ts";
import type { Clock } from "../../core/clock.ts";
import type { Logger } from "../../observe/logger.ts";
import type { Records } from "../../store/ports.ts";
import type { ClientPolicy } from "../clients/clients.ts";
import type { Report } from "../events.ts";
import type { Place } from "../http.ts";
import type { OfferedScopes } from "../metadata.ts";
import type { Browsers } from "../people/browser.ts";
import type { Provider } from "../people/providers.ts";
import type { Sessions } from "../people/sessions.ts";
import type { Users } from "../people/users.ts";
import type { ClientsSettings, SignInSettings, TokensSettings } from "../settings.ts";
import type { Throttle } from "../throttle.ts";
import type { Grants } from "../tokens/grants.ts";
import type { Connections } from "./connections.ts";
import type { Interactions } from "./interaction.ts";

export interface Site {
  readonly place: Place;
  readonly records: Records;
  readonly users: Users;
  readonly browsers: Browsers;
  readonly sessions: Sessions;
  /** Identity providers, by name. */
  readonly providers: ReadonlyMap<string, Provider>;
  /** Sign-ins begun at providers, per source: each keeps a row for ten minutes. */
  readonly departures: Throttle;
  readonly grants: Grants;
  readonly policy: ClientPolicy;
  readonly interactions: Interactions;
  readonly scopes: OfferedScopes;
  /** What roles open to a person; undefined when nobody here knows. */
  readonly reach: ReachOf | undefined;
  /** Accounts at servers behind the gateway; undefined where nobody connects any. */
  readonly connections: Connections | undefined;
  readonly signIn: SignInSettings;
  readonly clients: ClientsSettings;
  readonly tokens: TokensSettings;
  readonly report: Report;
  readonly log: Logger;
  readonly clock: Clock;
}

/** What the roles of a person let a client do for them, as far as it is known now. */
export interface Reach {
  /** Names of the roles. None: nothing is permitted, whatever there is. */
  readonly roles: readonly string[];
  /** Servers of which something may be used. */
  readonly servers: readonly ReachedServer[];
}

export interface ReachedServer {
  readonly name: string;
  readonly tools: readonly { readonly name: string; readonly effect: "reads" | "changes" | "deletes" }[];
  readonly resources: number;
  readonly prompts: number;
}

export type ReachOf = (who: Principal) => Reach;
