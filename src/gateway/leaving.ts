/**
 * The one place that an answer passes on its way out: what its contract lets through, of that what gives no orders to the model, and
 * of that what its caller may see.
 */
import type { Contract } from "../contract/contract.ts";
import type { JsonObject, Outcome } from "../core/call.ts";
import { isObject } from "../mcp/json-text.ts";
import { shapedUnder } from "./contracted-call.ts";
import type { Asked, Parts } from "./parts.ts";

/** What an answer is held to. */
export interface Terms {
  readonly contract: Contract | undefined;
  /** The schema that clients were shown for structured content. */
  readonly promised: JsonObject | undefined;
}

/**
 * The outcome as it may be recorded and sent. Rejects when it cannot be made so; then nothing of it may leave. Steps have been shaped
 * by what carried them out.
 */
export async function leaving(parts: Parts, asked: Asked, terms: Terms, came: Outcome): Promise<Outcome> {
  const { contract, promised } = terms;
  const wrote = parts.approvals?.wrote(came) === true;
  const own = contract?.composition !== undefined || wrote;
  const { inbound, record } = asked;
  const { method } = inbound;
  const { view } = record;
  const shaped = contract === undefined || own ? came : underContract(parts, asked, contract, came);
  const read = wrote ? shaped : await view.read.outcome(shaped, method, promised);
  if (!wrote) suspicious(parts, asked);
  const masked = await view.outcome(read, promised);
  // What stands in place of something may be longer than that, and budgets hold all the same.
  const larger = masked !== shaped && contract?.projection?.bounded === true && sizeOf(masked) > sizeOf(shaped);
  const withheld = fails(masked) && !fails(shaped);
  const fitting = larger && !own && !withheld ? underContract(parts, asked, contract, masked) : masked;
  // The notice is ours: no contract shapes it away, and no budget is too small for it.
  return wrote ? fitting : view.read.labelled(fitting, method, parts.masking.recordedText);
}

function suspicious({ log, masking }: Parts, { record, by }: Asked): void {
  const { findings, name } = record.view.read;
  if (findings.length === 0) return;
  const rules = [...new Set(findings.map(({ rule }) => rule))];
  const actions = [...new Set(findings.map(({ action }) => action))];
  log.warn(
    {
      name: masking.recordedUri(name),
      subject: by.subject,
      client: by.client,
      rules,
      actions,
      traceId: record.trace.traceId,
    },
    "an answer gives orders to the model that reads it",
  );
}

function underContract({ log }: Parts, { inbound }: Asked, contract: Contract, came: Outcome): Outcome {
  const { outcome, withheld } = shapedUnder(contract, inbound, came);
  if (withheld !== undefined)
    log.warn(
      { contract: contract.name, server: contract.source.server, reason: withheld },
      "an answer does not fit its contract and was withheld",
    );
  return outcome;
}

const fails = (outcome: Outcome) => outcome.kind === "error" || outcome.value["isError"] === true;
const sizeOf = (outcome: Outcome) => (outcome.kind === "result" ? outcome.result.length : 0);

/** What clients were shown of a tool's structured content. */
export function promisedBy(definition: JsonObject | undefined): JsonObject | undefined {
  const schema = definition?.["outputSchema"];
  return isObject(schema) ? schema : undefined;
}
