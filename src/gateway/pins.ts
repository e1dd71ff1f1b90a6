/**
 * Pins: what each definition of an upstream has to be like to be served. For the servers of a lockfile, what the lockfile says; for the
 * others what the definition was when it was first seen or last approved, which is kept in the store.
 */
import { pinOf } from "../contract/definition.ts";
import { type Drift, driftOf, driftText, type PinnedKind, reactionTo } from "../contract/drift.ts";
import { type LockSettings, lockSettings } from "../contract/lock-settings.ts";
import { type Lock, type Locked, lockedFrom, lockKey } from "../contract/lockfile.ts";
import { resemblance } from "../contract/look-alikes.ts";
import type { JsonObject } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { isObject } from "../mcp/json-text.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import { CHANGES } from "../store/watch.ts";
import type { UpstreamIdentity } from "../upstream/upstream.ts";
import { openOwnTools } from "./own-tools.ts";
import { inspectedDrift, suspicionOf } from "./suspicion.ts";

export interface Pin {
  readonly server: string;
  readonly kind: string;
  /** What its server calls it; of what a server says of itself, empty. */
  readonly name: string;
  /** Undefined: nobody has approved it, and it is withheld. */
  readonly pin: string | undefined;
  /** The pinned definition itself, so that a change can be shown. */
  readonly definition: JsonObject | undefined;
  readonly since: number;
  /** The newest definition that differs from the pinned one; it is withheld. */
  readonly offered: { readonly pin: string; readonly definition: JsonObject; readonly since: number } | undefined;
  /** A person approved it. */
  readonly reviewed?: boolean;
  /** Why one that was never pinned is withheld. */
  readonly reason?: string;
}

/** What a server offers now. */
export interface Offered {
  readonly name: string;
  readonly value: JsonObject;
  readonly pin: string;
}

export interface Verdict {
  /** Why it is withheld; undefined when it is served. */
  readonly held: string | undefined;
  /** It withholds everything of its server. */
  readonly stops: boolean;
  /** A person has looked at just this. */
  readonly reviewed: boolean;
}

export interface Pins {
  /**
   * One verdict for each definition of a list, in its order. What is seen for the first time is pinned, where the settings say so.
   * `whole`: it is all that the server offers of this kind, so that what is missing is gone. `gone`: why that stops the server.
   */
  check(
    server: string,
    kind: PinnedKind,
    offered: readonly Offered[],
    whole: boolean,
  ): Promise<{ readonly verdicts: readonly Verdict[]; readonly gone: string | undefined }>;
  /** What a server says of itself, without what differs from its pin. */
  screened(server: string, identity: UpstreamIdentity): Promise<{ identity: UpstreamIdentity; verdict: Verdict }>;
  list(): Promise<readonly Pin[]>;
  /**
   * Makes the offered definition the pinned one; false when there is none, or another than `pin`. Gateways on the same store follow
   * within a second.
   */
  accept(server: string, kind: string, name: string, pin?: string): Promise<boolean>;
}

export interface PinsOptions {
  /** What the lockfile says now; undefined without one. */
  readonly lock?: () => Lock | undefined;
  readonly settings?: Pick<LockSettings, "policy" | "firstSeen" | "inspect">;
  readonly clock?: Clock;
}

/** Tells which name that the server had before another one resembles. Reads the store, so only when it is needed. */
type Earlier = () => Promise<(name: string) => string | undefined>;

/** The row of `CHANGES` that is written when something was approved. */
export const PINS_CHANGED = "pins";

const KIND = "pin";
const PAGE = 1000;
/** Definitions that replicas pin at the same time have come together. */
const TOGETHER_MS = 60_000;
const MAX_SEEN = 100_000;
const SERVED: Verdict = { held: undefined, stops: false, reviewed: false };
const REVIEWED: Verdict = { held: undefined, stops: false, reviewed: true };

export function openPins(records: Records, log: Logger, options: PinsOptions = {}): Pins {
  const {
    lock = () => undefined,
    settings: { policy, firstSeen, inspect } = lockSettings.parse({}),
    clock = systemClock,
  } = options;
  const idOf = (server: string, kind: string, name: string) => `${server}/${kind}/${name}`;
  const ownTools = openOwnTools();
  /** The newest change of each definition, so that it is worked out once, and told once. */
  const seen = new Map<
    string,
    { readonly from: string | undefined; readonly to: string; readonly drift: Drift | undefined }
  >();
  function see(id: string, from: string | undefined, to: string, drift: Drift | undefined): void {
    if (seen.size >= MAX_SEEN) seen.clear();
    seen.set(id, { from, to, drift });
  }

  /** By the policy; logged when it is news. `pinned`: undefined for one that is new. */
  async function judged(
    server: string,
    kind: PinnedKind,
    { name, value, pin }: Offered,
    pinned: { readonly pin: string; readonly value: JsonObject } | undefined,
  ): Promise<Verdict> {
    const id = idOf(server, kind, name);
    const before = seen.get(id);
    const news = before?.to !== pin || before.from !== pinned?.pin;
    const changed = news ? driftOf(kind, pinned?.value, value) : before.drift;
    const drift =
      news && changed !== undefined && inspect === "hold"
        ? await inspectedDrift(changed, server, kind, pinned?.value, value, () => ownTools.of(server))
        : changed;
    if (news) see(id, pinned?.pin, pin, drift);
    if (drift === undefined) return SERVED;
    const reaction = reactionTo(drift, policy);
    const about = { server, kind, name, classes: drift.classes, offered: pin };
    if (reaction === "accept") {
      if (news) log.info(about, "a definition changed in a way that the policy accepts");
      return SERVED;
    }
    const held = driftText(drift);
    if (news && drift.alarms.length > 0)
      log.warn({ ...about, alarms: drift.alarms }, `a definition changed and is withheld: ${ALARM}`);
    else if (news) log.warn(about, "a definition changed and is withheld; see `drawbridge diff`");
    return { held, stops: reaction === "stop", reviewed: false };
  }

  /** So that whoever is at the command line sees what is offered, and what it was. */
  async function remember(server: string, kind: PinnedKind, name: string, pinned: Locked | undefined, one: Offered) {
    const id = idOf(server, kind, name);
    const row = await records.get<Pin>(KIND, id);
    if (row?.value.offered?.pin === one.pin && row.value.pin === pinned?.pin) return;
    const offered = { pin: one.pin, definition: one.value, since: clock() };
    const pin: Pin = { server, kind, name, pin: pinned?.pin, definition: pinned?.value, since: clock(), offered };
    await records.put(KIND, id, pin, { ifVersion: row?.version ?? 0 });
  }

  async function byLock(
    server: string,
    kind: PinnedKind,
    locked: ReadonlyMap<string, Locked>,
    one: Offered,
  ): Promise<Verdict | undefined> {
    const pinned = locked.get(lockKey(kind, one.name));
    if (pinned?.pin === one.pin) {
      seen.delete(idOf(server, kind, one.name));
      return REVIEWED;
    }
    const verdict = await judged(server, kind, one, pinned);
    if (verdict.held !== undefined) await remember(server, kind, one.name, pinned, one);
    // A new one that the policy lets in has no pin in the lockfile, so it gets one in the store.
    else if (pinned === undefined) return undefined;
    return verdict;
  }

  async function byStore(server: string, kind: PinnedKind, one: Offered, earlier: Earlier): Promise<Verdict> {
    const { name, pin, value } = one;
    const id = idOf(server, kind, name);
    // Two rounds: another replica may pin the same definition between our reading and our writing.
    for (let round = 0; round < 2; round++) {
      const row = await records.get<Pin>(KIND, id);
      const offered = { pin, definition: value, since: clock() };
      if (row === undefined) {
        const reason = await reasonToHold(server, kind, one, earlier);
        const first: Pin =
          reason === undefined
            ? { server, kind, name, pin, definition: value, since: clock(), offered: undefined }
            : { server, kind, name, pin: undefined, definition: undefined, since: clock(), offered, reason };
        if (!(await records.put(KIND, id, first, { ifVersion: 0 }))) continue;
        if (reason === undefined) return SERVED;
        log.warn({ server, kind, name, reason }, "a definition is new and is withheld; see `drawbridge diff`");
        return { held: reason, stops: false, reviewed: false };
      }
      const known = row.value;
      const note = (changed: Pin) => records.put(KIND, id, changed, { ifVersion: row.version });
      if (known.pin === pin) {
        seen.delete(id);
        if (known.offered !== undefined) await note({ ...known, offered: undefined });
        return known.reviewed === true ? REVIEWED : SERVED;
      }
      if (known.pin === undefined || known.definition === undefined) {
        if (known.offered?.pin !== pin) await note({ ...known, offered });
        return { held: known.reason ?? UNAPPROVED, stops: false, reviewed: false };
      }
      const verdict = await judged(server, kind, one, { pin: known.pin, value: known.definition });
      if (verdict.held !== undefined && known.offered?.pin !== pin) {
        await note({ ...known, offered });
        // Other replicas look now, and not when the lists that they keep have grown old.
        await records.put(CHANGES, PINS_CHANGED, { at: clock() });
      }
      return verdict;
    }
    return { held: "its pin could not be written", stops: false, reviewed: false };
  }

  async function reasonToHold(server: string, kind: PinnedKind, { name, value }: Offered, earlier: Earlier) {
    if (firstSeen === "hold") return UNAPPROVED;
    const suspicion =
      inspect === "hold" ? await suspicionOf(server, kind, value, () => ownTools.of(server)) : undefined;
    if (suspicion !== undefined) return `it is new, and it has ${suspicion}`;
    if (kind !== "tool" && kind !== "prompt") return undefined;
    const other = (await earlier())(name);
    return other && `it is new, and its name resembles ${JSON.stringify(other)}, which was there before`;
  }

  /** Names of definitions that the server had before this list: pinned a while ago, or no longer on it. */
  async function earlierNames(server: string, kind: PinnedKind, offered: readonly Offered[]): Promise<string[]> {
    const present = new Set(offered.map(({ name }) => name));
    const rows = await rowsOf(`${server}/${kind}/`);
    const before = clock() - TOGETHER_MS;
    return rows.flatMap(({ name, pin, since }) =>
      pin !== undefined && (since < before || !present.has(name)) ? [name] : [],
    );
  }

  async function rowsOf(prefix: string): Promise<Pin[]> {
    const pins: Pin[] = [];
    for (let after = prefix; ; ) {
      const rows = await records.list<Pin>(KIND, { limit: PAGE, ...(after !== "" && { after }) });
      const mine = rows.filter(({ id }) => id.startsWith(prefix));
      pins.push(...mine.map((row) => row.value));
      after = rows.at(-1)?.id ?? "";
      if (rows.length < PAGE || mine.length < rows.length) return pins;
    }
  }

  /** What the lockfile has and the server does not. There is nothing to withhold, but it may mean that the server must stop. */
  function missing(server: string, kind: PinnedKind, locked: ReadonlyMap<string, Locked>, offered: readonly Offered[]) {
    const present = new Set(offered.map(({ name }) => name));
    let stopping: string | undefined;
    for (const one of locked.values()) {
      if (one.kind !== kind || present.has(one.name)) continue;
      const id = idOf(server, kind, one.name);
      if (seen.get(id)?.to !== GONE) log.warn({ server, kind, name: one.name }, "a definition of the lockfile is gone");
      see(id, one.pin, GONE, undefined);
      if (policy.gone === "stop") stopping ??= `${kind} ${JSON.stringify(one.name)} is gone`;
    }
    return stopping;
  }

  async function checkOne(server: string, kind: PinnedKind, one: Offered, earlier: Earlier): Promise<Verdict> {
    const locked = lock()?.get(server);
    const verdict = locked === undefined ? undefined : await byLock(server, kind, locked, one);
    return verdict ?? byStore(server, kind, one, earlier);
  }

  return {
    async check(server, kind, offered, whole) {
      if (kind === "tool")
        ownTools.listed(
          server,
          offered.map(({ name }) => name),
        );
      let resembling: ReturnType<Earlier> | undefined;
      const earlier: Earlier = () => (resembling ??= earlierNames(server, kind, offered).then(resemblance));
      const verdicts: Verdict[] = [];
      for (const one of offered) verdicts.push(await checkOne(server, kind, one, earlier));
      const locked = lock()?.get(server);
      return { verdicts, gone: whole && locked !== undefined ? missing(server, kind, locked, offered) : undefined };
    },
    async screened(server, identity) {
      const { instructions, info, capabilities } = identity;
      const locked = lock()?.get(server);
      const mute = { ...identity, instructions: undefined };
      // Without a lockfile only the words count that clients are told: the rest shows in definitions, which have pins of their own.
      const value: JsonObject =
        locked === undefined
          ? { ...(instructions !== undefined && { instructions }) }
          : serverValue({ instructions, info, capabilities });
      let one: Offered;
      try {
        one = { name: "", value, pin: lockedFrom("server", "", value).pin };
      } catch {
        return { identity: mute, verdict: { held: UNPINNABLE, stops: false, reviewed: false } };
      }
      const verdict = await checkOne(server, "server", one, async () => () => undefined);
      if (verdict.held === undefined) return { identity, verdict };
      const reviewed = locked?.get(lockKey("server", ""))?.value["capabilities"];
      return { identity: isObject(reviewed) ? { ...mute, capabilities: reviewed } : mute, verdict };
    },
    list: () => rowsOf(""),
    async accept(server, kind, name, expected) {
      const row = await records.get<Pin>(KIND, idOf(server, kind, name));
      if (row?.value.offered === undefined) return false;
      const { pin, definition } = row.value.offered;
      if (expected !== undefined && pin !== expected) return false;
      const { reason: _reason, ...known } = row.value;
      const accepted: Pin = { ...known, pin, definition, since: clock(), offered: undefined, reviewed: true };
      if (!(await records.put(KIND, row.id, accepted, { ifVersion: row.version }))) return false;
      await records.put(CHANGES, PINS_CHANGED, { at: clock() });
      return true;
    },
  };
}

/** What is pinned of what a server says of itself. */
export function serverValue({
  instructions,
  info,
  capabilities,
}: Pick<UpstreamIdentity, "instructions" | "info" | "capabilities">): JsonObject {
  return { ...(instructions !== undefined && { instructions }), serverInfo: info, capabilities };
}

export const UNPINNABLE = "it has a number or a character without a canonical form (RFC 8785), so it cannot be pinned";
const UNAPPROVED = "nobody has approved it yet (lock.firstSeen: hold)";
const ALARM = "it brings words that nobody should trust unread; see `drawbridge diff`";
const GONE = "gone";

/** The pin of a definition; undefined where there is none: numbers that are not finite, halves of surrogate pairs. */
export function pinFor(definition: Parameters<typeof pinOf>[0]): string | undefined {
  try {
    return pinOf(definition);
  } catch {
    return undefined;
  }
}
