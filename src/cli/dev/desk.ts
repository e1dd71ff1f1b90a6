/** What the page does: look at a server, call it, answer its questions. Each is MCP through the gateway, with a token of who one is. */
import { randomBytes, randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { estimateTokens } from "../../contract/tokens.ts";
import type { JsonObject } from "../../core/call.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { type Loopback, loopback } from "../../net/loopback.ts";
import { headerValue, mirroredParameters } from "../../upstream/mirrored-headers.ts";
import type { Issuer } from "./issuer.ts";
import { type Asked, type Conversation, converse, ERAS, type Era, type Speaker, type Spoken } from "./mcp.ts";
import type { Evidence, Grading } from "./messages.ts";
import { clientOf, EVERYTHING } from "./settings.ts";
import type { Current } from "./versions.ts";

const word = z.string().max(200);
const persona = z.strictObject({
  role: word,
  subject: word.min(1),
  groups: z.array(word).max(100),
  scopes: z.array(word).max(100),
  email: z.email().max(200).optional(),
});
const era = z.enum(Object.keys(ERAS) as [Era, ...Era[]]);
const json = z.record(z.string(), z.unknown()).transform((value) => value as JsonObject);

/** What the page may ask for, by name. */
export const REQUESTS = {
  see: z.strictObject({ as: persona, era }),
  call: z.strictObject({
    id: word.min(1),
    as: persona,
    era,
    method: z.enum(["tools/call", "resources/read", "prompts/get"]),
    params: json,
  }),
  cancel: z.strictObject({ id: word }),
  answer: z.strictObject({ question: word, result: json }),
  decide: z.strictObject({
    number: z.string().regex(/^[A-Za-z0-9-]{1,40}$/),
    verdict: z.enum(["approve", "deny"]),
    role: word,
  }),
  grade: z.strictObject({}),
} as const;
type Requests = { readonly [Name in keyof typeof REQUESTS]: z.infer<(typeof REQUESTS)[Name]> };
type Persona = z.infer<typeof persona>;

/** What a page hears while it waits for a call. */
export type Told =
  | { readonly kind: "question"; readonly call: string; readonly question: string; readonly asked: Asked }
  | { readonly kind: "withdrawn"; readonly call: string; readonly question: string }
  | { readonly kind: "notification"; readonly call: string; readonly method: string; readonly params: JsonObject };

export interface Seen {
  readonly version: number;
  readonly lists: Lists;
  /** What there is and this caller is not shown. */
  readonly hidden: Lists;
  /** What a model reads of the tools with every request. */
  readonly tokens: number;
  /** Why there are none, when they could not be listed. */
  readonly problem: Spoken | undefined;
}

export interface Called {
  readonly version: number;
  readonly outcome: Spoken;
  /** Of the result, as JSON. */
  readonly bytes: number;
  readonly tokens: number;
  readonly milliseconds: number;
  readonly traceId: string;
  readonly evidence: Evidence | undefined;
}

export interface Desk {
  see(wanted: Requests["see"]): Promise<Seen>;
  /** Throws `cancelled` when it is, `upstream_unavailable` when there is no version to call, or it went meanwhile. */
  call(wanted: Requests["call"]): Promise<Called>;
  /** Cancelling what is over does nothing. */
  cancel(wanted: Requests["cancel"]): Promise<object>;
  answer(wanted: Requests["answer"]): Promise<object>;
  /** Decides about a call that waits for an approval, as somebody else with this role. Throws what the gateway refuses it with. */
  decide(wanted: Requests["decide"]): Promise<object>;
  grade(): Promise<Grading | object>;
  close(): Promise<void>;
}

const LISTS = {
  tools: "tools/list",
  resources: "resources/list",
  resourceTemplates: "resources/templates/list",
  prompts: "prompts/list",
} as const;
type Lists = Readonly<Record<keyof typeof LISTS, readonly JsonObject[]>>;
const NONE: Lists = { tools: [], resources: [], resourceTemplates: [], prompts: [] };

const LIST_MS = 30_000;
/** As long as a gateway waits for the answer to a question, and some more. */
const CALL_MS = 900_000;
const MAX_CALLS = 100;
const MAX_PAGES = 100;
/** A record is written before the answer leaves, but that of a session's stream may be a moment later. */
const RECORD_TRIES = 10;
const RECORD_MS = 50;

export function openDesk(current: () => Current | undefined, issuer: Issuer, tell: (told: Told) => void): Desk {
  const http: Loopback = loopback();
  const calls = new Map<string, AbortController>();
  const questions = new Map<string, (result: JsonObject) => void>();

  const now = (): Current => {
    const found = current();
    if (found === undefined)
      throw new DrawbridgeError("upstream_unavailable", "No version of the server could be loaded yet.");
    return found;
  };
  const speaker = (to: Current, as: Persona, more: Pick<Speaker, "era" | "signal"> & Partial<Speaker>): Speaker => {
    const { subject, groups, scopes, email } = as;
    const { url } = to.offer;
    return {
      http,
      url,
      token: issuer.mint({ subject, client: clientOf(as.role), groups, scopes, email }, url),
      traceparent: traceparentOf(randomBytes(16).toString("hex")),
      ask: async () => ({ action: "cancel" }),
      heard: () => {},
      ...more,
    };
  };
  /** The last that was seen of all there is. */
  let known: { readonly of: Current; readonly lists: Promise<Lists> } | undefined;
  const everythingOf = (to: Current, anew = false): Promise<Lists> => {
    if (anew || known?.of.number !== to.number) {
      const scopes = to.offer.scopes.map(({ scope }) => scope);
      const lists = listed(speaker(to, { ...NOBODY, scopes }, quick("modern"))).then((found) => found.lists);
      lists.catch(() => {
        known = undefined;
      });
      known = { of: to, lists };
    }
    return known.lists;
  };
  /** What clients of 2026-07-28 repeat of the arguments in headers, where the tool wants that. */
  const mirroredOf = async (to: Current, { name, arguments: args }: JsonObject): Promise<Record<string, string>> => {
    const tool = (await everythingOf(to)).tools.find((one) => one["name"] === name);
    const parameters = mirroredParameters(tool?.["inputSchema"]);
    if (typeof parameters === "string") return {};
    const values = parameters.map(({ header, path }) => [header, path.reduce(memberOf, args as unknown)] as const);
    return Object.fromEntries(
      values.flatMap(([header, value]) =>
        ["string", "number", "boolean"].includes(typeof value) ? [[header, headerValue(String(value))]] : [],
      ),
    );
  };

  async function ask(call: string, asked: Asked, signal: AbortSignal): Promise<JsonObject> {
    const question = randomUUID();
    const { promise, resolve, reject } = Promise.withResolvers<JsonObject>();
    const ended = () => reject(signal.reason);
    signal.addEventListener("abort", ended, { once: true });
    questions.set(question, resolve);
    tell({ kind: "question", call, question, asked });
    try {
      return await promise;
    } finally {
      questions.delete(question);
      signal.removeEventListener("abort", ended);
      tell({ kind: "withdrawn", call, question });
    }
  }

  return {
    async see({ as, era: wanted }) {
      const to = now();
      const [mine, all] = await Promise.all([listed(speaker(to, as, quick(wanted))), everythingOf(to, true)]);
      const { lists, problem } = mine;
      return {
        version: to.number,
        lists,
        hidden: problem === undefined ? difference(all, lists) : all,
        tokens: estimateTokens(JSON.stringify({ tools: lists.tools })),
        problem,
      };
    },
    async call({ id, as, era: wanted, method, params }) {
      if (calls.size >= MAX_CALLS) throw new DrawbridgeError("overloaded", "Too many calls are under way.");
      const to = now();
      const traceId = randomBytes(16).toString("hex");
      const cancelled = new AbortController();
      calls.set(id, cancelled);
      const signal = AbortSignal.any([cancelled.signal, AbortSignal.timeout(CALL_MS)]);
      let conversation: Conversation | undefined;
      try {
        const mirrored = wanted === "modern" && method === "tools/call" ? await mirroredOf(to, params) : {};
        const began = performance.now();
        conversation = await converse(
          speaker(to, as, {
            era: wanted,
            signal,
            mirrored,
            traceparent: traceparentOf(traceId),
            ask: (asked) => ask(id, asked, signal),
            heard: (told, about) => tell({ kind: "notification", call: id, method: told, params: about }),
          }),
        );
        const outcome = await conversation.request(method, params);
        const milliseconds = performance.now() - began;
        const text = outcome.kind === "result" ? JSON.stringify(outcome.result) : "";
        return {
          version: to.number,
          outcome,
          bytes: Buffer.byteLength(text),
          tokens: estimateTokens(text),
          milliseconds,
          traceId,
          evidence: await evidenceOf(to, traceId, method),
        };
      } catch (thrown) {
        if (cancelled.signal.aborted) throw new DrawbridgeError("cancelled", "The call was cancelled.");
        if (current()?.number !== to.number)
          throw new DrawbridgeError("upstream_unavailable", "The server was loaded anew during the call. Call again.");
        throw thrown;
      } finally {
        calls.delete(id);
        await conversation?.close();
      }
    },
    async cancel({ id }) {
      calls.get(id)?.abort();
      return {};
    },
    async answer({ question, result }) {
      const settle = questions.get(question);
      if (settle === undefined) throw new DrawbridgeError("not_found", "Nobody waits for this answer any more.");
      settle(result);
      return {};
    },
    async decide({ number, verdict, role }) {
      const { url, scopes } = now().offer;
      const bearer = { subject: "approver", groups: [], scopes: scopes.map(({ scope }) => scope) };
      const token = issuer.mint({ ...bearer, client: clientOf(role, "approver") }, url);
      const answer = await http.fetch(new URL(`/admin/approvals/${number}/${verdict}`, url), {
        method: "POST",
        headers: { authorization: `Bearer ${token}` },
        signal: AbortSignal.timeout(LIST_MS),
      });
      const told = (await answer.json()) as JsonObject;
      if (answer.ok) return { state: told["state"] ?? "" };
      const { message = `The gateway answered ${answer.status}.` } = (told["error"] ?? told) as { message?: string };
      throw new DrawbridgeError("not_approver", message);
    },
    async grade() {
      const to = now();
      return (await to.grade((await everythingOf(to)).tools)) ?? {};
    },
    async close() {
      for (const one of calls.values()) one.abort();
      await http.close();
    },
  };
}

/** Sees all that anybody can. */
const NOBODY: Persona = { role: EVERYTHING, subject: "dev", groups: [], scopes: [] };

const quick = (wanted: Era) => ({ era: wanted, signal: AbortSignal.timeout(LIST_MS) });

const traceparentOf = (traceId: string) => `00-${traceId}-${randomBytes(8).toString("hex")}-01`;

/** All four lists. `problem`: the first answer that was none; what a server does not have is no problem. */
async function listed(to: Speaker): Promise<{ readonly lists: Lists; readonly problem: Spoken | undefined }> {
  const conversation = await converse(to);
  try {
    const found: Record<string, readonly JsonObject[]> = {};
    for (const [list, method] of Object.entries(LISTS)) {
      const entries: JsonObject[] = [];
      let cursor: unknown;
      for (let page = 0; page < MAX_PAGES; page++) {
        const spoken = await conversation.request(method, cursor === undefined ? {} : { cursor: String(cursor) });
        if (spoken.kind === "error") {
          if (spoken.code === METHOD_NOT_FOUND) break;
          return { lists: NONE, problem: spoken };
        }
        entries.push(...((spoken.result[list] ?? []) as readonly JsonObject[]));
        cursor = spoken.result["nextCursor"];
        if (cursor === undefined) break;
      }
      found[list] = entries;
    }
    return { lists: { ...NONE, ...found }, problem: undefined };
  } finally {
    await conversation.close();
  }
}

const memberOf = (value: unknown, key: string): unknown =>
  typeof value === "object" && value !== null && Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined;

const METHOD_NOT_FOUND = -32601;

function difference(all: Lists, shown: Lists): Lists {
  const names = Object.keys(LISTS) as (keyof Lists)[];
  return Object.fromEntries(
    names.map((list) => {
      const known = new Set(shown[list].map(nameOf));
      return [list, all[list].filter((one) => !known.has(nameOf(one)))];
    }),
  ) as unknown as Lists;
}

const nameOf = ({ uri, uriTemplate, name }: JsonObject) => String(uri ?? uriTemplate ?? name);

async function evidenceOf(of: Current, traceId: string, method: string): Promise<Evidence | undefined> {
  for (let tries = 0; ; tries++) {
    const found = await of.evidence(traceId);
    const recorded =
      found?.records.some(({ call }) => (call as JsonObject | undefined)?.["method"] === method) === true;
    if (found === undefined || recorded || tries >= RECORD_TRIES) return found;
    await sleep(RECORD_MS);
  }
}
