/** Hints that say less than the name and the description do. */
import type { JsonObject } from "../../core/call.ts";
import { saying } from "../fixture.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const annotationLie: Rule = {
  id: "annotation-lie",
  title: "claims to change nothing, and changes something",
  owasp: "MCP03",
  principle: 5,
  severity: "medium",
  confidence: "medium",
  why: "Clients skip the question to the user for tools that call themselves read-only. A wrong hint gets a change past them.",
  fix: "Set readOnlyHint and destructiveHint to what the tool does.",
  bad: [saying("Deletes an order.", {}, { name: "delete_order", annotations: { readOnlyHint: true } })],
  good: [
    saying("Lists deleted orders.", {}, { name: "list_deleted_orders", annotations: { readOnlyHint: true } }),
    saying("Deletes an order.", {}, { name: "delete_order", annotations: { destructiveHint: true } }),
  ],
  find: found,
};

const CHANGES =
  /^(?:delete|remove|drop|destroy|purge|wipe|erase|truncate|kill|terminate|uninstall|revoke|send|transfer|pay|write|overwrite|update|create|insert|upload|publish|deploy|execute|rename|move|grant)$/;

function* found({ value, name }: Subject): Generator<Sighting | undefined> {
  const hints = value["annotations"];
  if (typeof hints !== "object" || hints === null || Array.isArray(hints)) return;
  const { readOnlyHint } = hints as JsonObject;
  const verb = name
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .toLowerCase()
    .split(/[_\-./ ]/)
    .find((word) => CHANGES.test(word));
  const first =
    name
      .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
      .toLowerCase()
      .split(/[_\-./ ]/)[0] ?? "";
  if (readOnlyHint === true && verb !== undefined && verb === first)
    yield { field: { where: "/annotations/readOnlyHint", text: `${name}: readOnlyHint true` } };
}
