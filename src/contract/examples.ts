/**
 * The examples of a contract, run: what the server would get of a client's arguments, or why they are refused, and what the client
 * would get of a server's answer. Without a server, the example says what it answers; with one, it does.
 */
import type { JsonObject, JsonValue, Principal } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { canonical } from "./accepts.ts";
import { type Hands, resultOf } from "./carry-out.ts";
import type { Contract } from "./contract.ts";
import type { Projected } from "./project.ts";
import type { ContractExample } from "./settings.ts";

/** What did not come about as the example says. */
export interface Mismatch {
  readonly about: "sends" | "refused" | "returns" | "answer";
  /** Undefined: the example expects nothing of this. */
  readonly expected: JsonValue | undefined;
  readonly found: JsonValue;
}

/** What one call came to. */
export interface Tried {
  /** The arguments of each call of a server, in order; of undoing nothing. */
  readonly sent: readonly JsonObject[];
  /** What the client would get: the document, or text that is none. Undefined when nothing was answered. */
  readonly returned: JsonValue | undefined;
  /** The answer as a client gets it, in bytes; 0 without one. */
  readonly bytes: number;
  /** Why the call was refused or failed. */
  readonly refused: string | undefined;
}

/** Answers a call with a `CallToolResult`; undefined when it has no answer. Rejects as a server does. */
export type Answering = (server: string, tool: string, args: JsonObject) => Promise<JsonObject | undefined>;

/** Runs one example. Nothing is returned for one that comes about. `live`: servers answer in place of the example. */
export async function checkExample(
  contract: Contract,
  example: ContractExample,
  live?: Answering,
): Promise<readonly Mismatch[]> {
  const tried = await tryCall(contract, example.arguments, principalOf(example), live ?? answersOf(contract, example));
  const { sent, returned, refused } = tried;
  if (example.refused !== undefined) {
    if (refused?.includes(example.refused) === true) return [];
    return [{ about: "refused", expected: example.refused, found: refused ?? "it is accepted" }];
  }
  const found: Mismatch[] = [];
  // With a server behind it, only what the contract itself decides can be known before.
  const known = live === undefined || contract.composition === undefined;
  const sends = example.sends === undefined ? undefined : [example.sends].flat();
  if (known && sends !== undefined && !same(sends, sent))
    found.push({
      about: "sends",
      expected: example.sends,
      found: contract.composition ? [...sent] : (sent[0] ?? null),
    });
  const answered = live !== undefined || example.answer !== undefined;
  if (refused !== undefined && (answered || sent.length === 0))
    found.push({ about: "answer", expected: undefined, found: refused });
  else if (live === undefined && example.returns !== undefined && !same(example.returns, returned))
    found.push({ about: "returns", expected: example.returns, found: returned ?? null });
  return found;
}

/** Makes one call as the gateway does, without people, limits and records. */
export async function tryCall(
  contract: Contract,
  args: JsonObject,
  by: Principal,
  answering: Answering,
): Promise<Tried> {
  const sent: JsonObject[] = [];
  const refusal = (refused: string): Tried => ({ sent, returned: undefined, bytes: 0, refused });
  const { narrowing, source, composition } = contract;
  const wrong = narrowing?.check(args);
  if (wrong !== undefined) return refusal(wrong.join("; "));
  let own: JsonObject;
  try {
    own = narrowing?.toServer(args, by) ?? args;
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown);
    return refusal(error.detail ?? error.message);
  }
  if (composition !== undefined) return performed(contract, own, by, answering, sent);
  sent.push(own);
  const answer = await answering(source.server, source.name, own);
  if (answer === undefined) return { sent, returned: undefined, bytes: 0, refused: undefined };
  const text = JSON.stringify(answer);
  return outcomeOf(contract.projection?.tool(text) ?? asItIs(text, answer), sent);
}

async function performed(
  { name, composition, projection }: Contract,
  args: JsonObject,
  principal: Principal,
  answering: Answering,
  sent: JsonObject[],
): Promise<Tried> {
  const refusal = (refused: string): Tried => ({ sent, returned: undefined, bytes: 0, refused });
  if (composition === undefined) return refusal("it has no steps");
  const hands: Hands = {
    async call(deed) {
      if (!deed.undoes) sent.push(deed.arguments);
      const value = await answering(deed.server, deed.tool, deed.arguments);
      if (value === undefined)
        throw new DrawbridgeError("upstream_failed", "There is no answer.", {
          detail: "the example has no answer for it",
        });
      return { kind: "result", result: JSON.stringify(value), value };
    },
    keep: async () => {},
    commit: async () => {},
    shape: (result) => projection?.document(result) ?? asItIs("", resultFor(result)),
    told: () => undefined,
    progress: () => {},
  };
  const options = { name, run: "example", signal: new AbortController().signal, pauses: [] };
  const finished = await composition.run({ args, principal }, hands, options);
  return finished.kind === "done"
    ? outcomeOf(finished.projected, sent)
    : refusal(`${finished.message} (${finished.detail})`);
}

function outcomeOf({ value, withheld }: Projected, sent: readonly JsonObject[]): Tried {
  const text = JSON.stringify(value);
  if (withheld !== undefined)
    return {
      sent,
      returned: undefined,
      bytes: Buffer.byteLength(text),
      refused: `the answer is withheld: ${withheld}`,
    };
  const failed = value["isError"] === true ? String(resultOf(JSON.stringify({ ...value, isError: false }))) : undefined;
  return {
    sent,
    returned: value["structuredContent"] ?? resultOf(text),
    bytes: Buffer.byteLength(text),
    refused: failed,
  };
}

const asItIs = (result: string, value: JsonObject): Projected => ({ result, value, cut: [], withheld: undefined });

/** A `CallToolResult` of a document or a text, as a server would write it. */
export function resultFor(answer: JsonValue): JsonObject {
  const text = typeof answer === "string" ? answer : JSON.stringify(answer);
  return { content: [{ type: "text", text }] };
}

/** The answers that an example has, one after the other. */
function answersOf({ composition }: Contract, { answer }: ContractExample): Answering {
  const answers = answer === undefined ? [] : composition === undefined ? [answer] : [answer].flat();
  let at = 0;
  return async () => {
    const next = answers[at++];
    return next === undefined ? undefined : resultFor(next as JsonValue);
  };
}

/** Nobody, unless the example says who. */
export function principalOf({ principal = {} }: Pick<ContractExample, "principal">): Principal {
  const text = (name: string) => (typeof principal[name] === "string" ? String(principal[name]) : "someone");
  const list = (name: string) => (Array.isArray(principal[name]) ? (principal[name] as JsonValue[]).map(String) : []);
  const claims = principal["claims"];
  return {
    subject: text("subject"),
    client: text("client"),
    actors: [],
    groups: list("groups"),
    scopes: list("scopes"),
    claims: typeof claims === "object" && claims !== null && !Array.isArray(claims) ? (claims as JsonObject) : {},
    grant: undefined,
    tokenId: "example",
    expiresAt: Number.MAX_SAFE_INTEGER,
  };
}

const same = (one: JsonValue | readonly JsonValue[] | undefined, other: JsonValue | readonly JsonValue[] | undefined) =>
  canonical(one as JsonValue | undefined) === canonical(other as JsonValue | undefined);
