/** What the inspection says of definitions that nobody has reviewed: those that read like an attack are no model's to read. */
import { setImmediate } from "node:timers/promises";
import type { Drift, PinnedKind } from "../contract/drift.ts";
import type { JsonObject } from "../core/call.ts";
import { pointsOf } from "../inspect/finding.ts";
import { inspecting } from "../inspect/inspect.ts";
import type { InspectedKind, Neighbour } from "../inspect/rule.ts";

/** The names of a server's own tools. Asked only when what the server says of itself looks suspicious without them. */
export type OwnTools = () => Iterable<string> | Promise<Iterable<string>>;

/**
 * The gravest finding in a phrase, when the verdict is `block`; else undefined. Other work has its turn meanwhile. A server may well
 * say in which order its own tools are called.
 */
export async function suspicionOf(
  server: string,
  kind: PinnedKind,
  value: JsonObject,
  ownTools: OwnTools = () => [],
): Promise<string | undefined> {
  if (kind !== "server") return worstOf(server, kind, value);
  const said = { instructions: value["instructions"] ?? "" };
  const suspicion = await worstOf(server, "instructions", said);
  if (suspicion === undefined) return undefined;
  const own = [...(await ownTools())].map((name) => ({ name, server, value: {} }));
  return own.length === 0 ? suspicion : worstOf(server, "instructions", said, own);
}

async function worstOf(
  server: string,
  kind: InspectedKind,
  value: JsonObject,
  neighbours: readonly Neighbour[] = [],
): Promise<string | undefined> {
  const steps = inspecting(kind, value, { server, neighbours });
  let step = steps.next();
  for (let started = performance.now(); step.done !== true; step = steps.next()) {
    if (performance.now() - started < TURN_MS) continue;
    await setImmediate();
    started = performance.now();
  }
  const { verdict, findings } = step.value;
  const [worst] = [...findings].sort((one, other) => pointsOf(other) - pointsOf(one));
  return verdict === "block" && worst !== undefined
    ? `words that read like an attack (${worst.rule} at ${worst.where || "the whole"}: ${worst.evidence})`
    : undefined;
}

const TURN_MS = 5;

/** A change with what the inspection finds in it among its alarms. What was pinned with the same verdict was somebody's decision. */
export async function inspectedDrift(
  drift: Drift,
  server: string,
  kind: PinnedKind,
  before: JsonObject | undefined,
  after: JsonObject | undefined,
  ownTools?: OwnTools,
): Promise<Drift> {
  if (after === undefined || drift.classes.every((one) => one === "cosmetic")) return drift;
  const found = await suspicionOf(server, kind, after, ownTools);
  const known =
    found !== undefined && before !== undefined ? await suspicionOf(server, kind, before, ownTools) : undefined;
  return found === undefined || known !== undefined ? drift : { ...drift, alarms: [...drift.alarms, found] };
}
