/** The same over HTTP against a running gateway, and HTTP itself bent: lengths that lie, clients that hang up at every byte. */
import assert from "node:assert/strict";
import { Agent, request } from "node:http";
import { connect } from "node:net";
import { ERRORS } from "../../src/core/errors.ts";
import { fc } from "../properties.ts";
import { RECORDED, type Sent, sents } from "./texts.ts";

export interface Target {
  readonly url: string;
  readonly token: string;
}
/** How often each answer came, as `<HTTP status> <JSON-RPC code or word>`. */
export type Answers = Map<string, number>;

const ROWS = new Set(Object.values(ERRORS).map(({ http, rpc }) => `${http} ${rpc}`));
/** Refusals of node's own HTTP parser, which knows nothing of messages. */
const BARE: ReadonlySet<string> = new Set(["202", "204", "400", "408", "413", "417", "431"]);
/** In band: refusals of legacy clients, whose sessions a 404 would end, and what the server behind us says. */
const IN_BAND: ReadonlySet<number> = new Set([-32601, -32603, -32002, 4242]);
const AT_ONCE = 32;
const ANSWER_MS = 20_000;

/** Sends so many generated messages and holds each answer against the error table. */
export async function sendMessages(target: Target, messages: number, seed: number): Promise<Answers> {
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
  const answers: Answers = new Map();
  const batch = 2000;
  for (let sent = 0; sent < messages; sent += batch) {
    const all = fc.sample(sents, { numRuns: Math.min(batch, messages - sent), seed: seed + sent });
    const next = all.values();
    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        for (const one of next) note(answers, await post(target, agent, one), one.text);
      }),
    );
  }
  agent.destroy();
  return answers;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

function post({ url, token }: Target, agent: Agent, { text, headers }: Sent): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const all = {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      ...ascii(headers),
    };
    const sent = request(url, { method: "POST", agent, headers: all, timeout: ANSWER_MS }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        body += chunk;
        // A stream of changes never ends by itself.
        if (body.includes("notifications/subscriptions/acknowledged")) sent.destroy();
      });
      const done = () =>
        resolve({ status: response.statusCode ?? 0, type: String(response.headers["content-type"]), body });
      response.on("end", done).on("close", done);
    });
    sent.on("timeout", () => sent.destroy(new Error(`no answer within ${ANSWER_MS} ms to ${text}`)));
    sent.on("error", reject);
    sent.end(text);
  });
}

/** Values that node:http itself would not send are left out. */
function ascii(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([, value]) => /^[\t\x20-\x7e]*$/.test(value)));
}

function note(answers: Answers, { status, type, body }: Answer, sent: string): void {
  const kind = kindOf(status, type, body, sent);
  answers.set(kind, (answers.get(kind) ?? 0) + 1);
}

function kindOf(status: number, type: string, body: string, sent: string): string {
  if (body === "") {
    assert.ok(BARE.has(String(status)), `${status} without a body to ${sent}`);
    return `${status} empty`;
  }
  const texts = type.startsWith("text/event-stream")
    ? [...body.matchAll(/^data: ([^\n]+)\n/gm)].map(([, it]) => it ?? "")
    : [body];
  const message = JSON.parse(texts.at(-1) ?? "") as { result?: unknown; method?: string; error?: { code: number } };
  if (message.error === undefined) {
    assert.ok(status === 200 && (message.result !== undefined || message.method !== undefined), `${status} ${body}`);
    return "200 answered";
  }
  const { code } = message.error;
  const known = ROWS.has(`${status} ${code}`) || (status === 200 && IN_BAND.has(code));
  assert.ok(known && status !== 500, `${status} ${code} is no row of the error table, to ${sent}`);
  return `${status} ${code}`;
}

/** Bytes of one HTTP request. */
export function requestBytes({ url, token }: Target, { text, headers }: Sent, more: readonly string[] = []): Buffer {
  const { host, pathname } = new URL(url);
  const body = Buffer.from(text);
  const lines = [
    `POST ${pathname} HTTP/1.1`,
    `host: ${host}`,
    `authorization: Bearer ${token}`,
    "content-type: application/json",
    "accept: application/json, text/event-stream",
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    ...(more.some((line) => /^(content-length|transfer-encoding):/.test(line))
      ? []
      : [`content-length: ${body.length}`]),
    ...more,
  ];
  return Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`), body]);
}

/** Writes bytes in these pieces and gives what came until the connection ended, or until `until` is in it. */
export function converse(url: string, pieces: readonly Buffer[], until?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    let got = "";
    const timer = setTimeout(() => socket.destroy(new Error("no end")), ANSWER_MS);
    socket.on("data", (chunk) => {
      got += chunk.toString("utf8");
      if (until !== undefined && got.includes(until)) socket.end();
    });
    socket.on("connect", async () => {
      socket.setNoDelay(true);
      for (const piece of pieces) {
        if (socket.destroyed) return;
        await new Promise<void>((written) => void socket.write(piece, () => setImmediate(written)));
      }
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      // The gateway may hang up on nonsense before it has read it all.
      if (error.code === "ECONNRESET" || error.code === "EPIPE") resolve(got);
      else reject(error);
    });
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(got);
    });
  });
}

/** Hangs up after each byte of each of a conversation's requests. Gives how often. */
export async function hangUpEverywhere(target: Target, conversation: readonly Sent[] = RECORDED): Promise<number> {
  let times = 0;
  for (const sent of conversation) {
    const bytes = requestBytes(target, sent);
    const ends = Array.from({ length: bytes.length + 1 }, (_, at) => at).values();
    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        for (const end of ends) {
          times++;
          await cutAt(target.url, bytes.subarray(0, end));
        }
      }),
    );
  }
  return times;
}

function cutAt(url: string, bytes: Buffer): Promise<void> {
  return new Promise((resolve) => {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname, () => {
      if (bytes.length === 0) socket.destroy();
      else socket.write(bytes, () => setImmediate(() => socket.destroy()));
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve());
  });
}
