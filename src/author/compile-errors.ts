/**
 * What the compiler refuses, and in which words. Each problem is a type that is its own message: a declaration that has one is "not
 * assignable to" a sentence that says what to do. What types cannot say is refused at start (`soundness.ts`).
 */
import type { Bounded, Described } from "./zod-words.ts";

/** What is no schema has the type of none: `never` would match every row below, and go round for ever. */
type Def<T> = [T] extends [{ readonly _zod: { readonly def: infer D } }] ? D : { readonly type: "none" };

/** Formats of zod whose values are short by nature. */
type ShortFormat = "uuid" | "guid" | "date" | "time" | "datetime" | "ipv4" | "ipv6";
/** What stands around a value and changes nothing of what it is. */
type Wrapper = "optional" | "nullable" | "default" | "prefault" | "nonoptional" | "readonly";

/**
 * `z.ZodObject` by what of it counts here: comparing whole classes of zod costs the compiler more than it allows itself for objects
 * in lists.
 */
export interface AnyObject {
  readonly _zod: { readonly def: { readonly type: "object" }; readonly input: unknown; readonly output: unknown };
}
interface ObjectOf<Shape, Rest> {
  readonly _zod: { readonly def: { readonly shape: Shape }; readonly config: Rest };
}

/** Of an object that takes, or lets out, more than its shape. */
type IsOpen<Rest> = Rest extends { readonly out: infer Out } ? (string extends keyof Out ? true : false) : false;

// ---- inputs ----

type Unbounded =
  `needs a bound: a string .max(n), .length(n), an anchored .regex(/^…$/) or z.enum([…]); a list .max(n)`;
type FreeForm = `is free-form: give it a type of its own, or declare its fields as inputs`;
type Nested =
  `is nested: an input is a primitive, an enum, a list of them, or a flat record (an object of primitives); make its inner fields inputs of their own`;
type Undescribed = `needs .describe("…"): what it means, with an example`;

/** The problem of something that must be a primitive or an enum; never when there is none. */
type ScalarProblem<T> =
  Def<T> extends { readonly type: Wrapper; readonly innerType: infer Inner }
    ? ScalarProblem<Inner>
    : Def<T> extends { readonly type: "number" | "boolean" | "enum" | "literal" | "null" }
      ? never
      : Def<T> extends { readonly type: "string" }
        ? T extends Bounded
          ? never
          : Def<T> extends { readonly format: ShortFormat }
            ? never
            : Unbounded
        : Def<T> extends { readonly type: "union"; readonly options: readonly (infer Options)[] }
          ? Options extends unknown
            ? ScalarProblem<Options>
            : never
          : Def<T> extends { readonly type: "array" | "object" | "record" | "tuple" | "map" | "set" | "intersection" }
            ? Nested
            : FreeForm;

/** The same of a flat record or a primitive. */
type RecordProblem<T> =
  Def<T> extends { readonly type: "object" }
    ? T extends ObjectOf<infer S, infer Rest>
      ? IsOpen<Rest> extends true
        ? FreeForm
        : { [Key in keyof S]: ScalarProblem<S[Key]> }[keyof S]
      : FreeForm
    : Def<T> extends { readonly type: "record"; readonly keyType: infer Key; readonly valueType: infer Value }
      ? Def<Key> extends { readonly type: "enum" | "literal" }
        ? ScalarProblem<Value>
        : FreeForm
      : ScalarProblem<T>;

type InputProblem<T> =
  Def<T> extends { readonly type: Wrapper; readonly innerType: infer Inner }
    ? InputProblem<Inner>
    : T extends { readonly element: infer Element; readonly _zod: { readonly def: { readonly type: "array" } } }
      ? RecordProblem<Element> | (T extends Bounded ? never : Unbounded)
      : RecordProblem<T>;

type IsDescribed<T> = T extends Described
  ? true
  : Def<T> extends { readonly type: Wrapper; readonly innerType: infer Inner }
    ? IsDescribed<Inner>
    : false;

type InputProblems<S> = {
  [Key in keyof S & string]: Said<
    `input "${Key}"`,
    InputProblem<S[Key]> | (IsDescribed<S[Key]> extends true ? never : Undescribed)
  >;
}[keyof S & string];

/** `unknown` for a sound input; otherwise the problems as sentences. */
export type CheckedInput<I> = [I] extends [ObjectOf<infer S, infer Rest>]
  ? IsOpen<Rest> extends true
    ? "drawbridge: the input takes fields that nobody declared: write z.object({…})"
    : Verdict<InputProblems<S>>
  : unknown;

/** A problem, with where it is. */
type Said<Where extends string, Problem> = Problem extends string ? `drawbridge: ${Where} ${Problem}` : never;
type Verdict<Problems> = [Problems] extends [never] ? unknown : Problems;

// ---- outputs ----

/** The problem of anything in an answer: what may hold what nobody declared. */
type OutputProblem<T> =
  Def<T> extends { readonly type: Wrapper; readonly innerType: infer Inner }
    ? OutputProblem<Inner>
    : Def<T> extends { readonly type: "object" }
      ? T extends ObjectOf<infer S, infer Rest>
        ? IsOpen<Rest> extends true
          ? "may hold fields that nobody declared: write z.object({…}), and what is not in it is dropped"
          : { [Key in keyof S]: OutputProblem<S[Key]> }[keyof S]
        : never
      : Def<T> extends { readonly type: "array"; readonly element: infer Element }
        ? OutputProblem<Element>
        : Def<T> extends { readonly type: "record"; readonly valueType: infer Value }
          ? OutputProblem<Value>
          : Def<T> extends { readonly type: "any" | "unknown" | "custom" }
            ? "may hold anything: declare what leaves, field by field"
            : never;

type OutputProblems<S> = {
  [Key in keyof S & string]: Said<`output "${Key}"`, OutputProblem<S[Key]>>;
}[keyof S & string];

export type CheckedOutput<O> = [O] extends [ObjectOf<infer S, infer Rest>]
  ? IsOpen<Rest> extends true
    ? "drawbridge: the output may hold fields that nobody declared: write z.object({…}), and what is not in it is dropped"
    : Verdict<OutputProblems<S>>
  : unknown;

// ---- what must not be missing ----

/** The five parts of a description. A model that lacks one of them guesses. */
export interface Documentation {
  /** What it does, in a sentence: "Shows one order: its status, items and refunds." */
  readonly does: string;
  /** After "Use it": "when somebody asks about an order whose number they know". */
  readonly useWhen: string;
  /** After "Do not use it": "to find a number; find_orders does that". */
  readonly notWhen: string;
  /** After "Returns": "amounts in pence and dates in ISO 8601". */
  readonly returns: string;
  /** After "Limits:": "one order at a time". */
  readonly limits: string;
}

export const DOCUMENTATION = [
  "does",
  "useWhen",
  "notWhen",
  "returns",
  "limits",
] as const satisfies readonly (keyof Documentation)[];

type Lacks<D> = Exclude<keyof Documentation, keyof D>;

/** What stands for each part that was not written. */
export type NoTitle = "drawbridge: a title is missing: what people read in place of the name";
export type NoWords = "drawbridge: a description is missing: { does, useWhen, notWhen, returns, limits }";
export type NoInput = "drawbridge: an input is missing: z.object({…}), or z.object({}) for none";
export type NoOutput = "drawbridge: an output is missing: z.object({…}), what of the answer leaves";
export type NoAccess = 'drawbridge: access is missing: "read", "write" or "destructive"';

export type CheckedWords<D> = D extends string
  ? unknown
  : [Lacks<D>] extends [never]
    ? unknown
    : { readonly [K in Lacks<D>]: `drawbridge: the description lacks "${K}": a model that is not told guesses` };
