/** How much of something is put up with: so much at once, and so much a second for ever. */
export class Allowance {
  readonly #most: number;
  readonly #perSecond: number;
  #spent = 0;
  #at = 0;

  constructor(most: number, perSecond: number) {
    this.#most = most;
    this.#perSecond = perSecond;
  }

  /** False once it is more than is put up with. `now`: milliseconds of a clock that never goes back. */
  spend(amount: number, now: number): boolean {
    this.#spent = Math.max(0, this.#spent - ((now - this.#at) / 1000) * this.#perSecond) + amount;
    this.#at = now;
    return this.#spent <= this.#most;
  }
}
