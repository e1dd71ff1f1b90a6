/** Does things in the order they came, a few at a time. */

export interface FewAtATime {
  /** Does it as soon as there is room; `done` makes room for the next. Forgets it when too many wait already. */
  run(deed: (done: () => void) => void): void;
  /** Forgets what waits. */
  forget(): void;
}

export function fewAtATime(atOnce: number, maxWaiting: number): FewAtATime {
  let underWay = 0;
  let waiting: ((done: () => void) => void)[] = [];

  function next(): void {
    const deed = underWay < atOnce ? waiting.shift() : undefined;
    if (deed === undefined) return;
    underWay++;
    deed(() => {
      underWay--;
      // Of thousands that are done at once, none may call the next.
      queueMicrotask(next);
    });
  }

  return {
    run(deed) {
      if (waiting.length >= maxWaiting) return;
      waiting.push(deed);
      next();
    },
    forget() {
      waiting = [];
    },
  };
}
