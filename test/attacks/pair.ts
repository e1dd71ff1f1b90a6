/** Two replicas on one data set behind one address, as a load balancer puts them: tests say which of them answers. */
import { createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { type Clock, systemClock } from "../../src/core/clock.ts";
import { listen, type Running, type RunningOptions, running, stop } from "../oauth/support.ts";
import type { Backend } from "../store/backends.ts";

export interface Balancer extends AsyncDisposable {
  readonly origin: string;
  /** Where requests go from now on: to the first, to the second, or (the default) to the one and the other in turn. */
  to(choice: 0 | 1 | "each in turn"): void;
  /** Origins of the replicas; set once they listen. */
  replicas: readonly [string, string];
  /** How many requests each has had. */
  readonly served: [number, number];
}

export interface Pair extends AsyncDisposable {
  /** Both, behind the balancer: `token`, `connect`, `authorize` … use it like one server. */
  readonly both: Running;
  readonly first: Running;
  readonly second: Running;
  readonly balancer: Balancer;
}

/** Starts two authorization servers, with a connection each to the same data of `backend`. */
export async function pairOn(
  backend: Backend,
  options: Omit<RunningOptions, "records" | "publicUrl"> = {},
): Promise<Pair> {
  const clock: Clock = options.clock ?? systemClock;
  await using undo = new AsyncDisposableStack();
  const stores = undo.use(await backend.openTwo(clock));
  const balancer = undo.use(await balanced());
  const start = (records: Running["records"]) => running({ ...options, records, publicUrl: balancer.origin });
  const first = undo.use(await start(stores[0].records));
  const second = undo.use(await start(stores[1].records));
  balancer.replicas = [first.origin, second.origin];
  const kept = undo.move();
  return {
    both: { ...first, origin: balancer.origin, events: first.events },
    first,
    second,
    balancer,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** A proxy that adds nothing and hides nothing. */
export async function balanced(): Promise<Balancer> {
  let choice: 0 | 1 | "each in turn" = "each in turn";
  let turn = 0;
  const served: [number, number] = [0, 0];
  const server = createServer((incoming, outgoing) => {
    const index = choice === "each in turn" ? ((turn++ % 2) as 0 | 1) : choice;
    served[index]++;
    const { method, headers, url } = incoming;
    const onward = httpRequest(`${balancer.replicas[index]}${url}`, { method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
      answer.pipe(outgoing);
    });
    onward.on("error", () => outgoing.destroy());
    outgoing.on("close", () => onward.destroy());
    incoming.pipe(onward);
  });
  await listen(server);
  const { port } = server.address() as AddressInfo;
  const balancer: Balancer = {
    origin: `http://127.0.0.1:${port}`,
    replicas: ["", ""],
    served,
    to(next) {
      choice = next;
    },
    [Symbol.asyncDispose]: () => stop(server),
  };
  return balancer;
}

/** The answers to twenty requests sent at once, every second one to the other replica. */
export function twenty<T>(send: (index: number) => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: 20 }, (_, index) => send(index)));
}
