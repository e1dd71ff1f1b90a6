/** What is proposed to a person, and what for. */
import type { JsonObject, JsonValue } from "../../core/call.ts";
import type { Access } from "../contract.ts";

/** What a server lists, as it came. */
export interface Offer {
  /** Its name in the settings. */
  readonly server: string;
  readonly tools: readonly JsonObject[];
  readonly resources?: readonly JsonObject[];
  readonly resourceTemplates?: readonly JsonObject[];
  readonly prompts?: readonly JsonObject[];
  /** Answers of read-only tools that were called once: the JSON in them, by the tool's name. */
  readonly samples?: ReadonlyMap<string, JsonValue>;
}

export interface Proposal {
  /** In groups by what they are about. */
  readonly tools: readonly ProposedTool[];
  readonly resources: readonly ProposedEntry[];
  readonly prompts: readonly ProposedEntry[];
  readonly leftOut: readonly LeftOut[];
}

export interface ProposedEntry {
  /** What clients call it. */
  readonly name: string;
  /** As it stands in the settings file. */
  readonly contract: JsonObject;
  readonly remarks: readonly Remark[];
}

export interface ProposedTool extends ProposedEntry {
  /** What it is about, in the singular: `order`. */
  readonly about: string;
  readonly access: Access;
  /** For the group that begins with it: what several of its tools achieve together. */
  readonly together: string | undefined;
}

/** A sentence for the person who edits the file, at keys below the contract; it stands before that key. */
export interface Remark {
  readonly path: readonly string[];
  readonly text: string;
}

export interface LeftOut {
  readonly kind: "tool" | "resource" | "prompt";
  readonly name: string;
  readonly why: string;
}
