/** Questions in both of the protocol's forms: read, written, named, and asked only of those who said that they can answer. */
import { describe, expect, test } from "vitest";
import type { JsonObject, Outcome, Question } from "../../src/core/call.ts";
import {
  actionOf,
  answerProblem,
  asksMore,
  canBeAsked,
  inputRequired,
  inputResponse,
  keyFor,
  lacking,
  legacyAnswer,
  legacyQuestion,
  modeOf,
  modernQuestion,
  readInputRequired,
  readInputResponses,
  readUrlQuestions,
  withAnswers,
  withState,
} from "../../src/mcp/interaction.ts";

const result = (value: JsonObject): Outcome & { kind: "result" } => ({
  kind: "result",
  result: JSON.stringify(value),
  value,
});
const form = (...names: string[]): Question => ({
  method: "elicitation/create",
  params: JSON.stringify({
    message: "Please",
    requestedSchema: {
      type: "object",
      properties: Object.fromEntries(names.map((name) => [name, { type: "string" }])),
    },
  }),
});
const page: Question = {
  method: "elicitation/create",
  params: '{"mode":"url","message":"Go","url":"https://a.test/"}',
};
const sampling: Question = { method: "sampling/createMessage", params: '{"messages":[],"maxTokens":10}' };
const roots: Question = { method: "roots/list", params: "{}" };

describe("an answer that asks first", () => {
  test("is read with each question's own bytes", () => {
    const text =
      '{"resultType":"input_required", "inputRequests":{"a":{"params":{"n":1.0},"method":"sampling/createMessage"},"b":{"method":"roots/list"}},"requestState":"s"}';
    const asks = readInputRequired({ kind: "result", result: text, value: JSON.parse(text) as JsonObject });
    expect(asks?.state).toBe("s");
    expect([...(asks?.requests ?? [])]).toEqual([
      ["a", { method: "sampling/createMessage", params: '{"n":1.0}' }],
      ["b", roots],
    ]);
  });

  test.each([
    ["a method that is no question", { inputRequests: { a: { method: "tools/call", params: {} } } }],
    ["params that are no object", { inputRequests: { a: { method: "roots/list", params: [] } } }],
    ["requests that are no object", { inputRequests: [] }],
    ["a state that is no string", { requestState: 7 }],
    ["neither questions nor a state", {}],
    [
      "more questions than anybody answers",
      {
        inputRequests: Object.fromEntries(Array.from({ length: 33 }, (_, at) => [`q${at}`, { method: "roots/list" }])),
      },
    ],
  ])("is refused with %s", (_, members) => {
    expect(() => readInputRequired(result({ resultType: "input_required", ...members } as JsonObject))).toThrow(
      expect.objectContaining({ code: "upstream_failed" }),
    );
  });

  test("is none when it is complete, or an error", () => {
    expect(readInputRequired(result({ content: [] }))).toBeUndefined();
    expect(readInputRequired({ kind: "error", code: -32603, message: "no", data: undefined })).toBeUndefined();
    expect(asksMore(result({ resultType: "complete" }))).toBe(false);
    expect(asksMore({ kind: "error", code: -32042, message: "pages", data: undefined })).toBe(true);
  });

  test("is written so that it is read again", () => {
    const requests = new Map([["user_name", form("name")]]);
    const asks = readInputRequired(inputRequired(requests, "state"));
    expect(asks).toEqual({ requests, state: "state" });
  });

  test("gets another state and keeps every other byte", () => {
    const text = '{"x-vendor":1.0,"resultType":"input_required","requestState":"theirs","_meta":{"a":1e2}}';
    const given = withState({ kind: "result", result: text, value: JSON.parse(text) as JsonObject }, "ours");
    expect(given).toMatchObject({ result: text.replace("theirs", "ours"), value: { requestState: "ours" } });
  });
});

describe("the key of a question that came without one", () => {
  test.each([
    [form("name"), "user_name"],
    [form("userName"), "userName"],
    [form("name", "age"), "user_input"],
    [form(), "user_input"],
    [form("with space"), "user_input"],
    [form("__proto__"), "user_input"],
    [page, "user_visit"],
    [sampling, "model_answer"],
    [roots, "client_roots"],
  ])("says who answers what: %j", (question, key) => {
    expect(keyFor(question, new Set())).toBe(key);
    expect(keyFor(question, new Set([key, `${key}_2`]))).toBe(`${key}_3`);
  });
});

describe("a client is asked only what it declared", () => {
  test.each<[JsonObject, Question, JsonObject | undefined]>([
    [{ elicitation: {} }, form("a"), undefined],
    [{ elicitation: { form: {} } }, form("a"), undefined],
    [{ elicitation: { url: {} } }, form("a"), { elicitation: { form: {} } }],
    [{ elicitation: {} }, page, { elicitation: { url: {} } }],
    [{ elicitation: { form: {}, url: {} } }, page, undefined],
    [{}, form("a"), { elicitation: { form: {} } }],
    [{ elicitation: true }, form("a"), { elicitation: { form: {} } }],
    [{ sampling: {} }, sampling, undefined],
    [{ sampling: {} }, { ...sampling, params: '{"tools":[]}' }, { sampling: { tools: {} } }],
    [{ sampling: { tools: {} } }, { ...sampling, params: '{"tools":[],"toolChoice":{}}' }, undefined],
    [{ sampling: {} }, { ...sampling, params: '{"includeContext":"thisServer"}' }, undefined],
    [{ elicitation: {} }, sampling, { sampling: {} }],
    [{ roots: { listChanged: true } }, roots, undefined],
    [{}, roots, { roots: {} }],
  ])("%j %j lacks %j", (declared, question, missing) => {
    expect(lacking(declared, [question])).toEqual(missing);
  });

  test("and what is missing for several is said once", () => {
    expect(lacking({ roots: {} }, [form("a"), page, sampling, roots])).toEqual({
      elicitation: { form: {}, url: {} },
      sampling: {},
    });
    expect(canBeAsked({ tasks: {} })).toBe(false);
    expect(canBeAsked({ roots: {} })).toBe(true);
  });
});

describe("a question in the words of the other revision", () => {
  test("loses the ids that 2026-07-28 does not have, and what this hop cannot do", () => {
    const params =
      '{"mode":"url","elicitationId":"e","url":"https://a.test/","task":{},"_meta":{"progressToken":1},"x":1.0}';
    expect(modernQuestion({ ...page, params }).params).toBe('{"mode":"url","url":"https://a.test/","x":1.0}');
    const kept = '{"_meta":{"progressToken":1,"a.test/kept":1.0}}';
    expect(modernQuestion({ ...roots, params: kept }).params).toBe('{"_meta":{"a.test/kept":1.0}}');
  });

  test("gets the id that 2025-11-25 wants for a page, and keeps one that it has", () => {
    expect(JSON.parse(legacyQuestion(page, () => "new").params)).toMatchObject({ elicitationId: "new", mode: "url" });
    const own = legacyQuestion({ ...page, params: '{"mode":"url","elicitationId":"own"}' }, () => "new");
    expect(JSON.parse(own.params)).toMatchObject({ elicitationId: "own" });
    expect(legacyQuestion(form("a"), () => "new")).toEqual(form("a"));
  });

  test("is read from an error that names pages to open", () => {
    const data = (elicitations: unknown) => JSON.stringify({ elicitations });
    const error = (text: string | undefined): Outcome => ({ kind: "error", code: -32042, message: "m", data: text });
    const entry = { mode: "url", elicitationId: "e", url: "https://a.test/", message: "Go" };
    expect(readUrlQuestions(error(data([entry])))).toEqual([
      { method: "elicitation/create", params: JSON.stringify(entry) },
    ]);
    for (const useless of [undefined, "{}", data([]), data("x"), data([{ url: 1 }]), "7"])
      expect(readUrlQuestions(error(useless))).toBeUndefined();
  });
});

describe("an answer", () => {
  test.each([
    [form("a"), '{"action":"accept","content":{"a":"b"}}', undefined],
    [form("a"), '{"action":"decline"}', undefined],
    [form("a"), '{"action":"perhaps"}', /action/],
    [form("a"), '{"action":"accept","content":[]}', /content/],
    [form("a"), "12345", /object/],
    [form("a"), "null", /object/],
    [sampling, '{"role":"assistant","model":"m","content":{"type":"text","text":"x"}}', undefined],
    [sampling, '{"role":"assistant","content":{}}', /model/],
    [roots, '{"roots":[{"uri":"file:///x"}]}', undefined],
    [roots, '{"roots":[7]}', /roots/],
    [roots, "{}", /roots/],
  ])("to %j of the form %s", (question, answer, problem) => {
    if (problem === undefined) expect(answerProblem(question, answer)).toBeUndefined();
    else expect(answerProblem(question, answer)).toMatch(problem);
  });

  test("keeps the client's bytes on its way to a server with a handshake", () => {
    const text = '{"action":"accept", "content":{"n":1.0}}';
    expect(legacyAnswer(text)).toEqual({ kind: "result", result: text });
    expect(legacyAnswer('{"resultType":"complete","roots":[]}')).toEqual({ kind: "result", result: '{"roots":[]}' });
  });

  test("that is an error is a dismissed elicitation for 2026-07-28, and has no word there for the others", () => {
    const error = { kind: "error", code: -1, message: "rejected", data: undefined } as const;
    expect(inputResponse(form("a"), error)).toBe('{"action":"cancel"}');
    expect(inputResponse(sampling, error)).toBeUndefined();
    expect(actionOf(error)).toBe("failed");
    expect(actionOf({ kind: "result", result: '{"action":"decline"}' })).toBe("declined");
    expect(actionOf({ kind: "result", result: '{"roots":[]}' })).toBe("answered");
    expect([modeOf(page), modeOf(form("a")), modeOf(roots)]).toEqual(["url", "form", undefined]);
  });

  test("comes in an object, and goes out in one with the request's other members as they were", () => {
    expect([...readInputResponses('{"a":{"x":1.0},"b":7}')]).toEqual([
      ["a", '{"x":1.0}'],
      ["b", "7"],
    ]);
    for (const wrong of ["null", "[]", "7", '"x"']) expect(() => readInputResponses(wrong)).toThrow(/inputResponses/);
    const forward = new Map([
      ["name", '"t"'],
      ["requestState", '"old"'],
    ]);
    expect([...withAnswers(forward, '{"a":{}}', undefined)]).toEqual([
      ["name", '"t"'],
      ["inputResponses", '{"a":{}}'],
    ]);
  });
});
