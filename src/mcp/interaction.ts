/**
 * What a server may ask the client of a call, in the two forms the protocol has for it: requests of the server (2025-11-25 and
 * before) and `inputRequests` of an answer that is not the last one (2026-07-28, Multi Round-Trip Requests). Shapes only: who waits
 * for whom is kept in `gateway/interaction.ts`.
 */
import {
  type JsonObject,
  type Outcome,
  QUESTION_METHODS,
  type Question,
  type QuestionAnswer,
  type QuestionMethod,
} from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { isObject, memberTexts, objectText } from "./json-text.ts";

/** An answer that asks first (2026-07-28, `InputRequiredResult`): questions by their server's keys. */
export interface InputRequired {
  readonly requests: ReadonlyMap<string, Question>;
  /** What the server wants to see again with the answers. */
  readonly state: string | undefined;
}

/** Requests that may be answered with questions (2026-07-28, Supported Requests). */
const MAY_ASK: ReadonlySet<string> = new Set(["tools/call", "prompts/get", "resources/read"]);
export const mayAsk = (method: string) => MAY_ASK.has(method);

export const MISSING_CAPABILITY = -32021;
/** 2025-11-25: "first open these pages, then call again". 2026-07-28 has questions in its place. */
export const URL_ELICITATION_REQUIRED = -32042;

/** Whether an outcome is more than an answer: it asks, or says what the client lacks. Cheap, for every call. */
export function asksMore(outcome: Outcome): boolean {
  if (outcome.kind === "result") return outcome.value["resultType"] === "input_required";
  return outcome.code === MISSING_CAPABILITY || outcome.code === URL_ELICITATION_REQUIRED;
}

/** Reads a result that asks; undefined for any other outcome. Throws `upstream_failed` when it asks what the protocol does not have. */
export function readInputRequired(outcome: Outcome): InputRequired | undefined {
  if (outcome.kind === "error" || outcome.value["resultType"] !== "input_required") return undefined;
  const { inputRequests, requestState: state } = outcome.value;
  const requests = new Map<string, Question>();
  if (inputRequests !== undefined) {
    const texts = memberTexts(memberTexts(outcome.result)?.get("inputRequests") ?? "");
    if (texts === undefined || !isObject(inputRequests)) throw strange("its `inputRequests` is no object");
    for (const [key, text] of texts) {
      const question = readQuestion(text);
      if (question === undefined) throw strange(`the question ${key.slice(0, 64)} is none of the protocol's`);
      requests.set(key, question);
    }
  }
  if (requests.size > MAX_QUESTIONS) throw strange(`it asks more than ${MAX_QUESTIONS} questions at once`);
  if (state !== undefined && typeof state !== "string") throw strange("its `requestState` is no string");
  if (requests.size === 0 && state === undefined) throw strange("it asks nothing and has no state");
  return { requests, state };
}

/** So many questions of one call may be open at a time. */
export const MAX_QUESTIONS = 32;

function readQuestion(text: string): Question | undefined {
  const members = memberTexts(text);
  const method = parsed(members?.get("method") ?? "null");
  const params = members?.get("params") ?? "{}";
  const known = QUESTION_METHODS.find((one) => one === method);
  return known !== undefined && isObject(parsed(params)) ? { method: known, params } : undefined;
}

function strange(detail: string): DrawbridgeError {
  return new DrawbridgeError("upstream_failed", "The server asked for something that the protocol does not have.", {
    detail,
  });
}

/** A result that asks, as we write it. */
export function inputRequired(requests: ReadonlyMap<string, Question>, state: string): Outcome {
  const texts = new Map<string, string>();
  for (const [key, { method, params }] of requests) texts.set(key, `{"method":"${method}","params":${params}}`);
  const result = `{"resultType":"input_required","inputRequests":${objectText(texts)},"requestState":${JSON.stringify(state)}}`;
  return { kind: "result", result, value: JSON.parse(result) as JsonObject };
}

/** The same result with another state; everything else as the server wrote it. */
export function withState(outcome: Outcome & { kind: "result" }, state: string): Outcome {
  const members = memberTexts(outcome.result) ?? new Map<string, string>();
  members.set("requestState", JSON.stringify(state));
  return { kind: "result", result: objectText(members), value: { ...outcome.value, requestState: state } };
}

/** The questions of a `-32042` error: pages that the user has to open first. Undefined for any other outcome. */
export function readUrlQuestions(outcome: Outcome): readonly Question[] | undefined {
  if (outcome.kind === "result" || outcome.code !== URL_ELICITATION_REQUIRED || outcome.data === undefined)
    return undefined;
  const data = parsed(outcome.data);
  const elicitations = isObject(data) && Array.isArray(data["elicitations"]) ? data["elicitations"] : [];
  const asked = elicitations
    .filter((one: unknown) => isObject(one) && typeof one["url"] === "string")
    .map((one): Question => ({ method: "elicitation/create", params: JSON.stringify({ mode: "url", ...one }) }));
  return asked.length === 0 || asked.length > MAX_QUESTIONS ? undefined : asked;
}

/** How a question is put to people and records: an elicitation is a form or a page to open. */
export function modeOf(question: Question): "form" | "url" | undefined {
  if (question.method !== "elicitation/create") return undefined;
  return paramsOf(question)["mode"] === "url" ? "url" : "form";
}

/** Whether somebody who declared this can be asked anything at all. */
export function canBeAsked(declared: JsonObject): boolean {
  return declared["elicitation"] !== undefined || declared["sampling"] !== undefined || declared["roots"] !== undefined;
}

/** What a client would have had to declare to be asked these; undefined when it did. */
export function lacking(declared: JsonObject, questions: Iterable<Question>): JsonObject | undefined {
  const missing: Record<string, Record<string, JsonObject>> = {};
  for (const question of questions) {
    const [name, ...inner] = NEEDS[question.method](paramsOf(question));
    const has = Object.hasOwn(declared, name) ? declared[name] : undefined;
    const lacks = inner.filter((one) => !isObject(has) || !declares(has, one));
    if (isObject(has) && lacks.length === 0) continue;
    missing[name] ??= {};
    for (const one of lacks) missing[name][one] = {};
  }
  return Object.keys(missing).length === 0 ? undefined : missing;
}

/**
 * The capability a question needs, and the parts of it. `includeContext` is not among them: a server SHOULD only use it where it was
 * declared, but servers use it with everybody, and a client may ignore it.
 */
const NEEDS: Record<QuestionMethod, (params: JsonObject) => readonly [string, ...string[]]> = {
  "elicitation/create": ({ mode }) => ["elicitation", mode === "url" ? "url" : "form"],
  "sampling/createMessage": ({ tools, toolChoice }) =>
    tools === undefined && toolChoice === undefined ? ["sampling"] : ["sampling", "tools"],
  "roots/list": () => ["roots"],
};

/** An `elicitation` that names no mode means forms (2025-11-25 and 2026-07-28, Elicitation, Capabilities). */
function declares(has: JsonObject, part: string): boolean {
  return isObject(has[part]) || (part === "form" && has["form"] === undefined && has["url"] === undefined);
}

/** Whether `declared` has all of `required`, at every depth. */
export function covers(declared: JsonObject, required: JsonObject): boolean {
  return Object.entries(required).every(([name, inner]) => {
    const has = Object.hasOwn(declared, name) ? declared[name] : undefined;
    return isObject(inner) ? isObject(has) && covers(has, inner) : has !== undefined;
  });
}

/** What the server of a `-32021` error says it needs. */
export function readRequiredCapabilities(outcome: Outcome): JsonObject | undefined {
  if (outcome.kind === "result" || outcome.code !== MISSING_CAPABILITY || outcome.data === undefined) return undefined;
  const data = parsed(outcome.data);
  const required = isObject(data) ? data["requiredCapabilities"] : undefined;
  return isObject(required) ? required : undefined;
}

/**
 * A key for a question that came without one. It says who answers what (`user_name`, `model_answer`, `client_roots`), depends on
 * the question alone, and is numbered from the second of its kind on.
 */
export function keyFor(question: Question, taken: { has(key: string): boolean }): string {
  const base = baseKey(question);
  let key = base;
  for (let number = 2; taken.has(key); number++) key = `${base}_${number}`;
  return key;
}

function baseKey(question: Question): string {
  if (question.method === "sampling/createMessage") return "model_answer";
  if (question.method === "roots/list") return "client_roots";
  const { mode, requestedSchema } = paramsOf(question);
  if (mode === "url") return "user_visit";
  const properties = isObject(requestedSchema) && isObject(requestedSchema["properties"]) ? requestedSchema : undefined;
  const [name, ...others] = Object.keys((properties?.["properties"] as JsonObject | undefined) ?? {});
  if (name === undefined || others.length > 0 || !/^[A-Za-z]\w{0,39}$/.test(name)) return "user_input";
  return name.startsWith("user") ? name : `user_${name}`;
}

/** A question of a server with a handshake, for a client of 2026-07-28: without what that revision, or this hop, does not have. */
export function modernQuestion(question: Question): Question {
  return reworded(question, (members) => {
    members.delete("elicitationId");
  });
}

/** A question for a client of 2025-11-25 or before; a page to open gets the id that revision wants. */
export function legacyQuestion(question: Question, elicitationId: () => string): Question {
  return reworded(question, (members) => {
    if (question.method === "elicitation/create" && parsed(members.get("mode") ?? "null") === "url")
      if (!members.has("elicitationId")) members.set("elicitationId", JSON.stringify(elicitationId()));
  });
}

/** Tasks and progress of a question would need a way back that this hop does not have. */
function reworded(question: Question, change: (members: Map<string, string>) => void): Question {
  const members = memberTexts(question.params) ?? new Map<string, string>();
  members.delete("task");
  const meta = memberTexts(members.get("_meta") ?? "{}");
  if (meta?.delete("progressToken") === true) {
    if (meta.size > 0) members.set("_meta", objectText(meta));
    else members.delete("_meta");
  }
  change(members);
  return { method: question.method, params: objectText(members) };
}

/** A question as a request of ours to a legacy client. */
export function questionText(id: string, { method, params }: Question): string {
  return `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"method":"${method}","params":${params}}`;
}

/** The members of `inputResponses`, as JSON texts by key. Throws `invalid_params` when it is no object. */
export function readInputResponses(text: string): ReadonlyMap<string, string> {
  const responses = isObject(parsed(text)) ? memberTexts(text) : undefined;
  if (responses === undefined) throw new DrawbridgeError("invalid_params", "`inputResponses` must be an object.");
  return responses;
}

/** What is wrong with an answer, in a few words; undefined for one of the form that its question wants. */
export function answerProblem({ method }: Question, answer: string): string | undefined {
  const value = parsed(answer);
  if (!isObject(value)) return "must be an object";
  return PROBLEMS[method](value);
}

const ACTIONS: readonly unknown[] = ["accept", "decline", "cancel"];
const PROBLEMS: Record<QuestionMethod, (value: JsonObject) => string | undefined> = {
  "elicitation/create": ({ action, content }) => {
    if (!ACTIONS.includes(action)) return "needs an `action`: accept, decline or cancel";
    return content === undefined || isObject(content) ? undefined : "`content` must be an object";
  },
  "sampling/createMessage": ({ role, content, model }) => {
    if (typeof role !== "string" || typeof model !== "string") return "needs `role` and `model`, strings";
    return typeof content === "object" && content !== null ? undefined : "needs `content`";
  },
  "roots/list": ({ roots }) =>
    Array.isArray(roots) && roots.every((root: unknown) => isObject(root) && typeof root["uri"] === "string")
      ? undefined
      : "needs `roots`, a list of objects with a `uri`",
};

/** An answer of a client of 2026-07-28 as a legacy client would have given it. */
export function legacyAnswer(answer: string): QuestionAnswer {
  const members = memberTexts(answer);
  return { kind: "result", result: members?.delete("resultType") === true ? objectText(members) : answer };
}

/**
 * The answer of a legacy client as an input response. One that answered an elicitation with an error has dismissed it; for the
 * others the revision has no word, so there is undefined.
 */
export function inputResponse({ method }: Question, answer: QuestionAnswer): string | undefined {
  if (answer.kind === "result") return answer.result;
  return method === "elicitation/create" ? '{"action":"cancel"}' : undefined;
}

/** What records say about an answer: what the user did, or just that there was one. */
export function actionOf(answer: QuestionAnswer): "accepted" | "declined" | "cancelled" | "answered" | "failed" {
  if (answer.kind === "error") return "failed";
  const value = parsed(answer.result);
  const action = isObject(value) ? value["action"] : undefined;
  return action === "accept"
    ? "accepted"
    : action === "decline"
      ? "declined"
      : action === "cancel"
        ? "cancelled"
        : "answered";
}

/** The members of `params` for the next round: the same request with answers and state, both as JSON text; without where undefined. */
export function withAnswers(
  forward: ReadonlyMap<string, string>,
  responses: string | undefined,
  state: string | undefined,
): ReadonlyMap<string, string> {
  const members = new Map(forward);
  members.delete("inputResponses");
  members.delete("requestState");
  if (responses !== undefined) members.set("inputResponses", responses);
  if (state !== undefined) members.set("requestState", state);
  return members;
}

function paramsOf(question: Question): JsonObject {
  const params = parsed(question.params);
  return isObject(params) ? params : {};
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
