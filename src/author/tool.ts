/** `tool()`: what a tool takes, gives and may, said beside what it does. */
import type { z } from "zod";
import type { MaskAction } from "../core/mask-actions.ts";
import type {
  AnyObject,
  CheckedInput,
  CheckedOutput,
  CheckedWords,
  Documentation,
  NoAccess,
  NoInput,
  NoOutput,
  NoTitle,
  NoWords,
} from "./compile-errors.ts";
import type { Context } from "./context.ts";
import { declaredAt } from "./declared-at.ts";

export type Access = "read" | "write" | "destructive";

/** How often the calls of a tool may be made, as `limits.tools` of a settings file has it; at least one of them. */
export interface Limits {
  /** Of one user. */
  readonly perMinute?: number;
  readonly perDay?: number;
  readonly concurrent?: number;
  /** Counts all users together. */
  readonly together?: boolean;
  /** How many calls one call counts as. */
  readonly cost?: number;
}

/** Who has to approve a call before it is made, as `approval` of a contract has it. */
export interface Approval {
  /** CEL over `principal`, `args`, `call`, `resource`, `time`; default: for every call. */
  readonly when?: string;
  /** Roles that may approve; default: whoever makes the call confirms it. */
  readonly by?: readonly string[];
  readonly fourEyes?: boolean;
  readonly expiresSeconds?: number;
  readonly reason?: string;
}

/** What a declaration may say beside what it must. */
export interface ToolOptions {
  /** Whether it reaches beyond the server's own data: the web, mail, other people. Default: no. */
  readonly openWorld?: boolean;
  /** Calling it twice does no more than calling it once. */
  readonly idempotent?: boolean;
  /** Scopes that a token needs for it, all of them, beside that for calls; asked for when it is first wanted (step-up). */
  readonly scopes?: readonly string[];
  /** What becomes of fields of the answer, by their paths: `{ "customer/email": "token" }`. */
  readonly mask?: Readonly<Record<string, MaskAction>>;
  readonly limits?: Limits;
  readonly approval?: "required" | Approval;
  /** How long the handler may take; then its `signal` aborts and the call fails. Default: 60. */
  readonly timeoutSeconds?: number;
}

/** A tool as it was declared. What is wrong with it is told when a `server` is made of it, all at once. */
export interface Tool extends ToolOptions {
  readonly kind: "tool";
  readonly name: string;
  readonly title: string;
  readonly description: Documentation;
  readonly input: z.ZodObject;
  readonly output: z.ZodObject;
  readonly access: Access;
  readonly handler: (args: never, context: Context) => unknown;
  /** `file:line` of the declaration. */
  readonly place: string;
}

/**
 * Declares a tool. Nested or free-form inputs, strings and lists without a bound, fields without words, outputs that may hold
 * anything, and a missing title, description, access, input or output do not compile; the message says what to do.
 */
export function tool<
  const Title extends string = NoTitle,
  const Words extends Partial<Documentation> | NoWords = NoWords,
  Input extends AnyObject | NoInput = NoInput,
  Output extends AnyObject | NoOutput = NoOutput,
  const Can extends Access | NoAccess = NoAccess,
>(
  declaration: ToolOptions & { readonly title: Title } & { readonly description: Words & CheckedWords<Words> } & {
    readonly input: Input;
  } & { readonly input: CheckedInput<Input> } & { readonly output: Output } & {
    readonly output: CheckedOutput<Output>;
  } & { readonly access: Can } & {
    readonly name: string;
    /** Gets checked arguments; of what it returns only what `output` declares leaves. */
    readonly handler: (
      args: Input extends AnyObject ? Input["_zod"]["output"] : never,
      context: Context,
    ) => Answer<Output> | Promise<Answer<Output>>;
  },
): Tool {
  return { ...(declaration as unknown as Omit<Tool, "kind" | "place">), kind: "tool", place: declaredAt() };
}

type Answer<Output> = Output extends AnyObject ? Output["_zod"]["input"] : unknown;
