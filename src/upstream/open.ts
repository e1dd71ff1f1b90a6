/** Makes the upstream of one entry of `servers:`. A further transport is a file beside these and a line here. */
import type { UpstreamCredentials } from "./credentials.ts";
import { withHandedTokens, withoutTokens } from "./handed-tokens.ts";
import { httpUpstream } from "./http.ts";
import { isolatedUpstream } from "./isolated.ts";
import { type ModuleDeps, moduleUpstream } from "./module.ts";
import type { ServerSettings, StdioServerSettings } from "./settings.ts";
import { eitherUpstream, sseUpstream } from "./sse-upstream.ts";
import { type StdioDeps, stdioUpstream } from "./stdio.ts";
import type { Upstream } from "./upstream.ts";
import type { ReadUserSecret } from "./user-values.ts";

export type { UpstreamCredentials } from "./credentials.ts";

export interface OpenDeps extends StdioDeps {
  /** For a server whose settings ask for `credentials`. */
  readonly credentials?: UpstreamCredentials | undefined;
  /** Takes all secrets that are known out of a text that a server with tokens says. Default: none. */
  readonly conceal?: ((text: string) => string) | undefined;
  /** For servers that are modules: spans of their handlers. Default: none. */
  readonly beginSpan?: ModuleDeps["beginSpan"];
  /** For servers with values that are different for each user. Default: nobody has a secret. */
  readonly readUserSecret?: ReadUserSecret;
}

/** Throws `settings_invalid` when the entry cannot be used safely. A server that is down is no error here: `state` tells. */
export function openUpstream(name: string, settings: ServerSettings, deps: OpenDeps): Upstream {
  if ("module" in settings) return moduleUpstream(name, settings, deps);
  if (!("command" in settings)) return OVER_HTTP[settings.transport](name, settings, deps);
  if (settings.credentials === undefined) return ofProcesses(name, settings, deps);
  const { credentials, conceal } = deps;
  const upstream = ofProcesses(name, settings, { ...deps, events: withoutTokens(deps.events, conceal) });
  const maxWaiting = settings.maxInFlight + settings.maxQueued;
  return withHandedTokens(upstream, { maxWaiting, credentials, conceal });
}

function ofProcesses(name: string, settings: StdioServerSettings, deps: OpenDeps): Upstream {
  if (settings.isolation === "shared") return stdioUpstream(name, settings, deps);
  return isolatedUpstream(name, settings, { readUserSecret: async () => undefined, ...deps });
}

const OVER_HTTP = { auto: eitherUpstream, "streamable-http": httpUpstream, sse: sseUpstream } as const;
