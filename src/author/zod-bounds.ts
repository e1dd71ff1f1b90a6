import { z } from "zod";
declare const bounded: unique symbol;
export interface Bounded { readonly [bounded]: true }
declare module "zod" {
  interface _ZodString<T> {
    max(maxLength: number, params?: string): this & Bounded;
    length(length: number, params?: string): this & Bounded;
    regex(regex: RegExp, params?: string): this & Bounded;
  }
  interface ZodString {
    max(maxLength: number, params?: string): this & Bounded;
  }
}
const a = z.string();
const b = z.string().min(1).max(20).describe("x");
const c = z.email().max(20);
const d = z.string().max(20).regex(/a/).optional();
type IsB<T> = T extends Bounded ? "bounded" : "open";
export const x: [IsB<typeof a>, IsB<typeof b>, IsB<typeof c>] = ["open", "bounded", "bounded"];
export const y: IsB<typeof d extends z.ZodOptional<infer I> ? I : 0> = "bounded";
