/** `resource()` and `prompt()`: what is read, and what is asked for by name, declared as tools are. */
import type { z } from "zod";
import type { AnyObject, CheckedInput, CheckedOutput } from "./compile-errors.ts";
import type { Context } from "./context.ts";
import { declaredAt } from "./declared-at.ts";

export interface Resource {
  readonly kind: "resource";
  /** A URI, or a template whose variables are the input: `orders://{order_id}`. */
  readonly uri: string;
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly input: z.ZodObject;
  readonly output: z.ZodObject;
  readonly handler: (args: never, context: Context) => unknown;
  readonly place: string;
}

/** Declares a resource, which is read as JSON. A variable of a template stands for one segment: it takes anything but `/`. */
export function resource<Input extends AnyObject, Output extends AnyObject>(
  declaration: {
    readonly uri: string;
    readonly name: string;
    readonly title: string;
    readonly description: string;
    /** The variables of the template, each a string with a bound; z.object({}) for a plain URI. */
    readonly input: Input;
  } & { readonly input: CheckedInput<Input> } & { readonly output: Output } & {
    readonly output: CheckedOutput<Output>;
  } & {
    readonly handler: (
      args: Input["_zod"]["output"],
      context: Context,
    ) => Output["_zod"]["input"] | Promise<Output["_zod"]["input"]>;
  },
): Resource {
  return { ...(declaration as unknown as Omit<Resource, "kind" | "place">), kind: "resource", place: declaredAt() };
}

export interface Prompt {
  readonly kind: "prompt";
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly input: z.ZodObject;
  readonly handler: (args: never, context: Context) => unknown;
  readonly place: string;
}

/** Declares a prompt: text in the user's name, made of arguments that are strings. */
export function prompt<Input extends AnyObject>(
  declaration: {
    readonly name: string;
    readonly title: string;
    readonly description: string;
    readonly input: Input;
  } & { readonly input: CheckedInput<Input> } & {
    readonly handler: (args: Input["_zod"]["output"], context: Context) => string | Promise<string>;
  },
): Prompt {
  return { ...(declaration as unknown as Omit<Prompt, "kind" | "place">), kind: "prompt", place: declaredAt() };
}
