/**
 * Masking: takes what is private out of texts and JSON on their way to a client. What is masked depends on who asks; all else stays
 * byte for byte as it was. Detectors say what is private by its form (`detectors/`), settings say it of fields by their path.
 */
import { type Clock, systemClock } from "../core/clock.ts";
import { compileGlob } from "../core/glob.ts";
import { decoded, encoded, type Token, walk } from "../core/json-tokens.ts";
import type { Secret } from "../core/secret.ts";
import type { Records } from "../store/ports.ts";
import { DETECTORS } from "./detectors/all.ts";
import { applied, type Edit, type PrivatePart } from "./edits.ts";
import { hasher, Pass, type Shape, type Shared } from "./pass.ts";
import { compilePatterns } from "./patterns.ts";
import { plansOf } from "./plan.ts";
import { compileScan } from "./scan.ts";
import type { MaskSettings } from "./settings.ts";
import { type MaskStream, maskStream } from "./stream.ts";
import { type Allowed, type PutBack, tokens } from "./tokens.ts";

export type { Exception, Shape } from "./pass.ts";
export type { PutBack } from "./tokens.ts";

/** Whom an answer is for. */
export interface Viewer {
  readonly subject: string;
  readonly roles: readonly string[];
}

export interface Masked {
  readonly text: string;
  /** How many values of each type were masked; `field` are those that a path named. For logs and metrics: no value is in it. */
  readonly counts: Readonly<Record<string, number>>;
  /** Where in the original something was private, in order. */
  readonly parts: readonly PrivatePart[];
  /** Something private was found that this viewer sees all the same, by `see` or by `keep`. */
  readonly shown: boolean;
  /**
   * Resolves when the stand-ins that `text` shows are stored; undefined when there are none to store. Await it before the text
   * leaves. It rejects when they could not be stored: the text must not leave then.
   */
  readonly kept: Promise<void> | undefined;
}

export interface Masker {
  /** Masks a text. One that is JSON is masked as such: it stays valid. */
  text(text: string, viewer: Viewer): Masked;
  /**
   * Masks JSON text that `JSON.parse` accepts: strings, keys, numbers, and JSON within strings. What comes out is valid, values keep
   * their type (a private number is `0`), and nothing but private values changes. Throws `upstream_failed` for a document that is
   * nested too deeply to find a field in it. `shape`: which parts of it are data, when not all of it is.
   */
  json(text: string, viewer: Viewer, shape?: Shape): Masked;
  /** Masks a text that comes in pieces. However it is cut, the same comes out. */
  stream(viewer: Viewer): MaskStream;
  /**
   * Puts true values in place of this user's stand-ins in the JSON text of a tool's arguments, when the tool is one of
   * `allowedTools` (globs); otherwise nothing changes and the stand-ins go as they are, worth nothing. Throws `invalid_params` for a
   * stand-in that has expired or is another user's.
   */
  restore(args: string, viewer: Viewer, tool: string, allowedTools: readonly string[]): Promise<string>;
  /** The same for all tools, or for stand-ins of some types alone, with what was put back, once for each. */
  putBack(
    args: string,
    viewer: Viewer,
    types: Allowed,
  ): Promise<{ readonly text: string; readonly put: readonly PutBack[] }>;
  /** Forgets every stand-in of a user: when their access ends. */
  forget(subject: string): Promise<void>;
  /** The same detectors, marks and stand-ins with other actions, fields and roles. Its `patterns` are to be those of this one. */
  as(settings: MaskSettings): Masker;
}

export interface MaskerParts {
  /** Hashes, stand-ins and their encryption are derived from it. Replicas share it. */
  readonly key: Secret;
  readonly records: Records;
}

const NONE: Readonly<Record<string, number>> = Object.freeze({});
const NO_PARTS: readonly PrivatePart[] = Object.freeze([]);
/**
 * Compiles the settings once. Throws `settings_invalid` for patterns and paths that cannot be read. Without `parts` there is nothing
 * to derive stand-ins and hashes from, and what asks for them is redacted.
 */
export function compileMasker(settings: MaskSettings, parts?: MaskerParts, clock: Clock = systemClock): Masker {
  const patterns = compilePatterns(settings.patterns);
  const scan = compileScan(DETECTORS, patterns);
  const marks = parts && {
    standIns: tokens(parts.records, parts.key, settings.standInHours * 3_600_000, clock),
    hash: hasher(parts.key),
  };
  const scanForSecrets = compileScan(DETECTORS.filter(({ about }) => about === "secret"));
  const shared: Shared = { scan, scanForSecrets, marks };
  const detectors = [...DETECTORS, ...patterns];

  const under = (settings: MaskSettings): Masker => {
    const plans = plansOf(settings, detectors);
    // What cannot be read is refused now, and not when the first such user comes.
    plans(Object.keys(settings.see));
    plans([]);

    const masked = (viewer: Viewer, edit: (pass: Pass) => readonly Edit[], text: string): Masked => {
      const plan = plans(viewer.roles);
      if (plan.idle) return unchanged(text);
      const pass = new Pass(plan, viewer.subject, shared);
      const edits = edit(pass);
      if (edits.length === 0) return unchanged(text, pass.shown);
      const kept = pass.pending.length === 0 ? undefined : marks?.standIns.keep(pass.pending);
      return { text: applied(text, edits), counts: pass.counts, parts: edits, shown: pass.shown, kept };
    };
    const text = (given: string, viewer: Viewer) => masked(viewer, (pass) => pass.text(given, 0), given);
    const putBack: Masker["putBack"] = async (args, viewer, types) => {
      if (marks === undefined) return { text: args, put: [] };
      const put = new Map<string, PutBack>();
      const restored = await throughStrings(args, async (string) => {
        const found = await marks.standIns.restore(string, viewer.subject, types);
        for (const one of found.put) put.set(one.standIn, one);
        return found.text;
      });
      return { text: restored, put: [...put.values()] };
    };

    return {
      text,
      json: (given, viewer, shape) => masked(viewer, (pass) => pass.json(given, 0, shape), given),
      stream: (viewer) =>
        maskStream({
          whole: (given) => text(given, viewer),
          scan: (given, from) => scan(given, from).spans,
          replace: (given, spans, lines) => masked(viewer, (pass) => pass.replacements(given, spans, lines), given),
        }),
      restore: async (args, viewer, tool, allowedTools) => {
        if (!allowedTools.some((glob) => compileGlob(glob)(tool))) return args;
        return (await putBack(args, viewer, true)).text;
      },
      putBack,
      forget: async (subject) => marks?.standIns.forget(subject),
      as: under,
    };
  };
  return under(settings);
}

/** A text in which nothing is masked. */
export function unchanged(text: string, shown = false): Masked {
  return { text, counts: NONE, parts: NO_PARTS, shown, kept: undefined };
}

/** JSON text with every string and number put through `restore`. */
async function throughStrings(args: string, restore: (text: string) => Promise<string>): Promise<string> {
  const tokens: Token[] = [];
  walk<undefined>(args, undefined, {
    member: () => undefined,
    element: () => undefined,
    drops: () => false,
    dropped: () => {},
    scalar: (token) => {
      if (token.kind === "string" || token.kind === "number") tokens.push(token);
    },
  });
  const edits: Edit[] = [];
  for (const { kind, start, end } of tokens) {
    const written = args.slice(start, end);
    const value = kind === "string" && written.includes("\\") ? decoded(args, start, end).text : written;
    const text = await restore(value);
    if (text !== value) edits.push({ start, end, type: "field", text: kind === "string" ? encoded(text) : text });
  }
  return applied(args, edits);
}
