/** `audit.export`: one follower for each sink, begun, changed and ended while the gateway runs. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { type Clock, systemClock } from "../../core/clock.ts";
import type { Logger } from "../../observe/logger.ts";
import type { AuditLog, Records } from "../../store/ports.ts";
import type { PersonalKeys } from "../personal.ts";
import { openCursor, placesIn } from "./cursor.ts";
import { fileSink } from "./file.ts";
import { type Follower, follow, type SinkState } from "./follow.ts";
import { httpSink } from "./http.ts";
import { otlpSink } from "./otlp.ts";
import { kindOf, nameOf, type SinkSettings } from "./settings.ts";
import type { Sink } from "./sink.ts";
import { type LineOutput, stdoutSink } from "./stdout.ts";

export type { SinkState } from "./follow.ts";

export interface Sinks {
  state(): readonly SinkState[];
  /** Ends what is not wanted any more or is otherwise now, and begins what is new. `same`: whether two settings mean the same. */
  apply(wanted: readonly SinkSettings[], same: (some: SinkSettings, other: SinkSettings) => boolean): Promise<void>;
  /** The greatest number of the log that every sink has got: nothing after it may be taken out. */
  reached(): Promise<number>;
  /** Sends what there is, up to `drainMs` where that works. What is left is sent after the next start. */
  close(drainMs?: number): Promise<void>;
}

export interface SinksParts {
  readonly settings: readonly SinkSettings[];
  readonly log: Pick<AuditLog, "read">;
  readonly records: Records;
  /** For the sinks alone: they forget them again and again. */
  readonly keys: Pick<PersonalKeys, "open" | "forget">;
  readonly replica: string;
  /** URI of the gateway. */
  readonly source: string;
  /** What a path in the settings is relative to. */
  readonly folder: string;
  readonly conceal?: (text: string) => string;
  readonly logger: Logger;
  readonly clock?: Clock;
  readonly stdout?: LineOutput;
}

export function openSinks(parts: SinksParts): Sinks {
  const { records, replica, log, keys, source, logger, conceal, clock = systemClock } = parts;
  const followers = new Map<string, { readonly settings: SinkSettings; readonly follower: Follower }>();

  function begin(settings: SinkSettings): void {
    const name = nameOf(settings);
    const follower = follow({
      settings,
      open: () => openSink(settings, parts),
      cursor: openCursor(records, { name, kind: kindOf(settings), replica }),
      log,
      keys,
      source,
      logger,
      clock,
      ...(conceal !== undefined && { conceal }),
    });
    followers.set(name, { settings, follower });
  }
  for (const settings of parts.settings) begin(settings);

  return {
    state: () => [...followers.values()].map(({ follower }) => follower.state()),
    async apply(wanted, same) {
      const byName = new Map(wanted.map((settings) => [nameOf(settings), settings]));
      const ended = [...followers].filter(([name, { settings }]) => {
        const now = byName.get(name);
        return now === undefined || !same(settings, now);
      });
      for (const [name] of ended) followers.delete(name);
      await Promise.all(ended.map(([, { follower }]) => follower.close()));
      for (const [name, settings] of byName) if (!followers.has(name)) begin(settings);
    },
    reached: () =>
      reachedBy(
        [...followers.values()].map(({ settings }) => settings),
        records,
      ),
    async close(drainMs) {
      await Promise.all([...followers.values()].map(({ follower }) => follower.close(drainMs)));
    },
  };
}

/** The greatest number of the log that all of these sinks have got; one that has not begun has got nothing. */
export async function reachedBy(sinks: readonly SinkSettings[], records: Records): Promise<number> {
  if (sinks.length === 0) return Number.POSITIVE_INFINITY;
  const places = await placesIn(records);
  return Math.min(...sinks.map((settings) => places.get(nameOf(settings))?.sequence ?? 0));
}

async function openSink(settings: SinkSettings, { folder, source, stdout, clock }: SinksParts): Promise<Sink> {
  const { format, file, http, otlp, kafka, nats } = settings;
  const certificates = async ({
    trustedCertificates: path,
  }: {
    readonly trustedCertificates?: string | undefined;
  } = {}) => (path === undefined ? undefined : await readFile(resolve(folder, path), "utf8"));
  if (file !== undefined) return fileSink({ ...file, path: resolve(folder, file.path) }, clock);
  if (http !== undefined) return httpSink(http, format, await certificates(http));
  if (otlp !== undefined) return otlpSink(otlp, source, await certificates(otlp));
  // Their libraries are loaded by those who have such a sink.
  if (kafka !== undefined) {
    const { kafkaSink } = await import("./kafka.ts");
    return kafkaSink(kafka, format, await certificates(kafka.tls));
  }
  if (nats !== undefined) {
    const { natsSink } = await import("./nats.ts");
    const { credentials } = nats;
    const creds =
      credentials !== undefined && "file" in credentials
        ? await readFile(resolve(folder, credentials.file))
        : undefined;
    return natsSink(nats, format, { certificates: await certificates(nats.tls), creds });
  }
  return stdoutSink(stdout);
}
