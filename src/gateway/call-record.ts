/** The one audit record of a request, filled as the request goes on and closed once, together with its span and its metrics. */
import { hash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { type AuditRecord, type FieldMode, field, type RecordedField, recordedPrincipal } from "../audit/record.ts";
import type {
  Authenticated,
  JsonObject,
  Outcome,
  Question,
  QuestionAnswer,
  Target,
  TraceContext,
  UpstreamCredential,
} from "../core/call.ts";
import type { Decision } from "../core/decision.ts";
import { DrawbridgeError, ERRORS, type ErrorCode } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import { oneLine } from "../core/one-line.ts";
import type { InboundRequest } from "../mcp/inbound.ts";
import { actionOf, modeOf } from "../mcp/interaction.ts";
import type { Session } from "../mcp/sessions.ts";
import type { Span } from "../observe/telemetry.ts";
import type { View } from "./masking.ts";
import type { Parts } from "./parts.ts";

/** How a request ended, as the record says it. */
export type RecordOutcome = AuditRecord["outcome"];

/** Names an interaction of several requests, and which of them this is. */
export interface Link {
  readonly id: string;
  /** From 1. */
  readonly round: number;
}

/** A question that the client was asked during a call, and what became of it. Contents are kept as arguments and results are. */
export interface RecordedQuestion {
  readonly method?: string;
  readonly mode?: string;
  /** The name it had in `inputRequests`. */
  readonly key?: string;
  readonly question?: JsonObject;
  action?: ReturnType<typeof actionOf>;
  answer?: JsonObject;
}

const MAX_WHERE = 300;

/** Opens the record of a request whose caller is known. `received`: when it came, as `performance.now()` has it. */
export function openRecord(parts: Parts, by: Authenticated, request: IncomingMessage, received: number): CallRecord {
  return new CallRecord(parts, by, request, received);
}

export class CallRecord {
  readonly #parts: Parts;
  readonly #by: Authenticated;
  /** In the trace and in the metrics, too: one id finds all three. */
  readonly #id: string;
  readonly #at: number;
  readonly #received: number;
  readonly #started = performance.now();
  readonly #source: string | undefined;
  #span: Span | undefined;
  #inbound: InboundRequest | undefined;
  #session: Session | undefined;
  #target: Target | undefined;
  #decision: Decision | undefined;
  #policy: string;
  #credential: UpstreamCredential | undefined;
  #link: Link | undefined;
  #task: string | undefined;
  #questions: RecordedQuestion[] | undefined;
  #steps: JsonObject | undefined;
  #approval: JsonObject | undefined;
  #view: View | undefined;
  #closed = false;

  constructor(parts: Parts, by: Authenticated, request: IncomingMessage, received: number) {
    this.#parts = parts;
    this.#by = by;
    this.#at = parts.clock();
    this.#id = newId(this.#at);
    this.#received = received;
    this.#policy = parts.policy.version;
    this.#source = parts.sourceOf(request) || undefined;
  }

  /** The request could be read: its span begins, under the trace that the client named. */
  decoded(inbound: InboundRequest, session: Session | undefined): void {
    this.#inbound = inbound;
    this.#session = session;
    this.#begin();
    this.step("decode");
  }
  /** A step of the pipeline is done. */
  step(name: "decode" | "authorize" | "admit" | "limits" | "approval" | "upstream" | "mask" | "record"): void {
    if (this.#span?.recording === true) this.#span.step(name);
  }
  aimed(target: Target): void {
    this.#target = target;
    this.view.about(target.name);
    const name =
      target.kind === "tool"
        ? "gen_ai.tool.name"
        : target.kind === "prompt"
          ? "gen_ai.prompt.name"
          : "mcp.resource.uri";
    this.#span?.set(name, this.#nameOf(target));
    if (target.kind === "tool") this.#span?.set("gen_ai.operation.name", "execute_tool");
    // What a client made up is no name of a span, and neither is the address of a resource.
    if (target.kind !== "resource" && target.server !== "")
      this.#span?.rename(`${this.#inbound?.method ?? ""} ${target.name}`);
  }
  /** What the caller may see of it all. What is written down here nobody sees: it is masked for nobody. */
  get view(): View {
    this.#view ??= this.#parts.masking.viewOf(this.#by);
    return this.#view;
  }
  /** At once after the decision: which policy it was made by may change with any wait. */
  decided(decision: Decision): void {
    this.#decision = decision;
    this.#policy = this.#parts.policy.version;
    const target = this.#target;
    // What is not served is denied to everybody.
    if (decision.effect === "deny" && target !== undefined && target.server !== "")
      this.#parts.telemetry.denied(decision.rule, target.kind === "tool" ? target.name : undefined);
    const span = this.#span;
    if (span?.recording !== true) return;
    span.step("authorize");
    span.set("drawbridge.decision", decision.effect);
    if (decision.effect !== "step-up" && decision.rule !== undefined) span.set("drawbridge.rule", decision.rule);
  }
  /** What the call carries to the upstream; of several the last counts. */
  sentWith(credential: UpstreamCredential): void {
    this.#credential = credential;
  }

  /** The task that the call has made, or that it is about. */
  task(id: string): void {
    this.#task = id;
  }
  /** The call asks its client something over several requests; each has its own record. */
  linked(id: string, round: number): void {
    this.#link = { id, round };
  }
  get link(): Link | undefined {
    return this.#link;
  }
  /** What the steps of the call did. False: the record is closed already. */
  did(steps: JsonObject): boolean {
    this.#steps = steps;
    return !this.#closed;
  }
  /** The approval that the call needs, and what became of it. */
  approval(approval: JsonObject): void {
    this.step("approval");
    const { state } = approval;
    if (typeof state === "string") this.#parts.telemetry.approval(state);
    const masked = this.#parts.masking.recorded(JSON.stringify(approval), this.#view?.contract);
    this.#approval = masked === undefined ? {} : (JSON.parse(masked) as JsonObject);
  }
  /** The client is asked this; `replied` takes what is returned. */
  questioned(question: Question, key?: string): RecordedQuestion {
    const mode = modeOf(question);
    const { results } = this.#parts.auditFields;
    const entry: RecordedQuestion = {
      method: question.method,
      ...(mode !== undefined && { mode }),
      ...(key !== undefined && { key }),
      ...this.#kept("question", question.params, results),
    };
    this.#questions ??= [];
    this.#questions.push(entry);
    return entry;
  }
  replied(entry: RecordedQuestion, answer: QuestionAnswer): void {
    entry.action = actionOf(answer);
    if (answer.kind === "result") Object.assign(entry, this.#kept("answer", answer.result, this.#argumentsMode));
  }
  /** An answer to a question that only its server knows. */
  answeredInput(key: string, answer: string): void {
    this.#questions ??= [];
    this.#questions.push({
      key,
      action: actionOf({ kind: "result", result: answer }),
      ...this.#kept("answer", answer, this.#argumentsMode),
    });
  }

  get trace(): TraceContext {
    return (this.#span ?? this.#begin()).context;
  }

  /** The upstream answered. Resolves when the record is as safe as the settings ask; rejects with `audit_unavailable`. */
  answered(outcome: Outcome): Promise<void> {
    if (outcome.kind === "result")
      return this.close("permitted", undefined, outcome.result, outcome.value["isError"] === true);
    const error = { code: String(outcome.code), message: this.#parts.masking.recordedText(outcome.message) };
    return this.#write("failed", error, undefined, false);
  }
  /** Refused by us before anything was sent. Gives back what to tell the caller: the refusal, or that it could not be recorded. */
  async refuse(error: DrawbridgeError): Promise<DrawbridgeError> {
    try {
      await this.close(error.code === "cancelled" ? "abandoned" : "refused", error);
      return error;
    } catch (thrown) {
      return DrawbridgeError.from(thrown, "audit_unavailable");
    }
  }
  /** The upstream failed, or the caller went away. Gives back what to tell the caller. */
  async fail(error: DrawbridgeError, gone: boolean): Promise<DrawbridgeError> {
    try {
      await this.close(gone ? "abandoned" : "failed", error);
      return error;
    } catch (thrown) {
      return DrawbridgeError.from(thrown, "audit_unavailable");
    }
  }
  /** Closes the record; a second time does nothing. */
  close(outcome: RecordOutcome, error: DrawbridgeError | undefined, result?: string, isError?: boolean): Promise<void> {
    return this.#write(outcome, error && this.#toldOf(error), result, isError ?? false);
  }

  /**
   * The call of this request has ended after it was answered with questions, and no request waits to be told. That gets a record of
   * its own; `open` was still asked.
   */
  abandonedLater(error: DrawbridgeError, after: Link, open: ReadonlyMap<string, Question>): Promise<void> {
    const questions = [...open].map(([key, question]) => {
      const mode = modeOf(question);
      return { method: question.method, ...(mode !== undefined && { mode }), key };
    });
    const record = this.#recordOf("abandoned", this.#toldOf(error));
    const id = newId(this.#at);
    return this.#parts.journal.append({ ...record, id, details: { interaction: { ...after, questions } } });
  }

  get #argumentsMode() {
    return this.#parts.auditFields.arguments;
  }
  #kept(name: "question" | "answer", text: string, mode: FieldMode): JsonObject {
    const kept = this.#field(text, mode);
    if (kept === undefined) return {};
    return { [name]: "json" in kept ? { json: JSON.parse(kept.json) as JsonObject } : { ...kept } };
  }

  #begin(): Span {
    const inbound = this.#inbound;
    const name = inbound === undefined ? "POST /mcp" : inbound.method;
    const parent = {
      ...(inbound?.traceparent !== undefined && { traceparent: inbound.traceparent }),
      ...(inbound?.tracestate !== undefined && { tracestate: inbound.tracestate }),
    };
    const span = this.#parts.telemetry.begin(
      name,
      "server",
      parent,
      {
        ...(inbound !== undefined && {
          "mcp.method.name": inbound.method,
          "jsonrpc.request.id": this.#requestId(inbound),
          "mcp.protocol.version": this.#session?.revision ?? inbound.revision,
        }),
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "drawbridge.audit.record": this.#id,
      },
      this.#received,
    );
    span.step("authenticate", this.#started);
    this.#span = span;
    return span;
  }

  #write(
    outcome: RecordOutcome,
    error: AuditRecord["error"],
    result: string | undefined,
    isError: boolean,
  ): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    const { telemetry, journal, auditFields } = this.#parts;
    const inbound = this.#inbound;
    const target = this.#target;
    const record = this.#recordOf(outcome, error);
    for (const [type, count] of Object.entries(this.#view?.counts ?? {}))
      this.#span?.set(`drawbridge.masked.${type}`, count);
    for (const [action, count] of Object.entries(this.#view?.read.counts ?? {}))
      this.#span?.set(`drawbridge.inspected.${action}`, count);
    if (this.#view !== undefined)
      this.#parts.flow?.heard(this.#by, this.#session?.id, this.#view, outcome === "permitted");
    const { traceId, spanId, sampled } = this.trace;
    const type = error?.code ?? (isError ? "tool_error" : undefined);
    const status = statusOf(error?.code);
    if (status !== undefined) this.#span?.set("rpc.response.status_code", status);
    telemetry.call({
      method: inbound?.method ?? "invalid",
      outcome,
      seconds: record.durationMs / 1000,
      server: target?.server ?? "",
      ...(target?.kind === "tool" && target.server !== "" && { tool: target.name }),
      ...(target?.kind === "prompt" && target.server !== "" && { prompt: target.name }),
      ...(type !== undefined && { errorType: type }),
      ...(sampled && { exemplar: { traceId, spanId, record: record.id } }),
    });
    // Health checks of clients are no calls: they touch nothing and would bury what does.
    if (inbound?.method === "ping") {
      this.#span?.end(type);
      return Promise.resolve();
    }
    const written = journal.append(
      result === undefined
        ? record
        : { ...record, result: { ...this.#field(result, auditFields.results, "recordedResult"), isError } },
    );
    this.#endWith(written, type);
    return written;
  }

  /** The span ends when the record is as safe as the settings ask, or could not be written. */
  #endWith(written: Promise<void>, type: string | undefined): void {
    const span = this.#span;
    if (span?.recording !== true) {
      span?.end(type);
      return;
    }
    written.then(
      () => {
        span.step("record");
        span.end(type);
      },
      () => span.end("audit_unavailable"),
    );
  }

  #argumentsOf({ method, paramTexts, params }: InboundRequest): string | undefined {
    if (method === "tools/call" || method === "prompts/get") return paramTexts.get("arguments");
    const { uri } = params;
    if (typeof uri !== "string" || this.#argumentsMode !== "full") return paramTexts.get("uri");
    return JSON.stringify(this.#parts.masking.recordedUri(uri));
  }
  /** The arguments of a call; marked where policy saw others, because values are masked here or stand-ins were put back there. */
  #argumentsField(text: string, inbound: InboundRequest | undefined): RecordedField | undefined {
    const kept = this.#field(text, this.#argumentsMode);
    if (kept === undefined || !("json" in kept)) return kept;
    const asked = inbound?.params["uri"] === undefined ? text : JSON.stringify(inbound.params["uri"]);
    const same = kept.json === oneLine(asked) && this.#view?.putBack !== true;
    return same ? kept : { ...kept, inexact: true };
  }
  /** A value as the record keeps it: its hash is of what came or left, its text is masked. */
  #field(text: string, mode: FieldMode, as: "recorded" | "recordedResult" = "recorded"): RecordedField | undefined {
    const { maxFieldBytes } = this.#parts.auditFields;
    if (mode !== "full" || text.length > maxFieldBytes) return field(text, mode, maxFieldBytes);
    const masked = this.#parts.masking[as](text, this.#view?.contract);
    return masked === undefined ? field(text, "hash", maxFieldBytes) : field(masked, mode, maxFieldBytes);
  }
  #toldOf({ code, message, detail }: DrawbridgeError): NonNullable<AuditRecord["error"]> {
    const { masking } = this.#parts;
    return {
      code,
      message: masking.recordedText(message),
      ...(detail !== undefined && { detail: masking.recordedText(detail) }),
    };
  }
  /** Names that the catalogue knows are the operator's; all others a caller made up. */
  #nameOf({ kind, server, name }: Target): string {
    const { masking } = this.#parts;
    if (kind === "resource") return masking.recordedUri(name);
    return server === "" ? masking.recordedText(name) : name;
  }
  #requestId({ id }: InboundRequest): string {
    return typeof id === "string" ? this.#parts.masking.recordedText(id) : String(id);
  }

  /** What was found in the answer and done about it, without a word of it. */
  #inspected(): JsonObject | undefined {
    const { findings = [], counts = {} } = this.#view?.read ?? {};
    if (findings.length === 0 && Object.keys(counts).length === 0) return undefined;
    const { masking } = this.#parts;
    return {
      counts: { ...counts },
      findings: findings.map(({ rule, confidence, action, where }) => ({
        rule,
        confidence,
        action,
        where: masking.recordedText(where.slice(0, MAX_WHERE)),
      })),
    };
  }

  #recordOf(outcome: RecordOutcome, error: AuditRecord["error"]): AuditRecord {
    const { replica } = this.#parts;
    const inbound = this.#inbound;
    const target = this.#target;
    const trace = this.trace;
    const asks = this.#link !== undefined || this.#questions !== undefined;
    const masked = Object.keys(this.#view?.counts ?? {}).length > 0;
    const inspected = this.#inspected();
    const args = inbound === undefined ? undefined : this.#argumentsOf(inbound);
    return {
      id: this.#id,
      kind: "call",
      at: this.#at,
      durationMs: performance.now() - this.#started,
      outcome,
      ...(error !== undefined && { error }),
      principal: recordedPrincipal(this.#by),
      ...(inbound !== undefined && {
        call: {
          method: inbound.method,
          revision: this.#session?.revision ?? inbound.revision,
          requestId: typeof inbound.id === "string" ? this.#requestId(inbound) : inbound.id,
          ...(target !== undefined && {
            server: target.server,
            kind: target.kind,
            name: this.#nameOf(target),
            upstreamName: this.#nameOf({ ...target, name: target.upstreamName }),
          }),
          ...(target !== undefined && this.#nameOf(target) !== target.name && { inexact: true as const }),
          ...(target?.pin !== undefined && { pin: target.pin }),
          ...(this.#session !== undefined && { session: hash("sha256", this.#session.id, "base64url") }),
          ...(this.#credential !== undefined && {
            audience: this.#credential.audience,
            upstreamTokenId: this.#credential.id,
          }),
        },
      }),
      ...(args !== undefined && { arguments: this.#argumentsField(args, inbound) }),
      ...(this.#decision !== undefined && { decision: this.#decision }),
      policy: this.#policy,
      trace: { traceId: trace.traceId, spanId: trace.spanId },
      ...(this.#source !== undefined && { source: this.#source }),
      replica,
      ...((asks ||
        masked ||
        inspected !== undefined ||
        this.#task !== undefined ||
        this.#steps !== undefined ||
        this.#approval !== undefined) && {
        details: {
          ...this.#steps,
          ...(asks && {
            interaction: { ...this.#link, questions: (this.#questions ?? []).map((entry) => ({ ...entry })) },
          }),
          ...(this.#task !== undefined && { task: this.#task }),
          ...(this.#approval !== undefined && { approval: this.#approval }),
          ...(masked && { masked: { ...this.#view?.counts } }),
          ...(inspected !== undefined && { inspected }),
        } as JsonObject,
      }),
    };
  }
}

/** `rpc.response.status_code` of the MCP semantic conventions: the JSON-RPC code, as the server said it or as we do. */
function statusOf(code: string | undefined): string | undefined {
  if (code === undefined || /^-?\d+$/.test(code)) return code;
  const rpc = Object.hasOwn(ERRORS, code) ? ERRORS[code as ErrorCode].rpc : undefined;
  return rpc === undefined ? undefined : String(rpc);
}
