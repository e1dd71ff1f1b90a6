/** Attempts for the examples of rules. */
import type { Attempt } from "./observed.ts";

export const TAKEN: Attempt = { outcome: "taken", said: "200" };
export const REFUSED: Attempt = { outcome: "refused", said: "401" };
