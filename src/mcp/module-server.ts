/**
 * A server that is a module of this process: what a package that declares one (`author/`) and whoever runs it agree on. Found by a
 * symbol of the global registry, since the module may have been written against another copy of the package.
 */
import type { JsonObject, Outcome, Principal, Question, QuestionAnswer, Revision, TraceContext } from "../core/call.ts";
import type { ListKey } from "./methods.ts";

export const MODULE_SERVER = Symbol.for("drawbridge-mcp/author/1");

export interface ModuleServer {
  readonly [MODULE_SERVER]: true;
  readonly identity: {
    readonly info: JsonObject;
    readonly capabilities: JsonObject;
    readonly instructions: string | undefined;
  };
  list(list: ListKey): readonly JsonObject[];
  /** What it declares of itself in the form of the settings file, as the server of this name. */
  contracts(server: string): ModuleContracts;
  /** Resolves with the one outcome, an error included. Rejects with a `DrawbridgeError` when there is none: cancelled, out of time. */
  call(call: ModuleCall): Promise<Outcome>;
}

/** Parts of a settings file; `tools`, `resources` and `prompts` are contracts, the others are by names of tools. */
export type ModuleContracts = Readonly<
  Record<
    "tools" | "resources" | "prompts" | "limits" | "stepUp",
    Readonly<Record<string, JsonObject | string | readonly string[]>>
  >
>;

export interface ModuleCall {
  /** `tools/call`, `resources/read` or `prompts/get`. */
  readonly method: string;
  readonly params: JsonObject;
  /** What the client speaks; absent where nobody knows. */
  readonly revision?: Revision | undefined;
  readonly principal: Principal;
  readonly signal: AbortSignal;
  /** Takes `params` of `notifications/progress` without its token; absent when the client wants no progress. */
  readonly progress?: ((params: JsonObject) => void) | undefined;
  /** Absent when the client can be asked nothing. */
  readonly ask?: ((question: Question, withdrawn: AbortSignal) => Promise<QuestionAnswer>) | undefined;
  /** A token for the API behind the server in the caller's name, never the caller's own. Absent where nobody exchanges tokens. */
  readonly token?: ((signal: AbortSignal) => Promise<string>) | undefined;
  readonly trace?: TraceContext | undefined;
  readonly log: ModuleLog;
  /** Begins a span below that of the call; absent where nobody traces. */
  readonly span?:
    | ((name: string, attributes: Readonly<Record<string, string | number | boolean>>) => ModuleSpan)
    | undefined;
}

export type ModuleLog = Readonly<
  Record<"debug" | "info" | "warn" | "error", (fields: object, message: string) => void>
>;

export interface ModuleSpan {
  readonly context: TraceContext;
  end(errorType?: string): void;
}

/** The one server among the exports of a module; a sentence when there is none, or more. */
export function moduleServerIn(exports: Readonly<Record<string, unknown>>): ModuleServer | string {
  const found = new Set(Object.values(exports).filter(isModuleServer));
  const [first] = found;
  if (first === undefined) return "exports no server; write `export const desk = server({ … })`";
  return found.size === 1 ? first : "exports more than one server; give each a module of its own";
}

function isModuleServer(value: unknown): value is ModuleServer {
  return typeof value === "object" && value !== null && Reflect.get(value, MODULE_SERVER) === true;
}
