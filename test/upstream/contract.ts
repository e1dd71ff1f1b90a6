/** What every upstream promises, whatever its transport and revision: run over each implementation. */
import { afterEach, describe, expect, test } from "vitest";
import { waitFor } from "../fixtures/processes.ts";
import {
  CLIENT_ID,
  CLIENT_TOKEN,
  codeOf,
  collected,
  end,
  ignored,
  never,
  permitted,
  type Recorded,
  structuredOf,
  textOf,
  toolCall,
} from "./support.ts";

export interface ContractOptions {
  readonly modern: boolean;
  /** Opens an upstream over the echo server, with these settings beside the defaults. */
  open(settings?: { timeoutSeconds?: number; maxCallSeconds?: number; maxAnswerBytes?: number }): Promise<Recorded>;
}

export function upstreamContract(label: string, { modern, open }: ContractOptions): void {
  describe(label, () => {
    let recorded: Recorded | undefined;
    const opened = async (settings?: Parameters<ContractOptions["open"]>[0]) => {
      recorded = await open(settings);
      return recorded.upstream;
    };
    afterEach(async () => {
      if (recorded !== undefined) await end(recorded.upstream);
      recorded = undefined;
    });

    test("tells who the server is", async () => {
      const upstream = await opened();
      const identity = await upstream.identity(never);
      expect(identity.revision).toBe(modern ? "2026-07-28" : "2025-11-25");
      expect(identity.info["name"]).toBeTypeOf("string");
      expect(identity.capabilities["tools"]).toBeDefined();
      expect(upstream.state().state).toBe("ready");
    });

    test("reads every page of every list", async () => {
      const upstream = await opened();
      for (const list of ["tools", "resources", "resourceTemplates", "prompts"] as const) {
        const entries = (await upstream.list(list, never)).map((entry) => JSON.parse(entry) as { name: string });
        expect(entries.length, list).toBeGreaterThan(list === "resourceTemplates" ? 0 : 2);
        expect(new Set(entries.map(({ name }) => name)).size, list).toBe(entries.length);
      }
    });

    test("gives each of 200 simultaneous callers with one JSON-RPC id its own answer", async () => {
      const upstream = await opened();
      const texts = Array.from({ length: 200 }, (_, index) => `text ${index} ☃`);
      const answers = await Promise.all(
        texts.map((text, index) =>
          upstream.send(toolCall("echo", { text }, { subject: `u${index % 20}` }), ignored, never),
        ),
      );
      expect(answers.map(textOf)).toEqual(texts);
      expect(upstream.state().inFlight).toBe(0);
    });

    test("shows the server neither the client's id nor its progress token, but its own _meta and trace", async () => {
      const upstream = await opened();
      const meta = new Map([
        ["example.test/kept", '{"a":1}'],
        ["progressToken", JSON.stringify(CLIENT_TOKEN)],
        ["traceparent", '"00-of-the-client"'],
      ]);
      const answer = await upstream.send(toolCall("meta", {}, { meta, progressToken: CLIENT_TOKEN }), ignored, never);
      const seen = structuredOf(answer) as { id: unknown; meta: Record<string, unknown> };
      expect(seen.id).toBeTypeOf("number");
      expect(seen.meta["progressToken"]).toBe(seen.id);
      expect(seen.meta["traceparent"]).toBe("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
      expect(seen.meta["example.test/kept"]).toEqual({ a: 1 });
      expect("io.modelcontextprotocol/protocolVersion" in seen.meta).toBe(modern);
      const text = answer.kind === "result" ? answer.result : "";
      expect(text).not.toContain(CLIENT_ID);
      expect(text).not.toContain(CLIENT_TOKEN);
    });

    test("gives results as the server wrote them, and errors with code and data", async () => {
      const upstream = await opened();
      const unusual = await upstream.send(toolCall("unusual"), ignored, never);
      if (unusual.kind !== "result") throw new Error("not a result");
      expect(JSON.parse(unusual.result)).toEqual(unusual.value);
      expect(unusual.value["x-vendor"]).toEqual({ kept: true });
      expect(unusual.result).toContain("1e+21");
      const failed = await upstream.send(toolCall("rpc-error"), ignored, never);
      expect(failed).toMatchObject({ kind: "error", code: 4242, data: '{"hint":"as intended"}' });
      const missing = await upstream.send(toolCall("no-such-tool"), ignored, never);
      expect(missing).toMatchObject({ kind: "error", code: -32602 });
    });

    test("reads resources and prompts", async () => {
      const upstream = await opened();
      const read = await upstream.send(permitted("resources/read", { uri: "test://items/7" }), ignored, never);
      expect(read.kind === "result" && JSON.stringify(read.value["contents"])).toContain('\\"id\\":\\"7\\"');
      const prompt = await upstream.send(
        permitted("prompts/get", { name: "greeting", arguments: { name: "Ann" } }),
        ignored,
        never,
      );
      expect(prompt.kind === "result" && prompt.result).toContain("Greet Ann");
    });

    test("hands on every progress, the last included, in order and before the answer", async () => {
      const upstream = await opened();
      const replies = collected();
      await upstream.send(toolCall("slow", { ms: 40 }, { progressToken: CLIENT_TOKEN }), replies, never);
      const seen = replies.all.map(({ method, params }) => ({ method, ...(JSON.parse(params) as object) }));
      expect(seen).toMatchObject(
        [1, 2, 3, 4].map((progress) => ({ method: "notifications/progress", progress, progressToken: CLIENT_TOKEN })),
      );
    });

    test("hands on log messages from the level that was asked for", async () => {
      const upstream = await opened();
      const replies = collected();
      const asked = { logLevel: "warning" };
      await upstream.send(toolCall("log", { level: "error", text: "loud" }, asked), replies, never);
      await upstream.send(toolCall("log", { level: "info", text: "quiet" }, asked), replies, never);
      await upstream.send(toolCall("log", { level: "error", text: "unasked" }), replies, never);
      expect(replies.all.map(({ params }) => (JSON.parse(params) as { data: string }).data)).toEqual(["loud"]);
    });

    test("cancels in the server what the caller gives up, at once", async () => {
      const upstream = await opened();
      const control = new AbortController();
      const replies = collected();
      const sent = codeOf(
        upstream.send(toolCall("slow", { ms: 2_000 }, { progressToken: 1 }), replies, control.signal),
      );
      await waitFor(() => replies.all.length > 0);
      control.abort();
      expect(await sent).toBe("cancelled");
      await waitFor(
        async () => structuredOf(await upstream.send(toolCall("count"), ignored, never))["cancelled"] === 1,
      );
      expect(await codeOf(upstream.send(toolCall("echo", { text: "" }), ignored, AbortSignal.abort()))).toBe(
        "cancelled",
      );
    });

    test("ends a call that the server is silent on, and keeps one alive that makes progress", async () => {
      const upstream = await opened({ timeoutSeconds: 1 });
      await upstream.identity(never);
      const [silent, busy] = await Promise.all([
        codeOf(upstream.send(toolCall("silent"), ignored, never)),
        codeOf(upstream.send(toolCall("slow", { ms: 1600 }, { progressToken: 1 }), ignored, never)),
      ]);
      expect(silent).toBe("upstream_timeout");
      expect(busy).toBe("none");
      expect(upstream.state().inFlight).toBe(0);
    });

    test("ends a call that takes too long in spite of its progress", async () => {
      const upstream = await opened({ maxCallSeconds: 0.3 });
      await upstream.identity(never);
      const sent = upstream.send(toolCall("slow", { ms: 4_000 }, { progressToken: 1 }), ignored, never);
      expect(await codeOf(sent)).toBe("upstream_timeout");
    });

    test("refuses an answer over the limit and goes on", async () => {
      const upstream = await opened({ maxAnswerBytes: 50_000 });
      expect(await codeOf(upstream.send(toolCall("big", { bytes: 60_000 }), ignored, never))).toBe("answer_too_large");
      expect(textOf(await upstream.send(toolCall("big", { bytes: 40_000 }), ignored, never))).toHaveLength(40_000);
    });

    test("reports changed lists, and updates of subscribed resources until they are unsubscribed", async () => {
      const upstream = await opened();
      await upstream.identity(never);
      const uri = "test://static/greeting";
      const touch = () => upstream.send(toolCall("touch", { uri }), ignored, never);
      await upstream.subscribe(uri, never);
      // A stream of changes takes a moment to open; what happens before is not promised.
      await waitFor(async () => {
        await touch();
        return recorded?.updates.length;
      });
      expect(recorded?.updates[0]).toMatchObject({ uri });
      expect(recorded?.updates[0]?.params).not.toContain("subscriptionId");
      await waitFor(async () => {
        await upstream.send(toolCall("change-tools"), ignored, never);
        return recorded?.lists.includes("tools");
      });
      await upstream.unsubscribe(uri, never);
      await waitFor(async () => {
        const before = recorded?.updates.length;
        await touch();
        await upstream.send(toolCall("slow", { ms: 50 }), ignored, never);
        return recorded?.updates.length === before;
      });
    });

    test("lets calls in flight finish when it is closed, and takes no more", async () => {
      const upstream = await opened();
      const sent = upstream.send(toolCall("slow", { ms: 300 }), ignored, never);
      await waitFor(() => upstream.state().inFlight === 1);
      const closed = upstream.close(never);
      expect(await codeOf(upstream.send(toolCall("echo", { text: "" }), ignored, never))).toBe("upstream_unavailable");
      expect(textOf(await sent)).toBe("slept 300 ms");
      await closed;
      expect(upstream.state().state).toBe("stopped");
    });

    test("ends calls in flight when closing may not wait", async () => {
      const upstream = await opened();
      const sent = codeOf(upstream.send(toolCall("silent"), ignored, never));
      await waitFor(() => upstream.state().inFlight === 1);
      await upstream.close(AbortSignal.abort());
      expect(await sent).toBe("upstream_unavailable");
    });
  });
}
