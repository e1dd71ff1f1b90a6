/**
 * Masking in the gateway: what leaves it as its caller may have it, what is written down as nobody's, and stand-ins on their way back.
 * Answers follow `mask:` and the contract of what was called; records, logs and traces are masked whatever that says.
 */
import type { Contract } from "../contract/contract.ts";
import type { JsonObject, JsonValue, Outcome, Principal, Question } from "../core/call.ts";
import { compileGlob } from "../core/glob.ts";
import { compileMasker, type Masked, type Masker, type PutBack, type Shape, type Viewer } from "../mask/masker.ts";
import { type Action, type MaskSettings, maskSettings } from "../mask/settings.ts";
import { asksMore } from "../mcp/interaction.ts";
import { isObject } from "../mcp/json-text.ts";
import type { Records } from "../store/ports.ts";
import { type Inspection, type ReadAnswer, unread } from "./inspection.ts";
import { asPromised } from "./masking/as-promised.ts";
import { withoutEchoes, withoutEchoesInText } from "./masking/echoes.ts";
import { secretOf } from "./masking/key.ts";
import { maskedUri, shapeOfErrorData, shapeOfNotification, shapeOfQuestion, shapeOfResult } from "./masking/shapes.ts";

/** `mask:` as it is written; undefined when it is not. */
export type WrittenMask = MaskSettings | "off" | undefined;
/** How many values of each type were masked. */
export type Counts = Readonly<Record<string, number>>;

export interface Masking {
  /** What one caller may see. */
  viewOf(by: Principal): View;
  /** JSON text as it is written down; undefined when that cannot be told of it, and then none of it may be. */
  recorded(json: string, contract?: Contract): string | undefined;
  /** The same of the result of a request. */
  recordedResult(json: string, contract?: Contract): string | undefined;
  recordedText(text: string): string;
  recordedUri(uri: string): string;
  /** The definition of a tool, prompt or resource, or words of a server about itself: without secrets. */
  definition(json: string): string;
  words(text: string): string;
  /**
   * Arguments with true values in place of the caller's stand-ins, where the tool may have them; undefined: they stay as they are.
   * Rejects with `invalid_params` for a stand-in that has expired or was given to somebody else.
   */
  putBack(
    args: string,
    by: Principal,
    tool: string,
    contract: Contract | undefined,
  ): Promise<{ readonly text: string; readonly put: readonly PutBack[] } | undefined>;
  /** The stand-ins of a user whose access has ended are worth nothing any more. */
  forget(subject: string): Promise<void>;
  /** Other settings, ready to be taken. Throws `settings_invalid`. */
  prepare(written: WrittenMask): () => void;
}

/** What one caller may see of one call, and what of it was masked. */
export interface View {
  /** What is called, by the name that clients use. */
  about(name: string): void;
  /** Looks for instructions in what servers say, before it is masked. */
  readonly read: ReadAnswer;
  /** Of all that was masked so far. */
  readonly counts: Counts;
  /** The caller was shown something private that others would not be. */
  readonly shown: boolean;
  /** The contract of what is called: its fields count, too. */
  readonly contract: Contract | undefined;
  under(contract: Contract | undefined): void;
  /** Said again by the server these values are masked as they came. */
  hasPutBack(put: readonly PutBack[]): void;
  /** True values took the place of stand-ins. */
  readonly putBack: boolean;
  /**
   * The outcome as it may leave. `promised`: the schema that clients were shown for structured content. Rejects when what is shown
   * could not be kept; then nothing may leave.
   */
  outcome(outcome: Outcome, promised?: JsonObject): Promise<Outcome>;
  /** `params` of a notification, as JSON text. Stand-ins are redacted there. */
  said(params: string): string;
  /** Throws `upstream_failed` for a question that is withheld. */
  question(question: Question): Question;
  text(text: string): string;
}

export interface MaskingOptions {
  readonly settings: WrittenMask;
  /** From the store, so that every replica has it. */
  readonly key: Buffer;
  readonly records: Records;
  readonly rolesOf: (by: Principal) => readonly string[];
  /** Hears of each value that was masked in what leaves. */
  readonly counted: (counts: Counts) => void;
  /** Looks through what servers say on the way. Default: nothing does. */
  readonly inspection?: Inspection;
  /** Takes secrets that the gateway knows out of what is written down. */
  readonly conceal?: (text: string) => string;
}

const NOBODY: Viewer = { subject: "", roles: [] };
const WITHHELD =
  "The server's answer cannot be masked so that it is still of the form that was agreed on, so it is withheld. The operator can see why.";

/** The same masks for answers, for what is only said, and for what is written down. */
interface Masks {
  readonly answers: Masker;
  readonly said: Masker;
  readonly records: Masker;
}

interface Current {
  readonly all: Masks;
  readonly definitions: Masker | undefined;
  readonly settings: MaskSettings;
  readonly standInsFor: readonly ((tool: string) => boolean)[];
  readonly ofContracts: WeakMap<Contract, Masks>;
  /** Definitions are listed again and again. */
  readonly defined: Map<string, string>;
}

const MAX_DEFINED = 5_000;

export function openMasking(options: MaskingOptions): Masking {
  const { records, rolesOf, counted, inspection, conceal = (text) => text } = options;
  const key = secretOf(options.key);
  const viewers = new WeakMap<Principal, Viewer>();

  const compiled = (written: WrittenMask): Current => {
    const settings = settingsOf(written);
    const masker = compileMasker(settings, { key, records });
    const masks = (fields: Readonly<Record<string, Action>>): Masks => {
      const its = { ...settings, fields: { ...settings.fields, ...fields } };
      return { answers: masker.as(its), said: masker.as(saidOf(its)), records: masker.as(recordedOf(its)) };
    };
    return {
      settings,
      all: masks({}),
      definitions: written === "off" ? undefined : masker.as(definitionsOf(settings)),
      standInsFor: settings.standInsFor.map((glob) => compileGlob(glob)),
      ofContracts: new WeakMap(),
      defined: new Map(),
    };
  };
  let current = compiled(options.settings);

  /** Contracts are compiled when one is first called. */
  const masksOf = (contract: Contract | undefined): Masks => {
    const fields = contract?.settings?.mask;
    if (contract === undefined || fields === undefined) return current.all;
    const known = current.ofContracts.get(contract);
    if (known !== undefined) return known;
    const its = { ...current.settings, fields: { ...current.settings.fields, ...fields } };
    const { answers } = current.all;
    const made = { answers: answers.as(its), said: answers.as(saidOf(its)), records: answers.as(recordedOf(its)) };
    current.ofContracts.set(contract, made);
    return made;
  };
  const viewerOf = (by: Principal): Viewer => {
    // Roles may be others after a reload, for the same principal.
    const roles = rolesOf(by);
    const known = viewers.get(by);
    if (known?.roles === roles) return known;
    const viewer = { subject: by.subject, roles };
    viewers.set(by, viewer);
    return viewer;
  };

  const writtenDown = (
    json: string,
    contract: Contract | undefined,
    shapeOf: (value: JsonValue, text: (text: string) => string) => Shape | undefined,
  ): string | undefined => {
    const known = conceal(json);
    const { records } = masksOf(contract);
    try {
      const shape = shapeOf(JSON.parse(known) as JsonValue, (text) => records.text(text, NOBODY).text);
      return records.json(known, NOBODY, shape).text;
    } catch {
      return undefined; // No JSON, or nested too deeply to find a field in it: it is kept as its hash.
    }
  };

  return {
    viewOf: (by) => new CallView(viewerOf(by), masksOf, counted, inspection?.read() ?? unread()),
    recorded: (json, contract) => writtenDown(json, contract, () => undefined),
    recordedResult: (json, contract) =>
      writtenDown(json, contract, (value, text) => (isObject(value) ? shapeOfResult(value, text) : undefined)),
    recordedText: (text) => current.all.records.text(conceal(text), NOBODY).text,
    recordedUri(uri) {
      const mask = (text: string) => current.all.records.text(conceal(text), NOBODY).text;
      return mask(maskedUri(uri, mask) ?? uri);
    },
    definition(json) {
      const { definitions, defined } = current;
      if (definitions === undefined) return json;
      let known = defined.get(json);
      if (known === undefined) {
        known = definitions.json(json, NOBODY).text;
        if (defined.size >= MAX_DEFINED) defined.clear();
        defined.set(json, known);
      }
      return known;
    },
    words: (text) => current.definitions?.text(text, NOBODY).text ?? text,
    async putBack(args, by, tool, contract) {
      const types = restoresOf(contract) ?? current.standInsFor.some((matches) => matches(tool));
      if (types === false || !MAY_HOLD.test(args)) return undefined;
      const { text, put } = await masksOf(contract).answers.putBack(args, viewerOf(by), types);
      return put.length === 0 ? undefined : { text, put };
    },
    forget: (subject) => current.all.answers.forget(subject),
    prepare(written) {
      const next = compiled(written);
      return () => {
        current = next;
      };
    },
  };
}

function restoresOf(contract: Contract | undefined): boolean | readonly string[] | undefined {
  const settings = contract?.settings;
  return settings !== undefined && "restores" in settings ? settings.restores : undefined;
}

/** What every stand-in has (`mask/stand-in.ts`), or the escapes that could hide it. */
const MAY_HOLD = /@masked\.example|@[a-km-z2-9]{16}\]|\+999|9999|XX\d\d|2[45]\d\.|2001:db8|8\d{15}|\\[u/]/;

class CallView implements View {
  readonly read: ReadAnswer;
  readonly #viewer: Viewer;
  readonly #masksOf: (contract: Contract | undefined) => Masks;
  readonly #counted: (counts: Counts) => void;
  #contract: Contract | undefined;
  #put: readonly PutBack[] = [];
  #counts: Record<string, number> | undefined;
  #shown = false;

  constructor(
    viewer: Viewer,
    masksOf: (contract: Contract | undefined) => Masks,
    counted: (counts: Counts) => void,
    read: ReadAnswer,
  ) {
    this.read = read;
    this.#viewer = viewer;
    this.#masksOf = masksOf;
    this.#counted = counted;
  }

  about(name: string): void {
    this.read.name = name;
  }
  get counts(): Counts {
    return this.#counts ?? {};
  }
  get shown(): boolean {
    return this.#shown;
  }
  get contract(): Contract | undefined {
    return this.#contract;
  }
  under(contract: Contract | undefined): void {
    this.#contract = contract;
  }
  hasPutBack(put: readonly PutBack[]): void {
    this.#put = put;
  }
  get putBack(): boolean {
    return this.#put.length > 0;
  }

  async outcome(outcome: Outcome, promised?: JsonObject): Promise<Outcome> {
    const { answers, said } = this.#masksOf(this.#contract);
    // Whoever answers a question does not give it to a tool: what stands in for a value would stay there for good.
    const masker = asksMore(outcome) ? said : answers;
    const kept: Promise<void>[] = [];
    const take = (masked: Masked): string => {
      if (masked.kept !== undefined) kept.push(masked.kept);
      return this.#take(masked);
    };
    const text = (given: string) => this.#inText(take(masker.text(given, this.#viewer)));
    let made: Outcome;
    if (outcome.kind === "error") {
      const message = text(outcome.message);
      const data = outcome.data && this.#inJson(take(this.#errorData(outcome.data, masker, text)));
      made = message === outcome.message && data === outcome.data ? outcome : { ...outcome, message, data };
    } else {
      const shape = shapeOfResult(outcome.value, text);
      const result = this.#inJson(take(masker.json(outcome.result, this.#viewer, shape)));
      made = result === outcome.result ? outcome : await asPromised(outcome, result, promised, WITHHELD);
    }
    if (kept.length > 0) await Promise.all(kept);
    return made;
  }

  said(params: string): string {
    return this.#said(this.read.said(params), (value) => shapeOfNotification(value));
  }
  question({ method, params }: Question): Question {
    return { method, params: this.#said(this.read.question(params), (value, text) => shapeOfQuestion(value, text)) };
  }
  text(text: string): string {
    const { said } = this.#masksOf(this.#contract);
    return this.#inText(this.#take(said.text(text, this.#viewer)));
  }

  #said(params: string, shapeOf: (value: JsonObject, text: (text: string) => string) => Shape): string {
    const { said } = this.#masksOf(this.#contract);
    const value = JSON.parse(params) as JsonValue;
    const shape = isObject(value) ? shapeOf(value, (text) => this.text(text)) : undefined;
    return this.#inJson(this.#take(said.json(params, this.#viewer, shape)));
  }

  #errorData(data: string, masker: Masker, text: (text: string) => string): Masked {
    return masker.json(data, this.#viewer, shapeOfErrorData(JSON.parse(data) as JsonValue, text));
  }

  #inJson(text: string): string {
    return this.#put.length === 0 ? text : withoutEchoes(text, this.#put);
  }
  #inText(text: string): string {
    return this.#put.length === 0 ? text : withoutEchoesInText(text, this.#put);
  }

  #take({ text, counts, shown }: Masked): string {
    if (shown) this.#shown = true;
    const types = Object.keys(counts);
    if (types.length === 0) return text;
    this.#counts ??= {};
    for (const type of types) this.#counts[type] = (this.#counts[type] ?? 0) + (counts[type] ?? 0);
    this.#counted(counts);
    return text;
  }
}

// ---- settings ----

function settingsOf(written: WrittenMask): MaskSettings {
  if (written === undefined) return maskSettings.parse({ people: "keep" });
  return written === "off" ? maskSettings.parse({ people: "keep", secrets: "keep" }) : written;
}

type Change = (action: Action) => Action;

function changed(settings: MaskSettings, change: Change): MaskSettings {
  const each = <T extends string>(actions: Readonly<Partial<Record<T, Action>>>) =>
    Object.fromEntries(Object.entries(actions).map(([name, action]) => [name, change(action as Action)]));
  return {
    ...settings,
    people: change(settings.people),
    secrets: change(settings.secrets),
    types: each(settings.types) as MaskSettings["types"],
    fields: each(settings.fields),
    patterns: Object.fromEntries(
      Object.entries(settings.patterns).map(([name, one]) => [name, { ...one, do: change(one.do) }]),
    ),
  };
}

/** What is said on the way cannot wait until a stand-in is kept. */
function saidOf(settings: MaskSettings): MaskSettings {
  return changed(settings, (action) => (action === "token" ? "redact" : action));
}

/** Nobody's view: nothing is shown that could be turned back, whatever answers show. */
export function recordedOf(settings: MaskSettings): MaskSettings {
  const fields = Object.fromEntries(Object.entries(settings.fields).filter(([, action]) => action !== "keep"));
  const quiet = changed({ ...settings, fields }, (action) =>
    action === "hash" || action === "drop" ? action : "redact",
  );
  return { ...quiet, see: {} };
}

/** Names and schemas are what they are; in words and defaults nobody needs a key. */
const SCHEMA_WORDS = ["name", "uri", "uriTemplate", "pattern", "enum", "const", "required", "$ref", "$id", "mimeType"];

function definitionsOf(settings: MaskSettings): MaskSettings {
  const kept = changed(settings, () => "keep");
  return {
    ...kept,
    secrets: settings.secrets === "keep" ? "keep" : "redact",
    types: Object.fromEntries(
      Object.entries(settings.types).filter(([, action]) => action === "keep"),
    ) as MaskSettings["types"],
    fields: Object.fromEntries(SCHEMA_WORDS.map((word) => [word, "keep" as const])),
    see: {},
  };
}

// ---- the log ----

/** Takes what is private out of lines of the log, before there is a store. */
export interface Scrubber {
  line(line: string): string;
  /** Throws `settings_invalid`. */
  prepare(written: WrittenMask): () => void;
}

export function openScrubber(written: WrittenMask): Scrubber {
  const compiled = (settings: WrittenMask) => {
    const quiet = changed(recordedOf(settingsOf(settings)), () => "redact");
    // Where the gateway listens and who comes from where is what a log is for.
    return compileMasker({ ...quiet, types: { ...quiet.types, ip_address: "keep" } });
  };
  let masker = compiled(written);
  return {
    line: (line) => masker.text(line, NOBODY).text,
    prepare(settings) {
      const next = compiled(settings);
      return () => {
        masker = next;
      };
    },
  };
}
