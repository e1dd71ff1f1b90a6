/** Takes a changed settings file, or changed secrets, into the running gateway: all that can be changed, or nothing. */
import type { LoadedSettings } from "../config/load.ts";
import type { Settings } from "../config/schema.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import type { Logger } from "../observe/logger.ts";
import type { Actor, Deeds } from "./deeds.ts";
import { type FollowedFile, followFile } from "./settings-file.ts";

/** What became of one setting. */
export interface Change {
  /** Keys joined by dots, e.g. `servers.orders`. */
  readonly setting: string;
  /** `changed`: from now on it counts as it is written. `kept`: the new one could not take over, and the one before it goes on. `restart`: it counts after a restart of the gateway. */
  readonly change: "added" | "removed" | "replaced" | "changed" | "kept" | "restart";
  /** Why it was kept. */
  readonly problem?: string;
}

/** A change that is known to be possible. */
export interface Prepared {
  /** Puts it in place. Never rejects: what cannot be put in place is reported. */
  commit(): Promise<readonly Change[]>;
  abandon(): Promise<void>;
}

/**
 * For each top-level setting that a running gateway can change, how. Throws `settings_invalid` when it cannot be changed to that.
 * Settings that are not here need a restart.
 */
export type Appliers = { readonly [Key in keyof Settings]?: (wanted: Settings[Key], all: Settings) => Prepared };

export interface Reload {
  /**
   * Reads the settings file and its secrets again and puts in place what changed. Throws `settings_invalid`, with every problem,
   * when anything in it is wrong; then nothing was changed. One at a time; the next waits.
   */
  reload(by: Actor): Promise<readonly Change[]>;
  /** Secrets whose values cannot be had any more, and why; the last ones are used. */
  lostSecrets(): ReadonlyMap<string, string>;
  /** What is still to come ends; what is under way is waited for. */
  close(): Promise<void>;
}

export interface ReloadOptions {
  readonly loaded: LoadedSettings;
  readonly appliers: Appliers;
  readonly deeds: Deeds;
  /** Other replicas, each with a settings file of its own: one that was asked to read its own again tells the others. */
  readonly others?: { tell(): Promise<void>; onTold(listener: () => void): void };
  /** All secrets that were in use since the start. */
  readonly onSecrets: (known: readonly Secret[]) => void;
  readonly log: Logger;
  /** How often secrets are looked at, in milliseconds. */
  readonly lookMs?: number;
}

const LOOK_MS = 2_000;
/** A server that could not go on with its new secret tries again after so long, and then after twice as long. */
const FIRST_AGAIN_MS = 10_000;
const LAST_AGAIN_MS = 300_000;
const MAX_NAMED = 50;

export function openReload({
  loaded: first,
  appliers,
  deeds,
  others,
  onSecrets,
  log,
  lookMs = LOOK_MS,
}: ReloadOptions): Reload {
  let loaded = first;
  /** What the gateway runs with. */
  let running: Settings = first.settings;
  let last: Promise<unknown> = Promise.resolve();
  const told = new Map<string, string>();
  let closed = false;
  /** Secrets whose new values are not in use everywhere, and when to try again. */
  const pending = new Set<string>();
  let again: number | undefined;
  let againMs = FIRST_AGAIN_MS;

  /** One after the other, in the order of asking. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = last.then(() => {
      if (closed) throw new DrawbridgeError("overloaded", "The gateway is being stopped.");
      return work();
    });
    last = turn.catch(() => {});
    return turn;
  }

  async function apply(next: LoadedSettings): Promise<readonly Change[]> {
    const prepared: [key: keyof Settings, change: Prepared][] = [];
    const changes: Change[] = [];
    const keys = [...new Set([...Object.keys(running), ...Object.keys(next.settings)])] as (keyof Settings)[];
    try {
      for (const key of keys) {
        const wanted = next.settings[key];
        if (sameSettings(running[key], wanted)) continue;
        const applier = appliers[key] as ((wanted: unknown, all: Settings) => Prepared) | undefined;
        if (applier === undefined)
          changes.push(
            ...differences(running[key], wanted, key).map((setting) => ({ setting, change: "restart" as const })),
          );
        else prepared.push([key, applier(wanted, next.settings)]);
      }
    } catch (error) {
      await Promise.all(prepared.map(([, one]) => one.abandon()));
      throw error;
    }
    onSecrets(next.known);
    for (const warning of next.warnings) if (!loaded.warnings.includes(warning)) log.warn({}, warning);
    for (const [key, one] of prepared) {
      const done = await one.commit();
      changes.push(...done);
      // What was kept differs still, so that the next time tries again.
      if (done.every(({ change }) => change !== "kept")) running = { ...running, [key]: next.settings[key] };
    }
    loaded = next;
    return changes;
  }

  async function lookAtSecrets(): Promise<void> {
    const changed = await loaded.secrets.look();
    for (const [name, reason] of loaded.secrets.lost())
      if (told.get(name) !== reason) {
        told.set(name, reason);
        log.warn({ name, reason }, "a secret cannot be had any more; its last value stays in use");
      }
    for (const name of told.keys()) if (!loaded.secrets.lost().has(name)) told.delete(name);
    for (const name of changed) pending.add(name);
    if (changed.length === 0 && (again === undefined || performance.now() < again)) return;
    // Until it is known that all went well.
    againMs = changed.length > 0 ? FIRST_AGAIN_MS : Math.min(againMs * 2, LAST_AGAIN_MS);
    again = performance.now() + againMs;
    const by: Actor = { kind: "gateway", name: "secrets" };
    const names = { secrets: [...pending].slice(0, MAX_NAMED) };
    const changes = await deeds.done("secrets-changed", by, names, async () => {
      const made = await apply(await loaded.renewed());
      return { result: made, details: summary(made) };
    });
    for (const one of changes) tell(one);
    if (changes.some(({ change }) => change === "kept")) return;
    again = undefined;
    pending.clear();
  }

  function tell({ setting, change, problem }: Change): void {
    if (change === "restart") log.warn({ setting }, "a changed setting counts after a restart of the gateway");
    else if (change === "kept") log.warn({ setting, problem }, "a changed setting could not be put in place");
    else log.info({ setting, change }, "a changed setting was put in place");
  }

  let looking = false;
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    inTurn(lookAtSecrets)
      .catch((error: unknown) => closed || log.error({ error }, "changed secrets could not be put in place"))
      .finally(() => {
        looking = false;
      });
  }, lookMs);
  timer.unref();

  /** What nobody has asked for: when nothing is different, nothing is done. */
  async function takeFile(name: "file" | "another replica"): Promise<void> {
    const { reread } = loaded;
    if (reread === undefined) return;
    await followed?.noted();
    const read = await reread().then(
      (next) => ({ next }),
      (failure: unknown) => ({ failure }),
    );
    if ("next" in read && sameSettings(running, read.next.settings)) {
      loaded = read.next;
      return;
    }
    const changes = await deeds.done("settings-reloaded", { kind: "gateway", name }, {}, async () => {
      if ("failure" in read) throw read.failure;
      const made = await apply(read.next);
      return { result: made, details: summary(made) };
    });
    for (const one of changes) tell(one);
  }

  let followed: FollowedFile | undefined;
  const take = (name: "file" | "another replica") =>
    inTurn(() => takeFile(name)).catch((thrown: unknown) => {
      if (closed) return;
      const { message } = DrawbridgeError.from(thrown);
      log.error({ problem: message }, "the settings file changed and cannot be used; what it said before goes on");
    });
  /** The file may have changed while the gateway started. To read all of it anew for nothing would run the commands of secrets again. */
  const takeIfChanged = async () => {
    if ((await first.unchanged?.()) !== true && !closed) await take("file");
  };
  const following =
    first.file !== undefined && first.settings.control.watch
      ? followFile(first.file, () => void take("file")).then((made) => {
          followed = made;
          if (closed) made.close();
          else void takeIfChanged();
        })
      : Promise.resolve();
  others?.onTold(() => void take("another replica"));

  return {
    reload: (by) =>
      inTurn(async () => {
        await followed?.noted();
        const { reread } = loaded;
        if (reread === undefined)
          throw new DrawbridgeError(
            "settings_invalid",
            "This gateway was started without a settings file, so there is nothing to read again.",
          );
        const changes = await deeds.done("settings-reloaded", by, {}, async () => {
          const made = await apply(await reread());
          return { result: made, details: summary(made) };
        });
        for (const one of changes) tell(one);
        await others
          ?.tell()
          .catch((error: unknown) => log.warn({ error }, "other replicas could not be told to reload"));
        return changes;
      }),
    lostSecrets: () => loaded.secrets.lost(),
    async close() {
      closed = true;
      clearInterval(timer);
      followed?.close();
      await following;
      await last;
    },
  };
}

/** For the audit record: names only. */
function summary(changes: readonly Change[]): { readonly [change: string]: readonly string[] } {
  const groups = Object.groupBy(changes, ({ change }) => change);
  return Object.fromEntries(
    Object.entries(groups).map(([change, all]) => [change, all.slice(0, MAX_NAMED).map(({ setting }) => setting)]),
  );
}

/** Whether two settings mean the same; secrets by what they reveal. */
export function sameSettings(some: unknown, other: unknown): boolean {
  if (some instanceof Secret || other instanceof Secret)
    return some instanceof Secret && other instanceof Secret && some.equals(other.reveal());
  if (typeof some !== "object" || typeof other !== "object" || some === null || other === null)
    return Object.is(some, other);
  if (Array.isArray(some) !== Array.isArray(other)) return false;
  const keys = Object.keys(some);
  return (
    keys.length === Object.keys(other).length &&
    keys.every((key) => Object.hasOwn(other, key) && sameSettings(Reflect.get(some, key), Reflect.get(other, key)))
  );
}

/** The settings that differ, as deep as they have names: `listen.port`. */
function differences(some: unknown, other: unknown, path: string): string[] {
  if (sameSettings(some, other)) return [];
  const mappings = [some, other].map((one) => one ?? {}).filter(isMapping);
  if (mappings.length < 2) return [path];
  const keys = new Set(mappings.flatMap((one) => Object.keys(one)));
  return [...keys].flatMap((key) =>
    differences(Reflect.get(mappings[0] ?? {}, key), Reflect.get(mappings[1] ?? {}, key), `${path}.${key}`),
  );
}

function isMapping(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Secret);
}
