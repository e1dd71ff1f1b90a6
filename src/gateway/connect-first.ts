/** What callers of a server with a sign-in of its own are answered, and shown, where somebody's connection has a part in it. */
import type { Outcome, PermittedCall, Question } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { lacking, mayAsk, URL_ELICITATION_REQUIRED } from "../mcp/interaction.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { Lending } from "./connection-vault.ts";

/** What a caller who is not connected is told, beside words. */
export interface ConnectionWanted {
  readonly url: string;
  readonly elicitationId: string;
  readonly message: string;
}

/**
 * What to answer a call with that needs a connection first: a page to open where the client can show one (2025-11-25,
 * `URLElicitationRequired`, which `settle` turns into a question for 2026-07-28), else an error that the model can read. Throws
 * anything else again.
 */
export function connectFirst(thrown: unknown, { call }: PermittedCall): Outcome {
  if (!(thrown instanceof DrawbridgeError) || thrown.code !== "connection_required") throw thrown;
  const wanted = thrown.data as ConnectionWanted | undefined;
  if (wanted !== undefined && mayAsk(call.method)) {
    const page = { mode: "url", ...wanted };
    const question: Question = { method: "elicitation/create", params: JSON.stringify(page) };
    if (lacking(call.capabilities, [question]) === undefined) {
      const data = JSON.stringify({ elicitations: [page] });
      return { kind: "error", code: URL_ELICITATION_REQUIRED, message: wanted.message, data };
    }
  }
  if (call.method !== "tools/call") throw thrown;
  const value = { content: [{ type: "text", text: thrown.message }], isError: true };
  return { kind: "result", result: JSON.stringify(value), value };
}

/**
 * A server of which nothing personal is shown to others, although it may be asked on nobody's behalf with the token of some person:
 * definitions are common, because the pins make them so; resources, and what it says to whoever signs in, are somebody's.
 */
export function withoutPersonal(upstream: Upstream, credentials: Pick<Lending, "lent">): Upstream {
  return {
    ...upstream,
    async identity(signal) {
      const identity = await upstream.identity(signal);
      return (await credentials.lent()) ? { ...identity, instructions: undefined } : identity;
    },
    async list(which, signal, capabilities) {
      return which === "resources" && (await credentials.lent()) ? [] : upstream.list(which, signal, capabilities);
    },
    async subscribe(uri, signal) {
      if (!(await credentials.lent())) return upstream.subscribe(uri, signal);
      const message = `Resources of the server "${upstream.name}" belong to each user, so their changes cannot be followed.`;
      throw new DrawbridgeError("upstream_failed", message);
    },
  };
}
