/** A gateway in front of scripted servers, and clients of both eras that send and see the very bytes. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Json, META, MODERN } from "../fixtures/messages.ts";
import { type Fixture, fixtureCommand, startFixture } from "../fixtures/processes.ts";
import { postRaw, type RawReply } from "../fixtures/raw-client.ts";
import type { Script } from "../fixtures/scripted.ts";
import { type World, world } from "./world.ts";

export const ERAS = ["legacy", "modern"] as const;
export type ClientEra = (typeof ERAS)[number];
export const TRANSPORTS = ["stdio", "http"] as const;
export type Transport = (typeof TRANSPORTS)[number];

/** An object's text from the texts of its members. */
export const objectOf = (...members: readonly string[]) => `{${members.join(",")}}`;

/** Members of `_meta` that a request of 2026-07-28 must carry. */
export const envelope = (capabilities = "{}") =>
  `"${META}/protocolVersion":"${MODERN}","${META}/clientInfo":{"name":"raw","version":"1"},"${META}/clientCapabilities":${capabilities}`;

/** What a modern result carries besides its own; in this order, so that a test can name them. */
export const SERVER_INFO = `"${META}/serverInfo":{"name":"scripted","version":"1"}`;

export interface RawSession {
  /** Sends one request. `params`: texts of its members, without `_meta`; `meta`: texts of members of `_meta`. */
  ask(
    method: string,
    params?: readonly string[],
    meta?: readonly string[],
    id?: string,
    signal?: AbortSignal,
  ): Promise<RawReply>;
  /** POSTs any text. */
  post(text: string, headers?: Record<string, string>, signal?: AbortSignal): Promise<RawReply>;
  readonly headers: Readonly<Record<string, string>>;
}

export interface ScriptedWorld extends AsyncDisposable {
  readonly world: World;
  readonly token: string;
  /** A client of that era; a legacy one has done its handshake with these capabilities. */
  client(era: ClientEra, capabilities?: string, token?: string): Promise<RawSession>;
  /** Every message that the server of a client with these capabilities was sent, as it came. */
  recorded(capabilities?: string): Promise<string[]>;
}

/** Starts the servers of `scripts`, each over `transport`, behind one gateway. */
export async function scripted(
  transport: Transport,
  scripts: Readonly<Record<string, Script>>,
  settings: Record<string, unknown> = {},
): Promise<ScriptedWorld> {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-scripted-"));
  const fixtures: Fixture[] = [];
  const servers: Record<string, unknown> = {};
  for (const [name, script] of Object.entries(scripts)) {
    const file = join(folder, `${name}.json`);
    writeFileSync(file, JSON.stringify(script));
    if (transport === "stdio") servers[name] = { command: fixtureCommand("scripted", [file]), processes: { max: 4 } };
    else {
      const fixture = await startFixture("scripted", [file, "--http"]);
      fixtures.push(fixture);
      servers[name] = { url: `${fixture.origin}/mcp` };
    }
  }
  const one = await world({ ...settings, servers });
  const { access_token: token } = await one.tokens();
  const client = async (era: ClientEra, capabilities = "{}", own = token) =>
    rawSession(one.url, own, era, capabilities);
  return {
    world: one,
    token,
    client,
    async recorded(capabilities) {
      const reply = await (await client("modern", capabilities)).ask("tools/call", ['"name":"recorded"']);
      const { structuredContent } = reply.messages.at(-1)?.result ?? {};
      return (structuredContent as { recorded: string[] }).recorded;
    },
    async [Symbol.asyncDispose]() {
      await one[Symbol.asyncDispose]();
      for (const fixture of fixtures) await fixture.stop();
      rmSync(folder, { recursive: true });
    },
  };
}

/** The result at the end of an answer. */
export function resultOf(reply: RawReply): Json {
  const result = reply.messages.at(-1)?.result;
  if (result === undefined) throw new Error(`no result: ${reply.status} ${reply.body}`);
  return result;
}

export async function rawSession(
  url: string,
  token: string,
  era: ClientEra,
  capabilities: string,
): Promise<RawSession> {
  const headers: Record<string, string> = { authorization: `Bearer ${token}` };
  const post = (text: string, more: Record<string, string> = {}, signal?: AbortSignal) =>
    postRaw(url, text, { ...headers, ...more }, signal);
  const session: RawSession = {
    headers,
    post,
    ask(method, params = [], meta = [], id = "1", signal) {
      const own = era === "modern" ? [envelope(capabilities), ...meta] : meta;
      const members = own.length === 0 ? params : [...params, `"_meta":${objectOf(...own)}`];
      const named = /^"(?:name|uri|taskId)":"([^"\\]*)"$/;
      const name = params.map((member) => named.exec(member)?.[1]).find((found) => found !== undefined);
      const text = `{"jsonrpc":"2.0","id":${id},"method":"${method}","params":${objectOf(...members)}}`;
      const mirrored = {
        ...(era === "modern" && {
          "mcp-protocol-version": MODERN,
          "mcp-method": method,
          ...(name !== undefined && { "mcp-name": name }),
        }),
      };
      return post(text, mirrored, signal);
    },
  };
  if (era === "legacy") {
    headers["mcp-protocol-version"] = "2025-11-25";
    const hello = ['"protocolVersion":"2025-11-25"', `"capabilities":${capabilities}`];
    const reply = await session.ask("initialize", [...hello, '"clientInfo":{"name":"raw","version":"1"}']);
    headers["mcp-session-id"] = reply.headers.get("mcp-session-id") ?? "";
    await post('{"jsonrpc":"2.0","method":"notifications/initialized"}');
  }
  return session;
}
