/** Milliseconds since the epoch. Passed in as the last argument wherever time matters, so that tests own it. */
export type Clock = () => number;

export const systemClock: Clock = () => Date.now();
