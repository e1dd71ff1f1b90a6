/**
 * The output of a contract: of what a server answers, clients get the fields that the contract names, within its budgets. What leaves
 * is valid JSON, fits the output schema that clients were shown, and says when something was cut.
 */
import type { JsonObject, JsonValue } from "../core/call.ts";
import type { Schema } from "./accepts.ts";
import { compileArguments } from "./arguments.ts";
import { briefly } from "./brief.ts";
import { Cuts, IN_TEXT, prefix, type Scale, type Sizer, shortened, sizer, TOKENS, TWICE } from "./budget.ts";
import { isDoubtful, parseExactly, withoutRaw } from "./exact.ts";
import { compileFields, type ListLimit, withShortLists } from "./fields.ts";
import type { OutputSettings } from "./settings.ts";
import { estimateTokens } from "./tokens.ts";

export interface Projection {
  /** The `outputSchema` that clients see; undefined where none can be promised. */
  readonly schema: JsonObject | undefined;
  /** Only what the contract names leaves the server: what it says in other ways (logs, words of progress, errors) is kept back. */
  readonly strict: boolean;
  /** Answers have a most of bytes or tokens. */
  readonly bounded: boolean;
  /** Projects the result of a tool (`CallToolResult`), as JSON text. `value`: the same, if it was parsed before. */
  tool(result: string, value?: JsonObject): Projected;
  /** The same as the one content of a resource with this URI. */
  toolAsResource(result: string, uri: string): Projected;
  /** Projects the contents of a resource (`ReadResourceResult`), as JSON text. */
  resource(result: string): Projected;
  /** Shortens the messages of a prompt (`GetPromptResult`), as JSON text. */
  prompt(result: string): Projected;
  /** Projects a document of our own making: the result of a tool with steps. */
  document(value: JsonValue): Projected;
}

export interface Projected {
  readonly result: string;
  readonly value: JsonObject;
  /** What was cut to fit the budgets, one sentence each. */
  readonly cut: readonly string[];
  /** Why nothing of the answer could be handed on, in a sentence for the operator; then `result` is an error of a tool. */
  readonly withheld: string | undefined;
}

/** Throws an `Error` for a path that cannot be. `promised`: what the server says of its answers, if it does. */
export async function compileProjection(
  settings: OutputSettings,
  promised: JsonObject | undefined,
): Promise<Projection> {
  const fields = settings.fields === undefined ? undefined : compileFields(settings.fields, promised);
  const compiled = fields === undefined ? undefined : await compileArguments(holding(fields.schema));
  if (compiled?.problem !== undefined) throw new Error(compiled.problem);

  /** The document in its budgets and under its schema, in the envelope that it leaves in. */
  const inside = (found: JsonValue, envelope: Envelope): Projected => {
    const cuts = new Cuts();
    const { maxItems } = settings;
    const lists: ListLimit | undefined =
      maxItems === undefined ? undefined : { maxItems, cut: (path, of) => cuts.list(path, of, maxItems) };
    const named = fields === undefined ? (lists ? withShortLists(found, lists) : found) : fields.project(found, lists);
    const fitted = withinBudgets(named, settings, envelope, cuts);
    if (fitted === undefined) return withheld("nothing of it fits the budgets of the contract");
    const problem = compiled?.check({ value: withoutRaw(fitted.document) });
    if (problem !== undefined) return withheld(`it does not fit the output schema: ${problem.join("; ")}`);
    return done(envelope.around(fitted.document, fitted.cut), fitted.cut);
  };

  const bounded =
    settings.maxBytes !== undefined || settings.maxTokens !== undefined || settings.maxItems !== undefined;
  /** The answer with the digits of its numbers, to be projected. */
  const guarded = (
    text: string,
    value: JsonObject | undefined,
    project: (answer: JsonObject) => Projected,
  ): Projected => {
    if (nestsDeeper(text, MAX_DEPTH)) return withheld(`it is nested deeper than ${MAX_DEPTH} levels`);
    const answer = value ?? (JSON.parse(text) as JsonObject);
    return project(isDoubtful(text) ? (parseExactly(text) as JsonObject) : answer);
  };

  const failure = (answer: JsonObject): Projected => {
    const said = settings.text ? textOf(answer) : undefined;
    const content = [textBlock(said ?? FAILED)];
    return cutContent({ content, isError: true }, "content", settings);
  };

  const tool = (result: string, value: JsonObject | undefined, envelope: (from: Found) => Envelope): Projected =>
    guarded(result, value, (answer) => {
      if (fields !== undefined && answer["isError"] === true) return failure(answer);
      if (fields === undefined && !bounded) return { result, value: answer, cut: [], withheld: undefined };
      if (fields === undefined && (answer["isError"] === true || isSmall(result, answer, settings)))
        return cutContent(answer, "content", settings, result);
      const found = foundIn(answer);
      if (found === DEEP) return withheld(`it is nested deeper than ${MAX_DEPTH} levels`);
      if (found !== undefined) return inside(found.document, envelope(found));
      if (fields === undefined) return cutContent(answer, "content", settings);
      const said = settings.text ? textOf(answer) : undefined;
      return said === undefined
        ? withheld("it is not JSON, and the contract names fields")
        : cutContent({ content: [textBlock(said)] }, "content", settings);
    });

  return {
    // What may be text instead cannot be promised.
    schema: settings.text || fields === undefined ? undefined : briefly(fields.schema),
    strict: fields !== undefined && !settings.text,
    bounded: settings.maxBytes !== undefined || settings.maxTokens !== undefined,
    document: (value) => inside(value, STRUCTURED),
    tool: (result, value) =>
      tool(result, value, ({ structured }) => (structured || fields !== undefined ? STRUCTURED : AS_TEXT)),
    toolAsResource(result, uri) {
      const projected = tool(result, undefined, () => contentsOf(uri, "application/json"));
      const { content, contents } = projected.value;
      if (projected.withheld !== undefined || contents !== undefined) return projected;
      return done(
        { contents: [{ uri, mimeType: "text/plain", text: textOf({ content: content ?? [] }) ?? "" }] },
        projected.cut,
      );
    },
    resource: (result) =>
      guarded(result, undefined, (answer) => {
        const contents = Array.isArray(answer["contents"]) ? (answer["contents"] as JsonObject[]) : [];
        if (fields === undefined) return cutContent(answer, "contents", settings, result);
        const [first, ...others] = contents;
        if (first === undefined) return done({ contents: [] }, []);
        const found = typeof first["text"] === "string" ? json(first["text"]) : undefined;
        if (found === DEEP) return withheld(`it is nested deeper than ${MAX_DEPTH} levels`);
        if (others.length > 0) return withheld("it has several parts, and the contract names fields of one");
        if (found !== undefined)
          return inside(found, contentsOf(String(first["uri"] ?? ""), String(first["mimeType"] ?? "application/json")));
        return settings.text && typeof first["text"] === "string"
          ? cutContent({ contents: [first] }, "contents", settings)
          : withheld("it is not JSON, and the contract names fields");
      }),
    prompt: (result) => guarded(result, undefined, (answer) => cutContent(answer, "messages", settings, result)),
  };
}

/** Deeper documents are nothing that anybody reads; and every function here may call itself for each level. */
const MAX_DEPTH = 64;
const FAILED = "The server reported that the call failed.";
const WITHHELD =
  "The server's answer is not of the form that was agreed on, so it is withheld. The operator can see why.";

function withheld(reason: string): Projected {
  const value: JsonObject = { content: [textBlock(WITHHELD)], isError: true };
  return { result: JSON.stringify(value), value, cut: [], withheld: reason };
}

function done(value: JsonObject, cut: readonly string[]): Projected {
  return { result: JSON.stringify(value), value, cut, withheld: undefined };
}

const textBlock = (text: string): JsonObject => ({ type: "text", text });
const holding = (schema: Schema): JsonObject => ({
  type: "object",
  properties: { value: schema as JsonValue },
  required: ["value"],
});

// ---- documents ----

const DEEP = Symbol("deep");

interface Found {
  readonly document: JsonValue;
  /** It came as structured content. */
  readonly structured: boolean;
}

/** The same for those who look at answers themselves; also undefined for one that is nested too deeply. */
export function documentOf(answer: JsonObject): JsonValue | undefined {
  const found = foundIn(answer);
  return found === DEEP ? undefined : found?.document;
}

/** Structured content, or the JSON that stands in its text: of several texts a list of what is in each. */
function foundIn(answer: JsonObject): Found | typeof DEEP | undefined {
  if (answer["structuredContent"] !== undefined) return { document: answer["structuredContent"], structured: true };
  const texts: JsonValue[] = [];
  for (const text of textsOf(answer)) {
    const found = json(text);
    if (found === undefined || found === DEEP) return found;
    texts.push(found);
  }
  const [only] = texts;
  return only === undefined ? undefined : { document: texts.length === 1 ? only : texts, structured: false };
}

function json(text: string): JsonValue | typeof DEEP | undefined {
  const first = text.trimStart()[0];
  if (first !== "{" && first !== "[") return undefined;
  if (nestsDeeper(text, MAX_DEPTH)) return DEEP;
  try {
    return parseExactly(text);
  } catch {
    return undefined;
  }
}

function textsOf(answer: JsonObject): readonly string[] {
  const content = Array.isArray(answer["content"]) ? (answer["content"] as JsonObject[]) : [];
  return content.flatMap((block) =>
    block?.["type"] === "text" && typeof block["text"] === "string" ? [block["text"]] : [],
  );
}

/** What an answer says in words. */
export function textOf(answer: JsonObject): string | undefined {
  const texts = textsOf(answer);
  return texts.length === 0 ? undefined : texts.join("\n");
}

const [QUOTE, BACKSLASH] = [34, 92];

/** Looks at brackets only, so that a text which is no JSON at all may be deep too. */
function nestsDeeper(text: string, limit: number): boolean {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (char === QUOTE) {
      for (at++; at < text.length && text.charCodeAt(at) !== QUOTE; at++) if (text.charCodeAt(at) === BACKSLASH) at++;
    } else if (char === 123 || char === 91) {
      if (++depth > limit) return true;
    } else if (char === 125 || char === 93) depth--;
  }
  return false;
}

// ---- budgets ----

/** What a document leaves in. */
interface Envelope {
  around(document: JsonValue, cut: readonly string[]): JsonObject;
  /** How the document counts in the bytes of the whole. */
  readonly scale: Scale;
}

const notes = (cut: readonly string[]) => (cut.length === 0 ? [] : [textBlock(note(cut))]);
const note = (cut: readonly string[]) => `Shortened: ${cut.join("; ")}.`;
const meta = (cut: readonly string[]) => (cut.length === 0 ? {} : { _meta: { "drawbridge/cut": [...cut] } });

const STRUCTURED: Envelope = {
  scale: TWICE,
  around: (document, cut) => ({
    content: [textBlock(JSON.stringify(document)), ...notes(cut)],
    structuredContent: document,
    ...meta(cut),
  }),
};
const AS_TEXT: Envelope = {
  scale: IN_TEXT,
  around: (document, cut) => ({ content: [textBlock(JSON.stringify(document)), ...notes(cut)], ...meta(cut) }),
};
const contentsOf = (uri: string, mimeType: string): Envelope => ({
  scale: IN_TEXT,
  around: (document, cut) => ({ contents: [{ uri, mimeType, text: JSON.stringify(document) }], ...meta(cut) }),
});

type Budget = Pick<OutputSettings, "maxBytes" | "maxTokens" | "maxItems">;

/** Older clients get a document that is no object as the member `result` of one. */
const WRAPPING = 12;

function withinBudgets(
  found: JsonValue,
  { maxBytes = Number.POSITIVE_INFINITY, maxTokens = Number.POSITIVE_INFINITY }: Budget,
  envelope: Envelope,
  cuts: Cuts,
): { readonly document: JsonValue; readonly cut: readonly string[] } | undefined {
  let document = found;
  if (maxBytes === Number.POSITIVE_INFINITY && maxTokens === Number.POSITIVE_INFINITY)
    return { document, cut: cuts.sentences() };
  const bytesAround = (cut: readonly string[]) => {
    const empty = Buffer.byteLength(JSON.stringify(envelope.around(0, cut)));
    return empty - envelope.scale.plain(1) + (Array.isArray(found) ? WRAPPING : 0);
  };
  // First as it is; then with room for what is said of the cuts.
  const first = cuts.sentences();
  const [bytes, tokens] = [sizer(envelope.scale), sizer(TOKENS)];
  const fits = (size: Sizer, most: number) => most === Number.POSITIVE_INFINITY || size(document, most) <= most;
  if (fits(bytes, maxBytes - bytesAround(first)) && fits(tokens, maxTokens - tokensOf(first)))
    return { document, cut: first };
  const reserve = { bytes: clamp(maxBytes / 4, 96, 1200), tokens: clamp(maxTokens / 4, 6, 200) };
  const room = maxBytes - bytesAround([]) - reserve.bytes;
  for (const [left, scale, size] of [
    [room, envelope.scale, bytes],
    [maxTokens - reserve.tokens, TOKENS, tokens],
  ] as const) {
    const short = left === Number.POSITIVE_INFINITY ? document : shortened(document, left, scale, cuts, size);
    if (short === undefined) return undefined;
    document = short;
  }
  for (const cut of [cuts.sentences(), cuts.sentences(3), cuts.sentences(1), BRIEFLY]) {
    const extra = bytesAround(cut) - bytesAround([]);
    if ((extra <= reserve.bytes && tokensOf(cut) <= reserve.tokens) || cut === BRIEFLY) return { document, cut };
  }
  return undefined;
}

const BRIEFLY: readonly string[] = ["cut"];
const clamp = (value: number, least: number, most: number) => Math.min(Math.max(value, least), most);
const tokensOf = (cut: readonly string[]) => (cut.length === 0 ? 0 : estimateTokens(`\n${note(cut)}`));

function tokensWithin(text: string, most: number): boolean {
  return text.length <= most * TOKENS.mostCharacters && estimateTokens(text) <= most;
}

function isSmall(result: string, answer: JsonObject, { maxBytes, maxTokens, maxItems }: Budget): boolean {
  // Only a look into every list could tell.
  if (maxItems !== undefined) return false;
  if (maxBytes !== undefined && Buffer.byteLength(result) > maxBytes) return false;
  return maxTokens === undefined || tokensWithin(textOf(answer) ?? "", maxTokens);
}

// ---- texts ----

/**
 * The answer with its texts within the budget, the last ones shortened first; what is no text is left out when it does not fit.
 * `as`: the answer as it came, which it stays where it fits.
 */
function cutContent(
  answer: JsonObject,
  list: "content" | "contents" | "messages",
  budget: Budget,
  as?: string,
): Projected {
  const { maxBytes = Number.POSITIVE_INFINITY, maxTokens = Number.POSITIVE_INFINITY } = budget;
  const blocks = Array.isArray(answer[list]) ? (answer[list] as JsonObject[]) : [];
  const text = as ?? JSON.stringify(answer);
  const read = blocks.map((block) => textIn(block) ?? "").join("\n");
  if (Buffer.byteLength(text) <= maxBytes && (maxTokens === Number.POSITIVE_INFINITY || tokensWithin(read, maxTokens)))
    return { result: text, value: answer, cut: [], withheld: undefined };

  let bytes = maxBytes - Buffer.byteLength(JSON.stringify({ [list]: [], isError: true })) - 120;
  let tokens = maxTokens - 8;
  let left = 0;
  let texts = 0;
  const kept: JsonObject[] = [];
  for (const block of blocks) {
    const whole = JSON.stringify(block);
    const said = textIn(block) ?? "";
    let fitting: JsonObject | undefined = block;
    if (Buffer.byteLength(whole) + 1 > bytes || !tokensWithin(said, tokens)) {
      const room = bytes - (Buffer.byteLength(whole) - Buffer.byteLength(JSON.stringify(said))) - 1;
      const short = said === "" ? undefined : shortText(said, room, tokens);
      fitting = short === undefined ? undefined : withText(block, short);
      if (short === undefined) left++;
      else texts++;
    }
    if (fitting === undefined) continue;
    kept.push(fitting);
    bytes -= Buffer.byteLength(JSON.stringify(fitting)) + 1;
    tokens -= estimateTokens(textIn(fitting) ?? "");
  }
  const cut = [
    ...(texts > 0 ? [texts === 1 ? "one text was cut" : `${texts} texts were cut`] : []),
    ...(left > 0 ? [left === 1 ? "one part was left out" : `${left} parts were left out`] : []),
  ];
  const failed = answer["isError"] === true ? { isError: true } : {};
  return done({ [list]: kept, ...failed, ...meta(cut) }, cut);
}

/** The text of a block of content, of a part of a resource, or of a message. */
function textIn(block: JsonObject): string | undefined {
  const { text, content } = block;
  if (typeof text === "string") return text;
  const inner = typeof content === "object" && content !== null ? (content as JsonObject)["text"] : undefined;
  return typeof inner === "string" ? inner : undefined;
}

function withText(block: JsonObject, text: string): JsonObject {
  return typeof block["text"] === "string"
    ? { ...block, text }
    : { ...block, content: { ...(block["content"] as JsonObject), text } };
}

/** Undefined when not even a few words fit. `bytes` are those of the text as JSON. */
function shortText(text: string, bytes: number, tokens: number): string | undefined {
  let length = Math.min(text.length - 1, bytes, tokens * TOKENS.characters);
  while (length >= 8) {
    const cut = `${prefix(text, Math.floor(length))}…`;
    const over = Math.max(Buffer.byteLength(JSON.stringify(cut)) / bytes, estimateTokens(cut) / tokens);
    if (over <= 1) return cut;
    length = Math.min(length - 1, length / over);
  }
  return undefined;
}
