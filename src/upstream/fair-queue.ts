/**
 * A queue that is fair between its flows (principals), whatever they wait for: start-time fair queuing. Each entry is stamped
 * one after its flow's last, or after the newest stamp taken when the flow was away, and the smallest stamp goes first. Entries
 * wait in lanes (tools), so that a lane nobody can serve at the moment does not hold up the others.
 */

/** An entry's place in the queue. */
export interface Ticket<T> {
  readonly lane: string;
  readonly stamp: number;
  /** Breaks ties between equal stamps: first come, first served. */
  readonly order: number;
  /** Undefined once taken or removed. */
  item: T | undefined;
}

export interface FairQueue<T> {
  readonly size: number;
  push(flow: string, lane: string, item: T): Ticket<T>;
  /** Takes the next entry of the lanes that are `open` (to their first); undefined when there is none. */
  take(open: (lane: string, first: T) => boolean): T | undefined;
  /** Removing what has been taken or removed does nothing. */
  remove(ticket: Ticket<T>): void;
  waitingIn(lane: string): number;
  /** Who is first in each lane. */
  heads(): Iterable<T>;
  /** Empties the queue; returns what was in it. */
  drain(): T[];
}

interface Lane<T> {
  /** A binary heap by (stamp, order). */
  heap: Ticket<T>[];
  live: number;
}

export function fairQueue<T>(): FairQueue<T> {
  const lanes = new Map<string, Lane<T>>();
  const lastStamps = new Map<string, number>();
  let taken = 0;
  let order = 0;
  let size = 0;

  function forget(name: string, lane: Lane<T>): void {
    size--;
    lane.live--;
    if (lane.live === 0) lanes.delete(name);
    else if (lane.heap.length > 2 * lane.live + 64) lane.heap = rebuilt(lane.heap);
    if (size === 0) lastStamps.clear();
  }

  return {
    get size() {
      return size;
    },
    push(flow, name, item) {
      const stamp = Math.max(taken, lastStamps.get(flow) ?? 0) + 1;
      lastStamps.set(flow, stamp);
      if (lastStamps.size > 2 * size + 1024)
        for (const [key, last] of lastStamps) if (last <= taken) lastStamps.delete(key);
      const ticket: Ticket<T> = { lane: name, stamp, order: order++, item };
      const lane = lanes.get(name) ?? { heap: [], live: 0 };
      lanes.set(name, lane);
      rise(lane.heap, ticket);
      lane.live++;
      size++;
      return ticket;
    },
    take(open) {
      let best: Ticket<T> | undefined;
      let bestLane: Lane<T> | undefined;
      for (const [name, lane] of lanes) {
        const head = first(lane);
        if (head?.item === undefined || !open(name, head.item)) continue;
        if (best === undefined || before(head, best)) {
          best = head;
          bestLane = lane;
        }
      }
      if (best === undefined || bestLane === undefined) return undefined;
      sink(bestLane.heap);
      const { item } = best;
      best.item = undefined;
      taken = best.stamp;
      forget(best.lane, bestLane);
      return item;
    },
    remove(ticket) {
      const lane = lanes.get(ticket.lane);
      if (ticket.item === undefined || lane === undefined) return;
      ticket.item = undefined;
      forget(ticket.lane, lane);
    },
    waitingIn: (lane) => lanes.get(lane)?.live ?? 0,
    *heads() {
      for (const lane of lanes.values()) {
        const item = first(lane)?.item;
        if (item !== undefined) yield item;
      }
    },
    drain() {
      const all = [...lanes.values()].flatMap((lane) => lane.heap).sort((a, b) => (before(a, b) ? -1 : 1));
      const items: T[] = [];
      for (const ticket of all) {
        if (ticket.item !== undefined) items.push(ticket.item);
        ticket.item = undefined;
      }
      lanes.clear();
      lastStamps.clear();
      size = 0;
      return items;
    },
  };
}

function first<T>(lane: Lane<T>): Ticket<T> | undefined {
  while (lane.heap[0] !== undefined && lane.heap[0].item === undefined) sink(lane.heap);
  return lane.heap[0];
}

function before(a: Ticket<unknown>, b: Ticket<unknown>): boolean {
  return a.stamp < b.stamp || (a.stamp === b.stamp && a.order < b.order);
}

function rise<T>(heap: Ticket<T>[], ticket: Ticket<T>): void {
  let at = heap.length;
  heap.push(ticket);
  while (at > 0) {
    const up = (at - 1) >> 1;
    const parent = heap[up];
    if (parent === undefined || !before(ticket, parent)) break;
    heap[at] = parent;
    at = up;
  }
  heap[at] = ticket;
}

/** Takes the head off. */
function sink<T>(heap: Ticket<T>[]): void {
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return;
  let at = 0;
  for (;;) {
    const left = heap[2 * at + 1];
    if (left === undefined) break;
    const right = heap[2 * at + 2];
    const [child, next] = right !== undefined && before(right, left) ? [right, 2 * at + 2] : [left, 2 * at + 1];
    if (!before(child, last)) break;
    heap[at] = child;
    at = next;
  }
  heap[at] = last;
}

function rebuilt<T>(heap: readonly Ticket<T>[]): Ticket<T>[] {
  // A sorted array is a heap.
  return heap.filter((ticket) => ticket.item !== undefined).sort((a, b) => (before(a, b) ? -1 : 1));
}
