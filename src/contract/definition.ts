/** A definition of an upstream (tool, prompt, resource template, resource) as data, and the hash that pins it. */
import { hash } from "node:crypto";
import canonicalize from "canonicalize";
import type { JsonObject } from "../core/call.ts";

export type DefinitionKind = "tool" | "resource" | "resourceTemplate" | "prompt";

export interface Definition {
  readonly server: string;
  readonly kind: DefinitionKind;
  /** What the upstream calls it: name of a tool or prompt, URI of a resource, URI template. */
  readonly name: string;
  readonly value: JsonObject;
  /** As the upstream wrote it. */
  readonly text: string;
}

/** Reads one entry of an upstream's list; undefined when it has no usable name. */
export function readDefinition(server: string, kind: DefinitionKind, text: string): Definition | undefined {
  const value = JSON.parse(text) as JsonObject;
  const name = value[kind === "resource" ? "uri" : kind === "resourceTemplate" ? "uriTemplate" : "name"];
  if (typeof name !== "string" || name === "" || name.length > 4096) return undefined;
  return { server, kind, name, value, text };
}

/** SHA-256 over the RFC 8785 canonical form: equal for equal definitions, whatever the order of keys or white space. */
export function pinOf(definition: Definition): string {
  return `sha256:${hash("sha256", canonicalize(definition.value) ?? "", "hex")}`;
}
