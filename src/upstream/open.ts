/** Makes the upstream of one entry of `servers:`. A further transport is a file beside these and a line here. */
import { httpUpstream } from "./http.ts";
import type { ServerSettings } from "./settings.ts";
import { type StdioDeps, stdioUpstream } from "./stdio.ts";
import type { Upstream } from "./upstream.ts";

export type { StdioDeps, UpstreamDeps } from "./stdio.ts";

/** Throws `settings_invalid` when the entry cannot be used safely. A server that is down is no error here: `state` tells. */
export function openUpstream(name: string, settings: ServerSettings, deps: StdioDeps): Upstream {
  return "command" in settings ? stdioUpstream(name, settings, deps) : httpUpstream(name, settings, deps);
}
