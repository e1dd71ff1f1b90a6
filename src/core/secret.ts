/** A value that must not be printed: logs, JSON and the debugger show `[secret]`. */
import { hash, timingSafeEqual } from "node:crypto";
import { inspect } from "node:util";
import { z } from "zod";

export class Secret {
  readonly #value: string;
  constructor(value: string) {
    this.#value = value;
  }
  /** The value itself. Call it where the value leaves for its one destination, nowhere else. */
  reveal(): string {
    return this.#value;
  }
  /** Compares in constant time, whatever the lengths. */
  equals(candidate: string): boolean {
    const digest = (text: string) => hash("sha256", text, "buffer");
    return timingSafeEqual(digest(this.#value), digest(candidate));
  }
  toString(): string {
    return "[secret]";
  }
  toJSON(): string {
    return "[secret]";
  }
  [inspect.custom](): string {
    return "[secret]";
  }
}

/** A settings field that holds a secret: in the file a reference such as `${secret:idp}` or `${env:IDP_SECRET}`. */
export const secretField = z
  .custom<Secret>((value) => value instanceof Secret, {
    message: "expected a reference such as ${secret:name} or ${env:NAME}, not the secret itself",
  })
  // An empty one is what a deployment forgot, and the same everywhere.
  .refine((value) => !(value instanceof Secret) || value.reveal().trim() !== "", "the secret is empty; give it a value")
  .meta({ type: "string", pattern: "^\\$\\{(secret|env):[A-Za-z0-9_.-]+\\}$" });
