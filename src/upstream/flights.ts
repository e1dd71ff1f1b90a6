/**
 * Calls in flight by their id. A Map would do, were it not that a Map under constant change leaves tables behind which keep ended
 * calls from the young collector (docs/decisions/006-calls-die-young.md). Ids only grow, so each has a slot of its own for long enough;
 * a call that is still there when its slot comes round again makes the newcomer go to a Map.
 */
const SLOTS = 1024;

export interface InFlight {
  readonly id: number;
}

export class Flights<Call extends InFlight> {
  readonly #slots: (Call | undefined)[] = new Array<Call | undefined>(SLOTS).fill(undefined);
  readonly #others = new Map<number, Call>();
  #size = 0;

  get size(): number {
    return this.#size;
  }
  get(id: number): Call | undefined {
    const call = this.#slots[id % SLOTS];
    return call?.id === id ? call : this.#others.get(id);
  }
  add(call: Call): void {
    const slot = call.id % SLOTS;
    if (this.#slots[slot] === undefined) this.#slots[slot] = call;
    else this.#others.set(call.id, call);
    this.#size++;
  }
  /** False when it was not there. */
  delete(id: number): boolean {
    const slot = id % SLOTS;
    if (this.#slots[slot]?.id === id) this.#slots[slot] = undefined;
    else if (!this.#others.delete(id)) return false;
    this.#size--;
    return true;
  }
  *values(): Generator<Call> {
    if (this.#size === 0) return;
    for (const call of this.#slots) if (call !== undefined) yield call;
    yield* this.#others.values();
  }
}
