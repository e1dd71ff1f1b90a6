/** The two forms that tasks have, read and written. */
import { describe, expect, test } from "vitest";
import type { JsonObject, Outcome } from "../../src/core/call.ts";
import { objectText } from "../../src/mcp/json-text.ts";
import {
  acceptsTasks,
  hadResult,
  hidden,
  isOver,
  makesTasks,
  questionOfTask,
  readCreated,
  readTask,
  relatedTo,
  taskMembers,
  taskOf,
  taskSupport,
  underOurName,
} from "../../src/mcp/tasks.ts";

const RELATED = "io.modelcontextprotocol/related-task";
const result = (text: string): Outcome => ({ kind: "result", result: text, value: JSON.parse(text) as JsonObject });
const error = (message: string, data?: string): Outcome => ({ kind: "error", code: -32602, message, data });
const legacy = '"taskId":"abcdef","status":"working","createdAt":"c","lastUpdatedAt":"l","ttl":1000,"pollInterval":5';
const modern =
  '"taskId":"abcdef","status":"working","createdAt":"c","lastUpdatedAt":"l","ttlMs":1000,"pollIntervalMs":5';

describe("an answer to tools/call", () => {
  test("is a task in either form, and says how long it is kept and how often it wants to be asked", () => {
    for (const made of [
      readCreated(result(`{"task":{${legacy}}}`)),
      readCreated(result(`{"resultType":"task",${modern}}`)),
    ])
      expect(made).toMatchObject({ id: "abcdef", status: "working", ttlMs: 1000, pollMs: 5 });
  });

  test("is a result when it has content, or its task is none", () => {
    for (const text of [
      '{"content":[]}',
      `{"content":[],"task":{${legacy}}}`,
      '{"task":"abc"}',
      '{"task":{"taskId":7,"status":"working"}}',
      '{"task":{"taskId":"abc","status":"dancing"}}',
      `{"resultType":"complete",${modern}}`,
    ])
      expect(readCreated(result(text)), text).toBeUndefined();
    expect(readCreated(error("no"))).toBeUndefined();
  });
});

describe("the state of a task", () => {
  const state = (text: string) => {
    const task = readTask(result(text));
    if (task === undefined) throw new Error("no task");
    return task;
  };
  const written = (text: string, era: "legacy" | "modern", more = {}) =>
    JSON.parse(objectText(taskMembers(state(text), "ours", era, { ttlMs: 500, now: 0, ...more }))) as JsonObject;

  test("is written in the words of the client's era, without what came of it, and no longer-lived than we keep it", () => {
    const vendor = '"vendor":1.0,"result":{"content":[]},"_meta":{"a":1},"statusMessage":"abcdef works"';
    const common = {
      taskId: "ours",
      status: "working",
      createdAt: "c",
      lastUpdatedAt: "l",
      statusMessage: "ours works",
      vendor: 1,
    };
    for (const text of [`{${legacy},${vendor}}`, `{${modern},${vendor}}`]) {
      expect(written(text, "legacy")).toEqual({ ...common, ttl: 500, pollInterval: 5 });
      expect(written(text, "modern")).toEqual({ ...common, ttlMs: 500, pollIntervalMs: 5 });
    }
  });

  test("has its times even when the server forgot them, and a lifetime even when the server set none", () => {
    const told = written('{"taskId":"t","status":"failed","ttl":null}', "legacy", { status: "cancelled" });
    const epoch = "1970-01-01T00:00:00.000Z";
    expect(told).toEqual({ taskId: "ours", status: "cancelled", createdAt: epoch, lastUpdatedAt: epoch, ttl: 500 });
  });

  test("is over when it cannot change any more", () => {
    const over = ["working", "input_required", "completed", "failed", "cancelled"].map((status) =>
      isOver(state(`{"taskId":"t","status":"${status}"}`)),
    );
    expect(over).toEqual([false, false, true, true, true]);
  });

  test("tells when nobody needs it at its server any more", () => {
    expect(hadResult("tasks/result", error("no"))).toBe(true);
    expect(hadResult("tasks/get", result('{"taskId":"t","status":"completed"}'))).toBe(false);
    expect(hadResult("tasks/get", result('{"taskId":"t","status":"completed","result":{}}'))).toBe(true);
    expect(hadResult("tasks/cancel", result("{}"))).toBe(true);
    expect(hadResult("tasks/cancel", error("no"))).toBe(false);
  });
});

describe("a server's name of a task", () => {
  test("is replaced in errors and in `_meta`, and nothing else is touched", () => {
    expect(underOurName(error("abcdef is lost", '{"id":"abcdef"}'), "abcdef", "ours")).toMatchObject({
      message: "ours is lost",
      data: '{"id":"ours"}',
    });
    const told = underOurName(
      result(`{"content":["abcdef",1.0],"_meta":{"${RELATED}":{"taskId":"abcdef"},"x":1}}`),
      "abcdef",
      "ours",
    );
    expect(told).toMatchObject({ result: `{"content":["abcdef",1.0],"_meta":{"${RELATED}":{"taskId":"ours"},"x":1}}` });
  });

  test("is left where it may be any other word", () => {
    expect(hidden('"1 of 10"', "1", "ours")).toBe('"1 of 10"');
    expect(hidden('"a\\"bcdef"', 'a"bcdef', "ours")).toBe('"ours"');
  });

  test("leaves a result that belongs to no task for its client, and comes to one that does", () => {
    const of = result(`{"content":[],"_meta":{"${RELATED}":{"taskId":"abcdef"}}}`);
    expect(relatedTo(of, undefined)).toEqual(result('{"content":[]}'));
    expect(relatedTo(result('{"content":[]}'), "ours")).toEqual(
      result(`{"content":[],"_meta":{"${RELATED}":{"taskId":"ours"}}}`),
    );
    expect(relatedTo(error("no"), "ours")).toEqual(error("no"));
  });

  test("is in the question of a task, under which the client is asked by our name", () => {
    const params = `{"message":"?","_meta":{"${RELATED}":{"taskId":"abcdef"}}}`;
    expect(taskOf(JSON.parse(params) as JsonObject)).toBe("abcdef");
    expect(taskOf({ message: "?" })).toBeUndefined();
    const question = { method: "elicitation/create", params } as const;
    expect(questionOfTask(question, undefined).params).toBe('{"message":"?"}');
    expect(questionOfTask(question, "ours").params).toBe(params.replace("abcdef", "ours"));
  });
});

test("who makes tasks of calls, and who accepts them, is said in the form of the era", () => {
  const old = { tasks: { requests: { tools: { call: {} } } } };
  const extension = { extensions: { "io.modelcontextprotocol/tasks": {} } };
  expect([makesTasks(old, "legacy"), makesTasks(extension, "modern")]).toEqual([true, true]);
  expect([
    makesTasks(old, "modern"),
    makesTasks(extension, "legacy"),
    makesTasks({ tasks: { list: {} } }, "legacy"),
  ]).toEqual([false, false, false]);
  expect([acceptsTasks(extension), acceptsTasks(old), acceptsTasks(undefined)]).toEqual([true, false, false]);
  const support = (taskSupported: unknown) => taskSupport({ execution: { taskSupport: taskSupported } } as never);
  expect([support("required"), support("optional"), support("forbidden"), support(7), taskSupport({})]).toEqual([
    "required",
    "optional",
    "forbidden",
    "forbidden",
    "forbidden",
  ]);
});
