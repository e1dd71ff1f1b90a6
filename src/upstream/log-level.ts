/** Log levels of a server with a handshake, which many callers share: it is told the most verbose one that somebody wants. */
import { LOG_LEVELS } from "../mcp/methods.ts";

/** After so long without a caller who wants to hear so much the server is told less. */
const QUIET_MS = 60_000;

/** What one process or session was told (2025-11-25, Logging, Setting Log Level). */
export class LogLevel {
  #told = -1;
  #wantedAt = 0;

  /**
   * The level to tell the server before a call that wants messages from this one on; undefined when it hears enough already. What a
   * caller does not want is left out on the way.
   */
  raise(level: string | undefined, now: number): string | undefined {
    const wanted = level === undefined ? -1 : LOG_LEVELS.indexOf(level);
    if (wanted < 0) return undefined;
    const less = wanted > this.#told && now - this.#wantedAt > QUIET_MS;
    if (wanted <= this.#told || this.#told < 0 || less) this.#wantedAt = now;
    if (this.#told >= 0 && wanted >= this.#told && !less) return undefined;
    this.#told = wanted;
    return level;
  }
}
