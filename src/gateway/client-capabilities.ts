/** What an answer asks of the client, compared with what the client declared that it can do (2026-07-28, basic, `_meta`). */
import type { JsonObject, Outcome } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { InboundRequest } from "../mcp/inbound.ts";
import { isObject } from "../mcp/json-text.ts";

const MISSING_CAPABILITY = -32021;

/**
 * The error to answer instead of an outcome that needs a capability which the client did not declare; undefined when the client
 * can take the outcome. We declare none to servers, so most of them say themselves what they would need.
 */
export function asksTooMuch(inbound: InboundRequest, outcome: Outcome): DrawbridgeError | undefined {
  const required = requiredBy(outcome);
  if (required === undefined) return undefined;
  if (inbound.clientCapabilities === undefined) {
    return outcome.kind === "error"
      ? undefined
      : new DrawbridgeError(
          "upstream_failed",
          "The server asked a question that this client's revision cannot be asked.",
        );
  }
  if (covers(inbound.clientCapabilities, required)) return undefined;
  const names = Object.keys(required).join(", ");
  return new DrawbridgeError(
    "missing_client_capability",
    `The server needs a client that can do this: ${names}. The request did not declare it.`,
    { data: { requiredCapabilities: required } },
  );
}

function requiredBy(outcome: Outcome): JsonObject | undefined {
  if (outcome.kind === "error") {
    if (outcome.code !== MISSING_CAPABILITY || outcome.data === undefined) return undefined;
    const data: unknown = JSON.parse(outcome.data);
    const required = isObject(data) ? data["requiredCapabilities"] : undefined;
    return isObject(required) ? required : undefined;
  }
  const { resultType, inputRequests } = outcome.value;
  if (resultType !== "input_required") return undefined;
  const questions = isObject(inputRequests) ? Object.values(inputRequests) : [];
  return Object.assign({}, ...questions.map(capabilityFor)) as JsonObject;
}

/** What a client must have declared to be asked this. */
function capabilityFor(question: unknown): JsonObject {
  const { method, params } = isObject(question) ? question : {};
  switch (method) {
    case "elicitation/create":
      return { elicitation: isObject(params) && params["mode"] === "url" ? { url: {} } : {} };
    case "sampling/createMessage":
      return { sampling: {} };
    case "roots/list":
      return { roots: {} };
    default:
      return { [String(method)]: {} };
  }
}

function covers(declared: JsonObject, required: JsonObject): boolean {
  return Object.entries(required).every(([name, inner]) => {
    const has = Object.hasOwn(declared, name) ? declared[name] : undefined;
    return isObject(inner) ? isObject(has) && covers(has, inner) : has !== undefined;
  });
}
