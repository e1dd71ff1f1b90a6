/** What an approval is good for: one call, by one user through one client, of one definition under one policy. */
import { hash } from "node:crypto";
import { canonicalHash } from "../../contract/canonical.ts";
import type { Contract } from "../../contract/contract.ts";
import { sourceOf } from "../../contract/contract.ts";
import type { PermittedCall } from "../../core/call.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { objectText } from "../../mcp/json-text.ts";
import type { ApprovalNeed } from "../../policy/approvals.ts";
import type { Catalogue } from "../catalogue.ts";

export interface Binding {
  /** Equal for what may be done under one approval, and different for anything else. */
  readonly digest: string;
  /** Of the request as it will be sent: names and arguments. */
  readonly request: string;
}

export interface Bound {
  readonly permitted: PermittedCall;
  readonly contract: Contract | undefined;
  readonly need: ApprovalNeed;
  /** Versions of the roles and of the rules about approvals. */
  readonly versions: readonly string[];
  readonly catalogue: Pick<Catalogue, "pinned">;
}

/** Rejects with `invalid_params` for arguments that have no canonical form. */
export async function bindingOf({ permitted, contract, need, versions, catalogue }: Bound): Promise<Binding> {
  const { by, call } = permitted;
  const { server, kind, name, upstreamName, pin } = call.target;
  const request = hashed(objectText(call.forward), name);
  const facts = {
    caller: [by.subject, by.client],
    target: [server, kind, name, upstreamName],
    method: call.method,
    request,
    pins: [pin ?? null, ...(await stepPins(contract, catalogue))],
    contract: contract?.settings === undefined ? null : canonicalHash(JSON.stringify(contract.settings)),
    versions,
    need: { ...need },
  };
  return { digest: hash("sha256", canonicalHash(JSON.stringify(facts)), "base64url"), request };
}

function hashed(text: string, name: string): string {
  try {
    return canonicalHash(text);
  } catch (cause) {
    throw new DrawbridgeError("invalid_params", `The arguments of ${name.slice(0, 200)} are not valid Unicode.`, {
      cause,
    });
  }
}

/** Of what a tool with steps calls, in their order. */
async function stepPins(
  contract: Contract | undefined,
  catalogue: Pick<Catalogue, "pinned">,
): Promise<(string | null)[]> {
  const settings = contract?.settings;
  const steps = settings !== undefined && "steps" in settings ? (settings.steps ?? []) : [];
  const calls = steps.flatMap(({ call, undo }) => (undo === undefined ? [call] : [call, undo.call]));
  return Promise.all(
    calls.map(async (call) => {
      const { server, name } = sourceOf(call);
      return (await catalogue.pinned(server, name))?.pin ?? null;
    }),
  );
}
