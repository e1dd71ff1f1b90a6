/** A result whose structured content was changed on its way, and still has to be of the form that clients were shown. */
import type { JsonObject, JsonValue, Outcome } from "../../core/call.ts";
import { isObject, memberTexts, objectText } from "../../mcp/json-text.ts";
import { fitted } from "./fitting.ts";

type Result = Outcome & { readonly kind: "result" };

/**
 * `changed` as an outcome. Where its structured content does not fit `promised` any more, those places get what fits and says nothing,
 * also where text repeats that content; where nothing fits all of it is withheld and `withheld` stands in its place.
 */
export async function asPromised(
  { result: original, value }: Result,
  changed: string,
  promised: JsonObject | undefined,
  withheld: string,
): Promise<Result> {
  const before = promised && value["structuredContent"] !== undefined ? memberTexts(original) : undefined;
  const members = before && memberTexts(changed);
  const [content, shown] = [before?.get("structuredContent"), members?.get("structuredContent")];
  if (promised === undefined || content === undefined || shown === undefined || content === shown)
    return resultOf(changed);
  const fitting = await fitted(promised, content, shown);
  if (fitting === undefined) return resultOf(JSON.stringify(withheldResult(withheld)));
  if (fitting === shown) return resultOf(changed);
  members?.set("structuredContent", fitting);
  const blocks = value["content"];
  const now = (JSON.parse(changed) as JsonObject)["content"];
  if (Array.isArray(blocks) && Array.isArray(now)) {
    const whole = JSON.stringify(value["structuredContent"]);
    const repeated = now.map((block: JsonValue, index) => {
      const text = (blocks[index] as JsonObject | undefined)?.["text"];
      return isObject(block) && typeof text === "string" && sameJson(text, whole) ? { ...block, text: fitting } : block;
    });
    members?.set("content", JSON.stringify(repeated));
  }
  return resultOf(objectText(members ?? new Map()));
}

/** A tool's error, which the model can read. */
export function withheldResult(text: string): JsonObject {
  return { content: [{ type: "text", text }], isError: true };
}

export function resultOf(result: string): Result {
  return { kind: "result", result, value: JSON.parse(result) as JsonObject };
}

function sameJson(text: string, whole: string): boolean {
  if (!/^\s*[[{]/.test(text)) return false;
  try {
    return JSON.stringify(JSON.parse(text)) === whole;
  } catch {
    return false;
  }
}
