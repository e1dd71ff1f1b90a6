/** What an instruction to a model looks like in data: each sign has a weight, and those that stand together add up. */
import type { View } from "../normalise.ts";
import type { Sign } from "./answer-rules.ts";
import { foreignSigns } from "./foreign-signs.ts";
import { framesIn } from "./frames.ts";
import { shapesIn } from "./shapes.ts";

/** Everything in a text that looks like a part of an instruction, in places of that text. */
export function signsOf(view: View): readonly Sign[] {
  return [...shapesIn(view.text), ...framesIn(view.text), ...foreignSigns(view)];
}
