/**
 * The form that a person approves a call with. Everything in it that is not ours (names, arguments) is shown as JSON, in which nothing
 * is invisible, begins a line or is taken for markup, so that no argument can look like a part of the form.
 */
import { isRaw, parseExactly } from "../../contract/exact.ts";
import type { Access, JsonObject, JsonValue, Question, Target } from "../../core/call.ts";
import { isObject } from "../../mcp/json-text.ts";
import { effectOf } from "../../policy/globs.ts";
import type { About, Request } from "./kept.ts";

/** What is shown of a call. */
export interface Shown {
  readonly number: string;
  readonly target: Pick<Target, "server" | "kind" | "name" | "access">;
  readonly title: string | undefined;
  /** JSON text of what is sent: arguments, or the URI of a resource. */
  readonly arguments: string;
  readonly requester: { readonly subject: string; readonly client: string; readonly name?: string | undefined };
  readonly reasons: readonly string[];
  /** Milliseconds since the epoch. */
  readonly until: number;
}

export function shownOf(request: Request, about: About): Shown {
  const { number, target, requester, need, until } = request;
  return { number, target, requester, until, reasons: need.reasons, title: about.title, arguments: about.arguments };
}

/** The key of the question in `inputRequests`. */
export const KEY = "user_approve";

export function question(shown: Shown): Question {
  const requestedSchema = {
    type: "object",
    properties: {
      approve: {
        type: "boolean",
        title: "Approve this call",
        description: "It is made once, with just these arguments.",
        default: false,
      },
    },
    required: ["approve"],
  };
  const params = { mode: "form", message: linesOf(shown).join("\n"), requestedSchema };
  return { method: "elicitation/create", params: JSON.stringify(params) };
}

/**
 * What a person has answered. Only a form with the one field, ticked, approves: whatever else came with it was not asked, and whoever
 * sends it does not show people our form.
 */
export function answerOf(response: JsonValue | undefined): "approved" | "denied" | "strange" {
  if (!isObject(response)) return "strange";
  const { action, content } = response;
  if (action === "decline" || action === "cancel") return "denied";
  if (action !== "accept" || !isObject(content)) return "strange";
  const { approve, ...others } = content;
  if (Object.keys(others).length > 0 || typeof approve !== "boolean") return "strange";
  return approve ? "approved" : "denied";
}

/** A call in lines, for a form or a terminal. */
export function linesOf(shown: Shown): readonly string[] {
  const { target, title, requester, reasons, number, until } = shown;
  const { lines, left } = argumentLines(shown.arguments);
  const titled = title === undefined || title === target.name ? "" : `, ${quoted(title, MAX_NAME)}`;
  const of = target.server === "" ? "" : ` of the server ${quoted(target.server, MAX_NAME)}`;
  const name = requester.name === undefined ? "" : `${quoted(requester.name, MAX_NAME)}, `;
  return [
    "A call waits for an approval. Nothing was sent yet.",
    ...(left === 0
      ? []
      : [`CAUTION: ${left} characters of its arguments do not fit here. Do not approve what you cannot see.`]),
    "",
    `The ${target.kind} ${quoted(target.name, MAX_NAME)}${titled}${of}`,
    `What it does: ${effectText(target)}`,
    `Asked for by: ${name}${quoted(requester.subject, MAX_NAME)} through the client ${quoted(requester.client, MAX_NAME)}`,
    ...reasons.map((reason) => `Why it needs an approval: ${quoted(reason, MAX_REASON)}`),
    `Number: ${number}, open until ${new Date(until).toISOString().slice(0, 16).replace("T", " ")} UTC`,
    "",
    target.kind === "resource" ? "What is read:" : "Arguments:",
    ...lines.map((line) => `  ${line}`),
  ];
}

/** What a call does at most, in words. */
export function effectText({ kind, access }: { readonly kind: Target["kind"]; readonly access?: Access | undefined }) {
  if (kind !== "tool") return "reads";
  const effect = { read: "reads", write: "changes something", destructive: "may destroy something" }[effectOf(access)];
  const said = access?.effect === undefined ? " (no contract says less)" : "";
  return `${effect}${said}${access?.openWorld === false ? "" : ", and may reach beyond its server"}`;
}

const MAX_NAME = 200;
const MAX_REASON = 500;
const MAX_STRING = 600;
const MAX_ARGUMENTS = 4_000;
const MAX_LINES = 100;

/** The arguments as JSON, and how many characters of it were left out. */
export function argumentLines(json: string): { readonly lines: readonly string[]; readonly left: number } {
  const lines: string[] = [];
  let length = 0;
  let left = 0;
  const line = (depth: number, text: string, weight = text.length) => {
    if (lines.length >= MAX_LINES || length + text.length > MAX_ARGUMENTS) left += weight;
    else lines.push(`${"  ".repeat(Math.min(depth, 20))}${text}`);
    length += text.length;
  };
  const show = (value: JsonValue, depth: number, before: string, after: string): void => {
    if (typeof value === "string") {
      const { text, left: cut } = clipped(value, MAX_STRING);
      left += cut;
      line(depth, `${before}${text}${after}`);
    } else if (Array.isArray(value) || isPlain(value)) {
      const [open, close] = Array.isArray(value) ? "[]" : "{}";
      const entries = Array.isArray(value)
        ? (value as readonly JsonValue[]).map((one) => ["", one] as const)
        : Object.entries(value as JsonObject).map(([key, one]) => [`${quoted(key, MAX_STRING)}: `, one] as const);
      if (entries.length === 0) {
        line(depth, `${before}${open}${close}${after}`);
        return;
      }
      line(depth, `${before}${open}`);
      for (const [at, [key, one]] of entries.entries()) show(one, depth + 1, key, at < entries.length - 1 ? "," : "");
      line(depth, `${close}${after}`);
    } else line(depth, `${before}${JSON.stringify(value)}${after}`);
  };
  show(parseExactly(json), 0, "", "");
  if (left > 0) lines.push(`(${left} more characters are not shown)`);
  return { lines, left };
}

/** Not a number that keeps its digits, which is an object to JavaScript. */
function isPlain(value: JsonValue): boolean {
  return isObject(value) && !isRaw(value);
}

/** A text as JSON in which every character can be seen and none means anything to whoever shows it. */
export function quoted(text: string, maxLength: number): string {
  return clipped(text, maxLength).text;
}

function clipped(text: string, maxLength: number): { readonly text: string; readonly left: number } {
  if (text.length <= maxLength) return { text: visible(text), left: 0 };
  const left = text.length - maxLength;
  // Outside the quotes, where no text can be: what is left out is said by us.
  return { text: `${visible(text.slice(0, maxLength))} + ${left} more characters`, left };
}

/**
 * Control, format, private and unassigned characters, every space but the plain one, those that are blank and those that change the
 * one before; spaces after two others; marks piled up; and what links, images, code and tags are written with.
 */
const HIDDEN =
  /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]|(?! )\p{Zs}|\u2800|(?<= {2}) |(?<=\p{M}{2})\p{M}|[`<]|(?<=\])\(|(?<=!)\[/gu;

function visible(text: string): string {
  // What JSON escapes is plain afterwards; what it leaves is looked at. `\n` stays, as two characters that end no line.
  return JSON.stringify(text).replace(HIDDEN, (found) =>
    found
      .split("")
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
      .join(""),
  );
}
