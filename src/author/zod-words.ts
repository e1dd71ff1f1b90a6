/**
 * What zod's types do not keep by themselves: that a string was bounded and that a field was described. Both are facts about a value
 * that exist in its type alone; at start the schemas themselves are read (`soundness.ts`), since a bound can be lost on the way.
 */
import type { z } from "zod";

declare const bounded: unique symbol;
declare const described: unique symbol;
/** A string or list that ends somewhere. */
export interface Bounded {
  readonly [bounded]: true;
}
/** Something with words of its own. */
export interface Described {
  readonly [described]: true;
}

declare module "zod" {
  interface _ZodType {
    describe(description: string): this & Described;
  }
  interface _ZodString<T> {
    max(maxLength: number, params?: string | z.core.$ZodCheckMaxLengthParams): this & Bounded;
    length(len: number, params?: string | z.core.$ZodCheckLengthEqualsParams): this & Bounded;
    regex(regex: RegExp, params?: string | z.core.$ZodCheckRegexParams): this & Bounded;
  }
  interface ZodArray<T> {
    max(maxLength: number, params?: string | z.core.$ZodCheckMaxLengthParams): this & Bounded;
    length(len: number, params?: string | z.core.$ZodCheckLengthEqualsParams): this & Bounded;
  }
}
