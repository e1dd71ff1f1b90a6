/**
 * A call in which the server asks the user for a name and then greets by it. The answer is given as each revision has it: to a
 * request on the answer's stream, by a POST of its own (2025-11-25), or by calling again with it (2026-07-28).
 */
import { Connection, callWith, type Endpoint, fault, post, type Reply } from "./client.ts";

/** One client with one call under way. */
export class Dialogue {
  readonly #endpoint: Endpoint;
  readonly #calls: Connection;
  /** The connection of the call is busy while the server waits, so answers have their own (2025-11-25). */
  readonly #answers: Connection;

  constructor(endpoint: Endpoint, calls: Connection, timeoutMs: number) {
    this.#endpoint = endpoint;
    this.#calls = calls;
    this.#answers = new Connection(endpoint.port, timeoutMs);
  }

  /** Calls back exactly once, with the last reply and what is wrong with it. A call needs two ids: 2·id and 2·id + 1. */
  call(
    id: number,
    name: string,
    session: string | undefined,
    done: (reply: Reply, wrong: string | undefined) => void,
  ): void {
    const first = 2 * id;
    const opening = callWith(this.#endpoint, first, '"arguments":{}', session);
    if (this.#endpoint.revision === "2026-07-28") this.#again(opening, first, name, done);
    else this.#onStream(opening, first, name, session, done);
  }

  close(): void {
    this.#answers.close();
  }

  #again(opening: string, first: number, name: string, done: Done): void {
    this.#calls.exchange(opening, (reply) => {
      const asked = reply.kind === "answer" && reply.status === 200 ? parsed(reply.body) : undefined;
      const [question, ...more] = Object.keys(asked?.result?.inputRequests ?? {});
      if (asked?.id !== first || question === undefined || more.length > 0) {
        done(reply, fault(reply, first, "") ?? NOT_ASKED);
        return;
      }
      const members = { inputResponses: { [question]: answer(name) }, requestState: asked.result?.requestState };
      const retry = `"arguments":{},${JSON.stringify(members).slice(1, -1)}`;
      const second = first + 1;
      this.#calls.exchange(callWith(this.#endpoint, second, retry, undefined), (last) =>
        done(last, fault(last, second, greeting(name))),
      );
    });
  }

  #onStream(opening: string, first: number, name: string, session: string | undefined, done: Done): void {
    let questions = 0;
    const finish = (reply: Reply): void => {
      done(reply, fault(reply, first, greeting(name)) ?? (questions === 1 ? undefined : NOT_ASKED));
    };
    this.#calls.exchange(opening, finish, (message) => {
      const { id, method } = parsed(message) ?? {};
      if (method !== "elicitation/create") return;
      questions += 1;
      const body = JSON.stringify({ jsonrpc: "2.0", id, result: answer(name) });
      const version = "mcp-protocol-version: 2025-11-25\r\n";
      // An answer that is refused shows in the call: it gets no greeting before its time is over.
      this.#answers.exchange(post(this.#endpoint, version, session, body), () => {});
    });
  }
}

type Done = (reply: Reply, wrong: string | undefined) => void;

interface Message {
  readonly id?: string | number;
  readonly method?: string;
  readonly result?: { readonly inputRequests?: Readonly<Record<string, unknown>>; readonly requestState?: string };
}

const NOT_ASKED = "not-asked-once";

function answer(name: string): object {
  return { action: "accept", content: { name } };
}

function greeting(name: string): string {
  return `Hello, ${name}!`;
}

function parsed(text: string): Message | undefined {
  try {
    return JSON.parse(text) as Message;
  } catch {
    return undefined;
  }
}
