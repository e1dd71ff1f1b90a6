/** One contract, proposed and proved to be loadable. */
import type { JsonObject } from "../../core/call.ts";
import { compileContract, isContract } from "../contract.ts";
import { missingParts } from "../document.ts";
import { toolContract } from "../settings.ts";
import { exampleOf } from "./examples.ts";
import { accessOf, type Facts } from "./facts.ts";
import { proposedInput } from "./input.ts";
import { ANSWER_BYTES, proposedOutput } from "./output.ts";
import type { Offer, ProposedTool, Remark } from "./proposal.ts";
import { plainWords, sentenceOf } from "./words.ts";

const SERVED_NAME = /^[A-Za-z0-9_.-]{1,128}$/;
const MAX_TITLE = 200;
const MAX_WORDS = 1200;

/** A sentence instead when there is no contract for it. */
export async function proposedTool(
  facts: Facts,
  offer: Offer,
  taken: ReadonlySet<string>,
): Promise<ProposedTool | string> {
  const name = servedNameOf(facts.name);
  if (name === undefined) return "has a name that clients cannot be shown";
  if (taken.has(name)) return `has a name that clients cannot tell from another one's (${name})`;
  const remarks: Remark[] = [];
  const input = await proposedInput(facts, remarks);
  if (typeof input === "string") return input;
  const { access, remark } = accessOf(facts);
  if (remark !== undefined) remarks.push({ path: ["access"], text: remark });
  const title = plainWords(facts.title ?? "", MAX_TITLE).text ?? sentenceOf(facts.words);
  const words = plainWords(facts.description, MAX_WORDS);
  if (words.suspicious)
    remarks.push({
      path: ["description"],
      text: "The server's own words read like orders to a model, so they are not copied.",
    });
  const description = words.text ?? `${title}.`;
  const missing = missingParts({ name, title, description, inputSchema: input.served });
  if (missing.length > 0)
    remarks.push({ path: ["description"], text: `To add: ${missing.map((part) => TO_ADD[part]).join(", ")}.` });
  const output = proposedOutput(facts, offer.samples?.get(facts.name), remarks);
  const example = exampleOf(facts, input.rules, input.served);
  const contract: JsonObject = {
    from: `${offer.server}/${facts.name}`,
    title,
    description,
    input: input.rules as JsonObject,
    ...(input.maxBytes !== undefined && { maxBytes: input.maxBytes }),
    output,
    access,
    ...(opensWorld(facts) && { openWorld: true }),
    ...(facts.annotations["openWorldHint"] === false && { openWorld: false }),
    ...(facts.annotations["idempotentHint"] === true && access !== "read" && { idempotent: true }),
    ...(example !== undefined &&
      input.accepts(example) && { examples: [{ arguments: example, sends: structuredClone(example) } as JsonObject] }),
  };
  const tool = { name, about: "", access, contract, remarks, together: undefined };
  return fitting(tool, facts, offer.server);
}

/** What is proposed can be loaded: a contract that does not fit its server is made to, or given up with the reason. */
async function fitting(tool: ProposedTool, facts: Facts, server: string): Promise<ProposedTool | string> {
  const definition = { server, kind: "tool", name: facts.name, value: facts.definition, text: "" } as const;
  const made = await compileContract(tool.name, toolContract.parse(tool.contract), definition);
  if (isContract(made)) return tool;
  const [problem] = made;
  const key = problem?.path[0];
  if (key === "access" && tool.access === "read") {
    const contract: JsonObject = { ...tool.contract, access: "write" };
    return fitting({ ...tool, contract, access: "write" }, facts, server);
  }
  const output = tool.contract["output"] as JsonObject;
  if (key === "output" && output["fields"] !== undefined) {
    const text = `No fields, since ${problem?.message ?? "they cannot be used"}.`;
    const { examples: _, ...contract } = { ...tool.contract, output: { maxBytes: ANSWER_BYTES } } as JsonObject;
    return fitting({ ...tool, contract, remarks: [...tool.remarks, { path: ["output"], text }] }, facts, server);
  }
  return `has no contract that fits: ${problem?.message ?? "no reason is known"}`;
}

const TO_ADD = {
  what: "what it does",
  when: "when to use it",
  "when-not": "when not",
  returns: "what it returns",
  limits: "its limits",
} as const satisfies Record<ReturnType<typeof missingParts>[number], string>;

export function servedNameOf(name: string): string | undefined {
  const plain = name.replaceAll(/[^A-Za-z0-9_.-]+/g, "_").slice(0, 128);
  return SERVED_NAME.test(plain) && /[A-Za-z0-9]/.test(plain) ? plain : undefined;
}

function opensWorld({ annotations, words, properties, description }: Facts): boolean {
  if (typeof annotations["openWorldHint"] === "boolean") return annotations["openWorldHint"];
  return (
    /^(email|mail|send|sms|notify|browse|navigate|tweet)$/.test(words[0] ?? "") ||
    words.some((word) => /^(web|http|url|internet)$/.test(word)) ||
    Object.keys(properties).some((name) => /^(url|webhook|recipients?)$/i.test(name)) ||
    /\bthe (web|internet)\b/i.test(description)
  );
}
