/** What can become of a private value, from what shows all to what shows nothing: `mask/settings.ts` says what each means. */
export const MASK_ACTIONS = ["keep", "partial", "token", "hash", "redact", "drop"] as const;
export type MaskAction = (typeof MASK_ACTIONS)[number];
