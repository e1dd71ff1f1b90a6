/** SDK clients of both eras at a declared server: over stdio, or through a gateway that has it inside. */
import { Client as ModernClient, StreamableHTTPClientTransport as ModernHttp } from "@modelcontextprotocol/client";
import { StdioClientTransport as ModernStdio } from "@modelcontextprotocol/client/stdio";
import { Client as LegacyClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport as LegacyStdio } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport as LegacyHttp } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import type { JsonObject } from "../../src/core/call.ts";

export const ERAS = ["legacy", "modern"] as const;
export type Era = (typeof ERAS)[number];
/** What the two SDKs have in common. */
export type AnyClient = Pick<
  LegacyClient,
  "callTool" | "close" | "listTools" | "readResource" | "getPrompt" | "listPrompts"
>;
export type Answers = (params: JsonObject) => JsonObject;

/** `answers`: what the person says; without it the client can ask nobody. */
export async function clientAt(
  place:
    | { readonly program: string; readonly environment?: Record<string, string> }
    | { readonly url: string; readonly token: string },
  era: Era,
  answers?: Answers,
): Promise<AnyClient> {
  const info = { name: "agent", version: "1" };
  const capabilities = answers === undefined ? {} : { elicitation: { form: {} } };
  const program = "program" in place && {
    command: process.execPath,
    args: [place.program],
    env: { PATH: process.env["PATH"] ?? "", ...place.environment },
    stderr: "ignore" as const,
  };
  const requestInit = "token" in place ? { headers: { authorization: `Bearer ${place.token}` } } : {};
  if (era === "legacy") {
    const client = new LegacyClient(info, { capabilities });
    if (answers !== undefined)
      client.setRequestHandler(ElicitRequestSchema, async ({ params }) => answers(params as never) as never);
    await client.connect(
      program
        ? new LegacyStdio(program)
        : (new LegacyHttp(new URL("url" in place ? place.url : ""), { requestInit }) as never),
    );
    return client;
  }
  const client = new ModernClient(info, { capabilities, versionNegotiation: { mode: { pin: "2026-07-28" } } });
  if (answers !== undefined)
    client.setRequestHandler("elicitation/create", async ({ params }) => answers(params as never) as never);
  await client.connect(
    program ? new ModernStdio(program) : new ModernHttp(new URL("url" in place ? place.url : ""), { requestInit }),
  );
  return client as unknown as AnyClient;
}

/** The text of an answer. */
export const textOf = (answer: unknown): string =>
  String((answer as { content?: readonly { text?: string }[] }).content?.[0]?.text);
