/** One user who calls all the time, in one era, and looks at everything that comes back. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { type Dispatcher, fetch } from "undici";
import { ERRORS } from "../../src/core/errors.ts";
import { type Json, META, type Message, MODERN } from "../fixtures/messages.ts";
import type { Run } from "./chaos.ts";
import type { Random } from "./random.ts";

/** How one call ended. */
export interface Ending {
  readonly by: string;
  /** What was called. */
  readonly what: string;
  /** `answered`, `given up` (by the caller), `cut` (the connection broke), or the row of the error table. */
  readonly how: string;
  readonly why?: string;
  readonly began: number;
  readonly ms: number;
  /** Marks of what was answered, each once for each answer. */
  readonly answered?: readonly string[];
  /** What must not be. */
  readonly broken?: string;
}

export interface Caller {
  /** Resolves when the last call has ended. */
  stop(): Promise<void>;
}

/** Nobody waits longer, however slow the machine is: every timeout of the settings is much shorter. */
const PATIENCE_MS = 120_000;
const PAUSE_MS = 40;
/** Rows of the error table by their code, which some share. */
const NAMES = new Map<number, string>();
for (const [name, { rpc }] of Object.entries(ERRORS)) {
  const others = NAMES.get(rpc);
  NAMES.set(rpc, others === undefined ? name : `${others} or ${name}`);
}
NAMES.set(ERRORS.upstream_failed.rpc, "upstream failed or unavailable");
/** Tags of callers; whoever sees one of another caller has what is not theirs. */
const TAG = /user\d{3}x[0-9a-f]{6}/g;

/** An answer as it came, or why none did. */
interface Came {
  readonly status: number;
  readonly messages: readonly Message[];
  readonly text: string;
}

class Cut extends Error {}

/** `connections`: what it calls over, so that whoever measures can close them. */
export function caller(
  run: Run,
  connections: Dispatcher,
  index: number,
  random: Random,
  ended: (ending: Ending) => void,
): Caller {
  const user = `user${String(index).padStart(3, "0")}x${random
    .below(1 << 24)
    .toString(16)
    .padStart(6, "0")}`;
  const modern = index % 2 === 0;
  let session: string | undefined;
  let over = false;
  let id = 0;
  const hangUp = new AbortController();

  /** Sends one message and reads what comes, event by event. */
  async function send(message: object, signal: AbortSignal, onEvent?: (message: Message) => void): Promise<Came> {
    const { method, params } = message as Message;
    const named = params?.["name"] ?? params?.["uri"];
    try {
      const response = await fetch(run.url, {
        method: "POST",
        signal,
        dispatcher: connections,
        headers: {
          authorization: `Bearer ${await run.token(user)}`,
          "content-type": "application/json",
          accept: "application/json, text/event-stream",
          "mcp-protocol-version": modern ? MODERN : "2025-11-25",
          ...(modern && { "mcp-method": String(method), ...(typeof named === "string" && { "mcp-name": named }) }),
          ...(session !== undefined && { "mcp-session-id": session }),
        },
        body: JSON.stringify(message),
      });
      if (method === "initialize") session = response.headers.get("mcp-session-id") ?? undefined;
      if (response.headers.get("content-type")?.startsWith("text/event-stream") !== true) {
        const text = await response.text();
        return { status: response.status, messages: text === "" ? [] : [JSON.parse(text) as Message], text };
      }
      const messages: Message[] = [];
      let text = "";
      let rest = "";
      for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
        text += chunk;
        rest += chunk;
        const blocks = rest.split("\n\n");
        rest = blocks.pop() ?? "";
        for (const block of blocks) {
          const data = /^data: ?(.+)$/m.exec(block)?.[1];
          if (data === undefined) continue;
          const one = JSON.parse(data) as Message;
          messages.push(one);
          onEvent?.(one);
        }
      }
      return { status: response.status, messages, text };
    } catch (thrown) {
      if (signal.aborted) throw signal.reason;
      throw new Cut(`${String(thrown)} ${String((thrown as { cause?: unknown }).cause ?? "")}`);
    }
  }

  const dressed = (params: Json, token: string | undefined): Json => ({
    ...params,
    _meta: {
      ...(token !== undefined && { progressToken: token }),
      ...(modern && {
        [`${META}/protocolVersion`]: MODERN,
        [`${META}/clientInfo`]: { name: "chaos", version: "1" },
        [`${META}/clientCapabilities`]: { elicitation: { form: {} } },
      }),
    },
  });

  async function handshake(signal: AbortSignal): Promise<void> {
    if (modern || session !== undefined) return;
    const params = {
      protocolVersion: "2025-11-25",
      capabilities: { elicitation: { form: {} } },
      clientInfo: { name: "chaos", version: "1" },
    };
    await send({ jsonrpc: "2.0", id: ++id, method: "initialize", params }, signal);
    await send({ jsonrpc: "2.0", method: "notifications/initialized" }, signal);
  }

  /** The end of one request; throws what is not right. */
  async function request(
    method: string,
    params: Json,
    signal: AbortSignal,
    onEvent?: (message: Message, signal: AbortSignal) => void,
    token?: string,
  ) {
    const own = ++id;
    const came = await send({ jsonrpc: "2.0", id: own, method, params: dressed(params, token) }, signal, (event) =>
      onEvent?.(event, signal),
    );
    const answers = came.messages.filter((message) => message.method === undefined);
    for (const tag of came.text.match(TAG) ?? [])
      if (tag !== user) throw new Error(`ANOTHER'S: ${tag} in ${came.text.slice(0, 300)}`);
    if (answers.length === 0) {
      // A stream that ends without its answer is a broken connection to a client.
      if (came.status === 200) throw new Cut(`the stream ended without an answer: ${came.text.slice(-200)}`);
      throw new Error(`no answer, status ${came.status} ${came.text.slice(0, 200)}`);
    }
    if (answers.length > 1) throw new Error(`${answers.length} answers`);
    const [answer] = answers;
    if (answer?.id !== own && !(answer?.id == null && answer?.error !== undefined))
      throw new Error(`the answer has the id ${String(answer?.id)} and not ${own}`);
    for (const message of came.messages)
      if (message.method === "notifications/progress" && message.params?.["progressToken"] !== token)
        throw new Error(`progress of another call: ${JSON.stringify(message.params)}`);
    if (came.status === 404 || came.status === 400) session = modern ? undefined : session;
    return { status: came.status, answer: answer as Message };
  }

  /** What a caller does: arguments, and what the answer must be. Returns what is wrong with it. */
  interface Act {
    readonly what: string;
    readonly tool: string;
    readonly args: (mark: string) => Json;
    readonly wrong: (text: string, mark: string) => boolean;
    readonly progress?: boolean;
    readonly givesUp?: boolean;
  }
  const echo = (server: string): Act => ({
    what: `echo ${server}`,
    tool: `${server}_echo`,
    args: (mark) => ({ text: `${user} ${mark} æ☀` }),
    wrong: (text, mark) => text !== `${user} ${mark} æ☀`,
  });
  const write = (server: string): Act => ({
    what: `write ${server}`,
    tool: `${server}_write`,
    args: (mark) => ({ text: `${user} ${mark}`, ms: random.below(30) }),
    wrong: (text, mark) => {
      const { who, kept } = JSON.parse(text) as { who: string; kept: string[] };
      return who !== user || !kept.every((one) => one.startsWith(user)) || !kept.some((one) => one.includes(mark));
    },
    progress: true,
  });
  const slow = (server: string, givesUp: boolean): Act => ({
    what: `${givesUp ? "cancel" : "slow"} ${server}`,
    tool: `${server}_slow`,
    args: (mark) => ({ ms: 40 + random.below(400), text: mark }),
    wrong: (text) => !text.startsWith("slept "),
    progress: true,
    givesUp,
  });
  const ask: Act = {
    what: "ask asking",
    tool: "asking_test_elicitation",
    args: (mark) => ({ message: `${user} ${mark}` }),
    wrong: (text) => !text.includes(user),
  };
  const SERVERS = ["shared", "modern", "web", "web-modern"];
  const acts: readonly Act[] = [
    ...SERVERS.map(echo),
    ...SERVERS.map(echo),
    ...SERVERS.map((server) => slow(server, false)),
    ...SERVERS.map((server) => slow(server, true)),
    write("users"),
    write("users"),
    write("sessions"),
    ask,
  ];
  const content = { username: user, email: "ann@shop.example" };

  async function perform(act: Act): Promise<void> {
    const mark = `mark-${randomUUID()}`;
    const began = Date.now();
    const done = (how: string, more: Partial<Ending> = {}) =>
      ended({
        by: `${user} (${modern ? "modern" : "legacy"})`,
        what: act.what,
        how,
        began,
        ms: Date.now() - began,
        ...more,
      });
    const patience = AbortSignal.timeout(PATIENCE_MS);
    const gaveUp = new AbortController();
    const signal = AbortSignal.any([patience, gaveUp.signal]);
    const timer = act.givesUp === true ? setTimeout(() => gaveUp.abort(), 20 + random.below(200)) : undefined;
    const token = act.progress === true ? mark : undefined;
    // A legacy client is asked on the stream of its call, and answers with a message of its own.
    const onEvent = (message: Message, until: AbortSignal) => {
      if (message.method !== "elicitation/create" || message.id === undefined) return;
      if (
        JSON.stringify(message)
          .match(TAG)
          ?.some((tag) => tag !== user) === true
      )
        done("answered", { broken: `ANOTHER'S question: ${JSON.stringify(message).slice(0, 300)}` });
      send({ jsonrpc: "2.0", id: message.id, result: { action: "accept", content } }, until).catch(() => {});
    };
    const marks: string[] = [];
    try {
      await handshake(signal);
      let params: Json = { name: act.tool, arguments: act.args(mark) };
      for (let round = 0; round < 4; round++) {
        const { status, answer } = await request("tools/call", params, signal, onEvent, token);
        if (answer.error !== undefined) {
          const name = NAMES.get(answer.error.code);
          const how = status === 404 ? "unknown_session" : (name ?? `error ${answer.error.code}`);
          if (how === "unknown_session") session = undefined;
          // Nobody here asks for what is wrong, so these would be faults of the gateway.
          const faulty = [500, 400, 401, 403].includes(status) || /could not complete/.test(answer.error.message);
          // A question that nobody could answer any more is the tool's failure.
          return done(how, {
            why: answer.error.message,
            ...((name === undefined || faulty) && { broken: `${status} ${JSON.stringify(answer.error)}` }),
          });
        }
        marks.push(mark);
        const { resultType, inputRequests, requestState } = answer.result as Json;
        if (resultType === "input_required") {
          const keys = Object.keys((inputRequests ?? {}) as Json);
          const inputResponses = Object.fromEntries(keys.map((key) => [key, { action: "accept", content }]));
          params = { ...params, requestState, inputResponses };
          continue;
        }
        const { content: parts, isError } = answer.result as { content?: { text?: string }[]; isError?: boolean };
        const text = parts?.[0]?.text ?? "";
        const wrong = isError !== true && act.wrong(text, mark);
        return done(isError === true ? "tool error" : "answered", {
          answered: marks,
          why: text,
          ...(wrong && { broken: `a wrong answer: ${text.slice(0, 300)}` }),
        });
      }
      done("answered", { broken: "asked without end" });
    } catch (thrown) {
      if (gaveUp.signal.aborted) return done("given up");
      if (patience.aborted) return done("cut", { why: "no answer in two minutes", broken: "no answer in two minutes" });
      if (thrown instanceof Cut) {
        session = undefined;
        done("cut", { why: thrown.message });
        await sleep(300);
        return;
      }
      done("answered", { broken: String(thrown) });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Follows the diary, of which each update names whose it is; comes back whenever the stream ends. */
  async function follow(): Promise<void> {
    while (!over) {
      try {
        const notifications = { resourceSubscriptions: ["diary://mine"], toolsListChanged: true };
        await send(
          { jsonrpc: "2.0", id: ++id, method: "subscriptions/listen", params: dressed({ notifications }, undefined) },
          hangUp.signal,
          (message) => {
            for (const tag of JSON.stringify(message).match(TAG) ?? [])
              if (tag !== user)
                ended({
                  by: user,
                  what: "follow",
                  how: "answered",
                  began: Date.now(),
                  ms: 0,
                  broken: `ANOTHER'S update: ${tag}`,
                });
          },
        );
      } catch {
        // The gateway was away.
      }
      if (!over) await sleep(500);
    }
  }

  const following = modern && index % 4 === 0 ? follow() : Promise.resolve();
  const working = (async () => {
    while (!over) {
      await perform(random.pick(acts));
      await sleep(random.below(PAUSE_MS));
    }
  })();
  return {
    async stop() {
      over = true;
      await working;
      hangUp.abort();
      await following;
    },
  };
}
