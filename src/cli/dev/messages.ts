/** What `drawbridge dev` and the process with one version of the developed server say to each other. */
import type { Grades } from "../../check/grade.ts";
import type { JsonObject } from "../../core/call.ts";
import type { ServedServer } from "../../gateway/gateway.ts";

/** What is developed: a module, or a settings file; absolute. */
export type Subject = { readonly module: string } | { readonly file: string };

/** Who issues tokens to the versions, and what a version is called there when it asks for one. */
export interface IssuerPlace {
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: string;
}

export type ToVersion =
  | { readonly kind: "start"; readonly subject: Subject; readonly issuer: IssuerPlace; readonly logLevel: string }
  | { readonly kind: "ask"; readonly id: number; readonly about: Question }
  | { readonly kind: "close" };

export type Question =
  | { readonly about: "evidence"; readonly traceId: string }
  | { readonly about: "grade"; readonly tools: readonly JsonObject[] };

export type FromVersion =
  /** It has loaded all that is not the developer's, and can be started. */
  | { readonly kind: "warm" }
  /** Files of the developer that it has read, or wanted. */
  | { readonly kind: "files"; readonly files: readonly string[] }
  | { readonly kind: "ready"; readonly offer: Offer }
  | { readonly kind: "failed"; readonly problem: string }
  | { readonly kind: "answer"; readonly id: number; readonly answer: Evidence | Grading | undefined };

/** A version that can be called. */
export interface Offer {
  /** The MCP endpoint. */
  readonly url: string;
  readonly name: string;
  readonly roles: readonly Role[];
  readonly scopes: readonly { readonly scope: string; readonly title: string }[];
  readonly servers: readonly ServedServer[];
  readonly withheld: readonly { readonly kind: string; readonly name: string; readonly reason: string }[];
  readonly warnings: readonly string[];
}

/** A role that one can call as. */
export interface Role {
  readonly name: string;
  readonly title: string;
  /** Who has it by the settings: what a caller is called and belongs to, unless somebody says otherwise. */
  readonly subject: string;
  readonly groups: readonly string[];
}

/** What is known of one call, by its trace. */
export interface Evidence {
  /** What handlers returned or threw, in their order, each with its JSON text; and what other servers answered. */
  readonly handled: readonly Handled[];
  /** Audit records, oldest first. */
  readonly records: readonly JsonObject[];
}
export interface Handled {
  readonly from: "handler" | "server";
  readonly threw: boolean;
  /** JSON where it can be JSON; otherwise as it prints. Cut where it is very long. */
  readonly text: string;
}

export interface Grading {
  readonly grades: Grades;
  readonly findings: readonly {
    readonly tool: string | undefined;
    readonly rule: string;
    readonly severity: string;
    readonly why: string;
    readonly fix: string;
  }[];
}
