/** Which fields of an answer leave. */
import type { JsonObject, JsonValue } from "../../core/call.ts";
import { isSchemaObject } from "../accepts.ts";
import { type Facts, wordsOf } from "./facts.ts";
import type { Remark } from "./proposal.ts";
import { MAX_DEPTH, shapeOf, typeName } from "./shape.ts";

export const ANSWER_BYTES = 65_536;
const MAX_FIELDS = 60;
/** Fields that an agent rarely needs and an attacker always does. */
const PRIVATE =
  /(^|_)(ssn|nino|national_?insurance(_number)?|passport(_number)?|tax_?id|dob|date_of_birth|birth_?da(y|te)|password|passwd|secret|token|api_?key|private_?key|credentials?|salary|cost|cost_[a-z]+|margin|internal[a-z_]*|notes?|iban|account_number|card_number|cvv|e_?mail|email_address|phone|phone_number|mobile|address|street|postcode|zip|ip_?address|payment_reference)$/;

export function proposedOutput(facts: Facts, sample: JsonValue | undefined, remarks: Remark[]): JsonObject {
  const bounds = { maxItems: 100, maxBytes: ANSWER_BYTES };
  const found =
    facts.output !== undefined
      ? fieldsOfSchema(facts.output, facts.output)
      : sample === undefined
        ? []
        : fieldsOfValue(sample);
  const all = [...new Set(found)].filter((field) => field !== "");
  if (all.length === 0) {
    remarks.push({
      path: ["output"],
      text: sample === undefined ? "All of the answer, up to this size." : "All of the answer: the sample is not JSON.",
    });
    return { maxBytes: ANSWER_BYTES };
  }
  const isPrivate = (field: string) =>
    PRIVATE.test(wordsOf(field.split("/").findLast((part) => part !== "*") ?? "").join("_"));
  const open = all.filter((field) => !isPrivate(field));
  const hidden = all.filter(isPrivate);
  const kept = (open.length > 0 ? open : all).slice(0, MAX_FIELDS);
  const rest = [...(open.length > 0 ? hidden : []), ...open.slice(MAX_FIELDS)];
  const shown = rest.slice(0, 30).join(", ");
  if (rest.length > 0)
    remarks.push({
      path: ["output"],
      text: `Left out: ${shown}${rest.length > 30 ? ` and ${rest.length - 30} more` : ""}. Add what agents need.`,
    });
  if (facts.output === undefined)
    remarks.push({ path: ["output"], text: "From one sample: fields that were not in it are missing here." });
  return { fields: kept, ...bounds };
}

/** Paths to what is no object, as `output.fields` has them. */
function fieldsOfSchema(written: JsonValue, root: JsonObject, path = "", depth = 0): readonly string[] {
  if (depth > MAX_DEPTH) return [];
  const schema = shapeOf(written, root);
  const type = typeName(schema);
  const below = (part: string) => (path === "" ? part : `${path}/${part}`);
  if (type === "array") {
    const inner = fieldsOfSchema(schema["items"] ?? true, root, below("*"), depth + 1);
    return inner.length > 0 ? inner : [below("*")];
  }
  if (type !== "object") return [path];
  const members = isSchemaObject(schema["properties"]) ? Object.entries(schema["properties"]) : [];
  const named = members.flatMap(([name, one]) =>
    fieldsOfSchema(one as JsonValue, root, below(escaped(name)), depth + 1),
  );
  const others = schema["additionalProperties"];
  return named.length === 0 && isSchemaObject(others) ? fieldsOfSchema(others, root, below("*"), depth + 1) : named;
}

function fieldsOfValue(value: JsonValue, path = "", depth = 0): readonly string[] {
  if (depth > MAX_DEPTH) return [];
  const below = (part: string) => (path === "" ? part : `${path}/${part}`);
  if (Array.isArray(value)) {
    const inner = value.slice(0, 20).flatMap((one) => fieldsOfValue(one, below("*"), depth + 1));
    return inner.length > 0 ? inner : [below("*")];
  }
  if (!isSchemaObject(value)) return [path];
  return Object.entries(value).flatMap(([name, one]) =>
    fieldsOfValue(one as JsonValue, below(escaped(name)), depth + 1),
  );
}

const escaped = (name: string) => name.replaceAll("~", "~0").replaceAll("/", "~1");
