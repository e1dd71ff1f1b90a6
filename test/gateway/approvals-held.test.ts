/** A held call in front of servers that do what few do: want a connection first, ask in the middle, or are asked about by others. */
import { describe, expect, test } from "vitest";
import type { Authenticated, JsonObject, McpCall, Outcome, Target } from "../../src/core/call.ts";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { type Approvals, openApprovals } from "../../src/gateway/approvals/approvals.ts";
import type { HeldCall } from "../../src/gateway/approvals/needs.ts";
import type { Actor } from "../../src/gateway/deeds.ts";
import type { Asked, Parts } from "../../src/gateway/parts.ts";
import { openSeals } from "../../src/gateway/sealed-state.ts";
import { permit } from "../../src/policy/engine.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";

const by = {
  subject: "sam",
  client: "agent",
  actors: [],
  groups: [],
  scopes: [],
  claims: {},
  tokenId: "t",
  expiresAt: 0,
};
const target: Target = { server: "desk", kind: "tool", name: "pay", upstreamName: "pay", pin: "sha256:1" };
const operator: Actor = { kind: "operator", name: "ann", via: "control socket" };
const FORM = { elicitation: { form: {} } };
const done: Outcome = { kind: "result", result: '{"content":[]}', value: { content: [] } };
const approveIt = JSON.stringify({ user_approve: { action: "accept", content: { approve: true } } });

/** `sends`: what the server does with a call. `needs`: in place of a need of every call. */
function held(sends: (call: McpCall) => Outcome, needs?: (call: HeldCall) => boolean) {
  const { records } = memoryStore();
  const actions: string[] = [];
  const seen: HeldCall[] = [];
  const need = {
    rules: ["flow"],
    by: [],
    fourEyes: false,
    expiresSeconds: 60,
    reasons: ["It was tainted."],
    depends: false,
  };
  const parts = {
    policy: { version: "1", roles: () => [] },
    catalogue: { find: () => target, entry: () => undefined, pinned: async () => undefined },
    journal: { check: () => {}, append: async ({ action }: { action: string }) => void actions.push(action) },
    replica: "r",
  } as unknown as Parts;
  const approvals: Approvals = openApprovals({
    records,
    seals: openSeals(records, undefined),
    sources: [
      (call) => {
        seen.push(call);
        return needs === undefined || needs(call) ? need : undefined;
      },
    ],
    version: () => "1",
    answerSeconds: 60,
    parts: () => parts,
  });
  const upstream = { name: "desk", send: async ({ call }: { call: McpCall }) => sends(call) } as unknown as Upstream;
  const send = (
    params: Record<string, string> = {},
    capabilities: JsonObject = {},
    standIn?: string,
  ): Promise<Outcome> => {
    const paramTexts = new Map(Object.entries({ name: '"pay"', arguments: '{"to":"ann"}', ...params }));
    const record = { approval: () => {}, close: async () => {}, trace: { traceId: "0", spanId: "0" } };
    // As the caller wrote them; what stands in for a value is put back in what is sent.
    const asWritten = { arguments: { to: "ann" } };
    const written = standIn === undefined ? paramTexts : new Map(paramTexts).set("arguments", standIn);
    const inbound = { era: "modern", method: "tools/call", params: asWritten, paramTexts: written };
    const asked = { by, inbound, record, headers: {}, session: undefined } as unknown as Asked;
    const call = {
      method: "tools/call",
      target,
      params: standIn === undefined ? asWritten : { ...asWritten },
      forward: paramTexts,
      capabilities,
    };
    const permitted = permit(by as unknown as Authenticated, call as unknown as McpCall, {
      effect: "permit",
      reason: "permitted_by_rule",
      rule: "r",
    });
    const facts = { method: "tools/call", args: { to: "ann" }, scope: undefined, at: 0 };
    const over = approvals.over(asked, upstream, { target, entry: undefined, facts });
    return over.send(permitted, { notify: () => {} }, new AbortController().signal);
  };
  return { approvals, actions, seen, send };
}
const resultIn = (outcome: Outcome): JsonObject => {
  if (outcome.kind === "error") throw new Error(outcome.message);
  return outcome.value;
};
const stateOf = (outcome: Outcome) => JSON.stringify(resultIn(outcome)["requestState"]);
const approvedByOthers = async ({ approvals }: Pick<ReturnType<typeof held>, "approvals">) => {
  const [request] = await approvals.office.list(operator);
  await approvals.office.decide(request?.number ?? "", "approved", operator);
};

describe("a server that wants a connection first", () => {
  test.each(["by others", "with a form"])(
    "was not called: what was approved %s may still be done, once",
    async (way) => {
      let connected = false;
      let calls = 0;
      const desk = held(() => {
        if (!connected) throw new DrawbridgeError("connection_required", "Connect first.");
        calls++;
        return done;
      });
      const first =
        way === "by others"
          ? await desk.send().then(() => approvedByOthers(desk).then(() => desk.send()))
          : await desk
              .send({}, FORM)
              .then((form) => desk.send({ requestState: stateOf(form), inputResponses: approveIt }, FORM));
      expect(JSON.stringify(first)).toContain("Connect first.");
      connected = true;
      expect(await desk.send()).toBe(done);
      expect(resultIn(await desk.send())["isError"]).toBe(true);
      expect(calls).toBe(1);
      expect(desk.actions).toEqual([
        "approval-asked",
        "approval-approved",
        "approval-spent",
        "approval-returned",
        "approval-spent",
        "approval-asked",
      ]);
    },
  );
});

describe("a server of 2026-07-28 that asks in the middle of an approved call", () => {
  test("is gone on with once, with its own state, whatever is sent again", async () => {
    const states: unknown[] = [];
    const desk = held(({ forward }) => {
      states.push(forward.get("requestState"));
      if (forward.has("inputResponses")) return done;
      const value = {
        resultType: "input_required",
        inputRequests: { note: { method: "elicitation/create", params: { message: "?", requestedSchema: {} } } },
        requestState: "of the server",
      };
      return { kind: "result", result: JSON.stringify(value), value };
    });
    const form = await desk.send({}, FORM);
    const asks = await desk.send({ requestState: stateOf(form), inputResponses: approveIt }, FORM);
    expect(Object.keys(resultIn(asks)["inputRequests"] as JsonObject)).toEqual(["note"]);
    expect(stateOf(asks)).not.toContain("of the server");
    const note = JSON.stringify({ note: { action: "accept", content: {} } });
    const answers = { requestState: stateOf(asks), inputResponses: note };
    const all = await Promise.all([desk.send(answers, FORM), desk.send(answers, FORM), desk.send(answers, FORM)]);
    expect(all.filter((outcome) => outcome === done)).toHaveLength(1);
    for (const other of all.filter((outcome) => outcome !== done))
      expect(Object.keys(resultIn(other)["inputRequests"] as JsonObject)).toEqual(["user_approve"]);
    expect(states).toEqual([undefined, '"of the server"']);
    // With other arguments it is no round of that call.
    const elsewhere = await desk.send({ ...answers, arguments: '{"to":"max"}' }, FORM);
    expect(Object.keys(resultIn(elsewhere)["inputRequests"] as JsonObject)).toEqual(["user_approve"]);
    expect(states).toHaveLength(2);
  });
});

describe("another source of demands", () => {
  test("is told of the call and where it is made, and says why an approval is needed", async () => {
    const desk = held(
      () => done,
      ({ facts }) => facts.args["to"] === "ann",
    );
    const form = resultIn(await desk.send({}, FORM));
    expect(JSON.stringify(form)).toContain("It was tainted.");
    expect(desk.seen[0]).toMatchObject({
      by: { subject: "sam" },
      target: { name: "pay" },
      facts: { args: { to: "ann" } },
      session: { session: undefined },
    });
  });

  test("that demands nothing costs the call nothing, and a state of ours does not get to the server", async () => {
    const forwards: ReadonlyMap<string, string>[] = [];
    let tainted = true;
    const desk = held(
      ({ forward }) => {
        forwards.push(forward);
        return done;
      },
      () => tainted,
    );
    const form = await desk.send({}, FORM);
    tainted = false;
    expect(await desk.send({ requestState: stateOf(form), inputResponses: approveIt }, FORM)).toBe(done);
    expect([...(forwards[0] ?? [])].map(([key]) => key)).toEqual(["name", "arguments"]);
    await desk.send({ requestState: '"of the server"' }, FORM);
    expect(forwards[1]?.get("requestState")).toBe('"of the server"');
  });
});

test("a person is shown what stands in for a masked value, as the caller has it, and never the value", async () => {
  const sent: unknown[] = [];
  const desk = held(({ forward }) => {
    sent.push(forward.get("arguments"));
    return done;
  });
  const standIn = '{"to":"person-1@masked.example"}';
  const form = await desk.send({}, FORM, standIn);
  expect(JSON.stringify(form)).toContain("person-1@masked.example");
  expect(JSON.stringify(form)).not.toContain('\\"ann');
  await desk.send({ requestState: stateOf(form), inputResponses: approveIt }, FORM, standIn);
  expect(sent).toEqual(['{"to":"ann"}']);
  await desk.send({}, {}, standIn);
  const [request] = await desk.approvals.office.list(operator);
  const shown = await desk.approvals.office.show(request?.number ?? "", operator);
  expect(shown.arguments).toEqual({ to: "person-1@masked.example" });
});
