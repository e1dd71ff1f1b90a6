/** What came of a call: for the agent, for the developer, and for the record. */
import { element, jsonView, many } from "./dom.js";

/** The number under which a call waits for somebody's approval; undefined when it does not. */
export function approvalOf({ outcome }) {
  const told = outcome.kind === "error" ? outcome.data : outcome.result._meta?.["drawbridge/approval"];
  return told?.state === "pending" && typeof told.approval === "string" ? told.approval : undefined;
}

/** `call`: what was asked; `called`: what the server of the page answered. */
export function resultOf(called, call) {
  const { outcome, evidence, milliseconds, bytes, tokens } = called;
  const { records = [], handled = [] } = evidence ?? {};
  const record = records.findLast(({ call: of }) => of?.method === call.method);
  const failed = outcome.kind === "error" || outcome.result.isError === true;
  return element(
    "section",
    { class: "result", "aria-labelledby": "result-title" },
    element("h2", { id: "result-title", tabindex: "-1" }, "What came back"),
    element(
      "p",
      { class: "facts" },
      element("span", { class: `tag ${failed ? "warn" : "good"}` }, verdict(outcome, record)),
      ` ${Math.max(1, Math.round(milliseconds)).toLocaleString("en")} ms`,
      outcome.kind === "result" && ` · ${many(bytes, "byte")} · about ${many(tokens, "token")}`,
    ),
    decision(record?.decision, outcome),
    element(
      "div",
      { class: "both" },
      element("div", {}, element("h3", { class: "part" }, "What the agent gets"), answer(outcome)),
      handled.length > 0 && element("div", {}, developer(handled, outcome)),
    ),
    audit(record, records),
  );
}

function verdict(outcome, record) {
  if (outcome.kind === "error") return record?.outcome === "refused" ? "refused" : "error";
  return outcome.result.isError === true ? "a tool error" : "answered";
}

const DECIDED = { permit: "Permitted", deny: "Denied", "step-up": "Needs another scope" };

function decision(decided, outcome) {
  if (decided === undefined) return undefined;
  const { effect, rule, scope, reason, shadow } = decided;
  const scopes = /scope="([^"]*)"/.exec(outcome.challenge ?? "")?.[1];
  return element(
    "p",
    {},
    element("b", {}, DECIDED[effect] ?? effect),
    rule !== undefined
      ? [" by ", element("code", {}, rule), "."]
      : reason === "no_rule_permits"
        ? ": no rule of this caller's roles permits it."
        : `: ${String(reason).replaceAll("_", " ")}.`,
    (scope ?? scopes) !== undefined &&
      effect !== "permit" && [" The token lacks ", element("code", {}, scope ?? scopes), "."],
    shadow !== undefined && [" The policy that is tried out would say ", element("code", {}, shadow.effect), "."],
  );
}

function answer(outcome) {
  if (outcome.kind === "error") {
    const { message, code, status, data } = outcome;
    return [
      element("p", { class: "notice warn" }, message),
      element("p", { class: "quiet small" }, `JSON-RPC error ${code ?? "–"}, HTTP ${status}`),
      data !== undefined && data !== null && jsonView(data),
    ];
  }
  const { structuredContent, content = [], contents = [], messages = [] } = outcome.result;
  const texts = [
    ...content.map(contentOf),
    ...contents.map(
      ({ text, blob, mimeType }) =>
        text ?? `${mimeType ?? "binary"}, ${many((blob ?? "").length, "character")} of Base64`,
    ),
    ...messages.map(({ role, content: said }) => `${role}: ${contentOf(said)}`),
  ].filter((text) => !same(text, structuredContent));
  return [
    structuredContent !== undefined && jsonView(structuredContent),
    texts.map((text) => {
      const value = parsed(text);
      return value === undefined ? element("pre", { class: "text", tabindex: "0" }, text) : jsonView(value);
    }),
    element("details", { class: "more" }, element("summary", {}, "The whole result"), jsonView(outcome.result)),
  ];
}

function contentOf({ type, text, mimeType, data, uri, resource }) {
  if (text !== undefined) return text;
  if (type === "resource") return resource?.text ?? resource?.uri ?? "a resource";
  return [type, mimeType, uri, data === undefined ? undefined : many(data.length, "character")]
    .filter(Boolean)
    .join(", ");
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

const same = (text, value) => value !== undefined && JSON.stringify(parsed(text)) === JSON.stringify(value);

/** For whoever writes the server, and owns its data: on this page alone. */
function developer(handled, outcome) {
  const left =
    outcome.kind === "result" ? (outcome.result.structuredContent ?? parsed(textOf(outcome.result))) : undefined;
  return [
    element(
      "h3",
      { class: "part" },
      handled[0].from === "handler" ? "What the handler returned " : "What the server answered ",
      element("span", { class: "tag warn" }, "never leaves"),
    ),
    element(
      "p",
      { class: "hint" },
      "Shown here alone, on your machine. ",
      left !== undefined && [
        element("span", { class: "gone" }, "Struck out"),
        ": does not leave. ",
        element("span", { class: "changed" }, "Underlined"),
        ": leaves as something else.",
      ],
    ),
    handled.map(({ threw, text, from }) => {
      const whole = parsed(text);
      const value = from === "server" ? (whole?.structuredContent ?? parsed(textOf(whole ?? {})) ?? whole) : whole;
      if (threw || value === undefined)
        return element("pre", { class: threw ? "text threw" : "text", tabindex: "0" }, text);
      return jsonView(value, left);
    }),
  ];
}

const textOf = ({ content, contents }) => (content ?? contents)?.[0]?.text ?? "";

function audit(record, records) {
  if (record === undefined) return element("p", { class: "quiet small" }, "No audit record was found.");
  return element(
    "details",
    { class: "more" },
    element("summary", {}, "The audit record", records.length > 1 && ` (${records.length} of this exchange)`),
    jsonView(record),
    records.length > 1 && element("p", { class: "hint" }, "The others:"),
    records.filter((one) => one !== record).map((one) => jsonView(one)),
  );
}
