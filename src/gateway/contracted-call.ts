/** A call under its contract: what the server gets of what the client sends, and what the client gets of what the server says. */
import { accepts, patience, type Schema } from "../contract/accepts.ts";
import { argumentsIn, type Contract } from "../contract/contract.ts";
import { isDoubtful, parseExactly } from "../contract/exact.ts";
import type { Projected } from "../contract/project.ts";
import type {
  CallNotification,
  JsonObject,
  JsonValue,
  Outcome,
  PermittedCall,
  Principal,
  Replies,
} from "../core/call.ts";
import { DrawbridgeError, ERRORS } from "../core/errors.ts";
import type { InboundRequest } from "../mcp/inbound.ts";
import { asksMore, readRequiredCapabilities, readUrlQuestions } from "../mcp/interaction.ts";
import { isObject, memberTexts, objectText } from "../mcp/json-text.ts";
import { readCreated } from "../mcp/tasks.ts";
import type { Upstream } from "../upstream/upstream.ts";

/** What is sent to a server. */
export interface Sent {
  readonly method: string;
  readonly forward: ReadonlyMap<string, string>;
}

/**
 * What the server gets: `forward` with the arguments that the contract makes of the client's. Throws `invalid_params` for what it does
 * not accept; the arguments of a tool call were checked before.
 */
export function sentUnder(
  contract: Contract,
  inbound: InboundRequest,
  args: JsonObject,
  forward: ReadonlyMap<string, string>,
  by: Principal,
): Sent {
  const { method } = inbound;
  if (method === "tools/call") return { method, forward: withArguments(contract, args, forward, by) };
  if (method === "prompts/get") {
    accepted(contract, args);
    return { method, forward: withArguments(contract, args, forward, by) };
  }
  if (method === "completion/complete") return { method, forward: withArgumentName(contract, inbound, forward) };
  if (contract.kind !== "tool") return { method, forward };
  const values = argumentsIn(contract, String(inbound.params["uri"])) ?? {};
  accepted(contract, values);
  const { uri: _, ...others } = Object.fromEntries(forward);
  const call = new Map([
    ["name", JSON.stringify(contract.source.name)],
    ["arguments", JSON.stringify(values)],
    ...Object.entries(others),
  ]);
  return { method: "tools/call", forward: withArguments(contract, values, call, by) };
}

function accepted({ name, narrowing }: Contract, args: JsonObject): void {
  const problems = narrowing?.check(args);
  if (problems !== undefined)
    throw new DrawbridgeError("invalid_params", `The arguments of ${name} were refused: ${problems.join("; ")}.`);
}

function withArguments(
  { narrowing }: Contract,
  args: JsonObject,
  forward: ReadonlyMap<string, string>,
  by: Principal,
): ReadonlyMap<string, string> {
  if (narrowing === undefined) return forward;
  const text = forward.get("arguments");
  const exact = text !== undefined && !narrowing.plain && isDoubtful(text) ? (parseExactly(text) as JsonObject) : args;
  const sent = narrowing.toServer(exact, by);
  return narrowing.plain ? forward : new Map(forward).set("arguments", JSON.stringify(sent));
}

// ---- completion ----

/** The answer to a completion that no server is asked about; undefined when one is. Throws `invalid_params` for an argument that clients do not have. */
export function completedHere(contract: Contract, inbound: InboundRequest): string | undefined {
  if (inbound.method !== "completion/complete") return undefined;
  const { argument, schema } = argumentOf(contract, inbound);
  if (contract.kind !== "tool") return undefined;
  // Servers complete nothing of tools; what can be said is in the contract.
  const { value = "" } = argument as { value?: unknown };
  const known = isObject(schema) && Array.isArray(schema["enum"]) ? schema["enum"] : [];
  const values = known.map(String).filter((one) => one.startsWith(String(value)));
  return JSON.stringify({
    completion: { values: values.slice(0, MAX_VALUES), total: values.length, hasMore: values.length > MAX_VALUES },
  });
}

/** MCP, Completion. */
const MAX_VALUES = 100;

function argumentOf(
  contract: Contract,
  inbound: InboundRequest,
): { readonly argument: JsonObject; readonly schema: JsonValue | undefined } {
  const { argument } = inbound.params;
  const name = isObject(argument) ? argument["name"] : undefined;
  const { narrowing, uri } = contract;
  const known = narrowing === undefined ? uri?.variables : [...narrowing.names.keys()];
  if (!isObject(argument) || typeof name !== "string" || known?.includes(name) === false)
    throw new DrawbridgeError("invalid_params", `${contract.name} has no such argument.`);
  const properties = (narrowing?.served["properties"] ?? {}) as JsonObject;
  return { argument, schema: Object.hasOwn(properties, name) ? (properties[name] as JsonValue) : undefined };
}

/** The argument, and those that are known already, as the server calls them. */
function withArgumentName(
  { narrowing }: Contract,
  { params }: InboundRequest,
  forward: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  const { argument, context } = params;
  if (narrowing === undefined || !isObject(argument)) return forward;
  const result = new Map(forward);
  const name = narrowing.names.get(String(argument["name"])) ?? "";
  result.set("argument", JSON.stringify({ ...argument, name }));
  if (isObject(context) && isObject(context["arguments"])) {
    const known = Object.entries(context["arguments"]).flatMap(([key, value]) => {
      const its = narrowing.names.get(key);
      return its === undefined ? [] : [[its, value] as const];
    });
    result.set("context", JSON.stringify({ ...context, arguments: Object.fromEntries(known) }));
  }
  return result;
}

/** Values that the contract would refuse are none to propose. */
function narrowedValues(contract: Contract, inbound: InboundRequest, outcome: Outcome & { kind: "result" }): Outcome {
  const { completion } = outcome.value;
  const { schema } = argumentOf(contract, inbound);
  if (schema === undefined || !isObject(completion) || !Array.isArray(completion["values"])) return outcome;
  const root = contract.narrowing?.served ?? {};
  const all = completion["values"] as readonly JsonValue[];
  const patient = patience();
  const values = all.filter((one) => accepts(one, { schema: schema as Schema, root }, patient) !== false);
  return values.length === all.length ? outcome : resultOf({ completion: { values } });
}

// ---- answers ----

/** What of an outcome leaves, and why not more of it: one sentence for the operator. */
export interface Shaped {
  readonly outcome: Outcome;
  readonly withheld: string | undefined;
}

/** What the client gets of the answer to a request about something under contract. */
export function shapedUnder(contract: Contract, inbound: InboundRequest, outcome: Outcome): Shaped {
  const { projection } = contract;
  if (inbound.method === "completion/complete" && outcome.kind === "result")
    return { outcome: narrowedValues(contract, inbound, outcome), withheld: undefined };
  if (outcome.kind === "error")
    return { outcome: projection?.strict === true ? quietError(outcome) : outcome, withheld: undefined };
  if (asksMore(outcome))
    return { outcome: projection?.strict === true ? onlyAsking(outcome) : outcome, withheld: undefined };
  const asResource = contract.kind === "tool" && inbound.method === "resources/read";
  if (projection === undefined)
    return asResource ? failed("its contract has no `output`") : { outcome, withheld: undefined };
  // Only a call can become a task; whatever else looks like one is shaped as what was asked for.
  if (inbound.method === "tools/call" && readCreated(outcome) !== undefined) return { outcome, withheld: undefined };
  const { result, value } = outcome;
  switch (inbound.method) {
    case "tools/call":
    case "tasks/result":
      return shaped(projection.tool(result, value), true);
    case "tasks/get":
      return taskShaped(contract, outcome);
    case "resources/read":
      if (!asResource) return shaped(projection.resource(result), false);
      return shaped(projection.toolAsResource(result, String(inbound.params["uri"])), false);
    case "prompts/get":
      return shaped(projection.prompt(result), false);
    default:
      return { outcome, withheld: undefined };
  }
}

function shaped({ result, value, withheld }: Projected, ofTool: boolean): Shaped {
  if (withheld !== undefined && !ofTool) return failed(withheld);
  return { outcome: { kind: "result", result, value }, withheld };
}

/** 2026-07-28: the state of a task that is over has the result in it. */
function taskShaped({ projection }: Contract, outcome: Outcome & { kind: "result" }): Shaped {
  if (projection === undefined) return { outcome, withheld: undefined };
  const members = memberTexts(outcome.result) ?? new Map<string, string>();
  if (projection.strict) {
    members.delete("statusMessage");
    if (members.has("error"))
      members.set("error", JSON.stringify({ code: ERRORS.upstream_failed.rpc, message: REPORTED }));
  }
  const inner = members.get("result");
  if (inner === undefined)
    return { outcome: resultOf(JSON.parse(objectText(members)) as JsonObject), withheld: undefined };
  const { result, value, withheld } = projection.tool(inner);
  members.set("result", result);
  return {
    outcome: { kind: "result", result: objectText(members), value: { ...outcome.value, result: value } },
    withheld,
  };
}

function failed(reason: string): Shaped {
  const message =
    "The server's answer is not of the form that was agreed on, so it is withheld. The operator can see why.";
  return { outcome: { kind: "error", code: ERRORS.upstream_failed.rpc, message, data: undefined }, withheld: reason };
}

const REPORTED = "The server reported an error.";

/** What a server writes into an error may be anything: a query, a path, a name. */
function quietError(outcome: Outcome & { kind: "error" }): Outcome {
  const required = readRequiredCapabilities(outcome);
  const asks = readUrlQuestions(outcome) === undefined ? undefined : JSON.parse(outcome.data ?? "{}");
  // What the protocol needs to go on, and none of the words around it.
  const kept =
    asks !== undefined
      ? { elicitations: (asks as JsonObject)["elicitations"] }
      : required && { requiredCapabilities: required };
  return { ...outcome, message: REPORTED, data: kept && JSON.stringify(kept) };
}

function onlyAsking(outcome: Outcome): Outcome {
  if (outcome.kind === "error") return outcome;
  const members = memberTexts(outcome.result) ?? new Map<string, string>();
  const kept = new Map([...members].filter(([key]) => ASKING.has(key)));
  return kept.size === members.size
    ? outcome
    : { kind: "result", result: objectText(kept), value: JSON.parse(objectText(kept)) as JsonObject };
}
const ASKING: ReadonlySet<string> = new Set(["resultType", "inputRequests", "requestState"]);

const resultOf = (value: JsonObject): Outcome => ({ kind: "result", result: JSON.stringify(value), value });

/** The server as a call under this contract hears it: how far it is, and nothing in words where the contract names fields. */
export function heardUnder(contract: Contract, upstream: Upstream): Upstream {
  if (contract.projection?.strict !== true) return upstream;
  const send = (permitted: PermittedCall, replies: Replies, signal: AbortSignal) => {
    const notify = (said: CallNotification) => {
      if (said.method !== "notifications/progress") return;
      const members = memberTexts(said.params);
      if (members?.delete("message") === true) replies.notify({ ...said, params: objectText(members) });
      else if (members !== undefined) replies.notify(said);
    };
    const heard = Object.create(replies, { notify: { value: notify } }) as Replies;
    return upstream.send(permitted, heard, signal);
  };
  return Object.create(upstream, { send: { value: send } }) as Upstream;
}
