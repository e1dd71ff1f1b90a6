/** What the pages share. */
import type { Clock } from "../core/clock.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import type { Browsers } from "./browser.ts";
import type { ClientPolicy } from "./clients.ts";
import type { Report } from "./events.ts";
import type { Grants } from "./grants.ts";
import type { Place } from "./http.ts";
import type { Interactions } from "./interaction.ts";
import type { SignInSettings, TokensSettings } from "./settings.ts";
import type { Users } from "./users.ts";

export interface Site {
  readonly place: Place;
  readonly records: Records;
  readonly users: Users;
  readonly browsers: Browsers;
  readonly grants: Grants;
  readonly policy: ClientPolicy;
  readonly interactions: Interactions;
  readonly signIn: SignInSettings;
  readonly tokens: TokensSettings;
  readonly report: Report;
  readonly log: Logger;
  readonly clock: Clock;
}
