/** The arguments that a caller means: with true values in place of stand-ins, where the tool may have them. */
import type { Contract } from "../../contract/contract.ts";
import type { JsonObject, Target } from "../../core/call.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import type { InboundRequest } from "../../mcp/inbound.ts";
import type { Asked, Parts } from "../parts.ts";

export interface Meant {
  /** What policy, contract and server are to see. */
  readonly args: JsonObject;
  /** The request with these arguments; the same when nothing was put back. */
  readonly inbound: InboundRequest;
  /** A stand-in that is worth nothing. Whoever may not call the tool is not told so. */
  readonly refused: DrawbridgeError | undefined;
}

/** Puts back what the caller was shown stand-ins of. The record keeps the arguments as they came. */
export async function meant(
  { masking }: Parts,
  { by, inbound, record }: Asked,
  target: Target,
  contract: Contract | undefined,
  given: JsonObject,
): Promise<Meant> {
  const text = inbound.paramTexts.get("arguments");
  const asItIs = { args: given, inbound, refused: undefined };
  if (inbound.method !== "tools/call" || text === undefined) return asItIs;
  try {
    const put = await masking.putBack(text, by, target.name, contract);
    if (put === undefined) return asItIs;
    record.view.hasPutBack(put.put);
    const args = JSON.parse(put.text) as JsonObject;
    return {
      args,
      inbound: {
        ...inbound,
        params: { ...inbound.params, arguments: args },
        paramTexts: new Map(inbound.paramTexts).set("arguments", put.text),
      },
      refused: undefined,
    };
  } catch (thrown) {
    return { ...asItIs, refused: DrawbridgeError.from(thrown) };
  }
}
