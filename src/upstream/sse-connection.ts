/**
 * HTTP+SSE, the transport of revision 2024-11-05: one stream of events from the server, and an endpoint that it names for what is
 * sent to it. Answers of all calls come on the one stream, as they do from a process, so it has the shape of one.
 */
import type { DrawbridgeError } from "../core/errors.ts";
import { oneLine } from "../core/one-line.ts";
import type { Endpoint, Manner, Party } from "./endpoint.ts";
import type { ProcessEvents, ServerProcess } from "./process.ts";

/** Messages on their way at most; more wait in the pool. */
const MAX_UNSENT = 256;
/** How long a message may take until the server has taken it. */
const POST_MS = 30_000;

export function startSse(endpoint: Endpoint, party: Party, events: ProcessEvents): ServerProcess {
  const manner: Manner = { headers: endpoint.headers, envelope: "" };
  const end = Promise.withResolvers<void>();
  const underWay = new Set<() => void>();
  let path: string | undefined;
  let waiting: string[] = [];
  /** Messages that were sent and not taken yet. */
  let sending = 0;
  /** What comes after a notification waits until all before it, and it, were taken. */
  let barrier = false;
  let full = false;
  let over = false;
  let stop = () => {};

  function finish(reason: string, startable: boolean, failure?: DrawbridgeError): void {
    if (over) return;
    over = true;
    waiting = [];
    stop();
    for (const giveUp of underWay) giveUp();
    events.exited(reason, startable, failure);
    end.resolve();
  }

  stop = endpoint.stream(manner, party, "", {
    event(type, data) {
      if (type === "endpoint" && path === undefined) onEndpoint(data);
    },
    message(text) {
      if (!over) events.output(Buffer.from(`${oneLine(text)}\n`));
    },
    end({ status, streamed, excerpt }) {
      // A server that does not know the transport will not learn it soon.
      if (streamed) finish("was closed by the server", true);
      else finish(`was answered with HTTP ${status} ${excerpt.slice(0, 200)}`.trimEnd(), status >= 500);
    },
    fail: (error) =>
      finish(`broke: ${error.detail ?? error.message}`, true, error.code === "answer_too_large" ? error : undefined),
  });

  // It may have failed at once.
  if (over) stop();

  /** The endpoint must be at the same origin: credentials go there (2024-11-05, Transports). */
  function onEndpoint(named: string): void {
    const url = URL.parse(named.trim(), endpoint.url.href);
    if (url === null || url.origin !== endpoint.url.origin) {
      finish(`named an endpoint at another origin: ${named.slice(0, 200)}`, false);
      return;
    }
    path = `${url.pathname}${url.search}`;
    flush();
  }

  function flush(): void {
    while (path !== undefined && !barrier && !over) {
      const [text] = waiting;
      if (text === undefined) return;
      const notification = text.startsWith(NOTIFICATION);
      if (notification && sending > 0) return;
      waiting.shift();
      barrier = notification;
      post(path, text);
    }
  }

  function post(to: string, text: string): void {
    sending++;
    const taken = () => {
      clearTimeout(timer);
      underWay.delete(giveUp);
      sending--;
      if (sending === 0) barrier = false;
      flush();
      if (full && sending + waiting.length < MAX_UNSENT) {
        full = false;
        events.drained();
      }
    };
    const body = text.trimEnd();
    const giveUp = endpoint.send({ method: "POST", path: to, headers: [...manner.headers], body }, party, {
      message() {},
      end(reply) {
        taken();
        if (reply.status === 404) finish("was forgotten by the server", true);
        else if (reply.status >= 300) events.unsent?.(body, endpoint.refusal({ ...reply, response: undefined }));
      },
      fail(error) {
        taken();
        events.unsent?.(body, error);
      },
    });
    underWay.add(giveUp);
    const timer = setTimeout(() => {
      giveUp();
      taken();
    }, POST_MS);
  }

  async function leave(): Promise<void> {
    finish("was closed", true);
    await end.promise;
  }

  return {
    pid: undefined,
    get full() {
      return full;
    },
    write(text) {
      if (over) return;
      waiting.push(text);
      flush();
      if (sending + waiting.length >= MAX_UNSENT) full = true;
    },
    end: leave,
    kill: leave,
  };
}

/** How our own notifications begin. */
const NOTIFICATION = '{"jsonrpc":"2.0","method":';
