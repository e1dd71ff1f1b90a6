/** The kinds of sign that an answer is read for, and what is said of each. */
import type { OwaspId } from "../finding.ts";
import type { Span } from "../reading.ts";

/** A kind of sign. `docs/rules/` tells of those that definitions have, too. */
export interface AnswerRule {
  readonly id: string;
  readonly owasp: OwaspId;
  /** What is said to whoever reads a withheld answer, after "it". */
  readonly says: string;
}

export const ANSWER_RULES = {
  override: { id: "override-instructions", owasp: "MCP06", says: "tells the model to drop its instructions" },
  turn: { id: "fake-turn", owasp: "MCP06", says: "imitates the markup of a conversation" },
  authority: { id: "fake-authority", owasp: "MCP06", says: "speaks as the system or an administrator" },
  address: { id: "addresses-the-model", owasp: "MCP06", says: "speaks to the model that reads it" },
  persona: { id: "new-task", owasp: "MCP06", says: "gives the model another task or role" },
  conceal: { id: "concealment", owasp: "MCP06", says: "tells the model to hide something from the user" },
  exfiltrate: { id: "exfiltration", owasp: "MCP06", says: "has the conversation or secrets sent away" },
  leak: { id: "prompt-leak", owasp: "MCP06", says: "asks for the model's own instructions" },
  secrets: { id: "credential-reading", owasp: "MCP01", says: "has files with secrets read" },
  tool: { id: "tool-order", owasp: "MCP06", says: "orders tools to be called" },
  tamper: { id: "answer-tampering", owasp: "MCP06", says: "dictates what the user is told" },
  consent: { id: "false-consent", owasp: "MCP06", says: "claims the user's consent" },
  memory: { id: "memory-poisoning", owasp: "MCP06", says: "writes into the model's memory" },
  place: { id: "hidden-text", owasp: "MCP06", says: "stands where no reader would see it" },
  disguise: { id: "disguised-text", owasp: "MCP06", says: "is written in disguise" },
} as const satisfies Record<string, AnswerRule>;

export type AnswerRuleName = keyof typeof ANSWER_RULES;

export interface Sign extends Span {
  readonly rule: AnswerRuleName;
  /** 3 is enough to neutralise, 2 to label. */
  readonly weight: number;
}
